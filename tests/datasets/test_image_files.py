"""Images by their paths: indexed, sized, iterable; and errors that say which one."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from tests.image_files import encoded, photo, plant

from headrace.context.timing import counting
from headrace.datasets.images import ImageFiles
from headrace.datasets.packed_list import PackedList
from headrace.errors import ArgumentError, BadImage, ImageTooLarge, MissingFile, SampleError, UnreadableFile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of three sizes, in two formats."""
    for number, form in enumerate(("PNG", "PNG", "JPEG")):
        (tmp_path / f"{number}.{form.lower()}").write_bytes(encoded(photo(number, 10 + number, 20), form))
    return tmp_path


def names(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.iterdir())]


def test_a_sample_is_pixels_and_a_label(folder: Path) -> None:
    """Give (H, W, 3) uint8 RGB and a Python int."""
    dataset = ImageFiles(names(folder), labels=[5, 6, 7])
    image, label = dataset[1]
    assert np.array_equal(image, photo(1, 11, 20))
    assert label == 6
    assert type(label) is int
    assert [(image.shape, label) for image, label in dataset] == [((10, 20, 3), 5), ((11, 20, 3), 6), ((12, 20, 3), 7)]


def test_an_index_counts_from_either_end(folder: Path) -> None:
    """Take negative and NumPy integers, and refuse everything else as a list does."""
    dataset = ImageFiles(names(folder), labels=[5, 6, 7])
    assert dataset[-1][1] == dataset[np.int64(2)][1] == dataset[np.uint8(2)][1] == 7
    for index in (3, -4):
        with pytest.raises(IndexError, match=f"index {index} is out of range for 3 images") as caught:
            dataset[index]
        assert type(caught.value) is IndexError
    for wrong in (True, np.True_, 1.0, "1", None, slice(2)):
        with pytest.raises(TypeError):
            dataset[wrong]  # type: ignore[index]


def test_without_labels_each_is_minus_one_and_costs_nothing(folder: Path) -> None:
    """Give -1 for every label, as an int64 array that takes no memory."""
    dataset = ImageFiles(names(folder))
    assert dataset[0][1] == -1
    assert dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == [-1, -1, -1]
    assert dataset.labels.strides == (0,)
    assert dataset.classes == []
    assert dataset.class_to_idx == {}


@pytest.mark.parametrize("labels", [[3, 1, 2], (3, 1, 2), np.array([3, 1, 2], np.uint8), range(3), iter([3, 1, 2])])
def test_labels_come_in_any_shape_of_integers(folder: Path, labels: object) -> None:
    """Take lists, arrays of any integer type, ranges and iterators."""
    dataset = ImageFiles(names(folder), labels)  # type: ignore[arg-type]
    assert dataset.labels.dtype == np.int64
    assert sorted(dataset.labels.tolist()) in ([0, 1, 2], [1, 2, 3])


def test_labels_are_the_datasets_own_and_read_only(folder: Path) -> None:
    """Change nothing when the caller's array changes, and let nobody write."""
    given = np.array([1, 2, 3])
    dataset = ImageFiles(names(folder), given)
    given[0] = 9
    assert dataset.labels[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        dataset.labels[0] = 9


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([1, 2], r"got shape \(2,\); expected shape \(3,\)"),
        ([[1], [2], [3]], r"got shape \(3, 1\)"),
        ([1, 2, 3.5], "got float64, beginning"),
        ([1.0, 2.0, 3.0], "got float64"),
        ([True, False, True], "got bool"),
        (["a", "b", "c"], "labels must be integers"),
        ([[1], [2, 3], []], "labels cannot be converted"),
        ([0, 1, 2**63], "labels must"),
        (np.array([0, 1, 2**63], np.uint64), "labels must be integers of 64 bits with a sign; got 9223372036854775808"),
        (5, "labels cannot be converted"),
    ],
)
def test_labels_that_are_none_are_refused_at_the_door(folder: Path, labels: object, found: str) -> None:
    """Say what was given and what would do."""
    with pytest.raises(ArgumentError, match=found):
        ImageFiles(names(folder), labels)  # type: ignore[arg-type]


@pytest.mark.parametrize("paths", ["one.jpg", Path("one.jpg"), b"one.jpg", [b"one.jpg"], [1], [None]])
def test_paths_that_are_none_are_refused_at_the_door(paths: object) -> None:
    """Refuse a single path, which a string would otherwise be read as a list of letters, and what is no path."""
    with pytest.raises(ArgumentError, match=r"paths(\[0\])? must be"):
        ImageFiles(paths)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, None, "9"])
