"""Transforms and functions, one after the other."""

from __future__ import annotations

import ast
import functools
import pickle
from pathlib import Path

import numpy as np
import pytest

from headrace.context import seeds
from headrace.datasets.views import Mapped
from headrace.errors import ArgumentError
from headrace.transforms import (
    CenterCrop,
    Compose,
    Normalize,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToCHW,
    ToFloat,
    base,
)
from tests.transforms.samples import MEAN, STD, image_of_noise


def test_compose_applies_in_order():
    """The first transform comes first."""
    image = image_of_noise()
    np.testing.assert_array_equal(Compose(CenterCrop(20), Pad(2))(image), Pad(2)(CenterCrop(20)(image)))
    assert Compose(CenterCrop(20), Pad(2))(image).shape == (24, 24, 3)
    assert Compose(Pad(2), CenterCrop(20))(image).shape == (20, 20, 3)


def test_compose_takes_a_list_and_flattens_others():
    """However they are given, the same transforms in the same order are the same Compose."""
    flat = Compose(Pad(1), CenterCrop(20), ToFloat(), ToCHW())
    assert Compose([Pad(1), CenterCrop(20), ToFloat(), ToCHW()]) == flat
    assert Compose(Pad(1), Compose(CenterCrop(20), Compose([ToFloat()])), ToCHW()) == flat
    assert flat.transforms == (Pad(1), CenterCrop(20), ToFloat(), ToCHW())
    assert Compose(Pad(1), ToCHW()) != flat


def test_compose_of_nothing_is_the_identity():
    """An empty Compose returns the sample itself, whatever it is."""
    sample = object()
    assert Compose()(sample) is sample
    assert Compose([])(sample) is sample


def brighter(sample, rng):
    image, label = sample
    return image + np.float32(rng.random()), label


def doubled(sample):
    return (sample[0] * 2, sample[1])


def test_compose_draws_what_its_transforms_would_draw():
    """All draw from one generator in order, users' functions of (sample, rng) among them."""
    steps = (RandomResizedCrop(16), ToFloat(), brighter, doubled, RandomHorizontalFlip(), RandomCrop(8))
    rng = np.random.default_rng(4)
    by_hand = (image_of_noise(), 5)
    for step in steps:
        by_hand = step(by_hand) if step is doubled else step(by_hand, rng)
    composed = Compose(*steps)((image_of_noise(), 5), np.random.default_rng(4))
    np.testing.assert_array_equal(composed[0], by_hand[0])
    assert composed[1] == 5
    here = seeds.Here(seeds.key_of(0), epoch=0)
    with seeds.at(here):
        own = Compose(*steps)((image_of_noise(), 5))
    generator = seeds.generator(seeds.key_of(0), seeds.Purpose.SAMPLE, 0, 0)
    np.testing.assert_array_equal(own[0], Compose(*steps)((image_of_noise(), 5), generator)[0])


def test_compose_pickles_with_users_functions():
    """Functions of a module travel by name."""
    compose = Compose(ToFloat(), Normalize(MEAN, STD), brighter, functools.partial(doubled))
    again = pickle.loads(pickle.dumps(compose))
    expected = compose((image_of_noise(), 1), np.random.default_rng(0))
    np.testing.assert_array_equal(again((image_of_noise(), 1), np.random.default_rng(0))[0], expected[0])


def test_compose_refuses_what_cannot_be_called():
    """The error shows the transform that is none."""
    with pytest.raises(ArgumentError, match="'flip', a str, which cannot be called"):
        Compose(ToFloat(), "flip")


@pytest.mark.parametrize("late", [Resize(8), RandomCrop(8), RandomHorizontalFlip(), Pad(1), ToCHW()], ids=repr)
def test_compose_refuses_what_wants_channels_last_after_to_chw(late):
    """An image with channels first would be taken for one three pixels high."""
    name = type(late).__name__
    with pytest.raises(ArgumentError, match=f"{name} follows ToCHW, .*expected channels last. Put it before ToCHW"):
        Compose(ToCHW(), ToFloat(), late)
    assert Compose(ToCHW(), lambda image: image.transpose(1, 2, 0), late).transforms[-1] == late


def test_compose_refuses_normalize_with_channels_last_after_to_chw():
    """The error says how to say that the channels are first; said so, it works."""
    with pytest.raises(ArgumentError, match="channels_first=True"):
        Compose(ToFloat(), ToCHW(), Normalize(MEAN, STD))
    first = Compose(ToCHW(), ToFloat(), Normalize(MEAN, STD, channels_first=True))(image_of_noise())
    np.testing.assert_array_equal(first, Compose(ToFloat(), Normalize(MEAN, STD), ToCHW())(image_of_noise()))


def test_composed_to_float_still_goes_by_its_name():
    """Errors of what Compose joins name the transform that the user wrote."""
    compose = Compose(ToFloat(), Normalize(MEAN, STD))
    with pytest.raises(ArgumentError, match=r"^ToFloat got a str; expected an image"):
        compose("a.jpg")
    with pytest.raises(ArgumentError, match=r"^ToFloat got an image of int32; expected uint8"):
        compose(image_of_noise().astype(np.int32))
    with pytest.raises(ArgumentError, match=r"^Normalize got an image with 4 channels"):
        compose(image_of_noise(channels=4))
    assert repr(compose) == f"Compose(ToFloat(), {Normalize(MEAN, STD)!r})"


def plus(sample, rng):
    return sample + rng.integers(1, 2)


@pytest.mark.parametrize(
    ("functions", "sample", "result"),
    [
        ((abs, float, str), -3, "3.0"),
        ((str.split, len), "any kind of text", 4),
        ((plus, plus, lambda number: number * 2), 1, 6),
        ((lambda pair: (pair[1], pair[0]), list), (1, "a"), ["a", 1]),
        ((lambda row: {**row, "sum": row["x"] + row["y"]}, dict.items, sorted), {"x": 1, "y": 2}, None),
        ((), None, None),
    ],
    ids=["number", "text", "drawing", "tuple", "mapping", "nothing"],
)
def test_compose_knows_nothing_of_images(functions, sample, result):
    """Put functions of numbers, texts, tuples and mappings one after the other, by Compose and by map."""
    if isinstance(sample, dict):
        result = [("sum", 3), ("x", 1), ("y", 2)]
    assert Compose(*functions)(sample) == result
    assert Compose(*functions)(sample, np.random.default_rng(0)) == result
    assert Mapped([sample], *functions)[0] == result


def test_the_base_of_transforms_imports_nothing_of_images():
    """Name no module of images in the file of Transform and Compose."""
    tree = ast.parse(Path(base.__file__).read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in modules if name and "image" in name]
