"""MDS shards: what Mosaic's own writer wrote is read as its reader reads it, and damage is an error."""

from __future__ import annotations

import bz2
import json
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
from tests.formats.writers import write_mds

from headrace.datasets import MDSDataset
from headrace.errors import ArgumentError, BadFile, MissingDependency, MissingFile, SampleError

PAIRS = [("label", "int", 8), ("text", "str", None)]
SAMPLES = [[struct.pack("<q", row), b"text" * row] for row in range(4)]


def samples_of(dataset: Any) -> list[Any]:
    return [{name: plain(value) for name, value in sample.items() if name != "__key__"} for sample in dataset]


@pytest.mark.parametrize("name", ["mds", "mds_gz", "mds_zstd"])
def test_samples_are_those_that_the_formats_own_reader_gives(name: str, tmp_path: Path) -> None:
    """Read every encoding; compressed shards too; check the hashes of index.json."""
    if name == "mds_zstd":
        pytest.importorskip("zstandard")
    expected = json.loads((HERE / name / "expected.json").read_text())
    assert samples_of(MDSDataset(HERE / name, index=None, cache=tmp_path)) == expected
    verified = MDSDataset(HERE / name, index=None, cache=tmp_path, verify=name != "mds_gz")
    assert [len(shards) for shards in (verified.shards, verified.shard_lengths)] == [3 - 2 * (name == "mds_zstd")] * 2


def test_the_index_holds_integers_and_what_fields_are(tmp_path: Path) -> None:
    """Know integers of any size without reading samples, as far as 64 bits hold them; read the index once."""
    shutil.copytree(HERE / "mds", tmp_path / "mds")
    for _ in range(2):
        dataset = MDSDataset(tmp_path / "mds")
        assert dataset.labels is None
        labels = dataset.tuple("image", "label").labels
        assert labels is not None
        assert labels.tolist() == [0, 1, 2, 0, 1, 2]
        assert dataset.tuple("int64").labels is not None
        assert dataset.tuple("uint64").labels is None
        assert dataset[1]["uint64"] == 2**63 + 1
        assert dataset.where(3).endswith("shard.00001.mds: 1")
    assert len(list((tmp_path / "mds").glob(".headrace-*.index"))) == 1


def test_pickled_columns_are_refused_by_name(tmp_path: Path) -> None:
    """Unpickle nothing: leave the column out, or give its bytes."""
    folder = write_mds(tmp_path, [*PAIRS, ("odd", "pkl", None)], [[[*sample, b"cos\n"] for sample in SAMPLES]])
    with pytest.raises(ArgumentError, match=r"field .odd. holds pkl, and reading that can run any code.*fields="):
        MDSDataset(folder)
    assert MDSDataset(folder, fields=["text"])[1] == {"__key__": "1", "text": "text"}
    assert MDSDataset(folder, decoders={"odd": None})[1]["odd"] == b"cos\n"


def test_shards_may_be_empty_or_lack_a_column(tmp_path: Path) -> None:
    """Read a shard of no samples, and one of one; fields of one shard are missing in another."""
    folder = write_mds(tmp_path, PAIRS, [[], SAMPLES[:1], [], SAMPLES[1:]])
    assert MDSDataset(folder).shard_lengths == [0, 1, 0, 3]
    assert [sample["label"] for sample in MDSDataset(folder)] == [0, 1, 2, 3]
    nothing = write_mds(tmp_path / "nothing", PAIRS, [[]])
    assert len(MDSDataset(nothing)) == 0


def test_a_dataset_is_indexed_again_when_its_index_json_changes(tmp_path: Path) -> None:
    """Read the same shards by other encodings."""
    write_mds(tmp_path, PAIRS, [SAMPLES])
    assert MDSDataset(tmp_path)[1]["text"] == "text"
    text = (tmp_path / "index.json").read_text()
    (tmp_path / "index.json").write_text(text.replace('"str"', '"bytes"'))
    assert MDSDataset(tmp_path)[1]["text"] == b"text"


