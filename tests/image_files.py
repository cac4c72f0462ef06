"""Images for tests: made here, the same every time, busy enough to be worth decoding."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


def photo(seed: int = 0, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Make something like a photograph: shaded from corner to corner, with blobs of color and a little noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([rows / height * a + columns / width * b for a, b in rng.uniform(0, 128, (3, 2))], axis=-1)
    for _ in range(6):
        row, column, size = rng.uniform((0, 0, 2), (height, width, height / 3 + 3))
        near = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * size**2))
        pixels += near[:, :, None] * rng.uniform(-120, 120, 3)
    return (pixels + rng.normal(0, 6, pixels.shape)).clip(0, 255).astype(np.uint8)


def encoded(pixels: NDArray[Any] | Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    """Write an image as the bytes of a file."""
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, form, **options)
    return file.getvalue()


def by_pillow(data: bytes) -> NDArray[np.uint8]:
    """Read an image as Pillow's users do."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def plant(root: Path, names: Iterable[str], data: bytes | None = None) -> Path:
    """Write a small image under each name; one file on the disk, linked."""
    first: Path | None = None
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if first is None:
            first = file
            file.write_bytes(encoded(photo(0, 8, 8)) if data is None else data)
        else:
            os.link(first, file)
    return root
