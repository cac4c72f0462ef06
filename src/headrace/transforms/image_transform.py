"""Transforms of the image in a sample, whatever else the sample holds: `ImageTransform`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar, cast

import numpy as np

from headrace.checks import article, shown
from headrace.errors import ArgumentError
from headrace.image.targets import spatial_part
from headrace.storage.mapped_samples import in_memory
from headrace.transforms.base import Transform

if TYPE_CHECKING:
    from headrace.image.geometry import Box, Image, Interpolation
    from headrace.image.native_steps import NativeStep

Sample = TypeVar("Sample")

Layout = Literal["HWC", "CHW", "any"]
"""The order of an image's axes: channels last, channels first, or either."""


class Scaling(Protocol):
    """A transform that scales a part of an image, antialiased: JPEG files may be decoded smaller for it."""

    @property
    def interpolation(self) -> Interpolation:
        """The filter."""

    def scaling(self, rows: int, columns: int, rng: np.random.Generator | None = None) -> tuple[Box, int, int]:
        """Return the part of an image of this height and width that it scales; and to which height and width."""

    def __call__(self, sample: Any, rng: np.random.Generator | None = None) -> Any:
        """Return the sample with its image scaled."""


class Device(Protocol):
    """What a framework does to a batch of images, ``(N, H, W)`` or ``(N, H, W, C)``, on a device."""

    def dtype(self, images: Any) -> str:
        """Return the name of the images' dtype."""

    def cast(self, images: Any, dtype: np.dtype[Any]) -> Any:
        """Return the images with another dtype."""

    def channels_first(self, images: Any) -> Any:
        """Return the images as ``(N, C, H, W)``."""


class DeviceStep(NamedTuple):
    """What a transform does to a whole batch on a device, with a framework's arrays."""

    run: Callable[..., Any]
    """Called ``run(images, device, **constants)`` with a `Device`; returns the images."""
    constants: Mapping[str, tuple[float, ...]] = {}
    """Numbers by name, which `run` gets as float32 arrays on the device."""


