"""Bytes to pixels: every format, by both routes, within the limit, and nothing run on the way."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import subprocess
import sys
import textwrap
import threading
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin
from tests.image_files import by_pillow, encoded, photo

from headrace.errors import BadImage, ImageTooLarge
from headrace.image.decoder import decode, decode_as, decode_with_pillow, jpeg_size
from headrace.image.decoding import DEFAULT_MAX_PIXELS, Decoding

pytestmark = pytest.mark.filterwarnings("ignore:.* (palette|bits|values) .*:UserWarning")
PHOTO = Image.fromarray(photo())
RAMP = np.linspace(0, 65535, 48 * 64).reshape(48, 64)

JPEGS: dict[str, dict[str, Any]] = {
    "444": {"subsampling": "4:4:4"},
    "422": {"subsampling": "4:2:2"},
    "420": {"subsampling": "4:2:0"},
    "progressive": {"progressive": True, "quality": 90},
    "poor": {"quality": 5},
    "rgb": {"keep_rgb": True},
    "restarts": {"restart_marker_rows": 1},
}


def exif(orientation: object) -> bytes:
    notes = Image.Exif()
    notes[0x0112] = orientation
    return notes.tobytes()


def png(width: int, height: int) -> bytes:
    """Write the PNG file of a size that it need not have pixels for."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def check(pixels: np.ndarray) -> None:
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize("size", [(48, 64), (17, 33), (1, 1), (8, 200)])
def test_both_routes_give_the_pixels_that_pillow_gives(options: dict[str, Any], size: tuple[int, int]) -> None:
    """Decode a JPEG by either route to Pillow's pixels, all of them."""
    data = encoded(photo(1, *size), **options)
    fast, slow = decode(data), decode_with_pillow(data)
    check(fast)
    check(slow)
    assert np.array_equal(fast, by_pillow(data))
    assert np.array_equal(slow, fast)


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("1", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("RGB", "PNG"), ("RGBA", "PNG"),
        ("L", "JPEG"), ("CMYK", "JPEG"), ("P", "GIF"), ("RGB", "WEBP"), ("RGBA", "WEBP"),
        ("1", "TIFF"), ("PA", "TIFF"), ("CMYK", "TIFF"), ("YCbCr", "TIFF"), ("LAB", "TIFF"),
        ("P", "BMP"), ("RGB", "BMP"), ("1", "PPM"), ("RGB", "PPM"), ("RGB", "TGA"), ("RGBA", "ICO"), ("P", "PCX"),
    ],
)  # fmt: skip
def test_formats_and_modes_become_rgb_as_pillow_makes_them(mode: str, form: str) -> None:
    """Read gray, palette, alpha, CMYK and the rest as Pillow converts them, alpha dropped."""
    data = encoded(PHOTO.convert(mode), form)
    pixels = decode(data)
    check(pixels)
    assert np.array_equal(pixels, by_pillow(data))


@pytest.mark.parametrize("transparency", [3, bytes(range(256))], ids=["one colour", "a table"])
def test_a_palette_with_transparency_is_looked_up_without_a_warning(transparency: object) -> None:
    """Drop the alpha of a palette, which Pillow would warn of, and a warning here is an error."""
    image = PHOTO.quantize(256)
    data = encoded(image, "PNG", transparency=transparency)
    assert np.array_equal(decode(data), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    ("dtype", "form"), [("<u2", "PNG"), ("<u2", "TIFF"), (">u2", "TIFF"), ("<u2", "JPEG2000"), ("<u2", "PPM")]
)
def test_sixteen_bits_keep_their_upper_eight(dtype: str, form: str) -> None:
    """Scale 16-bit gray to 8 bits, where Pillow's own conversion would clip all but the darkest to white."""
    data = encoded(RAMP.astype(dtype), form)
    assert np.array_equal(decode(data)[:, :, 1], RAMP.astype(np.uint16) >> 8)


def test_gray_of_any_maximum_is_scaled_to_all_of_eight_bits() -> None:
    """Read a PGM of 10 bits, which says so itself."""
    data = b"P5 3 1 1023\n" + struct.pack(">3H", 0, 512, 1023)
    assert decode(data)[0, :, 0].tolist() == [0, 128, 255]


