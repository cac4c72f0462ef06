"""Parts of samples that lie in memory-mapped files: a user's dataset may return rows of a ``numpy.memmap``.

Such a row is read from disk when it is first touched, which may be long after the dataset returned it. To touch a part
of the file that was cut off raises SIGBUS, which ends the interpreter, or gives zeros. So headrace copies mapped arrays
under a guard, and compares the size of the file before and after.
"""

from __future__ import annotations

import mmap
import os
from itertools import chain
from operator import is_not
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from headrace._native import extension
from headrace._native.items import one_type, values
from headrace.errors import BadFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

ONE = np.zeros(1, np.int64)
PLAIN = (np.ndarray, np.memmap)
"""Another class of arrays may have more to it than its values."""

LONGEST_BASES = 64
"""How many bases of an array are followed."""

VIEWED = ("base", "dataset", "datasets")
"""The attributes in which a view has what it reads, in torch's datasets and in ours."""

DEEPEST = 4
"""How many datasets within each other are searched for memory maps."""


class OwnMemory(mmap.mmap):
    """A map of memory that headrace itself has allocated, which nobody can cut short."""


class MappedFile(NamedTuple):
    """A file in memory: Python's map, and the array of NumPy's that was made with it, if one was."""

    map: mmap.mmap
    owner: Any

    @property
    def size(self) -> int | None:
        """The size of the file now; None if there is no file, or no descriptor of it."""
        try:
            return self.map.size()
        except (OSError, ValueError):
            return None

    @property
    def needed(self) -> int:
        """The size that the file had at least when it was mapped."""
        if self.owner is None:
            return len(self.map)
        return len(self.map) + int(self.owner.offset) // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY

    @property
    def is_cut(self) -> bool:
        """Whether the file is shorter than what is mapped of it."""
        size = self.size
        return size is not None and size < self.needed

    def error(self, what: str, address: int | None) -> BadFile:
        """Return the error for something in it that cannot be read; ``address`` is where that begins in memory."""
        name = getattr(self.owner, "filename", None) or file_at(address)
        if self.is_cut:
            why = f"the file was cut short from {self.needed} to {self.size} bytes"
        else:
            why = "the operating system cannot read that part of the file"
        return lost(name, what, why)

    def row_error(self, array: NDArray[Any]) -> BadFile:
        """Return the error for an array that lies in it."""
        at = _address(array)
        if self.owner is None or not self.owner.ndim or self.owner.strides[0] <= 0:
            return self.error(f"an array of {array.nbytes} bytes", at)
        return self.error(f"row {(at - _address(self.owner)) // self.owner.strides[0]}", at)


def lost(
    name: str | os.PathLike[str] | None, what: str, why: str = "the file was cut short", index: int | None = None
) -> BadFile:
    """Return the error for a part of a mapped file that is gone."""
    named = "" if name is not None else " of a memory map without a file name"
    return BadFile(
        f"{what}{named} cannot be read: {why} while it was mapped",
        path=os.fspath(name) if name is not None else None,
        index=index,
        expected="a file that does not change while it is read",
        cure="Restore the file and construct the dataset again.",
    )


def mapped_file(array: Any) -> MappedFile | None:
    """Return the file that an array is mapped from; None for an array in memory.

    >>> mapped_file(np.zeros(3)) is None
    True
    """
    at, owner = array, None
    for _ in range(LONGEST_BASES):
        if at is None or isinstance(at, OwnMemory):
            return None
        if isinstance(at, mmap.mmap):
            return MappedFile(at, owner)
        if _is_of_torch(type(at)):  # which names no base, but takes long to say so
            return None
        base = at.obj if isinstance(at, memoryview) else getattr(at, "base", None)
        if isinstance(at, np.memmap) and isinstance(base, mmap.mmap):
            owner = at
        at = base
    return None


def any_mapped(arrays: Sequence[NDArray[Any]]) -> bool:
    """Say whether one of these arrays is mapped from a file.

    >>> any_mapped([np.zeros(3), np.ones(3)[1:]])
    False
    """
    bases = values(arrays, "base")
    if len(bases) > 1 and not _is_of_torch(one_type(bases)):  # rows of a few arrays that take turns
        bases = list({id(base): base for base in bases}.values())
    else:
        del bases[1:]
    return any(mapped_file(base) is not None for base in bases)


