"""The contact sheet: pictures before and after the transforms, side by side, in one PNG to look at."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image, ImageDraw, ImageFont

    Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

TILE = 160
"""The side of the square that one picture is fitted into, in pixels of the sheet."""

_COLUMNS = 4
_MARGIN = 28
_GAP = 16
_PADDING = 10
_BETWEEN = 22  # the two pictures of a pair; an arrow stands there
_CAPTION = 42

_PAPER = (241, 242, 244)
_CARD = (255, 255, 255)
_EDGE = (218, 221, 226)
_MAT = (228, 231, 235)
_INK = (28, 32, 38)
_FAINT = (112, 120, 130)
_ACCENT = (38, 110, 190)

_WIDE_FONTS = ("DejaVuSans.ttf", "Arial Unicode.ttf", "Arial.ttf")


@dataclass(frozen=True, slots=True)
class Pair:
    """A picture before and after the transforms, both (H, W, 3) uint8, and what to write under them."""

    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    caption: str
    detail: str


def contact_sheet(pairs: Sequence[Pair], *, title: str, subtitle: str) -> Image.Image:
    """Draw the pairs on cards, up to four in a row, under a title.

    >>> import numpy as np
    >>> pair = Pair(np.zeros((60, 80, 3), np.uint8), np.zeros((32, 32, 3), np.uint8), "cat", "80 x 60")
    >>> contact_sheet([pair], title="cats", subtitle="one of 1").size == sheet_size(1)
    True
    """
    from PIL import Image, ImageDraw

    sheet = Image.new("RGB", sheet_size(len(pairs)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    width = sheet.width - 2 * _MARGIN
    _text(draw, (_MARGIN, _MARGIN - 4), title, 24, _INK, width)
    _text(draw, (_MARGIN, _MARGIN + 32), subtitle, 14, _FAINT, width)
    for place, pair in enumerate(pairs):
        row, column = divmod(place, _columns(len(pairs)))
        left = _MARGIN + column * (_card_width() + _GAP)
        top = _head() + row * (_card_height() + _GAP)
        _card(sheet, draw, left, top, pair)
    return sheet


def sheet_size(pairs: int) -> tuple[int, int]:
    """Return the width and height of the contact sheet of so many pairs.

    >>> sheet_size(4)[0] == sheet_size(16)[0] > sheet_size(2)[0]
    True
    """
    columns = _columns(pairs)
    rows = -(-pairs // columns)
    width = columns * (_card_width() + _GAP) - _GAP + 2 * _MARGIN
    return width, _head() + rows * (_card_height() + _GAP) - _GAP + _MARGIN


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Fit a picture into a square of `TILE` pixels, in its own proportions, the rest filled with grey.

    >>> import numpy as np
    >>> thumbnail(np.zeros((300, 500, 3), np.uint8)).shape == (TILE, TILE, 3)
    True
    """
    import numpy as np

    return np.array(_fitted(image))


def _card(sheet: Image.Image, draw: ImageDraw.ImageDraw, left: int, top: int, pair: Pair) -> None:
    right, bottom = left + _card_width() - 1, top + _card_height() - 1
    draw.rounded_rectangle((left, top, right, bottom), radius=8, fill=_CARD, outline=_EDGE)
    first = left + _PADDING
    second = first + TILE + _BETWEEN
    small = _font(11)
    draw.text((first, top + 7), "before", font=small, fill=_FAINT)
    draw.text((second, top + 7), "after", font=small, fill=_FAINT)
    pictures = top + 24
    sheet.paste(_fitted(pair.before), (first, pictures))
    sheet.paste(_fitted(pair.after), (second, pictures))
    middle, tip = pictures + TILE // 2, second - 4
    draw.line((first + TILE + 5, middle, tip - 4, middle), fill=_ACCENT, width=2)
    draw.polygon([(tip, middle), (tip - 6, middle - 5), (tip - 6, middle + 5)], fill=_ACCENT)
    room = second + TILE - first
    _text(draw, (first, pictures + TILE + 5), pair.caption, 15, _INK, room)
    _text(draw, (first, pictures + TILE + 25), pair.detail, 11, _FAINT, room)


def _fitted(image: NDArray[np.uint8]) -> Image.Image:
    from PIL import Image

    picture = Image.fromarray(image)
    if picture.size == (TILE, TILE):
        return picture
    scale = TILE / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    # A picture smaller than its tile is shown pixel by pixel, not as a blur that nobody delivered.
    picture = picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)
    mat = Image.new("RGB", (TILE, TILE), _MAT)
    mat.paste(picture, ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return mat


def _text(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, ink: tuple[int, int, int], room: int
) -> None:
    """Write a line, its middle left out if it is too long for the room: both ends of a file's name tell it apart."""
    font = _font(size, text)

    def shortened(left_out: int) -> str:
        keep = len(text) - left_out
        return f"{text[: (keep + 1) // 2]}…{text[len(text) - keep // 2 :]}" if left_out else text

    left_out = bisect_left(range(len(text)), 1, key=lambda number: int(font.getlength(shortened(number)) <= room))
    draw.text(at, shortened(left_out), font=font, fill=ink)


def _font(size: int, text: str = "") -> Font:
    """Return Pillow's own font, which draws ASCII, or for other text a common one of the system, if it has one."""
    from PIL import ImageFont

    if not text.isascii():
        for name in _WIDE_FONTS:
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue
    return ImageFont.load_default(size)


def _columns(pairs: int) -> int:
    return max(1, min(_COLUMNS, pairs))


def _head() -> int:
    return _MARGIN + 68


def _card_width() -> int:
    return 2 * TILE + _BETWEEN + 2 * _PADDING


def _card_height() -> int:
    return 24 + TILE + _CAPTION + 6
