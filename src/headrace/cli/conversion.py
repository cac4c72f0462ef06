"""Shards of one format into shards of another: shard by shard, each read back, and begun again where it was left."""

from __future__ import annotations

import json
import os
import re
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from headrace.cli.command_errors import CommandError, Failure
from headrace.datasets.arrow_dataset import ArrowDataset
from headrace.datasets.images import ImageFiles, ImageFolder
from headrace.datasets.mds_dataset import MDSDataset
from headrace.datasets.shards import WebDataset
from headrace.formats.shard_writers import image_kind, mds_columns, members, write_arrow, write_mds, write_tar
from headrace.storage.files import read_file
from headrace.storage.whole_files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from headrace.datasets.field_samples import FieldDataset
    from headrace.storage.shard_folders import ObjectFolder, ShardFolder

    Sample = tuple[str, dict[str, Any]]

MARK = ".headrace-convert.json"
"""Says in a folder what is converted into it, so that only the same conversion continues there."""
CLASSES = "classes.txt"
MDS_LIST = "index.json"
_END = 2 * tarfile.BLOCKSIZE


class Source(Protocol):
    """What is converted: samples of a key and values, images still encoded."""

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes; none where they are not known."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@dataclass(frozen=True)
class FolderSource:
    """The image files of a folder, with the number of their class."""

    dataset: ImageFolder | ImageFiles

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes, in the order of their numbers."""
        return self.dataset.classes if isinstance(self.dataset, ImageFolder) else ()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        path = self.dataset.path(index)
        values: dict[str, Any] = {"image": read_file(path)}
        if self.dataset.labels is not None and isinstance(self.dataset, ImageFolder):
            values["label"] = int(self.dataset.labels[index])
        return os.path.splitext(os.path.relpath(path, self.dataset.root or "/"))[0], values  # noqa: PTH122


@dataclass(frozen=True)
class ShardSource:
    """The samples of a dataset of shards that leaves images encoded."""

    dataset: FieldDataset
    classes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        values = self.dataset[index]
        return values.pop("__key__"), values


class Target(Protocol):
    """A format to convert to."""

    def stored(self, index: int, sample: Sample) -> Any:
        """Return what reading the sample back gives, as far as the format holds it."""
        ...

    def paths(self, number: int, stored: Sequence[Any]) -> list[Path]:
        """Return the files of a shard."""
        ...

    def write(self, number: int, stored: Sequence[Any]) -> None:
        """Write a shard; its name is there only when it is whole."""
        ...

    def read(self, number: int, stored: Sequence[Any]) -> Iterator[Any]:
        """Read the samples of a shard."""
        ...


@dataclass(frozen=True)
class Tar:
    """Tar shards, as WebDataset names their members; ``image`` is the ending of images."""

    folder: Path
    image: str | None = None

    def stored(self, index: int, sample: Sample) -> Any:
        """Return the key and the members."""
        return _key(index, sample[0]), members(sample[1], self.image)

    def paths(self, number: int, stored: Sequence[Any]) -> list[Path]:  # noqa: ARG002
        """Return the path of the shard."""
        return [self.folder / f"shard-{number:05}.tar"]

    def write(self, number: int, stored: Sequence[Any]) -> None:
        """Write the archive."""
        write_whole(self.paths(number, stored)[0], lambda path: write_tar(path, stored))

    def read(self, number: int, stored: Sequence[Any]) -> Iterator[Any]:
        """Read keys and members, as bytes."""
        path = self.paths(number, stored)[0]
        with path.open("rb") as archive:
            archive.seek(-min(_END, path.stat().st_size), os.SEEK_END)
            if archive.read().strip(b"\0") or path.stat().st_size % tarfile.RECORDSIZE:
                return  # its end was cut off, which readers pass over
        dataset = WebDataset(path, index=None)
        for row in range(len(dataset)):
            key, names = dataset._table.key(row), [name for name in dataset.fields if dataset._has(row, name)]
            yield key, {name: dataset.read(row, name) for name in names}


@dataclass(frozen=True)
class MDS:
    """MDS shards, with an `index.json` of those written so far."""

    folder: Path

    def stored(self, index: int, sample: Sample) -> Any:  # noqa: ARG002
        """Return the values."""
        return sample[1]

    def paths(self, number: int, stored: Sequence[Any]) -> list[Path]:  # noqa: ARG002
        """Return the path of the shard."""
        return [self.folder / f"shard.{number:05}.mds"]

    def write(self, number: int, stored: Sequence[Any]) -> None:
        """Write the shard, then the list."""
        path, told = self.paths(number, stored)[0], list[dict[str, Any]]()
        write_whole(path, lambda place: told.append(write_mds(place, mds_columns(stored[0]), stored)))
        told[0]["raw_data"]["basename"] = path.name
        text = json.dumps({"version": 2, "shards": [*self._listed()[:number], told[0]]})
        write_whole(self.folder / MDS_LIST, lambda place: place.write_text(text))

    def read(self, number: int, stored: Sequence[Any]) -> Iterator[Any]:
        """Read the values of the shard alone: by a list of its own, beside a link to it."""
        listed = self._listed()
        if number >= len(listed):
            return
        path = self.paths(number, stored)[0]
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, path.name).symlink_to(path.absolute())
            Path(folder, MDS_LIST).write_text(json.dumps({"version": 2, "shards": [listed[number]]}))
            yield from _values(MDSDataset(folder, decoders=_encoded(stored), index=None))

    def _listed(self) -> list[Any]:
        try:
            return list(json.loads((self.folder / MDS_LIST).read_text())["shards"])
        except (OSError, ValueError, KeyError, TypeError):
            return []


@dataclass(frozen=True)
class Arrow:
    """Arrow files, with the types of Hugging Face's `datasets`."""

    folder: Path
    classes: Sequence[str] = ()

    def stored(self, index: int, sample: Sample) -> Any:  # noqa: ARG002
        """Return the values."""
        return sample[1]

    def paths(self, number: int, stored: Sequence[Any]) -> list[Path]:  # noqa: ARG002
        """Return the path of the file."""
        return [self.folder / f"data-{number:05}.arrow"]

    def write(self, number: int, stored: Sequence[Any]) -> None:
        """Write the file."""
        write_whole(self.paths(number, stored)[0], lambda path: write_arrow(path, stored, self.classes))

    def read(self, number: int, stored: Sequence[Any]) -> Iterator[Any]:
        """Read the values."""
        yield from _values(ArrowDataset(self.paths(number, stored)[0], decoders=_encoded(stored)))


