"""Register collate functions for user types, used by every loader with the default collate function."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from headrace.checks import shown
from headrace.collate.default import collate
from headrace.collate.user_types import registry
from headrace.errors import ArgumentError, ArgumentTypeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

BUILT_IN = (np.ndarray, np.generic, str, bytes, int, float, complex)
"""Types whose default cannot be replaced for all loaders."""


def register_collate(kind: type[T], function: Callable[..., Any] | None = None) -> type[T]:
    """Register the function that `default_collate` uses for samples of a type, at any depth in a sample.

    >>> from datetime import date
    >>> import numpy as np
    >>> from headrace.collate import default_collate, register_collate
    >>> kind = register_collate(date, lambda samples, collate_fn_map: np.array(samples, "datetime64[D]"))
    >>> default_collate([(date(2024, 5, 1), 1), (date(2024, 5, 2), 2)])
    [array(['2024-05-01', '2024-05-02'], dtype='datetime64[D]'), array([1, 2])]

    Without ``function``, ``kind`` must be a dataclass: a batch is then an object of it, each field a batch. The type is
    returned, so that it can be a decorator:

    >>> from dataclasses import dataclass
    >>> @register_collate
    ... @dataclass
    ... class Photo:
    ...     image: np.ndarray
    ...     label: int
    >>> default_collate([Photo(np.zeros((2, 3)), 4), Photo(np.ones((2, 3)), 5)]).label
    array([4, 5])

    ``function(samples, collate_fn_map=…)`` gets the samples of one batch. It passes the mapping on to
    `headrace.collate.collate` if the samples hold other samples. Subclasses of ``kind`` are collated by it too. A
    ``collate_fn_map`` that is given to `default_collate` comes first. Call it where the type is defined: then each
    worker process that imports the type knows the function too. Registering a type again replaces its function.

    Raises `ArgumentError` if ``kind`` is not a type, is a built-in type with a default, or without ``function`` is no
    dataclass, and if ``function`` is not callable.
    """
    if not isinstance(kind, type):
        raise ArgumentTypeError(
            f"kind must be a type; got {shown(kind)}",
            found=kind,
            expected="a type",
            cure="pass the class itself",
        )
    if issubclass(kind, BUILT_IN):
        raise ArgumentError(
            f"{kind.__qualname__} has a default collate function that other code relies on",
            found=kind.__qualname__,
            expected="a class of your own",
            cure="pass a collate_fn_map to default_collate in one loader, or register a class of your own",
        )
    if function is None and is_dataclass(kind):
        function = _by_fields
    if not callable(function):
        raise ArgumentTypeError(
            f"function must be callable; got {shown(function)}",
            found=function,
            expected="callable as function(samples, collate_fn_map=...)",
            cure="pass a function, not its result; it can be left out for a dataclass",
        )
    registry[kind] = function
    return kind


def _by_fields(samples: Sequence[Any], collate_fn_map: Any) -> Any:
    """Return one object of the samples' dataclass, each field the batch of the samples' fields.

    It is made without its ``__init__``, which was written for a sample.
    """
    kind = type(samples[0])
    batch = object.__new__(kind)
    for one in fields(kind):
        column = collate([getattr(sample, one.name) for sample in samples], collate_fn_map=collate_fn_map)
        object.__setattr__(batch, one.name, column)  # also of a frozen one
    return batch
