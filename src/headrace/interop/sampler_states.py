"""The states of samplers, checked when they are loaded."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headrace.checks import kind_of, shown
from headrace.errors import StateMismatch
from headrace.interop.generators import can_be_set

if TYPE_CHECKING:
    from headrace.interop.generators import Stateful

CURE = "Load a state as state_dict() of such a sampler gave it."


def check_count(name: str, state: Any) -> None:
    """Raise `StateMismatch` where a state is no mapping, or its entry no integer from 0 up."""
    found = state.get(name) if isinstance(state, Mapping) else None
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < 2**63:
        what = f"{name} is {shown(found)}" if isinstance(state, Mapping) else f"type is {type(state).__name__}"
        expected = f"a mapping with {name}, an integer from 0 up"
        raise StateMismatch(f"the state's {what}", (name,), found=found, expected=expected, cure=CURE)


def checked_state(state: Any, generator: Stateful | None) -> dict[str, Any]:
    """Return a copy of a `RandomSampler`'s state; raises `StateMismatch` for one that does not fit its generator."""
    check_count("yielded", state)
    if generator is None:
        drawn = state.get("seeds")
        fits = isinstance(drawn, list) and all(type(seed) is int and 0 <= seed < 2**64 for seed in drawn)
        expected = "a list of seeds, for a sampler without a generator"
    else:
        kept = state.get("generators")
        fits = isinstance(kept, dict) and kept.keys() == {"generator"} and can_be_set(generator, kept["generator"])
        expected = f"the state of a generator such as the sampler's, {kind_of(generator)}"
    if not fits:
        setting = "seeds" if generator is None else "generators"
        what = f"the state's {setting} cannot be loaded: it is {shown(state)}"
        raise StateMismatch(what, (setting,), found=state.get(setting), expected=expected, cure=CURE)
    return copy.deepcopy(dict(state))


def check_mapping(name: str, state: Mapping[str, Any]) -> None:
    """Raise `StateMismatch` where a state's entry is no mapping."""
    if not isinstance(state.get(name), dict):
        what = f"the state's {name} is {shown(state.get(name))}"
        raise StateMismatch(what, (name,), found=state.get(name), expected="a mapping", cure=CURE)
