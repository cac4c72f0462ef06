"""Train on a folder of images with torch's DDP: `torchrun --nproc-per-node 2 examples/imagenet_torch.py [FOLDER]`.

The folder has ``train`` and ``val``, each with a folder for each class, as ImageNet has. Without one, a small folder is
made. Start it again with the same ``--out`` and it resumes in the middle of the epoch, on any number of ranks that
divides the batch; a ledger then proves that each image of an epoch came once. Without torchrun it is one process.
"""

from __future__ import annotations

import argparse
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from photos import make_photos
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import headrace
from headrace import CenterCrop, ImageFolder, Normalize, RandomHorizontalFlip, RandomResizedCrop, Resize, ToCHW, ToFloat
from headrace.torch import DataLoader

PIXELS = ToFloat(), Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)), ToCHW()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="folder with train/ and val/ (default: made)")
    parser.add_argument("--model", default="small", help="small, or a model of torchvision such as resnet50")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=24, help="images of all ranks together")
    parser.add_argument("--side", type=int, default=64, help="height and width of an image (ImageNet: 224)")
    parser.add_argument("--workers", type=int, default=1, help="threads that read and augment, in each process")
    parser.add_argument("--save-every", type=int, default=3, help="steps between checkpoints")
    parser.add_argument("--stop-after", type=int, default=0, help="end after so many steps, as a time limit would")
    parser.add_argument("--out", type=Path, default=Path("headrace-examples/imagenet"), help="checkpoint, ledgers")
    return parser.parse_args()


def network(name: str, classes: int) -> nn.Module:
    if name != "small":
        import torchvision

        return torchvision.models.get_model(name, num_classes=classes)
    widths = [3, 32, 64, 128]
    blocks = [
        nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.ReLU())
        for a, b in pairwise(widths)
    ]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))


def save(path: Path, parts: dict[str, Any], training: DataLoader[Any], step: int) -> None:
    """Write a checkpoint whole, or not at all: all ranks have the same state, so rank 0 writes it."""
    if dist.get_rank() == 0:
        states = {name: part.state_dict() for name, part in parts.items()}
        torch.save({**states, "data": training.state_dict(), "step": step}, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
    dist.barrier()


def accuracy(model: nn.Module, held_out: DataLoader[Any], device: torch.device) -> float:
    """Count on each rank's part, and add the counts up."""
    model.eval()
    counts = torch.zeros(2, device=device)
    with torch.inference_mode():
        for images, labels in held_out:
            right = model(images.to(device)).argmax(1) == labels.to(device)
            counts += torch.tensor([right.sum().item(), len(labels)], device=device)
    model.train()
    dist.all_reduce(counts)
    return float(counts[0] / counts[1])


def train(args: argparse.Namespace, device: torch.device) -> None:
    rank, world = dist.get_rank(), dist.get_world_size()
    folder = args.folder or args.out / "photos"
    photos, others = ImageFolder(folder / "train"), ImageFolder(folder / "val")
    augment = RandomResizedCrop(args.side), RandomHorizontalFlip()
    shared = {"num_workers": args.workers, "rank": "auto", "pin_memory": device.type == "cuda"}
    each = args.batch_size // world
    ledger = args.out / "ledger"
    training: DataLoader[Any] = DataLoader(
        photos.map(*augment, *PIXELS), each, shuffle=True, seed=0, ledger=ledger, **shared
    )
    middle = Resize(args.side * 8 // 7), CenterCrop(args.side)
    held_out: DataLoader[Any] = DataLoader(others.map(*middle, *PIXELS), each, seed=0, **shared)

    torch.manual_seed(0)
    model = DistributedDataParallel(network(args.model, len(photos.classes)).to(device))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * len(training))
    parts = {"model": model.module, "optimizer": optimizer, "schedule": schedule}
    checkpoint, step = args.out / "checkpoint.pt", 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        training.load_state_dict(saved["data"])
        step = saved["step"]
        if rank == 0:
            print(f"resumed after step {step}, on {world} ranks")

    for epoch in range(training.state_dict()["epoch"], args.epochs):
        training.set_epoch(epoch)  # a loaded state that is in the middle of this epoch stays there
        for images, labels in training:
            with torch.autocast(device.type, dtype=torch.bfloat16):
                scores = model(images.to(device, non_blocking=True))
                loss = nn.functional.cross_entropy(scores, labels.to(device, non_blocking=True))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            if step % args.save_every == 0:
                save(checkpoint, parts, training, step)
            if step == args.stop_after:
                if rank == 0:
                    print(f"stopped after step {step}, in epoch {epoch + 1}")
                return
        right = accuracy(model, held_out, device)
        if rank == 0:
            print(f"epoch {epoch + 1}: loss {loss.item():.3f}, {right:.0%} of the held-out images right", flush=True)
    save(checkpoint, parts, training, step)
    if rank == 0:
        print(headrace.verify_epoch(ledger, epoch=args.epochs - 1))
        print(headrace.verify_epoch(ledger, epoch=0))


def main() -> None:
    args = arguments()
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        os.environ.setdefault(name, value)  # without torchrun
    device = (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if torch.cuda.is_available()
        else torch.device("cpu")
    )
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    args.out.mkdir(parents=True, exist_ok=True)
    if args.folder is None and dist.get_rank() == 0 and not (args.out / "photos").exists():
        make_photos(args.out)
    dist.barrier()
    train(args, device)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
