"""Views know what the datasets below them know: labels, classes, class_to_idx, paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import ArrayDataset, ConcatDataset, ImageFolder, Subset, random_split
from headrace.datasets import StackDataset
from headrace.errors import ArgumentError

IMAGES = {"cat": 3, "dog": 2}


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    """Three images of cats and two of dogs, as empty files, which no test decodes."""
    for name, count in IMAGES.items():
        (tmp_path / name).mkdir()
        for number in range(count):
            (tmp_path / name / f"{number}.png").touch()
    return ImageFolder(tmp_path)


def _views(folder: ImageFolder) -> list[tuple[Any, list[int]]]:
    """Give views of a folder, with the index in it of each of their samples."""
    return [
        (folder.map(str), [0, 1, 2, 3, 4]),
        (Subset(folder, [4, 0]), [4, 0]),
        (folder.map(str).skip(2).map(str), [2, 3, 4]),
        (folder.filter(lambda label: label == 1, by="label"), [3, 4]),
        (folder.repeat(2), [0, 1, 2, 3, 4] * 2),
        (folder.shard(1, 2), [1, 3]),
        (ConcatDataset([folder, folder.take(1)]).map(str), [0, 1, 2, 3, 4, 0]),
    ]


def test_every_view_of_a_folder_has_its_classes_labels_and_paths(folder: ImageFolder) -> None:
    """Forward what the folder knows, by the folder's own indices."""
    for view, indices in _views(folder):
        assert list(view.classes) == ["cat", "dog"]
        assert view.class_to_idx == {"cat": 0, "dog": 1}
        assert view.labels.tolist() == folder.labels[indices].tolist()
        assert [view.path(number) for number in range(len(view))] == [folder.path(index) for index in indices]


def test_parts_of_a_random_split_have_paths(folder: ImageFolder) -> None:
    """Name the file of each sample of both parts, each file once."""
    train, test = random_split(folder, [3, 2], generator=0)
    paths = [part.path(index) for part in (train, test) for index in range(len(part))]
    assert sorted(paths) == sorted(folder.path(index) for index in range(5))


def test_a_view_of_arrays_says_that_there_are_no_paths() -> None:
    """Raise an error that says what to use in its place."""
    arrays = ArrayDataset(np.zeros(3))
    for view in (arrays.map(str), Subset(arrays, [1]), ConcatDataset([arrays, arrays])):
        with pytest.raises(ArgumentError, match=r"ArrayDataset has no path\(index\).*where\(index\)"):
            view.path(0)  # type: ignore[attr-defined]


def test_class_to_idx_follows_from_the_names_of_classes(folder: ImageFolder) -> None:
    """Number the classes that a dataset of one's own sets, and those of datasets side by side."""
    own = ArrayDataset(np.zeros(2), np.array([0, 1]))
    own.classes = ["a", "b"]
    assert own.class_to_idx == own.map(str).class_to_idx == {"a": 0, "b": 1}
    assert StackDataset(folder, folder).class_to_idx == {"cat": 0, "dog": 1}
    assert Subset("abc", [0]).class_to_idx == {}


def test_a_view_of_another_librarys_dataset_has_its_class_to_idx() -> None:
    """Take the mapping as that dataset has it, also where it is not the order of the names."""

    class Theirs:
        classes = ["dog", "cat"]
        class_to_idx = {"cat": 0, "dog": 1}

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> int:
            return index

    assert Subset(Theirs(), [0]).class_to_idx == {"cat": 0, "dog": 1}
