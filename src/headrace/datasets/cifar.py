"""CIFAR-10 and CIFAR-100 from local files, in each layout that they are published in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import flag, kind_of, shown
from headrace.datasets.arrays import ArrayDataset
from headrace.datasets.images import as_folder
from headrace.datasets.pickled_data import read_pickle
from headrace.errors import BadFile, HeadraceError, MissingFile, SampleError
from headrace.storage.files import read_file, unopened
from headrace.storage.objects import local

if TYPE_CHECKING:
    from collections.abc import Iterator
    from gzip import GzipFile

    from numpy.typing import NDArray

HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"

PIXELS = 3 * 32 * 32

MOST_OF_A_FILE = 256 << 20
MOST_OF_AN_ARCHIVE = 512 << 20
"""Above these sizes, in bytes, a file, or all that is in an archive, is no CIFAR: the largest are 148 and 178 MiB."""

MOST_MEMBERS = 1000
"""Nor is an archive of more files and folders: the published ones have ten or fewer."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One of the forms that a dataset is published in."""

    folder: str
    archive: str
    md5: str
    train: tuple[str, ...]
    test: str
    names: dict[str, tuple[str, str]]
    """By kind of label: the file with the names of the classes, and its key where that is a pickle."""
    labels: dict[str, str | int]
    """By kind of label: the key of the pickles where they are, or the byte of each record."""

    @property
    def binary(self) -> bool:
        """Whether the files are records of bytes, and not pickles."""
        return all(isinstance(place, int) for place in self.labels.values())

    def files(self, *, train: bool) -> tuple[str, ...]:
        """Return the names of the files with the images of a split."""
        return self.train if train else (self.test,)


CIFAR10_LAYOUTS = (
    Layout(
        "cifar-10-batches-py", "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a",
        tuple(f"data_batch_{number}" for number in range(1, 6)), "test_batch",
        {"fine": ("batches.meta", "label_names")}, {"fine": "labels"},
    ),
    Layout(
        "cifar-10-batches-bin", "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530",
        tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin",
        {"fine": ("batches.meta.txt", "")}, {"fine": 0},
    ),
)  # fmt: skip
CIFAR100_LAYOUTS = (
    Layout(
        "cifar-100-python", "cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", ("train",), "test",
        {"fine": ("meta", "fine_label_names"), "coarse": ("meta", "coarse_label_names")},
        {"fine": "fine_labels", "coarse": "coarse_labels"},
    ),
    Layout(
        "cifar-100-binary", "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", ("train.bin",), "test.bin",
        {"fine": ("fine_label_names.txt", ""), "coarse": ("coarse_label_names.txt", "")}, {"fine": 1, "coarse": 0},
    ),
)  # fmt: skip


