"""Token files that lie, end too early, or change while they are read."""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.datasets.token_files import arrow, llm_c, megatron, safetensors
from tests.formats.damage import damaged

from headrace import DataLoader
from headrace.datasets import TokenDataset
from headrace.errors import BadFile, HeadraceError

if TYPE_CHECKING:
    from collections.abc import Callable

FORK: dict[str, Any] = {"backend": "processes", "multiprocessing_context": "fork"}
DOCUMENTS = [[[1, 2], [3]], [[4, 5, 6]]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"magic": b"TNTIDX\0\0\0"}, "it begins with b'TNTIDX"),
        ({"version": struct.pack("<Q", 2)}, "version 2 with dtype code 8"),
        ({"code": bytes([9])}, "version 1 with dtype code 9"),
        ({"sequences": struct.pack("<Q", 2**63)}, "it claims 9,223,372,036,854,775,808 sequences"),
        ({"count": struct.pack("<Q", 99)}, "99 documents, and has 94 bytes"),
        ({"lengths": np.array([2, 1, -3], "<i4")}, "sequence 2 has -3 tokens"),
        ({"lengths": np.array([2, 1, 4], "<i4")}, "sequence 2 has 4 tokens at byte 6 of the .bin file"),
        ({"pointers": np.array([0, 4, 2**62], "<i8")}, "sequence 2 has 3 tokens at byte 4,611"),
        ({"pointers": np.array([0, 4, 5], "<i8")}, "sequence 2 has 3 tokens at byte 5"),
        ({"pointers": np.array([0, 2, 6], "<i8")}, "sequence 1 does not follow the one before it"),
        ({"pointers": np.array([-4, 4, 6], "<i8")}, "sequence 0 has 2 tokens at byte -4"),
        ({"marks": np.array([0, 4, 3], "<i8")}, "its document index does not ascend"),
        ({"marks": np.array([0, 2, 4], "<i8")}, "its document index does not ascend"),
        ({"marks": np.array([-1, 2, 3], "<i8")}, "its document index does not ascend"),
    ],
)
def test_an_index_that_lies_is_an_error(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    """Read nothing outside of the file of tokens, and say which sequence would."""
    with pytest.raises(BadFile, match=words) as caught:
        TokenDataset(megatron(tmp_path / "a", DOCUMENTS, **changes), documents=True)
    assert caught.value.path is not None
    assert caught.value.path.endswith("a.idx")


def test_a_pair_must_be_whole(tmp_path: Path) -> None:
    """Notice a .bin file that is cut short, of odd size, or missing; and documents of none."""
    prefix = megatron(tmp_path / "a", DOCUMENTS, "int32")
    for size, words in ((20, "sequence 2 has 3 tokens"), (21, "it has 21 bytes; expected whole tokens of 4")):
        os.truncate(f"{prefix}.bin", size)
        for documents in (True, False):
            with pytest.raises(BadFile, match=words):
                TokenDataset(prefix, 2, documents=documents)
    (tmp_path / "a.bin").unlink()
    with pytest.raises(HeadraceError, match=r"a\.bin"):
        TokenDataset(prefix, 2)
    with pytest.raises(HeadraceError, match="there are no documents"):
        TokenDataset(megatron(tmp_path / "b", []), documents=True)
    with pytest.raises(BadFile, match="it is an index, and named otherwise"):
        TokenDataset(os.fspath((tmp_path / "b.idx").rename(tmp_path / "c.dat")))


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: llm_c(path, range(9), count=10), "its header claims 10 tokens of uint16, and 18 bytes follow"),
        (lambda path: llm_c(path, range(9), count=-1), "its header claims -1 tokens"),
        (lambda path: llm_c(path, range(9), version=2), "it is version 2 of llm.c's format 20240520"),
        (lambda path: path.write_bytes(struct.pack("<3i", 20240520, 1, 5)), "and 0 bytes follow it"),
        (lambda path: path.write_bytes(b"\x93NUMPY garbage"), "cannot be read"),
        (lambda path: np.save(path.with_name("a.npy"), np.zeros((3, 3), int)), r"has the shape \(3, 3\)"),
        (lambda path: np.save(path.with_name("a.npy"), np.zeros(9)), "holds float64; expected one row of integers"),
        (lambda path: np.save(path.with_name("a.npy"), np.array([None])), "cannot be read"),
        (lambda path: path.write_bytes(b"ARROW1 and more"), "its end is missing"),
    ],
)
def test_a_header_that_lies_is_an_error(tmp_path: Path, write: Callable[[Path], Any], words: str) -> None:
    """Compare what a header claims with the size of the file."""
    write(tmp_path / "a.bin")
    with pytest.raises(BadFile, match=words):
        TokenDataset(tmp_path, 2)


