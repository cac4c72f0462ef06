"""Images of faces, with the annotations of the Face Detection Data Set and Benchmark (FDDB)."""

from __future__ import annotations

import math
import operator
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headrace.checks import flag, integer, refused, shown
from headrace.datasets.annotated import number_of
from headrace.datasets.base import Dataset
from headrace.datasets.images import DEFAULT_EXTENSIONS, ImageFiles, as_folder
from headrace.datasets.lists import opened, unclear
from headrace.datasets.subset import Subset
from headrace.errors import ArgumentError, ListFileError
from headrace.image.decoding import DEFAULT_MAX_PIXELS
from headrace.storage.objects import local

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import ArrayLike, NDArray

    from headrace.datasets.image_sources import Files

FOLDS = range(1, 11)
"""The numbers of FDDB's folds."""

ENDING = ".jpg"
"""The ending that FDDB's lists leave out of file names."""

AGAIN = "Correct the line, or download the annotations again."

ON_A_SHEET = 12
"""How many images a contact sheet has by default."""


class FaceDataset(Dataset[Any]):
    """Images one at a time, as arrays; with FDDB's annotations, the faces on them too.

    >>> import tempfile
    >>> from PIL import Image
    >>> from headrace.datasets import FaceDataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for number in range(5):
    ...         Image.new("RGB", (4 + number, 3)).save(f"{folder}/{number}.png")
    ...     faces = FaceDataset(folder, start=1, limit=3)
    ...     shapes = [image.shape for image in faces]
    ...     first = next(faces)
    >>> len(faces), shapes, first.shape
    (3, [(3, 5, 3), (3, 6, 3), (3, 7, 3)], (3, 5, 3))

    ``source``: a folder, walked with all below it and sorted by folder, then by name (which files count is as in
    `ImageFolder`), or the paths of images. Of these the dataset is the images from ``start`` on, at most ``limit``.
    A sample is an ``(H, W, 3)`` uint8 RGB array; `fddb` makes a dataset whose samples have ellipses and boxes too.

    ``for image in faces`` and ``iter(faces)`` start at the first image each time. ``next(faces)`` has its own position,
    and raises StopIteration at the end. Images are not kept: only the one that the caller holds is in memory. An image
    that cannot be read raises, and the following ``next`` continues with the image after it. ``allow_truncated``: a
    file that is cut short is decoded as far as it goes, the missing part gray in a JPEG and black in other formats,
    instead of raising `BadImage`.

    Raises `ArgumentError` here, and a `SampleError` that names index and path for an image that cannot be read.
    """

    suits_threads = True

    def __init__(
        self,
        source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        start: int = 0,
        limit: int | None = None,
        allow_truncated: bool = False,
        extensions: Iterable[str] = DEFAULT_EXTENSIONS,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> None:
        if isinstance(source, (str, os.PathLike)):
            every = ImageFiles.under(local("source", source), extensions=extensions, max_pixels=max_pixels)
        else:
            every = ImageFiles(source, max_pixels=max_pixels)
        self._window = _window(start, limit)
        self._files = ImageFiles(
            every.paths[self._window],
            root=every.root or None,
            max_pixels=max_pixels,
            allow_truncated=allow_truncated,
        )
        self._annotations: _Annotations | None = None
        source_of = self._files.native_source()
        if source_of is None:
            local("source", self._files.path(0))
        self._images_only = replace(cast("Files", source_of), beside=(), bare=True)
        self._to_come = iter(range(len(self._files)))

    @classmethod
    def fddb(
        cls,
        images: str | os.PathLike[str],
        annotations: str | os.PathLike[str],
        *,
        folds: Iterable[int] = FOLDS,
        start: int = 0,
        limit: int | None = None,
        clip: bool = True,
        allow_truncated: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> FaceDataset:
        r"""Return the images of FDDB's folds, each with its faces: ``(image, ellipses, boxes)``.

        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> from headrace.datasets import FaceDataset
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (80, 60)).save(f"{folder}/img_1.jpg")
        ...     _ = pathlib.Path(folder, "FDDB-fold-01.txt").write_text("img_1")
        ...     lines = ["img_1", "1", "20 10 1.5707963 40 30  1"]
        ...     _ = pathlib.Path(folder, "FDDB-fold-01-ellipseList.txt").write_text("\n".join(lines))
        ...     faces = FaceDataset.fddb(folder, folder, folds=[1])
        ...     image, ellipses, boxes = faces[0]
        >>> image.shape, ellipses.shape, boxes.round(1).tolist()
        ((60, 80, 3), (1, 5), [[30.0, 10.0, 50.0, 50.0]])

        ``images``: the folder of ``2002/`` and ``2003/`` (the lists name their images without ``.jpg``).
        ``annotations``: the folder of ``FDDB-fold-01.txt``, ``FDDB-fold-01-ellipseList.txt`` and so on. ``folds``:
        which of the ten. ``ellipses`` are (k, 5) float64: major radius, minor radius, angle of the major axis in
        radians from the x axis towards the y axis, centre x, centre y, in pixels. ``boxes`` are (k, 4) float64, the
        exact bounds of the ellipses: left, top, right, bottom; with ``clip``, of what is inside the image.

        Raises `ListFileError` for an annotation that cannot be read, which names file and line, and `MissingFile` and
        `UnreadableFile` for the files of annotations.
        """
        folder, root = Path(local("annotations", annotations)), local("images", as_folder(images))
        chosen = _folds(folds)
        listed = [record for fold in chosen for record in _records(folder, fold)]
        paths = [os.path.join(root, record.name + ENDING) for record in listed]  # noqa: PTH118  as in images.py
        faces = cls(paths, start=start, limit=limit, allow_truncated=allow_truncated, max_pixels=max_pixels)
        faces._annotations = _Annotations.of(listed[faces._window], clip=clip)
        return faces

    @property
    def folds(self) -> NDArray[np.int64]:
        """The number of each image's fold: ``(N,)`` int64."""
        return self._annotated().folds

    @property
    def faces(self) -> int:
        """How many faces are annotated, on all images together."""
        return len(self._annotated().ellipses)

    def ellipses(self, index: int) -> NDArray[np.float64]:
        """Return the ellipses of an image, (k, 5) float64, without reading it."""
        return self._annotated().of_image(range(len(self))[index])

    def cross_validation(self) -> Iterator[tuple[Subset[Any], Subset[Any]]]:
        """Yield, for each fold, the images of all others and those of the fold: ``(train, test)``.

        Raises `ArgumentError` for fewer than two folds.
        """
        folds = self.folds
        present = np.unique(folds)
        if len(present) < 2:
            raise ArgumentError(
                f"cross-validation got images of {len(present)} folds",
                found=len(present),
                expected="images of two folds or more",
                cure="Read more folds: FaceDataset.fddb(images, annotations, folds=range(1, 11)).",
            )
        return ((Subset(self, np.flatnonzero(folds != n)), Subset(self, np.flatnonzero(folds == n))) for n in present)

    def save_sheet(self, path: str | os.PathLike[str], indices: Iterable[int] | None = None) -> None:
        """Save a contact sheet of these images, or of the first twelve, as a PNG with their ellipses.

        Raises `ArgumentError` rather than write over one of the images, and `OSError` where it cannot write.
        """
        from headrace.image.overlay import Overlay, ellipse
        from headrace.image.sheet import Single, contact_sheet

        output = Path(path)
        alike = (index for index, own in enumerate(self._files.paths) if own.endswith(output.name))
        if output.exists() and any(Path(own).exists() and output.samefile(own) for own in map(self.path, alike)):
            raise ArgumentError(
                "it is one of the images",
                path=str(output),
                expected="a path that no image has",
                cure="Save the sheet under another name.",
            )
        cards, faces = [], 0
        for index in range(min(ON_A_SHEET, len(self))) if indices is None else indices:
            image, detail, ellipses = self._read(index), "", np.empty((0, 5))
            if self._annotations is not None:
                ellipses = self.ellipses(index)
                detail = f", {len(ellipses)} face{'s' * (len(ellipses) != 1)}"
            faces += len(ellipses)
            size = f"{image.shape[1]} x {image.shape[0]}"
            drawn = Overlay(curves=tuple(ellipse(*one) for one in ellipses.tolist()))
            cards.append(Single(image, Path(self.path(index)).name, size + detail, drawn))
        shown = f"{len(cards)} of {len(self):,} images"
        if self._annotations is not None:
            shown += f", {faces} of {self.faces:,} faces"
        contact_sheet(cards, title="Faces", subtitle=shown).save(output, format="PNG")

    def path(self, index: int) -> str:
        """Return the path of an image, ready to be opened."""
        return self._files.path(index)

    def where(self, index: int) -> str:
        """Return the path of an image, for errors."""
        return self._files.where(index)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Any:
        """Read the image at an index, with its ellipses and boxes where there are annotations."""
        image = self._read(index)
        if self._annotations is None:
            return image
        ellipses = self.ellipses(index)
        size = (image.shape[1], image.shape[0]) if self._annotations.clip else None
        return image, ellipses, ellipse_boxes(ellipses, size)

    def native_source(self) -> Files | None:
        """Return the files of the images; None with annotations, whose number differs from image to image."""
        return self._images_only if self._annotations is None else None

    def __iter__(self) -> Iterator[Any]:
        return map(self.__getitem__, range(len(self)))  # a generator would end with the first image that is bad

    def __next__(self) -> Any:
        return self[next(self._to_come)]

    def __repr__(self) -> str:
        annotated = "" if self._annotations is None else f" with {self.faces} faces"
        return f"<{type(self).__name__} of {len(self)} images{annotated}, {self._files.root or 'no root'}>"

    def _read(self, index: int) -> NDArray[np.uint8]:
        return self._files[index][0]

    def _annotated(self) -> _Annotations:
        if self._annotations is None:
            raise ArgumentError(
                "this FaceDataset has no annotations",
                expected="a dataset with ellipses",
                cure="Read them with FaceDataset.fddb(images, annotations).",
            )
        return self._annotations


def ellipse_boxes(ellipses: ArrayLike, size: tuple[int, int] | None = None) -> NDArray[np.float64]:
    """Return the exact bounding boxes of rotated ellipses, (n, 4) float64: left, top, right, bottom.

    >>> from headrace.datasets import ellipse_boxes
    >>> ellipse_boxes([[5, 3, 0, 10, 10], [5, 5, 1, 2, 2]]).round(6)
    array([[ 5.,  7., 15., 13.],
           [-3., -3.,  7.,  7.]])
    >>> ellipse_boxes([[5, 5, 1, 2, 2]], size=(6, 4)).tolist()
    [[0.0, 0.0, 6.0, 4.0]]

    ``ellipses``: (n, 5), of major radius, minor radius, angle of the major axis in radians, centre x, centre y.
    ``size``: width and height of the image to clip to. Raises `ArgumentError` for another shape.
    """
    given = np.asarray(ellipses, dtype=np.float64)
    if given.size == 0:
        given = given.reshape(-1, 5)
    if given.ndim != 2 or given.shape[1] != 5:
        raise ArgumentError(
            f"ellipses must be of shape (n, 5); got {given.shape}",
            found=given.shape,
            expected="shape (n, 5)",
            cure="Give each ellipse as major radius, minor radius, angle, centre x and centre y.",
        )
    major, minor, angle, x, y = given.T
    # The farthest point along an axis: the length of what the two radii contribute to it, which are at right angles.
    half_width = np.hypot(major * np.cos(angle), minor * np.sin(angle))
    half_height = np.hypot(major * np.sin(angle), minor * np.cos(angle))
    boxes = np.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=1)
    return boxes if size is None else boxes.clip(0, np.tile(np.asarray(size, np.float64), 2))


@dataclass(frozen=True, slots=True)
class _Record:
    """An image of a fold."""

    name: str
    fold: int
    ellipses: list[list[float]]


@dataclass(frozen=True, slots=True)
class _Annotations:
    """The faces of all images in one array, and where each image's begin."""

    ellipses: NDArray[np.float64]
    begins: NDArray[np.int64]
    folds: NDArray[np.int64]
    clip: bool

    @classmethod
    def of(cls, records: list[_Record], *, clip: bool) -> _Annotations:
        ellipses = np.array([each for record in records for each in record.ellipses], np.float64).reshape(-1, 5)
        begins = np.cumsum([0, *(len(record.ellipses) for record in records)], dtype=np.int64)
        folds = np.array([record.fold for record in records], np.int64)
        folds.flags.writeable = False
        return cls(ellipses, begins, folds, flag("clip", clip))

    def of_image(self, place: int) -> NDArray[np.float64]:
        return self.ellipses[self.begins[place] : self.begins[place + 1]].copy()


def _records(folder: Path, fold: int) -> Iterator[_Record]:
    """Read a fold: the list of its images, and that of their ellipses, of the same images in order."""
    file = folder / f"FDDB-fold-{fold:02}-ellipseList.txt"
    lines = _Lines(file)
    for number, name in _Lines(folder / f"FDDB-fold-{fold:02}.txt"):
        expected = f"the image {name}, from line {number} of FDDB-fold-{fold:02}.txt"
        if lines.next(expected) != name:
            raise lines.unclear(expected)
        count = lines.next("a number of faces")
        if not count.isdecimal() or len(count) > 9:
            raise lines.unclear("a number of faces, from 0 up")
        yield _Record(name, fold, [lines.ellipse(each, int(count)) for each in range(1, int(count) + 1)])
    for _ in lines:
        raise lines.unclear(f"no more images than in FDDB-fold-{fold:02}.txt")


class _Lines:
    """The lines of a file that are not blank, with their numbers, one after the other."""

    def __init__(self, file: Path) -> None:
        with opened(str(file)) as stream:
            lines = [(number, line.strip()) for number, line in enumerate(stream, 1) if line.strip()]
        self._file, self._lines = file, iter(lines)
        self._number, self._line = 0, ""

    def __iter__(self) -> Iterator[tuple[int, str]]:
        for number, line in self._lines:
            self._number, self._line = number, line
            yield number, line

    def next(self, expected: str) -> str:
        """Return the next line."""
        for _, line in self:
            return line
        what = f"it ends after line {self._number}, {shown(self._line)}"
        raise ListFileError(what, path=str(self._file), found=self._line, expected=expected, cure=AGAIN)

    def unclear(self, expected: str) -> ListFileError:
        """Return the error for the line that was read last."""
        return unclear(str(self._file), self._number, self._line, "", expected, AGAIN)

    def ellipse(self, number: int, count: int) -> list[float]:
        """Read an ellipse."""
        fields = self.next(f"face {number} of {count}").split()
        try:
            values = [number_of(field) for field in fields]
        except ValueError:
            values = []
        if len(values) != 6 or not all(map(math.isfinite, values)) or min(values[:2]) <= 0:
            raise self.unclear(
                f"face {number} of {count} in six numbers: major and minor radius above 0, angle, centre x, centre y, 1"
            )
        return values[:5]


def _window(start: int, limit: int | None) -> slice:
    first = integer("start", start, least=0)
    return slice(first, None if limit is None else first + integer("limit", limit, least=0))


def _folds(folds: Iterable[int]) -> list[int]:
    try:
        chosen = [operator.index(fold) for fold in folds]
    except TypeError as error:
        raise refused("folds", folds, "a list of numbers from 1 to 10", "Pass folds=[1, 2].") from error
    if not chosen or not set(chosen) <= set(FOLDS) or len(set(chosen)) < len(chosen):
        raise refused("folds", chosen, "numbers from 1 to 10, each once", "Leave folds= out for all ten.")
    return chosen
