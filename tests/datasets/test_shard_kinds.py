"""Shards are opened by what is in them, whatever they are called."""

from __future__ import annotations

import os
import shutil
import tarfile
from typing import TYPE_CHECKING

import pytest
from tests.datasets.test_shard_formats import FORMATS, WITHOUT_RANGES
from tests.image_files import encoded, photo

from headrace.cli.image_set import Options, open_path
from headrace.datasets import open_shards
from headrace.datasets.shard_kinds import LITDATA, MDS, shard_kind
from headrace.errors import BadFile, MissingFile, UnreadableFile

if TYPE_CHECKING:
    from pathlib import Path

KINDS = FORMATS | WITHOUT_RANGES
LISTED = ("lit", "mds")
"""Formats that are a folder with an `index.json`."""


@pytest.mark.parametrize("name", KINDS)
def test_a_folder_of_shards_is_opened_as_its_format(name: str, tmp_path: Path) -> None:
    """Open it with the class of its format, and give what that gives."""
    write, kind, pair, _ = KINDS[name]
    write(tmp_path)
    found = open_shards(tmp_path, fields=pair)
    assert type(found) is kind
    assert found.fields == list(pair)
    assert len(found) == 21
    assert found[5]["__key__"] == kind(tmp_path)[5]["__key__"]


@pytest.mark.parametrize("name", [name for name in KINDS if name not in LISTED])
def test_a_shard_is_told_by_its_bytes(name: str, tmp_path: Path) -> None:
    """Open one shard whose name says nothing, and a pattern of such names."""
    write, kind, _, _ = KINDS[name]
    (tmp_path / "from").mkdir()
    write(tmp_path / "from")
    shards = sorted(tmp_path.glob("from/*[0-9]*"))
    for number, shard in enumerate(shards[:2]):
        shard.rename(tmp_path / f"part{number}.bin")
    one, both = open_shards(tmp_path / "part0.bin"), open_shards(f"{tmp_path}/part{{0..1}}.bin")
    assert type(one) is type(both) is kind
    assert len(both) == 2 * len(one)


@pytest.mark.parametrize("name", KINDS)
def test_commands_take_shards_of_every_format(name: str, tmp_path: Path) -> None:
    """Give images with labels to the commands that take a PATH."""
    write, _, _, _ = KINDS[name]
    write(tmp_path)
    image_set = open_path(str(tmp_path), Options())
    image, label = image_set.dataset[7]
    assert image.shape == (47, 50, 3)
    assert label == 1


def test_an_empty_archive_is_of_its_format(tmp_path: Path) -> None:
    """Tell a zip archive without members; a tar archive without them is only zeros, so that its name must say it."""
    with tarfile.open(tmp_path / "none.tar", "w"):
        pass
    (tmp_path / "none.zip").write_bytes(b"PK\5\6" + bytes(18))
    assert [shard_kind(tmp_path / name).name for name in ("none.zip", "none.tar")] == ["zip", "tar"]  # type: ignore[union-attr]
    (tmp_path / "none.tar").rename(tmp_path / "none.bin")
    assert shard_kind(tmp_path / "none.bin") is None


@pytest.mark.parametrize("data", [b"", b"P", b"\xff\xd8\xff\xe0" + bytes(600), bytes(600), b"\xff" * 600])
def test_other_files_are_refused_by_name(data: bytes, tmp_path: Path) -> None:
    """Say that a file is in no such format, and which there are."""
    (tmp_path / "a.bin").write_bytes(data)
    with pytest.raises(BadFile, match=r"a\.bin: its first bytes .* expected tar, zip, TFRecord"):
        open_shards(tmp_path / "a.bin")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    """Name a path, and a pattern, that gives no file; and a folder without shards."""
    with pytest.raises(MissingFile, match="none"):
        open_shards(tmp_path / "none")
    with pytest.raises(MissingFile, match="no file has such a name"):
        open_shards(f"{tmp_path}/*.tar")
    with pytest.raises(MissingFile, match=r"0\.tar"):
        open_shards(f"{tmp_path}/{{0..3}}.tar")
    with pytest.raises(BadFile, match="no format of shards"):
        open_shards(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Refuse what is no regular file."""
    os.mkfifo(tmp_path / "pipe.tar")
    assert shard_kind(tmp_path / "pipe.tar") is None
    with pytest.raises(UnreadableFile, match="not a regular file"):
        open_shards(tmp_path / "pipe.tar")


def test_a_folder_of_images_with_a_list_of_its_own_is_no_shard(tmp_path: Path) -> None:
    """Leave alone an `index.json` that lists neither shards nor chunks."""
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.jpg").write_bytes(encoded(photo(1, 40, 50)))
    (tmp_path / "index.json").write_text("[1, 2]")
    assert shard_kind(tmp_path) is None
    assert open_path(str(tmp_path), Options()).classes == ("cat",)


@pytest.mark.parametrize(("name", "kind"), [("mds", MDS), ("lit", LITDATA)])
def test_listed_shards_need_their_list(name: str, kind: object, tmp_path: Path) -> None:
    """Tell these formats by the list, which says what the shards hold."""
    FORMATS[name][0](tmp_path)
    assert shard_kind(tmp_path) is kind
    shutil.move(tmp_path / "index.json", tmp_path / "other.json")
    assert shard_kind(tmp_path) is None
