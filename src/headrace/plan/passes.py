"""A pass over a sampler, with what its randomness came from: so that another process can make the same pass again."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from headrace.interop.generators import Tape, set_state, state_of, taping
from headrace.interop.once import is_spent, refusal

_END = object()

State = dict[str, Any]
"""What JSON can hold."""


class Pass(Iterator[Any]):
    """What a sampler gives, once; `state` says how to have it again.

    >>> from headrace import RandomSampler
    >>> first = Pass(RandomSampler(range(5)))
    >>> order = list(first)
    >>> list(Pass(RandomSampler(range(5)), first.state())) == order
    True

    Samplers of ours draw one seed, which is all that the state holds. Of any other, it holds where the generators stood
    that the pass has moved: its own (its attribute ``generator``, and that of its attribute ``sampler``), and the
    global ones of ``random``, NumPy and torch, which are given back as they were. A sampler whose order comes from
    elsewhere is passed through again, and gives what it gives.

    A sampler, or its iterator, with ``state_dict`` and ``load_state_dict`` keeps a state of its own: `mark` notes it,
    and a pass that begins with it goes on there. So does the sampler of a `BatchSampler`, ours or torch's.
    """

    def __init__(
        self, sampler: Iterable[Any], state: State | None = None, *, name: str = "sampler", again: bool = False
    ) -> None:
        self._sampler = sampler
        self._name, self._once_more, self._empty = name, again, True
        self._tape = Tape((state or {}).get("seeds", ()))
        self._again: State = (state or {}).get("generators", {})
        self._before: State | None = None
        self._moved: State | None = self._again or None
        self._items: Iterator[Any] | None = None
        self._own: tuple[str, Any, int] | None = (state or {}).get("own")
        self._marks: dict[int, tuple[str, Any, int]] = {}

    def __next__(self) -> Any:
        try:
            with taping(self._tape):
                item = next(self._items) if self._items is not None else self._first()
        except StopIteration:
            if self._once_more and is_spent(self._sampler, self._items, empty=self._empty):
                raise refusal(self._name, self._sampler) from None
            raise
        self._empty = False
        return item

    def _first(self) -> Any:
        generators = _generators(self._sampler)
        theirs = {name: generators[name] for name in self._again if name in generators}
        back = {name: generator.state() for name, generator in theirs.items() if generator.shared}
        for name, generator in theirs.items():
            generator.set_state(self._again[name])
        before = {name: generator.state() for name, generator in generators.items()} if not self._again else {}
        try:
            self._items = self._entered()
            first = next(self._items, _END)
            if first is _END and self.start == 0:  # after the state of a finished pass, some samplers give an empty one
                self._items = iter(self._sampler)
                first = next(self._items, _END)
            if first is _END:
                raise StopIteration
            return first
        finally:
            if not self._again:
                after = {name: generator.state() for name, generator in generators.items()}
                self._moved = {name: state for name, state in before.items() if state != after[name]}
            for name, state in back.items():
                generators[name].set_state(state)

    def _entered(self) -> Iterator[Any]:
        if self._own is None:
            return iter(self._sampler)
        keeper, state, _ = self._own
        if keeper != "iterator":
            dict(_keepers(self._sampler, None))[keeper].load_state_dict(copy.deepcopy(state))
        items = iter(self._sampler)
        if keeper == "iterator":
            items.load_state_dict(copy.deepcopy(state))  # type: ignore[attr-defined]  # it gave the state
        return items

    @property
    def start(self) -> int | None:
        """How many keys were given before the pass begins, where it goes on by the sampler's own state."""
        return None if self._own is None else self._own[2]

    def mark(self, step: int, start: int) -> None:
        """Note the state that the sampler keeps of itself, if any, before a step with ``start`` keys before it."""
        for keeper, thing in _keepers(self._sampler, self._items):
            if hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict"):
                self._marks[step] = keeper, copy.deepcopy(thing.state_dict()), start
                return

    def kept(self) -> State:
        """Return the state that the sampler keeps of itself between two passes; empty if it keeps none."""
        for keeper, thing in _keepers(self._sampler, None):
            if hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict"):
                return {"own": [keeper, copy.deepcopy(thing.state_dict()), 0]}
        return {}

    def forget(self, step: int) -> None:
        """Let go of what was noted before a step."""
        for old in [mark for mark in self._marks if mark < step]:
            del self._marks[old]

    def state(self, step: int | None = None) -> State:
        """Return how to have the same pass again, from a step on; empty for one that nothing was drawn for."""
        mark = None if step is None else self._marks.get(step, self._own)
        if mark is not None:
            return {"own": list(mark)}
        if self._tape.seeds or self._tape.again:
            return {"seeds": [*self._tape.seeds, *self._tape.again]}
        return {"generators": self._moved} if self._moved else {}


def _keepers(sampler: Any, items: Any) -> list[tuple[str, Any]]:
    """Return what may keep a state of its own: the iterator before what it came from, as with streams."""
    found = [("iterator", items), ("sampler", sampler)]
    if type(sampler).__name__ == "BatchSampler":  # which reads no further than the batch at hand
        found.append(("sampler.sampler", getattr(sampler, "sampler", None)))
    return found


@contextmanager
def undisturbed(sampler: Any) -> Iterator[None]:
    """Give the generators that a sampler may draw from back as they were, after a block that passes through it."""
    generators = _generators(sampler)
    before = {name: generator.state() for name, generator in generators.items()}
    try:
        yield
    finally:
        for name, state in before.items():
            generators[name].set_state(state)


class _Own:
    shared = False

    def __init__(self, generator: Any) -> None:
        self._generator = generator

    def state(self) -> Any:
        return state_of(self._generator)

    def set_state(self, state: Any) -> None:
        set_state(self._generator, state)


class _Torch(_Own):
    shared = True


class _NumPy:
    shared = True

    def state(self) -> Any:
        return state_of(np.random.mtrand._rand)

    def set_state(self, state: Any) -> None:
        np.random.set_state(state)  # noqa: NPY002  the global one is meant


class _Python:
    shared = True

    def state(self) -> Any:
        version, numbers, gauss = random.getstate()
        return [version, list(numbers), gauss]

    def set_state(self, state: Any) -> None:
        version, numbers, gauss = state
        random.setstate((version, tuple(numbers), gauss))


def _generators(sampler: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"random": _Python(), "numpy": _NumPy()}
    torch: Any = sys.modules.get("torch")
    if hasattr(torch, "default_generator"):
        found["torch"] = _Torch(torch.default_generator)
    for name, owner in (("generator", sampler), ("sampler.generator", getattr(sampler, "sampler", None))):
        generator = getattr(owner, "generator", None)
        if isinstance(generator, np.random.Generator | np.random.RandomState) or hasattr(generator, "initial_seed"):
            found[name] = _Own(generator)
    return found
