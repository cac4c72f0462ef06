"""Views that make one sample of several: `Mosaic` and `CopyPaste`, which draw other samples of their dataset."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from headrace.checks import fraction, number, refused
from headrace.context import seeds
from headrace.datasets import protocol
from headrace.datasets.base import Dataset, View
from headrace.errors import ArgumentError
from headrace.formatting import argument
from headrace.image import carrying, sample_fields
from headrace.image.kinds import IMAGE, LABELS, NONE_DECLARED, Boxes, Keypoints, Kinds, Mask, declared
from headrace.image.moves import Cut, InTurn, ScalePart, Stay
from headrace.image.outlines import box_around
from headrace.interop.keys import place as place_of
from headrace.transforms import parameters
from headrace.transforms.base import Compose, Transform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headrace.datasets.protocol import Indexed
    from headrace.image.geometry import Fill
    from headrace.image.sample_fields import Field, Path

CENTER = (0.5, 1.5)
"""Where four images meet, in shares of the size of a quarter."""


class JoinedImages(View[Any]):
    """A dataset whose samples are each joined with others of it, drawn by the sample's own generator."""

    def __init__(self, dataset: Indexed, others: int, p: float, join: Transform) -> None:
        name = type(self).__name__
        protocol.check_indexed(name, dataset, "dataset")
        self.dataset, self.p = dataset, fraction(f"{name}: p", p)
        self._others, self._join = others, Compose(join)

    @property
    def _viewed(self) -> Indexed:
        return self.dataset

    @property
    def draws(self) -> bool:
        """Whether reading a sample may draw random numbers: always."""
        return True

    @property
    def labels(self) -> None:
        """None: a sample has the labels of several."""
        return None

    def __getitem__(self, index: int) -> Any:
        """Read a sample and those that are drawn for it, and join them."""
        place = place_of(index, len(self), f"a {type(self).__name__} of {{}} samples")
        rng = seeds.rng()
        if rng.random() >= self.p:
            return self.dataset[place]
        others = rng.integers(len(self), size=self._others).tolist()
        return self._join([self.dataset[place], *(self.dataset[other] for other in others)], rng)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({argument(self.dataset, Dataset)}, p={self.p:g})"


class Mosaic(JoinedImages):
    """The samples of a dataset, each on one canvas with three others: the mosaic of YOLO.

    >>> import numpy as np
    >>> from headrace.datasets import Mosaic
    >>> samples = [
    ...     {"image": np.full((4, 4, 3), n, np.uint8), "boxes": np.array([[0.0, 0, 4, 4]]), "labels": np.array([n])}
    ...     for n in range(8)
    ... ]
    >>> sample = Mosaic(samples, 4)[0]
    >>> sample["image"].shape, sample["boxes"].shape, sample["labels"][0]
    ((8, 8, 3), (4, 4), np.int64(0))

    ``size``, one length or (height, width), is that of a quarter: each image is scaled to fit it, and the canvas is
    twice as high and wide. The four images meet in a point, drawn between the shares ``center_range`` of ``size`` from
    the top and the left. With probability 1 - ``p`` a sample stays as it is. ``fill`` is the canvas. Masks, boxes with
    their labels, and keypoints come together; ``kinds`` declares fields as `Compose` does. All else is that of the
    sample itself. A crop, `RandomAffine` or `Resize` usually follows, by ``.map``.

    Which samples come, and the point, are drawn by the sample's own generator (`headrace.rng`): other ones in each
    epoch, the same on any worker, after a resume and in a replay. `DataLoader.lineage` names them. Raises
    `ArgumentError` for arguments that cannot be used, and for samples whose fields do not fit together. Source:
    Bochkovskiy et al., "YOLOv4: Optimal speed and accuracy of object detection", 2020.
    """

    def __init__(
        self,
        dataset: Indexed,
        size: int | tuple[int, int],
        *,
        p: float = 1.0,
        center_range: tuple[float, float] = CENTER,
        fill: Fill = 114,
        kinds: Any = None,
    ) -> None:
        center = parameters.positive_range("Mosaic", "center_range", center_range)
        if center[1] > 2:
            raise refused("Mosaic: center_range", center_range, "shares from 0 to 2", "Pass (0.5, 1.5).")
        pair = parameters.size_pair("Mosaic", size)
        join = JoinFour(pair, center, parameters.fill_value("Mosaic", fill), _kinds(kinds))
        super().__init__(dataset, 3, p, join)


