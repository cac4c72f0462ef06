"""Datasets put together: end to end, or side by side."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headrace.context import seeds
from headrace.datasets import protocol
from headrace.datasets.base import VIEWS, Dataset, T_co
from headrace.datasets.columns import Columns
from headrace.datasets.in_flight import SharedColumns, SharedRows
from headrace.datasets.pieces import read_piece
from headrace.errors import ArgumentError, CollateError, UnusableArgument
from headrace.interop.keys import check_whole, whole
from headrace.plan.piece import Piece

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from headrace.context.memory import Empty
    from headrace.datasets.protocol import Indexed
    from headrace.storage.object_spans import ObjectSpans


class ConcatDataset(Dataset[T_co]):
    """Datasets end to end: the samples of the first, then those of the second, and so on; also written ``a + b``.

    >>> from headrace import ConcatDataset
    >>> both = ConcatDataset(["abc", [10, 20]])
    >>> len(both), both[2], both[3], both[-1], both.cumulative_sizes
    (5, 'c', 10, 20, [3, 5])

    ``datasets``: anything with ``__getitem__`` and ``__len__``, whose lengths are asked for once. Whole batches are
    read at once where all of the datasets have ``read_batch`` and rows of the same shapes and dtypes. Labels are those
    of the datasets, where all have some, and shards theirs too, where a dataset without shards is one.

    Raises `UnusableArgument`, a ValueError and an AssertionError, for no datasets at all and for iterable ones.
    """

    def __init__(self, datasets: Iterable[Indexed]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise UnusableArgument(
                "datasets should not be an empty iterable",
                found=0,
                expected="at least one dataset",
                cure="Pass the datasets as one list: ConcatDataset([a, b]).",
            )
        for number, dataset in enumerate(self.datasets):
            protocol.check_indexed("ConcatDataset", dataset, number, error=UnusableArgument)
        self.cumulative_sizes = list(accumulate(map(len, self.datasets)))
        self._columns: tuple[Columns | None] | None = None

    @property
    def suits_threads(self) -> bool:
        """Whether all of the datasets suit threads."""
        return all(map(protocol.suits_threads, self.datasets))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> T_co:
        """Return the sample at an index counted through all datasets."""
        part, place = self._place(index)
        return self.datasets[part][place]  # type: ignore[no-any-return]

    def __getitems__(self, indices: list[int]) -> list[T_co]:
        """Read the samples at these indices, with one call for each dataset that has ``__getitems__``."""
        places, pieces = self._by_part(indices)
        samples: list[Any] = [None] * len(indices)
        for part, mine in pieces.items():
            with seeds.among(mine):
                made = protocol.many(self.datasets[part], [places[row][1] for row in mine])
            for row, sample in zip(mine, made, strict=True):
                samples[row] = sample
        return samples

    def object_spans(self, keys: Sequence[Any]) -> list[ObjectSpans]:
        """Ask all datasets, each for its samples."""
        places, pieces = self._by_part(list(keys))
        return [
            spans
            for part, dataset in enumerate(self.datasets)
            for spans in protocol.object_spans(dataset, [places[row][1] for row in pieces.get(part, [])])
        ]

    @property
    def reads_many(self) -> bool:
        """Whether all datasets read many samples at once."""
        return all(map(protocol.reads_many, self.datasets))

    @property
    def draws(self) -> bool:
        """Whether reading a sample may draw random numbers."""
        return any(map(protocol.draws, self.datasets))

    @property
    def labels(self) -> NDArray[Any] | None:
        """The labels of all samples, where all datasets have labels."""
        pieces = [protocol.labels(dataset) for dataset in self.datasets]
        known = [piece for piece in pieces if piece is not None]
        return np.concatenate(known) if len(known) == len(pieces) else None

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes, where they are the same in all datasets."""
        first, *others = map(protocol.classes, self.datasets)
        return first if all(other == first for other in others) else []

    @property
    def shard_lengths(self) -> Sequence[int]:
        """The shards of all datasets; one without shards is a shard."""
        lengths = [protocol.shard_lengths(dataset) for dataset in self.datasets]
        return [
            length
            for dataset, known in zip(self.datasets, lengths, strict=True)
            for length in (known if known is not None else [len(dataset)])
        ]

    @property
    def columns(self) -> Columns | None:
        """The arrays of a whole batch, where they are the same in all datasets."""
        if self._columns is None:  # once, as datasets that do not declare theirs are asked for a batch
            first, *others = map(protocol.columns, self.datasets)
            self._columns = (first if all(other == first for other in others) else None,)
        return self._columns[0]

    @property
    def read_batch(self) -> Callable[..., Any] | None:
        """What reads whole batches, where all datasets read them, with rows of the same shapes and dtypes."""
        return None if self.columns is None else self._read_batch

    @property
    def begin_batch(self) -> Callable[..., Any] | None:
        """What begins whole batches, where all datasets begin them, with rows of the same shapes and dtypes."""
        return self._begin_batch if self.columns and all(map(protocol.batch_beginner, self.datasets)) else None

    def _begin_batch(self, keys: Sequence[int], *, empty: Empty = np.empty) -> Any:
        places, pieces = self._by_part(keys)
        beginners: list[Any] = [protocol.batch_beginner(self.datasets[part]) for part in pieces]
        if len(pieces) == 1:
            return beginners[0]([place for _, place in places], empty=empty)
        columns = cast("Columns", self.columns)
        begun = []
        for begin, rows in zip(beginners, pieces.values(), strict=True):
            with seeds.among(rows):
                begun.append((rows, begin([places[row][1] for row in rows], empty=np.empty)))
        return SharedRows(columns, [empty((len(keys), *shape), dtype) for dtype, shape in columns.rows], begun)

    def _by_part(self, keys: Sequence[int]) -> tuple[list[tuple[int, int]], dict[int, list[int]]]:
        """Return the place of each key, and the rows of a batch that each dataset makes."""
        places = [self._place(key) for key in keys]
        pieces: dict[int, list[int]] = {}
        for row, (part, _) in enumerate(places):
            pieces.setdefault(part, []).append(row)
        return places, pieces

    def _read_batch(self, keys: Sequence[int], *, empty: Empty = np.empty) -> Any:
        places, pieces = self._by_part(keys)
        if len(pieces) <= 1:  # most batches, where the order is sequential
            return self._piece(next(iter(pieces), 0), [place for _, place in places], empty)
        batch: list[Any] = []
        columns: Any = None
        for part, rows in pieces.items():
            with seeds.among(rows):
                piece = self._piece(part, [places[row][1] for row in rows], np.empty)
            found = Columns.of(piece)
            columns = columns or found
            if found is None or found != columns:
                raise CollateError(
                    f"ConcatDataset: read_batch of dataset {part} returned {found}, and that of dataset "
                    f"{next(iter(pieces))} {columns}",
                    found=str(found),
                    expected="arrays of the same shapes and dtypes from all datasets",
                    cure="Let these datasets declare their `columns`, or remove read_batch.",
                )
            batch = batch or [empty((len(keys), *shape), dtype) for dtype, shape in columns.rows]
            for filled, column in zip(batch, columns.arrays(piece), strict=True):
                filled[rows] = column
        return columns.batch(batch)

    def _piece(self, part: int, keys: list[int], empty: Empty) -> Any:
        read: Any = protocol.batch_reader(self.datasets[part])
        return read(keys, empty=empty)

    def rebuilt(self, make: Callable[[Any], Any]) -> ConcatDataset[Any]:
        """Return what is made of each dataset, end to end."""
        return ConcatDataset(map(make, self.datasets))

    def read_part(self, index: int, start: int, stop: int) -> Any:
        """Read a part of a sample, as the dataset that it is in does."""
        dataset, place = self.inner(index)
        return read_piece(dataset, Piece(place, start, stop))

    def inner(self, index: int) -> tuple[Any, Any]:
        """Return the dataset that a sample is in, and its index there."""
        part, place = self._place(index)
        return self.datasets[part], place

    def explain(self) -> str:
        """Say how each of the datasets is read, once where they are read alike."""
        return "\n".join(dict.fromkeys(map(protocol.explain, self.datasets)))

    def where(self, index: int) -> str | None:
        """Say where a sample comes from, as the dataset that it is in does."""
        return protocol.where(*self.inner(index))

    def path(self, index: int) -> str:
        """Return the path of a sample's file, as the dataset that it is in has it; ArgumentError without files."""
        return protocol.path(*self.inner(index))

    def _place(self, index: int) -> tuple[int, int]:
        """Return which dataset an index falls in, and its index there."""
        size = len(self)
        if type(index) is not int:
            index = whole(index)
        if index < 0:
            if -index > size:
                raise ArgumentError(
                    f"absolute value of index should not exceed dataset length; got {index}, the length is {size}",
                    found=index,
                    expected=f"an index from {-size} to {size - 1}",
                    cure="Count from -1, the last sample, down.",
                )
            index += size
        if index >= size:
            raise IndexError(f"index {index} is out of range for a ConcatDataset of {size} samples")
        part = bisect_right(self.cumulative_sizes, index)
        return part, index - self.cumulative_sizes[part - 1] if part else index


