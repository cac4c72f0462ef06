"""Files are read whole, up to a limit, and nothing but regular files is read."""

from __future__ import annotations

import errno
import os
import socket
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from headrace.datasets.images import ImageFiles
from headrace.errors import HeadraceError, MissingFile, UnreadableFile
from headrace.storage.files import opened, read_file


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    """Read every byte, of a file of any size."""
    for size in (0, 1, 5_000_000):
        file = tmp_path / "a"
        file.write_bytes(np.random.default_rng(size).bytes(size))
        assert read_file(str(file)) == file.read_bytes()


def test_a_missing_file_is_reported_as_missing(tmp_path: Path) -> None:
    """Raise an error that is a FileNotFoundError, with its errno, naming the path or the target of the link."""
    path = str(tmp_path / "gone.jpg")
    with pytest.raises(MissingFile, match=r"gone\.jpg: there is no such file") as caught:
        read_file(path)
    assert isinstance(caught.value, FileNotFoundError)
    assert caught.value.errno == errno.ENOENT
    (tmp_path / "link.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(MissingFile, match=r"link\.jpg: a link to nowhere\.jpg, which is not there"):
        read_file(str(tmp_path / "link.jpg"))


def test_what_cannot_be_read_is_reported_as_unreadable(tmp_path: Path) -> None:
    """Refuse a folder, a pipe without a writer, a socket, a device and a loop of links, each at once."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as ear:
        ear.bind(str(tmp_path / "ear"))
        for path, found in {
            tmp_path: "a folder",
            tmp_path / "pipe": "a pipe",
            tmp_path / "ear": "cannot be read",
            tmp_path / "loop": "symbolic links",
            tmp_path / "file" / "a.jpg": "Not a directory",
            Path("/dev/zero"): "a device",
            Path("/proc/self/maps"): "made by the operating system",
            Path("/sys/kernel/mm/transparent_hugepage/enabled"): "made by the operating system",
        }.items():
            if str(path).startswith(("/proc", "/sys")) and not path.exists():
                continue
            with pytest.raises(UnreadableFile, match=found) as caught:
                read_file(str(path))
            assert str(path) in str(caught.value)
            assert isinstance(caught.value, OSError)
            assert caught.value.errno


def test_a_name_that_no_file_can_have_is_an_error_of_ours() -> None:
    """Refuse names with a zero byte or a letter that no file system writes."""
    for path in ("a\0b.jpg", "a\ud800.jpg"):
        with pytest.raises(HeadraceError):
            read_file(path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_forbidden_file_is_reported_as_unreadable(tmp_path: Path) -> None:
    """Say that permission is what is missing."""
    file = tmp_path / "a.jpg"
    file.write_bytes(b"12")
    file.chmod(0)
    with pytest.raises(UnreadableFile, match="Permission denied") as caught:
        read_file(str(file))
    assert caught.value.errno == errno.EACCES


def test_a_file_above_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """Name its size, the limit and that it is sparse, and take no memory for it."""
    file = tmp_path / "a.jpg"
    with file.open("wb") as hole:
        hole.truncate(3 << 30)
    tracemalloc.start()
    try:
        for refused in (lambda: read_file(str(file)), lambda: ImageFiles([file])[0]):
            with pytest.raises(UnreadableFile, match=r"3221225472 bytes .*sparse\).* at most \d+ bytes") as caught:
                refused()
            assert caught.value.errno == errno.EFBIG
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    file.write_bytes(b"12345")
    assert read_file(str(file), max_bytes=5) == b"12345"
    with pytest.raises(UnreadableFile, match=r"5 bytes; expected at most 4 bytes\. Split it\."):
        read_file(str(file), max_bytes=4, limit="Split it")


def test_an_opened_file_is_closed_and_named_in_errors(tmp_path: Path) -> None:
    """Give the lines of a regular file, and refuse what `read_file` refuses."""
    (tmp_path / "a").write_bytes(b"1\n2\n")
    with opened(str(tmp_path / "a")) as lines:
        assert list(lines) == [b"1\n", b"2\n"]
    assert lines.closed
    os.mkfifo(tmp_path / "pipe")
    with (
        pytest.raises(UnreadableFile, match="pipe: cannot be read: it is a pipe"),
        opened(str(tmp_path / "pipe")),
    ):
        pass
