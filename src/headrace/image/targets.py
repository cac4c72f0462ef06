"""Find masks, boxes and other parts of a sample with places in its image, which geometry would make wrong.

The rule: beside an image pass numbers, text, vectors of numbers (one-hot labels, say) and containers of these. All else
that holds numbers along two axes or more may be places in the image: masks, boxes, keypoints, polygons, other images.
A name that means places (``boxes``) makes places of a vector too. What is under the key "label" is declared to be no
places, unless it is as large as the image or has such a name within.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from datetime import date, timedelta
from enum import Enum
from numbers import Number
from pathlib import PurePath
from typing import Any

from headrace.checks import kind_of

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
        "annotation",
        "annotations",
        "center",
        "centers",
        "coord",
        "coords",
        "coordinate",
        "coordinates",
        "corner",
        "corners",
        "flow",
        "gaze",
        "instances",
        "joint",
        "joints",
        "panoptic",
        "pose",
        "poses",
        "quad",
        "quads",
        "rect",
        "rects",
        "rectangle",
        "rectangles",
        "region",
        "regions",
        "rle",
        "roi",
        "rois",
        "saliency",
        "semantic",
        "skeleton",
        "skeletons",
        "trimap",
        "xywh",
        "xyxy",
    ]
)
"""Words in a key or a field name that mean places in the image."""

DECLARED = "label"
"""The key whose value is declared to have no places in the image."""

MASKS = frozenset({"mask", "masks"})
"""Words that also name vectors, such as an attention mask, which have no place in the image."""

WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
DEEPEST = 6
SEVERAL = 8
"""How many items of a list are looked at; the others are taken to be like them."""

PLAIN = (int, float, str, bytes, complex, type(None))
SCALARS = (Number, str, bytes, bytearray, PurePath, date, timedelta, Enum, type)
TEXT = "SUOMm"
"""Kinds of dtypes that are no numbers."""

Size = tuple[int, ...]


def spatial_part(sample: Any, size: Size) -> str:
    """Describe the part of a sample that seems to have places in its image; empty if none.

    >>> import numpy as np
    >>> image, mask = np.zeros((6, 8, 3)), np.zeros((6, 8))
    >>> spatial_part((image, 7), (6, 8)), spatial_part((image, np.zeros(10)), (6, 8))
    ('', '')
    >>> spatial_part((image, mask), (6, 8))
    'item 1, of shape (6, 8)'
    >>> spatial_part({"image": image, "boxes": np.zeros((0, 4))}, (6, 8))
    "'boxes', of shape (0, 4)"
    >>> spatial_part({"image": image, "label": np.zeros((3, 4))}, (6, 8))
    ''
    """
    if isinstance(sample, Mapping):
        return _in_mapping(sample, size, "", 0, skip="image")
    names = getattr(sample, "_fields", None)
    for number, part in enumerate(sample[1:], 1):
        if type(part) in PLAIN:
            continue
        if names:
            found = _under(repr(names[number]), names[number], part, size, 0)
        else:
            found = _of(f"item {number}", part, size, 0)
        if found:
            return found
    return ""


def _in_mapping(
    parts: Mapping[Any, Any], size: Size, where: str, depth: int, *, skip: str | None = None, declared: bool = False
) -> str:
    for key, part in parts.items():
        if (skip is not None and key == skip) or type(part) in PLAIN:
            continue
        found = _under(f"{where}{key!r}", key, part, size, depth, declared=declared)
        if found:
            return found
    return ""


def _under(place: str, key: Any, part: Any, size: Size, depth: int, *, declared: bool = False) -> str:
    """Judge a part by its name, then by what it is."""
    words = {word.lower() for word in WORD.findall(key)} & SPATIAL if isinstance(key, str) else set()
    if not words or isinstance(part, SCALARS):
        return _of(place, part, size, depth, declared=declared or key == DECLARED)
    shape = _shape(part)
    if shape is not None:
        return f"{place}, of shape {shape}" if shape and (len(shape) > 1 or not words <= MASKS) else ""
    if isinstance(part, (list, tuple)):
        flat = all(isinstance(one, SCALARS) for one in part)
        return "" if flat and (words <= MASKS or _is_text(part)) else f"{place}, {kind_of(part)}"
    return f"{place}, {kind_of(part)}"


def _of(place: str, part: Any, size: Size, depth: int, *, declared: bool = False) -> str:
    """Judge a part by its axes; with ``declared``, by whether it is as large as the image."""
    shape = _shape(part)
    if shape is not None:
        return _by_shape(place, part, shape, size, declared=declared)
    if depth == DEEPEST or isinstance(part, (*SCALARS, Set)):
        return ""
    if isinstance(part, Mapping):
        return _in_mapping(part, size, f"{place} -> ", depth + 1, declared=declared)
    if isinstance(part, (list, tuple)):
        return _in_sequence(place, part, size, depth, declared=declared)
    return _in_mapping(getattr(part, "__dict__", {}), size, f"{place} -> ", depth + 1, declared=declared)


def _by_shape(place: str, part: Any, shape: Size, size: Size, *, declared: bool) -> str:
    dtype = getattr(part, "dtype", None)
    if declared:
        large = len(shape) > 1 and size in (shape[:2], shape[-2:]) and size != (1, 1)
        return f"{place}, of shape {shape}, as large as the image" if large else ""
    fields = getattr(dtype, "names", None)
    if fields:
        return f"{place}, with the fields {', '.join(fields)}"
    if len(shape) < 2 or (len(shape) == 2 and shape[1] == 1) or getattr(dtype, "kind", "f") in TEXT:
        return ""
    return f"{place}, of shape {shape}"


def _in_sequence(place: str, part: Any, size: Size, depth: int, *, declared: bool) -> str:
    names = getattr(part, "_fields", None)
    for number, one in enumerate(part[:SEVERAL]):
        if type(one) in PLAIN:
            continue
        if names:
            found = _under(f"{place}[{names[number]!r}]", names[number], one, size, depth + 1, declared=declared)
        elif not declared and _is_row(one):
            return f"{place}, rows of {len(one)} numbers"
        else:
            found = _of(f"{place}[{number}]", one, size, depth + 1, declared=declared)
        if found:
            return found
    return ""


def _is_row(part: Any) -> bool:
    """Say whether an item of a list is a list or a vector of several numbers, so that the list has two axes."""
    shape = _shape(part)
    if shape is not None:
        return len(shape) == 1 and shape[0] > 1 and getattr(getattr(part, "dtype", None), "kind", "f") not in TEXT
    return isinstance(part, (list, tuple)) and len(part) > 1 and all(isinstance(one, Number) for one in part[:SEVERAL])


def _is_text(parts: Any) -> bool:
    return bool(parts) and all(isinstance(one, (str, bytes)) for one in parts)


def _shape(part: Any) -> Size | None:
    if type(part).__module__.startswith("PIL."):
        width, height = part.size
        return (height, width)
    shape = getattr(part, "shape", None)
    return tuple(shape) if isinstance(shape, tuple) else None
