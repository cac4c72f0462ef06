"""Files that stay open between reads: bounded, closed when nobody reads them, and never other bytes."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from headrace.errors import BadFile, MissingFile
from headrace.storage.spans import SpanFiles


def facts(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_few_files_stay_open(tmp_path: Path) -> None:
    """Close the file that was opened first, and all with the reader."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("the operating system does not list descriptors")
    before = descriptors()
    files = SpanFiles(most=3)
    paths = [tmp_path / str(number) for number in range(9)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 9)
    for _ in range(2):
        for number, path in enumerate(paths):
            assert files.read(str(path), 3, 2, facts(path)) == bytes([number]) * 2
    assert descriptors() == before + 3
    assert pickle.loads(pickle.dumps(files))._open == {}
    del files
    assert descriptors() == before


@pytest.mark.parametrize("change", ["cut", "replace", "touch", "remove"])
def test_a_file_that_changes_is_an_error(change: str, tmp_path: Path) -> None:
    """Raise an error for a file that is open already."""
    path, files = tmp_path / "shard", SpanFiles()
    path.write_bytes(b"0123456789")
    known = facts(path)
    assert files.read(str(path), 0, 2, known) == b"01"
    assert files.read(str(path), 2, 2, known) == b"23"
    if change == "cut":
        os.truncate(path, 3)
    elif change == "replace":
        (tmp_path / "other").write_bytes(b"abcdefghij")
        (tmp_path / "other").replace(path)
    elif change == "touch":
        os.utime(path, ns=(1, 1))
    else:
        path.unlink()
    with pytest.raises(MissingFile if change == "remove" else BadFile, match="shard"):
        files.read(str(path), 4, 2, known)
    with pytest.raises((MissingFile, BadFile)):
        files.read(str(path), 4, 2, known)


def test_a_file_that_comes_back_is_read(tmp_path: Path) -> None:
    """Read a copy with the same size and time, put in the place of an open file."""
    path, files = tmp_path / "shard", SpanFiles()
    path.write_bytes(b"0123456789")
    known = facts(path)
    assert files.read(str(path), 0, 2, known) == b"01"
    copy = tmp_path / "copy"
    copy.write_bytes(b"0123456789")
    os.utime(copy, ns=(known[1], known[1]))
    copy.replace(path)
    assert files.read(str(path), 8, 2, known) == b"89"
