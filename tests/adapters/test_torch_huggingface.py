"""Datasets of Hugging Face with transforms of torchvision's, read by the native extension."""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
datasets = pytest.importorskip("datasets")
v2 = pytest.importorskip("torchvision.transforms.v2")
from PIL import Image  # noqa: E402

import headrace  # noqa: E402
from headrace.errors import NotNativeWarning  # noqa: E402
from headrace.torch import DataLoader  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

SIZED = v2.Compose([v2.Resize(40), v2.CenterCrop(32), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


def encoded(number: int) -> dict[str, Any]:
    pixels = np.random.default_rng(number).integers(0, 255, (8, 9, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((90, 80)).save(file, "PNG" if number == 2 else "JPEG")
    return {"bytes": file.getvalue(), "path": None}


@pytest.fixture(scope="module")
def photos() -> Any:
    columns = {"image": [encoded(number) for number in range(6)], "label": range(6), "text": ["a"] * 6}
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())


def replaced(batch: dict[str, Any]) -> dict[str, Any]:
    batch["pixel_values"] = [SIZED(image.convert("RGB")) for image in batch.pop("image")]
    del batch["text"]
    return batch


def renamed(batch: dict[str, Any], transform: Any = SIZED) -> dict[str, Any]:
    return {"labels": batch["label"], "x": list(map(transform, [image.convert("RGB") for image in batch["image"]]))}


def closed() -> Callable[..., Any]:
    crop, name = SIZED, "image"

    def inside(batch: dict[str, Any]) -> dict[str, Any]:
        return {name: [crop(image.convert("RGB")) for image in batch[name]], "label": batch["label"]}

    return inside


FUNCTIONS = [replaced, renamed, functools.partial(renamed, transform=SIZED), closed()]


@pytest.mark.parametrize("function", FUNCTIONS, ids=["replaced", "renamed", "partial", "closure"])
def test_batches_are_those_of_torch(photos: Any, function: Callable[..., Any]) -> None:
    """Give the same names in the same order, the same labels, and pixels within one gray level."""
    dataset = photos.with_transform(function).select([5, 2, 0, 1])
    assert "all fused" in headrace.explain(dataset)
    theirs = torch.utils.data.DataLoader(dataset, 2)
    ours: Any = DataLoader(dataset, 2, native=True)
    for expected, found in zip(theirs, ours, strict=True):
        assert list(found) == list(expected)
        for name, column in expected.items():
            assert (found[name].dtype, found[name].shape) == (column.dtype, column.shape)
            close = (found[name] - column).abs() <= 1.01 / 255
            assert close.double().mean() >= 0.999


def test_a_collate_function_gets_samples(photos: Any) -> None:
    """Give dicts of a tensor and of Python's integers, as the examples of transformers expect them."""

    def stacked(samples: list[dict[str, Any]]) -> Any:
        return torch.stack([one["pixel_values"] for one in samples]), [one["label"] for one in samples]

    loader: Any = DataLoader(photos.with_transform(replaced), 3, collate_fn=stacked, native=True)
    pixels, labels = next(iter(loader))
    assert pixels.shape == (3, 3, 32, 32)
    assert labels == [0, 1, 2]


def left(batch: dict[str, Any]) -> dict[str, Any]:
    batch["x"] = [SIZED(image.convert("RGB")) for image in batch["image"]]
    return batch


def gray(batch: dict[str, Any]) -> dict[str, Any]:
    return {"x": [SIZED(image) for image in batch["image"]]}


def swapped(batch: dict[str, Any]) -> dict[str, Any]:
    return {"x": [SIZED(image.convert("RGB")) for image in batch["image"][::-1]]}


def flipped(batch: dict[str, Any]) -> dict[str, Any]:
    return {"x": [SIZED(image.convert("RGB").transpose(0)) for image in batch["image"]]}


def drawn(batch: dict[str, Any]) -> dict[str, Any]:
    return {"x": [SIZED(image.convert("RGB")) for image in batch["image"]], "y": [np.random.random()]}


def captioned(batch: dict[str, Any]) -> dict[str, Any]:
    return {"x": [SIZED(image.convert("RGB")) for image in batch["image"]], "text": batch["text"]}


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (left, "'image' stays an image beside the result"),
        (gray, "does not convert 'image' to RGB"),
        (swapped, "'x' is no column, and no transformed one"),
        (flipped, "transpose"),
        (drawn, "uses np, which is no transform"),
        (captioned, "its column 'text' holds string"),
        (None, "it has no transform"),
    ],
)
def test_what_is_not_recognized_is_named(photos: Any, function: Any, why: str) -> None:
    """Say why a function cannot be followed, in explain() and in the warning."""
    dataset = photos if function is None else photos.with_transform(function)
    assert why in headrace.explain(dataset)
    with pytest.warns(NotNativeWarning, match=why):
        DataLoader(dataset, 2, native=True)


def test_a_dataset_without_images_is_not_examined() -> None:
    """Leave other datasets of Hugging Face's alone."""
    assert "sample by sample" in headrace.explain(datasets.Dataset.from_dict({"x": [1, 2]}))
