"""The workloads and their data: made once, kept in a cache folder, found again by what they were made from."""

from __future__ import annotations

import hashlib
import random
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import packed_data
import shard_data
from registry import python_of

if TYPE_CHECKING:
    from collections.abc import Callable

DEMO_IMAGES = Path(__file__).parents[1] / "src" / "headrace" / "demo"
DEMO_PHOTOS = 250
CLASSES = 10
LARGE_PHOTOS = 8
FEATURES = 32


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload: ``images`` per epoch, ``size`` pixels square, in batches of ``batch``."""

    name: str
    title: str
    images: int
    size: int
    batch: int
    resize: tuple[str, ...]
    unit: str = "images"


IMAGE_WORK = "RandomResizedCrop {0} -> horizontal flip -> normalize -> float32 NCHW"
PHOTO_WORK = "as *photos*, and after the flip"
WORKLOADS = {
    "photos": Workload(
        "photos",
        f"JPEG files of about 500x375 -> {IMAGE_WORK.format(224)}",
        2_000,
        224,
        64,
        ("plain", "antialiased"),
    ),
    "thumbnails": Workload(
        "thumbnails",
        f"JPEG files of 32x32 -> {IMAGE_WORK.format(32)}",
        10_000,
        32,
        64,
        ("plain", "antialiased"),
    ),
    "large": Workload(
        "large",
        f"JPEG files of 4000x3000 -> {IMAGE_WORK.format(224)}",
        64,
        224,
        16,
        ("antialiased",),
    ),
    "dino": Workload(
        "dino",
        f"{PHOTO_WORK} -> ColorJitter(0.4, 0.4, 0.4, 0.1) p 0.8 -> grayscale p 0.2 -> GaussianBlur(23) p 0.5",
        2_000,
        224,
        64,
        ("antialiased",),
    ),
    "randaugment": Workload("randaugment", f"{PHOTO_WORK} -> RandAugment(2, 9)", 2_000, 224, 64, ("antialiased",)),
    "trivial": Workload(
        "trivial", f"{PHOTO_WORK} -> TrivialAugmentWide -> RandomErasing(0.1)", 2_000, 224, 64, ("antialiased",)
    ),
    "segmentation": Workload(
        "segmentation",
        "photos of about 500x375 and their masks -> affine -> crop of 512, padded -> flip -> ColorJitter -> normalize",
        500,
        512,
        16,
        ("antialiased",),
    ),
    "detection": Workload(
        "detection",
        "photos of about 500x375 and boxes -> scale jitter, crop of 512 -> flip -> photometric distortion -> normalize",
        500,
        512,
        16,
        ("antialiased",),
    ),
    "arrays": Workload(
        "arrays",
        "32x32x3 uint8 in memory -> shuffled, normalized float32 NCHW",
        50_000,
        32,
        128,
        ("none",),
    ),
    "formats": Workload(
        "formats",
        f"the JPEG files of *photos*, and the same in shards of each format -> {IMAGE_WORK.format(224)}",
        2_000,
        224,
        64,
        ("antialiased",),
    ),
    "packed": Workload(
        "packed",
        f"*photos*, and the same scaled to {packed_data.MAX_SIDE} pixels and stored once -> {IMAGE_WORK.format(224)}",
        2_000,
        224,
        64,
        ("antialiased",),
    ),
    "rows": Workload(
        "rows",
        f"rows of {FEATURES} float32 and a label in an Arrow file -> shuffled batches",
        200_000,
        FEATURES,
        256,
        ("none",),
        "rows",
    ),
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A folder a runner can read (see `runners/common.py`), and a description of its contents."""

    folder: Path
    about: str


