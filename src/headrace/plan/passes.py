"""A pass over a sampler, with what its randomness came from: so that another process can make the same pass again."""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, repeat
from typing import Any

import numpy as np

from headrace.interop import torch_state
from headrace.interop.generators import Tape, as_text, set_state, snapshot, taping
from headrace.interop.once import is_spent, refusal
from headrace.interop.own_states import keeps_state, restore

_END = object()

STRETCH = 2**14
"""Items that are passed over at a time."""

State = dict[str, Any]
"""What JSON can hold."""


class Pass(Iterator[Any]):
    """Iterates over a sampler once; `state` says how to have the same pass again.

    >>> from headrace.samplers import SubsetRandomSampler
    >>> first = Pass(SubsetRandomSampler(range(5)))
    >>> order = list(first)
    >>> list(Pass(SubsetRandomSampler(range(5)), first.state())) == order
    True

    The state is one of these:

    - of a sampler that draws seeds as ours do: the seeds;
    - of any other that draws: the state that each generator it moved had before the pass: its own (its attribute
      ``generator``, and that of its attribute ``sampler``), and the global ones of ``random``, NumPy and torch;
    - of a sampler with ``state_dict`` and ``load_state_dict``, or whose iterator has them: what these return, noted by
      `mark` before each step. The same holds for the sampler of a ``BatchSampler``, ours or torch's.

    A sampler whose order comes from elsewhere is iterated again, and gives what it gives. A global generator that was
    set for a pass is given back as it was; a sampler's own stays where the pass leaves it, as without a resume.
    """

    def __init__(
        self, sampler: Iterable[Any], state: State | None = None, *, name: str = "sampler", again: bool = False
    ) -> None:
        given = state or {}
        self._sampler = sampler
        self._name, self._once_more, self._empty = name, again, True
        self._tape = Tape(given.get("seeds", ()))
        self._again: State = given.get("generators", {})
        self._moved: State = dict(self._again)
        self._items: Iterator[Any] | None = None
        self._given = given if "own" in given or "ended" in given else None
        self._entry = self._given
        """How the sampler's own state was when the pass began."""
        self._marks: dict[int, State] = {}
        self._keeps: bool | None = None
        """Whether anything keeps a state of its own, once the pass has begun; None: nobody has looked."""
        self._held: list[tuple[Any, Exception | None]] = []
        self._ended = "ended" in given
        self._lock = threading.RLock()

    def __next__(self) -> Any:
        with self._lock:
            item, error = self._held.pop() if self._held else self._drawn()
            if error is not None:
                raise error
            if item is _END:
                self._end()
                raise StopIteration
            self._empty = False
            size = getattr(self._sampler, "batch_size", None)
            if isinstance(item, list) and isinstance(size, int) and len(item) < size:
                self._ended = True  # a batch sampler has read its sampler to the end
            return item

    def batches(self, size: int, *, drop_last: bool, skipped: int = 0) -> Iterator[list[Any]]:
        """Cut the items into batches, after the first ``skipped`` of them.

        >>> list(Pass("abcde").batches(2, drop_last=False)), list(Pass("abcde").batches(2, drop_last=True, skipped=1))
        ([['a', 'b'], ['c', 'd'], ['e']], [['b', 'c'], ['d', 'e']])
        """
        while skipped and (passed := self._take(min(skipped, STRETCH))):
            skipped -= len(passed)
        while batch := self._take(size):
            if len(batch) == size or not drop_last:
                yield batch

    def _take(self, count: int) -> list[Any]:
        """Return the next items, at most so many, all drawn at once; fewer only at the end."""
        with self._lock:
            if self._ended and self._items is not None:
                return []
            # The first one alone, and then the others: before it, the generators are looked at.
            taken = list(islice(self, 1)) if self._items is None or self._held or count == 1 else []
            if not taken and self._ended:
                return []
            with taping(self._tape):
                # Never by iter(), which may begin again: a sampler can be its own iterator.
                rest: Any = repeat(self._items, count - len(taken))
                taken += map(next, rest)
            if taken:
                self._empty = False
            if len(taken) < count:
                self._end()
            return taken

    def _end(self) -> None:
        self._ended = True
        if self._once_more and self._given is None and is_spent(self._sampler, self._items, empty=self._empty):
            raise refusal(self._name, self._sampler)

    def _drawn(self) -> tuple[Any, Exception | None]:
        """Return the next item, `_END` at the end, or the sampler's error."""
        try:
            with taping(self._tape):
                return (next(self._items, _END) if self._items is not None else self._first()), None
        except Exception as error:  # noqa: BLE001  raised when the item is asked for
            return None, error

    def _first(self) -> Any:
        generators = _generators(self._sampler)
        again = {name: generators[name] for name in self._again if name in generators}
        # Where a generator is at the state already, the pass moves it, as it would have without a resume.
        apart = {name: one for name, one in again.items() if as_text(one.snapshot()) != self._again[name]}
        back = {name: as_text(generator.snapshot()) for name, generator in apart.items() if generator.shared}
        for name, generator in apart.items():
            generator.set_state(self._again[name])
        before = {name: generator.snapshot() for name, generator in generators.items()}
        if self._entry is None and (own := _own_state(self._sampler, None)):
            self._entry = {"own": own, "start": 0}
        try:
            self._items = self._entered()
            first = next(self._items, _END)
            if first is _END and not self.start and not self._ended and _keepers(self._sampler, self._items):
                # After the state of a finished pass, some samplers give an empty one.
                self._items = iter(self._sampler)
                first = next(self._items, _END)
            return first
        finally:
            moved = {name for name, generator in generators.items() if generator.snapshot() != before[name]}
            self._moved = {name: state for name, state in before.items() if name in moved or name in again}
            for name, state in back.items():
                generators[name].set_state(state)

    def _entered(self) -> Iterator[Any]:
        own = {} if self._given is None else self._given["own"]
        for keeper, state in own.items():
            if keeper != "iterator":
                inner = self._sampler if keeper == "sampler" else getattr(self._sampler, "sampler", None)
                restore(inner, "sampler", state)
        if self._ended:
            return iter(())
        items = iter(self._sampler)
        if "iterator" in own:
            restore(items, "sampler's iterator", own["iterator"])
        return items

    @property
    def start(self) -> int | None:
        """How many keys were given before the pass begins, where it continues by the sampler's own state."""
        return None if self._given is None else int(self._given["start"])

    def mark(self, step: int, start: int) -> None:
        """Note the state that the sampler keeps of itself, if any, before a step with ``start`` keys before it."""
        if self._keeps is None:
            self._keeps = bool(_keepers(self._sampler, self._items))
        own = _own_state(self._sampler, self._items) if self._keeps else {}
        if own:
            if self._ended:  # nothing is left of this pass, and the sampler is where the next one begins
                own.pop("iterator", None)
                self._marks[step] = {"ended": True, "own": own, "start": start}
            else:
                self._marks[step] = {"own": own, "start": start}

    def forget(self, step: int) -> None:
        """Drop what was noted before a step."""
        for old in [mark for mark in self._marks if mark < step]:
            del self._marks[old]

    def settle(self) -> None:
        """Draw the first item now if nobody has: from here on, `state` can say how to have the pass again."""
        with self._lock:
            if self._items is None and not self._held:
                own = _own_state(self._sampler, None)
                if own and self._entry is None:
                    self._entry = {"own": own, "start": 0}
                elif not own:
                    self._held.append(self._drawn())

    def state(self, step: int | None = None) -> State:
        """Return how to have the same pass again, from a step on; empty for one that nothing was drawn for."""
        mark = None if step is None else self._marks.get(step, self._entry)
        if mark is not None:
            return dict(mark)
        seeds = [*self._tape.seeds, *self._tape.again]
        if seeds and not self._moved.keys() & OWN:  # a sampler's own generator must move again, for the passes after it
            return {"seeds": seeds}
        return {"generators": {name: as_text(state) for name, state in self._moved.items()}} if self._moved else {}

    def facts(self, step: int) -> dict[str, Any]:
        """Return what a loader's state has of the pass."""
        self.settle()
        state = self.state(step)
        return {"sampler": state} if state else {}

    @property
    def moved(self) -> frozenset[str]:
        """The names of the generators that the pass draws from."""
        return frozenset(self._moved)


