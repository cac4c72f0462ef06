"""How much memory and time an image may take, in proportion to the bytes of its file: bombs are refused unread."""

from __future__ import annotations

import re

from headrace.errors import BadImage, ImageTooLarge

FREE = 178_956_970 // 4
"""Pixels that a file of any size may have: a quarter of the default limit of pixels."""

PER_BYTE = 128
"""Pixels that each byte of a file pays for. A photograph has 1 to 80, a flat PNG up to 343."""

SCANS, WORK = 32, 256_000_000
"""Scans that a JPEG may have at any size, and pixels times scans that one with more may have at any number of bytes."""

SEGMENTS, FILL = 4096, 1 << 16
"""Segments that a JPEG's header may have, and bytes of fill between them."""

CURE = 'If it is to be trusted, save it again with another program; if not, remove it, or skip it by on_error="skip".'
_FILL = re.compile(rb"\xff+")


def check_pixels(size: tuple[int, int], place: str, max_pixels: int, nbytes: int | None = None) -> None:
    """Refuse an image above the limit, and one whose file is too small for as many pixels.

    >>> check_pixels((4000, 3000), "white.webp", 178_956_970, 40)

    A quarter of the limit (45 million pixels by default) is free; beyond it, each byte of the file pays for 128.
    Raises `ImageTooLarge`.
    """
    width, height = size
    pixels = width * height
    if pixels > max_pixels:
        raise ImageTooLarge(
            f"{place}: {width} x {height} = {pixels} pixels, above the limit of {max_pixels}. "
            f"If the file is to be trusted, raise the limit with max_pixels={pixels}; "
            'if not, remove it, or skip it with on_error="skip".'
        )
    free = max(max_pixels // 4, FREE)
    if nbytes is not None and pixels > free + PER_BYTE * nbytes:
        raise ImageTooLarge(
            f"{place}: {width} x {height} = {pixels} pixels in {nbytes} bytes; at most {free + PER_BYTE * nbytes} were "
            f"expected of so small a file ({free} and {PER_BYTE} a byte): it may be a decompression bomb. "
            f"If the file is to be trusted, pass max_pixels={4 * pixels}; "
            'if not, remove it, or skip it with on_error="skip".'
        )


def check_header(data: bytes, place: str) -> tuple[bool, bool]:
    r"""Walk the segments of a JPEG up to its pixels: whether EXIF or XMP may be among them, and many scans follow.

    >>> check_header(b"\xff\xd8\xff\xe1\0\x09Exif\0", "a.jpg")
    (True, True)

    Raises `BadImage` for far more segments, or fill between them, than any camera or program writes.
    """
    place_, end, found = 2, len(data) - 3, False
    segments, fill, most = 0, 0, SEGMENTS + len(data) // 1024
    components, many = 0, True
    while place_ < end and data[place_] == 0xFF:
        if data[place_ + 1] == 0xFF:
            after = _FILL.match(data, place_).end() - 1  # type: ignore[union-attr]
            fill += after - place_
            place_ = after
            if fill > FILL:
                raise _bomb(place, f"{fill} bytes of fill before its pixels", f"at most {FILL}")
            continue
        marker = data[place_ + 1]
        if marker in (0xDA, 0xD9):  # the pixels begin, or there are none
            many = marker != 0xDA or not components or data[place_ + 4 : place_ + 5] != bytes((components,))
            break
        if 0xC0 <= marker <= 0xC2:  # a sequential JPEG with all components in one scan ends with that
            components = data[place_ + 9] if marker < 0xC2 and place_ + 9 <= end else 0
        found = found or marker == 0xE1
        segments += 1
        if segments > most:
            raise _bomb(place, f"more than {most} segments before its pixels", f"at most {most} for its size")
        place_ += 2 + (data[place_ + 2] << 8) + data[place_ + 3]
    return found, many


def check_scans(data: bytes, size: tuple[int, int], place: str) -> None:
    r"""Refuse a JPEG that goes over its pixels again and again in next to no bytes.

    >>> check_scans(b"\xff\xda" * 9, (4000, 3000), "a.jpg")

    Raises `BadImage`.
    """
    scans = data.count(b"\xff\xda")
    work = scans * size[0] * size[1]
    most = WORK + PER_BYTE * len(data)
    if scans > SCANS and work > most:
        raise _bomb(place, f"{scans} scans of {size[0] * size[1]} pixels", f"at most {SCANS} scans for its size")


def _bomb(place: str, found: str, expected: str) -> BadImage:
    return BadImage(f"{place}: a JPEG with {found}, which take very long to decode; {expected} were expected. {CURE}")
