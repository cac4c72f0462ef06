"""A folder a class, in the order that torchvision reads it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.image_files import plant

from headrace.datasets.images import DEFAULT_EXTENSIONS, ImageFolder
from headrace.errors import ArgumentError, MissingFile, UnreadableFile


def as_torchvision_lists(root: Path) -> list[tuple[str, int]]:
    """List (path, label) as ``torchvision.datasets.folder.make_dataset`` does (torchvision 0.2 to today)."""
    samples = []
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    for label, name in enumerate(classes):
        for folder, _, files in sorted(os.walk(root / name, followlinks=True)):
            samples += [
                (str((Path(folder) / file).relative_to(root)), label)
                for file in sorted(files)
                if file.lower().endswith(DEFAULT_EXTENSIONS)
            ]
    return samples


def test_the_order_is_that_of_torchvision(tmp_path: Path) -> None:
    """Sort classes, folders by their whole path and files by name, capitals before small letters."""
    plant(
        tmp_path,
        [
            "dog/b.jpg", "dog/a.PNG", "dog/B.jpg", "dog/10.jpg", "dog/9.jpg", "cat/x/2.jpg", "cat/x-y/1.jpg",
            "cat/x/d/e/3.gif", "cat/x y/4.jpg", "cat/1.jpg", "Zebra/é.jpg", "Zebra/z.webp", "Zebra/e.txt", "top.jpg",
        ],
    )  # fmt: skip
    dataset = ImageFolder(tmp_path)
    expected = as_torchvision_lists(tmp_path)
    assert list(zip(dataset.paths, dataset.labels.tolist(), strict=True)) == expected
    assert len(expected) == 12
    assert dataset.classes == ["Zebra", "cat", "dog"]
    assert dataset.class_to_idx == {"Zebra": 0, "cat": 1, "dog": 2}


def test_a_sample_is_pixels_and_the_label_of_its_folder(tmp_path: Path) -> None:
    """Read the images, and tell where each lies."""
    plant(tmp_path, ["a/1.png", "b/2.png", "b/c/3.png"])
    dataset = ImageFolder(str(tmp_path))
    assert [(image.shape, label) for image, label in dataset] == [((8, 8, 3), 0), ((8, 8, 3), 1), ((8, 8, 3), 1)]
    assert dataset.path(1) == str(tmp_path / "b" / "2.png")
    assert repr(dataset) == f"<ImageFolder of 3 images in 2 classes, {tmp_path}>"


def test_what_is_hidden_is_left_out(tmp_path: Path) -> None:
    """Pass over the folders and files whose names begin with a dot."""
    plant(tmp_path, ["a/1.jpg", "a/._1.jpg", ".ipynb_checkpoints/2.jpg", "a/.thumbnails/1.jpg"])
    dataset = ImageFolder(tmp_path)
    assert list(dataset.paths) == ["a/1.jpg"]
    assert dataset.classes == ["a"]


def test_extensions_are_chosen(tmp_path: Path) -> None:
    """Take the named endings alone, in small letters or capitals."""
    plant(tmp_path, ["a/1.jpg", "a/2.PNG", "a/3.tar.png", "a/4.raw"])
    assert list(ImageFolder(tmp_path, extensions=[".png"]).paths) == ["a/2.PNG", "a/3.tar.png"]
    assert list(ImageFolder(tmp_path, extensions=(".RAW", ".jpg")).paths) == ["a/1.jpg", "a/4.raw"]
    assert list(ImageFolder(tmp_path, extensions=".tar.png").paths) == ["a/3.tar.png"]


@pytest.mark.parametrize("wrong", [["jpg"], [], [""], ["."], [None], [b".jpg"]])
def test_extensions_that_are_none_are_refused(tmp_path: Path, wrong: list[str]) -> None:
    """Ask for the dot, and for at least one."""
    plant(tmp_path, ["a/1.jpg"])
    with pytest.raises(ArgumentError, match=r"extensions (must|is empty)"):
        ImageFolder(tmp_path, extensions=wrong)


def test_loops_of_links_are_survived(tmp_path: Path) -> None:
    """Follow links to folders, but none to a folder that it lies in, nor above the root."""
    root = plant(tmp_path / "root", ["a/1.jpg", "a/deep/2.jpg", "b/3.jpg"])
    plant(tmp_path / "beside", ["4.jpg"])
    (root / "a" / "self").symlink_to(root / "a")
    (root / "a" / "deep" / "up").symlink_to("..")
    (root / "a" / "deep" / "top").symlink_to(root)
    (root / "a" / "itself").symlink_to("itself")
    (root / "b" / "above").symlink_to(tmp_path)
    (root / "b" / "all").symlink_to("/")
    (root / "b" / "to_a").symlink_to(root / "a")
    (root / "a" / "to_b").symlink_to(root / "b")
    (root / "b" / "beside").symlink_to(tmp_path / "beside")
    (root / "round").symlink_to(".")
    dataset = ImageFolder(root)
    assert dataset.classes == ["a", "b"]
    assert list(dataset.paths) == [
        "a/1.jpg",
        "a/deep/2.jpg",
        "a/to_b/3.jpg",
        "a/to_b/beside/4.jpg",
        "b/3.jpg",
        "b/beside/4.jpg",
        "b/to_a/1.jpg",
        "b/to_a/deep/2.jpg",
    ]


def test_a_link_to_a_lost_image_is_an_error_when_read(tmp_path: Path) -> None:
    """Count it, so that the dataset does not shrink in silence."""
    plant(tmp_path, ["a/1.jpg"])
    (tmp_path / "a" / "2.jpg").symlink_to("nowhere")
    (tmp_path / "a" / "3.jpg").symlink_to("3.jpg")
    dataset = ImageFolder(tmp_path)
    assert len(dataset) == 3
    with pytest.raises(MissingFile, match=r"sample 1 \(.*2\.jpg\): a link to nowhere"):
        dataset[1]
    with pytest.raises(UnreadableFile, match="symbolic links"):
        dataset[2]


def test_names_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    """Open an image whose name is any bytes that the system allows."""
    plant(tmp_path, ["a/" + os.fsdecode(b"\xff\xe9.jpg")])
    assert ImageFolder(tmp_path)[0][0].shape == (8, 8, 3)


def test_a_class_without_an_image_is_an_error_unless_allowed(tmp_path: Path) -> None:
    """Name the empty folders; with allow_empty they keep their labels."""
    plant(tmp_path, ["a/1.jpg", "b/notes.txt", "d/2.jpg"])
    (tmp_path / "c").mkdir()
    with pytest.raises(MissingFile, match="no image in 2 of 4 class folders: b, c") as caught:
        ImageFolder(tmp_path)
    assert "allow_empty=True" in str(caught.value)
    dataset = ImageFolder(tmp_path, allow_empty=True)
    assert dataset.classes == ["a", "b", "c", "d"]
    assert dataset.labels.tolist() == [0, 3]


def test_many_empty_classes_are_counted_not_listed(tmp_path: Path) -> None:
    """Name the first few."""
    for number in range(9):
        (tmp_path / f"c{number}").mkdir()
    with pytest.raises(MissingFile, match="9 of 9 class folders: c0, c1, c2, c3, c4 and 4 more"):
        ImageFolder(tmp_path)


def test_a_root_without_classes_says_what_to_do(tmp_path: Path) -> None:
    """Point to ImageFiles.under where the images lie directly in the root."""
    with pytest.raises(MissingFile, match="expected a folder for each class"):
        ImageFolder(tmp_path)
    plant(tmp_path, ["1.jpg"])
    with pytest.raises(FileNotFoundError, match=r"ImageFiles\.under\(root\)"):
        ImageFolder(tmp_path)


def test_a_root_that_is_no_folder_is_an_error_of_ours(tmp_path: Path) -> None:
    """Tell a missing root from one that is a file, and from what is no path."""
    with pytest.raises(MissingFile, match=r"gone: cannot be listed: No such file"):
        ImageFolder(tmp_path / "gone")
    plant(tmp_path, ["1.jpg"])
    with pytest.raises(UnreadableFile, match=r"1\.jpg: cannot be listed: Not a directory"):
        ImageFolder(tmp_path / "1.jpg")
    for wrong in (None, 3, b"/tmp", ""):
        with pytest.raises(ArgumentError, match="root must be the path of a folder"):
            ImageFolder(wrong)  # type: ignore[arg-type]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may list everything")
def test_a_folder_that_cannot_be_listed_is_not_passed_over(tmp_path: Path) -> None:
    """Raise, where os.walk would leave the images out in silence."""
    plant(tmp_path, ["a/1.jpg", "a/closed/2.jpg"])
    closed = tmp_path / "a" / "closed"
    closed.chmod(0)
    try:
        with pytest.raises(UnreadableFile, match="closed: cannot be listed: Permission denied"):
            ImageFolder(tmp_path)
    finally:
        closed.chmod(0o755)


def test_a_relative_root_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read below a root given from the current folder, and that folder itself."""
    plant(tmp_path, ["data/a/1.jpg"])
    monkeypatch.chdir(tmp_path)
    assert ImageFolder("data").path(0) == str(tmp_path / "data/a/1.jpg")
    monkeypatch.chdir(tmp_path / "data")
    assert ImageFolder(".")[0][1] == 0


def test_folders_that_link_to_one_another_are_read_once_each(tmp_path: Path) -> None:
    """Do not follow links among a dozen folders in every order there is."""
    for number in range(12):
        folder = tmp_path / "class" / f"{number:02d}"
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(b"")
    for one in range(12):
        for other in range(12):
            if one != other:
                (tmp_path / "class" / f"{one:02d}" / f"to{other:02d}").symlink_to(tmp_path / "class" / f"{other:02d}")
    assert len(ImageFolder(tmp_path)) == 12
