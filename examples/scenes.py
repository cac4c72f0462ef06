"""Photographs with shapes drawn on them, as datasets on disk: pairs of images and masks, and COCO's JSON."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = ["disk", "square", "triangle"]
COLORS = np.array([(220, 60, 60), (60, 110, 220), (235, 200, 60)], np.float64)
SIDE = 64


class Shape(NamedTuple):
    """A shape in a scene."""

    label: int
    outline: list[tuple[float, float]]

    @property
    def box(self) -> list[float]:
        """Left, top, width and height."""
        low, high = np.min(self.outline, axis=0), np.max(self.outline, axis=0)
        return [*low.round(2).tolist(), *(high - low).round(2).tolist()]


def photographs() -> list[Image.Image]:
    """Read the photographs that come with headrace, each 200 pixels high or wide at least."""
    found = []
    for file in sorted((files("headrace") / "demo").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".jpg"):
            with file.open("rb") as stream, Image.open(stream) as photograph:
                found.append(photograph.convert("RGB").resize((240, 200)))
    return found


def scene(rng: np.random.Generator, photos: list[Image.Image]) -> tuple[Image.Image, NDArray[np.uint8], list[Shape]]:
    """Draw one to three shapes on a part of a photograph; return the image, its mask and the shapes.

    In the mask, 0 is the background, and the classes count from 1.
    """
    left, top = rng.integers(0, 240 - SIDE), rng.integers(0, 200 - SIDE)
    image = photos[rng.integers(len(photos))].crop((left, top, left + SIDE, top + SIDE))
    pixels, mask, shapes = np.asarray(image, np.float64), np.zeros((SIDE, SIDE), np.uint8), list[Shape]()
    for _ in range(rng.integers(1, 4)):
        shape = _placed(rng, shapes)
        if shape is None:
            continue
        drawn = Image.new("L", (SIDE, SIDE))
        ImageDraw.Draw(drawn).polygon(shape.outline, fill=1)
        inside = np.asarray(drawn) == 1
        color = COLORS[shape.label] * rng.uniform(0.7, 1.1)
        pixels = np.where(inside[..., None], 0.7 * color + 0.3 * pixels, pixels)
        mask[inside] = shape.label + 1
        shapes.append(shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), mask, shapes


def _placed(rng: np.random.Generator, others: list[Shape]) -> Shape | None:
    """Draw a shape that covers no other one; None if there is no room."""
    for _ in range(20):
        radius = rng.uniform(7, 15)
        center = rng.uniform(radius, SIDE - radius, 2)
        if all(
            np.linalg.norm(center - np.mean(one.outline, axis=0)) > radius + max(one.box[2:]) * 0.75 for one in others
        ):
            label = int(rng.integers(3))
            corners, turn = [(40, 0.0), (4, np.pi / 4), (3, -np.pi / 2)][label]
            angles = turn + rng.uniform(-0.2, 0.2) + np.arange(corners) * 2 * np.pi / corners
            outline = center + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            return Shape(label, [(float(x), float(y)) for x, y in outline])
    return None


def make_pairs(folder: Path, count: int, seed: int) -> Path:
    """Write scenes as pairs of images and masks."""
    rng, photos = np.random.default_rng(seed), photographs()
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image, mask, _ = scene(rng, photos)
        image.save(folder / "images" / f"{number:04}.jpg", quality=95)
        Image.fromarray(mask).save(folder / "masks" / f"{number:04}.png")
    return folder


def make_coco(folder: Path, count: int, seed: int) -> Path:
    """Write scenes as images and COCO's JSON."""
    rng, photos = np.random.default_rng(seed), photographs()
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], list[dict[str, object]]()
    for number in range(count):
        image, _, shapes = scene(rng, photos)
        image.save(folder / "images" / f"{number:04}.jpg", quality=95)
        images.append({"id": number, "file_name": f"{number:04}.jpg", "height": SIDE, "width": SIDE})
        for shape in shapes:
            box = shape.box
            found = {"id": len(annotations) + 1, "image_id": number, "category_id": shape.label + 1, "iscrowd": 0}
            polygon = [[round(value, 2) for point in shape.outline for value in point]]
            annotations.append({**found, "bbox": box, "area": box[2] * box[3], "segmentation": polygon})
    categories = [{"id": number + 1, "name": name} for number, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
