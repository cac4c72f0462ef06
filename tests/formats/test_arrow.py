"""Arrow files: what Hugging Face's `datasets` and pyarrow wrote is read as they read it, and damage is an error."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.formats.damage import damaged, read_all
from tests.formats.fixtures import HERE, plain

from headrace import DataLoader
from headrace.datasets import ArrowDataset
from headrace.errors import ArgumentError, BadFile, HeadraceError, MissingFile, SampleError
from headrace.formats import arrow
from headrace.formats.arrow_values import decompressed

SAVED = HERE / "arrow"
STREAM, FEATHER = SAVED / "data-00000-of-00002.arrow", SAVED / "plain.feather"


def python(value: Any) -> Any:
    """Return a value as Python's own objects; images stay arrays."""
    if isinstance(value, dict):
        return {key: python(each) for key, each in value.items()}
    if isinstance(value, list):
        return [python(each) for each in value]
    if isinstance(value, np.ndarray):
        return value if value.ndim == 3 else value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def test_samples_are_those_that_the_formats_own_reader_gives() -> None:
    """Read the files that state.json names, not the cache of indices beside them: all types, with null."""
    dataset = ArrowDataset(SAVED)
    expected = json.loads((SAVED / "expected.json").read_text())
    found = [{key: plain(python(value)) for key, value in sample.items() if key != "__key__"} for sample in dataset]
    assert found == expected
    assert dataset.shard_lengths == [3, 3]
    assert dataset.where(4) == f"{SAVED / 'data-00001-of-00002.arrow'}: 1"


def test_numbers_keep_their_dtype_and_arrays_their_shape() -> None:
    """Give NumPy's floats, arrays of numbers, and times; integers are Python's."""
    sample = ArrowDataset(SAVED)[5]
    assert (sample["float"].dtype, sample["ids"].dtype, sample["array"].dtype) == (np.float32, np.int32, np.int16)
    assert sample["array"].shape == (2, 2)
    assert type(sample["label"]) is int
    assert sample["day"] == np.datetime64("2026-01-06")
    sample["ids"][:] = 7  # a copy that belongs to the sample


def test_labels_are_known_of_integers_without_null() -> None:
    """Know the one integer column; one with null is no label."""
    assert ArrowDataset(SAVED, fields=["label", "text"]).labels.tolist() == [0, 1, 2, 0, 1, 2]  # type: ignore[union-attr]
    assert ArrowDataset(SAVED, fields=["null"]).labels is None
    assert ArrowDataset(SAVED).tuple("image", "label").classes == ["a", "b", "c"]
    assert ArrowDataset(SAVED, fields=["text"]).classes == []
    assert ArrowDataset(FEATHER, fields=["n"])[1] == {"__key__": "1", "n": None}


def test_files_of_feather_are_read() -> None:
    """Read the file format by its footer, in two batches."""
    assert [sample["text"] for sample in ArrowDataset(FEATHER)] == ["a", "bc", None]


def test_bytes_are_read_and_decoded_as_decoders_say() -> None:
    """Give the bytes of images, audio and text; read a column of bytes by a function, or as nothing."""
    dataset = ArrowDataset(SAVED, decoders={"image": None, "data": len, "text": bytes.upper})
    assert dataset[2]["image"][:4] == b"\x89PNG"
    assert (dataset[2]["data"], dataset[1]["text"]) == (2, "é".encode().upper())
    assert dataset.read(2, "text") == "éé".encode()
    with pytest.raises(SampleError, match="'large' is null"):
        dataset.read(2, "large")
    with pytest.raises(ArgumentError, match="no bytes"):
        dataset.read(2, "ids")
    with pytest.raises(ArgumentError, match="ids"):
        ArrowDataset(SAVED, decoders={"ids": len})


def test_compressed_batches_are_read_by_pyarrow(tmp_path: Path) -> None:
    """Decompress lz4 and zstd, null, text and lists; images are then decoded one by one."""
    pa = pytest.importorskip("pyarrow")
    dataset = ArrowDataset(SAVED / "packed.feather")
    assert [python(sample["n"]) for sample in dataset] == [1, None, 3]
    assert [sample["text"] for sample in dataset] == ["a", "bc", None]
    with pa.OSFile(str(STREAM)) as file:
        table = pa.ipc.open_stream(file).read_all()
    for codec in ("lz4", "zstd"):
        options = pa.ipc.IpcWriteOptions(compression=codec)
        with pa.ipc.new_stream(str(tmp_path / "a.arrow"), table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=2)
        packed = ArrowDataset(tmp_path / "a.arrow")
        for ours, theirs in zip(packed, ArrowDataset(STREAM), strict=True):
            assert plain(python(ours)) == plain(python(theirs))
        assert packed.tuple("image", "label").native_source() is None
        assert packed.tuple("image", "label")[1][1] == 1


