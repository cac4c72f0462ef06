"""Do one `Move` to all the parts of a sample: images, masks, boxes with what belongs to them, keypoints."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import kind_of, shown
from headrace.errors import ArgumentError
from headrace.image import geometry
from headrace.image.kinds import IMAGE, LABELS, Boxes, Keypoints, Mask, rows_of
from headrace.image.moves import upright
from headrace.image.pending import Pending, move_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from headrace.image.geometry import Image
    from headrace.image.kinds import BoxFormat
    from headrace.image.moves import Move, Points
    from headrace.image.sample_fields import Field, Path

    Rows = npt.NDArray[Any]
    Kept = tuple[Rows, npt.NDArray[np.bool_]]

Size = tuple[int, int]

LEAST_AREA = 1e-6
"""A box of fewer pixels is empty: its area is a rounding error."""


def carried(owner: str, move: Move, fields: Sequence[Field], size: Size) -> dict[Path, Any]:
    """Return the new values of a sample's fields by their paths; ``size`` is that of the image before.

    >>> from headrace.image.moves import Mirror
    >>> from headrace.image.sample_fields import found
    >>> sample = {"image": np.zeros((2, 10, 3)), "boxes": [[1, 0, 3, 2]]}
    >>> carried("Flip", Mirror((2, 10)), found(sample), (2, 10))[("boxes",)]
    array([[7., 0., 9., 2.]], dtype=float32)

    Raises ArgumentError, under the name of the ``owner``, for fields that are not what their kind is, or that do not
    fit together.
    """
    values, kept = {}, kept_boxes(owner, move, fields, size)
    for field in fields:
        kind, value = field.kind, field.value
        if kind is IMAGE:
            values[field.path] = move_pixels(move, same_size(owner, field, size))
        elif isinstance(kind, Mask):
            values[field.path] = _mask(owner, move, field, kind, size, kept)
        elif isinstance(kind, Boxes) and kept is not None:
            values[field.path] = kept[0]
        elif isinstance(kind, Keypoints):
            values[field.path] = _keypoints(owner, move, field, kind, kept)
        elif kind is LABELS and kept is not None:
            values[field.path] = _chosen(owner, field, value, kept[1])
    return values


def kept_boxes(
    owner: str, move: Move, fields: Sequence[Field], size: Size
) -> tuple[Rows, npt.NDArray[np.bool_]] | None:
    """Return the boxes of a sample after a move, and which of its boxes these are; None where it has none."""
    field = boxes_field(owner, fields)
    if field is None:
        return None
    boxes, kind = box_rows(owner, field)
    given = corners(boxes, kind.format, size if kind.normalized else None)
    whole = upright(move.points, given)
    boxes_of = getattr(move, "boxes", None)  # where a box becomes another than that around its corners
    left = whole if boxes_of is None else boxes_of(given)
    full = np.where(_area(given) > 0, _area(whole), 0)
    return _kept(left, full, kind, move.size, boxes.dtype)


def _kept(left: Points, full: Points, kind: Boxes, size: Size, dtype: np.dtype[Any]) -> Kept:
    """Clip boxes of corners to an image, drop those with too little left, and return them in their own form."""
    height, width = size
    inside = np.clip(left, 0, (width, height, width, height))
    area = _area(inside)
    keep = (area > LEAST_AREA) & (full > 0) & (area >= kind.min_area) & (area >= kind.min_visibility * full)
    return formatted(inside[keep], kind.format, size if kind.normalized else None).astype(dtype), keep


def converted(owner: str, fields: Sequence[Field], form: BoxFormat, *, normalized: bool, size: Size) -> dict[Path, Any]:
    """Return the boxes of a sample in another format, by their path; `size` is the image's."""
    field = boxes_field(owner, fields)
    if field is None:
        return {}
    boxes, kind = box_rows(owner, field)
    given = corners(boxes, kind.format, size if kind.normalized else None)
    return {field.path: formatted(given, form, size if normalized else None).astype(boxes.dtype)}


