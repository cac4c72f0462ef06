"""Transforms that change the values of images and move no pixel: floats, normalization, dtypes, channels first."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from headrace.checks import flag, refused
from headrace.context import memory
from headrace.errors import ArgumentError
from headrace.image import geometry
from headrace.image.native_steps import IDENTITY, ChangeValues, ChannelsFirst
from headrace.image.pending import Pending, done
from headrace.interop import floats
from headrace.transforms import parameters
from headrace.transforms.image_transform import DeviceStep, ImageTransform

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from headrace.image.geometry import Image
    from headrace.transforms.base import Step
    from headrace.transforms.image_transform import Device, Layout

    Row = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ToFloat(ImageTransform):
    """Turn whole-numbered pixels into float32 from 0 to 1.

    >>> import numpy as np
    >>> from headrace import ToFloat
    >>> ToFloat()(np.array([[0, 51, 255]], np.uint8))
    array([[0. , 0.2, 1. ]], dtype=float32)

    uint8 is divided by 255 and uint16 by 65535, in float32. bool gives 0 and 1. Floats keep their values, as float32.
    Channels may be first or last.

    Raises ArgumentError for images of other dtypes, whose range is not known.
    """

    draws = False
    mergeable = True
    defers = True
    takes: ClassVar[Layout] = "any"

    def transform_image(self, image: Image, rng: Any) -> Image:  # noqa: ARG002
        """Return the image as float32."""
        if isinstance(image, Pending):
            return image.valued((self.native_step(),))
        if image.dtype == np.uint8:
            scaled: Row = memory.empty(image.shape, np.float32)
            return np.divide(image, np.float32(255), out=scaled)
        if image.dtype == np.uint16:
            return np.divide(image, np.float32(65535), dtype=np.float32)
        if floats.kind(image.dtype) in "fb":
            return image.astype(np.float32, copy=False)
        raise ArgumentError(
            f"ToFloat got an image of {image.dtype}",
            found=image.dtype.name,
            expected="uint8, uint16, bool or floats, whose range is known",
            cure="Map a function that scales it to 0 to 1.",
        )

    def native_step(self) -> ChangeValues:
        """Divide bytes by 255."""
        return ChangeValues(self, np.dtype(np.float32), takes="any", formula=IDENTITY)

    def device_step(self) -> DeviceStep:
        """Divide by the largest value of the dtype."""
        return DeviceStep(_divided)


@dataclass(frozen=True, slots=True)
class Normalize(ImageTransform):
    """Subtract a mean from each channel and divide by a standard deviation.

    >>> import numpy as np
    >>> from headrace import Compose, Normalize, ToFloat
    >>> imagenet = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    >>> image = np.full((2, 2, 3), 255, np.uint8)
    >>> Compose(ToFloat(), imagenet)(image)[0, 0]
    array([2.2489083, 2.4285715, 2.64     ], dtype=float32)

    Takes floats, ``(H, W, C)``, or ``(C, H, W)`` with ``channels_first=True``, and gives float32, computed as
    ``(image - mean) / std`` in float32. One number, alone or in a sequence, is for every channel.

    Raises ArgumentError for arguments that cannot be used, for an image with another number of channels, and for
    whole numbers, which need `ToFloat` first.
    """

    draws = False
    mean: float | Sequence[float]
    std: float | Sequence[float]
    _: KW_ONLY
    channels_first: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels_first", flag("channels_first", self.channels_first))
        mean = parameters.per_channel("Normalize", "mean", self.mean)
        std = parameters.per_channel("Normalize", "std", self.std)
        if len(mean) != len(std) and 1 not in (len(mean), len(std)):
            raise ArgumentError(
                f"Normalize got {len(mean)} numbers in mean and {len(std)} in std",
                found=(len(mean), len(std)),
                expected="as many of both",
                cure="Pass one for each channel, or one for all.",
            )
        if not all(np.float32(number) for number in std):
            cure = "Pass 1 for a channel that is not to be scaled."
            raise refused("Normalize: std", self.std, "numbers other than 0 in float32, to divide by", cure)
        channels = max(len(mean), len(std))
        object.__setattr__(self, "mean", mean * (channels // len(mean)))
        object.__setattr__(self, "std", std * (channels // len(std)))

    @property
    def takes(self) -> Layout:  # type: ignore[override]  # a setting decides
        """Channels first or last, as ``channels_first`` says."""
        return "CHW" if self.channels_first else "HWC"

    def transform_image(self, image: Image, rng: Any) -> Image:  # noqa: ARG002
        """Return the image normalized."""
        return self._normalize(image, own=False)

    def _normalize(self, image: Image, *, own: bool) -> Image:
        """Normalize an image: in place if it is ours (``own``) and float32."""
        if floats.kind(image.dtype) != "f":
            raise _whole_numbers("Normalize", image)
        mean, std = cast("tuple[float, ...]", self.mean), cast("tuple[float, ...]", self.std)
        if self.channels_first and image.ndim == 3:
            image = image.transpose(1, 2, 0)
        channels = 1 if image.ndim == 2 else image.shape[2]
        if len(mean) not in (1, channels):
            axes = "height, width, channels" if image.ndim == 3 else "height, width"
            raise ArgumentError(
                f"Normalize got an image with {channels} channels ({axes} = {image.shape})",
                found=image.shape,
                expected=f"{len(mean)} channels, as mean and std have",
                cure="Pass as many numbers as channels, or channels_first=True for (C, H, W).",
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

    def native_step(self) -> ChangeValues:
        """Subtract and divide."""
        mean, std = cast("tuple[float, ...]", self.mean), cast("tuple[float, ...]", self.std)
        return ChangeValues(
            self,
            np.dtype(np.float32),
            takes="floats",
            channels=len(mean),
            channels_first=self.channels_first,
            formula=(mean, std),
        )

    def device_step(self) -> DeviceStep:
        """Subtract and divide."""
        mean, std = cast("tuple[float, ...]", self.mean), cast("tuple[float, ...]", self.std)
        return DeviceStep(self._on_device, {"mean": mean, "std": std})

    def _on_device(self, images: Any, _device: Device, mean: Any, std: Any) -> Any:
        if self.channels_first and images.ndim == 4:
            mean, std = mean[:, None, None], std[:, None, None]
        return (images - mean) / std

    def merged(self, steps: tuple[Step, ...]) -> tuple[Step, ...] | None:
        """Take in a `ToFloat` right before it."""
        before = steps[-1] if steps else None
        if isinstance(before, ToFloat) and before.mergeable:
            return *steps[:-1], _Standardize(self)
        return None

    def _cure_of_order(self, earlier: ImageTransform) -> str:
        return f"Put it before {earlier._name}, or pass Normalize(..., channels_first=True)."


@dataclass(frozen=True, slots=True)
class ToCHW(ImageTransform):
    """Put the channels first: ``(H, W, C)`` becomes ``(C, H, W)``, and ``(H, W)`` becomes ``(1, H, W)``.

    >>> import numpy as np
    >>> from headrace import ToCHW
    >>> ToCHW()(np.zeros((375, 500, 3))).shape, ToCHW()(np.zeros((28, 28))).shape
    ((3, 375, 500), (1, 28, 28))

    Any dtype. The result is a view: pixels are copied once, when the batch is put together.
    """

    draws = False
    mergeable = True
    defers = True
    gives: ClassVar[Layout] = "CHW"

    def transform_image(self, image: Image, rng: Any) -> Image:  # noqa: ARG002
        """Return a view with channels first."""
        if isinstance(image, Pending):
            return image.with_channels_first()
        return image[np.newaxis] if image.ndim == 2 else image.transpose(2, 0, 1)

    def native_step(self) -> ChannelsFirst:
        """Put channels first."""
        return ChannelsFirst()

    def device_step(self) -> DeviceStep:
        """Put channels first."""
        return DeviceStep(_channels_first)


@dataclass(frozen=True, slots=True)
class ToDtype(ImageTransform):
    """Round floats to "float16", "bfloat16" or "float32": the last step to batches of half the size.

    >>> import numpy as np
    >>> from headrace import Compose, Normalize, ToCHW, ToDtype, ToFloat
    >>> half = Compose(ToFloat(), Normalize(0.5, 0.25), ToCHW(), ToDtype("float16"))
    >>> half(np.full((2, 2, 3), 255, np.uint8))[0]
    array([[2., 2.],
           [2., 2.]], dtype=float16)

    ``dtype`` is one of these names, or a NumPy dtype of that name. bfloat16 has the range of float32 and 8 bits of
    precision; it needs ml_dtypes (extra ``bfloat16``). float16 has 11 bits, and ends at 65504.

    Takes floats, channels first or last. Values are rounded to the nearest one; of two as near, to that whose last
    bit is 0. float64 becomes float32 first, then bfloat16. Values that are too large become infinity; infinity and
    NaN stay; neither causes a warning. An image of that dtype is returned as it is.

    Raises ArgumentError for another dtype, and for images of whole numbers, which need `ToFloat` first;
    MissingDependency for bfloat16 without ml_dtypes.
    """

    draws = False
    takes: ClassVar[Layout] = "any"
    dtype: npt.DTypeLike

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", _float_name(self.dtype))

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The dtype as NumPy has it."""
        return _dtype_named(cast("str", self.dtype))

    def transform_image(self, image: Image, rng: Any) -> Image:  # noqa: ARG002
        """Return the image rounded."""
        dtype = self.numpy_dtype
        if image.dtype == dtype:
            return image
        if floats.kind(image.dtype) != "f":
            raise _whole_numbers("ToDtype", image)
        rounded = memory.empty(image.shape, dtype)
        with np.errstate(all="ignore"):
            rounded[...] = image
        return rounded

    def native_step(self) -> ChangeValues:
        """Round."""
        return ChangeValues(self, self.numpy_dtype, takes="floats", rounds=True)

    def device_step(self) -> DeviceStep:
        """Round."""
        return DeviceStep(self._on_device)

    def _on_device(self, images: Any, device: Device) -> Any:
        return device.cast(images, self.numpy_dtype)

    def merged(self, steps: tuple[Step, ...]) -> tuple[Step, ...] | None:
        """Take in `ToFloat` and `Normalize`, behind which there may be a `ToCHW`: values know no places."""
        last = steps[-1] if steps else None
        at = -2 if isinstance(last, ToCHW) and last.mergeable else -1
        before = steps[at] if len(steps) >= -at else None
        if isinstance(before, _Standardize) and before.rounded is None:
            return *steps[:at], _Standardize(before.normalize, self), *steps[len(steps) + at + 1 :]
        return None


