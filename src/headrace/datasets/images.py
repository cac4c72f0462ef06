"""Datasets of image files: a sample is ``(pixels, label)``, decoded when it is asked for."""

from __future__ import annotations

import heapq
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headrace.checks import flag, refused
from headrace.context.timing import timed
from headrace.datasets.base import Dataset
from headrace.datasets.image_sources import Files, label_of
from headrace.datasets.object_images import ObjectTree, Urls, facts_of, has_urls, refuse_listing
from headrace.datasets.packed_list import PackedList
from headrace.datasets.protocol import rows_of
from headrace.errors import ArgumentError, ArgumentTypeError, MissingFile, SampleError, UnreadableFile
from headrace.image import geometry
from headrace.image.decoder import decode_as, jpeg_size
from headrace.image.decoding import DEFAULT_MAX_PIXELS, Decoding
from headrace.interop.keys import place as place_of
from headrace.storage.files import RAISE, read_file, unopened
from headrace.storage.object_spans import ObjectSpans, fetch
from headrace.storage.objects import is_url
from headrace.storage.signed_urls import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from headrace.image.modes import Mode
    from headrace.transforms.image_transform import Scaling

DEFAULT_EXTENSIONS = (
    ".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".qoi",
    ".tga", ".tif", ".tiff", ".webp",
)  # fmt: skip
"""The default endings of the names of image files, in small letters or capitals."""


