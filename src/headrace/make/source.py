"""A dataset as a worker sees it: sample by sample, or whole batches at a time."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from headrace.context import seeds
from headrace.datasets.pieces import read_piece
from headrace.datasets.protocol import in_memory
from headrace.interop.once import is_spent, refusal
from headrace.interop.own_states import keeps_state, restore
from headrace.make.map_guard import MapGuard
from headrace.plan.piece import Piece
from headrace.plan.work import StreamReplica

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from headrace.context.memory import Empty


@runtime_checkable
class SupportsIndex(Protocol):
    """Anything that can be asked for a sample by index, and knows how many it has."""

    def __getitem__(self, index: Any, /) -> Any: ...

    def __len__(self) -> int: ...


class Indexed:
    """Reads ``dataset[key]``, or torch's ``dataset.__getitems__(keys)`` of a batch where the dataset has it."""

    def __init__(self, dataset: SupportsIndex, *, singly: bool = False) -> None:
        self._dataset = dataset
        # None and missing both mean "one by one", as in torch.
        many = getattr(dataset, "__getitems__", None)
        # A dataset made of others always has the method; its attribute `reads_many` tells whether it is worth calling.
        self._many: Any = many if not singly and getattr(dataset, "reads_many", True) else None
        self.maps = MapGuard(dataset)
        # Asked of the class: a wrapper may take attributes from the dataset within, whose samples it changes.
        kind: Any = type(dataset)
        self.unmade: Callable[[Any], Any] | None = kind.unmade.__get__(dataset) if hasattr(kind, "unmade") else None
        """What makes one sample whose images are made by the `RowWriter` it is given to; None where nothing does."""
        self.in_memory = many is None and in_memory(dataset)
        """Whether no code of anybody's runs where a sample is read."""

    @property
    def dataset(self) -> Any:
        """What is read."""
        return self._dataset

    @property
    def reads_many(self) -> bool:
        """Whether a whole list of keys can be read in one call."""
        return self.in_memory or self._many is not None

    def read(self, key: Any) -> Any:
        """Make one sample."""
        if self.maps.files:
            self.maps.check(key)
        return self._dataset[key]

    def read_unmade(self, key: Any) -> Any:
        """Make one sample, but perhaps not the images in it: for a `RowWriter`."""
        if self.unmade is None or self.maps.files:
            return self.read(key)
        return self.unmade(key)

    def read_many(self, keys: Sequence[Any], *, arrays: bool = True) -> list[Any]:
        """Make the samples of these keys in one call of the dataset's; ``arrays`` as for `MapGuard.settle`."""
        if self.in_memory:
            samples = items(self._dataset, keys)
            return self.maps.settle_all(samples, keys[0], arrays=True) if arrays else samples
        keys = list(keys)
        self.maps.check(*keys[:1])
        samples = self.maps.settle_all(list(self._many(keys)), keys[0] if keys else None, arrays=arrays)
        self.maps.check(*keys[:1])
        return samples

    def where(self, key: Any) -> str | None:
        """Say where a sample comes from, if the dataset can."""
        return _where(self._dataset, key)


class InPieces(Indexed):
    """Reads samples, and parts of them: some of the keys are a `Piece`."""

    def read_unmade(self, key: Any) -> Any:
        """Make one sample, or a part of it."""
        return self.read(key)

    def read(self, key: Any) -> Any:
        """Make one sample, or a part of it."""
        if not isinstance(key, Piece):
            return super().read(key)
        self.maps.check(key)
        return read_piece(self._dataset, key)

    def read_many(self, keys: Sequence[Any], *, arrays: bool = True) -> list[Any]:
        """Make the samples of these keys: the whole ones in one call of the dataset's."""
        whole = [key for key in keys if not isinstance(key, Piece)]
        samples = iter(super().read_many(whole, arrays=arrays) if whole else ())
        return [
            self.maps.settle(self.read(key), key, arrays=arrays) if isinstance(key, Piece) else next(samples)
            for key in keys
        ]

    def where(self, key: Any) -> str | None:
        """Say where a sample comes from, if the dataset can."""
        return super().where(key.index if isinstance(key, Piece) else key)


class SharedStream(Indexed):
    """Finishes the samples of a stream that were read in the loader's own process, once: they come as the keys."""

    def __init__(self, function: Callable[[Any], Any] | None) -> None:
        super().__init__(())
        self._function = function

    @property
    def dataset(self) -> Any:
        """None: the stream stays where it is read."""
        return None

    def read(self, key: Any) -> Any:
        """Make a sample of what was read."""
        return key if self._function is None else self._function(key)


