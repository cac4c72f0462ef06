"""Tokens of many files and arrays as one long row, whose ranges are read under a guard and cast to int64."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headrace._native import extension
from headrace.datasets.memory_maps import MappedBytes
from headrace.errors import BadFile
from headrace.formats.token_file import TokenFile
from headrace.storage.blocks import read_url
from headrace.storage.files import unopened
from headrace.storage.mapped_samples import ONE, lost, mapped_file
from headrace.storage.object_spans import ObjectSpans
from headrace.storage.objects import is_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LONG = 1024
"""Longer ranges are copied one by one: a call for each costs less than an address for each token."""
MOST_SPAN = 2**62
"""Bytes of an array: NumPy refuses larger ones."""
LEAST_OPEN, MOST_OPEN = 64, 2**14
EXPECTED, FIX = "a file of tokens", "Fix the path, or construct the dataset again."


@dataclass(frozen=True, slots=True)
class MemoryTokens:
    """Tokens of an array of the user's, which may lie in a memory map."""

    array: NDArray[Any]
    path: None = None

    @property
    def bytes(self) -> NDArray[np.uint8]:
        """All bytes of the tokens."""
        return self.array.view(np.uint8)

    @property
    def address(self) -> int:
        """Where they begin in memory."""
        return int(self.array.__array_interface__["data"][0])

    def look(self) -> str | None:
        """Return what became of the file that the array is mapped from; None if nothing did."""
        file = mapped_file(self.array) if self.array.base is not None else None
        return f"the file was cut short to {file.size} bytes" if file is not None and file.is_cut else None

    def reason(self) -> str:
        """Say why a part of it could not be read."""
        return self.look() or "the operating system cannot read that part of it"

    def read(self, offset: int, out: NDArray[np.uint8]) -> bool:
        """Copy a range of its bytes."""
        out[:] = self.bytes[offset : offset + len(out)]
        return True


Held = MappedBytes | MemoryTokens


