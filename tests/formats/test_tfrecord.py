"""TFRecord files: what another writer wrote is read as protobuf reads it, and damage is an error."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.formats.damage import damaged, read_all
from tests.formats.fixtures import HERE, plain
from tests.formats.writers import example, feature, part, varint, write_tfrecord

from headrace.datasets import TFRecordDataset
from headrace.errors import BadFile, MissingFile, SampleError
from headrace.formats import tfrecord


def as_list(value: Any) -> list[Any]:
    """Return the values of a feature, as protobuf has them."""
    if isinstance(value, np.ndarray) and value.dtype == np.int64:
        return value.tolist()
    return list(value) if isinstance(value, list | np.ndarray) else [value]


def test_samples_are_those_that_protobuf_reads(tmp_path: Path) -> None:
    """Read features of one value, of several, of none, and those that only some records have."""
    dataset = TFRecordDataset(HERE / "tfrecord", index=tmp_path, decoders={"image/encoded": None})
    found = [{name: plain(as_list(value)) for name, value in sample.items() if name != "__key__"} for sample in dataset]
    expected = json.loads((HERE / "tfrecord" / "expected.json").read_text())
    assert found == expected
    assert dataset.shard_lengths == [3, 3]


def test_a_field_has_one_type_in_all_samples(tmp_path: Path) -> None:
    """Give numbers where each sample has one, and arrays and lists where any sample has more or none."""
    rows = [
        {"n": feature([5]), "x": feature([0.5]), "t": feature([b"a"]), "ns": feature([1]), "xs": feature([1.5])},
        {
            "n": feature([-1]),
            "x": feature([1.0]),
            "t": feature([b""]),
            "ns": feature([2, 3]),
            "xs": feature([1.0, 2.0]),
        },
    ]
    rows[0]["ts"], rows[1]["ts"] = feature([b"a"]), feature([b"b", b""])
    write_tfrecord(tmp_path / "a.tfrecord", [example(row) for row in rows[:1]])
    write_tfrecord(tmp_path / "b.tfrecord", [example(row) for row in rows[1:]])
    for dataset in (TFRecordDataset(tmp_path), TFRecordDataset(tmp_path)):
        first, second = dataset
        assert (first["n"], second["n"], first["t"], second["t"], second["x"]) == (5, -1, b"a", b"", 1.0)
        assert (type(first["n"]), type(first["x"])) == (int, np.float32)
        assert (first["ns"].tolist(), second["ns"].tolist(), first["ns"].dtype) == ([1], [2, 3], np.int64)
        assert (first["xs"].tolist(), second["xs"].tolist(), first["xs"].dtype) == ([1.5], [1.0, 2.0], np.float32)
        assert (first["ts"], second["ts"]) == ([b"a"], [b"b", b""])
        assert dataset.labels is not None
        assert dataset.labels.tolist() == [5, -1]
        assert dataset.read(1, "ts") == part(1, b"b") + part(1, b"")


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("values", [[0], [-1], [2**63 - 1], [-(2**63)], [1, 300, -5] * 50, [0.5], [1.5, -2.0] * 9])
def test_lists_are_read_packed_or_not(tmp_path: Path, packed: bool, values: list[Any]) -> None:
    """Read both ways in which protobuf writes repeated numbers."""
    record = example({"v": feature(values, packed), "one": feature([b"x"])})
    sample = TFRecordDataset(write_tfrecord(tmp_path / "a.tfrecord", [record]))[0]
    assert [value.item() if isinstance(value, np.generic) else value for value in as_list(sample["v"])] == values


def test_images_may_be_lists_and_decoders_are_asked_for_each_value(tmp_path: Path) -> None:
    """Apply a decoder to each value of bytes, and to all of a list of numbers."""
    record = example({"names": feature([b"a", b"b"]), "ids": feature([1, 2])})
    path = write_tfrecord(tmp_path / "a.tfrecord", [record])
    sample = TFRecordDataset(path, decoders={"names": bytes.decode, "ids": None})[0]
    assert sample == {"__key__": "0", "names": ["a", "b"], "ids": part(1, b"\1\2")}
    with pytest.raises(SampleError, match=r"sample 0 .*a\.tfrecord: 0.*of text"):
        TFRecordDataset(path, decoders={"names": "jpg"})[0]


def test_records_that_are_no_examples_are_read_by_a_function(tmp_path: Path) -> None:
    """Refuse them by default, and say how to read them."""
    path = write_tfrecord(tmp_path / "a.tfrecord", [b"one", b"", b"three"])
    with pytest.raises(BadFile, match=r"record 0 at byte 12 cannot be read.*Pass features=False"):
        TFRecordDataset(path)
    dataset = TFRecordDataset(path, features=False, decoders={"record": bytes.decode})
    assert [sample["record"] for sample in dataset] == ["one", "", "three"]
    sequence = part(1, b"") + part(2, b"")
    with pytest.raises(BadFile, match="it is a SequenceExample"):
        TFRecordDataset(write_tfrecord(tmp_path / "b.tfrecord", [sequence]))


def test_empty_files_and_empty_examples_are_read(tmp_path: Path) -> None:
    """Read a file without records, an Example without features, and a feature without a list."""
    write_tfrecord(tmp_path / "a.tfrecord", [])
    write_tfrecord(tmp_path / "b.tfrecord", [b"", example({"x": b""}), example({"x": feature([1])})])
    dataset = TFRecordDataset(tmp_path)
    assert dataset.shard_lengths == [0, 3]
    assert list(dataset) == [{"__key__": "0"}, {"__key__": "1"}, {"__key__": "2", "x": 1}]
    assert dataset.labels is None
    with pytest.raises(SampleError, match="it has no field 'x'"):
        dataset.tuple("x")[0]


def test_files_of_a_folder_are_found_by_name(tmp_path: Path) -> None:
    """Take both suffixes, and the numbers that TensorFlow Datasets adds; nothing else."""
    names = ["a.tfrecord", "b.tfrecords", "c.tfrecord-00000-of-00002", "d.tfrecord.gz", "e.txt"]
    for name in names:
        write_tfrecord(tmp_path / name, [b""])
    assert [Path(path).name for path in TFRecordDataset(tmp_path).shards] == names[:3]
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFile, match=r"it has no \.tfrecord or \.tfrecords files"):
        TFRecordDataset(tmp_path / "empty")


@pytest.mark.parametrize(("compress", "name"), [(gzip.compress, "gzip"), (zlib.compress, "zlib")])
def test_compressed_files_are_refused_with_the_cure(tmp_path: Path, compress: Any, name: str) -> None:
    """Say how it is compressed, and to decompress it."""
    path = write_tfrecord(tmp_path / "a.tfrecord", [b"x" * 99])
    path.write_bytes(compress(path.read_bytes()))
    with pytest.raises(BadFile, match=f"it is compressed with {name}.*Decompress it first"):
        TFRecordDataset(path)


def test_checksums_of_lengths_and_data_are_checked(tmp_path: Path) -> None:
    """Notice each flipped byte; those of data with verify=True only, which is the default."""
    path = write_tfrecord(tmp_path / "a.tfrecord", [example({"x": feature([b"abcdefgh"])})] * 2)
    whole = path.read_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 16
        path.write_bytes(flipped)
        with pytest.raises(BadFile, match=r"a\.tfrecord: .*byte \d+"):
            TFRecordDataset(path, index=None)
    flipped = bytearray(whole)
    flipped[-5] ^= 16
    path.write_bytes(flipped)
    assert len(TFRecordDataset(path, verify=False)) == 2
    with pytest.raises(BadFile, match="the checksum of record 1"):
        TFRecordDataset(path)


def huge(size: int) -> bytes:
    head = struct.pack("<Q", size)
    return head + struct.pack("<I", tfrecord.masked(head)) + bytes(100)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no record at all", "it is not a TFRecord file: no record begins at byte 0"),
        (b"short", "it ends in the middle of an entry"),
        (huge(10**9), "has 1,000,000,000 bytes; 96 are left"),
        (huge(2**64 - 1), "bytes; 96 are left"),
        (huge(97), "the record at byte 0 has 97 bytes; 96 are left"),
    ],
)
def test_damage_is_an_error_that_says_where(tmp_path: Path, data: bytes, words: str) -> None:
    """Name the file and the byte, and read nothing for a false length."""
    (tmp_path / "a.tfrecord").write_bytes(data)
    with pytest.raises(BadFile, match=words):
        TFRecordDataset(tmp_path / "a.tfrecord")


ENTRY = part(1, b"x") + part(2, feature([1]))


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (part(3, b""), "it is not a tf.train.Example"),
        (part(1, part(2, b"")), "it is not a tf.train.Example"),
        (part(1, part(1, part(3, b""))), "it is not a tf.train.Example"),
        (part(1, part(1, ENTRY) * 2), "it has two features 'x'"),
        (part(1, part(1, ENTRY + part(2, feature([2])))), "it is not a tf.train.Example"),
        (example({"x": feature([1]) * 2}), "not a list of bytes, floats or integers"),
        (example({"x": part(4, b"")}), "not a list of bytes, floats or integers"),
        (example({"x": part(2, part(1, b"abc"))}), "a float_list of 3 bytes"),
        (example({"x": part(3, part(1, b"\xff"))}), "ends within a number"),
        (example({"x": part(1, b"\x08\x01")}), "it has a value in its bytes of another type"),
        (example({"x\0y": feature([1])}), "zero byte"),
        (b"\x0a\x7f", "ends after its message"),
        (b"\xff" * 12, "a number without an end"),
        (b"\x0b", "wire type 3"),
        (part(1, part(1, part(1, b"\xff") + part(2, b""))), "cannot be read"),
    ],
)
def test_a_record_that_is_no_example_names_its_place(tmp_path: Path, record: bytes, words: str) -> None:
    """Raise BadFile with the number of the record and its byte."""
    path = write_tfrecord(tmp_path / "a.tfrecord", [example({"y": feature([1])}), record])
    with pytest.raises(BadFile, match=f"record 1 at byte .*{words}"):
        TFRecordDataset(path)


def test_features_that_change_their_kind_are_an_error(tmp_path: Path) -> None:
    """Say so within a file and between files."""
    numbers, texts = example({"x": feature([1])}), example({"x": feature([b"1"])})
    write_tfrecord(tmp_path / "a.tfrecord", [numbers, texts])
    with pytest.raises(BadFile, match="its feature 'x' holds bytes, and int64_list before"):
        TFRecordDataset(tmp_path)
    write_tfrecord(tmp_path / "a.tfrecord", [numbers])
    write_tfrecord(tmp_path / "b.tfrecord", [texts])
    with pytest.raises(BadFile, match=r"b\.tfrecord: field 'x' holds bytes, and int64_list in shards before"):
        TFRecordDataset(tmp_path)


def test_a_number_without_an_end_in_a_list_is_an_error_of_the_sample(tmp_path: Path) -> None:
    """Raise a SampleError that names it, as for any field that cannot be decoded."""
    path = write_tfrecord(tmp_path / "a.tfrecord", [example({"x": part(3, part(1, b"\xff" * 11 + b"\1"))})])
    with pytest.raises(SampleError, match=r"sample 0 .*more than 64 bits"):
        TFRecordDataset(path)[0]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_records_give_an_error_or_values(tmp_path: Path, data: st.DataObject) -> None:
    """Damage the file, and records with right checksums: nothing but errors of ours is raised."""
    row = example({"a": feature([b"x", b"y"]), "b": feature([1, 2**40]), "c": feature([0.5, 1.5]), "d": feature([7])})
    if data.draw(st.booleans()):
        write_tfrecord(tmp_path / "a.tfrecord", [row, damaged(data, row), row])
    else:
        path = write_tfrecord(tmp_path / "a.tfrecord", [row] * 3)
        path.write_bytes(damaged(data, path.read_bytes()))
    verify = data.draw(st.booleans())
    read_all(lambda: TFRecordDataset(tmp_path / "a.tfrecord", index=None, verify=verify))


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_integers_come_back(values: list[int]) -> None:
    """Read all varints of a list at once, as one by one."""
    packed = b"".join(map(varint, values))
    assert tfrecord.integers(part(1, packed)).tolist() == values
    assert [tfrecord.integer(varint(value)) for value in values] == values
