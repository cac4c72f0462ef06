"""Plans and orders: pure functions that lose nothing and repeat nothing."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from headrace.context.seeds import key_of
from headrace.plan.batch_plan import BatchPlan, RankShare
from headrace.plan.order import Sequential, Shuffled

sizes = st.integers(0, 300)
batch_sizes = st.integers(1, 50)
seeds = st.integers(0, 2**64)


@given(size=sizes, batch_size=batch_sizes, drop_last=st.booleans(), shuffle=st.booleans(), seed=seeds)
def test_an_epoch_has_every_key_once(size: int, batch_size: int, drop_last: bool, shuffle: bool, seed: int) -> None:
    """Cut any order into batches of any size: all keys once, none twice, all batches but the last of one size."""
    order = Shuffled(size, key_of(seed)) if shuffle else Sequential(size)
    plan = BatchPlan(order, RankShare(batch_size), drop_last, key_of(seed))
    works = [plan.work(epoch=2, step=step) for step in range(len(plan))]
    assert plan.work(epoch=2, step=len(plan)) is None
    assert all(work is not None and len(work.keys) == batch_size for work in works[:-1])
    keys = [key for work in works if work for key in work.keys]
    left_out = size % batch_size if drop_last else 0
    assert len(set(keys)) == len(keys) == size - left_out
    assert set(keys) <= set(range(size))
    assert [work.start for work in works if work] == [step * batch_size for step in range(len(plan))]
    assert all(type(key) is int for key in keys)


@given(size=st.integers(1, 200), seed=seeds, data=st.data())
def test_an_order_can_be_entered_anywhere(size: int, seed: int, data: st.DataObject) -> None:
    """Give the same keys for a stretch of an epoch, whatever was asked before, on another copy of the order."""
    epoch = data.draw(st.integers(0, 5))
    start = data.draw(st.integers(0, size))
    stop = data.draw(st.integers(start, size))
    whole = Shuffled(size, key_of(seed)).keys(epoch, 0, size)
    fresh = Shuffled(size, key_of(seed))
    fresh.keys(epoch + 1, 0, size)
    assert fresh.keys(epoch, start, stop) == whole[start:stop]


@given(size=st.integers(1, 20_000), seed=seeds, cuts=st.lists(st.integers(0, 20_000), min_size=2, max_size=12))
def test_what_is_worked_out_ahead_changes_nothing(size: int, seed: int, cuts: list[int]) -> None:
    """Give one stretch after the other, forwards and back, as one fresh order gives them each."""
    order, whole = Shuffled(size, key_of(seed)), Shuffled(size, key_of(seed)).keys(1, 0, size)
    for start, stop in pairwise([0, *cuts]):
        assert order.keys(1, start, stop) == whole[start:stop]
        assert order.keys(0, start, start + 3) == Shuffled(size, key_of(seed)).keys(0, start, start + 3)


def test_neighbouring_seeds_and_epochs_shuffle_differently() -> None:
    """No sum of seed and epoch: epoch 1 of seed 0 is not epoch 0 of seed 1."""
    orders = {
        (seed, epoch): tuple(Shuffled(1000, key_of(seed)).keys(epoch, 0, 1000))
        for seed in range(8)
        for epoch in range(8)
    }
    assert len(set(orders.values())) == 64


@given(size=st.integers(1, 50), batch_size=st.integers(1, 9), seed=seeds, epoch=st.integers(0, 3))
def test_spares_are_drawn_from_the_epoch_by_the_step(size: int, batch_size: int, seed: int, epoch: int) -> None:
    """Give every work the same spares again, all of them keys of the epoch, and other works others."""
    order = Shuffled(size, key_of(seed))
    plan = BatchPlan(order, RankShare(batch_size), drop_last=False, seed=key_of(seed), spares=20)
    works = [plan.work(epoch, step) for step in range(len(plan))]
    spares = [tuple(work.spares) for work in works if work]
    assert spares == [tuple(work.spares) for step in range(len(plan)) if (work := plan.work(epoch, step))]
    assert all(len(each) == 20 and set(each) <= set(range(size)) for each in spares)
    if size > 20 and len(plan) > 1:
        assert len(set(spares)) > 1