def test_damaged_compressed_buffers_are_refused() -> None:
    """Refuse a size that is too large, and data that is none."""
    assert decompressed(struct.pack("<q", -1) + b"abc", "lz4") == b"abc"
    with pytest.raises(ValueError, match="claims"):
        decompressed(struct.pack("<q", 10**12) + b"abc", "lz4")
    pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match="cannot be decompressed"):
        decompressed(struct.pack("<q", 10) + b"abc", "zstd")


def test_columns_must_agree_in_all_files() -> None:
    """Name the file and the column."""
    with pytest.raises(BadFile, match=r"plain.feather: column .* no such column"):
        ArrowDataset([STREAM, FEATHER])


def test_names_in_state_json_stay_in_the_folder(tmp_path: Path) -> None:
    """Refuse a listing that leads elsewhere."""
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": str(STREAM)}]}))
    with pytest.raises(BadFile, match="outside of the folder"):
        ArrowDataset(tmp_path)
    (tmp_path / "state.json").unlink()
    with pytest.raises(MissingFile, match=r"\.arrow"):
        ArrowDataset(tmp_path)


@pytest.mark.parametrize("change", ["cut", "replace", "touch", "remove"])
def test_a_file_that_changes_is_an_error(change: str, tmp_path: Path) -> None:
    """Raise an error with the path, from Python and from the native extension."""
    path = Path(shutil.copy(STREAM, tmp_path / "a.arrow"))
    dataset = ArrowDataset(path)
    images = dataset.tuple("image", "label")
    sent = pickle.dumps(images)
    if change == "cut":
        os.truncate(path, 2000)
    elif change == "replace":
        path.write_bytes(path.read_bytes() + b"more")
    elif change == "touch":
        os.utime(path, ns=(1, 1))
    else:
        path.unlink()
    copy = pickle.loads(sent)
    for read in (lambda: copy[1], lambda: dataset[1], lambda: next(iter(DataLoader(images, 2)))):
        with pytest.raises(HeadraceError, match=r"a\.arrow"):
            read()


@pytest.mark.parametrize("whole", [STREAM, FEATHER], ids=["stream", "file"])
def test_a_file_that_is_cut_short_is_an_error(whole: Path, tmp_path: Path) -> None:
    """Refuse a file without its end, wherever it was cut."""
    data, path = whole.read_bytes(), tmp_path / "a.arrow"
    for size in [*range(0, len(data) - 8, 97), len(data) - 8, len(data) - 1]:
        path.write_bytes(data[:size])
        with pytest.raises(BadFile):
            ArrowDataset(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from([STREAM, FEATHER, SAVED / "packed.feather"]))
def test_damage_is_an_error_and_never_a_crash(tmp_path: Path, data: st.DataObject, whole: Path) -> None:
    """Read files with flipped bytes and false sizes: other values, or an error of ours."""
    path = tmp_path / "a.arrow"
    path.write_bytes(damaged(data, whole.read_bytes()))
    read_all(lambda: ArrowDataset(path))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    """Refuse text, zeros, and nothing at all."""
    path = tmp_path / "a.arrow"
    for data in (b"", b"hello, this is no Arrow file at all", bytes(100), b"ARROW1\0\0" + bytes(50), b"\xff" * 64):
        path.write_bytes(data)
        with pytest.raises(BadFile):
            ArrowDataset(path)


def test_images_in_files_of_their_own_need_trust(tmp_path: Path) -> None:
    """Refuse to follow paths in an Arrow file unless asked to; then the native extension reads the files."""
    pa = pytest.importorskip("pyarrow")
    image = ArrowDataset(SAVED).read(1, "image")
    (tmp_path / "1.png").write_bytes(image)
    file = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {"info": {"features": {"image": {"_type": "Image"}}}}
    schema = pa.schema([("image", file)], metadata={"huggingface": json.dumps(features)})
    rows = [{"bytes": None, "path": str(tmp_path / "1.png")}] * 5
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), schema) as writer:
        writer.write_table(pa.table([pa.array(rows, file)], schema))
    with pytest.raises(SampleError, match="follow_paths=True"):
        ArrowDataset(tmp_path / "a.arrow")[0]
    dataset = ArrowDataset(tmp_path / "a.arrow", follow_paths=True)
    assert dataset[4]["image"].shape == (9, 12, 3)
    assert type(dataset.tuple("image").native_source()).__name__ == "Files"


