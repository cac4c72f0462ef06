"""The collate functions that users registered for their types: read by the default collate function."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

registry: dict[type, Callable[..., Any]] = {}
_shown = MappingProxyType(registry)


def registered() -> Mapping[type, Callable[..., Any]]:
    """Return the functions that were registered, by type; read-only.

    >>> isinstance(registered(), MappingProxyType)
    True
    """
    return _shown
