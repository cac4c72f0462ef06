"""Modes of pixels: RGB, gray, palette indices, 16 bits, or as in the file; and what a conversion loses."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from headrace.checks import one_of
from headrace.errors import BadImage

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile

Mode = Literal["RGB", "L", "P", "I;16", "unchanged"]
"""What an image becomes: see `headrace.image.decode`."""

MODES: tuple[Mode, ...] = get_args(Mode)

LOSSES = {
    "palette": ("the indices of a palette become colors", 'for a mask whose indices are classes, pass mode="P"'),
    "16": ("16-bit values keep their upper 8 bits", 'for all 16, as of a depth image, pass mode="I;16"'),
    "32": ("32-bit values are stretched over 0 to 255, each image by itself", 'for their own, pass mode="unchanged"'),
    "deep": ("16-bit colors keep their upper 8 bits, as Pillow reads no more", "for all 16, read the file with OpenCV"),
}
"""What an image loses when it becomes 8-bit RGB or gray, and how to keep it."""


def checked(mode: object) -> Mode:
    """Return a mode that a user gave, or raise ArgumentError.

    >>> checked("L")
    'L'
    """
    return one_of("mode", mode, MODES)


def loss(image: ImageFile) -> str | None:
    """Return which of the `LOSSES` an image that is not loaded yet has when it becomes 8 bits; None for none."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return "16"
    if image.mode in ("I", "F"):
        return "32"
    if _is_deep(image):
        return "deep"
    # A GIF is a palette because it cannot be anything else.
    return "palette" if image.mode == "P" and image.format != "GIF" else None


def converted(image: ImageFile, mode: Mode, path: str | None, *, deep: bool) -> NDArray[Any]:
    """Return the pixels of a loaded image in a mode; raise BadImage for an image that has none in it.

    ``deep`` says that its colors had 16 bits each, and Pillow read 8 of them.
    """
    if mode == "RGB":
        return rgb(image)
    if mode == "L":
        return gray(rgb(image))
    if deep:
        raise BadImage(
            f"{image.mode} with 16 bits a channel, but Pillow reads 8 of them",
            path=path,
            expected=f"an image that keeps all its bits in mode={mode!r}",
            cure='Read the file with OpenCV, or pass mode="RGB" for the upper 8 bits.',
        )
    values = np.array(image)
    if mode == "unchanged":
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    if mode == "P" and image.mode in ("P", "L", "1"):
        return values.astype(np.uint8, copy=False)
    if mode == "I;16" and (image.mode in ("L", "1", "I") or image.mode.startswith("I;16")):
        if not values.size or (values.min() >= 0 and values.max() <= 0xFFFF):
            return values.astype(np.uint16)
        raise BadImage(
            f"values from {values.min()} to {values.max()}",
            path=path,
            expected="0 to 65535 for mode='I;16'",
            cure='Pass mode="unchanged" for 32-bit integers.',
        )
    wanted = {"P": "an image with a palette or 8-bit gray", "I;16": "a gray image of at most 16 bits"}[mode]
    raise BadImage(
        f"an image of Pillow's mode {image.mode!r}",
        path=path,
        expected=f"{wanted} for mode={mode!r}",
        cure='Pass mode="RGB" or "unchanged", or take the file out of the dataset.',
    )


def gray(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return RGB as ``(H, W)`` gray, weighed as Pillow weighs it (ITU-R 601-2).

    >>> gray(np.full((1, 2, 3), 7, np.uint8))
    array([[7, 7]], dtype=uint8)
    """
    from PIL import Image

    return np.array(Image.fromarray(pixels).convert("L"))


def _is_deep(image: ImageFile) -> bool:
    """Say whether Pillow would read 8 of 16 bits of each channel: its names for the data in the file tell."""
    for tile in getattr(image, "tile", ()):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(isinstance(name, str) and re.search(r";16", name) for name in arguments):
            return True
        if image.format == "PPM" and any(isinstance(most, int) and most > 0xFF for most in arguments[1:]):
            return True
    return False


def rgb(image: ImageFile) -> NDArray[np.uint8]:
    """Return the pixels of a loaded image as ``(H, W, 3)`` uint8."""
    # Pillow's own conversions of these clip: a 16-bit gray image would come out white.
    if image.mode.startswith("I;16"):
        return _gray(np.asarray(image) >> (_bits(image) - 8))
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # which hold 16 bits at most, scaled to all of them
        return _gray(np.asarray(image).clip(0, 0xFFFF) >> 8)
    if image.mode in ("I", "F"):
        return _gray(_stretched(np.asarray(image)))
    image.info.pop("transparency", None)  # dropped; Pillow would warn that it cannot be kept
    if image.mode == "La":  # gray multiplied by alpha, from TIFF: Pillow divides by it for mode "LA" only
        return np.array(image.convert("LA").convert("RGB"))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _gray(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.repeat(values.astype(np.uint8)[:, :, None], 3, axis=2)


def _bits(image: ImageFile) -> int:
    """Return how many bits of a 16-bit mode are used: 16, or 12 in a TIFF file that says so."""
    tags = getattr(image, "tag_v2", {})
    return 12 if tags.get(258) == (12,) else 16


def _stretched(values: NDArray[Any]) -> NDArray[np.float64]:
    values = values.astype(np.float64)
    known = values[np.isfinite(values)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
    with np.errstate(all="ignore"):  # whatever the user's own is: infinities stay what they are
        # Halved first: the distance between the two ends of float64 is no float64.
        shares = (values / 2 - low / 2) / ((high / 2 - low / 2) or 1.0)
        result: NDArray[np.float64] = np.nan_to_num(np.rint(shares.clip(0, 1) * 255))
    return result
