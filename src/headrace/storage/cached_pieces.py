"""Ranges of objects as pieces of the files in the cache, for the native extension, which reads no URLs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from headrace.storage import blocks
from headrace.storage.blocks import Block
from headrace.storage.object_spans import blocks_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headrace.storage.blocks import Blocks
    from headrace.storage.object_spans import ObjectSpans


class Pieces(NamedTuple):
    """Files, and where each of some ranges lies in them.

    ``facts`` (files, 2): size and time of modification of each file. Range ``i`` is pieces ``first[i]`` to
    ``first[i + 1]``, one after the other; each piece is ``length`` bytes at ``offset`` of ``paths[file]``.
    """

    paths: list[bytes]
    facts: NDArray[np.int64]
    first: NDArray[np.int64]
    file: NDArray[np.int64]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]


def cached_pieces(reader: Blocks, spans: ObjectSpans) -> Pieces | None:
    """Return where ranges lie in the cache, their blocks fetched first; None where one is not in a file of the cache.

    >>> import tempfile
    >>> from headrace.storage.block_cache import BlockCache
    >>> from headrace.storage.blocks import Blocks
    >>> from headrace.storage.object_spans import ObjectSpans
    >>> facts = np.array([[3 << 20, 7]])
    >>> spans = ObjectSpans(["s3://bucket/a"], facts, *np.array([[0, 0], [(1 << 20) - 2, 2 << 20], [5, 4]]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     reader = Blocks(BlockCache(folder, 1 << 30), lambda url, begin, end: (bytes(end - begin), (3 << 20, 7)))
    ...     found = cached_pieces(reader, spans)
    >>> len(found.paths), found.first, found.file, found.offset, found.length
    (3, array([0, 2, 3]), array([0, 1, 2]), array([1048574,       0,       0]), array([2, 3, 4]))

    A range that is not inside of its object has no pieces.
    """
    row, number, first = blocks_of(spans)
    file = spans.file[row].astype(np.int64)
    begin = spans.offset[row].astype(np.int64) - number * blocks.BLOCK
    end = np.minimum(begin + spans.length[row].astype(np.int64), blocks.BLOCK)
    begin = np.maximum(begin, 0)
    distinct, place = np.unique(file << 32 | number, return_inverse=True)
    facts = spans.facts
    keys = []
    for key in distinct.tolist():
        shard = key >> 32
        size, version = facts[shard].tolist()
        keys.append(Block(spans.paths[shard], (size, version), key & 0xFFFFFFFF))
    held = reader.files(keys)
    if held is None:
        return None
    stated = np.array([each[1:] for each in held], np.int64).reshape(-1, 2)
    return Pieces([each.path for each in held], stated, first, place.astype(np.int64), begin, end - begin)
