"""Batches that are planned window by window: nothing before a window, and the end is found when it comes."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import DataLoader, Ledger, verify_epoch
from headrace.context.seeds import key_of
from headrace.datasets import GroupedDataset
from headrace.errors import ArgumentError, ArgumentTypeError
from headrace.plan.batch_plan import RankShare
from headrace.plan.batch_sampler_plan import BatchSamplerPlan
from headrace.plan.order import Shuffled
from headrace.plan.packing import best_fit, best_fit_by_steps
from headrace.plan.sample_lengths import CHECKED
from headrace.samplers import (
    MixtureSampler,
    PackingBatchSampler,
    Piece,
    PlannedSampler,
    ShardSampler,
    TokenBatchSampler,
)
from headrace.testing import BatchSamplerTests

if TYPE_CHECKING:
    from headrace.context.seeds import Key

BILLION = 10**9


class Counted(PlannedSampler[int]):
    """All indices of so many samples, backwards, and how many of them were asked for."""

    def __init__(self, size: int) -> None:
        super().__init__(None)
        self.size = size
        self.asked = 0

    def order(self, key: Key) -> Counted:
        return self

    def keys(self, epoch: int, start: int, stop: int) -> range:
        self.asked += stop - start
        return range(self.size - 1 - start, self.size - 1 - stop, -1)

    def __len__(self) -> int:
        return self.size

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {"size": self.size}


class Keys:
    def __len__(self) -> int:
        return BILLION

    def __getitem__(self, key: Any) -> Any:
        return key


def batch_samplers(lengths: Any, sampler: Any, **how: Any) -> list[Any]:
    return [
        PackingBatchSampler(lengths, 1000, 8, sampler=sampler, window=512, **how),
        TokenBatchSampler(lengths, 8000, sampler=sampler, window=512, **how),
    ]


def loader_of(batches: Any, **how: Any) -> DataLoader[Any]:
    return DataLoader(Keys(), batch_sampler=batches, collate_fn=list, **how)


@pytest.mark.parametrize("which", [0, 1])
def test_the_first_batch_of_a_billion_samples_needs_one_window(which: int) -> None:
    """Plan one window of the sampler's order, in little memory, though nobody knows how many batches there are."""
    lengths = np.broadcast_to(np.int32(100), BILLION)
    sampler = Counted(BILLION)
    tracemalloc.start()
    try:
        batch = next(iter(loader_of(batch_samplers(lengths, sampler)[which], seed=0)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(batch) in (8, 80)
    assert sampler.asked == 512
    assert peak < 60e6  # the fingerprint reads a million of the lengths


@pytest.mark.parametrize("which", [0, 1])
def test_a_saved_state_is_entered_at_its_window(which: int) -> None:
    """Resume far into an epoch by planning the window of the next batch, on any number of ranks."""
    lengths = np.random.default_rng(0).integers(1, 400, 20_000)
    sampler = Counted(len(lengths))
    loader = loader_of(batch_samplers(lengths, sampler)[which], seed=0)
    whole = list(loader)
    loader.set_epoch(0)
    batches = iter(loader)
    step = len(whole) * 3 // 4
    list(islice(batches, step))
    state = json.loads(json.dumps(loader.state_dict()))
    again = Counted(len(lengths))
    resumed = loader_of(batch_samplers(lengths, again)[which], seed=0)
    resumed.load_state_dict(state)
    assert next(iter(resumed)) == whole[step]
    assert again.asked <= 2 * 512
    ranks = []
    for rank in range(2):
        share = loader_of(batch_samplers(lengths, Counted(len(lengths)))[which], seed=0, rank=rank, world_size=2)
        share.load_state_dict(state)
        ranks.append(list(share))
    rest = [batch for batches in zip(*ranks, strict=True) for batch in batches]
    assert rest[: len(whole) - step] == whole[step:]
    assert rest[len(whole) - step :] == whole[: len(rest) - (len(whole) - step)]


def test_an_epoch_is_looped_over_without_counting_it() -> None:
    """Find the end when it comes; plan every window once, also when the loader is then asked for its length."""
    lengths = np.full(5_000, 100)
    for batches in batch_samplers(lengths, sampler := Counted(len(lengths))):
        loader = loader_of(batches, seed=0)
        steps = sum(1 for _ in loader)
        assert sampler.asked == len(lengths)
        assert len(loader) == steps
        sampler.asked = 0


@pytest.mark.parametrize("uneven", ["pad", "drop"])
@pytest.mark.parametrize("stop", [3, 12, None])
def test_a_ledger_learns_the_length_of_an_epoch_with_its_last_batch(uneven: Any, stop: int | None) -> None:
    """Plan no window ahead for a ledger; prove an epoch that was left after its last batch, and say what is missing."""
    lengths = np.full(1025, 250)
    sampler = Counted(len(lengths))
    ledgers = [Ledger(), Ledger()]
    asked = []
    for rank, ledger in enumerate(ledgers):
        batches = batch_samplers(lengths, sampler)[0]
        how: Any = {"rank": rank, "world_size": 2, "uneven": uneven}
        loader = loader_of(batches, seed=0, ledger=ledger, **how)
        steps = len(loader_of(batches, seed=0, **how))
        sampler.asked = 0
        asked += [sampler.asked for _ in islice(loader, min(stop or steps, steps))]
    assert asked[0] == 512
    proof = verify_epoch(*ledgers)
    rows = 2 * 128 + 1  # of four samples; in 33 batches, for two ranks
    assert not proof.double_count
    assert proof.exact is (stop is None)
    if stop is None:
        assert (proof.delivered, proof.padding, proof.left_out) == ((rows, 8, 0) if uneven == "pad" else (256, 0, 1))


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 40), max_size=40),
    batch_size=st.integers(1, 5),
    drop_last=st.booleans(),
    world=st.integers(1, 4),
    uneven=st.sampled_from(["pad", "drop", "repeat"]),
    data=st.data(),
)
def test_every_batch_is_found_from_any_other(
    sizes: list[int], batch_size: int, drop_last: bool, world: int, uneven: Any, data: st.DataObject
) -> None:
    """Give the work of a step, its position and its length of the epoch, from any step, as from the first one."""
    how: Any = {"window": 7, "longer": "drop", "drop_last": drop_last, "seed": 1}
    sampler = PackingBatchSampler([5, *sizes], 20, batch_size, **how)
    key = key_of(0)

    def plan(rank: int, **where: Any) -> BatchSamplerPlan:
        return BatchSamplerPlan(sampler.batch_order(key), 3, RankShare(1, rank, world, uneven), key, **where)

    rank = data.draw(st.integers(0, world - 1))
    whole = plan(rank)
    works = [whole.work(3, step) for step in range(len(whole))]
    assert whole.work(3, len(whole)) is None
    assert all(works)
    first = data.draw(st.integers(0, len(whole)))
    for entry in (None, whole.entry(first)):
        rest = plan(rank, first=first, origin=whole.position(first), entry=entry)
        assert [rest.work(3, step) for step in range(first, len(whole))] == works[first:]
        assert rest.work(3, len(whole)) is None
        assert (len(rest), rest.samples, rest.ends) == (len(whole), whole.samples, whole.ends)
        assert rest.entry(first) == entry or entry is None
        lazy = plan(rank, first=first, origin=whole.position(first), entry=entry)
        step = data.draw(st.integers(first, len(whole)))
        assert lazy.position(step) == whole.position(step)
        assert lazy.work(3, step) == whole.work(3, step)


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=50),
    longer=st.sampled_from(["split", "truncate", "drop"]),
    kind=st.sampled_from(["all", "mixture", "changed", "shards"]),
    packs=st.booleans(),
    seed=st.integers(0, 9),
    epoch=st.integers(0, 2),
)
def test_a_window_has_what_the_sampler_gives_in_it(
    lengths: list[int], longer: Any, kind: str, packs: bool, seed: int, epoch: int
) -> None:
    """Put each sample, or each part of it, in the batches of its window, as often as the sampler gives it there."""
    if min(lengths) > 20 and longer == "drop":
        lengths = [*lengths, 3]
    mixture = MixtureSampler([len(lengths), len(lengths)], [1, 2], num_samples=2 * len(lengths), seed=seed)
    samplers: dict[str, Any] = {
        "all": None,
        "mixture": mixture,
        "changed": mixture.changed(len(lengths), [5, 1]),
        "shards": ShardSampler([len(lengths) // 2, len(lengths) - len(lengths) // 2], window=1, seed=seed),
    }
    twice = [*lengths, *lengths]
    how: Any = {"sampler": samplers[kind], "window": 6, "longer": longer, "seed": seed}
    chosen = twice if kind in ("mixture", "changed") else lengths
    batches = PackingBatchSampler(chosen, 20, 2, **how) if packs else TokenBatchSampler(chosen, 20, **how)
    batches.set_epoch(epoch)
    found = [list(row) if packs else [row] for batch in batches for row in batch]
    if samplers[kind] is None:
        indices = np.asarray(Shuffled(len(lengths), key_of(seed)).keys(epoch, 0, len(lengths))).tolist()
    else:
        samplers[kind].set_epoch(epoch)
        indices = list(samplers[kind])
    place, keys = 0, [key for row in found for key in row]
    for start in range(0, len(indices), 6):
        expected: list[Any] = []
        for index in indices[start : start + 6]:
            length = chosen[index]
            if length <= 20:
                expected.append(index)
            elif longer == "split":
                expected += [Piece(index, begin, min(begin + 20, length)) for begin in range(0, length, 20)]
            elif longer == "truncate":
                expected.append(Piece(index, 0, 20))
        assert Counter(keys[place : place + len(expected)]) == Counter(expected)
        place += len(expected)
    assert place == len(keys)


def test_lengths_beyond_the_checked_number_are_checked_with_their_window() -> None:
    """Name the sample whose length is wrong when its window is packed, as it would be named at once of fewer."""
    lengths = np.broadcast_to(np.int64(5), CHECKED + 1).copy()
    lengths[[3, 4]] = 99, -1
    packed = PackingBatchSampler(lengths, 10, 1, shuffle=False, window=4)
    with pytest.raises(ArgumentError, match=r"sample 3 has length 99, more than row_length=10; .*split"):
        next(iter(packed))
    with pytest.raises(ArgumentError, match="number 4 is -1"):
        next(iter(PackingBatchSampler(lengths, 100, 1, shuffle=False, window=8)))


@pytest.mark.parametrize("make", [lambda n, **how: PackingBatchSampler(n, 4, 2, **how), TokenBatchSampler])
def test_a_limit_that_drops_every_sample_is_an_error(make: Any) -> None:
    """Name the shortest sample, and what else can be done."""
    how = {"longer": "drop"} if make is not TokenBatchSampler else {"longer": "drop", "max_tokens": 4}
    with pytest.raises(
        ArgumentError, match=r'drops every sample: the shortest has length 7, more than .*=4; .*"split"'
    ):
        make([9, 7], **how)
    make([9, 4], **how)


def test_a_mixture_changes_after_the_window_of_a_state() -> None:
    """Resume a packed mixture with weights that change at a later window; give each document of it exactly once."""
    sizes, texts = [3] * 100, GroupedDataset([np.full(3, number) for number in range(100)])
    mixture = MixtureSampler([40, 60], [0.5, 0.5], num_samples=100)

    def loader(sampler: Any) -> DataLoader[Any]:
        rows = PackingBatchSampler(sizes, 9, 2, sampler=sampler, window=20)
        return DataLoader(texts, batch_sampler=rows, collate_fn=list, seed=0)

    before = loader(mixture)
    batches = iter(before)
    first = [next(batches) for _ in range(5)]
    since = sum(source.samples for source in before.statistics().sources) + 20
    changed = mixture.changed(since, [0, 1])
    after = loader(changed)
    after.load_state_dict(before.state_dict(), strict=False)
    found = Counter(int(text[0]) for batch in [*first, *after] for row in batch for text in row)
    assert found == Counter(index for (index,) in DataLoader(range(100), 1, sampler=changed, collate_fn=list, seed=0))


def test_a_sampler_must_be_planned_and_fit_the_lengths() -> None:
    """Refuse what can only be iterated, and indices without a length."""
    with pytest.raises(ArgumentError, match=r"sampler must be a planned sampler, or None; got a range"):
        PackingBatchSampler([1, 2], 5, 1, sampler=range(2))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"index [23], but lengths has 2 samples"):
        list(TokenBatchSampler([1, 2], 5, sampler=ShardSampler([4])))


def test_a_sampler_of_other_keys_than_indices_is_refused() -> None:
    """Name the first key."""

    class Names(Counted):
        def keys(self, epoch: int, start: int, stop: int) -> Any:
            return [f"sample {number}" for number in range(start, stop)]

    with pytest.raises(ArgumentTypeError, match="the sampler gives 'sample 0', which is not an index into lengths"):
        list(PackingBatchSampler([3] * 4, 10, 1, sampler=Names(4)))


def test_a_state_of_another_mixture_is_refused() -> None:
    """Hold the sampler's settings in the state."""
    half, most = (
        PackingBatchSampler([3] * 20, 10, 1, sampler=MixtureSampler([10, 10], weights)) for weights in ([1, 1], [9, 1])
    )
    state = loader_of(half, seed=0).state_dict()
    with pytest.raises(ValueError, match=r"sampler\.sampler\.weights"):
        loader_of(most, seed=0).load_state_dict(state)


@given(st.lists(st.integers(0, 64), max_size=200), st.integers(64, 200))
def test_rows_are_the_same_with_and_without_the_extension(lengths: list[int], room: int) -> None:
    """Put every sample in the row that the steps put it in."""
    given_lengths = np.array(lengths, np.int64)
    assert best_fit(given_lengths, room).tolist() == best_fit_by_steps(given_lengths, room).tolist()


def test_few_more_rows_are_opened_than_by_first_fit_in_decreasing_order() -> None:
    """Stay within a hundredth of first fit in decreasing order of all samples at once, and under 0.1 % of padding."""
    lengths = np.random.default_rng(1).lognormal(np.log(400), 1.0, 60_000).clip(1, 2048).astype(np.int64)
    packed = PackingBatchSampler(lengths, 2048, 8)
    rows = sum(len(batch) for batch in packed)
    at_once = PackingBatchSampler(lengths, 2048, 8, fit="first", window=len(lengths), shuffle=False)
    assert rows <= 1.01 * sum(len(batch) for batch in at_once)
    assert 1 - lengths.sum() / (rows * 2048) < 0.001


class TestPackedMixture(BatchSamplerTests):
    def make(self, seed: int | None) -> PackingBatchSampler:
        mixture = MixtureSampler([10, 14], {0: [1, 3], 17: [3, 1]}, num_samples=40)
        return PackingBatchSampler(range(1, 25), 10, 3, sampler=mixture, window=9, longer="split", seed=seed)


class TestTokensOfShards(BatchSamplerTests):
    def make(self, seed: int | None) -> TokenBatchSampler:
        shards = ShardSampler([5, 0, 7, 3, 9], window=2)
        return TokenBatchSampler(range(1, 25), 30, sampler=shards, window=9, longer="split", seed=seed)
