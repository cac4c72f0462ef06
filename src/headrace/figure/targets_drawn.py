"""What a sample has besides its image, as something to draw and to write: masks, boxes, keypoints, labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.figure.parts import LABELS, as_array
from headrace.image import carrying
from headrace.image.kinds import LABELS as OF_BOXES
from headrace.image.kinds import NONE_DECLARED, Boxes, Keypoints, Kinds, Mask, rows_of
from headrace.image.overlay import NOTHING, Overlay
from headrace.image.sample_fields import found
from headrace.transforms.base import Transform
from headrace.transforms.image_transform import WithKinds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headrace.image.sample_fields import Field

MOST_NAMED = 4
"""How many classes of a soft label are written below an image."""
LEAST_SHARE = 0.005
COUNTS = ("count", "counts", "num_boxes")
"""Names of what says how many rows of a padded batch are boxes."""


def row_of(batch: Any, rows: int, row: int, *, outer: bool = True) -> Any:
    """Return one sample of a batch of so many: the row of each array, the item of each list.

    >>> row_of({"x": np.arange(6).reshape(2, 3), "boxes": [[], [7]], "tag": "a"}, 2, 1)
    {'x': array([3, 4, 5]), 'boxes': [7], 'tag': 'a'}
    """
    array = as_array(batch)
    if array is not None:
        return array[row] if array.ndim and len(array) == rows else array
    if isinstance(batch, Mapping):
        return {key: row_of(value, rows, row, outer=False) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        if len(batch) == rows and not (outer and any(_holds_rows(one, rows) for one in batch)):
            return plain(batch[row])
        return tuple(row_of(value, rows, row, outer=False) for value in batch)
    return batch


def _holds_rows(value: Any, rows: int) -> bool:
    array = as_array(value)
    return isinstance(value, Mapping) or (array is not None and array.ndim > 2 and len(array) == rows)


def plain(sample: Any) -> Any:
    """Return a sample with other libraries' arrays as NumPy's.

    >>> plain({"a": np.float32(2)})
    {'a': array(2., dtype=float32)}
    """
    array = as_array(sample)
    if array is not None:
        return array
    if isinstance(sample, Mapping):
        return {key: plain(value) for key, value in sample.items()}
    if isinstance(sample, tuple) and not hasattr(sample, "_fields"):
        return tuple(map(plain, sample))
    return sample


def overlay_of(sample: Any, size: tuple[int, int], kinds: Kinds | None, classes: Sequence[str]) -> Overlay:
    """Return what to draw on the image of a sample, which has this height and width.

    >>> sample = {"image": np.zeros((4, 4)), "boxes": [[0, 0, 2, 2]], "labels": [1]}
    >>> overlay = overlay_of(sample, (4, 4), None, ["a", "b"])
    >>> overlay.boxes.tolist(), overlay.names
    ([[0.0, 0.0, 2.0, 2.0]], ('b',))

    What does not fit its kind or the image is left out: a figure is for looking, also at what is wrong.
    """
    fields = _fields(sample, kinds)
    drawn: dict[str, Any] = {}
    points: list[Any] = []
    for one in fields:
        if isinstance(one.kind, Mask):
            drawn |= _mask(one, one.kind, size)
        elif isinstance(one.kind, Boxes) and "boxes" not in drawn:
            drawn |= _boxes(one, one.kind, size)
        elif isinstance(one.kind, Keypoints):
            points += _points(one)
    number = _counted(sample, len(drawn["boxes"])) if "boxes" in drawn else len(drawn.get("masks", ()))
    if "boxes" in drawn:
        drawn["boxes"] = drawn["boxes"][:number]
    drawn |= _labels(fields, sample, number, classes)
    if points:
        drawn["points"] = tuple(points)
    return Overlay(**drawn) if drawn else NOTHING


def _fields(sample: Any, kinds: Kinds | None) -> list[Field]:
    fields = found(sample, kinds or NONE_DECLARED)
    if not fields and isinstance(sample, Mapping):  # its image has another name
        fields = found({"image": np.zeros((1, 1)), **sample}, kinds or NONE_DECLARED)
    return fields


def _mask(one: Field, kind: Mask, size: tuple[int, int]) -> dict[str, Any]:
    mask = one.value
    if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "biuf":
        return {}
    if mask.shape == size:
        ignored = int(kind.fill) if kind.fill else None
        return {"mask": np.nan_to_num(mask), "ignored": ignored}
    return {"masks": mask} if kind.stacked and mask.ndim == 3 and mask.shape[1:] == size else {}


def _boxes(one: Field, kind: Boxes, size: tuple[int, int]) -> dict[str, Any]:
    rows = rows_of(one.value, (4,))
    if rows is None or rows.ndim != 2 or not np.isfinite(rows).all():
        return {}
    return {"boxes": carrying.corners(rows, kind.format, size if kind.normalized else None)}


def _points(one: Field) -> list[Any]:
    rows = rows_of(one.value, (2, 3))
    if rows is None or rows.ndim not in (2, 3) or not np.isfinite(rows).all():
        return []
    return [np.asarray(rows, np.float64)] if rows.ndim == 2 else list(np.asarray(rows, np.float64))


def _counted(sample: Any, rows: int) -> int:
    """Return how many rows are boxes; a padded batch says how many."""
    mappings = [one for one in (sample, *(sample if isinstance(sample, tuple) else ())) if isinstance(one, Mapping)]
    counts = [int(mapping[name]) for mapping in mappings for name in COUNTS if _is_integer(mapping.get(name))]
    return min([rows, *counts])


def _labels(fields: list[Field], sample: Any, number: int, classes: Sequence[str]) -> dict[str, Any]:
    """Return the classes and the names of boxes or objects, of the field of labels that looks most like it."""
    of_boxes = [one for one in fields if one.kind is OF_BOXES and _length(one.value) >= number]
    of_boxes.sort(key=lambda one: str(one.path[-1]) not in LABELS)
    labels = next((one.value for one in of_boxes if _names(one.value[:number], classes) is not None), None)
    if labels is None or not number:
        return {}
    names = _names(labels[:number], classes) or []
    order = {name: place for place, name in enumerate([*classes, *sorted(set(names) - set(classes))], not classes)}
    numbers = [int(one) if _is_integer(one) else order[name] for one, name in zip(labels, names, strict=False)]
    scores = next((m["scores"] for m in (sample,) if isinstance(m, Mapping) and "scores" in m), None)
    if scores is not None and _length(scores) >= number:
        names = [f"{name} {float(score):.2f}" for name, score in zip(names, scores, strict=False)]
    return {"classes": tuple(numbers), "names": tuple(names)}


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim) else -1


def _names(labels: Any, classes: Sequence[str]) -> list[str] | None:
    items = labels.reshape(-1).tolist() if isinstance(labels, np.ndarray) else list(labels)
    if all(isinstance(one, str) for one in items):
        return items
    return [name_of(int(one), classes) for one in items] if all(map(_is_integer, items)) else None


def _is_integer(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and value.dtype.kind in "iu"
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def name_of(label: int, classes: Sequence[str]) -> str:
    """Return the name of a label.

    >>> name_of(1, ["cat", "dog"]), name_of(7, []), name_of(-1, [])
    ('dog', 'label 7', 'no label')
    """
    if 0 <= label < len(classes):
        return str(classes[label])
    return "no label" if label == -1 else f"label {label}"


def soft_name(shares: Any, classes: Sequence[str]) -> str:
    """Return a soft label in words, the largest share first; of classes that are 0 or 1, those that are 1.

    >>> soft_name([0.7, 0.3, 0], ["cat", "dog", "cow"]), soft_name([0, 1, 1], ["cat", "dog", "cow"])
    ('cat 0.7, dog 0.3', 'dog, cow')
    """
    values = np.asarray(shares, np.float64)
    if ((values == 0) | (values == 1)).all():
        return ", ".join(name_of(int(place), classes) for place in np.flatnonzero(values)) or "no label"
    order = [int(place) for place in np.argsort(-values, kind="stable") if values[place] >= LEAST_SHARE]
    named = [f"{name_of(place, classes)} {values[place]:.2g}" for place in order[:MOST_NAMED]]
    return ", ".join(named) + ", …" * (len(order) > MOST_NAMED)


def kinds_along(functions: Iterable[Any]) -> tuple[Kinds | None, Kinds | None]:
    """Return the kinds of a sample's fields before and after functions, as they declare or change them.

    >>> from headrace.transforms import Compose, ConvertBoundingBoxFormat, Resize
    >>> chain = Compose(Resize(8), ConvertBoundingBoxFormat("xywh"), kinds={"bbox": "boxes"})
    >>> [kinds.fields[0][1].format for kinds in kinds_along(chain.transforms)]
    ['xyxy', 'xywh']
    """
    before, kinds = None, None
    for function in functions:
        declared = getattr(function, "kinds", None)
        if isinstance(declared, Kinds):
            before, kinds = before or declared, declared
        if isinstance(function, Transform):
            kinds = function.kinds_after(kinds)
    return before, kinds


def bare(function: Any) -> Any:
    """Return a transform itself, of one that a `Compose` with kinds made.

    >>> from headrace.transforms import Compose, Resize
    >>> bare(Compose(Resize(8), kinds={"x": "image"}).transforms[0])
    Resize(size=8, interpolation='bilinear', antialias=True)
    """
    return function.transform if isinstance(function, WithKinds) else function


def mask_names(overlay: Overlay, classes: Sequence[str]) -> str:
    """Return the names of the classes in a mask, where they have names.

    >>> mask_names(Overlay(mask=np.array([[0, 2, 2]])), ["none", "cat", "dog"])
    'dog'
    """
    if overlay.mask is None:
        return ""
    numbers = [int(one) for one in np.unique(overlay.mask) if one and one != overlay.ignored]
    return ", ".join(str(classes[one]) for one in numbers if 0 < one < len(classes))
