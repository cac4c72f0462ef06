"""Zip archives: what Python's own module writes and reads, in 64 bits too; damage and bombs are errors."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.formats.damage import damaged, read_all

from headrace.datasets import ZipDataset
from headrace.errors import BadFile, SampleError
from headrace.formats import zip as zips

FILES = {
    "a/0.txt": b"zero" * 30,
    "b.cls": b"7",
    "a/0.cls": b"-3",
    "b.seg.PNG": bytes(1000),
    "b.txt": b"",
    "README": b"x",
}


def archive(path: Path, files: dict[str, bytes] | None = None, how: int = zipfile.ZIP_STORED, **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", how, **options) as writer:
        for name, data in (FILES if files is None else files).items():
            writer.writestr(name, data)
    return path


def read(path: Path) -> dict[str, dict[str, bytes]]:
    """Read all fields as bytes."""
    dataset = ZipDataset(path, index=None)
    found: dict[str, dict[str, bytes]] = {}
    for row in range(len(dataset)):
        fields = {name: dataset.read(row, name) for name in dataset.fields if dataset._has(row, name)}
        found[dataset._table.keys[row]] = fields
    return found


def expected(files: dict[str, bytes]) -> dict[str, dict[str, bytes]]:
    found: dict[str, dict[str, bytes]] = {}
    for name, data in files.items():
        folder, slash, base = name.rpartition("/")
        stem, _, field = base.partition(".")
        if field:
            found.setdefault(folder + slash + stem, {})[field.lower()] = data
    return found


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_those_that_pythons_module_reads(tmp_path: Path, how: int) -> None:
    """Join the members of a key, wherever they are; know integers, deflated ones too."""
    path = archive(tmp_path / "a.zip", how=how)
    with zipfile.ZipFile(path) as reader:
        assert read(path) == expected({name: reader.read(name) for name in reader.namelist()})
    dataset = ZipDataset(path)
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [-3, 7]
    assert dataset[0] == {"__key__": "a/0", "txt": "zero" * 30, "cls": -3}
    assert dataset.where(1).endswith("a.zip: b")


def test_stored_and_deflated_members_may_be_mixed(tmp_path: Path) -> None:
    """Read each as it is, from a saved index too, and after another archive has changed."""
    for name in ("a.zip", "b.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as writer:
            for row in range(4):
                how = zipfile.ZIP_DEFLATED if row % 2 or name == "a.zip" else zipfile.ZIP_STORED
                writer.writestr(f"{row}.txt", f"{name} {row} " * 20, how)
                writer.writestr(f"{row}.cls", str(row), how)
    texts = [f"{name} {row} " * 20 for name in ("a.zip", "b.zip") for row in range(4)]
    for _ in range(2):
        dataset = ZipDataset(tmp_path)
        assert [sample["txt"] for sample in dataset] == texts
        assert dataset.labels is not None
        assert dataset.labels.tolist() == [0, 1, 2, 3] * 2
    archive(tmp_path / "b.zip", {"0.txt": b"new", "0.cls": b"9"})
    assert [sample["txt"] for sample in ZipDataset(tmp_path)] == [*texts[:4], "new"]


def test_checksums_of_stored_members_are_checked_where_that_is_asked_for(tmp_path: Path) -> None:
    """Read an archive as a whole with `verify=True`, once; name the sample whose bytes have changed."""
    path = archive(tmp_path / "a.zip", {"0.bin": b"x" * 3_000_000, "1.bin": b"", "2.txt": b"hello"})
    assert len(ZipDataset(path, verify=True)) == 3
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"hello", b"jello", 1))
    assert ZipDataset(path)[2]["txt"] == "jello"
    with pytest.raises(
        BadFile, match=r"a\.zip: the CRC-32 of field 'txt' of sample '2', at byte [\d,]+, does not match"
    ):
        ZipDataset(path, verify=True)


class Unseekable(io.RawIOBase):
    """A stream that zipfile cannot seek in, so that sizes follow the data."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return int(self.file.write(data))


