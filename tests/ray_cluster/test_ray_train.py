"""Loaders in the workers of Ray Train: rank and world size found, a pool shared by all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace import DataLoader
from headrace.executors import RayCluster, RayPool
from headrace.interop import ranks, torch_state

pytest.importorskip("ray.train", reason="Ray Train is not installed")

EIGHTH = {"CPU": 0.125}


@pytest.fixture(autouse=True)
def nothing_leaks() -> None:
    """Ray Train keeps actors of its own for a while."""


def read(config: dict[str, Any]) -> None:
    """What each worker of Ray Train runs: read an epoch, and write down which samples came."""
    loader = DataLoader(range(40), 4, shuffle=True, seed=3, rank="auto", num_workers=1, backend=config["pool"])
    assert torch_state.ray_train_worker() == (loader.rank, loader.world_size)  # as where torch has no process group
    keys = [int(key) for batch in loader for key in batch]
    Path(config["folder"], f"{loader.rank} of {loader.world_size}").write_text(" ".join(map(str, keys)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_workers_of_ray_train_find_their_rank_and_share_a_pool(cluster: Any, tmp_path: Path) -> None:
    """Start two workers: each reads its half, and the pool makes the batches of both."""
    pytest.importorskip("torch", reason="torch is not installed")
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    with RayPool(1, RayCluster(worker_resources=EIGHTH)) as pool:
        trainer = TorchTrainer(
            read,
            train_loop_config={"folder": str(tmp_path), "pool": pool},
            scaling_config=ScalingConfig(num_workers=2, resources_per_worker=EIGHTH),
            run_config=RunConfig(storage_path=str(tmp_path / "runs")),
        )
        trainer.fit()
    parts = [(tmp_path / f"{rank} of 2").read_text().split() for rank in range(2)]
    assert [len(part) for part in parts] == [20, 20]
    assert sorted(int(key) for part in parts for key in part) == list(range(40))


def test_a_driver_is_no_worker_of_ray_train(cluster: Any) -> None:
    """Be alone where Ray Train is loaded, but runs nothing here."""
    assert ranks.found() == (0, 1)