def _is_of_torch(kind: Any) -> bool:
    """Say whether a type is that of torch's tensors, by its name: torch may not be there."""
    return kind is not None and kind.__name__ == "Tensor" and kind.__module__ == "torch"


def in_memory(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array as it is, or a copy of it if it lies in a memory-mapped file.

    >>> array = np.arange(3)
    >>> in_memory(array) is array
    True

    Raises `BadFile` if the file was cut short.
    """
    if type(array) not in PLAIN or array.base is None or (file := mapped_file(array)) is None:
        return array
    copy = np.empty(array.shape, array.dtype)
    _copy(file, array, copy)
    return copy


def write_row(column: NDArray[Any], row: int, array: NDArray[Any]) -> None:
    """Do ``column[row] = array``; raise `BadFile` if the array lies in a file that was cut short."""
    if array.base is None or type(array) not in PLAIN or (file := mapped_file(array)) is None:
        column[row] = array
        return
    out = column[row : row + 1]
    if out.dtype == array.dtype and out.shape[1:] == array.shape and out.flags.c_contiguous:
        _copy(file, array, out[0, ...])
    else:
        column[row] = in_memory(array)


_CONTAINERS = (list, tuple, dict)
_SEQUENCES = {list, tuple}
_FEW = 8
"""Parts that are looked at one by one in less time than all at once."""
_MOST_KINDS = 64
_PLAIN: frozenset[type] = frozenset({int, float, bool, str, bytes, type(None)})
_never_mapped: set[type] = set(_PLAIN)
"""Types that are neither arrays of NumPy's nor containers of them: also others that were met, to know them at once."""


def _are_never_mapped(kinds: set[type]) -> bool:
    """Say whether no object of these types is a container or an array, and remember that."""
    if any(issubclass(kind, (*_CONTAINERS, np.ndarray)) for kind in kinds):
        return False
    if len(_never_mapped) < _MOST_KINDS:
        _never_mapped.update(kinds)
    return True


def holds_no_array(sample: Any) -> bool:
    """Say whether a sample is known to hold no array, at first sight: False for containers within it.

    >>> holds_no_array({"label": 7}), holds_no_array([np.zeros(2)])
    (True, False)
    """
    kind = type(sample)
    if kind not in _CONTAINERS:
        return kind in _never_mapped
    kinds = set(map(type, sample.values() if kind is dict else sample))
    return kinds <= _never_mapped or _are_never_mapped(kinds)


def _hold_no_array(items: Iterable[Any], kinds: set[type]) -> bool:
    """Say whether containers of these types hold neither arrays nor containers: all are looked at at once."""
    if kinds == {dict}:
        parts = chain.from_iterable(map(dict.values, items))
    elif kinds and kinds <= _SEQUENCES:
        parts = chain.from_iterable(items)
    else:
        return False
    held = set(map(type, parts))
    return held <= _never_mapped or _are_never_mapped(held)


def parts_in_memory(sample: Any, part: Callable[[Any], Any] | None = None) -> Any:
    """Return a sample, or a batch, whose mapped arrays are copied; in lists, tuples and dictionaries too.

    ``part`` is what copies a part that is none of these containers, in place of `in_memory`.

    >>> sample = (np.arange(3), {"label": 7})
    >>> parts_in_memory(sample) is sample
    True
    """
    kind: Any = type(sample)
    if kind in _PLAIN or (part is None and kind in _never_mapped):
        return sample
    if kind is dict or kind is list or isinstance(sample, tuple):
        items = list(sample.values()) if kind is dict else sample
        if part is None:
            kinds = _kinds(items)
            if kinds <= _never_mapped or (len(items) > _FEW and _hold_no_array(items, kinds)):
                return sample
        parts = [parts_in_memory(item, part) for item in items]
        if not any(map(is_not, parts, items)):
            return sample
        if kind is dict:
            return dict(zip(sample, parts, strict=True))
        return parts if kind is list else tuple(parts) if kind is tuple else getattr(kind, "_make", kind)(parts)
    if part is not None:
        return part(sample)
    if isinstance(sample, np.ndarray):
        return in_memory(sample)
    if len(_never_mapped) < _MOST_KINDS and not isinstance(sample, _CONTAINERS):
        _never_mapped.add(kind)
    return sample


def _kinds(items: Sequence[Any]) -> set[type]:
    """Return the types of items; where there is one, in a tenth of the time."""
    one = one_type(items)
    return set(map(type, items)) if one is None else {one}


def samples_in_memory(samples: list[Any]) -> list[Any]:
    """Return samples as `parts_in_memory` does each; where they are alike, their parts are looked at all at once.

    >>> samples = [{"label": 7}, {"label": 8}]
    >>> samples_in_memory(samples) is samples
    True
    """
    kinds = _kinds(samples)
    return samples if kinds <= _never_mapped or _hold_no_array(samples, kinds) else list(map(parts_in_memory, samples))


def gather(array: NDArray[Any], rows: NDArray[np.int64], out: NDArray[Any]) -> None:
    """Copy rows of an array, from 0 up and in range; raise `BadFile` if it lies in a file that was cut short."""
    file = mapped_file(array)
    if file is None:
        # "clip", as NumPy would write "raise" through a buffer; and not np.take, which takes longer to begin.
        array.take(rows, axis=0, out=out, mode="clip")
        return
    if rows.size and out.size:
        _gather(file, np.asarray(array), np.ascontiguousarray(rows, np.int64), out)


def copy_guarded(out: NDArray[Any], array: NDArray[Any]) -> None:
    """Copy between arrays of one shape and dtype, the first C-contiguous, whatever memory the second lies in.

    For memory that a framework has mapped: no base of its arrays is a file. Raises `BadFile` if it cannot be read.
    """
    if array.size and extension is not None:
        if cast("Any", extension).gather(np.asarray(array)[None], ONE, out[None]) >= 0:
            raise lost(file_at(_address(array)), f"an array of {array.nbytes} bytes")
    else:
        out[...] = array


def files_of(dataset: Any) -> list[MappedFile]:
    """Return the files that arrays among the attributes of a dataset are mapped from, and of those it is a view of."""
    return list({id(file.map): file for file in _files(dataset, 0)}.values())


def check(files: Iterable[MappedFile], what: str) -> None:
    """Raise `BadFile` if one of these files was cut short; ``what`` was to be read."""
    for file in files:
        if file.is_cut:
            raise file.error(what, None)


def _files(thing: Any, depth: int) -> Iterator[MappedFile]:
    if "checks_maps" in vars(type(thing)):  # not in a subclass, whose own methods may read the maps
        return
    for value in list(getattr(thing, "__dict__", {}).values()):
        kind = type(value)
        for array in value.values() if kind is dict else value if kind in (list, tuple) else (value,):
            if type(array) not in PLAIN:
                break
            if array.base is not None and (file := mapped_file(array)) is not None:
                yield file
    if depth < DEEPEST:
        for name in VIEWED:
            inner = getattr(thing, name, None)
            for one in inner if isinstance(inner, list | tuple) else (inner,):
                if one is not None and not isinstance(one, np.ndarray):
                    yield from _files(one, depth + 1)


def _copy(file: MappedFile, array: NDArray[Any], out: NDArray[Any]) -> None:
    if array.size:
        _gather(file, array.view(np.ndarray)[None], ONE, out[None])


def _gather(file: MappedFile, array: NDArray[Any], rows: NDArray[np.int64], out: NDArray[Any]) -> None:
    missing = 0 if file.is_cut else -1
    if missing < 0 and extension is not None:
        missing = cast("Any", extension).gather(array, rows, out)
    elif missing < 0:
        array.take(rows, axis=0, out=out, mode="clip")
    if missing >= 0 or file.is_cut:
        row = int(rows[max(missing, 0)])
        raise file.row_error(array[row : row + 1])


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def file_at(address: int | None) -> str | None:
    """Return the name of the file that is mapped at an address, where the operating system says it."""
    if address is None:
        return None
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    spans = []
    for line in lines:
        fields = line.split(maxsplit=5)
        begin, _, end = fields[0].partition("-")
        spans.append((int(begin, 16), int(end, 16), fields[5] if len(fields) == 6 else None))
    at = next((n for n, (begin, end, _) in enumerate(spans) if begin <= address < end), None)
    # A page without a name may be one that another thread put in place of the file's, in the middle of the file.
    for number in () if at is None else (at, at - 1, at + 1):
        if 0 <= number < len(spans) and spans[number][2] is not None:
            return spans[number][2]
    return None
