"""Refilling and the budget for errors, against plain lists."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import TooManyErrors
from headrace.plan.work import BadSample
from headrace.run.tolerance import Budget, Refill


@given(
    pieces=st.lists(st.lists(st.integers(), max_size=9), max_size=12),
    batch_size=st.integers(1, 7),
    drop_last=st.booleans(),
)
def test_refilled_batches_are_the_samples_in_order_cut_again(
    pieces: list[list[int]], batch_size: int, drop_last: bool
) -> None:
    """Feed pieces of any lengths; get what cutting their concatenation gives."""
    refill = Refill(batch_size, drop_last=drop_last)
    batches = []
    for step, piece in enumerate(pieces):
        refill.put(step, piece, bad=0)
        while (batch := refill.take()) is not None:
            batches.append(batch)
    if (rest := refill.rest()) is not None:
        batches.append(rest)
    whole = [sample for piece in pieces for sample in piece]
    expected = [whole[start : start + batch_size] for start in range(0, len(whole), batch_size)]
    if drop_last and expected and len(expected[-1]) < batch_size:
        expected.pop()
    assert batches == expected
    assert refill.rest() is None


@given(
    pieces=st.lists(st.lists(st.integers(), max_size=9), max_size=12),
    batch_size=st.integers(1, 7),
    stop=st.integers(0, 20),
)
def test_refilling_continues_from_its_place(pieces: list[list[int]], batch_size: int, stop: int) -> None:
    """Stop after some batches, begin again at the place named, and get the batches that would have come."""

    def run(first: int, offset: int) -> Iterator[tuple[list[int], tuple[int, int, int]]]:
        refill = Refill(batch_size, drop_last=False, offset=offset)
        for step, piece in enumerate(pieces[first:], first):
            refill.put(step, piece, bad=step)
            while (batch := refill.take()) is not None:
                yield batch, refill.place or (step + 1, 0, 0)
        if (rest := refill.rest()) is not None:
            yield rest, (len(pieces), 0, 0)

    whole = list(run(0, 0))
    if stop < len(whole):
        first, offset, bad = whole[stop][1]
        assert [batch for batch, _ in run(first, offset)] == [batch for batch, _ in whole[stop + 1 :]]
        assert bad in (0, sum(range(first, len(pieces)))) or bad < sum(range(len(pieces)))


@given(samples=st.integers(1, 50), allowed=st.none() | st.integers(0, 60), failed=st.integers(1, 50))
def test_a_budget_ends_the_run_when_it_is_spent_or_nothing_is_left(
    samples: int, allowed: int | None, failed: int
) -> None:
    """Allow as many as it says, and never all of them."""
    budget, bad = Budget(samples, allowed), (BadSample(5, "x.jpg", "BadImage: torn"),)
    if failed >= samples or (allowed is not None and failed > allowed):
        with pytest.raises(TooManyErrors, match=r"sample 5: BadImage: torn"):
            budget.check(failed, bad)
    else:
        budget.check(failed, bad)
