"""Arrays in an HDF5 file, or a MATLAB v7.3 file, which is one: rows read chunk by chunk, whatever their order.

A compressed chunk must be read whole for any row in it, so rows are never read one by one: the rows of a call are
grouped by chunk, and the chunks read last are kept, up to a bound. Nothing in a file is trusted: it may neither lead to
other files nor load filters, and what would take more memory than a bound is refused.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import flag, integer, refused, shown
from headrace.context.dropped import WeakRefs
from headrace.context.timing import timed
from headrace.datasets.base import Dataset
from headrace.datasets.hdf5_file import h5py_file, located, opened
from headrace.datasets.hdf5_places import Places
from headrace.datasets.label_rows import one_hot, whole_numbers
from headrace.datasets.unchanged import Unchanged, is_worker_of
from headrace.errors import ArgumentError, ArgumentTypeError, UnreadableFile
from headrace.interop.keys import places as places_of
from headrace.storage.object_spans import fetch
from headrace.storage.objects import absolute, is_url, path_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headrace.context.memory import Empty
    from headrace.storage.object_spans import ObjectSpans

BUILT_IN = {1: "deflate", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
"""The filters that HDF5 and h5py have in them; for any other, HDF5 looks for a library to load."""

PLAIN = 1 << 14
"""Bytes that are read at a time where nothing has to be decompressed: as quickly read as the call for them is made."""

LABELS = 1 << 22
"""Bytes of labels that are read at a time, in whole chunks."""

LINKS = 16
"""Links within a file that are followed, one to the next, before they are taken for a circle."""

HEAD = 1024
"""Rows that are looked at to tell labels from data."""


class HDF5Dataset(Dataset[Any]):
    """The rows of an array in an HDF5 or MATLAB v7.3 file, with a label each or none.

    >>> import h5py, tempfile
    >>> from headrace import DataLoader
    >>> from headrace.datasets import HDF5Dataset
    >>> folder = tempfile.TemporaryDirectory()
    >>> with h5py.File(f"{folder.name}/sounds.h5", "w") as file:
    ...     file["audio"] = np.arange(12.0).reshape(6, 2)
    ...     file["tags"] = np.eye(3)[[0, 0, 1, 1, 2, 2]]
    >>> sounds = HDF5Dataset(f"{folder.name}/sounds.h5")
    >>> sounds[4], sounds.labels
    ((array([8., 9.]), 2), array([0, 0, 1, 1, 2, 2]))
    >>> audio, labels = next(iter(DataLoader(sounds, 4, shuffle=True, seed=0)))
    >>> audio.shape, len(labels)
    ((4, 2), 4)
    >>> sounds.close(); folder.cleanup()

    A sample is a row, or ``(row, label)`` where there are ``labels``. Rows keep the file's dtype, in this machine's
    byte order. ``data`` and ``labels`` are names of arrays in the file (``"group/array"``); without names the file must
    have one array of numbers, or two of one length, of which one must be labels. Labels are whole numbers, one a row,
    or one-hot rows, of which the place of the one is the label, from 0; they are read at once and held.

    MATLAB writes its arrays transposed, which is undone where the file says that MATLAB wrote it, or as ``transposed``
    says: row ``i`` is MATLAB's ``A(i+1, :, …)``. Its strings, cells and structs are no arrays of numbers.

    The file is opened once a process, when the first row is read, and never pickled; threads may share the dataset
    (HDF5 lets in one at a time). Rows of a batch are read chunk by chunk, and up to ``cache_bytes`` of the chunks read
    last are kept, in each process. ``close()`` closes the file until the next read.

    ``path`` may be a URL. HDF5 then reads what describes the file piece by piece, each after a request, where it is not
    in the first mebibyte; a loader fetches the rows ahead.

    A file may be of anyone: what leads out of it (external links, external storage, virtual arrays), a filter that
    would have to be loaded, and anything that needs more than ``max_bytes`` at once (a chunk, a row, all labels) is
    refused. Raises `MissingFile`, `UnreadableFile` (also for a row that cannot be read), `ArgumentError` for names and
    arrays that cannot be used, and `MissingDependency` without h5py. A file that is cut short, written over or
    replaced, or removed, while it is read raises `BadFile` or `MissingFile` at the next read; it may grow.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        data: str | None = None,
        labels: str | None = None,
        *,
        transposed: bool | None = None,
        cache_bytes: int = 64 << 20,
        max_bytes: int = 1 << 30,
    ) -> None:
        if labels is not None and data is None:
            raise ArgumentError(
                f"HDF5Dataset got labels={shown(labels)} without data",
                found=labels,
                expected="names of both arrays, or of neither",
                cure="Pass data= too.",
            )
        self._path = absolute(path_of("path", path))  # workers may start in another folder
        self._cache_bytes = integer("cache_bytes", cache_bytes, least=0)
        self._max_bytes = integer("max_bytes", max_bytes, least=1)
        self._readers: dict[int, _Reader] = {}
        self._labels: NDArray[np.int64] | None = None
        self._places: Places | None = None
        facts = Unchanged.of(self._path) if is_url(self._path) else None
        with opened(self._path, facts) as file, located(self._path):
            self._facts: Unchanged | None = facts or Unchanged.of(self._path)
            names = _found(self._path, file) if data is None else [data] if labels is None else [data, labels]
            arrays = [_array(self._path, file, name, transposed, self._max_bytes) for name in names]
            if len(arrays) == 2 and data is None:
                arrays = _sorted(self._path, file, arrays)
            self._array = arrays[0]
            if len(arrays) == 2:
                self._labels = _labels(self._path, file, arrays[1], self._array.rows, self._max_bytes)
                self._labels.flags.writeable = False
            self._facts.check(self._path)
            stored = _resolved(self._path, file, self._array.name)
            if facts is not None:
                self._places = self._array.places(facts, file, stored)

    @property
    def path(self) -> str:
        """The file, as an absolute path."""
        return self._path

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """The labels, one a row: ``(N,)`` int64, read-only; None where there are none."""
        return self._labels

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole array, rows first."""
        return self._array.rows, *self._array.row_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of a row."""
        return self._array.dtype

    def __len__(self) -> int:
        return self._array.rows

    def __getitem__(self, index: int) -> Any:
        """Read the chunk that a row is in, if it is not one of those kept, and return the row."""
        return self._samples([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """Read these rows, each chunk that they are in once."""
        return self._samples(indices)

    def object_spans(self, keys: Sequence[Any]) -> list[ObjectSpans]:
        """Return which ranges of the object behind a URL the rows of these keys are in."""
        return [] if self._places is None else [self._places.of(self._rows(keys))]

    def read_batch(self, keys: Sequence[int], *, empty: Empty = np.empty) -> Any:
        """Read the rows of these keys into lent memory: one array, or a list of the rows and the labels."""
        places = self._rows(keys)
        rows = self._gather(places, empty)
        return rows if self._labels is None else [rows, self._labels[places]]

    def where(self, index: int) -> str:
        """Name the file, the array and the row of a sample."""
        return f"{self._path}:{self._array.name}[{index}]"

    def close(self) -> None:
        """Close the file in this process, and forget the chunks kept; the next read opens it again."""
        reader = self._readers.pop(os.getpid(), None)
        if reader is not None:
            reader.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_readers": {}, "_sender": os.getpid()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        facts = state["_facts"] if is_worker_of(state.pop("_sender", 0)) else None
        vars(self).update({**state, "_facts": facts})

    def __repr__(self) -> str:
        labelled = "" if self._labels is None else " with labels"
        return f"<HDF5Dataset of {self.shape} {self.dtype}{labelled}, {self._path}:{self._array.name}>"

    def _samples(self, indices: Sequence[int]) -> list[Any]:
        places = self._rows(indices)
        rows = self._gather(places, np.empty)
        if self._labels is None:
            return list(rows)
        return list(zip(rows, self._labels[places].tolist(), strict=True))

    def _rows(self, keys: Sequence[int]) -> NDArray[np.intp]:
        return places_of(keys, len(self), "an HDF5Dataset of {} rows")

    def _gather(self, places: NDArray[np.intp], empty: Empty) -> NDArray[Any]:
        array = self._array
        if self._places is not None:
            fetch([self._places.of(places)])
        rows = empty((len(places), *array.row_shape), array.dtype)
        reader = self._reader()
        blocks = places // array.block
        order = np.argsort(blocks, kind="stable")
        begins = np.flatnonzero(np.diff(blocks[order], prepend=-1))
        for mine in np.split(order, begins[1:]) if len(order) else ():
            number = int(blocks[mine[0]])
            with timed("read"):
                rows[mine] = reader.block(number, int(places[mine[0]]))[places[mine] - number * array.block]
        return rows

    def _reader(self) -> _Reader:
        pid = os.getpid()
        reader = self._readers.get(pid)
        if reader is None:
            _inherited.extend(theirs for owner, theirs in self._readers.items() if owner != pid)
            # Of two threads that come first, both make a reader, one of which is never used and so opens nothing.
            reader = self._readers.setdefault(pid, _Reader(self._path, self._array, self._cache_bytes, self._facts))
        return reader


@dataclass(frozen=True, slots=True)
class _Array:
    """Where an array is in its file and how it lies there, as it was when it was checked."""

    name: str
    shape: tuple[int, ...]
    """As HDF5 has it."""
    dtype: np.dtype[Any]
    turned: bool
    """Whether the order of its axes is the other way round: rows last."""
    block: int
    """Rows that are read at a time: those of a chunk, where it has to be decompressed."""

    @property
    def rows(self) -> int:
        return self.shape[-1] if self.turned else self.shape[0]

    @property
    def row_shape(self) -> tuple[int, ...]:
        return self.shape[-2::-1] if self.turned else self.shape[1:]

    def read(self, stored: Any, start: int, stop: int) -> NDArray[Any]:
        """Read some rows of it, one after the other in memory."""
        values = stored[..., start:stop].T if self.turned else stored[start:stop]
        return np.ascontiguousarray(values, dtype=self.dtype)

    def places(self, facts: Unchanged, file: Any, stored: Any) -> Places | None:
        """Return where its rows lie in an object."""
        nbytes = prod(self.row_shape) * self.dtype.itemsize
        return Places.of_array(facts, file, stored, rows=self.rows, nbytes=nbytes, block=self.block, turned=self.turned)

    def check_same(self, path: str, stored: Any) -> None:
        """Raise if what is in the file is no longer what was checked."""
        place = f"{path}:{self.name}"
        _check_storage(path, place, stored)
        if (stored.shape, stored.dtype.newbyteorder("=")) != (self.shape, self.dtype):
            raise UnreadableFile(
                f"{place} has changed since the dataset was constructed: it is {stored.dtype} of {stored.shape}",
                path=path,
                expected=f"{self.dtype} of {self.shape}",
                cure="Construct the dataset again.",
            )


class _Reader:
    """One process's open file, and the blocks of rows read last."""

    def __init__(self, path: str, array: _Array, cache_bytes: int, facts: Unchanged | None) -> None:
        self._path, self._array, self._cache_bytes, self._facts = path, array, cache_bytes, facts
        self._lock = threading.Lock()
        self._file: Any = None
        self._stored: Any = None
        self._blocks: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._held = 0

    def block(self, number: int, row: int) -> NDArray[Any]:
        # Held while reading too: HDF5 lets in one thread at a time anyway, and so no block is read twice.
        with self._lock:
            block = self._blocks.get(number)
            if block is not None:
                self._blocks.move_to_end(number)
                return block
            start = number * self._array.block
            stop = min(start + self._array.block, self._array.rows)
            place = f"{self._path}:{self._array.name}[{row}]"
            facts = self._facts if self._facts is not None and self._stored is not None else self._open()
            facts.check(place)
            try:
                with located(self._path, f":{self._array.name}[{start}:{stop}]"):
                    block = self._array.read(self._stored, start, stop)
            finally:
                facts.check(place)  # it may have been cut meanwhile
            if block.nbytes <= self._cache_bytes:
                self._blocks[number] = block
                self._held += block.nbytes
            while self._held > self._cache_bytes:
                self._held -= self._blocks.popitem(last=False)[1].nbytes
            return block

    def close(self, seconds: float = -1) -> None:
        """Close the file, if no thread reads it for longer than ``seconds``."""
        if not self._lock.acquire(timeout=seconds):
            return
        try:
            self._blocks.clear()
            self._held, self._stored = 0, None
            file, self._file = self._file, None
            if file is not None:
                file.close()
        finally:
            self._lock.release()

    def _open(self) -> Unchanged:
        facts = self._facts
        if facts is not None:
            facts.check(f"{self._path}:{self._array.name}")
        elif is_url(self._path):
            facts = Unchanged.of(self._path)
        file = h5py_file(self._path, facts)
        if is_url(self._path):
            _of_objects.add(self)
        try:
            with located(self._path):
                facts = facts or Unchanged.of(self._path)
                stored = _resolved(self._path, file, self._array.name)
                self._array.check_same(self._path, stored)
        except BaseException:
            file.close()
            raise
        self._file, self._stored, self._facts = file, stored, facts
        return facts


_inherited: list[_Reader] = []
"""Readers of the process that this one was forked off: closing their files here would take the parent's locks away."""


_of_objects: WeakRefs[_Reader] = WeakRefs()


@atexit.register
def _close_objects() -> None:
    """Close the files that HDF5 reads through Python: later, it would call an interpreter that has ended."""
    for reader in _of_objects:
        reader.close(seconds=1)


def _resolved(path: str, file: Any, name: str) -> Any:
    """Return the object of a name, following links within the file and no others."""
    import h5py

    todo = name.split("/")[::-1]
    node, links = file, 0
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if isinstance(link, h5py.SoftLink) and links < LINKS:
            links += 1
            node = file if link.path.startswith("/") else node
            todo += link.path.split("/")[::-1]
        elif isinstance(link, h5py.HardLink):
            node = node[part]
        elif link is None:
            raise _refused(path, file, name, f"no array {name!r} in it")
        else:
            kind = "links in a circle" if isinstance(link, h5py.SoftLink) else "a link out of the file"
            raise ArgumentError(
                f"{name!r} is {kind}",
                path=path,
                found=name,
                expected="an array in this file",
                cure="Copy the array into this file.",
            )
    if not isinstance(node, h5py.Dataset):
        raise _refused(path, file, name, f"{name!r} is a group")
    return node


def _refused(path: str, file: Any, name: str, what: str) -> ArgumentError:
    expected = f"an array of numbers: {_listed(_numbers(file))}"
    return ArgumentError(what, path=path, found=name, expected=expected, cure="Pass data= and labels= by these names.")


def _array(path: str, file: Any, name: str, transposed: bool | None, max_bytes: int) -> _Array:
    """Check an array of the file, and say how it is to be read."""
    if not isinstance(name, str):
        raise refused(
            "HDF5Dataset: data and labels",
            name,
            "names of arrays in the file",
            "Pass text, such as 'group/array'.",
            ArgumentTypeError,
        )
    stored = _resolved(path, file, name)
    place = f"{path}:{name}"
    _check_storage(path, place, stored)
    kind = _kind(stored)
    if kind is not None:
        raise _refused(path, file, name, f"{place} holds {kind}")
    matlab = "MATLAB_class" in stored.attrs
    turned = matlab if transposed is None else flag("transposed", transposed)
    dtype = stored.dtype.newbyteorder("=")
    array = _Array(name, stored.shape, dtype, turned, 1)
    row = prod(array.row_shape) * dtype.itemsize
    chunks = stored.chunks
    chunk = chunks[-1 if turned else 0] if chunks else array.rows
    block = chunk if _filters(stored) else PLAIN // max(row, 1)
    block = max(1, min(block, chunk, array.rows))
    whole = prod(chunks) * dtype.itemsize if chunks else 0
    if max(row * block, whole) > max_bytes:
        what = f"chunks of {chunk} rows" if chunks else "rows"
        raise ArgumentError(
            f"{place}: {what} of {max(row * block, whole):,} bytes",
            path=path,
            found=max(row * block, whole),
            expected=f"at most max_bytes={max_bytes:,}",
            cure="If you trust the file, raise the limit. Otherwise write the array in smaller chunks.",
        )
    return replace(array, block=block)


def _check_storage(path: str, place: str, stored: Any) -> None:
    if stored.is_virtual or stored.external:
        raise ArgumentError(
            f"{place} is stored in other files, which are not opened",
            path=path,
            expected="an array within its file",
            cure="Copy the array into this file.",
        )
    for code in _filters(stored):
        if code not in BUILT_IN:
            raise ArgumentError(
                f"{place} needs filter {code}, which HDF5 would have to load from a library",
                path=path,
                found=code,
                expected=f"filters of HDF5 itself: {', '.join(BUILT_IN.values())}",
                cure="Write the array with compression='gzip' or 'lzf'.",
            )


def _filters(stored: Any) -> list[int]:
    plan = stored.id.get_create_plist()
    return [plan.get_filter(number)[0] for number in range(plan.get_nfilters())]


def _kind(stored: Any) -> str | None:
    """Say what an array holds that is no numbers, as a noun; None for numbers."""
    try:
        dtype = stored.dtype
    except (TypeError, ValueError) as error:
        return f"a type that NumPy does not have ({error})"
    if stored.attrs.get("MATLAB_class") == b"char":
        return "text"
    if "MATLAB_empty" in stored.attrs:
        return "an empty MATLAB array"
    if dtype.names:
        return f"records of {', '.join(dtype.names)}"
    if dtype.kind not in "biufc":
        return "references, as MATLAB's cells and strings are," if dtype.kind == "O" else "text"
    return None if stored.shape else "a single number, or nothing"


def _numbers(file: Any) -> list[str]:
    """Return the names of the arrays of numbers in a file, some twenty at the most; what links lead to not."""
    import h5py

    names: list[Any] = []

    def visit(name: str | bytes, thing: Any) -> bool | None:
        # What begins with # is MATLAB's own: the contents of cells and strings. Bytes are a name that is no UTF-8.
        named = isinstance(name, str) and not name.startswith("#")
        if named and isinstance(thing, h5py.Dataset) and _kind(thing) is None:
            names.append(name)
        return True if len(names) > 20 else None

    file.visititems(visit)
    return names


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names[:20])) + (", …" if len(names) > 20 else "") if names else "no arrays of numbers"


