"""Images of a batch as colors on a contact sheet, with their labels, masks and boxes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import missing
from headrace.figure.parts import CHANNELS, Part, is_images, is_sounds, labels_of
from headrace.figure.targets_drawn import mask_names, name_of, overlay_of, row_of, soft_name
from headrace.figure.waveforms import waveform
from headrace.image.sheet import Single, contact_sheet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headrace.image.kinds import Kinds

    Scale = tuple[NDArray[np.float64], NDArray[np.float64]]


def colors_of(images: NDArray[Any], scale: Scale | None = None) -> tuple[NDArray[np.uint8], str]:
    """Return images as (N, H, W, 3) uint8, and what was done to their values.

    ``scale``: mean and standard deviation of a `Normalize`, which is undone.

    >>> colors, done = colors_of(np.array([[[[0.0], [1.0]]] * 2]))
    >>> colors.shape, colors.max(), done
    ((1, 2, 2, 3), np.uint8(255), '0 to 1 shown as black to white')
    """
    if images.ndim == 3:
        images = images[..., None]
    elif images.shape[3] not in CHANNELS:
        images = images.transpose(0, 2, 3, 1)
    images = images[..., :3]
    done = ""
    if images.dtype != np.uint8:
        values, done = _unit(images.astype(np.float64), scale)
        images = np.rint(np.nan_to_num(values).clip(0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(images, (*images.shape[:3], 3))), done


def _unit(values: NDArray[np.float64], scale: Scale | None) -> tuple[NDArray[np.float64], str]:
    if scale is not None and values.shape[-1] in (len(scale[0]), 3):
        return values * scale[1] + scale[0], "Normalize undone"
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    if low >= -1e-6 and high <= 1 + 1e-6:
        return values, "0 to 1 shown as black to white"
    if low >= 0 and high <= 255:
        return values / 255, "0 to 255 shown as black to white"
    return (values - low) / ((high - low) or 1), f"{low:.3g} to {high:.3g} shown as black to white"


def sheet_of(
    batch: Any,
    parts: list[Part],
    *,
    classes: Sequence[str],
    title: str,
    subtitle: str,
    details: Sequence[str] = (),
    scale: Scale | None = None,
    kinds: Kinds | None = None,
    most: int,
) -> bytes | None:
    """Draw at most ``most`` images, or sounds, of a batch on a contact sheet; return None if it has none.

    Masks, boxes and keypoints are drawn on the images. The name of its class is written below each image.
    """
    drawn = next(filter(is_images, parts), None)
    if drawn is None or drawn.array is None or not len(drawn.array):
        cards = _sounds(parts, classes, most)
        return png_of(cards, title=title, subtitle=subtitle) if cards else None
    number = len(drawn.array)
    colors, done = colors_of(drawn.array[:most], scale)
    labels = labels_of(parts, number)
    height, width = colors.shape[1:3]
    cards = []
    for row, image in enumerate(colors):
        overlay = overlay_of(row_of(batch, number, row), (height, width), kinds, classes)
        caption = mask_names(overlay, classes) if labels is None else caption_of(labels[row], classes)
        cards.append(Single(image, caption, details[row] if row < len(details) else f"{width} x {height}", overlay))
    return png_of(cards, title=title, subtitle=". ".join(filter(None, (subtitle, done))))


def caption_of(label: Any, classes: Sequence[str]) -> str:
    """Return the label of an image in words.

    >>> caption_of(np.int64(1), ["cat", "dog"]), caption_of(np.array([0.7, 0.3]), ["cat", "dog"])
    ('dog', 'cat 0.7, dog 0.3')
    """
    return soft_name(label, classes) if np.ndim(label) else name_of(int(label), classes)


def _sounds(parts: list[Part], classes: Sequence[str], most: int) -> list[Single]:
    array = next((part.array for part in parts if is_sounds(part)), None)
    if array is None:
        return []
    labels = labels_of(parts, len(array))
    peak = float(np.abs(np.nan_to_num(array[:most].astype(np.float64))).max(initial=0))
    cards = []
    for row, sound in enumerate(array[:most]):
        caption = "" if labels is None else caption_of(labels[row], classes)
        cards.append(Single(waveform(sound, peak), caption, f"{sound.shape[-1]:,} values, peak {peak:.3g}"))
    return cards


def png_of(cards: list[Single], *, title: str, subtitle: str) -> bytes:
    """Draw cards; return the bytes of a PNG."""
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise missing("Pillow", extra="images", purpose="showing images") from error
    png = io.BytesIO()
    contact_sheet(cards, title=title, subtitle=subtitle).save(png, format="PNG")
    return png.getvalue()
