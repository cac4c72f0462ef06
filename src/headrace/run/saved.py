"""A saved state, checked whole before anything is made of it: it may be old, edited, cut or of another program."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import shown
from headrace.errors import StateMismatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VERSION = 1
MOST = 2**63 - 1
"""Of a count: what an index into data can be."""

CURE = "Load a state that DataLoader.state_dict() returned."
KEEPERS = frozenset({"iterator", "sampler", "sampler.sampler"})
STREAM_KEEPERS = ("iterator", "dataset", "ended")
SAMPLER = frozenset({"own", "ended", "start", "seeds", "generators"})
GENERATORS = frozenset({"random", "numpy", "torch", "generator", "sampler.generator"})


def validate(state: Any) -> None:
    """Raise `StateMismatch` for what is no state of ours: the message names the key, its value and what was expected.

    >>> validate({"version": 1, "epoch": 0, "step": 2, "batches": 2, "plan": {"samples": 10}})
    >>> validate({"version": 1, "epoch": 0, "step": -2, "plan": {}})
    Traceback (most recent call last):
    headrace.errors.StateMismatch: the state's step is -2; expected an integer from 0 to 9223372036854775807. Load ...
    """
    if not isinstance(state, dict) or state.get("version") != VERSION or not isinstance(state.get("plan"), dict):
        raise StateMismatch(
            f"the state is {shown(state)}",
            found=state,
            expected=f"a state of version {VERSION}, a dict with a plan",
            cure=CURE,
        )
    _whole(state, "epoch", most=2**64 - 1, needed=True)
    _whole(state, "step", needed=True)
    for name in ("offset", "batches", "bad", "rank", "samples"):
        _whole(state, name)
    _whole(state, "dataset_copies", least=1)
    _whole(state, "seed", most=math.inf)
    plan = state["plan"]
    for name, least in (("samples", 0), ("batch_size", 1), ("world_size", 1), ("copies", 1)):
        if plan.get(name) is not None:
            _whole(plan, name, least=least, where="plan")
    _check(state, "ledger", "a name", lambda name: name is None or isinstance(name, str))
    _check(state, "beyond", "a list of steps", lambda steps: isinstance(steps, list) and all(map(_is_count, steps)))
    _check(state, "window", "a window and the position of its first batch", _is_window)
    copies = plan.get("copies") or 1
    _check(
        state,
        "read",
        f"a count of samples, or a list of {copies}, one for each copy",
        lambda read: _is_read(read, copies),
    )
    _check(state, "streams", "a state for each number of a copy", _are_streams)
    _check(state, "sampler", f"a mapping with {', '.join(sorted(SAMPLER))}", _is_sampler)


def _whole(
    values: Mapping[str, Any], name: str, *, least: int = 0, most: float = MOST, needed: bool = False, where: str = ""
) -> None:
    if name not in values and not needed:
        return
    found = values.get(name)
    if type(found) is not int or not least <= found <= most:
        limits = f"from {least} up" if most == math.inf else f"from {least} to {most}"
        held = f"{where} has {name}={shown(found)}" if where else f"{name} is {shown(found)}"
        missing = "" if name in values else " (it is missing)"
        what = f"the state's {held}{missing}"
        raise StateMismatch(what, (name,), found=found, expected=f"an integer {limits}", cure=CURE)


def _check(state: Mapping[str, Any], name: str, expected: str, fits: Callable[[Any], bool]) -> None:
    if name in state and not fits(state[name]):
        what = f"the state's {name} is {shown(state[name])}"
        raise StateMismatch(what, (name,), found=state[name], expected=expected, cure=CURE)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST


def _is_window(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_count, value))


def _is_read(value: Any, copies: int) -> bool:
    if isinstance(value, list):
        return len(value) == copies and all(map(_is_count, value))
    return _is_count(value) and copies == 1


def _are_streams(value: Any) -> bool:
    return isinstance(value, dict) and all(
        str(copy).isdecimal()
        and len(str(copy)) < 20
        and isinstance(kept, list)
        and len(kept) in (2, 3)
        and kept[0] in STREAM_KEEPERS
        for copy, kept in value.items()
    )


def _is_sampler(value: Any) -> bool:
    if not isinstance(value, dict) or not value.keys() <= SAMPLER:
        return False
    own, seeds, generators = value.get("own", {}), value.get("seeds", []), value.get("generators", {})
    if not (isinstance(own, dict) and own.keys() <= KEEPERS):
        return False
    if ("own" in value) != _is_count(value.get("start")) or value.get("ended", True) is not True:
        return False
    if "ended" in value and "own" not in value:
        return False
    if not (isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)):
        return False
    return isinstance(generators, dict) and generators.keys() <= GENERATORS and _can_be_set(generators)


def _can_be_set(generators: Mapping[str, Any]) -> bool:
    """Try the states of the global generators on generators of their kind."""
    try:
        if "random" in generators:
            version, numbers, gauss = generators["random"]
            random.Random().setstate((version, tuple(numbers), gauss))  # noqa: S311  for its state alone
        if "numpy" in generators:
            np.random.RandomState().set_state(generators["numpy"])
    except Exception:  # noqa: BLE001  they raise anything
        return False
    return True
