"""Images that are encoded in memory: lists of bytes, and one buffer of all."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.image_files import by_pillow, encoded, photo

import headrace
from headrace import DataLoader
from headrace.datasets import EncodedImages
from headrace.errors import ArgumentError, ArgumentTypeError, BadFile, BadImage
from headrace.testing import DatasetTests, FormatTests

FILES = [encoded(photo(row, 40 + row, 50), "BMP" if row % 3 == 2 else "JPEG") for row in range(9)]
BEGINS = np.cumsum([0, *map(len, FILES)])


class TestLists(FormatTests):
    """Bytes, bytearrays, memory views and arrays, with labels."""

    collates = False

    def make(self) -> Any:
        kinds = (bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8))
        return EncodedImages((kinds[row % 4](data) for row, data in enumerate(FILES)), np.arange(9) % 4)


class TestBuffers(FormatTests):
    """A memory-mapped buffer, without labels."""

    collates = False

    @pytest.fixture(autouse=True)
    def file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "images"
        self.path.write_bytes(b"".join(FILES))

    def make(self) -> Any:
        return EncodedImages(np.memmap(self.path, np.uint8, "r"), begins=BEGINS)

    def test_a_map_is_pickled_as_its_path(self) -> None:
        """Send a path to other processes, and refuse a file that was cut short or removed meanwhile."""
        sent = pickle.dumps(self.make())
        assert len(sent) < 2000
        assert pickle.loads(sent).labels is None
        self.path.write_bytes(b"".join(FILES)[:-1])
        with pytest.raises(BadFile, match="cut short"):
            pickle.loads(sent)
        self.path.unlink()
        with pytest.raises(BadFile, match="cannot be opened"):
            pickle.loads(sent)


class TestGray(DatasetTests):
    """Another mode, with rows of labels."""

    collates = False

    def make(self) -> Any:
        return EncodedImages(FILES, np.arange(18.0).reshape(9, 2), mode="L")


def test_images_are_those_that_pillow_gives() -> None:
    """Decode each, by the dataset and by the public function."""
    for (image, label), data in zip(EncodedImages(b"".join(FILES), range(9), begins=BEGINS), FILES, strict=True):
        np.testing.assert_array_equal(image, by_pillow(data))
        np.testing.assert_array_equal(headrace.decode(data), image)
        assert type(label) is int


def test_what_was_passed_may_change_later() -> None:
    """Copy lists of images, and labels."""
    data, labels = bytearray(FILES[0]), np.array([7])
    dataset = EncodedImages([data], labels)
    data[:] = bytes(len(data))
    labels[0] = 0
    assert dataset[0][1] == 7
    assert len(EncodedImages([])) == 0


def test_an_image_that_cannot_be_decoded_is_named() -> None:
    """Name its index, from both paths."""
    dataset = EncodedImages([FILES[0], b"", FILES[1][:100]])
    for index in (1, 2):
        with pytest.raises(BadImage, match=f"image {index}") as caught:
            dataset[index]
        assert caught.value.index == index
    with pytest.raises(BadImage):
        list(DataLoader(dataset, 2, collate_fn=list))


@pytest.mark.parametrize(
    ("images", "options", "error"),
    [
        (FILES[0], {}, ArgumentTypeError),
        ("abc", {}, ArgumentTypeError),
        (["abc"], {}, ArgumentTypeError),
        (FILES, {"labels": [1]}, ArgumentError),
        (FILES, {"labels": list("abcdefghi")}, ArgumentError),
        (b"abc", {"begins": [0, 4]}, ArgumentError),
        (b"abc", {"begins": [2, 1]}, ArgumentError),
        (b"abc", {"begins": []}, ArgumentError),
        (np.zeros(4), {"begins": [0, 4]}, ArgumentError),
    ],
)
def test_other_arguments_are_refused(images: Any, options: Any, error: type[Exception]) -> None:
    """Say what was expected."""
    with pytest.raises(error):
        EncodedImages(images, **options)
