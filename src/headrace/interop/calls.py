"""How a user's function wants to be called: with the sample, or with the sample and its random generator."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from functools import partial
from inspect import Parameter
from typing import TYPE_CHECKING, Any, Protocol

from headrace.context import seeds
from headrace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

if sys.version_info >= (3, 14):
    from annotationlib import Format

    # Annotations are evaluated when asked for: a name known to type checkers only must not fail here.
    _signature = partial(inspect.signature, annotation_format=Format.FORWARDREF)
else:
    _signature = inspect.signature


class Step(Protocol):
    """A transform as whoever applies it sees it: ``step(sample)``, or ``step(sample, rng)``."""

    def __call__(self, sample: Any, rng: np.random.Generator | None = None) -> Any:  # noqa: D102  it says itself
        ...


def takes_rng(function: Callable[..., Any]) -> bool:
    """Say whether a function is to be called as ``f(sample, rng)`` rather than as ``f(sample)``.

    It is where its first two parameters are both required, or where the second is named ``rng``; a function that
    does not tell its parameters, as some written in C do not, takes the sample alone.

    >>> takes_rng(lambda sample: sample), takes_rng(lambda sample, rng: sample)
    (False, True)
    >>> takes_rng(lambda sample, rng=None: sample), takes_rng(lambda sample, times=2: sample)
    (True, False)

    Raises ArgumentError for what cannot be called, and for a function that can be called in neither way.
    """
    if not callable(function):
        raise ArgumentError(
            f"each transform must be a function of one sample, or of (sample, rng); got {function!r}, "
            f"{article(type(function).__name__)}, which cannot be called"
        )
    try:
        parameters = list(_signature(function).parameters.values())
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is Parameter.empty]
    by_name = [p for p in parameters if p.kind is Parameter.KEYWORD_ONLY and p.default is Parameter.empty]
    any_number = any(p.kind is Parameter.VAR_POSITIONAL for p in parameters)
    if by_name or len(required) > 2 or not (positional or any_number):
        raise ArgumentError(
            f"each transform must be callable as f(sample) or f(sample, rng); "
            f"{getattr(function, '__qualname__', repr(function))} takes "
            f"({', '.join(map(str, parameters))}): give it the rest with functools.partial"
        )
    return len(required) == 2 or (len(positional) > 1 and positional[1].name == "rng")


def takes_empty(function: Callable[..., Any]) -> bool:
    """Say whether a collate function takes lent memory: a parameter named ``empty``, to be given by name.

    >>> takes_empty(lambda samples, empty: samples), takes_empty(lambda samples: samples)
    (True, False)
    """
    try:
        parameters = _signature(function).parameters
    except (TypeError, ValueError):
        return False
    return "empty" in parameters and parameters["empty"].kind is not Parameter.POSITIONAL_ONLY


class LazyRng:
    """A transform that asks `headrace.rng` itself, if it was given no generator and when it comes to draw.

    Making a sample's generator costs microseconds: `bind` hands none to what may not need one.
    """

    __slots__ = ()

    def __call__(self, sample: Any, rng: np.random.Generator | None = None) -> Any:
        """Return the sample transformed."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class _Alone:
    function: Callable[[Any], Any]

    def __call__(self, sample: Any, rng: np.random.Generator | None = None) -> Any:  # noqa: ARG002
        return self.function(sample)


@dataclass(frozen=True, slots=True)
class _WithRng:
    function: Callable[[Any, np.random.Generator], Any]

    def __call__(self, sample: Any, rng: np.random.Generator | None = None) -> Any:
        return self.function(sample, seeds.rng() if rng is None else rng)


def bind(function: Callable[..., Any]) -> Step:
    """Make of a user's function one that is called ``step(sample, rng=None)``, decided here once for all samples.

    >>> bind(lambda sample: sample + 1)(1), bind(lambda sample, rng: rng)(1, "the generator")
    (2, 'the generator')

    Raises ArgumentError as `takes_rng` does.
    """
    if isinstance(function, LazyRng):
        return function
    return _WithRng(function) if takes_rng(function) else _Alone(function)


def article(noun: str) -> str:
    """Put ``a`` or ``an`` before the name of a type.

    >>> article("list"), article("int")
    ('a list', 'an int')
    """
    return f"{'an' if noun[:1].lower() in set('aeiou') else 'a'} {noun}"


def flag(name: str, value: Any) -> bool:
    """Return a bool, of what is one: True, False, NumPy's, 1 or 0.

    >>> flag("drop_last", 0)
    False

    Raises `ArgumentError` for anything else: the text "False", from YAML or a command line, is true to Python.
    """
    if isinstance(value, bool):
        return value
    kind = getattr(getattr(value, "dtype", None), "kind", "i" if isinstance(value, int) else "")
    if kind in ("b", "i", "u") and getattr(value, "ndim", 0) == 0 and value in (0, 1):
        return bool(value)
    raise ArgumentError(
        f"{name} should be a boolean value, but got {name}={value!r}; give True or False, and convert text from YAML "
        "or a command line first"
    )
