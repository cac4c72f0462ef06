"""Batches in slots of shared memory that is reused: large arrays are never copied, small ones are sent.

    SlotReader.lend ──slot──> SlotAllocator.begin … SlotWriter.empty … pack ──message──> SlotReader.open ──> the user
         ^                                                                                                     │
         └───────────────────────────────────── dropped by the user ──────────────────────────────────────────┘

The worker writes arrays straight into the slot that it was lent (`SlotWriter.empty`), and packing them costs nothing.
Pickle (protocol 5) takes the rest, with large buffers out of band, copied into the slot. The loader opens a message as
arrays over the slot. When the user drops the last of them, the slot is free to be lent again.

A slot is a piece of memory under a number. To grow it, the worker makes a larger piece and sends its descriptor along;
both map it and close the descriptor. A user who keeps all batches never blocks a worker: a slot that is still held is
lent again with the order to use fresh memory, and only the user keeps the old piece.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.storage.mapped_samples import copy_guarded
from headrace.transport import shared
from headrace.transport.channel import LOST
from headrace.transport.out_of_band import dumped

Bytes = npt.NDArray[np.uint8]

Grow = Callable[[int], tuple[int | None, Bytes]]
"""Makes a piece of memory; a descriptor of it comes along if it is to be sent."""

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector registers."""

IN_BAND = 1024
"""Bytes; smaller buffers are copied into the pickle."""

LARGE_HEAD = 1 << 14
"""Bytes; a larger pickle travels in the slot, so that no message can fill the socket."""


@dataclass(frozen=True, slots=True)
class Message:
    """A batch on its way: its slot, its pickle, and where its buffers lie."""

    slot: int
    size: int
    """Bytes of the slot's new piece of memory, whose descriptor comes along; 0 if the piece is known."""
    head: bytes | None
    """The pickle; None if it lies in the slot, as the last span."""
    spans: tuple[tuple[int, int], ...]
    loose: tuple[Any, ...] = ()
    """The buffers themselves, if shared memory could not be allocated."""


class SlotAllocator:
    """The worker's end: allocates the memory of the slots."""

    def __init__(self) -> None:
        self.pieces: dict[int, Bytes] = {}

    def begin(self, slot: int, *, fresh: bool) -> SlotWriter:
        """Start a batch in a slot; ``fresh`` if the user still holds the last batch there: then in new memory."""
        if fresh:
            self.pieces.pop(slot, None)
        return SlotWriter(self.pieces, slot)


