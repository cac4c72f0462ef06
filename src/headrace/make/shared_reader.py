"""A stream that is read once, in the loader's process: its samples are shared between ranks and workers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from headrace.context import seeds
from headrace.interop.once import is_spent, refusal
from headrace.interop.own_states import keeps_state, restore
from headrace.make.map_guard import MapGuard
from headrace.storage.page_faults import surviving

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_END = object()


class SharedReader(Iterator[list[Any]]):
    """Reads a stream in global batches of ``size``, with the random numbers that belong to each sample.

    >>> list(SharedReader([5, 6, 7], (0, 0), 0, size=2))
    [[5, 6], [7]]
    >>> list(SharedReader([5, 6, 7], (0, 0), 0, size=2, read=2))
    [[7]]

    ``read`` samples come before the first batch: they are read and dropped, unless ``state`` is what the stream kept of
    itself there. ``seeding`` names the global generators that are seeded for each batch, as where no worker reads.
    """

    def __init__(
        self,
        stream: Iterable[Any],
        key: seeds.Key,
        epoch: int,
        size: int,
        *,
        read: int = 0,
        state: tuple[Any, ...] | None = None,
        drop_last: bool = False,
        seeding: Collection[str] = (),
        again: bool = False,
    ) -> None:
        self._stream = stream
        self._here = seeds.Here(key, epoch)
        self._size = size
        self._read = read
        self._given = state
        self._drop_last = drop_last
        self._seeding = seeding
        self._again = again
        self._maps = MapGuard(stream)
        self._items: Iterator[Any] | None = None
        self._position = 0
        self._over = False
        self._marks: dict[int, tuple[Any, ...]] = {}

    def __next__(self) -> list[Any]:
        if self._items is None and self._given is not None:
            self._restore(self._given)
        while not self._over and self._position < self._read:
            self._batch(min(self._size, self._read - self._position))
        batch = [] if self._over else self._batch(self._size)
        if not batch or (self._drop_last and len(batch) < self._size):
            raise StopIteration
        return batch

    def _restore(self, state: tuple[Any, ...]) -> None:
        keeper, kept, *rest = state
        of_dataset = [kept] if keeper == "dataset" else rest
        if of_dataset:
            restore(self._stream, "dataset", of_dataset[0])
        self._position, self._over = self._read, keeper == "ended"
        if not self._over:
            with seeds.at(self._here):
                self._here.move(self._position)
                self._items = iter(self._stream)
            if keeper == "iterator":
                restore(self._items, "iterator", kept)

    def _batch(self, size: int) -> list[Any]:
        """Read so many samples, or as many as there are."""
        here = self._here
        found: list[Any] = []
        over, self._over = self._over, True  # where the stream raises, there is no more of it
        here.move(self._position)
        self._maps.look(here.epoch)
        with seeds.seeded(here.key, here.epoch, self._position, self._seeding), seeds.at(here), surviving():
            if self._items is None:
                self._items = iter(self._stream)
            while len(found) < size:
                here.move(self._position, reading=True)
                self._maps.check(self._position)
                sample = next(self._items, _END)
                kept = keeps_state(self._stream) and not isinstance(self._stream, Iterator)
                if sample is _END and self._position == 0 and kept:
                    # After the state of a finished epoch, some streams give an empty one first.
                    self._items = iter(self._stream)
                    sample = next(self._items, _END)
                if sample is _END:
                    if self._again and is_spent(self._stream, self._items, empty=self._position == 0):
                        raise refusal("dataset", self._stream)
                    return found
                found.append(self._maps.settle(sample, self._position))
                self._position += 1
            self._maps.check(self._position)
        self._over = over
        return found

    def mark(self, step: int, start: int) -> None:  # noqa: ARG002
        """Note what the stream keeps of itself before a step."""
        of_dataset = (copy.deepcopy(self._stream.state_dict()),) if keeps_state(self._stream) else ()  # type: ignore[attr-defined]
        items = self._items
        if self._over:
            self._marks[step] = ("ended", None, *of_dataset)
        elif keeps_state(items):
            state = copy.deepcopy(items.state_dict())  # type: ignore[union-attr]
            self._marks[step] = ("iterator", state) if items is self._stream else ("iterator", state, *of_dataset)
        elif of_dataset:
            self._marks[step] = ("dataset", *of_dataset)

    def forget(self, step: int) -> None:
        """Drop what was noted before a step."""
        for old in [mark for mark in self._marks if mark < step]:
            del self._marks[old]

    def facts(self, step: int) -> dict[str, Any]:
        """Return what a loader's state has of the stream, before a step."""
        state = self._marks.get(step, self._given)
        return {} if state is None else {"streams": {"0": list(state)}}
