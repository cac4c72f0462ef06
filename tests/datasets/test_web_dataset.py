"""Samples in tar shards: patterns of shards, decoders, and the index that is saved."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.image_files import encoded, photo

from headrace import DataLoader, RandomResizedCrop, ToCHW, ToFloat
from headrace._native import extension
from headrace.datasets import WebDataset, open_shards, saved_arrays, span_table
from headrace.datasets.shards import shard_paths
from headrace.errors import ArgumentError, ArgumentTypeError, BadFile, BadImage, MissingFile, SampleError


def npy(array: Any, *, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def write(path: Path, samples: dict[str, dict[str, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for key, fields in samples.items():
            for name, data in fields.items():
                member = tarfile.TarInfo(f"{key}.{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three shards of seven images with labels and notes, every fifth image a BMP."""
    for shard in range(3):
        rows = range(shard * 7, shard * 7 + 7)
        write(
            tmp_path / f"train-{shard:02}.tar",
            {
                f"{row:04}": {
                    "jpg": encoded(photo(row, 40 + row, 50), "BMP" if row % 5 == 4 else "JPEG"),
                    "cls": str(row % 3).encode(),
                    "json": json.dumps({"row": row}).encode(),
                }
                for row in rows
            },
        )
    return tmp_path


def test_a_sample_is_a_dict_of_its_fields(shards: Path) -> None:
    """Decode each field by its name; know labels and shards without reading."""
    dataset = WebDataset(shards)
    sample = dataset[9]
    assert (sample["__key__"], sample["cls"], sample["json"], sample["jpg"].shape) == (
        "0009",
        0,
        {"row": 9},
        (49, 50, 3),
    )
    assert (dataset.fields, dataset.shard_lengths) == (["jpg", "cls", "json"], [7, 7, 7])
    labels = dataset.labels
    assert labels is not None
    assert labels.tolist() == [row % 3 for row in range(21)]
    assert dataset.where(9).endswith("train-01.tar: 0009")
    assert dataset.read(9, "json") == b'{"row": 9}'


def test_batches_of_images_are_made_by_the_native_extension(shards: Path) -> None:
    """Fuse decoding and transforms over shards; give the same batches on any executor."""
    if extension is None:
        pytest.skip("the native extension was not built")
    mapped = WebDataset(shards).tuple("jpg", "cls").map(RandomResizedCrop(24), ToFloat(), ToCHW())
    assert "all fused" in mapped.explain()
    expected, *others = (
        list(DataLoader(mapped, 4, shuffle=True, seed=3, num_workers=workers, backend=backend))
        for workers, backend in ((0, "auto"), (2, "threads"), (2, "processes"))
    )
    for found in others:
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])


def test_each_kind_of_field_has_its_decoder(tmp_path: Path) -> None:
    """Give text, values, arrays, integers; leave the rest as bytes; prefer the user's own functions."""
    fields = {
        "txt": "é".encode(),
        "json": b"[1, 2]",
        "npy": npy(np.arange(6).reshape(2, 3)),
        "second.cls": b" 12\n",
        "pkl": pickle.dumps({"a": 1}),
        "mp3": b"\0sound",
    }
    write(tmp_path / "0.tar", {"a": fields, "b": {"txt": b"", "mp3": b""}})
    sample = WebDataset(tmp_path / "0.tar")[0]
    assert (sample["txt"], sample["json"], sample["npy"].tolist()) == ("é", [1, 2], [[0, 1, 2], [3, 4, 5]])
    assert (sample["second.cls"], sample["pkl"], sample["mp3"]) == (12, fields["pkl"], b"\0sound")
    own = WebDataset(tmp_path / "0.tar", decoders={"mp3": len, "cls": None, "txt": bytes.upper})
    assert (own[0]["mp3"], own[0]["second.cls"], own[1]["txt"]) == (6, b" 12\n", b"")
    assert list(own[1]) == ["__key__", "txt", "mp3"]
    assert own.labels is None