class SlotWriter:
    """Writes one batch into a slot, on the worker's side; several threads may each write one.

    ``grow`` makes a larger piece of memory, of so many bytes at least, or raises OSError.
    """

    def __init__(self, pieces: dict[int, Bytes], slot: int, grow: Grow | None = None) -> None:
        self._pieces = pieces
        self._slot = slot
        self._grow = grow or _new_piece
        self._used = 0

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any] | type[Any]) -> npt.NDArray[Any]:
        """Lend an array in the slot, or outside if it does not fit: `pack` then makes the slot larger."""
        dtype = np.dtype(dtype)
        nbytes = prod(shape) * dtype.itemsize
        piece = self._pieces.get(self._slot)
        if dtype.hasobject or nbytes < IN_BAND or piece is None or self._used + nbytes > len(piece):
            return np.empty(shape, dtype)
        start, self._used = self._used, _aligned(self._used + nbytes)
        return piece[start : start + nbytes].view(dtype).reshape(shape)

    def pack(self, batch: Any) -> tuple[Message, int | None]:
        """Return the message, and the descriptor to send with it, which the caller then closes."""
        buffers: list[Bytes] = []

        def apart(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            if raw.nbytes < IN_BAND:
                return True  # in band
            buffers.append(np.frombuffer(raw, np.uint8))
            return False

        head: bytes | None = dumped(batch, apart)
        if head is not None and len(head) > LARGE_HEAD:
            buffers.append(np.frombuffer(head, np.uint8))
            head = None
        return self._placed(head, buffers)

    def _placed(self, head: bytes | None, buffers: list[Bytes]) -> tuple[Message, int | None]:
        piece = self._pieces.get(self._slot)
        inside = [_offset(buffer, piece) for buffer in buffers]
        more = sum(_aligned(len(b)) for b, at in zip(buffers, inside, strict=True) if at is None)
        descriptor, size = None, 0
        if more and (piece is None or self._used + more > len(piece)):
            # An eighth more than needed, so that batches of nearly the same size do not each grow the slot.
            size = sum(_aligned(len(buffer)) for buffer in buffers) * 9 // 8
            size = -(-size // shared.PAGE) * shared.PAGE
            try:
                descriptor, piece = self._grow(size)
            except OSError:
                # Free memory for the copies that go over the channel; each slot gets new memory with its next batch.
                self._pieces.clear()
                return Message(
                    self._slot, 0, head, (), tuple(pickle.PickleBuffer(buffer.data) for buffer in buffers)
                ), None
            self._pieces[self._slot] = piece
            inside, self._used = [None] * len(buffers), 0
        spans = []
        for buffer, place in zip(buffers, inside, strict=True):
            start = self._used if place is None else place
            if place is None:
                assert piece is not None  # noqa: S101  for the type checker: made above if it was not there
                copy_guarded(piece[start : start + len(buffer)], buffer)  # of a user's own collate_fn, maybe mapped
                self._used = _aligned(start + len(buffer))
            spans.append((start, len(buffer)))
        return Message(self._slot, size, head, tuple(spans)), descriptor


class SlotReader:
    """The loader's end, for one worker: lends slots, and opens the batches that come in them.

    One thread at a time calls it; any thread drops batches, even in the middle of a call.
    """

    def __init__(self, slots: int) -> None:
        self._free = deque(range(slots))
        self._held: dict[int, int] = {}
        """By slot, the number of its batch's lease; the oldest first."""
        self._dropped: deque[tuple[int, int]] = deque()
        """Slot and number of each lease that has ended."""
        self._pieces: dict[int, Bytes] = {}
        self._leases = count()

    def lend(self) -> tuple[int, bool]:
        """Return a slot, and whether its batch needs fresh memory because the user holds the last one."""
        while self._dropped:
            slot, lease = self._dropped.popleft()
            if self._held.get(slot) == lease:  # otherwise it was lent again meanwhile
                del self._held[slot]
                self._free.append(slot)
        if self._free:
            slot = self._free.popleft()
        else:
            slot = next(iter(self._held))
            del self._held[slot]
            self._pieces.pop(slot, None)
        # The worker never reuses memory that is not known here.
        return slot, slot not in self._pieces

    def open(self, message: Message, descriptor: int | None) -> Any:
        """Return the batch, whose arrays are views of the slot; the slot is free when the last of them is dropped."""
        slot = message.slot
        try:
            self._grow(message, descriptor)
        except OSError:
            self.give_back(slot)
            raise
        piece = self._pieces.get(slot)
        number = self._held[slot] = next(self._leases)
        lease = _Lease(self._dropped, slot, number, piece)
        if piece is None or message.loose:
            buffers: list[Any] = [
                # Read-only buffers come as bytes, and a batch must be writable.
                np.frombuffer(bytearray(loose) if isinstance(loose, bytes) else loose, np.uint8)
                for loose in message.loose
            ]
        else:
            whole = np.asarray(lease)
            buffers = [whole[start : start + length] for start, length in message.spans]
        return unpacked(message, buffers)

    def refuse(self, message: Message, descriptor: int | None) -> None:
        """Take back a slot whose batch nobody waits for any more."""
        with contextlib.suppress(OSError):
            self._grow(message, descriptor)
        self.give_back(message.slot)

    def give_back(self, slot: int) -> None:
        """Take back a slot that was not used."""
        self._free.append(slot)

    def _grow(self, message: Message, descriptor: int | None) -> None:
        if descriptor is None:
            return
        self._pieces.pop(message.slot, None)
        if descriptor == LOST:
            raise OSError(
                errno.EMFILE,
                "a batch's memory could not be received, because this process has too many files open: raise the "
                "limit (ulimit -n), or use fewer workers",
            )
        try:
            self._pieces[message.slot] = shared.mapped(descriptor, message.size)
        finally:
            os.close(descriptor)


def unpacked(message: Message, buffers: list[Any]) -> Any:
    """Return the batch of a message, whose buffers lie there."""
    head = message.head if message.head is not None else buffers.pop().tobytes()
    return pickle.loads(head, buffers=buffers)  # noqa: S301  made by our own worker, of the user's own data


class _Lease:
    """The ``base`` of every array of a batch: it goes with the last of them, and frees the slot."""

    __slots__ = ("__array_interface__", "_dropped", "_piece", "_which")

    def __init__(self, dropped: deque[tuple[int, int]], slot: int, number: int, piece: Bytes | None) -> None:
        self._dropped, self._which, self._piece = dropped, (slot, number), piece
        if piece is not None:
            self.__array_interface__ = piece.__array_interface__

    def __del__(self) -> None:
        self._dropped.append(self._which)  # atomic: any thread drops a batch, in the middle of any call


def _new_piece(size: int) -> tuple[int | None, Bytes]:
    descriptor = shared.create(size)
    try:
        return descriptor, shared.mapped(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise


def _aligned(place: int) -> int:
    return -(-place // ALIGNMENT) * ALIGNMENT


def _offset(buffer: Bytes, piece: Bytes | None) -> int | None:
    """Return where in the piece a buffer lies, if it does."""
    if piece is None:
        return None
    start: int = buffer.ctypes.data - piece.ctypes.data
    return start if start >= 0 and start + len(buffer) <= len(piece) else None
