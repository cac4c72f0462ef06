"""Real data, small enough to learn in a second: patches of the bundled photographs, whose names are the labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.adapters.data import Patches

import headrace

NAMES = ["astronaut", "coffee", "rocket"]


@pytest.fixture(scope="session")
def patches() -> Patches:
    image = pytest.importorskip("PIL.Image")
    photographs = []
    for name in NAMES:
        with image.open(Path(headrace.__file__).parent / "demo" / f"{name}.jpg") as photograph:
            photographs.append(np.array(photograph.convert("RGB")))
    return Patches(photographs, 600)