def test_an_array_that_ends_behind_its_archive_is_an_error(tmp_path: Path) -> None:
    """Read no memory beyond the file, whatever sizes its headers claim."""
    np.savez(tmp_path / "a.npz", tokens=np.arange(500))
    whole = (tmp_path / "a.npz").read_bytes()
    size = struct.pack("<II", 4128, 4128)
    lies = whole.replace(size, struct.pack("<II", 4128 + 800_000, 4128 + 800_000)).replace(b"(500,), ", b"(100500,)")
    (tmp_path / "a.npz").write_bytes(lies)
    with pytest.raises(BadFile, match=r"a\.npz"):
        TokenDataset(tmp_path / "a.npz", 8)


def test_a_raw_file_of_odd_size_is_an_error(tmp_path: Path) -> None:
    """Say how many bytes there are."""
    (tmp_path / "a.bin").write_bytes(bytes(33))
    with pytest.raises(BadFile, match="it has 33 bytes; expected whole tokens of 2 bytes each"):
        TokenDataset(tmp_path / "a.bin", 2, dtype=np.uint16)


@pytest.mark.parametrize("documents", [True, False])
def test_tokens_beyond_int64_are_an_error(tmp_path: Path, documents: bool) -> None:
    """Never give a negative number for a large one."""
    tokens = np.arange(40, dtype=np.uint64)
    tokens[25] = 2**63
    np.save(tmp_path / "a.npy", tokens)
    dataset = TokenDataset(tmp_path / "a.npy", 4, documents=documents, separator=19 if documents else None)
    assert dataset[0][0].max() < 40
    with pytest.raises(BadFile, match=r"a\.npy: sample . \(from token 2\d on\) has token 9,223,372,036,854,775,808"):
        list(dataset) if documents else dataset.read_batch(range(9))


