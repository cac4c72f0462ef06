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
from headrace import (
    ArrayDataset,
    Compose,
    DataLoader,
    ImageFolder,
    IterableDataset,
    Normalize,
    RandomHorizontalFlip,
    Subset,
    ToCHW,
    ToFloat,
)
from headrace.errors import ArgumentError, ArgumentTypeError
from headrace.figure.drawing import caption_of, colors_of
from headrace.figure.parts import labels_of, parts_of
from headrace.figure.targets_drawn import soft_name
from headrace.transforms import Boxes, ConvertBoundingBoxFormat

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
    colors = Image.open(io.BytesIO(png)).convert("RGB").getcolors(1 << 24)
    return {color for number, color in colors if number > 5000}


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
    assert [row[0] for row in figure.rows[1:]] == ["image", "mask", "boxes", "label", "text"]


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


@pytest.mark.parametrize("shape", [(3, 500), (3, 2, 500)])
def test_sounds_are_drawn_as_curves_by_their_name(shape: tuple[int, ...]) -> None:
    """Draw a part named audio, one channel or two, of floats or integers, silent ones too; and no other rows."""
    sounds = np.sin(np.arange(np.prod(shape)) / 9).reshape(shape)
    sounds[0] = 0
    for values in (sounds, (sounds * 32767).astype(np.int16)):
        png = headrace.show({"audio": values, "label": np.array([1, 0, 1])}, classes=["low", "high"]).png
        assert png is not None
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
        assert (pixels == (38, 110, 190)).all(axis=2).sum() > 500
    assert headrace.show({"features": sounds, "label": np.array([1, 0, 1])}).png is None


def test_parts_have_the_names_of_fields() -> None:
    """Name the parts of nested dicts, named tuples and lists."""
    Pair = namedtuple("Pair", ["left", "right"])
    batch = Pair(np.zeros(2), {"deep": [np.ones(2), ["a", "b"]]})
    assert [part.name for part in parts_of(batch)] == ["left", "right.deep[0]", "right.deep[1]"]


def test_rows_of_several_lengths_are_one_part() -> None:
    """Give boxes, labels or tokens of each sample one line, with the lengths that they have."""
    lengths = (2, 0, 11)
    figure = headrace.show({"boxes": [np.ones((n, 4)) for n in lengths], "tokens": [np.arange(n) for n in lengths]})
    assert figure.rows[1:] == (
        ("boxes", "3 of (0 to 11, 4)", "float64", "1.000", "1.000"),
        ("tokens", "3 of (0 to 11,)", "int64", "0", "10"),
    )
    assert dict(figure.texts)["tokens"] == ("0 1", "", "0 1 2 3 4 5 6 7 8 9 10")
    unlike = headrace.show({"x": [np.zeros((2, 2)), np.zeros(3)]})
    assert [row[0] for row in unlike.rows[1:]] == ["x[0]", "x[1]"]


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


CLASSES = ["background", "cat", "dog"]
ORANGE, VIOLET = (230, 97, 1), (94, 60, 153)


def _painted(figure: Any, color: tuple[int, int, int]) -> np.ndarray:
    """Return the places (x, y) on a sheet that have a color."""
    pixels = np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB"))
    return np.argwhere((pixels == color).all(axis=2))[:, ::-1]


@pytest.mark.parametrize("side", [8, 32, 480, 1000])
def test_boxes_lie_where_they_are_in_images_of_any_size(side: int) -> None:
    """Find the right half of an image outlined in the right half of its card, lines and names as large."""
    image = np.full((1, side, side, 3), 90, np.uint8)
    figure = headrace.show({"image": image, "boxes": [[[side / 2, 0, side, side]]], "labels": [[1]]}, classes=CLASSES)
    places = _painted(figure, ORANGE)
    assert len(places) > 1500
    left, right = places[:, 0].min(), places[:, 0].max()
    assert 270 < left < 285
    assert 510 < right < 522


def test_names_are_written_at_boxes_in_the_color_of_the_mask_of_their_class() -> None:
    """Give class 1 one color in masks and boxes; name it by the classes, by its own text, or by its number."""
    mask = np.zeros((1, 60, 60), np.int64)
    mask[0, :30] = 1
    image = np.full((1, 60, 60, 3), 100, np.uint8)
    masked = headrace.show({"image": image, "mask": mask}, classes=CLASSES)
    assert len(_painted(masked, (165, 98, 50))) > 90_000
    boxes = {"image": image, "boxes": [np.array([[10.0, 20, 50, 50]])]}
    plain = headrace.show(boxes)
    named = headrace.show({**boxes, "labels": [["cat"]]}, classes=CLASSES)
    numbered = headrace.show({**boxes, "labels": [np.array([1])]}, classes=CLASSES)
    assert len(_painted(plain, ORANGE)) < len(_painted(named, ORANGE))
    assert named.png is not None
    np.testing.assert_array_equal(_painted(named, (255, 255, 255)), _painted(numbered, (255, 255, 255)))


