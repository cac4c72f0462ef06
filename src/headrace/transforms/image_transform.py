"""Transforms of the image in a sample, whatever else the sample holds: `ImageTransform`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar, cast

import numpy as np

from headrace.checks import article, shown
from headrace.errors import ArgumentError
from headrace.image import sample_fields
from headrace.image.carrying import carried
from headrace.image.kinds import IMAGE, LABEL, NONE_DECLARED, declared
from headrace.storage.mapped_samples import in_memory
from headrace.transforms.base import Transform
from headrace.transforms.together import together

if TYPE_CHECKING:
    from headrace.image.geometry import Box, Image, Interpolation
    from headrace.image.kinds import Declaration, Kinds
    from headrace.image.moves import Move
    from headrace.image.native_steps import NativeStep
    from headrace.image.sample_fields import Field, Path
    from headrace.transforms.base import Step

Sample = TypeVar("Sample")

Layout = Literal["HWC", "CHW", "any"]
"""The order of an image's axes: channels last, channels first, or either."""


CARRIED = ", or with a known or declared kind"
CURE_BY_KIND = (
    'Name it "mask" (an array, (H, W)), "masks" (N, H, W), "boxes" (N, 4) or "keypoints" (K, 2 or 3) in a dict, '
    "or declare it: "
    'Compose(..., kinds={"image": "image", "part": "mask"}). If the part has no places in the image, '
    'declare it as "other", or add it after the geometry.'
)
CURE_ALONE = (
    "It moves the image alone: use one that moves the whole sample, such as RandomAffine or RandAugment. "
    'If the part has no places in the image, declare it as "other": '
    'Compose(..., kinds={"image": "image", "part": "other"}).'
)
"""For transforms that move no other parts, whatever their kinds."""


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
    a mapping with one under "image", or a dataclass with that field. Further images that are declared
    (``Compose(..., kinds=...)``) get the same numbers from ``rng``. The rest of the sample passes through.

    A transform that moves pixels says ``geometric = True``: it moves the image alone, and refuses samples with masks or
    boxes. Ours move them too.

    Raises ArgumentError for a sample without an image; and, where ``geometric``, for one with parts that may have
    places in the image and no known kind: all but numbers, text, vectors of numbers and containers of these, and what
    has a name like "corners". What is under the key "label" is declared to have no such places.
    """

    __slots__ = ()
    geometric: ClassVar[bool] = False
    """Whether it moves pixels, so that a mask or boxes beside the image would no longer fit it."""
    carries: ClassVar[bool] = False
    """Whether it moves masks, boxes and keypoints with the image: by its ``move``."""
    takes: ClassVar[Layout] = "HWC"
    """The order of axes that it needs. `Compose` refuses one that takes channels last after `ToCHW`."""
    gives: ClassVar[Layout] = "any"
    """The order of axes that comes out; "any" is the order that went in."""
    scales: ClassVar[bool] = False
    """Whether it scales pixels, which the extension does several times quicker than Pillow, also by itself."""
    described: ClassVar[tuple[str, ...]] = (*Transform.described, "scales", "device_step", "scaling_step")

    if TYPE_CHECKING:

        def __call__(self, sample: Sample, rng: np.random.Generator | None = None) -> Sample:
            """Return the sample with its image transformed."""

    def apply(self, sample: Any, rng: Any) -> Any:
        """Return the sample with its image transformed."""
        return self.apply_to(sample, rng, NONE_DECLARED)

    def apply_to(self, sample: Any, rng: Any, kinds: Kinds) -> Any:
        """Return the sample with its image transformed, and with it all fields of a known or declared kind."""
        if isinstance(sample, np.ndarray):
            return self.transform_image(self._checked(sample), rng)
        if kinds is NONE_DECLARED:  # for small images, looking for fields would take longer than the transform
            key = sample_fields.only_image(sample)
            if key is not None:
                image = self.transform_image(self._checked(sample[key]), rng)
                return (image, *sample[1:]) if key == 0 else {**sample, key: image}
        fields = self.fields_of(sample, kinds)
        return sample_fields.replaced(sample, self.values_for(sample, fields, rng))

    def fields_of(self, sample: Any, kinds: Kinds) -> list[Field]:
        """Return the fields of a sample that have a kind, the image first; refuse a sample that has none."""
        fields = sample_fields.found(sample, kinds)
        if not fields:
            raise self._refusal(sample)
        self._check_declaration(sample, kinds, fields)
        return fields

    def values_for(self, sample: Any, fields: list[Field], rng: Any, *, known: bool = False) -> dict[Path, Any]:
        """Return the new values of a sample's fields, by their paths.

        ``known``: the rest of the sample is known to have no places in the image. Nothing else of it is looked at.
        """
        first, *others = fields
        if self.geometric and not (known and self.carries):
            self._check_targets(sample, fields)
        pixels = self._checked(first.value)
        if self.carries and others:
            size: tuple[int, int] = pixels.shape[:2]
            return carried(self._name, cast("Move", self.move_for(fields, size, rng)), fields, size)
        images = [field for field in others if field.kind is IMAGE]
        # The same numbers for each image: they are parts of one sample.
        generators = [copy.deepcopy(rng) for _ in images]
        values: dict[Path, Any] = {first.path: self.transform_image(pixels, rng)}
        for field, generator in zip(images, generators, strict=True):
            values[field.path] = self.transform_image(self._checked(field.value), generator)
        return values

    def drawn_for(self, sample: Any, rng: np.random.Generator, kinds: Kinds) -> dict[str, Any]:
        """Return what it draws for a sample whose fields have these kinds."""
        return self.drawn(sample_fields.found(sample, kinds)[0].value, rng)

    def transform_image(self, image: Image, rng: Any) -> Image:
        """Return the image transformed. ``rng`` is as for `Transform.apply`."""
        raise NotImplementedError(f"{type(self).__qualname__} must define transform_image(self, image, rng)")

    def check_image(self, image: Image) -> None:
        """Raise ArgumentError for an image that it cannot take: whether it is refused must not depend on a draw."""

    def move(self, height: int, width: int, rng: Any) -> Move | None:  # noqa: ARG002
        """Draw what happens to the pixels of a sample whose image has this size; None where it moves only the image."""
        return None

    def move_for(self, fields: Sequence[Field], size: tuple[int, int], rng: Any) -> Move | None:  # noqa: ARG002
        """Draw what happens to a sample with these fields, whose image has this size."""
        return self.move(*size, rng)

    def grouped(self, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        """Return the steps with groups in place of those whose pixels are made at once."""
        return together(steps)

    def with_kinds(self, kinds: Declaration) -> Transform:
        """Return this transform for samples whose fields have declared kinds."""
        return WithKinds(self, declared(kinds)) if type(self).apply is ImageTransform.apply else self

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
        self.check_image(image)
        return in_memory(image)

    def _check_declaration(self, sample: Any, kinds: Kinds, fields: list[Field]) -> None:
        """Refuse kinds that were declared for another sample: what they say would be passed over without a word."""
        what = sample_fields.misnamed(sample, kinds, fields) if kinds.fields else ""
        if what:
            raise ArgumentError(
                f"{self._name} got kinds that declare {what}",
                found=what,
                expected="kinds in the form of the sample, with its names",
                cure="Correct Compose(..., kinds={...}).",
            )

    def _check_targets(self, sample: Any, fields: list[Field]) -> None:
        """Refuse a sample with other parts that have places in its image, and would stay where they are."""
        image = fields[0].value
        if not isinstance(image, np.ndarray) or (isinstance(sample, tuple | list) and len(sample) == 1):
            return
        right = fields if self.carries else [fields[0], *(field for field in fields[1:] if field.kind is LABEL)]
        part = sample_fields.unknown_part(sample, right, image.shape[:2])
        if part:
            raise ArgumentError(
                f"{self._name} would move the image's pixels and leave the rest of the sample behind: {part}",
                found=part,
                expected="parts without places in the image, such as labels" + CARRIED * self.carries,
                cure=CURE_BY_KIND if self.carries else CURE_ALONE,
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


@dataclass(frozen=True, slots=True, repr=False)
class WithKinds(Transform):
    """A transform, for samples whose fields have declared kinds: what a `Compose` with kinds makes of it."""

    transform: Any
    kinds: Kinds

    @property
    def draws(self) -> bool:  # type: ignore[override]  # the transform decides
        """Whether the transform may draw."""
        return bool(self.transform.draws)

    @property
    def defers(self) -> bool:  # type: ignore[override]  # the transform decides
        """Whether the transform takes images whose pixels are made later."""
        return bool(self.transform.defers)

    def grouped(self, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        """Return the steps with groups in place of those whose pixels are made at once."""
        return together(steps)

    @property
    def takes(self) -> Layout:
        """The order of axes that the transform needs."""
        return cast("Layout", getattr(self.transform, "takes", "any"))

    @property
    def gives(self) -> Layout:
        """The order of axes that comes out of it."""
        return cast("Layout", getattr(self.transform, "gives", "any"))

    def apply(self, sample: Any, rng: Any) -> Any:
        """Return the sample transformed."""
        return self.transform.apply_to(sample, rng, self.kinds)

    def drawn(self, sample: Any, rng: np.random.Generator) -> dict[str, Any]:
        """Return what the transform draws."""
        return cast("dict[str, Any]", self.transform.drawn_for(sample, rng, self.kinds))

    def check_order(self, before: Sequence[Callable[..., Any]]) -> None:
        """Raise ArgumentError where the transform does."""
        self.transform.check_order([getattr(one, "transform", one) for one in before])

    def kinds_after(self, kinds: Any) -> Any:
        """Return the kinds that the transform leaves, where it changes them."""
        after = self.transform.kinds_after(self.kinds)
        return kinds if after == self.kinds else after

    def merged(self, steps: tuple[Step, ...]) -> tuple[Step, ...] | None:
        """Return the steps with the transform worked into those before it that have the same kinds."""
        own: list[Any] = []
        for step in reversed(steps):
            if not isinstance(step, WithKinds) or step.kinds != self.kinds:
                break
            own.insert(0, step.transform)
        both = self.transform.merged(tuple(own))
        if both is None:
            return None
        return (*steps[: len(steps) - len(own)], *(WithKinds(step, self.kinds) for step in both))

    def joined(self, before: Transform) -> Transform | None:
        """Return both as one, where the transforms are one and have the same kinds."""
        if not isinstance(before, WithKinds) or before.kinds != self.kinds:
            return None
        both = self.transform.joined(before.transform)
        return None if both is None else WithKinds(both, self.kinds)

    def unpacked(self) -> tuple[Callable[..., Any], ...]:
        """Return the parts of the transform, each with its kinds."""
        parts = self.transform.unpacked()
        return (self,) if len(parts) == 1 else tuple(WithKinds(part, self.kinds) for part in parts)

    def settings(self) -> dict[str, Any]:
        """Return the settings of the transform."""
        return cast("dict[str, Any]", self.transform.settings())

    def __repr__(self) -> str:
        return repr(self.transform)


def image_of(sample: Any) -> Image:
    """Return the array that an `ImageTransform` changes in a sample that it accepts.

    >>> image_of((np.zeros((4, 6)), 7)).shape
    (4, 6)
    """
    return cast("Image", sample_fields.found(sample)[0].value)


def size_of(sample: Any) -> tuple[int, int]:
    """Return the height and width of the image in a sample.

    >>> size_of((np.zeros((4, 6, 3)), 7))
    (4, 6)
    """
    height, width = image_of(sample).shape[:2]
    return height, width


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
