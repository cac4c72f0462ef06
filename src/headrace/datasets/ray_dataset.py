"""Datasets of Ray Data, read as streams of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from headrace.checks import integer, kind_of
from headrace.datasets.iterable import IterableDataset
from headrace.errors import ArgumentError, ArgumentTypeError, missing
from headrace.interop import ranks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROWS = 256
"""Rows that are fetched at once."""


def from_ray(
    dataset: Any, *, rank: int | Literal["auto"] | None = None, world_size: int | None = None, rows: int = ROWS
) -> RayDataset:
    """Read a `ray.data.Dataset` as a stream of rows, each a dict of NumPy values.

    >>> import ray  # doctest: +SKIP
    >>> table = ray.data.range(1000).materialize()  # doctest: +SKIP
    >>> loader = DataLoader(from_ray(table, rank="auto"), 32, num_workers=1, backend="threads")  # doctest: +SKIP

    With ``rank`` and ``world_size`` (or ``rank="auto"``, which finds both) each rank reads one part of the rows, all of
    the same length; up to ``world_size - 1`` rows at the end are left out. Materialize a dataset that ranks share: one
    that is lazy is executed by each of them. What `ray.train.get_dataset_shard` returns is one rank's part already, and
    takes no rank. Rows come in the order of the dataset, in every epoch; ``rows`` of them are fetched at once. A run
    that resumes reads the stream from its start up to its position.

    A column of numbers gives NumPy scalars, one of arrays gives arrays of their shape. Raises `ArgumentTypeError` for
    what is no dataset of Ray's, `ArgumentError` for ranks that do not fit, and `MissingDependency` without Ray Data.
    """
    try:
        from ray.data import DataIterator, Dataset
    except ModuleNotFoundError as error:
        raise missing("Ray Data", extra="ray", purpose="from_ray") from error
    if not isinstance(dataset, Dataset | DataIterator):
        raise ArgumentTypeError(
            f"from_ray reads a ray.data.Dataset; got {kind_of(dataset)}",
            found=kind_of(dataset),
            expected="a ray.data.Dataset, or what ray.train.get_dataset_shard returns",
            cure="make one with ray.data.read_parquet, ray.data.from_items, …",
        )
    if rank == "auto":
        rank, world_size = ranks.found()
    if (rank is None) != (world_size is None):
        raise ArgumentError(
            f"rank and world_size must be given together; got rank={rank!r}, world_size={world_size!r}",
            found=(rank, world_size),
            expected="both rank and world_size, or neither",
            cure='give both, or rank="auto"',
        )
    place = ranks.checked(integer("rank", rank or 0, least=0), integer("world_size", world_size or 1, least=1))
    if place[1] > 1 and isinstance(dataset, DataIterator):
        raise ArgumentError(
            f"rank={rank} was given for {kind_of(dataset)}, which is one rank's part already",
            found=rank,
            expected="no rank",
            cure="leave rank and world_size out",
        )
    return RayDataset(dataset, *place, integer("rows", rows, least=1))


class RayDataset(IterableDataset[Any]):
    """The rows of a dataset of Ray Data: what `from_ray` returns."""

    suits_threads = True

    def __init__(self, dataset: Any, rank: int = 0, world_size: int = 1, rows: int = ROWS) -> None:
        self._dataset, self._rank, self._world_size, self._rows = dataset, rank, world_size, rows

    def __iter__(self) -> Iterator[Any]:
        part = self._part()
        context = getattr(part, "context", None)  # a shard of Ray Train has the context of the whole
        if context is not None:
            context.execution_options.preserve_order = True
        for batch in part.iter_batches(batch_size=self._rows, batch_format="numpy"):
            yield from _rows(batch)

    def _part(self) -> Any:
        if self._world_size == 1:
            return self._dataset
        each = self._dataset.count() // self._world_size
        if each == 0:
            return self._dataset.limit(0)
        ends = [each * number for number in range(1, self._world_size + 1)]
        return self._dataset.split_at_indices(ends)[self._rank]

    def __repr__(self) -> str:
        return f"RayDataset({kind_of(self._dataset)}, rank {self._rank} of {self._world_size})"


def _rows(batch: dict[str, Any]) -> Iterable[dict[str, Any]]:
    names = list(batch)
    return (dict(zip(names, values, strict=True)) for values in zip(*batch.values(), strict=True))
