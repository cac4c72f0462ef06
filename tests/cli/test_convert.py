"""`headrace convert`: every format into every other, read back, and continued after a kill."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from headrace import ImageFolder
from headrace.cli import conversion
from headrace.cli.app import commands
from headrace.datasets import ArrowDataset, MDSDataset, WebDataset, open_shards
from headrace.errors import ArgumentTypeError
from headrace.formats.shard_writers import members
from tests.datasets.test_shard_formats import FORMATS, image

if TYPE_CHECKING:
    from tests.cli.conftest import Run

PAIRS = {name: ",".join(pair) for name, (_, _, pair, _) in FORMATS.items()}
TARGETS = ("tar", "mds", "arrow", "folder")


def convert(*arguments: str | Path, status: int = 0) -> str:
    done = CliRunner().invoke(commands, ["convert", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == status, done.output
    return done.output


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files below a folder, but the saved indexes."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".index")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", FORMATS)
def test_every_format_becomes_every_other(source: str, target: str, tmp_path: Path) -> None:
    """Keep the order, the bytes of the images and the labels."""
    if target == "arrow":
        pytest.importorskip("pyarrow")
    (tmp_path / "from").mkdir()
    FORMATS[source][0](tmp_path / "from")
    said = convert(tmp_path / "from", tmp_path / "to", "--to", target, "--fields", PAIRS[source], "--samples", "8")
    assert "21 samples in 3 " in said
    assert said.endswith(", read back\n")
    if target == "folder":
        files = sorted((path.name, path) for path in (tmp_path / "to").rglob("0*-*.*"))
        assert [path.read_bytes() for _, path in files] == [image(row) for row in range(21)]
        assert [path.parent.name for _, path in files] == [str(row % 3) for row in range(21)]
        return
    found = open_shards(tmp_path / "to")
    assert found.shard_lengths == [8, 8, 5]
    (name,) = filter(found.is_image, found.fields)
    (label,) = filter(found.is_integer, found.fields)
    assert [found[row][label] for row in range(21)] == [row % 3 for row in range(21)]
    raw = open_shards(tmp_path / "to", decoders={name: None})
    assert [raw[row][name] for row in range(21)] == [image(row) for row in range(21)]


@pytest.mark.parametrize("target", TARGETS)
def test_the_same_source_gives_the_same_bytes(target: str, photos: Path, tmp_path: Path) -> None:
    """Write a folder of images twice."""
    if target == "arrow":
        pytest.importorskip("pyarrow")
    for name in "ab":
        convert(photos, tmp_path / name, "--to", target, "--samples", "5")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("target", TARGETS)
def test_a_conversion_continues_where_it_was_left(target: str, photos: Path, tmp_path: Path) -> None:
    """Keep the shards that are right; write one that is missing, cut short or changed again."""
    if target == "arrow":
        pytest.importorskip("pyarrow")
    convert(photos, tmp_path / "whole", "--to", target, "--samples", "3")
    whole = contents(tmp_path / "whole")
    convert(photos, tmp_path / "part", "--to", target, "--samples", "3")
    shards = sorted(
        path for path in (tmp_path / "part").rglob("*") if path.suffix in (".tar", ".mds", ".arrow", ".jpg")
    )
    step = len(shards) // 4
    shards[0].unlink()
    shards[step].write_bytes(shards[step].read_bytes()[:-700])
    changed = bytearray(shards[2 * step].read_bytes())
    changed[len(changed) // 2] ^= 255
    shards[2 * step].write_bytes(changed)
    said = convert(photos, tmp_path / "part", "--to", target, "--samples", "3")
    assert contents(tmp_path / "part") == whole
    assert "1 of them there already" in said or target == "mds"
    assert "4 of them there already" in convert(photos, tmp_path / "part", "--to", target, "--samples", "3")


def test_the_names_of_classes_come_along(photos: Path, tmp_path: Path) -> None:
    """Write them beside the shards, and make folders of them again."""
    convert(photos, tmp_path / "tar", "--to", "tar")
    assert (tmp_path / "tar" / "classes.txt").read_text(encoding="utf-8").split() == ["cat", "dog", "émeu"]
    convert(tmp_path / "tar", tmp_path / "folder", "--to", "folder")
    first, again = ImageFolder(photos), ImageFolder(tmp_path / "folder")
    assert again.classes == first.classes
    assert all(
        np.array_equal(mine[0], theirs[0]) and mine[1] == theirs[1] for mine, theirs in zip(first, again, strict=True)
    )


def test_a_command_says_what_it_did(run: Run, photos: Path, tmp_path: Path) -> None:
    """Print one line; and end with one for a folder that has other things in it."""
    done = run("convert", photos, "shards", "--to", "tar")
    assert done.stdout == "shards: 12 samples in 1 shard, read back\n"
    assert len(WebDataset(tmp_path / "shards").tuple("image.jpg", "label.cls")) == 12
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    done = run("convert", photos, "other", "--to", "tar")
    assert done.returncode == 2
    assert "not empty, and not of this conversion" in done.stderr


def test_another_conversion_does_not_continue_there(photos: Path, tmp_path: Path) -> None:
    """Refuse a folder that was begun from other samples, or in other shards."""
    convert(photos, tmp_path / "to", "--to", "tar", "--samples", "3")
    said = convert(photos, tmp_path / "to", "--to", "tar", "--samples", "4", status=2)
    assert "the folder is not empty, and not of this conversion" in said


def test_all_kinds_of_values_are_kept(tmp_path: Path) -> None:
    """Give the values of MDS and of tar members what they were."""
    values: dict[str, Any] = {
        "image": image(0),
        "raw": b"\1\2",
        "n": -7,
        "x": np.float64(1.5),
        "text": "émeu",
        "table": {"a": [1, None]},
        "array": np.arange(6, dtype=np.int16).reshape(2, 3),
    }
    (tmp_path / "mds").mkdir()
    target = conversion.MDS(tmp_path / "mds")
    target.write(0, [values, values])
    found = MDSDataset(tmp_path / "mds", decoders={"image": None})[1]
    assert all(conversion._same(found[name], value) for name, value in values.items())
    (tmp_path / "tar").mkdir()
    conversion.Tar(tmp_path / "tar").write(0, [("a", members(values))])
    dataset = WebDataset(tmp_path / "tar", decoders={"jpg": None})
    assert dataset.fields == ["image.jpg", "raw", "n.cls", "x.json", "text", "table.json", "array.npy"]
    read = dataset[0]
    assert all(
        conversion._same(read[field], value) for field, value in zip(dataset.fields, values.values(), strict=True)
    )


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([None])])
def test_what_a_format_cannot_hold_is_refused(value: Any, tmp_path: Path) -> None:
    """Name the field, and write no pickle."""
    with pytest.raises(ArgumentTypeError, match="cannot hold field 'x'"):
        members({"x": value})
    with pytest.raises(ArgumentTypeError, match="cannot hold field 'x'"):
        conversion.MDS(tmp_path).write(0, [{"x": value}])
    pytest.importorskip("pyarrow")
    with pytest.raises(ArgumentTypeError, match="cannot hold field 'x'"):
        conversion.Arrow(tmp_path).write(0, [{"x": value}])
    assert not list(tmp_path.iterdir())


def test_images_of_arrow_files_are_images_to_others(photos: Path, tmp_path: Path) -> None:
    """Declare image and class as Hugging Face's `datasets` does."""
    pa = pytest.importorskip("pyarrow")
    convert(photos, tmp_path / "arrow", "--to", "arrow")
    (file,) = (tmp_path / "arrow").glob("*.arrow")
    with pa.memory_map(str(file)) as source:
        told = json.loads(pa.ipc.open_file(source).schema.metadata[b"huggingface"])["info"]["features"]
    assert told == {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog", "émeu"]}}
    assert ArrowDataset(file).tuple("image", "label")[11][1] == 2


def test_a_shard_that_reads_back_differently_is_an_error(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Say so, in place of trusting the disk."""
    monkeypatch.setattr(conversion, "write_tar", lambda path, _: path.write_bytes(bytes(1024)))
    assert "reads back differently" in convert(photos, tmp_path / "to", "--to", "tar", status=3)


def test_keys_of_two_files_stay_two_samples(tmp_path: Path) -> None:
    """Tell files that differ in their ending alone, and names with dots, apart."""
    (tmp_path / "from").mkdir()
    for name, row in (("a.jpg", 0), ("a.jpeg", 1), ("b.c.jpg", 2), ("__x.jpg", 3)):
        (tmp_path / "from" / name).write_bytes(image(row))
    convert(tmp_path / "from", tmp_path / "to", "--to", "tar")
    assert len(WebDataset(tmp_path / "to")) == 4


def test_a_damaged_image_is_named(photos: Path, tmp_path: Path) -> None:
    """Copy its bytes to shards, which have a place for them; refuse it where its name would say what it is."""
    shutil.copytree(photos, tmp_path / "from")
    (tmp_path / "from" / "cat" / "bad.jpg").write_text("no image")
    convert(tmp_path / "from", tmp_path / "tar", "--to", "tar")
    said = convert(tmp_path / "from", tmp_path / "folder", "--to", "folder", status=2)
    assert "sample 4 (cat/bad) has image and label, but the bytes of image are not an image" in said


@pytest.mark.parametrize("where", ["", "out", "cat/out"])
def test_nothing_is_written_into_the_source(where: str, photos: Path, tmp_path: Path) -> None:
    """Refuse a folder that the next run would read."""
    shutil.copytree(photos, tmp_path / "from")
    before = contents(tmp_path / "from")
    assert "DST is inside SRC" in convert(tmp_path / "from", tmp_path / "from" / where, "--to", "tar", status=2)
    assert contents(tmp_path / "from") == before