def prepare(workload: Workload, cache: Path, photos: Path | None, images: int | None = None) -> Prepared:
    """Make the workload's data, or find it in the cache.

    ``photos``: a folder or tar of JPEG files; None cuts random crops from the photographs bundled with headrace.
    ``images``: another length of the epoch.
    """
    total = images or workload.images
    if workload.name == "arrays":
        return _arrays(cache, total, workload.size)
    if workload.name == "rows":
        return _rows(cache, total)
    files = photo_files(cache, photos)
    if workload.name == "thumbnails":
        return _thumbnails(cache, files, total, workload.size)
    if workload.name == "large":
        large = cached(cache / _key("large", files), lambda target: _write_large(target, files))
        return _listed(large, sorted(large.glob("*.jpg")), total)
    if workload.name == "formats":
        return _formats(cache, files, total)
    if workload.name == "packed":
        return _packed(cache, files, total)
    if workload.name == "segmentation":
        return _with_masks(cache, files, total)
    return _listed(cache / _key("photos-list", files, total), files, total)


def photo_files(cache: Path, photos: Path | None) -> list[Path]:
    if photos is None:
        folder = cached(cache / "photos-from-demo", _write_demo_photos)
    elif photos.is_dir():
        folder = photos
    elif photos.is_file():
        stamp = photos.stat()
        folder = cached(
            cache / _key("photos-tar", str(photos.resolve()), stamp.st_size, stamp.st_mtime_ns),
            lambda target: _unpack(photos, target),
        )
    else:
        raise SystemExit(f"--photos {photos}: no such folder or tar file")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    if not files:
        raise SystemExit(f"--photos {photos}: no .jpg or .jpeg file in it")
    return files


def _unpack(tar: Path, target: Path) -> None:
    with tarfile.open(tar) as archive:
        archive.extractall(target, filter="data")


def _write_demo_photos(target: Path) -> None:
    from PIL import Image

    sources = sorted(DEMO_IMAGES.glob("*.jpg"))
    if not sources:
        raise SystemExit("headrace has no bundled photographs here; give your own with --photos DIR")
    rng = random.Random(0)
    for number in range(DEMO_PHOTOS):
        with Image.open(sources[number % len(sources)]) as source:
            image = source.convert("RGB")
        size = (375, 500) if rng.random() < 0.25 else (500, 375)
        # The largest box of that shape that fits, a little smaller and anywhere: no two files alike.
        scale = min(image.width / size[0], image.height / size[1]) * rng.uniform(0.75, 1.0)
        width, height = size[0] * scale, size[1] * scale
        left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
        box = (left, top, left + width, top + height)
        image = image.resize(size, Image.Resampling.LANCZOS, box=box)
        image.save(target / f"{number:04}.jpg", quality=90)


def _thumbnails(cache: Path, photos: list[Path], total: int, size: int) -> Prepared:
    def write(target: Path) -> None:
        from PIL import Image

        rng = random.Random(0)
        for first, photo in enumerate(photos):
            with Image.open(photo) as source:
                image = source.convert("RGB")
            for number in range(first, total, len(photos)):
                side = rng.uniform(0.3, 1.0) * min(image.size)
                left, top = rng.uniform(0, image.width - side), rng.uniform(0, image.height - side)
                box = (left, top, left + side, top + side)
                small = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
                small.save(target / f"{number:05}.jpg", quality=90)

    folder = cached(cache / _key("thumbnails", photos, total, size), write)
    files = sorted(folder.glob("*.jpg"))
    return _listed(folder, files, total)


