"""Swapping one import: batches beside torch's loader, `python benchmarks/small_batches.py` (medians, in microseconds).

All loaders read the same samples in one process, epoch by epoch in turn, without workers and with two. Without workers
the CPU time of the thread counts, with workers the time on the clock. Of images, a second table has the CPU time of an
epoch, workers included. It runs in the environment of torch's runners
(`make bench-peers`), or in its own if torch is installed there. Hugging Face's data sets are read if `datasets` is
installed, and images if torchvision is. ``--guide`` writes the ratios into docs/guide/torch.md.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import importlib.util
import os
import platform
import resource
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from guide_tables import insert
from registry import HERE, PEERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PYTHON = PEERS / "torch" / "bin" / "python"
GUIDE = HERE.parent / "docs" / "guide" / "torch.md"
BATCHES = {1: 300, 10: 300, 16: 300, 32: 100, 64: 10, 128: 20, 256: 25, None: 300}
"""How many batches an epoch has, by the size of a batch."""
NATIVE = "native=True"
NORMALIZED = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PHOTOS = {"photos": 320, "CIFAR-sized files": 3200}
"""How many image files a folder has."""


class Point(NamedTuple):
    x: Any
    y: int


@dataclass(frozen=True, slots=True)
class Case:
    """What is read, and how; ``make`` takes the number of samples, and NumPy's loader reads ``arrays`` if given."""

    name: str
    make: Callable[[int], Any]
    sizes: tuple[int | None, ...]
    arrays: Callable[[int], Any] | None = None
    how: dict[str, Any] = field(default_factory=dict)
    ours: dict[str, Any] = field(default_factory=dict)
    """Arguments that torch's loader does not have."""
    sampling: Callable[[int], dict[str, Any]] | None = None
    """Returns the arguments that depend on the number of samples."""


def cases() -> list[Case]:
    import torch
    from torch.utils.data import IterableDataset, TensorDataset

    import headrace

    class Stream(IterableDataset[int]):
        def __init__(self, count: int) -> None:
            self.count = count

        def __iter__(self) -> Any:
            return iter(range(self.count))

    def pair(count: int) -> TensorDataset:
        return TensorDataset(torch.randn(count, 20), torch.arange(count))

    def arrays(count: int) -> Any:
        return headrace.TensorDataset(*(tensor.numpy() for tensor in pair(count).tensors))

    def pictured(count: int) -> TensorDataset:
        return TensorDataset(torch.randn(count, 3, 32, 32), torch.arange(count))

    def images(count: int) -> list[Any]:
        return [(torch.randn(3, 32, 32), label) for label in range(count)]

    def tokens(count: int) -> list[Any]:
        return [{"input_ids": torch.arange(512), "attention_mask": torch.ones(512).long()} for _ in range(count)]

    def token_arrays(count: int) -> list[Any]:
        return [{name: tensor.numpy() for name, tensor in sample.items()} for sample in tokens(count)]

    def floats(count: int) -> list[Any]:
        return [np.float32(number) for number in range(count)]

    two = {"num_workers": 2, "persistent_workers": True}
    return [
        *(_from_libraries(tokens) if importlib.util.find_spec("datasets") is not None else []),
        *(_photos() if importlib.util.find_spec("torchvision") is not None else []),
        Case("TensorDataset", pair, (1, 10, 32, 256), arrays),
        Case("TensorDataset, shuffled", pair, (1, 32, 256), arrays, {"shuffle": True}),
        Case("range", range, (1, 16, 256, None)),
        Case("list of float32", floats, (1, 10, 32, 256, None)),
        Case("iterable dataset", Stream, (1, 16, None)),
        Case("dicts of 512 int64", tokens, (1, 32), token_arrays),
        Case("dicts of 512 int64, as tensors for NumPy", tokens, (1, 32)),
        *_of_users(pair),
        Case("TensorDataset of 3x32x32", pictured, (128,)),
        Case("list of 3x32x32", images, (10, 128)),
        Case("dicts of 512 int64, 2 workers", tokens, (32,), token_arrays, two),
        Case("TensorDataset of 3x32x32, 2 workers", pictured, (128,), None, two),
    ]


