"""The photos of the workload *packed*, scaled once, in each form that a loader reads; run it in a peer's environment.

`prepare` packs them with headrace, and saves the pixels as .npy files, in the order of the list. The writers of the
peers read these, so all forms hold the same pixels.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SIDE = 256
QUALITY = 90
PEER_FORMS = {"mosaic": "formats", "litdata": "formats", "ffcv-raw": "ffcv", "ffcv-jpeg": "ffcv"}
"""The environment that writes each form."""


def pack(listing: Path, target: Path) -> None:
    """Write what headrace and DALI read."""
    from headrace import ImageFiles

    lines = [line.rsplit("\t", 1) for line in listing.read_text().splitlines()]
    files = ImageFiles([path for path, _ in lines], np.array([int(label) for _, label in lines]))
    for store in ("raw", "jpeg"):
        packed = files.pack(target / store, max_side=MAX_SIDE, store=store, quality=QUALITY)
        if store == "raw":
            (target / "npy").mkdir()
            for number, (image, _) in enumerate(packed):
                np.save(target / "npy" / f"{number:06}.npy", image)


def write(form: str, python: Path, folder: Path, target: Path) -> None:
    """Write a peer's form of the pixels in a folder, by the peer's interpreter."""
    command = [str(python), __file__, form, str(folder), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"writing {form} failed: {done.stderr.strip()[-2000:]}")


class Pixels:
    """The images of a folder, with their labels; by index, as FFCV's writer wants them."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted((folder / "packed" / "npy").glob("*.npy"))
        lines = (folder / "list.tsv").read_text().splitlines()
        self.labels = [int(line.rsplit("\t", 1)[1]) for line in lines]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return np.load(self.paths[index]), self.labels[index]

    def samples(self) -> Iterator[dict[str, Any]]:
        for number in range(len(self)):
            image, label = self[number]
            yield {"image": image, "label": label}


def _mosaic(pixels: Pixels, target: Path) -> None:
    from streaming import MDSWriter

    with MDSWriter(columns={"image": "ndarray:uint8", "label": "int"}, out=str(target)) as writer:
        for sample in pixels.samples():
            writer.write(sample)


def _litdata(pixels: Pixels, target: Path) -> None:
    from litdata.streaming.cache import Cache

    cache = Cache(str(target), chunk_bytes="64MB")
    for number, sample in enumerate(pixels.samples()):
        cache[number] = sample
    cache.done()
    cache.merge()


def _ffcv(pixels: Pixels, target: Path, mode: str) -> None:
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    fields = {"image": RGBImageField(write_mode=mode, jpeg_quality=QUALITY), "label": IntField()}
    DatasetWriter(str(target / "photos.beton"), fields, num_workers=2).from_indexed_dataset(pixels)


if __name__ == "__main__":
    form, source, place = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    found = Pixels(source)
    if form == "mosaic":
        _mosaic(found, place)
    elif form == "litdata":
        _litdata(found, place)
    else:
        _ffcv(found, place, form.removeprefix("ffcv-").replace("jpeg", "jpg"))
