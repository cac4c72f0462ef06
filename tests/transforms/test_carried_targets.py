"""Masks, boxes, keypoints and further images move with the image: compared with what is drawn in the image itself."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import (
    ArrayDataset,
    CenterCrop,
    Compose,
    DataLoader,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToFloat,
)
from headrace.errors import ArgumentError
from headrace.testing import TransformTests
from headrace.testing.transforms import Samples
from headrace.transforms import Boxes, ImageTransform, Keypoints, Mask, RandomRotation

EXACT = [
    RandomHorizontalFlip(1),
    CenterCrop((5, 3)),
    RandomCrop((4, 6), pad_if_needed=True),
    RandomCrop(3, padding=4),
    Pad((1, 2, 3, 4)),
    Compose(Pad(3), RandomHorizontalFlip(1), RandomCrop(4)),
]
FORMS = [Boxes(form, normalized=normalized) for form in ("xyxy", "xywh", "cxcywh") for normalized in (False, True)]


def rectangles(height: int, width: int, count: int, seed: int) -> list[list[int]]:
    """Draw boxes of whole pixels, (x0, y0, x1, y1)."""
    rng = np.random.default_rng(seed)
    boxes = []
    for _ in range(count):
        (top, bottom), (left, right) = sorted(rng.integers(0, height, 2)), sorted(rng.integers(0, width, 2))
        boxes.append([int(left), int(top), int(right) + 1, int(bottom) + 1])
    return boxes


def drawn(height: int, width: int, boxes: list[list[int]]) -> np.ndarray:
    """Return a mask for each box, (N, H, W)."""
    masks = np.zeros((len(boxes), height, width), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 1
    return masks


def extent(mask: np.ndarray) -> list[int]:
    """Return the box around the pixels of a mask that are set."""
    rows, columns = np.nonzero(mask)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def given_as(kind: Boxes, boxes: Any, height: int, width: int) -> np.ndarray:
    """Write boxes of corners in pixels as a kind has them."""
    x0, y0, x1, y1 = np.array(boxes, np.float64).reshape(-1, 4).T
    columns = {
        "xyxy": (x0, y0, x1, y1),
        "xywh": (x0, y0, x1 - x0, y1 - y0),
        "cxcywh": ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0),
    }[kind.format]
    rows = np.stack(columns, axis=1)
    return rows / (width, height, width, height) if kind.normalized else rows


@settings(max_examples=60, deadline=None)
@given(
    transform=st.sampled_from(EXACT),
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    count=st.integers(0, 5),
    seed=st.integers(0, 99),
    kind=st.sampled_from(FORMS),
    channels=st.sampled_from([None, 1, 3, 4]),
)
def test_boxes_are_those_around_the_pixels_that_are_left(transform, height, width, count, seed, kind, channels):
    """Draw rectangles; after the transform, find each again in its mask: the same box, or none where none is left."""
    boxes = rectangles(height, width, count, seed)
    masks = drawn(height, width, boxes)
    shape = (height, width) if channels is None else (height, width, channels)
    sample = {
        "image": np.zeros(shape, np.uint8),
        "boxes": given_as(kind, boxes, height, width),
        "masks": masks,
        "labels": list(range(count)),
        "mask": masks.any(axis=0).astype(np.int32) * 9 if count else np.zeros((height, width), np.int32),
    }
    out = Compose(transform, kinds={"boxes": kind})(sample, np.random.default_rng(seed))
    alone = Compose(transform)(masks.transpose(1, 2, 0) if count else sample["image"], np.random.default_rng(seed))
    kept = [number for number in range(count) if alone[:, :, number].any()]
    assert out["labels"] == kept
    assert out["image"].shape[:2] == out["mask"].shape == out["masks"].shape[1:] == alone.shape[:2]
    expected = given_as(kind, [extent(alone[:, :, number]) for number in kept], *out["mask"].shape)
    np.testing.assert_allclose(out["boxes"], expected, atol=1e-9)
    for mask, number in zip(out["masks"], kept, strict=True):
        np.testing.assert_array_equal(mask, alone[:, :, number])
    np.testing.assert_array_equal(out["mask"] > 0, alone.any(axis=2) if count else np.zeros(alone.shape[:2], bool))


@settings(max_examples=40, deadline=None)
@given(
    transform=st.sampled_from(EXACT),
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    seed=st.integers(0, 99),
)
def test_keypoints_stay_on_their_pixels(transform, height, width, seed):
    """Mark a pixel with a number of its own; after the transform, the keypoint lies on that pixel, or is (0, 0, 0)."""
    rng = np.random.default_rng(seed)
    points = np.stack([rng.integers(0, width, 4), rng.integers(0, height, 4), rng.integers(1, 3, 4)], axis=1)
    numbers = np.arange(1, height * width + 1).reshape(height, width)
    out = Compose(transform)({"image": numbers, "keypoints": points}, np.random.default_rng(seed))
    for (x, y, seen), (left, top, visible) in zip(out["keypoints"], points, strict=True):
        here = numbers[top, left]
        if (out["image"] == here).any():
            assert out["image"][int(y), int(x)] == here
            assert seen == visible
        else:
            assert (x, y, seen) == (0, 0, 0)


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (40, 64)])
def test_boxes_are_scaled_as_the_image_is(size: Any) -> None:
    """Scale corners by the ratio of the sides, and draw a mask that fits within one pixel."""
    boxes = rectangles(20, 30, 6, 0)
    out = Resize(size)({"image": np.zeros((20, 30, 3), np.uint8), "boxes": boxes, "masks": drawn(20, 30, boxes)})
    scale = np.array([size[1] / 30, size[0] / 20] * 2)
    np.testing.assert_allclose(out["boxes"], boxes * scale, rtol=1e-6)
    assert out["boxes"].dtype == np.float32
    for mask, box in zip(out["masks"], out["boxes"], strict=True):
        if mask.any():
            assert np.abs(extent(mask) - box).max() <= 1
    cut = RandomResizedCrop(16)
    sample = {"image": np.zeros((20, 30, 3)), "boxes": np.array(boxes, float), "keypoints": np.array([[3.0, 4.0]])}
    out = cut(sample, np.random.default_rng(3))
    top, left, rows, columns = cut.box(20, 30, np.random.default_rng(3))
    x, y = (3.5 - left) * 16 / columns - 0.5, (4.5 - top) * 16 / rows - 0.5
    np.testing.assert_allclose(out["keypoints"], [[x, y]])
    assert out["boxes"].dtype == np.float64


def test_boxes_are_dropped_by_area_and_by_visibility_with_all_that_is_theirs() -> None:
    """Keep the rows of labels, masks and objects' keypoints together."""
    boxes = [[0, 0, 4, 4], [3, 0, 7, 4], [4, 4, 5, 5], [4, 4, 8, 8]]
    sample = {
        "image": np.zeros((8, 8), np.uint8),
        "boxes": boxes,
        "masks": drawn(8, 8, boxes),
        "labels": np.arange(4),
        "keypoints": np.arange(4 * 2 * 2).reshape(4, 2, 2),
        "scores": [0.1, 0.2, 0.3, 0.4],
        "label": "untouched",
    }

    def left(**limits: float) -> dict[str, Any]:
        kinds = {"boxes": Boxes(**limits), "scores": "labels"}
        return Compose(Pad((-0, 0)), RandomHorizontalFlip(0), CenterCrop(4), kinds=kinds)(sample)

    out = left()
    assert out["labels"].tolist() == [0, 1, 2, 3]
    assert left(min_area=2)["scores"] == [0.1, 0.2, 0.4]
    assert left(min_visibility=0.3)["labels"].tolist() == [1, 2]
    few = left(min_visibility=0.3)
    assert few["boxes"].tolist() == [[1, 0, 4, 2], [2, 2, 3, 3]]
    assert few["masks"].shape == (2, 4, 4)
    assert few["keypoints"].shape == (2, 2, 2)
    assert few["label"] == "untouched"
    none = left(min_area=100)
    assert none["boxes"].shape == (0, 4)
    assert none["masks"].shape == (0, 4, 4)


