"""LitData chunks: what litdata's own writer wrote is read as its reader reads it, and damage is an error."""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.formats.damage import damaged, read_all
from tests.formats.fixtures import HERE, plain
from tests.formats.writers import write_litdata

from headrace.datasets import LitDataset
from headrace.errors import ArgumentError, BadFile, MissingFile, SampleError
from headrace.formats.nested import nested

PAIRS = {"label": "int", "text": "str"}
ITEMS = [[struct.pack("<q", row), b"text" * row] for row in range(4)]


def leaves(value: Any, name: str = "") -> dict[str, Any]:
    """Return the leaves of an item by the keys that lead to them; those of JSON too."""
    if not isinstance(value, dict | list):
        return {name: value}
    found = {}
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        found |= leaves(each, f"{name}.{key}" if name else str(key))
    return found


@pytest.mark.parametrize("name", ["litdata", "litdata_nested", "litdata_zstd"])
def test_samples_are_those_that_the_formats_own_reader_gives(name: str, tmp_path: Path) -> None:
    """Read every kind of leaf, nested items and tuples, and chunks compressed as a whole."""
    if name == "litdata_zstd":
        pytest.importorskip("zstandard")
    expected = json.loads((HERE / name / "expected.json").read_text())
    dataset = LitDataset(HERE / name, index=tmp_path, cache=tmp_path)
    found = [{key: plain(value) for key, value in sample.items() if key != "__key__"} for sample in dataset]
    assert [leaves(sample) for sample in found] == [leaves(sample) for sample in expected]


def test_integers_are_known_with_the_index(tmp_path: Path) -> None:
    """Name chunk and item; index once, and again when index.json changes."""
    folder = write_litdata(tmp_path, PAIRS, [ITEMS[:3], ITEMS[3:]])
    for _ in range(2):
        dataset = LitDataset(folder)
        assert dataset.labels is not None
        assert (dataset.labels.tolist(), dataset.shard_lengths) == ([0, 1, 2, 3], [3, 1])
        assert dataset.where(3).endswith("chunk-0-1.bin: 0")
    assert len(list(folder.glob(".headrace-*.index"))) == 1
    text = (folder / "index.json").read_text()
    (folder / "index.json").write_text(text.replace('"str"', '"bytes"'))
    assert LitDataset(folder)[1]["text"] == b"text"


def test_pickled_leaves_are_refused_by_name(tmp_path: Path) -> None:
    """Unpickle nothing: leave the field out, or give its bytes."""
    folder = write_litdata(tmp_path, PAIRS | {"odd": "pickle"}, [[[*item, b"cos\n"] for item in ITEMS]])
    with pytest.raises(ArgumentError, match=r"field 'odd' holds pickle, and reading that can run any code"):
        LitDataset(folder)
    assert LitDataset(folder, fields=["text"])[1] == {"__key__": "1", "text": "text"}
    assert LitDataset(folder, decoders={"odd": None})[1]["odd"] == b"cos\n"


def test_chunks_that_have_no_leaves_are_refused_with_the_cure(tmp_path: Path) -> None:
    """Name what is not read: Arrow tables, tokens, encryption, items compressed one by one."""
    with pytest.raises(BadFile, match=r"its rows are in an Arrow table.*pyarrow is not installed"):
        LitDataset(HERE / "litdata_arrow", index=None)
    for config, words in (
        ({"item_loader": "TokensLoader"}, "written for TokensLoader"),
        ({"encryption": {"level": "sample"}}, "its chunks are encrypted"),
        ({"compression": "zstd", "compression_level": "batch"}, "compressed within their chunks"),
        ({"data_format": ["int", "graph:x", "y"]}, "data_spec has 2 leaves, its data_format 3"),
        ({"data_format": ["int", "other"]}, "field 'text' has the format 'other'"),
        ({"data_format": ["int", "no_header_numpy:14"]}, "'no_header_numpy:14'"),
        ({"data_format": ["int", "no_header_tensor:10"]}, "'no_header_tensor:10'"),
        ({"data_format": ["int", 3]}, "'data_format' has an item that is not a string"),
        ({"data_spec": "[1, 3]"}, "its data_spec is"),
        ({"data_spec": "[" * 100_000}, "its data_spec is"),
    ):
        with pytest.raises(BadFile, match=words):
            LitDataset(write_litdata(tmp_path, PAIRS, [ITEMS], **config))


