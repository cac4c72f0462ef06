"""`DetectionCollate`: lists of objects, or arrays padded with a count; images of one size, of several, or widened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from headrace import ArrayDataset, DataLoader
from headrace.collate import DetectionCollate
from headrace.errors import ArgumentError, CollateError, CollateTypeError


def sample(count: int, size: tuple[int, int] = (4, 6), **more: Any) -> dict[str, Any]:
    return {
        "image": np.full((*size, 3), count, np.uint8),
        "boxes": np.full((count, 4), count, np.float32),
        "labels": np.arange(count),
        "masks": np.ones((count, *size), np.uint8),
        "image_id": count,
        **more,
    }


def test_objects_are_lists_and_images_of_one_size_are_stacked() -> None:
    batch = DetectionCollate()([sample(2), sample(0), sample(3)])
    assert list(batch) == ["image", "boxes", "labels", "masks", "image_id"]
    assert batch["image"].shape == (3, 4, 6, 3)
    assert [len(boxes) for boxes in batch["boxes"]] == [2, 0, 3]
    assert batch["image_id"].tolist() == [2, 0, 3]


def test_padded_objects_have_a_count() -> None:
    batch = DetectionCollate(padded=True, fill=-100)([sample(2), sample(0), sample(3)])
    assert batch["boxes"].shape == (3, 3, 4)
    assert batch["boxes"].dtype == np.float32
    assert batch["labels"].tolist() == [[0, 1, -100], [-100] * 3, [0, 1, 2]]
    assert batch["masks"].shape == (3, 3, 4, 6)
    assert batch["count"].tolist() == [2, 0, 3]
    assert DetectionCollate(padded=True, most=5)([sample(2), sample(0)])["boxes"].shape == (2, 5, 4)
    assert DetectionCollate(padded=True)([sample(0), sample(0)])["boxes"].shape == (2, 0, 4)


def test_images_of_several_sizes_are_a_list_or_widened() -> None:
    given = [sample(1, (4, 6)), sample(2, (5, 3))]
    assert [image.shape for image in DetectionCollate()(given)["image"]] == [(4, 6, 3), (5, 3, 3)]
    batch = DetectionCollate(padded=True, pad_images=True, multiple_of=4)(given)
    assert batch["image"].shape == (2, 8, 8, 3)
    assert batch["size"].tolist() == [[4, 6], [5, 3]]
    assert (batch["image"][1, :5, :3] == 2).all()
    assert batch["image"][1].sum() == 5 * 3 * 3 * 2
    assert batch["masks"].shape == (2, 2, 8, 8)
    first = [{"image": np.ones((3, *size)), "mask": np.ones(size)} for size in ((4, 6), (5, 7))]
    wide = DetectionCollate(pad_images=True)(first)
    assert (wide["image"].shape, wide["mask"].shape) == ((2, 3, 5, 7), (2, 5, 7))


def test_samples_that_do_not_fit_are_refused() -> None:
    with pytest.raises(CollateTypeError, match="sample 1 is a tuple"):
        DetectionCollate()([sample(1), (1, 2)])
    with pytest.raises(CollateError, match="samples 0 and 1 differ in extra"):
        DetectionCollate()([sample(1), sample(1, extra=3)])
    with pytest.raises(CollateError, match="sample 1 has 3 boxes"):
        DetectionCollate(padded=True, most=2)([sample(1), sample(3)])
    with pytest.raises(CollateError, match="sample 0 has 1 boxes, 2 labels"):
        DetectionCollate(padded=True)([sample(1) | {"labels": np.arange(2)}])
    with pytest.raises(CollateError, match="masks of shape"):
        DetectionCollate(padded=True)([sample(1), sample(1, (5, 6))])
    with pytest.raises(CollateError, match="no objects"):
        DetectionCollate(padded=True)([{"image": np.zeros((2, 2))}])


@pytest.mark.parametrize("arguments", [{"most": 3}, {"fill": 0.5}, {"multiple_of": 0}, {"objects": "boxes"}])
def test_arguments_are_checked(arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        DetectionCollate(**arguments)


def test_a_loader_gives_the_same_batches_on_threads() -> None:
    samples: Any = [sample(count) for count in (1, 2, 0, 3)]
    options: dict[str, Any] = {"collate_fn": DetectionCollate(padded=True, most=3), "seed": 0}
    one, other = (list(DataLoader(samples, 2, **options, **how)) for how in ({}, {"num_workers": 2}))
    for a, b in zip(one, other, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("how", [{}, {"padded": True}, {"pad_images": True}])
@pytest.mark.parametrize("alike", [True, False])
def test_a_loader_gives_what_the_function_gives(workers: int, how: dict[str, bool], alike: bool) -> None:
    """Rows that are written before they are collated hold the same, and no more memory than their own."""

    def sample(index: int) -> dict[str, Any]:
        side = 40 if alike or index % 4 == 0 else 40 + index
        rng = np.random.default_rng(index)
        boxes = rng.random((700 if alike else 1 + index, 4))  # large ones, as many as before: no column either
        return {
            "image": rng.random((side, 40, 3)),
            "boxes": boxes,
            "labels": np.arange(len(boxes)),
            "size": boxes.shape,
        }

    collate = DetectionCollate(**how)
    loader = DataLoader(
        ArrayDataset(np.arange(8)).map(int, sample), 4, collate_fn=collate, num_workers=workers, backend="threads"
    )
    for number, batch in enumerate(loader):
        expected = collate([sample(index) for index in range(4 * number, 4 * number + 4)])
        assert batch.keys() == expected.keys()
        for key, found in batch.items():
            pairs = zip(found, expected[key], strict=True) if isinstance(found, list) else [(found, expected[key])]
            assert all(type(one) is type(other) and np.array_equal(one, other) for one, other in pairs)
        for one in batch["image"] if isinstance(batch["image"], list) else []:
            assert one.base is None or one.base.nbytes <= 2 * one.nbytes


@dataclass
class Scene:
    """A sample that is no dict."""

    image: Any
    boxes: Any
    labels: Any


def test_dataclasses_become_a_dict_of_batches() -> None:
    """Take samples of a dataclass as dicts of their fields."""
    scenes = [Scene(np.zeros((4, 6, 3)), np.ones((count, 4)), np.arange(count)) for count in (2, 0)]
    batch = DetectionCollate(padded=True)(scenes)
    assert batch["count"].tolist() == [2, 0]
    assert batch["labels"].tolist() == [[0, 1], [-1, -1]]


def test_no_samples_are_refused() -> None:
    """Say so, also where it is called by hand."""
    with pytest.raises(CollateError, match="no samples"):
        DetectionCollate()([])
