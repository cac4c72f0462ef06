"""albumentations inside `map`, by `Seeded`: what a sample gets depends on its place alone, masks and boxes with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

A = pytest.importorskip("albumentations")

from headrace import ArrayDataset, DataLoader  # noqa: E402
from headrace.datasets import Dataset  # noqa: E402
from headrace.transforms import Seeded  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")

COUNT, SIDE = 12, 32
PHOTOS = np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8)
CHAIN = A.Compose([A.RandomCrop(24, 24), A.HorizontalFlip(), A.ColorJitter(), A.GaussNoise(), A.OneOf([A.Blur()], p=1)])
TARGETS = A.Compose(
    [A.Affine(translate_percent=0.1, rotate=(-20, 20), p=1), A.RandomCrop(24, 24), A.HorizontalFlip()],
    bbox_params=A.BboxParams(format="pascal_voc", label_fields=["labels"]),
)


def by_hand(image: Any) -> Any:
    return CHAIN(image=image)["image"]


class Scenes(Dataset[dict[str, Any]]):
    """Photographs with a mask and a box around the bright corner of each."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, mask = PHOTOS[index] // 4, np.zeros((SIDE, SIDE), np.uint8)
        image[8:20, 10:22], mask[8:20, 10:22] = 255, 1
        return {"image": image, "mask": mask, "bboxes": np.array([[10.0, 8, 22, 20]]), "labels": np.array([index])}


def images(transform: Any, size: int, **workers: Any) -> list[Any]:
    """Return the images of an epoch in order."""
    dataset = ArrayDataset(PHOTOS).map(Seeded(transform))
    loader: DataLoader[Any] = DataLoader(dataset, size, shuffle=True, seed=3, **workers)
    return [image for batch in loader for image in batch]


@pytest.mark.parametrize("transform", [CHAIN, A.HorizontalFlip(), by_hand], ids=["chain", "one", "function"])
def test_a_sample_gets_the_same_on_any_worker_in_any_batch(transform: Any) -> None:
    """Compare batches of other sizes, threads and processes."""
    expected = images(transform, 4)
    for size, workers in (
        (1, {}),
        (4, {"num_workers": 2, "backend": "threads"}),
        (3, {"num_workers": 2, "backend": "processes"}),
    ):
        np.testing.assert_array_equal(images(transform, size, **workers), expected)


def test_masks_and_boxes_go_with_the_image_and_a_replay_gives_them_again() -> None:
    """Find the bright square under its mask and in its box."""
    loader: DataLoader[Any] = DataLoader(Scenes().map(Seeded(TARGETS)), 4, seed=5, collate_fn=list)
    batches = list(loader)
    for sample in (sample for batch in batches for sample in batch if len(sample["bboxes"])):
        bright = (sample["image"] > 200).all(axis=2)
        assert (sample["mask"][bright] == 1).mean() > 0.95
        left, top, right, bottom = sample["bboxes"][0]
        rows, columns = np.nonzero(sample["mask"])
        assert left - 1 <= columns.min() <= columns.max() <= right + 1
        assert top - 1 <= rows.min() <= rows.max() <= bottom + 1
    for one, other in zip(loader.replay(epoch=0, step=1), batches[1], strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
