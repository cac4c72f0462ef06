"""`headrace.show`: batches, loaders and datasets as figures, and what reprs say."""

from __future__ import annotations

import io
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace
from headrace import ArrayDataset, DataLoader, ImageFolder, IterableDataset, Normalize, Subset, ToCHW, ToFloat
from headrace.errors import ArgumentError, ArgumentTypeError
from headrace.figure.drawing import colors_of
from headrace.figure.parts import parts_of

Image = pytest.importorskip("PIL.Image")

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COLORS = {"blue": (20, 40, 200), "red": (200, 30, 30)}


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    """Four images in two classes, each of one color."""
    for name, color in COLORS.items():
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new("RGB", (40, 30), color).save(tmp_path / name / f"{number}.png")
    return ImageFolder(tmp_path)


def _colors(png: bytes | None) -> set[tuple[int, ...]]:
    assert png is not None
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3)
    found, counts = np.unique(pixels, axis=0, return_counts=True)
    return {tuple(color) for color in found[counts > 5000].tolist()}


def test_a_dataset_is_shown_with_its_images_classes_and_counts(folder: ImageFolder) -> None:
    """Draw samples from beginning to end, and count each class."""
    figure = headrace.show(folder)
    assert set(COLORS.values()) <= _colors(figure.png)
    assert ("classes", "2: blue (2), red (2)") in figure.rows
    html = figure._repr_html_()
    assert "data:image/png;base64," in html
    assert "ImageFolder" in html
    assert "4 samples of 4, of ImageFolder" in repr(figure)


def test_a_few_samples_are_spread_over_the_dataset(folder: ImageFolder) -> None:
    """Show the last class too where only two samples are shown."""
    assert set(COLORS.values()) <= _colors(headrace.show(folder, 2).png)


def test_a_bad_sample_is_shown_by_its_error(folder: ImageFolder, tmp_path: Path) -> None:
    """Draw the others, and say what is wrong with the one."""
    (tmp_path / "red" / "1.png").write_bytes(b"no image")
    assert set(COLORS.values()) <= _colors(headrace.show(ImageFolder(tmp_path)).png)


def test_a_loaders_normalized_images_are_shown_in_their_colors(folder: ImageFolder) -> None:
    """Take Normalize back, where the dataset says which it applies, through views too."""
    train = Subset(folder.map(ToFloat(), Normalize(MEAN, STD), ToCHW()), [0, 3])
    assert set(COLORS.values()) <= _colors(headrace.show(DataLoader(train, 4, seed=0)).png)


def test_showing_a_loader_moves_neither_the_loader_nor_random_numbers(folder: ImageFolder) -> None:
    """Leave the state, the next batches and NumPy's global generator as they were."""
    seeded = DataLoader(folder, 2, shuffle=True, seed=3)
    first = next(iter(DataLoader(folder, 2, shuffle=True, seed=3)))[1]
    state = seeded.state_dict()
    figure = headrace.show(seeded)
    assert seeded.state_dict() == state
    assert ("labels", "(2,)", "int64", str(first.min()), str(first.max())) in figure.rows
    before = np.random.get_state()[1].tolist()  # type: ignore[index,union-attr]
    for options in ({}, {"shuffle": True}, {"on_error": "skip"}, {"sampler": [3, 2]}):
        headrace.show(DataLoader(folder, 2, **options))  # type: ignore[arg-type]
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index,union-attr]


