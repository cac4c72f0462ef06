"""What the adapters' tests read; apart from them, so that a worker process need not import a framework to have it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

import headrace

PATCH = 16


class Patches(headrace.Dataset[Any]):
    """Patches cut from photographs in rows: a picture (uint8), and which photograph it is from (int64)."""

    def __init__(self, photographs: list[npt.NDArray[np.uint8]], count: int) -> None:
        self.photographs = photographs
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.uint8], int]:
        label = index % len(self.photographs)
        photograph = self.photographs[label]
        row, column = divmod(index // len(self.photographs), photograph.shape[1] // PATCH)
        row %= photograph.shape[0] // PATCH
        patch = photograph[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
        return patch, label


class Rows(headrace.Dataset[Any]):
    """Rows whose first number is their index, and a target."""

    def __init__(self, count: int = 20) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return np.array([index, 1], np.float32), np.float32(index / self.count)


class Weighted(Rows):
    def __getitem__(self, index: int) -> Any:
        x, y = super().__getitem__(index)
        return x, y, np.float32(index < 10)


class Named(Rows):
    def __getitem__(self, index: int) -> Any:
        x, y = super().__getitem__(index)
        return {"left": x, "right": x + 1}, y


class Paired(Rows):
    def __getitem__(self, index: int) -> Any:
        x, y = super().__getitem__(index)
        return (x, x + 1), y


class Broken(Rows):
    def __getitem__(self, index: int) -> Any:
        if index == 9:
            raise LookupError("row nine")
        return super().__getitem__(index)


class Stream(headrace.IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return (Rows()[index] for index in range(20))


class Counted(Stream):
    def __len__(self) -> int:
        return 20


class Endless(headrace.IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        index = 0
        while True:
            yield Rows()[index % 20]
            index += 1


class Pictures(headrace.Dataset[Any]):
    """Arrays of 64 KiB, each filled with its index."""

    def __init__(self, count: int = 40) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return np.full((64, 1024), index, np.uint8)


class BrokenPictures(Pictures):
    def __getitem__(self, index: int) -> Any:
        if index == 5:
            raise KeyError("five")
        return super().__getitem__(index)
