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
from headrace.image.moves import Cut, CutAroundCenters, InTurn, Mirror, Recolor, ScalePart, Stay, WithoutSmallBoxes
from headrace.image.native_changes import MOST_PIXELS, upside_down
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


class Erased(NamedTuple):
    """A part of the image that comes out, and the values that are put in its place."""

    part: Box
    values: Any

    def done_to(self, image: Image) -> None:
        """Put the values there."""
        top, left, rows, columns = self.part
        image[top : top + rows, left : left + columns] = self.values


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
    upended: bool = False
    """Whether the window is mirrored top to bottom."""
    fill: tuple[float, ...] | None = None
    """The value outside, for each channel; None where the window does not reach outside."""
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    maps: Warps | None = None
    ops: tuple[tuple[str, tuple[float, ...]], ...] = ()
    values: tuple[ChangeValues, ...] = ()
    erased: tuple[Erased, ...] = ()
    """What is put into the image last of all."""
    channels_first: bool = False

    @property
    def places_only(self) -> bool:
        """Whether values stay as they are."""
        return not (self.ops or self.values or self.erased or self.channels_first)

    @property
    def only_moves(self) -> bool:
        """Whether pixels are cut out, filled and mirrored, and nothing else."""
        return self.places_only and not self.maps and self.source[2:] == self.size

    @property
    def only_cuts_inside(self) -> bool:
        """Whether it is a part of the image."""
        return self.only_moves and self.fill is None and not (self.flipped or self.upended)


