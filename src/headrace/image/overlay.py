"""What is drawn on an image: masks, boxes with names, keypoints, curves, the outline of a crop."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from typing import TypeAlias

    from numpy.typing import NDArray
    from PIL import Image, ImageDraw, ImageFont

    Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont
    Points: TypeAlias = NDArray[np.float64]

Color = tuple[int, int, int]

COLORS: tuple[Color, ...] = (
    (230, 97, 1),
    (94, 60, 153),
    (26, 152, 80),
    (214, 39, 120),
    (253, 184, 99),
    (44, 123, 182),
    (166, 54, 3),
    (128, 205, 193),
    (118, 42, 131),
    (166, 217, 106),
    (1, 102, 94),
    (244, 165, 196),
)
"""Colors of classes, apart in lightness too; of more classes, they repeat."""
MARK: Color = (255, 214, 0)
INK: Color = (28, 32, 38)
IGNORED: Color = (150, 150, 150)

FINER = 3
"""Lines are drawn so many times as large and made smaller: they become smooth."""

_WIDE_FONTS = ("DejaVuSans.ttf", "Arial Unicode.ttf", "Arial.ttf")


@dataclass(frozen=True, slots=True)
class Overlay:
    """What is drawn on one image. Places are in pixels of the image, from its top left corner."""

    mask: NDArray[Any] | None = None
    """(H, W) class numbers; 0 is the background, which stays as it is."""
    ignored: int | None = None
    """A value of the mask that is shown in gray."""
    masks: NDArray[Any] | None = None
    """(N, H, W), one for each object."""
    boxes: Points = field(default_factory=lambda: np.zeros((0, 4)))
    """(N, 4), corners."""
    classes: tuple[int, ...] = ()
    """The class of each box or of each of the ``masks``, which gives the color."""
    names: tuple[str, ...] = ()
    """What is written at each box."""
    points: tuple[Points, ...] = ()
    """Keypoints of each object, (K, 2) or (K, 3) of x, y and visibility; those of visibility 0 are left out."""
    curves: tuple[Points, ...] = ()
    """Lines through points, (K, 2)."""
    outline: tuple[float, float, float, float] | None = None
    """The part that a crop keeps: top, left, height, width."""


NOTHING = Overlay()


class Frame(NamedTuple):
    """Where an image lies on a canvas."""

    scale: float
    left: float
    top: float
    size: tuple[int, int]
    """Width and height on the canvas."""

    def at(self, points: Any) -> Points:
        """Return points (..., 2) of the image on the canvas."""
        return np.asarray(points, np.float64) * self.scale + (self.left, self.top)


def class_color(number: int) -> Color:
    """Return the color of a class, in masks and of boxes; class 0 of a mask is the background and has none.

    >>> class_color(1) == class_color(1 + len(COLORS)) == COLORS[0]
    True
    """
    return COLORS[(number - 1) % len(COLORS)]


def ellipse(major: float, minor: float, angle: float, x: float, y: float) -> Points:
    """Return the points of an ellipse: radii in pixels, the angle in radians from the x axis towards y, the center.

    >>> ellipse(4, 2, 0, 10, 10)[0].tolist()
    [14.0, 10.0]
    """
    turn = np.linspace(0, 2 * np.pi, 181)
    along, across = major * np.cos(turn), minor * np.sin(turn)
    xs = x + along * np.cos(angle) - across * np.sin(angle)
    return np.stack([xs, y + along * np.sin(angle) + across * np.cos(angle)], axis=1)


def overlaid(canvas: Image.Image, frame: Frame, overlay: Overlay) -> Image.Image:
    """Return a canvas, on which an image lies already, with an overlay drawn on the image.

    >>> from PIL import Image
    >>> canvas = Image.new("RGB", (40, 40))
    >>> overlay = Overlay(boxes=np.array([[2.0, 2, 8, 8]]))
    >>> overlaid(canvas, Frame(4, 0, 0, (40, 40)), overlay).getpixel((8, 20)) == class_color(1)
    True
    """
    from PIL import Image, ImageDraw

    if overlay is NOTHING:
        return canvas
    canvas = _tinted(canvas, frame, overlay)
    layer = Image.new("RGBA", (canvas.width * FINER, canvas.height * FINER))
    draw = ImageDraw.Draw(layer)
    stroke = 3 if min(frame.size) > 300 else 2
    for number, box in enumerate(overlay.boxes):
        _rectangle(draw, frame, box, _class_of(overlay, number), stroke)
    for curve in overlay.curves:
        _line(draw, frame.at(curve), MARK, stroke)
    for number, points in enumerate(overlay.points):
        color = class_color(number + 1) if len(overlay.points) > 1 else MARK
        _dots(draw, frame, points, color, stroke + 1.5)
    if overlay.outline is not None:
        top, left, height, width = overlay.outline
        _rectangle(draw, frame, (left, top, left + width, top + height), MARK, stroke)
    shapes = layer.resize(canvas.size, Image.Resampling.BOX)
    canvas = Image.alpha_composite(canvas.convert("RGBA"), shapes).convert("RGB")
    _write_names(ImageDraw.Draw(canvas), frame, overlay, 14 if min(frame.size) > 300 else 12)
    return canvas


def _class_of(overlay: Overlay, number: int) -> Color:
    return class_color(overlay.classes[number] if number < len(overlay.classes) else number + 1)


def _tinted(canvas: Image.Image, frame: Frame, overlay: Overlay) -> Image.Image:
    """Color the image where its masks are not 0: half in the class's color, edges in full."""
    from PIL import Image

    pixels = np.array(canvas)
    left, top = round(frame.left), round(frame.top)
    part = pixels[top : top + frame.size[1], left : left + frame.size[0]]
    if overlay.mask is not None:
        numbers = _scaled(overlay.mask, part)
        table = np.array(COLORS, np.uint8)[(numbers - 1) % len(COLORS)]
        table[numbers == (0 if overlay.ignored is None else overlay.ignored)] = IGNORED
        part[:] = _blend(part, numbers, table)
    for number, mask in enumerate(() if overlay.masks is None else overlay.masks):
        inside = _scaled(mask, part)
        part[:] = _blend(part, (inside != 0).astype(np.int64), np.array(_class_of(overlay, number), np.uint8))
    return Image.fromarray(pixels)


