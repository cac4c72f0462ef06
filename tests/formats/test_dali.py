"""The index that DALI's `wds2idx` writes beside a tar shard: used if every header agrees, else passed over."""

from __future__ import annotations

import contextlib
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import BadFile
from headrace.formats import dali, tar
from headrace.formats.reader import ShardReader

MEMBERS = [(f"a/{row}.{name}", b"x" * (row * 300)) for row in range(5) for name in ("jpg", "cls")]
Members = list[tuple[str, int, int]]


def archive(path: Path, members: list[tuple[str, bytes]], *, mtime: float = 0, kind: bytes = tarfile.REGTYPE) -> Path:
    """Write an archive; a time that is a fraction puts an extended header before each member."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as writer:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.type = len(data), mtime, kind  # type: ignore[assignment]
            writer.addfile(info, io.BytesIO(data))
    return path


def scanned(path: Path) -> Members:
    with ShardReader(str(path)) as reader:
        return list(tar.members(reader))


def listed(path: Path) -> Members | None:
    with ShardReader(str(path)) as reader:
        return dali.members(reader)


def index(path: Path, members: Members | None = None) -> Path:
    """Write the index as `wds2idx` does: a line for each sample."""
    samples = dict[str, list[str]]()
    for name, offset, size in scanned(path) if members is None else members:
        key, field = tar.split(name)
        samples.setdefault(key, []).append(f"{field} {offset} {size} {name}")
    text = "".join(f"{' '.join(parts)}\n" for parts in samples.values())
    path.with_suffix(".idx").write_text(f"v1.2 {len(samples)}\n{text}")
    return path


@pytest.mark.parametrize("mtime", [0, 1.5])
def test_the_index_gives_what_a_scan_gives(tmp_path: Path, mtime: float) -> None:
    """Take names and ranges from the index, with and without extended headers between the members."""
    path = index(archive(tmp_path / "a.tar", MEMBERS, mtime=mtime))
    assert listed(path) == scanned(path)
    assert len(scanned(path)) == 10


def test_no_index_is_no_list(tmp_path: Path) -> None:
    """Scan shards without an index, and those beside an index of another format."""
    path = archive(tmp_path / "a.tar", MEMBERS)
    assert listed(path) is None
    for text in (
        b"",
        b"MMIDIDX\0\0",
        b"v1.1 1\njpg 512\n",
        b"v1.2 1\njpg 512 1\n",
        b"v1.2 1\njpg x 1 a\n",
        b"\xff" * 99,
    ):
        path.with_suffix(".idx").write_bytes(text)
        assert listed(path) is None, text


@pytest.mark.parametrize(
    "change",
    [
        lambda members: members[:-1],
        lambda members: members[1:],
        lambda members: members[::-1],
        lambda members: [*members, members[-1]],
        lambda members: [*members[:3], *members[4:]],
        lambda members: [(name, offset, size + 1) for name, offset, size in members],
        lambda members: [(name, offset + 512, size) for name, offset, size in members],
        lambda members: [(name, -offset, size) for name, offset, size in members],
        lambda members: [(name, offset, 1 << 62) for name, offset, size in members],
        lambda members: [(name, offset, 1 << 70) for name, offset, size in members],
        lambda members: [(name.replace("a/1", "a/2"), offset, size) for name, offset, size in members],
        lambda members: [(name + "x" * 100, offset, size) for name, offset, size in members],
    ],
)
@pytest.mark.parametrize("mtime", [0, 1.5])
def test_an_index_that_says_anything_else_is_not_used(tmp_path: Path, change, mtime: float) -> None:  # type: ignore[no-untyped-def]
    """Scan the archive where the index lacks members, has others, or other ranges."""
    path = archive(tmp_path / "a.tar", MEMBERS, mtime=mtime)
    index(path, change(scanned(path)))
    assert listed(path) is None
    assert tar.index(str(path))[0].keys == [f"a/{row}" for row in range(5)]


def test_a_stale_index_is_not_used(tmp_path: Path) -> None:
    """Scan an archive that was written again after its index."""
    path = index(archive(tmp_path / "a.tar", MEMBERS))
    archive(path, [*MEMBERS, ("a/5.jpg", b"new")])
    assert listed(path) is None
    assert tar.index(str(path))[0].keys[-1] == "a/5"


def test_what_only_a_scan_understands_is_scanned(tmp_path: Path) -> None:
    """Give long names, names with folders in the header's prefix, and links to the scan."""
    names = ["x" * 90 + "/" + "y" * 40 + ".jpg", "z" * 150 + ".jpg"]
    for name in names:
        path = index(archive(tmp_path / "a.tar", [(name, b"1")]))
        assert listed(path) is None
        assert tar.index(str(path))[0].keys == [name.removesuffix(".jpg")]
    path = index(archive(tmp_path / "b.tar", [("0.jpg", b"")]))
    archive(path, [("0.jpg", b"")], kind=tarfile.SYMTYPE)
    with pytest.raises(BadFile, match="is a symbolic link"):
        tar.index(str(path))


def found(path: Path) -> object:
    """Return the samples of an archive, or the error."""
    try:
        shard, _ = tar.index(str(path))
    except BadFile as error:
        return str(error)
    return shard.keys, {name: (list(s.offset), list(s.length)) for name, s in shard.fields.items()}, shard.numbers


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_changes_nothing_that_a_scan_gives(tmp_path: Path, data: st.DataObject) -> None:
    """Flip bytes of archives and of indexes: with the index, the samples or the error are those of the scan alone."""
    path = index(archive(tmp_path / "a.tar", MEMBERS, mtime=data.draw(st.sampled_from([0, 1.5]))))
    for each in (path, path.with_suffix(".idx")):
        whole = bytearray(each.read_bytes())
        headers = [at for at in range(len(whole)) if at % 512 < 160] if each == path else range(len(whole))
        for _ in range(data.draw(st.integers(0, 2))):
            whole[data.draw(st.sampled_from(headers))] = data.draw(
                st.sampled_from(b"0123457 \0x\n." + bytes([0x80, 255]))
            )
        each.write_bytes(whole)
    with_index = found(path)
    path.with_suffix(".idx").unlink()
    with contextlib.suppress(BadFile):
        assert with_index == found(path)