def test_a_limit_that_is_none_is_refused_at_the_door(wrong: object) -> None:
    """Take an integer from 1 up and nothing else."""
    with pytest.raises(ArgumentError, match="max_pixels must be an integer from 1 up"):
        ImageFiles([], max_pixels=wrong)  # type: ignore[arg-type]


def test_paths_come_as_strings_or_paths_from_anything(folder: Path) -> None:
    """Take an iterator of either; a packed list is shared, not copied."""
    mixed = iter([Path(names(folder)[0]), names(folder)[1]])
    assert len(ImageFiles(mixed)) == 2
    packed = PackedList(names(folder))
    assert ImageFiles(packed).paths is packed


def test_a_root_is_where_relative_paths_begin(folder: Path) -> None:
    """Join root and path, and leave an absolute path alone."""
    absolute = names(folder)[1]
    dataset = ImageFiles(["0.png", absolute], root=folder)
    assert [dataset.path(index) for index in range(2)] == names(folder)[:2]
    assert dataset.where(-1) == absolute
    assert list(dataset.paths) == ["0.png", absolute]
    assert dataset.root == str(folder)
    assert len([image for image, _ in dataset]) == 2


def test_the_bytes_of_a_file_can_be_had(folder: Path) -> None:
    """Read the file as it is."""
    dataset = ImageFiles(names(folder))
    assert dataset.read(-1) == Path(names(folder)[-1]).read_bytes()


def test_reading_and_decoding_are_timed_apart(folder: Path) -> None:
    """Count the seconds of both stages under their names."""
    with counting() as seconds:
        _ = ImageFiles(names(folder))[0]
    assert list(seconds) == ["read", "decode"]
    assert min(seconds.values()) > 0


def test_every_error_names_index_and_path_and_what_to_do(tmp_path: Path) -> None:
    """Tell a missing, an unreadable, an empty and a too large image apart, each by its kind."""
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "large.jpg").write_bytes(encoded(photo()))
    expected = {"gone": MissingFile, "folder": UnreadableFile, "empty": BadImage, "large": ImageTooLarge}
    dataset = ImageFiles([f"{name}.jpg" for name in expected], root=tmp_path, max_pixels=100)
    for index, (name, kind) in enumerate(expected.items()):
        with pytest.raises(SampleError) as caught:
            dataset[index - len(expected)]
        assert type(caught.value) is kind
        assert str(caught.value).startswith(f"sample {index} ({tmp_path}/{name}.jpg): ")
        assert 'on_error="skip"' in str(caught.value)
    for index in (0, 1):
        with pytest.raises(SampleError, match=f"^sample {index} "):
            dataset.read(index)


def test_it_pickles(folder: Path) -> None:
    """Come back from a pickle with the same samples."""
    dataset = pickle.loads(pickle.dumps(ImageFiles(names(folder), [1, 2, 3])))
    assert dataset[2][1] == 3
    assert dataset.path(0) == names(folder)[0]


def test_a_hundred_thousand_paths_are_cheap_to_hold() -> None:
    """Hold paths and labels in less than 8 bytes a sample above what they say."""
    tracemalloc.start()
    try:
        dataset = ImageFiles((f"{number:08d}.jpg" for number in range(100_000)), range(100_000))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(dataset) == 100_000
    assert held < 100_000 * (12 + 8 + 8)


def test_a_folder_without_classes_is_read_with_all_below_it(tmp_path: Path) -> None:
    """Find the images in a folder and below it, sorted by folder, then by name, and nothing else."""
    plant(tmp_path, ["b.jpg", "a.JPG", "z/1.png", "m/k/2.jpg", "m-n/3.jpg", "notes.txt", ".hidden.jpg", ".git/4.jpg"])
    (tmp_path / "z" / "loop").symlink_to(tmp_path)
    dataset = ImageFiles.under(tmp_path)
    assert list(dataset.paths) == ["a.JPG", "b.jpg", "m-n/3.jpg", "m/k/2.jpg", "z/1.png"]
    assert dataset[4][1] == -1
    assert list(ImageFiles.under(str(tmp_path), extensions=[".txt"]).paths) == ["notes.txt"]
    with pytest.raises(ImageTooLarge):
        ImageFiles.under(tmp_path, max_pixels=1)[0]


def test_an_empty_folder_is_an_empty_dataset(tmp_path: Path) -> None:
    """Hold nothing, and say so."""
    dataset = ImageFiles.under(tmp_path)
    assert len(dataset) == 0
    assert list(dataset) == []
    assert repr(dataset) == f"<ImageFiles of 0 images, {tmp_path}>"
