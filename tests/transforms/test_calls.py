"""Image transforms as their users construct and call them."""

from __future__ import annotations

import dataclasses
import math
import pickle
from collections import OrderedDict
from types import MappingProxyType

import ml_dtypes
import numpy as np
import pytest
from PIL import Image

from headrace import transforms
from headrace.context import seeds
from headrace.errors import ArgumentError
from headrace.transforms import (
    Boxes,
    CenterCrop,
    Compose,
    FiveCrop,
    Mask,
    MultiCrop,
    Normalize,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomResolution,
    Resize,
    TenCrop,
    ToCHW,
    ToDtype,
    ToFloat,
)
from tests.transforms.samples import FIXED, MEAN, RANDOM, STD, Pair, Row, Unasked, image_of_noise, input_of


@pytest.mark.parametrize("transform", [*RANDOM, *FIXED], ids=repr)
def test_every_form_of_sample_gets_the_same_pixels(transform):
    """An array alone, first in a tuple or list, or under "image": the rest passes through, the type stays."""
    image = input_of(transform)
    expected = transform(image, np.random.default_rng(9))

    def made(sample):
        return transform(sample, np.random.default_rng(9))

    for sample in ((image, 3), [image, 3], Pair(image, 3), Row((image, 3))):
        out = made(sample)
        assert type(out) is type(sample)
        assert out[1] == 3
        np.testing.assert_array_equal(out[0], expected)
    for sample in ({"image": image, "label": 3}, OrderedDict(image=image, label=3)):
        out = made(sample)
        assert type(out) is type(sample)
        assert out["label"] == 3
        np.testing.assert_array_equal(out["image"], expected)
        assert sample["image"] is image
    out = made(MappingProxyType({"image": image, "label": 3}))
    assert out["label"] == 3
    np.testing.assert_array_equal(out["image"], expected)


@pytest.mark.parametrize("transform", RANDOM, ids=repr)
def test_the_same_generator_gives_the_same_image(transform):
    """A transform draws from the generator given, and else from the sample's own."""
    here = seeds.Here(seeds.key_of(1), epoch=2, position=3)
    with seeds.at(here):
        own = transform(image_of_noise())
    given = transform(image_of_noise(), seeds.generator(seeds.key_of(1), seeds.Purpose.SAMPLE, 2, 3))
    np.testing.assert_array_equal(own, given)
    several = [transform(image_of_noise(), np.random.default_rng(seed)) for seed in range(20)]
    assert any(not np.array_equal(several[0], other) for other in several)


@pytest.mark.parametrize("transform", FIXED, ids=repr)
def test_what_is_not_random_never_asks_for_a_generator(transform):
    """Neither the generator given nor the sample's own is touched, which is not even made."""
    here = seeds.Here(seeds.key_of(1), epoch=0)
    with seeds.at(here):
        transform(input_of(transform))
        Compose(transform, lambda image: image)(input_of(transform))
    assert here._generator is None
    transform(input_of(transform), Unasked())


def test_outside_a_loader_random_transforms_work_too():
    """With no generator and no place in the data, they draw from a fresh one."""
    assert RandomResizedCrop(16)(image_of_noise()).shape == (16, 16, 3)


@pytest.mark.parametrize("transform", [*RANDOM, *FIXED], ids=repr)
@pytest.mark.parametrize(
    ("sample", "found"),
    [
        (None, "a NoneType"),
        ("a.jpg", "a str"),
        ((), "a tuple"),
        (("a.jpg", 3), "a str"),
        ([3, image_of_noise()], "an int"),
        ({"photo": 3}, r"a dict; .*its keys are \['photo'\]"),
        ({"image": None}, "a NoneType"),
        (Image.new("RGB", (4, 4)), r"a PIL\.Image\.Image; .*np\.asarray\(image\.convert\('RGB'\)\)"),
    ],
    ids=repr,
)
def test_what_is_no_image_is_refused(transform, sample, found):
    """The error names the transform, what it takes and the type that it got."""
    with pytest.raises(ArgumentError, match=rf"^{type(transform).__name__} got {found}"):
        transform(sample)


@pytest.mark.parametrize(
    "transform",
    [
        FiveCrop(4, ToFloat(), ToCHW()),
        TenCrop(4, vertical_flip=True),
        MultiCrop((2, RandomResizedCrop(8)), (1, [Resize(4), ToFloat()])),
        RandomResolution([4, (6, 8)], ToFloat(), antialias=False),
        Compose(RandomCrop(4), ToFloat(), kinds={"image": "image", "map": Mask(255), 7: {"where": Boxes("xywh")}}),
        Compose(Resize(4), kinds=("image", "labels")),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_a_transform_with_several_arguments_or_kinds_is_written_as_the_call_that_makes_it(transform):
    """List what it takes one by one, and the kinds as they were declared."""
    assert eval(repr(transform), vars(transforms)) == transform
    assert repr(eval(repr(transform), vars(transforms))) == repr(transform)


@pytest.mark.parametrize("transform", [*RANDOM, *FIXED], ids=repr)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4, 3), (0, 5, 3), (5, 0), (5, 5, 0)], ids=repr)
def test_a_shape_that_no_image_has_is_refused(transform, shape):
    """The error names the transform and the shape."""
    with pytest.raises(ArgumentError) as error:
        transform(np.zeros(shape, np.float32))
    begins = f"{type(transform).__name__} got an array of shape {shape}; expected an image of shape (H, W) or (H, W, C)"
    assert str(error.value).startswith(begins)
    assert error.value.found == shape


