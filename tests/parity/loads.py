"""What the loaders read that are held against each other; apart from the tests, so that worker processes find it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch.utils.data import Dataset, IterableDataset, get_worker_info  # noqa: E402


class Numbers(Dataset[Any]):
    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self.size:
            raise IndexError(index)
        return index


class Records(Numbers):
    def __getitem__(self, index: int) -> Any:
        pair = (index / 2, np.full((2, 2), index, np.float32))
        return {"x": torch.tensor([index, index]), "name": str(index), "pair": pair}


class Many(Numbers):
    def __getitems__(self, indices: list[int]) -> list[Any]:
        assert all(type(index) is int for index in indices)
        return [np.int64(index) for index in indices]


class Broken(Numbers):
    """The third sample raises an error, the sixth another."""

    def __getitem__(self, index: int) -> Any:
        if index == 2:
            raise KeyError("the third")
        if index == 5:
            raise UnicodeDecodeError("utf-8", b"x", 0, 1, "an error that one string cannot make")
        return super().__getitem__(index)


class Stream(IterableDataset[Any]):
    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[Any]:
        return iter(range(self.size))


class Counted(Stream):
    def __len__(self) -> int:
        return self.size


class Shared(Counted):
    """Gives each worker its part."""

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        return iter(range(self.size) if info is None else range(self.size)[info.id :: info.num_workers])


class BrokenStream(Stream):
    def __iter__(self) -> Iterator[Any]:
        yield from range(self.size)
        if self.size > 4:
            raise OSError("it broke off")


class Unsized:
    """A sampler without a length."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.size))


def bag(samples: Any) -> Any:
    return {"bag": samples}


def greet(number: int) -> None:
    info: Any = get_worker_info()
    assert (info.id, info.num_workers, info.seed) == (number, info.num_workers, torch.initial_seed())


def leaves(value: Any) -> list[str]:
    """Return all that is in batches, in an order that does not depend on theirs."""
    if isinstance(value, list | tuple):
        return sorted(leaf for item in value for leaf in leaves(item))
    return [repr(value)]


def blank(value: Any) -> Any:
    """Return a batch without what is in it: only its containers, dtypes and shapes."""
    if isinstance(value, list | tuple):
        return [blank(item) for item in value]
    return type(value).__name__ if isinstance(value, int | float) or str(value).isdigit() else value