def _found(path: str, file: Any) -> list[str]:
    names = _numbers(file)
    if len(names) not in (1, 2):
        raise ArgumentError(
            f"found {_listed(names)} in the file",
            path=path,
            found=tuple(names),
            expected="one array of numbers, or two (data and labels)",
            cure="Pass the names: data=…, labels=….",
        )
    return names


def _sorted(path: str, file: Any, arrays: list[_Array]) -> list[_Array]:
    """Put labels last, given two arrays in unknown order."""
    fits = []
    for labels, other in (arrays, arrays[::-1]):
        try:
            _labels(path, file, labels, other.rows, 1 << 62, head=HEAD)
        except ArgumentError:
            continue
        fits.append([other, labels])
    if len(fits) != 1:
        named = " and ".join(f"{array.name!r} of shape {array.shape}" for array in arrays)
        raise ArgumentError(
            f"found {named}: {'both' if fits else 'neither'} could be the labels of the other",
            path=path,
            found=tuple(array.name for array in arrays),
            expected="one array of data, and one of labels",
            cure="Pass the names: data=…, labels=….",
        )
    return fits[0]


def _labels(
    path: str, file: Any, array: _Array, rows: int, max_bytes: int, head: int | None = None
) -> NDArray[np.int64]:
    """Read the labels of so many rows, or of the first of them, from whole numbers or one-hot rows."""
    place = f"{path}:{array.name}"
    if array.rows != rows and array.rows == 1 and array.row_shape == (rows,):  # a row of labels, where MATLAB has them
        array = replace(array, turned=not array.turned, block=rows)
    if array.rows != rows or len(array.row_shape) > 1:
        raise ArgumentError(
            f"{place} cannot be the labels of {rows} rows: it has {array.rows} rows of shape {array.row_shape}",
            path=path,
            found=array.shape,
            expected="one number or one one-hot row for each row",
            cure="Name another array as labels=, or pass transposed=.",
        )
    if rows * 8 > max_bytes:
        raise ArgumentError(
            f"{place}: {rows:,} labels take {8 * rows:,} bytes",
            path=path,
            found=8 * rows,
            expected=f"at most max_bytes={max_bytes:,}",
            cure="If you trust the file, raise the limit.",
        )
    stored = _resolved(path, file, array.name)
    labels = np.empty(rows if head is None else min(head, rows), np.int64)
    row = max(1, prod(array.row_shape) * array.dtype.itemsize)
    step = array.block * max(1, LABELS // (row * array.block))  # whole chunks still
    for start in range(0, len(labels), step):
        stop = min(start + step, len(labels))
        values = array.read(stored, start, stop).reshape(stop - start, -1)
        convert = whole_numbers if values.shape[1] == 1 else one_hot
        labels[start:stop] = convert(path, place, values, start)
    return labels