def broken(path: str, value: Any) -> Any:
    """Return what sets a value in the description of a shard."""

    def change(about: dict[str, Any]) -> None:
        *holders, last = path.split(".")
        for key in holders:
            about = about[key]
        about[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("version", 1, "format 'mds', version 1"),
        ("format", "csv", "format 'csv'"),
        ("samples", 10**9, "it has 98 bytes, and 1,000,000,000 samples by index.json"),
        ("samples", -1, "-1 samples"),
        ("samples", 3, "it begins with a count of 4 samples"),
        ("samples", "4", "'samples' is '4'"),
        ("raw_data.bytes", 99, r"it has 98 bytes; expected 99, as index\.json says"),
        ("raw_data.basename", "../shard.00000.mds", r"the shard '\.\./shard\.00000\.mds' is outside"),
        ("raw_data.basename", "/etc/passwd", "the shard '/etc/passwd' is outside"),
        ("raw_data", None, "'raw_data' is 'None'"),
        ("column_sizes", [8], r"2 columns have 2 encodings and the sizes \[8\]"),
        ("column_sizes", [8, -1], "the sizes"),
        ("column_sizes", [8, 1 << 70], "the sizes"),
        ("column_sizes", [99, None], "sample 0 ends at byte"),
        ("column_names", ["a", "a"], "its fields are"),
        ("column_names", ["a", "b\0"], "its fields are"),
        ("column_encodings", ["int", "parquet"], "column 'text' has the encoding 'parquet'"),
        ("column_encodings", ["ndarray:uint8:0,2", "str"], "has the encoding 'ndarray:uint8:0,2'"),
        ("column_encodings", ["ndarray:object", "str"], "has the encoding 'ndarray:object'"),
    ],
)
def test_an_index_json_that_is_wrong_is_an_error(tmp_path: Path, path: str, value: Any, words: str) -> None:
    """Name the file and the value; believe no count, no size and no path."""
    folder = write_mds(tmp_path, PAIRS, [SAMPLES], broken(path, value))
    with pytest.raises(BadFile, match=words):
        MDSDataset(folder)


@pytest.mark.parametrize("text", ["", "[", "[" * 100_000, "7", '{"version": 2}', '{"shards": [3]}', '{"shards": []}'])
def test_what_is_no_index_json_is_an_error(tmp_path: Path, text: str) -> None:
    """Raise BadFile for any other text."""
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(BadFile, match=r"index\.json"):
        MDSDataset(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    """Name index.json, and the shard that was not copied."""
    with pytest.raises(MissingFile, match=r"index\.json"):
        MDSDataset(tmp_path)
    write_mds(tmp_path, PAIRS, [SAMPLES])
    (tmp_path / "shard.00000.mds").unlink()
    with pytest.raises(MissingFile, match=r"shard\.00000\.mds"):
        MDSDataset(tmp_path)


@pytest.mark.parametrize(
    ("encoding", "data", "words"),
    [
        ("int8", b"12", "int8 has 1 bytes, not 2"),
        ("float32", b"", "float32 has 4 bytes, not 0"),
        ("str_int", b"x", "cannot be decoded"),
        ("str_int", b"9" * 5000, "a number of 5,000 characters"),
        ("str_decimal", b"x", "is not a decimal number"),
        ("ndarray", b"", "no dtype has the code -1"),
        ("ndarray", b"\x07", "no dtype has the code 7"),
        ("ndarray", b"\x08\xff\0", "it ends within its shape of 63 axes"),
        ("ndarray", b"\x08\x07" + b"\xff" * 8, "it claims the shape"),
        ("ndarray:uint8", b"\x04\x05abc", "it claims the shape"),
        ("ndarray:float64:2", b"abc", "it claims the shape"),
        ("pil", b"abc", "cannot be decoded"),
        ("pil", struct.pack("<3I", 2**31, 2**31, 3) + b"RGB", "it claims 2147483648 x 2147483648 pixels"),
        ("pil", struct.pack("<3I", 2, 2, 4) + b"XYZ1" + bytes(4), "of mode 'XYZ1'"),
        ("pil", struct.pack("<3I", 0, 2, 1) + b"L", "an image without pixels"),
        ("list[jpeg]", struct.pack("<2I", 0, 10**9), "it claims 1,000,000,000 images"),
        ("list[pil]", struct.pack("<3I", 0, 1, 99), "it claims images of 99 bytes"),
        ("jpegarray", struct.pack("<2I", 1, 3) + b"abc", "3 bytes of text"),
        ("jpeg", b"", "empty"),
        ("json", b"{", "cannot be decoded"),
        ("str", b"\xff", "cannot be decoded"),
    ],
)
def test_a_value_that_is_none_of_its_encoding_names_the_sample(
    tmp_path: Path, encoding: str, data: bytes, words: str
) -> None:
    """Raise a SampleError that `on_error` can skip, and take no memory for false sizes."""
    folder = write_mds(tmp_path, [("x", encoding, None)], [[[data]]])
    with pytest.raises(SampleError, match=words) as caught:
        MDSDataset(folder)[0]
    assert (caught.value.index, caught.value.path) == (0, f"{folder / 'shard.00000.mds'}: 0")


def packed(folder: Path, algorithm: str, data: bytes, size: int, hashes: dict[str, str]) -> None:
    """Say in index.json that the one shard is compressed, and write it."""
    listing = json.loads((folder / "index.json").read_text())
    about = listing["shards"][0]
    about["compression"], about["zip_data"] = algorithm, {"basename": "shard.00000.mds.z", "bytes": 0, "hashes": {}}
    about["raw_data"] |= {"bytes": size, "hashes": hashes}
    (folder / "index.json").write_text(json.dumps(listing))
    (folder / "shard.00000.mds").unlink(missing_ok=True)
    (folder / "shard.00000.mds.z").write_bytes(data)


def test_compressed_shards_are_decompressed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the copy in the user's cache; make another where the shard has changed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_mds(tmp_path / "mds", PAIRS, [SAMPLES])
    whole = (folder / "shard.00000.mds").read_bytes()
    packed(folder, "bz2", bz2.compress(whole), len(whole), {})
    first, second = MDSDataset(folder), MDSDataset(folder)
    assert first.shards == second.shards
    assert Path(first.shards[0]).is_relative_to(tmp_path / "cache" / "headrace" / "shards")
    assert samples_of(first) == [{"label": row, "text": "text" * row} for row in range(4)]
    packed(folder, "bz2", bz2.compress(whole, 1), len(whole), {})
    assert MDSDataset(folder).shards != first.shards
    assert sorted(file.name for file in folder.iterdir()) == ["index.json", "shard.00000.mds.z"]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("short", "it cannot be decompressed|bytes decompressed"),
        ("bomb", "it has more bytes decompressed than"),
        ("huge", r"it has 1,000,000,000,000 bytes decompressed, by index\.json"),
        ("few", "bytes decompressed; expected 99,999"),
        ("hash", "its sha1 is"),
        ("br", "it is compressed with 'br'"),
        ("folder", "cannot be written"),
    ],
)
def test_compressed_shards_that_are_wrong_are_errors(tmp_path: Path, how: str, words: str) -> None:
    """Decompress up to what index.json claims and no further; leave no copy behind."""
    folder = write_mds(tmp_path / "mds", PAIRS, [SAMPLES])
    whole = (folder / "shard.00000.mds").read_bytes()
    data = bz2.compress(whole + bytes(10**7) if how == "bomb" else whole)
    size = {"huge": 10**12, "few": 99_999}.get(how, len(whole))
    cache = tmp_path / "cache"
    if how == "folder":
        cache.write_bytes(b"")
    packed(
        folder,
        how if how == "br" else "bz2",
        data[:-9] if how == "short" else data,
        size,
        {"sha1": "0"} if how == "hash" else {},
    )
    with pytest.raises((BadFile, SampleError), match=words):
        MDSDataset(folder, cache=cache)
    assert how == "folder" or not [file for file in cache.rglob("*") if file.is_file()]


