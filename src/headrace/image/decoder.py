"""Decode image files: bytes become an ``(H, W, 3)`` uint8 RGB array, or an error that says why not.

There are three routes and one result. JPEG goes to libjpeg-turbo through simplejpeg, which is quicker. Masks in PNG
files go to the native extension. Every other format, and every file that the fast routes will not vouch for, goes to
Pillow. It and simplejpeg use the same slow-integer DCT and the same upsampling, so their pixels are equal, and Pillow
is the judge: what it accepts is accepted, what it refuses is refused. The exception is a JPEG that ends early, which
libjpeg fills up with gray: the fast route sees that, and refuses it. Without simplejpeg everything goes to Pillow.
"""

from __future__ import annotations

import io
import logging
import re
import struct
import sys
import threading
import warnings
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headrace._native import extension
from headrace.context import memory
from headrace.errors import BadImage, ImageTooLarge, SampleError, missing
from headrace.image import image_formats
from headrace.image.budget import FREE, check_header, check_pixels, check_scans
from headrace.image.decoding import DEFAULT_MAX_PIXELS, Decoding
from headrace.image.modes import LOSSES, converted, gray, loss
from headrace.image.pillow import heard, openers, undisturbed
from headrace.interop.interrupt import held_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile

    from headrace.image.modes import Mode

# Reading EPS runs Ghostscript. Pillow's IPTC reader opens whatever the file wraps by Pillow's own open, EPS included.
RUNS_PROGRAMS = frozenset({"EPS", "IPTC"})

CURE = 'Fix or remove the file, or skip it with on_error="skip".'
IN_MEMORY = "an image in memory"
JPEG, END_OF_JPEG = b"\xff\xd8\xff", b"\xff\xd9"
"""What a JPEG file begins with, and what it ends with."""
PNG_HEADER = struct.Struct(">8s4x4sIIBB")
"""What a PNG file begins with: signature, name of the header, width, height, bits of a channel, kind of color."""
PNG, INDICES = (b"\x89PNG\r\n\x1a\n", b"IHDR"), 3
READS_PNG: bool = getattr(extension, "READS_PNG", False)
"""Whether the native extension is there, and found a library that inflates when it was built."""


def decode(
    data: bytes,
    *,
    path: str | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    allow_truncated: bool = False,
    shrink: int = 1,
    mode: Mode = "RGB",
) -> NDArray[Any]:
    """Turn the bytes of an image file into its pixels.

    >>> import io
    >>> from PIL import Image
    >>> from headrace.image import decode
    >>> file = io.BytesIO()
    >>> Image.new("L", (4, 3), 200).save(file, "PNG")
    >>> decode(file.getvalue()).shape
    (3, 4, 3)

    The result is a C-contiguous, writable ``(H, W, 3)`` uint8 array in the order red, green, blue; an EXIF orientation
    is applied. Any format that Pillow opens is read, apart from EPS and IPTC, which can run other programs. Of an
    animation or a file of many pages it is the first image; of an icon file the largest.

    What is not 8-bit RGB becomes so like this: grey is repeated, a palette is looked up, alpha is dropped, CMYK, YCbCr,
    HSV and Lab are converted as Pillow does, 16 bits a channel keep their upper 8 (12 bits likewise). Integers of 32
    bits and floats have no range that files agree on: the lowest finite value of the image becomes 0, its highest
    255.

    ``mode`` decides what the pixels become; the EXIF orientation is applied in each:

    - ``"RGB"``, the default: ``(H, W, 3)`` uint8, as above. A warning says once where a palette (other than a GIF's),
      16-bit or 32-bit values are lost.
    - ``"L"``: ``(H, W)`` uint8, grey: the RGB pixels weighed as Pillow weighs them.
    - ``"P"``: ``(H, W)`` uint8, the indices of a palette, such as the classes of a mask; 8-bit grey as it is.
    - ``"I;16"``: ``(H, W)`` uint16, grey of at most 16 bits as it is, such as a depth image; nothing is scaled.
    - ``"unchanged"``: what the file holds: ``(H, W)`` bool (1 bit), uint8, uint16, int32 or float32, the indices of a
      palette as uint8, or ``(H, W, C)`` uint8: grey and alpha 2, RGB, YCbCr, Lab 3, RGBA and CMYK 4.

    An image that has no pixels in the mode, such as RGB for ``"P"``, raises `BadImage`.

    ``allow_truncated``: decode a file whose end is missing as far as it goes; the missing part is gray in a JPEG and
    black in other formats. It is what Pillow does with ``ImageFile.LOAD_TRUNCATED_IMAGES``, for this image alone. A
    file without any pixels still raises `BadImage`. ``shrink``, 1, 2, 4 or 8: decode a JPEG to that many times fewer
    rows and columns, rounded up; other formats ignore it.

    ``path`` names the image in errors. Raises `BadImage` for bytes that are no whole image, `ImageTooLarge`
    above ``max_pixels`` (width times height) and for far more pixels than the file has bytes for, before memory is
    taken for them, and `MissingDependency`. Of a small file at most a quarter of ``max_pixels`` is expected (and 45
    million by default), and 128 pixels more for each byte.
    """
    return decode_as(data, path, Decoding(mode, max_pixels, allow_truncated), _warned, shrink)