def boxes_field(owner: str, fields: Sequence[Field]) -> Field | None:
    """Return the one field of boxes among the fields of a sample, if there is one."""
    several = [field for field in fields if isinstance(field.kind, Boxes)]
    if len(several) > 1:
        raise ArgumentError(
            f"{owner} got a sample with {len(several)} fields of boxes: {', '.join(map(name_of, several))}",
            found=[field.path for field in several],
            expected="one field of boxes at most, which labels, masks and keypoints belong to",
            cure="Put them in one array, with a field of labels that says which is which.",
        )
    return several[0] if several else None


def box_rows(owner: str, field: Field) -> tuple[Rows, Boxes]:
    """Return the boxes of a field as an array of floats, (N, 4), and their kind."""
    boxes = rows_of(field.value, (4,))
    if boxes is None or boxes.ndim != 2 or not np.isfinite(boxes).all():
        raise wrong(owner, field, "boxes: finite numbers, (N, 4)")
    if not isinstance(field.kind, Boxes):
        raise wrong(owner, field, "boxes")
    return boxes, field.kind


def corners(boxes: Rows, form: BoxFormat, size: Size | None) -> Points:
    """Return boxes as corners in pixels, in float64; ``size`` is the image's, where they are normalized.

    >>> corners(np.array([[0.5, 0.5, 1, 0.5]]), "cxcywh", (4, 8))
    array([[0., 1., 8., 3.]])
    """
    first, second = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    if form == "cxcywh":
        first = first - second / 2
    if form != "xyxy":
        second = first + second
    both = np.concatenate([first, second], axis=1)
    return both if size is None else both * (size[1], size[0], size[1], size[0])


def formatted(boxes: Points, form: BoxFormat, size: Size | None) -> Points:
    """Return corners in pixels in another format: the inverse of `corners`.

    >>> formatted(np.array([[0.0, 1, 8, 3]]), "cxcywh", (4, 8))
    array([[0.5, 0.5, 1. , 0.5]])
    """
    if size is not None:
        boxes = boxes / (size[1], size[0], size[1], size[0])
    first, second = boxes[:, :2], boxes[:, 2:]
    if form == "xyxy":
        return boxes
    return np.concatenate([first if form == "xywh" else (first + second) / 2, second - first], axis=1)


def same_size(owner: str, field: Field, size: Size) -> Image:
    """Return a further image, which must be as large as the first."""
    image = field.value
    if not isinstance(image, np.ndarray) or image.ndim not in (2, 3) or image.shape[:2] != size or not image.size:
        raise wrong(owner, field, f"an image of {size[0]} x {size[1]} pixels, as the first image of the sample is")
    return image


def name_of(field: Field) -> str:
    """Return how errors call a field.

    >>> from headrace.image.sample_fields import Field
    >>> name_of(Field(("target", "boxes"), Boxes(), None))
    "'target' -> 'boxes'"
    """
    return " -> ".join(map(repr, field.path)) or "the sample"


def wrong(owner: str, field: Field, expected: str) -> ArgumentError:
    """Build the error for a field that is not what its kind is."""
    value = field.value
    array = isinstance(value, np.ndarray)
    what = f"an array of shape {value.shape} and dtype {value.dtype}" if array else f"{kind_of(value)}, {shown(value)}"
    return ArgumentError(
        f"{owner} got for {name_of(field)} {what}",
        found=value.shape if array else shown(value),
        expected=expected,
        cure=(
            "Fix the sample, or declare the field as what it is: Compose(..., kinds={...})."
            if field.by_name
            else "Fix the sample, or the kind that Compose(..., kinds={...}) declares for the field."
        ),
    )


