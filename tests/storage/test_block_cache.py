"""The cache of blocks: its cap, kills, full and read-only disks, damage, and what it never deletes."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import resource
import signal
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headrace.errors import ArgumentError
from headrace.storage import block_cache, blocks
from headrace.storage.block_cache import BlockCache, Claim, Entry, least_recent
from headrace.storage.blocks import Blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BLOCK, COUNT = 4096, 24
FACTS = (BLOCK * COUNT - 100, 7)
CAP = (BLOCK + 4) * 8


def content(begin: int, end: int) -> bytes:
    """Return bytes that differ at each place of the object."""
    first, last = begin // 8, -(-end // 8)
    whole = b"".join((number * 2654435761).to_bytes(8, "little") for number in range(first, last))
    return whole[begin - first * 8 : end - first * 8]


def fetched(_url: str, begin: int, end: int) -> tuple[bytes, tuple[int, int]]:
    return content(begin, end), FACTS


def nbytes(folder: Path) -> int:
    with BlockCache(folder, CAP)._locked():  # else a file that is renamed or replaced meanwhile counts twice
        return sum(path.stat().st_size for path in folder.iterdir() if path.name != block_cache.STATE)


def name(number: int) -> str:
    return f"{0:032x}-{number:08x}"


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", BLOCK)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def claimed(cache: BlockCache, number: int, size: int) -> Claim:
    claim = cache.claim(name(number), size)
    assert isinstance(claim, Claim)
    return claim


def held(folder: Path, number: int, data: bytes = b"data", most: int = CAP) -> BlockCache:
    cache = BlockCache(folder, most)
    claim = claimed(cache, number, len(data))
    claim.finish(data)
    return cache


class TestBlocks:
    def test_a_block_is_fetched_once_and_shared_by_all_readers(self, folder: Path) -> None:
        first, second = (Blocks(BlockCache(folder, CAP), fetched) for _ in range(2))
        assert first.read("s3://a/b", 100, 5000, FACTS) == content(100, 5100)
        assert second.read("s3://a/b", 4096, 10, FACTS) == content(4096, 4106)
        assert (first.counts.requests, second.counts.requests, second.counts.hits) == (1, 0, 1)

    def test_another_version_of_an_object_has_blocks_of_its_own(self, folder: Path) -> None:
        Blocks(BlockCache(folder, CAP), fetched).read("s3://a/b", 0, 10, FACTS)
        newer = (FACTS[0], 8)
        other = Blocks(BlockCache(folder, CAP), lambda _url, begin, end: (bytes(end - begin), newer))
        assert other.read("s3://a/b", 0, 10, newer) == bytes(10)

    def test_neighboring_blocks_are_one_request(self, folder: Path) -> None:
        asked: list[tuple[int, int]] = []

        def fetch(url: str, begin: int, end: int) -> tuple[bytes, tuple[int, int]]:
            asked.append((begin, end))
            return fetched(url, begin, end)

        reader = Blocks(BlockCache(folder, CAP * 9), fetch)
        reader.ensure([("u://a", BLOCK * number, 10, FACTS) for number in (3, 1, 2, 9)])
        assert sorted(asked) == [(BLOCK, BLOCK * 4), (BLOCK * 9, BLOCK * 10)]
        assert reader.read("u://a", 0, FACTS[0], FACTS) == content(0, FACTS[0])

    def test_threads_that_want_one_block_make_one_request(self, folder: Path) -> None:
        begun = threading.Event()
        go = threading.Event()

        def fetch(url: str, begin: int, end: int) -> tuple[bytes, tuple[int, int]]:
            begun.set()
            assert go.wait(60)
            return fetched(url, begin, end)

        reader = Blocks(BlockCache(folder, CAP), fetch)
        found: list[bytes] = []
        threads = [threading.Thread(target=lambda: found.append(reader.read("u://a", 0, 9, FACTS))) for _ in range(8)]
        for thread in threads:
            thread.start()
        assert begun.wait(60)
        go.set()
        for thread in threads:
            thread.join()
        assert found == [content(0, 9)] * 8
        assert reader.counts.requests == 1

    def test_a_request_that_fails_leaves_no_claim_behind(self, folder: Path) -> None:
        def broken(_url: str, _begin: int, _end: int) -> tuple[bytes, tuple[int, int]]:
            raise OSError("broken")

        reader = Blocks(BlockCache(folder, CAP), broken)
        for _ in range(2):
            with pytest.raises(OSError, match="broken"):
                reader.read("u://a", 0, 9, FACTS)
        assert reader.disk.status().nbytes == 0
        claimed(reader.disk, 0, CAP - 4).give_up()

    def test_without_a_cap_nothing_is_written(self, folder: Path) -> None:
        reader = Blocks(BlockCache(folder, 0), fetched)
        assert reader.read("u://a", 5, 9000, FACTS) == content(5, 9005)
        assert not folder.exists()


class TestCap:
    def test_the_cap_holds_while_more_is_read_than_fits(self, folder: Path) -> None:
        reader = Blocks(BlockCache(folder, CAP), fetched, in_memory=0)
        for number in range(COUNT):
            reader.read("u://a", number * BLOCK, 5, FACTS)
            assert nbytes(folder) <= CAP
        assert reader.disk.status().blocks > 4

    def test_what_is_in_the_making_counts(self, folder: Path) -> None:
        cache = BlockCache(folder, 2 * 104)
        claims = [claimed(cache, number, 100) for number in range(2)]
        assert cache.claim(name(2), 100) is None
        assert cache.claim(name(1), 100) == "busy"
        for claim in claims:
            claim.give_up()
        assert cache.status().nbytes == 0

    def test_the_least_recently_used_block_goes_first(self, folder: Path) -> None:
        cache = held(folder, 1, b"x" * 100, 2 * 104)
        held(folder, 2, b"x" * 100, 2 * 104)
        for number, used in ((1, 2_000), (2, 1_000)):
            os.utime(folder / f"{name(number)}.block", ns=(used, 0))
        claim = claimed(cache, 3, 100)
        assert (folder / f"{name(1)}.block").exists()
        assert not (folder / f"{name(2)}.block").exists()
        claim.give_up()

    def test_another_order_of_eviction_may_be_given(self, folder: Path) -> None:
        def last_name_first(entries: Sequence[Entry]) -> Sequence[Entry]:
            return sorted(entries, reverse=True)

        held(folder, 1, b"x" * 100, 2 * 104)
        held(folder, 2, b"x" * 100, 2 * 104)
        claim = claimed(BlockCache(folder, 2 * 104, last_name_first), 3, 100)
        assert sorted(path.name[-14:] for path in folder.glob("*.block")) == ["00000001.block"]
        claim.give_up()

    def test_a_large_cache_is_not_listed_at_each_eviction(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take those that were to go next, but none that was used or deleted since."""
        monkeypatch.setattr(block_cache, "FEW", 0)
        monkeypatch.setattr(block_cache, "QUEUED", 2)
        asked = list[int]()

        def eviction(entries: Sequence[Entry]) -> Sequence[Entry]:
            asked.append(len(entries))
            return least_recent(entries)

        cache = BlockCache(folder, 8 * 104, eviction)
        for number in range(8):
            claimed(cache, number, 100).finish(bytes(100))
            os.utime(folder / f"{name(number)}.block", ns=(number, number))
        claimed(cache, 8, 100).finish(bytes(100))
        os.utime(folder / f"{name(1)}.block", ns=(100, 100))
        (folder / f"{name(2)}.block").rename(folder / f"{name(9)}.block")
        claimed(cache, 10, 100).finish(bytes(100))
        assert asked == [8, 4]
        assert [number for number in range(11) if cache.has(name(number))] == [1, 4, 5, 6, 7, 8, 9, 10]
        for number in range(11, 30):
            claimed(cache, number, 100).finish(bytes(100))
            assert cache.status().nbytes <= cache.most
        assert 4 in asked[2:]

    def test_the_file_of_a_block_that_was_fetched_again_is_the_new_one(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(block_cache, "TRUSTED_SECONDS", 0.0)
        cache = held(folder, 1)
        path = next(folder.glob("*.block"))
        os.utime(path, ns=(0, 10**9))
        before = cache.file(name(1), 4)
        path.unlink()
        held(folder, 1)
        os.utime(path, ns=(0, 2 * 10**9))
        after = cache.file(name(1), 4)
        assert before is not None
        assert after == before._replace(modified=2 * 10**9)

    def test_a_lost_count_is_made_again(self, folder: Path) -> None:
        cache = held(folder, 1, b"x" * 100, 2 * 104)
        (folder / block_cache.STATE).unlink()
        claims = [claimed(cache, number, 100) for number in (2, 3)]
        assert nbytes(folder) <= 2 * 104
        for claim in claims:
            claim.give_up()


def _read_on(folder: Path, seed: int, out: int) -> None:
    """Read at random for ever, and write a byte after each read; "!" for a wrong one."""
    reader, draw = Blocks(BlockCache(folder, CAP), fetched, in_memory=0), random.Random(seed)
    while True:
        begin = draw.randrange(FACTS[0] - 1)
        length = draw.randrange(1, min(3 * BLOCK, FACTS[0] - begin) + 1)
        os.write(out, b"." if reader.read("u://a", begin, length, FACTS) == content(begin, begin + length) else b"!")


def _forked(work: Callable[[int], None]) -> tuple[int, int]:
    into, out = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(into)
            work(out)
            os._exit(0)
        finally:
            os._exit(3)
    os.close(out)
    return child, into


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_processes_that_are_killed_leave_no_wrong_byte_and_keep_the_cap(folder: Path) -> None:
    draw = random.Random(1)
    for _ in range(8):
        seeds = draw.randrange(1 << 30), draw.randrange(1 << 30)
        children = [_forked(partial(_read_on, folder, seed)) for seed in seeds]
        for child, into in children:
            for _ in range(draw.randrange(1, 30)):
                assert os.read(into, 1) == b"."
                assert nbytes(folder) <= CAP
            os.kill(child, signal.SIGKILL)
        for child, into in children:
            assert os.waitpid(child, 0)[1] == signal.SIGKILL
            left = b"".join(iter(lambda into=into: os.read(into, 4096), b""))
            assert b"!" not in left
            os.close(into)
    cache = BlockCache(folder, CAP)
    assert cache.verify()[1] == []
    whole = Blocks(cache, fetched).read("u://a", 0, FACTS[0], FACTS)
    assert whole == content(0, FACTS[0])
    assert nbytes(folder) <= CAP


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_the_lock_and_the_claim_of_a_dead_process_are_free(folder: Path) -> None:
    cache = BlockCache(folder, CAP)

    def work(out: int) -> None:
        with cache._locked():
            claimed = os.open(folder / f"{name(1)}.part", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(claimed, fcntl.LOCK_EX)
            os.write(out, b".")
            signal.pause()

    child, into = _forked(work)
    assert os.read(into, 1) == b"."
    assert not cache.wait(name(1), 0)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(into)
    assert cache.wait(name(1), 20)
    claim = claimed(cache, 1, 5)
    claim.finish(b"hello")
    assert cache.part(name(1), 5, 0, 5) == b"hello"


class TestDisks:
    @pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
    def test_a_disk_that_takes_no_more_bytes_never_fails_the_run(self, folder: Path) -> None:
        def work(out: int) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # the kernel refuses each block (EFBIG)
            reader = Blocks(BlockCache(folder, CAP), fetched)
            with pytest.warns(RuntimeWarning, match="kept in memory"):
                data = reader.read("u://a", 0, FACTS[0], FACTS)
            assert data == content(0, FACTS[0])
            assert reader.disk.status().nbytes == 0
            os.write(out, b".")

        child, into = _forked(work)
        assert os.read(into, 1) == b"."
        assert os.waitpid(child, 0)[1] == 0
        os.close(into)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
    def test_a_full_disk_at_the_write_gives_the_claim_back(self, folder: Path) -> None:
        cache = BlockCache(folder, CAP)
        claim = claimed(cache, 1, 100)
        full = os.open("/dev/full", os.O_RDWR)
        os.dup2(full, claim._file)
        os.close(full)
        with pytest.raises(OSError) as caught:  # noqa: PT011  its errno is looked at
            claim.finish(b"x" * 100)
        assert caught.value.errno == errno.ENOSPC
        assert cache.part(name(1), 100, 0, 1) is None

    def test_a_folder_that_cannot_be_made_is_done_without(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        reader = Blocks(BlockCache(tmp_path / "file" / "cache", CAP), fetched)
        with pytest.warns(RuntimeWarning, match="cannot be used"):
            assert reader.read("u://a", 0, 10, FACTS) == content(0, 10)
        assert reader.read("u://a", 0, 10, FACTS) == content(0, 10)
        assert reader.counts.requests == 1

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any folder")
    def test_a_read_only_cache_is_read(self, folder: Path) -> None:
        Blocks(BlockCache(folder, CAP), fetched).read("u://a", 0, 10, FACTS)
        folder.chmod(0o500)
        try:
            reader = Blocks(BlockCache(folder, CAP), fetched)
            assert reader.read("u://a", 0, 10, FACTS) == content(0, 10)
            assert reader.counts.requests == 0
            with pytest.warns(RuntimeWarning, match="kept in memory"):
                assert reader.read("u://a", BLOCK, 10, FACTS) == content(BLOCK, BLOCK + 10)
        finally:
            folder.chmod(0o700)

    def test_a_folder_that_is_deleted_in_mid_run_is_made_again(self, folder: Path) -> None:
        reader = Blocks(BlockCache(folder, CAP), fetched, in_memory=0)
        reader.read("u://a", 0, 10, FACTS)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        assert reader.read("u://a", 0, 10, FACTS) == content(0, 10)
        assert reader.disk.status().blocks == 1

    def test_a_folder_that_is_deleted_during_a_download_costs_nothing_but_the_block(self, folder: Path) -> None:
        cache = BlockCache(folder, CAP)
        claim = claimed(cache, 1, 5)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        with pytest.raises(FileNotFoundError):
            claim.finish(b"hello")
        assert held(folder, 1, b"hello").part(name(1), 5, 0, 5) == b"hello"

    def test_file_systems_without_locks_are_done_without(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(_file: int, _how: int) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", refuse)
        reader = Blocks(BlockCache(folder, CAP), fetched)
        with pytest.warns(RuntimeWarning, match="No locks available"):
            assert reader.read("u://a", 0, 10, FACTS) == content(0, 10)


class TestDamage:
    @pytest.mark.parametrize("how", ["flipped", "cut", "empty"])
    def test_a_damaged_block_is_fetched_again(self, folder: Path, how: str) -> None:
        Blocks(BlockCache(folder, CAP), fetched).read("u://a", 0, 10, FACTS)
        (block,) = folder.glob("*.block")
        data = bytearray(block.read_bytes())
        data[700] ^= 1
        block.write_bytes({"flipped": bytes(data), "cut": bytes(data[:600]), "empty": b""}[how])
        reader = Blocks(BlockCache(folder, CAP), fetched)
        assert reader.read("u://a", 0, BLOCK, FACTS) == content(0, BLOCK)
        assert reader.counts.requests == 1
        assert reader.disk.verify() == (1, [])

    def test_a_damaged_block_has_no_file(self, folder: Path) -> None:
        held(folder, 1)
        assert BlockCache(folder, CAP).file(name(1), 4) is not None
        (folder / f"{name(1)}.block").write_bytes(b"datawhat")
        assert BlockCache(folder, CAP).file(name(1), 4) is None
        assert not list(folder.glob("*.block"))

    def test_a_file_is_looked_at_again_after_a_moment(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        cache = held(folder, 1)
        found = cache.file(name(1), 4)
        (folder / f"{name(1)}.block").unlink()
        assert cache.file(name(1), 4) == found
        monkeypatch.setattr(block_cache, "TRUSTED_SECONDS", -1)
        assert cache.file(name(1), 4) is None

    def test_a_file_is_given_although_another_thread_finds_it_gone(self, folder: Path) -> None:
        """Evict a block, and let another thread notice, at the moment at which its file was looked at."""

        class Forgotten(dict[str, Any]):
            def __setitem__(self, key: str, value: Any) -> None:
                (folder / f"{key}.block").unlink()

        cache = held(folder, 0)
        cache._verified = Forgotten()
        found = cache.file(name(0), 4)
        assert found is not None
        assert found.path == os.fsencode(folder / f"{name(0)}.block")
        assert cache.file(name(0), 4) is None

    def test_verify_deletes_damaged_blocks(self, folder: Path) -> None:
        cache = held(folder, 1)
        held(folder, 2)
        (folder / f"{name(1)}.block").write_bytes(b"what")
        assert cache.verify() == (1, [f"{name(1)}.block"])
        assert cache.status().blocks == 1


class TestClear:
    def test_everything_that_was_downloaded_is_deleted_and_nothing_else(self, folder: Path) -> None:
        cache = held(folder, 1)
        held(folder, 2)
        assert cache.clear() == (2, 16)
        assert [path.name for path in folder.iterdir()] == [block_cache.STATE]

    def test_a_folder_with_files_of_others_is_refused(self, folder: Path) -> None:
        cache = held(folder, 1)
        (folder / "thesis.txt").write_text("mine")
        with pytest.raises(ArgumentError, match=r"thesis\.txt"):
            cache.clear()
        assert cache.status().strangers == ("thesis.txt",)
        assert cache.status().blocks == 1

    def test_a_folder_that_never_was_a_cache_is_refused(self, folder: Path) -> None:
        folder.mkdir()
        with pytest.raises(ArgumentError, match="no cache"):
            BlockCache(folder, CAP).clear()

    def test_no_link_is_followed(self, folder: Path, tmp_path: Path) -> None:
        target = tmp_path / "target"
        target.write_bytes(b"data" + b"0000")
        cache = held(folder, 1)
        (folder / f"{name(2)}.block").symlink_to(target)
        assert cache.part(name(2), 4, 0, 4) is None
        with pytest.raises(ArgumentError):
            cache.clear()
        assert target.exists()
        assert (folder / f"{name(2)}.block").is_symlink()

    def test_eviction_spares_files_of_others(self, folder: Path) -> None:
        held(folder, 1, b"x" * 100, 104)
        (folder / "thesis.txt").write_text("mine")
        claimed(BlockCache(folder, 104), 2, 100).give_up()
        assert not list(folder.glob("*.block"))
        assert (folder / "thesis.txt").read_text() == "mine"


def test_the_environment_sets_folder_and_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(blocks.FOLDER, str(tmp_path / "blocks"))
    monkeypatch.setenv(blocks.MOST, "1000")
    found = blocks.cache_of_environment()
    assert (found.folder, found.most) == (tmp_path / "blocks", 1000)
    for given, expected in (("10GB", 10**10), ("500MiB", 500 << 20), ("1.5 k", 1500), ("0", 0), ("", 1 << 34)):
        monkeypatch.setenv(blocks.MOST, given)
        assert blocks.cache_of_environment().most == expected
    for given in ("ten", "-1", "10XB", "9" * 400):
        monkeypatch.setenv(blocks.MOST, given)
        with pytest.raises(ArgumentError, match=f"{blocks.MOST} must be a number of bytes from 0 up"):
            blocks.cache_of_environment()
