"""`headrace check`: every file read once, the bad ones listed with the reason."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.image_files import encoded, photo

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run


@pytest.fixture
def damaged(photos: Path, tmp_path: Path) -> Path:
    """Copy the good images and add bad ones of every kind."""
    root = tmp_path / "damaged"
    shutil.copytree(photos, root)
    whole = encoded(photo())
    (root / "cat" / "0-cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "cat" / "empty.png").write_bytes(b"")
    (root / "dog" / "gone.jpg").symlink_to("nowhere")
    (root / "dog" / "new\nline\x1b[2J.gif").write_bytes(bytes(100))
    (root / "émeu" / "text.jpg").write_text("not found")
    return root


def test_good_images_are_counted_and_the_exit_status_is_0(run: Run, photos: Path) -> None:
    """List nothing where nothing is wrong."""
    done = run("check", photos)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "12 images checked, all good\n"


@pytest.mark.parametrize("jobs", ["1", "7"])
def test_bad_files_are_listed_in_order_with_the_reason(run: Run, damaged: Path, jobs: str) -> None:
    """Give one line a bad file, `path: reason`, in the order of paths, on any number of threads."""
    done = run("check", "damaged", "--jobs", jobs)
    assert done.returncode == 1
    assert done.stderr == "17 images checked, 5 bad\n"
    lines = done.stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        "damaged/cat/0-cut.jpg",
        "damaged/cat/empty.png",
        "damaged/dog/gone.jpg",
        r"damaged/dog/new\nline\x1b[2J.gif",
        "damaged/émeu/text.jpg",
    ]
    for line, reason in zip(lines, ("truncated", "0 bytes", "nowhere", "zero", "'not found'"), strict=True):
        assert reason in line.lower()
        assert "on_error" not in line  # advice for a training loop, not for this list


def test_the_pixel_limit_can_be_lowered(run: Run, photos: Path) -> None:
    """Report images above the limit given."""
    done = run("check", photos / "cat", "--max-pixels", "1000")
    assert done.returncode == 1
    assert done.stdout.count("160 x 120 = 19200 pixels") == 4


def test_images_beside_class_folders_are_checked_too(run: Run, photos: Path, tmp_path: Path) -> None:
    """Read every file of a folder, also those that belong to no class."""
    root = tmp_path / "mixed"
    shutil.copytree(photos / "cat", root / "cat")
    (root / "stray.jpg").write_text("no image")
    done = run("check", "mixed")
    assert done.stdout.startswith("mixed/stray.jpg: ")
    assert done.stderr == "5 images checked, 1 bad\n"


def test_a_list_file_is_read_by_its_columns(run: Run, photos: Path, tmp_path: Path) -> None:
    """Take the options that say how a list file is laid out."""
    (tmp_path / "list.csv").write_text("id,file,kind\n1,cat/0.jpg,cat\n2,dog/9.jpg,dog\n")
    done = run("check", "list.csv", "--root", photos, "--columns", "file,kind")
    assert done.returncode == 1
    assert done.stdout.startswith(f"{photos}/dog/9.jpg: ")
    assert done.stderr == "2 images checked, 1 bad\n"


def test_one_image_can_be_checked(run: Run, photos: Path) -> None:
    """Take the path of a single file."""
    assert run("check", photos / "cat" / "0.jpg").returncode == 0


def test_an_empty_path_is_refused(run: Run) -> None:
    """Do not take what an unset variable gives for the current folder."""
    done = run("check", "")
    assert done.returncode == 2
    assert "it is empty" in done.stderr
