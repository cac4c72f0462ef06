"""Eviction by the next use in the plan: right by a search from step to step, and never behind the last use."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.eviction import OBJECT, PARTS, hit_rate, names_of, traces
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.storage.block_cache import Entry
from headrace.storage.next_use import NEVER, NextUses, PlannedEviction, PlannedUses

STEPS = st.lists(st.sets(st.integers(0, 12), max_size=5), max_size=30)


def arrays(steps: list[set[int]]) -> list[np.ndarray]:
    return [np.array(sorted(step), np.int64) for step in steps]


@given(STEPS, st.integers(0, 5), st.integers(0, 40))
def test_the_next_use_is_the_first_step_from_there_on_that_has_the_block(
    steps: list[set[int]], first: int, step: int
) -> None:
    found = NextUses(arrays(steps), first).after(step, np.arange(14))
    expected = [
        next((at for at in range(first, first + len(steps)) if at >= step and block in steps[at - first]), NEVER)
        for block in range(14)
    ]
    assert found.tolist() == expected


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_no_trace_has_more_hits_by_the_last_use(trace: list[int], capacity: int) -> None:
    steps = [np.array([block]) for block in trace] or [np.array([0])]
    planned, recent = (hit_rate(steps, capacity, planned=way, slack=1 << 30) for way in (True, False))
    assert planned >= recent


@pytest.mark.parametrize("trace", traces(600, 6, 1 << 20, 16)[0])
def test_the_orders_of_samplers_have_more_hits_by_the_plan(trace: str) -> None:
    found, count = traces(600, 6, 1 << 20, 16)
    for part in PARTS:
        planned, recent = (hit_rate(found[trace], int(part * count), planned=way) for way in (True, False))
        assert planned >= recent


def test_what_no_plan_uses_goes_first_and_the_furthest_next_use_follows() -> None:
    uses = PlannedUses(lambda: {OBJECT: 0})
    uses.uses = NextUses([np.array([4]), np.array([2]), np.array([1])])
    order = PlannedEviction()
    entries = [
        Entry(name, 1, used) for used, name in enumerate([*names_of([1, 2, 3, 4]), f"{'f' * 32}-00000001.block"])
    ]
    assert [entry.used for entry in order(entries)] == [0, 1, 2, 3, 4]
    order.add(uses)
    assert [entry.used for entry in order(entries)] == [2, 4, 0, 1, 3]
    uses.step = 1  # block 4 was used, and is not used again
    assert [entry.used for entry in order(entries)] == [2, 3, 4, 0, 1]
    order.remove(uses)
    assert [entry.used for entry in order(entries)] == [0, 1, 2, 3, 4]


def test_two_loops_keep_what_one_of_them_uses_soon() -> None:
    order = PlannedEviction()
    for steps in ([[1], [2]], [[2], [3]]):
        uses = PlannedUses(lambda: {OBJECT: 0})
        uses.uses = NextUses([np.array(step) for step in steps])
        order.add(uses)
    entries = [Entry(name, 1, used) for used, name in enumerate(names_of([3, 2, 9]))]
    assert [entry.used for entry in order(entries)] == [2, 0, 1]
