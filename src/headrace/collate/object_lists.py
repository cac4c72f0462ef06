"""A collate function for samples with another number of objects each: lists, or arrays padded with a count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from headrace.checks import as_integer, flag, integer, refused
from headrace.collate.default import default_collate
from headrace.collate.row_writer import WrittenRow
from headrace.errors import CollateError, CollateTypeError
from headrace.image.sample_fields import is_record, items_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headrace.context.memory import Empty

OBJECTS = ("boxes", "labels", "masks", "keypoints", "area", "iscrowd", "difficult")
"""The fields that have a row for each object of an image."""


@dataclass(frozen=True, slots=True)
class DetectionCollate:
    """A collate function for images with different numbers of objects: boxes, labels, masks, keypoints.

    >>> import numpy as np
    >>> from headrace.collate import DetectionCollate
    >>> samples = [
    ...     {"image": np.zeros((4, 6, 3)), "boxes": np.ones((2, 4)), "labels": np.array([5, 7]), "image_id": 1},
    ...     {"image": np.zeros((4, 6, 3)), "boxes": np.ones((0, 4)), "labels": np.zeros(0, int), "image_id": 2},
    ... ]
    >>> batch = DetectionCollate()(samples)
    >>> batch["image"].shape, [len(boxes) for boxes in batch["boxes"]], batch["image_id"]
    ((2, 4, 6, 3), [2, 0], array([1, 2]))
    >>> batch = DetectionCollate(padded=True)(samples)
    >>> batch["boxes"].shape, batch["labels"].tolist(), batch["count"].tolist()
    ((2, 2, 4), [[5, 7], [-1, -1]], [2, 0])

    The fields named by ``objects`` become lists, with an array for each image. With ``padded=True`` they become one
    array, ``(batch, most objects, …)``, filled up with 0, and labels with ``fill``; "count" says how many of each row
    are objects. ``most`` is the number of rows, where all batches must have the same shape.

    Images of one size are stacked. Others become a list; or, with ``pad_images=True``, one array: images are widened at
    the right and at the bottom with 0, to sides that ``multiple_of`` divides, and "size" (batch, 2) has the height and
    width before. Masks are widened with them. Other fields are collated as in `default_collate`.

    Raises `ArgumentError` for invalid arguments; `CollateError` for samples with other fields, for rows that cannot be
    put together, and for more objects than ``most``; `CollateTypeError` for samples that are neither dicts nor
    dataclasses. The batch is a dict.
    """

    _: KW_ONLY
    padded: bool = False
    fill: int = -1
    most: int | None = None
    pad_images: bool = False
    multiple_of: int = 1
    objects: Sequence[str] = OBJECTS
    gives_arrays: ClassVar[bool] = True
    """A loader for a framework converts them."""

    @property
    def stacks_all_but(self) -> tuple[str, ...] | None:
        """The fields that are not stacked as by `default_collate`; None where images are not."""
        return None if self.pad_images else tuple(self.objects)

    def __post_init__(self) -> None:
        object.__setattr__(self, "padded", flag("padded", self.padded))
        object.__setattr__(self, "pad_images", flag("pad_images", self.pad_images))
        object.__setattr__(self, "multiple_of", integer("multiple_of", self.multiple_of, least=1))
        if as_integer(self.fill) is None:
            raise refused("fill", self.fill, "an integer", "Pass -1, or the index that the loss ignores.")
        if self.most is not None:
            object.__setattr__(self, "most", integer("most", self.most, least=1))
            if not self.padded:
                raise refused("most", self.most, "padded=True beside it", "Pass padded=True.")
        if isinstance(self.objects, str) or not all(isinstance(name, str) for name in self.objects):
            raise refused("objects", self.objects, "names of fields", 'Pass ("boxes", "labels"), for example.')
        object.__setattr__(self, "objects", tuple(self.objects))

    def __call__(self, samples: Sequence[Any], *, empty: Empty = np.empty) -> dict[str, Any]:
        """Return the batch as a dict."""
        samples = [dict(items_of(sample)) if is_record(sample) else sample for sample in samples]
        if not samples:
            raise CollateError("no samples", found=[], expected="one sample at least", cure="Leave empty batches out.")
        for row, sample in enumerate(samples):
            _check(samples[0], sample, row)
        batch: dict[str, Any] = {}
        names = list(samples[0])
        columns = {name: [sample[name] for sample in samples] for name in names}
        if "image" in columns and isinstance(columns["image"][0], np.ndarray):
            batch["image"] = self._images(columns, batch, empty)
        for name in names:
            if name == "image" and name in batch:
                continue
            if name in self.objects:
                batch[name] = self._rows(name, columns[name], empty) if self.padded else columns[name]
            else:
                batch[name] = default_collate(columns[name], empty=empty)
        if self.padded:
            batch["count"] = np.array(_counts(columns, self.objects), np.int64)
        return {name: batch[name] for name in [*names, *(name for name in batch if name not in names)]}

    def _images(self, columns: dict[str, list[Any]], batch: dict[str, Any], empty: Empty) -> Any:
        images = columns["image"]
        shapes = [image.shape for image in images]
        if not self.pad_images:
            if len(set(shapes)) == 1:
                return default_collate(images, empty=empty)
            # Some were written to rows of a batch, and each would keep the memory of all rows.
            return [np.array(image) if isinstance(image, WrittenRow) else image for image in images]
        rows, across = _sides(shapes[0])
        sizes = np.array([[shape[rows], shape[across]] for shape in shapes], np.int64)
        height, width = (-(-int(side) // self.multiple_of) * self.multiple_of for side in sizes.max(axis=0))
        shape = list(shapes[0])
        shape[rows], shape[across] = height, width
        stacked = empty((len(images), *shape), np.result_type(*images))
        stacked[...] = 0
        for place, image in enumerate(images):
            _written(stacked, place, image, "image")
        batch["size"] = sizes
        if "masks" in columns:
            columns["masks"] = [_widened(masks, height, width) for masks in columns["masks"]]
        if "mask" in columns:
            columns["mask"] = [_widened(mask, height, width) for mask in columns["mask"]]
        return stacked

    def _rows(self, name: str, given: list[Any], empty: Empty) -> NDArray[Any]:
        """Return the rows of all samples as one array, filled up."""
        arrays = [np.asarray(one) for one in given]
        most = max(len(array) for array in arrays)
        if self.most is not None and most > self.most:
            row = max(range(len(arrays)), key=lambda place: len(arrays[place]))
            what = f"sample {row} has {most} {name}"
            cure = "Pass a larger most=, or leave it out."
            raise CollateError(what, rows=(row,), field=name, found=most, expected=f"up to {self.most}", cure=cure)
        full = next((array for array in arrays if len(array)), arrays[0])
        padded = empty((len(arrays), self.most or most, *full.shape[1:]), np.result_type(*arrays))
        padded[...] = self.fill if name == "labels" else 0
        for place, array in enumerate(arrays):
            if len(array):
                _written(padded, place, array, name)
        return padded


def _check(first: Any, sample: Any, row: int) -> None:
    if not isinstance(sample, Mapping):
        raise CollateTypeError(
            f"sample {row} is a {type(sample).__name__}",
            rows=(row,),
            found=type(sample).__name__,
            expected="dicts with an image and its objects",
            cure='Map a function that makes dicts: {"image": image, "boxes": boxes, "labels": labels}.',
        )
    if sample.keys() != first.keys():
        odd = sorted(map(str, sample.keys() ^ first.keys()))
        cure = "Give all samples the same fields, empty ones too."
        raise CollateError(f"samples 0 and {row} differ in {', '.join(odd)}", rows=(0, row), found=odd, cure=cure)


def _counts(columns: dict[str, list[Any]], objects: Sequence[str]) -> list[int]:
    """Return how many objects each sample has."""
    present = [name for name in objects if name in columns]
    if not present:
        raise CollateError(
            "the samples have no objects", found=list(columns), expected=f"one of {', '.join(objects)}",
            cure="Name the fields with objects=.",
        )  # fmt: skip
    for row in range(len(columns[present[0]])):
        numbers = {name: len(columns[name][row]) for name in present}
        if len(set(numbers.values())) > 1:
            what = f"sample {row} has {', '.join(f'{count} {name}' for name, count in numbers.items())}"
            raise CollateError(what, rows=(row,), found=numbers, expected="as many of each", cure="Fix the sample.")
    return [len(one) for one in columns[present[0]]]


def _sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the axes of height and width: the last two where channels come first."""
    return (1, 2) if len(shape) == 3 and shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4) else (0, 1)


def _written(batch: NDArray[Any], place: int, array: NDArray[Any], name: str) -> None:
    target = batch[place]
    if array.ndim != target.ndim or any(a > b for a, b in zip(array.shape, target.shape, strict=True)):
        what = f"sample {place} has {name} of shape {array.shape} beside {target.shape}"
        cure = "Give all samples the same form: pad_images=True for images and masks of different sizes."
        raise CollateError(what, rows=(place,), field=name, found=array.shape, cure=cure)
    target[tuple(slice(side) for side in array.shape)] = array


def _widened(masks: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Return a mask, or masks (N, H, W), with 0 at the right and at the bottom."""
    whole = np.zeros((*masks.shape[:-2], height, width), masks.dtype)
    whole[..., : masks.shape[-2], : masks.shape[-1]] = masks
    return whole
