"""Arrays in memory (or memory-mapped) as a dataset of their rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.datasets.base import Dataset
from headrace.datasets.columns import Columns
from headrace.datasets.image_sources import Arrays
from headrace.datasets.memory_maps import MappedRows, Sent, mapped_rows
from headrace.datasets.unchanged import is_worker_of
from headrace.errors import ArgumentError, BadFile, UnreadableFile
from headrace.interop.keys import places, whole
from headrace.storage.files import unopened
from headrace.storage.objects import local

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from headrace.context.memory import Empty

NPY, FIX = "a .npy file", "Fix the path."
BY_URL = "Copy the file here, or read its rows by URL with MappedColumns (.npy, .npz and safetensors files)."


class ArrayDataset(Dataset[Any]):
    """The rows of one or more arrays of equal length, as samples.

    >>> from headrace import ArrayDataset, DataLoader
    >>> features, labels = np.arange(12.0).reshape(6, 2), np.arange(6)
    >>> dataset = ArrayDataset(features, labels)
    >>> dataset[4]
    (array([8., 9.]), np.int64(4))
    >>> x, y = next(iter(DataLoader(dataset, batch_size=3)))
    >>> x.shape, y
    ((3, 2), array([0, 1, 2]))

    >>> x, y = dataset[[5, 0]]
    >>> x.tolist(), y.tolist()
    ([[10.0, 11.0], [0.0, 1.0]], [5, 0])

    One array gives bare rows, several give tuples of rows; an index may be whatever indexes an array: a slice, a list.
    Rows are views, or copies where an array is memory-mapped; a loader gathers whole batches at a time, without
    touching single rows.

    An array may come from NumPy, torch or JAX (on the CPU, without a copy), or be anything that NumPy converts. The
    path of a ``.npy`` file is memory-mapped: its rows stay on disk, and each worker process opens the file itself. Do
    not change a mapped file (`numpy.memmap` too) while it is read: if it is cut short, replaced, written to or removed,
    the next batch raises `BadFile` with its name and the row.

    Raises `ArgumentError` for arrays of different lengths, without an axis of rows, or of Python objects;
    `MissingFile`, `UnreadableFile` and `BadFile` for a file.
    """

    suits_threads = True
    checks_maps = True
    """Whether it checks its own memory-mapped files, so that a loader need not."""
    _bare = True
    """Whether the sample of a single array is the row itself, and no tuple of it."""

    def __init__(self, *arrays: ArrayLike | str | os.PathLike[str]) -> None:
        if not arrays:
            raise ArgumentError(
                "ArrayDataset got no arrays",
                found=0,
                expected="at least one array",
                cure="Pass an array, or the path of a .npy file.",
            )
        self._files = {
            number: os.path.abspath(local("array", array, BY_URL))  # noqa: PTH100  a folder that changes its place would be another file
            for number, array in enumerate(arrays)
            if isinstance(array, (str, os.PathLike))
        }
        self._hold([
            _mapped(self._files[number]) if number in self._files else _array(array, number)
            for number, array in enumerate(arrays)
        ])  # fmt: skip

    def _hold(self, arrays: list[NDArray[Any]]) -> None:
        self.arrays = tuple(arrays)
        for number, array in enumerate(self.arrays):
            _check(array, number, len(self.arrays[0]) if self.arrays[0].ndim else 0)
        maps = [mapped_rows(array, self._files.get(number)) for number, array in enumerate(self.arrays)]
        self._maps: list[MappedRows | None] | None = maps if any(maps) else None
        bare = self._bare and len(self.arrays) == 1
        self._images_source = Arrays(self.arrays[0], tuple(self._maps or ()), beside=self.arrays[1:], bare=bare)

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would be pickled as all that is in the file.
        maps = self._maps or [None] * len(self.arrays)
        arrays = [
            None if number in self._files else array if rows is None else Sent(array, rows)
            for number, (array, rows) in enumerate(zip(self.arrays, maps, strict=True))
        ]
        facts = {number: rows.facts for number in self._files if (rows := maps[number]) is not None}
        return {**vars(self), "arrays": arrays, "_maps": None, "_images_source": None, "_sent": (os.getpid(), facts)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        pid, facts = state.pop("_sent", (0, {}))
        vars(self).update(state)
        self._hold([
            _mapped(self._files[number]) if array is None else array.array if isinstance(array, Sent) else array
            for number, array in enumerate(state["arrays"])
        ])  # fmt: skip
        if self._maps is not None and is_worker_of(pid):
            for number, rows in enumerate(self._maps):
                if rows is not None and number in facts:
                    rows.facts = facts[number]  # a worker reads the file that its loader began with, or none

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: Any) -> Any:
        """Return the row, or the tuple of rows, at an index; of a slice or a list of indices, the arrays of rows."""
        if len(self.arrays) == 1:
            return self._row(0, index)
        return tuple(self._row(number, index) for number in range(len(self.arrays)))

    def read_batch(self, keys: Sequence[int], *, empty: Empty = np.empty) -> Any:
        """Gather the rows of these keys into lent memory: one array, or a list of arrays."""
        rows = places(keys, len(self), "an ArrayDataset of {} rows")
        batch = []
        for number, array in enumerate(self.arrays):
            out = empty((len(rows), *array.shape[1:]), array.dtype)
            if self._maps is not None and (mapped := self._maps[number]) is not None:
                mapped.take(rows, out)
                batch.append(out)
                continue
            # mode="wrap" writes straight into out (the default mode makes a copy first) and, the keys being
            # in range, means what indexing means for negative ones.
            np.take(array, rows, axis=0, out=out, mode="wrap")
            batch.append(out)
        return batch[0] if len(batch) == 1 else batch

    @property
    def columns(self) -> Columns:
        """The arrays of a whole batch."""
        return Columns.beside(self.arrays, bare=self._images_source.bare)

    @property
    def labels(self) -> NDArray[Any] | None:
        """The last of several arrays, where it holds a number a sample; else None."""
        last = len(self.arrays) - 1
        return self._row(last, slice(None)) if last and self.arrays[last].ndim == 1 else None

    def native_source(self) -> Arrays:
        """Return the arrays: the first as the images, the others beside it."""
        return self._images_source

    def _row(self, number: int, index: Any) -> Any:
        if type(index) is not int and not isinstance(index, (slice, list, tuple, np.ndarray)) and index is not ...:
            index = whole(index)  # NumPy takes None for a new axis, and a bool for one of rows
        mapped = None if self._maps is None else self._maps[number]
        return self.arrays[number][index] if mapped is None else mapped.row(index)


def _array(array: Any, number: int) -> NDArray[Any]:
    try:
        return np.asanyarray(array)  # any: a memory-mapped array must stay one
    except Exception as error:  # what a framework raises for arrays on a device or in a graph
        raise ArgumentError(
            f"array {number} of ArrayDataset cannot be converted to NumPy: {error}",
            found=array,
            expected="an array on the CPU, or nested sequences of one shape",
            cure="Convert it to a NumPy array first.",
        ) from error


def _check(array: NDArray[Any], number: int, length: int) -> None:
    name = f"array {number} of ArrayDataset"
    if isinstance(array, np.ma.MaskedArray):
        raise ArgumentError(
            f"{name} is masked",
            found="numpy.ma.MaskedArray",
            expected="an array without a mask, since a batch has none",
            cure="Fill it first: array.filled(0).",
        )
    if array.ndim == 0:
        raise ArgumentError(
            f"{name} has no rows: its shape is ()",
            found=(),
            expected="an array of at least one axis",
            cure="Give it an axis of rows: array[None].",
        )
    if array.dtype.hasobject:
        raise ArgumentError(
            f"{name} holds Python objects: its dtype is {array.dtype}",
            found=str(array.dtype),
            expected="a dtype of numbers, times or fixed-length strings",
            cure="Convert it with array.astype(dtype).",
        )
    if len(array) != length:
        raise ArgumentError(
            f"{name} has {len(array)} rows, and array 0 has {length}",
            found=len(array),
            expected="arrays of equal lengths",
            cure="Give each array one row a sample.",
        )


def _mapped(path: str) -> NDArray[Any]:
    """Open a ``.npy`` file; what is in it is read when its rows are."""
    if Path(path).is_fifo():  # whose other end would be waited for
        raise UnreadableFile("it is a pipe", path=path, expected=NPY, cure=FIX)
    try:
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise unopened(path, error, expected=NPY, cure=FIX) from error
    except Exception as error:  # NumPy raises anything on strangers' bytes
        what = f"cannot be memory-mapped: {str(error).rstrip('.')}"
        raise BadFile(what, path=path, expected=f"{NPY} of numbers", cure="Write it with numpy.save.") from error
    return array
