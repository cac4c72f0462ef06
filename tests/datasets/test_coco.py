"""`CocoDetection`: what a COCO file says of each image, in the form that transforms know; and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from headrace import Compose, DataLoader, RandomHorizontalFlip
from headrace.datasets import CocoDetection
from headrace.errors import BadAnnotation, BadFile, MissingFile
from headrace.testing import DatasetTests
from headrace.transforms import CenterCrop, Keypoints

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {9: (6, 8), 3: (10, 7), 5: (6, 8), 12: (4, 4), 11: (5, 9)}


def content() -> dict[str, Any]:
    return {
        "info": {"year": 2017},
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 18, "bbox": [1, 2, 3, 4], "area": 12.5, "iscrowd": 0,
             "segmentation": [[1, 2, 4, 2, 4, 6, 1, 6]], "keypoints": [2, 3, 2, 5, 3, 1], "num_keypoints": 2},
            {"id": 2, "image_id": 3, "category_id": 2, "bbox": [0, 0, 7, 10], "area": 70, "iscrowd": 1,
             "segmentation": {"size": [10, 7], "counts": [10, 50, 10]}},
            {"id": 3, "image_id": 9, "category_id": 2, "bbox": [0, 0, 2, 2], "area": 4, "iscrowd": 0,
             "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]},
        ],
        "images": [
            {"id": number, "file_name": f"{number}.png", "height": height, "width": width}
            for number, (height, width) in SIZES.items()
        ],
        "categories": [
            {"id": 18, "name": "person", "keypoints": ["left_eye", "right_eye"]},
            {"id": 2, "name": "dog"},
        ],
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, (height, width) in SIZES.items():
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    write(tmp_path, content())
    return tmp_path


def write(folder: Path, value: dict[str, Any]) -> None:
    (folder / "a.json").write_text(json.dumps(value))


def made(folder: Path, **options: Any) -> CocoDetection:
    return CocoDetection(folder, folder / "a.json", **options)


class TestCoco(DatasetTests):
    collates = False

    @pytest.fixture(autouse=True)
    def _files(self, folder: Path) -> None:
        self.folder = folder

    def label(self, sample: Any) -> Any:
        return sample["image_id"]

    def make(self) -> CocoDetection:
        return made(self.folder, masks=True, keypoints=True)


def test_images_are_in_the_order_of_ids_and_annotations_in_that_of_the_file(folder: Path) -> None:
    dataset = made(folder)
    assert dataset.image_ids.tolist() == sorted(SIZES)
    assert dataset.counts.tolist() == [1, 0, 2, 0, 0]
    assert (dataset.classes, dataset.category_ids.tolist()) == (["dog", "person"], [2, 18])
    sample = dataset[2]
    assert sample["boxes"].tolist() == [[1, 2, 4, 6], [0, 0, 2, 2]]
    assert sample["labels"].tolist() == [1, 0]
    assert sample["area"].tolist() == [12.5, 4]
    assert sample["image_id"] == 9


def test_an_image_without_annotations_has_none(folder: Path) -> None:
    sample = made(folder, masks=True, keypoints=True)[1]
    shapes = {name: sample[name].shape for name in ("boxes", "labels", "area", "iscrowd", "masks", "keypoints")}
    assert shapes == {
        "boxes": (0, 4), "labels": (0,), "area": (0,), "iscrowd": (0,), "masks": (0, 6, 8), "keypoints": (0, 2, 3),
    }  # fmt: skip


def test_crowds_and_empty_images_may_be_left_out(folder: Path) -> None:
    dataset = made(folder, crowds=False, empty=False)
    assert dataset.image_ids.tolist() == [9]
    assert dataset[0]["boxes"].shape == (2, 4)
    assert made(folder, empty=False).image_ids.tolist() == [3, 9]


def test_masks_are_of_polygons_and_run_lengths(folder: Path) -> None:
    dataset = made(folder, masks=True)
    assert dataset[2]["masks"].sum(axis=(1, 2)).tolist() == [12, 4]
    assert dataset[0]["masks"].sum() == 50


def test_a_flip_swaps_the_points_that_the_file_names_left_and_right(folder: Path) -> None:
    dataset = made(folder, keypoints=True)
    assert dataset.keypoint_swaps == ((0, 1),)
    kinds = {"image": "image", "keypoints": Keypoints(swaps=dataset.keypoint_swaps)}
    sample = Compose(RandomHorizontalFlip(1), kinds=kinds)(dataset[2])
    assert sample["keypoints"][0].tolist() == [[2, 3, 1], [5, 3, 2]]
    assert sample["keypoints"][1].tolist() == [[0, 0, 0], [0, 0, 0]]


def test_what_belongs_to_a_box_that_a_crop_drops_is_dropped_with_it(folder: Path) -> None:
    dataset = made(folder, masks=True, keypoints=True)
    sample = CenterCrop(2)(dataset[2])
    assert {len(sample[name]) for name in ("boxes", "labels", "area", "iscrowd", "masks", "keypoints")} == {1}


def test_an_image_is_turned_where_its_annotations_are_for_it_turned(folder: Path) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    exif = Image.Exif()
    exif[0x0112] = 6
    value = content()
    value["images"] = [
        {"id": 1, "file_name": "turned.png", "height": 8, "width": 6},
        {"id": 2, "file_name": "turned.png", "height": 6, "width": 8},
    ]
    value["annotations"] = []
    Image.fromarray(pixels).save(folder / "turned.png", exif=exif)
    write(folder, value)
    dataset = made(folder)
    np.testing.assert_array_equal(dataset[0]["image"][..., 0], np.rot90(pixels, -1))
    np.testing.assert_array_equal(dataset[1]["image"][..., 0], pixels)


def test_a_loader_gives_the_same_samples_on_processes(folder: Path) -> None:
    dataset = made(folder, masks=True)
    options: dict[str, Any] = {"batch_size": None, "seed": 1, "collate_fn": lambda sample: sample}
    inline = list(DataLoader(dataset, **options))
    threads = list(DataLoader(dataset, num_workers=2, backend="threads", **options))
    for one, other in zip(inline, threads, strict=True):
        np.testing.assert_array_equal(one["masks"], other["masks"])


def _changed(path: list[Any], value: Any) -> dict[str, Any]:
    whole: Any = content()
    part = whole
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return whole  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["annotations", 0, "bbox"], [1, 1, -3, 4], "annotation 1: a box of negative size"),
        (["annotations", 0, "bbox"], [1, 1, 3], "annotation 1: 'bbox' is"),
        (["annotations", 0, "bbox"], [1, 1, 3, "4"], "annotation 1: 'bbox' is"),
        (["annotations", 0, "bbox"], [1, 1, 3, 1e300], "annotation 1: 'bbox' is"),
        (["annotations", 0, "area"], "12", "annotation 1: 'area' is '12'"),
        (["annotations", 0, "iscrowd"], 2, "annotation 1: 'iscrowd' is 2"),
        (["annotations", 0, "image_id"], 77, "annotation 1: no image has the id 77"),
        (["annotations", 0, "category_id"], 77, "annotation 1: no category has the id 77"),
        (["annotations", 0, "id"], 2, "annotation 2 is there twice"),
        (["annotations", 0, "id"], None, "an annotation: 'id' is None"),
        (["annotations", 0, "id"], 2**70, "an annotation: 'id' is"),
        (["annotations", 0], [], "an item of 'annotations' is a list"),
        (["images", 0, "id"], 3, "image 3 is there twice"),
        (["images", 0, "file_name"], 3, "image 9: 'file_name' is 3"),
        (["images", 0, "file_name"], "../9.png", "image 9: the file '../9.png' is outside of the folder"),
        (["images", 0, "file_name"], "/9.png", "image 9: the file '/9.png' is outside of the folder"),
        (["images", 0, "file_name"], "s3://b/9.png", "image 9: the file 's3://b/9.png' is outside of the folder"),
        (["images", 0, "height"], -1, "image 9: a height of -1"),
        (["categories", 0, "id"], 2, "category 2 is there twice"),
        (["categories", 0, "name"], 2, "category 18: 'name' is 2"),
    ],
)
def test_annotations_that_cannot_be_are_refused_with_their_id(
    folder: Path, path: list[Any], value: Any, message: str
) -> None:
    write(folder, _changed(path, value))
    with pytest.raises(BadFile, match=message) as caught:
        made(folder)
    assert str(caught.value.path).endswith("a.json")


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 2, 3]], "annotation 1: a polygon of 3 numbers"),
        ({"size": [6, 8], "counts": [10**15]}, "annotation 1: a run of 1000000000000000 pixels"),
        ({"size": [10**6, 10**6], "counts": [10**12]}, "annotation 1: run lengths of the size"),
        ({"size": [6, 8], "counts": "ooo"}, "annotation 1: compressed run lengths"),
        ({"size": [6, 8]}, "annotation 1: run lengths that are a NoneType"),
        (None, "annotation 1: no 'segmentation'"),
    ],
)
def test_masks_that_cannot_be_are_bad_samples_that_name_the_annotation(
    folder: Path, segmentation: Any, message: str
) -> None:
    write(folder, _changed(["annotations", 0, "segmentation"], segmentation))
    dataset = made(folder, masks=True)
    with pytest.raises(BadAnnotation, match=message) as caught:
        dataset[2]
    assert caught.value.index == 2
    left = list(DataLoader(dataset, None, on_error="skip", collate_fn=lambda sample: sample))
    assert len(left) == 4


@pytest.mark.parametrize("points", [[1, 2], [1, 2, 2] * 3, ["a"] * 3, 7])
def test_keypoints_that_cannot_be_are_bad_samples(folder: Path, points: Any) -> None:
    write(folder, _changed(["annotations", 0, "keypoints"], points))
    with pytest.raises(BadAnnotation, match=r"annotation 1: .* keypoints"):
        made(folder, keypoints=True)[2]


def test_an_image_of_another_size_or_none_is_a_bad_sample(folder: Path) -> None:
    dataset = made(folder)
    Image.new("RGB", (3, 3)).save(folder / "9.png")
    (folder / "3.png").unlink()
    with pytest.raises(BadAnnotation, match="3 x 3 pixels, its annotations are for 8 x 6"):
        dataset[2]
    with pytest.raises(MissingFile, match=r"sample 0 .*3\.png"):
        dataset[0]


def test_a_file_that_changes_after_it_was_indexed_is_an_error(folder: Path) -> None:
    dataset = made(folder, masks=True)
    write(folder, content() | {"annotations": []})
    with pytest.raises(BadFile, match=r"the file has|written to"):
        dataset[2]


def test_a_missing_file_of_annotations_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"none\.json"):
        CocoDetection(tmp_path, tmp_path / "none.json")


@pytest.mark.parametrize("other", [{}, {"images": {}}, {"images": [], "annotations": []}])
def test_a_file_without_images_is_refused(folder: Path, other: dict[str, Any]) -> None:
    """Say what was expected, where the file is of another format."""
    write(folder, other)
    with pytest.raises(BadFile, match="no images in it"):
        made(folder)
