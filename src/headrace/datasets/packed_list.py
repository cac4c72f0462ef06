"""A list of strings in two arrays: what holds ten million paths without ten million Python objects."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np

from headrace.checks import refused
from headrace.errors import ArgumentTypeError
from headrace.interop.keys import place as place_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 1 << 20
AT_ONCE = 1 << 12
"""Strings that are packed at once."""


class PackedList(Sequence[str]):
    """A read-only list of strings, held as one run of bytes and the places where each begins.

    >>> from headrace.datasets import PackedList
    >>> paths = PackedList(f"{n:04d}.jpg" for n in range(1000))
    >>> paths[7], len(paths), paths.nbytes
    ('0007.jpg', 1000, 12004)
    >>> paths[-2:]
    PackedList(['0998.jpg', '0999.jpg'])

    A string costs its UTF-8 bytes and 4 more (8 more once all of them together are above 4 GiB), where a list of
    Python strings costs some 57 more. It is built from any iterable, which is read once and not kept. Every ``str``
    comes back as it was, undecodable file names as `os.fsdecode` gives them included. An index gives a string, a slice
    a `PackedList`. Pickles as two arrays. Raises `ArgumentError` for what is not an iterable of strings.
    """

    __slots__ = ("_begins", "_bytes", "_ends", "_text")

    suits_threads = True

    def __init__(self, strings: Iterable[str] = ()) -> None:
        if isinstance(strings, (str, bytes)):
            raise refused("PackedList: strings", strings, "an iterable of strings", "Put it into a list.")
        if isinstance(strings, PackedList):
            self._hold(strings._text, strings._ends)
        else:
            self._hold(*_pack(strings))

    def _hold(self, text: NDArray[np.uint8], ends: NDArray[Any]) -> None:
        text.flags.writeable = ends.flags.writeable = False
        self._text, self._ends = text, ends
        # An item of a memoryview is a Python integer or a view at once; of an array, a NumPy object first.
        self._bytes, self._begins = memoryview(cast("Any", text)), memoryview(cast("Any", ends))

    @classmethod
    def of_arrays(cls, text: NDArray[np.uint8], ends: NDArray[Any]) -> PackedList:
        """Return the list that two arrays hold: the bytes of all strings, and where each begins and the last ends.

        >>> PackedList.of_arrays(np.frombuffer(b"abc", np.uint8), np.array([0, 1, 3], np.uint32))
        PackedList(['a', 'bc'])
        """
        packed = cls.__new__(cls)
        packed._hold(text, ends)
        return packed

    @classmethod
    def joined(cls, lists: Iterable[PackedList]) -> PackedList:
        """Return one list of the strings of several.

        >>> PackedList.joined([PackedList(["a"]), PackedList(["bc", ""])])
        PackedList(['a', 'bc', ''])
        """
        parts = list(lists)
        starts = np.cumsum([0, *(len(part._text) for part in parts)], dtype=np.uint64)
        ends = [np.zeros(1, np.uint64)]
        ends += [part._ends[1:] - part._ends[0] + start for part, start in zip(parts, starts[:-1], strict=True)]
        text = np.concatenate([np.empty(0, np.uint8), *(part._text for part in parts)])
        return cls.of_arrays(text, np.concatenate(ends).astype(np.uint32 if len(text) < 1 << 32 else np.uint64))

    @property
    def nbytes(self) -> int:
        """The bytes that the strings take, all together."""
        return self._text.nbytes + self._ends.nbytes

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> PackedList: ...
    def __getitem__(self, index: int | slice) -> str | PackedList:
        if isinstance(index, slice):
            return self._slice(range(len(self))[index])
        place = place_of(index, len(self), "a list of {} strings")
        return str(self._bytes[self._begins[place] : self._begins[place + 1]], "utf-8", "surrogatepass")

    def _slice(self, places: range) -> PackedList:
        if places.step != 1 or not places:
            return PackedList(self[place] for place in places)
        begin, end = self._begins[places.start], self._begins[places.stop]
        return PackedList.of_arrays(self._text[begin:end].copy(), self._ends[places.start : places.stop + 1] - begin)

    def __iter__(self) -> Iterator[str]:
        begin = 0
        for end in self._begins[1:]:
            yield str(self._bytes[begin:end], "utf-8", "surrogatepass")
            begin = end

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PackedList):
            return NotImplemented
        return np.array_equal(self._ends, other._ends) and np.array_equal(self._text, other._text)

    __hash__ = None  # type: ignore[assignment]  # equal to another that need not be this one: as a list is

    def __repr__(self) -> str:
        if len(self) <= 6:
            return f"PackedList({list(self)!r})"
        return f"PackedList([{self[0]!r}, {self[1]!r}, … {self[-1]!r}], {len(self)} strings)"

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedList.of_arrays, (self._text, self._ends)


def _pack(strings: Iterable[str]) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    text, ends = np.empty(0, np.uint8), array("Q", (0,))
    block, filled, given = bytearray(), 0, iter(strings)
    while some := list(islice(given, AT_ONCE)):
        sizes = _add(some, block, len(ends) - 1)
        ends.frombytes((np.cumsum(sizes, dtype=np.uint64) + np.uint64(ends[-1])).tobytes())
        if len(block) > max(BLOCK, filled >> 3):
            filled = _append(text, block, filled)
    filled = _append(text, block, filled)
    return text, np.array(ends, dtype=np.uint32 if filled < 1 << 32 else np.uint64)


def _add(strings: list[Any], block: bytearray, first: int) -> NDArray[np.int64]:
    """Add the bytes of strings to a block; return how many each has."""
    for number, string in enumerate(strings) if set(map(type, strings)) != {str} else ():
        if not isinstance(string, str):
            raise refused(
                f"PackedList: item {first + number}",
                string,
                "a string",
                "Convert every item with str() first.",
                ArgumentTypeError,
            )
    together = "".join(strings)
    if together.isascii():
        block += together.encode()
        return np.fromiter(map(len, strings), np.int64, len(strings))
    # Not surrogateescape: two escaped bytes that make a letter together would come back as the letter.
    encoded = [string.encode("utf-8", "surrogatepass") for string in strings]
    block += b"".join(encoded)
    return np.fromiter(map(len, encoded), np.int64, len(encoded))


def _append(text: NDArray[np.uint8], block: bytearray, filled: int) -> int:
    """Grow the array where it lies, so that the whole is never held twice."""
    text.resize(filled + len(block), refcheck=False)
    text[filled:] = np.frombuffer(block, np.uint8)
    block.clear()
    return len(text)