class CopyPaste(JoinedImages):
    """The samples of a dataset, each with objects of another one pasted onto it, by their masks.

    >>> import numpy as np
    >>> from headrace.datasets import CopyPaste
    >>> samples = []
    >>> for n in range(2):
    ...     mask = np.zeros((1, 4, 4), np.uint8)
    ...     mask[:, n : n + 2, :2] = 1
    ...     samples.append({"image": np.full((4, 4, 3), n, np.uint8), "masks": mask, "labels": np.array([n]),
    ...                     "boxes": np.array([[0.0, n, 2, n + 2]])})
    >>> sample = CopyPaste(samples, p=1, share=1)[0]
    >>> int(sample["masks"].sum(axis=0).max())  # no pixel of two objects
    1

    A sample is one with ``masks`` (N, H, W), ``boxes`` and fields with a row for each box; ``kinds`` declares others.
    With probability ``p``, another sample is drawn and scaled to the image's size. Each of its objects is pasted with
    probability ``share``; crowds never. What they cover is taken from the masks of the sample. Its boxes become those
    around what is left, and objects with fewer than ``min_area`` pixels left are dropped; ``area`` becomes the pixels
    of each mask.

    What is drawn, and when, is as for `Mosaic`. Put large scale jitter before it:
    ``CopyPaste(dataset.map(ScaleJitter(640), FixedSizeCrop(640)))``. Raises `ArgumentError` for samples without masks
    or boxes. Source: Ghiasi et al., "Simple copy-paste is a strong data augmentation method for instance segmentation",
    CVPR 2021.
    """

    def __init__(
        self, dataset: Indexed, *, p: float = 0.5, share: float = 0.5, min_area: float = 1, kinds: Any = None
    ) -> None:
        least = number("CopyPaste: min_area", min_area, least=0)
        super().__init__(dataset, 1, p, PasteObjects(fraction("CopyPaste: share", share), least, _kinds(kinds)))


@dataclasses.dataclass(frozen=True, slots=True)
class JoinFour(Transform):
    """Put four samples on one canvas: what `Mosaic` does with those drawn."""

    size: tuple[int, int]
    center_range: tuple[float, float]
    fill: Fill
    kinds: Kinds = dataclasses.field(default=NONE_DECLARED, repr=False)

    def center(self, rng: Any) -> tuple[int, int]:
        """Draw the point where the images meet: from the top, and from the left."""
        low, high = self.center_range
        down, across = rng.random(2).tolist()
        share = high - low
        return int((low + share * down) * self.size[0]), int((low + share * across) * self.size[1])

    def apply(self, samples: Any, rng: Any) -> Any:
        """Return the four samples as one."""
        row, column = self.center(rng)
        height, width = 2 * self.size[0], 2 * self.size[1]
        quarters = [
            (0, 0, row, column),
            (0, column, row, width),
            (row, 0, height, column),
            (row, column, height, width),
        ]
        moved = []
        found = _alike("Mosaic", samples, self.kinds)
        for number_of, (fields, quarter) in enumerate(zip(found, quarters, strict=True)):
            size = fields[0].value.shape[:2]
            factor = min(self.size[0] / size[0], self.size[1] / size[1])
            inner = max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
            top = row - inner[0] if number_of < 2 else row
            left = column - inner[1] if number_of % 2 == 0 else column
            move = InTurn((ScalePart((0, 0, *size), inner), Cut((-top, -left, height, width), "constant", self.fill)))
            moved.append((carrying.carried("Mosaic", move, fields, size), quarter))
        values = {
            field.path: _on_canvas(field, [(part[field.path], where) for part, where in moved])
            for field in found[0]
            if field.path in moved[0][0]
        }
        return sample_fields.replaced(samples[0], values)

    def drawn(self, samples: Any, rng: np.random.Generator) -> dict[str, Any]:  # noqa: ARG002
        """Return the point where the images meet."""
        return {"center": self.center(rng)}


