"""A training script that saves its state now and then, goes on from the last one, and may be killed at any moment.

python -m tests.resuming.training FOLDER EPOCHS SEED KIND WORLD

Every global batch that the loop receives becomes a line of ``received``; a state holds how long that file was when it
was saved, as a model's checkpoint holds its weights: what was received after it is undone with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from headrace import DataLoader, rng

ROWS, WHOLE = 600, 12
"""Samples of an epoch, and of a global batch, whatever the number of ranks."""
EVERY = 7
"""Steps from one saved state to the next."""
KINDS: dict[str, dict[str, Any]] = {
    "inline": {},
    "threads": {"num_workers": 4, "backend": "threads"},
    "fork": {"num_workers": 1, "backend": "processes", "multiprocessing_context": "fork"},
    "forkserver": {"num_workers": 2, "backend": "processes", "multiprocessing_context": "forkserver"},
}


class Noisy:
    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> tuple[int, Any]:
        return index, rng().random(300)


def loaders(seed: int, world: int, kind: str, **how: Any) -> list[DataLoader[Any]]:
    return [
        DataLoader(Noisy(), WHOLE // world, shuffle=True, seed=seed, rank=rank, world_size=world, **KINDS[kind], **how)
        for rank in range(world)
    ]


def line(epoch: int, batches: list[Any]) -> bytes:
    """Say what a global batch holds."""
    numbers = [number for indices, _ in batches for number in indices.tolist()]
    noise = hashlib.blake2b(np.concatenate([noise for _, noise in batches]).tobytes(), digest_size=8).hexdigest()
    return json.dumps([epoch, numbers, noise]).encode() + b"\n"


def expected(epochs: int, seed: int) -> bytes:
    """Return what a run receives that nothing happens to."""
    (loader,) = loaders(seed, 1, "inline")
    return b"".join(line(epoch, [batch]) for epoch in range(epochs) for batch in loader)


def train(folder: Path, epochs: int, seed: int, kind: str, world: int) -> None:
    """Go on from the last state that was saved, up to the end of the last epoch."""
    ranks = loaders(seed, world, kind, ledger=folder / "ledgers")
    received = os.open(folder / "received", os.O_RDWR | os.O_CREAT)
    length = epoch = 0
    if (folder / "state.json").exists():
        saved = json.loads((folder / "state.json").read_text())
        length, epoch = saved["length"], saved["loader"]["epoch"]
        for loader in ranks:
            loader.load_state_dict(saved["loader"])
    os.ftruncate(received, length)
    os.lseek(received, length, os.SEEK_SET)
    steps = 0
    print("begun", flush=True)
    for each in range(epoch, epochs):
        for batches in zip(*ranks, strict=True):
            length += os.write(received, line(each, list(batches)))
            steps += 1
            if steps % EVERY == 0:
                save(folder, length, ranks[steps % world].state_dict())
        save(folder, length, ranks[0].state_dict())


def save(folder: Path, length: int, state: dict[str, Any]) -> None:
    (folder / "state.new").write_text(json.dumps({"length": length, "loader": state}))
    (folder / "state.new").replace(folder / "state.json")


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        train(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