def test_all_types_are_read_as_pyarrow_reads_them(tmp_path: Path) -> None:
    """Compare every row of every type, with and without null, of slices too; refuse types that are not read."""
    pa = pytest.importorskip("pyarrow")
    rows = range(20)
    columns = {
        f"{kind}{' null' * gaps}": pa.array([None if gaps and row % 3 == 0 else row for row in rows]).cast(kind)
        for kind in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")
        for gaps in (False, True)
    } | {
        "bool": pa.array([None if row % 7 == 0 else row % 2 == 0 for row in rows]),
        "large": pa.array([bytes([row]) * row for row in rows], pa.large_binary()),
        "fixed": pa.array([bytes([row]) * 3 for row in rows], pa.binary(3)),
        "lists": pa.array([[[1] * n for n in range(row % 4)] if row % 5 else None for row in rows]),
        "large lists": pa.array([[str(row)] * (row % 3) for row in rows], pa.large_list(pa.string())),
        "triples": pa.array([[row, None, 0] if row % 2 else None for row in rows], pa.list_(pa.float32(), 3)),
        "struct": pa.array([{"a": row, "b": {"c": [None] * (row % 3)}} if row % 4 else None for row in rows]),
        "structs": pa.array([[{"a": n} for n in range(row % 3)] for row in rows]),
        "nothing": pa.nulls(len(rows)),
    }
    unread = {
        "decimal": pa.array([None] * len(rows), pa.decimal128(9, 2)),
        "map": pa.array([[("a", 1)]] * len(rows), pa.map_(pa.string(), pa.int8())),
        "words": pa.array(["a"] * len(rows)).dictionary_encode(),
        "runs": pa.RunEndEncodedArray.from_arrays(pa.array([len(rows)], pa.int32()), pa.array([7])),
        "last": pa.array(rows),
    }
    table = pa.table(columns | unread)
    for kind in (pa.ipc.new_stream, pa.ipc.new_file):
        with kind(str(tmp_path / "a.arrow"), table.schema) as writer:
            writer.write_table(table.slice(3), max_chunksize=6)
        dataset = ArrowDataset(tmp_path / "a.arrow", fields=[*columns, "last"])
        expected = table.slice(3).select([*columns, "last"]).to_pylist()
        assert [python({**sample, "__key__": "0"}) for sample in dataset] == [
            {"__key__": "0", **row} for row in expected
        ]
        for name in list(unread)[:-1]:
            with pytest.raises(ArgumentError, match=f"'{name}' holds .*, which is not read"):
                ArrowDataset(tmp_path / "a.arrow", fields=[name])


def test_schemas_that_never_end_are_refused() -> None:
    """Stop at a depth, as a damaged schema may contain itself."""
    with pytest.raises(ValueError, match="nested too deeply"):
        arrow._field(_Endless(), [arrow.MOST_FIELDS], 0)


class _Endless(arrow.Table):
    """A field that is its own child."""

    def __init__(self) -> None:
        super().__init__(bytes([8, 0, 0, 0, 4, 0, 4, 0, 4, 0, 0, 0]), 8)

    def tables(self, field: int) -> list[arrow.Table]:
        return [self]


def test_false_offsets_are_an_error(tmp_path: Path) -> None:
    """Refuse offsets that do not ascend, or lead out of a buffer, in text, images and lists."""
    pa = pytest.importorskip("pyarrow")
    right, path = np.array([0, 1, 2, 4], np.int32).tobytes(), tmp_path / "a.arrow"
    file = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {"info": {"features": {"image": {"_type": "Image"}}}}
    types = {"text": pa.string(), "image": file, "lists": pa.list_(pa.int8())}
    schema = pa.schema(types, metadata={"huggingface": json.dumps(features)})
    images = pa.array([{"bytes": data} for data in (b"a", b"b", b"cd")], file)
    with pa.ipc.new_stream(str(path), schema) as writer:
        lists = pa.array([[1], [2], [3, 4]], types["lists"])
        writer.write_table(pa.table([pa.array(["a", "b", "cd"]), images, lists], schema))
    whole = path.read_bytes()
    assert whole.count(right) == 3
    for offsets in ([0, 3, 1, 4], [-4, 0, 2, 4], [0, 2, 4, 999]):
        path.write_bytes(whole.replace(right, np.array(offsets, np.int32).tobytes()))
        dataset = ArrowDataset(path, decoders={"image": None})
        for name in ("text", "image", "lists"):
            with pytest.raises(BadFile, match=rf"a\.arrow: [012]: field '{name}' cannot be read"):
                list(dataset.tuple(name))
        with pytest.raises(BadFile, match="'image'"):
            ArrowDataset(path).tuple("image")


def test_metadata_that_is_no_json_is_passed_over(tmp_path: Path) -> None:
    """Read a file whose features are damaged, as one without them."""
    pa = pytest.importorskip("pyarrow")
    for text in ("{", "[]", '{"info": 1}', '{"info": {"features": []}}'):
        schema = pa.schema({"n": pa.int64()}, {"huggingface": text})
        with pa.ipc.new_stream(str(tmp_path / "a.arrow"), schema) as writer:
            writer.write_table(pa.table({"n": [1]}).cast(schema))
        assert ArrowDataset(tmp_path / "a.arrow")[0]["n"] == 1
