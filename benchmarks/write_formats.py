"""Write the benchmark's samples by a format's own writer: run by `shard_data.py` in the environment that has it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from shard_data import parts, samples


def tar(listing: Path, target: Path) -> None:
    import webdataset

    for number, part in parts(listing):
        with webdataset.TarWriter(str(target / f"{number:05}.tar")) as writer:
            for key, data, label in part:
                writer.write({"__key__": key, "jpg": data, "cls": label})


def mds(listing: Path, target: Path) -> None:
    from streaming import MDSWriter

    # Bytes: what reads them decides how they are decoded. The shards' default size, 64 MiB, gives some of each set.
    with MDSWriter(columns={"image": "bytes", "label": "int"}, out=str(target)) as writer:
        for _, data, label in samples(listing):
            writer.write({"image": data, "label": label})


def litdata(listing: Path, target: Path) -> None:
    from litdata.streaming.cache import Cache
    from PIL import Image

    cache = Cache(str(target), chunk_bytes="64MB")
    for number, line in enumerate(listing.read_text().splitlines()):
        path, label = line.rsplit("\t", 1)
        # As an image in a file: its bytes are kept, and not encoded again. Bytes would become an Arrow table.
        cache[number] = {"image": Image.open(path), "label": int(label)}
    cache.done()
    cache.merge()


def arrow(listing: Path, target: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Image

    found = list(samples(listing))
    columns = {
        "image": [{"bytes": data, "path": None} for _, data, _ in found],
        "label": [label for _, _, label in found],
    }
    features = Features({"image": Image(), "label": ClassLabel(10)})
    Dataset.from_dict(columns, features=features).save_to_disk(str(target), max_shard_size="64MB")


def rows(source: Path, target: Path) -> None:
    from datasets import Dataset, Features, List, Value

    columns = {"features": np.load(source / "features.npy"), "label": np.load(source / "labels.npy")}
    features = Features({"features": List(Value("float32")), "label": Value("int64")})
    Dataset.from_dict(columns, features=features).save_to_disk(str(target))


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
