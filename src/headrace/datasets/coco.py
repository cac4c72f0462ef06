"""COCO: images with boxes, masks and keypoints, from a JSON file that is read item by item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import flag
from headrace.datasets.annotated import AnnotatedImages, check_masks, stacked_masks, wrong
from headrace.datasets.coco_index import indexed
from headrace.datasets.images import as_folder
from headrace.datasets.protocol import rows_of
from headrace.formats.json_items import parsed
from headrace.image.decoding import DEFAULT_MAX_PIXELS, Decoding
from headrace.image.kinds import Keypoints
from headrace.image.outlines import polygons_mask, run_lengths_mask
from headrace.storage.object_spans import ObjectSpans, each_of
from headrace.storage.objects import absolute, is_url, path_of
from headrace.storage.spans import SpanFiles

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray


class CocoDetection(AnnotatedImages):
    """Images with the boxes, masks and keypoints of a COCO file of instances or keypoints.

    >>> import json, pathlib, tempfile
    >>> from PIL import Image
    >>> from headrace.datasets import CocoDetection
    >>> content = {
    ...     "images": [{"id": 9, "file_name": "a.png", "height": 6, "width": 8}],
    ...     "categories": [{"id": 18, "name": "dog"}],
    ...     "annotations": [{"id": 1, "image_id": 9, "category_id": 18, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0,
    ...                      "segmentation": [[1, 2, 4, 2, 4, 6, 1, 6]]}],
    ... }
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (8, 6)).save(f"{folder}/a.png")
    ...     _ = pathlib.Path(folder, "a.json").write_text(json.dumps(content))
    ...     dataset = CocoDetection(folder, f"{folder}/a.json", masks=True)
    ...     sample = dataset[0]
    >>> sample["image"].shape, sample["boxes"].tolist(), sample["labels"].tolist(), dataset.classes
    ((6, 8, 3), [[1.0, 2.0, 4.0, 6.0]], [0], ['dog'])
    >>> sample["masks"].shape, int(sample["masks"].sum()), sample["image_id"]
    ((1, 6, 8), 12, 9)

    A sample is a dict of ``image`` (H, W, 3) uint8; ``boxes`` (N, 4) float32, x1, y1, x2, y2 in pixels; ``labels``
    (N,) int64; ``area`` (N,) float32 and ``iscrowd`` (N,) bool, as in the file; and the integer ``image_id``. With
    ``masks=True`` also ``masks`` (N, H, W) uint8, of polygons and run lengths, by the rules of COCO's own tools. With
    ``keypoints=True`` also ``keypoints`` (N, K, 3) float32 of x, y and visibility. Transforms know these names; pass
    `kinds` to `Compose` for flips to swap left and right keypoints. As on torchvision, transforms that scale the image
    leave ``area`` as it is: evaluation sorts objects into small and large ones by the area in the file.

    Labels count from 0, in the order of the file's category ids; ``category_ids[labels]`` are the ids of the file.
    Images are in the order of their ids. Those without annotations are kept, with N = 0, unless ``empty=False``.
    ``crowds=False`` leaves out annotations of crowds. Pixels are those that the annotations belong to: where the EXIF
    orientation is needed for the height and width in the file, it is applied.

    The file is read once and in order, and never held: of each annotation, the dataset keeps 53 bytes. Masks and
    keypoints are parsed when a sample is read. ``root`` and ``annotations`` may be URLs, with ``listing`` as in
    `ImageFiles`. Raises `BadFile` when the dataset is constructed for a file with damaged
    JSON, ids that are there twice or lead nowhere, and boxes that are none. Reading raises `BadAnnotation` for
    polygons, run lengths and keypoints that cannot be used, and for an image of another size than in the file.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        annotations: str | os.PathLike[str],
        *,
        masks: bool = False,
        keypoints: bool = False,
        crowds: bool = True,
        empty: bool = True,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        allow_truncated: bool = False,
        listing: str | os.PathLike[str] | None = None,
    ) -> None:
        self._masks, self._keypoints = flag("masks", masks), flag("keypoints", keypoints)
        self._file, self._texts = absolute(path_of("annotations", annotations)), SpanFiles()
        folder, index = as_folder(root), indexed(self._file)
        self._index = index.without(crowds=flag("crowds", crowds), empty=flag("empty", empty))
        decoding = Decoding("RGB", max_pixels, allow_truncated)
        super().__init__(folder, self._index.paths, index.classes, decoding, listing)
        self._text_objects = [self._file], np.array([self._index.facts], np.int64)

    @property
    def image_ids(self) -> NDArray[np.int64]:
        """The id of each image in the file: ``(N,)`` int64."""
        return self._index.image_ids

    @property
    def category_ids(self) -> NDArray[np.int64]:
        """The id in the file of each class."""
        return self._index.category_ids

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many annotations each image has, without reading it."""
        return np.diff(self._index.begins)

    @property
    def kinds(self) -> dict[str, Any]:
        """The kinds of the fields, for ``Compose(..., kinds=dataset.kinds)``."""
        kinds: dict[str, Any] = {"image": "image", "boxes": "boxes", "labels": "labels"}
        kinds |= {"area": "labels", "iscrowd": "labels"}
        if self._masks:
            kinds["masks"] = "masks"
        if self._keypoints:
            kinds["keypoints"] = Keypoints(swaps=self.keypoint_swaps)
        return kinds

    @property
    def keypoint_names(self) -> list[str]:
        """The names of the keypoints, in order."""
        return list(self._index.points)

    @property
    def keypoint_swaps(self) -> tuple[tuple[int, int], ...]:
        """The pairs of keypoints that change sides in a mirrored image, by names such as left_eye and right_eye."""
        places = {name: place for place, name in enumerate(self._index.points)}
        pairs = ((place, places.get(name.replace("left", "right"), place)) for name, place in places.items())
        return tuple(pair for pair in pairs if pair[0] != pair[1])

    def object_spans(self, keys: Sequence[Any]) -> list[ObjectSpans]:
        """Return which objects behind URLs the images are, and where the texts of their annotations are."""
        images = super().object_spans(keys)
        if not is_url(self._file) or not (self._masks or self._keypoints):
            return images
        rows, begins = rows_of(keys, len(self)), self._index.begins
        offset, length = self._index.spans[each_of(begins[rows], begins[rows + 1])].T
        return [*images, ObjectSpans(*self._text_objects, np.zeros_like(offset), offset, length)]

    def _sample(self, place: int) -> dict[str, Any]:
        index = self._index
        height, width = index.sizes[place].tolist()
        image = self._image(place, (height, width) if height and width else None)
        begin, end = index.begins[place : place + 2].tolist()
        sample: dict[str, Any] = {
            "image": image,
            "boxes": index.boxes[begin:end].copy(),
            "labels": index.labels[begin:end].copy(),
            "area": index.areas[begin:end].copy(),
            "iscrowd": index.crowds[begin:end].copy(),
            "image_id": int(index.image_ids[place]),
        }
        if not (self._masks or self._keypoints):
            return sample
        size: tuple[int, int] = image.shape[:2]
        values = [self._annotation(row) for row in range(begin, end)]
        if self._masks:
            check_masks(self._file, len(values), size)
            sample["masks"] = stacked_masks([self._outline(value, size) for value in values], size)
        if self._keypoints:
            sample["keypoints"] = self._points(values)
        return sample

    def _annotation(self, row: int) -> dict[str, Any]:
        offset, length = self._index.spans[row].tolist()
        value = parsed(self._texts.read(self._file, offset, length, self._index.facts))
        return value if isinstance(value, dict) else {}

    def _outline(self, value: dict[str, Any], size: tuple[int, int]) -> NDArray[np.uint8]:
        given = value.get("segmentation")
        try:
            if isinstance(given, list):
                return polygons_mask(given, *size)
            if isinstance(given, dict):
                if given.get("size") != list(size):
                    raise ValueError(f"run lengths of the size {given.get('size')!r}")  # noqa: TRY301
                return run_lengths_mask(given.get("counts"), *size)  # type: ignore[arg-type]  # it checks
            raise ValueError("no 'segmentation'")  # noqa: TRY301
        except ValueError as error:
            expected = f"polygons or run lengths for {size[1]} x {size[0]} pixels"
            wrong(self._file, f"annotation {value.get('id')}: {error}", expected)

    def _points(self, values: list[dict[str, Any]]) -> NDArray[np.float32]:
        """Return the keypoints of annotations; those that have none are not labeled."""
        count = len(self._index.points)
        points = np.zeros((len(values), count, 3), np.float32)
        for row, value in enumerate(values):
            given = value.get("keypoints")
            if given is None:
                continue
            try:
                numbers = np.array(given, np.float32)
            except (TypeError, ValueError, OverflowError):
                numbers = np.zeros(1, np.float32)
            if numbers.ndim != 1 or len(numbers) % 3 or len(numbers) > 3 * count or not np.isfinite(numbers).all():
                expected = f"x, y and visibility of up to {count} keypoints, as the categories name them"
                wrong(self._file, f"annotation {value.get('id')}: {numbers.size} numbers for keypoints", expected)
            points[row, : len(numbers) // 3] = numbers.reshape(-1, 3)
        return points
