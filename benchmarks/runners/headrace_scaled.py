"""headrace with ``scaled_decode``: large images are decoded no larger than the crop needs."""

from __future__ import annotations

from functools import partial

from common import run
from headrace_loader import make

if __name__ == "__main__":
    run(partial(make, scaled_decode=True), packages=("headrace", "numpy"))