class TokenTable:
    """The tokens of files and arrays, one after the other, counted from 0.

    >>> table = TokenTable([np.arange(5, dtype=np.uint16), np.arange(10, 14, dtype=np.int32)])
    >>> table.span(3, 4, sample=0)
    array([ 3,  4, 10, 11])
    >>> table.ends
    array([0, 5, 9])

    A file is mapped when it is first read. At most as many files are mapped at a time as the process may open.
    ``cuts`` divides a single array: these are the lengths of its parts, and each part counts as an array.
    """

    def __init__(self, sources: Sequence[TokenFile | NDArray[Any]], cuts: NDArray[np.int64] | None = None) -> None:
        self.sources = list(sources)
        self.remote = any(isinstance(source, TokenFile) and is_url(source.path) for source in self.sources)
        """Whether a source is an object behind a URL: then no address says where tokens are."""
        self._is_cut = cuts is not None
        dtypes = [source.dtype for source in self.sources]
        self._dtypes = list(dict.fromkeys(dtypes))
        kinds = {dtype: number for number, dtype in enumerate(self._dtypes)}
        self._kind = np.array([kinds[dtype] for dtype in dtypes], np.int64)
        self._width = np.array([dtype.itemsize for dtype in dtypes], np.int64)
        pieces = [
            source.pieces if isinstance(source, TokenFile) else np.array([[0, len(source)]], np.int64)
            for source in self.sources
        ]
        if cuts is not None:
            pieces = [np.stack([(np.cumsum(cuts) - cuts) * self._width[0], cuts], axis=1)]
        where = np.concatenate([np.empty((0, 2), np.int64), *pieces])
        each = [len(piece) for piece in pieces]
        self._maps = dict[int, Held]()
        self._objects: tuple[list[str], NDArray[np.int64]] | None = None
        self._lay_out(np.repeat(np.arange(len(each)), each), where[:, 0].copy(), where[:, 1].copy())
        self.ends: NDArray[np.int64] = (
            self._first if self._is_cut else self._first[np.concatenate([[0], np.cumsum(each)])]
        )
        """How many tokens come before each stretch that windows may not leave, and at the end all of them."""
        stretch = np.arange(len(self._source)) if self._is_cut else self._source
        self._token = self._first[:-1] - self.ends[stretch]

    @property
    def _by_address(self) -> bool:
        """Whether the native extension reads the tokens by their addresses in memory."""
        return extension is not None and not self.remote

    def _lay_out(self, source: NDArray[np.int64], offset: NDArray[np.int64], count: NDArray[np.int64]) -> None:
        self._source, self._offset, self._count = source, offset, count
        self._first: NDArray[np.int64] = np.concatenate([[0], np.cumsum(count)])

    def reordered(self, begins: NDArray[np.int64], lengths: NDArray[np.int64]) -> TokenTable:
        """Return the table of these ranges, one after the other; each must lie in one piece.

        >>> TokenTable([np.arange(9)]).reordered(np.array([6, 0]), np.array([3, 2])).span(1, 3, sample=0)
        array([7, 8, 0])
        """
        table, piece = TokenTable(self.sources), self._piece(begins)
        inside, source = begins - self._first[piece], self._source[piece]
        table._lay_out(source, self._offset[piece] + inside * self._width[source], lengths)
        table.ends, table._token = table._first[[0, -1]], self._token[piece] + inside
        return table

    def windows(
        self, begins: NDArray[np.int64], inputs: NDArray[np.int64], targets: NDArray[np.int64], samples: Any
    ) -> None:
        """Write the tokens from each of these places on, and those one place further, into the rows of two arrays.

        ``samples`` are the indices that errors name. Raises `BadFile`.
        """
        width = inputs.shape[1] + 1
        piece = self._piece(begins)
        fits = begins + width <= self._first[piece + 1]
        if not self._by_address or not fits.all():
            fits &= self._by_address
            if len(rows := np.flatnonzero(~fits)):
                tokens = self._across(begins[rows], width, samples[rows])
                inputs[rows], targets[rows] = tokens[:, :-1], tokens[:, 1:]
        if len(self._dtypes) == 1 and fits.all():
            tokens = self._gathered(begins, piece, width, self._dtypes[0], samples)
            np.copyto(inputs, tokens[:, :-1])
            np.copyto(targets, tokens[:, 1:])
            return
        for number, dtype in enumerate(self._dtypes):
            rows = np.flatnonzero(fits & (self._kind[self._source[piece]] == number))
            if len(rows):
                tokens = self._gathered(begins[rows], piece[rows], width, dtype, samples[rows])
                inputs[rows], targets[rows] = tokens[:, :-1], tokens[:, 1:]

    def span(self, begin: int, count: int, sample: int) -> NDArray[np.int64]:
        """Return a range of tokens; ``sample`` is the index that errors name."""
        if not count:
            return np.empty(0, np.int64)  # its file may be empty, which cannot be mapped
        piece = min(int(self._first.searchsorted(begin, "right")), len(self._offset)) - 1
        inside = begin - int(self._first[piece])
        if inside + count <= int(self._count[piece]):
            return self._part(piece, inside, count, sample).astype(np.int64)
        found, at = np.empty(count, np.int64), 0
        while at < count:
            here = min(count - at, int(self._count[piece]) - inside)
            if here > 0:
                found[at : at + here] = self._part(piece, inside, here, sample)
                at += here
            piece, inside = piece + 1, 0
        return found

    def spans(
        self, begins: NDArray[np.int64], lengths: NDArray[np.int64], samples: NDArray[np.intp]
    ) -> list[NDArray[np.int64]]:
        """Return many ranges of tokens: short ones by one call of the native extension, as parts of one array."""
        if not lengths.all():
            found, full = [np.empty(0, np.int64)] * len(lengths), np.flatnonzero(lengths)
            for row, span in zip(full.tolist(), self.spans(begins[full], lengths[full], samples[full]), strict=True):
                found[row] = span
            return found
        piece, total = self._piece(begins), int(lengths.sum())
        together = self._by_address and len(self._dtypes) == 1 and 0 < total <= LONG * len(begins)
        if not together or (begins + lengths > self._first[piece + 1]).any():
            rows = zip(begins.tolist(), lengths.tolist(), samples.tolist(), strict=True)
            return [self.span(*row) for row in rows]
        whole = self._flat(begins, lengths, piece, samples)
        ends = np.cumsum(lengths)
        return [whole[start:end] for start, end in zip((ends - lengths).tolist(), ends.tolist(), strict=True)]

    def _across(self, begins: NDArray[np.int64], width: int, samples: NDArray[np.intp]) -> NDArray[np.int64]:
        """Return windows that may lie in several pieces."""
        if not self._by_address or len(self._dtypes) > 1:
            rows = zip(begins.tolist(), samples.tolist(), strict=True)
            return np.stack([self.span(begin, width, sample) for begin, sample in rows])
        row, piece = self._pieces_of(begins, np.broadcast_to(np.int64(width), begins.shape))
        starts = np.maximum(begins[row], self._first[piece])
        lengths = np.minimum(begins[row] + width, self._first[piece + 1]) - starts
        full = lengths > 0
        return self._flat(starts[full], lengths[full], piece[full], samples[row[full]]).reshape(-1, width)

    def _flat(
        self, begins: NDArray[np.int64], lengths: NDArray[np.int64], piece: NDArray[np.int64], samples: Any
    ) -> NDArray[np.int64]:
        """Return ranges one after the other, token by token in one call; each range must lie in one piece."""
        dtype, total, ends = self._dtypes[0], int(lengths.sum()), np.cumsum(lengths)
        starts, held, row_of = self._reach(begins, piece, dtype.itemsize, samples)
        before = ends - lengths
        raw = np.empty((total, dtype.itemsize), np.uint8)
        missing = _gather(np.repeat(starts - before * dtype.itemsize, lengths) + np.arange(total) * dtype.itemsize, raw)
        lost_row = -1 if missing < 0 else int(ends.searchsorted(missing, "right"))
        self._check(held, row_of, piece, lost_row, begins, lengths, samples)
        tokens = raw.view(dtype)[:, 0]
        if (wrong := _too_large(tokens)) is not None:
            row = int(ends.searchsorted(wrong, "right"))
            raise self._out_of_range(int(begins[row]), int(samples[row]), tokens[wrong])
        return tokens.astype(np.int64)

    def object_spans(self, begins: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[ObjectSpans]:
        """Return which ranges of objects behind URLs these ranges of tokens are in."""
        if not self.remote:
            return []
        if self._objects is None:
            files = [source if isinstance(source, TokenFile) else None for source in self.sources]
            facts = [(0, 0) if file is None else file.facts for file in files]
            self._objects = ["" if file is None else file.path for file in files], np.array(facts, np.int64)
        row, piece = self._pieces_of(begins, lengths)
        starts = np.maximum(begins[row], self._first[piece])
        counts = np.minimum((begins + lengths)[row], self._first[piece + 1]) - starts
        source = self._source[piece]
        width = self._width[source]
        offset = self._offset[piece] + (starts - self._first[piece]) * width
        return [ObjectSpans(*self._objects, source, offset, counts * width)]

    def place(self, token: int) -> tuple[str, int]:
        """Return the path in which a token is, or the number of the array, and its place there."""
        piece = int(self._piece(np.array([token]))[0])
        number = int(self._source[piece])
        source = self.sources[number]
        name = source.path if isinstance(source, TokenFile) else f"array {piece if self._is_cut else number}"
        return name, int(self._token[piece] + token - self._first[piece])

    def _pieces_of(
        self, begins: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return every piece that each of these ranges touches, and the range that it belongs to."""
        first, last = self._piece(begins), self._piece(begins + np.maximum(lengths, 1) - 1)
        many = last - first + 1
        row = np.repeat(np.arange(len(begins)), many)
        return row, np.arange(len(row)) - np.repeat(np.cumsum(many) - many - first, many)

    def _piece(self, begins: NDArray[np.int64]) -> NDArray[np.int64]:
        if len(self._offset) == 1:
            return np.zeros(len(begins), np.int64)
        # An empty document may begin behind the last piece.
        return np.minimum(np.searchsorted(self._first, begins, "right") - 1, len(self._offset) - 1)

    def _gathered(
        self, begins: NDArray[np.int64], piece: NDArray[np.int64], width: int, dtype: np.dtype[Any], samples: Any
    ) -> NDArray[Any]:
        """Copy windows that each lie in one piece, out of all files in one call of the native extension."""
        starts, held, row_of = self._reach(begins, piece, dtype.itemsize, samples)
        raw = np.empty((len(begins), width * dtype.itemsize), np.uint8)
        self._check(held, row_of, piece, _gather(starts, raw), begins, np.full(len(begins), width), samples)
        tokens = raw.view(dtype)
        if (wrong := _too_large(tokens)) is not None:
            at = wrong // width
            raise self._out_of_range(int(begins[at]), int(samples[at]), tokens.reshape(-1)[wrong])
        return tokens

    def _reach(
        self, begins: NDArray[np.int64], piece: NDArray[np.int64], itemsize: int, samples: Any
    ) -> tuple[NDArray[np.int64], dict[int, Held], dict[int, int]]:
        """Return the addresses of tokens, the sources that must be held while they are read, and a row of each."""
        starts = self._offset[piece] + (begins - self._first[piece]) * itemsize
        if len(self.sources) == 1:
            row_of = {0: 0} if len(begins) else {}
            held = {number: self._held(number, int(samples[row])) for number, row in row_of.items()}
            starts += held[0].address if held else 0
        else:
            sources: list[int] = self._source[piece].tolist()
            row_of = {number: row for row, number in enumerate(sources)}
            held = {number: self._held(number, int(samples[row])) for number, row in row_of.items()}
            starts += np.array([held[number].address for number in sources], np.int64)
        return starts, held, row_of

    def _check(
        self,
        held: dict[int, Held],
        row_of: dict[int, int],
        piece: NDArray[np.int64],
        missing: int,
        begins: NDArray[np.int64],
        lengths: NDArray[np.int64],
        samples: Any,
    ) -> None:
        """Raise for the row that could not be read, if one was, or for a file that is not what it was."""
        if missing >= 0:
            row_of = {int(self._source[piece[missing]]): missing}
        for number, row in row_of.items():
            if missing >= 0 or held[number].look() is not None:
                raise self._lost(held[number], int(begins[row]), int(lengths[row]), int(samples[row]))

    def _part(self, piece: int, inside: int, count: int, sample: int) -> NDArray[Any]:
        number = int(self._source[piece])
        source, first = self.sources[number], int(self._first[piece]) + inside
        begin, size = int(self._offset[piece]) + inside * source.dtype.itemsize, count * source.dtype.itemsize
        if isinstance(source, TokenFile) and is_url(source.path):
            raw = np.frombuffer(read_url(source.path, begin, size, source.facts), np.uint8)
        else:
            raw = self._of_map(self._held(number, sample), begin, size, (first, count, sample))
        tokens = raw.view(source.dtype)
        if (at := _too_large(tokens)) is not None:
            raise self._out_of_range(first + at, sample, tokens[at])
        return tokens

    def _of_map(self, held: Held, begin: int, size: int, place: tuple[int, int, int]) -> NDArray[np.uint8]:
        """Read a range of bytes; ``place``: its first token, its tokens, and the sample that errors name."""
        raw = np.empty(size, np.uint8)
        if extension is None:
            whole = held.read(begin, raw)
        else:
            whole = (
                not size or cast("Any", extension).gather(held.bytes[begin : begin + size][None], ONE, raw[None]) < 0
            )
        if not whole or held.look() is not None:
            raise self._lost(held, *place)
        return raw

    def _held(self, number: int, sample: int) -> Held:
        """Return a source that stays in memory as long as what is returned does."""
        held = self._maps.get(number)
        if held is None:
            source = self.sources[number]
            made = _mapped(source, sample) if isinstance(source, TokenFile) else MemoryTokens(source)
            # Another thread may have been first, and may have opened the file before it changed.
            held = self._maps.setdefault(number, made)
            if len(self._maps) > _most_open():
                self._maps.pop(next(iter(list(self._maps))), None)
        return held

    def _lost(self, held: Held, begin: int, count: int, sample: int) -> BadFile:
        _, at = self.place(begin)
        return lost(held.path, f"sample {sample} (tokens {at:,} to {at + count:,})", held.reason(), sample)

    def _out_of_range(self, begin: int, sample: int, token: Any) -> BadFile:
        name, at = self.place(begin)
        return BadFile(
            f"sample {sample} (from token {at:,} on) has token {int(token):,}",
            path=name,
            index=sample,
            expected="tokens that fit into int64",
            cure="Write token ids, as uint16 or uint32.",
        )


class _Memory:
    """All bytes of this process from an address on, as an array of overlapping rows that begin at each byte."""

    def __init__(self, address: int, rows: int, width: int) -> None:
        self.__array_interface__ = {
            "data": (address, True), "shape": (rows, width), "strides": (1, 1), "typestr": "|u1", "version": 3,
        }  # fmt: skip


def _gather(places: NDArray[np.int64], out: NDArray[np.uint8]) -> int:
    """Copy bytes from addresses into the rows of an array; return the first row that cannot be read, or -1.

    One call, guarded against files that are cut short, reads any number of maps: the caller keeps them alive.
    """
    native, width = cast("Any", extension), out.shape[1]
    if not len(places):
        return -1
    low = int(places.min())
    rows = int(places.max()) - low + 1
    if rows * width < MOST_SPAN:
        return int(native.gather(np.asarray(_Memory(low, rows, width)), places - low, out))
    zero = np.zeros(1, np.int64)
    for row, place in enumerate(places.tolist()):
        if native.gather(np.asarray(_Memory(place, 1, width)), zero, out[row : row + 1]) >= 0:
            return row
    return -1


def _mapped(source: TokenFile, sample: int) -> Held:
    try:
        return MappedBytes(source.path, source.facts)
    except FileNotFoundError as error:
        raise lost(source.path, f"sample {sample}", "the file was removed", sample) from error
    except OSError as error:
        raise unopened(source.path, error, expected=EXPECTED, cure=FIX).at(sample) from error
    except ValueError as error:
        raise lost(source.path, f"sample {sample}", str(error), sample) from error


def _too_large(tokens: NDArray[Any]) -> int | None:
    """Return where a token is that does not fit into int64, if one is."""
    if tokens.dtype.kind != "u" or tokens.dtype.itemsize < 8:
        return None
    wrong = tokens.reshape(-1) >= 2**63
    return int(np.argmax(wrong)) if wrong.any() else None


def _most_open() -> int:
    """Return how many files may be mapped at a time, each with two descriptors: a map of Python's has its own."""
    if sys.platform == "win32":
        return LEAST_OPEN
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST_OPEN if limit < 0 else max(LEAST_OPEN, min(limit // 4, MOST_OPEN))