def layouts(folder: Path) -> list[Path]:
    """Write a file in each layout."""
    tokens = np.arange(300, dtype=np.uint16)
    np.save(folder / "a.npy", tokens)
    paths = [folder / "a.npy", llm_c(folder / "b.bin", tokens), megatron(folder / "c", [[tokens]])]
    paths.append(safetensors(folder / "d.safetensors", tokens=tokens))
    return [*paths, arrow(folder / "e.arrow", np.split(tokens, 10))]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_give_an_error_or_samples(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Change bytes or cut a file anywhere: an error of ours names it, or the samples have their lengths."""
    pytest.importorskip("pyarrow")
    path = data.draw(st.sampled_from(layouts(tmp_path_factory.mktemp("damage"))))
    documents = path.suffix in ("", ".arrow") and data.draw(st.booleans())
    target = data.draw(st.sampled_from([".bin", ".idx"])) if not path.suffix else ""
    broken = path.with_name(path.name + target)
    broken.write_bytes(damaged(data, broken.read_bytes()))
    with contextlib.suppress(HeadraceError):
        dataset = TokenDataset(path, 8, documents=documents, dtype=np.uint16 if path.suffix == ".bin" else None)
        for sample in dataset:
            assert documents or len(sample[0]) == len(sample[1]) == 8


def cut_short(path: Path) -> None:
    os.truncate(path, 60)


def cut_within_a_page(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 10)


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(bytes(path.stat().st_size))
    other.replace(path)


def removed(path: Path) -> None:
    path.unlink()


def written_to(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"1234")
    os.utime(path, ns=(1, 1))


CHANGES = {
    "cut short": cut_short,
    "cut short from": cut_within_a_page,
    "another file": replaced,
    "removed": removed,
    "written to while": written_to,
}


@pytest.mark.parametrize("words", CHANGES)
@pytest.mark.parametrize("how", [{}, {"num_workers": 2, "backend": "threads"}, {"num_workers": 1, **FORK}])
def test_a_file_that_changes_is_an_error(tmp_path: Path, words: str, how: dict[str, Any]) -> None:
    """Name the file and the sample at the first batch that is made after the change."""
    for number in range(2):
        np.arange(40_000, dtype=np.uint16).tofile(tmp_path / f"{number}.bin")
    dataset = TokenDataset(tmp_path, 100, dtype=np.uint16)
    batches = iter(DataLoader(dataset, 4, sampler=[0, 1, *range(400, len(dataset))], **how))
    next(batches)
    CHANGES[words](tmp_path / "1.bin")
    with pytest.raises(HeadraceError, match=rf"1\.bin: sample \d+ .*{words}") as caught:
        list(batches)
    assert dataset.where(caught.value.index).startswith(str(tmp_path / "1.bin"))  # type: ignore[arg-type]


@pytest.mark.parametrize("words", CHANGES)
def test_documents_of_a_file_that_changes_are_an_error(tmp_path: Path, words: str) -> None:
    """Check each document, and the search for separators."""
    np.tile(np.arange(100, dtype=np.uint16), 400).tofile(tmp_path / "1.bin")
    dataset, other = (TokenDataset(tmp_path, documents=True, separator=99, dtype=np.uint16) for _ in range(2))
    assert len(dataset) == 400
    assert dataset[0].tolist() == list(range(100))
    CHANGES[words](tmp_path / "1.bin")
    with pytest.raises(HeadraceError, match=rf"1\.bin: sample 399 .*{words}"):
        dataset[399]
    with pytest.raises(HeadraceError, match=rf"1\.bin: sample \d+ .*{words}"):
        dataset.__getitems__([0, 399, 398])
    with pytest.raises(HeadraceError, match=r"1\.bin"):
        len(other)


def test_a_file_that_changes_before_its_first_read_is_an_error(tmp_path: Path) -> None:
    """Read what was indexed, or nothing; a copy that is loaded later reads the new file."""
    path = tmp_path / "1.bin"
    np.arange(1000, dtype=np.uint16).tofile(path)
    dataset = TokenDataset(path, 8, dtype=np.uint16)
    sent = pickle.dumps(dataset)
    np.arange(500, dtype=np.uint16).tofile(path)
    with pytest.raises(BadFile, match=r"1\.bin: sample 3 "):
        dataset[3]
    assert len(pickle.loads(sent)) == 62


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_more_files_than_may_be_open_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Close the maps of files that were opened first."""
    monkeypatch.setattr("headrace.datasets.token_table._most_open", lambda: 5)
    for number in range(30):
        np.full(50, number, np.uint16).tofile(tmp_path / f"{number:02}.bin")
    dataset = TokenDataset(tmp_path, 8, dtype=np.uint16)
    before = open_files()
    for inputs, _ in DataLoader(dataset, 40, shuffle=True, seed=0):
        assert (inputs == inputs[:, :1]).all()
    assert open_files() <= before + 11


def test_without_the_native_extension_tokens_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read by positioned reads, with the same errors."""
    np.arange(1000, dtype=np.uint16).tofile(tmp_path / "1.bin")
    dataset = TokenDataset([str(tmp_path / "1.bin"), np.arange(50)], 8, dtype=np.uint16)
    keys = [0, 5, 124, 126, 128]
    native = dataset.read_batch(keys)
    monkeypatch.setattr("headrace.datasets.token_table.extension", None)
    for one, other in zip(native, dataset.read_batch(keys), strict=True):
        np.testing.assert_array_equal(one, other)
    os.truncate(tmp_path / "1.bin", 500)
    with pytest.raises(
        BadFile, match=r"1\.bin: sample 100 \(tokens 800 to 809\) cannot be read: the file was cut short"
    ):
        dataset[100]
