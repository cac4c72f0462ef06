"""headrace on the same images in tar files."""

from __future__ import annotations

from functools import partial

from common import run
from headrace_loader import make

if __name__ == "__main__":
    run(partial(make, shards=True), packages=("headrace", "numpy"))