class Batched:
    """Reads whole batches from a dataset that makes them itself: no per-sample Python at all.

    ``read_batch(keys, empty=…)`` writes into lent memory what collating the samples of these keys would give.
    ``begin``, where there is one, begins it with the same arguments: its ``job`` is then run, by threads that need no
    Python, and its ``finish()`` returns the batch.
    """

    def __init__(
        self, dataset: Any, read_batch: Callable[..., Any], begin_batch: Callable[..., Any] | None = None
    ) -> None:
        self._dataset = dataset
        self._read_batch = read_batch
        self.begin = begin_batch
        self._maps: MapGuard | None = None

    @property
    def dataset(self) -> Any:
        """What is read."""
        return self._dataset

    def read(self, keys: Sequence[int], *, empty: Empty) -> Any:
        """Make the batch of these keys."""
        if self._maps is None:
            self._maps = MapGuard(self._dataset)
            self._maps.look()
        if not self._maps.files:
            return self._read_batch(keys, empty=empty)
        self._maps.check(*keys[:1])
        batch = self._read_batch(keys, empty=empty)
        self._maps.check(*keys[:1])
        return batch

    def where(self, key: Any) -> str | None:
        """Say where a sample comes from, if the dataset can."""
        return _where(self._dataset, key)


class Streamed:
    """Reads the replicas of an iterable dataset; one that is taken over partway is first read up to there.

    The first read of a replica in an epoch asks the dataset for a new iterator. ``stream`` is the iterable, and
    ``function`` makes a sample of each thing read: together they are what iterating over the dataset gives.
    """

    def __init__(
        self,
        dataset: Iterable[Any],
        stream: Iterable[Any],
        function: Callable[[Any], Any] | None,
        *,
        drop_last: bool,
        again: bool = False,
    ) -> None:
        self._dataset = dataset
        self._stream = stream
        self.function = function
        """Makes a sample of what was read; None: it is one."""
        self._drop_last = drop_last
        self.maps = MapGuard(dataset)
        self._again = again
        """Whether it was read before: then an iterator may be at its end for good."""
        self._open: dict[int, tuple[int, Iterator[Any]]] = {}
        self._copies: dict[int, Iterable[Any]] = {}
        self._first: dict[int, Iterator[Any]] = {}
        self._entered: dict[int, Iterator[Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        none: dict[str, Any] = {name: {} for name in ("_open", "_copies", "_first", "_entered")}
        return {**vars(self), **none}  # the position of a replica is in the work

    @property
    def dataset(self) -> Any:
        """What is read."""
        return self._dataset

    def read(self, replica: StreamReplica) -> Iterator[Any]:
        """Return an iterator of the samples from the position of the replica, to be read for one batch."""
        samples = self._entered.pop(replica.number, None)
        if samples is None:
            samples = self._begun(replica) if self._begins(replica) else self._open[replica.number][1]
        self._open[replica.number] = replica.start + replica.size, samples
        return samples

    def begin(self, *, seeded: bool) -> tuple[Any, ...] | None:
        """Return what the only copy of the stream keeps of itself before its first sample; None if it keeps nothing.

        Without a seed it is asked for its iterator here, as torch asks when a loop begins: the iterator's state may
        hold that of a global generator. ``seeded``: that belongs to the first batch. So does an error.
        """
        stream = self._copy(0)
        try:
            if isinstance(stream, Iterator) and keeps_state(stream):
                return "iterator", copy.deepcopy(stream.state_dict())  # type: ignore[attr-defined]
            if seeded:
                return None
            samples = self._first[0] = iter(stream)
            samples = self._whole(0, stream, samples)
            self._open[0] = 0, samples
            state = self.state(StreamReplica(0, 1, 0, 0))
        except Exception:  # noqa: BLE001  an iterator may have no state before it is read
            self._open.clear()
            return None
        self._entered[0] = samples
        return state

    def hand_back(self, replica: StreamReplica, samples: Iterator[Any]) -> None:
        """Take back an iterator that `read` returned and nobody read from; the next call returns it again."""
        self._entered[replica.number] = samples

    def keeps_any_state(self, replica: StreamReplica) -> bool:
        """Whether `state` has anything to return while the replica's stream is read."""
        samples = self._first.get(replica.number, self._open[replica.number][1])
        return keeps_state(self._copies[replica.number]) or keeps_state(samples)

    def enter(self, replica: StreamReplica) -> None:
        """Restore what the stream keeps of itself, where the replica has it.

        Call it before the batch's random numbers are seeded: a stream may restore a global generator, which was seeded
        for the batch in the run that saved it.
        """
        if replica.state is not None and self._begins(replica):
            self._entered[replica.number] = self._restored(replica)

    def _begins(self, replica: StreamReplica) -> bool:
        """Whether this is not the next stretch of what is open."""
        return replica.start == 0 or self._open.get(replica.number, (-1,))[0] != replica.start

    def _restored(self, replica: StreamReplica) -> Iterator[Any]:
        stream = self._copy(replica.number)
        keeper, state, *rest = replica.state
        of_dataset = [state] if keeper == "dataset" else rest
        if of_dataset:
            restore(stream, "dataset", of_dataset[0])
        if keeper == "ended":
            return _NOTHING
        samples = self._first[replica.number] = iter(stream)
        if keeper == "iterator":
            restore(samples, "iterator", state)
        return samples if replica.start else self._whole(replica.number, stream, samples)

    def _whole(self, number: int, stream: Iterable[Any], samples: Iterator[Any]) -> Iterator[Any]:
        """Give the samples of an epoch: after the state of a finished one, some streams give an empty one first."""
        if not keeps_state(stream) or isinstance(stream, Iterator):
            return samples
        return self._not_empty(number, stream, samples)

    def _not_empty(self, number: int, stream: Iterable[Any], samples: Iterator[Any]) -> Iterator[Any]:
        first = next(samples, _END)
        if first is _END:
            samples = self._first[number] = iter(stream)
        else:
            yield first
        yield from samples

    def _begun(self, replica: StreamReplica) -> Iterator[Any]:
        if replica.state is not None:
            return self._restored(replica)
        stream = self._copy(replica.number)
        samples = self._first[replica.number] = iter(stream)
        if replica.start == 0:
            return self._whole(replica.number, stream, samples)
        here = seeds.place()
        for position in range(replica.number, replica.start * replica.count, replica.count):
            here.move(position, reading=True)  # a stream that draws, to shuffle say, must draw what it drew
            if next(samples, _END) is _END:
                break
        return samples

    def _copy(self, replica: int) -> Iterable[Any]:
        """Return what a replica iterates over: one that keeps a state of its own can be at one place only."""
        if self._copies and replica not in self._copies and keeps_state(self._stream):
            self._copies[replica] = copy.deepcopy(self._stream)
        return self._copies.setdefault(replica, self._stream)

    def end(self, replica: StreamReplica) -> None:
        """Note that the replica's stream has ended: the state that it then reports may be that of its start."""
        self._open[replica.number] = replica.start + replica.size, _NOTHING

    def state(self, replica: StreamReplica) -> tuple[Any, ...] | None:
        """Return what the replica's stream keeps of itself: who of it and its iterator keeps what, or that it ended.

        Where the iterator is at hand, the state of the dataset itself comes third, if it keeps one too.
        """
        _, samples = self._open[replica.number]
        stream = self._copies[replica.number]
        of_dataset = (copy.deepcopy(stream.state_dict()),) if keeps_state(stream) else ()  # type: ignore[attr-defined]
        if samples is _NOTHING:
            return "ended", None, *of_dataset
        items = self._first.get(replica.number, samples)
        if not keeps_state(items):
            return ("dataset", *of_dataset) if of_dataset else None
        state = copy.deepcopy(items.state_dict())  # type: ignore[attr-defined]  # it keeps one, see above
        return ("iterator", state) if items is stream else ("iterator", state, *of_dataset)

    def ended(self, replica: StreamReplica) -> tuple[Any, ...] | None:
        """Return what the replica's dataset keeps of itself after its end, for the epoch that comes next."""
        stream = self._copies.get(replica.number)
        if stream is None or isinstance(stream, Iterator) or not keeps_state(stream):
            return None
        return "dataset", copy.deepcopy(stream.state_dict())  # type: ignore[attr-defined]

    def is_short(self, found: int, replica: StreamReplica) -> bool:
        """Say whether a batch of so many samples is none: it is empty, or short and short ones are dropped."""
        if (
            found == replica.start == 0
            and self._again
            and is_spent(self._stream, self._first.get(replica.number), empty=True)
        ):
            raise refusal("dataset", self._stream)
        return found == 0 or (self._drop_last and found < replica.size)


def items(dataset: Any, keys: Any) -> list[Any]:
    """Return the items of a list, a tuple or a range in memory, in as few calls as possible.

    >>> items("abcdef", range(1, 3)), items("abcdef", np.array([5, 0]))
    (['b', 'c'], ['f', 'a'])

    Raises IndexError where one is not there.
    """
    if type(keys) is range and keys.step == 1 and keys.start >= 0 and keys.stop <= len(dataset):
        return list(dataset[keys.start : keys.stop])
    if isinstance(keys, np.ndarray):
        keys = keys.tolist()
    return list(itemgetter(*keys)(dataset)) if len(keys) > 1 else [dataset[key] for key in keys]


def _where(dataset: Any, key: Any) -> str | None:
    where = getattr(dataset, "where", None)
    if not callable(where):
        return None
    try:
        place = where(key)
    except Exception:  # noqa: BLE001  asked for in the middle of another error, which it must not hide
        return None
    return place if isinstance(place, str) else None


_END = object()
_NOTHING: Iterator[Any] = iter(())

Source = Indexed | Batched | Streamed
