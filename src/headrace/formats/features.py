"""What Hugging Face's `datasets` declares of a column beside its Arrow type: images, audio, arrays of fixed shapes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from headrace.formats.arrow import Type


def is_file(kind: Type) -> bool:
    """Say whether a column is a struct of bytes and path, as `datasets` stores images and audio."""
    parts = {name: child.layout for name, child in kind.children}
    return kind.layout == "struct" and parts == {"bytes": "binary", "path": "binary"}


def kind_of(kind: Type, feature: Any) -> str | None:
    """Return what decodes the bytes of a column, as `Fields` names it; None for a column that is no bytes."""
    if kind.is_text:
        return "txt"
    if kind.layout != "binary" and not is_file(kind):
        return None
    is_image = _is(feature, "Image") and feature.get("decode", True) is not False
    return "jpg" if is_image else "bytes"


def classes_of(features: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Return the names of the classes, where one of these columns is a `ClassLabel`.

    >>> classes_of({"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}, ["image", "label"])
    ['cat', 'dog']
    """
    labels = [features[name] for name in dict.fromkeys(names) if _is(features.get(name), "ClassLabel")]
    found = labels[0].get("names") if len(labels) == 1 else None
    return [str(name) for name in found] if isinstance(found, list) else []


def has_shape(feature: Any) -> bool:
    """Say whether the values of a column are arrays of two axes or more."""
    return any(_is(feature, f"Array{axes}D") for axes in range(2, 6))


def shaped(found: Any, feature: Any) -> Any:
    """Return the array of a column that has a shape; what it is, where it has no such shape.

    >>> shaped([np.arange(2), np.arange(2)], {"_type": "Array2D", "shape": [2, 2], "dtype": "int64"})
    array([[0, 1],
           [0, 1]])
    """
    try:
        array = np.asarray(found)
        sizes = [len(array) if size is None else int(size) for size in feature.get("shape")]
        return array.reshape(sizes) if math.prod(sizes) == array.size and not array.dtype.hasobject else found
    except (TypeError, ValueError):
        return found


def _is(feature: Any, name: str) -> bool:
    return isinstance(feature, dict) and feature.get("_type") == name
