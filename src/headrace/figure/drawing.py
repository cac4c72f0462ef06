"""Images of a batch as colors on a contact sheet, with their labels, masks and boxes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import missing
from headrace.figure.parts import CHANNELS, Part, is_boxes, is_images, is_masks, labels_of
from headrace.image.sheet import Single, contact_sheet, with_box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Scale = tuple[NDArray[np.float64], NDArray[np.float64]]

# Colors of classes in a mask, apart in lightness too; 0 is the background.
_PALETTE = np.array(
    [(0, 0, 0), (230, 97, 1), (94, 60, 153), (26, 152, 80), (214, 39, 120), (253, 184, 99), (44, 123, 182)], np.uint8
)


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
    parts: list[Part],
    *,
    classes: Sequence[str],
    title: str,
    subtitle: str,
    details: Sequence[str] = (),
    scale: Scale | None = None,
    most: int,
) -> bytes | None:
    """Draw at most ``most`` images of a batch on a contact sheet; return None if it has none.

    Masks and boxes are drawn on the images. The name of its class is written below each image.
    """
    drawn = next(filter(is_images, parts), None)
    if drawn is None or drawn.array is None or not len(drawn.array):
        return None
    number = len(drawn.array)
    colors, done = colors_of(drawn.array[:most], scale)
    labels = labels_of(parts, number)
    height, width = colors.shape[1:3]
    cards = []
    for row, image in enumerate(colors):
        for part in parts:
            if is_masks(part) and part.array is not None and part.array.shape[1:] == (height, width):
                image = with_mask(image, part.array[row])
        for top, left, high, wide in _boxes(parts, row, number, (height, width)):
            image = with_box(image, top, left, high, wide)
        caption = "" if labels is None else name_of(int(labels[row]), classes)
        cards.append(Single(image, caption, details[row] if row < len(details) else f"{width} x {height}"))
    return png_of(cards, title=title, subtitle=". ".join(filter(None, (subtitle, done))))


def png_of(cards: list[Single], *, title: str, subtitle: str) -> bytes:
    """Draw cards; return the bytes of a PNG."""
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise missing("Pillow", extra="images", purpose="showing images") from error
    png = io.BytesIO()
    contact_sheet(cards, title=title, subtitle=subtitle).save(png, format="PNG")
    return png.getvalue()


def with_mask(image: NDArray[np.uint8], mask: NDArray[Any]) -> NDArray[np.uint8]:
    """Color an image where its mask is not 0, a color for each class.

    >>> with_mask(np.zeros((1, 2, 3), np.uint8), np.array([[0, 1]])).tolist()
    [[[0, 0, 0], [115, 48, 0]]]
    """
    number = mask.astype(np.int64)
    tint = _PALETTE[np.where(number == 0, 0, (number - 1) % (len(_PALETTE) - 1) + 1)]
    return np.where(number[..., None] == 0, image, image // 2 + tint // 2)


def name_of(label: int, classes: Sequence[str]) -> str:
    """Return the name of a label.

    >>> name_of(1, ["cat", "dog"]), name_of(7, []), name_of(-1, [])
    ('dog', 'label 7', 'no label')
    """
    if 0 <= label < len(classes):
        return str(classes[label])
    return "no label" if label == -1 else f"label {label}"


def _boxes(parts: list[Part], row: int, number: int, size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """Return the boxes of an image as top, left, height and width, cut to the image."""
    of_images = [part for part in parts if is_boxes(part) and part.array is not None]
    if len(of_images) == 1 and of_images[0].array is not None and of_images[0].array.ndim == 3:
        rows = of_images[0].array[row]
    elif len(of_images) == number:
        rows = of_images[row].array
    else:
        return []
    found = []
    for left, top, right, bottom in np.asarray(rows, np.float64).reshape(-1, 4):
        if right > left and bottom > top:
            x, y = max(0, int(left)), max(0, int(top))
            found.append((y, x, min(size[0], round(bottom)) - y, min(size[1], round(right)) - x))
    return [box for box in found if min(box[2:]) > 0]
