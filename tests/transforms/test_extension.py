"""Transforms of third parties: what they get for defining `apply` or `transform_image`."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import headrace
from headrace import ArrayDataset, DataLoader, ImageFiles
from headrace.errors import ArgumentError
from headrace.transforms import (
    CenterCrop,
    ChangeValues,
    Compose,
    ImageTransform,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToCHW,
    ToFloat,
    Transform,
)
from headrace.transforms.base import may_draw
from headrace.transforms.image_transform import finishing
from tests.native.stepwise import MISSING, WHY, Stepwise, assert_equal, batches, both
from tests.transforms.samples import image_of_noise

DEMO = Path(headrace.__file__).parent / "demo"
needs_extension = pytest.mark.skipif(MISSING, reason=WHY)


@dataclass(frozen=True)
class Blur(ImageTransform):
    """Blur as strongly as is drawn; runs step by step."""

    most: float = 2.0
    also: str = "none"

    def transform_image(self, image: Any, rng: Any) -> Any:
        weight = self.most * rng.random()
        before, after = np.roll(image, 1, axis=1), np.roll(image, -1, axis=1)
        return ((image + weight * before + weight * after) / (1 + 2 * weight)).astype(image.dtype)


class Scale(Transform):
    """Multiply any number; a plain class with attributes."""

    draws = False

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self._hidden = 0

    def apply(self, sample: Any, rng: Any) -> Any:
        assert rng is None
        return sample * self.factor


@dataclass(frozen=True)
class Thumbnail(ImageTransform):
    """Do what one of ours does, by the native extension too."""

    geometric = True
    side: int

    def transform_image(self, image: Any, rng: Any) -> Any:
        return RandomCrop(self.side)(image, rng)

    def native_step(self) -> Any:
        return RandomCrop(self.side).native_step()


@dataclass(frozen=True)
class Gamma(ImageTransform):
    """Bend the values of bytes; the native extension looks them up."""

    draws = False
    power: float

    def transform_image(self, image: Any, rng: Any) -> Any:
        return ((image / 255) ** self.power).astype(np.float32)

    def native_step(self) -> Any:
        return ChangeValues(self, np.dtype(np.float32))


class Sharpened(Resize):
    """Override what `Resize` does, and nothing that describes it."""

    __slots__ = ()

    def transform_image(self, image: Any, rng: Any) -> Any:
        return 255 - super().transform_image(image, rng)


class Called(RandomHorizontalFlip):
    """Override the call alone."""

    __slots__ = ()

    def __call__(self, sample: Any, rng: Any = None) -> Any:
        return 255 - super().__call__(sample, rng)


class OtherBox(RandomCrop):
    """Override a part of what is done."""

    __slots__ = ()

    def box(self, height: int, width: int, rng: Any = None) -> Any:
        _, _, rows, columns = super().box(height, width, rng)
        return 0, 0, rows, columns


class Inverting:
    """A mixin that knows nothing of transforms."""

    def transform_image(self, image: Any, rng: Any) -> Any:
        return 255 - super().transform_image(image, rng)  # type: ignore[misc]


class Mixed(Inverting, Resize):
    """Get another way to transform images from a mixin."""


class Smaller(Resize):
    """Override no method of what is done: only settings."""

    def __init__(self) -> None:
        Resize.__init__(self, (20, 20))


class Described(Sharpened):
    """Describe again what was overridden."""

    draws = False

    def native_step(self) -> Any:
        return Resize(self.size).native_step()


@dataclass(frozen=True, slots=True)
class Brighter(Resize):
    """Override in a dataclass with slots: Python builds the class twice."""

    by: int = 5

    def transform_image(self, image: Any, rng: Any) -> Any:
        return np.minimum(Resize.transform_image(self, image, rng), 250) + np.uint8(self.by)


class OwnFloat(ToFloat):
    """Another range."""

    __slots__ = ()

    def transform_image(self, image: Any, rng: Any) -> Any:
        return super().transform_image(image, rng) * np.float32(2)


class Twice(Compose):
    """Apply the chain twice."""

    def __call__(self, sample: Any, rng: Any = None) -> Any:
        return super().__call__(super().__call__(sample, rng), rng)


class Untouched(Transform):
    """Return any sample as it is."""

    def apply(self, sample: Any, rng: Any) -> Any:
        return sample


def photos(**options: Any) -> ImageFiles:
    return ImageFiles(sorted(map(str, DEMO.glob("*.jpg"))), **options)


def arrays(channels: int = 3) -> ArrayDataset:
    return ArrayDataset(np.random.default_rng(0).integers(0, 256, (12, 30, 40, channels), np.uint8))


def test_it_draws_by_place() -> None:
    """Give the same batches inline, on threads and in processes; others in another epoch."""
    data = arrays().map(RandomCrop(24), Blur(), RandomHorizontalFlip())
    inline = batches(data)
    assert_equal(inline, batches(data, num_workers=2))
    assert_equal(inline, batches(data, num_workers=1, backend="processes"))
    loader = DataLoader(data, 4, seed=0)
    first, second = [np.stack([*loader][:1]) for _ in range(2)]
    assert not np.array_equal(first, second)


def test_it_draws_from_the_generator_that_it_is_given() -> None:
    """Take a generator as our own do, and else one that is fresh outside a loader."""
    image = image_of_noise()
    once, again = (Blur()(image, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    assert Blur()(image).shape == image.shape
    assert Blur()((image, 7))[1] == 7


def test_lineage_shows_its_settings_and_its_draws() -> None:
    """Name settings that are not the usual ones of a dataclass, and all attributes of a plain class."""
    loader = DataLoader(arrays().map(Blur(0.5), Scale(2)), 4, seed=0)
    blur, scale = loader.lineage(epoch=0, step=0, index=1).steps
    assert (blur.name, scale.name) == ("Blur(0.5)", "Scale(factor=2)")
    assert [draw.call for draw in blur.draws] == ["random()"]
    assert (blur.parameters, scale.draws) == ({}, ())
    assert repr(Scale(2)) == "Scale(factor=2)"
    assert repr(Blur()) == "Blur(most=2.0, also='none')"


def test_it_names_what_it_draws_if_it_says_so() -> None:
    """Show in a lineage what `drawn` returns."""

    class Shift(Transform):
        def apply(self, sample: Any, rng: Any) -> Any:
            return sample + rng.random()

        def drawn(self, sample: Any, rng: Any) -> dict[str, Any]:
            return {"shift": rng.random()}

    data = ArrayDataset(np.zeros(4)).map(Shift())
    loader = DataLoader(data, 4, seed=0)
    (step,) = loader.lineage(epoch=0, step=0, index=2).steps
    assert step.parameters == {"shift": next(iter(loader))[2]}


def test_what_comes_before_it_is_fused() -> None:
    """Fuse up to the first transform without a native step, and nothing behind it."""
    explained = headrace.explain(arrays().map(RandomCrop(24), RandomHorizontalFlip(), Blur(), ToFloat()))
    assert "the first 2 of its 4 steps fused" in explained
    assert "Blur                  step by step: it has no native step" in explained
    assert "ToFloat               step by step: it follows an unfused transform" in explained


@needs_extension
@pytest.mark.parametrize("chain", [(Blur(),), (Scale(1.0),), (Untouched(),)], ids=repr)
def test_what_is_fused_before_it_changes_nothing(chain: tuple[Any, ...]) -> None:
    """Give the batches of the steps."""
    fused = arrays().map(RandomCrop(24), RandomHorizontalFlip(), *chain, ToFloat())
    slow = Stepwise(arrays(), RandomCrop(24), RandomHorizontalFlip(), *chain, ToFloat())
    assert_equal(batches(fused), batches(slow))


@needs_extension
@pytest.mark.parametrize("last", [(), (ToFloat(), Normalize(0.5, 0.25), ToCHW())], ids=["bytes", "floats"])
def test_a_native_step_of_ours_makes_it_native(last: tuple[Any, ...]) -> None:
    """Run the extension for a transform that names the step of one of ours: the same batches."""
    fused, slow = both(arrays(), Thumbnail(20), *last)
    assert headrace.explain(fused).startswith("Mapped: all fused")
    assert_equal(batches(fused), batches(slow))


@needs_extension
@pytest.mark.parametrize("after", [(), (Normalize((0.1, 0.2, 0.3), 0.5), ToCHW())], ids=["alone", "normalized"])
def test_a_table_of_values_makes_it_native(after: tuple[Any, ...]) -> None:
    """Look up what a transform makes of each byte, in the extension: the same batches."""
    fused, slow = both(arrays(), RandomCrop(20), Gamma(2.2), *after)
    assert headrace.explain(fused).startswith("Mapped: all fused")
    assert_equal(batches(fused), batches(slow))


@pytest.mark.parametrize(
    "transform",
    [Sharpened((20, 20)), Called(1.0), OtherBox(20), Mixed((20, 20)), Brighter((20, 20), by=3)],
    ids=lambda transform: type(transform).__name__,
)
def test_a_subclass_that_does_something_else_is_described_no_longer(transform: Any) -> None:
    """Lose the native step, the parameters of a lineage and the quick answer whether it draws."""
    assert transform.native_step() is None
    assert transform.scaling_step() is None
    assert may_draw(transform)
    explained = headrace.explain(arrays().map(CenterCrop(24), transform))
    assert "the first of its 2 steps fused" in explained
    slow = Stepwise(arrays(), CenterCrop(24), transform)
    assert_equal(batches(arrays().map(CenterCrop(24), transform)), batches(slow))


def test_a_subclass_that_changes_settings_keeps_its_description() -> None:
    """Keep the native step, and smaller decoding, where no method of what is done is overridden."""
    assert Smaller().native_step() == Resize((20, 20)).native_step()
    assert not may_draw(Smaller())
    assert headrace.explain(photos().map(Smaller())).startswith("Mapped: all fused")


def test_a_subclass_may_describe_itself_again() -> None:
    """Trust what a class says of itself, at or below the class that changed what is done."""
    assert Described(20).native_step() == Resize(20).native_step()
    assert not may_draw(Described(20))
    assert Described(20).scaling_step() is None


def test_a_subclass_of_a_value_transform_is_not_merged_away() -> None:
    """Apply a subclass of ToFloat before Normalize as it is."""
    image = image_of_noise()
    composed = Compose(OwnFloat(), Normalize(0.5, 0.25))(image)
    np.testing.assert_array_equal(composed, Normalize(0.5, 0.25)(OwnFloat()(image)))
    with pytest.raises(ArgumentError, match="a device cannot do OwnFloat"):
        finishing([OwnFloat()])


def test_a_subclass_of_compose_is_not_flattened() -> None:
    """Call a subclass of Compose that overrides the call as one step."""
    twice = Twice(Scale(3))
    assert Compose(twice, Scale(2))(1) == 18
    assert len(Compose(Compose(Scale(3), Scale(3)), Scale(2)).transforms) == 3


def test_it_pickles_and_crosses_to_a_process() -> None:
    """Travel with its settings."""
    chain = pickle.loads(pickle.dumps(Compose(Blur(0.3), Scale(2), Thumbnail(8))))
    assert chain.transforms[0] == Blur(0.3)
    assert chain.transforms[1].factor == 2
    data = arrays().map(Thumbnail(8), Blur(0.3))
    assert_equal(batches(data), batches(data, num_workers=1, backend="processes"))


def test_a_class_without_apply_says_what_it_needs() -> None:
    """Raise with the method to define."""

    class Empty(Transform):
        pass

    class EmptyImage(ImageTransform):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty must define apply\(self, sample, rng\)"):
        Empty()(3)
    with pytest.raises(NotImplementedError, match=r"EmptyImage must define transform_image\(self, image, rng\)"):
        EmptyImage()(image_of_noise())


def test_a_call_of_one_argument_is_called_with_one() -> None:
    """Accept a subclass whose own call takes the sample alone."""

    class Alone(Transform):
        def __call__(self, sample: Any) -> Any:  # type: ignore[override]
            return sample + 1

    assert Compose(Alone(), Alone())(1) == 3


def test_the_order_of_axes_is_checked_for_it() -> None:
    """Refuse channels first where a transform of images takes them last, unless it says otherwise."""

    class Either(Blur):
        takes: ClassVar[Any] = "any"

    class Last(ImageTransform):
        takes: ClassVar[Any] = "CHW"
        gives: ClassVar[Any] = "HWC"

    with pytest.raises(ArgumentError, match="Blur follows ToCHW, which puts channels first; expected channels last"):
        Compose(ToCHW(), Blur())
    assert len(Compose(ToCHW(), Either(), ToFloat()).transforms) == 3
    assert len(Compose(ToCHW(), Last(), Blur()).transforms) == 3
    assert len(Compose(ToCHW(), Untouched(), Blur()).transforms) == 3


def test_moving_pixels_is_refused_beside_masks() -> None:
    """Refuse a sample with a mask where a transform says that it is geometric."""
    with pytest.raises(ArgumentError, match=r"Thumbnail would move the image's pixels.*mask"):
        Thumbnail(8)({"image": image_of_noise(), "mask": np.zeros((40, 50))})
    assert Blur()({"image": image_of_noise(), "mask": np.zeros((40, 50))}).keys() == {"image", "mask"}


def test_scaled_decoding_is_for_what_scales_first() -> None:
    """Decode JPEG files smaller for a Resize, and in full for a subclass that does something else."""
    data = photos(scaled_decode=True)
    assert_equal(batches(data.map(Sharpened((20, 20)))), batches(photos().map(Sharpened((20, 20)))))
    assert data.map(RandomResizedCrop(20))._scaling == RandomResizedCrop(20)
    assert data.map(Resize(20, interpolation="nearest"))._scaling is None
    assert data.map(abs)._scaling is None
