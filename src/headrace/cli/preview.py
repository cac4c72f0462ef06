"""The transforms that the commands run, and a batch of images before and after them."""

from __future__ import annotations

import copy
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace import (
    CenterCrop,
    Compose,
    DataLoader,
    Dataset,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToCHW,
    ToFloat,
    rng,
)
from headrace.cli.command_errors import writing
from headrace.formatting import plain
from headrace.image.overlay import NOTHING, Overlay
from headrace.image.sheet import TILE, Pair, contact_sheet, thumbnail

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from headrace.cli.image_set import Images, ImageSet

# ImageNet's, which most published models were trained with.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)

MOST_PAIRS = 24
"""How many images of a batch a contact sheet shows."""


def training(size: int) -> Compose:
    """Return the usual transforms of training: a random crop and flip, then float32, normalized, channels first."""
    return Compose(RandomResizedCrop(size), RandomHorizontalFlip(), ToFloat(), Normalize(_MEAN, _STD), ToCHW())


def evaluation(size: int) -> Compose:
    """Return the usual transforms of evaluation: the middle of the image, and nothing random."""
    return Compose(Resize(round(size * 256 / 224)), CenterCrop(size), ToFloat(), Normalize(_MEAN, _STD), ToCHW())


def describe(transforms: Compose) -> str:
    """Name the transforms, in order."""
    return ", ".join(map(_name, transforms.transforms))


def _name(transform: object) -> str:
    size = getattr(transform, "size", None)
    if isinstance(size, tuple):
        height, width = size
        size = height if height == width else f"{height} x {width}"
    return type(transform).__name__ + (f"({size})" if size else "")


def viewable(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Turn a batch of normalized (N, 3, H, W) float32 back into the (N, H, W, 3) uint8 that a person can look at."""
    colors = images.transpose(0, 2, 3, 1) * np.asarray(_STD, np.float32) + np.asarray(_MEAN, np.float32)
    pixels: NDArray[np.uint8] = np.rint(colors.clip(0, 1) * 255).astype(np.uint8)
    return pixels


class Traced(Dataset[tuple[Any, ...]]):
    """A dataset's samples after the transforms, each with its label, what it was before, size, index and part kept."""

    def __init__(self, dataset: Images, transform: Compose) -> None:
        self._dataset = dataset
        self._transform = transform

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        image, *labels = self._dataset[index]
        kept = _kept(self._transform, image, copy.deepcopy(rng()))
        after = self._transform(image)
        return after, labels[0] if labels else -1, thumbnail(image), image.shape[:2], index, kept

    def __len__(self) -> int:
        return len(self._dataset)

    def where(self, index: int) -> str | None:
        """Say where the sample comes from."""
        return self._dataset.where(index)


@dataclass(frozen=True, slots=True)
class Preview:
    """One batch, as delivered, and what is needed to show where it came from."""

    image_set: ImageSet
    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    thumbnails: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    indices: NDArray[np.int64]
    kept: NDArray[np.float64]
    """The part of each image that the transforms keep: top, left, height, width."""
    skipped: int

    def arrays(self) -> list[tuple[str, NDArray[Any]]]:
        """Return the arrays of the batch, by name."""
        return [("images", self.images), ("labels", self.labels)]

    def shown(self) -> int:
        """Return how many images the contact sheet shows."""
        return min(len(self.images), MOST_PAIRS)

    def sheet(self, *, title: str, subtitle: str) -> bytes:
        """Draw the contact sheet; return the bytes of a PNG."""
        shown = self.shown()
        height, width = self.images.shape[2:]
        pairs = [
            Pair(
                before=self.thumbnails[row],
                after=after,
                caption=plain(self.image_set.label(self.labels[row].tolist())),
                detail=plain(f"{self.image_set.file(int(self.indices[row]))}, {w} x {h} to {width} x {height}"),
                drawn=(_outlined(self.kept[row], h, w), NOTHING),
            )
            for row, (after, (h, w)) in enumerate(
                zip(viewable(self.images[:shown]), self.sizes[:shown].tolist(), strict=True)
            )
        ]
        png = io.BytesIO()
        contact_sheet(pairs, title=title, subtitle=subtitle).save(png, format="PNG")
        return png.getvalue()


def _kept(transform: Compose, image: NDArray[np.uint8], generator: Any) -> NDArray[np.float64]:
    """Return the part of an image that the first two transforms keep, with the numbers that they will draw."""
    first, second = transform.transforms[:2]
    height, width = image.shape[:2]
    if isinstance(first, RandomResizedCrop):
        return np.array(first.box(height, width, generator), np.float64)
    if not isinstance(first, Resize) or not isinstance(second, CenterCrop):
        return np.array([0, 0, height, width], np.float64)
    rows, columns = first.move(height, width, None).size
    part: NDArray[np.float64] = np.array(second.box(rows, columns)) * np.array([height / rows, width / columns] * 2)
    return part


def _outlined(kept: NDArray[np.float64], height: int, width: int) -> Overlay:
    """Outline a part of an image on its thumbnail."""
    scale = TILE / max(height, width)
    top, left, *size = (kept * scale).tolist()
    sides = round(height * scale), round(width * scale)
    return Overlay(outline=(top + (TILE - sides[0]) // 2, left + (TILE - sides[1]) // 2, size[0], size[1]))


def preview(image_set: ImageSet, transform: Compose, batch_size: int, *, shuffle: bool, seed: int) -> Preview:
    """Make the first batch of the first epoch: the very batch that a training run with this seed begins with."""
    loader: DataLoader[Any] = DataLoader(
        Traced(image_set.dataset, transform), batch_size, shuffle=shuffle, seed=seed, on_error="skip"
    )
    with loader:
        images, labels, thumbnails, sizes, indices, kept = next(iter(loader))
    return Preview(
        image_set,
        images,
        labels,
        thumbnails,
        np.stack(sizes, axis=1) if isinstance(sizes, list | tuple) else sizes,
        indices,
        kept,
        loader.statistics().skipped,
    )


def save(png: bytes, path: Path) -> None:
    """Write a contact sheet."""
    with writing(path, "choose another place with --output, or make room"):
        path.write_bytes(png)