class ImageDataset(Dataset[tuple[NDArray[Any], int]]):
    """The base of `ImageFiles`, `ImageFolder` and `ImageList`: where the images are and how one is read.

    ``dataset[i]`` is ``(pixels, label)``: an ``(H, W, 3)`` uint8 RGB array (or what ``mode`` says), and an ``int``. The
    index may be negative and may be a NumPy integer; a bool, a float or a string raises ``TypeError``, one out of range
    ``IndexError``. An image that cannot be read or decoded raises a `SampleError` that names its index and path.
    """

    suits_threads = True
    _maps_transform = True

    def __init__(
        self,
        root: str,
        paths: PackedList,
        labels: NDArray[Any],
        classes: Iterable[str],
        decoding: Decoding,
        facts: NDArray[np.int64] | None = None,
    ) -> None:
        labels.flags.writeable = False
        self._root, self._paths, self._labels = root, paths, labels
        self._classes = tuple(classes)
        self._decoding, self._warned = decoding, set[str]()
        self._base = root if is_url(root) else _from_here(root)
        self._images_source = Files(paths, self._base, decoding, beside=(labels,))
        self._facts = facts
        self._urls = None if facts is None else Urls(self._base, paths)

    @property
    def root(self) -> str:
        """The folder that relative `paths` begin in; empty where there is none."""
        return self._root

    @property
    def max_pixels(self) -> int:
        """The most pixels that an image may have."""
        return self._decoding.max_pixels

    @property
    def mode(self) -> Mode:
        """The mode of the pixels, which decides dtype and shape: see `headrace.image.decode`."""
        return self._decoding.mode

    @property
    def scaled_decode(self) -> bool:
        """Whether a JPEG that is scaled down a lot is decoded at a smaller size."""
        return self._decoding.scaled

    @property
    def paths(self) -> PackedList:
        """The paths, as they are held: below `root`, or absolute."""
        return self._paths

    @property
    def labels(self) -> NDArray[Any]:
        """The labels, one for each image, read-only: ``(N,)`` int64, and -1 where there are none.

        A list file may also give fractions, as float64, and several label columns: ``(N, columns)``.
        """
        return self._labels

    @property
    def classes(self) -> list[str]:
        """The names of the classes, by label; empty where labels have no names."""
        return list(self._classes)

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The label of each class; empty where labels have no names."""
        return {name: label for label, name in enumerate(self._classes)}

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[NDArray[Any], Any]:
        place = self._place(index)
        path = self._full(place)
        with timed("read"):
            data = self._bytes(path, place)
        with timed("decode"):
            pixels = self._decode(data, path, place)
        return pixels, label_of(self._labels[place])

    @property
    def reads_many(self) -> bool:
        """Whether reading many images at once is better than one by one: of objects behind URLs."""
        return self._facts is not None

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[NDArray[Any], Any]]:
        """Read many images; those behind URLs are fetched by several requests at once."""
        fetch(self.object_spans(indices))
        return [self[index] for index in indices]

    def object_spans(self, keys: Sequence[Any]) -> list[ObjectSpans]:
        """Return which objects behind URLs the images of these keys are."""
        if self._facts is None or self._urls is None:
            return []
        rows = rows_of(keys, len(self))
        return [ObjectSpans(self._urls, self._facts, rows, np.zeros_like(rows), self._facts[rows, 0])]

    def read_scaled(self, index: int, transform: Scaling) -> tuple[NDArray[Any], Any]:
        """Read an image and scale it by a transform; a JPEG is decoded no larger than the transform needs."""
        place = self._place(index)
        path = self._full(place)
        with timed("read"):
            data = self._bytes(path, place)
        with timed("decode"):
            size = jpeg_size(data, oriented=self._decoding.oriented)
            if size is None:
                sample = self._decode(data, path, place), label_of(self._labels[place])
                return cast("tuple[NDArray[Any], Any]", transform(sample))
            box, height, width = transform.scaling(*size)
            shrink = geometry.shrink_for(box, height, width)
            pixels = self._decode(data, path, place, shrink)
        with timed("transform"):
            how = transform.interpolation
            if shrink == 1 or pixels.shape[:2] == size:
                pixels = geometry.resize(pixels, height, width, interpolation=how, box=box)
            else:
                pixels = geometry.resize_shrunk(pixels, shrink, box, height, width, how)
        return pixels, label_of(self._labels[place])

    def native_source(self) -> Files | None:
        """Return the files, with the labels beside the images; None where some are behind URLs."""
        return None if self._facts is not None else self._images_source

    def _decode(self, data: bytes, path: str, index: int, shrink: int = 1) -> NDArray[Any]:
        try:
            return decode_as(data, path, self._decoding, self._warned, shrink)
        except SampleError as error:
            error.at(index)
            raise

    def _bytes(self, path: str, index: int) -> bytes:
        most, known = self._decoding.max_bytes, None
        if self._facts is not None and self._facts[index, 0] >= 0:
            known = int(self._facts[index, 0]), int(self._facts[index, 1])
        try:
            limit = f"{RAISE} with max_pixels= (3 bytes for each pixel)"
            return read_file(path, max_bytes=most, limit=limit, facts=known)
        except SampleError as error:
            error.at(index)
            raise

    def read(self, index: int) -> bytes:
        """Read the file of an image as it is, without decoding it."""
        place = self._place(index)
        path = self._full(place)
        with timed("read"):
            return self._bytes(path, place)

    def path(self, index: int) -> str:
        """Return the path of an image, ready to be opened."""
        return self._full(self._place(index))

    def where(self, index: int) -> str:
        """Return the path of an image, for errors."""
        return self.path(index)

    def __repr__(self) -> str:
        classes = f" in {len(self._classes)} classes" if self._classes else ""
        return f"<{type(self).__name__} of {len(self)} images{classes}, {self._root or 'no root'}>"

    def _full(self, place: int) -> str:
        if self._urls is not None:
            return str(self._urls[place])
        return os.path.join(self._base, self._paths[place])  # noqa: PTH118  a Path costs several times as much

    def _place(self, index: int) -> int:
        return place_of(index, len(self._paths), "{} images")


class ImageFiles(ImageDataset):
    """Image files given by their paths, with a label each or none.

    >>> import tempfile
    >>> from PIL import Image
    >>> from headrace import ImageFiles
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (4, 3), "red").save(f"{folder}/a.png")
    ...     dataset = ImageFiles(["a.png"], labels=[7], root=folder)
    ...     image, label = dataset[0]
    >>> image.shape, image.dtype, label
    ((3, 4, 3), dtype('uint8'), 7)

    ``paths`` is any iterable of ``str`` or ``os.PathLike``, read once and packed, or a `PackedList`, which is shared.
    ``labels`` are integers, one a path; without them every label is -1. ``root``, where given, is the folder that
    relative paths begin in. No file here is touched before it is asked for. An image above ``max_pixels`` is refused.

    ``mode``, ``"RGB"``, ``"L"``, ``"P"``, ``"I;16"`` or ``"unchanged"``, decides dtype and shape: masks with a palette
    need ``"P"``, 16-bit depth images ``"I;16"`` (`headrace.image.decode` describes each). Relative paths and
    roots begin at the folder that was current when the dataset was made.

    ``allow_truncated``: a file that is cut short is decoded as far as it goes; the missing part is gray in a JPEG and
    black in other formats. ``scaled_decode``: if `Resize` or `RandomResizedCrop` with antialiasing comes first in
    ``.map(…)``, a JPEG at least 2, 4 or 8 times larger than needed is decoded that much smaller. That is several times
    faster for large photographs; pixels differ by a few gray levels (the guide's page on speed has the figures).

    ``paths`` and ``root`` may be URLs. Then the server is asked for the size and version of each image here, unless
    ``listing`` names a file that has them; without such a file, it is written.

    Raises `ArgumentError` for paths or labels that cannot be used.
    """

    def __init__(
        self,
        paths: Iterable[str | os.PathLike[str]],
        labels: ArrayLike | Iterable[int] | None = None,
        *,
        root: str | os.PathLike[str] | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        allow_truncated: bool = False,
        scaled_decode: bool = False,
        mode: Mode = "RGB",
        listing: str | os.PathLike[str] | None = None,
    ) -> None:
        shared = isinstance(paths, PackedList) and not has_urls(paths)
        packed = paths if isinstance(paths, PackedList) and shared else PackedList(_strings(paths))
        folder = "" if root is None else as_folder(root)
        given = _labels(labels, len(packed))
        decoding = Decoding(mode, max_pixels, allow_truncated, scaled_decode)
        super().__init__(folder, packed, given, (), decoding, facts_of(folder, packed, listing))

    @classmethod
    def under(
        cls,
        root: str | os.PathLike[str],
        *,
        extensions: Iterable[str] = DEFAULT_EXTENSIONS,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        allow_truncated: bool = False,
        scaled_decode: bool = False,
        mode: Mode = "RGB",
        listing: str | os.PathLike[str] | None = None,
    ) -> ImageFiles:
        """Return every image in a folder and the folders below it, sorted by folder, then by name, without labels.

        >>> import tempfile
        >>> from PIL import Image
        >>> from headrace import ImageFiles
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (4, 3)).save(f"{folder}/a.png")
        ...     ImageFiles.under(folder).paths
        PackedList(['a.png'])

        Which files and folders count, and what is raised, are as in `ImageFolder`.
        """
        tree = _tree(root, extensions, listing)
        found = cls.__new__(cls)
        packed, decoding = PackedList(tree.images("")), Decoding(mode, max_pixels, allow_truncated, scaled_decode)
        ImageDataset.__init__(found, tree.root, packed, _labels(None, len(packed)), (), decoding, tree.facts)
        return found


class ImageFolder(ImageDataset):
    """Image files in one folder per class, in the order and with the labels of torchvision's ``ImageFolder``.

    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> from headrace import ImageFolder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("dog/2.png", "cat/1.png"):
    ...         file = pathlib.Path(folder, name)
    ...         file.parent.mkdir()
    ...         Image.new("RGB", (4, 3)).save(file)
    ...     dataset = ImageFolder(folder)
    ...     labels = [label for image, label in dataset]
    >>> dataset.classes, labels, dataset.paths
    (['cat', 'dog'], [0, 1], PackedList(['cat/1.png', 'dog/2.png']))

    The folders in ``root`` are the classes, sorted by name; folders inside them belong to the same class. Images
    are sorted by folder, then by name. A file counts as an image if its name ends with one of ``extensions``, in
    small letters or capitals; nothing counts whose name begins with a dot (macOS leaves ``._1.jpg`` beside ``1.jpg``).
    Links to folders are followed, but each folder is read once for a class, by the first of its paths. A broken link
    counts as an image, so that a lost file is an error when it is read, and not a smaller dataset.

    ``root`` may be a URL (``s3://``, ``gs://``, ``az://``, or one of fsspec): its objects are listed, a thousand for
    each request, and the order is that of a folder. ``listing``: a file of what is there, read if it exists and else
    written, so that later runs and other machines have the same images and list nothing.

    A class without an image is an error unless ``allow_empty``. Raises `MissingFile`, a ``FileNotFoundError``, where
    the folder, its classes or the images of a class are missing, `UnreadableFile` for a folder that cannot be listed,
    and `ArgumentError`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        extensions: Iterable[str] = DEFAULT_EXTENSIONS,
        allow_empty: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        allow_truncated: bool = False,
        scaled_decode: bool = False,
        mode: Mode = "RGB",
        listing: str | os.PathLike[str] | None = None,
    ) -> None:
        tree = _tree(root, extensions, listing)
        classes = tree.classes()
        counts: list[int] = []
        paths = PackedList(_counted(map(tree.images, classes), counts))
        empty = [name for name, count in zip(classes, counts, strict=True) if not count]
        if not flag("allow_empty", allow_empty) and empty:
            raise MissingFile(
                f"no image in {len(empty)} of {len(classes)} class folders: {_some(empty)}",
                path=tree.root,
                expected=f"files whose names end with {' '.join(tree.endings)}",
                cure="Remove the folders, pass other extensions=, or allow_empty=True.",
            )
        labels = np.repeat(np.arange(len(classes), dtype=np.int64), counts)
        super().__init__(
            tree.root,
            paths,
            labels,
            classes,
            Decoding(mode, max_pixels, allow_truncated, scaled_decode),
            tree.facts,
        )


