"""The loaders of `remote.py`: each reads an epoch for every line that it gets, and prints what it took.

The work is that of the workload *photos*: decode, RandomResizedCrop 224, flip, normalize, batches of float32 NCHW.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent / "runners"))

import numpy as np
from common import MEAN, STD, Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

BATCH, WORKERS, BUCKET = 64, 2, "s3://shards"
SETTLED = 1.0
"""Seconds of an epoch after which stalls are counted apart: before, the first blocks have to come."""

JOB = Job("photos", [], None, np.empty(0, np.int64), 224, BATCH, WORKERS, antialias=True)


def tars(data: Path) -> str:
    """Return the pattern of the tar shards' names."""
    return f"{{00000..{len(list((data / 'tar').glob('*.tar'))) - 1:05}}}.tar"


def loader_of(pairs: Any, **order: Any) -> Any:
    from headrace import DataLoader, Normalize, RandomHorizontalFlip, RandomResizedCrop, ToCHW, ToFloat

    work = RandomResizedCrop(JOB.size), RandomHorizontalFlip(), ToFloat(), Normalize(MEAN, STD), ToCHW()
    return DataLoader(pairs.map(*work), BATCH, seed=0, num_workers=WORKERS, **order or {"shuffle": True})


def headrace_tar(_cache: Path, data: Path) -> Any:
    from headrace.datasets import WebDataset

    return loader_of(WebDataset(f"{BUCKET}/tar/{tars(data)}").tuple("jpg", "cls"))


def headrace_tar_by_shard(_cache: Path, data: Path) -> Any:
    from headrace.datasets import WebDataset
    from headrace.samplers import ShardSampler

    pairs = WebDataset(f"{BUCKET}/tar/{tars(data)}").tuple("jpg", "cls")
    return loader_of(pairs, sampler=ShardSampler.of(pairs, window=2))


def headrace_local(_cache: Path, data: Path) -> Any:
    from headrace.datasets import WebDataset

    return loader_of(WebDataset(str(data / "tar"), index=None).tuple("jpg", "cls"))


def headrace_mds(_cache: Path, _data: Path) -> Any:
    from headrace.datasets import MDSDataset

    return loader_of(MDSDataset(f"{BUCKET}/mds", decoders={"image": "jpg"}).tuple("image", "label"))


def mosaic(cache: Path, _data: Path) -> Any:
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory
    from torch_loader import loader
    from torchvision_work import Work

    class Images(StreamingDataset):
        work = Work(JOB)

        def __getitem__(self, index: Any) -> Any:
            sample = super().__getitem__(index)
            return self.work(sample["image"]), sample["label"]

    clean_stale_shared_memory()
    dataset = Images(remote=f"{BUCKET}/mds", local=str(cache / "mds"), shuffle=True, batch_size=BATCH)
    return loader(dataset, JOB, shuffle=False)


def litdata(cache: Path, _data: Path) -> Any:
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming import downloader
    from torch_loader import loader
    from torchvision_work import Work

    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # it has no option for a server without TLS

    class Images(StreamingDataset):
        work = Work(JOB)

        def __getitem__(self, index: Any) -> Any:
            sample = super().__getitem__(index)
            return self.work.transform(sample["image"]), sample["label"]

    options = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]}
    dataset = Images(f"{BUCKET}/litdata", cache_dir=str(cache / "lit"), shuffle=True, storage_options=options)
    return loader(dataset, JOB, StreamingDataLoader)


class _Pair:
    """What webdataset does to each sample."""

    def __init__(self) -> None:
        from torchvision_work import Work

        self.work = Work(JOB)

    def __call__(self, sample: dict[str, Any]) -> Any:
        return self.work(sample["jpg"]), int(sample["cls"])


def webdataset(_cache: Path, data: Path) -> Any:
    import webdataset as wds
    from torch_loader import loader

    code = "import boto3,sys; boto3.client('s3').download_fileobj('shards', sys.argv[1], sys.stdout.buffer)"
    shards = f'pipe:{sys.executable} -c "{code}" tar/{tars(data)}'
    dataset = wds.WebDataset(shards, shardshuffle=100, workersplitter=wds.split_by_worker)
    return loader(dataset.shuffle(1000).map(_Pair()).batched(BATCH), JOB, wds.WebLoader, batch_size=None, shuffle=False)


class Ranges:
    """The images of tar shards by fsspec, a range for each, as a torch dataset."""

    def __init__(self, data: Path) -> None:
        import tarfile

        from torchvision_work import Work

        self.places, self.work, self.files = list[Any](), Work(JOB), None
        for path in sorted((data / "tar").glob("*.tar")):
            with tarfile.open(path) as archive:
                self.places += [(path.name, m.offset_data, m.size) for m in archive if m.name.endswith(".jpg")]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Any:
        if self.files is None:
            import fsspec

            self.files = fsspec.filesystem("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
        name, offset, size = self.places[index]
        return self.work(self.files.cat_file(f"shards/tar/{name}", start=offset, end=offset + size)), index


def fsspec_torch(_cache: Path, data: Path) -> Any:
    from torch_loader import loader

    return loader(Ranges(data), JOB)


def epoch(loader: Iterable[Any], began: float) -> dict[str, Any]:
    """Read an epoch; return images, seconds, and what the loader says of stalls."""
    first, images, early = None, 0, None
    statistics = getattr(loader, "statistics", None)
    for batch in loader:
        images += len(batch[0])
        now = time.perf_counter() - began
        first = first or now
        if statistics is not None and early is None and now > SETTLED:
            early = now, statistics().remote
    seconds = time.perf_counter() - began
    found = {"images": images, "seconds": seconds, "first": first, "stalled": None, "settled": None}
    waited = getattr(loader, "waited", None)
    if waited is not None:
        found["waited"] = waited / max(seconds - SETTLED, 1e-9)
    remote = None if statistics is None else statistics().remote
    if remote is None:
        return found
    found |= {"stalled": remote.stall_seconds / seconds, "fetched": remote.nbytes, "hit_rate": remote.hit_rate}
    found["sent"] = remote.requests
    if early is not None:
        found["settled"] = (remote.stall_seconds - early[1].stall_seconds) / max(seconds - early[0], 1e-9)
    return found


def serve(make: Callable[[], Any]) -> None:
    """Make a loader, and read an epoch for each line that comes."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no result
    loader = make()  # imports, and the index: they are no part of an epoch
    print("ready", file=out, flush=True)
    for _ in sys.stdin:
        print(json.dumps(epoch(loader, time.perf_counter())), file=out, flush=True)


def main() -> None:
    name, cache, data = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    make: Callable[[Path, Path], Any] = globals()[name]
    serve(lambda: make(cache, data))


if __name__ == "__main__":
    main()