def between(sampler: Any, moved: Collection[str] | None = None) -> State:
    """Return how the next pass over a sampler begins; empty where it depends on nothing that this process keeps.

    ``moved`` names the generators that a pass before it drew from; None: there was none, so all may matter.
    """
    own = _own_state(sampler, None)
    if own:
        return {"own": own, "start": 0}
    names = moved if moved is not None else () if isinstance(sampler, Sequence | np.ndarray) else None
    found = {
        name: as_text(generator.snapshot())
        for name, generator in _generators(sampler).items()
        if not generator.shared or names is None or name in names
    }
    return {"generators": found} if found else {}


def _own_state(sampler: Any, items: Any) -> State:
    """Return the states that a sampler and its iterator keep of themselves, by who keeps them."""
    return {keeper: copy.deepcopy(thing.state_dict()) for keeper, thing in _keepers(sampler, items)}


def _keepers(sampler: Any, items: Any) -> list[tuple[str, Any]]:
    """Return what keeps a state of its own: the iterator and the sampler, or else the sampler of a ``BatchSampler``."""
    # A sampler that is its own iterator need not have a state before it is iterated.
    found = [("iterator", items), ("sampler", None if isinstance(sampler, Iterator) or sampler is items else sampler)]
    kept = [(keeper, thing) for keeper, thing in found if keeps_state(thing)]
    inner = getattr(sampler, "sampler", None)
    if (
        not kept and type(sampler).__name__ == "BatchSampler" and keeps_state(inner)
    ):  # which reads no further than a batch
        return [("sampler.sampler", inner)]
    return kept