@dataclass(frozen=True, slots=True)
class _Standardize(ImageTransform):
    """`ToFloat`, `Normalize` and perhaps `ToDtype` with the same result in one step.

    A second array of floats costs more than the arithmetic. A byte has 256 values: a table of them has, to the last
    bit, what would have been computed.
    """

    draws = False
    defers = True
    normalize: Normalize
    rounded: ToDtype | None = None

    def transform_image(self, image: Image, rng: Any) -> Image:  # noqa: ARG002
        """Return the image as the transforms leave it, one after the other."""
        if image.dtype == np.uint8 and image.ndim == 3 and not self.normalize.channels_first:
            if isinstance(image, Pending):
                _table(self, image.shape[2])  # refuses other channels
                return image.valued(self._values)
            return geometry.look_up(image, _table(self, image.shape[2]))
        return self._computed(done(image))

    @property
    def _values(self) -> tuple[ChangeValues, ...]:
        steps = (_TO_FLOAT.native_step(), self.normalize.native_step())
        return steps if self.rounded is None else (*steps, self.rounded.native_step())

    def unpacked(self) -> tuple[ImageTransform, ...]:
        """Return what it does in one step."""
        return (_TO_FLOAT, self.normalize) if self.rounded is None else (_TO_FLOAT, self.normalize, self.rounded)

    def _computed(self, image: Image) -> Image:
        scaled = _TO_FLOAT.transform_image(image, None)
        normal = self.normalize._normalize(scaled, own=scaled is not image)
        return normal if self.rounded is None else self.rounded.transform_image(normal, None)

    @property
    def _name(self) -> str:
        return "ToFloat"