def test_a_batch_of_named_fields_is_shown_with_masks_and_boxes() -> None:
    """Draw the mask and the boxes on the image, and write text and numbers below."""
    batch = {
        "image": np.full((2, 32, 48, 3), 100, np.uint8),
        "mask": np.stack([np.zeros((32, 48), np.int64), np.ones((32, 48), np.int64)]),
        "boxes": [np.array([[4.0, 4, 40, 28]]), np.zeros((0, 4))],
        "label": np.array([1, 0]),
        "text": ["a dog <b>", "a cat"],
    }
    figure = headrace.show(batch, classes=["cat", "dog"])
    assert (100, 100, 100) in _colors(figure.png)
    assert (165, 98, 50) in _colors(figure.png)
    assert "a dog &lt;b&gt;" in figure._repr_html_()
    assert [row[0] for row in figure.rows[1:]] == ["image", "mask", "boxes[0]", "boxes[1]", "label", "text"]


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 8, 8, 3), (2, 1, 8, 8), (2, 8, 8, 1), (2, 8, 8), (2, 8, 8, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_of_any_layout_become_colors(shape: tuple[int, ...], dtype: type) -> None:
    """Give (N, H, W, 3) bytes for channels first or last, of one, three or four."""
    colors, _ = colors_of(np.ones(shape, dtype))
    assert colors.shape == (2, 8, 8, 3)
    assert colors.dtype == np.uint8


def test_values_outside_0_to_1_are_stretched_and_the_sheet_says_so() -> None:
    """Show the smallest value as black, the largest as white, and nan as black."""
    images = np.array([-2.0, 2.0, np.nan, 0.0], np.float32).reshape(1, 2, 2, 1)
    colors, done = colors_of(images)
    assert colors[0, ..., 0].tolist() == [[0, 255], [0, 128]]
    assert done == "-2 to 2 shown as black to white"


def test_numbers_and_text_have_no_image_but_a_table() -> None:
    """Show shapes, ranges and first values, and no PNG, which a notebook then does not look for."""
    for batch in (np.ones((2, 3)), ["one", "two"], {"x": np.zeros(3)}, (1, 2), {}, [], np.float32(3), "text"):
        figure = headrace.show(batch)
        assert figure._repr_png_() is None
        assert "<table>" in figure._repr_html_()
        assert repr(figure)
    assert "tokens: 1 2 3" in repr(headrace.show({"tokens": np.array([[1, 2, 3], [4, 5, 6]])}))


def test_parts_have_the_names_of_fields() -> None:
    """Name the parts of nested dicts, named tuples and lists."""
    Pair = namedtuple("Pair", ["left", "right"])
    batch = Pair(np.zeros(2), {"deep": [np.ones(2), ["a", "b"]]})
    assert [part.name for part in parts_of(batch)] == ["left", "right.deep[0]", "right.deep[1]"]


class Numbers(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(100))


def test_a_stream_is_shown_by_its_first_samples() -> None:
    """Read a stream that can be read again, by itself and through its loader."""
    for stream in (Numbers(), DataLoader(Numbers(), 16)):
        assert ("batch", "(16,)", "int64", "0", "15") in headrace.show(stream).rows


def test_an_iterator_is_refused() -> None:
    """Say what to pass in its place, rather than use it up."""
    for iterator in (iter([1, 2]), iter(DataLoader([1, 2])), DataLoader(iter([1, 2]), 2)):
        with pytest.raises(ArgumentTypeError, match=r"use up an iterator.*next\(iterator\)"):
            headrace.show(iterator)


def test_a_figure_is_saved_by_its_ending(folder: ImageFolder, tmp_path: Path) -> None:
    """Write a PNG or a page; refuse a PNG without images, and other endings."""
    figure = headrace.show(folder)
    figure.save(tmp_path / "a.png")
    figure.save(tmp_path / "a.html")
    assert (tmp_path / "a.png").read_bytes() == figure._repr_png_()
    assert "<table>" in (tmp_path / "a.html").read_text(encoding="utf-8")
    with pytest.raises(ArgumentError, match=r"a\.txt"):
        figure.save(tmp_path / "a.txt")
    with pytest.raises(ArgumentError, match="without images"):
        headrace.show(np.zeros(3)).save(tmp_path / "b.png")


def test_statistics_print_the_tables_of_bench() -> None:
    """Give the rate and the stages, as text and as HTML, with bad samples counted."""

    def odd(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    dataset = ArrayDataset(np.arange(8)).map(odd)
    loader: DataLoader[Any] = DataLoader(dataset, 2, on_error="skip")
    for _ in loader:
        pass
    text, html = str(loader.statistics()), loader.statistics()._repr_html_()
    assert text.startswith("epoch  samples  seconds")
    assert "transforming" in text
    assert "1 bad sample was left out" in text
    assert "<table>" in html
    assert "transforming" in html
    assert "<table>" in loader._repr_html_()


def test_datasets_say_what_they_are(folder: ImageFolder) -> None:
    """Name samples, classes and what a view reads; a class that is not set up, or a stream, has Python's repr."""
    assert repr(folder.take(3)) == "<Subset of 3 samples in 2 classes, from ImageFolder>"
    assert "red (2)" in (folder.map(ToFloat())._repr_html_() or "")
    assert repr(ArrayDataset(np.zeros(1))) == "<ArrayDataset of 1 sample>"
    assert "Numbers object at" in repr(Numbers())
    assert Numbers()._repr_html_() is None
