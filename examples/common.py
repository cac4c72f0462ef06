"""Code that the examples share: arguments, images, and the plot of a classifier."""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from PIL import Image

mpl.use("agg")  # write files, open no window
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 32
HELD_OUT = 5
"""One patch in ``HELD_OUT`` is for testing."""


def options(description: str, *, epochs: int) -> argparse.ArgumentParser:
    """Return a parser with the arguments that all examples share."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=epochs, help=f"passes over the images ({epochs})")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("headrace-examples"),
        help="folder for plots and made data (./%(default)s)",
    )
    return parser


def cifar_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line of an example on CIFAR images; without a folder, generate one."""
    parser.add_argument("cifar", type=Path, nargs="?", help="folder with CIFAR-10 (default: made patches)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    args.cifar = args.cifar or make_cifar(args.out)
    return args


def patches() -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[str]]:
    """Cut the photographs that come with headrace into patches; the label is the photograph."""
    found, labels, names = [], [], []
    for file in sorted((files("headrace") / "demo").iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".jpg"):
            continue
        with file.open("rb") as stream, Image.open(stream) as photograph:
            pixels = np.asarray(photograph.convert("RGB"))
        rows, columns = pixels.shape[0] // SIDE, pixels.shape[1] // SIDE
        grid = pixels[: rows * SIDE, : columns * SIDE].reshape(rows, SIDE, columns, SIDE, 3)
        found.append(grid.swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3))
        labels.append(np.full(rows * columns, len(names), np.uint8))
        names.append(file.name.removesuffix(".jpg"))
    return np.concatenate(found), np.concatenate(labels), names


def make_cifar(folder: Path) -> Path:
    """Write the patches in CIFAR-10's binary format: a byte for the label, then three planes."""
    images, labels, names = patches()
    records = np.concatenate([labels[:, None], images.transpose(0, 3, 1, 2).reshape(len(images), -1)], axis=1)
    held_out = np.arange(len(records)) % HELD_OUT == 0
    place = folder / "cifar-10-batches-bin"
    place.mkdir(parents=True, exist_ok=True)
    (place / "batches.meta.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    (place / "test_batch.bin").write_bytes(records[held_out].tobytes())
    for number, part in enumerate(np.array_split(records[~held_out], 5), start=1):
        (place / f"data_batch_{number}.bin").write_bytes(part.tobytes())
    return folder


def plot_losses(axes: plt.Axes, losses: list[float]) -> None:
    """Plot the loss of each epoch."""
    axes.plot(range(1, len(losses) + 1), losses, marker="o", color="tab:blue")
    axes.set(title="training loss", xlabel="epoch", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def report(
    losses: list[float],
    scores: NDArray[np.floating],
    images: NDArray[np.uint8],
    labels: NDArray[np.integer],
    classes: list[str],
    path: Path,
) -> None:
    """Print and plot the accuracy of a classifier on held-out images."""
    guesses = scores.argmax(axis=1)
    right = guesses == labels
    print(f"loss: {losses[0]:.3f} in the first epoch, {losses[-1]:.3f} in the last")
    print(f"held-out images: {right.sum()} of {len(labels)} right ({right.mean():.0%})")

    figure, axes = plt.subplots(1, 3, figsize=(14, 5), dpi=100, layout="compressed", width_ratios=(1, 1, 1.7))
    plot_losses(axes[0], losses)

    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (labels, guesses), 1)
    axes[1].imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1.3)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            axes[1].text(column, row, count, ha="center", va="center", fontsize=8)
    axes[1].set(title=f"{right.mean():.0%} of {len(labels)} right", xlabel="predicted", ylabel="true")
    axes[1].set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axes[1].set_yticks(range(len(classes)), classes)

    # Wrong predictions first, at most half, because they show more.
    rng = np.random.default_rng(0)
    wrong, fine = rng.permutation(np.flatnonzero(~right))[:16], rng.permutation(np.flatnonzero(right))
    chosen = np.concatenate([wrong, fine])[:32]
    axes[2].axis("off")
    for place, index in enumerate(chosen):
        row, column = divmod(place, 8)
        top = row * 1.4
        axes[2].imshow(images[index], extent=(column + 0.05, column + 0.95, top + 0.95, top + 0.05))
        color = "black" if right[index] else "tab:red"
        said = classes[guesses[index]] + ("" if right[index] else f"\nis {classes[labels[index]]}")
        axes[2].text(column + 0.5, top + 1.0, said, ha="center", va="top", fontsize=6.5, color=color)
    axes[2].set(title="predicted (red: wrong, and what it is)", xlim=(0, 8), ylim=(4 * 1.4, 0))
    save(figure, path)


def save(figure: plt.Figure, path: Path) -> None:
    """Write a figure, and print its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"plot: {path}")