def test_sizes_after_the_data_and_data_before_the_archive_are_read(tmp_path: Path) -> None:
    """Read streamed archives, and those behind a program that extracts them."""
    with (
        (tmp_path / "a.zip").open("wb") as file,
        zipfile.ZipFile(Unseekable(file), "w", zipfile.ZIP_DEFLATED) as writer,
    ):
        for name, data in FILES.items():
            writer.writestr(name, data)
    assert read(tmp_path / "a.zip") == expected(FILES)
    plain = archive(tmp_path / "b.zip").read_bytes()
    (tmp_path / "b.zip").write_bytes(b"#!/bin/sh\n" * 99 + plain + b"trailing garbage")
    assert read(tmp_path / "b.zip") == expected(FILES)


def test_archives_in_64_bits_are_read(tmp_path: Path) -> None:
    """Read a member behind a hole of 5 GB, and sizes of 64 bits."""
    path = tmp_path / "big.zip"
    data = b"behind"
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 45, 0, 0, 0, 0, zlib.crc32(data), len(data), len(data), 5, 0) + b"x.txt"
    at = 5_000_000_000
    extra = struct.pack("<2H3Q", 1, 24, len(data), len(data), at)
    full = 0xFFFFFFFF
    entry = struct.pack(
        "<4s6H3I5H2I", b"PK\1\2", 45, 45, 0, 0, 0, 0, zlib.crc32(data), full, full, 5, len(extra), 0, 0, 0, 0, full
    )
    entry += b"x.txt" + extra
    start = at + len(local) + len(data)
    end = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(entry), start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, start + len(entry), 1)
    with path.open("wb") as file:
        file.seek(at)
        file.write(local + data + entry + end + locator)
        file.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, full, full, 0))
    assert ZipDataset(path, index=None)[0] == {"__key__": "x", "txt": "behind"}
    many = archive(tmp_path / "many.zip", {f"{row}.txt": b"" for row in range(66_000)})
    assert len(ZipDataset(many)) == 66_000


def test_an_archive_of_infozip_is_read(tmp_path: Path) -> None:
    """Read what the program zip writes."""
    program = shutil.which("zip")
    if program is None:
        pytest.skip("the program zip is not installed")
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    subprocess.run([program, "-qr", "a.zip", "."], cwd=tmp_path, check=True)
    assert read(tmp_path / "a.zip") == expected(FILES)


def test_an_empty_archive_has_no_samples(tmp_path: Path) -> None:
    """Read archives of nothing, and of folders only."""
    archive(tmp_path / "a.zip", {})
    archive(tmp_path / "b.zip", {"folder/": b"", "__meta__/x.json": b"1"})
    assert ZipDataset(tmp_path).shard_lengths == [0, 0]


def patched(path: Path, place: int, data: bytes, *, entry: int = 0) -> Path:
    """Write over an entry of the directory."""
    whole = bytearray(path.read_bytes())
    at = -1
    for _ in range(entry + 1):
        at = whole.index(b"PK\1\2", at + 1)
    whole[at + place : at + place + len(data)] = data
    path.write_bytes(whole)
    return path


@pytest.mark.parametrize(
    ("place", "data", "words"),
    [
        (8, b"\1\0", r"member 'x\.txt' is encrypted.*without a password"),
        (10, b"\x0c\0", r"member 'x\.txt' is compressed by bzip2.*zip -0"),
        (10, b"\x63\0", "is compressed by method 99"),
        (38, struct.pack("<I", 0o120777 << 16), "is a symbolic link"),
        (24, struct.pack("<I", 9), "is stored, and has two sizes"),
        (24, struct.pack("<I", 0xFFFFFFFF), "has sizes of 64 bits that are missing"),
        (20, struct.pack("<2I", 10**9, 10**9), "no member begins at byte 0, or it is cut short"),
        (42, struct.pack("<I", 10**9), "members begin outside of the archive"),
        (42, struct.pack("<I", 4), "no member begins at byte 4"),
        (34, b"\1\0", "is in another file"),
        (28, b"\xff\xff", "no entry of its directory begins at byte"),
        (0, b"XX", "no entry of its directory begins at byte"),
    ],
)
def test_members_that_cannot_be_read_are_named(tmp_path: Path, place: int, data: bytes, words: str) -> None:
    """Name the member, and what to do; believe no size and no offset."""
    path = archive(tmp_path / "a.zip", {"x.txt": b"data"})
    with pytest.raises(BadFile, match=words):
        ZipDataset(patched(path, place, data))