@dataclasses.dataclass(frozen=True, slots=True)
class PasteObjects(Transform):
    """Paste objects of the second of two samples onto the first: what `CopyPaste` does with the sample drawn."""

    share: float
    min_area: float
    kinds: Kinds = dataclasses.field(default=NONE_DECLARED, repr=False)

    def apply(self, samples: Any, rng: Any) -> Any:
        """Return the first sample with objects of the second."""
        fields, values = self._scaled(samples)
        chosen = self._chosen(fields, values, rng)
        masks = _stacked(fields)
        before, pasted = np.asarray(masks.value) != 0, np.asarray(values[masks.path])[chosen]
        covered = (pasted != 0).any(axis=0)
        left = before & ~covered
        area = left.sum(axis=(1, 2))
        unchanged = area == before.sum(axis=(1, 2))
        keep = unchanged | (area >= max(self.min_area, 1))
        whole = np.concatenate([np.where(left, masks.value, 0)[keep].astype(pasted.dtype), pasted])
        new: dict[Path, Any] = {}
        for field in fields:
            kind, value, other = field.kind, field.value, values[field.path]
            if field is masks:
                new[field.path] = whole
            elif kind is IMAGE or isinstance(kind, Mask):
                over = covered.reshape(*covered.shape, *[1] * (value.ndim - 2))
                new[field.path] = np.where(over, other, value).astype(value.dtype)
            elif isinstance(kind, Boxes):
                own = _tightened(field, left, ~unchanged, covered.shape)
                new[field.path] = _rows_of(own, other, keep, chosen)
            elif field.path[-1] == "area":
                new[field.path] = (whole != 0).sum(axis=(1, 2)).astype(np.asarray(value).dtype)
            elif kind is LABELS or isinstance(kind, Keypoints):
                new[field.path] = _rows_of(value, other, keep, chosen)
        return sample_fields.replaced(samples[0], new)

    def drawn(self, samples: Any, rng: np.random.Generator) -> dict[str, Any]:
        """Return the places of the objects that are pasted."""
        return {"objects": np.flatnonzero(self._chosen(*self._scaled(samples), rng)).tolist()}

    def _scaled(self, samples: Any) -> tuple[list[Field], dict[Path, Any]]:
        """Return the fields of the first sample, and the values of the other one's at the same size."""
        first, other = _alike("CopyPaste", samples, self.kinds)
        _stacked(first)
        if carrying.boxes_field("CopyPaste", first) is None:
            _unfit("CopyPaste", "no boxes", "samples with boxes and masks")
        size, before = first[0].value.shape[:2], other[0].value.shape[:2]
        move = Stay(size) if size == before else ScalePart((0, 0, *before), size)
        values = {field.path: field.value for field in other}
        return first, values | carrying.carried("CopyPaste", move, other, before)

    def _chosen(self, fields: list[Field], values: dict[Path, Any], rng: Any) -> NDArray[np.bool_]:
        count = len(values[_stacked(fields).path])
        chosen: NDArray[np.bool_] = rng.random(count) < self.share
        crowd = next((values[field.path] for field in fields if field.path[-1] == "iscrowd"), None)
        return chosen if crowd is None else chosen & (np.asarray(crowd) == 0)


def _kinds(kinds: Any) -> Kinds:
    return NONE_DECLARED if kinds is None else declared(kinds)