def test_points_that_were_not_labeled_stay_and_sides_change_places() -> None:
    """Leave a visibility of 0 alone; swap the pairs only where the image is mirrored."""
    points = np.array([[1.0, 0, 2], [6, 0, 1], [0, 0, 0], [4, 1, 2]])
    sample = {"image": np.zeros((2, 8)), "keypoints": points}
    kinds = {"keypoints": Keypoints(swaps=((0, 1), (2, 3)))}
    mirrored = Compose(RandomHorizontalFlip(1), kinds=kinds)(sample)["keypoints"]
    assert mirrored.tolist() == [[1, 0, 1], [6, 0, 2], [3, 1, 2], [0, 0, 0]]
    same = Compose(RandomHorizontalFlip(0), CenterCrop((2, 4)), kinds=kinds)(sample)["keypoints"]
    assert same.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0], [2, 1, 2]]
    with pytest.raises(ArgumentError, match=r"keypoints for all of swaps=\(\(0, 9\),\)"):
        Compose(RandomHorizontalFlip(1), kinds={"keypoints": Keypoints(swaps=((0, 9),))})(sample)
    with pytest.raises(ArgumentError, match="Keypoints: swaps must be an integer"):
        Keypoints(swaps=["ab"])


def test_masks_keep_their_values_and_are_filled_with_their_own() -> None:
    """Take the nearest value of palettes, wide integers and booleans; fill as declared, not as the image."""
    for dtype in (np.uint8, np.int64, np.uint16, bool, np.float32):
        mask = np.random.default_rng(0).integers(0, 2, (9, 7)).astype(dtype) * dtype(1)
        chain = Compose(Resize((20, 13)), Pad(2, fill=77), kinds={"mask": Mask(fill=1)})
        out = chain({"image": np.zeros((9, 7, 3), np.uint8), "mask": mask})
        assert out["mask"].dtype == dtype
        assert set(np.unique(out["mask"])) <= {0, 1}
        assert (out["mask"][:2] == 1).all()
        assert (out["image"][:2] == 77).all()