def _scaled(mask: NDArray[Any], part: NDArray[Any]) -> NDArray[np.int64]:
    rows = np.arange(part.shape[0]) * mask.shape[0] // max(part.shape[0], 1)
    columns = np.arange(part.shape[1]) * mask.shape[1] // max(part.shape[1], 1)
    scaled: NDArray[np.int64] = mask[rows][:, columns].astype(np.int64)
    return scaled


def _blend(part: NDArray[np.uint8], numbers: NDArray[np.int64], colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    edge = np.zeros(numbers.shape, bool)
    edge[:, 1:] |= numbers[:, 1:] != numbers[:, :-1]
    edge[1:] |= numbers[1:] != numbers[:-1]
    seen = (numbers != 0)[..., np.newaxis]
    mixed = np.where(edge[..., np.newaxis], colors, part // 2 + colors // 2)
    return np.where(seen, mixed, part).astype(np.uint8)


def _rectangle(draw: ImageDraw.ImageDraw, frame: Frame, box: Any, color: Color, stroke: int) -> None:
    """Outline a box; what lies beyond the canvas is drawn along its edge."""
    x0, y0, x1, y1 = box
    size = np.array(draw.im.size) / FINER
    corners = frame.at([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]).clip(stroke / 2 + 1, size - stroke / 2 - 1)
    _line(draw, np.concatenate([corners, corners[:2]]), color, stroke)


def _line(draw: ImageDraw.ImageDraw, points: Points, color: Color, stroke: int) -> None:
    """Draw a line with an edge, visible on any image."""
    path = [(x * FINER, y * FINER) for x, y in points.tolist()]
    draw.line(path, fill=(*INK, 150), width=(stroke + 2) * FINER, joint="curve")
    draw.line(path, fill=color, width=stroke * FINER, joint="curve")


def _dots(draw: ImageDraw.ImageDraw, frame: Frame, points: Points, color: Color, radius: float) -> None:
    """Draw keypoints; one that is labeled and not visible (1) as a ring."""
    for x, y, *seen in points.tolist():
        if seen and not seen[0]:
            continue
        (across, down), around = (frame.at((x + 0.5, y + 0.5)) * FINER).tolist(), radius * FINER
        disk = across - around, down - around, across + around, down + around
        hollow = bool(seen) and seen[0] == 1
        draw.ellipse(disk, fill=None if hollow else color, outline=color if hollow else INK, width=FINER * (1 + hollow))


def _write_names(draw: ImageDraw.ImageDraw, frame: Frame, overlay: Overlay, size: int) -> None:
    """Write each box's name on its color where no other name is: above the box, inside, or below."""
    taken: list[tuple[float, float, float, float]] = []
    across = draw.im.size[0]
    for number, (box, name) in enumerate(zip(overlay.boxes, overlay.names, strict=False)):
        font = font_of(size, name)
        room = min(across, max(frame.size[0] / 2, frame.scale * (box[2] - box[0]), 6 * size))
        text = shortened(name, font, room - 8)
        if not text:
            continue
        width, height = font.getlength(text) + 7, size + 5
        (x0, y0), (x1, y1) = frame.at(box.reshape(2, 2)).tolist()
        # Within the image, or where that is narrower than the name, around its middle.
        low = max(0.0, min(frame.left, frame.left + (frame.size[0] - width) / 2))
        high = min(max(low, frame.left + frame.size[0] - width), across - width)
        left, right = min(max(x0, low), high), min(max(x1 - width, low), high)
        tops = y0 - height, y0, y1 - height, y1, y0 + height, y1 - 2 * height
        places = [(x, min(max(y, frame.top), frame.top + frame.size[1] - height)) for y in tops for x in (left, right)]
        at = next((at for at in places if not any(_meet((*at, width, height), other) for other in taken)), places[0])
        taken.append((*at, width, height))
        color = _class_of(overlay, number)
        draw.rounded_rectangle((at[0], at[1], at[0] + width, at[1] + height), radius=3, fill=color)
        bright = 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 140
        ink = INK if bright else (255, 255, 255)
        draw.text((at[0] + 4, at[1] + height / 2), text, font=font, fill=ink, anchor="lm")


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    apart = (
        one[0] >= other[0] + other[2]
        or other[0] >= one[0] + one[2]
        or one[1] >= other[1] + other[3]
        or other[1] >= one[1] + one[3]
    )
    return not apart


def shortened(text: str, font: Font, room: float) -> str:
    """Return a text with its middle left out if it is too long: both ends of a file's name matter.

    >>> shortened("a long name", font_of(12), 400)
    'a long name'
    """

    def without(left_out: int) -> str:
        keep = len(text) - left_out
        return f"{text[: (keep + 1) // 2]}…{text[len(text) - keep // 2 :]}" if left_out else text

    left_out = bisect_left(range(len(text)), 1, key=lambda number: int(font.getlength(without(number)) <= room))
    return without(left_out)


def font_of(size: int, text: str = "") -> Font:
    """Return Pillow's own font for ASCII; for other text a common font of the system, if there is one."""
    from PIL import ImageFont

    if not text.isascii():
        for name in _WIDE_FONTS:
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue
    return ImageFont.load_default(size)