def decode_as(data: bytes, path: str | None, how: Decoding, warned: set[str], shrink: int = 1) -> NDArray[Any]:
    """Do what `decode` does, and warn of each kind of loss that is not among those ``warned`` of, which it joins."""
    if data[:3] == JPEG and how.mode in ("RGB", "L"):
        pixels = _decode_jpeg(data, path, how, shrink)
        if pixels is not None:
            return pixels if how.mode == "RGB" else gray(pixels)
    if READS_PNG and data[:8] == PNG[0]:
        numbers = _decode_png(data, how)
        if numbers is not None:
            return numbers
    return _by_pillow(data, path, how, warned, shrink)


_warned: set[str] = set()
"""The losses that `decode` warned of in this process."""


def jpeg_size(data: bytes, *, oriented: bool = True) -> tuple[int, int] | None:
    """Return height and width of a JPEG image as it is decoded, from its header; None for any other bytes.

    >>> jpeg_size(b"GIF89a") is None
    True
    """
    if data[:3] != JPEG:
        return None
    with _unheard():
        try:
            check_header(data, None)
            image = _open(data, None)
        except Exception:  # noqa: BLE001  decoding it says what is wrong
            return None
        if image.format != "JPEG":
            return None
        width, height = image.size
        return (width, height) if oriented and _orientation(image) >= 5 else (height, width)


def decode_with_pillow(
    data: bytes,
    *,
    path: str | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    allow_truncated: bool = False,
    shrink: int = 1,
    mode: Mode = "RGB",
) -> NDArray[Any]:
    """Do what `decode` does by Pillow alone: the same pixels, the same errors."""
    return _by_pillow(data, path, Decoding(mode, max_pixels, allow_truncated), _warned, shrink)


def _by_pillow(data: bytes, path: str | None, how: Decoding, warned: set[str], shrink: int) -> NDArray[Any]:
    _pillow()
    if not data:
        raise BadImage("empty (0 bytes)", path=path, expected="an image file", cure=CURE)
    lost: list[str] = []

    def read() -> NDArray[Any]:
        return _read(data, path, how, lost, shrink)

    pixels = heard(lambda said: _judged(read, data, path, how.max_pixels, said))
    if lost and lost[-1] not in warned:
        warned.add(lost[-1])
        what, cure = LOSSES[lost[-1]]
        warnings.warn(
            f"{path or IN_MEMORY}: {what} in mode={how.mode!r}; {cure}. This warning comes once for each dataset.",
            stacklevel=4,
        )
    return pixels


def _judged(
    read: Callable[[], NDArray[Any]], data: bytes, path: str | None, max_pixels: int, said: list[str]
) -> NDArray[Any]:
    """Call what reads an image by Pillow; whatever it raises becomes an error of ours."""
    image = _pillow()
    try:
        with _unheard():
            try:
                pixels = undisturbed(read)
            except image.DecompressionBombError:
                # Some of Pillow's readers ask its own limit, which is one for the whole process, in their midst.
                with _raised_limit(image, max_pixels):
                    pixels = undisturbed(read)
    except SampleError:
        raise
    except image.DecompressionBombError as error:
        raise ImageTooLarge(
            _said(error),
            path=path,
            expected=f"at most max_pixels={max_pixels}",
            cure="If you trust the file, raise the limit.",
        ) from error
    except MemoryError as error:
        found = "there is not enough memory for its pixels"
        raise ImageTooLarge(found, path=path, expected="an image that fits", cure=CURE) from error
    except Exception as error:  # readers of strangers' bytes raise anything: struct.error, zlib.error, SystemError, …
        why = _said(error) + (f"; libtiff says: {'; '.join(said)}" if said else "")
        if image_formats.jpeg_2000(data) is not None:
            raise _bad(data, path, why) from error
        if not said and image_formats.unsupported(error):
            raise _unsupported(data, path, why) from error
        raise _bad(data, path, f"cut short or corrupt ({why})") from error
    if said:
        logging.getLogger("headrace.image").warning("%s: libtiff says: %s", path or IN_MEMORY, "; ".join(said))
    return pixels