class Noise(ImageTransform):
    """Draws for each pixel, and moves none."""

    def transform_image(self, image: Any, rng: Any) -> Any:
        return image + rng.integers(0, 9, image.shape)


def test_further_images_get_the_same_numbers() -> None:
    """Draw once for all images of a sample, whether a transform moves pixels or changes values."""
    image = np.random.default_rng(0).integers(0, 200, (9, 9))
    chain = Compose(RandomCrop(5), Noise(), RandomHorizontalFlip(), kinds={"image": "image", "right": "image"})
    for seed in range(6):
        out = chain({"image": image, "right": image.copy()}, np.random.default_rng(seed))
        np.testing.assert_array_equal(out["image"], out["right"])
        alone = Compose(*[one.transform for one in chain.transforms])(image, np.random.default_rng(seed))
        np.testing.assert_array_equal(out["image"], alone)
    with pytest.raises(ArgumentError, match="an image of 9 x 9 pixels, as the first image"):
        chain({"image": image, "right": image[1:]}, np.random.default_rng(0))


@dataclass(frozen=True)
class Photo:
    image: np.ndarray
    boxes: np.ndarray
    name: str


class Pair(NamedTuple):
    image: np.ndarray
    segmentation: np.ndarray


def test_kinds_are_declared_in_the_form_of_the_sample() -> None:
    """Take dicts, dicts within them, tuples, named tuples and dataclasses, and give the same."""
    image, ramp = np.zeros((4, 6), np.uint8), np.arange(24).reshape(4, 6)
    flip = RandomHorizontalFlip(1)
    out = flip(Photo(image, np.array([[0.0, 0, 1, 1]]), "a.jpg"))
    assert (type(out), out.boxes.tolist(), out.name) == (Photo, [[5, 0, 6, 1]], "a.jpg")
    pair = Compose(flip, kinds=("image", "mask"))((image, ramp))
    np.testing.assert_array_equal(pair[1], ramp[:, ::-1])
    named = Compose(flip, kinds=("image", "mask"))(Pair(image, ramp))
    np.testing.assert_array_equal(named.segmentation, ramp[:, ::-1])
    within = Compose(flip, kinds={"in": {"photo": "image"}, "out": {"seg": "mask", "ids": "other"}})
    sample = {"in": {"photo": image, "n": 3}, "out": {"seg": ramp, "ids": np.zeros((2, 2))}}
    out = within(sample)
    np.testing.assert_array_equal(out["out"]["seg"], ramp[:, ::-1])
    assert out["in"]["n"] == 3
    assert sample["out"]["seg"] is ramp
    target = (image, {"boxes": np.array([[0, 0, 1, 1]]), "labels": np.array([7]), "image_id": 5})
    assert flip(target)[1]["boxes"].tolist() == [[5, 0, 6, 1]]


