"""Contact sheets: images on cards, single or before and after the transforms, in one PNG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.image.overlay import INK, NOTHING, Frame, Overlay, font_of, overlaid, shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image, ImageDraw

TILE = 160
"""The side of the square for each image of a pair, in pixels of the sheet."""

SINGLE_TILE = 240
"""The side of the square for an image that is alone on its card, of four in a row; of fewer, it is larger."""

_LARGER = {1: 480, 2: 480, 3: 320}  # about as wide a sheet as of four
_COLUMNS = 4
_MARGIN = 28
_GAP = 16
_PADDING = 10
_BETWEEN = 22  # the two images of a pair; an arrow is drawn there
_CAPTION = 42
_HEADING = 24
_HEAD = _MARGIN + 68

_PAPER = (241, 242, 244)
_CARD = (255, 255, 255)
_EDGE = (218, 221, 226)
_MAT = (228, 231, 235)
_FAINT = (112, 120, 130)
_ACCENT = (38, 110, 190)


@dataclass(frozen=True, slots=True)
class Pair:
    """An image before and after the transforms, both (H, W, 3) uint8, and the text under them."""

    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    caption: str
    detail: str
    drawn: tuple[Overlay, Overlay] = (NOTHING, NOTHING)
    """What is drawn on each of them."""

    @property
    def images(self) -> tuple[tuple[NDArray[np.uint8], Overlay], ...]:
        """Both images, with what is drawn on them."""
        return (self.before, self.drawn[0]), (self.after, self.drawn[1])


@dataclass(frozen=True, slots=True)
class Single:
    """An image, (H, W, 3) uint8, and the text under it."""

    image: NDArray[np.uint8]
    caption: str
    detail: str
    drawn: Overlay = NOTHING
    """What is drawn on it."""

    @property
    def images(self) -> tuple[tuple[NDArray[np.uint8], Overlay], ...]:
        """The only image, with what is drawn on it."""
        return ((self.image, self.drawn),)


@dataclass(frozen=True, slots=True)
class _Layout:
    """The places of the cards, in rows."""

    cards: int
    across: int
    tile: int
    most: int = _COLUMNS

    @property
    def columns(self) -> int:
        return max(1, min(self.most, self.cards))

    @property
    def card(self) -> tuple[int, int]:
        """Width and height of a card."""
        width = self.across * (self.tile + _BETWEEN) - _BETWEEN + 2 * _PADDING
        return width, self.above + self.tile + _CAPTION + 6

    @property
    def above(self) -> int:
        """The height above the images of a card; two have headings."""
        return _HEADING if self.across > 1 else _PADDING

    @property
    def size(self) -> tuple[int, int]:
        width, height = self.card
        rows = -(-self.cards // self.columns)
        return self.columns * (width + _GAP) - _GAP + 2 * _MARGIN, _HEAD + rows * (height + _GAP) - _GAP + _MARGIN

    def corner(self, place: int) -> tuple[int, int]:
        """Left and top of a card."""
        row, column = divmod(place, self.columns)
        width, height = self.card
        return _MARGIN + column * (width + _GAP), _HEAD + row * (height + _GAP)


def contact_sheet(cards: Sequence[Pair | Single], *, title: str, subtitle: str, columns: int = _COLUMNS) -> Image.Image:
    """Draw the cards, all of one kind, in rows under a title.

    >>> import numpy as np
    >>> pair = Pair(np.zeros((60, 80, 3), np.uint8), np.zeros((32, 32, 3), np.uint8), "cat", "80 x 60")
    >>> contact_sheet([pair], title="cats", subtitle="one of 1").size == sheet_size(1)
    True
    """
    from PIL import Image, ImageDraw

    pairs = not cards or isinstance(cards[0], Pair)
    tile = TILE if pairs else _LARGER.get(len(cards), SINGLE_TILE)
    layout = _Layout(len(cards), 2 if pairs else 1, tile, columns)
    sheet = Image.new("RGB", layout.size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    width = sheet.width - 2 * _MARGIN
    _text(draw, (_MARGIN, _MARGIN - 4), title, 24, INK, width)
    _text(draw, (_MARGIN, _MARGIN + 32), subtitle, 14, _FAINT, width)
    for place, card in enumerate(cards):
        _card(sheet, draw, layout, place, card)
    return sheet


def sheet_size(pairs: int) -> tuple[int, int]:
    """Return the width and height of the contact sheet of so many pairs.

    >>> sheet_size(4)[0] == sheet_size(16)[0] > sheet_size(2)[0]
    True
    """
    return _Layout(pairs, 2, TILE).size


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Fit an image into a square of `TILE` pixels, in its own proportions, on a gray background.

    >>> import numpy as np
    >>> thumbnail(np.zeros((300, 500, 3), np.uint8)).shape == (TILE, TILE, 3)
    True
    """
    import numpy as np

    return np.array(_fitted(image, TILE)[0])


def _card(sheet: Image.Image, draw: ImageDraw.ImageDraw, layout: _Layout, place: int, card: Pair | Single) -> None:
    left, top = layout.corner(place)
    width, height = layout.card
    draw.rounded_rectangle((left, top, left + width - 1, top + height - 1), radius=8, fill=_CARD, outline=_EDGE)
    first, above, tile = left + _PADDING, top + layout.above, layout.tile
    for number, (image, drawn) in enumerate(card.images):
        sheet.paste(overlaid(*_fitted(image, tile), drawn), (first + number * (tile + _BETWEEN), above))
    if len(card.images) > 1:
        small, second = font_of(13), first + tile + _BETWEEN
        draw.text((first, top + 5), "before", font=small, fill=_FAINT)
        draw.text((second, top + 5), "after", font=small, fill=_FAINT)
        middle, tip = above + tile // 2, second - 4
        draw.line((first + tile + 5, middle, tip - 4, middle), fill=_ACCENT, width=2)
        draw.polygon([(tip, middle), (tip - 6, middle - 5), (tip - 6, middle + 5)], fill=_ACCENT)
    room = width - 2 * _PADDING
    _text(draw, (first, above + tile + 5), card.caption, 15, INK, room)
    _text(draw, (first, above + tile + 24), card.detail, 13, _FAINT, room)


def _fitted(image: NDArray[np.uint8], tile: int) -> tuple[Image.Image, Frame]:
    """Return a square with the image in the middle, and where it lies."""
    from PIL import Image

    whole = Image.fromarray(image)
    scale = tile / max(whole.size)
    size = max(1, round(whole.width * scale)), max(1, round(whole.height * scale))
    left, top = (tile - size[0]) // 2, (tile - size[1]) // 2
    frame = Frame(scale, left, top, size)
    if size == (tile, tile) == whole.size:
        return whole, frame
    # A smaller image is shown pixel by pixel: blur would not be in the data.
    fitted = whole.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)
    mat = Image.new("RGB", (tile, tile), _MAT)
    mat.paste(fitted, (left, top))
    return mat, frame


def _text(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, ink: tuple[int, int, int], room: int
) -> None:
    font = font_of(size, text)
    draw.text(at, shortened(text, font, room), font=font, fill=ink)