def apart(sampler: Any) -> Any:
    """Return a sampler to iterate in the place of another, whose own place then stays; None if there is none.

    One that keeps no state is its own.
    """
    if hasattr(sampler, "_apart"):
        return sampler._apart()
    return None if _keepers(sampler, None) else sampler


@contextmanager
def undisturbed(sampler: Any) -> Iterator[None]:
    """Give the generators that a sampler may draw from back as they were, after a block that passes through it."""
    generators = _generators(sampler)
    before = {name: as_text(generator.snapshot()) for name, generator in generators.items()}
    try:
        yield
    finally:
        for name, state in before.items():
            generators[name].set_state(state)


class _Own:
    shared = False

    def __init__(self, generator: Any) -> None:
        self._generator = generator

    def snapshot(self) -> Any:
        return snapshot(self._generator)

    def set_state(self, state: Any) -> None:
        set_state(self._generator, state)


class _Torch(_Own):
    shared = True


class _NumPy:
    shared = True

    def snapshot(self) -> Any:
        return snapshot(np.random.mtrand._rand)

    def set_state(self, state: Any) -> None:
        np.random.set_state(state)  # noqa: NPY002  the global one is meant


class _Python:
    shared = True

    def snapshot(self) -> Any:
        version, numbers, gauss = random.getstate()
        return [version, list(numbers), gauss]

    def set_state(self, state: Any) -> None:
        version, numbers, gauss = state
        random.setstate((version, tuple(numbers), gauss))


OWN = frozenset({"generator", "sampler.generator"})
"""The generators that belong to a sampler."""


def _generators(sampler: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"random": _Python(), "numpy": _NumPy()}
    theirs = torch_state.default_generator()
    if theirs is not None:
        found["torch"] = _Torch(theirs)
    for name, owner in (("generator", sampler), ("sampler.generator", getattr(sampler, "sampler", None))):
        generator = getattr(owner, "generator", None)
        if isinstance(generator, np.random.Generator | np.random.RandomState) or hasattr(generator, "initial_seed"):
            found[name] = _Own(generator)
    return found
