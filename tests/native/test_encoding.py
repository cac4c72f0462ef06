"""What the native extension makes for packed datasets is what decoding, scaling and Pillow give."""

from __future__ import annotations

import io
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headrace._native import extension
from headrace.image import decode, geometry
from headrace.storage.crc32c import crc32c

native: Any = pytest.importorskip("headrace._native.extension")
LIMIT = 10**8


def photo(height: int, width: int, *, orientation: int = 1, quality: int = 92) -> bytes:
    blocks = np.random.default_rng(height).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    pixels = np.kron(blocks, np.ones((8, 8, 1), np.uint8))[:height, :width]
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize(("height", "width"), [(120, 90), (90, 121), (64, 64), (3, 200)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_whole_image_is_scaled_to_its_longest_side(height: int, width: int, orientation: int) -> None:
    data = photo(height, width, orientation=orientation)
    rows, columns, stored, pixels = native.read_image(data, 64, LIMIT, oriented=True)
    whole = decode(data)
    longest = max(whole.shape[:2])
    assert (rows, columns) == tuple(max(1, int(64 * side / longest + 0.5)) for side in whole.shape[:2])
    found = np.frombuffer(pixels, np.uint8).reshape(rows, columns, 3)
    assert np.array_equal(found, geometry.resize(whole, rows, columns, interpolation="bilinear", antialias=True))
    assert stored == (longest <= 64 and orientation == 1)


def test_an_image_that_is_small_enough_is_as_stored_unless_it_is_turned() -> None:
    for orientation in (1, 3, 8):
        data = photo(40, 50, orientation=orientation)
        rows, columns, stored, pixels = native.read_image(data, 64, LIMIT, oriented=True)
        assert np.array_equal(np.frombuffer(pixels, np.uint8).reshape(rows, columns, 3), decode(data))
        assert stored == (orientation == 1)


def test_bytes_that_are_no_whole_jpeg_are_left_to_python() -> None:
    data = photo(40, 50)
    assert native.read_image(b"GIF89a", 0, LIMIT, oriented=True) is None
    assert native.read_image(data[: len(data) // 2], 0, LIMIT, oriented=True) is None
    assert native.read_image(data, 0, 1999, oriented=True) is None


@pytest.mark.parametrize("shape", [(17, 31), (17, 31, 1), (17, 31, 3), (1, 1, 3)])
def test_pixels_are_encoded_as_libjpeg_does(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = native.write_jpeg(pixels, 90)
    assert data == native.write_jpeg(pixels, 90)
    file = io.BytesIO()
    Image.fromarray(pixels.reshape(shape[:2]) if shape[2:] == (1,) else pixels).save(
        file, "JPEG", quality=90, optimize=True
    )
    assert np.array_equal(decode(data), decode(file.getvalue()))


def test_pixels_that_no_jpeg_holds_are_refused() -> None:
    assert native.write_jpeg(np.zeros((0, 4, 3), np.uint8), 90) is None
    assert native.write_jpeg(np.zeros((1, 70_000), np.uint8), 90) is None
    with pytest.raises(ValueError, match="shape"):
        native.write_jpeg(np.zeros((4, 4, 2), np.uint8), 90)


def test_mapped_samples_are_read_where_their_checksums_agree(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    pixels = np.arange(2 * 5 * 7 * 3, dtype=np.uint8).reshape(2, 5, 7, 3)
    path.write_bytes(b"head" + pixels.tobytes())
    with path.open("rb") as file:
        held = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    sums = np.array([crc32c(each.tobytes()) for each in pixels], np.uint32)
    sums[1] ^= 1
    size = pixels[0].size
    sides = np.full(2, 5, np.int32), np.full(2, 7, np.int32)
    source = native.Source.mapped(
        [held], np.zeros(2, np.int32), np.array([4, 4 + size]), np.full(2, size), sums, *sides, 3
    )
    from headrace.image.fused import pipeline_of, plan
    from headrace.transforms import Resize

    recipe = plan([Resize((5, 7))], image_shape=(5, 7, 3)).recipe
    assert recipe is not None
    assert extension is not None
    out = np.zeros((2, 5, 7, 3), np.uint8)
    job = pipeline_of(recipe).rows(source, np.arange(2), native.Place(1, 2, 0, 0, 0), out, None, None)
    job.run()
    assert list(job.missing) == [1]
    assert np.array_equal(out[0], pixels[0])
