"""Tar archives: every dialect gives the same members, and damage is an error."""

from __future__ import annotations

import contextlib
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.datasets import WebDataset
from headrace.errors import BadFile, MissingFile, UnreadableFile
from headrace.formats import tar

SAMPLES = {"a/0": {"txt": b"zero", "cls": b"7"}, "a/1": {"txt": b"", "cls": b"-3", "seg.PNG": b"x" * 1000}}
LONG = "folder/" * 30


def members(samples: dict[str, dict[str, bytes]]) -> list[tuple[str, bytes]]:
    return [(f"{key}.{field}", data) for key, fields in samples.items() for field, data in fields.items()]


def archive(path: Path, files: list[tuple[str, bytes]], form: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as writer:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            writer.addfile(info, io.BytesIO(data))
    return path


def read(path: Path) -> dict[str, dict[str, bytes]]:
    """Read all samples by the ranges of their index."""
    shard, _ = tar.index(str(path))
    data = path.read_bytes()
    found: dict[str, dict[str, bytes]] = {key: {} for key in shard.keys}
    for name, spans in shard.fields.items():
        for key, offset, length in zip(shard.keys, spans.offset, spans.length, strict=True):
            if length >= 0:
                found[key][name] = data[offset : offset + length]
    return found


def lower(samples: dict[str, dict[str, bytes]]) -> dict[str, dict[str, bytes]]:
    return {key: {name.lower(): data for name, data in fields.items()} for key, fields in samples.items()}


def header(name: bytes, size: bytes, kind: bytes = b"0", magic: bytes = b"") -> bytes:
    """Write a header by hand, for what Python's module does not write."""
    block = bytearray(512)
    block[: len(name)] = name
    block[124 : 124 + len(size)] = size
    block[156:157] = kind
    block[257 : 257 + len(magic)] = magic
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("folder", ["", LONG, "é/", "./"])
def test_every_dialect_gives_the_same_samples(tmp_path: Path, form: int, folder: str) -> None:
    """Read long names, names beyond ASCII and empty members of ustar, GNU and pax archives."""
    samples = {folder + key: fields for key, fields in SAMPLES.items()}
    if form == tarfile.USTAR_FORMAT and folder == "é/":
        pytest.skip("ustar has no names beyond ASCII")
    path = archive(tmp_path / "a.tar", members(samples), form)
    assert read(path) == {key.removeprefix("./"): fields for key, fields in lower(samples).items()}


def test_old_archives_without_a_magic_are_read(tmp_path: Path) -> None:
    """Read v7 headers, folders that only a slash marks, sizes in base 256, and an archive without an end."""
    size = b"\x80" + (5).to_bytes(11, "big")
    parts = [header(b"d/", b"0000000017\0", b"\0"), header(b"d/0.txt", size, b"\0"), padded(b"hello")]
    parts += [header(b"d/1.txt", b"3 ", b"7"), padded(b"abc")]
    (tmp_path / "v7.tar").write_bytes(b"".join(parts))
    assert read(tmp_path / "v7.tar") == {"d/0": {"txt": b"hello"}, "d/1": {"txt": b"abc"}}


def test_a_size_in_an_extended_header_counts(tmp_path: Path) -> None:
    """Read a member whose header claims another size, as archives with members above 8 GiB have it."""
    record = b"17 path=b/9.json\n" + b"9 size=4\n"
    parts = [header(b"x", b"%o\0" % len(record), b"x"), padded(record), header(b"short", b"0\0"), padded(b"true")]
    (tmp_path / "pax.tar").write_bytes(b"".join(parts))
    assert read(tmp_path / "pax.tar") == {"b/9": {"json": b"true"}}


def test_offsets_beyond_4_gib_are_read(tmp_path: Path) -> None:
    """Find the member behind one of 5 GB, in a file with a hole."""
    big = 5_000_000_000
    path = tmp_path / "big.tar"
    with path.open("wb") as file:
        file.write(header(b"0.bin", b"\x80" + big.to_bytes(11, "big")))
        file.seek(512 + -(-big // 512) * 512)
        file.write(header(b"1.cls", b"2\0") + padded(b"42") + bytes(1024))
    shard, _ = tar.index(str(path))
    assert shard.fields["cls"].offset[1] > big
    assert shard.keys == ["0", "1"]


def test_what_is_no_field_belongs_to_no_sample(tmp_path: Path) -> None:
    """Skip folders, files without a dot, hidden ones, those of macOS, and members that describe the archive."""
    names = ["README", ".DS_Store", "a/._0.jpg", "__meta__/a.json", "a/0.txt"]
    path = archive(tmp_path / "a.tar", [(name, b"x") for name in names])
    assert read(path) == {"a/0": {"txt": b"x"}}


def test_integers_are_read_with_the_index(tmp_path: Path) -> None:
    """Hold the values of integer fields where each sample has one; leave those of other text to be read."""
    shard, _ = tar.index(str(archive(tmp_path / "a.tar", members(SAMPLES))))
    assert {name: values.tolist() for name, values in shard.numbers.items()} == {"cls": [7, -3]}
    odd = archive(tmp_path / "b.tar", [("0.cls", b"1"), ("1.cls", b"cat"), ("2.cls", b"9" * 30)])
    assert tar.index(str(odd))[0].numbers == {}


def test_padding_and_garbage_after_the_end_are_no_samples(tmp_path: Path) -> None:
    """Stop at the block of zeros that ends an archive."""
    path = archive(tmp_path / "a.tar", members(SAMPLES))
    path.write_bytes(path.read_bytes() + b"garbage" * 999)
    assert read(path) == lower(SAMPLES)
    (tmp_path / "empty.tar").write_bytes(bytes(1024))
    assert read(tmp_path / "empty.tar") == {}
    (tmp_path / "nothing.tar").write_bytes(b"")
    assert read(tmp_path / "nothing.tar") == {}


@pytest.mark.parametrize(
    ("kind", "words"),
    [(b"1", "a hard link"), (b"2", "a symbolic link"), (b"S", "a sparse file"), (b"6", "a named pipe")],
)
def test_members_that_are_no_regular_files_are_named(tmp_path: Path, kind: bytes, words: str) -> None:
    """Refuse links, devices and sparse files, whose data are elsewhere."""
    (tmp_path / "a.tar").write_bytes(header(b"0.jpg", b"0\0", kind))
    with pytest.raises(BadFile, match=rf"a\.tar: member '0\.jpg' is {words}.*regular files only"):
        tar.index(str(tmp_path / "a.tar"))


def test_two_fields_of_one_name_are_an_error(tmp_path: Path) -> None:
    """Name the sample and the field, rather than keep one of the two."""
    path = archive(tmp_path / "a.tar", [("0.jpg", b"1"), ("0.JPG", b"2")])
    with pytest.raises(BadFile, match="sample '0' has two fields 'jpg'"):
        tar.index(str(path))


def test_far_more_fields_than_samples_have_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bound the memory of an index by the size of the archive: each missing field has an entry."""
    monkeypatch.setattr("headrace.formats.shard.LEAST_ENTRIES", 1000)
    parts = [header(b"%d.field-%d" % (row, row), b"0\0") for row in range(999)]
    (tmp_path / "a.tar").write_bytes(b"".join(parts))
    with pytest.raises(BadFile, match=r"a\.tar: its \d+ samples have \d+ different fields, and most lack most"):
        tar.index(str(tmp_path / "a.tar"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x1f\x8b" + bytes(600), "it is compressed with gzip"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "it is compressed with zstd"),
        (b"not an archive" * 99, "it is not a tar archive"),
        (header(b"0.jpg", b"7777\0"), "has 4,095 bytes by its header; 0 are left"),
        (
            header(b"label", b"\x80" + (1 << 70).to_bytes(11, "big"), b"V"),
            "member 'label' at byte 0 has 1,180,591,620,717",
        ),
        (header(b"label", b"7777\0", b"V") + bytes(1024), "has 4,095 bytes by its header; 1,024 are left"),
        (header(b"0.jpg", b"12x\0"), "the size of the member at byte 0"),
        (header(b"0.jpg", b"1\0") + padded(b"x") + b"garbage" * 99, "no tar header begins at byte 1,024"),
        (header(b"x", b"77777777777", b"x"), "the extended header at byte 0 has 8,589,934,591 bytes"),
        (header(b"x", b"5\0", b"x") + padded(b"9 a=b") + bytes(512), "the extended header at byte 0 is damaged"),
        (header(b"x", b"40\0", b"L") + b"short", "it ends in the middle of an entry"),
    ],
)
def test_damage_is_an_error_that_says_where(tmp_path: Path, data: bytes, words: str) -> None:
    """Name the shard and the byte."""
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(BadFile, match=words):
        tar.index(str(tmp_path / "a.tar"))


def test_what_is_no_file_is_an_error(tmp_path: Path) -> None:
    """Name what is not there, and what is a folder."""
    with pytest.raises(MissingFile):
        tar.index(str(tmp_path / "none.tar"))
    with pytest.raises(UnreadableFile):
        tar.index(str(tmp_path))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_archive_gives_an_error_or_true_ranges(tmp_path: Path, data: st.DataObject) -> None:
    """Cut archives short and flip bytes: every range lies in the file, and nothing else is raised."""
    whole = bytearray(archive(tmp_path / "a.tar", members(SAMPLES), tarfile.PAX_FORMAT).read_bytes())
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole))) :]
    for _ in range(data.draw(st.integers(0, 3)) if whole else 0):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.tar"
    path.write_bytes(whole)
    with contextlib.suppress(BadFile):
        shard, _ = tar.index(str(path))
        for spans in shard.fields.values():
            ends = [o + max(n, 0) for o, n in zip(spans.offset, spans.length, strict=True)]
            assert all(0 <= o <= end <= len(whole) for o, end in zip(spans.offset, ends, strict=True))


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_names_that_are_not_utf8_stand_among_others(tmp_path: Path, form: int) -> None:
    """Read members before and after one whose name has other bytes, and their samples from a saved index."""
    names = ["a.txt", "\udcff.txt", "\udcff.bin", "b.txt", "b.bin", "\udce9z.txt", "c.txt"]
    archive(tmp_path / "a.tar", [(name, name[-5:].encode("utf-8", "replace")) for name in names], form)
    expected = {"a": ["txt"], "\udcff": ["txt", "bin"], "b": ["txt", "bin"], "\udce9z": ["txt"], "c": ["txt"]}
    assert {key: list(fields) for key, fields in read(tmp_path / "a.tar").items()} == expected
    for _ in range(2):
        dataset = WebDataset(tmp_path / "a.tar")
        assert [sample["__key__"] for sample in dataset] == list(expected)
