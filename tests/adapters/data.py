"""What the adapters' tests read; apart from them, so that a worker process need not import a framework to have it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

import headrace
from headrace import Compose, Normalize, ToCHW, ToDtype, ToFloat

PATCH = 16


class Patches(headrace.Dataset[Any]):
    """Patches cut from photographs in rows: an image (uint8), and which photograph it is from (int64)."""

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


class Images(headrace.Dataset[Any]):
    """Arrays of 64 KiB, each filled with its index."""

    def __init__(self, count: int = 40) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return np.full((64, 1024), index, np.uint8)


class BrokenImages(Images):
    def __getitem__(self, index: int) -> Any:
        if index == 5:
            raise KeyError("five")
        return super().__getitem__(index)


FINISHES: dict[str, list[Any]] = {
    "floats": [ToFloat()],
    "normalised": [ToFloat(), Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ToCHW()],
    "one number": [ToCHW(), ToFloat(), Normalize(0.5, 0.25, channels_first=True)],
    "behind": [ToCHW(), ToFloat(), Normalize((0.5, 0.4, 0.3), 0.25, channels_first=True)],
    "twice": [ToFloat(), Normalize(0.5, 0.25), Normalize((0.1, 0.2, 0.3), 2), ToCHW()],
}
"""What a device may be left to do, by name."""


HALVES = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
"""Floats of two bytes, by name, and how far apart two neighbours are, as a share of them."""


def halves(dtype: str) -> Any:
    """Images as floats of two bytes, and their labels; rows of 30 KB, which land as they are made."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 70, 70, 3), np.uint8)
    return headrace.ArrayDataset(pixels, np.arange(20, dtype=np.float32)).map(
        headrace.RandomHorizontalFlip(), ToFloat(), Normalize(0.4, 0.2), ToCHW(), ToDtype(dtype)
    )


def batches_to_finish() -> dict[str, np.ndarray]:
    """Batches of bytes, of two bytes a value, and of floats."""
    rng = np.random.default_rng(0)
    return {
        "uint8": rng.integers(0, 256, (4, 5, 6, 3), np.uint8),
        "uint16": rng.integers(0, 65536, (2, 5, 6, 3), np.uint16),
        "float32": rng.random((2, 3, 3, 3), np.float32),
    }


def by_the_steps(batch: np.ndarray, name: str) -> np.ndarray:
    """Finish a batch sample by sample, as a dataset would."""
    return np.stack([Compose(*FINISHES[name])(sample) for sample in batch])
