"""Arrays with names in `.npz`, `.safetensors` and `.npy` files, mapped or behind URLs: a sample is a row of each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import shown
from headrace.datasets.arrays import ArrayDataset
from headrace.datasets.combine import ConcatDataset, StackDataset
from headrace.datasets.object_rows import ObjectRows
from headrace.datasets.shards import shard_paths
from headrace.datasets.span_table import at_once
from headrace.errors import ArgumentError, BadFile
from headrace.formats import npy, npz, safetensors
from headrace.formats.reader import ShardReader
from headrace.storage.files import unopened
from headrace.storage.objects import is_url, listing, path_of, place_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from headrace.datasets.base import Dataset
    from headrace.datasets.shards import Shards

    Array = NDArray[Any] | ObjectRows

NPY = b"\x93NUMPY"
SUFFIXES = (".npy", ".npz", ".safetensors")
EXPECTED = "a .npz, .safetensors or .npy file"


class MappedColumns(ConcatDataset[dict[str, Any]]):
    """The rows of arrays in `.npz` or `.safetensors` files, or in a folder of `.npy` files; they stay on disk.

    >>> import tempfile
    >>> from headrace import DataLoader
    >>> from headrace.datasets import MappedColumns
    >>> folder = tempfile.TemporaryDirectory()
    >>> for part in range(2):
    ...     np.savez(f"{folder.name}/{part}.npz", x=np.arange(6.0).reshape(3, 2) + 6 * part, y=np.arange(3) + 3 * part)
    >>> dataset = MappedColumns(folder.name)
    >>> len(dataset), dataset.fields, dataset.shard_lengths, dataset[4]
    (6, ['x', 'y'], [3, 3], {'x': array([8., 9.]), 'y': np.int64(4)})
    >>> x, y = next(iter(DataLoader(dataset.tuple("x", "y"), 6, shuffle=True, seed=0)))
    >>> x.shape, sorted(y.tolist())
    ((6, 2), [0, 1, 2, 3, 4, 5])
    >>> del dataset; folder.cleanup()

    ``paths``: a path, a pattern with braces or stars, a folder, or a list of paths; what a file is, its first bytes
    say. Rows of several files follow each other: all have the same arrays, of the same dtypes and shapes of rows. In a
    folder of `.npy` files each file is an array, named as the file. ``fields``: the arrays to read, which have as many
    rows as each other; all by default.

    Files are memory-mapped and read a whole batch at a time; worker processes map them too. ``paths`` may be URLs, of a
    folder with a slash at the end: then rows are read by ranges. Tensors of bfloat16 and
    float8 need the extra ``bfloat16``. Nothing is unpickled, and checksums of `.npz` files are not compared.

    Raises `BadFile` for files that are damaged, of compressed arrays or Python objects, of different arrays, and for
    files that change while they are read; `MissingFile`; `ArgumentError`.
    """

    def __init__(self, paths: Shards, *, fields: Iterable[str] | None = None) -> None:
        chosen = None if fields is None else [fields] if isinstance(fields, str) else list(fields)
        files = _files(paths)
        self._paths = [path for path, _ in files]
        found = [_chosen(path, arrays, chosen) for path, arrays in files]
        self._agree(found)
        self._parts = [{name: _rows(array) for name, array in arrays.items()} for arrays in found]
        super().__init__([StackDataset(**part) for part in self._parts])

    @property
    def fields(self) -> list[str]:
        """The names of the arrays."""
        return list(self._parts[0])

    @property
    def shards(self) -> list[str]:
        """The paths of the files, in order."""
        return list(self._paths)

    @property
    def labels(self) -> NDArray[Any] | None:
        """The values of the one array that has an integer for each sample; else None."""
        names = [name for name, each in self._parts[0].items() if _is_label(_array(each))]
        return self._values(names[0]) if len(names) == 1 else None

    def tuple(self, *fields: str) -> Dataset[Any]:
        """Return a dataset whose samples are tuples of rows of these arrays: ``dataset.tuple("x", "y")``.

        With images first (uint8, of one size), the native extension reads them. Raises `ArgumentError` for other names.
        """
        _known(fields, self.fields)
        parts = [_tuple([part[name] for name in fields]) for part in self._parts]
        return parts[0] if len(parts) == 1 else ConcatDataset(parts)

    def where(self, index: int) -> str:
        """Return the file of a sample, and the row there, for errors."""
        part, place = self._place(index)
        return f"{self._paths[part]}: row {place}"

    def _values(self, name: str) -> NDArray[Any]:
        return np.concatenate([part[name][:] for part in self._parts])

    def _agree(self, found: Sequence[Mapping[str, Array]]) -> None:
        """Raise `BadFile` unless all files have the same arrays."""
        first = {name: f"{array.dtype} {array.shape[1:]}" for name, array in found[0].items()}
        for path, arrays in zip(self._paths, found, strict=True):
            here = {name: f"{array.dtype} {array.shape[1:]}" for name, array in arrays.items()}
            for name in [*first, *here]:
                if here.get(name) != first.get(name):
                    raise BadFile(
                        f"array {name!r} has rows of {here.get(name, 'nothing')}, and {first.get(name, 'nothing')} in "
                        f"{self._paths[0]}",
                        path=path,
                        expected="the same arrays in all files",
                        cure="Read these files as two datasets, or pass fields= with the arrays that all have.",
                    )


def _rows(array: Array) -> ArrayDataset | ObjectRows:
    return array if isinstance(array, ObjectRows) else ArrayDataset(array)


def _array(rows: ArrayDataset | ObjectRows) -> Array:
    return rows if isinstance(rows, ObjectRows) else rows.arrays[0]


def _tuple(parts: Sequence[ArrayDataset | ObjectRows]) -> Dataset[Any]:
    """Return the rows of arrays of one file as tuples; of one array, its rows."""
    mapped = [each.arrays[0] for each in parts if isinstance(each, ArrayDataset)]
    return ArrayDataset(*mapped) if mapped else parts[0] if len(parts) == 1 else StackDataset(*parts)


def _files(paths: Shards) -> list[tuple[str, dict[str, Array]]]:
    """Return the files and their arrays; a folder of `.npy` files is one of them."""
    folder = path_of("paths", paths) if isinstance(paths, str | os.PathLike) else ""
    names = _inside(folder)
    if names and all(name.endswith(".npy") for name in names):
        place = folder if is_url(folder) else os.path.join(os.path.abspath(folder), "")  # noqa: PTH100, PTH118
        arrays = _each([f"{place}{name}" for name in names])
        return [(place.rstrip("/"), {key: array for each in arrays for key, array in each.items()})]
    given = shard_paths(paths, ".npz", ".safetensors", urls=True)
    return list(zip(given, _each(given), strict=True))


def _each(paths: Sequence[str]) -> list[dict[str, Array]]:
    remote = any(map(is_url, paths))
    return at_once(_arrays, paths, remote=True) if remote else list(map(_arrays, paths))


def _inside(folder: str) -> list[str]:
    """Return the names of the files of arrays in a folder, sorted; nothing for what is no folder."""
    if is_url(folder):
        inside = [name for name, _ in listing(folder) if "/" not in name] if folder.endswith("/") else []
    else:
        inside = os.listdir(folder) if os.path.isdir(folder) else []  # noqa: PTH112, PTH208
    return sorted(name for name in inside if name.endswith(SUFFIXES))


def _arrays(path: str) -> dict[str, Array]:
    """Return the arrays in a file, which is mapped if it is on this machine; a `.npy` file's has its name."""
    with ShardReader(path) as reader:
        head = reader.read(0, min(9, reader.size))
        if head[:2] == npz.MAGIC:
            spans = npz.index(reader)
        elif safetensors.is_one(head):
            spans = safetensors.index(reader)
        elif head[:6] == NPY:
            spans = {Path(place_of(path)).name.removesuffix(".npy"): npy.index(reader)}
        else:
            raise reader.damaged(f"it is no such file: it begins with {head[:8]!r}", EXPECTED)
        if reader.is_remote:
            return {name: ObjectRows(path, reader.facts, name, span) for name, span in spans.items()}
        size = reader.size
    try:
        raw = np.memmap(path, np.uint8, "r", 0, (size,))
    except (OSError, ValueError) as error:  # ValueError: it has become shorter
        failed = error if isinstance(error, OSError) else OSError(0, str(error))
        raise unopened(path, failed, expected=EXPECTED, cure="Write the file again.") from error
    try:
        return {name: span.of(raw) for name, span in spans.items()}
    except (ValueError, TypeError, OverflowError, ZeroDivisionError) as error:  # a dtype or a shape that NumPy refuses
        raise BadFile(
            f"an array cannot be mapped: {str(error)[:200]}", path=path, expected=EXPECTED, cure="Write it again."
        ) from error


