"""Scale, crop, pad and mirror images: pure functions of arrays ``(H, W)`` or ``(H, W, C)``.

The result may share memory with the argument (a crop is a view), so write into neither.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from headrace.context import memory
from headrace.errors import ArgumentError, MissingDependency, missing
from headrace.interop.interrupt import held_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    import numpy.typing as npt

    Image = npt.NDArray[Any]
    Indices = npt.NDArray[np.intp]

Box = tuple[int, int, int, int]
"""Part of an image: top, left, height, width, in pixels."""

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box"]
"""How `resize` weighs neighboring pixels; the last two with antialiasing only."""

PadMode = Literal["constant", "edge", "reflect", "symmetric"]
"""The pixels outside an image, by NumPy's names; ``reflect`` is REFLECT of TensorFlow's mirror-pad."""

Fill = float | tuple[float, ...]
"""The value outside an image for mode ``constant``: one number, or one for each channel."""

INTERPOLATIONS: tuple[Interpolation, ...] = ("nearest", "bilinear", "bicubic", "lanczos", "box")
PAD_MODES: tuple[PadMode, ...] = ("constant", "edge", "reflect", "symmetric")

_OPENCV_FLAGS = {"nearest": "INTER_NEAREST", "bilinear": "INTER_LINEAR", "bicubic": "INTER_CUBIC"}
_RESIZABLE = frozenset(np.dtype(name) for name in ("uint8", "uint16", "float16", "float32", "float64"))


def resize(
    image: Image,
    height: int,
    width: int,
    *,
    interpolation: Interpolation = "bilinear",
    antialias: bool = True,
    box: Box | None = None,
) -> Image:
    """Scale an image, or the part of it in ``box``, to a height and a width.

    >>> resize(np.array([[0, 100], [100, 200]], np.uint8), 1, 1)
    array([[100]], dtype=uint8)

    With ``antialias``, the pixels are those of Pillow's ``Image.resize``. uint8 is exact, by channel, alpha included;
    uint16 and floats go through Pillow's 32-bit floating point mode. Without ``antialias``, they are those of OpenCV's
    ``cv2.resize``. Pixels outside the box have no influence. An image that has the size already is returned as it is.

    Raises ArgumentError for a dtype that the library cannot scale; ``nearest`` with ``antialias`` takes any.
    """
    top, left, rows, columns = box or (0, 0, *image.shape[:2])
    if (rows, columns) == (height, width):
        return image if (rows, columns) == image.shape[:2] else crop(image, *box or (0, 0, rows, columns))
    if not antialias:
        return _opencv_resize(crop(image, top, left, rows, columns), height, width, interpolation)
    if interpolation == "nearest":
        part = crop(image, top, left, rows, columns)
        return part.take(nearest_places(rows, height), axis=0).take(nearest_places(columns, width), axis=1)
    if image.dtype == np.uint8 and (image.ndim == 2 or image.shape[2] in (1, 3)):
        return _pillow_resize_uint8(image, (top, left, rows, columns), height, width, interpolation)
    part = crop(image, top, left, rows, columns)
    if part.ndim == 3:
        return _by_channel(part, lambda plane: resize(plane, height, width, interpolation=interpolation))
    return _pillow_resize_float(part, height, width, interpolation)


def shrink_for(box: Box, height: int, width: int) -> int:
    """Return how many times smaller an image may be decoded, if its part ``box`` is then scaled to a size.

    >>> shrink_for((0, 0, 3000, 4000), 224, 224), shrink_for((10, 10, 300, 500), 224, 224)
    (8, 1)
    """
    return next(n for n in (8, 4, 2, 1) if n == 1 or (box[2] >= n * height and box[3] >= n * width))


def resize_shrunk(image: Image, shrink: int, box: Box, height: int, width: int, interpolation: Interpolation) -> Image:
    """Scale the part ``box`` of an image that was decoded ``shrink`` times smaller, antialiased.

    >>> resize_shrunk(np.full((4, 4), 7, np.uint8), 2, (1, 0, 6, 8), 1, 1, "bilinear")
    array([[7]], dtype=uint8)

    ``box`` is in pixels of the full image. Pixels outside it have no influence, but those cut by its edge do.
    """
    top, left, rows, columns = box
    first, start = top // shrink, left // shrink
    part = image[first : -(-(top + rows) // shrink), start : -(-(left + columns) // shrink)]
    inside = (
        left / shrink - start, top / shrink - first, (left + columns) / shrink - start, (top + rows) / shrink - first
    )  # fmt: skip
    library = _pillow()
    pillow_image = library.fromarray(np.ascontiguousarray(part))
    resized = pillow_image.resize((width, height), getattr(library.Resampling, interpolation.upper()), box=inside)
    return np.array(resized).reshape(height, width, *image.shape[2:])


def crop(
    image: Image, top: int, left: int, height: int, width: int, *, mode: PadMode = "constant", fill: Fill = 0
) -> Image:
    """Cut a box out of an image; ``mode`` says which pixels fill it outside the image.

    >>> crop(np.array([[1, 2], [3, 4]]), -1, 0, 2, 3)
    array([[0, 0, 0],
           [1, 2, 0]])

    A box that lies inside gives a view. Modes as for ``numpy.pad``.

    Raises ArgumentError where ``reflect`` or ``symmetric`` would need more pixels than there are, and where ``fill`` is
    not a value of the image's dtype.
    """
    rows, columns = image.shape[:2]
    if top >= 0 and left >= 0 and top + height <= rows and left + width <= columns:
        return image[top : top + height, left : left + width]
    if mode != "constant":
        for length, start, stop in ((rows, top, top + height), (columns, left, left + width)):
            check_reach(length, -start, stop - length, mode)
        row_of, column_of = _outside(top, height, rows, mode), _outside(left, width, columns, mode)
        return image.take(row_of, axis=0).take(column_of, axis=1)
    outer = np.empty((height, width, *image.shape[2:]), image.dtype)
    outer[...] = fill_of(fill, image.dtype, image.shape[2:])
    first, last = max(top, 0), min(top + height, rows)
    start, stop = max(left, 0), min(left + width, columns)
    if first < last and start < stop:
        outer[first - top : last - top, start - left : stop - left] = image[first:last, start:stop]
    return outer


def pad(
    image: Image, left: int, top: int, right: int, bottom: int, *, mode: PadMode = "constant", fill: Fill = 0
) -> Image:
    """Widen an image on its four sides.

    >>> pad(np.array([[1, 2, 3]]), 2, 0, 1, 0, mode="reflect")
    array([[3, 2, 1, 2, 3, 2]])

    Modes, sharing of memory and errors as for `crop`.
    """
    rows, columns = image.shape[:2]
    return crop(image, -top, -left, rows + top + bottom, columns + left + right, mode=mode, fill=fill)


def flip(image: Image) -> Image:
    """Mirror an image left to right, into a new array.

    >>> flip(np.array([[1, 2, 3]]))
    array([[3, 2, 1]])
    """
    if image.ndim == 2:
        return np.ascontiguousarray(image[:, ::-1])
    # A view has a negative stride, which `torch.from_numpy` refuses. By channel, NumPy's inner loop is a whole row.
    mirrored = memory.empty(image.shape, image.dtype)
    library = _opencv_if_there()
    if library is not None and image.dtype == np.uint8 and 1 < image.shape[2] <= 4:
        library.flip(image, 1, dst=mirrored)
        return mirrored
    for channel in range(image.shape[2]):
        mirrored[:, :, channel] = image[:, ::-1, channel]
    return mirrored


def look_up(image: Image, table: Image) -> Image:
    """Look up each value of a uint8 image in a table: ``table[0, value, channel]``.

    >>> halves = np.repeat(np.arange(256, dtype=np.float32) / 2, 1).reshape(1, 256, 1)
    >>> look_up(np.array([[[3], [0]]], np.uint8), halves)[0, :, 0]
    array([1.5, 0. ], dtype=float32)
    """
    found = memory.empty(image.shape, table.dtype)
    library = _opencv_if_there()
    if library is not None and 1 < image.shape[2] <= 4:
        # OpenCV copies pairs of bytes; it has no bfloat16.
        bits = np.dtype(np.uint16) if table.itemsize == 2 else table.dtype
        library.LUT(image, table.view(bits), dst=found.view(bits))
    else:
        for channel in range(image.shape[2]):
            found[:, :, channel] = np.take(table[0, :, channel], image[:, :, channel])
    return found


def check_reach(length: int, before: int, after: int, mode: PadMode) -> None:
    """Refuse to mirror more pixels of a side than it has.

    >>> check_reach(5, 4, 4, "reflect")
    """
    most = {"reflect": length - 1, "symmetric": length}.get(mode)
    if most is not None and max(before, after) > most:
        raise ArgumentError(
            f"padding of {max(before, after)} pixels with mode={mode!r}, but a side of {length} pixels has only "
            f"{most} to mirror",
            found=max(before, after),
            expected=f"at most {most}",
            cure="Use less padding, mode='edge' or 'constant', or resize first.",
        )


def load(*, antialias: bool) -> ModuleType:
    """Import the library that `resize` needs: Pillow with antialiasing, OpenCV without.

    Raises MissingDependency where it is not installed.
    """
    return _pillow() if antialias else _opencv()


def check_installed(*, antialias: bool) -> None:
    """Raise MissingDependency where `load` would; import nothing, because the extension may do all the work.

    >>> check_installed(antialias=True)
    """
    if find_spec("PIL" if antialias else "cv2") is None:
        load(antialias=antialias)


# Cached, because an import statement takes a microsecond for each image.
@cache
def _pillow() -> ModuleType:
    try:
        with held_back():
            from PIL import Image
    except ImportError as error:
        raise missing("Pillow", extra="images", purpose="resizing images") from error
    return Image


@cache
def _opencv_if_there() -> ModuleType | None:
    try:
        return _opencv()
    except MissingDependency:
        return None


@cache
def _opencv() -> ModuleType:
    try:
        with held_back():
            import cv2
    except ImportError as error:
        raise missing("OpenCV", extra="opencv", purpose="resizing with antialias=False") from error
    module: ModuleType = cv2
    return module


def _pillow_resize_uint8(image: Image, box: Box, height: int, width: int, interpolation: str) -> Image:
    top, left, rows, columns = box
    library = _pillow()
    mode = "RGB" if image.shape[2:] == (3,) else "L"
    if image.flags.c_contiguous:
        # Pillow skips the gaps between rows, so no copy is needed. Strides of a side of one pixel may be anything.
        pixel = math.prod(image.shape[2:])
        gap = image.shape[1] * pixel
        start = top * gap + left * pixel
        pixels = image.reshape(-1)[start : start + (rows - 1) * gap + columns * pixel]
    else:
        gap, pixels = 0, np.ascontiguousarray(crop(image, *box)).reshape(-1)
    pillow_image = library.frombytes(mode, (columns, rows), pixels, "raw", mode, gap, 1)
    resized = np.array(pillow_image.resize((width, height), getattr(library.Resampling, interpolation.upper())))
    return resized.reshape(height, width, *image.shape[2:])


def _pillow_resize_float(plane: Image, height: int, width: int, interpolation: str) -> Image:
    _check_dtype(plane, "antialias=True")
    library = _pillow()
    with np.errstate(all="ignore"):  # a float64 beyond float32 becomes infinity, whatever the user's errstate
        pillow_image = library.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    resized = np.array(pillow_image.resize((width, height), getattr(library.Resampling, interpolation.upper())))
    return _back(resized, plane.dtype)


def _opencv_resize(image: Image, height: int, width: int, interpolation: str) -> Image:
    _check_dtype(image, "antialias=False")
    library = _opencv()
    if image.ndim == 3 and image.shape[2] > 4:
        return _by_channel(image, lambda plane: _opencv_resize(plane, height, width, interpolation))
    half = image.dtype == np.float16
    plane = image.ndim == 2 or image.shape[2] == 1
    shape = (height, width) if plane else (height, width, image.shape[2])
    with _own_flags(library):
        resized = library.resize(
            image.astype(np.float32) if half else image,
            (width, height),
            dst=None if half else memory.empty(shape, image.dtype),
            interpolation=getattr(library, _OPENCV_FLAGS[interpolation]),
        )
    return _back(resized.reshape(height, width, *image.shape[2:]), image.dtype)


@contextmanager
def _own_flags(library: Any) -> Iterator[None]:
    """Set OpenCV's flags of this thread that change pixels to their defaults, for the length of a block.

    ``cv2.setUseOptimized`` sets one of them too, for the thread that calls it alone.
    """
    ipp = getattr(library, "ipp", None)
    if ipp is None or not hasattr(ipp, "useIPP_NotExact"):
        yield
        return
    used, inexact = ipp.useIPP(), ipp.useIPP_NotExact()
    ipp.setUseIPP(True)
    ipp.setUseIPP_NotExact(False)
    try:
        yield
    finally:
        ipp.setUseIPP(used)
        ipp.setUseIPP_NotExact(inexact)


def _check_dtype(image: Image, how: str) -> None:
    if image.dtype not in _RESIZABLE:
        raise ArgumentError(
            f"cannot resize an image of {image.dtype} with {how}",
            found=image.dtype.name,
            expected="uint8, uint16, float16, float32 or float64",
            cure="Convert it first, or use interpolation='nearest' with antialias=True, which takes any dtype.",
        )


def _by_channel(image: Image, function: Callable[[Image], Image]) -> Image:
    return np.stack([function(np.ascontiguousarray(image[:, :, c])) for c in range(image.shape[2])], axis=2)


def _back(floats: Image, dtype: np.dtype[Any]) -> Image:
    """Convert pixels computed in 32 bits back to their dtype."""
    if floats.dtype == dtype:
        return floats
    if dtype.kind == "u":
        # Bicubic and Lanczos overshoot at edges.
        limits = np.iinfo(dtype)
        floats = np.clip(np.rint(floats), limits.min, limits.max)
    with np.errstate(all="ignore"):
        return floats.astype(dtype)


@lru_cache(maxsize=256)
def nearest_places(before: int, after: int) -> Indices:
    """Return which of ``before`` pixels each of ``after`` shows: the one under its center.

    >>> nearest_places(4, 2)
    array([1, 3])
    """
    # Summed, as Pillow does: a product would round differently where a center meets an edge.
    step = before / after
    steps = np.full(after, step)
    steps[0] = step * 0.5
    indices = np.minimum(np.cumsum(steps).astype(np.intp), before - 1)
    indices.setflags(write=False)
    return indices


def _outside(start: int, count: int, length: int, mode: PadMode) -> Indices:
    """Return which of ``length`` pixels fills each of ``count`` places, some before 0 or after the end."""
    places = np.arange(start, start + count)
    if mode == "edge":
        return np.clip(places, 0, length - 1)
    twice = mode == "symmetric"
    places = np.where(places < 0, -places - twice, places)
    return np.where(places >= length, 2 * (length - 1) + twice - places, places)


@lru_cache(maxsize=64)
def fill_of(fill: Fill, dtype: np.dtype[Any], channels: tuple[int, ...]) -> Image:
    """Return the value outside an image as a pixel of it, or as one number.

    >>> fill_of((1, 2, 3), np.dtype(np.uint8), (3,))
    array([1, 2, 3], dtype=uint8)

    Raises ArgumentError where ``fill`` is not a value of the image's dtype.
    """
    wanted = np.array(fill, dtype=np.float64)
    if wanted.ndim and wanted.shape != (channels or (1,)):
        raise ArgumentError(
            f"fill has {wanted.size} values, but the image has {math.prod(channels)} channels",
            found=fill,
            expected="one value, or one for each channel",
            cure="Pass one number.",
        )
    if dtype.kind in "biu":
        limits = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        if not ((wanted >= limits[0]) & (wanted <= limits[1]) & (wanted == np.rint(wanted))).all():
            raise ArgumentError(
                f"fill={fill!r} is not a value of an image of {dtype}",
                found=fill,
                expected=f"whole numbers from {limits[0]} to {limits[1]}",
                cure="Pass such a number.",
            )
    value = wanted.astype(dtype)
    value.setflags(write=False)
    return value