class Pending(np.ndarray[Any, np.dtype[Any]]):
    """An image with the shape and dtype that it will have, and what gives its pixels. Its own are not to be read."""

    base_image: Image
    program: Program
    mask_fill: float | None
    """The value outside, of a mask; None for an image."""
    stack: tuple[int, ...] | None
    """Which masks of a stack ``(N, H, W)`` come out; None for what is no stack."""

    def __getitem__(self, key: Any) -> Any:
        """Return a part of the image that is made."""
        return self.pixels()[key]

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """Compute with the image that is made."""
        return getattr(ufunc, method)(*map(done, inputs), **kwargs)

    def moved(self, move: Move) -> Image:
        """Return the image with a move noted, or done where it cannot be."""
        kind, stacked = type(move), self.stack is not None
        if kind in (Stay, WithoutSmallBoxes) or (kind is Recolor and self.mask_fill is not None):
            return self
        if kind is Recolor:
            return move.image(self)
        if kind is InTurn:
            image: Image = self
            for part in cast("InTurn", move).parts:
                image = move_pixels(part, image, self.mask_fill, stacked=stacked)
            return image
        program = self._with_move(move)
        if program is not None:
            return self._with(program)
        image, fill = self.pixels(), self.mask_fill
        if self.program != _whole(self._plane):
            return move_pixels(move, begun(image, fill, stacked=stacked), fill, stacked=stacked)
        # It can be noted after nothing: it cannot be noted.
        return begun(move_pixels(move, image, fill, stacked=stacked), fill, stacked=stacked)

    def chosen(self, keep: Any) -> Image:
        """Return some masks of a stack."""
        places = np.flatnonzero(keep).tolist()
        return _pending(
            self.base_image, self.program, self.mask_fill, tuple(cast("Any", self.stack)[place] for place in places)
        )

    def recolored(self, kind: str, numbers: tuple[float, ...]) -> Image | None:
        """Return the image with a change of its colors noted; None where it cannot be."""
        now = self.program
        if self.dtype != np.uint8 or now.channels_first or now.erased or self.mask_fill is not None:
            return None
        return self._with(now._replace(ops=(*now.ops, (kind, numbers))))

    @property
    def can_be_erased(self) -> bool:
        """Whether `erased` may be called."""
        return self.mask_fill is None and not self.program.channels_first

    def erased(self, part: Box, values: Any) -> Pending:
        """Return the image with values noted in the place of a part (top, left, height, width)."""
        now = self.program
        if np.ndim(values) < 2 and self.dtype == np.uint8 and not now.erased:
            ops = (*now.ops, ("erase", (*part, *np.broadcast_to(values, self.shape[2:]).tolist())))
            return self._with(now._replace(ops=ops))
        return self._with(now._replace(erased=(*now.erased, Erased(part, values))))

    def valued(self, values: tuple[ChangeValues, ...]) -> Image:
        """Return the image with other values noted."""
        now = self.program
        if now.values or now.erased or now.channels_first:
            image = self.pixels()
            for one in values:
                image = one.function(image)
            return image
        return self._with(now._replace(values=values))

    def with_channels_first(self) -> Image:
        """Return the image with its channels first."""
        return self._with(self.program._replace(channels_first=True))

    def pixels(self, out: Image | None = None) -> Image:
        """Return the image: do what was noted; in ``out``, which has its shape and dtype, where that is given."""
        if self.stack is not None:
            out = memory.empty(self.shape, self.dtype) if out is None else out
            for place, mask in zip(self.stack, out, strict=True):
                self._make(self.base_image[place], mask)
            return out
        made = self._make(self.base_image, out)
        for one in self.program.erased:
            one.done_to(np.moveaxis(made, 0, -1) if self.program.channels_first else made)
        return made

    @property
    def _plane(self) -> Image:
        """The image that the program is for."""
        return self.base_image if self.stack is None else self.base_image[0]

    def _with(self, program: Program) -> Pending:
        return _pending(self.base_image, program, self.mask_fill, self.stack)

    def _with_move(self, move: Move) -> Program | None:
        """Return the program with a move noted; None where it cannot be."""
        now, kind = self.program, type(move)
        if not now.places_only and (kind is not Warps or now.values or now.erased or now.channels_first):
            return None
        if kind is Warps:
            return self._warped(now, cast("Warps", move))
        if kind is Mirror:
            return _mirrored(now, upright=cast("Mirror", move).upright)
        if kind in (Cut, CutAroundCenters):
            return self._cut(now, cast("Cut", move))
        return self._scaled(now, cast("ScalePart", move)) if kind is ScalePart else None

    def _cut(self, now: Program, move: Cut) -> Program | None:
        """Return a program with a part cut out; None where pixels that were cut off would show again."""
        (height, width), (top, left, rows, columns) = now.window[2:], move.box
        fill, plane = now.fill, self._plane
        if self._is_large(rows, columns):
            return None
        if top < 0 or left < 0 or top + rows > height or left + columns > width:
            if move.mode != "constant":
                return None
            channels = plane.shape[2:]
            value = geometry.fill_of(move.fill if self.mask_fill is None else self.mask_fill, self.dtype, channels)
            fill = tuple(value.tolist()) if value.ndim else (value.item(),) * (channels or (1,))[0]
            if now.fill not in (None, fill):
                return None
        down = height - top - rows if now.upended else top
        across = width - left - columns if now.flipped else left
        window = now.window[0] + down, now.window[1] + across, rows, columns
        shown = _common(
            (now.shown[0] - top, now.shown[1] - left, now.shown[2] - top, now.shown[3] - left), rows, columns
        )
        program = now._replace(window=window, fill=fill, shown=shown)
        return program if shown == _mirrored_as(program, _visible(window, now.size)) else None

    def _scaled(self, now: Program, move: ScalePart) -> Program | None:
        """Return a program with a part of the image scaled; None where more than a cut was done to it."""
        (top, left, rows, columns), (height, width) = move.box, move.size
        if not now.only_cuts_inside or min(top, left) < 0 or min(rows, columns) < 1:
            return None
        if top + rows > now.window[2] or left + columns > now.window[3]:
            return None
        if self._is_large(height, width):
            return None
        part, whole = (now.window[0] + top, now.window[1] + left, rows, columns), (0, 0, height, width)
        if (rows, columns) == move.size:  # nothing is scaled
            return now._replace(window=part, shown=whole)
        return Program(part, move.size, whole, whole, interpolation=move.interpolation, antialias=move.antialias)

    def _warped(self, now: Program, move: Warps) -> Program | None:
        """Return a program with maps; None where the image was moved before, or the extension cannot map it."""
        nearest = move.interpolation == "nearest" or self.mask_fill is not None
        if not (nearest or self.dtype == np.uint8) or self._is_large(*move.size):
            return None
        if now == _whole(self._plane):
            return now._replace(size=move.size, window=(0, 0, *move.size), shown=(0, 0, *move.size), maps=move)
        first, *more = move.parts
        if more or self.mask_fill is not None or move.size != now.window[2:]:
            return None
        pixel = _pixel(first.fill, self._plane).tolist()
        return now._replace(ops=(*now.ops, ("warp", (*first.numbers[:9], move.interpolation == "bilinear", *pixel))))

    def _is_large(self, height: int, width: int) -> bool:
        """Say whether an image is too large for the extension."""
        return bool(height * width * self._plane[0, 0].nbytes >= MOST_PIXELS)

    def _make(self, image: Image, out: Image | None) -> Image:
        """Return what the program makes of an image, or of one mask."""
        now = self.program
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
        channels = image.shape[2]
        fill = (0,) * channels if now.fill is None else now.fill
        maps = now.maps
        fills = [] if maps is None else [_pixel(part.fill, image).tolist() for part in maps.parts]
        ops = [upside_down(now.window[2], channels), *now.ops] if now.upended else list(now.ops)
        made = _pipeline(now.values, channels, now.channels_first).drawn(
            image, out.view(np.uint8) if out.dtype.itemsize > 1 else out,
            list(now.source), now.size, list(now.window), now.flipped, [int(one) for one in fill],
            now.interpolation, now.antialias,
            [] if maps is None else [list(part.numbers) for part in maps.parts], fills,
            maps is not None and maps.interpolation == "nearest", ops,
        )  # fmt: skip
        assert made, "a window inside of what it is cut from"  # noqa: S101  the program is checked as it is noted
        return out