Identity = tuple[int, int]
"""What makes a folder the same folder by whatever path: its device and its number there."""


class _Tree:
    """The folders and images below a root, read folder by folder, in order."""

    facts = None

    def __init__(self, root: str, endings: tuple[str, ...]) -> None:
        self.root, self.endings = root, endings
        here = _identity(self.root)
        # A link that leads above the root leads back to it in the end, by way of half the disk.
        self._above = (*_identities(Path(self.root).resolve().parents), here)

    def classes(self) -> list[str]:
        folders, images = self._list("")
        classes = [name for name in folders if _identity(self._path(name)) not in self._above]
        if classes:
            return sorted(classes)
        cure = (
            "Its images are directly in it: read them with ImageFiles.under(root), or make one folder a class."
            if images
            else "Pass the folder above or below it."
        )
        raise MissingFile("no folder in it", path=self.root, expected="a folder for each class", cure=cure)

    def images(self, top: str) -> Iterator[str]:
        """Yield the images in and below a folder, as paths from the root.

        In the order of ``sorted(os.walk(folder))``, which is that of the folders' paths as strings: the least path not
        yet visited is always among those seen, as what is below a folder comes after it.
        """
        waiting = [top]
        # Each folder once, by whichever path comes first: links among a few would otherwise be followed in every order.
        seen = set(self._above if top else self._above[:-1])
        while waiting:
            folder = heapq.heappop(waiting)
            identity = _identity(self._path(folder))
            if identity in seen:
                continue
            seen.add(identity)
            folders, images = self._list(folder)
            start = f"{folder}/" if folder else ""
            for name in folders:
                heapq.heappush(waiting, start + name)
            for name in sorted(images):
                yield start + name

    def _list(self, folder: str) -> tuple[list[str], list[str]]:
        folders, images = [], []
        path = self._path(folder)
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if _is_folder(entry):
                        folders.append(entry.name)
                    elif entry.name.lower().endswith(self.endings):
                        images.append(entry.name)
        except OSError as error:
            raise _unlisted(path, error) from error
        return folders, images

    def _path(self, folder: str) -> str:
        return f"{self.root}/{folder}" if folder else self.root