_TO_FLOAT = ToFloat()


@lru_cache(maxsize=64)
def _table(step: _Standardize, channels: int) -> Image:
    """Return what each of the 256 values of a byte becomes in each channel: (1, 256, C)."""
    values: Image = np.repeat(np.arange(256, dtype=np.uint8)[np.newaxis, :, np.newaxis], channels, axis=2)
    return step._computed(values)


@lru_cache(maxsize=64)
def _tiled(values: tuple[float, ...], times: int) -> Row:
    row = np.tile(np.array(values, dtype=np.float32), times)
    row.setflags(write=False)
    return row


def _divided(images: Any, device: Device) -> Any:
    most = {"uint8": 255, "uint16": 65535}.get(device.dtype(images), 1)
    return device.cast(images, np.dtype(np.float32)) / most


def _channels_first(images: Any, device: Device) -> Any:
    return device.channels_first(images)


def _whole_numbers(name: str, image: Image) -> ArgumentError:
    cure = f"Put ToFloat() before {name}."
    return ArgumentError(f"{name} got an image of {image.dtype}", found=image.dtype.name, expected="floats", cure=cure)


def _float_name(dtype: object) -> str:
    if isinstance(dtype, str) and dtype == "bfloat16":
        return floats.bfloat16().name  # raises where its library is not installed
    try:
        found = np.dtype(cast("npt.DTypeLike", dtype)) if dtype is not None else None
    except (TypeError, ValueError):
        found = None
    if found is None or (found not in (np.float16, np.float32) and not floats.is_bfloat16(found)):
        expected = '"float16", "bfloat16" or "float32"'
        raise refused("ToDtype: dtype", dtype, expected, "Pass one of these names.")
    return found.name


@cache
def _dtype_named(name: str) -> np.dtype[Any]:
    return floats.bfloat16() if name == "bfloat16" else np.dtype(name)