@pytest.mark.parametrize(
    "transform", [*RANDOM, *FIXED, Compose(*RANDOM[1:], ToFloat(), Normalize(MEAN, STD))], ids=repr
)
def test_transforms_are_values(transform):
    """They cannot be changed; equal ones are equal, hash alike, print as they are written, and pickle."""
    name = dataclasses.fields(transform)[0].name if dataclasses.fields(transform) else "p"
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
        setattr(transform, name, 3)
    assert not hasattr(transform, "__dict__")
    again = pickle.loads(pickle.dumps(transform))
    assert again == transform
    assert hash(again) == hash(transform)
    assert eval(repr(transform), vars(transforms)) == transform
    image = input_of(transform)
    np.testing.assert_array_equal(again(image, np.random.default_rng(0)), transform(image, np.random.default_rng(0)))


def test_arguments_of_other_types_become_the_same_transform():
    """Lists, NumPy's numbers and one size for two mean what tuples and plain numbers mean."""
    assert RandomCrop(np.int64(8), padding=[1, 2]) == RandomCrop((8, 8), padding=(1, 2, 1, 2))
    assert Resize([3, 4]) == Resize((3, 4)) != Resize(3)
    assert Normalize(np.array([0.5, 0.25]), [1, 2]) == Normalize((0.5, 0.25), (1.0, 2.0))
    assert RandomResizedCrop(8, scale=[0.5, 1]) == RandomResizedCrop((8, 8), scale=(0.5, 1.0))
    assert RandomHorizontalFlip(1) == RandomHorizontalFlip(np.float32(1))
    assert ToDtype("half") == ToDtype(np.float16) == ToDtype(np.dtype("<f2")) == ToDtype("float16")
    assert ToDtype(ml_dtypes.bfloat16) == ToDtype(np.dtype(ml_dtypes.bfloat16)) == ToDtype("bfloat16")
    assert ToDtype(np.float32) == ToDtype("float32")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Resize(0), r"Resize: size must be .*got 0"),
        (lambda: Resize(size=True), r"Resize: size must be .*got True"),
        (lambda: Resize(2.5), r"Resize: size must be .*got 2\.5"),
        (lambda: Resize("224"), r"Resize: size must be .*got '224'"),
        (lambda: Resize((1, 2, 3)), r"Resize: size must be .*got \(1, 2, 3\)"),
        (lambda: Resize((224,)), r"Resize: size must be .*got \(224,\)"),
        (lambda: Resize(8, interpolation="linear"), r"Resize: interpolation must be .*'bilinear'.*got 'linear'"),
        (lambda: Resize(8, antialias=None), r"antialias should be a boolean value.*got antialias=None"),
        (lambda: Resize(8, interpolation="lanczos", antialias=False), ".* got interpolation='lanczos' with"),
        (lambda: CenterCrop(-1), r"CenterCrop: size must be .*got -1"),
        (lambda: CenterCrop(None), r"CenterCrop: size must be .*got None"),
        (lambda: RandomCrop((8, 0)), r"RandomCrop: size must be .*got 0"),
        (lambda: RandomCrop(8, padding=(1, 2, 3)), r"RandomCrop: padding must be .*got \(1, 2, 3\)"),
        (lambda: RandomCrop(8, padding=-1), r"RandomCrop: padding must be .*got -1"),
        (lambda: RandomCrop(8, mode="mirror"), r"RandomCrop: mode must be .*one of .*'reflect'.*got 'mirror'"),
        (lambda: RandomCrop(8, fill="black"), r"RandomCrop: fill must be .*got 'black'"),
        (lambda: RandomResizedCrop(0), r"RandomResizedCrop: size must be .*got 0"),
        (
            lambda: RandomResizedCrop(8, scale=(1, 0.5)),
            r"RandomResizedCrop: scale must be .*got \(1, 0\.5\).*Put the smaller",
        ),
        (lambda: RandomResizedCrop(8, scale=(0, 1)), r"RandomResizedCrop: scale must be .*above 0.*got \(0, 1\)"),
        (
            lambda: RandomResizedCrop(8, scale=(0.5, 2)),
            r"RandomResizedCrop: scale must be .*at most 1.*got \(0\.5, 2\.0\)",
        ),
        (lambda: RandomResizedCrop(8, scale=0.5), r"RandomResizedCrop: scale must be .*got 0\.5"),
        (lambda: RandomResizedCrop(8, scale=(0.5, math.nan)), r"RandomResizedCrop: scale must be .*got nan"),
        (
            lambda: RandomResizedCrop(8, ratio=(2, 1)),
            r"RandomResizedCrop: ratio must be .*got \(2, 1\).*Put the smaller",
        ),
        (lambda: RandomResizedCrop(8, interpolation="area"), r"RandomResizedCrop: interpolation must be .*got 'area'"),
        (
            lambda: RandomResizedCrop(8, antialias=1),
            r"antialias should be a boolean value.*got antialias=1",
        ),
        (lambda: RandomHorizontalFlip(1.5), r"RandomHorizontalFlip: p must be .*got 1\.5"),
        (lambda: RandomHorizontalFlip(-0.1), r"RandomHorizontalFlip: p must be .*got -0\.1"),
        (lambda: RandomHorizontalFlip("half"), r"RandomHorizontalFlip: p must be .*got 'half'"),
        (lambda: Pad(()), r"Pad: padding must be .*got \(\)"),
        (lambda: Pad(1.5), r"Pad: padding must be .*got 1\.5"),
        (lambda: Pad(1, mode="wrap"), r"Pad: mode must be .*got 'wrap'"),
        (lambda: Pad(1, fill=None), r"Pad: fill must be .*got None"),
        (lambda: Normalize((0.5,) * 3, (0.5,) * 4), "Normalize got 3 numbers in mean and 4 in std; expected"),
        (lambda: Normalize(0, (1, 0)), r"Normalize: std must be numbers other than 0.*got \(1, 0\)"),
        (lambda: Normalize(0, 1e-60), r"Normalize: std must be numbers other than 0.*got 1e-60"),
        (lambda: Normalize((), 1), r"Normalize: mean must be .*got \(\)"),
        (lambda: Normalize(1e60, 1), r"Normalize: mean must be .*numbers within float32.*got 1e\+60"),
        (lambda: Normalize("0.5", 1), r"Normalize: mean must be .*got '0.5'"),
        (lambda: Normalize(0, math.inf), r"Normalize: std must be .*got inf"),
        (lambda: ToDtype("float64"), r'ToDtype: dtype must be .*"float16", "bfloat16" or "float32".*got .float64.'),
        (lambda: ToDtype("bfloat"), r"ToDtype: dtype must be .*got 'bfloat'"),
        (lambda: ToDtype(np.uint8), r"ToDtype: dtype must be .*got <class 'numpy.uint8'>"),
        (lambda: ToDtype(np.dtype(">f2")), r"ToDtype: dtype must be .*got dtype.*"),
        (lambda: ToDtype(None), r"ToDtype: dtype must be .*got None"),
        (lambda: ToDtype(2), r"ToDtype: dtype must be .*got 2"),
    ],
)
def test_a_bad_argument_is_named_at_the_door(make, message):
    """The error says which transform, which argument and what was given, before any image is seen."""
    with pytest.raises(ArgumentError, match=f"^{message}"):
        make()


