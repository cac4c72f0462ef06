"""`Mosaic` and `CopyPaste`: what comes together and where it lands, the same for any worker and in a replay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace import CenterCrop, DataLoader, RandomHorizontalFlip
from headrace.datasets import CopyPaste, Mosaic
from headrace.errors import ArgumentError
from headrace.testing import DatasetTests
from headrace.testing.transforms import assert_same
from headrace.transforms import Boxes

SIDE = 8


class Objects:
    """Squares of one color on black, each with its box and mask."""

    def __init__(self, count: int = 9) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = range(self.count)[index]
        image = np.zeros((SIDE, SIDE, 3), np.uint8)
        top, left = index % 4, (index * 3) % 5
        image[top : top + 3, left : left + 3] = index + 1
        return {
            "image": image,
            "boxes": np.array([[left, top, left + 3, top + 3]], np.float32),
            "labels": np.array([index + 1]),
            "masks": (image[np.newaxis, ..., 0] != 0).astype(np.uint8),
            "mask": image[..., 0].copy(),
            "keypoints": np.array([[[left, top], [left + 2, top + 2]]], np.float32),
            "area": np.array([9.0]),
            "image_id": index,
        }


def check(sample: dict[str, Any]) -> None:
    """Check that each box, mask and keypoint is where its color is."""
    count = len(sample["labels"])
    assert {len(sample[name]) for name in ("boxes", "labels", "masks", "keypoints", "area")} == {count}
    for row in range(count):
        down, across = np.nonzero(sample["masks"][row])
        assert set(sample["image"][down, across, 0].tolist()) == {sample["labels"][row]}
        assert set(sample["mask"][down, across].tolist()) == {sample["labels"][row]}
        left, top, right, bottom = sample["boxes"][row].tolist()
        assert (left, top, right, bottom) == (across.min(), down.min(), across.max() + 1, down.max() + 1)


class TestMosaic(DatasetTests):
    collates = False

    def label(self, sample: Any) -> Any:
        return sample["image_id"]

    def make(self) -> Any:
        return Mosaic(Objects(), SIDE)


class TestCopyPaste(DatasetTests):
    collates = False

    def label(self, sample: Any) -> Any:
        return sample["image_id"]

    def make(self) -> Any:
        return CopyPaste(Objects(), p=0.7)


def samples(dataset: Any, **options: Any) -> list[Any]:
    return list(DataLoader(dataset, None, seed=4, shuffle=True, collate_fn=lambda sample: sample, **options))


def test_four_samples_meet_in_a_point_with_all_their_targets() -> None:
    for sample in samples(Mosaic(Objects(), SIDE, fill=0)):
        assert sample["image"].shape == (2 * SIDE, 2 * SIDE, 3)
        assert sample["mask"].shape == (2 * SIDE, 2 * SIDE)
        assert 1 <= len(sample["labels"]) <= 4
        check(sample)


def test_images_of_other_sizes_are_scaled_to_their_quarter() -> None:
    given = [{"image": np.full((4, 4 * (n + 1), 3), n + 1, np.uint8), "boxes": [[0, 0, 4, 4]]} for n in range(3)]
    sample = Mosaic(given, (8, 16), center_range=(1, 1))[0]
    assert sample["image"].shape == (16, 32, 3)
    assert sample["boxes"].shape == (4, 4)
    assert (sample["boxes"][0] == np.array([8, 0, 16, 8])).all()
    assert (sample["image"][:8, :8] == 114).all()


def test_objects_are_pasted_and_cover_what_lies_under_them() -> None:
    pasted = samples(CopyPaste(Objects(), p=1, share=1))
    assert {len(sample["labels"]) for sample in pasted} == {1, 2}
    for sample in pasted:
        check(sample)
        assert sample["masks"].sum(axis=0).max() == 1
        assert sample["area"].tolist() == sample["masks"].sum(axis=(1, 2)).tolist()
    assert all(len(sample["labels"]) == 1 for sample in samples(CopyPaste(Objects(), p=1, share=0)))


def test_crowds_are_not_pasted_and_small_rests_are_dropped() -> None:
    given = [Objects()[index] | {"iscrowd": np.array([1])} for index in range(5)]
    assert all(len(sample["labels"]) == 1 for sample in samples(CopyPaste(given, p=1, share=1)))
    kept = samples(CopyPaste(Objects(), p=1, share=1, min_area=9))
    assert all(area == 9 for sample in kept for area in sample["area"])


def test_a_probability_of_zero_leaves_samples_as_they_are() -> None:
    assert_same(Mosaic(Objects(), SIDE, p=0)[3], Objects()[3])
    assert_same(CopyPaste(Objects(), p=0)[3], Objects()[3])


@pytest.mark.parametrize("view", [lambda d: Mosaic(d, SIDE), lambda d: CopyPaste(d, p=1)])
def test_any_worker_a_resume_and_a_replay_draw_the_same_samples(view: Any) -> None:
    def loader(**options: Any) -> DataLoader[Any]:
        dataset = view(Flipped()).map(CenterCrop(6))
        return DataLoader(dataset, 3, seed=1, shuffle=True, collate_fn=list, **options)

    first = loader()
    inline = list(first)
    assert_same(list(loader(num_workers=2, backend="threads")), inline)
    second = loader()
    next(steps := iter(second))
    resumed = loader()
    resumed.load_state_dict(second.state_dict())
    assert_same(list(resumed), inline[1:])
    del steps
    assert_same(loader().replay(epoch=0, step=2), inline[2])
    later = list(first)
    assert any(not np.array_equal(a["image"], b["image"]) for a, b in zip(inline[0], later[0], strict=True))


class Flipped(Objects):
    def __getitem__(self, index: int) -> dict[str, Any]:
        flipped: dict[str, Any] = RandomHorizontalFlip()(super().__getitem__(index))
        return flipped


def test_lineage_names_the_samples_and_the_point() -> None:
    loader = DataLoader(Mosaic(Objects(), SIDE), 3, seed=1, collate_fn=list)
    lineage = loader.lineage(epoch=0, step=1, index=2)
    others = next(draw for draw in lineage.draws if "integers(9, size=3)" in str(draw))
    assert len(others.value) == 3
    assert lineage.steps[0].parameters.keys() == {"center"}
    pasted = DataLoader(CopyPaste(Objects(), p=1), 3, seed=1, collate_fn=list).lineage(epoch=0, step=1, index=2)
    assert pasted.steps[0].parameters["objects"] in ([], [0])


def test_samples_that_do_not_fit_together_are_refused() -> None:
    mixed: Any = [Objects()[0], {"image": np.zeros((4, 4, 3), np.uint8)}]
    with pytest.raises(ArgumentError, match="other fields"):
        samples(Mosaic(mixed, 4))
    with pytest.raises(ArgumentError, match="without an image"):
        Mosaic([1, 2], 4)[0]
    with pytest.raises(ArgumentError, match="places in the image"):
        Mosaic([{"image": np.zeros((4, 4, 3), np.uint8), "corners": np.zeros((2, 2))}], 4)[0]
    with pytest.raises(ArgumentError, match="no masks"):
        CopyPaste([{"image": np.zeros((4, 4, 3), np.uint8), "boxes": [[0, 0, 1, 1]]}], p=1)[0]
    with pytest.raises(ArgumentError, match="one dtype and form"):
        samples(Mosaic([{"image": np.zeros((4, 4, c), np.uint8)} for c in (1, 3)], 4))
    with pytest.raises(ArgumentError, match="center_range"):
        Mosaic(Objects(), 4, center_range=(0.5, 2.5))
    with pytest.raises(ArgumentError):
        CopyPaste(Objects(), share=2)


def test_declared_kinds_and_lists_come_together() -> None:
    given = [{"photo": np.zeros((4, 4, 3), np.uint8), "where": [[0, 0, 0.5, 0.5]], "labels": ["a"]}] * 3
    kinds = {"photo": "image", "where": Boxes("xywh", normalized=True), "labels": "labels"}
    sample = Mosaic(given, 4, center_range=(1, 1), kinds=kinds)[0]
    assert sample["labels"] == ["a"] * 4
    np.testing.assert_allclose(sample["where"][3], [0.5, 0.5, 0.25, 0.25])
