"""Measure memory and time of reading many images, for docs/guide/faces.md.

`python benchmarks/faces.py` (about three minutes on a quiet machine; needs matplotlib: `pip install 'headrace[plots]'`)
makes 28,204 images, prints the two tables, and writes them and the two plots into docs/guide. Each run is a separate
process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

import numpy as np
from guide_tables import insert

import headrace

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGES, WIDTH, HEIGHT = 28_204, 160, 120
SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 256]
OUTPUTS = 128
"""The outputs per image of the model of the second plot: one matrix product."""

GUIDE = Path(__file__).parent.parent / "docs" / "guide"
WAYS = {
    "list": "all in a list",
    "one by one": "one by one",
    "batches": "in batches of 64",
    "threads": "in batches of 64, two threads",
}


def make_images(folder: Path, wanted: int) -> None:
    """Write crops of the bundled photographs as JPEG files, in folders of a thousand."""
    from PIL import Image

    rng = np.random.default_rng(0)
    photographs = [np.asarray(Image.open(path).convert("RGB"))
                   for path in sorted((Path(headrace.__file__).parent / "demo").glob("*.jpg"))]  # fmt: skip
    for number in range(wanted):
        photograph = photographs[number % len(photographs)]
        top, left = (
            rng.integers(have - want + 1) for have, want in zip(photograph.shape, (HEIGHT, WIDTH), strict=False)
        )
        file = folder / f"{number // 1000:02}" / f"{number:05}.jpg"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(photograph[top : top + HEIGHT, left : left + WIDTH]).save(file, quality=90)


def resident() -> float:
    """Return the memory of this process, in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def images(way: str, folder: Path) -> Iterator[int]:
    """Read every image in one of the ways; yield the number of images in each step."""
    faces = headrace.datasets.FaceDataset(folder)
    if way == "list":
        from PIL import Image

        kept = []
        for path in sorted(folder.rglob("*.jpg")):
            with Image.open(path) as image:
                kept.append(np.asarray(image.convert("RGB")))
            yield 1
    elif way == "one by one":
        for _ in faces:
            yield 1
    else:
        for batch in headrace.DataLoader(faces, 64, num_workers=2 if way == "threads" else 0):
            yield len(batch)


def memory_of(way: str, folder: Path) -> dict[str, Any]:
    """Measure one pass: the memory along the way, and the time of it all."""
    began, used, before, read = perf_counter(), process_time(), resident(), 0
    seen, held = [0], [0.0]
    for count in images(way, folder):
        read += count
        if read - seen[-1] >= 250:
            seen.append(read)
            held.append(resident() - before)
    return {"seconds": perf_counter() - began, "cpu": process_time() - used, "read": read, "seen": seen, "held": held}


def time_by_size(size: int, folder: Path) -> dict[str, float]:
    """Measure the CPU time of 1,024 images in batches of a size: reading, and one matrix product."""
    faces = headrace.datasets.FaceDataset(folder, limit=1024)
    weights = np.random.default_rng(0).normal(size=(HEIGHT * WIDTH * 3, OUTPUTS)).astype(np.float32)
    reading = modelling = 0.0
    began = process_time()
    for batch in headrace.DataLoader(faces, size):
        arrived = process_time()
        _ = batch.reshape(len(batch), -1).astype(np.float32) @ weights
        reading, began = reading + arrived - began, process_time()
        modelling += began - arrived
    return {"reading": reading / len(faces) * 1000, "model": modelling / len(faces) * 1000}


def apart(*arguments: str | Path) -> Any:
    """Run this script for one measurement, in a process of its own, with BLAS on one thread."""
    command = [sys.executable, __file__, *map(str, arguments)]
    quiet = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | quiet)
    return json.loads(done.stdout)


def plot_memory(runs: dict[str, dict[str, Any]], path: Path) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for way, run in runs.items():
        shown = [(seen, held) for seen, held in zip(run["seen"], run["held"], strict=True) if held >= 1]
        axes.plot(*zip(*shown, strict=True), label=f"{WAYS[way]}: {run['cpu']:.0f} s of CPU")
    # Three of the four would lie on the axis of a linear plot.
    axes.set(xlabel="images read", ylabel="memory, MiB (logarithmic)", xlim=(0, None), yscale="log", ylim=(1, None))
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def plot_batching(rows: dict[int, dict[str, float]], path: Path) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for key, label in (("reading", "reading and decoding"), ("model", "a model: one matrix product")):
        axes.plot(list(rows), [row[key] for row in rows.values()], marker="o", label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(rows), map(str, rows))
    axes.set(xlabel="images per batch", ylabel="CPU ms per image", ylim=(0, None))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=GUIDE, help="folder of faces.md and the plots")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        kind, what, folder = options.measure
        result = memory_of(what, Path(folder)) if kind == "memory" else time_by_size(int(what), Path(folder))
        print(json.dumps(result))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder, options.images)
        # Round by round, so that a slow spell of the machine falls on all; of each, the round of the median time.
        rounds = [{way: apart("--measure", "memory", way, folder) for way in WAYS} for _ in range(options.rounds)]
        runs = {
            way: sorted((each[way] for each in rounds), key=lambda run: run["cpu"])[len(rounds) // 2] for way in WAYS
        }
        sizes = [{size: apart("--measure", "time", size, folder) for size in SIZES} for _ in range(options.rounds)]
        rows = {
            size: {key: median(each[size][key] for each in sizes) for key in ("reading", "model")} for size in SIZES
        }
    print(f"{options.images:,} images of {WIDTH}x{HEIGHT}, median of {options.rounds} rounds\n")
    ways = ["| method | memory, MiB | seconds | CPU seconds |", "| --- | ---: | ---: | ---: |"]
    for way, run in runs.items():
        ways.append(f"| {WAYS[way]} | {max(run['held']):,.0f} | {run['seconds']:.1f} | {run['cpu']:.1f} |")
    batches = ["| batch | reading, CPU ms per image | model, CPU ms per image |", "| ---: | ---: | ---: |"]
    batches += [f"| {size} | {row['reading']:.2f} | {row['model']:.2f} |" for size, row in rows.items()]
    print("\n".join((*ways, "", *batches)))
    insert(options.output / "faces.md", "methods", ways)
    insert(options.output / "faces.md", "batch sizes", batches)
    plot_memory(runs, options.output / "faces-memory.png")
    plot_batching(rows, options.output / "faces-batching.png")


if __name__ == "__main__":
    main()
