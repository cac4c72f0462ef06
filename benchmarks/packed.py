"""Packed datasets: bytes and images per second of each store, beside the files: `python benchmarks/packed.py`.

The same photographs as image files, packed in each store, as an array in memory, and a limit: an array of images that
have the size of the crops already, which are only normalized. Work: random resized crop 224, flip, normalize, float32
NCHW. Each row is the median of a few epochs in one process.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

import headrace
from headrace import (
    ArrayDataset,
    DataLoader,
    ImageFiles,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToCHW,
    ToFloat,
)
from headrace.datasets import PackedDataset

if TYPE_CHECKING:
    from collections.abc import Iterator

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CROP = 224


def crops(photos: Path, target: Path, count: int) -> list[Path]:
    """Cut photographs of 500x375 out of those that headrace brings along, as JPEG files."""
    from PIL import Image

    sources = sorted(photos.glob("*.jpg"))
    random = np.random.default_rng(0)
    paths = []
    for number in range(count):
        with Image.open(sources[number % len(sources)]) as image:
            side = min(image.width, image.height * 4 // 3, int(random.integers(240, 512)))
            left, top = (int(random.integers(0, most - part + 1)) for most, part in zip(
                image.size, (side, side * 3 // 4), strict=True
            ))  # fmt: skip
            paths.append(target / f"{number:06}.jpg")
            box = (left, top, left + side, top + side * 3 // 4)
            image.convert("RGB").resize((500, 375), box=box).save(paths[-1], quality=92)
    return paths


def photos_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})


def rate(dataset: Any, *, workers: int, epochs: int, batch: int) -> tuple[float, float]:
    """Return images per second, and the seconds to the first batch."""
    loader = DataLoader(dataset, batch, shuffle=True, seed=0, num_workers=workers)
    rates, first = [], 0.0
    for epoch in range(epochs + 1):
        begun = perf_counter()
        for number, _ in enumerate(loader):
            if epoch == number == 0:
                first = perf_counter() - begun
        rates.append(len(dataset) / (perf_counter() - begun))
    return median(rates[1:]), first  # the first epoch compares checksums, and fills the page cache


def machine() -> str:
    """Say what the figures come from."""
    return (
        f"{len(os.sched_getaffinity(0))} cores, Linux {platform.release()}, Python {platform.python_version()}, "
        f"NumPy {np.__version__}, headrace {headrace.__version__}; load average before: {os.getloadavg()[0]:.1f}"
    )


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def rows(files: ImageFiles, folder: Path, arguments: argparse.Namespace) -> Iterator[tuple[str, int, Any, float]]:
    """Yield name, bytes, dataset of images, and seconds to pack it."""
    yield "image files", sum(Path(files.where(n)).stat().st_size for n in range(len(files))), files, 0.0
    for store in ("jpeg", "smart", "raw"):
        budget = int(0.5 * len(files) * arguments.max_side**2 * 9 / 4) if store == "smart" else None
        begun = perf_counter()
        files.pack(folder / store, store=store, max_side=arguments.max_side, budget=budget, workers=arguments.workers)
        yield store, size_of(folder / store), PackedDataset(folder / store), perf_counter() - begun
    side = arguments.max_side
    pixels = np.stack([Resize((side * 3 // 4, side))(image) for image, _ in files])
    yield "array in memory", pixels.nbytes, ArrayDataset(pixels, np.zeros(len(files), np.int64)), 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of JPEG files; by default crops of headrace's own")
    parser.add_argument("--images", type=int, default=750, help="how many photographs, the files repeated")
    parser.add_argument("--max-side", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        own = Path(headrace.__file__).parent / "demo"
        (Path(place) / "photos").mkdir()
        found = photos_in(arguments.photos) if arguments.photos else []
        paths = found or crops(own, Path(place) / "photos", min(arguments.images, 750))
        files = ImageFiles([paths[number % len(paths)] for number in range(arguments.images)])
        options = {"workers": arguments.workers, "epochs": arguments.epochs, "batch": arguments.batch}
        print(f"{len(files):,} photographs, longest side {arguments.max_side}, {arguments.workers} workers\n")
        print("| stored as | MB | seconds to pack | first batch, ms | images/s |")
        print("| --- | ---: | ---: | ---: | ---: |")
        tail = (ToFloat(), Normalize(MEAN, STD), ToCHW())
        for name, nbytes, dataset, seconds in rows(files, Path(place), arguments):
            mapped = dataset.map(RandomResizedCrop(CROP), RandomHorizontalFlip(), *tail)
            speed, first = rate(mapped, **options)
            print(f"| {name} | {nbytes / 1e6:,.1f} | {seconds:.1f} | {1e3 * first:.1f} | {speed:,.0f} |", flush=True)
        ready = np.random.default_rng(0).integers(0, 256, (len(files), CROP, CROP, 3), dtype=np.uint8)
        speed, first = rate(ArrayDataset(ready, np.zeros(len(files), np.int64)).map(*tail), **options)
        print(f"| limit: crops in memory | {ready.nbytes / 1e6:,.1f} |  | {1e3 * first:.1f} | {speed:,.0f} |")


if __name__ == "__main__":
    main()
