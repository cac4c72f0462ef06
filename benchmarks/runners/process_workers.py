"""What worker processes cost one loader: one measurement, as a line of JSON. `../process_workers.py` runs it, in turn.

Loaders are imported where they are made: a spawned worker imports this file, and should pay for its own loader alone.
"""

from __future__ import annotations

import argparse
import json
import pickle
from statistics import median
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

import numpy as np
from common import MemorySampler, process_tree, tree_cpu, tree_pss

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPE = (3, 224, 224)
BATCH = 64


class Ready:
    """Samples of 600 KB that are there already: what remains is what it costs to bring them over."""

    def __init__(self) -> None:
        self.samples = [np.full(SHAPE, number, np.float32) for number in range(16)]

    def __len__(self) -> int:
        return 1 << 20

    def __getitem__(self, index: int) -> Any:
        return self.samples[index % len(self.samples)]


def names(count: int) -> Iterator[str]:
    return (f"/data/train/class_{number % 1000:04d}/image_{number:08d}.jpg" for number in range(count))


class Paths:
    """A dataset that is little but a long list of names."""

    def __init__(self, paths: Any) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> int:
        return len(self.paths[index])


def loader(
    kind: str, dataset: Any, batch: int, workers: int, method: str, *, arrays: bool = False, shuffle: bool = False
) -> Any:
    """Make a loader: the same arguments, whoever's it is. ``arrays``: torch's is asked for NumPy batches."""
    how: dict[str, Any] = {"num_workers": workers, "multiprocessing_context": method, "shuffle": shuffle}
    if kind == "torch":
        from torch.utils.data import DataLoader as Torchs

        return Torchs(dataset, batch, collate_fn=np.stack if arrays else None, **how)
    if kind == "headrace.torch":
        from headrace.torch import DataLoader as Tensors

        return Tensors(dataset, batch, backend="processes", **how)
    from headrace import DataLoader

    return DataLoader(dataset, batch, backend="processes", **how)


def transport(kind: str, arrays: bool, seconds: float, count: int) -> dict[str, float]:
    """Return samples a second of the steady stream, and CPU seconds of the whole process tree for a thousand."""
    batches = iter(loader(kind, Ready(), BATCH, 2, "fork", arrays=arrays))
    for number in range(20):  # warm-up: slots are made and reused
        assert next(batches)[:, 0, 0, 0].tolist()[:3] == [0, 1, 2], number
    spent, began, delivered = tree_cpu() or 0.0, perf_counter(), 0
    while (took := perf_counter() - began) < seconds or delivered < count:
        delivered += int(next(batches)[:, 0, 0, 0].shape[0])
    return {"samples_per_s": delivered / took, "cpu_s_per_1000": ((tree_cpu() or 0.0) - spent) / delivered * 1000}


def first_batch(kind: str, arrays: bool, seconds: float, count: int) -> dict[str, float]:  # noqa: ARG001
    """Return seconds to the first batch of two spawned workers, and the CPU seconds that the loop's own start takes."""
    dataset = Paths(list(names(count)))
    began = process_time()
    pickle.dumps(dataset, protocol=5)
    pickled = process_time() - began
    made = loader(kind, dataset, BATCH, 2, "spawn", arrays=arrays)
    spent, began, started = tree_cpu() or 0.0, process_time(), perf_counter()
    batches = iter(made)
    start = process_time() - began
    next(batches)
    took = perf_counter() - started
    return {"first_batch_s": took, "start_s": start, "pickle_s": pickled, "cpu_s": (tree_cpu() or 0.0) - spent}


class Numbers:
    """A dataset whose samples take no time."""

    def __len__(self) -> int:
        return 1 << 12

    def __getitem__(self, index: int) -> Any:
        return np.float32(index)


def start(kind: str, arrays: bool, seconds: float, count: int, method: str) -> dict[str, float]:  # noqa: ARG001
    """Return seconds to the first batch of the program's first loop, and of later loops, with their CPU seconds."""
    took: list[float] = []
    for _ in range(6):
        made = loader(kind, Numbers(), BATCH, 2, method)
        spent, began = tree_cpu() or 0.0, perf_counter()
        batches = iter(made)
        next(batches)
        took.append(perf_counter() - began)
        cpu = (tree_cpu() or 0.0) - spent
        del batches
    return {"first_loop_s": took[0], "later_loop_s": median(took[1:]), "cpu_s": cpu}


def memory(kind: str, arrays: bool, seconds: float, count: int) -> dict[str, float]:  # noqa: ARG001
    """Return the peak PSS of the process tree, in MiB, while four workers read all of a long list of strings."""
    if arrays:
        from headrace.datasets import PackedList

        paths: Any = PackedList(names(count))
    else:
        paths = list(names(count))
    made, sampler = loader(kind, Paths(paths), 1000, 4, "fork", shuffle=True), MemorySampler()
    idle, most = tree_pss() or 0.0, 0
    with sampler:
        for number, _ in enumerate(made):
            if number % 100 == 0:
                most = max(most, len(process_tree()))
    assert most == 5, f"{most} processes"
    return {"peak_pss_mib": sampler.peak or 0.0, "idle_pss_mib": idle}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("workload", choices=("transport", "first_batch", "start", "memory"))
    parser.add_argument("kind", choices=("torch", "headrace", "headrace.torch"))
    parser.add_argument("--arrays", action="store_true", help="NumPy batches; memory: names in a PackedList")
    parser.add_argument("--method", default="fork", help="start: how workers start")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--count", type=int, default=BATCH)
    given = parser.parse_args()
    if "torch" in given.kind:
        import torch  # noqa: F401  before anything is measured
    how = {"method": given.method} if given.workload == "start" else {}
    found = globals()[given.workload](given.kind, given.arrays, given.seconds, given.count, **how)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
