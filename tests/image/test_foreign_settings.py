"""What others set for the whole process reaches no image; and what libtiff says is reported with the file's name."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import GifImagePlugin, Image, ImageFile
from tests.image_files import encoded, photo

from headrace.errors import BadImage
from headrace.image import decode, geometry, image_formats
from headrace.image.pillow import undisturbed

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "PNG": ("PNG", {}),
    "TIFF": ("TIFF", {}),
    "TIFF by libtiff": ("TIFF", {"compression": "tiff_lzw"}),
    "BMP": ("BMP", {}),
    "JPEG": ("JPEG", {}),
    "progressive JPEG": ("JPEG", {"progressive": True}),
    "GIF": ("GIF", {}),
    "WEBP": ("WEBP", {}),
    "PPM": ("PPM", {}),
    "TGA": ("TGA", {}),
    "PCX": ("PCX", {}),
    "ICO": ("ICO", {}),
    "JPEG2000": ("JPEG2000", {}),
    "SGI": ("SGI", {}),
    "DDS": ("DDS", {}),
}


@pytest.fixture
def lenient() -> Iterator[None]:
    """Set Pillow's flag for truncated images, as other libraries do when they are imported."""
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    yield
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    ImageFile.LOAD_TRUNCATED_IMAGES = False


def outcome(data: bytes, **options: Any) -> Any:
    try:
        return decode(data, **options).tobytes()
    except BadImage as error:
        return str(error)


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize(("form", "options"), FORMS.values(), ids=FORMS)
def test_a_flag_for_truncated_images_set_by_others_changes_nothing(form: str, options: dict[str, Any]) -> None:
    """Give what the flag unset gives, for a file cut anywhere, asked for whole or not."""
    data = encoded(photo(2, 32, 40), form, **options)
    for end in (len(data) // 3, len(data) // 2, len(data) - 9, len(data)):
        for allowed in (False, True):
            found = outcome(data[:end], allow_truncated=allowed)
            ImageFile.LOAD_TRUNCATED_IMAGES = False
            expected = outcome(data[:end], allow_truncated=allowed)
            ImageFile.LOAD_TRUNCATED_IMAGES = True
            assert found == expected
    with pytest.raises(BadImage):
        decode(data[: len(data) // 2])


@pytest.mark.usefixtures("lenient")
def test_other_threads_see_the_flag_as_they_set_it() -> None:
    """Let another thread read its own truncated image while one of ours decodes."""
    seen: list[bool] = []

    def ask() -> bool:
        thread = threading.Thread(target=lambda: seen.append(bool(ImageFile.LOAD_TRUNCATED_IMAGES)))
        thread.start()
        thread.join()
        return bool(ImageFile.LOAD_TRUNCATED_IMAGES)

    assert not undisturbed(ask)
    assert seen == [True]


def test_a_flag_set_while_an_image_is_read_makes_it_read_again() -> None:
    """Notice that another thread set the flag in the meantime, keep its value, and read once more without it."""
    read: list[bool] = []

    def reading() -> bool:
        if not read:
            ImageFile.LOAD_TRUNCATED_IMAGES = True
        read.append(bool(ImageFile.LOAD_TRUNCATED_IMAGES))
        return read[-1]

    try:
        assert undisturbed(reading) is False
        assert read == [True, False]
        assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def test_many_threads_leave_the_flag_as_it_was() -> None:
    """Decode on eight threads at once with the flag set, refuse every cut file, and put the flag back."""
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    data = encoded(photo(2, 32, 40), "PNG")[:1500]
    refused: list[bool] = []
    threads = [
        threading.Thread(target=lambda: refused.extend("cut short" in outcome(data) for _ in range(20)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    assert refused == [True] * 160


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_process_forked_while_an_image_is_read_has_the_flag_as_it_was() -> None:
    """Restore the owner's value in a fork, where the reading thread may not come along."""
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    status: list[int] = []

    def fork() -> None:
        child = os.fork()
        if not child:
            os._exit(0 if ImageFile.LOAD_TRUNCATED_IMAGES is True else 1)
        status.append(os.waitpid(child, 0)[1])

    undisturbed(fork)
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    assert status == [0]


def test_a_strategy_for_gif_set_by_others_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a GIF the same, however others want theirs."""
    data = encoded(photo(3), "GIF")
    expected = decode(data)
    for strategy in GifImagePlugin.LoadingStrategy:
        monkeypatch.setattr(GifImagePlugin, "LOADING_STRATEGY", strategy)
        np.testing.assert_array_equal(decode(data), expected)
        assert GifImagePlugin.LOADING_STRATEGY is strategy


@pytest.mark.parametrize("limit", [None, 1])
def test_a_limit_of_pixels_set_by_others_changes_nothing(limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read what is within our own limit."""
    data = encoded(photo(3), "TIFF")
    expected = decode(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    np.testing.assert_array_equal(decode(data), expected)


def broken_tiff() -> bytes:
    data = bytearray(encoded(photo(), "TIFF", compression="tiff_lzw"))
    for place in range(200, 900, 9):
        data[place] ^= 255
    return bytes(data)


@pytest.mark.skipif(sys.platform != "linux", reason="libtiff's messages are taken on Linux")
def test_what_libtiff_says_is_reported_with_the_name_of_the_file(capfd: pytest.CaptureFixture[str]) -> None:
    """Attach the message to the error, print nothing, and leave what others read to libtiff."""
    if "said" not in subprocess.run(
        [sys.executable, "-c", "from headrace.image.pillow import _listen; print('said' if _listen() else '')"],
        capture_output=True, text=True, check=True,
    ).stdout:  # fmt: skip
        pytest.skip("this Pillow has a libtiff of its own inside")
    with pytest.raises(BadImage, match=r"^/photos/x\.tif: .*libtiff says: Using code not yet in table"):
        decode(broken_tiff(), path="/photos/x.tif")
    assert capfd.readouterr().err == ""
    import io

    with pytest.raises(OSError, match="-2"):
        Image.open(io.BytesIO(broken_tiff())).load()
    assert "Using code not yet in table" in capfd.readouterr().err


def test_images_that_libtiff_complains_of_are_logged_by_name(caplog: pytest.LogCaptureFixture) -> None:
    """Log nothing for a whole file."""
    with caplog.at_level(logging.WARNING):
        decode(encoded(photo(), "TIFF", compression="tiff_lzw"))
    assert not caplog.records


def box(brand: bytes, *more: bytes) -> bytes:
    return (16 + 4 * len(more)).to_bytes(4, "big") + b"ftyp" + brand + bytes(4) + b"".join(more) + bytes(200)


@pytest.mark.parametrize(
    ("data", "name", "cure"),
    [
        (box(b"heic"), "HEIC", "pillow-heif"),
        (box(b"mif1", b"mif1", b"heic"), "HEIC", "pillow-heif"),
        (b"\xff\x0a" + bytes(99), "JPEG XL", "pillow-jxl-plugin"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99), "JPEG XL", "pillow-jxl-plugin"),
        (box(b"crx "), r"Canon CR3 \(RAW\)", "rawpy"),
        (b"FUJIFILMCCD-RAW " + bytes(99), r"Fujifilm RAF \(RAW\)", "rawpy"),
        (box(b"isom"), "MP4 video", "frames"),
        (b"v/1\x01" + bytes(99), "OpenEXR", "OpenEXR"),
        (bytes(128) + b"DICM" + bytes(99), "DICOM", "pydicom"),
        (b"<!DOCTYPE html><p>404", "an HTML page", "Download"),
        (b"  <svg xmlns='http://www.w3.org/2000/svg'/>", "SVG", "Render"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer", "git lfs pull"),
        (b"\x93NUMPY\1\0" + bytes(99), r"a NumPy array \(.npy\)", "ArrayDataset"),
    ],
)
def test_a_format_that_pillow_does_not_read_is_named(data: bytes, name: str, cure: str) -> None:
    """Say what the file is and what reads it, not that it is broken."""
    with pytest.raises(BadImage, match=rf"^/x: \d+ bytes of {name}, which this Pillow does not read") as caught:
        decode(data, path="/x")
    assert cure in str(caught.value)
    assert "or convert the file" in str(caught.value)
    assert "corrupt" not in str(caught.value)


def test_broken_files_of_formats_that_pillow_reads_are_reported_as_broken() -> None:
    """Leave WebP and AVIF to Pillow, where it reads them."""
    for form in ("WEBP", "AVIF"):
        if form in Image.SAVE:
            with pytest.raises(BadImage) as caught:
                decode(encoded(photo(), form)[:40])
            assert "does not read" not in str(caught.value)
    assert image_formats.foreign(b"\x89PNG\r\n\x1a\n") is None


def test_variants_that_pillow_does_not_read_are_reported_as_unsupported() -> None:
    """Name the variant of a whole BMP or DDS file, and say that the file may be whole."""
    bmp = bytearray(encoded(photo(), "BMP"))
    bmp[30] = 5  # PNG inside
    dds = bytearray(encoded(photo(), "DDS"))
    dds[80:88] = b"\4\0\0\0WHAT"
    for data, said in ((bmp, "Unsupported BMP compression"), (dds, "Unimplemented pixel format")):
        with pytest.raises(BadImage, match=rf"in a variant that Pillow does not read \(.*{said}") as caught:
            decode(bytes(data), path="/x")
        assert "may be whole" in str(caught.value)
        assert "convert the file" in str(caught.value).lower()


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
def test_flags_of_opencv_change_no_pixel(interpolation: Any, dtype: str) -> None:
    """Scale without antialiasing under flags that OpenCV keeps for each thread, and leave them as they were."""
    cv2 = pytest.importorskip("cv2")
    images = [
        (255 * np.random.default_rng(number).random(shape)).astype(dtype)
        for number, shape in enumerate([(50, 61, 3), (64, 64), (64, 64, 4), (7, 9), (224, 200, 3)])
    ]

    def scaled() -> list[bytes]:
        return [
            geometry.resize(image, *size, antialias=False, interpolation=interpolation).tobytes()
            for image in images
            for size in ((31, 24), (32, 32), (128, 130), (97, 301))
        ]

    expected = scaled()
    for name, value, back in (
        ("ipp.setUseIPP_NotExact", True, False),
        ("ipp.setUseIPP", False, True),
        ("setUseOptimized", False, True),
        ("setNumThreads", 0, -1),
    ):
        change: Any = cv2
        for part in name.split("."):
            change = getattr(change, part)
        change(value)
        before = cv2.ipp.useIPP(), cv2.ipp.useIPP_NotExact()
        try:
            assert scaled() == expected, name
            assert (cv2.ipp.useIPP(), cv2.ipp.useIPP_NotExact()) == before
        finally:
            change(back)


def test_a_reader_of_another_library_does_not_replace_pillows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read common formats by Pillow's own readers, and others by those that were registered for them."""

    class Black(ImageFile.ImageFile):
        format = "PNG"

        def _open(self) -> None:
            self._size, self._mode, self.tile = (8, 8), "RGB", []

        def load(self) -> Any:
            self.im = Image.new("RGB", (8, 8)).im

    Image.init()
    black: Any = (Black, lambda head: True)
    monkeypatch.setattr(Image, "OPEN", {"BLACK": black, **Image.OPEN, "PNG": black})
    monkeypatch.setattr(Image, "ID", [])
    image = Image.new("RGB", (5, 4), (10, 20, 30))
    data = io.BytesIO()
    image.save(data, "PNG")
    assert decode(data.getvalue()).shape == (4, 5, 3)
    assert decode(b"of no other format").shape == (8, 8, 3)
