"""What the fuzzer begins with: small JPEG files of every kind, PNG and PPM files (`make fuzz`)."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.image_files import encoded, photo

CHOICES = 10
"""Bytes before each file that choose what is done to it: see fuzz.cpp."""

KINDS: dict[str, dict[str, Any]] = {
    "444": {"subsampling": "4:4:4"},
    "422": {"subsampling": "4:2:2", "quality": 95},
    "420": {"subsampling": "4:2:0"},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 2},
    "restarts-progressive": {"restart_marker_rows": 1, "progressive": True},
    "coarse": {"quality": 5, "optimize": True},
}
MODES = ("RGB", "L", "CMYK")
MASKS = ("1", "L", "P", "I;16")
COLORS = ("RGB", "RGBA", "LA")
SIZES = ((40, 56), (17, 130), (120, 9), (1, 1))


def write(folder: Path) -> int:
    """Write the files, and return how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    count = 0
    for kind, options in KINDS.items():
        for mode in MODES:
            for height, width in SIZES:
                exif = Image.Exif()
                exif[0x0112] = count % 8 + 1
                image = Image.fromarray(photo(count, height, width)).convert(mode)
                data = encoded(image, exif=exif, **options)
                (folder / f"{kind}-{mode}-{height}x{width}").write_bytes(rng.bytes(CHOICES) + data)
                count += 1
    for mode in MASKS:
        for height, width in SIZES:
            values = (np.arange(height * width).reshape(height, width) // 9 % 4).astype(np.uint8)
            image = (
                Image.fromarray(values.astype(np.uint16)) if mode == "I;16" else Image.fromarray(values).convert(mode)
            )
            file = io.BytesIO()
            image.save(file, "PNG", bits=2) if mode == "P" else image.save(file, "PNG")
            (folder / f"mask-{mode}-{height}x{width}").write_bytes(bytes(CHOICES) + file.getvalue())
            count += 1
    for form, mode in [*(("PNG", mode) for mode in COLORS), ("PPM", "RGB")]:
        for height, width in SIZES:
            data = encoded(Image.fromarray(photo(count, height, width)).convert(mode), form)
            chosen = bytes(CHOICES) if form == "PNG" and count % 2 else rng.bytes(CHOICES)
            (folder / f"{form}-{mode}-{height}x{width}").write_bytes(chosen + data)
            count += 1
    return count


if __name__ == "__main__":
    sys.stdout.write(f"{write(Path(sys.argv[1]))} files in {sys.argv[1]}\n")