def _tree(
    root: str | os.PathLike[str], extensions: Iterable[str], listing: str | os.PathLike[str] | None
) -> _Tree | ObjectTree:
    folder, endings = as_folder(root), _endings(extensions)
    if is_url(folder):
        return ObjectTree(folder, endings, listing)
    refuse_listing(listing)
    return _Tree(folder, endings)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to a folder without permission: reading it raises the error
        return False


def _identity(folder: str) -> Identity:
    try:
        facts = os.stat(folder)  # noqa: PTH116  a Path costs more than the question
    except OSError as error:
        raise _unlisted(folder, error) from error
    return facts.st_dev, facts.st_ino


def _identities(folders: Iterable[Path]) -> Iterator[Identity]:
    for folder in folders:
        with suppress(UnreadableFile):  # no link can lead to a folder without permission
            yield _identity(str(folder))


def _unlisted(folder: str, error: OSError) -> SampleError:
    cure = "Fix the path, or the folder's permissions."
    return unopened(folder, error, expected="a folder of images", cure=cure, action="listed")


def _counted(groups: Iterable[Iterable[str]], counts: list[int]) -> Iterator[str]:
    """Give the items of all the groups, and write down how many each had."""
    for group in groups:
        count = 0
        for item in group:
            count += 1
            yield item
        counts.append(count)