def _of_users(pair: Callable[[int], Any]) -> list[Case]:
    """Return the cases of what users have beside lists and tensors: other samples, datasets and samplers."""
    import torch
    from torch.utils.data import ConcatDataset, Dataset, IterableDataset, RandomSampler, random_split

    class Stream(IterableDataset[Any]):
        def __init__(self, count: int) -> None:
            self.count = count

        def __iter__(self) -> Any:
            return ({"x": torch.ones(8), "y": number} for number in range(self.count))

    class Made(Dataset[Any]):
        def __init__(self, count: int) -> None:
            self.count = count

        def __len__(self) -> int:
            return self.count

        def __getitem__(self, index: int) -> Any:
            return torch.ones(20), index

    def rows(count: int) -> list[Any]:
        return [torch.full((64,), float(number)) for number in range(count)]

    def points(count: int) -> list[Any]:
        return [Point(torch.ones(8), number) for number in range(count)]

    def words(count: int) -> list[str]:
        return [str(number) for number in range(count)]

    def halves(count: int) -> Any:
        return random_split(pair(2 * count), [0.5, 0.5], torch.Generator().manual_seed(0))[0]

    def joined(count: int) -> Any:
        return ConcatDataset([pair(count // 2), pair(count - count // 2)])

    def repeated(count: int) -> dict[str, Any]:
        return {"sampler": RandomSampler(range(count), replacement=True)}

    return [
        Case("iterable dataset of dicts", Stream, (1, 32)),
        Case("tensors and numbers, made one by one", Made, (1, 32)),
        Case("list of tensors of 64 float32", rows, (1, 10, 32, 256)),
        Case("list of strings", words, (1, 32, 256)),
        Case("list of named tuples", points, (1, 32, None)),
        Case("range, collate_fn=list", range, (1, 32, 256), None, {"collate_fn": list}),
        Case("random_split of a TensorDataset", halves, (1, 32), None, {"shuffle": True}),
        Case("ConcatDataset of TensorDatasets", joined, (1, 10, 32), None, {"shuffle": True}),
        Case("TensorDataset, RandomSampler with replacement", pair, (1, 32), None, sampling=repeated),
    ]


def _from_libraries(tokens: Callable[[int], list[Any]]) -> list[Case]:
    """Return the cases of Hugging Face's `datasets`."""
    import datasets

    def plain(count: int) -> Any:
        rows = tokens(count)
        return datasets.Dataset.from_dict({name: [row[name].tolist() for row in rows] for name in rows[0]})

    def scalars(count: int) -> Any:
        return datasets.Dataset.from_dict({"id": range(count), "length": [1.5] * count, "text": ["a"] * count})

    two = {"num_workers": 2, "persistent_workers": True}
    return [
        Case(
            'datasets with_format("torch"), 2 workers',
            lambda count: plain(count).with_format("torch"),
            (32,),
            None,
            two,
        ),
        Case("datasets, plain, 2 workers", scalars, (32,), None, two),
    ]


def _photos() -> list[Case]:
    """Return the cases of torchvision's ImageFolder, with and without ``native=True``."""
    import io
    import tempfile

    import torch
    from PIL import Image
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    import headrace

    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    demo = Path(headrace.__file__).parent / "demo"

    def plain(crop: int) -> Any:
        how = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*NORMALIZED)]
        return v2.Compose([v2.RandomResizedCrop(crop), v2.RandomHorizontalFlip(), *how])

    def folder(name: str, size: tuple[int, int], transform: Any, _count: int) -> ImageFolder:
        place = root / name / "all"
        if not place.exists():
            place.mkdir(parents=True)
            files = []
            for path in sorted(demo.glob("*.jpg")):
                with Image.open(path) as image:
                    file = io.BytesIO()
                    image.convert("RGB").resize(size).save(file, "JPEG", quality=90)
                    files.append(file.getvalue())
            for number in range(PHOTOS[name]):
                (place / f"{number:05}.jpg").write_bytes(files[number % len(files)])
        return ImageFolder(str(root / name), transform)

    two = {"num_workers": 2, "persistent_workers": True, "shuffle": True}
    found = []
    for name, size, crop in (("photos", (500, 375), 224), ("CIFAR-sized files", (32, 32), 32)):
        made = partial(folder, name, size, plain(crop))
        found += [
            Case(f"ImageFolder of {name}, 2 workers", made, (64,), None, two),
            Case(f"ImageFolder of {name}, {NATIVE}, 2 workers", made, (64,), None, two, ours={"native": True}),
        ]
        for what, transform in _augmented(crop).items():
            made = partial(folder, name, size, transform)
            case = f"ImageFolder of {name}, {what}, {NATIVE}, 2 workers"
            found.append(Case(case, made, (64,), None, two, ours={"native": True}))
    return found


def _augmented(crop: int) -> dict[str, Any]:
    """Return transforms that augment: the training presets of torchvision's references, and SimCLR's."""
    import torch
    from torchvision import transforms as v1

    head = [v1.RandomResizedCrop(crop, antialias=True), v1.RandomHorizontalFlip(0.5)]
    tail = [v1.PILToTensor(), v1.ConvertImageDtype(torch.float), v1.Normalize(*NORMALIZED)]
    jitter = v1.RandomApply([v1.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8)
    blur = v1.RandomApply([v1.GaussianBlur(crop // 20 * 2 + 1, (0.1, 2.0))], 0.5)  # a tenth of the side
    return {
        "TrivialAugmentWide and RandomErasing": v1.Compose(
            [*head, v1.TrivialAugmentWide(), *tail, v1.RandomErasing(0.1)]
        ),
        "RandAugment(2, 9)": v1.Compose([*head, v1.RandAugment(2, 9), *tail]),
        "SimCLR": v1.Compose([*head, jitter, v1.RandomGrayscale(0.2), blur, v1.ToTensor()]),
    }


def epoch(loader: Any, clock: Callable[[], float]) -> float:
    """Return the microseconds that a batch takes, the start of the epoch included."""
    began, batches = clock(), 0
    for _ in loader:
        batches += 1
    return (clock() - began) / batches * 1e6


def measure(case: Case, size: int | None, rounds: int) -> list[list[float]]:
    """Return the times of torch's loader, of headrace.torch's, and of headrace's where it reads arrays of its own."""
    import torch.utils.data

    import headrace.torch

    samples = BATCHES[size] * (size or 1)
    how = case.how if case.sampling is None else {**case.how, **case.sampling(samples)}
    loaders = [
        torch.utils.data.DataLoader(case.make(samples), batch_size=size, **how),
        headrace.torch.DataLoader(case.make(samples), batch_size=size, **how, **case.ours),
    ]
    if case.arrays is not None or not any(word in case.name for word in ("3x32x32", "datasets", "ImageFolder")):
        loaders.append(headrace.DataLoader((case.arrays or case.make)(samples), size, **how))
    clock = perf_counter if case.how.get("num_workers") else process_time
    found: list[list[float]] = [[] for _ in loaders]
    for turn in range(rounds + 1):
        for loader, times in zip(loaders, found, strict=True):
            spent = epoch(loader, clock)
            if turn:  # the first epoch starts workers, and fills caches
                times.append(spent)
    return found


def processor(case: Case, size: int, rounds: int) -> list[float]:
    """Return the seconds of CPU time of an epoch, its workers' too, by torch's loader and by headrace.torch's."""
    import torch.utils.data

    import headrace.torch

    dataset, how = case.make(BATCHES[size] * size), {**case.how, "persistent_workers": False}
    found: list[list[float]] = [[], []]
    for _ in range(rounds):
        for times, kind, own in zip(
            found, (torch.utils.data.DataLoader, headrace.torch.DataLoader), ({}, case.ours), strict=True
        ):
            before = used()
            for _ in kind(dataset, batch_size=size, **how, **own):
                pass
            times.append(used() - before)
    return [median(times) for times in found]


def used() -> float:
    """Return the seconds of CPU time of this process, and of its workers that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def cells(times: Sequence[Sequence[float]]) -> list[str]:
    torchs, *ours = times
    found = [f"{median(torchs):,.0f}"]
    for mine in ours:
        ratios = [theirs / own for theirs, own in zip(torchs, mine, strict=True)]
        found += [f"{median(mine):,.0f}", f"{median(ratios):.2f}"]
    return found + [""] * (5 - len(found))


def document(rounds: int, names: Sequence[str]) -> str:
    import torch

    machine = (
        f"{len(os.sched_getaffinity(0))} cores, Linux {platform.release()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, numpy {np.__version__}; load average before: {os.getloadavg()[0]:.1f}"
    )
    protocol = (
        f"microseconds a batch: medians of {rounds} epochs, the loaders in turn; CPU time without workers, time on the "
        "clock with them"
    )
    lines = [
        "# Small batches",
        "",
        f"Made on {datetime.now(UTC):%Y-%m-%d} by `python benchmarks/small_batches.py --rounds {rounds}`.",
        "",
        f"- {machine}",
        f"- {protocol}",
        "- times torch: how many batches a loader makes while torch's makes one; the median of the epochs' ratios",
        "",
        "| samples | batch | torch | headrace.torch | times torch | headrace | times torch |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    costs = []
    for case in cases():
        if not names or any(name in case.name for name in names):
            for size in case.sizes:
                row = [case.name, str(size), *cells(measure(case, size, rounds))]
                print(*row, sep=" | ", file=sys.stderr, flush=True)
                lines.append(f"| {' | '.join(row)} |")
            if NATIVE in case.name:
                theirs, own = processor(case, 64, min(rounds, 3))
                costs.append(f"| {case.name} | {theirs:.2f} | {own:.2f} | {own / theirs:.2f} |")
    if costs:
        head = ["## CPU seconds of an epoch", "", "| samples | torch | headrace.torch | share |"]
        lines += ["", *head, "| --- | ---: | ---: | ---: |", *costs]
    return "\n".join(lines) + "\n"


def ratio_table(text: str) -> list[str]:
    """Return the ratios of a run as the guide's table."""
    text = text.partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")][2:]
    ratios: dict[str, list[tuple[str, str]]] = {}
    for name, size, _, _, ratio, *_ in rows:
        ratios.setdefault(name, []).append((size, ratio))
    table = ["| samples | batch size | batches while torch makes one |", "|---|---|---|"]
    for name, found in ratios.items():
        sizes, times = (", ".join(column) for column in zip(*found, strict=True))
        table.append(f"| {name} | {sizes} | {times} |")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="epochs of each loader (15)")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="of the names of samples")
    parser.add_argument("--guide", action="store_true", help="write the ratios into the guide")
    parser.add_argument("--output", type=Path, help="write the table to this file too")
    given = parser.parse_args()
    if importlib.util.find_spec("torch") is None:
        if not PYTHON.exists():
            print("small batches: skipped: torch is not installed (make bench-peers)", file=sys.stderr)
            return 0
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "src"), "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.run([str(PYTHON), *sys.argv], env=environment, check=False).returncode
    import torch

    gc.disable()  # what it costs depends on how many objects the cases before have left
    torch.set_num_threads(1)  # as in a worker; threads of one batch would wait for each other
    warnings.simplefilter("ignore")
    text = document(given.rounds, given.only)
    print(text)
    if given.output:
        given.output.write_text(text)
    if given.guide:
        insert(GUIDE, "ratios", ratio_table(text))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