@pytest.mark.parametrize(
    ("kinds", "match"),
    [
        ({"image": "photo"}, r"kind of 'image' must be one of 'image', .*got 'photo'"),
        ("image", "kinds must be a mapping"),
        (7, "kinds must be a mapping"),
        ({"image": 3}, "kind of 'image'"),
    ],
)
def test_a_kind_that_does_not_exist_is_refused(kinds: Any, match: str) -> None:
    """Name the field and what it could be."""
    with pytest.raises(ArgumentError, match=match):
        Compose(RandomHorizontalFlip(), kinds=kinds)


@pytest.mark.parametrize(
    ("part", "match"),
    [
        ({"boxes": np.zeros((2, 5))}, "'boxes'"),
        ({"boxes": np.full((1, 4), np.nan)}, r"'boxes' an array .*boxes: finite numbers, \(N, 4\)"),
        ({"boxes": np.ones((2, 4)), "labels": [1]}, "'labels' a list, .*a row for each of the 2 boxes"),
        ({"boxes": np.ones((2, 4)), "masks": np.zeros((1, 4, 4))}, "'masks' .*a row for each of the 2 boxes"),
        ({"mask": np.zeros((4, 5))}, r"'mask' .*a mask \(H, W\) or \(H, W, C\) of 4 x 4"),
        ({"keypoints": np.zeros((1, 2, 3, 2))}, "'keypoints' .*keypoints"),
        ({"keypoints": np.array([[1, np.nan]])}, "'keypoints' .*finite keypoints"),
        ({"keypoints": np.array([[np.inf, 1, 2]])}, "'keypoints' .*finite keypoints"),
        ({"boxes": [[0, 0, 1e300, 1]]}, "'boxes' .*boxes: finite numbers"),
        ({"boxes": np.ones((1, 4)), "target": {"boxes": np.ones((1, 4))}}, "2 fields of boxes"),
    ],
)
def test_fields_that_do_not_fit_are_refused_whatever_is_drawn(part: dict[str, Any], match: str) -> None:
    """Name the transform, the field and what was expected."""
    for p in (0, 1):
        with pytest.raises(ArgumentError, match=rf"RandomHorizontalFlip .*{match}"):
            RandomHorizontalFlip(p)({"image": np.zeros((4, 4)), **part})


@pytest.mark.parametrize(
    ("kinds", "match"),
    [
        ({"boxs": Boxes("xywh")}, "declare boxes under 'boxs', and the sample has them under 'boxes'"),
        (("image", Boxes("xywh")), "declare 2 items in order, and the sample is a dict"),
    ],
)
def test_kinds_of_another_sample_are_refused(kinds: Any, match: str) -> None:
    """Pass over no declaration of boxes: their format would be another."""
    with pytest.raises(ArgumentError, match=match):
        Compose(RandomHorizontalFlip(0), kinds=kinds)({"image": np.zeros((4, 4)), "boxes": [[0, 0, 1, 1]]})


def test_a_point_that_was_not_labeled_may_be_anything() -> None:
    """Keep what it is, without a warning."""
    points = np.array([[np.inf, np.nan, 0], [1, 1, 2]])
    out = RandomRotation((7, 7))({"image": np.zeros((4, 4)), "keypoints": points})["keypoints"]
    np.testing.assert_array_equal(out[0], points[0])


@pytest.mark.parametrize("stacked", [False, True])
def test_a_fill_that_a_mask_cannot_hold_is_refused_whatever_is_drawn(stacked: bool) -> None:
    """Say so of a mask of booleans, though a flip uncovers nothing."""
    mask = np.zeros((2, 4, 4) if stacked else (4, 4), bool)
    kinds = {"part": Mask(fill=255, stacked=stacked)}
    for p in (0, 1):
        with pytest.raises(ArgumentError, match=r"'part' .*bool.*a mask of a dtype that holds its fill, 255"):
            Compose(RandomHorizontalFlip(p), kinds=kinds)({"image": np.zeros((4, 4)), "part": mask})


@pytest.mark.parametrize("labels", [[7, 8], (7, 8), [[7], [8]], np.array([7, 8]), np.array([[7], [8]])])
def test_labels_of_any_form_lose_the_rows_of_dropped_boxes(labels: Any) -> None:
    """Keep the label of the box that is left: lists, tuples, vectors and columns."""
    sample = {"image": np.zeros((40, 40)), "boxes": [[0, 0, 1, 1], [15, 15, 25, 25]], "labels": labels}
    out = CenterCrop(20)(sample)["labels"]
    assert type(out) is type(labels)
    np.testing.assert_array_equal(out, labels[1:])


