"""YOLO: images with text files of boxes, polygons or keypoints, described by a YAML file."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from headrace.checks import flag
from headrace.datasets.annotated import AnnotatedImages, check_masks, number_of, stacked_masks, wrong
from headrace.datasets.images import ImageFiles
from headrace.datasets.lists import opened
from headrace.datasets.object_images import ABSENT
from headrace.datasets.packed_list import PackedList
from headrace.errors import BadFile, MissingFile
from headrace.formats import plain_yaml
from headrace.image.decoding import DEFAULT_MAX_PIXELS, Decoding
from headrace.image.kinds import Keypoints
from headrace.image.outlines import polygons_mask
from headrace.storage.files import read_file
from headrace.storage.objects import folder_of, is_there, is_url, joined, listing, path_of, place_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from headrace.formats.plain_yaml import Value

MOST_BYTES = 64 << 20
YAML = (".yaml", ".yml")
SLACK = 0.01
"""How far a coordinate may lie outside of the image: exporters round."""
CURE = "Fix the YAML file, or export the dataset again."
ROW = "a class and x, y, width and height in fractions of the image"


class YOLO(AnnotatedImages):
    r"""Images in the layout of YOLO: a text file of objects for each image, and a YAML file that names the classes.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from headrace.datasets import YOLO
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     root = Path(folder)
    ...     for name in ("images/train", "labels/train"):
    ...         (root / name).mkdir(parents=True)
    ...     _ = (root / "data.yaml").write_text("train: images/train\nnames: [cat, dog]\n")
    ...     Image.new("RGB", (8, 4)).save(root / "images/train/a.png")
    ...     _ = (root / "labels/train/a.txt").write_text("1 0.5 0.5 0.25 1\n")
    ...     dataset = YOLO(root)
    ...     sample = dataset[0]
    >>> sample["boxes"].tolist(), [dataset.classes[label] for label in sample["labels"]]
    ([[3.0, 0.0, 5.0, 4.0]], ['dog'])

    ``source`` is the YAML file, or a folder with one; ``split`` the key of the images in it: a folder, a text file of
    paths, or a list of these. The text of ``…/images/a.jpg`` is ``…/labels/a.txt``; an image without one has no
    objects. A sample is a dict of ``image`` (H, W, 3) uint8; ``boxes`` (N, 4) float32, x1, y1, x2, y2 in pixels; and
    ``labels`` (N,) int64. A line of a polygon becomes the box around it. ``masks=True`` adds ``masks`` (N, H, W) uint8
    of polygons (of a box, where a line has no polygon). ``keypoints=True`` adds ``keypoints`` (N, K, 2 or 3) float32 by
    ``kpt_shape``: then pass `kinds` to `Compose`, so that flips swap left and right by ``flip_idx``.

    ``source`` may be a URL, with ``listing`` as in `ImageFiles`; folders in it need a store that lists its objects.
    Nothing in the YAML file is run, and nothing is downloaded. Raises `BadFile` here for a YAML file that cannot be
    used, and `MissingFile`. Reading a sample raises `BadAnnotation`, with the line, for text that is no object.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        split: str = "train",
        *,
        masks: bool = False,
        keypoints: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        allow_truncated: bool = False,
        listing: str | os.PathLike[str] | None = None,
    ) -> None:
        self._masks, self._keypoints = flag("masks", masks), flag("keypoints", keypoints)
        config = _Config(_yaml(path_of("source", source)))
        self._shape = config.points() if self._keypoints else (0, 0)
        self._swaps = config.swaps(self._shape[0])
        paths = PackedList(config.images(split))
        decoding = Decoding("RGB", max_pixels, allow_truncated)
        super().__init__(config.root, paths, config.classes(), decoding, listing)

    @property
    def keypoint_swaps(self) -> tuple[tuple[int, int], ...]:
        """The pairs of keypoints that change sides in a mirrored image, by ``flip_idx``."""
        return self._swaps

    @property
    def kinds(self) -> dict[str, Any]:
        """The kinds of the fields, for ``Compose(..., kinds=dataset.kinds)``."""
        kinds: dict[str, Any] = {"image": "image", "boxes": "boxes", "labels": "labels"}
        if self._masks:
            kinds["masks"] = "masks"
        if self._keypoints:
            kinds["keypoints"] = Keypoints(swaps=self._swaps)
        return kinds

    def label_path(self, index: int) -> str:
        """Return the path of the text file of an image, which need not be there."""
        return self._path(range(len(self))[index], 1)

    def _files(self, place: int) -> tuple[str, ...]:
        image = joined(self._base, self._paths[place])
        before, folder, after = image.replace("\\", "/").rpartition("/images/")
        return image, os.path.splitext(f"{before}/labels/{after}" if folder else image)[0] + ".txt"  # noqa: PTH122

    def _text(self, place: int) -> bytes:
        """Return the text of an image; nothing where it has none."""
        known = self._known(place, 1)
        if known == ABSENT:
            return b""
        try:
            return self._read(place, 1, MOST_BYTES)
        except MissingFile:
            if known is not None and known[0] >= 0:  # it was there when the dataset was constructed
                raise
            return b""

    def _sample(self, place: int) -> dict[str, Any]:
        image, path = self._image(place), self._path(place, 1)
        size: tuple[int, int] = image.shape[:2]
        rows = _Rows(path, self._shape, len(self._classes)).of(self._text(place))
        sample: dict[str, Any] = {
            "image": image,
            "boxes": (np.array([box for _, box, _, _ in rows]).reshape(-1, 4) * (size[::-1] * 2)).astype(np.float32),
            "labels": np.array([label for label, _, _, _ in rows], np.int64),
        }
        if self._masks:
            check_masks(path, len(rows), size)
            outlines = [polygon * size[::-1] for _, _, polygon, _ in rows]
            sample["masks"] = stacked_masks([polygons_mask([one.ravel()], *size) for one in outlines], size)
        if self._keypoints:
            points = np.array([point for _, _, _, point in rows], np.float32).reshape(-1, *self._shape)
            # The center of the first pixel is 0 for keypoints, and half a pixel from the edge of the image.
            points[..., :2] = points[..., :2] * size[::-1] - 0.5
            if self._shape[1] == 3:
                points[points[..., 2] == 0] = 0
            sample["keypoints"] = points
        return sample


