"""The store of shared batches: what is put in comes out, within a cap, and nothing is left behind."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace.errors import ArgumentError
from headrace.storage.file_locks import lock_within
from headrace.transport import batch_store
from headrace.transport.batch_store import HEAD, BatchStore, Peer, owned_folder

if TYPE_CHECKING:
    from pathlib import Path

FORK = multiprocessing.get_context("fork")
FACTS = {"seed": 0, "samples": 10}
MOST = 1 << 24
ROW = (1 << 16,)


def name_of(step: int, epoch: int = 0) -> str:
    """Return the name of a batch."""
    return f"{epoch:016x}-{step:016x}-{0:016x}"


def put(store: BatchStore, step: int, value: int, shape: tuple[int, ...] = ROW) -> bool:
    """Publish a batch of one value."""
    with store.write(name_of(step)) as writer:
        array = writer.empty(shape, np.dtype("u1"))
        array[:] = value
        return writer.publish([array, ["a", value]], ("said", value))


@pytest.fixture
def store(tmp_path: Path) -> BatchStore:
    """Return a store with room for a few batches."""
    return BatchStore(tmp_path / "user" / "name", MOST)


def test_what_is_put_in_comes_out(store: BatchStore) -> None:
    """Take a batch as often as wanted, with what was said of it; None for another."""
    peer = store.join(FACTS)
    assert put(store, 3, 7)
    for _ in range(2):
        taken = store.take(name_of(3))
        assert taken is not None
        assert taken.said == ("said", 7)
        assert taken.batch[1] == ["a", 7]
        assert np.array_equal(taken.batch[0], np.full(ROW, 7, "u1"))
        taken.batch[0][:] = 0  # its own pages
    assert store.take(name_of(4)) is None
    peer.leave()


def test_the_last_one_out_deletes_all(store: BatchStore, tmp_path: Path) -> None:
    """Leave nothing: no batch, no folder."""
    first, second = store.join(FACTS), BatchStore(store.folder, MOST).join(FACTS)
    put(store, 0, 1)
    first.leave()
    first.leave()
    assert store.take(name_of(0)) is not None
    second.leave()
    assert not list(tmp_path.iterdir())


def test_a_dropped_peer_leaves(store: BatchStore, tmp_path: Path) -> None:
    """Leave with the last reference."""
    peer = store.join(FACTS)
    del peer
    assert not list(tmp_path.iterdir())


def test_others_must_have_the_same_facts(store: BatchStore) -> None:
    """Name what differs; once nobody is there, anything goes."""
    peer = store.join(FACTS)
    with pytest.raises(ArgumentError, match="seed: 0 there, 1 here") as raised:
        store.join({**FACTS, "seed": 1})
    assert raised.value.found == ("seed",)
    peer.leave()
    store.join({**FACTS, "seed": 1}).leave()


def test_all_agree_on_a_digest(store: BatchStore) -> None:
    """Let the first decide."""
    peer = store.join(FACTS)
    assert store.agree("a")
    assert store.agree("a")
    assert not store.agree("b")
    peer.leave()


def _die_with_batches(store: BatchStore, ready: Any) -> None:
    _ = store.join(FACTS)
    put(store, 0, 1)
    with store.write(name_of(1)) as writer:
        writer.empty(ROW, np.dtype("u1"))
        ready.set()
        signal.pause()


def test_the_next_one_cleans_up_after_a_kill(store: BatchStore) -> None:
    """Kill the only process in the middle of a batch: whoever comes next begins with an empty folder."""
    ready = FORK.Event()
    other = FORK.Process(target=_die_with_batches, args=(store, ready))
    other.start()
    assert ready.wait(60)
    os.kill(other.pid or 0, signal.SIGKILL)
    other.join()
    assert len(list(store.folder.iterdir())) > 3
    peer = store.join({"other": 1})
    assert {path.name.split("-")[0] for path in store.folder.iterdir()} == {"about", "lock", "peer"}
    peer.leave()


def test_a_batch_is_wanted_by_those_that_have_not_had_it(store: BatchStore) -> None:
    """Count the other processes that still need it."""
    mine, other = store.join(FACTS), Peer(store)
    assert store.wanted(name_of(5)) == 1
    other.needs((0, 6))
    assert store.wanted(name_of(5)) == 0
    mine.leave()
    other.leave()


def test_memory_is_reused_when_nobody_holds_it(store: BatchStore) -> None:
    """Write a hundred batches that all have had: a few files are enough."""
    mine, other = store.join(FACTS), Peer(store)
    for step in range(100):
        assert put(store, step, step % 251)
        taken = store.take(name_of(step))
        assert taken is not None
        assert taken.batch[0][0] == step % 251
        mine.needs((0, step + 1))
        other.needs((0, step))
    files = [path for path in store.folder.iterdir() if path.name.startswith(("batch-", "memory-"))]
    assert len(files) <= 5
    del taken
    mine.leave()
    other.leave()


def test_held_arrays_never_change(store: BatchStore) -> None:
    """Hold arrays of old batches, beyond the cap, while new ones are written."""
    store.most = 4 * (ROW[0] * 2 + HEAD)
    mine, other = store.join(FACTS), Peer(store)
    held = []
    for step in range(20):
        if put(store, step, step):
            taken = store.take(name_of(step))
            assert taken is not None
            held.append((step, taken.batch[0]))
        mine.needs((0, step + 1))
        other.needs((0, step + 1 if step < 10 else 10))
    assert len(held) > 10
    assert all((array == step).all() for step, array in held)
    del held, taken
    mine.leave()
    other.leave()


def test_the_cap_holds_and_the_oldest_stays_for_the_slow(store: BatchStore) -> None:
    """Publish more than fits while another process takes none: the first ones stay, the rest is refused."""
    store.most = 5 * (ROW[0] * 2 + HEAD)
    mine, slow = store.join(FACTS), Peer(store)
    published = []
    for step in range(12):
        published.append(put(store, step, step))
        mine.needs((0, step + 1))
        assert sum(path.stat().st_size for path in store.folder.glob("[bm]*-*")) <= store.most
    count = sum(published)
    assert 3 <= count < 12
    assert published == [True] * count + [False] * (12 - count)
    assert store.take(name_of(0)) is not None
    mine.leave()
    slow.leave()


def test_one_process_that_stands_still_does_not_fill_the_store(store: BatchStore) -> None:
    """Drop what one process needs for what two need."""
    store.most = 5 * (ROW[0] * 2 + HEAD)
    mine, other, stopped = store.join(FACTS), Peer(store), Peer(store)
    for step in range(30):
        assert put(store, step, step)
        assert store.take(name_of(step)) is not None
        mine.needs((0, step + 1))
        other.needs((0, step + 1))
    for peer in (mine, other, stopped):
        peer.leave()


def test_a_full_disk_refuses_the_batch(store: BatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no byte be allocated: the batch is not published, its copy is whole, and no file stays."""

    def full(file: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    mine, other = store.join(FACTS), Peer(store)
    put(store, 0, 1)
    monkeypatch.setattr(batch_store, "allocate", full)
    assert put(store, 2, 2, (1 << 20,)) is False
    with store.write(name_of(3)) as writer:  # lent: the memory of batch 0, once all have had it
        assert not writer.lends
    mine.needs((0, 1))
    other.needs((0, 1))
    with store.write(name_of(3)) as writer:
        array = writer.empty(ROW, np.dtype("u1"))
        assert writer.lends
        array[:] = 9
        monkeypatch.setattr(batch_store, "HEAD", 8)  # what is said of it has no room either
        assert not writer.publish([array], None)
        copy = writer.copied([array])
        array[:] = 0
    assert (copy[0] == 9).all()
    mine.leave()
    other.leave()


def test_a_full_disk_when_joining_leaves_no_peer(store: BatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a place not be written: nobody counts who could not join."""
    mine = store.join(FACTS)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="full"):
            BatchStore(store.folder, MOST).join(FACTS)
    assert store.wanted(name_of(0)) == 0
    assert len(list(store.folder.glob("peer-*"))) == 1
    mine.leave()


def test_a_full_disk_keeps_what_the_batches_are_made_of(store: BatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a digest not be written: the facts stay, so others can still join."""
    mine = store.join(FACTS)

    def half(path: Path, text: str, **_: object) -> None:
        path.write_bytes(text[: len(text) // 2].encode())
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(type(store.folder), "write_text", half)
        with pytest.raises(OSError, match="full"):
            store.agree("a")
    other = BatchStore(store.folder, MOST).join(FACTS)
    assert store.agree("a")
    mine.leave()
    other.leave()
    assert not store.folder.exists()


def test_who_is_taken_for_dead_joins_again(store: BatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for the dead between the making of a file and its lock."""
    mine = store.join(FACTS)
    looks = iter([store._places])

    def late(file: int, seconds: float) -> None:
        for look in looks:
            look()
        lock_within(file, seconds)

    monkeypatch.setattr(batch_store, "lock_within", late)
    other = Peer(store)
    assert store.wanted(name_of(0)) == 1
    mine.leave()
    other.leave()


def test_memory_of_deleted_files_is_not_kept(store: BatchStore) -> None:
    """Let another process delete what this one wrote: its maps go with the next batch."""
    mine, other = store.join(FACTS), Peer(store)
    for step in range(3):
        put(store, step, step)
    assert len(store._maps) == 3
    for path in store.folder.glob("batch-*"):
        path.unlink()
    put(store, 3, 3)
    assert len(store._maps) == 1
    mine.leave()
    other.leave()


def test_a_stopped_process_with_the_lock_is_waited_for_once(store: BatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold the lock: only the first batch waits, and the first one after it is freed is published."""
    waits = []

    def counted(file: int, seconds: float) -> None:
        waits.append(seconds)
        lock_within(file, min(seconds, 0.01))

    mine, other = store.join(FACTS), Peer(store)
    monkeypatch.setattr(batch_store, "lock_within", counted)
    with BatchStore(store.folder, MOST)._locked():
        assert not put(store, 0, 0)
        assert not put(store, 1, 1)
    assert waits == [batch_store.LOCKED_SECONDS] * 2 + [0]
    assert put(store, 2, 2)
    monkeypatch.undo()
    mine.leave()
    other.leave()


class Stubborn:
    """Can be pickled, and not unpickled."""

    def __reduce__(self) -> Any:
        return divmod, (1, 0)


def test_what_cannot_be_unpickled_is_no_batch(store: BatchStore) -> None:
    """Publish an object that is not read again: everybody makes it."""
    peer = store.join(FACTS)
    with store.write(name_of(0)) as writer:
        writer.publish([np.zeros(ROW), Stubborn()], None)
    with store.write(name_of(1)) as writer:
        writer.publish([np.zeros(ROW)], Stubborn())
    assert store.take(name_of(0)) is store.take(name_of(1)) is None
    peer.leave()


@pytest.mark.parametrize("at", [0, 3, 12, 20, 60])
def test_a_damaged_head_is_no_batch(store: BatchStore, at: int) -> None:
    """Flip a bit of what says where the arrays are, in a file of our own name."""
    peer = store.join(FACTS)
    put(store, 0, 1)
    path = store.folder / f"batch-{name_of(0)}"
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))
    assert store.take(name_of(0)) is None
    peer.leave()


def test_another_batch_under_the_name_is_none(store: BatchStore) -> None:
    """Rename a batch: its own name is inside."""
    peer = store.join(FACTS)
    put(store, 0, 1)
    (store.folder / f"batch-{name_of(0)}").rename(store.folder / f"batch-{name_of(1)}")
    assert store.take(name_of(1)) is None
    (store.folder / f"batch-{name_of(2)}").symlink_to(store.folder / f"batch-{name_of(1)}")
    assert store.take(name_of(2)) is None
    os.mkfifo(store.folder / f"batch-{name_of(3)}")
    assert store.take(name_of(3)) is None
    peer.leave()


def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    """Refuse a folder that others may enter, and a link to one."""
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(ArgumentError, match="cannot be trusted"):
        owned_folder(tmp_path / "open")
    owned_folder(tmp_path / "ours")
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    with pytest.raises(ArgumentError, match="cannot be trusted"):
        owned_folder(tmp_path / "link")


def test_a_store_that_was_deleted_gives_nothing(store: BatchStore) -> None:
    """Delete the folder under a process: nothing is taken, wanted or published, and no error but of claims comes."""
    peer = store.join(FACTS)
    put(store, 0, 1)
    for path in store.folder.iterdir():
        path.unlink()
    store.folder.rmdir()
    assert store.take(name_of(0)) is None
    assert not put(store, 1, 1)
    with pytest.raises(FileNotFoundError):
        store.claim(name_of(2))
    peer.leave()