def test_each_sample_of_a_large_batch_has_its_own_boxes() -> None:
    """Draw the boxes of the last of many images, given as lists, as padded arrays with a count, or as dicts."""
    images = np.full((30, 20, 20, 3), 100, np.uint8)
    rows = [np.array([[2.0, 2, 18, 18]]) if number == 29 else np.zeros((0, 4)) for number in range(30)]
    padded = np.tile([2.0, 2, 18, 18], (30, 1, 1))
    counts = np.array([0] * 29 + [1])
    targets = [{"boxes": boxes, "labels": np.ones(len(boxes), int)} for boxes in rows]
    for batch in (
        {"image": images, "boxes": rows},
        {"image": images, "boxes": padded, "count": counts},
        (images, targets),
    ):
        places = _painted(headrace.show(batch, 30), ORANGE)
        places = _painted(headrace.show(batch, 30), (244, 165, 196)) if not len(places) else places
        assert len(places) > 300
        assert places[:, 1].min() > 2200


def test_kinds_of_a_chain_are_known_after_it_and_can_be_given() -> None:
    """Draw boxes of the format that the last transform writes, under any name, of datasets, loaders and batches."""
    sample = {"photo": np.full((40, 40, 3), 100, np.uint8), "bbox": np.array([[20.0, 20, 20, 20]])}
    chain = Compose(
        RandomHorizontalFlip(p=1),
        ConvertBoundingBoxFormat("cxcywh", normalized=True),
        ToFloat(),
        Normalize(0.5, 0.25),
        kinds={"photo": "image", "bbox": Boxes("xywh")},
    )
    dataset = ListDataset([sample]).map(chain)
    first = headrace.show(dataset)
    for figure in (headrace.show(DataLoader(dataset, 1, seed=0)),):
        np.testing.assert_array_equal(_painted(first, ORANGE), _painted(figure, ORANGE))
    places = _painted(first, ORANGE)
    assert places[:, 0].max() < 290
    assert (100, 100, 100) in _colors(first.png)
    batch = {"photo": sample["photo"][None], "bbox": [sample["bbox"]]}
    assert not len(_painted(headrace.show(batch), ORANGE))
    assert len(_painted(headrace.show(batch, kinds={"photo": "image", "bbox": Boxes("xywh")}), ORANGE))


class ListDataset(headrace.Dataset[Any]):
    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


def test_a_batch_of_images_of_several_sizes_is_shown() -> None:
    """Draw a list of images, each with its own boxes; and one of arrays that are no images as a table alone."""
    images = [np.full((20, 40, 3), 100, np.uint8), np.full((50, 30, 3), 100, np.uint8)]
    boxes = [np.array([[0.0, 0, 40, 20]]), np.zeros((0, 4))]
    places = _painted(headrace.show({"image": images, "boxes": boxes, "image_id": np.array([1, 2])}), ORANGE)
    assert len(places) > 1500
    assert places[:, 0].max() < 530
    assert headrace.show({"x": [np.zeros((20, 40)), np.zeros((3, 9))]}).png is None


def test_kinds_that_a_dataset_has_itself_are_known() -> None:
    """Draw boxes by the kinds of the dataset, where no chain declares any."""
    dataset = ListDataset([{"image": np.full((40, 40, 3), 100, np.uint8), "bbox": np.array([[20.0, 20, 20, 20]])}])
    assert not len(_painted(headrace.show(dataset), ORANGE))
    dataset.kinds = {"bbox": Boxes("xywh")}  # type: ignore[attr-defined]
    places = _painted(headrace.show(dataset.map(ToFloat())), ORANGE)
    assert 270 < places[:, 0].min() < 285


def test_keypoints_are_dots_and_those_not_labeled_are_left_out() -> None:
    """Draw a visible point, a ring for one that is hidden, and nothing for one that is not labeled."""
    image = np.full((1, 40, 40, 3), 100, np.uint8)
    dots = [
        len(_painted(headrace.show({"image": image, "keypoints": np.array([[[20.0, 20, seen]]])}), (255, 214, 0)))
        for seen in (0, 1, 2)
    ]
    assert dots[0] == 0 < dots[1] < dots[2]


