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

CURE = (
    'If you trust the file, save it again with another program. Otherwise remove it, or skip it with on_error="skip".'
)
RAISE = 'If you trust the file, pass max_pixels={}. Otherwise remove it, or skip it with on_error="skip".'
_FILL = re.compile(rb"\xff+")


def check_pixels(size: tuple[int, int], path: str | None, max_pixels: int, nbytes: int | None = None) -> None:
    """Refuse an image above the limit, and one whose file is too small for as many pixels.

    >>> check_pixels((4000, 3000), "white.webp", 178_956_970, 40)

    A quarter of the limit (45 million pixels by default) is free; beyond it, each byte of the file pays for 128.
    Raises `ImageTooLarge`.
    """
    width, height = size
    pixels = width * height
    if pixels > max_pixels:
        raise ImageTooLarge(
            f"{width} x {height} = {pixels} pixels",
            path=path,
            expected=f"at most max_pixels={max_pixels}",
            cure=RAISE.format(pixels),
        )
    free = max(max_pixels // 4, FREE)
    if nbytes is not None and pixels > free + PER_BYTE * nbytes:
        raise ImageTooLarge(
            f"{width} x {height} = {pixels} pixels in {nbytes} bytes, which may be a decompression bomb",
            path=path,
            expected=f"at most {free + PER_BYTE * nbytes} pixels in so small a file ({free} and {PER_BYTE} a byte)",
            cure=RAISE.format(4 * pixels),
        )


def check_header(data: bytes, path: str | None) -> tuple[bool, bool]:
    r"""Walk the segments of a JPEG up to its pixels: whether EXIF or XMP may be among them, and many scans follow.

    >>> check_header(b"\xff\xd8\xff\xe1\0\x09Exif\0", "a.jpg")
    (True, True)

    Raises `BadImage` for far more segments, or fill between them, than any camera or program writes.
    """
    at, end, found = 2, len(data) - 3, False
    segments, fill, most = 0, 0, SEGMENTS + len(data) // 1024
    components, many = 0, True
    while at < end and data[at] == 0xFF:
        if data[at + 1] == 0xFF:
            after = _FILL.match(data, at).end() - 1  # type: ignore[union-attr]
            fill += after - at
            at = after
            if fill > FILL:
                raise _bomb(path, f"{fill} bytes of fill before its pixels", f"at most {FILL}")
            continue
        marker = data[at + 1]
        if marker in (0xDA, 0xD9):  # the pixels begin, or there are none
            many = marker != 0xDA or not components or data[at + 4 : at + 5] != bytes((components,))
            break
        if 0xC0 <= marker <= 0xC2:  # a sequential JPEG with all components in one scan ends with that
            components = data[at + 9] if marker < 0xC2 and at + 9 <= end else 0
        found = found or marker == 0xE1
        segments += 1
        if segments > most:
            raise _bomb(path, f"more than {most} segments before its pixels", f"at most {most} for its size")
        at += 2 + (data[at + 2] << 8) + data[at + 3]
    return found, many


def check_scans(data: bytes, size: tuple[int, int], path: str | None) -> None:
    r"""Refuse a JPEG that goes over its pixels again and again in next to no bytes.

    >>> check_scans(b"\xff\xda" * 9, (4000, 3000), "a.jpg")

    Raises `BadImage`.
    """
    scans = data.count(b"\xff\xda")
    work = scans * size[0] * size[1]
    most = WORK + PER_BYTE * len(data)
    if scans > SCANS and work > most:
        raise _bomb(path, f"{scans} scans of {size[0] * size[1]} pixels", f"at most {SCANS} scans for its size")


def _bomb(path: str | None, found: str, expected: str) -> BadImage:
    found = f"a JPEG with {found}, which takes very long to decode"
    return BadImage(found, path=path, expected=expected, cure=CURE)
