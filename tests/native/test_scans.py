"""Walks of shards by the native extension find what the walks in Python find, and stop where those have to go on."""

from __future__ import annotations

import contextlib
import io
import struct
import tarfile
import zipfile
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from headrace._native import extension
from headrace.errors import HeadraceError
from headrace.formats import tar, tfrecord
from headrace.formats import zip as zips
from headrace.formats.tfrecord import masked
from tests.formats.writers import example, feature

pytestmark = pytest.mark.skipif(not hasattr(extension, "scan_tar"), reason="there is no native extension")

NAMES = (
    "a.jpg", "a.cls", "./a.JPG", "b/c.seg.png", "b/c.cls", "b/c", ".hidden", "__meta__/x.json", "__a.b", "d/.x",
    "é.cls", "é.jpg", "e.jpg", "x" * 120 + ".jpg", "f/" * 80 + "g.cls", "g.", "h..i", "j.cls",
)  # fmt: skip


MODULES: dict[str, Any] = {"tar": tar, "zip": zips, "tfrecord": tfrecord}
CONTENTS = (b"", b"7", b"-3", b" 12\n", b"x" * 600)
VALUES: tuple[list[Any], ...] = ([5], [-1], [2**63 - 1, 0], [0.5], [1.5, 2.5], [b"a"], [b"", b"bc"], [b"x" * 300])
TYPES = [tarfile.REGTYPE] * 12 + [tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE]


def by_python(monkeypatch: pytest.MonkeyPatch, call: Any) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(tar, "extension", None)
        patch.setattr(tfrecord, "extension", None)
        patch.setattr(zips, "extension", None)
        return outcome(call)


def outcome(call: Any) -> Any:
    """Return what an index holds, or the error that it gives."""
    try:
        shard, facts = call()
    except HeadraceError as error:
        return type(error), str(error)
    fields = {name: (spans.offset.tolist(), spans.length.tolist()) for name, spans in shard.fields.items()}
    numbers = {name: values.tolist() for name, values in shard.numbers.items()}
    return shard.keys, fields, numbers, shard.kinds, facts


def archive(rng: Random) -> bytes:
    """Write an archive: names of all sorts, in any order, in any dialect, with links and folders now and then."""
    file = io.BytesIO()
    form = rng.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    with tarfile.open(fileobj=file, mode="w", format=form) as tape:
        for name in rng.choices(NAMES, k=rng.randrange(12)):
            member = tarfile.TarInfo(name)
            member.mtime, member.type = rng.choice([0, 1.5]), rng.choice(TYPES)
            data = rng.choice(CONTENTS) if member.isreg() else b""
            member.size = len(data)
            with contextlib.suppress(ValueError):  # ustar has no room for some names
                tape.addfile(member, io.BytesIO(data))
    return file.getvalue()


def zip_archive(rng: Random) -> bytes:
    """Write a zip archive: stored and deflated members, folders and links, names of all sorts in any order."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archived:
        for name in rng.sample([*NAMES, "k/"], rng.randrange(12)):
            member = zipfile.ZipInfo(name)
            member.compress_type = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
            member.external_attr = rng.choice([0o100644] * 12 + [0o120777]) << 16
            archived.writestr(member, rng.choice(CONTENTS))
        archived.comment = rng.choice([b"", b"about it"])
    return rng.choice([b"", b"#!/bin/sh\n"]) + file.getvalue()


def records(rng: Random) -> bytes:
    """Write records of Examples, some of them damaged."""
    found = []
    for _ in range(rng.randrange(6)):
        names = rng.sample(["x", "image/encoded", "é", ""], rng.randrange(4))
        record = example({name: feature(rng.choice(VALUES)) for name in names})
        found.append(spoiled(rng, record) if rng.random() < 0.2 else record)
    return b"".join(map(framed, found))


def framed(record: bytes) -> bytes:
    length = struct.pack("<Q", len(record))
    return length + struct.pack("<I", masked(length)) + record + struct.pack("<I", masked(record))


def spoiled(rng: Random, whole: bytes) -> bytes:
    """Cut bytes short, or put others in their place."""
    found = bytearray(whole)
    if rng.random() < 0.3:
        del found[rng.randrange(len(found) + 1) :]
    for _ in range(rng.randrange(3) if found else 0):
        found[rng.randrange(len(found))] = rng.choice([0, 255, 128, 48, 57, rng.randrange(256)])
    return bytes(found)


WRITERS = {"tar": archive, "zip": zip_archive, "tfrecord": records}


@pytest.mark.parametrize("form", WRITERS)
def test_shards_are_indexed_alike(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Find the same samples or raise the same error, for whole shards and damaged ones, a few members at a time."""
    rng = Random(0)
    read = 0
    for _ in range(400):
        whole = WRITERS[form](rng)
        path = tmp_path / "a"
        path.write_bytes(spoiled(rng, whole) if rng.random() < 0.5 else whole)
        how: dict[str, Any] = {}
        if form == "tfrecord":
            how = {"verify": rng.random() < 0.5, "features": rng.random() < 0.7}
        index = partial(MODULES[form].index, str(path), **how)
        monkeypatch.setattr(MODULES[form], "AT_ONCE", rng.choice([1, 2, 1000]), raising=False)
        found = outcome(index)
        assert found == by_python(monkeypatch, index)
        read += isinstance(found[0], list)
    assert read > 100


@pytest.mark.parametrize("last", [1, 2, 127])
def test_a_length_of_more_than_64_bits_is_damage(last: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse a length whose lowest bits fit, as the walk in Python does."""
    whole = example({"x": feature([5])})
    length = bytes([whole[1] | 128, *[128] * 8, last])
    path = tmp_path / "a"
    path.write_bytes(framed(whole[:1] + length + whole[2:]))
    index = partial(tfrecord.index, str(path), features=True)
    found = outcome(index)
    assert found == by_python(monkeypatch, index)
    assert "ends after its message" in found[1]


def test_most_of_an_archive_is_walked_by_the_extension(tmp_path: Path) -> None:
    """Pass over extended headers that hold times only, and read each sample once."""
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(100):
            member = tarfile.TarInfo(f"{number}.cls")
            member.mtime, member.size = 1.5, 1
            archive.addfile(member, io.BytesIO(b"7"))
    file = (tmp_path / "a.tar").open("rb")
    with file:
        size = (tmp_path / "a.tar").stat().st_size
        at, keys, fields, *_ = extension.scan_tar(file.fileno(), size, 0, "", 1000)  # type: ignore[union-attr]
    assert (at, len(keys), fields) == (100 * 4 * 512, 100, ["cls"])
