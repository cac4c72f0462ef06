"""Packed shards with one flipped bit each: named by an error, skipped, or without effect; never another image.

python -m tests.chaos.packed_bits [--times 1000] [--seed N]
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace import DataLoader
from headrace.datasets import Dataset, PackedDataset
from headrace.errors import BadFile, SampleError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STORES = ("jpeg", "raw", "smart")
SAMPLES, BATCH = 12, 4
OPENED, ALL, ONE, NONE = OUTCOMES = (
    "refused when opened",
    "refused with the first sample",
    "one sample refused, and skipped",
    "no effect",
)


class Samples(Dataset[Any]):
    """Images of different sizes, numbers, text and arrays."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Any:
        coarse = np.random.default_rng(index).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        image = np.kron(coarse, np.ones((8, 8, 1), np.uint8))[: 16 + index]
        return image, index, f"text {index}", np.arange(index)


class Read:
    """What a packed dataset gives: each sample, or None where an error names the shard; and a loop that skips."""

    def __init__(self, folder: Path, shard: Path) -> None:
        self._shard = str(shard)
        self.dataset: PackedDataset | None = self._named(lambda: PackedDataset(folder))
        self.samples: list[Any] = []
        if self.dataset is not None:
            self.samples = [self._named(lambda row=row: self.dataset[row]) for row in range(len(self.dataset))]  # type: ignore[misc]

    def _named(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except (BadFile, SampleError) as error:
            if self._shard not in str(error):
                raise
            return None

    def skipped_to(self) -> list[Any]:
        """Return the samples of a loop that skips the bad ones."""
        assert self.dataset is not None
        loader = DataLoader(self.dataset, BATCH, on_error="skip", collate_fn=list)
        return [sample for batch in loader for sample in batch]


def same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Compare two samples to the bit."""
    return len(one) == len(other) and all(
        type(a) is type(b) and (np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b)
        for a, b in zip(one, other, strict=True)
    )


def flip(times: int, seed: int, folder: Path, store: Any) -> Counter[str]:
    """Flip a bit at so many places, one at a time, of a shard of one store; return what became of each.

    Raises AssertionError if a sample is another one than before, or if skipping leaves out more than the bad ones.
    """
    packed = Samples().pack(folder, store=store, budget="4kB" if store == "smart" else None)
    (name,) = packed.shards
    shard, places = Path(name), random.Random(seed)
    expected, whole = list(packed), shard.read_bytes()
    found: Counter[str] = Counter()
    for _ in range(times):
        at, bit = places.randrange(len(whole)), places.randrange(8)
        damaged = bytearray(whole)
        damaged[at] ^= 1 << bit
        shard.write_bytes(damaged)
        read = Read(folder, shard)
        rows = [row for row, sample in enumerate(read.samples) if sample is not None]
        good = [read.samples[row] for row in rows]
        outcome = OPENED if read.dataset is None else {0: ALL, SAMPLES - 1: ONE, SAMPLES: NONE}.get(len(rows))
        assert outcome, (store, at, bit, rows)
        assert all(same(sample, expected[row]) for row, sample in zip(rows, good, strict=True)), (store, at, bit)
        if good:
            kept = read.skipped_to()
            assert len(kept) == len(good), (store, at, bit)
            assert all(map(same, kept, good)), (store, at, bit)
        found[outcome] += 1
    shard.write_bytes(whole)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=1000, help="places in the shard of each store")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    lines = [["store", "flipped bits", *OUTCOMES, "another image"]]
    for store in STORES:
        with tempfile.TemporaryDirectory() as folder:
            found = flip(arguments.times, arguments.seed, Path(folder) / store, store)
        lines.append([store, str(arguments.times), *(str(found[each]) for each in OUTCOMES), "0"])
    lines.insert(1, ["---"] * len(lines[0]))
    print("\n".join(f"| {' | '.join(line)} |" for line in lines))


if __name__ == "__main__":
    main()