Row = tuple[int, list[float], "NDArray[np.float64]", list[float]]
"""Label, box, polygon and keypoints of an object, in fractions of the image."""


class _Rows:
    """The lines of one text file."""

    def __init__(self, path: str, shape: tuple[int, int], classes: int) -> None:
        self._path, self._points, self._classes = path, shape[0] * shape[1], classes
        self._step = shape[1]

    def of(self, data: bytes) -> list[Row]:
        lines = data.decode("utf-8", "replace").lstrip("\ufeff").splitlines()
        return [self._row(number, line) for number, line in enumerate(lines, 1) if line.strip()]

    def _row(self, number: int, line: str) -> Row:
        try:
            values = [number_of(word) for word in line.split()]
        except ValueError:
            self._refuse(number, repr(line[:80]), ROW)
        label, rest = values[0], values[1:]
        if label not in range(self._classes):
            self._refuse(number, f"the class {line.split(maxsplit=1)[0]}", f"a class from 0 to {self._classes - 1}")
        points: list[float] = []
        if self._points:
            rest, points = rest[:4], rest[4:]
            if len(points) != self._points:
                self._refuse(number, f"{len(points)} numbers for keypoints", f"{self._points}, by kpt_shape")
            if not all(map(math.isfinite, points)):
                self._refuse(number, "a keypoint that is no number", "x, y and visibility")
        places = rest + [one for at, one in enumerate(points) if self._step == 2 or at % 3 < 2]
        if not all(-SLACK <= one <= 1 + SLACK for one in places):  # NaN is refused too
            odd = next(one for one in places if not -SLACK <= one <= 1 + SLACK)
            self._refuse(number, f"the coordinate {odd:g}", "fractions of the image, from 0 to 1")
        if len(rest) == 4:
            x, y, width, height = rest
            if width < 0 or height < 0:
                self._refuse(number, f"a box of negative size, {width:g} x {height:g}", ROW)
            box = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
            outline = np.array([[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]]])
            return int(label), box, outline, points
        if len(rest) < 6 or len(rest) % 2:
            self._refuse(number, f"{len(values)} numbers", f"{ROW}; or a class and the points of a polygon")
        outline = np.array(rest).reshape(-1, 2)
        return int(label), [*outline.min(axis=0).tolist(), *outline.max(axis=0).tolist()], outline, points

    def _refuse(self, number: int, what: str, expected: str) -> NoReturn:
        wrong(self._path, f"line {number}: {what}", expected)


