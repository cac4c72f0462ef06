"""Where the tokens of one file lie: what each layout is reduced to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import BadFile

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, slots=True)
class TokenFile:
    """A file of tokens, which are the tokens of its pieces, one after the other.

    ``facts``: its size in bytes and time of modification (ns). ``pieces``: the byte at which each begins and its number
    of tokens, (n, 2). ``begins`` and ``lengths``: the first token of each document, counted in the file, and its number
    of tokens; None where they are not known. ``says_dtype``: whether the file itself says the dtype.
    """

    path: str
    facts: tuple[int, int]
    dtype: np.dtype[Any]
    pieces: NDArray[np.int64]
    begins: NDArray[np.int64] | None = None
    lengths: NDArray[np.int64] | None = None
    has_documents: bool = False
    says_dtype: bool = True

    def __post_init__(self) -> None:
        """Raise `BadFile` for a piece that is not in the file: it is read by its address."""
        ends = self.pieces[:, 0] + self.pieces[:, 1] * self.dtype.itemsize
        wrong = (self.pieces < 0).any(axis=1) | (self.pieces[:, 1] > self.facts[0]) | (ends > self.facts[0])
        if wrong.any():
            at = int(np.argmax(wrong))
            raise BadFile(
                f"{self.pieces[at, 1]:,} tokens of {self.dtype} at byte {self.pieces[at, 0]:,} are outside of it",
                path=self.path,
                expected=f"tokens in its {self.facts[0]:,} bytes",
                cure="Copy the file again, or write it again.",
            )

    @classmethod
    def of(
        cls,
        path: str,
        facts: tuple[int, int],
        dtype: np.dtype[Any],
        offset: int,
        count: int,
        *,
        has_documents: bool = False,
        says_dtype: bool = True,
    ) -> TokenFile:
        """Return a file of one piece.

        >>> TokenFile.of("a.bin", (20, 0), np.dtype("<u2"), 0, 10).count
        10
        """
        pieces = np.array([[offset, count]], np.int64)
        return cls(path, facts, dtype, pieces, has_documents=has_documents, says_dtype=says_dtype)

    @property
    def count(self) -> int:
        """How many tokens it has."""
        return int(self.pieces[:, 1].sum())

    def without_documents(self) -> TokenFile:
        """Return the file with nothing that grows with its documents."""
        return replace(self, begins=None, lengths=None)

    def with_documents(self, begins: NDArray[np.int64], lengths: NDArray[np.int64]) -> TokenFile:
        """Return the file with its documents."""
        return replace(self, begins=begins, lengths=lengths, has_documents=True)

    def with_lengths(self, lengths: NDArray[np.int64]) -> TokenFile:
        """Return the file with documents that follow each other.

        >>> TokenFile.of("a.bin", (20, 0), np.dtype("<u2"), 0, 10).with_lengths(np.array([4, 6])).begins
        array([0, 4])
        """
        return self.with_documents(np.cumsum(lengths) - lengths, lengths)
