"""Transforms that decide which others are applied, and policies that draw what to do."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from headrace import Compose, DataLoader, Normalize, RandomHorizontalFlip, ToCHW, ToFloat
from headrace.errors import ArgumentError
from headrace.image.moves import Stay
from headrace.testing import TransformTests
from headrace.testing.transforms import Samples
from headrace.transforms import (
    AugMix,
    AutoAugment,
    Boxes,
    ColorJitter,
    ConvertBoundingBoxFormat,
    OneOf,
    RandAugment,
    RandomApply,
    RandomChoice,
    RandomErasing,
    RandomRotation,
    TrivialAugmentWide,
)
from headrace.transforms.policies import AUTO, MIX, RAND, TRIVIAL, Policy, as_move, strength
from headrace.transforms.policy_tables import POLICIES

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


def test_choices_have_their_weights() -> None:
    """Count what is applied: by ``p``, by weights, or equally often."""
    rng = np.random.default_rng(0)
    names = [str.upper, str.title, [str.strip, str.swapcase]]

    def shares(transform: Any) -> dict[str, float]:
        found = [transform(" ab", rng) for _ in range(3000)]
        return {one: found.count(one) / 3000 for one in set(found)}

    assert shares(RandomApply([str.strip, str.upper], p=0.3)) == pytest.approx({"AB": 0.3, " ab": 0.7}, abs=0.03)
    assert shares(RandomChoice(names)) == pytest.approx({" AB": 1 / 3, " Ab": 1 / 3, "AB": 1 / 3}, abs=0.03)
    assert shares(RandomChoice(names, p=(1, 0, 3))) == pytest.approx({" AB": 0.25, "AB": 0.75}, abs=0.03)
    assert shares(OneOf(names, p=0.6)) == pytest.approx({" ab": 0.4, " AB": 0.2, " Ab": 0.2, "AB": 0.2}, abs=0.03)


def test_inner_transforms_draw_in_turn_from_the_samples_own_generator() -> None:
    """Give a function with ``rng`` the same generator."""
    out = RandomApply(lambda sample, rng: (sample, rng.random()), p=1)(3, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    rng.random()
    assert out == (3, rng.random())


@pytest.mark.parametrize(
    "wrap", [lambda one: RandomApply([one], p=1), lambda one: OneOf([one], p=1), lambda one: RandomChoice([one])]
)
def test_kinds_are_declared_through_them(wrap: Any) -> None:
    """Move declared fields within a transform that decides, and refuse what is unknown."""
    chain = Compose(wrap(RandomHorizontalFlip(1)), kinds={"photo": "image", "seg": "mask"})
    out = chain({"photo": IMAGE, "seg": IMAGE[..., 0]}, np.random.default_rng(0))
    np.testing.assert_array_equal(out["seg"], IMAGE[:, ::-1, 0])
    np.testing.assert_array_equal(out["photo"], IMAGE[:, ::-1])
    copied = pickle.loads(pickle.dumps(chain))
    assert copied == chain
    np.testing.assert_array_equal(copied({"photo": IMAGE}, np.random.default_rng(0))["photo"], out["photo"])


@pytest.mark.parametrize(
    "branch", [RandomApply(ColorJitter(0.4), p=0), OneOf([ColorJitter(0.4)], p=0), RandomChoice([ColorJitter(0.4)])]
)
def test_whether_a_sample_is_refused_does_not_depend_on_a_draw(branch: Any) -> None:
    """Refuse a sample without an image, and kinds of another, also where nothing is applied."""
    with pytest.raises(ArgumentError, match="ColorJitter got a dict"):
        branch({"photo": np.zeros((4, 6, 3), np.uint8)}, np.random.default_rng(0))
    with pytest.raises(ArgumentError, match="items in order"):
        Compose(branch, kinds=("image", "mask"))({"image": np.zeros((4, 6, 3), np.uint8)}, np.random.default_rng(0))


@pytest.mark.parametrize(
    "branch", [RandomApply, lambda inner: RandomChoice([[ToFloat(), inner]]), lambda inner: OneOf([inner])]
)
def test_the_order_of_axes_is_checked_within_branches(branch: Any) -> None:
    with pytest.raises(ArgumentError, match="RandomErasing follows ToCHW"):
        Compose(ToCHW(), branch(RandomErasing()))


@pytest.mark.parametrize("wrap", [RandomApply, lambda one: OneOf([one, abs]), lambda one: RandomChoice([[abs, one]])])
def test_the_format_of_boxes_never_depends_on_a_draw(wrap: Any) -> None:
    """Refuse a change of format that only some samples get; take one that keeps the declared format."""
    with pytest.raises(ArgumentError, match=r"transforms must be transforms that keep the format of boxes.*Convert"):
        wrap(ConvertBoundingBoxFormat("cxcywh"))
    same = wrap(ConvertBoundingBoxFormat("xyxy"))
    Compose(same, RandomHorizontalFlip())
    with pytest.raises(ArgumentError, match="keep the format of boxes"):
        Compose(same, kinds={"image": "image", "boxes": Boxes("xywh")})


def test_lineage_shows_the_decision_and_what_followed() -> None:
    """Name what was drawn, and list the transforms that were applied."""
    images = [IMAGE] * 4
    chain = Compose(RandomApply([ColorJitter(0.4), RandomRotation(9)], p=1), ToFloat(), Normalize(0.5, 0.5))
    loader: DataLoader[Any] = DataLoader(Samples(images).map(chain), 2, seed=0, collate_fn=list)
    lineage = loader.lineage(epoch=0, step=1, index=0)
    names = [step.name.partition("(")[0] for step in lineage.steps]
    assert names == ["RandomApply", "ColorJitter", "RandomRotation", "ToFloat", "Normalize"]
    assert lineage.steps[0].parameters == {"applied": True}
    assert list(lineage.steps[1].parameters) == ["brightness"]
    np.testing.assert_array_equal(lineage.sample, list(loader)[1][0])


@pytest.mark.parametrize(
    ("policy", "table"),
    [(RandAugment(3, 9), RAND), (TrivialAugmentWide(), TRIVIAL), (AutoAugment("svhn"), AUTO), (AutoAugment(), AUTO)],
)
def test_policies_do_what_they_draw(policy: Policy, table: Any) -> None:
    """Draw known changes, show them in lineage, and give what they give in turn; geometry moves targets."""
    seen: set[str] = set()
    for seed in range(120):
        ops = policy.ops(40, 50, np.random.default_rng(seed))
        seen |= {name for name, _ in ops}
        drawn = policy.drawn(IMAGE, np.random.default_rng(seed))
        named = [(f"{n}. {name}", value) for n, (name, value) in enumerate(ops, 1)]
        assert list(drawn.items()) == (named or [("applied", False)])
        found = policy(IMAGE, np.random.default_rng(seed))
        np.testing.assert_array_equal(found, as_move(ops, (40, 50), "nearest", 0).image(IMAGE))
        if len(ops) == 1:
            sample = {"image": np.stack([IMAGE[..., 0]] * 3, axis=2), "mask": IMAGE[..., 0], "boxes": [[9, 9, 30, 30]]}
            out = policy(sample, np.random.default_rng(seed))
            if ops[0][0] in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"):
                np.testing.assert_array_equal(out["image"][..., 1], out["mask"])
            else:
                np.testing.assert_array_equal(out["mask"], sample["mask"])
                assert out["boxes"].tolist() == [[9, 9, 30, 30]]
    assert seen <= table.keys()
    assert len(seen) > 8 if not isinstance(policy, AutoAugment) else len(seen) > 5


def test_strengths_are_those_of_the_papers() -> None:
    """Run from the weakest to the strongest, with both signs."""
    rng = np.random.default_rng(0)
    assert strength(RAND["Solarize"], (30, 31), (4, 4), rng) == 0
    assert strength(RAND["Posterize"], (30, 31), (4, 4), rng) == 4
    assert strength(TRIVIAL["Posterize"], (30, 31), (4, 4), rng) == 2
    assert {strength(TRIVIAL["Rotate"], (30, 31), (4, 4), rng) for _ in range(40)} == {135, -135}
    assert abs(strength(RAND["TranslateX"], (30, 31), (10, 331), rng)) == pytest.approx(150)
    assert abs(strength(MIX["TranslateY"], (9, 10), (30, 99), rng)) == pytest.approx(10)
    assert strength(None, (9, 10), (30, 99), rng) == 0
    assert {name: len(pairs) for name, pairs in POLICIES.items()} == {"imagenet": 25, "cifar10": 25, "svhn": 25}
    shifted = as_move([("TranslateX", 149.99999999999997)], (1, 331), "nearest", 0).points(np.zeros(2))
    assert shifted.tolist() == [150, 0]
    assert as_move([("Identity", 0.0)], (3, 4), "nearest", 0) == Stay((3, 4))


def test_a_mixture_lies_between_its_chains() -> None:
    """Mix by weights that sum to 1; refuse a mask, which would have no one place."""
    mix = AugMix(severity=10)
    weights, chains = mix.draw(40, 50, np.random.default_rng(4))
    assert sum(weights) == pytest.approx(1)
    parts = [IMAGE, *(as_move(ops, (40, 50), "bilinear", 0).image(IMAGE) for ops in chains)]
    expected = sum(weight * part for weight, part in zip(weights, parts, strict=True))
    assert np.abs(mix(IMAGE, np.random.default_rng(4)) - expected).max() <= 0.51
    with pytest.raises(ArgumentError, match=r"AugMix would move.*use one that moves the whole sample"):
        mix({"image": IMAGE, "mask": IMAGE[..., 0]})


def test_what_is_declared_to_have_no_places_passes_a_mixture() -> None:
    """Leave a matrix as it is once it is declared as "other", and refuse it before."""
    sample = {"image": IMAGE, "embedding": np.eye(3)}
    with pytest.raises(ArgumentError, match=r"'embedding'.*declare it as \"other\""):
        AugMix()(sample)
    out = Compose(AugMix(), kinds={"image": "image", "embedding": "other"})(sample)
    np.testing.assert_array_equal(out["embedding"], np.eye(3))


@pytest.mark.parametrize("policy", [RandAugment(), TrivialAugmentWide(), AutoAugment(), AugMix()])
def test_floats_are_refused_whatever_is_drawn(policy: Any) -> None:
    """Refuse the first image already, not the first that is to be equalized."""
    for seed in range(20):
        with pytest.raises(ArgumentError, match=r"got an image of float32; expected uint8\. Put it before ToFloat"):
            policy(np.zeros((4, 4, 3), np.float32), np.random.default_rng(seed))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 2)])
@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_small_images_of_any_channels_are_taken(size: Any, channels: Any) -> None:
    """Keep shape and dtype from one pixel up."""
    image = np.full(size if channels is None else (*size, channels), 90, np.uint8)
    for policy in (RandAugment(4, 30), TrivialAugmentWide(), AutoAugment("cifar10"), AugMix(10)):
        for seed in range(30):
            out = policy(image, np.random.default_rng(seed))
            assert (out.shape, out.dtype) == (image.shape, np.uint8)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: RandomApply([]), "transforms must be a transform, or a list"),
        (lambda: RandomApply([3]), "cannot be called"),
        (lambda: RandomChoice([abs], p=[1, 2]), "p must be 1 weights"),
        (lambda: RandomChoice([abs], p=[0]), "not all 0"),
        (lambda: RandomChoice([abs], p=1), "p must be 1 weights"),
        (lambda: OneOf([abs], p=2), "OneOf: p must be"),
        (lambda: RandAugment(2, 31), "magnitude must be an integer from 0 to 30"),
        (lambda: AutoAugment("coco"), "policy must be one of 'imagenet'"),
        (lambda: AugMix(11), "severity must be"),
    ],
)
def test_what_cannot_be_used_is_refused(make: Any, match: str) -> None:
    """Name the transform, the argument and the value."""
    with pytest.raises(ArgumentError, match=match):
        make()


class TestRandAugment(TransformTests):
    def make(self) -> Any:
        return RandAugment()


class TestTrivialAugmentWide(TransformTests):
    def make(self) -> Any:
        return TrivialAugmentWide()


class TestAutoAugment(TransformTests):
    def make(self) -> Any:
        return AutoAugment()


class TestAugMix(TransformTests):
    def make(self) -> Any:
        return AugMix()


class ControlTests(TransformTests):
    """Lineage ends with the transforms that were applied."""

    def test_lineage_names_it(self) -> None:
        """Name it first."""
        loader: DataLoader[Any] = DataLoader(Samples(self.samples()).map(self.make()), 4, seed=5, collate_fn=list)
        assert loader.lineage(epoch=0, step=1, index=2).steps[0].name.startswith(type(self.make()).__name__)


class TestApply(ControlTests):
    def make(self) -> Any:
        return RandomApply([RandomRotation(9), RandomHorizontalFlip()])


class TestChoice(ControlTests):
    def make(self) -> Any:
        return RandomChoice([RandomRotation(9), ColorJitter(0.3)], p=(1, 2))


class TestOneOf(ControlTests):
    def make(self) -> Any:
        return OneOf([RandomRotation(9), [ColorJitter(0.3), RandomHorizontalFlip()]])


del ControlTests
