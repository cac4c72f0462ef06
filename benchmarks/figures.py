"""The small figures that docs/decisions quote, measured here: `python benchmarks/figures.py` (medians)."""

from __future__ import annotations

import io
import sys
from importlib.metadata import files
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
from PIL import Image

import headrace
from headrace.context.seeds import Purpose, generator, key_of
from headrace.context.timing import counting, timed

if TYPE_CHECKING:
    from collections.abc import Callable

PHOTOGRAPHS = [path.read_bytes() for path in sorted((Path(headrace.__file__).parent / "demo").glob("*.jpg"))]
BATCH = (64, 3, 224, 224)


def microseconds(function: Callable[[], object], times: int) -> float:
    """Return the median of seven rounds, for one call."""
    rounds = []
    for _ in range(7):
        began = perf_counter()
        for _ in range(times):
            function()
        rounds.append((perf_counter() - began) / times)
    return median(rounds) * 1e6


def mebibytes(distribution: str) -> float:
    """Return the size of an installed distribution, unpacked."""
    paths = (Path(str(file.locate())) for file in files(distribution) or ())
    return sum(path.stat().st_size for path in paths if path.exists()) / 2**20


def stage() -> None:
    with timed("stage"):
        pass


def main() -> None:
    """Print them."""
    key, used = key_of(0), np.empty(BATCH, np.float32)
    with counting():
        counted = microseconds(stage, 10_000)
    rows = [
        ("0002", "decode a photograph: Pillow", microseconds(_by_pillow, 5) / len(PHOTOGRAPHS), "us"),
        ("0002", "decode a photograph: simplejpeg", microseconds(_by_simplejpeg, 5) / len(PHOTOGRAPHS), "us"),
        *(("0002", f"{name}, unpacked", mebibytes(name), "MiB") for name in ("simplejpeg", "opencv-python-headless")),
        ("0004", "Philox by place", microseconds(lambda: generator(key, Purpose.SAMPLE, 1, 2), 2000), "us"),
        ("0004", "SeedSequence of a tuple", microseconds(lambda: np.random.default_rng((1, 2, 3)), 2000), "us"),
        ("0005", "a timed stage, counted", counted, "us"),
        ("0006", "write a batch: fresh memory", microseconds(lambda: np.empty(BATCH, np.float32).fill(1), 5), "us"),
        ("0006", "write a batch: used memory", microseconds(lambda: used.fill(1), 5), "us"),
    ]
    for page, name, value, unit in rows:
        sys.stdout.write(f"{page}  {name:34} {value:10,.1f} {unit}\n")


def _by_pillow() -> None:
    for data in PHOTOGRAPHS:
        np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _by_simplejpeg() -> None:
    for data in PHOTOGRAPHS:
        simplejpeg.decode_jpeg(data)


if __name__ == "__main__":
    main()
