"""Datasets put together: end to end, or side by side."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.context import seeds
from headrace.datasets import parts
from headrace.datasets.arrays import ArrayDataset
from headrace.datasets.base import Dataset, T_co
from headrace.datasets.subset import Subset
from headrace.datasets.tensors import TensorDataset
from headrace.datasets.views import Mapped
from headrace.errors import ArgumentError, UnusableArgument
from headrace.interop.keys import check_whole, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from headrace.context.memory import Empty
    from headrace.datasets.views import Indexed


class ConcatDataset(Dataset[T_co]):
    """Datasets end to end: the samples of the first, then those of the second, and so on; also written ``a + b``.

    >>> from headrace import ConcatDataset
    >>> both = ConcatDataset(["abc", [10, 20]])
    >>> len(both), both[2], both[3], both[-1], both.cumulative_sizes
    (5, 'c', 10, 20, [3, 5])

    ``datasets``: anything with ``__getitem__`` and ``__len__``, whose lengths are asked for once. Whole batches are
    read at a time where the parts are `ArrayDataset`, `Subset` of one, or what the native kernel reads whole batches of
    (`explain`), with rows of the same shapes and dtypes.

    Raises `UnusableArgument`, a ValueError and an AssertionError, for no datasets at all and for iterable ones.
    """

    def __init__(self, datasets: Iterable[Indexed]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise UnusableArgument("datasets should not be an empty iterable")
        for number, dataset in enumerate(self.datasets):
            parts.check_indexed("ConcatDataset", dataset, number, error=UnusableArgument)
        self.cumulative_sizes = list(accumulate(map(len, self.datasets)))

    @property
    def suits_threads(self) -> bool:
        """Whether all of the datasets suit threads."""
        return all(map(parts.suits_threads, self.datasets))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> T_co:
        """Return the sample at an index counted through all datasets."""
        part, place = self._place(index)
        return self.datasets[part][place]  # type: ignore[no-any-return]

    def __getitems__(self, indices: list[int]) -> list[T_co]:
        """Read the samples at these indices, with one call for each dataset that has ``__getitems__``."""
        rows: dict[int, list[int]] = {}
        places = [self._place(index) for index in indices]
        for row, (part, _) in enumerate(places):
            rows.setdefault(part, []).append(row)
        samples: list[Any] = [None] * len(indices)
        for part, mine in rows.items():
            with seeds.among(mine):
                made = parts.many(self.datasets[part], [places[row][1] for row in mine])
            for row, sample in zip(mine, made, strict=True):
                samples[row] = sample
        return samples

    @property
    def reads_many(self) -> bool:
        """Whether all datasets read many samples at once."""
        return all(map(parts.reads_many, self.datasets))

    @property
    def draws(self) -> bool:
        """Whether reading a sample may draw random numbers."""
        return any(map(parts.draws, self.datasets))

    @property
    def read_batch(self) -> Callable[..., Any]:
        """What reads whole batches: there where all datasets hold rows of the same shapes and dtypes."""
        columns = _columns(self.datasets[0])
        if columns is None or any(_columns(dataset) != columns for dataset in self.datasets):
            raise parts.no_batches(self)
        return self._read_batch

    def _read_batch(self, keys: Sequence[int], *, empty: Empty = np.empty) -> Any:
        places = [self._place(key) for key in keys]
        pieces: dict[int, list[int]] = {}
        for row, (part, _) in enumerate(places):
            pieces.setdefault(part, []).append(row)
        if len(pieces) <= 1:  # most batches, where the order is sequential
            return self._piece(next(iter(pieces), 0), [place for _, place in places], empty)
        batch: list[Any] = []
        bare = False
        for part, rows in pieces.items():
            with seeds.among(rows):
                piece = self._piece(part, [places[row][1] for row in rows], np.empty)
            bare = not isinstance(piece, list)
            columns = [piece] if bare else piece
            batch = batch or [empty((len(keys), *column.shape[1:]), column.dtype) for column in columns]
            for filled, column in zip(batch, columns, strict=True):
                filled[rows] = column
        return batch[0] if bare else batch

    def _piece(self, part: int, keys: list[int], empty: Empty) -> Any:
        read: Any = parts.batch_reader(self.datasets[part])
        return read(keys, empty=empty)

    def where(self, index: int) -> str | None:
        """Say where a sample comes from, as the dataset that it is in does."""
        part, place = self._place(index)
        return parts.where(self.datasets[part], place)

    def _place(self, index: int) -> tuple[int, int]:
        """Return which dataset an index falls in, and its index there."""
        size = len(self)
        if type(index) is not int:
            index = whole(index)
        if index < 0:
            if -index > size:
                raise ArgumentError(
                    f"absolute value of index should not exceed dataset length: the index is {index}, the length {size}"
                )
            index += size
        if index >= size:
            raise IndexError(f"index {index} is out of range for a ConcatDataset of {size} samples")
        part = bisect_right(self.cumulative_sizes, index)
        return part, index - self.cumulative_sizes[part - 1] if part else index


class StackDataset(Dataset[T_co]):
    """Datasets side by side: a sample is the tuple, or the dict, of their samples at one index.

    >>> from headrace import StackDataset
    >>> StackDataset("abc", [1, 2, 3])[1]
    ('b', 2)
    >>> StackDataset(letter="abc", number=[1, 2, 3])[-1]
    {'letter': 'c', 'number': 3}

    Whole batches are read at a time where all of the datasets read them. Raises `ArgumentError` for datasets of
    different lengths, for none, for some with names and some without, and (a TypeError too) for iterable ones.
    """

    def __init__(self, *args: Indexed, **kwargs: Indexed) -> None:
        if args and kwargs:
            raise ArgumentError(
                "Supported either tuples (datasets given by position) or dicts (datasets given by name), "
                f"but both were given: {len(args)} without a name, and {', '.join(kwargs)}"
            )
        if not args and not kwargs:
            raise ArgumentError("At least one dataset should be passed")
        self.datasets: tuple[Indexed, ...] | dict[str, Indexed] = args or kwargs
        named: dict[Any, Indexed] = {**kwargs} or dict(enumerate(args))
        for name, dataset in named.items():
            parts.check_indexed("StackDataset", dataset, name)
        lengths = {name: len(dataset) for name, dataset in named.items()}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{name}: {length}" for name, length in lengths.items())
            raise ArgumentError(f"Size mismatch between datasets; they must have one length, and have {found}")
        self._length = next(iter(lengths.values()))

    @property
    def suits_threads(self) -> bool:
        """Whether all of the datasets suit threads."""
        return all(map(parts.suits_threads, self._parts))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        """Return the tuple or dict of the samples at an index."""
        check_whole((index,))
        return self._joined([dataset[index] for dataset in self._parts])

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """Read the samples at these indices, with one call for each dataset that has ``__getitems__``."""
        check_whole(indices)
        columns = [parts.many(dataset, indices) for dataset in self._parts]
        return [self._joined(items) for items in zip(*columns, strict=True)]

    @property
    def reads_many(self) -> bool:
        """Whether all datasets read many samples at once, and no two draw random numbers for the same sample."""
        return all(map(parts.reads_many, self._parts)) and sum(map(parts.draws, self._parts)) <= 1

    @property
    def draws(self) -> bool:
        """Whether reading a sample may draw random numbers."""
        return any(map(parts.draws, self._parts))

    @property
    def read_batch(self) -> Callable[..., Any]:
        """What reads whole batches: there where all datasets read them, and no two draw for the same sample."""
        if not all(map(parts.batch_reader, self._parts)) or sum(map(parts.draws, self._parts)) > 1:
            raise parts.no_batches(self)
        return self._read_batch

    def _read_batch(self, keys: Sequence[int], *, empty: Empty = np.empty) -> Any:
        readers: list[Any] = [parts.batch_reader(dataset) for dataset in self._parts]
        batch = self._joined([read(keys, empty=empty) for read in readers])
        return batch if isinstance(batch, dict) else list(batch)  # as tuples are collated

    def where(self, index: int) -> str | None:
        """Say where a sample comes from, as the first dataset that can does."""
        return next((place for dataset in self._parts if (place := parts.where(dataset, index))), None)

    @property
    def _parts(self) -> tuple[Indexed, ...]:
        return tuple(self.datasets.values()) if isinstance(self.datasets, dict) else self.datasets

    def _joined(self, items: Sequence[Any]) -> Any:
        return dict(zip(self.datasets, items, strict=True)) if isinstance(self.datasets, dict) else tuple(items)


def _columns(dataset: Any) -> tuple[Any, ...] | None:
    """Describe the rows that a dataset gathers whole batches of: the kind, the dtypes and the shapes."""
    if parts.batch_reader(dataset) is None:
        return None
    if isinstance(dataset, ArrayDataset):
        bare = len(dataset.arrays) == 1 and not isinstance(dataset, TensorDataset)
        return bare, *((array.dtype, array.shape[1:]) for array in dataset.arrays)
    if isinstance(dataset, Mapped):
        return dataset.columns
    if isinstance(dataset, Subset):
        return _columns(dataset.dataset)
    return _columns(dataset.datasets[0]) if isinstance(dataset, ConcatDataset) else None
