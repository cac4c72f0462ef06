"""Every transform on images of any size, dtype and number of channels: taken or refused, whatever is drawn."""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from headrace import transforms as t
from headrace.errors import ArgumentError
from headrace.image import pending
from headrace.testing.transforms import assert_same
from headrace.transforms.control import Picking
from tests.golden.transform_cases import COLORS, GEOMETRY

pytest.importorskip("PIL")

CASES = {
    **GEOMETRY,
    **COLORS,
    "fills": lambda: t.RandomZoomOut(fill=(1, 2, 3), p=0.5),
    "fills far": lambda: t.RandomPerspective(p=0.5, fill=300),
    "fills a crop": lambda: t.RandomCrop(4, pad_if_needed=True, fill=(1, 2, 3)),
    "fills a policy": lambda: t.RandAugment(fill=(1, 2, 3)),
    "erases": lambda: t.RandomErasing(p=0.5, value=300),
}
SIZES = [(1, 1), (1, 9), (8, 6)]
DTYPES = ["uint8", "uint16", "float32", "float16", "int32", "bool"]
SEEDS = 5


def image_of(size: tuple[int, int], channels: int | None, dtype: str) -> Any:
    """Make an image that cannot be written to."""
    shape = size if channels is None else (*size, channels)
    values = np.random.default_rng(0).random(shape)
    kind = np.dtype(dtype)
    image = values * (np.iinfo(kind).max if kind.kind == "u" else 100) if kind.kind in "ui" else values
    image = image > 0.5 if dtype == "bool" else image.astype(kind)
    image.setflags(write=False)
    return image


def given(name: str, image: Any) -> Any:
    """Return a sample for a transform: with boxes, where it needs them."""
    box = [[0, 0, image.shape[1], image.shape[0]]]
    return {"image": image, "boxes": box} if name in ("RandomIoUCrop", "chain") else image


CHOICES = {"OneOf", "RandomApply", "RandomChoice"}
"""Of any functions: each refuses what it refuses."""
SEVERAL = {"FiveCrop", "MultiCrop", "TenCrop"}
"""Give several images."""


@pytest.mark.parametrize("name", sorted(CASES.keys() - CHOICES - SEVERAL - {"chain"}))
def test_whether_an_image_is_refused_does_not_depend_on_a_draw(name: str) -> None:
    """Take an image with all seeds, of its own dtype, or refuse it with all; change it in place with none."""
    transform = CASES[name]()
    for size in SIZES:
        for channels in (None, 1, 2, 3, 4):
            for dtype in DTYPES:
                image = image_of(size, channels, dtype)
                sample, refused = given(name, image), 0
                for seed in range(SEEDS):
                    try:
                        out = transform(sample, np.random.default_rng(seed))
                    except ArgumentError:
                        refused += 1
                    else:
                        out = out["image"] if isinstance(out, dict) else out
                        assert (out.dtype, out.ndim) == (image.dtype, image.ndim)
                        assert out.size
                assert refused in (0, SEEDS), (size, channels, dtype, refused)
                np.testing.assert_array_equal(image, image_of(size, channels, dtype))


def test_every_transform_of_images_has_a_case() -> None:
    kinds = (value for value in map(vars(t).get, t.__all__) if isinstance(value, type))
    public = {kind for kind in kinds if issubclass(kind, t.ImageTransform | Picking)}
    tested = {type(make()) for make in CASES.values()}
    assert public - tested == {t.ImageTransform, t.GeometricTransform, t.ToFloat, t.Normalize, t.ToCHW, t.ToDtype}


LAYOUTS: dict[str, Any] = {
    "columns first": np.asfortranarray,
    "every second": lambda array: np.repeat(np.repeat(array, 2, axis=0), 2, axis=1)[::2, ::2],
    "backwards": lambda array: np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1],
    "within a larger one": lambda array: np.pad(array, 1)[1:-1, 1:-1][..., 1:-1] if array.ndim == 3 else array,
    "channels first": lambda array: np.moveaxis(np.ascontiguousarray(np.moveaxis(array, -1, 0)), 0, -1),
}