class CifarDataset(ArrayDataset):
    """The base of `CIFAR10` and `CIFAR100`: finds the files, and holds all images in one array.

    ``dataset[i]`` is ``(image, label)``: a ``(32, 32, 3)`` uint8 view of `images`, and an ``np.int64``.
    """

    _layouts: tuple[Layout, ...] = ()
    _maps_transform = True

    def __init__(self, root: str | os.PathLike[str], kind: str, *, train: bool, verify: bool) -> None:
        train, verify = flag("train", train), flag("verify", verify)
        source = self._find(Path(local("root", as_folder(root))), train=train)
        self.split = "train" if train else "test"
        """Which of the two it is."""
        self._source = str(source.place)
        self._verified = isinstance(source, _Archive) and bool(verify)
        if isinstance(source, _Archive) and verify:
            source.verify()
        images, labels, classes = _read(source, kind, train=train)
        self._classes = tuple(classes)
        super().__init__(images, labels)

    @property
    def images(self) -> NDArray[np.uint8]:
        """All images: ``(N, 32, 32, 3)`` uint8, RGB."""
        return self.arrays[0]

    @property
    def labels(self) -> NDArray[np.int64]:
        """All labels: ``(N,)`` int64."""
        return self.arrays[1]

    @property
    def classes(self) -> list[str]:
        """The names of the classes, by label."""
        return list(self._classes)

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The label of each class."""
        return {name: label for label, name in enumerate(self._classes)}

    @property
    def source(self) -> str:
        """The folder or the archive that was read."""
        return self._source

    @property
    def verified(self) -> bool:
        """Whether an archive was read whose MD5 is as published; extracted files have none to compare."""
        return self._verified

    def where(self, index: int) -> str:
        """Name the file, the split and the row of a sample, for errors."""
        return f"{self._source}, {self.split} row {index}"

    def __repr__(self) -> str:
        checked = "MD5 as published" if self._verified else "not verified"
        return f"<{type(self).__name__} {self.split}: {len(self)} images, {self._source} ({checked})>"

    @classmethod
    def is_at(cls, root: str | os.PathLike[str]) -> bool:
        """Say whether a folder, or an archive by its name, looks like this dataset; nothing is read.

        >>> from headrace.datasets import CIFAR10
        >>> CIFAR10.is_at("photos")
        False
        """
        place = Path(root)
        if _is_file(place):
            return place.name in {layout.archive for layout in cls._layouts}
        return any(
            _is_file(file) and all(_is_file(file.parent / name) for name in beside)
            for train in (True, False)
            for file, beside, _ in cls._candidates(place, train=train)
        )

    @classmethod
    def _candidates(cls, root: Path, *, train: bool) -> Iterator[tuple[Path, set[str], _Folder | _Archive]]:
        """Yield the files to look for, those that must be beside them, and what to read if they exist."""
        for layout in cls._layouts:
            for folder in (root / layout.folder, root):
                names = {name for name, _ in layout.names.values()}
                yield folder / layout.files(train=train)[0], names, _Folder(folder, layout)
        for layout in cls._layouts:
            yield root / layout.archive, set(), _Archive(root / layout.archive, cls._layouts)

    @classmethod
    def _find(cls, root: Path, *, train: bool) -> _Folder | _Archive:
        if _is_file(root):
            return _Archive(root, cls._layouts)
        candidates = list(cls._candidates(root, train=train))
        for file, _, source in candidates:
            if _is_file(file):
                return source
        looked = ", ".join(str(file.relative_to(root)) for file, _, _ in candidates)
        other = any(_is_file(file) for file, _, _ in cls._candidates(root, train=not train))
        cure = f"Pass train={not train}, whose files are there." if other else f"Download it from {HOME}."
        raise MissingFile(f"no {cls.__name__} here", path=str(root), expected=f"one of {looked}", cure=cure)


class CIFAR10(CifarDataset):
    r"""CIFAR-10: 60,000 images of 32x32 in 10 classes, from local files, in memory as one array.

    >>> import pathlib, tempfile
    >>> from headrace import DataLoader
    >>> from headrace.datasets import CIFAR10
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "batches.meta.txt").write_text("airplane\nautomobile\n")
    ...     _ = pathlib.Path(folder, "test_batch.bin").write_bytes(bytes(3073) + bytes([1]) + bytes(3072))
    ...     dataset = CIFAR10(folder, train=False)
    >>> images, labels = next(iter(DataLoader(dataset, batch_size=2)))
    >>> images.shape, images.dtype, labels, dataset.classes
    ((2, 32, 32, 3), dtype('uint8'), array([0, 1]), ['airplane', 'automobile'])

    ``root``: the folder with the files as downloaded (Python or binary version, ``.tar.gz`` or extracted, extracted
    ones first), or the archive itself. ``train``: the training images, or the test images. A sample is
    ``(image, label)``, a ``(32, 32, 3)`` uint8 RGB array and an integer; a loader gathers whole batches at a time.

    Of an archive the MD5 is compared with the published ones before anything else is read of it; ``verify=False``
    accepts any other. Nothing is downloaded, nothing is extracted to the disk, and nothing in the pickles is run.

    Raises `MissingFile` where the files are not there, `BadFile` for those that are not what they should be,
    `UnreadableFile` and `ArgumentError`.
    """

    _layouts = CIFAR10_LAYOUTS

    def __init__(self, root: str | os.PathLike[str], train: bool = True, *, verify: bool = True) -> None:
        super().__init__(root, "fine", train=train, verify=verify)


class CIFAR100(CifarDataset):
    r"""CIFAR-100: 60,000 images of 32x32 in 100 classes, or in 20 coarse ones, from local files, as one array.

    >>> import pathlib, tempfile
    >>> from headrace.datasets import CIFAR100
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "fine_label_names.txt").write_text("apple\nbear\n")
    ...     _ = pathlib.Path(folder, "coarse_label_names.txt").write_text("fruit\nmammal\n")
    ...     _ = pathlib.Path(folder, "train.bin").write_bytes(bytes([1, 1]) + bytes(3072))
    ...     fine, coarse = CIFAR100(folder), CIFAR100(folder, coarse=True)
    >>> fine.classes[fine[0][1]], coarse.classes[coarse[0][1]], fine.images.shape
    ('bear', 'mammal', (1, 32, 32, 3))

    ``coarse``: labels and classes are the 20 coarse ones. All else is as in `CIFAR10`.
    """

    _layouts = CIFAR100_LAYOUTS

    def __init__(
        self, root: str | os.PathLike[str], train: bool = True, *, coarse: bool = False, verify: bool = True
    ) -> None:
        super().__init__(root, "coarse" if coarse else "fine", train=train, verify=verify)


@dataclass(frozen=True, slots=True)
class _Folder:
    """Extracted files."""

    place: Path
    layout: Layout

    def files(self, kind: str, *, train: bool) -> Iterator[tuple[Layout, str, bytes]]:
        """Yield the files that hold a split and the names of its classes."""
        for name in (self.layout.names[kind][0], *self.layout.files(train=train)):
            file = self.place / name
            if _is_file(file):
                _check_size(file, file.stat().st_size)
                yield self.layout, name, read_file(str(file))


@dataclass(frozen=True, slots=True)
class _Archive:
    """A ``.tar.gz`` with the files, read from one end to the other; nothing of it is ever written to the disk."""

    place: Path
    layouts: tuple[Layout, ...]

    def verify(self) -> None:
        """Compare the MD5 with those of the published archives."""
        import hashlib

        try:
            with self.place.open("rb") as file:
                found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        except OSError as error:
            raise self._unread(error) from error
        known = {layout.md5: layout.archive for layout in (*CIFAR10_LAYOUTS, *CIFAR100_LAYOUTS)}
        expected = {layout.md5: f"{layout.md5} ({layout.archive})" for layout in self.layouts}
        if found not in expected:
            called = f" ({known[found]})" if found in known else ""
            raise BadFile(
                f"its MD5 is {found}{called}: it is cut short, changed, or another archive",
                path=str(self.place),
                found=found,
                expected=" or ".join(expected.values()),
                cure=f"Download it again from {HOME}, or pass verify=False to accept it as it is.",
            )

    def _unread(self, error: OSError) -> SampleError:
        return unopened(str(self.place), error, expected="a .tar.gz", cure="Fix the path or its permissions.")

    def files(self, kind: str, *, train: bool) -> Iterator[tuple[Layout, str, bytes]]:
        """Yield the files that hold a split and the names of its classes, in each layout, in the archive's order."""
        import gzip
        import tarfile

        wanted: dict[tuple[tuple[str, ...], str], Layout] = {
            (folder, name): layout
            for layout in self.layouts
            for name in (layout.names[kind][0], *layout.files(train=train))
            for folder in ((layout.folder,), ())
        }
        try:
            with gzip.open(self.place) as file:
                unpacked: Any = _Bounded(file, self.place)
                with tarfile.open(fileobj=unpacked, mode="r|") as members:
                    for count, member in enumerate(members):
                        _check_count(self.place, count)
                        *folders, name = PurePosixPath(member.name).parts or ("",)
                        layout = wanted.get((tuple(folders), name))
                        content = members.extractfile(member) if member.isreg() and not member.issparse() else None
                        if layout is not None and content is not None:
                            _check_size(self.place / name, member.size)
                            yield layout, name, content.read()
                while unpacked.read(1 << 16):  # to the checksum at the end, which nothing else asks for
                    pass
        except HeadraceError:
            raise
        except Exception as error:  # gzip and tarfile raise anything on strangers' bytes
            if isinstance(error, OSError) and error.errno is not None:
                raise self._unread(error) from error
            raise BadFile(
                f"cannot be unpacked: {str(error) or type(error).__name__}",
                path=str(self.place),
                expected="a whole .tar.gz",
                cure=f"Download it again from {HOME}.",
            ) from error


