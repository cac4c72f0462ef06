"""Find masks, boxes and other parts of a sample with places in its image, which geometry would make wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from numbers import Real
from typing import Any

SPATIAL = frozenset(
    [
        "mask",
        "masks",
        "box",
        "boxes",
        "bbox",
        "bboxes",
        "keypoint",
        "keypoints",
        "point",
        "points",
        "landmark",
        "landmarks",
        "ellipse",
        "ellipses",
        "segmentation",
        "segmentations",
        "segmap",
        "polygon",
        "polygons",
        "contour",
        "contours",
        "depth",
        "disparity",
        "heatmap",
        "heatmaps",
    ]
)
"""Words in a key or a field name that mean places in the image."""

MASKS = frozenset({"mask", "masks"})
"""Words that also name vectors, such as an attention mask, which have no place in the image."""

WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
COLUMNS = range(4, 6)
DEEPEST = 4
PLAIN = (int, float, str, bytes, complex, type(None))

Size = tuple[int, ...]


def spatial_part(sample: Any, size: Size) -> str:
    """Describe the part of a sample that seems to have places in its image; empty if none.

    >>> import numpy as np
    >>> image, mask = np.zeros((6, 8, 3)), np.zeros((6, 8))
    >>> spatial_part((image, 7), (6, 8)), spatial_part((image, np.zeros(10)), (6, 8))
    ('', '')
    >>> spatial_part((image, mask), (6, 8))
    'item 1, of shape (6, 8), as large as the image'
    >>> spatial_part({"image": image, "boxes": np.zeros((0, 4))}, (6, 8))
    "'boxes', of shape (0, 4)"
    """
    if isinstance(sample, Mapping):
        return _in_mapping(sample, size, "", 0, skip="image")
    names = getattr(sample, "_fields", None)
    for number, part in enumerate(sample[1:], 1):
        if type(part) in PLAIN:
            continue
        found = _named(repr(names[number]), names[number], part, size, 0) if names else ""
        found = found or _of(f"item {number}", part, size, 0, rows=not names)
        if found:
            return found
    return ""


def _in_mapping(parts: Mapping[Any, Any], size: Size, where: str, depth: int, skip: str | None = None) -> str:
    for key, part in parts.items():
        if (skip is not None and key == skip) or type(part) in PLAIN:
            continue
        place = f"{where}{key!r}"
        found = _named(place, key, part, size, depth) or _of(place, part, size, depth, rows=False)
        if found:
            return found
    return ""


def _named(place: str, key: Any, part: Any, size: Size, depth: int) -> str:
    """Judge a part by its name."""
    words = {word.lower() for word in WORD.findall(key)} & SPATIAL if isinstance(key, str) else set()
    if not words:
        return ""
    shape = _shape(part)
    if shape is not None:
        return f"{place}, of shape {shape}" if shape and (len(shape) > 1 or not words <= MASKS) else ""
    if isinstance(part, Mapping):
        return f"{place}, a {type(part).__name__}"
    if isinstance(part, (list, tuple)):
        flat = all(isinstance(one, Real) for one in part)
        return "" if flat and words <= MASKS else f"{place}, a {type(part).__name__}"
    return _of(place, part, size, depth, rows=False)


def _of(place: str, part: Any, size: Size, depth: int, *, rows: bool) -> str:
    """Judge a part by its shape; with ``rows``, also by whether it has the columns of boxes or ellipses."""
    shape = _shape(part)
    if shape is not None:
        if len(shape) > 1 and size in (shape[:2], shape[-2:]) and size != (1, 1):
            return f"{place}, of shape {shape}, as large as the image"
        if rows and len(shape) == 2 and shape[1] in COLUMNS:
            return f"{place}, of shape {shape}, as boxes and ellipses have it"
        return ""
    if depth == DEEPEST:
        return ""
    if isinstance(part, Mapping):
        return _in_mapping(part, size, f"{place} -> ", depth + 1)
    if isinstance(part, (list, tuple)) and part:
        first = part[0]
        if rows and isinstance(first, (list, tuple)) and len(first) in COLUMNS:
            numbers = all(isinstance(one, Real) for one in first)
            if numbers:
                return f"{place}, rows of {len(first)} numbers, as boxes and ellipses have them"
        for number, one in enumerate(part[:8]):
            if type(one) not in PLAIN and (found := _of(f"{place}[{number}]", one, size, depth + 1, rows=rows)):
                return found
    return ""


def _shape(part: Any) -> Size | None:
    if type(part).__module__.startswith("PIL."):
        width, height = part.size
        return (height, width)
    shape = getattr(part, "shape", None)
    return tuple(shape) if isinstance(shape, tuple) else None
