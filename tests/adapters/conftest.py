"""Real data, small enough to learn in a second: patches of the bundled photographs, whose names are the labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import headrace

PATCH = 16
NAMES = ["astronaut", "coffee", "rocket"]


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


@pytest.fixture(scope="session")
def patches() -> Patches:
    image = pytest.importorskip("PIL.Image")
    photographs = []
    for name in NAMES:
        with image.open(Path(headrace.__file__).parent / "demo" / f"{name}.jpg") as photograph:
            photographs.append(np.array(photograph.convert("RGB")))
    return Patches(photographs, 600)
