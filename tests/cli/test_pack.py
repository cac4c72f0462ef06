"""`headrace pack`: a folder or shards, packed, continued, and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from headrace import ImageFolder
from headrace.cli.app import commands
from headrace.datasets import PackedDataset

pytest.importorskip("pyarrow")


def command(*arguments: str | Path, status: int = 0) -> str:
    done = CliRunner().invoke(commands, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == status, done.output
    return done.output


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of three images."""
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            pixels: Any = np.full((40, 60 + number, 3), 80 * number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.jpg")
    return tmp_path / "photos"


def test_a_folder_is_packed_and_left_as_it_is_the_second_time(photos: Path, tmp_path: Path) -> None:
    said = command("pack", photos, tmp_path / "packed", "--max-side", "32", "--store", "raw", "--shard-size", "5kB")
    assert "packed: 6 samples in 3 shards of " in said
    packed = PackedDataset(tmp_path / "packed")
    assert packed.classes == ["cat", "dog"]
    assert max(packed[0][0].shape) == 32
    assert (
        command("pack", photos, tmp_path / "packed", "--max-side", "32", "--store", "raw", "--shard-size", "5kB")
        == said
    )


def test_other_commands_read_what_was_packed(photos: Path, tmp_path: Path) -> None:
    for store in ("jpeg", "raw"):
        command("pack", photos, tmp_path / store, "--store", store)
        assert "6 images" in command("check", tmp_path / store)


def test_shards_are_packed_by_their_fields(photos: Path, tmp_path: Path) -> None:
    command("convert", photos, tmp_path / "tar", "--to", "tar")
    command("pack", tmp_path / "tar", tmp_path / "packed")
    packed = PackedDataset(tmp_path / "packed")
    assert packed[4].keys() == {"__key__", "image.jpg", "label.cls"}
    assert (packed.key(4), packed[4]["label.cls"]) == ("dog/1", 1)
    pairs = packed.tuple("image.jpg", "label.cls")
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(pairs, ImageFolder(photos), strict=True))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--store", "smart"], "budget"),
        (["--shard-size", "many"], "shard_size must be a number of bytes"),
        (["--fields", "image"], "--fields was given, but SRC is no shard"),
    ],
)
def test_wrong_options_are_one_line(options: list[str], what: str, photos: Path, tmp_path: Path) -> None:
    said = command("pack", photos, tmp_path / "packed", *options, status=2)
    assert what in said
    assert said.count("\n") == 1


def test_a_destination_inside_the_source_is_refused(photos: Path) -> None:
    assert "DST is inside SRC" in command("pack", photos, photos / "packed", status=2)
