"""One data set in all formats, read by headrace: what docs/guide/formats.md quotes (`python benchmarks/formats.py`).

The photos of `run.py` are written once in each format, and so are small records. Each turn indexes the shards, opens
them with the saved index, reads samples at random, and runs a shuffled loader with two threads for some seconds.
Everything is in the page cache. The tables show medians; the ratio to loose files is taken within each round.
`--insert` puts the tables into docs/guide/formats.md.
"""

from __future__ import annotations

import argparse
import struct
import sys
import tempfile
import zipfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import shard_data
from data import WORKLOADS, cached, photo_files
from data import prepare as prepare_files
from guide_tables import insert

from headrace import (
    DataLoader,
    ImageFiles,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    ToCHW,
    ToFloat,
)
from headrace.datasets import (
    ArrowDataset,
    LitDataset,
    MDSDataset,
    ParquetDataset,
    TFRecordDataset,
    WebDataset,
    ZipDataset,
)
from headrace.formats.tfrecord import masked
from headrace.samplers import ShardSampler
from run import default_cache

if TYPE_CHECKING:
    from collections.abc import Callable

GUIDE = Path(__file__).parents[1] / "docs" / "guide" / "formats.md"
TITLES = {
    "files": "image files", "tar": "tar (WebDataset)", "zip": "zip", "mds": "MDS (Mosaic)", "litdata": "LitData",
    "arrow": "Arrow (`datasets`)", "tfrecord": "TFRecord", "parquet": "Parquet",
}  # fmt: skip
IMAGE = {"tar": "jpg", "zip": "jpg", "tfrecord": "image/encoded"}
LABEL = {"tar": "cls", "zip": "cls", "tfrecord": "image/class/label"}
SMALL = 1000
"""Different small records; they are written again and again."""

WINDOW = 4
"""Row groups of Parquet that are shuffled together."""


def write_zip(listing: Path, target: Path) -> None:
    for number, part in shard_data.parts(listing):
        with zipfile.ZipFile(target / f"{number:05}.zip", "w") as archive:
            for key, data, label in part:
                archive.writestr(f"{key}.jpg", data)
                archive.writestr(f"{key}.cls", str(label))


