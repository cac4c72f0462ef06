"""Images in PNG and PPM files: the native extension gives what Pillow gives, and leaves to it what it does not read."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headrace import CenterCrop, ImageFiles, RandomHorizontalFlip, RandomResizedCrop, ToCHW, ToFloat
from headrace._native import extension
from headrace.context.seeds import Here
from headrace.errors import BadImage
from headrace.image import decoder, fused
from tests.image_files import by_pillow, encoded, photo
from tests.native.stepwise import MISSING, WHY, assert_equal, batches, both
from tests.native.test_png_masks import CHANNELS, COLORS, GRAY, INDICES, chunk, png

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = [
    pytest.mark.skipif(MISSING, reason=WHY),
    pytest.mark.skipif(not MISSING and not decoder.READS_PNG, reason="the native extension does not read PNG files"),
]
GRAY_ALPHA, ALPHA = 4, 6


def natively(data: bytes, height: int, width: int, *, oriented: bool = False) -> NDArray[np.uint8] | None:
    """Return the pixels of a file as the native extension makes a row of them; None for a file that it leaves."""
    plan = fused.plan([CenterCrop((height, width))], oriented=oriented)
    out = np.empty((1, height, width, 3), np.uint8)
    source = extension.Source.bytes([data])  # type: ignore[union-attr]
    job = plan.pipeline.rows(source, np.zeros(1, np.int64), fused.place_of(Here((1, 2))), out)  # type: ignore[union-attr]
    job.run()
    return None if job.missing else out[0]


@settings(max_examples=120, deadline=None)
@given(
    color=st.sampled_from([GRAY, COLORS, GRAY_ALPHA, ALPHA]),
    seed=st.integers(0, 1 << 32),
    height=st.integers(1, 12),
    width=st.integers(1, 60),
    filters=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    cut=st.lists(st.integers(0, 999), max_size=3),
)
def test_every_kind_and_filter_gives_the_pixels_that_pillow_gives(
    color: int, seed: int, height: int, width: int, filters: list[int], cut: list[int]
) -> None:
    values = np.random.default_rng(seed).integers(0, 256, (height, width * CHANNELS.get(color, 1)), np.uint8)
    data = png([line.tobytes() for line in values], width, 8, color, filters, cut=cut)
    found = natively(data, height, width)
    assert found is not None
    assert np.array_equal(found, by_pillow(data))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"compress_level": 0}, {"transparency": True}])
def test_what_pillow_writes_is_read(mode: str, options: dict[str, Any]) -> None:
    image = Image.fromarray(photo(3, 37, 53)).convert(mode)
    if options.get("transparency"):
        if mode in ("RGBA", "LA"):
            pytest.skip("an image with alpha has no transparent color")
        options = {"transparency": (1, 2, 3) if mode == "RGB" else 5}
    data = encoded(image, "PNG", **options)
    found = natively(data, 37, 53)
    assert found is not None
    assert np.array_equal(found, by_pillow(data))


LINES = [bytes(range(9)), bytes(range(9, 18))]
WHOLE = png(LINES, 3, 8, COLORS)
TEXT = chunk(b"tEXt", b"Software\0painted")
UNREAD: dict[str, bytes] = {
    "interlaced": png(LINES, 3, 8, COLORS, header=(0, 0, 1)),
    "of 16 bits a channel": png([bytes(18)] * 2, 3, 16, COLORS),
    "of gray in 16 bits": png([bytes(6)] * 2, 3, 16, GRAY),
    "of gray in 1 bit": png([bytes(1)] * 2, 3, 1, GRAY),
    "of indices": png([bytes(3)] * 2, 3, 8, INDICES),
    "of an unknown kind": png(LINES, 3, 8, 5),
    "with Exif": png(LINES, 3, 8, COLORS, before=chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\0")),
    "with a palette": png(LINES, 3, 8, COLORS, before=chunk(b"PLTE", bytes(9))),
    "with a transparent gray": png(LINES, 3, 8, COLORS, before=chunk(b"tRNS", bytes(2))),
    "with a transparent color beside alpha": png([bytes(12)] * 2, 3, 8, ALPHA, before=chunk(b"tRNS", bytes(6))),
    "cut short": WHOLE[:-12],
    "PPM with a comment": b"P6\n# made here\n3 2\n255\n" + b"".join(LINES),
    "PPM of 16 bits": b"P6 3 2 65535\n" + bytes(36),
    "PPM with few values": b"P6 3 2 100\n" + b"".join(LINES),
    "PPM without a pixel": b"P6 3 2 255\n" + b"".join(LINES)[:-1],
    "PPM with more pixels": b"P6 3 2 255\n" + b"".join(LINES) + b"0",
    "PPM of no width": b"P6 0 2 255\n",
    "PPM of an enormous width": b"P6 99999999 2 255\n",
    "PPM that ends in its header": b"P6 3 2 255",
    "gray PPM": b"P5 3 2 255\n" + bytes(6),
    "two bytes": b"P6",
    "nothing": b"",
}


@pytest.mark.parametrize("name", UNREAD)
def test_a_file_is_left_to_pillow(name: str) -> None:
    assert natively(UNREAD[name], 2, 3) is None


def test_ppm_is_read_in_place() -> None:
    for header in (b"P6 3 2 255\n", b"P6\n3\t2\r\n255 ", b"P6\n\n003 2\n255\n"):
        data = header + b"".join(LINES)
        found = natively(data, 2, 3)
        assert found is not None
        assert np.array_equal(found, by_pillow(data))


def test_any_damaged_byte_of_a_png_file_is_noticed() -> None:
    data = png(LINES, 3, 8, COLORS, (4, 2))
    for place in range(len(data)):
        assert natively(data[:place] + bytes([data[place] ^ 0x20]) + data[place + 1 :], 2, 3) is None
        assert natively(data[:place], 2, 3) is None


def test_text_that_may_turn_the_image_is_left_to_pillow() -> None:
    data = png(LINES, 3, 8, COLORS, before=TEXT)
    assert natively(data, 2, 3) is not None
    assert natively(data, 2, 3, oriented=True) is None


def test_a_large_header_of_a_small_file_takes_no_memory() -> None:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1 << 20, 1 << 20, 8, COLORS, 0, 0, 0))
    assert natively(WHOLE[:8] + head + chunk(b"IDAT", b"1") + chunk(b"IEND"), 2, 3) is None


@pytest.mark.parametrize("workers", [0, 2])
def test_files_give_the_batches_of_the_steps(workers: int, tmp_path: Path) -> None:
    """Crop, scale and flip such files as single images are, on any number of workers."""
    paths = []
    for number in range(24):
        form = ("PNG", "PPM", "JPEG")[number % 3]
        mode = ("RGB", "L", "RGBA", "LA")[number % 4] if form == "PNG" else "RGB"
        path = tmp_path / f"{number}.{form.lower()}"
        path.write_bytes(encoded(Image.fromarray(photo(number, 30 + number, 70 - number)).convert(mode), form))
        paths.append(str(path))
    files = ImageFiles(paths, labels=range(24))
    for chain in ([RandomResizedCrop(24), RandomHorizontalFlip(), ToFloat(), ToCHW()], [CenterCrop(20)]):
        natively_read, stepwise = both(files, *chain)
        assert_equal(batches(natively_read, num_workers=workers), batches(stepwise))


def test_a_damaged_file_raises_what_pillow_says(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    data = encoded(photo(1), "PNG")
    path.write_bytes(data[: len(data) // 2])
    (view, _) = both(ImageFiles([str(path)]), CenterCrop(2))
    with pytest.raises(BadImage, match="cut short or corrupt"):
        batches(view)