def test_mixed_labels_are_written_as_shares() -> None:
    """Write the classes by their shares; of several classes at once, their names."""
    images = np.zeros((2, 8, 8, 3), np.uint8)
    parts = parts_of((images, np.array([[0.7, 0.3, 0], [0, 0, 1]], np.float32)))
    labels = labels_of(parts, 2)
    assert labels is not None
    assert [caption_of(one, ["cat", "dog", "cow"]) for one in labels] == ["cat 0.7, dog 0.3", "cow"]
    assert soft_name(np.full(6, 1 / 6), []) == "label 0 0.17, label 1 0.17, label 2 0.17, label 3 0.17, …"
    assert headrace.show((images, labels), classes=["cat", "dog", "cow"]).png is not None
    assert labels_of(parts_of((images, np.array([[7.0, 3, 0], [0, 0, 1]]))), 2) is None


def test_what_does_not_fit_is_left_out() -> None:
    """Show a batch whose targets are wrong, for whoever looks for what is wrong with it."""
    image = np.full((2, 20, 20, 3), 100, np.uint8)
    for wrong in (
        {"boxes": [np.full((1, 4), np.nan), np.zeros((0, 4))]},
        {"boxes": [[[-50.0, -50, 900, 900]], [[5.0, 5, 5, 5]]]},
        {"boxes": "none", "labels": [None, None]},
        {"boxes": [[[1.0, 2, 9, 9]], []], "labels": [["a", "b"], []]},
        {"mask": np.zeros((2, 7, 7), np.int64)},
        {"mask": np.full((2, 20, 20), np.nan)},
        {"keypoints": np.full((2, 3, 3), np.inf)},
        {"masks": [np.zeros((0, 20, 20)), np.ones((3, 20, 20))]},
    ):
        assert headrace.show({"image": image, **wrong}).png is not None


def test_names_of_boxes_never_leave_the_image_or_cover_each_other() -> None:
    """Write twelve names on boxes in one place, apart where there is room, all within the card."""
    image = np.full((1, 300, 400, 3), 100, np.uint8)
    boxes = np.array([[0.0, 0, 400, 300], [390, 290, 400, 300], [0, 0, 3, 3], [395, 0, 400, 5]])
    figure = headrace.show({"image": image, "boxes": [boxes], "labels": [["a very long name " * 9] * 4]})
    pixels = np.asarray(Image.open(io.BytesIO(figure.png or b"")).convert("RGB"))
    card = pixels[100:660, 38:518]
    outside = np.concatenate([card[:5].reshape(-1, 3), pixels[:, :28].reshape(-1, 3)])
    assert not (outside == ORANGE).all(axis=1).any()


def test_a_single_sample_is_shown_as_one_image(folder: ImageFolder) -> None:
    """Take an image, or a sample with one, for what it is, and not for a batch of its rows."""
    for sample in (folder[0][0], folder[0], {"image": folder[0][0], "label": 1}):
        figure = headrace.show(sample, classes=folder.classes)
        assert figure.title == "one sample"
        assert len(_colors(figure.png)) > 2
    assert headrace.show(np.zeros((8, 20, 3), np.float32)).title == "a batch of 8"


@pytest.mark.parametrize("batch", [[], {}, (), np.zeros((0, 8, 8, 3), np.uint8), None, "text", 3, np.float32(1)])
def test_a_batch_without_samples_or_without_arrays_is_a_table(batch: Any) -> None:
    """Draw nothing and raise nothing."""
    figure = headrace.show(batch)
    assert figure.png is None
    assert figure._repr_html_()


@pytest.mark.parametrize(("name", "caption"), [("image_id", ""), ("num_boxes", ""), ("species", "label 7")])
def test_the_number_of_an_image_is_not_written_as_its_label(name: str, caption: str) -> None:
    """Pass over identifiers and counts, of a sample and of a batch, and take other whole numbers for labels."""
    from headrace.figure.parts import labels_of, parts_of
    from headrace.figure.showing import _card, _image_of

    sample = {"image": np.zeros((8, 9, 3), np.uint8), name: 7}
    parts = parts_of(sample)
    image = _image_of(parts)
    assert image is not None
    assert _card(image, sample, parts, [], scale=None, kinds=None, where="").caption == caption
    batch = {"image": np.zeros((2, 8, 9, 3), np.uint8), name: np.array([7, 8])}
    assert (labels_of(parts_of(batch), 2) is None) == (not caption)
