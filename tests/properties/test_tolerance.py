"""Refilling and the budget for errors, against plain lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import TooManyErrors
from headrace.tolerance import Budget, Refill
from headrace.work import BadSample


@given(
    pieces=st.lists(st.lists(st.integers(), max_size=9), max_size=12),
    batch_size=st.integers(1, 7),
    drop_last=st.booleans(),
)
def test_refilled_batches_are_the_samples_in_order_cut_anew(
    pieces: list[list[int]], batch_size: int, drop_last: bool
) -> None:
    """Feed pieces of any lengths; get what cutting their concatenation gives."""
    refill = Refill(batch_size, drop_last=drop_last)
    batches = []
    for piece in pieces:
        refill.put(piece)
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
