"""Randomness that a loader cannot keep: generators that a dataset or a transform holds, and shared ones on threads."""

from __future__ import annotations

import dis
import random
import threading
import types
import warnings
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.context import seeds
from headrace.errors import RandomnessWarning
from headrace.interop import torch_state

if TYPE_CHECKING:
    from collections.abc import Iterator

DEEP = 6
"""How far in from the dataset is looked: a subset, a view, its functions, one of them, its attributes, their own."""

MOST = 500
"""How many objects are looked at: a dataset may hold a list of a million."""

FEW = 64
"""How many attributes of an object, or items of a list, are looked at."""

FOREIGN = ("threading", "logging", "multiprocessing", "weakref", "_thread", "PIL", "h5py", "pandas", "pyarrow")
"""Libraries whose objects hold much, and none of a sample's randomness."""

OWNERS = ("datasets.iterable_dataset",)
"""Modules whose objects seed the generators that they hold for each epoch, and copy them before they draw."""

MAKING = ("__getitem__", "__getitems__", "__iter__", "__call__", "read_batch")
"""The methods of a user's class that make samples; others may draw when data is made up, once."""

_LEAVES = (str, bytes, int, float, complex, bool, type(None), np.ndarray, np.generic, range, type, types.ModuleType)


def held(thing: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Find the generators that an object holds, in its attributes and those of what it holds, and how they are reached.

    >>> class Noisy:
    ...     def __init__(self):
    ...         self.random = np.random.default_rng(0)
    >>> [(path, type(found).__name__) for path, found in held([Noisy()], "dataset")]
    [('dataset[0].random', 'Generator')]
    """
    seen: set[int] = set()
    waiting = [(name, thing, 0)]
    for path, one, depth in waiting:
        if id(one) in seen or isinstance(one, _LEAVES):
            continue
        seen.add(id(one))
        if is_generator(one):
            yield path, one
        elif depth < DEEP and len(waiting) < MOST and not (is_foreign(one) or is_seeded(one)):
            found = [(path + suffix, part, depth + 1) for suffix, part in islice(parts(one), FEW)]
            owner = str(type(one).__module__).startswith(OWNERS)
            waiting += [each for each in found if not (owner and is_generator(each[1]))]


def is_seeded(one: Any) -> bool:
    """Say whether an object seeds the generators that it holds, for each sample.

    >>> is_seeded(3)
    False
    """
    return bool(getattr(type(one), "seeds_held", False))


def parts(one: Any) -> Iterator[tuple[str, Any]]:
    """Give what an object holds, and how it is reached from there; nothing of it is called."""
    # By the built-in methods: those of a subclass may read from a disk.
    if isinstance(one, list | tuple):
        items = list.__iter__(one) if isinstance(one, list) else tuple.__iter__(one)
        yield from ((f"[{place}]", part) for place, part in enumerate(items))
    elif isinstance(one, dict):
        yield from ((f"[{key!r}]" if isinstance(key, str | int) else "[…]", part) for key, part in dict.items(one))
    elif isinstance(one, partial):
        yield from (("", one.func), (".args", one.args), (".keywords", one.keywords))
    elif isinstance(one, types.MethodType):
        yield "", one.__self__
    elif isinstance(one, types.FunctionType):
        for variable, cell in zip(one.__code__.co_freevars, one.__closure__ or (), strict=True):
            try:
                yield f": {variable}", cell.cell_contents
            except ValueError:  # not yet bound
                continue
        for place, value in enumerate(one.__defaults__ or ()):
            yield f" (default {place})", value
        yield from _globals(one)
    else:
        yield from ((f".{name}", part) for name, part in attributes(one).items())
        yield from _of_class(type(one))


def attributes(one: Any) -> dict[str, Any]:
    """Return what an object holds, without asking its class, which may have its own idea of attributes."""
    found: dict[str, Any] = {}
    with suppress(AttributeError, TypeError):
        found.update(object.__getattribute__(one, "__dict__"))
    for slot, member in (item for kind in type(one).__mro__ for item in vars(kind).items()):
        if isinstance(member, types.MemberDescriptorType):
            with suppress(AttributeError):  # not set
                found[slot] = member.__get__(one)
    return found


def _of_class(kind: type) -> Iterator[tuple[str, Any]]:
    """Give generators that a user's class holds, and those that its methods which make samples take from outside."""
    for base in kind.__mro__:
        if str(base.__module__).partition(".")[0] in ("builtins", "typing", "abc", "headrace", "torch"):
            continue
        for name, part in vars(base).items():
            if is_generator(part):
                yield f".{name}", part
            elif name in MAKING and isinstance(part, types.FunctionType):
                yield from ((f".{name}{suffix}", value) for suffix, value in _globals(part))


def _globals(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Give the generators among the global variables that a function reads."""
    code, there = function.__code__, function.__globals__
    names = {name for name in code.co_names if is_generator(there.get(name))}
    if names:  # an attribute may have the name of a global variable
        read = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
        yield from ((f": {name}", there[name]) for name in sorted(names & read))


def is_generator(one: Any) -> bool:
    """Say whether an object is a random generator, and none of the global ones."""
    if isinstance(one, np.random.Generator | np.random.RandomState | np.random.BitGenerator | random.Random):
        # The global ones are everybody's: whether they are drawn from is looked at on its own.
        return one is not np.random.mtrand._rand and not isinstance(one, random.SystemRandom)
    return torch_state.is_generator(one) and one is not torch_state.default_generator()


def is_foreign(one: Any) -> bool:
    """Say whether what an object holds is its own business: samplers hold generators by right."""
    kind = type(one)
    module = str(kind.__module__)
    if module.partition(".")[0] in FOREIGN or module.startswith(("headrace.plan", "torch.utils.data.datapipes")):
        return True
    return torch_state.is_tensor(one) or any(base.__name__ == "Sampler" for base in kind.__mro__)


def warn_of_held(dataset: Any, collate_fn: Any) -> None:
    """Warn of the first generators that a dataset, its transforms, or a collate function hold."""
    found: list[tuple[str, Any]] = []
    with suppress(Exception):  # whatever a user's object does when it is looked at, the run goes on
        found += held(dataset, type(dataset).__qualname__)
        found += held(collate_fn, "collate_fn")
    if not found:
        return
    names = ", ".join(path for path, _ in found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
    kind = type(found[0][1])
    warnings.warn(
        f"{names}: {kind.__module__.partition('.')[0]}'s {kind.__name__}, held by the data. Each worker has a copy of "
        "it, or all threads share it: what a sample draws from it depends on the workers, and is other in a run that "
        "is resumed. Draw from headrace.rng() where the sample is made, or let the transform take rng as its second "
        "parameter",
        RandomnessWarning,
        stacklevel=4,
    )


class Watch:
    """Sees whether the global generators move in stretches in which nobody but worker threads is at work.

    Where the process has other threads, whoever draws cannot be told, and nothing is said.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._before: dict[str, Any] | None = None
        self._stretches: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def begin(self) -> None:
        """Note where they stand."""
        others = [t for t in threading.enumerate() if not type(t).__module__.startswith("tqdm")]
        alone = threading.current_thread() is threading.main_thread() and len(others) <= 1 + self._workers
        self._before = seeds.settled_states() if alone else None

    def pause(self) -> None:
        """Note where they stand before others may draw again; comparing takes longer, and is done at the end."""
        if self._before is not None:
            self._stretches.append((self._before, seeds.settled_states()))
            self._before = None

    def end(self) -> None:
        """Warn where they have moved."""
        self.pause()
        drawn = {name for before, after in self._stretches for name in seeds.moved(before, after)}
        if drawn:
            names = {"random": "random", "numpy": "np.random", "torch": "torch's global generator"}
            warnings.warn(
                f"samples draw from {' and '.join(names[name] for name in sorted(drawn))} on threads, which share it: "
                "what each gets depends on who comes first. Draw from headrace.rng(), or use processes "
                '(backend="processes")',
                RandomnessWarning,
                stacklevel=3,
            )
