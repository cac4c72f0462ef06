"""Take the members of a tar shard from the index that DALI's `wds2idx` wrote beside it, checked by every header.

Format: a line ``v1.2 N``, then a line for each sample: ``extension offset size name``, for each of its members. The
offsets are those of the data: https://github.com/NVIDIA/DALI/blob/main/tools/wds2idx.py.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headrace.errors import SampleError
from headrace.storage.files import read_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headrace.formats.reader import ShardReader

BLOCK = 512
EXTENDED = 2 * BLOCK
"""Bytes of an extended header that fits into a block, as WebDataset's own writer puts one before each member."""

AT_ONCE = 1 << 12
"""Headers that are checked at once: 2 MiB."""

_NAME = 100
"""Bytes of a name in a header."""

_RECORDS = (b" path=", b" size=", b"GNU.sparse.")
"""The records of an extended header that say what its member is."""

_REGULAR, _DESCRIBES = (0, ord("0"), ord("7")), ord("x")


def members(reader: ShardReader) -> list[tuple[str, int, int]] | None:
    """Return the name, the offset and the length of each member, as a scan of the archive gives them; else None.

    The headers follow each other from the first byte to the end of the archive, and each says what the index says. So
    an index that is stale, damaged or false is not used, nor one of an archive with other entries than regular files.
    """
    listed = _listed(reader)
    if listed is None:
        return None
    names, offset, size = listed
    if not len(names) or (size < 0).any() or (offset < BLOCK).any() or (offset > reader.size - size).any():
        return None
    end = offset + -(-size // BLOCK) * BLOCK
    begin = np.concatenate([[0], end[:-1]])
    for at in range(0, len(names), AT_ONCE):
        part = slice(at, at + AT_ONCE)
        if not _true(reader, names[part], begin[part], offset[part], size[part]):
            return None
    rest = max(0, min(BLOCK, reader.size - int(end[-1])))
    if rest and reader.read(int(end[-1]), rest).count(0) != rest:
        return None  # the archive has more members
    found = [name.decode("utf-8", "surrogateescape") for name in names]
    return list(zip(found, offset.tolist(), size.tolist(), strict=True))


def _listed(reader: ShardReader) -> tuple[list[bytes], NDArray[np.int64], NDArray[np.int64]] | None:
    """Return names, offsets and sizes of an index; None for no index of this format."""
    path = Path(reader.path).with_suffix(".idx")
    if not os.path.exists(path):  # noqa: PTH110  most shards have none
        return None
    with contextlib.suppress(SampleError, ValueError, OverflowError):
        data = read_file(str(path), max_bytes=reader.size)  # a line is shorter than the headers that it stands for
        words = data.split()
        names = words[5::4]
        if words[:1] == [b"v1.2"] and len(words) == 2 + 4 * len(names) and b"\0" not in data:
            offset, size = (np.fromiter(map(int, words[first::4]), np.int64, len(names)) for first in (3, 4))
            return names, offset, size
    return None


def _true(
    reader: ShardReader,
    names: list[bytes],
    begin: NDArray[np.int64],
    offset: NDArray[np.int64],
    size: NDArray[np.int64],
) -> bool:
    """Say whether headers say the same, and nothing else lies between members than extended headers of no interest."""
    gap = offset - BLOCK - begin
    extended = gap == EXTENDED
    if not (extended | (gap == 0)).all() or max(map(len, names)) > _NAME or any(n.endswith(b"/") for n in names):
        return False
    head = reader.gather(offset - BLOCK, BLOCK)
    long = (head[:, 257:263] == np.frombuffer(b"ustar\0", np.uint8)).all(axis=1) & (head[:, 345] > 0)
    expected = np.array(names, f"S{_NAME}").view(np.uint8).reshape(-1, _NAME)
    if long.any() or (head[:, :_NAME] != expected).any() or (octal(head[:, 124:136]) != size).any():
        return False
    if not np.isin(head[:, 156], _REGULAR).all() or not _summed(head):
        return False
    return not extended.any() or _passed_over(reader.gather(begin[extended], EXTENDED))


def _passed_over(blocks: NDArray[np.uint8]) -> bool:
    """Say whether extended headers say nothing of name and size, such as those that hold a fraction of a second."""
    head, text = blocks[:, :BLOCK], blocks[:, BLOCK:]
    length = octal(head[:, 124:136])
    if (head[:, 156] != _DESCRIBES).any() or not _summed(head) or (length < 1).any() or (length > BLOCK).any():
        return False
    whole = text.tobytes()
    return not any(word in whole for word in _RECORDS)


def _summed(head: NDArray[np.uint8]) -> bool:
    """Say whether the checksums of headers are those of their bytes."""
    blanks = 8 * ord(" ")
    sums = head.sum(axis=1, dtype=np.int64) - head[:, 148:156].sum(axis=1, dtype=np.int64) + blanks
    return bool((octal(head[:, 148:156]) == sums).all())


def octal(text: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the numbers that rows of octal digits are; -1 for anything else, and for sizes in base 256.

    >>> octal(np.frombuffer(b"0017 x12", np.uint8).reshape(2, 4)).tolist()
    [15, -1]
    """
    value = np.zeros(len(text), np.int64)
    begun, ended, wrong = (np.zeros(len(text), bool) for _ in range(3))
    for column in text.T:
        digit = (column >= ord("0")) & (column <= ord("7"))
        blank = (column == 0) | (column == ord(" "))
        value = np.where(digit, value * 8 + column - ord("0"), value)
        wrong |= (digit & ended) | ~(digit | blank)
        begun |= digit
        ended |= begun & blank
    return np.where(wrong, -1, value)
