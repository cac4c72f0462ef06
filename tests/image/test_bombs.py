"""Bombs are refused before memory or time is spent on them, and honest images are not taken for bombs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from tests.chaos import bombs
from tests.image_files import encoded, photo

from headrace.errors import BadImage, ImageTooLarge, SampleError
from headrace.image.budget import check_pixels, check_scans
from headrace.image.decoder import decode, decode_with_pillow, jpeg_size
from headrace.image.decoding import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from pathlib import Path


def test_a_webp_of_a_few_bytes_is_refused() -> None:
    """Name its size, its bytes, and the limit that lets it through."""
    data = bombs.webp(13_000)
    assert len(data) < 50
    with pytest.raises(
        ImageTooLarge, match=r"x: 13000 x 13000 = 169000000 pixels in \d+ bytes, .*max_pixels=676000000"
    ):
        decode(data, path="x")
    assert decode(bombs.webp(100)).shape == (100, 100, 3)


@pytest.mark.parametrize("color", [0, 2])
def test_a_png_that_claims_far_more_than_its_bytes_is_refused(color: int) -> None:
    """Refuse it by its header, before any pixel is decoded."""
    data = bombs.png(13_000, 13_000, color=color, rows=10)
    with pytest.raises(ImageTooLarge, match="decompression bomb"):
        decode(data)


def test_repeated_scans_are_refused() -> None:
    """Count the scans before any is decoded, by both routes."""
    data = bombs.scans(500, 2_000)
    for read in (decode, decode_with_pillow):
        with pytest.raises(BadImage, match=r"x: a JPEG with \d+ scans of 250000 pixels"):
            read(data, path="x")
    assert decode(bombs.scans(16, 100)).shape == (16, 16, 3)


def test_fill_and_comments_are_refused() -> None:
    """Refuse a header of nothing, by both routes, and read one with a little of either."""
    for data, said in ((bombs.fill(100_000), "bytes of fill"), (bombs.comments(20_000), "segments")):
        for read in (decode, decode_with_pillow):
            with pytest.raises(BadImage, match=said):
                read(data, path="x")
        assert jpeg_size(data) is None
    for data in (bombs.fill(100), bombs.comments(100)):
        assert decode(data).shape == (64, 64, 3)


def test_honest_images_pass() -> None:
    """Take a white image of 12 megapixels, and every ratio that photographs have, for what they are."""
    for nbytes in (30, 35_000):
        check_pixels((4_000, 3_000), "x", DEFAULT_MAX_PIXELS, nbytes)
    check_pixels((13_000, 13_000), "x", DEFAULT_MAX_PIXELS, 169_000_000 // 80)
    check_pixels((13_000, 13_000), "x", 4 * 169_000_000, 34)
    check_scans(b"\xff\xda" * 12, (13_000, 13_000), "x")
    assert decode(encoded(photo(), progressive=True)).shape == (48, 64, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory from /proc")
def test_a_bomb_takes_no_memory_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Run the long experiment on one bomb, by both routes."""
    (tmp_path / "bomb").write_bytes(bombs.webp(13_000))
    for route in ("python", "native"):
        peak, _, said = bombs.measured(tmp_path / "bomb", route)
        assert said == "ImageTooLarge"
        assert peak < 100
    with pytest.raises(SampleError):
        decode(bombs.webp(13_000))