def _chosen(path: str, arrays: dict[str, Array], chosen: Sequence[str] | None) -> dict[str, Array]:
    """Return the arrays that are asked for; raise unless they have as many rows as each other."""
    if chosen is not None:
        _known(chosen, list(arrays))
        arrays = {name: arrays[name] for name in chosen}
    lengths = {name: len(array) if array.ndim else None for name, array in arrays.items()}
    if len(set(lengths.values())) == 1 and None not in lengths.values():
        return arrays
    found = ", ".join(f"{name}: {'no axis' if rows is None else rows}" for name, rows in list(lengths.items())[:20])
    raise ArgumentError(
        f"{path}: its arrays have different numbers of rows: {found or 'there are none'}",
        path=path,
        found=found,
        expected="as many rows in each array",
        cure="Pass fields= with the arrays that have a row for each sample.",
    )


def _known(fields: Sequence[str], known: Sequence[str]) -> None:
    for name in fields or [""]:
        if name not in known:
            raise ArgumentError(
                f"no array is named {shown(name)}" if fields else "no array was named",
                found=shown(name),
                expected=f"one of {', '.join(map(repr, known))}",
                cure="Give names of arrays in the file.",
            )


def _is_label(array: Array) -> bool:
    return array.ndim == 1 and array.dtype.kind in "iu"
