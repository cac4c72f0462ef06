"""Datasets of Hugging Face with transforms of torchvision's, read by the native extension."""

from __future__ import annotations

import dataclasses
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

CALLS = 0
SMALL = v2.Compose([v2.Resize((8, 8)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
SIZED = v2.Compose([v2.Resize(40), v2.CenterCrop(32), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


def encoded(number: int) -> dict[str, Any]:
    pixels = np.random.default_rng(number).integers(0, 255, (8, 9, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((90, 80)).save(file, "PNG" if number == 2 else "JPEG")
    return {"bytes": file.getvalue(), "path": None}


@pytest.fixture(scope="module")
def photos() -> Any:
    columns = {
        "image": [encoded(number) for number in range(6)],
        "label": range(6),
        "text": ["a", "", "caption of three words", "ü", "e", "f"],
        "score": [0.1, -1.0, float("inf"), 3.0, 1e30, 5.5],
        "valid": [True, False, False, True, True, False],
    }
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


@dataclasses.dataclass
class Settings:
    """What a script may keep its settings in."""

    transform: Any = SIZED
    augment: bool = False

    def first(self, column: list[Any]) -> list[Any]:
        return column[:1]


SETTINGS = Settings()


def counted(batch: dict[str, Any]) -> dict[str, Any]:
    made = [(SIZED if SETTINGS.augment else SETTINGS.transform)(x.convert("RGB")) for _, x in enumerate(batch["image"])]
    labels = [batch["label"][row] for row in range(len(batch["label"]))]
    return {name: column for name, column in batch.items() if name not in ("image", "text")} | {"x": made, "y": labels}


def checked(batch: dict[str, Any]) -> dict[str, Any]:
    return {"x": [SIZED(one if one.mode == "RGB" else one.convert("RGB")) for one in batch["image"]]}


def captioned(batch: dict[str, Any]) -> dict[str, Any]:
    images = [SIZED(image.convert("RGB")) for image in batch["image"]]
    return {"valid": batch["valid"], "x": images, "t": batch["text"], "y": batch["score"], "label": batch["label"]}


def plain(batch: dict[str, Any]) -> dict[str, Any]:
    return {"x": [SIZED(image.convert("RGB")) for image in batch["image"]], "text": batch["text"]}


FUNCTIONS = [
    replaced,
    renamed,
    functools.partial(renamed, transform=SIZED),
    closed(),
    counted,
    checked,
    captioned,
    plain,
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda one: getattr(one, "__name__", "partial"))
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_torch(photos: Any, function: Callable[..., Any], workers: int) -> None:
    """Give the same names in the same order, the same labels, and pixels within one gray level."""
    dataset = photos.with_transform(function).select([5, 2, 0, 1])
    assert "all fused" in headrace.explain(dataset)
    theirs = torch.utils.data.DataLoader(dataset, 2)
    ours: Any = DataLoader(dataset, 2, native=True, num_workers=workers)
    for expected, found in zip(theirs, ours, strict=True):
        assert list(found) == list(expected)
        for name, column in expected.items():
            if name in ("text", "t"):
                assert found[name] == column
                continue
            assert (found[name].dtype, found[name].shape) == (column.dtype, column.shape)
            if column.ndim == 1:
                assert torch.equal(found[name], column)
                continue
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
    dataset = photos.with_transform(captioned)
    theirs = torch.utils.data.DataLoader(dataset, 4, collate_fn=list)
    for expected, found in zip(theirs, DataLoader(dataset, 4, collate_fn=list, native=True), strict=True):
        for one, two in zip(expected, found, strict=True):
            assert list(one) == list(two)
            for name in set(one) - {"x"}:
                assert (type(two[name]), two[name]) == (type(one[name]), one[name])


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


def gray_twice(batch: dict[str, Any]) -> dict[str, Any]:
    return {"x": [SIZED(image.convert("L").convert("RGB")) for image in batch["image"]]}


def by_mode(batch: dict[str, Any]) -> dict[str, Any]:
    return {"x": [(SMALL if one.mode == "RGB" else SIZED)(one.convert("RGB")) for one in batch["image"]]}


def by_other_mode(batch: dict[str, Any]) -> dict[str, Any]:
    return {"x": [SIZED(one if one.mode in ("RGB", "L") else one.convert("RGB")) for one in batch["image"]]}


def by_row(batch: dict[str, Any]) -> dict[str, Any]:
    return {"x": [(SMALL if row else SIZED)(image.convert("RGB")) for row, image in enumerate(batch["image"])]}


def by_size(batch: dict[str, Any]) -> dict[str, Any]:
    transform = SMALL if len(batch["image"]) > 3 else SIZED
    return {"x": [transform(image.convert("RGB")) for image in batch["image"]]}


def in_turn(batch: dict[str, Any]) -> dict[str, Any]:
    first, second = batch["image"]
    return {"x": [SMALL(first.convert("RGB")), SIZED(second.convert("RGB"))]}


def by_label(batch: dict[str, Any]) -> dict[str, Any]:
    labels = [0 if label == 1 else label for label in batch["label"]]
    return {"x": [SIZED(image.convert("RGB")) for image in batch["image"]], "label": labels}


def by_chance(batch: dict[str, Any]) -> dict[str, Any]:
    return {"x": [SIZED(image.convert("RGB")) for image in batch["image"]], "y": [one or 5 for one in batch["label"]]}


def looked_up(batch: dict[str, Any]) -> dict[str, Any]:
    labels = [{0: 1}.get(label, label) for label in batch["label"]]
    return {"x": [SIZED(image.convert("RGB")) for image in batch["image"]], "label": labels}


def in_pairs(batch: dict[str, Any]) -> dict[str, Any]:
    labels = [batch["label"][row % 2] for row in range(len(batch["label"]))]
    return {"x": [SIZED(image.convert("RGB")) for image in batch["image"]], "label": labels}


def caught(batch: dict[str, Any]) -> dict[str, Any]:
    try:
        batch["label"] = [label + 1 for label in batch["label"]]
    except TypeError:
        batch["label"] = batch["label"][:]
    return {"x": [SIZED(image.convert("RGB")) for image in batch["image"]], "label": batch["label"]}


def called(batch: dict[str, Any]) -> dict[str, Any]:
    global CALLS  # noqa: PLW0603
    CALLS += 1
    return {"x": [(SMALL if CALLS > 2 else SIZED)(image.convert("RGB")) for image in batch["image"]]}


def remembered() -> Callable[..., Any]:
    calls = 0

    def inside(batch: dict[str, Any]) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        return {"x": [(SMALL if calls > 2 else SIZED)(image.convert("RGB")) for image in batch["image"]]}

    return inside


def by_method(batch: dict[str, Any]) -> dict[str, Any]:
    return {"x": [SIZED(image.convert("RGB")) for image in SETTINGS.first(batch["image"])]}


def some(batch: dict[str, Any]) -> dict[str, Any]:
    return {"x": [SIZED(image.convert("RGB")) for image in batch["image"][:2]]}


def listed(batch: dict[str, Any]) -> dict[str, Any]:
    return {"x": [SIZED(image.convert("RGB")) for image in batch["image"]], "list": batch["list"]}


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (left, "'image' stays an image beside the result"),
        (gray, "does not convert 'image' to RGB"),
        (swapped, "'x' is no column, and no transformed one"),
        (flipped, "transpose"),
        (drawn, "uses np, which is no transform"),
        (gray_twice, "converts an image to L and then to RGB"),
        (by_mode, "depends on the number of rows, or on the mode of images"),
        (by_other_mode, "decides or computes by what is in a batch"),
        (by_row, "decides or computes by what is in a batch"),
        (by_size, "decides or computes by what is in a batch"),
        (by_label, "decides or computes by what is in a batch"),
        (by_chance, "decides or computes by what is in a batch"),
        (looked_up, "decides or computes by what is in a batch"),
        (in_pairs, "decides or computes by what is in a batch"),
        (in_turn, "'x' is no column, and no transformed one"),
        (caught, "catches exceptions"),
        (called, "changes CALLS, which outlives the call"),
        (remembered(), "changes calls, which outlives the call"),
        (by_method, "has no attribute 'first'"),
        (some, "'x' is no column, and no transformed one"),
        (listed, "its column 'list' holds no numbers, not integers, floats or text"),
        (None, "it has no transform"),
    ],
)
def test_what_is_not_recognized_is_named(photos: Any, function: Any, why: str) -> None:
    """Say why a function cannot be followed, in explain() and in the warning."""
    if function is listed:
        photos = photos.add_column("list", [[1, 2]] * 6)
    dataset = photos if function is None else photos.with_transform(function)
    assert why in headrace.explain(dataset)
    with pytest.warns(NotNativeWarning, match=why):
        DataLoader(dataset, 2, native=True)


def test_images_of_other_modes_have_the_pixels_that_the_function_gets(photos: Any) -> None:
    """Let `datasets` open what the native extension leaves: 16 bits clipped, transparency, an EXIF orientation."""
    notes = Image.Exif()
    notes[0x0112] = 6
    gradient = np.arange(80 * 90, dtype=np.uint16).reshape(80, 90)
    photo = Image.open(io.BytesIO(photos.data.column("image").to_pylist()[0]["bytes"]))
    images = [Image.fromarray(8 * gradient), photo.convert("RGBA"), photo.convert("P"), photo.convert("CMYK"), photo]
    files = []
    for image in images:
        file = io.BytesIO()
        image.save(file, "JPEG" if image.mode in ("RGB", "CMYK") else "PNG", exif=notes)
        files.append({"bytes": file.getvalue(), "path": None})
    dataset = datasets.Dataset.from_dict({"image": files, "label": range(5)}).cast_column("image", datasets.Image())
    dataset = dataset.with_transform(renamed)
    assert "all fused" in headrace.explain(dataset)
    expected = next(iter(torch.utils.data.DataLoader(dataset, 5)))
    found = next(iter(DataLoader(dataset, 5, native=True)))
    assert ((found["x"] - expected["x"]).abs() <= 1.01 / 255).double().mean() >= 0.999
    files[1]["bytes"] = files[1]["bytes"][:40]
    damaged = datasets.Dataset.from_dict({"image": files, "label": range(5)}).cast_column("image", datasets.Image())
    with pytest.raises(OSError, match=r"identify image file|truncated") as caught:
        list(DataLoader(damaged.with_transform(renamed), 5, native=True))
    assert "sample 1" in caught.value.__notes__[0]
    grayed = photos.cast_column("image", datasets.Image(mode="L")).with_transform(renamed)
    assert "its column 'image' converts images to L" in headrace.explain(grayed)


def test_a_dataset_without_images_is_not_examined() -> None:
    """Leave other datasets of Hugging Face's alone."""
    assert "sample by sample" in headrace.explain(datasets.Dataset.from_dict({"x": [1, 2]}))
