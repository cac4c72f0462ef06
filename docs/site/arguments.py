"""What each argument does, in one line, as ``arguments.toml`` says it."""

from __future__ import annotations

import inspect
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = Path(__file__).parent / "arguments.toml"
NOT_CALLED = {
    "BadSample", "Dataset", "EpochProof", "Executor", "GeometricTransform", "ImageTransform", "IterableDataset",
    "Lineage", "Move", "NativeStep", "Packed", "Padded", "PlannedBatchSampler", "Statistics", "Transform", "WorkerInfo",
}  # fmt: skip
"""Results, whose fields are documented as attributes, and base classes without arguments: they need no table."""


@cache
def sections() -> dict[str, dict[str, str]]:
    """Return the lines of each class, function and method."""
    with FILE.open("rb") as file:
        return tomllib.load(file)


def line(key: str, name: str, bases: tuple[str, ...] = ()) -> str:
    """Return what an argument does, as reStructuredText; empty if nothing says it.

    ``key`` is a class, a function, or "Class.method"; ``bases`` are the classes that it inherits lines from.
    """
    name = name.lstrip("*")
    kind, dot, method = key.partition(".")
    for one in (kind, *bases):
        found = sections().get(one + dot + method, {}).get(name)
        if found is not None:
            return _marked(found)
    return _marked(sections()["shared"].get(name, ""))


def of(thing: Any, key: str, name: str) -> str:
    """Return what an argument of a class, a function or a method does."""
    return line(key, name, bases(thing, key))


def bases(thing: Any, key: str) -> tuple[str, ...]:
    """Return the names of the classes that a class, or the class of a method, inherits lines from."""
    kind = thing if inspect.isclass(thing) else _class_of(thing, key)
    return tuple(one.__name__ for one in getattr(kind, "__mro__", ())[1:])


def _class_of(method: Any, key: str) -> Any:
    kind = key.partition(".")[0]
    module = inspect.getmodule(method)
    found = getattr(module, kind, None)
    if found is None and hasattr(method, "__self__"):  # a class method
        found = method.__self__
    return found


def _marked(text: str) -> str:
    """Turn the marks of Markdown into those of reStructuredText."""
    return re.sub(r"`([^`]+)`", r"``\1``", text)


def parameters(thing: Any, key: str) -> Iterator[inspect.Parameter]:
    """Yield the parameters that a table shows, without ``self``."""
    if key in NOT_CALLED:
        return
    try:
        found = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return
    yield from (one for one in found if one.name not in {"self", "cls"})
