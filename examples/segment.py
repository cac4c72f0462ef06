"""Semantic segmentation of shapes on photographs, in torch: `python examples/segment.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from common import options, plot_losses, plt, save
from scenes import CLASSES, make_pairs
from torch import nn
from tqdm import tqdm

import headrace
from headrace import Compose, Normalize, RandomHorizontalFlip, ToCHW, ToFloat
from headrace.datasets import SegmentationFolder
from headrace.torch import DataLoader
from headrace.transforms import ColorJitter, Mask, RandomAffine

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

IGNORED = 255
NAMES = ["background", *CLASSES]


def network(classes: int) -> nn.Module:
    """Return a network with scores for each fourth pixel, scaled up again."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 48, 3, padding=2, dilation=2), nn.BatchNorm2d(48), nn.ReLU(),
        nn.Conv2d(48, 48, 3, padding=3, dilation=3), nn.BatchNorm2d(48), nn.ReLU(),
        nn.Conv2d(48, classes, 1), nn.Upsample(scale_factor=4, mode="bilinear"),
    )  # fmt: skip


def main() -> None:
    args = options(__doc__, epochs=10).parse_args()
    folders = make_pairs(args.out / "shapes", 128, seed=0), make_pairs(args.out / "shapes-held-out", 40, seed=1)
    train, test = (SegmentationFolder(one / "images", one / "masks", classes=NAMES) for one in folders)
    # What the map uncovers is no class: the loss ignores it.
    kinds = {"image": "image", "mask": Mask(fill=IGNORED)}
    move = RandomAffine(20, translate=(0.1, 0.1), scale=(0.8, 1.25), interpolation="bilinear", fill=114)
    pixels = ToFloat(), Normalize(mean=0.5, std=0.25), ToCHW()
    augmented = train.map(Compose(move, RandomHorizontalFlip(), ColorJitter(0.3, 0.3, 0.3), *pixels, kinds=kinds))
    training = DataLoader(augmented, batch_size=8, shuffle=True, seed=0, num_workers=1)
    held_out = DataLoader(test.map(Compose(*pixels, kinds=kinds)), batch_size=40)
    args.out.mkdir(parents=True, exist_ok=True)
    headrace.show(augmented, 8, classes=NAMES).save(args.out / "segment-samples.png")

    torch.manual_seed(0)
    model = network(len(NAMES))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for epoch in range(args.epochs):
        total = 0.0
        for batch in tqdm(training, desc=f"epoch {epoch + 1}"):
            scores = model(batch["image"])
            loss = nn.functional.cross_entropy(scores, batch["mask"].long(), ignore_index=IGNORED)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(scores)
        losses.append(total / len(train))

    model.eval()
    with torch.inference_mode():
        batch = next(iter(held_out))
        guesses = model(batch["image"]).argmax(dim=1).numpy()
    masks = batch["mask"].numpy()
    overlaps = intersection_over_union(masks, guesses)
    print(f"loss: {losses[0]:.3f} in the first epoch, {losses[-1]:.3f} in the last")
    print("IoU: " + ", ".join(f"{name} {overlap:.2f}" for name, overlap in zip(NAMES, overlaps, strict=True)))
    print(f"mean IoU of {len(masks)} held-out images: {overlaps.mean():.3f}")
    images = np.stack([test[number]["image"] for number in range(6)])
    report(losses, overlaps, images, masks, guesses, args.out / "segment.png")


def intersection_over_union(masks: NDArray[np.integer], guesses: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the intersection over union of each class, over all pixels of all images."""
    counts = np.zeros((len(NAMES), len(NAMES)))
    known = masks != IGNORED
    np.add.at(counts, (masks[known], guesses[known]), 1)
    found = np.diag(counts)
    return found / np.maximum(counts.sum(axis=0) + counts.sum(axis=1) - found, 1)


def report(
    losses: list[float],
    overlaps: NDArray[np.float64],
    images: NDArray[np.uint8],
    masks: NDArray[np.integer],
    guesses: NDArray[np.integer],
    path: Path,
) -> None:
    """Plot the loss, the IoU of each class, and held-out images beside their masks and the predictions."""
    figure = plt.figure(figsize=(14, 5), dpi=100, layout="compressed")
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 2.6))
    plot_losses(figure.add_subplot(grid[0, 0]), losses)
    axes = figure.add_subplot(grid[1, 0])
    axes.barh(NAMES, overlaps, color="tab:blue")
    axes.set(title=f"IoU, {overlaps.mean():.2f} on average", xlim=(0, 1))
    axes = figure.add_subplot(grid[:, 1])
    axes.axis("off")
    colors = np.array([(0, 0, 0), (230, 97, 1), (94, 60, 153), (26, 152, 80)])
    for column, image in enumerate(images):
        rows = image, _tinted(image, masks[column], colors), _tinted(image, guesses[column], colors)
        for row, shown in enumerate(rows):
            axes.imshow(shown, extent=(column + 0.03, column + 0.97, row + 0.97, row + 0.03))
    for row, name in enumerate(("image", "mask", "prediction")):
        axes.text(-0.05, row + 0.5, name, ha="center", va="center", rotation=90)
    axes.set(title="held-out images", xlim=(-0.15, len(images)), ylim=(3, 0))
    save(figure, path)


def _tinted(image: NDArray[np.uint8], mask: NDArray[np.integer], colors: NDArray[np.integer]) -> NDArray[np.uint8]:
    tinted = np.where((mask == 0)[..., None], image, image // 3 + colors[mask] * 2 // 3)
    return tinted.astype(np.uint8)


if __name__ == "__main__":
    main()
