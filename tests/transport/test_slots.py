"""Slots: who may write where, whoever drops a batch and whenever; and what is left where memory or descriptors end."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from headrace.transport import shared
from headrace.transport.channel import HEADER, LOST, Channel
from headrace.transport.slots import SlotAllocator, SlotReader

ROWS = 5000


def delivered(reader: SlotReader, allocator: SlotAllocator, value: int) -> tuple[int, np.ndarray]:
    """Send one batch from end to end; return its slot too."""
    slot, fresh = reader.lend()
    message, descriptor = allocator.begin(slot, fresh=fresh).pack(np.full(ROWS, value))
    return slot, reader.open(message, descriptor)


def test_a_batch_that_is_held_is_never_written_to() -> None:
    """Keep all batches, with fewer slots than that: each has memory of its own."""
    reader, allocator = SlotReader(2), SlotAllocator()
    kept = [delivered(reader, allocator, value)[1] for value in range(9)]
    assert [set(batch.tolist()) for batch in kept] == [{value} for value in range(9)]


def test_a_batch_dropped_late_does_not_free_what_is_lent_again() -> None:
    """Lend a slot that is held, and drop the old batch: the slot is not lent twice at a time."""
    reader, allocator = SlotReader(1), SlotAllocator()
    _, held = delivered(reader, allocator, 1)
    slot, fresh = reader.lend()
    assert fresh
    del held
    box = allocator.begin(slot, fresh=fresh)
    batch = reader.open(*box.pack(np.full(ROWS, 2)))
    again, fresh = reader.lend()
    assert (again, fresh) == (slot, True)
    assert set(batch.tolist()) == {2}


def test_bfloat16_lies_in_the_slot_as_other_dtypes_do() -> None:
    """Send the memory beside the pickle, of arrays made in the slot and of others, down to those of no size."""
    dtype = np.dtype(ml_dtypes.bfloat16)
    reader, allocator = SlotReader(1), SlotAllocator()
    for turn in range(2):
        slot, fresh = reader.lend()
        box = allocator.begin(slot, fresh=fresh)
        made = box.empty((ROWS, 2), dtype)
        made[...] = turn + 1
        others = np.full((2, ROWS), 7, dtype), np.full(3, 5, dtype), np.ones((0, 4), dtype)
        message, descriptor = box.pack([made, *others])
        assert message.head is not None
        assert len(message.head) < 1000
        assert (descriptor is None) is bool(turn)
        large, other, small, none = reader.open(message, descriptor)
        assert {batch.dtype for batch in (large, other, small, none)} == {dtype}
        assert {batch.flags.writeable for batch in (large, other, small)} == {True}
        assert (large.shape, set(large.ravel().tolist())) == ((ROWS, 2), {turn + 1})
        assert (other.shape, set(other.ravel().tolist())) == ((2, ROWS), {7})
        assert (small.tolist(), none.shape) == ([5, 5, 5], (0, 4))
        del large, other, small, none


def test_memory_that_could_not_be_received_is_not_gone_on_with() -> None:
    """Say what is the matter, take the slot back, and have the worker begin on memory that both know."""
    reader, allocator = SlotReader(1), SlotAllocator()
    slot, fresh = reader.lend()
    message, descriptor = allocator.begin(slot, fresh=fresh).pack(np.full(ROWS, 1))
    assert descriptor is not None
    os.close(descriptor)
    with pytest.raises(OSError, match="too many files open: raise the limit"):
        reader.open(message, LOST)
    _, batch = delivered(reader, allocator, 2)
    assert set(batch.tolist()) == {2}


def test_memory_that_cannot_be_mapped_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send the batch itself where a slot can be made but not mapped; leave no descriptor."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    allocator = SlotAllocator()
    monkeypatch.setattr(shared, "PAGE", 1 << 47)  # rounds the slot up to more than there are addresses
    monkeypatch.setattr(os, "posix_fallocate", lambda fd, start, size: None)
    message, descriptor = allocator.begin(0, fresh=True).pack(np.full(ROWS, 1))
    monkeypatch.undo()
    assert descriptor is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    reader = SlotReader(1)
    reader.lend()
    assert set(reader.open(message, None).tolist()) == {1}


def test_a_message_cut_short_leaves_no_descriptor() -> None:
    """Die between a descriptor and the message it belongs to: the reader sees the end, and closes what came."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    ours, theirs = Channel.pair()
    with Path(os.devnull).open() as file:
        socket.send_fds(theirs.socket, [HEADER.pack(100, 1)], [file.fileno()])
    theirs.socket.sendall(b"not all of it")
    theirs.close()
    with pytest.raises(EOFError):
        ours.receive()
    ours.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_channel_says_when_it_is_full() -> None:
    """Have room again once the other end has read."""
    ours, theirs = Channel.pair()
    sent = 0
    while ours.has_room:
        ours.send(bytes(1000))
        sent += 1
    assert sent > 10
    for _ in range(sent):
        theirs.receive()
    assert ours.has_room
    ours.close()
    theirs.close()
