"""One process of several that train together: python -m tests.adapters.ranks FRAMEWORK FOLDER RANK WORLD STOP ADDRESS.

It finds its rank by itself, continues from the folder's state, and writes down what it received. The last rank saves.
"""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from headrace import DataLoader, rng, verify_epoch

ROOT = Path(__file__).parents[2]
SIZE, WHOLE = 50, 6


class Noisy:
    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> Any:
        return index, np.float32(rng().random())


def of_torch(rank: int, world: int, address: str) -> tuple[Any, Any]:
    import torch.distributed as group

    from headrace.torch import DataLoader

    group.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    return DataLoader, group.destroy_process_group


def of_jax(rank: int, world: int, address: str) -> tuple[Any, Any]:
    import jax

    from headrace.jax import DataLoader

    if world > 1:
        jax.distributed.initialize(address, num_processes=world, process_id=rank)
    return DataLoader, jax.distributed.shutdown if world > 1 else int


def main(framework: str, folder: Path, rank: int, world: int, stop: int, address: str) -> None:
    kind, leave = {"torch": of_torch, "jax": of_jax}[framework](rank, world, address)
    loader = kind(Noisy(), WHOLE // world, shuffle=True, seed=5, rank="auto", num_workers=1, ledger=folder / "ledgers")
    assert (loader.rank, loader.world_size) == (rank, world)
    if (folder / "state.json").exists():
        loader.load_state_dict(json.loads((folder / "state.json").read_text()))
    received = [
        [np.asarray(column).tolist() for column in batch] for batch in islice(loader, None if stop < 0 else stop)
    ]
    (folder / f"{world}-{rank}.json").write_text(json.dumps(received))
    if rank == world - 1:
        (folder / "state.new").write_text(json.dumps(loader.state_dict()))
    leave()


def trained(framework: str, folder: Path, address: Any) -> None:
    """Train on two processes, then on three, then on one; together they receive what one receives."""
    worlds = ((2, 3), (3, 2), (1, -1))
    received: list[Any] = []
    for world, stop in worlds:
        where = address(world)
        program = [sys.executable, "-m", "tests.adapters.ranks", framework, str(folder)]
        processes = [
            subprocess.Popen(
                [*program, str(rank), str(world), str(stop), where], cwd=ROOT, stderr=subprocess.PIPE, text=True
            )
            for rank in range(world)
        ]
        for process in processes:
            _, said = process.communicate()
            assert process.returncode == 0, said
        ranks = [json.loads((folder / f"{world}-{rank}.json").read_text()) for rank in range(world)]
        for batches in zip(*ranks, strict=True):
            received += [pair for indices, draws in batches for pair in zip(indices, draws, strict=True)]
        (folder / "state.new").replace(folder / "state.json")
    alone = DataLoader(Noisy(), WHOLE, shuffle=True, seed=5)
    assert received == [pair for indices, draws in alone for pair in zip(indices.tolist(), draws.tolist(), strict=True)]
    proof = verify_epoch(folder / "ledgers", epoch=0)
    assert (proof.exact, proof.sessions) == (True, 3), str(proof)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:6]), sys.argv[6])  # type: ignore[arg-type]
