"""A dataset as a worker sees it: sample by sample, or whole batches at a time."""

from __future__ import annotations

import copy
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from headrace.checks import kind_of
from headrace.context import seeds
from headrace.errors import StateMismatch
from headrace.interop.once import is_spent, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from headrace.context.memory import Empty
    from headrace.plan.work import StreamReplica


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

    @property
    def dataset(self) -> Any:
        """What is read."""
        return self._dataset

    @property
    def reads_many(self) -> bool:
        """Whether a whole list of keys can be read in one call."""
        return self._many is not None

    def read(self, key: Any) -> Any:
        """Make one sample."""
        return self._dataset[key]

    def read_many(self, keys: Sequence[Any]) -> list[Any]:
        """Make the samples of these keys in one call of the dataset's."""
        return list(self._many(list(keys)))

    def where(self, key: Any) -> str | None:
        """Say where a sample comes from, if the dataset can."""
        return _where(self._dataset, key)


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

    @property
    def dataset(self) -> Any:
        """What is read."""
        return self._dataset

    def read(self, keys: Sequence[int], *, empty: Empty) -> Any:
        """Make the batch of these keys."""
        return self._read_batch(keys, empty=empty)

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
        self._function = function
        self._drop_last = drop_last
        self._again = again
        """Whether it was read before: then an iterator may be at its end for good."""
        self._open: dict[int, tuple[int, Iterator[Any]]] = {}
        self._copies: dict[int, Iterable[Any]] = {}
        self._first: dict[int, Iterator[Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": {}, "_copies": {}, "_first": {}}  # the position of a replica is in the work

    @property
    def dataset(self) -> Any:
        """What is read."""
        return self._dataset

    def read(self, replica: StreamReplica) -> Iterator[Any]:
        """Return the samples from the replica's position on, as an iterator that is read as far as the batch goes."""
        position, samples = self._open.get(replica.number, (-1, iter(())))
        if replica.start == 0 or position != replica.start:
            samples = self._begun(replica)
        self._open[replica.number] = replica.start + replica.size, samples
        return samples

    def _begun(self, replica: StreamReplica) -> Iterator[Any]:
        stream = self._copy(replica.number)
        keeper, state = replica.state if replica.state is not None else (None, None)
        if keeper == "ended":
            return _NOTHING
        if keeper == "dataset":
            _restore(stream, "dataset", state)
        samples = self._first[replica.number] = iter(stream)
        if keeper == "iterator":
            _restore(samples, "iterator", state)
        if keeper is not None:
            return samples
        here = seeds.place()
        for position in range(replica.number, replica.start * replica.count, replica.count):
            here.move(position, reading=True)  # a stream that draws, to shuffle say, must draw what it drew
            if next(samples, _END) is _END:
                break
        return samples

    def _copy(self, replica: int) -> Iterable[Any]:
        """Return what a replica iterates over: one that keeps a state of its own can be at one place only."""
        if self._copies and replica not in self._copies and _keeps_state(self._stream):
            self._copies[replica] = copy.deepcopy(self._stream)
        return self._copies.setdefault(replica, self._stream)

    def end(self, replica: StreamReplica) -> None:
        """Note that the replica's stream has ended: the state that it then reports may be that of its start."""
        self._open[replica.number] = replica.start + replica.size, _NOTHING

    def state(self, replica: StreamReplica) -> tuple[str, Any] | None:
        """Return the state of the replica's stream, if it, or its iterator, has ``state_dict``."""
        _, samples = self._open[replica.number]
        if samples is _NOTHING:
            return "ended", None
        stream = self._copies[replica.number]
        for keeper, thing in (("iterator", samples), ("dataset", stream)):
            if _keeps_state(thing):
                return keeper, copy.deepcopy(thing.state_dict())  # type: ignore[attr-defined]  # it does, see above
        return None

    def finished(self, sample: Any) -> Any:
        """Make a sample of what was read."""
        return sample if self._function is None else self._function(sample)

    def is_short(self, found: int, replica: StreamReplica) -> bool:
        """Say whether a batch of so many samples is none: it is empty, or short and short ones are dropped."""
        if (
            found == replica.start == 0
            and self._again
            and is_spent(self._stream, self._first.get(replica.number), empty=True)
        ):
            raise refusal("dataset", self._stream)
        return found == 0 or (self._drop_last and found < replica.size)


def _where(dataset: Any, key: Any) -> str | None:
    where = getattr(dataset, "where", None)
    if not callable(where):
        return None
    try:
        place = where(key)
    except Exception:  # noqa: BLE001  asked for in the middle of another error, which it must not hide
        return None
    return place if isinstance(place, str) else None


def _restore(thing: Any, keeper: str, state: Any) -> None:
    if not _keeps_state(thing):
        raise StateMismatch(
            f"the state has one of the stream's {keeper}, but {kind_of(thing)} has no "
            "load_state_dict to take it: load the state into a loader of the dataset that it was saved with"
        )
    thing.load_state_dict(copy.deepcopy(state))


def _keeps_state(thing: Any) -> bool:
    return hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict")


def read_once(stream: Iterable[Any], key: seeds.Key, epoch: int, *, again: bool = False) -> Iterator[Any]:
    """Read a stream in the loader's own process, with the random numbers that belong to each sample.

    >>> list(read_once([5, 6], (0, 0), 0))
    [5, 6]
    """
    here = seeds.Here(key, epoch)
    samples = iter(stream)
    for position in count():
        here.move(position, reading=True)
        with seeds.at(here):
            sample = next(samples, _END)
        if sample is _END:
            if again and is_spent(stream, samples, empty=position == 0):
                raise refusal("dataset", stream)
            return
        yield sample


_END = object()
_NOTHING: Iterator[Any] = iter(())

Source = Indexed | Batched | Streamed