@dataclass(frozen=True)
class Folders:
    """Image files, in a folder of each class where there are labels."""

    folder: Path
    classes: Sequence[str] = ()

    def stored(self, index: int, sample: Sample) -> Any:
        """Return the path below the folder, and the bytes of the image."""
        images = [value for value in sample[1].values() if isinstance(value, bytes) and image_kind(value)]
        labels = [int(value) for value in sample[1].values() if isinstance(value, int | np.integer)]
        others = [name for name, value in sample[1].items() if not isinstance(value, bytes | int | np.integer)]
        unknown = [name for name, value in sample[1].items() if isinstance(value, bytes) and not image_kind(value)]
        if len(images) != 1 or len(labels) > 1 or others or unknown:
            what = f", but the bytes of {unknown[0]} are not an image" if unknown else ""
            raise CommandError(
                f"sample {index} ({sample[0]}) has {' and '.join(sample[1])}{what}",
                expected="an image, and at most one integer, its label",
                cure="fix or remove a damaged image (headrace check SRC), or name the two fields with --fields",
            )
        name = re.sub(r"[^\w-]+", "_", sample[0].rpartition("/")[2])[:80]
        below = Path(*(self._class(label) for label in labels), f"{index:08}-{name}.{image_kind(images[0])}")
        return below, images[0]

    def paths(self, number: int, stored: Sequence[Any]) -> list[Path]:  # noqa: ARG002
        """Return the paths of the files."""
        return [self.folder / below for below, _ in stored]

    def write(self, number: int, stored: Sequence[Any]) -> None:
        """Write each file that is not there as it should be."""
        for path, (_, data) in zip(self.paths(number, stored), stored, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, lambda place, data=data: place.write_bytes(data))  # type: ignore[misc]

    def read(self, number: int, stored: Sequence[Any]) -> Iterator[Any]:
        """Read the files."""
        for path, (below, _) in zip(self.paths(number, stored), stored, strict=True):
            yield below, read_file(str(path))

    def _class(self, label: int) -> str:
        name = self.classes[label] if 0 <= label < len(self.classes) else str(label)
        return re.sub(r"[/\0]", "_", name).lstrip(".") or "_"