def write_tfrecord(listing: Path, target: Path) -> None:
    """Write a `tf.train.Example` for each sample."""
    for number, part in shard_data.parts(listing):
        with (target / f"{number:05}.tfrecord").open("wb") as file:
            for _, data, label in part:
                image = _field(1, _field(1, b"image/encoded") + _field(2, _field(1, _field(1, data))))
                numbers = _field(3, _field(1, _varint(label)))
                record = _field(1, image + _field(1, _field(1, b"image/class/label") + _field(2, numbers)))
                length = struct.pack("<Q", len(record))
                file.write(length + struct.pack("<I", masked(length)) + record + struct.pack("<I", masked(record)))


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def write_parquet(listing: Path, target: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for number, part in shard_data.parts(listing):
        columns = {"image": [data for _, data, _ in part], "label": [label for _, _, label in part]}
        pq.write_table(pa.table(columns), target / f"{number:05}.parquet", row_group_size=64, compression="none")


WRITERS: dict[str, Callable[[Path, Path], None]] = {
    "zip": write_zip,
    "tfrecord": write_tfrecord,
    "parquet": write_parquet,
}


def opened(form: str, folder: Path, index: Any = None) -> Any:
    """Open the shards of a format; without an index they are indexed now."""
    if form in ("arrow", "parquet"):
        kind: Any = ArrowDataset if form == "arrow" else ParquetDataset
        return kind(folder, decoders={"image": "jpg"})
    if form == "tfrecord":
        return TFRecordDataset(folder, index=index)
    kinds: dict[str, Any] = {"tar": WebDataset, "zip": ZipDataset, "mds": MDSDataset, "litdata": LitDataset}
    decoders = {"image": "jpg"} if form in ("mds", "litdata") else {}
    return kinds[form](folder if form != "zip" else sorted(folder.glob("*.zip")), index=index, decoders=decoders)


def seconds(function: Callable[[], Any]) -> float:
    began = perf_counter()
    function()
    return perf_counter() - began


def size_of(folder: Path) -> tuple[int, int]:
    """Return the number of files in a folder, and their bytes."""
    found = [path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".index"]
    return len(found), sum(found)


def scan(form: str, folder: Path) -> dict[str, float]:
    """Index the shards, then open them with the saved index."""
    with tempfile.TemporaryDirectory() as index:
        count = len(opened(form, folder, index))
        again = min(seconds(lambda: opened(form, folder, index)) for _ in range(3))
    took = min(seconds(lambda: opened(form, folder)) for _ in range(3))
    return {"index_s": took, "again_ms": again * 1e3, "samples": count}


def random_read(form: str, dataset: Any, count: int) -> float:
    """Return the microseconds in which the bytes of an image are read, at random."""
    order = np.random.default_rng(0).permutation(len(dataset))[:count].tolist()
    name = IMAGE.get(form, "image")
    return seconds(lambda: [dataset.read(index, name) for index in order]) / len(order) * 1e6


def rate(dataset: Any, duration: float, sampler: Any = None) -> float:
    """Return the images a second of a shuffled loader, its first batches left out."""
    work = WORKLOADS["photos"]
    steps = (RandomResizedCrop(work.size), RandomHorizontalFlip(), ToFloat(), Normalize(0.5, 0.25), ToCHW())
    order: dict[str, Any] = {"shuffle": True} if sampler is None else {"sampler": sampler}
    loader = DataLoader(dataset.map(*steps), work.batch, seed=0, num_workers=2, **order)
    images, took, settle = 0, 0.0, min(3, len(loader) // 4)
    while took < duration:
        last = perf_counter()
        for number, (batch, _) in enumerate(loader):
            now = perf_counter()
            if number > settle:
                images, took = images + len(batch), took + now - last
            last = now
    return images / took


def measure(form: str, folder: Path, labels: list[int], given: argparse.Namespace) -> dict[str, float]:
    """Return the figures of one turn of a format."""
    if form == "files":
        paths = sorted(map(str, folder.iterdir()))
        dataset = ImageFiles(paths, labels)
        began = perf_counter()
        order = np.random.default_rng(0).permutation(len(paths))[: given.reads]
        for index in order.tolist():
            with open(paths[index], "rb") as file:  # noqa: PTH123  as lean as can be
                file.read()
        return {"read_us": (perf_counter() - began) / len(order) * 1e6, "rate": rate(dataset, given.seconds)}
    shards = opened(form, folder)
    pairs = shards.tuple(IMAGE.get(form, "image"), LABEL.get(form, "label"))
    sampler = ShardSampler.of(pairs, window=WINDOW, seed=0) if form == "parquet" else None
    found = scan(form, folder) | {"rate": rate(pairs, given.seconds, sampler)}
    if form != "parquet":
        found["read_us"] = random_read(form, shards, given.reads)
    return found


def prepare(cache: Path, files: list[Path], total: int, name: str) -> dict[str, Path]:
    """Write samples in each format; return the folders of those that could be written."""
    own = [form for form in shard_data.FAMILIES if shard_data.writer(form)]
    folder = cache / f"all-formats-{name}-{total}-{len(files)}-{'-'.join(own) or 'ours'}"
    folder.mkdir(parents=True, exist_ok=True)
    listing = folder / "list.tsv"
    listing.write_text("".join(f"{files[n % len(files)].resolve()}\t{n % len(files) % 10}\n" for n in range(total)))

    def files_of(target: Path) -> None:
        for key, data, _ in shard_data.samples(listing):
            (target / f"{key}.jpg").write_bytes(data)

    found = {"files": cached(folder / "files", files_of)} if name == "photos" else {}
    for form in TITLES:
        if form in WRITERS:
            found[form] = cached(folder / form, lambda target, form=form: WRITERS[form](listing, target))
        elif form != "files":
            found[form] = cached(folder / form, lambda target, form=form: shard_data.write(form, listing, target))
    found = {form: place for form, place in found.items() if size_of(place)[0]}
    for place in found.values():  # into the page cache
        for path in place.rglob("*"):
            if path.is_file():
                path.read_bytes()
    return found


def formats_table(given: argparse.Namespace) -> list[str]:
    files = photo_files(given.cache, given.photos)
    folders = prepare(given.cache, files, given.images, "photos")
    labels = [int(line.rsplit("\t", 1)[1]) for line in (folders["files"].parent / "list.tsv").read_text().splitlines()]
    rounds: dict[str, list[dict[str, float]]] = {form: [] for form in folders}
    for turn in range(given.rounds):
        for form, folder in folders.items():
            rounds[form].append(measure(form, folder, labels, given))
            print(f"round {turn + 1}: {form}: {rounds[form][-1]}", file=sys.stderr, flush=True)
    whole = size_of(folders["files"])[1]
    lines = [
        f"{given.images:,} photographs ({whole / 1e6:,.0f} MB), shuffled, random resized crops of 224x224, 2 threads.",
        "",
        "| format | files | size | to index | to open again | random read | images/s | x image files |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for form, found in rounds.items():
        count, size = size_of(folders[form])

        def middle(key: str, unit: str, scale: float = 1.0, digits: int = 0, found: Any = found) -> str:
            values = [each[key] * scale for each in found if key in each]
            return f"{median(values):,.{digits}f} {unit}".strip() if values else ""

        ratio = median(mine["rate"] / base["rate"] for mine, base in zip(found, rounds["files"], strict=True))
        cells = [
            TITLES[form], f"{count:,}", f"{size / whole:.3f}", middle("index_s", "ms", 1e3),
            middle("again_ms", "ms", 1, 1), middle("read_us", "µs"), middle("rate", ""), f"{ratio:.2f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def scan_table(given: argparse.Namespace) -> list[str]:
    """Return the rates at which photos and small records are indexed."""
    small = prepare_files(WORKLOADS["thumbnails"], given.cache, given.photos, SMALL).folder
    sets = {
        "photos": prepare(given.cache, photo_files(given.cache, given.photos), given.images, "photos"),
        "small": prepare(given.cache, sorted(small.glob("*.jpg")), given.records, "small"),
    }
    lines = [
        f"To index shards: the photographs, and {given.records:,} JPEG files of 32x32, about 1 KB each; medians.",
        "",
        "| format | photos, GB/s | photos, µs each | small records, GB/s | small records, µs each |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for form in [form for form in TITLES if form != "files" and form in sets["small"]]:
        cells = [TITLES[form]]
        for folders in sets.values():
            runs = [scan(form, folders[form]) for _ in range(given.rounds)]
            took, count = median(run["index_s"] for run in runs), runs[0]["samples"]
            cells += [f"{size_of(folders[form])[1] / took / 1e9:,.2f}", f"{took / count * 1e6:,.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", nargs="+", choices=("formats", "scan"), default=["formats", "scan"])
    parser.add_argument("--photos", type=Path, help="folder or tar of JPEG files (default: crops of bundled ones)")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--records", type=int, default=100_000, help="small records (100,000)")
    parser.add_argument("--reads", type=int, default=1000, help="random reads")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each loader")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--insert", action="store_true", help=f"put the tables into {GUIDE.name}")
    given = parser.parse_args()
    for name, make in (("formats", formats_table), ("scan", scan_table)):
        if name in given.tables:
            lines = make(given)
            print("\n".join(lines), end="\n\n")
            if given.insert:
                insert(GUIDE, name, lines)


if __name__ == "__main__":
    main()
