"""A registry of collate functions for user types, used by every loader with the default collate function."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import shown
from headrace.errors import ArgumentError, ArgumentTypeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BUILT_IN = (np.ndarray, np.generic, str, bytes, int, float, complex)
"""Types whose default cannot be replaced for all loaders."""

_registered: dict[type, Callable[..., Any]] = {}
_shown = MappingProxyType(_registered)


def register_collate(kind: type, function: Callable[..., Any]) -> None:
    """Register the function that `default_collate` uses for samples of a type, at any depth in a sample.

    >>> from datetime import date
    >>> import numpy as np
    >>> from headrace.collate import default_collate, register_collate
    >>> register_collate(date, lambda samples, collate_fn_map: np.array(samples, "datetime64[D]"))
    >>> default_collate([(date(2024, 5, 1), 1), (date(2024, 5, 2), 2)])
    [array(['2024-05-01', '2024-05-02'], dtype='datetime64[D]'), array([1, 2])]

    ``function(samples, collate_fn_map=…)`` gets the samples of one batch. It passes the mapping on to
    `headrace.collate.collate` if the samples hold other samples. Subclasses of ``kind`` are collated by it too. A
    ``collate_fn_map`` that is given to `default_collate` comes first. Call it where the type is defined: then each
    worker process that imports the type knows the function too. Registering a type again replaces its function.

    Raises `ArgumentError` if ``kind`` is not a type or is a built-in type with a default, and if ``function`` is not
    callable.
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
    if not callable(function):
        raise ArgumentTypeError(
            f"function must be callable; got {shown(function)}",
            found=function,
            expected="callable as function(samples, collate_fn_map=...)",
            cure="pass a function, not its result",
        )
    _registered[kind] = function


def registered() -> Mapping[type, Callable[..., Any]]:
    """Return the functions that were registered, by type; read-only.

    >>> isinstance(registered(), MappingProxyType)
    True
    """
    return _shown