TARGETS: dict[str, Callable[[Path, Sequence[str], str | None], Target]] = {
    "tar": lambda folder, _, image: Tar(folder, image),
    "mds": lambda folder, *_: MDS(folder),
    "arrow": lambda folder, classes, _: Arrow(folder, classes),
    "folder": lambda folder, classes, _: Folders(folder, classes),
}
"""What makes a target of its folder, the names of the classes, and the ending of images where all have one."""


def begin(folder: ShardFolder, about: dict[str, Any], classes: Sequence[str]) -> None:
    """Make the folder of a conversion; raise `CommandError` where something else is in it."""
    try:
        told = json.loads(folder.read(MARK) or b"null")
    except ValueError:
        told = None
    if told != about and folder.names():
        raise CommandError(
            "the folder is not empty, and not of this conversion",
            path=folder.place(""),
            found="another conversion" if told else "other files",
            expected="an empty folder, or what this conversion has begun there",
            cure="choose another folder, or empty this one",
        )
    folder.write(MARK, lambda path: path.write_text(json.dumps(about)))
    if classes:
        folder.write(CLASSES, lambda path: path.write_text("".join(f"{name}\n" for name in classes), encoding="utf-8"))


def upload_shard(source: Source, target: Target, folder: ObjectFolder, number: int, rows: range) -> bool:
    """Write a shard as `convert_shard` does, then move it to its place behind a URL.

    Return False where the same bytes were there already.
    """
    convert_shard(source, target, number, rows)
    (path,) = target.paths(number, ())
    try:
        return folder.put(path.name, path)
    finally:
        path.unlink()


def convert_shard(source: Source, target: Target, number: int, rows: range) -> bool:
    """Write a shard and read it back; return False for one that was there already, and is what it should be.

    Raises `Failure` if what was written reads differently.
    """
    stored = list[Any]()
    for row in rows:
        sample = target.stored(row, source[row])
        if stored and isinstance(target, Tar) and stored[-1][0] == sample[0]:
            sample = f"{sample[0]}-{row}", sample[1]
        stored.append(sample)
    paths = target.paths(number, stored)
    if all(path.exists() for path in paths) and _is_there(target, number, stored):
        return False
    target.write(number, stored)
    if not _is_there(target, number, stored):
        raise Failure(
            "what was written reads back differently",
            path=str(paths[0]),
            expected="the samples of the source",
            cure="look at the disk, and at whether something else writes there; then run the command again",
        )
    return True


def _is_there(target: Target, number: int, stored: Sequence[Any]) -> bool:
    try:
        found = list(target.read(number, stored))
    except Exception:  # noqa: BLE001  whatever a damaged shard gives: it is written again
        return False
    return len(found) == len(stored) and all(map(_same, found, stored))


def _same(found: Any, expected: Any) -> bool:
    if isinstance(found, dict) and isinstance(expected, dict):
        return found.keys() == expected.keys() and all(_same(found[name], expected[name]) for name in expected)
    if isinstance(found, list | tuple) and isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(_same, found, expected))
    if isinstance(found, np.ndarray | np.generic) or isinstance(expected, np.ndarray | np.generic):
        one, other = np.asarray(found), np.asarray(expected)
        same_kind = one.dtype.kind == other.dtype.kind or {one.dtype.kind, other.dtype.kind} <= set("iu")
        return (
            one.shape == other.shape
            and same_kind
            and bool(np.array_equal(one, other, equal_nan=one.dtype.kind in "fc"))
        )
    return bool(found == expected) or (found != found and expected != expected)


def _values(dataset: FieldDataset) -> Iterator[dict[str, Any]]:
    for row in range(len(dataset)):
        values = dataset[row]
        del values["__key__"]
        yield values


def _encoded(stored: Sequence[dict[str, Any]]) -> dict[str, None]:
    """Return decoders that leave images encoded."""
    return {name: None for name, value in stored[0].items() if isinstance(value, bytes)}


def _key(index: int, key: str) -> str:
    """Return a key that WebDataset reads as it is: without a dot in its last part, and not of its own kind."""
    folder, slash, base = key.rpartition("/")
    base = base.replace(".", "_")
    named = folder + slash + base
    return f"{index:09}" if not base or named.startswith(("__", "./", "/")) else named