@pytest.mark.parametrize("name", CASES)
def test_any_layout_in_memory_gives_the_same_pixels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read arrays that are no blocks of memory, alone and in a group, with masks that are none either."""
    monkeypatch.setattr(pending, "LEAST_BYTES", 0)
    for channels, dtype in ((None, "uint8"), (3, "uint8"), (4, "float32")):
        image = image_of((8, 6), channels, dtype)
        sample = given(name, image)
        if name in GEOMETRY and isinstance(sample, dict):
            sample = {**sample, "mask": image_of((8, 6), None, "uint8"), "masks": image_of((1, 8, 6), None, "bool")}
        for chain in (CASES[name](), t.Compose(t.RandomVerticalFlip(0.5), CASES[name]())):
            expected = of_it(chain, sample)
            for layout in LAYOUTS.values():
                parts = sample.items() if isinstance(sample, dict) else [("image", sample)]
                laid = {key: layout(part) if isinstance(part, np.ndarray) else part for key, part in parts}
                assert_same(of_it(chain, laid if isinstance(sample, dict) else laid["image"]), expected)


def of_it(transform: Any, sample: Any) -> Any:
    """Return what a transform gives, or what its error says."""
    try:
        return transform(sample, np.random.default_rng(3))
    except ArgumentError as error:
        return str(error)


@pytest.mark.parametrize("name", CASES)
def test_values_out_of_range_raise_no_warning(name: str) -> None:
    """Compute something of nan, infinity and numbers beyond 0 and 1, silently."""
    for bad in (np.nan, np.inf, -np.inf, -3.0, 7.0, 1e30):
        image = image_of((9, 11), 3, "float32").copy()
        image[2:5, 3:6] = bad
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with suppress(ArgumentError):
                CASES[name]()(given(name, image), np.random.default_rng(0))


@pytest.mark.parametrize("name", sorted({**GEOMETRY, **COLORS}.keys() - SEVERAL - {"chain", "joined"}))
def test_all_that_is_drawn_has_a_name(name: str) -> None:
    """Name the numbers of each transform that draws, also where it does nothing; draw no others than it does."""
    transform, image = CASES[name](), image_of((40, 50), 3, "uint8")
    for seed in range(20):
        rngs = [np.random.default_rng(seed) for _ in range(2)]
        sample = given(name, image)
        drawn = transform.drawn(sample, rngs[0])
        transform(sample, rngs[1])
        assert bool(drawn) == transform.draws
        if name not in CHOICES:  # the others go on to draw
            assert rngs[0].random() == rngs[1].random()


@dataclass
class Record:
    image: Any
    boxes: Any
    labels: Any
    note: str = "x"


BOXES = {
    "an empty list": ([], []),
    "no rows": (np.zeros((0, 4)), np.zeros(0, int)),
    "integers": (np.array([[0, 0, 8, 5]]), np.array([3])),
    "tuples": (((0, 0, 8, 5),), (3,)),
    "no area": ([[1, 1, 1, 1], [0, 0, 8, 5]], [1, 3]),
    "outside": ([[-50, -50, -20, -20], [0, 0, 8, 5]], ["a", "b"]),
    "the wrong way around": ([[8, 5, 0, 0]], [1]),
    "far beyond": ([[-1e9, -1e9, 1e9, 1e9]], [1]),
    "half floats": (np.array([[0, 0, 8, 5]], np.float16), [1]),
}


UNUSABLE: dict[str, Any] = {
    "a box that is not a number": {"boxes": [[0, 0, np.nan, 4]], "labels": [1]},
    "a box without an end": {"boxes": [[0, 0, np.inf, 4]], "labels": [1]},
    "more labels than boxes": {"labels": [1, 2]},
    "a mask of another size": {"mask": np.zeros((5, 9), np.uint8)},
    "masks of another size": {"masks": np.zeros((1, 6, 8), bool)},
    "more masks than boxes": {"masks": np.zeros((2, 5, 8), bool)},
    "a point that is not a number": {"keypoints": [[1.0, np.nan]]},
}


@pytest.mark.parametrize("name", sorted(GEOMETRY.keys() - {"RandomCrop", "ConvertBoundingBoxFormat"}))
@pytest.mark.parametrize("part", UNUSABLE)
def test_parts_that_cannot_be_used_are_refused_whatever_is_drawn(name: str, part: str) -> None:
    """Refuse them alone and in a group, by the part's name."""
    image = image_of((5, 8), 3, "uint8")
    sample = {"image": image, "boxes": [[0, 0, 8, 5]], "labels": [1], **UNUSABLE[part]}
    for seed in range(SEEDS):
        for chain in (GEOMETRY[name](), t.Compose(t.RandomInvert(), GEOMETRY[name]())):
            with pytest.raises(ArgumentError, match="|".join(UNUSABLE[part])):
                chain(sample, np.random.default_rng(seed))


@pytest.mark.parametrize("name", sorted(GEOMETRY.keys() - {"RandomCrop"}))
def test_boxes_of_any_form_keep_their_form_and_their_labels(name: str) -> None:
    """Take them in dicts with unknown fields, in dataclasses and in tuples; return as many labels of the same type."""
    image = image_of((5, 8), 3, "uint8")
    for boxes, labels in BOXES.values():
        samples: list[Any] = [
            {
                "image": image,
                "boxes": boxes,
                "labels": labels,
                "id": 3,
                "meta": {"a": [1, 2]},
                "tags": ["x"],
                "none": None,
            },
            Record(image, boxes, labels),
            (image, {"boxes": boxes, "labels": labels}),
        ]
        for sample in samples:
            out = GEOMETRY[name]()(sample, np.random.default_rng(1))
            assert type(out) is type(sample)
            target = out if isinstance(out, dict) else vars(out) if isinstance(out, Record) else out[1]
            assert len(target["boxes"]) == len(target["labels"])
            assert type(target["labels"]) is type(labels)
            assert target["boxes"].dtype == (
                boxes.dtype if getattr(boxes, "dtype", None) in (float, "f2") else np.float32
            )
