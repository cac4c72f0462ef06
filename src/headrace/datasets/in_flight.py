"""Batches that are made without Python: what one promises, and those that several datasets make together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from headrace.context import seeds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from headrace.datasets.columns import Columns


class InFlightBatch(Protocol):
    """A batch that ``begin_batch`` has begun, in lent memory: any threads may run its jobs."""

    @property
    def jobs(self) -> Sequence[Any]:
        """What the native extension's threads run."""
        ...

    @property
    def missing(self) -> Sequence[int]:
        """The rows that are not made: not yet, or left to be read step by step."""
        ...

    @property
    def underway(self) -> Sequence[int]:
        """The missing rows that a thread has begun."""
        ...

    def finish(self, stop: Callable[[], None] | None = None) -> Any:
        """Return the batch, after all jobs have ended.

        ``stop`` may raise between samples that are read step by step.
        """
        ...


class SharedRows:
    """A batch of `ConcatDataset`: each dataset makes the rows that are its own."""

    __slots__ = ("_batch", "_columns", "_pieces")

    def __init__(
        self,
        columns: Columns,
        batch: Sequence[NDArray[Any]],
        pieces: Sequence[tuple[Sequence[int], InFlightBatch]],
    ) -> None:
        self._columns = columns
        self._batch = batch
        self._pieces = pieces

    @property
    def jobs(self) -> tuple[Any, ...]:
        """The jobs of all datasets."""
        return tuple(job for _, piece in self._pieces for job in piece.jobs)

    @property
    def missing(self) -> list[int]:
        """The rows of the batch that are not made."""
        return [rows[row] for rows, piece in self._pieces for row in piece.missing]

    @property
    def underway(self) -> list[int]:
        """The rows of the batch that a thread has begun."""
        return [rows[row] for rows, piece in self._pieces for row in piece.underway]

    def finish(self, stop: Callable[[], None] | None = None) -> Any:
        """Return the batch, after all jobs have ended, as `InFlightBatch.finish` does."""
        for rows, piece in self._pieces:
            with seeds.among(rows):
                made = piece.finish(stop)
            for filled, column in zip(self._batch, self._columns.arrays(made), strict=True):
                filled[rows] = column
        return self._columns.batch(self._batch)


class SharedColumns:
    """A batch of `StackDataset`: each dataset makes the columns that are its own."""

    __slots__ = ("_joined", "_pieces")

    def __init__(
        self,
        joined: Callable[[Sequence[Any]], Any],
        pieces: Sequence[InFlightBatch],
    ) -> None:
        self._joined = joined
        self._pieces = pieces

    @property
    def jobs(self) -> tuple[Any, ...]:
        """The jobs of all datasets."""
        return tuple(job for piece in self._pieces for job in piece.jobs)

    @property
    def missing(self) -> list[int]:
        """The rows of the batch that a dataset has not made."""
        return sorted({row for piece in self._pieces for row in piece.missing})

    @property
    def underway(self) -> list[int]:
        """The missing rows that a thread has begun, in one column or more."""
        return sorted({row for piece in self._pieces for row in piece.underway})

    def finish(self, stop: Callable[[], None] | None = None) -> Any:
        """Return the batch, after all jobs have ended, as `InFlightBatch.finish` does."""
        return self._joined([piece.finish(stop) for piece in self._pieces])
