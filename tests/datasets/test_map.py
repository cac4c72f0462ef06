"""Datasets seen through functions."""

from __future__ import annotations

import functools
import pickle

import numpy as np
import pytest

from headrace.context import seeds
from headrace.context.timing import counting
from headrace.datasets.base import Dataset
from headrace.datasets.views import Mapped
from headrace.errors import ArgumentError
from headrace.transforms import Compose, RandomHorizontalFlip, ToFloat
from headrace.transforms.base import takes_rng


class Named(Dataset[int]):
    """Ten numbers with a place each."""

    classes = ("even", "odd")

    def __getitem__(self, index: int) -> int:
        return range(10)[index]

    def __len__(self) -> int:
        return 10

    def where(self, index: int) -> str | None:
        return f"place/{index}"


def plus_one(sample):
    return sample + 1


def jitter(sample, rng):
    return sample + rng.random()


def jitter_optional(sample, rng=None):
    return sample + rng.random()


class Scaled:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, sample):
        return sample * self.factor


def test_functions_are_applied_in_order():
    """The first function gets the base's sample, the next what that one returned."""
    mapped = Named().map(plus_one, Scaled(10))
    assert list(mapped) == [(n + 1) * 10 for n in range(10)]
    assert len(mapped) == 10


def test_anything_with_a_length_and_items_is_a_base():
    """A list or an array will do."""
    assert list(Mapped([1, 2], str)) == ["1", "2"]
    assert Mapped(np.arange(4), float)[3] == 3.0
    with pytest.raises(ArgumentError, match=r"^Mapped: base .*__getitem__ and __len__; got a generator"):
        Mapped((n for n in range(3)), str)


def test_indices_mean_what_they_mean_to_the_base():
    """Negative ones count from the end, those outside raise IndexError, as the base does."""
    mapped = Named().map(plus_one)
    assert mapped[-1] == 10
    assert mapped[np.int64(3)] == 4
    with pytest.raises(IndexError):
        mapped[10]


@pytest.mark.parametrize(
    ("function", "wants"),
    [
        (plus_one, False),
        (jitter, True),
        (jitter_optional, True),
        (lambda sample, other: sample, True),
        (lambda sample, times=2: sample, False),
        (lambda sample, times=2, rng=None: sample, False),
        (lambda *samples: samples, False),
        (lambda sample, *, times=2: sample, False),
        (lambda sample, **options: sample, False),
        (Scaled(2), False),
        (functools.partial(jitter, rng=None), False),
        (functools.partial(jitter, 3), False),
        (int, False),
        (str, False),
        (np.sqrt, False),
        (np.asarray, False),
        ("{}".format, False),
        (len, False),
    ],
)
def test_the_signature_says_who_gets_the_generator(function, wants):
    """Two required parameters, or a second one named rng; what tells no signature takes the sample."""
    assert takes_rng(function) is wants


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("resize", "'resize', a str, which cannot be called"),
        (None, "None, a NoneType, which cannot be called"),
        (lambda: 0, r"<lambda> takes \(\)"),
        (lambda a, b, c: 0, r"<lambda> takes \(a, b, c\).*functools\.partial"),
        (lambda sample, *, rng: 0, r"<lambda> takes \(sample, \*, rng\)|<lambda> takes \(sample, rng\)"),
    ],
)
def test_a_function_that_cannot_be_called_so_is_refused_at_once(function, message):
    """The error shows the function and its parameters."""
    with pytest.raises(ArgumentError, match=message):
        Named().map(plus_one, function)


def test_all_functions_of_a_sample_share_its_generator():
    """Two functions that draw get different numbers of one stream: that of the sample's place."""
    mapped = Mapped([0.0] * 4, jitter, jitter_optional, lambda x: x + seeds.rng().random())
    here = seeds.Here(seeds.key_of(5), epoch=1)
    with seeds.at(here):
        for position in range(4):
            here.move(position)
            drawn = seeds.generator(seeds.key_of(5), seeds.Purpose.SAMPLE, 1, position).random(3)
            assert mapped[position] == pytest.approx(drawn.sum(), abs=1e-15)


def test_no_generator_is_made_for_what_does_not_draw():
    """Transforms that are not random cost no generator; random ones draw from the sample's."""
    image = np.arange(12, dtype=np.uint8).reshape(2, 6)
    here = seeds.Here(seeds.key_of(5), epoch=0)
    with seeds.at(here):
        Mapped([image], ToFloat(), Compose(ToFloat()), np.sqrt)[0]
        assert here._generator is None
        flips = [Mapped([image], RandomHorizontalFlip())[0][0, 0] for _ in range(30)]
    assert {int(first) for first in flips} == {0, 5}


def test_mapping_again_appends():
    """One view over the base with all functions, and the same samples."""
    once = Named().map(plus_one)
    twice = once.map(jitter)
    assert isinstance(twice.base, Named)
    assert twice.functions == (plus_one, jitter)
    assert once.functions == (plus_one,)
    here = seeds.Here(seeds.key_of(5), epoch=0)
    with seeds.at(here):
        flat = twice[4]
        here.move(0)
        assert Mapped(once, jitter)[4] == flat


def test_the_bases_attributes_are_asked_of_the_base():
    """Pass through what the protocol of datasets has, such as classes and where a sample comes from, and no more."""
    mapped = Named().map(plus_one)
    assert mapped.base.classes == ("even", "odd")
    assert mapped.classes == ["even", "odd"]
    assert mapped.where(3) == "place/3"
    assert Mapped([1, 2], str).where(0) is None


def test_functions_count_as_transforming():
    """Their time is in the ledger under transform, and the base's is not."""
    with counting() as seconds:
        Named().map(plus_one)[3]
    assert list(seconds) == ["transform"]


def test_a_mapped_dataset_is_immutable_and_pickles():
    """It travels with its base and functions."""
    mapped = Named().map(plus_one, Scaled(2), Compose(plus_one, jitter))
    with pytest.raises(AttributeError):
        mapped.base = []
    again = pickle.loads(pickle.dumps(mapped))
    here = seeds.Here(seeds.key_of(5), epoch=0)
    with seeds.at(here):
        expected = mapped[3]
        here.move(0)
        assert again[3] == expected
    assert repr(Mapped([1], plus_one)) == f"Mapped([1], {plus_one!r})"

    class Unsized:
        def __getitem__(self, index: int) -> int:
            return index

        def __len__(self) -> int:
            raise NotImplementedError

    assert repr(Mapped(Unsized(), plus_one)) == f"Mapped(<Unsized>, {plus_one!r})"
    assert repr(Mapped([1] * 10**6, plus_one)) == f"Mapped(<list of 1000000>, {plus_one!r})"
