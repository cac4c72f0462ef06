"""Shared memory in large pages, where the kernel has them, and mapped so that they can be used."""

from __future__ import annotations

import errno
import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from headrace.transport import shared
from headrace.transport.shared import LARGE_PAGE, PAGE, allocate, mapped

if TYPE_CHECKING:
    from collections.abc import Iterator

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
SIZES = (1, PAGE, LARGE_PAGE - 1, LARGE_PAGE, LARGE_PAGE + 1, 2 * LARGE_PAGE + 3 * PAGE)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """Open a new file: in memory, where the system has such files."""
    found = os.memfd_create("test") if sys.platform == "linux" else os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield found
    os.close(found)


def maps() -> int:
    """Return how many maps of the file there are."""
    with Path("/proc/self/maps").open(encoding="utf-8") as lines:
        return sum("memfd:test" in line for line in lines)


def kept_free() -> int:
    """Return the bytes of addresses that are mapped and cannot be used."""
    with Path("/proc/self/maps").open(encoding="utf-8") as lines:
        ends = [line.split()[0].split("-") for line in lines if "---p 00000000 00:00 0" in line]
    return sum(int(end, 16) - int(begin, 16) for begin, end in ends)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("collapse", [shared._MADV_COLLAPSE, -1])
def test_all_bytes_are_allocated_zero_and_seen_by_others(
    file: int, size: int, collapse: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Do the same where the kernel knows no large pages."""
    monkeypatch.setattr(shared, "_MADV_COLLAPSE", collapse)
    allocate(file, size)
    about = os.fstat(file)
    assert about.st_size == size
    assert about.st_blocks * 512 >= size
    one, other = mapped(file, size, ready=True), mapped(file, size)
    assert not other.any()
    one[:] = np.arange(size) % 251
    np.testing.assert_array_equal(other, np.arange(size) % 251)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_written_to_a_private_map_is_seen_by_nobody(file: int, size: int) -> None:
    allocate(file, size)
    mine, theirs, shown = (mapped(file, size, private=private) for private in (True, True, False))
    shown[:] = 7
    mine[:: PAGE // 2] = 9
    assert (mine[:: PAGE // 2] == 9).all()
    assert (mine != 7).sum() == len(mine[:: PAGE // 2])
    assert (theirs == 7).all()
    assert (shown == 7).all()


@linux
@pytest.mark.parametrize("size", SIZES)
def test_a_map_ends_with_its_last_array(file: int, size: int) -> None:
    allocate(file, size)
    assert maps() == 0
    found = mapped(file, size, private=True)
    assert found.ctypes.data % (LARGE_PAGE if size >= LARGE_PAGE else PAGE) == 0
    assert maps() == 1
    del found
    gc.collect()
    assert maps() == 0


@linux
def test_no_addresses_stay_reserved_beside_a_map(file: int) -> None:
    """Give back what was reserved to find the place of a large page, also where the map fails."""
    allocate(file, LARGE_PAGE)
    before, many = kept_free(), 200
    for _ in range(many):
        mapped(file, LARGE_PAGE)
        with pytest.raises(OSError, match="mapping") as error:
            mapped(-1, LARGE_PAGE)
        assert error.value.errno == errno.EBADF
    assert kept_free() - before < many * LARGE_PAGE // 2  # other threads may have begun