class StackDataset(Dataset[T_co]):
    """Datasets side by side: a sample is the tuple, or the dict, of their samples at one index.

    >>> from headrace.datasets import StackDataset
    >>> StackDataset("abc", [1, 2, 3])[1]
    ('b', 2)
    >>> StackDataset(letter="abc", number=[1, 2, 3])[-1]
    {'letter': 'c', 'number': 3}

    Whole batches are read at a time where all of the datasets read them. Raises `ArgumentError` for datasets of
    different lengths, for none, for some with names and some without, and (a TypeError too) for iterable ones.
    """

    def __init__(self, /, *args: Indexed, **kwargs: Indexed) -> None:  # a dataset may be named self
        if args and kwargs:
            raise ArgumentError(
                "Supported either tuples (datasets given by position) or dicts (datasets given by name), "
                f"but both were given: {len(args)} without a name, and {', '.join(kwargs)}",
                found=tuple(kwargs),
                expected="one of the two",
                cure="Name all datasets, or none.",
            )
        if not args and not kwargs:
            raise ArgumentError(
                "At least one dataset should be passed",
                found=0,
                expected="datasets of equal lengths",
                cure="Pass the datasets one by one: StackDataset(a, b).",
            )
        self.datasets: tuple[Indexed, ...] | dict[str, Indexed] = args or kwargs
        named: dict[Any, Indexed] = {**kwargs} or dict(enumerate(args))
        for name, dataset in named.items():
            protocol.check_indexed("StackDataset", dataset, name)
        lengths = {name: len(dataset) for name, dataset in named.items()}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{name}: {length}" for name, length in lengths.items())
            raise ArgumentError(
                f"Size mismatch between datasets: their lengths are {found}",
                found=found,
                expected="one length",
                cure="Take as many samples of each: dataset.take(count).",
            )
        self._length = next(iter(lengths.values()))

    @property
    def suits_threads(self) -> bool:
        """Whether all of the datasets suit threads."""
        return all(map(protocol.suits_threads, self._parts))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        """Return the tuple or dict of the samples at an index."""
        check_whole((index,))
        return self._joined([dataset[index] for dataset in self._parts])

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """Read the samples at these indices, with one call for each dataset that has ``__getitems__``."""
        check_whole(indices)
        columns = [protocol.many(dataset, indices) for dataset in self._parts]
        return [self._joined(items) for items in zip(*columns, strict=True)]

    def object_spans(self, keys: Sequence[Any]) -> list[ObjectSpans]:
        """Ask all datasets."""
        return [spans for dataset in self._parts for spans in protocol.object_spans(dataset, keys)]

    @property
    def reads_many(self) -> bool:
        """Whether all datasets read many samples at once, and no two draw random numbers for the same sample."""
        return all(map(protocol.reads_many, self._parts)) and sum(map(protocol.draws, self._parts)) <= 1

    @property
    def draws(self) -> bool:
        """Whether reading a sample may draw random numbers."""
        return any(map(protocol.draws, self._parts))

    @property
    def labels(self) -> NDArray[Any] | None:
        """The labels of the first dataset that has some."""
        return next((labels for labels in map(protocol.labels, self._parts) if labels is not None), None)

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes, as the first dataset has them that has labels."""
        return next((protocol.classes(part) for part in self._parts if protocol.labels(part) is not None), [])

    @property
    def shard_lengths(self) -> Sequence[int] | None:
        """The shards, where all datasets that are in shards have the same."""
        known = [lengths for lengths in map(protocol.shard_lengths, self._parts) if lengths is not None]
        return known[0] if known and all(lengths == known[0] for lengths in known) else None

    @property
    def columns(self) -> Columns | None:
        """The arrays of a whole batch, where each dataset's batch is one array."""
        parts = [protocol.columns(part) for part in self._parts]
        rows = [part.rows[0] for part in parts if part is not None and part.bare]
        if len(rows) < len(parts) or self.read_batch is None:
            return None
        return Columns(tuple(rows), tuple(self.datasets) if isinstance(self.datasets, dict) else None)

    @property
    def read_batch(self) -> Callable[..., Any] | None:
        """What reads whole batches, where all datasets read them, and no two draw for the same sample."""
        if not all(map(protocol.batch_reader, self._parts)) or sum(map(protocol.draws, self._parts)) > 1:
            return None
        return self._read_batch

    def _read_batch(self, keys: Sequence[int], *, empty: Empty = np.empty) -> Any:
        readers: list[Any] = [protocol.batch_reader(dataset) for dataset in self._parts]
        return self._batch([read(keys, empty=empty) for read in readers])

    @property
    def begin_batch(self) -> Callable[..., Any] | None:
        """What begins whole batches, where all datasets begin them, and no two draw for the same sample."""
        if self.read_batch is None or not all(map(protocol.batch_beginner, self._parts)):
            return None
        return self._begin_batch

    def _begin_batch(self, keys: Sequence[int], *, empty: Empty = np.empty) -> Any:
        beginners: list[Any] = [protocol.batch_beginner(dataset) for dataset in self._parts]
        return SharedColumns(self._batch, [begin(keys, empty=empty) for begin in beginners])

    def _batch(self, columns: Sequence[Any]) -> Any:
        batch = self._joined(columns)
        return batch if isinstance(batch, dict) else list(batch)  # as tuples are collated

    def where(self, index: int) -> str | None:
        """Say where a sample comes from, as the first dataset that can does."""
        return next((place for dataset in self._parts if (place := protocol.where(dataset, index))), None)

    @property
    def _parts(self) -> tuple[Indexed, ...]:
        return tuple(self.datasets.values()) if isinstance(self.datasets, dict) else self.datasets

    def _joined(self, items: Sequence[Any]) -> Any:
        return dict(zip(self.datasets, items, strict=True)) if isinstance(self.datasets, dict) else tuple(items)


VIEWS.update(concat=lambda *datasets: ConcatDataset(datasets), zip=StackDataset)
