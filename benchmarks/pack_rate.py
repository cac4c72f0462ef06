"""How fast photographs are packed, beside the work that cannot be avoided: `python benchmarks/pack_rate.py`.

The limit decodes, scales and encodes the same files on as many threads, by the same native functions, and drops the
result: no container, no checksums, no reading back, no disk. Files are in the page cache. Each round runs both, and the
ratios are those within a round.
"""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from packed import crops, machine, photos_in

import headrace
from headrace import ImageFiles
from headrace._native import extension
from headrace.datasets.packed_samples import encoded_jpeg

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

QUALITY = 90
MOST_PIXELS, ORIENTED = 1 << 28, True


class Timed(NamedTuple):
    """Seconds, and those of all processors."""

    seconds: float
    cpu: float


def timed(work: Callable[[], Any]) -> Timed:
    begun, before = perf_counter(), process_time()
    work()
    return Timed(perf_counter() - begun, process_time() - before)


def read(path: Path, side: int) -> Any:
    """Decode and scale a file; None where the native extension does not read it, and Pillow does."""
    return extension.read_image(path.read_bytes(), side, MOST_PIXELS, ORIENTED)


def limit(paths: Sequence[Path], store: str, side: int, threads: int) -> None:
    """Decode, scale and encode all files; drop what comes out."""

    def work(first: int) -> None:
        for path in paths[first::threads]:
            rows, columns, _, pixels = read(path, side)
            if store == "jpeg":
                encoded_jpeg(np.frombuffer(pixels, np.uint8).reshape(rows, columns, 3), QUALITY)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))


def row(name: str, runs: Sequence[Timed], images: int, ratio: str) -> str:
    """Return a line of the table: medians (smallest..largest) of all rounds."""
    rates = [images / each.seconds for each in runs]
    cpu = median(each.cpu for each in runs) * 1e3 / images
    return f"| {name} | {median(rates):,.0f} ({min(rates):,.0f}..{max(rates):,.0f}) | {cpu:.2f} | {ratio} |"


def tables(arguments: argparse.Namespace, folder: Path) -> str:
    """Run all rounds; return the page without its heading."""
    found = photos_in(arguments.photos) if arguments.photos else []
    found = [path for path in found if read(path, arguments.max_side) is not None]
    paths = found or crops(Path(headrace.__file__).parent / "demo", folder, arguments.different)
    paths = [paths[number % len(paths)] for number in range(arguments.images)]
    files, threads, side = ImageFiles(paths), arguments.workers, arguments.max_side
    lines = ["| work | images/s | CPU ms an image | times the limit |", "| --- | ---: | ---: | ---: |"]
    for store in arguments.stores:
        runs = list[tuple[Timed, Timed]]()
        for _ in range(arguments.rounds):
            with tempfile.TemporaryDirectory(dir=arguments.target) as target:
                least = timed(lambda: limit(paths, store, side, threads))  # noqa: B023  called at once
                place = Path(target) / "packed"
                options = {"store": store, "max_side": side, "quality": QUALITY, "workers": threads}
                runs.append((least, timed(lambda: files.pack(place, **options))))  # noqa: B023  called at once
        least_runs, pack_runs = zip(*runs, strict=True)
        ratios = [least.seconds / packed.seconds for least, packed in runs]
        said = f"{median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"
        work = "decode, scale, encode" if store == "jpeg" else "decode, scale"
        lines.append(row(f"limit: {work}", least_runs, len(paths), ""))
        lines.append(row(f'`pack(store="{store}")`', pack_runs, len(paths), said))
    about = f"{arguments.different if not found else len(found):,} photographs repeated to {len(paths):,}, "
    about += f"longest side {side}, {threads} threads, medians of {arguments.rounds} rounds (smallest..largest)"
    return f"{about}\n\n" + "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of JPEG files; by default crops of headrace's own")
    parser.add_argument("--different", type=int, default=250, help="how many different photographs")
    parser.add_argument("--images", type=int, default=20_000, help="how many to pack, the photographs repeated")
    parser.add_argument("--max-side", type=int, default=256)
    parser.add_argument("--stores", nargs="+", default=["jpeg"], choices=("jpeg", "raw"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--target", type=Path, help="a folder on the disk to write to; by default the temporary one")
    parser.add_argument("--output", type=Path, help="a Markdown file for the table")
    arguments = parser.parse_args()
    said = f"- {machine()}"
    with tempfile.TemporaryDirectory() as folder:
        page = f"{said}\n- {tables(arguments, Path(folder))}\n"
    print(page)
    if arguments.output is not None:
        head = (
            "# Packing beside its limit\n"
            "How fast `dataset.pack` writes photographs, beside the work that cannot be avoided: the same files\n"
            "decoded, scaled and encoded on as many threads by the same native functions, and dropped. Packing also\n"
            "computes checksums, writes the shards, flushes them to disk and reads them back.\n\n"
            "`python benchmarks/pack_rate.py --output benchmarks/PACKING.md` makes this page.\n\n"
        )
        arguments.output.write_text(head + page, encoding="utf-8")


if __name__ == "__main__":
    main()
