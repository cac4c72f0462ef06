"""How the files of a dataset become pixels: one value, made where the dataset is."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.checks import flag, integer
from headrace.image.modes import Mode, checked

DEFAULT_MAX_PIXELS = 178_956_970
"""The most pixels an image may have by default: half a GiB of RGB, which is Pillow's own limit."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How image files are decoded.

    >>> Decoding(mode="L").mode, Decoding().max_pixels
    ('L', 178956970)

    ``mode`` decides dtype and shape of the pixels, ``max_pixels`` is the most that an image may have,
    ``allow_truncated`` keeps what can be read of a file that ends early, and ``scaled`` lets a JPEG be decoded at a
    smaller size where a transform scales it down. `headrace.image.decode` describes each of them. Without ``oriented``
    the EXIF orientation is not applied: pixels stay as the file has them. Raises `ArgumentError` for values that cannot
    be used.
    """

    mode: Mode = "RGB"
    max_pixels: int = DEFAULT_MAX_PIXELS
    allow_truncated: bool = False
    scaled: bool = False
    oriented: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode", checked(self.mode))
        object.__setattr__(self, "max_pixels", integer("max_pixels", self.max_pixels, least=1))
        object.__setattr__(self, "allow_truncated", flag("allow_truncated", self.allow_truncated, exact=True))
        object.__setattr__(self, "scaled", flag("scaled_decode", self.scaled, exact=True))
        object.__setattr__(self, "oriented", flag("oriented", self.oriented, exact=True))

    @property
    def max_bytes(self) -> int:
        """The most bytes that an image file may have: as many as its pixels, where that is above 64 MiB."""
        return max(64 << 20, 3 * self.max_pixels)
