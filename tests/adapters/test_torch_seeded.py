"""Transforms of torchvision inside ``map``, with their randomness keyed to the sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace import ArrayDataset, DataLoader
from headrace.transforms import Seeded

torch = pytest.importorskip("torch")


def loader_of(transform: Any, size: int, **options: Any) -> Any:
    images = np.random.default_rng(0).integers(0, 256, (8, 20, 24, 3), np.uint8)
    return DataLoader(ArrayDataset(images).map(Seeded(transform)), size, seed=3, shuffle=True, **options)


def rows(transform: Any, size: int, **options: Any) -> list[Any]:
    return [np.asarray(row) for batch in loader_of(transform, size, **options) for row in batch]


def check(transform: Any) -> None:
    expected = rows(transform, 4)
    assert len({row.tobytes() for row in expected}) == 8
    for other in (rows(transform, 1), rows(transform, 4, num_workers=2, backend="threads")):
        for one, same in zip(expected, other, strict=True):
            np.testing.assert_array_equal(one, same)
    begun, resumed = loader_of(transform, 4), loader_of(transform, 4)
    next(iter(begun))
    resumed.load_state_dict(begun.state_dict())
    np.testing.assert_array_equal(np.concatenate([np.asarray(batch) for batch in resumed]), expected[4:])
    np.testing.assert_array_equal(np.asarray(resumed.replay(epoch=0, step=1)), expected[4:])


def test_torchs_generator_is_keyed_to_the_sample() -> None:
    check(lambda image: image + torch.rand(1).numpy())


def test_torchvision_is_keyed_to_the_sample() -> None:
    v2 = pytest.importorskip("torchvision.transforms.v2")
    chain = v2.Compose([v2.RandomCrop(12), v2.RandomHorizontalFlip(), v2.ColorJitter(0.4, 0.4, 0.4, 0.1)])
    check(lambda image: chain(torch.from_numpy(image).permute(2, 0, 1)).numpy())