def test_a_decoder_may_be_the_name_of_a_kind(shards: Path) -> None:
    """Read a field as another kind, on the native path too; refuse names of no kind."""
    write(shards / "odd.tar", {"0": {"data": encoded(photo(1, 40, 50)), "cls": b"1", "pixels": b"2"}})
    dataset = WebDataset(shards / "odd.tar", decoders={"data": "jpg", "pixels": "cls"})
    assert dataset[0]["data"].shape == (40, 50, 3)
    assert dataset[0]["pixels"] == 2
    assert WebDataset(shards / "odd.tar")[0]["pixels"] == b"2"
    assert dataset.tuple("data", "cls").native_source() is not None
    assert dataset.tuple("data", "pixels").native_source() is None
    with pytest.raises(ArgumentTypeError, match=r"decoders\['data'\] must be a function of the bytes, None, or one of"):
        WebDataset(shards / "odd.tar", decoders={"data": "jpgg"})


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("cls", b"cat", "b'cat' is not an integer of 64 bits"),
        ("json", b"{", "field 'json' cannot be decoded"),
        ("json", b"[" * 100_000, "field 'json' cannot be decoded"),
        ("txt", b"\xff", "field 'txt' cannot be decoded"),
        ("npy", npy(np.array([{}], object), allow_pickle=True), "it claims"),
        ("npy", npy(np.zeros(3))[:-1], "it claims"),
        ("npy", npy(np.zeros(3)).replace(b"(3,)", b"(9999999999,)", 1), "field 'npy' cannot be decoded"),
        ("npy", b"", "field 'npy' cannot be decoded"),
        ("jpg", b"no image", "of no format that Pillow knows"),
    ],
)
def test_a_field_that_cannot_be_decoded_names_sample_and_field(
    tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    """Raise a SampleError that `on_error` can skip, with index, shard and key; run no code of a pickle."""
    write(tmp_path / "0.tar", {"a": {name: data}})
    with pytest.raises(SampleError, match=words) as caught:
        WebDataset(tmp_path / "0.tar")[0]
    assert (caught.value.index, caught.value.path) == (0, f"{tmp_path / '0.tar'}: a")


def test_a_sample_without_the_field_is_an_error_of_the_sample(tmp_path: Path) -> None:
    """Leave a missing field out of the dict; name it where a tuple needs it."""
    write(tmp_path / "0.tar", {"a": {"txt": b"x", "cls": b"1"}, "b": {"cls": b"2"}})
    dataset = WebDataset(tmp_path / "0.tar")
    assert dataset[1] == {"__key__": "b", "cls": 2}
    with pytest.raises(SampleError, match=r"sample 1 .*0\.tar: b.*: it has no field 'txt'"):
        dataset.tuple("txt", "cls")[1]
    with pytest.raises(ArgumentError, match="no sample has a field 'jpg'; expected one of 'txt', 'cls'"):
        dataset.tuple("jpg")
    with pytest.raises(ArgumentError, match="no sample has a field 'jpg'"):
        WebDataset(tmp_path / "0.tar", fields=["jpg"])
    write(tmp_path / "empty.tar", {})
    with pytest.raises(ArgumentError, match="no sample has a field 'jpg'; expected samples with fields"):
        WebDataset(tmp_path / "empty.tar").tuple("jpg")


def test_a_damaged_image_can_be_skipped(tmp_path: Path) -> None:
    """Name shard and key on both routes, and go on without it."""
    images = {f"{row}": {"jpg": encoded(photo(row, 40, 50)), "cls": b"1"} for row in range(6)}
    images["3"]["jpg"] = images["3"]["jpg"][:200]
    write(tmp_path / "0.tar", images)
    mapped = WebDataset(tmp_path / "0.tar").tuple("jpg", "cls").map(RandomResizedCrop(16))
    with pytest.raises(BadImage, match=r"sample 3 .*0\.tar: 3"):
        list(DataLoader(mapped, 6))
    assert sum(len(batch[0]) for batch in DataLoader(mapped, 2, on_error="skip")) == 5


@pytest.mark.parametrize("how", ["cut", "replaced", "removed", "written"])
def test_a_shard_that_changes_is_an_error_and_never_other_bytes(shards: Path, how: str) -> None:
    """Raise on both routes, after the dataset was constructed."""
    dataset = WebDataset(shards)
    path = shards / "train-01.tar"
    data = path.read_bytes()
    if how == "cut":
        os.truncate(path, 700)
    elif how == "removed":
        path.unlink()
    else:
        other = shards / "other"
        other.write_bytes(bytes(len(data)))
        os.utime(other, ns=(1, 1))
        other.replace(path) if how == "replaced" else path.write_bytes(other.read_bytes() + b"x")
    kind = MissingFile if how == "removed" else BadFile
    with pytest.raises(kind, match=r"train-01\.tar"):
        dataset[9]
    with pytest.raises(kind, match=r"train-01\.tar"):
        list(DataLoader(dataset.tuple("jpg", "cls").map(RandomResizedCrop(16)), 7, num_workers=2))
    assert dataset[2]["cls"] == 2


def test_shards_are_given_by_path_folder_pattern_or_list(shards: Path) -> None:
    """Expand braces and stars, in order; say what gives no shards."""
    names = [str(shards / f"train-{number:02}.tar") for number in range(3)]
    assert shard_paths(f"{shards}/train-{{00..02}}.tar", ".tar") == names
    assert shard_paths(f"{shards}/*.tar", ".tar") == names == shard_paths(shards, ".tar")
    assert shard_paths([names[1], f"{shards}/train-{{00,02}}.tar"], ".tar") == [names[1], names[0], names[2]]
    (shards / "odd{1..2}[x].tar").write_bytes(b"")
    assert len(shard_paths(shards / "odd{1..2}[x].tar", ".tar")) == 1
    with pytest.raises(MissingFile, match="no file has such a name"):
        shard_paths(f"{shards}/test-*.tar", ".tar")
    with pytest.raises(ArgumentError, match="shards is empty"):
        shard_paths([], ".tar")
    with pytest.raises(ArgumentError, match="give 0 numbers"):
        shard_paths("{9..1}.tar", ".tar")
    with pytest.raises(ArgumentError, match="gives 1,000,000,000,000 paths"):
        shard_paths("{0..999999}{0..999999}.tar", ".tar")
    with pytest.raises(MissingFile, match=r"train-09\.tar"):
        WebDataset(shards / "train-09.tar")


def saved(folder: Path) -> list[Path]:
    return sorted(folder.glob(".headrace-*.index"))


def test_the_index_is_saved_beside_the_shards_and_used_again(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Index once; afterwards read no shard; index again the one shard that has changed, and only that."""
    first = WebDataset(shards)
    assert len(saved(shards)) == 1
    seen: list[str] = []
    indexer = span_table.indexed.__globals__["_as_part"]
    monkeypatch.setattr(span_table, "_as_part", lambda shard: seen.append(type(shard).__name__) or indexer(shard))
    again = WebDataset(shards)
    assert seen == []
    assert [again[row]["json"] for row in range(21)] == [first[row]["json"] for row in range(21)]
    write(shards / "train-01.tar", {"new": {"cls": b"9", "txt": b"other"}})
    changed = WebDataset(shards)
    assert seen == ["ShardColumns", "Shard", "ShardColumns"]
    assert (len(changed), changed[7], changed[8]["json"]) == (
        15,
        {"__key__": "new", "cls": 9, "txt": "other"},
        {"row": 14},
    )


def test_a_dataset_may_be_moved_with_its_index(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Find the index where the folder has another name."""
    WebDataset(shards)
    moved = shards.rename(tmp_path_factory.mktemp("other") / "here")
    before = saved(moved)[0].stat().st_mtime_ns
    assert WebDataset(moved)[20]["json"] == {"row": 20}
    assert [file.stat().st_mtime_ns for file in saved(moved)] == [before]
    moved.rename(shards)


def test_where_the_folder_cannot_be_written_to_the_cache_is(
    shards: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Save in the user's cache folder; in no place where that is refused too; in the folder that is given."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    place = span_table._places(shard_paths(shards, ".tar"), "webdataset 1", "auto")[0]
    place.mkdir()  # whoever runs the tests may write everywhere, but over no folder
    assert len(WebDataset(shards)) == 21
    assert len(list((cache / "headrace" / "indexes").iterdir())) == 1
    assert len(WebDataset(shards, index=None)) == 21
    given = tmp_path_factory.mktemp("given")
    assert len(WebDataset(shards, index=given)) == len(WebDataset(shards, index=given)) == 21
    assert len(list(given.iterdir())) == 1


@pytest.fixture(params=["read", "mapped"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take indexes for small ones, which are read, and for large ones, which are mapped and checked in blocks."""
    if request.param == "mapped":
        monkeypatch.setattr(saved_arrays, "MAPPED_FROM", 0)
        monkeypatch.setattr(saved_arrays, "ROWS", 4)


@pytest.mark.usefixtures("size")
def test_a_damaged_index_is_built_again(shards: Path) -> None:
    """Flip bytes of a saved index and cut it: the samples stay those of the shards."""
    WebDataset(shards)
    [file] = saved(shards)
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 60).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged if place % 2 else damaged[:place])
        dataset = WebDataset(shards)
        assert [sample["json"]["row"] for sample in dataset] == list(range(21))


@pytest.mark.parametrize(
    ("array", "value"), [("file", 9), ("file", -1), ("offset", -7), ("offset", 1 << 62), ("length", 1 << 40)]
)
@pytest.mark.usefixtures("size")
def test_a_forged_index_is_built_again(shards: Path, array: str, value: int) -> None:
    """Check each range against its shard, where the checksum of the index is that of the forgery."""
    table = WebDataset(shards)._table
    forged: Any = np.full(21, value)
    if array != "file":
        forged = dict.fromkeys(table.offset, forged)
    [file] = saved(shards)
    assert span_table._save(dataclasses.replace(table, **{array: forged}), file)
    assert [sample["json"]["row"] for sample in WebDataset(shards)] == list(range(21))


def test_a_large_index_is_mapped_and_pickles_as_its_path(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Share the memory of workers; send them a path; say when the index has changed meanwhile."""
    monkeypatch.setattr(saved_arrays, "MAPPED_FROM", 0)
    WebDataset(shards)
    dataset = WebDataset(shards)
    assert isinstance(dataset._table.offset["jpg"].base, np.memmap)
    labels = dataset.labels
    assert labels is not None
    assert type(labels) is np.ndarray
    assert not labels.flags.writeable
    sent = pickle.dumps(dataset)
    assert len(sent) < 1500
    assert pickle.loads(sent)[20]["json"] == {"row": 20}
    saved(shards)[0].unlink()
    with pytest.raises(BadFile, match="the index was removed or changed"):
        pickle.loads(sent)


@pytest.mark.skipif(extension is None or sys.platform != "linux", reason="the native extension answers SIGBUS on Linux")
def test_a_mapped_index_that_is_cut_short_is_an_error_outside_of_loaders_too(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Name the index, and keep the interpreter alive, whatever of a sample is read."""
    monkeypatch.setattr(saved_arrays, "MAPPED_FROM", 0)
    WebDataset(shards)
    dataset = WebDataset(shards)
    pairs = dataset.tuple("jpg", "cls")
    [file] = saved(shards)
    os.truncate(file, 0)
    for read in (dataset.__getitem__, pairs.__getitem__, dataset.where, lambda row: dataset.read(row, "jpg")):
        with pytest.raises(BadFile, match="cut short") as caught:
            read(20)
        assert caught.value.path == str(file)


def test_an_archive_without_members_is_a_shard_without_samples(tmp_path: Path) -> None:
    """Open what tar writes of nothing, by its name alone: zeros may be anything."""
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    dataset = open_shards(tmp_path / "empty.tar", index=None)
    assert (type(dataset).__name__, len(dataset)) == ("WebDataset", 0)
    (tmp_path / "empty.tar").rename(tmp_path / "zeros")
    with pytest.raises(BadFile, match="no format of shards"):
        open_shards(tmp_path / "zeros")


def test_an_index_that_another_process_has_checked_is_not_read_again(shards: Path) -> None:
    """Refuse another index in its place: its checksums differ."""
    WebDataset(shards)
    sent = pickle.dumps(WebDataset(shards))
    [file] = saved(shards)
    write(shards / "other.tar", {"0": {"cls": b"1"}})
    WebDataset(shards / "other.tar")
    other = next(each for each in saved(shards) if each != file)
    file.write_bytes(other.read_bytes())
    with pytest.raises(BadFile, match="the index was removed or changed"):
        pickle.loads(sent)


def test_two_processes_may_index_at_once(shards: Path) -> None:
    """Give both the whole, and leave one index."""
    script = f"from headrace.datasets import WebDataset; print(len(WebDataset({str(shards)!r})))"
    running = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [each.communicate()[0].strip() for each in running] == ["21"] * 4
    assert len(saved(shards)) == 1
    assert sorted(file.name for file in shards.iterdir() if file.suffix != ".tar") == [saved(shards)[0].name]
