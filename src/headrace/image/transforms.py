"""What can be done to a picture on its way into a batch: small immutable objects, called with one sample.

A sample is a picture, a NumPy array ``(H, W)`` or ``(H, W, C)``; or a tuple or list whose first item is one; or a
mapping with one under ``"image"``. What else it holds passes through; transforms that move pixels refuse samples with
masks, boxes or other parts that have places in the image. Random transforms draw from the generator that
they are given, ``transform(sample, rng)``, or from the sample's own, `headrace.rng`; the others never touch one.

What comes out may share memory with what went in (a crop is a view), so change a picture in place only if you
copied it.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cache, lru_cache
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import numpy as np

from headrace.context import memory, seeds
from headrace.errors import ArgumentError
from headrace.image import geometry
from headrace.image.geometry import INTERPOLATIONS, PAD_MODES, Box, Fill, Interpolation, PadMode
from headrace.image.targets import spatial_part
from headrace.interop import floats
from headrace.interop.calls import LazyRng, article, bind, flag

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from headrace.image.geometry import Image
    from headrace.interop.calls import Step

    Row = npt.NDArray[np.float32]

Sample = TypeVar("Sample")
Size = int | tuple[int, int]
"""One length for both sides, or (height, width), in pixels."""

Padding = int | tuple[int, int] | tuple[int, int, int, int]
"""Pixels on all four sides; or (left and right, top and bottom); or (left, top, right, bottom)."""


class Transform(LazyRng):
    """What every transform of pictures has in common: how it is called, and on what."""

    __slots__ = ()
    geometric: ClassVar[bool] = False
    """Whether it moves pixels, so that a mask or boxes beside the image would no longer fit it."""

    def __call__(self, sample: Sample, rng: np.random.Generator | None = None) -> Sample:
        """Return the sample with its picture transformed."""
        if isinstance(sample, np.ndarray):
            return cast("Sample", self._pixels(self._picture(sample), rng))
        if self.geometric:
            self._check_targets(sample)
        if isinstance(sample, tuple) and sample:
            items = (self._pixels(self._picture(sample[0]), rng), *sample[1:])
            kind: Any = type(sample)
            return cast("Sample", items if kind is tuple else getattr(kind, "_make", kind)(items))
        if isinstance(sample, list) and sample:
            return cast("Sample", type(sample)([self._pixels(self._picture(sample[0]), rng), *sample[1:]]))
        if isinstance(sample, Mapping) and "image" in sample:
            pixels = self._pixels(self._picture(sample["image"]), rng)
            if not isinstance(sample, MutableMapping):
                return cast("Sample", {**sample, "image": pixels})
            changed = copy.copy(sample)
            changed["image"] = pixels
            return cast("Sample", changed)
        raise self._refusal(sample)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _pixels(self, image: Image, rng: np.random.Generator | None) -> Image:
        raise NotImplementedError

    def _check_targets(self, sample: Any) -> None:
        """Refuse a sample whose other parts have places in its image, which would stay where they are."""
        mapped = isinstance(sample, Mapping)
        image = sample.get("image") if mapped else sample[0] if isinstance(sample, (tuple, list)) and sample else None
        if not isinstance(image, np.ndarray) or (not mapped and len(sample) == 1):
            return
        part = spatial_part(sample, image.shape[:2])
        if part:
            raise ArgumentError(
                f"{self._name} would move the image's pixels and leave the rest of the sample behind: {part}. Parts "
                f"without places in the image were expected, such as labels. Map a function of your own that applies "
                f"the geometry to the whole sample, or leave {self._name} out. If the part has no places in the "
                'image, give samples as {"image": image, "label": part}, or add it after the geometry'
            )

    def _picture(self, image: object) -> Image:
        if not isinstance(image, np.ndarray):
            raise self._refusal(image)
        if image.ndim not in (2, 3) or not image.size:
            raise ArgumentError(
                f"{self._name} takes a picture of shape (H, W) or (H, W, C), no side of length 0; "
                f"got an array of shape {image.shape}"
            )
        return image

    def _refusal(self, found: object) -> ArgumentError:
        kind = type(found)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        if kind.__module__.partition(".")[0] == "PIL":
            cure = "np.asarray(picture.convert('RGB')) makes one of a Pillow image"
        elif isinstance(found, Mapping):
            cure = f"the keys are {list(found)}"
        else:
            cure = "give it one, or map a function that picks it out of the sample first"
        return ArgumentError(
            f"{self._name} takes a picture as a NumPy array, a tuple or list whose first item is one, or a "
            f'mapping with one under "image"; got {article(name)}: {cure}'
        )


@dataclass(frozen=True, slots=True)
class Resize(Transform):
    """Scale pictures to a size: the shorter side to ``size``, or to exactly ``(height, width)``.

    >>> import numpy as np
    >>> from headrace import Resize
    >>> picture = np.zeros((300, 400, 3), np.uint8)
    >>> Resize(150)(picture).shape, Resize((64, 64), interpolation="bicubic")(picture).shape
    ((150, 200, 3), (64, 64, 3))

    With ``antialias`` the pixels are those of Pillow's ``Image.resize`` (extra ``images``): the same for uint8, and
    by way of 32-bit floats for uint16 and floats, whose dtype they keep. Without, those of OpenCV's ``cv2.resize``
    (extra ``opencv``), which is several times faster, shimmers where a picture shrinks a lot, and may run threads
    of OpenCV's own. ``interpolation`` is "nearest", "bilinear", "bicubic" or, with antialiasing, "lanczos" or
    "box". "nearest" with antialiasing takes any dtype, for masks. A picture of that size already is returned as
    it is. The longer side is ``int(size * longer / shorter)``, as in torchvision.

    Raises ArgumentError for arguments and dtypes that cannot be used, MissingDependency where the library is not
    installed.
    """

    geometric = True
    size: Size
    _: KW_ONLY
    interpolation: Interpolation = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.size, Iterable):
            object.__setattr__(self, "size", _size_pair("Resize", self.size))
        else:
            object.__setattr__(self, "size", _whole("Resize", "size", self.size, least=1))
        _check_resizing("Resize", self.interpolation, self.antialias)

    def scaling(self, rows: int, columns: int, rng: np.random.Generator | None = None) -> tuple[Box, int, int]:  # noqa: ARG002
        """Return which part of a picture is scaled, all of it, and to which height and width."""
        if not isinstance(self.size, int):
            height, width = self.size
        elif rows <= columns:
            height, width = self.size, int(self.size * columns / rows)
        else:
            height, width = int(self.size * rows / columns), self.size
        return (0, 0, rows, columns), height, width

    def _pixels(self, image: Image, rng: np.random.Generator | None) -> Image:  # noqa: ARG002
        _, height, width = self.scaling(*image.shape[:2])
        return geometry.resize(image, height, width, interpolation=self.interpolation, antialias=self.antialias)


@dataclass(frozen=True, slots=True)
class CenterCrop(Transform):
    """Cut the middle out of pictures; one that is smaller gets a black margin.

    >>> import numpy as np
    >>> from headrace import CenterCrop
    >>> CenterCrop(2)(np.arange(16).reshape(4, 4))
    array([[ 5,  6],
           [ 9, 10]])

    ``size`` is one length or (height, width). Rounding and margin (zeros) as in torchvision. Any dtype; a view
    where the picture is large enough.
    """

    geometric = True
    size: Size

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", _size_pair("CenterCrop", self.size))

    def box(self, height: int, width: int, rng: np.random.Generator | None = None) -> Box:  # noqa: ARG002
        """Return the part (top, left, height, width) of a picture that is kept; outside it where that is smaller."""
        rows, columns = cast("tuple[int, int]", self.size)
        return _middle(height, rows), _middle(width, columns), rows, columns

    def _pixels(self, image: Image, rng: np.random.Generator | None) -> Image:  # noqa: ARG002
        return geometry.crop(image, *self.box(*image.shape[:2]))


@dataclass(frozen=True, slots=True)
class RandomCrop(Transform):
    """Cut a part of a given size out of pictures, anywhere with equal chance.

    >>> import numpy as np
    >>> from headrace import RandomCrop
    >>> thumbnail = np.zeros((32, 32, 3), np.uint8)
    >>> RandomCrop(28)(thumbnail).shape, RandomCrop(32, padding=4)(thumbnail).shape
    ((28, 28, 3), (32, 32, 3))

    The picture is widened by ``padding`` first (pixels on all sides; or (left and right, top and bottom); or (left,
    top, right, bottom)), and with ``pad_if_needed`` by what it lacks on both sides; what stands there is as in
    `Pad`, except that both widenings count as one where a picture is mirrored. Any dtype; a view where nothing
    is added.

    Raises ArgumentError for arguments that cannot be used, and for a picture that is too small.
    """

    geometric = True
    size: Size
    _: KW_ONLY
    padding: Padding | None = None
    pad_if_needed: bool = False
    fill: Fill = 0
    mode: PadMode = "constant"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", _size_pair("RandomCrop", self.size))
        if self.padding is not None:
            object.__setattr__(self, "padding", _sides("RandomCrop", self.padding))
        object.__setattr__(self, "fill", _fill("RandomCrop", self.fill))
        _one_of("RandomCrop", "mode", self.mode, PAD_MODES)
        object.__setattr__(self, "pad_if_needed", flag("pad_if_needed", self.pad_if_needed))

    def box(self, height: int, width: int, rng: np.random.Generator | None = None) -> Box:
        """Draw the part (top, left, height, width) of a picture that is kept; it may reach into the padding."""
        rows, columns = cast("tuple[int, int]", self.size)
        left, top, right, bottom = cast("tuple[int, int, int, int]", self.padding or (0, 0, 0, 0))
        if self.pad_if_needed:
            lacking = max(0, rows - height - top - bottom)
            top, bottom = top + lacking, bottom + lacking
            lacking = max(0, columns - width - left - right)
            left, right = left + lacking, right + lacking
        free_rows, free_columns = height + top + bottom - rows, width + left + right - columns
        if free_rows < 0 or free_columns < 0:
            raise ArgumentError(
                f"RandomCrop of {rows} x {columns} pixels is larger than the picture of {height} x {width} with its "
                f"padding: use pad_if_needed=True, or Resize first"
            )
        # Not left to the crop itself: whether a picture is refused must not depend on the numbers drawn.
        geometry.check_reach(height, top, bottom, self.mode)
        geometry.check_reach(width, left, right, self.mode)
        down, across = (seeds.rng() if rng is None else rng).random(2).tolist()
        return int(down * (free_rows + 1)) - top, int(across * (free_columns + 1)) - left, rows, columns

    def _pixels(self, image: Image, rng: np.random.Generator | None) -> Image:
        box = self.box(image.shape[0], image.shape[1], rng)
        return geometry.crop(image, *box, mode=self.mode, fill=self.fill)


@dataclass(frozen=True, slots=True)
class RandomResizedCrop(Transform):
    """Cut a part of random area and shape out of pictures, and scale it to a size.

    >>> import numpy as np
    >>> from headrace import RandomResizedCrop
    >>> RandomResizedCrop(224)(np.zeros((375, 500, 3), np.uint8)).shape
    (224, 224, 3)

    The area is uniform in ``scale`` (fractions of the picture's), the ratio of width to height log-uniform in
    ``ratio``, the place uniform; where ten draws do not fit, the largest central part whose shape does is taken:
    the distribution of torchvision's transform of that name. Nothing outside the crop is looked at when it is scaled.
    Size (both sides, or height and width), ``interpolation``, ``antialias``, dtypes and errors as for `Resize`.

    Source: Szegedy et al., "Going deeper with convolutions", CVPR 2015, section 6.
    """

    geometric = True
    size: Size
    _: KW_ONLY
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", _size_pair("RandomResizedCrop", self.size))
        object.__setattr__(self, "scale", _range("RandomResizedCrop", "scale", self.scale))
        object.__setattr__(self, "ratio", _range("RandomResizedCrop", "ratio", self.ratio))
        if self.scale[1] > 1:
            raise ArgumentError(
                f"RandomResizedCrop: scale is a range of fractions of the picture's area, at most 1; got {self.scale!r}"
            )
        _check_resizing("RandomResizedCrop", self.interpolation, self.antialias)

    def box(self, height: int, width: int, rng: np.random.Generator | None = None) -> Box:
        """Draw the part (top, left, height, width) of a picture that is kept; always inside it."""
        rng = seeds.rng() if rng is None else rng
        (smallest, largest), (tallest, widest) = self.scale, self.ratio
        lowest, highest = math.log(tallest), math.log(widest)
        for _ in range(10):
            # One draw for the four numbers of a try: the generator's own call costs more than they do.
            how_large, how_wide, down, across = rng.random(4).tolist()
            area = height * width * (smallest + (largest - smallest) * how_large)
            shape = math.exp(lowest + (highest - lowest) * how_wide)
            rows, columns = round(math.sqrt(area / shape)), round(math.sqrt(area * shape))
            if 0 < rows <= height and 0 < columns <= width:
                return int(down * (height - rows + 1)), int(across * (width - columns + 1)), rows, columns
        rows = max(1, min(height, round(width / tallest)))
        columns = max(1, min(width, round(height * widest)))
        return (height - rows) // 2, (width - columns) // 2, rows, columns

    def scaling(self, rows: int, columns: int, rng: np.random.Generator | None = None) -> tuple[Box, int, int]:
        """Draw which part of a picture is scaled; and to which height and width."""
        return self.box(rows, columns, rng), *cast("tuple[int, int]", self.size)

    def _pixels(self, image: Image, rng: np.random.Generator | None) -> Image:
        box, height, width = self.scaling(image.shape[0], image.shape[1], rng)
        return geometry.resize(
            image, height, width, interpolation=self.interpolation, antialias=self.antialias, box=box
        )


@dataclass(frozen=True, slots=True)
class RandomHorizontalFlip(Transform):
    """Mirror pictures left to right with probability ``p``.

    >>> import numpy as np
    >>> from headrace import RandomHorizontalFlip
    >>> RandomHorizontalFlip(p=1)(np.array([[1, 2, 3]]))
    array([[3, 2, 1]])

    Any dtype; a mirrored picture is a new contiguous array.
    """

    geometric = True
    p: float = 0.5

    def __post_init__(self) -> None:
        p = _number("RandomHorizontalFlip", "p", self.p)
        if not 0 <= p <= 1:
            raise ArgumentError(f"RandomHorizontalFlip: p is a probability, from 0 to 1; got {self.p!r}")
        object.__setattr__(self, "p", p)

    def flips(self, rng: np.random.Generator | None = None) -> bool:
        """Draw whether a picture is mirrored."""
        return (seeds.rng() if rng is None else rng).random() < self.p

    def _pixels(self, image: Image, rng: np.random.Generator | None) -> Image:
        return geometry.flip(image) if self.flips(rng) else image


@dataclass(frozen=True, slots=True)
class Pad(Transform):
    """Widen pictures on their four sides.

    >>> import numpy as np
    >>> from headrace import Pad
    >>> Pad((2, 0), mode="reflect")(np.array([[1, 2, 3]]))
    array([[3, 2, 1, 2, 3, 2, 1]])

    ``padding`` is pixels on all sides; or (left and right, top and bottom); or (left, top, right, bottom). Modes by
    NumPy's and torchvision's names: "constant" (the value ``fill``, or one for each channel), "edge" (the outermost
    pixel again), "reflect" (mirrored at the outermost pixel: TensorFlow's mirror-pad, REFLECT), "symmetric" (mirrored
    beside it: mirror-pad's SYMMETRIC). Any dtype.

    Raises ArgumentError for arguments that cannot be used, for a ``fill`` that is no value of the picture's dtype,
    and where more would have to be mirrored than there is.
    """

    geometric = True
    padding: Padding
    _: KW_ONLY
    mode: PadMode = "constant"
    fill: Fill = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "padding", _sides("Pad", self.padding))
        object.__setattr__(self, "fill", _fill("Pad", self.fill))
        _one_of("Pad", "mode", self.mode, PAD_MODES)

    def _pixels(self, image: Image, rng: np.random.Generator | None) -> Image:  # noqa: ARG002
        left, top, right, bottom = cast("tuple[int, int, int, int]", self.padding)
        return geometry.pad(image, left, top, right, bottom, mode=self.mode, fill=self.fill)


@dataclass(frozen=True, slots=True)
class ToFloat(Transform):
    """Turn whole-numbered pixels into float32 from 0 to 1.

    >>> import numpy as np
    >>> from headrace import ToFloat
    >>> ToFloat()(np.array([[0, 51, 255]], np.uint8))
    array([[0. , 0.2, 1. ]], dtype=float32)

    uint8 is divided by 255 and uint16 by 65535, in float32; bool gives 0 and 1; floats keep their values, as
    float32. Any shape that a picture has, channels first or last.

    Raises ArgumentError for other dtypes, whose range is not known.
    """

    def _pixels(self, image: Image, rng: np.random.Generator | None) -> Image:  # noqa: ARG002
        if image.dtype == np.uint8:
            scaled: Row = memory.empty(image.shape, np.float32)
            return np.divide(image, np.float32(255), out=scaled)
        if image.dtype == np.uint16:
            return np.divide(image, np.float32(65535), dtype=np.float32)
        if floats.kind(image.dtype) in "fb":
            return image.astype(np.float32, copy=False)
        raise ArgumentError(
            f"ToFloat takes uint8, uint16, bool or floats, whose range is known; got a picture of {image.dtype}: "
            f"map a function that scales it as its range wants"
        )


@dataclass(frozen=True, slots=True)
class Normalize(Transform):
    """Subtract a mean from each channel and divide by a standard deviation.

    >>> import numpy as np
    >>> from headrace import Compose, Normalize, ToFloat
    >>> imagenet = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    >>> picture = np.full((2, 2, 3), 255, np.uint8)
    >>> Compose(ToFloat(), imagenet)(picture)[0, 0]
    array([2.2489083, 2.4285715, 2.64     ], dtype=float32)

    Takes floats, ``(H, W, C)``, or ``(C, H, W)`` with ``channels_first=True``, and gives float32, computed as
    ``(image - mean) / std`` in float32. One number, alone or in a sequence, stands for every channel.

    Raises ArgumentError for arguments that cannot be used, for a picture with another number of channels, and for
    whole numbers, which want `ToFloat` first.
    """

    mean: float | Sequence[float]
    std: float | Sequence[float]
    _: KW_ONLY
    channels_first: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels_first", flag("channels_first", self.channels_first))
        mean, std = _per_channel("mean", self.mean), _per_channel("std", self.std)
        if len(mean) != len(std) and 1 not in (len(mean), len(std)):
            raise ArgumentError(
                f"Normalize: mean and std must have one number for each channel; "
                f"got {len(mean)} in mean and {len(std)} in std"
            )
        if not all(np.float32(number) for number in std):
            raise ArgumentError(f"Normalize: std must not be 0 (in float32); got {self.std!r}")
        channels = max(len(mean), len(std))
        object.__setattr__(self, "mean", mean * (channels // len(mean)))
        object.__setattr__(self, "std", std * (channels // len(std)))

    def _pixels(self, image: Image, rng: np.random.Generator | None) -> Image:  # noqa: ARG002
        return self._normalize(image, own=False)

    def _normalize(self, image: Image, *, own: bool) -> Image:
        """Normalize a picture: in place if it is ours (``own``) and float32."""
        if floats.kind(image.dtype) != "f":
            raise ArgumentError(
                f"Normalize takes floats; got a picture of {image.dtype}: put ToFloat() before Normalize"
            )
        mean, std = cast("tuple[float, ...]", self.mean), cast("tuple[float, ...]", self.std)
        if self.channels_first and image.ndim == 3:
            image = image.transpose(1, 2, 0)
        channels = 1 if image.ndim == 2 else image.shape[2]
        if len(mean) not in (1, channels):
            raise ArgumentError(
                f"Normalize has {len(mean)} channels, but the picture has {channels} "
                f"({'height, width, channels' if image.ndim == 3 else 'height, width'} = {image.shape}): "
                f"channels come last, or first with channels_first=True"
            )
        if image.dtype != np.float32:
            with np.errstate(all="ignore"):
                image, own = image.astype(np.float32), True
        rows, width = image, 1
        if len(mean) > 1 and image.strides[1:] == (channels * image.itemsize, image.itemsize):
            # Pixel by pixel, NumPy's inner loop would be as short as a pixel; this one is as long as a row.
            rows, width = image.reshape(image.shape[0], -1), image.shape[1]
        with np.errstate(all="ignore"):  # numbers too small or not finite are values, whatever the user's own is
            normal = np.subtract(rows, _tiled(mean, width), out=rows if own else memory.empty(rows.shape, np.float32))
            np.divide(normal, _tiled(std, width), out=normal)
        normal = normal.reshape(image.shape)
        return normal.transpose(2, 0, 1) if self.channels_first and normal.ndim == 3 else normal


@dataclass(frozen=True, slots=True)
class ToCHW(Transform):
    """Put the channels first: ``(H, W, C)`` becomes ``(C, H, W)``, and ``(H, W)`` becomes ``(1, H, W)``.

    >>> import numpy as np
    >>> from headrace import ToCHW
    >>> ToCHW()(np.zeros((375, 500, 3))).shape, ToCHW()(np.zeros((28, 28))).shape
    ((3, 375, 500), (1, 28, 28))

    Any dtype; a view, so that the pixels move once, when the batch is put together.
    """

    def _pixels(self, image: Image, rng: np.random.Generator | None) -> Image:  # noqa: ARG002
        return image[np.newaxis] if image.ndim == 2 else image.transpose(2, 0, 1)


@dataclass(frozen=True, slots=True)
class ToDtype(Transform):
    """Round floats to another dtype, "float16", "bfloat16" or "float32": the last step to batches of half the size.

    >>> import numpy as np
    >>> from headrace import Compose, Normalize, ToCHW, ToDtype, ToFloat
    >>> half = Compose(ToFloat(), Normalize(0.5, 0.25), ToCHW(), ToDtype("float16"))
    >>> half(np.full((2, 2, 3), 255, np.uint8))[0]
    array([[2., 2.],
           [2., 2.]], dtype=float16)

    ``dtype`` is one of these names, or what NumPy knows by one of them. bfloat16 has the range of float32 and 8 bits
    of precision; it comes from ml_dtypes (extra ``bfloat16``). float16 has 11 bits, and ends at 65504.

    Takes floats of any shape that a picture has, channels first or last. Values are rounded to the nearest one, and
    where two are as near, to that whose last bit is 0; float64 becomes bfloat16 by way of float32. What is too large
    becomes infinity, infinities and NaN stay what they are, and of neither is there a warning. A picture of that dtype
    already is returned as it is.

    Raises ArgumentError for another dtype, and for pictures of whole numbers, which want `ToFloat` first;
    MissingDependency for bfloat16 without ml_dtypes.
    """

    dtype: npt.DTypeLike

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", _float_name(self.dtype))

    @property
    def of_numpy(self) -> np.dtype[Any]:
        """The dtype as NumPy has it."""
        return _dtype_named(cast("str", self.dtype))

    def _pixels(self, image: Image, rng: np.random.Generator | None) -> Image:  # noqa: ARG002
        dtype = self.of_numpy
        if image.dtype == dtype:
            return image
        if floats.kind(image.dtype) != "f":
            raise ArgumentError(f"ToDtype takes floats; got a picture of {image.dtype}: put ToFloat() before ToDtype")
        rounded = memory.empty(image.shape, dtype)
        with np.errstate(all="ignore"):
            rounded[...] = image
        return rounded


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Compose(LazyRng):
    """Apply transforms one after the other: ours, and any function of one sample, or of ``(sample, rng)``.

    >>> import numpy as np
    >>> from headrace import Compose, RandomHorizontalFlip, ToCHW, ToFloat
    >>> noise = lambda image, rng: image + rng.normal(size=image.shape).astype(np.float32)
    >>> train = Compose(RandomHorizontalFlip(), ToFloat(), noise, ToCHW())
    >>> train(np.zeros((4, 6, 3), np.uint8)).shape
    (3, 4, 6)

    Takes them one by one or as one list; those of a Compose among them take its place in ``transforms``. All draw
    from the same generator, in order.

    Raises ArgumentError for what cannot be called so, and where a transform that wants channels last follows
    `ToCHW`.
    """

    transforms: tuple[Callable[..., Any], ...]
    _steps: tuple[Step, ...] = field(compare=False)

    def __init__(self, *transforms: Callable[..., Any] | Sequence[Callable[..., Any]]) -> None:
        given: Any = transforms
        if len(given) == 1 and isinstance(given[0], (list, tuple)):
            given = given[0]
        flat = tuple(one for t in given for one in (t.transforms if isinstance(t, Compose) else (t,)))
        _check_order(flat)
        object.__setattr__(self, "transforms", flat)
        object.__setattr__(self, "_steps", _fused(flat))

    def __call__(self, sample: Any, rng: np.random.Generator | None = None) -> Any:
        """Return the sample with every transform applied."""
        here = seeds.inside()
        if here is not None and here.trace is not None:
            return here.trace.apply(self.transforms, sample, rng)
        for step in self._steps:
            sample = step(sample, rng)
        return sample

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.transforms))})"


@dataclass(frozen=True, slots=True)
class _Standardize(Transform):
    """`ToFloat`, `Normalize` and perhaps `ToDtype` with the same result in one step.

    A second array of floats costs more than the arithmetic. And a byte has 256 values: what a table of them says is,
    to the last bit, what would have been computed.
    """

    normalize: Normalize
    rounded: ToDtype | None = None

    def _pixels(self, image: Image, rng: np.random.Generator | None) -> Image:
        if image.dtype == np.uint8 and image.ndim == 3 and not self.normalize.channels_first:
            return geometry.look_up(image, _table(self, image.shape[2]))
        return self._computed(image, rng)

    def _computed(self, image: Image, rng: np.random.Generator | None) -> Image:
        scaled = _TO_FLOAT._pixels(image, rng)
        normal = self.normalize._normalize(scaled, own=scaled is not image)
        return normal if self.rounded is None else self.rounded._pixels(normal, rng)

    @property
    def _name(self) -> str:
        return "ToFloat"


def finishing(transforms: Sequence[Callable[..., Any]]) -> tuple[ToFloat | Normalize | ToCHW | ToDtype, ...]:
    """Check that all transforms are of those that a device can finish batches with, and return them.

    >>> finishing([Compose(ToFloat(), ToCHW())])
    (ToFloat(), ToCHW())
    """
    flat = Compose(*transforms).transforms
    for transform in flat:
        if type(transform) not in (ToFloat, Normalize, ToCHW, ToDtype):
            raise ArgumentError(
                f"a device finishes batches with ToFloat, Normalize, ToCHW and ToDtype; got {transform!r}"
            )
    return cast("tuple[ToFloat | Normalize | ToCHW | ToDtype, ...]", flat)


STEADY: frozenset[type] = frozenset({CenterCrop, Normalize, Pad, Resize, ToCHW, ToDtype, ToFloat})
"""The transforms that never draw a random number."""

_TO_FLOAT = ToFloat()


@lru_cache(maxsize=64)
def _table(step: _Standardize, channels: int) -> Image:
    """Return what each of the 256 values of a byte becomes in each channel: (1, 256, C)."""
    values: Image = np.repeat(np.arange(256, dtype=np.uint8)[np.newaxis, :, np.newaxis], channels, axis=2)
    return step._computed(values, None)


def _fused(transforms: tuple[Callable[..., Any], ...]) -> tuple[Step, ...]:
    steps: list[Step] = []
    for transform in transforms:
        # Where the channels stand is nothing to a value.
        at = -2 if isinstance(transform, ToDtype) and steps and isinstance(steps[-1], ToCHW) else -1
        before = steps[at] if len(steps) >= -at else None
        if isinstance(transform, Normalize) and isinstance(before, ToFloat):
            steps[at] = _Standardize(transform)
        elif isinstance(transform, ToDtype) and isinstance(before, _Standardize) and before.rounded is None:
            steps[at] = _Standardize(before.normalize, transform)
        else:
            steps.append(bind(transform))
    return tuple(steps)


def _check_order(transforms: tuple[Callable[..., Any], ...]) -> None:
    """Refuse transforms of ``(H, W, C)`` behind `ToCHW`, which would take channels for rows without a word."""
    first = False
    for transform in transforms:
        if not isinstance(transform, Transform):
            first = False  # a user's function may well put them last again
        elif first and not isinstance(transform, (ToFloat, ToDtype)):
            if not isinstance(transform, Normalize):
                raise ArgumentError(
                    f"Compose: {transform._name} wants channels last, but follows ToCHW: put it before ToCHW"
                )
            if not transform.channels_first:
                raise ArgumentError(
                    "Compose: Normalize follows ToCHW: put it before, or say Normalize(..., channels_first=True)"
                )
        elif isinstance(transform, ToCHW):
            first = True


@lru_cache(maxsize=64)
def _tiled(values: tuple[float, ...], times: int) -> Row:
    row = np.tile(np.array(values, dtype=np.float32), times)
    row.setflags(write=False)
    return row


def _float_name(dtype: object) -> str:
    if isinstance(dtype, str) and dtype == "bfloat16":
        return floats.bfloat16().name  # which must be there
    try:
        found = np.dtype(cast("npt.DTypeLike", dtype)) if dtype is not None else None
    except (TypeError, ValueError):
        found = None
    if found is None or (found not in (np.float16, np.float32) and not floats.is_bfloat16(found)):
        raise ArgumentError(f'ToDtype: dtype must be "float16", "bfloat16" or "float32"; got {dtype!r}')
    return found.name


@cache
def _dtype_named(name: str) -> np.dtype[Any]:
    return floats.bfloat16() if name == "bfloat16" else np.dtype(name)


def _middle(length: int, wanted: int) -> int:
    """Return where the middle part begins; before 0 where more is wanted than there is."""
    return round((length - wanted) / 2) if length >= wanted else -((wanted - length) // 2)


def _whole(owner: str, name: str, value: object, *, least: int) -> int:
    try:
        number = operator.index(cast("int", value))
    except TypeError:
        number = least - 1
    if isinstance(value, (bool, np.bool_)) or number < least:
        raise ArgumentError(f"{owner}: {name} must be whole numbers from {least} up; got {value!r}")
    return number


def _size_pair(owner: str, size: object) -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, Iterable) and not isinstance(size, str) else (size, size)
    if len(sides) != 2:
        raise ArgumentError(f"{owner}: size must be one length or (height, width); got {size!r}")
    height, width = (_whole(owner, "size", side, least=1) for side in sides)
    return height, width


def _sides(owner: str, padding: object) -> tuple[int, int, int, int]:
    given = tuple(padding) if isinstance(padding, Iterable) and not isinstance(padding, str) else (padding,)
    if len(given) not in (1, 2, 4):
        raise ArgumentError(
            f"{owner}: padding must be one number, (left and right, top and bottom) or (left, top, right, bottom); "
            f"got {padding!r}"
        )
    left, top, right, bottom = (_whole(owner, "padding", n, least=0) for n in given * (4 // len(given)))
    return left, top, right, bottom


def _number(owner: str, name: str, value: object) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real) or not math.isfinite(value):
        raise ArgumentError(f"{owner}: {name} must be finite numbers; got {value!r}")
    return float(value)


def _range(owner: str, name: str, value: object) -> tuple[float, float]:
    ends = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else ()
    if len(ends) != 2:
        raise ArgumentError(f"{owner}: {name} must be a pair, (least, most); got {value!r}")
    least, most = (_number(owner, name, end) for end in ends)
    if not 0 < least <= most:
        raise ArgumentError(f"{owner}: {name} must be above 0 and in order, (least, most); got {value!r}")
    return least, most


def _fill(owner: str, fill: object) -> Fill:
    if isinstance(fill, Iterable) and not isinstance(fill, str):
        return tuple(_number(owner, "fill", one) for one in fill)
    number = _number(owner, "fill", fill)
    return int(number) if number.is_integer() else number


def _per_channel(name: str, values: object) -> tuple[float, ...]:
    given = tuple(values) if isinstance(values, Iterable) and not isinstance(values, str) else (values,)
    numbers = tuple(_number("Normalize", name, value) for value in given)
    if not numbers or max(map(abs, numbers)) > float(np.finfo(np.float32).max):
        raise ArgumentError(f"Normalize: {name} must be one number for each channel, within float32; got {values!r}")
    return numbers


def _one_of(owner: str, name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ArgumentError(f"{owner}: {name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def _check_resizing(owner: str, interpolation: str, antialias: object) -> None:
    _one_of(owner, "interpolation", interpolation, INTERPOLATIONS)
    if not isinstance(antialias, bool):
        raise ArgumentError(f"{owner}: antialias must be True or False; got {antialias!r}")
    if not antialias and interpolation in ("lanczos", "box"):
        raise ArgumentError(
            f"{owner}: interpolation={interpolation!r} weighs with antialiasing only: leave out antialias=False"
        )
    if not antialias or interpolation != "nearest":
        geometry.load(antialias=antialias)
