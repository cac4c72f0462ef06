"""Walks of shards by the native extension find what the walks in Python find, and stop where those have to go on."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace._native import extension
from headrace.errors import HeadraceError
from headrace.formats import tar, tfrecord
from tests.formats.damage import damaged
from tests.formats.writers import example, feature, write_tfrecord

pytestmark = pytest.mark.skipif(not hasattr(extension, "scan_tar"), reason="there is no native extension")

NAMES = (
    "a.jpg", "a.cls", "./a.JPG", "b/c.seg.png", "b/c.cls", "b/c", ".hidden", "__meta__/x.json", "__a.b", "d/.x",
    "é.cls", "é.jpg", "e.jpg", "x" * 120 + ".jpg", "f/" * 80 + "g.cls", "g.", "h..i", "j.cls",
)  # fmt: skip


def by_python(monkeypatch: pytest.MonkeyPatch, call: Any) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(tar, "extension", None)
        patch.setattr(tfrecord, "extension", None)
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


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """Draw an archive: names of all sorts, in any order, in any dialect, with links and folders now and then."""
    file = io.BytesIO()
    form = draw(st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name in draw(st.lists(st.sampled_from(NAMES), max_size=12)):
            member = tarfile.TarInfo(name)
            member.mtime = draw(st.sampled_from([0, 1.5]))
            member.type = draw(
                st.sampled_from([tarfile.REGTYPE] * 12 + [tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE])
            )
            data = draw(st.sampled_from([b"", b"7", b"-3", b" 12\n", b"x" * 600])) if member.isreg() else b""
            member.size = len(data)
            try:
                archive.addfile(member, io.BytesIO(data))
            except ValueError:  # ustar has no room for such a name
                continue
    return file.getvalue()


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(whole=archives(), data=st.data())
def test_a_tar_archive_is_indexed_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bytes, data: st.DataObject
) -> None:
    """Find the same samples or raise the same error, for whole archives and damaged ones, a few members at a time."""
    path = tmp_path / "a.tar"
    path.write_bytes(damaged(data, whole) if data.draw(st.booleans()) else whole)
    monkeypatch.setattr(tar, "AT_ONCE", data.draw(st.sampled_from([1, 2, 1000])))
    assert outcome(lambda: tar.index(str(path))) == by_python(monkeypatch, lambda: tar.index(str(path)))


VALUES = ([5], [-1], [2**63 - 1, 0], [0.5], [1.5, 2.5], [b"a"], [b"", b"bc"], [b"x" * 300])


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from(["x", "image/encoded", "é", ""]), st.sampled_from(VALUES)), max_size=6
    ),
    data=st.data(),
)
def test_a_tfrecord_file_is_indexed_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    """Find the same features or raise the same error, for whole records and damaged ones, a few at a time."""
    records = [example({name: feature(value) for name, value in row.items()}) for row in rows]
    spoil = data.draw(st.sampled_from(["no", "record", "file"]))
    if spoil == "record" and records:
        records[-1] = damaged(data, records[-1])
    path = tmp_path / "a.tfrecord"
    write_tfrecord(path, records)
    if spoil == "file":
        path.write_bytes(damaged(data, path.read_bytes()))
    monkeypatch.setattr(tfrecord, "AT_ONCE", data.draw(st.sampled_from([1, 2, 1000])))
    how = {"verify": data.draw(st.booleans()), "features": data.draw(st.booleans())}
    found = outcome(lambda: tfrecord.index(str(path), **how))
    assert found == by_python(monkeypatch, lambda: tfrecord.index(str(path), **how))


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