def test_twelve_bits_keep_their_upper_eight() -> None:
    """Scale the 12-bit gray that TIFF files have from 12 bits, not from 16."""
    wide = np.array([[0, 15, 16, 2048, 4095, 4080]], np.uint16)
    packed = bytes(byte for a, b in wide.reshape(-1, 2).tolist() for byte in (a >> 4, (a & 15) << 4 | b >> 8, b & 255))
    entries = {256: 6, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(packed)}
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, 3, 1, value) for tag, value in entries.items()
    )
    strip = packed + bytes(-len(packed) % 2)
    data = b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory + bytes(4)
    assert decode(data)[0, :, 0].tolist() == [0, 0, 1, 128, 255, 255]


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_numbers_without_a_range_are_stretched_over_their_own(dtype: str) -> None:
    """Give the lowest value 0 and the highest 255, and take what is not finite for the ends or for 0."""
    values = np.array([[-1000, 0, 1000], [-500, 500, 1000]], dtype)
    assert decode(encoded(values, "TIFF"))[:, :, 0].tolist() == [[0, 128, 255], [64, 191, 255]]
    assert not decode(encoded(np.full((2, 2), 7, dtype), "TIFF")).any()


def test_floats_that_are_not_finite_do_no_harm() -> None:
    """Read a float image with infinities, no-numbers and the ends of its range."""
    top = np.finfo(np.float32).max
    values = np.array([[-np.inf, np.nan, np.inf, -top, 0, top]], np.float32)
    assert decode(encoded(values, "TIFF"))[0, :, 0].tolist() == [0, 0, 255, 0, 128, 255]
    assert not decode(encoded(np.full((2, 2), np.nan, np.float32), "TIFF")).any()


