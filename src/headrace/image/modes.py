"""What pixels become: RGB, grey, palette indices, 16 bits, or what the file holds; and what is lost on the way."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from headrace.errors import ArgumentError, BadImage

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile

Mode = Literal["RGB", "L", "P", "I;16", "unchanged"]
"""What an image becomes: see `headrace.image.decode.decode`."""

MODES: tuple[Mode, ...] = get_args(Mode)

LOSSES = {
    "palette": ("the indices of a palette become colors", 'for a mask whose indices are classes, pass mode="P"'),
    "16": ("16-bit values keep their upper 8 bits", 'for all 16, as of a depth image, pass mode="I;16"'),
    "32": ("32-bit values are stretched over 0 to 255, each image by itself", 'for their own, pass mode="unchanged"'),
    "deep": ("16-bit colors keep their upper 8 bits, as Pillow reads no more", "for all 16, read the file with OpenCV"),
}
"""What is lost where an image becomes 8-bit RGB or grey, and how to keep it."""


def checked(mode: object) -> Mode:
    """Return a mode that a user gave, or raise ArgumentError.

    >>> checked("L")
    'L'
    """
    for known in MODES:
        if isinstance(mode, str) and mode == known:
            return known
    raise ArgumentError(f"mode must be one of {', '.join(map(repr, MODES))}; got {mode!r}")


def loss(picture: ImageFile) -> str | None:
    """Return which of the `LOSSES` an image that is not loaded yet has when it becomes 8 bits; None for none."""
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM")):
        return "16"
    if picture.mode in ("I", "F"):
        return "32"
    if _is_deep(picture):
        return "deep"
    # A GIF is a palette because it cannot be anything else.
    return "palette" if picture.mode == "P" and picture.format != "GIF" else None


def converted(picture: ImageFile, mode: Mode, path: str | None, *, deep: bool) -> NDArray[Any]:
    """Return the pixels of a loaded image in a mode; raise BadImage for an image that has none in it.

    ``deep`` says that its colors had 16 bits each, of which Pillow read 8.
    """
    if mode == "RGB":
        return rgb(picture)
    if mode == "L":
        return grey(rgb(picture))
    if deep:
        raise BadImage(
            f"{picture.mode} with 16 bits a channel, of which Pillow reads 8",
            path=path,
            expected=f"an image that keeps all its bits in mode={mode!r}",
            cure='Read the file with OpenCV, or pass mode="RGB" for the upper 8 bits.',
        )
    values = np.array(picture)
    if mode == "unchanged":
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    if mode == "P" and picture.mode in ("P", "L", "1"):
        return values.astype(np.uint8, copy=False)
    if mode == "I;16" and (picture.mode in ("L", "1", "I") or picture.mode.startswith("I;16")):
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
        f"an image of Pillow's mode {picture.mode!r}",
        path=path,
        expected=f"{wanted} for mode={mode!r}",
        cure='Pass mode="RGB" or "unchanged", or take the file out of the dataset.',
    )


def grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return RGB as ``(H, W)`` grey, weighed as Pillow weighs it (ITU-R 601-2).

    >>> grey(np.full((1, 2, 3), 7, np.uint8))
    array([[7, 7]], dtype=uint8)
    """
    from PIL import Image

    return np.array(Image.fromarray(pixels).convert("L"))


def _is_deep(picture: ImageFile) -> bool:
    """Whether Pillow is about to read 8 of 16 bits of each channel: its own names for what is in the file say so."""
    for tile in getattr(picture, "tile", ()):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(isinstance(name, str) and re.search(r";16", name) for name in arguments):
            return True
        if picture.format == "PPM" and any(isinstance(most, int) and most > 0xFF for most in arguments[1:]):
            return True
    return False


def rgb(picture: ImageFile) -> NDArray[np.uint8]:
    """Return the pixels of a loaded image as ``(H, W, 3)`` uint8."""
    # Pillow's own conversions of these clip: a 16-bit grey picture would come out white.
    if picture.mode.startswith("I;16"):
        return _grey(np.asarray(picture) >> (_bits(picture) - 8))
    if picture.mode == "I" and picture.format in ("PNG", "PPM"):  # which hold 16 bits at most, scaled to all of them
        return _grey(np.asarray(picture).clip(0, 0xFFFF) >> 8)
    if picture.mode in ("I", "F"):
        return _grey(_stretched(np.asarray(picture)))
    picture.info.pop("transparency", None)  # dropped; Pillow would warn that it cannot be kept
    if (
        picture.mode == "La"
    ):  # grey multiplied by alpha, as TIFF may have it: Pillow divides on the way to this mode alone
        return np.array(picture.convert("LA").convert("RGB"))
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _grey(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.repeat(values.astype(np.uint8)[:, :, None], 3, axis=2)


def _bits(picture: ImageFile) -> int:
    """Of a 16-bit mode, the bits in use: 16, or 12 in a TIFF file that says so."""
    tags = getattr(picture, "tag_v2", {})
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