@pytest.mark.parametrize(
    ("kinds", "cure"),
    [
        (None, r"Fix the sample, or declare the field as what it is"),
        ({"labels": "labels"}, r"Fix the sample, or the kind that Compose\(\.\.\., kinds=\{\.\.\.\}\) declares"),
    ],
)
def test_the_cure_knows_whether_a_field_was_declared(kinds: Any, cure: str) -> None:
    """Ask for no declaration where there is one."""
    sample = {"image": np.zeros((4, 4)), "boxes": [[0, 0, 1, 1]], "labels": [1, 2]}
    with pytest.raises(ArgumentError, match=rf"expected a row for each of the 1 boxes\. {cure}"):
        Compose(RandomHorizontalFlip(), kinds=kinds)(sample)


def test_a_field_of_another_form_than_its_name_says_is_refused_with_that_form() -> None:
    """Say what boxes are, where a field of this name has five columns."""
    with pytest.raises(ArgumentError, match=r"'boxes', of shape \(2, 5\).*\"boxes\" \(N, 4\)"):
        RandomHorizontalFlip()({"image": np.zeros((4, 4)), "boxes": np.zeros((2, 5))})


class Tinted(RandomHorizontalFlip):
    """Does something of its own to the image."""

    def transform_image(self, image: Any, rng: Any) -> Any:
        return image


class Always(RandomHorizontalFlip):
    """Draws in another way."""

    def flips(self, rng: Any = None) -> bool:
        return True


def test_a_subclass_moves_targets_as_long_as_its_image_is_moved_by_the_same_draw() -> None:
    """Refuse targets where the image is changed in another way, and take a subclass that only draws otherwise."""
    sample = {"image": np.zeros((2, 4)), "boxes": [[0, 0, 1, 1]]}
    with pytest.raises(ArgumentError, match=r"Tinted would move .*'boxes'"):
        Tinted(1)(sample)
    assert Tinted(1)(sample["image"]).shape == (2, 4)
    assert Always(0)(sample)["boxes"].tolist() == [[3, 0, 4, 1]]


def test_a_chain_with_kinds_is_shown_pickled_and_replayed_as_any_other() -> None:
    """Keep names, settings and what was drawn; batches come step by step."""
    chain = Compose(RandomCrop(4), RandomHorizontalFlip(), ToFloat(), kinds=("image", "mask"))
    assert repr(chain).startswith("Compose(RandomCrop(size=(4, 4)")
    copied = pickle.loads(pickle.dumps(chain))
    assert copied == chain
    pair = np.zeros((8, 8, 3), np.uint8), np.arange(64).reshape(8, 8)
    for one, other in zip(*(each(pair, np.random.default_rng(1)) for each in (chain, copied)), strict=True):
        np.testing.assert_array_equal(one, other)
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    dataset = ArrayDataset(images, images[..., 0]).map(chain)
    assert "RandomCrop" in dataset.explain()
    loader: DataLoader[Any] = DataLoader(dataset, 3, seed=0)
    _, (pixels, masks) = loader
    np.testing.assert_array_equal(pixels[..., 0], masks / np.float32(255))
    lineage = loader.lineage(epoch=0, step=1, index=0)
    assert lineage.steps[0].parameters.keys() == {"top", "left", "height", "width"}
    assert lineage.steps[0].name == "RandomCrop((4, 4))"
    assert lineage.steps[1].parameters.keys() == {"flipped"}


class TestTargets(TransformTests):
    """A whole sample of a detection dataset."""

    def make(self) -> Any:
        return Compose(RandomCrop(24, padding=2), RandomHorizontalFlip(), Resize(20), kinds={"boxes": Boxes("xywh")})

    def samples(self) -> list[Any]:
        return [
            {
                "image": image,
                "mask": image[..., 0],
                "boxes": np.array([[1, 2, 30, 20], [40, 20, 5, 5]]),
                "labels": np.array([number, 3]),
                "keypoints": np.array([[[1, 2, 2], [30, 30, 1]]] * 2),
                "label": number,
            }
            for number, image in enumerate(super().samples())
        ]

    def test_lineage_names_it(self) -> None:
        """Name each of its transforms instead."""
        loader: DataLoader[Any] = DataLoader(Samples(self.samples()).map(self.make()), 4, seed=5, collate_fn=list)
        names = [step.name.partition("(")[0] for step in loader.lineage(epoch=0, step=1, index=2).steps]
        assert names == ["RandomCrop", "RandomHorizontalFlip", "Resize"]
