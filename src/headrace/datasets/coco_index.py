"""The index of a COCO file: arrays of ids, boxes and labels, and where the text of each annotation lies in the file."""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from headrace.checks import kind_of, shown
from headrace.datasets.packed_list import PackedList
from headrace.errors import BadFile
from headrace.formats.json_items import items
from headrace.storage import objects
from headrace.storage.files import leads_out, unopened

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

KEYS = frozenset({"images", "annotations", "categories"})
CURE = "Fix the annotation file, or export it again."
NUMBERS = frozenset({int, float})
INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class CocoIndex:
    """Images in the order of their ids; their annotations, image by image, in the order of the file."""

    image_ids: Numbers
    paths: PackedList
    sizes: NDArray[np.int32]
    """Height and width; 0 where the file does not say."""
    begins: Numbers
    ids: Numbers
    boxes: NDArray[np.float32]
    labels: Numbers
    areas: NDArray[np.float32]
    crowds: NDArray[np.bool_]
    spans: Numbers
    """Offset and length of each annotation's text."""
    category_ids: Numbers
    classes: tuple[str, ...]
    points: tuple[str, ...]
    """The names of the keypoints."""
    facts: tuple[int, int]
    """Size of the file and when it was written, or the number of its version."""

    def without(self, *, crowds: bool, empty: bool) -> CocoIndex:
        """Return the index without crowds, and without images that have no annotations, where these are not kept."""
        from dataclasses import replace

        keep = np.ones(len(self.ids), bool) if crowds else ~self.crowds
        counts = np.add.reduceat(np.append(keep, False), self.begins)[:-1] * (np.diff(self.begins) > 0)
        images = np.ones(len(counts), bool) if empty else counts > 0
        if keep.all() and images.all():
            return self
        return replace(
            self,
            image_ids=self.image_ids[images],
            paths=PackedList(path for path, kept in zip(self.paths, images.tolist(), strict=True) if kept),
            sizes=self.sizes[images],
            begins=np.concatenate([[0], np.cumsum(counts[images])]).astype(np.int64),
            **{name: getattr(self, name)[keep] for name in ("ids", "boxes", "labels", "areas", "crowds", "spans")},
        )


def indexed(path: str) -> CocoIndex:
    """Read the index of a COCO file of instances or keypoints, item by item; raises `BadFile` for what is wrong."""
    facts = _facts(path)
    found = _Found(path)
    for item in items(path, KEYS):
        if not isinstance(item.value, dict):
            found.refuse(f"an item of {item.key!r} is {kind_of(item.value)}", "an object")
        if item.key == "images":
            found.add_image(item.value)
        elif item.key == "categories":
            found.add_category(item.value)
        else:
            found.add_annotation(item.value, item.offset, item.length)
    return found.index(facts)


def _facts(path: str) -> tuple[int, int]:
    if objects.is_url(path):
        return objects.facts(path)
    try:
        found = os.stat(path)  # noqa: PTH116  a Path costs more
    except OSError as error:
        raise unopened(path, error, expected="a COCO file", cure="Check the path.") from error
    return found.st_size, found.st_mtime_ns