def _write_large(target: Path, photos: list[Path]) -> None:
    """Write photographs as large as a camera's: enlarged, with a sensor's grain, without which they are too smooth."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for number, photo in enumerate(photos[:: max(1, len(photos) // LARGE_PHOTOS)][:LARGE_PHOTOS]):
        with Image.open(photo) as source:
            image = source.convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC)
        grain = rng.normal(0, 4, (3000, 4000, 1))
        pixels = (np.asarray(image) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(target / f"{number:02}.jpg", quality=90)


def _listed(folder: Path, files: list[Path], total: int) -> Prepared:
    folder.mkdir(parents=True, exist_ok=True)
    # A short set is listed several times over, never copied: the file system's cache holds it once for everyone.
    lines = [f"{files[number % len(files)].resolve()}\t{number % len(files) % CLASSES}\n" for number in range(total)]
    (folder / "list.tsv").write_text("".join(lines))
    cached(folder / "tar", lambda target: shard_data.write("tar", folder / "list.tsv", target))
    used = files[:total]
    kib = median(len(path.read_bytes()) for path in used) / 1024  # which also puts them into the page cache
    about = f"{len(used):,} files, {kib:.1f} KiB each (median)"
    return Prepared(folder, f"{total:,} images per epoch from {about}")


def _with_masks(cache: Path, files: list[Path], total: int) -> Prepared:
    """Write a mask beside each photo: its gray values in eight classes, of large parts."""

    def write(target: Path) -> None:
        from PIL import Image

        for path in files:
            with Image.open(path) as photo:
                small = photo.convert("L").resize((16, 12)).resize(photo.size, Image.Resampling.BICUBIC)
            Image.fromarray(np.asarray(small) // 32).save(target / f"{path.stem}.png")

    prepared = _listed(cache / _key("segmentation", files, total), files, total)
    cached(prepared.folder / "masks", write)
    return prepared


def _formats(cache: Path, files: list[Path], total: int) -> Prepared:
    """Write the photos in each format, once for each set of writers that are installed."""
    own = [form for form in shard_data.FAMILIES if shard_data.writer(form)]
    prepared = _listed(cache / _key("formats", files, total, own), files, total)
    listing = prepared.folder / "list.tsv"
    for form in shard_data.FAMILIES:
        folder = cached(prepared.folder / form, partial(shard_data.write, form, listing))
        for path in folder.rglob("*"):  # into the page cache, as the files are
            if path.is_file():
                path.read_bytes()
    ours = [form for form in shard_data.FAMILIES if form not in own and form != "litdata"]
    by = [f"{', '.join(own)} by its own library"] if own else []
    by += [f"{', '.join(ours)} by headrace"] if ours else []
    return Prepared(prepared.folder, f"{prepared.about}; {'; '.join(by)}")


def _packed(cache: Path, files: list[Path], total: int) -> Prepared:
    """Pack the photos, and write the same pixels in each form whose writer is installed."""
    prepared = _listed(cache / _key("packed", files, total), files, total)
    cached(prepared.folder / "packed", partial(packed_data.pack, prepared.folder / "list.tsv"))
    for form, family in packed_data.PEER_FORMS.items():
        if (python := python_of(family)).exists():
            cached(prepared.folder / form, partial(packed_data.write, form, python, prepared.folder))
    sizes = {}
    for name in ("raw", "jpeg", "npy"):
        found = (prepared.folder / "packed" / name).iterdir()
        sizes[name] = sum(len(path.read_bytes()) for path in found)  # and into the page cache
    told = f"{sizes['raw'] / 1e6:,.0f} MB as pixels, {sizes['jpeg'] / 1e6:,.0f} MB as JPEG files"
    return Prepared(prepared.folder, f"{prepared.about}; packed: {told}")


def _rows(cache: Path, total: int) -> Prepared:
    def write(target: Path) -> None:
        rng = np.random.default_rng(0)
        features = rng.normal(size=(total, FEATURES)).astype(np.float32)
        shard_data.write_rows(target, features, rng.integers(0, CLASSES, total))

    writer = "datasets" if shard_data.writer("arrow") else "pyarrow"
    folder = cached(cache / f"rows-{total}-{writer}", write)
    return Prepared(folder, f"{total:,} rows per epoch, {total * (4 * FEATURES + 8) / 2**20:.0f} MiB, by {writer}")


def _arrays(cache: Path, total: int, size: int) -> Prepared:
    def write(target: Path) -> None:
        rng = np.random.default_rng(0)
        np.save(target / "images.npy", rng.integers(0, 256, (total, size, size, 3), np.uint8))
        np.save(target / "labels.npy", rng.integers(0, CLASSES, total))

    folder = cached(cache / f"arrays-{total}-{size}", write)
    return Prepared(folder, f"{total:,} images per epoch, {total * size * size * 3 / 2**20:.0f} MiB")


def cached(folder: Path, write: Callable[[Path], None]) -> Path:
    """Return ``folder``, written on its first use; one that was interrupted never appears under its name."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
        try:
            write(unfinished)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _key(name: str, *parts: object) -> str:
    return f"{name}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}"
