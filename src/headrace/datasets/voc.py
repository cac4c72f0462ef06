"""Pascal VOC: images with boxes from XML files, with a mask of a palette, or with a mask for each object."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from headrace.checks import different_names, flag, one_of, shown
from headrace.datasets.annotated import AnnotatedImages, check_masks, number_of, sized, stacked_masks, wrong
from headrace.datasets.images import as_folder
from headrace.datasets.lists import opened
from headrace.datasets.packed_list import PackedList
from headrace.errors import MissingFile
from headrace.formats import plain_xml
from headrace.image.decoding import DEFAULT_MAX_PIXELS, Decoding
from headrace.image.kinds import Mask
from headrace.image.outlines import box_around
from headrace.storage.objects import is_url, joined

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from headrace.formats.plain_xml import Element

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The classes of Pascal VOC, in the order of its devkit."""

SIDES = ("xmin", "ymin", "xmax", "ymax")
IGNORED = 255
"""The index of the outlines between objects in VOC's masks."""

Target = Literal["detection", "segmentation", "instances"]


class VOC(AnnotatedImages):
    """Images of a folder in the layout of Pascal VOC, with boxes, with a mask, or with a mask for each object.

    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> from headrace.datasets import VOC
    >>> box = "<bndbox><xmin>2</xmin><ymin>1</ymin><xmax>4</xmax><ymax>3</ymax></bndbox>"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     root = pathlib.Path(folder)
    ...     for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
    ...         (root / name).mkdir(parents=True)
    ...     Image.new("RGB", (8, 6)).save(root / "JPEGImages/a.jpg")
    ...     _ = (root / "Annotations/a.xml").write_text(f"<a><object><name>dog</name>{box}</object></a>")
    ...     _ = (root / "ImageSets/Main/train.txt").write_text("a")
    ...     dataset = VOC(root)
    ...     sample = dataset[0]
    >>> sample["boxes"].tolist(), [dataset.classes[label] for label in sample["labels"]], sample["image_id"]
    ([[1.0, 0.0, 4.0, 3.0]], ['dog'], 'a')

    ``root`` is the folder with ``JPEGImages``, for example ``VOCdevkit/VOC2012``; ``split`` the name of a list in
    ``ImageSets``. With ``target="detection"`` a sample is a dict of ``image`` (H, W, 3) uint8; ``boxes`` (N, 4)
    float32, x1, y1, x2, y2 in pixels; ``labels`` (N,) int64; ``difficult`` (N,) bool; and the text ``image_id``. With
    ``target="segmentation"`` it is ``image``, ``mask`` (H, W) uint8 and ``image_id``. The mask holds the indices of its
    palette: 0 is the background, label + 1 a class, and 255 is ignored. With ``target="instances"`` it is ``image``;
    ``masks`` (N, H, W) uint8 of the objects in ``SegmentationObject``; ``boxes`` around the masks; ``labels`` as
    ``SegmentationClass`` has them; and ``image_id``: what `CopyPaste` takes. Pass `kinds` to `Compose`.

    VOC counts pixels from 1 and includes the last one, so that the box of the first pixel is (1, 1, 1, 1): it becomes
    (0, 0, 1, 1). ``from_one=False`` is for files that count from 0. ``difficult=False`` leaves difficult objects out.
    ``classes`` are the names, in the order of their labels; VOC's own without it. ``root`` may be a URL, with
    ``listing`` as in `ImageFiles`.

    Raises `MissingFile` here where folders or the list are missing. Reading a sample raises `BadAnnotation` for XML
    that cannot be parsed, has a document type, or names a class that is not there, for boxes that are none, and for
    masks that do not fit together.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        *,
        target: Target = "detection",
        classes: Iterable[str] = CLASSES,
        difficult: bool = True,
        from_one: bool = True,
        extension: str = ".jpg",
        max_pixels: int = DEFAULT_MAX_PIXELS,
        allow_truncated: bool = False,
        listing: str | os.PathLike[str] | None = None,
    ) -> None:
        self._target = one_of("target", target, get_args(Target))
        self._difficult, self._first = flag("difficult", difficult), int(flag("from_one", from_one))
        names = _split(as_folder(root), split, "Main" if self._target == "detection" else "Segmentation")
        given = different_names("classes", classes)
        self._labels = {name: label for label, name in enumerate(given)}
        self._names = PackedList(names)
        paths = PackedList(f"JPEGImages/{name}{extension}" for name in names)
        super().__init__(str(root), paths, given, Decoding("RGB", max_pixels, allow_truncated), listing)

    @property
    def names(self) -> PackedList:
        """The names of the images, without folder and ending."""
        return self._names

    @property
    def kinds(self) -> dict[str, Any]:
        """The kinds of the fields, for ``Compose(..., kinds=dataset.kinds)``."""
        if self._target == "segmentation":
            return {"image": "image", "mask": Mask(fill=IGNORED)}
        kinds = {"image": "image", "boxes": "boxes", "labels": "labels"}
        return kinds | ({"masks": "masks"} if self._target == "instances" else {"difficult": "labels"})

    def _files(self, place: int) -> tuple[str, ...]:
        image, name = self._paths[place], self._names[place]
        if self._target == "detection":
            return image, f"Annotations/{name}.xml"
        classes, objects = f"SegmentationClass/{name}.png", f"SegmentationObject/{name}.png"
        return (image, classes) if self._target == "segmentation" else (image, classes, objects)

    def _sample(self, place: int) -> dict[str, Any]:
        name = self._names[place]
        if self._target != "detection":
            mask = self._mask(place, 1)
            parts = {"mask": mask} if self._target == "segmentation" else self._instances(place, mask)
            return {"image": self._image(place, mask.shape), **parts, "image_id": name}
        path, data = self._path(place, 1), self._read(place)
        try:
            root = plain_xml.tree(self._read(place, 1, plain_xml.MOST_BYTES))
        except ValueError as error:
            wrong(path, str(error), "an XML file of annotations without a document type")
        image = sized(data, self.path(place), self._decoding, self._warned, _size(root))
        objects = [self._object(each, path) for each in root.all("object")]
        kept = [each for each in objects if self._difficult or not each[2]]
        return {
            "image": image,
            "boxes": np.array([box for box, _, _ in kept], np.float32).reshape(-1, 4),
            "labels": np.array([label for _, label, _ in kept], np.int64),
            "difficult": np.array([hard for _, _, hard in kept], bool),
            "image_id": name,
        }

    def _instances(self, place: int, mask: NDArray[Any]) -> dict[str, Any]:
        """Return masks, boxes and labels of the objects of an image, whose pixels have these classes."""
        path, numbers = self._path(place, 2), self._mask(place, 2)
        if numbers.shape != mask.shape:
            shapes = [f"{one.shape[1]} x {one.shape[0]}" for one in (numbers, mask)]
            wrong(path, f"a mask of {shapes[0]} pixels beside classes of {shapes[1]}", "masks of one size")
        objects = [number for number in np.unique(numbers).tolist() if number not in (0, IGNORED)]
        check_masks(path, len(objects), mask.shape)
        masks = stacked_masks([(numbers == number).astype(np.uint8) for number in objects], mask.shape)
        labels = [
            self._class_of(mask[inside != 0], number, path) for number, inside in zip(objects, masks, strict=True)
        ]
        return {
            "masks": masks,
            "boxes": np.array([box_around(inside) for inside in masks], np.float32).reshape(-1, 4),
            "labels": np.array(labels, np.int64),
        }

    def _class_of(self, indices: NDArray[Any], number: int, path: str) -> int:
        """Return the label that most pixels of an object have."""
        known = indices[(indices > 0) & (indices <= len(self._labels))]
        if not known.size:
            expected = f"indices from 1 to {len(self._labels)} in SegmentationClass where the object is"
            wrong(path, f"the object {number} has no class: {shown(np.unique(indices).tolist())}", expected)
        return int(np.bincount(known).argmax()) - 1

    def _object(self, element: Element, path: str) -> tuple[list[float], int, bool]:
        name = element.value("name") or ""
        if name not in self._labels:
            wrong(path, f"an object of the class {name!r}", f"one of the {len(self._labels)} classes")
        given = [element.value("bndbox", side) for side in SIDES]
        try:
            numbers = [number_of(text or "") for text in given]
        except ValueError:
            numbers = []
        if not numbers or not all(abs(number) < 1e9 for number in numbers):
            wrong(path, f"{name!r} has the box {given}", f"the numbers {', '.join(SIDES)}")
        left, top, right, bottom = numbers
        box = [left - self._first, top - self._first, right, bottom]
        if box[2] < box[0] or box[3] < box[1]:
            wrong(path, f"{name!r} has a box of negative size, {given}", "xmin below xmax, and ymin below ymax")
        return box, self._labels[name], element.value("difficult") == "1"


def _size(root: Element) -> tuple[int, int] | None:
    """Return the height and width that a file names; None where it names none."""
    sides = [root.value("size", side) or "" for side in ("height", "width")]
    if not all(side.isascii() and side.isdecimal() and len(side) < 10 for side in sides) or "0" in sides:
        return None
    return int(sides[0]), int(sides[1])


def _split(root: str, split: str, kind: str) -> list[str]:
    if not is_url(root) and not Path(root, "JPEGImages").is_dir():
        cure = "Pass the folder that has JPEGImages in it, such as VOCdevkit/VOC2012."
        raise MissingFile("no JPEGImages in it", path=root, expected="a folder in VOC's layout", cure=cure)
    with opened(joined(root, f"ImageSets/{kind}/{split}.txt")) as lines:
        return [line.split()[0] for line in lines if line.strip()]