@dataclass(slots=True)
class _Found:
    path: str
    images: array[int] = field(default_factory=lambda: array("q"))
    names: list[str] = field(default_factory=list)
    numbers: array[int] = field(default_factory=lambda: array("q"))
    """Of each annotation: id, image, category, crowd, offset, length."""
    places: array[float] = field(default_factory=lambda: array("d"))
    """Of each annotation: box and area."""
    categories: dict[int, str] = field(default_factory=dict)
    points: tuple[str, ...] = ()

    def add_image(self, value: dict[str, Any]) -> None:
        number = self._integer(value, "id", "an image")
        name = value.get("file_name")
        if not isinstance(name, str) or not name:
            self.refuse(f"image {number}: 'file_name' is {shown(name)}", "the path of an image")
        if leads_out(name):
            self.refuse(
                f"image {number}: the file {shown(name)} is outside of the folder of images",
                "paths of images in the folder",
                'Pass the folder that holds all images, and write paths below it, without "..".',
            )
        sides = [0 if value.get(side) is None else self._integer(value, side, f"image {number}") for side in SIDES]
        if min(sides) < 0 or max(sides) > 1 << 30:
            self.refuse(f"image {number}: a height of {sides[0]} and a width of {sides[1]}", "the size in pixels")
        self.images.extend([number, *sides])
        self.names.append(name)

    def add_category(self, value: dict[str, Any]) -> None:
        number = self._integer(value, "id", "a category")
        name = value.get("name")
        if not isinstance(name, str):
            self.refuse(f"category {number}: 'name' is {shown(name)}", "text")
        if number in self.categories:
            self.refuse(f"category {number} is there twice", "one category for each id")
        self.categories[number] = name
        points = value.get("keypoints")
        if isinstance(points, list) and len(points) > len(self.points) and all(isinstance(p, str) for p in points):
            self.points = tuple(points)

    def add_annotation(self, value: dict[str, Any], offset: int, length: int) -> None:
        number = self._integer(value, "id", "an annotation")
        owner = f"annotation {number}"
        image, category = self._integer(value, "image_id", owner), self._integer(value, "category_id", owner)
        box: Any = value.get("bbox")
        numeric = isinstance(box, list) and len(box) == 4 and NUMBERS.issuperset(map(type, box))
        if not numeric or not max(map(abs, box)) < 1e9:  # NaN is refused too
            self.refuse(f"{owner}: 'bbox' is {shown(box)}", "[x, y, width, height]", NO_BOX if box is None else CURE)
        if box[2] < 0 or box[3] < 0:
            self.refuse(f"{owner}: a box of negative size, {shown(box)}", "[x, y, width, height]")
        area: Any = value.get("area", box[2] * box[3])
        if type(area) not in (int, float) or not abs(area) < 1e18:
            self.refuse(f"{owner}: 'area' is {shown(area)}", "a number of pixels")
        crowd = value.get("iscrowd", 0)
        if crowd not in (0, 1):
            self.refuse(f"{owner}: 'iscrowd' is {shown(crowd)}", "0 or 1")
        self.numbers.extend([number, image, category, int(crowd), offset, length])
        self.places.extend([*box, area])

    def index(self, facts: tuple[int, int]) -> CocoIndex:
        """Return the index of all that was added."""
        if not self.names:
            self.refuse("no images in it", "a list of objects under 'images'", NO_IMAGES)
        images = np.array(self.images, np.int64).reshape(-1, 3)
        by_id = np.argsort(images[:, 0], kind="stable")
        images = images[by_id]
        self._check_unique(images[:, 0], "image")
        numbers = np.array(self.numbers, np.int64).reshape(-1, 6)
        self._check_unique(np.sort(numbers[:, 0]), "annotation")
        categories = np.array(sorted(self.categories), np.int64)
        rows = self._rows(images[:, 0], numbers, 1, "image")
        labels = self._rows(categories, numbers, 2, "category")
        order = np.argsort(rows, kind="stable")
        numbers, places = numbers[order], np.array(self.places).reshape(-1, 5)[order]
        boxes = np.concatenate([places[:, :2], places[:, :2] + places[:, 2:4]], axis=1)
        return CocoIndex(
            images[:, 0],
            PackedList(self.names[place] for place in by_id.tolist()),
            images[:, 1:].astype(np.int32),
            np.searchsorted(rows[order], np.arange(len(images) + 1)).astype(np.int64),
            numbers[:, 0],
            boxes.astype(np.float32),
            labels[order],
            places[:, 4].astype(np.float32),
            numbers[:, 3] != 0,
            numbers[:, 4:],
            categories,
            tuple(self.categories[number] for number in categories.tolist()),
            self.points,
            facts,
        )

    def refuse(self, what: str, expected: str, cure: str = CURE) -> NoReturn:
        raise BadFile(what, path=self.path, found=what, expected=expected, cure=cure)

    def _integer(self, value: dict[str, Any], key: str, owner: str) -> int:
        number = value.get(key)
        if type(number) is not int or number not in INT64:  # JSON has no other integers
            self.refuse(f"{owner}: {key!r} is {shown(number)}", "an integer")
        return number

    def _check_unique(self, ids: Numbers, what: str) -> None:
        twice = ids[1:][ids[1:] == ids[:-1]]
        if len(twice):
            self.refuse(f"{what} {twice[0]} is there twice", "one for each id")

    def _rows(self, ids: Numbers, numbers: Numbers, column: int, what: str) -> Numbers:
        """Return the row among ids of what each annotation names."""
        rows = np.searchsorted(ids, numbers[:, column])
        known = ids[np.minimum(rows, len(ids) - 1)] == numbers[:, column] if len(ids) else np.zeros(len(rows), bool)
        if not known.all():
            first, key = numbers[~known][0], {"image": "images", "category": "categories"}[what]
            self.refuse(
                f"annotation {first[0]}: no {what} has the id {first[column]}", f"one of the {len(ids)} ids of {key}"
            )
        return rows


SIDES = ("height", "width")
NO_IMAGES = "Pass a file in COCO's format: instances_train2017.json, for example."
NO_BOX = "Read a file of instances or keypoints: instances_train2017.json, for example."