class ImageTransform(Transform):
    """Change the image of a sample: the base class of our image transforms, and of yours.

    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> from headrace.transforms import ImageTransform
    >>> @dataclass(frozen=True)
    ... class Invert(ImageTransform):
    ...     draws = False
    ...     def transform_image(self, image, rng):
    ...         return 255 - image
    >>> Invert()((np.full((2, 2), 55, np.uint8), "label"))[0][0, 0]
    np.uint8(200)

    A subclass defines ``transform_image(image, rng)``. The image is a NumPy array ``(H, W)`` or ``(H, W, C)``, no side
    of length 0, and not to be changed in place. A sample is an image; or a tuple or list whose first item is one; or
    a mapping with one under "image". The rest of the sample passes through.

    Raises ArgumentError for a sample without an image; and, where ``geometric``, for one with parts that may have
    places in the image, which would no longer fit it: all but numbers, text, vectors of numbers and containers of
    these, and what has a name like "boxes". What is under the key "label" is declared to have no such places.
    """

    __slots__ = ()
    geometric: ClassVar[bool] = False
    """Whether it moves pixels, so that a mask or boxes beside the image would no longer fit it."""
    takes: ClassVar[Layout] = "HWC"
    """The order of axes that it needs. `Compose` refuses one that takes channels last after `ToCHW`."""
    gives: ClassVar[Layout] = "any"
    """The order of axes that comes out; "any" is the order that went in."""
    described: ClassVar[tuple[str, ...]] = (*Transform.described, "device_step", "scaling_step")

    if TYPE_CHECKING:

        def __call__(self, sample: Sample, rng: np.random.Generator | None = None) -> Sample:
            """Return the sample with its image transformed."""

    def apply(self, sample: Any, rng: Any) -> Any:
        """Return the sample with its image transformed."""
        if isinstance(sample, np.ndarray):
            return self.transform_image(self._checked(sample), rng)
        if self.geometric:
            self._check_targets(sample)
        if isinstance(sample, tuple) and sample:
            items = (self.transform_image(self._checked(sample[0]), rng), *sample[1:])
            kind: Any = type(sample)
            return items if kind is tuple else getattr(kind, "_make", kind)(items)
        if isinstance(sample, list) and sample:
            return type(sample)([self.transform_image(self._checked(sample[0]), rng), *sample[1:]])
        if isinstance(sample, Mapping) and "image" in sample:
            image = self.transform_image(self._checked(sample["image"]), rng)
            if not isinstance(sample, MutableMapping):
                return {**sample, "image": image}
            changed = copy.copy(sample)
            changed["image"] = image
            return changed
        raise self._refusal(sample)

    def transform_image(self, image: Image, rng: Any) -> Image:
        """Return the image transformed. ``rng`` is as for `Transform.apply`."""
        raise NotImplementedError(f"{type(self).__qualname__} must define transform_image(self, image, rng)")

    def native_step(self) -> NativeStep | None:
        """Describe what the native extension does in place of ``apply``; None where it cannot.

        A transform that does what one of ours does may return that one's: ``return Resize(64).native_step()``. It
        must draw what that one draws, for the same numbers are used.
        """
        return None

    def device_step(self) -> DeviceStep | None:
        """Describe what a device does in place of ``apply``, to whole batches; None where it cannot."""
        return None

    def scaling_step(self) -> Scaling | None:
        """Return what scales the image, where JPEG files may be decoded smaller for it; None where not."""
        return None

    def check_order(self, before: Sequence[Callable[..., Any]]) -> None:
        """Raise ArgumentError where channels are first, and it would take them for rows without a word."""
        for one in reversed(before):
            if not isinstance(one, ImageTransform):
                return  # a user's function may put them anywhere
            if one.gives == "any":
                continue
            if one.gives == "CHW" and self.takes == "HWC":
                raise ArgumentError(
                    f"{self._name} follows {one._name}, which puts channels first",
                    found=one._name,
                    expected="channels last",
                    cure=self._cure_of_order(one),
                )
            return

    def _cure_of_order(self, earlier: ImageTransform) -> str:
        return f"Put it before {earlier._name}."

    @property
    def _name(self) -> str:
        """How errors call it."""
        return type(self).__name__

    def _checked(self, image: object) -> Image:
        if not isinstance(image, np.ndarray):
            raise self._refusal(image)
        if image.ndim not in (2, 3) or not image.size:
            raise ArgumentError(
                f"{self._name} got an array of shape {image.shape}",
                found=image.shape,
                expected="an image of shape (H, W) or (H, W, C), no side of length 0",
                cure="Pass one image at a time, and leave empty ones out.",
            )
        return in_memory(image)

    def _check_targets(self, sample: Any) -> None:
        """Refuse a sample whose other parts have places in its image, which would stay where they are."""
        mapped = isinstance(sample, Mapping)
        image = sample.get("image") if mapped else sample[0] if isinstance(sample, (tuple, list)) and sample else None
        if not isinstance(image, np.ndarray) or (not mapped and len(sample) == 1):
            return
        part = spatial_part(sample, image.shape[:2])
        if part:
            raise ArgumentError(
                f"{self._name} would move the image's pixels and leave the rest of the sample behind: {part}",
                found=part,
                expected="parts without places in the image, such as labels",
                cure=(
                    f"Map a function of your own that applies the geometry to the whole sample, or leave {self._name} "
                    'out. If the part has no places in the image, give samples as {"image": image, "label": part}, or '
                    "add it after the geometry."
                ),
            )

    def _refusal(self, found: object) -> ArgumentError:
        kind = type(found)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        if kind.__module__.partition(".")[0] == "PIL":
            cure = "Convert a Pillow image with np.asarray(image.convert('RGB'))."
        elif isinstance(found, Mapping):
            cure = f'Put the image under "image"; its keys are {shown(list(found))}.'
        else:
            cure = "Map a function before it that picks the image out of the sample."
        return ArgumentError(
            f"{self._name} got {article(name)}",
            found=name,
            expected='an image as a NumPy array, first in a tuple or list, or under "image" in a mapping',
            cure=cure,
        )


def image_of(sample: Any) -> Image:
    """Return the array that an `ImageTransform` changes in a sample that it accepts.

    >>> image_of((np.zeros((4, 6)), 7)).shape
    (4, 6)
    """
    if isinstance(sample, np.ndarray):
        return sample
    return cast("Image", sample["image"] if isinstance(sample, Mapping) else sample[0])


def finishing(transforms: Sequence[Callable[..., Any]]) -> tuple[DeviceStep, ...]:
    """Return what a device does for the transforms.

    >>> from headrace import Compose, ToCHW, ToFloat
    >>> len(finishing(Compose(ToFloat(), ToCHW()).transforms))
    2

    Raises ArgumentError for a function that a device cannot do.
    """
    steps = []
    for transform in transforms:
        step = transform.device_step() if isinstance(transform, ImageTransform) else None
        if step is None:
            raise ArgumentError(
                f"a device cannot do {shown(transform)}",
                found=transform,
                expected="ToFloat, Normalize, ToCHW, ToDtype, or a transform with a device_step()",
                cure="Map it over the dataset.",
            )
        steps.append(step)
    return tuple(steps)