class _Config:
    """What a YAML file says."""

    def __init__(self, file: str) -> None:
        self._file = file
        try:
            self._values: dict[str, Value] = plain_yaml.settings(_text(file))
        except ValueError as error:
            self._refuse(str(error), "keys with text, lists and mappings of text")
        base = folder_of(file if is_url(file) else str(Path(file).resolve()))
        given = self._values.get("path", "")
        whole = joined(base, given) if isinstance(given, str) and given else base
        self._roots = [whole, base] if is_url(whole) else [whole if os.path.isdir(whole) else base]  # noqa: PTH112

    @property
    def root(self) -> str:
        """The folder that paths begin in: as the file says, or its own; behind a URL, where the images are found."""
        return self._roots[0]

    def classes(self) -> list[str]:
        names = self._values.get("names")
        if isinstance(names, dict):
            if {*names} != {str(number) for number in range(len(names))}:
                self._refuse(f"the numbers of 'names' are {', '.join(names)[:60]}", "numbers from 0 up, without gaps")
            names = [names[str(number)] for number in range(len(names))]
        if not isinstance(names, list) or not names:
            self._refuse("no 'names'", "the names of the classes")
        count = self._values.get("nc", str(len(names)))
        if count != str(len(names)):
            self._refuse(f"nc is {count}, and there are {len(names)} names", "a name for each class")
        return names

    def points(self) -> tuple[int, int]:
        shape = self._values.get("kpt_shape")
        if not isinstance(shape, list) or len(shape) != 2 or not all(one.isdecimal() for one in shape):
            self._refuse(f"kpt_shape is {shape}", "[keypoints, 2 or 3]")
        count, columns = map(int, shape)
        if not 0 < count < 10_000 or columns not in (2, 3):
            self._refuse(f"kpt_shape is {shape}", "[keypoints, 2 or 3]")
        return count, columns

    def swaps(self, count: int) -> tuple[tuple[int, int], ...]:
        given = self._values.get("flip_idx")
        if not count or given is None:
            return ()
        if not isinstance(given, list) or sorted(given) != sorted(map(str, range(count))):
            self._refuse(f"flip_idx is {given}", f"each of the numbers 0 to {count - 1} once")
        places = [int(one) for one in given]
        if any(places[other] != one for one, other in enumerate(places)):
            self._refuse(f"flip_idx is {given}", "pairs that change places")
        return tuple((one, other) for one, other in enumerate(places) if one < other)

    def images(self, split: str) -> Iterator[str]:
        """Yield the paths of a split's images: below the root where they can be."""
        given = self._values.get(split)
        if not given or isinstance(given, dict):
            self._refuse(f"no {split!r}", "the folder or the list of the images of the split")
        for entry in [given] if isinstance(given, str) else given:
            place = self._found(entry)
            if place_of(place).endswith(".txt"):
                yield from self._listed(place)
            else:
                yield from (self._below(joined(place, path)) for path in ImageFiles.under(place).paths)

    def _found(self, entry: str) -> str:
        """Return where an entry leads; ``../train`` may be meant from a folder that is not there."""
        entries = [entry.removeprefix("./"), *([entry[3:]] if entry.startswith("../") else [])]
        for root in self._roots:
            for place in (joined(root, each) for each in entries):
                if _exists(place):
                    self._roots = [root]
                    return place
        expected = "a folder of images, or a text file of paths"
        path = joined(self.root, entry)
        raise MissingFile("there is no such file or folder", path=path, expected=expected, cure=CURE)

    def _listed(self, file: str) -> Iterator[str]:
        with opened(file) as lines:
            for line in lines:
                if line.strip():
                    base = folder_of(file) if line.startswith("./") else self.root
                    yield self._below(joined(base, line.strip().removeprefix("./")))

    def _below(self, path: str) -> str:
        return path.removeprefix(os.path.join(self.root, ""))  # noqa: PTH118

    def _refuse(self, what: str, expected: str) -> NoReturn:
        raise BadFile(what, path=self._file, found=what, expected=expected, cure=CURE) from None


def _exists(place: str) -> bool:
    if not is_url(place):
        return os.path.exists(place)  # noqa: PTH110
    return is_there(place) if place_of(place).endswith(".txt") else bool(listing(place))


def _yaml(source: str) -> str:
    """Return the YAML file, of a folder the only one or ``data.yaml``, which it is behind a URL."""
    if is_url(source):
        return source if place_of(source).endswith(YAML) else joined(source, "data.yaml")
    if not os.path.isdir(source):  # noqa: PTH112
        return source
    files = sorted(path for path in Path(source).iterdir() if path.suffix in YAML)
    chosen = [file for file in files if len(files) == 1 or file.stem == "data"]
    if not chosen:
        names = ", ".join(file.name for file in files) or "none"
        expected = "data.yaml, or one YAML file"
        raise MissingFile(f"its YAML files are: {names}", path=source, expected=expected, cure="Pass the file.")
    return str(chosen[0])


def _text(file: str) -> str:
    return read_file(file, max_bytes=MOST_BYTES).decode("utf-8-sig", "replace")