def _from_here(root: str) -> str:
    """Make a folder absolute, as a worker, or the script later on, may be in another; ``..`` stays, for links' sake."""
    try:
        return os.path.join(os.getcwd(), root)  # noqa: PTH109, PTH118
    except FileNotFoundError:  # the current folder was removed
        return root


def as_folder(root: str | os.PathLike[str]) -> str:
    """Check a folder given by a user; nothing is looked up."""
    folder = os.fspath(root) if isinstance(root, (str, os.PathLike)) else None
    if not folder or not isinstance(folder, str):
        raise refused("root", root, "the path of a folder", "Pass text or a pathlib.Path.")
    return plain(folder)


def _endings(extensions: Iterable[str]) -> tuple[str, ...]:
    given = (extensions,) if isinstance(extensions, str) else tuple(extensions)
    for extension in given:
        if not isinstance(extension, str) or not extension.startswith(".") or len(extension) < 2:
            raise refused("extensions", extension, "strings such as '.jpg'", "Begin each with its dot.")
    if not given:
        cure = "Leave extensions= out for the usual ones."
        raise ArgumentError("extensions is empty", found=(), expected="at least one, such as '.jpg'", cure=cure)
    return tuple(extension.lower() for extension in given)


def _strings(paths: Iterable[str | os.PathLike[str]]) -> Iterator[str]:
    if isinstance(paths, (str, bytes, os.PathLike)):
        cure = "For a folder of images use ImageFiles.under(folder), or ImageFolder(folder) if its folders are classes."
        raise refused("paths", paths, "an iterable of paths", cure)
    if not hasattr(paths, "__iter__"):
        raise refused("paths", paths, "an iterable of paths", "Pass a list of text or pathlib.Path.", ArgumentTypeError)
    for index, path in enumerate(paths):
        string = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
        if not isinstance(string, str):
            raise refused(
                f"paths[{index}]", path, "str or os.PathLike", "Decode bytes with os.fsdecode().", ArgumentTypeError
            )
        yield plain(string)


def _labels(labels: ArrayLike | Iterable[int] | None, length: int) -> NDArray[np.int64]:
    if labels is None:
        return np.broadcast_to(np.int64(-1), (length,))
    given: NDArray[Any]
    try:
        given = np.asarray(labels if hasattr(labels, "__len__") else list(labels))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise ArgumentError(
            f"labels cannot be converted to an array: {error}",
            found=labels,
            expected="one integer a path",
            cure="Pass a list or an array of integers.",
        ) from error
    if given.shape != (length,):
        raise ArgumentError(
            f"labels must be one a path; got shape {given.shape}",
            found=given.shape,
            expected=f"shape ({length},)",
            cure="Pass one integer for each path.",
        )
    if given.dtype.kind not in "iu" and given.size:
        raise ArgumentError(
            f"labels must be integers; got {given.dtype}, beginning {given[:3].tolist()}",
            found=str(given.dtype),
            expected="integers",
            cure="Give each class a number, or read a list file of class names with ImageList.",
        )
    if given.dtype == np.uint64 and given.size and given.max() > np.iinfo(np.int64).max:
        raise refused("labels", int(given.max()), "integers of 64 bits with a sign", "Number the classes from 0.")
    return given.astype(np.int64)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
