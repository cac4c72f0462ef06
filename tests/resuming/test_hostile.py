"""A state that was edited, cut or made up is refused at the call, or harmless."""

from __future__ import annotations

import random

import pytest

from headrace import DataLoader, StateMismatch
from tests.resuming.hostile import LOADERS, RIGHT, outcome, spoiled


@pytest.mark.parametrize("name", sorted(LOADERS))
def test_a_hostile_state_is_refused_at_the_call_or_read(name: str) -> None:
    """Raise nothing but `StateMismatch`, and leave the loader as it was where that is raised at the call."""
    draw = random.Random(name)
    for _ in range(40):
        state = spoiled(draw, name)
        assert outcome(name, state, strict=draw.random() < 0.6) in RIGHT


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("epoch", -1, "the state's epoch is -1; expected an integer from 0 to"),
        ("step", "2", "the state's step is '2'"),
        ("samples", 10**5000, "the state's samples is a value of type int"),
        ("seed", 1.5, "the state's seed is 1.5; expected an integer from 0 up"),
        ("beyond", [-1], r"the state's beyond is \[-1\]; expected a list of steps"),
        ("streams", {"0": ["other", 1]}, "the state's streams is"),
        ("sampler", {"generators": {"random": 1}}, "the state's sampler is"),
        ("plan", None, "a state of version 1"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_the_error_names_the_key_its_value_and_what_was_expected(key: str, value: object, words: str) -> None:
    """Say what is wrong with a state, and what to load instead."""
    loader = DataLoader(range(6), 2, seed=0)
    with pytest.raises(StateMismatch, match=words):
        loader.load_state_dict({**loader.state_dict(), key: value})
