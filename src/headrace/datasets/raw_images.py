"""Fields that hold the pixels of an image, or several images: layouts that MDS and LitData share."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from headrace.errors import BadImage, missing
from headrace.image.budget import check_pixels
from headrace.image.decoder import CURE, decode_as
from headrace.image.modes import converted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.image.decoding import Decoding

IMAGE_KINDS = frozenset({"pixels", "images", "images in a list", "pixels in a list"})
"""``pixels``: a header, then the values. ``images``: their number, their sizes, their bytes; in a list: zeros first."""

_BITS = {"1": 1, "L": 8, "P": 8, "RGB": 24, "RGBA": 32, "CMYK": 32, "YCbCr": 24, "HSV": 24, "LA": 16, "PA": 16}
_BITS |= {"I": 32, "F": 32, "I;16": 16, "I;16L": 16, "I;16B": 16, "RGBX": 32, "RGBa": 32, "La": 16, "LAB": 24}
"""Bits of a pixel in Pillow's modes; rows of "1" end with a whole byte."""


def images_of(kind: str, data: bytes, place: str, how: Decoding, warned: set[str]) -> Any:
    """Return the image of a field as an array, or a list of arrays where it holds several.

    Raises `BadImage` and `ImageTooLarge`, and ValueError for sizes that the field cannot have.
    """
    if kind == "pixels":
        return _pixels(data, place, how)
    if kind == "pixels in a list":
        return [_pixels(each, place, how) for each in _parts(data, 4)]
    return [decode_as(each, place, how, warned) for each in _parts(data, 4 if kind == "images in a list" else 0)]


def _pixels(data: bytes, place: str, how: Decoding) -> Any:
    """Read ``u32 width, u32 height, u32 n, mode of n letters, values``, as Pillow's ``tobytes`` gives them."""
    width, height, letters = struct.unpack_from("<3I", data)
    mode, values = data[12 : 12 + letters].decode("ascii", "replace"), data[12 + letters :]
    bits = _BITS.get(mode)
    held = None if bits is None else -(-width * bits // 8) * height
    if held != len(values):
        what = f"it claims {width} x {height} pixels of mode {mode[:16]!r}, and holds {len(values):,} bytes"
        raise BadImage(what, path=place, expected="a mode of Pillow, and as many bytes", cure=CURE)
    check_pixels((width, height), place, how.max_pixels, len(values))
    if not values:
        raise BadImage("an image without pixels", path=place, expected="at least one", cure=CURE)
    try:
        from PIL import Image
    except ImportError as error:
        raise missing("Pillow", extra="images", purpose="reading the pixels of images") from error
    image: Any = Image.frombytes(mode, (width, height), values)
    image.format = None  # `converted` asks for it, as of an image that was opened
    return converted(image, how.mode, place, deep=False)


def _parts(data: bytes, begin: int) -> Iterator[bytes]:
    """Yield the parts of ``u32 n, u32 sizes[n], parts``."""
    count = struct.unpack_from("<I", data, begin)[0]
    at = begin + 4 + 4 * count
    if at > len(data):
        raise ValueError(f"it claims {count:,} images, and has {len(data):,} bytes")
    sizes = struct.unpack_from(f"<{count}I", data, begin + 4)
    if at + sum(sizes) > len(data):
        raise ValueError(f"it claims images of {sum(sizes):,} bytes, and has {len(data) - at:,} for them")
    for size in sizes:
        yield data[at : at + size]
        at += size
