"""Where the rows of an array lie in an HDF5 file behind a URL, so that a loader can fetch them ahead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from headrace.storage.object_spans import ObjectSpans, each_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headrace.datasets.unchanged import Unchanged

CONTIGUOUS = 1 << 18
"""Bytes of a group of rows, for arrays that are not in chunks. A loader fetches a group as a whole."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where groups of rows lie in an object: the ranges of group ``g`` are ``begins[g]`` to ``begins[g + 1]``.

    >>> group, begins, offset, length = 2, np.array([0, 1, 3]), np.array([8, 80, 800]), np.array([5, 5, 5])
    >>> places = Places(["s3://b/a.h5"], np.array([[900, 7]]), group, begins, offset, length)
    >>> places.of(np.array([3, 2])).offset.tolist()
    [80, 800]
    """

    paths: list[str]
    facts: NDArray[np.int64]
    group: int
    """Rows of a group: those of a chunk."""
    begins: NDArray[np.int64]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]

    def of(self, rows: NDArray[np.intp]) -> ObjectSpans:
        """Return the ranges of these rows."""
        groups = np.unique(rows // self.group)
        at = each_of(self.begins[groups], self.begins[groups + 1])
        return ObjectSpans(self.paths, self.facts, np.zeros(len(at), np.int64), self.offset[at], self.length[at])

    @classmethod
    def of_array(
        cls, facts: Unchanged, file: Any, stored: Any, *, rows: int, nbytes: int, block: int, turned: bool
    ) -> Self | None:
        """Return where the rows of an array lie; None where HDF5 does not say, or it is part of its own description.

        ``nbytes``: those of a row. ``block``: rows that are read at once. ``turned``: whether rows are the last axis.
        """
        if stored.chunks is not None:
            if not hasattr(stored.id, "chunk_iter"):  # before HDF5 1.12.3
                return None
            axis, found = -1 if turned else 0, list[tuple[int, int, int]]()
            stored.id.chunk_iter(lambda each: found.append((each.chunk_offset[axis], each.byte_offset, each.size)))
            group = stored.chunks[axis]
            table = np.array(sorted(found), np.int64).reshape(-1, 3)
            ids, offset, length = table[:, 0] // group, table[:, 1], table[:, 2]
        elif stored.id.get_offset() is None:
            return None
        else:
            group = rows if turned else max(block, CONTIGUOUS // max(nbytes, 1))
            ids = np.arange(-(-rows // max(group, 1)))
            offset = stored.id.get_offset() + ids * group * nbytes
            length = np.minimum(group, rows - ids * group) * nbytes
        group = max(group, 1)
        # Where a file begins with a block of the user's, versions of HDF5 differ in whether offsets count it.
        length = np.minimum(length + file.userblock_size, facts.size - offset)
        begins = np.searchsorted(ids, np.arange(-(-rows // group) + 1))
        return cls([facts.path], np.array([[facts.size, facts.written]], np.int64), group, begins, offset, length)