def test_gray_multiplied_by_alpha_is_divided_again() -> None:
    """Read a TIFF whose gray is stored times alpha."""
    plain = encoded(np.full((4, 4, 2), (50, 128), np.uint8), "TIFF")
    told, untold = struct.pack("<HHIHH", 338, 3, 1, 1, 0), struct.pack("<HHIHH", 338, 3, 1, 2, 0)
    assert plain.count(untold) == 1
    assert set(decode(plain.replace(untold, told)).ravel()) == {50 * 255 // 128}


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_many_images_the_first_is_read(form: str) -> None:
    """Read the first frame of an animation and the first page of a document."""
    pages = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    data = encoded(pages[0], form, save_all=True, append_images=pages[1:])
    pixels = decode(data)
    assert pixels.shape == (4, 6, 3)
    assert np.array_equal(pixels // 128, np.broadcast_to((1, 0, 0), (4, 6, 3)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_exif_orientation_is_applied(orientation: int, form: str) -> None:
    """Turn and mirror as EXIF says, in both routes, to what Pillow's exif_transpose gives."""
    data = encoded(photo(2, 16, 24), form, exif=exif(orientation))
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    for pixels in (decode(data), decode_with_pillow(data)):
        check(pixels)
        assert np.array_equal(pixels, expected)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_pixels_can_stay_as_the_file_has_them(form: str) -> None:
    """Apply no EXIF orientation without `oriented`, in both routes, as Pillow's users get the image."""
    data = encoded(photo(2, 16, 24), form, exif=exif(6))
    for simple in (True, False):
        how = Decoding(oriented=False, mode="RGB" if simple else "unchanged")
        assert np.array_equal(decode_as(data, None, how, set()), by_pillow(data))
    assert jpeg_size(encoded(photo(2, 16, 24), exif=exif(6)), oriented=False) == (16, 24)


def test_an_orientation_in_xmp_alone_is_applied() -> None:
    """Read the orientation where Pillow does: in XMP, if EXIF has none."""
    notes = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = encoded(photo(2, 16, 24), xmp=notes)
    assert decode(data).shape == (24, 16, 3)
    assert np.array_equal(decode(data), decode_with_pillow(data))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_makes_no_sense_is_passed_over(orientation: int) -> None:
    """Leave an image as it lies where its orientation is none of the eight."""
    data = encoded(photo(2, 16, 24), exif=exif(orientation))
    assert np.array_equal(decode(data), by_pillow(data))


@pytest.mark.parametrize("notes", [b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0" + bytes(range(200))])
def test_broken_notes_do_not_spoil_an_image(notes: bytes) -> None:
    """Read an image whose EXIF is nonsense, without a warning of Pillow's becoming an error."""
    data = encoded(photo(2, 16, 24), exif=notes)
    assert np.array_equal(decode(data), decode_with_pillow(encoded(photo(2, 16, 24))))


def test_a_broken_profile_does_not_spoil_an_image() -> None:
    """Read a PNG whose EXIF, kept as text by some programs, is no text that EXIF can be."""
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Raw profile type exif", "\nexif\n4\nno hex")
    assert np.array_equal(decode(encoded(PHOTO, "PNG", pnginfo=notes)), np.asarray(PHOTO))


@pytest.mark.parametrize("notes", [{}, {"exif": exif(6)}], ids=["plain", "turned"])
def test_fill_bytes_between_the_segments_of_a_jpeg_are_passed_over(notes: dict[str, bytes]) -> None:
    """Find the orientation, or that there is none, though the header is padded as the standard allows."""
    data = encoded(photo(2, 16, 24), **notes)
    padded = data[:2] + b"\xff" + data[2:]
    assert np.array_equal(decode(padded), decode_with_pillow(data))


def test_formats_that_the_user_adds_to_pillow_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask every reader registered with Pillow, and pass on what one says that lacks its library."""
    monkeypatch.setitem(
        Image.OPEN, "MINE", (lambda *_: Image.new("RGB", (3, 2), "red"), lambda start: start == b"MINE")
    )
    monkeypatch.setitem(
        Image.OPEN, "YOURS", (None, lambda start: "YOURS needs a library" if start == b"YOURS" else False)
    )
    assert decode(b"MINE").shape == (2, 3, 3)
    with pytest.raises(BadImage, match="YOURS needs a library"):
        decode(b"YOURS")


@pytest.mark.parametrize("junk", [b"\0", b"trailing words", bytes(5000)])
def test_what_follows_a_whole_image_is_passed_over(junk: bytes) -> None:
    """Read a JPEG with junk after its end as if it were not there: simplejpeg may refuse it, Pillow does not."""
    data = encoded(photo(3))
    assert np.array_equal(decode(data + junk), decode(data))


def test_without_simplejpeg_everything_goes_through_pillow() -> None:
    """Give the same pixels in an interpreter where simplejpeg cannot be imported."""
    data = encoded(photo(4), exif=exif(6))
    program = """
        import sys, hashlib
        sys.modules["simplejpeg"] = None
        from headrace.image import decode
        print(hashlib.sha256(decode(sys.stdin.buffer.read()).tobytes()).hexdigest())
    """
    said = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], input=data, capture_output=True, check=True)
    assert said.stdout.decode().strip() == hashlib.sha256(decode(data).tobytes()).hexdigest()


def test_without_pillow_the_error_says_what_to_install() -> None:
    """Name the extra that brings Pillow, where it is needed and cannot be imported."""
    program = """
        import sys
        sys.modules["PIL"] = None
        from headrace.image import decode
        from headrace.errors import MissingDependency
        try:
            decode(sys.stdin.buffer.read())
        except MissingDependency as error:
            print(error)
    """
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], input=encoded(PHOTO, "PNG"), capture_output=True, check=True
    )
    assert said.stdout.decode().strip() == (
        "decoding images needs Pillow, which is not installed: pip install 'headrace[images]'"
    )


def huge(form: str) -> bytes:
    """Write a small file that says it is an image of 60,000 by 60,000 or so."""
    small = bytearray(encoded(Image.new("RGB", (16, 16)), form))
    if form == "JPEG":
        place = small.index(b"\xff\xc0") + 5
        small[place : place + 4] = struct.pack(">HH", 60000, 60000)
    elif form == "GIF":
        small[6:10] = struct.pack("<HH", 60000, 60000)
    elif form == "BMP":
        small[18:26] = struct.pack("<ii", 60000, 60000)
    elif form == "PPM":
        return b"P6\n60000 60000\n255\n"
    elif form == "PNG":
        return png(60000, 60000)
    return bytes(small)


@pytest.mark.parametrize("form", ["JPEG", "GIF", "BMP", "PPM", "PNG"])
def test_a_bomb_is_refused_before_memory_is_taken_for_it(form: str) -> None:
    """Refuse a size above the limit from the header alone, saying size, limit and cure."""
    data = huge(form)
    tracemalloc.start()
    try:
        with pytest.raises(ImageTooLarge, match=r"^x\.y: 60000 x 60000 = 3600000000 pixels") as caught:
            decode(data, path="x.y")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert f"expected at most max_pixels={DEFAULT_MAX_PIXELS}" in str(caught.value)
    assert "max_pixels=3600000000" in str(caught.value)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "ICO"])
def test_the_limit_is_the_last_size_that_is_read(form: str) -> None:
    """Read an image of exactly the limit, and none of one pixel more."""
    data = encoded(photo(5, 32, 32), form)
    assert decode(data, max_pixels=1024).shape == (32, 32, 3)
    with pytest.raises(ImageTooLarge, match="32 x 32 = 1024 pixels; expected at most max_pixels=1023"):
        decode(data, max_pixels=1023)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "GIF", "ICO"])
def test_the_limit_can_be_raised_above_pillows_own(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read what Pillow alone would refuse or warn of, in many threads at once, and leave Pillow as it was."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    data = encoded(photo(6, 48, 48), form)
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(decode(data))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [pixels.shape for pixels in results] == [(48, 48, 3)] * 8
    assert Image.MAX_IMAGE_PIXELS == 500
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data)).load()


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "GIF", "ICO"])
def test_both_limits_may_be_passed_at_once(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse an image that is too large for us as an error of ours, wherever Pillow asks its own limit."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(ImageTooLarge, match="max_pixels=") as caught:
        decode(encoded(photo(6, 48, 48), form), path="x.y", max_pixels=100)
    assert str(caught.value).startswith("x.y: ")
    assert "100" in str(caught.value)
    assert Image.MAX_IMAGE_PIXELS == 50


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process as Linux does")
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_an_image_that_memory_does_not_hold_is_refused(form: str) -> None:
    """Raise ImageTooLarge where an image within the limit does not fit the machine."""
    data = bytearray(encoded(Image.new("RGB", (16, 16))))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", 12000, 12000)
    program = """
        import resource, sys
        from headrace.errors import ImageTooLarge
        from headrace.image.decoder import decode, decode_with_pillow
        data, small = (bytes.fromhex(part) for part in sys.stdin.read().split())
        decode(small), decode_with_pillow(small)
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
        try:
            decode(data, path="x.y", max_pixels=10**9)
        except ImageTooLarge as error:
            print(error)
    """
    large = png(12000, 12000) if form == "PNG" else bytes(data)
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        input=f"{large.hex()} {encoded(PHOTO).hex()}",
        text=True,
        capture_output=True,
        check=True,
    )
    assert said.stdout.startswith("x.y: there is not enough memory for its pixels")


def test_the_filters_of_warnings_are_left_as_they_were() -> None:
    """Hush Pillow in many threads at once and leave the process's own filters untouched."""
    data = encoded(photo(7, 16, 16))
    data = data[:2] + b"\xff\xe2\x00\x0cMPF\0junk??" + data[2:]
    with pytest.warns(UserWarning, match="malformed MPO"):
        by_pillow(data)
    before = list(warnings.filters)
    results: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: results.extend(decode_with_pillow(data) for _ in range(20))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 160
    assert list(warnings.filters) == before


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


def iptc(payload: bytes) -> bytes:
    """Wrap a file in IPTC records, which Pillow's reader unwraps and opens, whatever is inside."""

    def record(number: tuple[int, int], data: bytes) -> bytes:
        return bytes((0x1C, *number)) + struct.pack(">H", len(data)) + data

    return b"".join(
        (
            record((3, 20), b"\0\x09"),
            record((3, 30), b"\0\x09"),
            record((3, 60), b"\1\0"),
            record((3, 65), b"\0"),
            record((3, 120), b"\5"),
            record((8, 10), payload),
        )
    )


@pytest.mark.parametrize("data", [EPS, iptc(EPS)], ids=["EPS", "EPS in IPTC"])
def test_no_image_runs_a_program(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse what Pillow would hand to Ghostscript, and start nothing."""
    ran = tmp_path / "ran"
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {ran}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(BadImage):
        decode(data)
    assert not ran.exists()


def test_eps_is_refused_by_name() -> None:
    """Say that EPS is never opened, and why."""
    with pytest.raises(BadImage, match="EPS is never opened: reading it can run other programs"):
        decode(EPS)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"hello, this is no image", "23 bytes of text, beginning 'hello, this is no image'"),
        ("ein Märchen ".encode() * 9, "of text, beginning 'ein Märchen "),
        (bytes(300), "300 bytes, all of them zero"),
        (b"\x93\x12\xfe\xfe" * 9, "36 bytes, beginning 93 12 fe fe"),
        (encoded(photo(8))[:700], r"700 bytes, beginning ff d8 ff e0 .* cut short .*([Pp]remature end|is truncated)"),
        (encoded(photo(8), "PNG")[:700], r"700 bytes, beginning 89 50 4e 47 .* \(image file is truncated"),
        (b"\xff\xd8\xff\xe0", "4 bytes, beginning ff d8 ff e0"),
    ],
)
def test_what_is_no_image_is_described(data: bytes, found: str) -> None:
    """Name the path, what was found, what was expected, and what to do."""
    for read in (decode, decode_with_pillow):
        with pytest.raises(BadImage, match=found) as caught:
            read(data, path="/photos/x.jpg")
        assert str(caught.value).startswith("/photos/x.jpg: ")
        assert "expected" in str(caught.value)
        assert 'on_error="skip"' in str(caught.value)