def test_hashes_are_checked_on_request(tmp_path: Path) -> None:
    """Notice a flipped byte that no other check would; say where no hash can be computed."""
    shutil.copytree(HERE / "mds", tmp_path / "mds")
    data = bytearray((tmp_path / "mds" / "shard.00001.mds").read_bytes())
    data[-1] ^= 1
    (tmp_path / "mds" / "shard.00001.mds").write_bytes(data)
    assert len(MDSDataset(tmp_path / "mds")) == 6
    with pytest.raises(BadFile, match=r"shard\.00001\.mds: its sha1 is"):
        MDSDataset(tmp_path / "mds", verify=True)
    odd = write_mds(tmp_path / "odd", PAIRS, [SAMPLES], broken("raw_data.hashes", {"xxh64": "0"}))
    with pytest.raises(ArgumentError, match="has hashes of xxh64 only"):
        MDSDataset(odd, verify=True)


def test_zstd_without_its_library_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the extra."""
    monkeypatch.setattr("headrace.datasets.unpacked._zstd", lambda: None)
    with pytest.raises(MissingDependency, match=r"pip install 'headrace\[zstd\]'"):
        MDSDataset(HERE / "mds_zstd", index=None, cache=tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_shard_gives_an_error_or_values(tmp_path: Path, data: st.DataObject) -> None:
    """Cut shards short, flip bytes, claim 10^9 samples: nothing else is raised."""
    folder = tmp_path / "mds"
    if not folder.exists():
        shutil.copytree(HERE / "mds", folder)
    for name in ("shard.00000.mds", "index.json"):
        (folder / name).write_bytes((HERE / "mds" / name).read_bytes())
    name = data.draw(st.sampled_from(["shard.00000.mds", "index.json"]))
    (folder / name).write_bytes(damaged(data, (HERE / "mds" / name).read_bytes()))
    read_all(lambda: MDSDataset(folder, index=None))


def test_many_small_samples_are_indexed_by_windows(tmp_path: Path) -> None:
    """Index 20,000 samples, whose fields are where their sizes say."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(0, 200, 20_000).tolist()
    folder = write_mds(tmp_path, PAIRS, [[[struct.pack("<q", row), b"x" * size] for row, size in enumerate(sizes)]])
    dataset = MDSDataset(folder)
    assert dataset.labels is not None
    assert dataset.labels.tolist() == list(range(20_000))
    assert [len(dataset[row]["text"]) for row in range(0, 20_000, 1999)] == sizes[::1999]
