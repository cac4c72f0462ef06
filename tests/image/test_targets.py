"""Geometry is refused beside parts of unknown kind that have places in the image; known kinds move, labels pass."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headrace import (
    ArrayDataset,
    CenterCrop,
    DataLoader,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    TensorDataset,
    ToCHW,
    ToFloat,
)
from headrace.datasets import FaceDataset
from headrace.errors import ArgumentError, HeadraceError

IMAGE = np.zeros((12, 16, 3), np.uint8)
GEOMETRY = [
    Resize(8), CenterCrop(8), RandomCrop(8), RandomResizedCrop(8), RandomHorizontalFlip(0), Pad(1),
]  # fmt: skip
Detection = namedtuple("Detection", "image boxes")


@dataclass
class Annotation:
    found: Any


SPATIAL: list[Any] = [
    (IMAGE, np.zeros((12, 16), np.int64)),
    [IMAGE, np.zeros((12, 16, 1), bool)],
    (IMAGE, np.zeros((3, 12, 16), np.float32)),
    (IMAGE, 3, IMAGE.copy()),
    (IMAGE, Image.new("L", (16, 12))),
    (IMAGE, np.zeros((2, 5)), np.zeros((2, 4))),
    (IMAGE, np.zeros((0, 4))),
    (IMAGE, [[1, 2, 3, 4]]),
    (IMAGE, [{"bbox": [1, 2, 3, 4], "category_id": 3}]),
    Detection(IMAGE, [1, 2, 3, 4]),
    {"image": IMAGE, "gt_bboxes": [[1, 2, 3, 4]]},
    {"image": IMAGE, "keyPoints": np.zeros(34)},
    {"image": IMAGE, "label": np.zeros((12, 16))},
    {"image": IMAGE, "target": {"segmentation": {"counts": b"", "size": [12, 16]}}},
    {"image": IMAGE, "depth": np.zeros((6, 8), np.float32)},
    # Keypoints and matrices of labels, bare or under a name that says nothing
    (IMAGE, np.zeros((17, 2), np.float32)),
    (IMAGE, np.zeros((17, 3))),
    (IMAGE, 5, np.zeros((1, 2), np.int64)),
    (IMAGE, np.zeros((8000, 2), np.float32)),
    (IMAGE, np.zeros((3, 6))),
    (IMAGE, np.zeros((2, 17, 3))),
    (IMAGE, [(1.0, 2.0), (3.0, 4.0)]),
    (IMAGE, [[1, 2, 3, 4, 5, 6], [1, 2]]),
    (IMAGE, [np.zeros(4), np.zeros(4)]),
    (IMAGE, ([1, 2], [3, 4])),
    (IMAGE, {"pts": np.zeros((17, 2))}),
    (IMAGE, np.zeros(3, [("x", "f4"), ("y", "f4")])),
    (IMAGE, Annotation(np.zeros((2, 4)))),
    (IMAGE, SimpleNamespace(corners=[1, 2, 3, 4])),
    {"image": IMAGE, "labels": np.zeros((3, 5))},
    {"image": IMAGE, "target": np.zeros((3, 4))},
    {"image": IMAGE, "pts": [[1, 2], [3, 4]]},
    {"image": IMAGE, "xyxy": np.zeros(4)},
    {"image": IMAGE, "rect": (1, 2, 3, 4)},
    {"image": IMAGE, "second": np.zeros((5, 5, 3))},
    {"image": IMAGE, "label": {"boxes": [[1, 2, 3, 4]]}},
    {"image": IMAGE, "label": {"map": np.zeros((12, 16))}},
]
KNOWN: list[Any] = [
    (IMAGE, {"boxes": np.ones((1, 4)), "labels": np.zeros(1)}),
    Detection(IMAGE, [[1, 2, 3, 4]]),
    {"image": IMAGE, "boxes": np.zeros((0, 4))},
    {"image": IMAGE, "target": {"boxes": [], "masks": np.zeros((0, 12, 16), bool)}},
    {"image": IMAGE, "mask": np.zeros((12, 16), np.int64), "keypoints": np.zeros((17, 3))},
    {"image": IMAGE, "masks": np.zeros((2, 12, 16)), "label": 3},
]
PLAIN: list[Any] = [
    (IMAGE, 7),
    (IMAGE, np.int64(7)),
    (IMAGE, np.eye(10)[3]),
    (IMAGE, np.zeros(4)),
    (IMAGE, np.full(10, 0.1, np.float32)),
    (IMAGE, np.array([1, 0, 1], bool)),
    (IMAGE, np.zeros(())),
    (IMAGE, np.zeros((8000, 1), np.float32)),
    (IMAGE, ["a cat", "on a mat"]),
    (IMAGE, [["a", "cat"], ["on", "a", "mat"]]),
    (IMAGE, np.array([["a", "b"], ["c", "d"]])),
    (IMAGE, [7], (8, "x")),
    (IMAGE, []),
    (IMAGE, {"age": 3, "name": "a", "score": 0.5, "when": datetime(2026, 1, 1, tzinfo=UTC), "vector": np.zeros(8)}),
    (IMAGE, Path("a.jpg"), Enum("Kind", "A B").A, {1, 2}),  # type: ignore[attr-defined]
    (IMAGE, SimpleNamespace(label=3, path="a.jpg")),
    (IMAGE, "a cat", b"raw", None, 0.5),
    (IMAGE, [1, 2, 3, 4]),
    (IMAGE, {"label": 3, "id": "a", "size": (12, 16)}),
    {"image": IMAGE, "label": 3, "text": "boxes", "mask_path": "m.png", "points": 21},
    {"image": IMAGE, "input_ids": np.zeros(16), "attention_mask": np.ones(16)},
    {"image": IMAGE, "attention_mask": [1, 1, 0]},
    {"image": IMAGE, "label": np.zeros((3, 4))},
    {"image": IMAGE, "label": {"sound": np.zeros((8000, 2)), "tokens": [[1, 2], [3, 4]]}},
    {"image": IMAGE, "region": "Bavaria", "pose": 3, "center": "Munich", "annotations": ["a", "b"]},
    (IMAGE,),
    IMAGE,
]


@pytest.mark.parametrize("transform", GEOMETRY, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("sample", SPATIAL)
def test_geometry_refuses_a_sample_with_a_target_that_has_places(transform: Any, sample: Any) -> None:
    """Name the transform, the part and the cure, whatever the numbers drawn."""
    with pytest.raises(ArgumentError, match=rf"{type(transform).__name__} would .*behind: .*Compose\("):
        transform(sample, np.random.default_rng(0))


@pytest.mark.parametrize("transform", GEOMETRY, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("sample", KNOWN)
def test_geometry_takes_fields_whose_names_are_known(transform: Any, sample: Any) -> None:
    """Move masks, boxes and keypoints under these names, in a sample of the same form."""
    assert type(transform(sample, np.random.default_rng(0))) is type(sample)


@pytest.mark.parametrize("transform", GEOMETRY, ids=lambda one: type(one).__name__)
def test_a_mask_of_another_size_is_refused(transform: Any) -> None:
    """Name the field, its shape and the size of the image."""
    with pytest.raises(ArgumentError, match=r"'masks' an array of shape \(2, 6, 8\) .*12 x 16 pixels"):
        transform({"image": IMAGE, "masks": np.zeros((2, 6, 8))}, np.random.default_rng(0))


@pytest.mark.parametrize("transform", GEOMETRY, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("sample", PLAIN)
def test_geometry_lets_labels_text_and_sound_pass(transform: Any, sample: Any) -> None:
    """Transform the image and leave the rest as it is."""
    assert type(transform(sample, np.random.default_rng(0))) is type(sample)


@pytest.mark.parametrize("sample", SPATIAL)
def test_a_transform_of_values_takes_any_sample(sample: Any) -> None:
    """Change values and axes of the image beside masks and boxes."""
    ToCHW()(ToFloat()(sample))


@pytest.mark.parametrize("kind", [ArrayDataset, TensorDataset])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_native_route_refuses_masks_as_the_other_does(kind: Any, workers: int) -> None:
    """Refuse whole batches of images and masks from arrays."""
    images, masks = np.zeros((6, 12, 16, 3), np.uint8), np.zeros((6, 12, 16), np.int64)
    dataset = kind(images, masks).map(RandomHorizontalFlip())
    with (
        DataLoader(dataset, 2, seed=0, num_workers=workers) as loader,
        pytest.raises((ArgumentError, HeadraceError), match="leave the rest of the sample behind: item 1"),
    ):
        next(iter(loader))


def test_the_native_route_still_takes_images_with_one_hot_labels() -> None:
    """Read whole batches by the native extension where the labels are vectors."""
    dataset = ArrayDataset(np.zeros((6, 12, 16, 3), np.uint8), np.eye(6)).map(RandomHorizontalFlip())
    assert dataset._plan is not None
    assert dataset._plan.whole


def test_ellipses_of_faces_are_refused_where_the_face_moves(tmp_path: Any) -> None:
    """Refuse FDDB's samples, and take the images of a dataset without annotations."""
    Image.new("RGB", (80, 60)).save(tmp_path / "img_1.jpg")
    (tmp_path / "FDDB-fold-01.txt").write_text("img_1")
    (tmp_path / "FDDB-fold-01-ellipseList.txt").write_text("img_1\n1\n20 10 1.5 40 30  1")
    annotated = FaceDataset.fddb(tmp_path, tmp_path, folds=[1]).map(RandomHorizontalFlip())
    with pytest.raises(ArgumentError, match=r"item 1, of shape \(1, 5\)"):
        annotated[0]
    assert FaceDataset(tmp_path).map(CenterCrop(8))[0].shape == (8, 8, 3)