def _alike(owner: str, samples: Sequence[Any], kinds: Kinds) -> list[list[Field]]:
    """Return the fields of samples, which must have the same ones, in the same order."""
    found: list[list[Field]] = []
    for sample in samples:
        fields = sample_fields.found(sample, kinds)
        if not fields or not isinstance(fields[0].value, np.ndarray):
            _unfit(owner, f"a sample without an image, {type(sample).__name__}", "samples with an image")
        part = sample_fields.unknown_part(sample, fields, fields[0].value.shape[:2])
        if part:
            _unfit(owner, f"a sample with a part that may have places in the image: {part}", "parts of a known kind")
        by_path = {field.path: field for field in fields}
        if found and by_path.keys() != {field.path for field in found[0]}:
            names = ", ".join(map(carrying.name_of, fields))
            _unfit(owner, f"samples with other fields: {names}", "samples with the same fields")
        found.append([by_path[field.path] for field in found[0]] if found else fields)
    return found


def _on_canvas(field: Field, parts: list[tuple[Any, tuple[int, int, int, int]]]) -> Any:
    """Return the values of a field in four moved samples as one."""
    kind = field.kind
    first = parts[0][0]
    if kind is LABELS or isinstance(kind, Boxes | Keypoints) or (isinstance(kind, Mask) and kind.stacked):
        joined = first
        for value, _ in parts[1:]:
            joined = _rows_of(joined, value, None, None)
        return joined
    if any(value.shape != first.shape or value.dtype != first.dtype for value, _ in parts):
        forms = ", ".join(sorted({f"{value.dtype} {value.shape}" for value, _ in parts}))
        _unfit("Mosaic", f"for {carrying.name_of(field)} arrays of {forms}", "images and masks of one dtype and form")
    canvas = first.copy()
    for value, (top, left, bottom, right) in parts[1:]:
        canvas[top:bottom, left:right] = value[top:bottom, left:right]
    return canvas


def _rows_of(one: Any, other: Any, keep: Any, chosen: Any) -> Any:
    """Return chosen rows of two fields together: an array, or a list where the first is one."""
    if isinstance(one, np.ndarray):
        rows = one if keep is None else one[keep]
        more = np.asarray(other) if chosen is None else np.asarray(other)[chosen]
        more = more.reshape(-1, *rows.shape[1:]) if not len(more) else more
        return np.concatenate([rows, more.astype(rows.dtype, copy=False)])
    rows = [row for place, row in enumerate(one) if keep is None or keep[place]]
    return type(one)(rows + [row for place, row in enumerate(other) if chosen is None or chosen[place]])


def _tightened(
    field: Field, masks: NDArray[np.bool_], changed: NDArray[np.bool_], size: tuple[int, ...]
) -> NDArray[Any]:
    """Return boxes, those of changed masks around what is left of them."""
    boxes, kind = carrying.box_rows("CopyPaste", field)
    height, width = size
    corners = carrying.corners(boxes, kind.format, (height, width) if kind.normalized else None)
    for row in np.flatnonzero(changed & masks.any(axis=(1, 2))).tolist():
        corners[row] = box_around(masks[row])
    return carrying.formatted(corners, kind.format, (height, width) if kind.normalized else None).astype(boxes.dtype)


def _stacked(fields: list[Field]) -> Field:
    """Return the field of masks, one for each box."""
    of_objects = (field for field in fields if isinstance(field.kind, Mask) and field.kind.stacked)
    found = next((field for field in of_objects if np.ndim(field.value) == 3), None)
    return found or _unfit("CopyPaste", "no masks of objects", "samples with masks (N, H, W)")


def _unfit(owner: str, what: str, expected: str) -> NoReturn:
    cure = f"Map a function that makes samples alike before {owner}, or declare fields with kinds=."
    raise ArgumentError(f"{owner} got {what}", found=what, expected=expected, cure=cure)