def move_pixels(move: Move, image: Image, mask_fill: float | None = None, *, stacked: bool = False) -> Image:
    """Do a move to an image, or to a mask or a stack of masks ``(N, H, W)``, or note it.

    >>> move_pixels(Mirror((1, 2)), np.array([[1, 2]]))
    array([[2, 1]])
    """
    if isinstance(image, Pending):
        return image.moved(move)
    if mask_fill is None:
        return move.image(image)
    if not stacked:
        return move.mask(image, mask_fill)
    masks = [move.mask(one, mask_fill) for one in image]
    return np.stack(masks) if masks else np.zeros((0, *move.size), image.dtype)


def begun(image: Image, mask_fill: float | None = None, *, stacked: bool = False) -> Image:
    """Return an image, a mask, or a stack of masks, whose changes are noted; itself where they cannot be.

    >>> begun(np.zeros((1, 1, 3), np.float32)).dtype
    dtype('float32')
    """
    if type(image) is not np.ndarray or not ABLE or not LEAST_BYTES <= image.nbytes < MOST_PIXELS:
        return image
    if not image.flags.c_contiguous or not image.size:
        return image
    if mask_fill is None:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3, 4):
            return image
    elif image.dtype.kind not in "biuf" or image.ndim not in ((3,) if stacked else (2, 3)):
        return image
    if not stacked:
        return _pending(image, _whole(image), mask_fill)
    return _pending(image, _whole(image[0]), mask_fill, tuple(range(len(image))))


def done(image: Any) -> Any:
    """Return an image with what was noted done.

    >>> done("no image")
    'no image'
    """
    return image.pixels() if isinstance(image, Pending) else image


