"""One process's share: equal lengths, nothing lost, another order in each epoch."""

from __future__ import annotations

import math
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.context.seeds import key_of
from headrace.errors import ArgumentError
from headrace.plan.order import Shuffled
from headrace.samplers import DistributedSampler


@given(
    size=st.integers(0, 100),
    replicas=st.integers(1, 130),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_the_shares_are_equal_and_hold_everything(
    size: int, replicas: int, shuffle: bool, drop_last: bool, epoch: int
) -> None:
    """Put the shares together: the epoch's order, cut short or started again to be divided."""
    shares = []
    for rank in range(replicas):
        sampler = DistributedSampler(range(size), replicas, rank, shuffle, 5, drop_last)
        sampler.set_epoch(epoch)
        shares.append(list(sampler))
        assert len(sampler) == len(shares[-1]) == sampler.num_samples
        assert all(type(index) is int for index in shares[-1])
    assert {len(share) for share in shares} == {size // replicas if drop_last else math.ceil(size / replicas)}
    together = list(chain.from_iterable(zip(*shares, strict=True)))
    order = list(Shuffled(size, key_of(5)).keys(epoch, 0, size)) if shuffle else list(range(size))
    assert together == (order * replicas)[: len(together)]


def test_an_epoch_of_one_seed_is_no_epoch_of_another() -> None:
    """Key the order by the pair, never by the sum of seed and epoch."""
    orders = []
    for seed in range(4):
        sampler = DistributedSampler(range(1000), 1, 0, seed=seed)
        for epoch in range(4):
            sampler.set_epoch(epoch)
            orders.append(tuple(sampler))
    assert len(set(orders)) == 16


def test_without_set_epoch_the_order_stays() -> None:
    """Give the same order in every pass over one epoch."""
    sampler = DistributedSampler(range(100), 3, 1)
    first = list(sampler)
    assert first == list(sampler)
    sampler.set_epoch(2)
    assert sampler.epoch == 2
    assert first != list(sampler)


@pytest.mark.parametrize(
    ("replicas", "rank", "words"),
    [
        (3, 3, r"Invalid rank 3, rank should be in the interval \[0, 2\]"),
        (3, -1, "Invalid rank -1"),
        (0, 0, "num_replicas must be an integer from 1 up; got 0"),
        (2, 0.5, "rank must be an integer"),
    ],
)
def test_a_rank_that_is_not_there_is_refused(replicas: int, rank: int, words: str) -> None:
    """Name the rank and those there are."""
    with pytest.raises(ArgumentError, match=words):
        DistributedSampler(range(10), replicas, rank)


def test_seed_and_epoch_are_checked() -> None:
    """Take integers from 0 up."""
    with pytest.raises(ArgumentError, match="seed must be"):
        DistributedSampler(range(10), 2, 0, seed=-1)
    with pytest.raises(ArgumentError, match="epoch must be an integer from 0 up; got -1"):
        DistributedSampler(range(10), 2, 0).set_epoch(-1)
    with pytest.raises(TypeError, match="epoch must be an integer"):
        DistributedSampler(range(10), 2, 0).set_epoch(1.5)  # type: ignore[arg-type]


def test_the_launcher_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read what torchrun sets, where nothing was given; what was given goes first."""
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    sampler = DistributedSampler(range(8), shuffle=False)
    assert (sampler.num_replicas, sampler.rank, list(sampler)) == (4, 2, [2, 6])
    assert list(DistributedSampler(range(8), rank=3, shuffle=False)) == [3, 7]


@pytest.mark.parametrize("value", [None, "", "two"])
def test_no_group_and_no_launcher_is_an_error(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    """Say what is missing in torch's words, and how to give it."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if value is not None:
        monkeypatch.setenv("WORLD_SIZE", value)
    with pytest.raises(ValueError, match=r"Default process group has not been initialized.*WORLD_SIZE"):
        DistributedSampler(range(10))
