"""What the fields of a sample are: images, masks, boxes, keypoints, labels; declared, or known by their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from headrace.checks import flag, fraction, integer, number, one_of, refused

if TYPE_CHECKING:
    from numpy.typing import NDArray

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]
"""Corners; or the top left corner and the size; or the center and the size."""

BOX_FORMATS: tuple[BoxFormat, ...] = get_args(BoxFormat)


@dataclass(frozen=True, slots=True)
class Mask:
    """A field with a value for each pixel of the image: classes, instances, an alpha channel, depth.

    >>> import numpy as np
    >>> from headrace.transforms import Compose, Mask, Pad
    >>> pad = Compose(Pad(1), kinds={"image": "image", "segmentation": Mask(fill=255)})
    >>> pad({"image": np.zeros((1, 2, 3), np.uint8), "segmentation": np.array([[7, 8]])})["segmentation"]
    array([[255, 255, 255, 255],
           [255,   7,   8, 255],
           [255, 255, 255, 255]])

    A mask is ``(H, W)`` or ``(H, W, C)`` of any dtype, as large as the image. Its values are moved, never mixed:
    geometry takes the nearest one. ``fill`` is the value outside of it, for example the index that the loss ignores.

    ``stacked=True`` is for several masks, ``(N, H, W)``. Beside boxes, they are one for each box, and a dropped box
    takes its mask with it. The name of the kind is "mask", or "masks" where they are stacked.
    """

    fill: float = 0
    _: KW_ONLY
    stacked: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "fill", number("Mask: fill", self.fill))
        object.__setattr__(self, "stacked", flag("Mask: stacked", self.stacked))


@dataclass(frozen=True, slots=True)
class Boxes:
    """A field with a bounding box in each row, ``(N, 4)``.

    >>> import numpy as np
    >>> from headrace.transforms import Boxes, CenterCrop, Compose
    >>> crop = Compose(CenterCrop(4), kinds={"image": "image", "boxes": Boxes("xywh"), "labels": "labels"})
    >>> sample = {"image": np.zeros((8, 8, 3)), "boxes": np.array([[1, 3, 3, 3], [0, 0, 2, 2]]), "labels": ["a", "b"]}
    >>> sample = crop(sample)
    >>> sample["boxes"], sample["labels"]
    (array([[0., 1., 2., 3.]], dtype=float32), ['a'])

    ``format`` is "xyxy", "xywh" or "cxcywh": in pixels, from the image's top left corner, so that the whole image is
    (0, 0, width, height) in "xyxy"; with ``normalized=True``, in fractions of width and height.

    Geometry clips boxes to the image. It drops those with no area left, with less than ``min_area`` pixels, or with
    less than ``min_visibility`` of the area before they were clipped. Their rows in the sample's "labels", in stacked
    masks and in keypoints of ``(N, K, 2 or 3)`` are dropped too. Floats keep their dtype; integers and lists become
    float32.
    """

    format: BoxFormat = "xyxy"
    _: KW_ONLY
    normalized: bool = False
    min_area: float = 0
    min_visibility: float = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", one_of("Boxes: format", self.format, BOX_FORMATS))
        object.__setattr__(self, "normalized", flag("Boxes: normalized", self.normalized))
        object.__setattr__(self, "min_area", number("Boxes: min_area", self.min_area, least=0))
        object.__setattr__(self, "min_visibility", fraction("Boxes: min_visibility", self.min_visibility))


@dataclass(frozen=True, slots=True)
class Keypoints:
    """A field with points in the image: ``(K, 2)`` of (x, y), or ``(K, 3)`` of (x, y, visibility).

    >>> import numpy as np
    >>> from headrace.transforms import Compose, Keypoints, RandomHorizontalFlip
    >>> flip = Compose(RandomHorizontalFlip(1), kinds={"image": "image", "eyes": Keypoints(swaps=[(0, 1)])})
    >>> flip({"image": np.zeros((4, 9, 3)), "eyes": np.array([[2.0, 1], [5, 1]])})["eyes"]
    array([[3., 1.],
           [6., 1.]])

    ``(x, y)`` is the center of the pixel ``image[y, x]``, as in COCO. ``(N, K, 2 or 3)`` are the points of N objects;
    beside boxes, they are one for each box. ``swaps`` are pairs of places along K that change sides in a mirrored
    image: left and right eye. A visibility of 0 means that a point was not labeled: it stays as it is. A point with a
    visibility that leaves the image becomes (0, 0, 0). A point without one may lie outside. Floats keep their dtype;
    integers and lists become float32.
    """

    _: KW_ONLY
    swaps: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        pairs: Any = self.swaps
        if not isinstance(pairs, Iterable) or any(not isinstance(p, Iterable) or len([*p]) != 2 for p in pairs):
            raise refused("Keypoints: swaps", pairs, "pairs of places", "Pass ((1, 2), (3, 4)), for example.")
        swaps = tuple(tuple(integer("Keypoints: swaps", place, least=0) for place in pair) for pair in pairs)
        places = [place for pair in swaps for place in pair]
        if len(set(places)) != len(places):
            raise refused("Keypoints: swaps", pairs, "pairs without a place in common", "Name each place once.")
        object.__setattr__(self, "swaps", swaps)


class Plain(Enum):
    """The kinds without settings: members stay the same objects in another process."""

    IMAGE = "image"
    LABEL = "label"
    """What has no places in the image."""
    LABELS = "labels"
    """One for each box."""


Kind = Plain | Mask | Boxes | Keypoints

IMAGE, LABEL, LABELS = Plain.IMAGE, Plain.LABEL, Plain.LABELS

KINDS: dict[str, Kind] = {
    "image": IMAGE,
    "mask": Mask(),
    "masks": Mask(stacked=True),
    "boxes": Boxes(),
    "keypoints": Keypoints(),
    "labels": LABELS,
    "label": LABEL,
    "other": LABEL,
}
"""The kinds by their names."""

ONE_FOR_EACH_BOX = ("area", "difficult", "iscrowd")
"""Names of fields of annotations that have a value for each box."""

BY_NAME: dict[str, Kind] = {name: kind for name, kind in KINDS.items() if name != "other"}
BY_NAME |= dict.fromkeys(ONE_FOR_EACH_BOX, LABELS)
"""The names of fields whose kind need not be declared."""


@dataclass(frozen=True, slots=True, repr=False)
class Kinds:
    """Declared kinds: for each key, attribute or place of a sample a kind, or the kinds within it."""

    fields: tuple[tuple[Any, Kind | Kinds], ...]
    boxes: Boxes = Boxes()
    """What a field named "boxes" is, where it is not declared."""

    def with_format(self, form: BoxFormat, *, normalized: bool) -> Kinds:
        """Return the same with boxes of another format, wherever there are any.

        >>> declared({"b": "boxes"}).with_format("xywh", normalized=False).fields
        (('b', Boxes(format='xywh', normalized=False, min_area=0.0, min_visibility=0.0)),)
        """
        changed: list[tuple[Any, Kind | Kinds]] = []
        for key, kind in self.fields:
            if isinstance(kind, Kinds):
                changed.append((key, kind.with_format(form, normalized=normalized)))
            elif isinstance(kind, Boxes):
                changed.append((key, replace(kind, format=form, normalized=normalized)))
            else:
                changed.append((key, kind))
        return Kinds(tuple(changed), replace(self.boxes, format=form, normalized=normalized))

    def __repr__(self) -> str:  # as it is declared
        return repr({key: kind.value if isinstance(kind, Plain) else kind for key, kind in self.fields})


Declaration = Mapping[Any, Any] | Sequence[Any] | Kinds
"""Kinds as a user gives them: in the form of the sample, each a name or an object. Or what became of them."""

NONE_DECLARED = Kinds(())


def declared(kinds: Declaration) -> Kinds:
    """Return declared kinds, checked.

    >>> declared({"photo": "image", "where": Boxes("xywh")}).fields[0]
    ('photo', <Plain.IMAGE: 'image'>)
    >>> declared(["image", {"seg": "mask"}]).fields[1][1].fields
    (('seg', Mask(fill=0.0, stacked=False)),)

    Raises ArgumentError for names that are no kinds.
    """
    if isinstance(kinds, Kinds):
        return kinds
    if isinstance(kinds, str) or not isinstance(kinds, Mapping | Sequence):
        cure = 'Pass {"image": "image", "boxes": Boxes("xywh")}, for example.'
        raise refused("kinds", kinds, "a mapping of fields to kinds, or one kind for each item of a tuple", cure)
    items = kinds.items() if isinstance(kinds, Mapping) else enumerate(kinds)
    return Kinds(tuple((key, _kind(key, kind)) for key, kind in items))


def _kind(key: Any, kind: Any) -> Kind | Kinds:
    if isinstance(kind, Plain | Mask | Boxes | Keypoints):
        return kind
    if isinstance(kind, Mapping) or (isinstance(kind, Sequence) and not isinstance(kind, str)):
        return declared(kind)
    if isinstance(kind, str) and kind in KINDS:
        return KINDS[kind]
    expected = f"one of {', '.join(map(repr, KINDS))}, or a Mask, Boxes or Keypoints"
    raise refused(f"the kind of {key!r}", kind, expected, 'Declare what has no places in the image as "other".')


def rows_of(value: Any, columns: tuple[int, ...]) -> NDArray[Any] | None:
    """Return boxes or keypoints as an array of floats; None where they are none.

    >>> rows_of([[1, 2, 3, 4]], (4,)), rows_of([], (4,)).shape, rows_of("text", (4,))
    (array([[1., 2., 3., 4.]], dtype=float32), (0, 4), None)
    """
    if not isinstance(value, np.ndarray | list | tuple):
        return None
    try:
        with np.errstate(over="ignore"):
            rows: NDArray[Any] = value if isinstance(value, np.ndarray) else np.array(value, np.float32)
    except (TypeError, ValueError, OverflowError):
        return None
    if rows.shape == (0,):
        rows = rows.reshape(0, columns[0])
    if rows.ndim < 2 or rows.shape[-1] not in columns or rows.dtype.kind not in "iuf":
        return None
    return rows if rows.dtype.kind == "f" else rows.astype(np.float32)