def _pending(image: Image, program: Program, mask_fill: float | None, stack: tuple[int, ...] | None = None) -> Pending:
    dtype = program.values[-1].dtype if program.values else image.dtype
    channels = image.shape[2:] if stack is None else ()
    shape = _shape(program, *channels) if stack is None else (len(stack), *_shape(program))
    pixels = _NO_PIXELS if dtype.itemsize == 1 else np.zeros(1, dtype)
    made: Pending = np.ndarray.__new__(Pending, shape, dtype, pixels, 0, (0,) * len(shape))
    made.base_image, made.program, made.mask_fill, made.stack = image, program, mask_fill, stack
    return made


def _shape(program: Program, *channels: int) -> tuple[int, ...]:
    size = program.window[2:]
    return (*channels, *size) if program.channels_first else (*size, *channels)


def _whole(image: Image) -> Program:
    height, width = image.shape[:2]
    return Program((0, 0, height, width), (height, width), (0, 0, height, width), (0, 0, height, width))


def _mirrored(now: Program, *, upright: bool) -> Program:
    """Return a program with the window mirrored, left to right or (``upright`` False) top to bottom."""
    mirror = Program(*now[:4], flipped=upright, upended=not upright)
    flipped, upended = now.flipped != mirror.flipped, now.upended != mirror.upended
    return now._replace(flipped=flipped, upended=upended, shown=_mirrored_as(mirror, now.shown))


def _mirrored_as(program: Program, shown: Box) -> Box:
    """Return (top, left, bottom, right) of a window, mirrored as the window is."""
    (top, left, bottom, right), (height, width) = shown, program.window[2:]
    if program.upended:
        top, bottom = height - bottom, height - top
    return (top, width - right, bottom, width - left) if program.flipped else (top, left, bottom, right)


def _common(shown: Box, height: int, width: int) -> Box:
    """Return what (top, left, bottom, right) has in common with an image."""
    top, left = min(max(shown[0], 0), height), min(max(shown[1], 0), width)
    bottom, right = max(min(shown[2], height), top), max(min(shown[3], width), left)
    return top, left, bottom, right


def _visible(window: Box, size: tuple[int, int]) -> Box:
    """Return what a window shows of an image, as (top, left, bottom, right) of the window."""
    top, left, rows, columns = window
    return _common((-top, -left, size[0] - top, size[1] - left), rows, columns)


def _moved(image: Image, now: Program, mask_fill: float | None) -> Image:
    """Return a window of an image, mirrored or not."""
    fill = now.fill or (0,)
    value: Fill = fill[0] if image.ndim == 2 or mask_fill is not None else fill if len(fill) > 1 else fill[0]
    part = geometry.crop(image, *now.window, fill=value)
    if now.upended:
        part = part[::-1]
    if not now.flipped:
        return np.ascontiguousarray(part) if now.upended else part
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
    if now.upended:
        out[...] = out[::-1].copy()


def _scaled_mask(mask: Image, now: Program) -> Image:
    """Return a window of a mask that is scaled."""
    top, left, rows, columns = now.source
    first, start, last, stop = _mirrored_as(now, now.shown)
    height, width = now.size
    down = geometry.nearest_places(rows, height)[now.window[0] + first : now.window[0] + last]
    across = geometry.nearest_places(columns, width)[now.window[1] + start : now.window[1] + stop]
    part = mask.take(top + down, axis=0).take(left + across, axis=1)
    if now.fill is not None:
        outer = np.empty((*now.window[2:], *mask.shape[2:]), mask.dtype)
        outer[...] = np.array(now.fill[0]).astype(mask.dtype)
        outer[first:last, start:stop] = part
        part = outer
    return np.ascontiguousarray(part[:: -1 if now.upended else 1, :: -1 if now.flipped else 1])


def _pixel(fill: Fill, image: Image) -> Image:
    """Return a fill as a pixel of an image."""
    return np.full(image.shape[2:], geometry.fill_of(fill, image.dtype, image.shape[2:]), image.dtype)


@lru_cache(maxsize=64)
def _pipeline(values: tuple[ChangeValues, ...], channels: int, channels_first: bool) -> Any:
    """Return the extension's object that makes values of bytes."""
    return pipeline_of(Recipe((), 1, 1, channels, channels_first=channels_first, values=values))
