"""What every runner shares: the job it is given, the timing protocol, and the facts that show it did the same work.

A runner gives one function, ``make(job)``, whose answer can be iterated once per epoch and yields ``(images, labels)``.
`run` does the rest and prints one line of JSON. Standard library and NumPy only: it runs in every peer's environment.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import sys
import threading
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count, pairwise
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
FACT_BATCHES = 8
# The first batches of an epoch arrive while the pipeline fills; the steady rate leaves them out.
SETTLE_BATCHES = 4

# float32 value = SCALE[channel] * gray level + BIAS[channel]
SCALE = np.array([1 / (255 * std) for std in STD], np.float32)
BIAS = np.array([-mean / std for mean, std in zip(MEAN, STD, strict=True)], np.float32)


@dataclass(frozen=True, slots=True)
class Job:
    """The work to do. Files: ``paths`` and ``labels``; arrays: ``images`` (N, H, W, 3) uint8 and ``labels``.

    ``folder``: the workload's data; the same samples in a format are in the subfolder of its name. ``form``: the format
    to read, where the runner reads several. ``shuffle``: False for the order of the data.
    """

    workload: str
    paths: list[str]
    images: np.ndarray | None
    labels: np.ndarray
    size: int
    batch: int
    workers: int
    antialias: bool
    folder: str = ""
    form: str = ""
    shuffle: bool = True

    @property
    def batches(self) -> int:
        return math.ceil(len(self.labels) / self.batch)


class Epochs:
    """A function that begins an epoch, as something that can be iterated again and again."""

    def __init__(self, begin: Callable[[], Iterator[Any]]) -> None:
        self._begin = begin

    def __iter__(self) -> Iterator[Any]:
        return self._begin()


def random_crop_box(height: int, width: int) -> tuple[int, int, int, int]:
    """Draw the box of torchvision's RandomResizedCrop, with its default scale and ratio: (top, left, height, width)."""
    for _ in range(10):
        area = height * width * random.uniform(0.08, 1.0)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w = round(math.sqrt(area * ratio))
        h = round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, height - h), random.randint(0, width - w), h, w
    w = min(width, round(height * 4 / 3))
    h = min(height, round(width * 4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w


def run(make: Callable[[Job], Iterable[Any]], *, packages: tuple[str, ...], has_images: bool = True) -> None:
    """Parse the driver's arguments, measure, and print the answer as one line of JSON.

    ``packages``: the distributions whose versions belong in the table. ``has_images=False`` is for limits, whose
    batches hold nothing to compare: they yield the number of images instead.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", default="photos")
    parser.add_argument("--data", type=Path, required=True, help="folder with list.tsv, or images.npy and labels.npy")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--resize", choices=("plain", "antialiased", "none"), default="antialiased")
    parser.add_argument("--form", default="", help="the format to read, in a subfolder of the data")
    parser.add_argument("--in-order", action="store_true", help="do not shuffle")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long the steady rate is measured")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds before that")
    parser.add_argument("--memory-seconds", type=float, default=1.5, help="seconds after that, sampling memory")
    parser.add_argument("--started", type=float, help="time.monotonic() when the driver started this process")
    args = parser.parse_args()
    job = load(args)
    if job.batches < 2:
        raise SystemExit(f"an epoch of {job.batches} batch: give two or more, as the first one is not measured")
    result = measure(
        make,
        job,
        seconds=args.seconds,
        warmup=args.warmup,
        memory_seconds=args.memory_seconds,
        started=args.started,
        has_images=has_images,
    )
    result["python"] = platform.python_version()
    result["versions"] = {name: version(name) for name in packages}
    sys.stdout.flush()
    print(json.dumps(result), flush=True)


def load(args: argparse.Namespace) -> Job:
    paths: list[str] = []
    images = None
    if (args.data / "labels.npy").exists():
        images = np.load(args.data / "images.npy") if (args.data / "images.npy").exists() else None
        labels = np.load(args.data / "labels.npy")
    else:
        lines = (args.data / "list.tsv").read_text().splitlines()
        pairs = [line.rsplit("\t", 1) for line in lines]
        paths = [path for path, _ in pairs]
        labels = np.array([int(label) for _, label in pairs], np.int64)
    return Job(
        args.workload,
        paths,
        images,
        labels,
        args.size,
        args.batch,
        args.workers,
        antialias=args.resize == "antialiased",
        folder=str(args.data),
        form=args.form,
        shuffle=not args.in_order,
    )


def measure(
    make: Callable[[Job], Iterable[Any]],
    job: Job,
    *,
    seconds: float,
    warmup: float,
    memory_seconds: float,
    started: float | None = None,
    has_images: bool = True,
) -> dict[str, Any]:
    """Measure in four stretches of one endless run over epochs.

    1. From the call of ``make`` to the first batch; then the facts of some batches are taken.
    2. Warm-up: nothing is measured.
    3. Steady: the time between one batch and the next, and the images of the next, are added up; the first batches
       of each epoch are left out, the wait for an epoch's first batch is kept apart. CPU time is read at both ends.
    4. Memory is sampled (here and in stretch 1, where sampling cannot disturb the rate).
    """
    memory = MemorySampler()
    idle = tree_pss()
    ready = monotonic()
    began = perf_counter()
    stream = arrivals(make(job))
    first_epoch, _, batch, arrived = next(stream)
    first_batch = arrived - began

    settle = min(SETTLE_BATCHES, job.batches // 4)
    facts = Facts()
    with memory:
        for _ in range(min(FACT_BATCHES, job.batches) - 1):
            if has_images:
                facts.add(batch)
            _, _, batch, _ = next(stream)
        if has_images:
            facts.add(batch)

    warm_until = perf_counter() + warmup
    for seen in count():
        _, _, batch, last = next(stream)
        if seen >= settle and last >= warm_until:
            break

    steady = _steady(stream, seconds, last, settle, first_epoch)

    memory_until = perf_counter() + memory_seconds
    with memory:
        for seen in count():
            _, _, batch, arrived = next(stream)
            if seen >= settle and arrived >= memory_until:
                break

    return {
        **steady,
        "first_batch_s": first_batch,
        "imports_s": None if started is None else ready - started,
        "peak_pss_mib": memory.peak,
        "idle_pss_mib": idle,
        "facts": facts.summary() if has_images else None,
    }


def _steady(
    stream: Iterator[tuple[int, int, Any, float]], seconds: float, last: float, settle: int, first_epoch: int
) -> dict[str, Any]:
    """Measure the third stretch, which begins at the arrival of the ``last`` batch."""
    steady = images = delivered = 0.0
    gaps: list[float] = []
    cpu_before, timed_from = tree_cpu(), last
    while last - timed_from < seconds or not images:
        epoch, index, batch, arrived = next(stream)
        size = size_of(batch)
        delivered += size
        if index > settle:
            steady += arrived - last
            images += size
        elif index == 0 and epoch > first_epoch:
            gaps.append(arrived - last)
        last = arrived
    cpu_after = tree_cpu()
    known = cpu_before is not None and cpu_after is not None
    return {
        "images_per_s": images / steady,
        "images": int(images),
        "steady_s": steady,
        "epoch_gap_s": median(gaps) if gaps else None,
        "cpu_s_per_1000": (cpu_after - cpu_before) / delivered * 1000 if known else None,
    }


def arrivals(loader: Iterable[Any]) -> Iterator[tuple[int, int, Any, float]]:
    """Yield (epoch, index in it, batch, when it came), epoch after epoch without end."""
    for epoch in count():
        index = -1
        for index, batch in enumerate(loader):
            yield epoch, index, batch, perf_counter()
        if index < 0:
            raise SystemExit("the loader gave an epoch without a batch")


def size_of(batch: Any) -> int:
    return batch if isinstance(batch, int) else len(batch[0])


class Facts:
    """What the batches are like: enough to refuse a comparison of unlike work."""

    def __init__(self) -> None:
        self._shapes: list[tuple[int, ...]] = []
        self._dtypes: set[str] = set()
        self._means: list[np.ndarray] = []
        self._squares: list[np.ndarray] = []
        self._sizes: list[int] = []

    def add(self, batch: Any) -> None:
        images, labels = batch
        images = np.asarray(images)
        if len(labels) != len(images):
            raise SystemExit(f"{len(labels)} labels for {len(images)} images")
        self._shapes.append(images.shape)
        self._dtypes.add(str(images.dtype))
        # Of images by channel, of rows of numbers over all of them.
        axes = (0, 2, 3) if images.ndim == 4 else None
        self._means.append(np.atleast_1d(images.mean(axis=axes, dtype=np.float64)))
        self._squares.append(np.atleast_1d(np.square(images).mean(axis=axes, dtype=np.float64)))
        self._sizes.append(len(images))

    def summary(self) -> dict[str, Any]:
        mean = np.average(self._means, axis=0, weights=self._sizes)
        square = np.average(self._squares, axis=0, weights=self._sizes)
        return {
            "shape": list(self._shapes[0]),
            "dtype": "/".join(sorted(self._dtypes)),
            "mean": [round(float(value), 4) for value in mean],
            "std": [round(float(value), 4) for value in np.sqrt(square - mean**2)],
        }


class MemorySampler:
    """The largest PSS of this process and its children, in MiB, over the stretches it was switched on for."""

    def __init__(self, interval: float = 0.05) -> None:
        self.peak: float | None = None
        self._interval = interval
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _sample(self) -> None:
        while True:
            pss = tree_pss()
            if pss is None:
                return
            self.peak = max(self.peak or 0.0, pss)
            if self._stop.wait(self._interval):
                return


def tree_pss() -> float | None:
    """Return the proportional set size of the process tree in MiB, or None where /proc does not tell."""
    total = 0
    for pid in process_tree():
        try:
            with Path(f"/proc/{pid}/smaps_rollup").open() as lines:
                total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue
    return total / 1024 if total else None


def tree_cpu() -> float | None:
    """Return the CPU seconds of the process tree, finished children included, or None where /proc does not tell."""
    tree = process_tree()
    return sum(tree.values()) / os.sysconf("SC_CLK_TCK") if tree else None


def process_tree() -> dict[int, int]:
    """Return {pid: clock ticks used} of this process and its descendants; empty without /proc."""
    ticks: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue
        # The command, in brackets, may hold spaces and brackets; the state comes after the last one (proc(5)).
        fields = stat[stat.rindex(")") + 2 :].split()
        pid = int(entry.name)
        ticks[pid] = sum(int(value) for value in fields[11:15])
        children.setdefault(int(fields[1]), []).append(pid)
    found, stack = {}, [os.getpid()] if os.getpid() in ticks else []
    while stack:
        pid = stack.pop()
        found[pid] = ticks[pid]
        stack += children.get(pid, ())
    return found


def chunks(total: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of each batch of an epoch, the last one short where it must be."""
    return pairwise([*range(0, total, size), total])