class _Bounded:
    """A file that may be read up to a size: an archive of a few bytes can hold any number of zeros."""

    def __init__(self, file: GzipFile, place: Path) -> None:
        self._file, self._place, self._left = file, place, MOST_OF_AN_ARCHIVE

    def read(self, size: int) -> bytes:
        """Read up to so many bytes."""
        data = self._file.read(min(size, self._left + 1))
        self._left -= len(data)
        _check_size(self._place, MOST_OF_AN_ARCHIVE - self._left, MOST_OF_AN_ARCHIVE)
        return data


def _read(
    source: _Folder | _Archive, kind: str, *, train: bool
) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]:
    """Read a split: its images as one array, its labels, and the names of the classes."""
    found: dict[str, tuple[Layout, dict[str, Any]]] = {}
    for layout, name, data in source.files(kind, train=train):
        _, parts = found.setdefault(layout.folder, (layout, {}))
        place = str(source.place / name)
        if name in parts:
            raise _damaged(place, "it is in the archive twice", "each file once")
        parse = _classes if name == layout.names[kind][0] else _rows
        parts[name] = parse(data, layout, kind, place)
    layouts = source.layouts if isinstance(source, _Archive) else (source.layout,)
    lacking: list[list[str]] = []
    for layout in layouts:
        needed = (layout.names[kind][0], *layout.files(train=train))
        _, parts = found.get(layout.folder, (layout, {}))
        lacking.append([name for name in needed if name not in parts])
        if not lacking[-1]:
            classes = parts.pop(needed[0])
            return *_joined([parts.pop(name) for name in needed[1:]], classes, source.place), classes
    closest: list[str] = min(lacking, key=len)
    raise MissingFile(
        f"of the {'train' if train else 'test'} split, {', '.join(closest)} not found",
        path=str(source.place),
        expected="all files of the split",
        cure="Download or extract it again, or choose the other split.",
    )


