"""Train on a folder of images with Ray Train; ranks share a pool of actors: `python examples/train_on_ray.py [FOLDER]`.

The folder has ``train``, with a folder for each class. Without one, a small folder is made. On a cluster, it must lead
to the same files on every node. A ledger of each rank proves in the end that every image of an epoch came once.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from photos import make_photos
from ray.train import Checkpoint, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model
from torch import nn

import headrace
from headrace import ImageFolder, Normalize, RandomHorizontalFlip, RandomResizedCrop, ToCHW, ToFloat
from headrace.executors import RayCluster, RayPool
from headrace.torch import DataLoader

COLORS = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
STEPS = RandomResizedCrop(64), RandomHorizontalFlip(), ToFloat(), COLORS, ToCHW()


def train(config: dict[str, Any]) -> None:
    """Run a rank: ``rank="auto"`` asks Ray Train which it is, and the pool makes the batches of all ranks."""
    images = ImageFolder(config["folder"] / "train").map(*STEPS)
    loader = DataLoader(
        images,
        12,
        shuffle=True,
        seed=0,
        rank="auto",
        num_workers=1,
        backend=config["pool"],
        persistent_workers=True,
        ledger=config["out"] / "ledger",
    )
    model = prepare_model(nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(3 * 8 * 8, len(config["classes"]))))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(config["epochs"]):
        losses = []
        for pixels, labels in loader:
            loss = nn.functional.cross_entropy(model(pixels), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        with tempfile.TemporaryDirectory() as folder:
            report(folder, {"loss": sum(losses) / len(losses)}, model=model, data=loader)
    loader.close()


def report(folder: str, metrics: dict[str, float], **parts: Any) -> None:
    """Save the states of model and loader: all ranks have the same, so rank 0 writes them."""
    checkpoint = None
    if ray.train.get_context().get_world_rank() == 0:
        torch.save({name: part.state_dict() for name, part in parts.items()}, Path(folder) / "states.pt")
        checkpoint = Checkpoint.from_directory(folder)
    ray.train.report(metrics, checkpoint=checkpoint)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="folder with train/ (default: made)")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--actors", type=int, default=2, help="workers that all ranks share")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("headrace-examples/ray"), help="ledgers, made images")
    given = parser.parse_args()
    out = given.out.resolve()
    folder = given.folder.resolve() if given.folder else make_photos(out / "photos")
    classes = ImageFolder(folder / "train").classes
    ray.init()
    with RayPool(given.actors, RayCluster(worker_resources={"CPU": 0.5})) as pool:
        config = {"folder": folder, "out": out, "pool": pool, "classes": classes, "epochs": given.epochs}
        trainer = TorchTrainer(
            train,
            train_loop_config=config,
            scaling_config=ScalingConfig(num_workers=given.ranks, resources_per_worker={"CPU": 0.5}),
            run_config=RunConfig(storage_path=str(out / "runs")),
        )
        result = trainer.fit()
    print(f"loss {result.metrics['loss']:.3f} in the last epoch")
    print(headrace.verify_epoch(out / "ledger"))


if __name__ == "__main__":
    main()
