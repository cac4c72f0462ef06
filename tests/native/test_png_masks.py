"""Masks in PNG files: the native extension gives what Pillow gives, and leaves to it what it does not read."""

from __future__ import annotations

import io
import struct
import zlib
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headrace import decode
from headrace._native import extension
from headrace.errors import BadImage
from headrace.image import decoder
from headrace.image.decoder import decode_as, decode_with_pillow
from headrace.image.decoding import Decoding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

native = pytest.mark.skipif(not decoder.READS_PNG, reason="the native extension does not read PNG files")
SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, COLORS, INDICES = 0, 2, 3
CHANNELS = {COLORS: 3, 4: 2, 6: 4}
"""How many numbers a pixel has, by the kind of color; one where it is not here."""
DEPTHS = [
    (1, GRAY),
    (2, GRAY),
    (4, GRAY),
    (8, GRAY),
    (16, GRAY),
    (1, INDICES),
    (2, INDICES),
    (4, INDICES),
    (8, INDICES),
]


def chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def filtered(kind: int, line: bytes, above: bytes, step: int) -> bytes:
    """Return a line as a filter of the PNG specification stores it, by its words and not by our code."""
    stored = bytearray([kind])
    for place, value in enumerate(line):
        left = line[place - step] if place >= step else 0
        corner = above[place - step] if place >= step else 0
        guess = left + above[place] - corner
        nearest = min((left, above[place], corner), key=lambda one: abs(guess - one))
        stored.append((value - (0, left, above[place], (left + above[place]) // 2, nearest)[kind]) % 256)
    return bytes(stored)


def png(
    lines: Sequence[bytes],
    width: int,
    depth: int,
    color: int,
    filters: Sequence[int] = (0,),
    *,
    before: bytes = b"",
    cut: Sequence[int] = (),
    header: tuple[int, int, int] = (0, 0, 0),
) -> bytes:
    """Return a PNG file of packed lines; ``cut`` says where its compressed pixels are cut into chunks."""
    step = (2 if depth == 16 else 1) * CHANNELS.get(color, 1)
    stored = [
        filtered(filters[row % len(filters)], line, lines[row - 1] if row else bytes(len(line)), step)
        for row, line in enumerate(lines)
    ]
    packed = zlib.compress(b"".join(stored))
    ends = [0, *sorted({place % len(packed) for place in cut} - {0}), len(packed)]
    palette = chunk(b"PLTE", bytes(3 << depth)) if color == INDICES else b""
    head = struct.pack(">IIBBBBB", width, len(lines), depth, color, *header)
    pixels = b"".join(chunk(b"IDAT", packed[begin:end]) for begin, end in pairwise(ends))
    return SIGNATURE + chunk(b"IHDR", head) + before + palette + pixels + chunk(b"IEND")


def lines_of(rng: np.random.Generator, height: int, width: int, depth: int, flatness: int) -> list[bytes]:
    """Return packed lines with flat parts, as masks have them."""
    size = (width * depth + 7) // 8
    values = rng.integers(0, 256, (height, -(-size // flatness)), np.uint8)
    return [line.tobytes()[:size] for line in np.repeat(values[np.arange(height) // flatness], flatness, axis=1)]


def natively(data: bytes, mode: Any = "unchanged") -> NDArray[Any] | None:
    return decoder._decode_png(data, Decoding(mode, oriented=False))


@native
@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(DEPTHS),
    seed=st.integers(0, 1 << 32),
    height=st.integers(1, 12),
    width=st.integers(1, 80),
    flatness=st.sampled_from([1, 3, 40]),
    filters=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    cut=st.lists(st.integers(0, 999), max_size=3),
)
def test_every_depth_and_filter_gives_the_pixels_that_pillow_gives(
    kind: tuple[int, int], seed: int, height: int, width: int, flatness: int, filters: list[int], cut: list[int]
) -> None:
    lines = lines_of(np.random.default_rng(seed), height, width, kind[0], flatness)
    data = png(lines, width, *kind, filters, cut=cut)
    modes = ["unchanged"] + (["P"] if kind[0] < 16 else []) + (["I;16"] if kind[1] == GRAY else [])
    for mode in modes:
        found, expected = natively(data, mode), decode_with_pillow(data, mode=mode)  # type: ignore[arg-type]
        assert found is not None
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert np.array_equal(found, expected)


@native
@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16"])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"compress_level": 0}, {"bits": 2}, {"transparency": 1}])
def test_what_pillow_writes_is_read(mode: str, options: dict[str, Any]) -> None:
    values = np.random.default_rng(3).integers(0, 4, (37, 53)).repeat(5, axis=1)
    image = Image.fromarray(values.astype(np.uint16 if mode == "I;16" else np.uint8))
    if mode == "1":
        image = image.point(lambda value: 255 * (value > 1)).convert("1")
    if mode == "P":
        image = Image.fromarray(values.astype(np.uint8), "L").convert("P", palette=Image.Palette.ADAPTIVE)
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    found = natively(file.getvalue())
    assert found is not None
    assert np.array_equal(found, decode_with_pillow(file.getvalue(), mode="unchanged"))


LINES = [bytes([1, 2, 3]), bytes([4, 5, 6])]
WHOLE = png(LINES, 3, 8, GRAY)
UNREAD: dict[str, bytes] = {
    "interlaced": png(LINES, 3, 8, GRAY, header=(0, 0, 1)),
    "of another compression": png(LINES, 3, 8, GRAY, header=(1, 0, 0)),
    "with Exif": png(LINES, 3, 8, GRAY, before=chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\0")),
    "with compressed text": png(LINES, 3, 8, GRAY, before=chunk(b"zTXt", b"a\0\0" + zlib.compress(b"b"))),
    "animated": png(LINES, 3, 8, GRAY, before=chunk(b"acTL", struct.pack(">II", 1, 0))),
    "with a chunk of an unknown kind": png(LINES, 3, 8, GRAY, before=chunk(b"prIv", b"1")),
    "with a chunk of the wrong length": png(LINES, 3, 8, GRAY, before=chunk(b"gAMA", b"1")),
    "with bytes behind its end": WHOLE + b"0",
    "with an unknown filter": png(LINES, 3, 8, GRAY).replace(
        zlib.compress(b"\0\1\2\3\0\4\5\6"), zlib.compress(b"\5\1\2\3\0\4\5\6")
    ),
    "without pixels": WHOLE[:33] + WHOLE[-12:],
    "cut short": WHOLE[:-12],
    "of colors": png([bytes(9)], 3, 8, COLORS),
    "of another depth": png([bytes(9)], 3, 7, GRAY),
    "of a gray palette": png(LINES, 3, 8, INDICES).replace(chunk(b"PLTE", bytes(3 << 8)), b""),
    "of nothing": SIGNATURE,
}


@native
@pytest.mark.parametrize("name", UNREAD)
def test_a_file_is_left_to_pillow(name: str) -> None:
    assert natively(UNREAD[name]) is None
    outcomes: list[Any] = []
    for read in (decode, decode_with_pillow):
        try:
            outcomes.append(read(UNREAD[name], mode="unchanged").tolist())
        except BadImage as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


@native
def test_a_line_more_or_less_than_the_header_says_is_left_to_pillow() -> None:
    for rows in (1, 3):
        assert natively(WHOLE.replace(*_headers(rows))) is None


def _headers(rows: int) -> tuple[bytes, bytes]:
    return tuple(chunk(b"IHDR", struct.pack(">IIBBBBB", 3, one, 8, GRAY, 0, 0, 0)) for one in (2, rows))  # type: ignore[return-value]


@native
def test_any_damaged_byte_gives_what_pillow_gives() -> None:
    """The checksums of the chunks notice it, and Pillow decides: it reads some of them."""
    data = png(lines_of(np.random.default_rng(1), 5, 9, 8, 2), 9, 8, INDICES, (4, 2, 3))
    for place in range(len(data)):
        damaged = data[:place] + bytes([data[place] ^ 0x20]) + data[place + 1 :]
        assert natively(damaged) is None
    for place in range(len(data)):
        assert natively(data[:place]) is None


@native
def test_text_is_no_obstacle_where_it_cannot_turn_the_image() -> None:
    data = png(LINES, 3, 8, GRAY, before=chunk(b"tEXt", b"Software\0painted") + chunk(b"pHYs", bytes(9)))
    assert natively(data) is not None
    assert decoder._decode_png(data, Decoding("unchanged")) is None
    assert decode(data, mode="unchanged").tolist() == [[1, 2, 3], [4, 5, 6]]


@native
def test_an_image_turned_by_text_is_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = b"\nexif\n%8d\n" % len(exif.tobytes()) + exif.tobytes().hex().encode() + b"\n"
    data = png(LINES, 3, 8, GRAY, before=chunk(b"tEXt", b"Raw profile type exif\0" + raw))
    assert decode(data, mode="unchanged").shape == decode_with_pillow(data, mode="unchanged").shape


@native
def test_a_large_header_of_a_small_file_takes_no_memory() -> None:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1 << 20, 1 << 20, 8, GRAY, 0, 0, 0))
    assert natively(SIGNATURE + head + chunk(b"IDAT", b"1") + chunk(b"IEND")) is None


@native
@pytest.mark.parametrize("shape", [(2, 4), (3, 2), (1, 6)])
def test_memory_of_another_size_is_refused(shape: tuple[int, int]) -> None:
    assert extension is not None
    assert not extension.read_png(WHOLE, np.zeros(shape, np.uint8), False)  # noqa: FBT003
    assert not extension.read_png(WHOLE, np.zeros((2, 3), np.uint16), False)  # noqa: FBT003


def test_without_the_extension_pillow_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "READS_PNG", False)
    how = Decoding("unchanged", oriented=False)
    assert decode_as(WHOLE, None, how, set()).tolist() == [[1, 2, 3], [4, 5, 6]]