def test_old_indexes_and_decompressed_chunks_are_read(tmp_path: Path) -> None:
    """Number the fields where no tree is given; take the chunk that litdata has decompressed."""
    folder = write_litdata(tmp_path, PAIRS, [ITEMS], data_spec=None, compression="zstd")
    text = (folder / "index.json").read_text()
    (folder / "index.json").write_text(text.replace("chunk-0-0.bin", "chunk-0-0.zstd.bin"))
    assert LitDataset(folder)[1] == {"__key__": "1", "0": 1, "1": "text"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"chunk_size": 10**9}, "it has 112 bytes, and 1,000,000,000 samples by index.json"),
        ({"chunk_size": -1}, "a chunk has -1 items"),
        ({"chunk_size": 3}, "it begins with a count of 4 samples"),
        ({"filename": "../chunk-0-0.bin"}, "is outside of the folder"),
        ({"filename": "https://other/chunk-0-0.bin"}, "is outside of the folder"),
        ({"filename": 7}, "'filename' is '7'"),
    ],
)
def test_an_index_json_that_is_wrong_is_an_error(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    """Believe no count and no path."""
    folder = write_litdata(tmp_path, PAIRS, [ITEMS])
    index = json.loads((folder / "index.json").read_text())
    index["chunks"][0] |= change
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(BadFile, match=words):
        LitDataset(folder)
    (folder / "index.json").unlink()
    with pytest.raises(MissingFile, match=r"index\.json"):
        LitDataset(folder)


@pytest.mark.parametrize(
    ("form", "data", "words"),
    [
        ("int", b"7", "int64 has 8 bytes, not 1"),
        ("float", b"", "float64 has 8 bytes, not 0"),
        ("bool", b"12", "uint8 has 1 bytes, not 2"),
        ("numpy", b"", "cannot be decoded"),
        ("numpy", struct.pack("<3I", 3, 1, 10**9), "it claims the shape"),
        ("numpy", struct.pack("<2I", 3, 10**9), "it claims 1,000,000,000 axes"),
        ("numpy", struct.pack("<2I", 14, 0) + bytes(8), "axes of the dtype 14"),
        ("tensor", struct.pack(">3I", 17, 1, 2) + bytes(8), "it claims the shape"),
        ("tensor", struct.pack(">2I", 10, 0) + bytes(2), "axes of the dtype 10"),
        ("no_header_numpy:3", bytes(9), "it claims the shape"),
        ("jpeg_array", struct.pack("<I", 10**9), "it claims 1,000,000,000 images"),
        ("json", b"", "cannot be decoded"),
        ("json", b"\x0c", "has the tag 12"),
        ("json", b"\x01\xff\xff\xff\xff", "it claims 4,294,967,295 values"),
        ("json", b"\x06\x02\0\0\0\0\0\0\0", "it claims 2"),
        ("json", b"\x05\x01\0\0\0\0\0\0\0" * 5000, "cannot be decoded"),
        ("json", b"\x0a\x01\x01", "1 bytes follow its value"),
        ("json", b"\x08\x01", "it ends within a value"),
    ],
)
def test_a_value_that_is_none_of_its_format_names_the_sample(
    tmp_path: Path, form: str, data: bytes, words: str
) -> None:
    """Raise a SampleError that `on_error` can skip, and take no memory for false counts."""
    folder = write_litdata(tmp_path, {"x": form}, [[[data]]])
    with pytest.raises(SampleError, match=words) as caught:
        LitDataset(folder)[0]
    assert (caught.value.index, caught.value.path) == (0, f"{folder / 'chunk-0-0.bin'}: 0")


def test_complex_numbers_booleans_and_scalars_are_arrays(tmp_path: Path) -> None:
    """Read arrays without axes, and dtypes that are rare."""
    values = {"numpy": struct.pack("<2IB", 13, 0, 1), "no_header_tensor:4": struct.pack("<2f", 1, 2)}
    folder = write_litdata(tmp_path, {form: form for form in values}, [[list(values.values())]])
    sample = LitDataset(folder)[0]
    assert (sample["numpy"].shape, bool(sample["numpy"])) == ((), True)
    assert sample["no_header_tensor:4"].tolist() == [1 + 2j]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_chunk_gives_an_error_or_values(tmp_path: Path, data: st.DataObject) -> None:
    """Cut chunks short, flip bytes, claim 10^9 items: nothing else is raised."""
    source = HERE / data.draw(st.sampled_from(["litdata", "litdata_nested"]))
    folder = tmp_path / source.name
    if not folder.exists():
        shutil.copytree(source, folder)
    for name in ("chunk-0-0.bin", "index.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    name = data.draw(st.sampled_from(["chunk-0-0.bin", "index.json"]))
    (folder / name).write_bytes(damaged(data, (source / name).read_bytes()))
    read_all(lambda: LitDataset(folder, index=None))


@settings(max_examples=300)
@given(data=st.data())
def test_damaged_lists_give_an_error_or_values(data: st.DataObject) -> None:
    """Read nested values of damaged bytes: ValueError, or a value."""
    whole = bytes.fromhex(
        "05020000000100000061020200000001000000000000000200000000000000010000006201010000000100000078"
    )
    assert nested(whole) == {"a": [1, 2], "b": ["x"]}
    with contextlib.suppress(ValueError, RecursionError):
        nested(damaged(data, whole))