@pytest.mark.parametrize(
    ("place", "data", "words"),
    [
        (4, b"\1\0", "it is one of several files of an archive.*zip -s 0"),
        (8, b"\xfe\xff\xfe\xff", "its directory claims 65,534 members"),
        (12, b"\xfe\xff\xff\xff", "its directory claims"),
        (16, b"\xfe\xff\xff\xff", "its directory claims"),
        (0, b"XX", "it is not a zip archive, or its end is missing"),
    ],
)
def test_an_end_that_is_wrong_is_an_error(tmp_path: Path, place: int, data: bytes, words: str) -> None:
    """Believe no count of members."""
    path = archive(tmp_path / "a.zip")
    whole = bytearray(path.read_bytes())
    whole[len(whole) - 22 + place : len(whole) - 22 + place + len(data)] = data
    path.write_bytes(whole)
    with pytest.raises(BadFile, match=words):
        ZipDataset(path)


def test_two_fields_of_one_name_are_an_error(tmp_path: Path) -> None:
    """Name the sample and the field, wherever the members are."""
    path = archive(tmp_path / "a.zip", {"0.jpg": b"1", "1.jpg": b"2", "0.JPG": b"3"})
    with pytest.raises(BadFile, match="sample '0' has two fields 'jpg'"):
        ZipDataset(path)


@pytest.mark.parametrize(
    ("place", "data", "words"),
    [
        (24, struct.pack("<I", 10**9 * 2), "has 2,000,000,000 bytes; expected at most"),
        (24, struct.pack("<I", 10**9), "it claims 1,000,000,000 bytes, and 12 deflated bytes give no more"),
        (24, struct.pack("<I", 99), "it claims 99 bytes, and gives more"),
        (24, struct.pack("<I", 101), "it claims 101 bytes, and gives others"),
        (16, b"\0\0\0\0", "its CRC-32 does not match"),
    ],
)
def test_a_bomb_is_an_error_of_its_sample(tmp_path: Path, place: int, data: bytes, words: str) -> None:
    """Inflate up to the size that the directory claims, and no further than the bytes can give."""
    path = archive(tmp_path / "a.zip", {"x.txt": b"x" * 100, "y.txt": b"y"}, zipfile.ZIP_DEFLATED)
    packed = len(zlib.compress(b"x" * 100, wbits=-15))
    dataset = ZipDataset(patched(path, place, data))
    with pytest.raises(SampleError, match=words.replace("12 deflated", f"{packed} deflated")) as caught:
        dataset[0]
    assert (caught.value.index, dataset[1]["txt"]) == (0, "y")
    broken = bytearray(archive(path, {"x.cls": b"7" * 9}, zipfile.ZIP_DEFLATED).read_bytes())
    broken[35] ^= 255
    path.write_bytes(broken)
    assert ZipDataset(path).labels is None
    with pytest.raises(SampleError, match="field 'cls': it"):
        ZipDataset(path)[0]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_archive_gives_an_error_or_values(tmp_path: Path, data: st.DataObject) -> None:
    """Cut archives short, flip bytes, claim 10^9 members: nothing else is raised."""
    how = data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    whole = archive(tmp_path / "a.zip", FILES | {"c.json": json.dumps({"a": 1}).encode()}, how).read_bytes()
    (tmp_path / "a.zip").write_bytes(damaged(data, whole))
    read_all(lambda: ZipDataset(tmp_path / "a.zip", index=None))


@given(st.binary(max_size=3000))
def test_deflated_bytes_come_back(data: bytes) -> None:
    """Inflate what was deflated."""
    packed = zlib.compress(data, wbits=-15)
    assert zips.inflated(packed, len(data), zlib.crc32(data)) == data
