"""What the items of a list or a tuple have in common: asked of every batch, so the native extension looks at them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace._native import extension

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def _one_type(items: Sequence[Any]) -> type | None:
    kinds = set(map(type, items))
    return kinds.pop() if len(kinds) == 1 else None


def _in_common(items: Sequence[Any], name: str) -> Any:
    values = [getattr(item, name) for item in items]
    return values[0] if values and all(value == values[0] for value in values) else None


def _values(items: Sequence[Any], name: str) -> list[Any]:
    found: list[Any] = []
    last = None
    for item in items:
        value = getattr(item, name)
        if value is not None and value is not last:
            found.append(value)
            last = value
    return found


one_type: Callable[[Sequence[Any]], type | None] = getattr(extension, "one_type", _one_type)
"""Return the type of all items; None where they have several, or there are none."""

in_common: Callable[[Sequence[Any], str], Any] = getattr(extension, "in_common", _in_common)
"""Return the value that an attribute has in all items; None where it differs, or there are none."""

values: Callable[[Sequence[Any], str], list[Any]] = getattr(extension, "values", _values)
"""Return the values of an attribute, without None and without those that are the same object as the one before."""
