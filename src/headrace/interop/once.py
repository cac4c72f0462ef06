"""What can be read only once: iterators, given where an epoch must start again."""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType, GeneratorType
from typing import Any

from headrace.checks import kind_of
from headrace.errors import ArgumentTypeError


class OnlyOnce:
    """Watches the passes over one thing: the end of a second pass over an iterator is an error, no end of an epoch.

    >>> guard = OnlyOnce()
    >>> numbers = iter([1, 2])
    >>> list(guard.read("sampler", numbers))
    [1, 2]
    >>> list(guard.read("sampler", numbers))
    Traceback (most recent call last):
        ...
    headrace.errors.ArgumentTypeError: the sampler, a list_iterator, is an iterator that can be read ...

    An endless iterator may be continued in each epoch.
    """

    __slots__ = ("_before",)

    def __init__(self) -> None:
        self._before = False

    def __reduce__(self) -> tuple[type[OnlyOnce], tuple[()]]:
        # A copy is read by another process, which has its own iterators.
        return OnlyOnce, ()

    def read(self, name: str, thing: Any) -> Iterator[Any]:
        """Return the items of a thing, and raise where a pass ends that was no whole one."""
        before, self._before = self._before, True
        items: Iterator[Any] = iter(thing)
        if not before:
            return items
        return _again(name, thing, items)


def is_spent(thing: Any, items: Any, *, empty: bool) -> bool:
    """Say whether a pass, another before it, ended because its thing can be read only once.

    ``items`` is the iterator that the thing gave for the pass, ``empty`` whether nothing came of it. Iterators written
    in Python may start again in their ``__iter__``: only a pass without an item proves that they do not.
    """
    inner = _inner(thing)
    if inner is not thing:
        return isinstance(inner, Iterator) and (empty or _is_plain(inner))
    if items is thing:
        return empty or _is_plain(items)
    # An object that gives the same iterator each time; asked again only where the epoch would be lost in silence.
    return empty and _is_plain(items) and iter(thing) is items


def refusal(name: str, thing: Any) -> ArgumentTypeError:
    """Build the error of a thing that cannot be read again."""
    inner = _inner(thing)
    of = f" over {kind_of(inner)}" if inner is not thing else ""
    return ArgumentTypeError(
        f"the {name}, {kind_of(thing)}{of}, is an iterator that can be read only once; an earlier epoch read it",
        found=thing,
        expected="an object whose iter() starts again for each epoch",
        cure="Pass a list, or an object of a class with __iter__.",
    )


def _again(name: str, thing: Any, items: Iterator[Any]) -> Iterator[Any]:
    empty = True
    for item in items:
        empty = False
        yield item
    if is_spent(thing, items, empty=empty):
        raise refusal(name, thing)


def _inner(thing: Any) -> Any:
    """Return what a BatchSampler, ours or torch's, takes its indices from; anything else is itself."""
    for _ in range(8):
        if type(thing).__name__ != "BatchSampler" or not hasattr(thing, "sampler"):
            break
        thing = thing.sampler
    return thing


def _is_plain(items: Any) -> bool:
    """Say whether an iterator is a generator or one of Python's own, which never start again."""
    if isinstance(items, GeneratorType):
        return True
    return isinstance(items, Iterator) and not isinstance(getattr(type(items), "__iter__", None), FunctionType)