@pytest.mark.parametrize(
    ("transform", "image", "message"),
    [
        (RandomCrop(64), image_of_noise(), "RandomCrop of 64 x 64 .*image of 40 x 50.*pad_if_needed=True"),
        (RandomCrop(50, padding=(0, 4)), image_of_noise(), "RandomCrop of 50 x 50 .*image of 40 x 50"),
        (RandomCrop(8, padding=60, mode="reflect"), image_of_noise(), "padding of 60 .*only 39 to mirror"),
        (Pad(40, mode="reflect"), image_of_noise(), "padding of 40 .*only 39 to mirror"),
        (ToFloat(), image_of_noise().astype(np.int64), "ToFloat got an image of int64; expected uint8"),
        (Normalize(MEAN, STD), image_of_noise(), r"uint8; expected floats\. Put ToFloat\(\) before Normalize"),
        (
            ToDtype("float16"),
            image_of_noise(),
            r"^ToDtype got an image of uint8; expected floats\. Put ToFloat\(\) before ToDtype",
        ),
        (ToDtype("bfloat16"), image_of_noise() > 9, r"bool; expected floats\. Put ToFloat\(\) before ToDtype"),
        (Normalize(MEAN, STD), np.zeros((3, 40, 50), np.float32), "with 50 channels.*expected 3 .*channels_first=True"),
        (Normalize(MEAN, STD), np.zeros((40, 50), np.float32), "image with 1 channels.*expected 3 channels"),
        (Normalize(MEAN, STD, channels_first=True), np.zeros((40, 50, 3), np.float32), "with 40 channels.*expected 3 "),
    ],
)
def test_a_image_that_does_not_fit_is_refused_with_the_cure(transform, image, message):
    """The error says what the image is and what to do."""
    with pytest.raises(ArgumentError, match=message):
        transform(image)
