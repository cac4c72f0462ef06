"""What objects hold, in their attributes and those of what they hold: random generators, and what can be seeded."""

from __future__ import annotations

import dis
import random
import types
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.interop import torch_state
from headrace.interop.user_line import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEEP = 6
"""How far in from the dataset is looked: a subset, a view, its functions, one of them, its attributes, their own."""

MOST = 500
"""How many objects are looked at: a dataset may hold a list of a million."""

FEW = 64
"""How many attributes of an object, or items of a list, are looked at."""

FOREIGN = ("threading", "logging", "multiprocessing", "weakref", "_thread", "PIL", "h5py", "pandas", "pyarrow")
"""Libraries whose objects hold much, and none of a sample's randomness."""

MAKING = ("__getitem__", "__getitems__", "__iter__", "__call__", "read_batch")
"""The methods of a user's class that make samples; others may draw when data is made up, once."""

_LEAVES = (str, bytes, int, float, complex, bool, type(None), np.ndarray, np.generic, range, type, types.ModuleType)


def reached(
    thing: Any, name: str, wanted: Callable[[Any], bool], passed: Callable[[Any], bool] = lambda _: False
) -> Iterator[tuple[str, Any]]:
    """Find the wanted objects that an object holds, and how they are reached; not within those that are passed over.

    >>> [(path, type(found).__name__) for path, found in reached([{"a": random.Random()}], "dataset", is_generator)]
    [("dataset[0]['a']", 'Random')]
    """
    seen: set[int] = set()
    waiting = [(name, thing, 0)]
    for path, one, depth in waiting:
        if id(one) in seen or isinstance(one, _LEAVES) or passed(one):
            continue
        seen.add(id(one))
        if wanted(one):
            yield path, one
        elif depth < DEEP and len(waiting) < MOST and not is_foreign(one):
            waiting += [(path + suffix, part, depth + 1) for suffix, part in islice(parts(one), FEW)]


def takes_a_seed(one: Any) -> bool:
    """Say whether an object gives its own generators a seed, as the transforms of albumentations do.

    >>> takes_a_seed(random.Random())
    False
    """
    return callable(getattr(type(one), "set_random_seed", None))


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
    """Give what may draw among the global variables that a function reads: functions of the same module too."""
    code, there = function.__code__, function.__globals__
    if code.co_filename.startswith(PACKAGE):
        return  # ours draw from `rng` alone; and reading what a function does takes a millisecond
    names = {name for name in code.co_names if _may_draw(there.get(name), there)}
    if names:  # an attribute may have the name of a global variable
        read = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
        yield from ((f": {name}", there[name]) for name in sorted(names & read))


def _may_draw(one: Any, there: dict[str, Any]) -> bool:
    return is_generator(one) or takes_a_seed(one) or (isinstance(one, types.FunctionType) and one.__globals__ is there)


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