def _decode_jpeg(data: bytes, path: str | None, how: Decoding, shrink: int) -> NDArray[np.uint8] | None:
    """Take the fast route, where there is one and it is sure; None sends the bytes to Pillow."""
    turbo = _simplejpeg()
    if turbo is None:
        return None
    has_notes, many_scans = check_header(data, path)
    try:
        height, width, colours, _ = turbo.decode_jpeg_header(data)
    except ValueError:
        return None
    if colours not in ("YCbCr", "Gray", "RGB"):
        return None
    check_pixels((width, height), path, how.max_pixels, len(data))
    if many_scans:
        check_scans(data, (width, height), path)
    try:
        sides = -(-height // shrink), -(-width // shrink)
        pixels = memory.empty((*sides, 3), np.uint8)
        turbo.decode_jpeg(data, "RGB", min_height=sides[0], min_width=sides[1], buffer=pixels)
    except ValueError as error:
        if (
            "remature end" in str(error) and not how.allow_truncated
        ):  # libjpeg fills the missing part with gray, and Pillow accepts that
            raise _bad(data, path, f"cut short ({_said(error)})") from error
        return None
    except MemoryError:
        return None
    if not (has_notes and how.oriented):
        return pixels
    with _unheard():
        return _turned(pixels, _orientation(_open(data, path)))


def _decode_png(data: bytes, how: Decoding) -> NDArray[Any] | None:
    """Read one number for each pixel natively, gray or an index; None sends the bytes to Pillow."""
    if len(data) < PNG_HEADER.size:
        return None
    *begin, width, height, depth, color = PNG_HEADER.unpack_from(data)
    if tuple(begin) != PNG or not 0 < width * height <= min(how.max_pixels, FREE) or color not in (0, INDICES):
        return None
    deep = depth == 16
    if not (how.mode == "unchanged" or (how.mode == "P" and not deep) or (how.mode == "I;16" and color != INDICES)):
        return None
    pixels = memory.empty((height, width), np.uint16 if deep else np.uint8)
    if not cast("Any", extension).read_png(data, pixels, how.oriented):
        return None
    if how.mode == "I;16":
        return pixels.astype(np.uint16, copy=False)
    return pixels.view(bool) if depth == 1 and color != INDICES and how.mode == "unchanged" else pixels


@cache
def _simplejpeg() -> ModuleType | None:
    try:
        with held_back():
            import simplejpeg
    except ImportError:
        return None
    return cast("ModuleType", simplejpeg)


@cache
def _pillow() -> Any:  # PIL.Image with every format registered; Any, as modules have no type of their own
    try:
        with held_back():
            from PIL import Image

            Image.preinit()
            Image.init()
    except ImportError as error:
        raise missing("Pillow", extra="images", purpose="decoding images") from error
    return Image


def _read(data: bytes, path: str | None, how: Decoding, lost: list[str], shrink: int) -> NDArray[Any]:
    if how.allow_truncated and data[:3] == JPEG:  # libjpeg fills what is missing before the end with gray
        data += END_OF_JPEG
    if data[:3] == JPEG:
        check_header(data, path)  # Pillow reads it byte by byte
    image = _open(data, path)
    check_pixels(image.size, path, how.max_pixels, len(data))
    if data[:3] == JPEG:
        check_scans(data, image.size, path)
    found = loss(image)
    if found is not None and how.mode in ("RGB", "L"):
        lost.append(found)
    if shrink > 1:
        image.draft(None, (max(1, image.width // shrink), max(1, image.height // shrink)))
    try:
        image.load()
    except OSError as error:
        if not how.allow_truncated or "truncated" not in str(error).lower():
            raise
        image.tile = []  # nothing is left to load: what there was is in the image
    check_pixels(image.size, path, how.max_pixels, len(data))  # an icon's true size is known once it is loaded
    pixels = converted(image, how.mode, path, deep=found == "deep")
    return _turned(pixels, _orientation(image)) if how.oriented else pixels


def _open(data: bytes, path: str | None) -> ImageFile:
    """Find the format and read the header.

    Not `PIL.Image.open`, which would judge the size by a limit that is Pillow's, hide what each reader said, and let
    formats without a signature answer before those that have one.
    """
    said = []
    for name, (factory, accept) in openers(_pillow().OPEN.copy()):
        try:
            accepted = accept is None or accept(data[:16])
            if isinstance(accepted, str):
                said.append(accepted)
            elif accepted and name not in RUNS_PROGRAMS:
                return factory(io.BytesIO(data), "")
            elif accepted and accept is not None:
                said.append(f"{name} is never opened: reading it can run other programs")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:  # "not mine", as Pillow's readers say it
            if accept is not None:
                said.append(f"{name}: {_said(error)}")
    named = image_formats.foreign(data)
    reason = "; ".join(said) or "of no format that Pillow knows"
    # Pillow reads these two unless it was built without them, and says so.
    if named is not None and (named[0] not in ("AVIF", "WebP") or "not installed" in reason):
        raise BadImage(
            f"{len(data)} bytes of {named[0]}, which this Pillow does not read",
            path=path,
            expected="an image of a format that Pillow reads",
            cure=named[1],
        )
    raise _unsupported(data, path, reason) if image_formats.unsupported(OSError(reason)) else _bad(data, path, reason)


def _orientation(image: ImageFile) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none that makes sense."""
    try:
        value = image.getexif().get(0x0112)
    except Exception:  # noqa: BLE001  an image with broken notes is an image still
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo an EXIF orientation (Exif 2.32, tag 274): 2 to 4 mirror and turn by half, 5 to 8 swap rows and columns."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


@contextmanager
def _unheard() -> Iterator[None]:
    """Silence Pillow's warnings: an image is decoded, or it raises an error.

    `warnings.catch_warnings` swaps the whole list of filters and is not safe with threads (until a Python that makes
    it so by a flag): restored in another order than begun, it would leave the process with the wrong ones. So one
    filter, which speaks of Pillow alone, is put into the very list that is in force, and taken out of it again; each
    thread puts in its own, and any that is taken out is as good as another.
    """
    if getattr(sys.flags, "context_aware_warnings", False):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\b")
            yield
        return
    filters = cast("list[Any]", warnings.filters)
    quiet = ("ignore", None, Warning, re.compile(r"PIL\b"), 0)
    filters.insert(0, quiet)
    try:
        yield
    finally:
        filters.remove(quiet)


_limit = threading.Lock()


@contextmanager
def _raised_limit(image: Any, max_pixels: int) -> Iterator[None]:
    """Raise Pillow's own limit to ours for a block, one thread at a time, and put it back as it was."""
    with _limit:
        theirs = image.MAX_IMAGE_PIXELS
        image.MAX_IMAGE_PIXELS = max(theirs or 0, max_pixels)
        try:
            yield
        finally:
            image.MAX_IMAGE_PIXELS = theirs


def _bad(data: bytes, path: str | None, reason: str) -> BadImage:
    found, cure = f"{_found(data)}, {reason}", CURE
    jpeg_2000 = image_formats.jpeg_2000(data)
    if jpeg_2000 is not None:
        why, cure = jpeg_2000
        if "not available" in reason:
            why = "which this Pillow was built without"
            cure = f"Install a Pillow with JPEG 2000 (its own wheels have it), or {image_formats.CONVERT}"
        found = f"{len(data)} bytes of JPEG 2000, {why} ({reason})"
    return BadImage(found, path=path, expected="a whole image", cure=cure)


def _unsupported(data: bytes, path: str | None, reason: str) -> BadImage:
    return BadImage(
        f"{_found(data)}, in a variant that Pillow does not read ({reason}); the file may be whole",
        path=path,
        expected="a variant that Pillow reads",
        cure=f"{image_formats.CONVERT[:1].upper()}{image_formats.CONVERT[1:]}",
    )


def _found(data: bytes) -> str:
    """Describe bytes that are no image."""
    size = f"{len(data)} bytes"
    if data.count(0) == len(data):
        return f"{size}, all of them zero"
    text = data[:64].decode("utf-8", "replace").rstrip("\ufffd")  # the last character may be cut in two
    if text and all(letter.isprintable() or letter in "\t\r\n" for letter in text) and "\ufffd" not in text:
        return f"{size} of text, beginning {text[:40]!r}"
    return f"{size}, beginning {data[:8].hex(' ')}"


def _said(error: BaseException) -> str:
    return str(error).rstrip(".") or type(error).__name__
