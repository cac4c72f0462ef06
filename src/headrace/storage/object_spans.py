"""Ranges of many objects in arrays, and the numbers of the blocks that they touch."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from headrace.storage import blocks
from headrace.storage.blocks import Block, is_elsewhere

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from headrace.storage.object_clients import Facts


_of_thread = threading.local()


def may_read() -> bool:
    """Say whether a dataset may read a little to know which ranges samples need; else it estimates them."""
    return not getattr(_of_thread, "estimates", False)


@contextmanager
def estimated() -> Iterator[None]:
    """Let datasets estimate in this thread: for the samples of a whole epoch, they would read far too much."""
    _of_thread.estimates = True
    try:
        yield
    finally:
        _of_thread.estimates = False


class ObjectSpans(NamedTuple):
    """Ranges of bytes, each in one of some shards.

    ``paths`` and ``facts`` (n, 2): all shards of a dataset, always the same two objects. ``file``, ``offset`` and
    ``length``: the number of each range's shard, its first byte, and its bytes.
    """

    paths: Sequence[str]
    facts: NDArray[np.int64]
    file: NDArray[Any]
    offset: NDArray[Any]
    length: NDArray[Any]

    def each(self) -> Iterator[tuple[str, int, int, Facts]]:
        """Yield URL, offset, length and facts of each range: what `Blocks.ensure` takes."""
        places = (each.tolist() for each in (self.file, self.offset, self.length, self.facts[self.file]))
        for file, offset, length, (size, version) in zip(*places, strict=True):
            yield self.paths[file], offset, length, (size, version)


def fetch(spans: Iterable[ObjectSpans]) -> None:
    """Fetch ranges of objects that are not in the cache, by several requests at once."""
    blocks.blocks().ensure(chain.from_iterable(each.each() for each in spans))


def blocks_of(
    spans: ObjectSpans, chosen: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the blocks that ranges touch: for each, which range it is of, and its number in the object.

    >>> facts = np.array([[3 << 20, 7]])
    >>> blocks_of(ObjectSpans(["s3://b/0"], facts, *np.array([[0, 0], [(1 << 20) - 1, 5], [2, 4]])))
    (array([0, 0, 1]), array([0, 1, 0]), array([0, 2, 3]))

    The third array says where each range's blocks begin. ``chosen``: for each range, whether it counts. A range that
    is not inside of its object has no blocks.
    """
    offset, length = (each.astype(np.int64, copy=False) for each in (spans.offset, spans.length))
    inside = (offset >= 0) & (length > 0) & (length <= spans.facts[spans.file, 0] - offset)
    inside = inside if chosen is None else inside & chosen
    begin = offset // blocks.BLOCK
    counts = np.where(inside, (offset + length - 1) // blocks.BLOCK - begin + 1, 0)
    first = np.concatenate(([0], np.cumsum(counts)))
    row = np.repeat(np.arange(len(counts)), counts)
    return row, (begin - first[:-1])[row] + np.arange(len(row)), first


def each_of(begins: NDArray[Any], ends: NDArray[Any]) -> NDArray[np.int64]:
    """Return the numbers from each beginning to its end, one group after the other.

    >>> each_of(np.array([5, 0, 9]), np.array([7, 0, 10])).tolist()
    [5, 6, 9]
    """
    counts = ends - begins
    numbers = np.repeat(begins - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
    return numbers.astype(np.int64, copy=False)


class BlockNumbers:
    """Numbers for the blocks of the shards that a run reads, so that arrays can hold them.

    >>> facts = np.array([[3 << 20, 7], [9, 7]])
    >>> spans = ObjectSpans(["s3://b/0", "s3://b/1"], facts, *np.array([[0, 1], [5, 5], [1 << 20, 4]]))
    >>> numbers = BlockNumbers()
    >>> numbers.of([spans])
    array([0, 1, 3])
    >>> numbers.block(3).url, numbers.total_bytes
    ('s3://b/1', 3145737)

    Shards that are files on this machine have no blocks.
    """

    def __init__(self) -> None:
        self._tables: dict[int, tuple[int, Sequence[str], NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]] = {}
        self._first: list[tuple[int, int]] = []
        self._by_prefix: tuple[int, dict[str, int]] = 0, {}
        self.count = self.total_bytes = 0
        """How many blocks have numbers, and the bytes of their objects."""

    def of(self, spans: Iterable[ObjectSpans]) -> NDArray[np.int64]:
        """Return the numbers of the blocks of ranges: ascending, each once."""
        found = [self._of(each) for each in spans]
        return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)

    def _of(self, spans: ObjectSpans) -> NDArray[np.int64]:
        base, _, _, remote, begins = self._table(spans)
        row, number, _ = blocks_of(spans, remote[spans.file])
        file: NDArray[np.intp] = spans.file[row].astype(np.intp, copy=False)
        return base + begins[file] + number

    def _table(
        self, spans: ObjectSpans
    ) -> tuple[int, Sequence[str], NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
        known = self._tables.get(id(spans.paths))
        if known is None:
            remote = np.array([is_elsewhere(path) for path in spans.paths], bool)
            counts = np.where(remote, -(-spans.facts[:, 0] // blocks.BLOCK), 0)
            begins = np.concatenate(([0], np.cumsum(counts)))
            known = self._tables[id(spans.paths)] = self.count, spans.paths, spans.facts, remote, begins
            self._first.append((self.count, id(spans.paths)))
            self.count += int(begins[-1])
            self.total_bytes += int(spans.facts[remote, 0].sum())
        return known

    def block(self, number: int) -> Block:
        """Return the block of a number."""
        base, table = max(each for each in self._first if each[0] <= number)
        _, paths, facts, _, begins = self._tables[table]
        file = int(np.searchsorted(begins, number - base, "right")) - 1
        return Block(paths[file], (int(facts[file, 0]), int(facts[file, 1])), number - base - int(begins[file]))

    def by_prefix(self) -> dict[str, int]:
        """Return, by what the names of an object's blocks in the cache begin with, the number of its first block."""
        tables = list(self._tables.values())
        if self._by_prefix[0] != len(tables):
            found = dict[str, int]()
            for base, paths, facts, remote, begins in tables:
                for file in np.flatnonzero(remote).tolist():
                    block = Block(paths[file], (int(facts[file, 0]), int(facts[file, 1])), 0)
                    found[block.name.partition("-")[0]] = base + int(begins[file])
            self._by_prefix = len(tables), found
        return self._by_prefix[1]
