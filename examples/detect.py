"""Detection of shapes on photographs, from COCO's JSON, in torch: `python examples/detect.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from common import options, plot_losses, plt, save
from scenes import CLASSES, SIDE, make_coco
from torch import nn
from tqdm import tqdm

import headrace
from headrace import Compose, Normalize, RandomHorizontalFlip, Resize, ToCHW, ToFloat
from headrace.datasets import CocoDetection
from headrace.torch import DataLoader
from headrace.transforms import ColorJitter, RandomIoUCrop, SanitizeBoundingBoxes

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

STRIDE = 8
CELLS = SIDE // STRIDE
BACKGROUND = len(CLASSES)
PIXELS = ToFloat(), Normalize(mean=0.5, std=0.25), ToCHW()


class Found(NamedTuple):
    """The objects that a model finds in an image."""

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]


def on_a_grid(sample: dict[str, Any]) -> dict[str, Any]:
    """Write each object in the cell of its center: its class, and how far the four sides are from the cell's center."""
    labels = np.full((CELLS, CELLS), BACKGROUND, np.int64)
    sides = np.zeros((4, CELLS, CELLS), np.float32)
    for box, label in zip(sample["boxes"], sample["labels"], strict=True):
        column, row = ((box[:2] + box[2:]) / 2 // STRIDE).astype(int).clip(0, CELLS - 1)
        center = (np.array([column, row]) + 0.5) * STRIDE
        labels[row, column] = label
        sides[:, row, column] = np.concatenate([center - box[:2], box[2:] - center]) / STRIDE
    return {"image": sample["image"], "labels": labels, "sides": sides}


def network() -> nn.Module:
    """Return a network with, for each cell, scores of the classes and of the background, and four distances."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=2, dilation=2), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, BACKGROUND + 1 + 4, 1),
    )  # fmt: skip


def loss_of(output: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the loss: of the classes in all cells, of the distances in the cells with an object."""
    scores, sides = output[:, : BACKGROUND + 1], output[:, BACKGROUND + 1 :]
    weight = torch.tensor([1.0] * BACKGROUND + [0.15])
    there = (batch["labels"] != BACKGROUND)[:, None].float()
    apart = (nn.functional.smooth_l1_loss(sides, batch["sides"], reduction="none") * there).sum() / there.sum().clamp(1)
    return nn.functional.cross_entropy(scores, batch["labels"], weight=weight) + apart


def main() -> None:
    args = options(__doc__, epochs=12).parse_args()
    folders = make_coco(args.out / "scenes", 192, seed=0), make_coco(args.out / "scenes-held-out", 60, seed=1)
    train, test = (CocoDetection(one / "images", one / "instances.json") for one in folders)
    augmented = train.map(
        RandomIoUCrop(min_scale=0.6),
        Resize((SIDE, SIDE)),
        RandomHorizontalFlip(),
        ColorJitter(0.3, 0.3, 0.3),
        SanitizeBoundingBoxes(min_size=3),
    )
    args.out.mkdir(parents=True, exist_ok=True)
    headrace.show(augmented, 8, classes=CLASSES).save(args.out / "detect-samples.png")
    training = DataLoader(augmented.map(*PIXELS, on_a_grid), batch_size=8, shuffle=True, seed=0, num_workers=1)

    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for epoch in range(args.epochs):
        total = 0.0
        for batch in tqdm(training, desc=f"epoch {epoch + 1}"):
            loss = loss_of(model(batch["image"]), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch["image"])
        losses.append(total / len(train))

    model.eval()
    truth = [test[number] for number in range(len(test))]
    with torch.inference_mode():
        images = torch.from_numpy(np.stack([Compose(*PIXELS)(sample["image"]) for sample in truth]))
        found = [objects(one) for one in model(images).numpy()]
    precisions = [average_precision(truth, found, label) for label in range(len(CLASSES))]
    print(f"loss: {losses[0]:.3f} in the first epoch, {losses[-1]:.3f} in the last")
    each = ", ".join(f"{name} {one:.2f}" for name, one in zip(CLASSES, precisions, strict=True))
    print(f"average precision at an IoU of 0.5: {each}")
    print(f"mean average precision of {len(truth)} held-out images: {np.mean(precisions):.3f}")
    report(losses, precisions, truth, found, args.out)


def objects(output: NDArray[np.float32], least: float = 0.05) -> Found:
    """Return the objects of an image; of those that overlap, the one with the best score."""
    scores = np.exp(output[: BACKGROUND + 1] - output[: BACKGROUND + 1].max(axis=0))
    scores /= scores.sum(axis=0)
    labels, best = scores[:-1].argmax(axis=0).ravel(), scores[:-1].max(axis=0).ravel()
    rows, columns = np.divmod(np.arange(CELLS * CELLS), CELLS)
    centers = np.stack([columns, rows], axis=1) + 0.5
    sides = output[BACKGROUND + 1 :].reshape(4, -1).T
    boxes = (np.concatenate([centers - sides[:, :2], centers + sides[:, 2:]], axis=1) * STRIDE).clip(0, SIDE)
    kept: list[int] = []
    for place in np.argsort(-best):
        if best[place] >= least and all(overlap(boxes[place], boxes[one]) < 0.4 for one in kept):
            kept.append(int(place))
    return Found(boxes[kept], labels[kept], best[kept])


def overlap(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Return the intersection over union of two boxes."""
    inner = np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0).prod()
    return float(inner / max((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - inner, 1e-9))


def average_precision(truth: list[dict[str, Any]], found: list[Found], label: int) -> float:
    """Return the area under precision and recall of a class, where a box is right from an IoU of 0.5 up."""
    hits, scores, number = list[bool](), list[float](), 0
    for sample, guess in zip(truth, found, strict=True):
        left = [box for box, one in zip(sample["boxes"], sample["labels"], strict=True) if one == label]
        number += len(left)
        for box, one, score in zip(*guess, strict=True):
            if one != label:
                continue
            overlaps = [overlap(box, other) for other in left]
            hits.append(bool(overlaps) and max(overlaps) >= 0.5)
            scores.append(float(score))
            if hits[-1]:
                left.pop(int(np.argmax(overlaps)))  # each object is found once
    right = np.cumsum(np.array(hits, bool)[np.argsort(-np.array(scores), kind="stable")])
    precision = right / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(right, prepend=0) * best).sum() / max(number, 1))


def report(
    losses: list[float], precisions: list[float], truth: list[dict[str, Any]], found: list[Found], folder: Path
) -> None:
    """Save the predictions on a contact sheet; plot it with the loss and the average precision of each class."""
    first = list(zip(truth, found, strict=True))[:8]
    sure = [guess.scores >= 0.4 for _, guess in first]
    batch = {
        "image": np.stack([sample["image"] for sample, _ in first]),
        "boxes": [guess.boxes[kept] for (_, guess), kept in zip(first, sure, strict=True)],
        "labels": [guess.labels[kept] for (_, guess), kept in zip(first, sure, strict=True)],
        "scores": [guess.scores[kept] for (_, guess), kept in zip(first, sure, strict=True)],
    }
    headrace.show(batch, classes=CLASSES).save(folder / "detect-predictions.png")
    figure = plt.figure(figsize=(14, 6), dpi=100, layout="compressed")
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 2.6))
    plot_losses(figure.add_subplot(grid[0, 0]), losses)
    axes = figure.add_subplot(grid[1, 0])
    axes.barh(CLASSES, precisions, color="tab:blue")
    axes.set(title=f"average precision, {np.mean(precisions):.2f} on average", xlim=(0, 1))
    axes = figure.add_subplot(grid[:, 1])
    axes.imshow(plt.imread(folder / "detect-predictions.png"))
    axes.set(title="predictions for held-out images, with their scores")
    axes.axis("off")
    save(figure, folder / "detect.png")


if __name__ == "__main__":
    main()
