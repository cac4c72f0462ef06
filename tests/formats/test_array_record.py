"""ArrayRecord files: what the library writes is read, in any process, and damage is an error."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.formats.damage import damaged, read_all
from tests.image_files import encoded, photo

from headrace import DataLoader
from headrace.datasets import ArrayRecordDataset, open_shards
from headrace.errors import BadFile, MissingFile, SampleError
from headrace.testing import DatasetTests

library = pytest.importorskip("array_record.python.array_record_module")

RECORDS = [b"", b"one", b"two" * 1000, *(struct.pack("<I", row) for row in range(3, 9))]


def write(path: Path, records: list[bytes], options: str = "group_size:1") -> Path:
    writer = library.ArrayRecordWriter(str(path), options)
    for record in records:
        writer.write(record)
    writer.close()
    return path


class TestArrayRecordDataset(DatasetTests):
    """The suite of datasets, on two files."""

    @pytest.fixture(autouse=True)
    def files(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "shards"
        self.folder.mkdir()
        for number in range(2):
            rows = range(number * 5, number * 5 + 5)
            write(self.folder / f"{number}.array_record", [struct.pack("<I", row) for row in rows])

    def make(self) -> ArrayRecordDataset:
        return ArrayRecordDataset(self.folder, decoders={"record": _number})


@pytest.mark.parametrize("options", ["group_size:1", "group_size:4,uncompressed", "group_size:64,brotli:5", "zstd:9"])
def test_records_are_those_that_were_written(tmp_path: Path, options: str) -> None:
    """Read each record, in any order, compressed or not; find the format by its bytes."""
    write(tmp_path / "a.array_record-00000-of-00002", RECORDS, options)
    write(tmp_path / "a.array_record-00001-of-00002", RECORDS[:2], options)
    dataset = ArrayRecordDataset(tmp_path)
    assert [dataset.read(row, "record") for row in reversed(range(11))] == [*RECORDS[1::-1], *RECORDS[::-1]]
    assert (dataset.shard_lengths, dataset.fields) == ([9, 2], ["record"])
    assert dataset[10] == {"__key__": "1", "record": b"one"}
    assert dataset.where(10).endswith("a.array_record-00001-of-00002: 1")
    (tmp_path / "a.array_record-00000-of-00002").rename(tmp_path / "b.bin")
    assert isinstance(open_shards(tmp_path / "b.bin"), ArrayRecordDataset)
    assert isinstance(open_shards(tmp_path), ArrayRecordDataset)


def test_a_decoder_reads_images(tmp_path: Path) -> None:
    """Decode records that are images."""
    path = write(tmp_path / "a.array_record", [encoded(photo(row, 30, 40)) for row in range(3)])
    assert ArrayRecordDataset(path, decoders={"record": "jpg"}).tuple("record")[2][0].shape == (30, 40, 3)
    with pytest.raises(SampleError, match="field 'record' cannot be decoded") as caught:
        ArrayRecordDataset(path, decoders={"record": "json"})[1]
    assert caught.value.index == 1


def test_workers_open_the_files_themselves(tmp_path: Path) -> None:
    """Read in forked processes after the parent has read, in threads, and from a pickled copy."""
    write(tmp_path / "a.array_record", [struct.pack("<I", row) for row in range(12)])
    dataset = ArrayRecordDataset(tmp_path, decoders={"record": _number})
    assert dataset[3]["record"] == 3
    assert pickle.loads(pickle.dumps(dataset))[4]["record"] == 4
    numbers = dataset.tuple("record")
    for options in ({"backend": "threads"}, {"backend": "processes", "multiprocessing_context": "fork"}):
        loader = DataLoader(numbers, 4, num_workers=2, **options)
        assert [batch[0].tolist() for batch in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def _number(data: bytes) -> int:
    return int(struct.unpack("<I", data)[0])


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """Raise for what is not there, what is another format, and what changes after it was opened."""
    with pytest.raises(MissingFile):
        ArrayRecordDataset(tmp_path / "none.array_record")
    (tmp_path / "b.array_record").write_bytes(b"text" * 9)
    with pytest.raises(BadFile, match=r"b\.array_record: it is not an ArrayRecord file, or damaged"):
        ArrayRecordDataset(tmp_path / "b.array_record")
    path = write(tmp_path / "a.array_record", RECORDS)
    dataset = ArrayRecordDataset(path)
    assert dataset[1]["record"] == b"one"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(BadFile, match=r"cannot be read: the file has [\d,]+ bytes"):
        dataset[1]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_gives_an_error_or_true_records(tmp_path: Path, data: st.DataObject) -> None:
    """Cut files short and flip bytes where something is written: checksums find it."""
    whole = write(tmp_path / "a.array_record", RECORDS, "group_size:4").read_bytes()
    head = whole.rstrip(b"\0")[:400]
    path = tmp_path / "damaged.array_record"
    path.write_bytes(damaged(data, head) + whole[len(head) :])
    read_all(lambda: ArrayRecordDataset(path))
