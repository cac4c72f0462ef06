"""`headrace demo`: the first thing that a newcomer sees."""

from __future__ import annotations

import signal
from importlib.resources import files
from typing import TYPE_CHECKING

from PIL import Image

from headrace.cli.demo_images import Recipe, make_images, photographs
from headrace.image.sheet import sheet_size
from tests.cli.conftest import PATIENCE_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run, Start

SMALL = ("--images", "24", "--batch-size", "8", "--size", "32", "--workers", "2")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.jpg")}


def test_the_demo_makes_images_streams_them_and_shows_a_sheet(run: Run, tmp_path: Path) -> None:
    """Make class folders of JPEG files, read two epochs, and save the contact sheet where it says."""
    done = run("demo", *SMALL)
    assert (done.returncode, done.stderr) == (0, "")
    assert "24 images in 6 classes" in done.stdout
    assert "epoch 0: 3 steps, 24 images" in done.stdout
    assert "epoch 1: 3 steps, 24 images" in done.stdout
    assert "(8, 3, 32, 32)" in done.stdout
    assert "contact sheet: headrace-demo/contact-sheet.png\n" in done.stdout
    with Image.open(tmp_path / "headrace-demo" / "contact-sheet.png") as sheet:
        assert (sheet.format, sheet.size) == ("PNG", sheet_size(8))
        assert len(sheet.getcolors(1 << 24) or ()) > 1000
    made = contents(tmp_path / "headrace-demo" / "images")
    assert len(set(made.values())) == 24
    for name in photographs():
        assert sum(path.startswith(f"{name}/") for path in made) == 4


def test_a_second_run_uses_the_images_of_the_first(run: Run, tmp_path: Path) -> None:
    """Make the images once; make them again where another number is asked for."""
    run("demo", *SMALL)
    cat = tmp_path / "headrace-demo" / "images" / "cat" / "00000.jpg"
    first = cat.stat().st_mtime_ns
    assert "an earlier run made" in run("demo", *SMALL).stdout
    assert cat.stat().st_mtime_ns == first
    assert "6 images in 6 classes" in run("demo", *SMALL, "--images", "6").stdout
    assert len(contents(tmp_path / "headrace-demo")) == 6


def test_a_run_that_was_killed_does_not_spoil_the_next(run: Run, start: Start, tmp_path: Path) -> None:
    """Take away what a killed run left half made, and make it whole."""
    process = start("demo", "--images", "300000")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("making 300,000")
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=PATIENCE_SECONDS)
    left = tmp_path / "headrace-demo" / "images.part"
    (left / "cat").mkdir(parents=True, exist_ok=True)  # had it not come so far
    (left / "made-by-headrace-demo.json").write_text("{}")
    assert run("demo", *SMALL).returncode == 0
    assert len(contents(tmp_path / "headrace-demo" / "images")) == 24
    assert not left.exists()


def test_a_folder_of_somebody_elses_is_never_touched(run: Run, tmp_path: Path) -> None:
    """Refuse to write where other files are, be it the folder or the one that is used while making it."""
    for name in ("images", "images.part"):
        mine = tmp_path / name / "home" / name / "mine.txt"
        mine.parent.mkdir(parents=True)
        mine.write_text("dear diary")
        done = run("demo", *SMALL, "--output", tmp_path / name / "home")
        assert done.returncode == 2
        assert "was not made by headrace demo" in done.stderr
        assert mine.read_text() == "dear diary"


def test_a_place_that_cannot_be_written_is_reported_in_one_line(run: Run) -> None:
    """Name the folder, the reason and the cure."""
    done = run("demo", *SMALL, "--output", "/proc/headrace")
    assert done.returncode == 3
    assert done.stderr.startswith("headrace: /proc/headrace")
    assert "--output" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_same_recipe_makes_the_same_images(tmp_path: Path) -> None:
    """Depend on the recipe alone, not on the threads."""
    for name in ("one", "two"):
        assert len(list(make_images(tmp_path / name, Recipe(30)))) == 30
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_every_photograph_has_its_source_and_license() -> None:
    """Name each bundled file in the notes, and keep all of them small."""
    folder = files("headrace") / "demo"
    notes = (folder / "README.md").read_text(encoding="utf-8")
    names = [item.name for item in folder.iterdir() if item.name != "README.md"]
    assert sorted(names) == sorted(f"{name}.jpg" for name in photographs())
    for name in names:
        (row,) = [line for line in notes.splitlines() if line.startswith(f"| `{name}`")]
        assert "CC0" in row or "public domain" in row
    assert sum(len((folder / name).read_bytes()) for name in names) < 500_000
