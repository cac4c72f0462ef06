"""Images and masks whose changes are noted, and done together by the native extension when the pixels are asked for.

The transforms of a sample draw and check as ever, on arrays that have shape and dtype and no pixels. What each would
do to the pixels is noted. At the end one call scales or resamples, cuts, mirrors, changes colors and makes the values:
only of the pixels that come out. The bytes are those of the transforms one by one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from headrace._native import extension
from headrace.context import memory
from headrace.image import geometry
from headrace.image.fused import Recipe, pipeline_of
from headrace.image.moves import Cut, CutAroundCenters, InTurn, Mirror, ScalePart, Stay, WithoutSmallBoxes
from headrace.image.native_changes import MOST_PIXELS
from headrace.image.warp import Warps

if TYPE_CHECKING:
    from headrace.image.geometry import Box, Fill, Image, Interpolation
    from headrace.image.moves import Move
    from headrace.image.native_steps import ChangeValues

ABLE = extension is not None and hasattr(extension.Pipeline, "drawn")
"""Whether the extension is there, and was built from sources that can do this."""

LEAST_BYTES = 1 << 14
"""Smaller images are changed step by step: noting would take longer."""

_NO_PIXELS = np.zeros(1, np.uint8)


class Program(NamedTuple):
    """What is done to the pixels: a part is scaled, or all resampled for maps; a window is cut out; values change."""

    source: Box
    size: tuple[int, int]
    """Height and width that the part is scaled to; with maps, of the last image."""
    window: Box
    """The part of that which comes out, before it is mirrored; it may reach outside."""
    shown: Box
    """What the window shows of the image, as (top, left, bottom, right) of the window mirrored."""
    flipped: bool = False
    fill: tuple[float, ...] | None = None
    """The value outside, for each channel; None where the window does not reach outside."""
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    maps: Warps | None = None
    ops: tuple[tuple[str, tuple[float, ...]], ...] = ()
    values: tuple[ChangeValues, ...] = ()
    channels_first: bool = False

    @property
    def only_moves(self) -> bool:
        """Whether pixels are cut out, filled and mirrored, and nothing else."""
        scaled = self.source[2:] != self.size
        return not (scaled or self.maps or self.ops or self.values or self.channels_first)

    @property
    def only_cuts_inside(self) -> bool:
        """Whether it is a part of the image."""
        return self.only_moves and self.fill is None and not self.flipped


class Pending(np.ndarray[Any, np.dtype[Any]]):
    """An image with the shape and dtype that it will have, and what gives its pixels. Its own are not to be read."""

    base_image: Image
    program: Program
    mask_fill: float | None
    """The value outside, of a mask; None for an image."""

    def moved(self, move: Move) -> Image:
        """Return the image with a move noted, or done where it cannot be."""
        kind = type(move)
        if kind in (Stay, WithoutSmallBoxes):
            return self
        if kind is InTurn:
            image: Image = self
            for part in cast("InTurn", move).parts:
                image = move_pixels(part, image, self.mask_fill)
            return image
        now = self.program
        program = None
        if not (now.ops or now.values or now.channels_first):
            if kind is Mirror and cast("Mirror", move).upright:
                program = _mirrored(now)
            elif kind in (Cut, CutAroundCenters):
                program = self._cut(now, cast("Cut", move))
            elif kind is ScalePart:
                program = self._scaled(now, cast("ScalePart", move))
            elif kind is Warps:
                program = self._warped(now, cast("Warps", move))
        if program is not None:
            return _pending(self.base_image, program, self.mask_fill)
        image = self.pixels()
        if now != _whole(self.base_image):
            return move_pixels(move, begun(image, self.mask_fill), self.mask_fill)
        # It can be noted after nothing: it cannot be noted.
        return begun(move_pixels(move, image, self.mask_fill), self.mask_fill)

    def _cut(self, now: Program, move: Cut) -> Program | None:
        """Return a program with a part cut out; None where pixels that were cut off would show again."""
        (height, width), (top, left, rows, columns) = now.window[2:], move.box
        fill = now.fill
        if rows * columns * self.base_image[0, 0].nbytes >= MOST_PIXELS:
            return None
        if top < 0 or left < 0 or top + rows > height or left + columns > width:
            if move.mode != "constant":
                return None
            channels = self.base_image.shape[2:]
            value = geometry.fill_of(move.fill if self.mask_fill is None else self.mask_fill, self.dtype, channels)
            fill = tuple(value.tolist()) if value.ndim else (value.item(),) * (channels or (1,))[0]
            if now.fill not in (None, fill):
                return None
        across = now.window[3] - left - columns if now.flipped else left
        window = now.window[0] + top, now.window[1] + across, rows, columns
        shown = _common(
            (now.shown[0] - top, now.shown[1] - left, now.shown[2] - top, now.shown[3] - left), rows, columns
        )
        if shown != _visible(window, now.size, flipped=now.flipped):
            return None
        return now._replace(window=window, fill=fill, shown=shown)

    def _scaled(self, now: Program, move: ScalePart) -> Program | None:
        """Return a program with a part of the image scaled; None where more than a cut was done to it."""
        (top, left, rows, columns), (height, width) = move.box, move.size
        if not now.only_cuts_inside or min(top, left) < 0 or min(rows, columns) < 1:
            return None
        if top + rows > now.window[2] or left + columns > now.window[3]:
            return None
        if height * width * self.base_image[0, 0].nbytes >= MOST_PIXELS:
            return None
        part, whole = (now.window[0] + top, now.window[1] + left, rows, columns), (0, 0, height, width)
        if (rows, columns) == move.size:  # nothing is scaled
            return now._replace(window=part, shown=whole)
        return Program(part, move.size, whole, whole, interpolation=move.interpolation, antialias=move.antialias)

    def _warped(self, now: Program, move: Warps) -> Program | None:
        """Return a program with maps; None where the image was moved before, or the extension cannot map it."""
        image, height, width = self.base_image, *move.size
        if now != _whole(image):
            return None
        nearest = move.interpolation == "nearest" or self.mask_fill is not None
        able = nearest or image.dtype == np.uint8
        if not able or height * width * image[0, 0].nbytes >= MOST_PIXELS:
            return None
        return now._replace(size=move.size, window=(0, 0, *move.size), shown=(0, 0, *move.size), maps=move)

    def recolored(self, kind: str, numbers: tuple[float, ...]) -> Image | None:
        """Return the image with a change of its colors noted; None where it cannot be."""
        if self.dtype != np.uint8 or self.program.channels_first or self.mask_fill is not None:
            return None
        ops = (*self.program.ops, (kind, numbers))
        return _pending(self.base_image, self.program._replace(ops=ops), self.mask_fill)

    def valued(self, values: tuple[ChangeValues, ...]) -> Image:
        """Return the image with other values noted."""
        if self.program.values or self.program.channels_first:
            image = self.pixels()
            for one in values:
                image = one.function(image)
            return image
        return _pending(self.base_image, self.program._replace(values=values), self.mask_fill)

    def with_channels_first(self) -> Image:
        """Return the image with its channels first."""
        return _pending(self.base_image, self.program._replace(channels_first=True), self.mask_fill)

    def pixels(self, out: Image | None = None) -> Image:
        """Return the image: do what was noted; in ``out``, which has its shape and dtype, where that is given."""
        now, image = self.program, self.base_image
        if now.only_moves or (self.mask_fill is not None and now.maps is None):
            made = _moved(image, now, self.mask_fill) if now.only_moves else _scaled_mask(image, now)
            if out is None:
                return made
            out[...] = made
            return out
        if out is None:
            out = memory.empty(self.shape, self.dtype)
        if self.mask_fill is not None:
            _warp_mask(image, now, self.mask_fill, out)
            return out
        fill = (0,) * image.shape[2] if now.fill is None else now.fill
        maps = now.maps
        fills = [] if maps is None else [_pixel(part.fill, image).tolist() for part in maps.parts]
        made = _pipeline(now.values, image.shape[2], now.channels_first).drawn(
            image, out.view(np.uint8) if out.dtype.itemsize > 1 else out,
            list(now.source), now.size, list(now.window), now.flipped, [int(one) for one in fill],
            now.interpolation, now.antialias,
            [] if maps is None else [list(part.numbers) for part in maps.parts], fills,
            maps is not None and maps.interpolation == "nearest", list(now.ops),
        )  # fmt: skip
        assert made, "a window inside of what it is cut from"  # noqa: S101  the program is checked as it is noted
        return out


def move_pixels(move: Move, image: Image, mask_fill: float | None = None) -> Image:
    """Do a move to an image, or to a mask, or note it.

    >>> move_pixels(Mirror((1, 2)), np.array([[1, 2]]))
    array([[2, 1]])
    """
    if isinstance(image, Pending):
        return image.moved(move)
    return move.image(image) if mask_fill is None else move.mask(image, mask_fill)


def begun(image: Image, mask_fill: float | None = None) -> Image:
    """Return an image, or a mask, whose changes are noted; itself where they cannot be.

    >>> begun(np.zeros((1, 1, 3), np.float32)).dtype
    dtype('float32')
    """
    if type(image) is not np.ndarray or not ABLE or not LEAST_BYTES <= image.nbytes < MOST_PIXELS:
        return image
    if not image.flags.c_contiguous:
        return image
    if mask_fill is None:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3, 4):
            return image
    elif image.dtype.kind not in "biuf" or image.ndim not in (2, 3):
        return image
    return _pending(image, _whole(image), mask_fill)


def done(image: Any) -> Any:
    """Return an image with what was noted done.

    >>> done("no image")
    'no image'
    """
    return image.pixels() if isinstance(image, Pending) else image


def _pending(image: Image, program: Program, mask_fill: float | None) -> Pending:
    dtype = program.values[-1].dtype if program.values else image.dtype
    shape = _shape(program, *image.shape[2:])
    pixels = _NO_PIXELS if dtype.itemsize == 1 else np.zeros(1, dtype)
    made: Pending = np.ndarray.__new__(Pending, shape, dtype, pixels, 0, (0,) * len(shape))
    made.base_image, made.program, made.mask_fill = image, program, mask_fill
    return made


def _shape(program: Program, *channels: int) -> tuple[int, ...]:
    size = program.window[2:]
    return (*channels, *size) if program.channels_first else (*size, *channels)


def _whole(image: Image) -> Program:
    height, width = image.shape[:2]
    return Program((0, 0, height, width), (height, width), (0, 0, height, width), (0, 0, height, width))


def _mirrored(now: Program) -> Program:
    top, left, bottom, right = now.shown
    width = now.window[3]
    return now._replace(flipped=not now.flipped, shown=(top, width - right, bottom, width - left))


def _common(shown: Box, height: int, width: int) -> Box:
    """Return what (top, left, bottom, right) has in common with an image."""
    top, left = min(max(shown[0], 0), height), min(max(shown[1], 0), width)
    bottom, right = max(min(shown[2], height), top), max(min(shown[3], width), left)
    return top, left, bottom, right


def _visible(window: Box, size: tuple[int, int], *, flipped: bool) -> Box:
    """Return what a window shows of an image, as (top, left, bottom, right) of the window."""
    top, left, rows, columns = window
    shown = _common((-top, -left, size[0] - top, size[1] - left), rows, columns)
    return (shown[0], columns - shown[3], shown[2], columns - shown[1]) if flipped else shown


def _moved(image: Image, now: Program, mask_fill: float | None) -> Image:
    """Return a window of an image, mirrored or not."""
    fill = now.fill or (0,)
    value: Fill = fill[0] if image.ndim == 2 or mask_fill is not None else fill if len(fill) > 1 else fill[0]
    part = geometry.crop(image, *now.window, fill=value)
    if not now.flipped:
        return part
    return geometry.flip(part) if mask_fill is None else np.ascontiguousarray(part[:, ::-1])


def _warp_mask(mask: Image, now: Program, fill: float, out: Image) -> None:
    """Write a window of a mask that is resampled: each value from the pixel at its place."""
    assert now.maps is not None  # noqa: S101  for the type checker
    flat = mask.reshape(*mask.shape[:2], -1)
    bytes_of = flat.view(np.uint8).reshape(*flat.shape[:2], -1)
    value = _pixel(fill, flat).view(np.uint8)
    numbers = [list(part.numbers) for part in now.maps.parts]
    fills = np.repeat(value[np.newaxis], len(numbers), axis=0)
    cast("Any", extension).warped(
        bytes_of,
        out.view(np.uint8).reshape(*now.window[2:], -1),
        numbers,
        fills,
        nearest=True,
        window=list(now.window),
        flipped=now.flipped,
        outside=value[np.newaxis],
    )


def _scaled_mask(mask: Image, now: Program) -> Image:
    """Return a window of a mask that is scaled."""
    top, left, rows, columns = now.source
    first, start, last, stop = now.shown
    if now.flipped:
        start, stop = now.window[3] - stop, now.window[3] - start
    height, width = now.size
    down = geometry.nearest_places(rows, height)[now.window[0] + first : now.window[0] + last]
    across = geometry.nearest_places(columns, width)[now.window[1] + start : now.window[1] + stop]
    part = mask.take(top + down, axis=0).take(left + across, axis=1)
    if now.fill is not None:
        outer = np.empty((*now.window[2:], *mask.shape[2:]), mask.dtype)
        outer[...] = np.array(now.fill[0]).astype(mask.dtype)
        outer[first:last, start:stop] = part
        part = outer
    return np.ascontiguousarray(part[:, ::-1]) if now.flipped else part


def _pixel(fill: Fill, image: Image) -> Image:
    """Return a fill as a pixel of an image."""
    return np.full(image.shape[2:], geometry.fill_of(fill, image.dtype, image.shape[2:]), image.dtype)


@lru_cache(maxsize=64)
def _pipeline(values: tuple[ChangeValues, ...], channels: int, channels_first: bool) -> Any:
    """Return the extension's object that makes values of bytes."""
    return pipeline_of(Recipe((), 1, 1, channels, channels_first=channels_first, values=values))