def _rows(data: bytes, layout: Layout, kind: str, place: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the (n, 3072) pixels, channel by channel, and the labels of a file of images."""
    where = layout.labels[kind]
    if isinstance(where, int):
        size = len(layout.labels) + PIXELS
        if len(data) % size:
            raise _damaged(place, f"{len(data)} bytes", f"a whole number of records of {size} bytes")
        records = np.frombuffer(data, np.uint8).reshape(-1, size)
        return records[:, -PIXELS:], records[:, where].astype(np.int64)
    content = _content(data, place)
    pixels, labels = content.get("data"), content.get(where)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (PIXELS,):
        raise _damaged(place, f"'data' is {_described(pixels)}", f"a uint8 array of shape (n, {PIXELS})")
    if not isinstance(labels, list):
        raise _damaged(place, f"{where!r} is {_described(labels)}", "a list of labels")
    odd = [label for label in labels if type(label) is not int or not 0 <= label < 256]
    if odd:
        raise _damaged(place, f"{where!r} has the label {shown(odd[0])}", "labels from 0 to 255")
    if len(labels) != len(pixels):
        raise _damaged(place, f"{len(pixels)} images and {len(labels)} labels", "one label an image")
    return pixels, np.array(labels, np.int64)


def _classes(data: bytes, layout: Layout, kind: str, place: str) -> list[str]:
    """Return the names of the classes."""
    if layout.binary:
        return data.decode("utf-8", "replace").split()
    names = _content(data, place).get(layout.names[kind][1])
    if not isinstance(names, list) or not all(isinstance(name, (str, bytes)) for name in names):
        raise _damaged(place, f"{layout.names[kind][1]!r} is {_described(names)}", "a list of class names")
    return [_text(name) for name in names]


def _content(data: bytes, place: str) -> dict[str, Any]:
    content = read_pickle(data, place)
    if not isinstance(content, dict):
        raise _damaged(place, f"a pickle of {kind_of(content)}", "a dict")
    return {_text(key): value for key, value in content.items()}


def _text(name: object) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else str(name)


def _joined(
    parts: list[tuple[NDArray[np.uint8], NDArray[np.int64]]], classes: list[str], place: Path
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    labels = np.concatenate([part for _, part in parts])
    if labels.size and labels.max() >= len(classes):
        raise _damaged(
            place,
            f"a label is {labels.max()}",
            f"labels from 0 to {len(classes) - 1}, as there are {len(classes)} classes",
        )
    images = np.empty((len(labels), 32, 32, 3), np.uint8)
    begin = 0
    while parts:
        pixels, _ = parts.pop(0)  # each is let go of once it is copied
        images[begin : begin + len(pixels)] = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        begin += len(pixels)
    return images, labels


def _check_count(place: Path, count: int) -> None:
    if count > MOST_MEMBERS:
        raise _damaged(place, f"more than {MOST_MEMBERS} files", "ten or fewer")


def _is_file(path: Path) -> bool:
    """Say whether a file is there, and False where that may not even be asked."""
    return os.path.isfile(path)  # noqa: PTH113  Path.is_file raises for a folder that is closed to us


def _check_size(place: Path, size: int, limit: int = MOST_OF_A_FILE) -> None:
    if size > limit:
        raise _damaged(place, f"more than {limit >> 20} MiB", "a file of CIFAR, which is smaller")


def _damaged(place: Path | str, what: str, expected: str) -> BadFile:
    return BadFile(what, path=str(place), expected=expected, cure=f"Download it again from {HOME}.")


def _described(value: object) -> str:
    return f"an array of {value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else kind_of(value)