def _mask(owner: str, move: Move, field: Field, kind: Mask, size: Size, kept: Kept | None) -> Image:
    mask = field.value
    stacked = kind.stacked and isinstance(mask, np.ndarray) and mask.ndim == 3
    axes = (1, 2) if stacked else (0, 1)
    ndims = (3,) if stacked else (2,) if kind.stacked else (2, 3)
    if not isinstance(mask, np.ndarray) or mask.ndim not in ndims or tuple(mask.shape[axis] for axis in axes) != size:
        form = "(N, H, W) or (H, W)" if kind.stacked else "(H, W) or (H, W, C)"
        raise wrong(owner, field, f"a mask {form} of {size[0]} x {size[1]} pixels, as the image is")
    # Checked before it is needed: whether a mask is refused must not depend on a draw.
    if kind.fill and not _holds(mask.dtype, kind.fill):
        raise wrong(owner, field, f"a mask of a dtype that holds its fill, {kind.fill:g}")
    if stacked and kept is not None:
        mask = _chosen(owner, field, mask, kept[1])
    return move_pixels(move, mask, kind.fill, stacked=stacked)


@lru_cache(maxsize=64)
def _holds(dtype: np.dtype[Any], fill: float) -> bool:
    try:
        geometry.fill_of(fill, dtype, ())
    except ArgumentError:
        return False
    return True


def _keypoints(owner: str, move: Move, field: Field, kind: Keypoints, kept: Kept | None) -> Rows:
    given = rows_of(field.value, (2, 3))
    if given is None or given.ndim not in (2, 3):
        raise wrong(owner, field, "keypoints, (K, 2), (K, 3), (N, K, 2) or (N, K, 3)")
    labeled = given[..., :2] if given.shape[-1] == 2 else given[given[..., 2] != 0]
    if not np.isfinite(labeled).all():
        raise wrong(owner, field, "finite keypoints: those that were not labeled have a visibility of 0")
    if given.ndim == 3 and kept is not None:
        given = _chosen(owner, field, given, kept[1])
    places, inside = _followed(move, given[..., :2])
    moved = given.copy()
    moved[..., :2] = places
    if given.shape[-1] == 3:
        seen = given[..., 2] != 0
        moved[seen & ~inside] = 0
        moved[~seen] = given[~seen]
    if move.mirrors and kind.swaps and moved.size:
        _swap(owner, moved, field, kind)
    return moved


def _followed(move: Move, given: Rows) -> Kept:
    """Return keypoints moved; and whether each was inside the image after every part of the move."""
    points, inside = given.astype(np.float64) + 0.5, np.ones(given.shape[:-1], bool)
    with np.errstate(invalid="ignore"):  # what was not labeled may be anything
        for part in getattr(move, "stages", (move,)):
            points = part.points(points)
            inside &= ((points >= 0) & (points < part.size[::-1])).all(axis=-1)
    return points - 0.5, inside


def _swap(owner: str, moved: Rows, field: Field, kind: Keypoints) -> None:
    """Let the points of pairs change places, in place."""
    one, other = np.array(kind.swaps).T
    if max(one.max(), other.max()) >= moved.shape[-2]:
        raise wrong(owner, field, f"keypoints for all of swaps={kind.swaps}")
    moved[..., [*one, *other], :] = moved[..., [*other, *one], :]


def _chosen(owner: str, field: Field, value: Any, keep: npt.NDArray[np.bool_]) -> Any:
    """Return the rows of a field that belong to the boxes that are kept."""
    try:
        rows = len(value)
    except TypeError:
        rows = -1
    if rows != len(keep) or not isinstance(value, np.ndarray | list | tuple):
        raise wrong(owner, field, f"a row for each of the {len(keep)} boxes")
    if isinstance(value, np.ndarray):
        return value.chosen(keep) if isinstance(value, Pending) else value[keep]
    chosen = [one for one, kept in zip(value, keep.tolist(), strict=True) if kept]
    return tuple(chosen) if isinstance(value, tuple) else type(value)(chosen)


def _area(boxes: Points) -> npt.NDArray[np.float64]:
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    area: npt.NDArray[np.float64] = sides[:, 0] * sides[:, 1]
    return area
