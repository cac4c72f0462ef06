"""Changes of images in memory by the native extension: to the bit what `color` and `warp` compute in NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace._native import extension
from headrace.context import memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.image.geometry import Image

Change = tuple[str, tuple[float, ...], tuple[Any, ...]]
"""What the extension does to an image, or draws for that: its kind, its numbers, and the changes that it is made of."""

NOTHING: Change = ("all", (), ())
ABLE = extension is None or hasattr(extension, "Change")
"""Whether the extension, if it is there, was built from sources that have changes."""

KINDS: frozenset[str] | None = (
    None if extension is None else frozenset(extension.change_kinds() if hasattr(extension, "change_kinds") else ())
)
"""The kinds of changes that the extension was built with; None where there is none."""

MOST_TAPS = 127
"""The most pixels that the extension's blur weighs along an axis: weights of more add up to rounding errors."""
MOST_PIXELS = 1 << 27


def native_change(change: Change) -> Any:
    """Return the extension's object for a change."""
    native: Any = extension
    kind, numbers, parts = change
    return native.Change(kind, list(numbers), [native_change(part) for part in parts])


def upside_down(height: int, channels: int) -> tuple[str, tuple[float, ...]]:
    """Return kind and numbers of the change that mirrors an image of a height top to bottom.

    >>> upside_down(4, 3)[0] in ("upside_down", "warp")
    True
    """
    if KINDS is None or "upside_down" in KINDS:
        return "upside_down", ()
    # An extension that was built earlier maps places by a matrix.
    return "warp", (1, 0, 0, 0, -1, height, 0, 0, 1, False, *(0,) * channels)


def changed(image: Image, kind: str, numbers: tuple[float, ...]) -> Image | None:
    """Return an image of uint8 with a change done to it by the extension; None where that cannot do it.

    >>> found = changed(np.array([[7]], np.uint8), "invert", ())
    >>> found is None or found.tolist() == [[248]]
    True
    """
    note = getattr(image, "recolored", None)
    if note is not None:  # its changes are done together, later
        noted: Image | None = note(kind, numbers)
        return noted
    native: Any = extension
    if native is None or not ABLE or image.dtype != np.uint8 or image.ndim not in (2, 3):
        return None
    channels = image.shape[2] if image.ndim == 3 else 1
    if (
        channels not in ((1, 2, 3, 4) if kind in ("blur", "channels") else (1, 3, 4))
        or not 0 < image.size < MOST_PIXELS
    ):
        return None
    whole = np.ascontiguousarray(image).reshape(*image.shape[:2], channels)
    out = memory.empty(whole.shape, np.dtype(np.uint8))
    native.changed(whole, out, native.Change(kind, list(numbers), []))
    return out.reshape(image.shape)


def warped(image: Image, maps: Sequence[Sequence[float]], fills: Image, *, nearest: bool) -> Image | None:
    """Return pixels ``(H, W, C)`` resampled once for maps that follow each other; None where the extension cannot.

    Each map is the nine numbers of its inverse matrix, and height and width before and after. ``fills`` has a pixel
    for each. Nearest pixels are taken as they are, of any dtype; others are weighed, of uint8 alone.
    """
    native: Any = extension
    if native is None or not ABLE or not (image.dtype == np.uint8 or (nearest and image.dtype.kind in "biuf")):
        return None
    channels = image.shape[2] * image.dtype.itemsize
    rows, columns = (int(side) for side in maps[-1][11:])
    if not 0 < image.nbytes < MOST_PIXELS or not 0 < rows * columns * channels < MOST_PIXELS:
        return None
    whole = np.ascontiguousarray(image).view(np.uint8).reshape(*image.shape[:2], channels)
    out = memory.empty((rows, columns, channels), np.dtype(np.uint8))
    pixels = np.ascontiguousarray(fills).view(np.uint8).reshape(len(maps), channels)
    native.warped(whole, out, [list(one) for one in maps], pixels, nearest)
    return out.view(image.dtype)
