"""`explain` names the transforms that make their pixels in one native call, and why the others do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace import (
    ArrayDataset,
    CenterCrop,
    Compose,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToCHW,
    ToDtype,
    ToFloat,
    explain,
)
from headrace.datasets import Dataset
from headrace.image import pending
from headrace.transforms import (
    JPEG,
    AutoAugment,
    ColorJitter,
    Cutout,
    GaussianBlur,
    GaussianNoise,
    LetterBox,
    Mask,
    OneOf,
    RandAugment,
    RandomAffine,
    RandomApply,
    RandomChoice,
    RandomErasing,
    RandomInvert,
    RandomRotation,
    RandomShortestSize,
    RandomVerticalFlip,
    ScaleJitter,
    ThreeAugment,
    TrivialAugmentWide,
)
from headrace.transforms.groups import native_groups
from headrace.transforms.together import Together

pytestmark = pytest.mark.skipif(not pending.ABLE, reason="the extension makes no pixels at once")

CHAIN = (
    RandomRotation(5, interpolation="bilinear"),
    RandomAffine(10, interpolation="bilinear"),
    CenterCrop(24),
    GaussianNoise(),
    RandomHorizontalFlip(),
    abs,
    ToFloat(),
    Normalize(0.5, 0.25),
    ToCHW(),
    ToDtype("float16"),
)
GROUPS = [1, 1, 1, 0, 0, 0, 2, 2, 2, 2]


class Scenes(Dataset[dict[str, Any]]):
    """Samples that are read one by one."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": np.zeros((9, 9, 3), np.uint8), "mask": np.zeros((9, 9), np.uint8)}


@pytest.mark.parametrize("kinds", [None, {"mask": Mask(fill=255)}])
def test_groups_are_the_steps_that_the_chain_takes(kinds: Any) -> None:
    """Number the transforms in their own order, of samples with declared kinds too."""
    chain = Compose(*CHAIN, kinds=kinds)
    found = native_groups(chain)
    assert [one for one, _, _ in found] == list(chain.transforms)
    assert [number for _, number, _ in found] == GROUPS
    assert [type(step) is Together for step in chain.steps] == [True, False, False, False, True]
    assert [why for _, _, why in found if why] == [
        "it makes its own pixels", "no neighbor to be grouped with", "not a headrace transform",
    ]  # fmt: skip


def test_explain_names_the_groups_of_samples_that_are_read_one_by_one() -> None:
    """Add a line for each transform, where there is a group; and only then."""
    lines = explain(Scenes().map(Resize(8), CenterCrop(4), GaussianNoise())).splitlines()
    assert lines[1:] == [
        "  Resize         group 1",
        "  CenterCrop     group 1",
        "  GaussianNoise  step by step: it makes its own pixels",
    ]
    assert len(explain(Scenes().map(CenterCrop(8), GaussianNoise())).splitlines()) == 1


def test_what_scales_images_is_a_group_by_itself() -> None:
    """Scale natively where no neighbor defers, which is several times quicker than Pillow."""
    alone = [Resize(8), RandomResizedCrop(8), RandomShortestSize(8), ScaleJitter(8), LetterBox(8)]
    for transform in alone:
        assert [number for _, number, _ in native_groups(Compose(transform, GaussianNoise()))] == [1, 0]
        assert type(Compose(transform, kinds={"mask": "mask"}).steps[0]) is Together

    class Own(Resize):
        def move(self, height: int, width: int, rng: Any) -> Any:
            return super().move(height, width, rng)

    assert native_groups(Compose(Own(8)))[0][1] == 0


def test_all_that_policies_and_branches_do_is_in_one_group() -> None:
    chain = Compose(
        RandomResizedCrop(8), RandomVerticalFlip(), RandAugment(), TrivialAugmentWide(), AutoAugment(), ThreeAugment(),
        RandomApply([ColorJitter(0.4), RandomApply(GaussianBlur(3))]),
        RandomChoice([RandomInvert(), RandomRotation(9)]), OneOf([RandomErasing()]), Cutout(2),
        ToFloat(), RandomErasing(value="random"), ToCHW(),
    )  # fmt: skip
    assert {number for _, number, _ in native_groups(chain)} == {1}
    assert len(Compose(*chain.transforms, kinds={"mask": Mask(fill=255)}).steps) == 1


OTHER_KINDS = Compose(RandomInvert(), kinds={"photo": "image"})


@pytest.mark.parametrize("inner", [[ColorJitter(0.4), abs], [JPEG(50)], [OTHER_KINDS]])
def test_a_branch_with_what_cannot_wait_is_a_step_of_its_own(inner: Any) -> None:
    """Leave a function, a transform that reads pixels, and samples of other kinds out of the group."""
    found = native_groups(Compose(Resize(8), RandomInvert(), RandomApply(inner), ToFloat(), ToCHW()))
    assert [number for _, number, _ in found] == [1, 1, 0, 2, 2]


def test_explain_names_the_groups_behind_the_fused_steps() -> None:
    """Say why a transform is not fused, and that it is grouped."""
    images = ArrayDataset(np.zeros((3, 9, 9, 3), np.uint8)).map(
        CenterCrop(8), GaussianNoise(), Resize(6), CenterCrop(4)
    )
    assert explain(images).splitlines()[1:] == [
        "  CenterCrop     fused",
        "  GaussianNoise  step by step: it has no native step",
        "  Resize         group 1: it follows an unfused transform",
        "  CenterCrop     group 1: it follows an unfused transform",
    ]
