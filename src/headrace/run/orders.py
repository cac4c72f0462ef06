"""The order of an epoch: which batch comes at which step, in four kinds with one interface.

- `PlannedOrder`: the loader's own order, or a planned sampler's, which can be entered anywhere.
- `SampledOrder`: any other sampler, which can only be iterated.
- `ReplicatedOrder`: an iterable dataset that is read in copies, one for each process.
- `SharedOrder`: an iterable dataset that is read once, in the loader's process.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import article, kind_of
from headrace.context import seeds
from headrace.datasets.protocol import batch_beginner, batch_reader, unmapped
from headrace.errors import ArgumentError
from headrace.interop.own_states import keeps_state
from headrace.make.shared_reader import SharedReader
from headrace.make.source import Batched, Indexed, InPieces, SharedStream, Source, Streamed
from headrace.plan.batch_plan import BatchPlan, Plan
from headrace.plan.batch_sampler_plan import BatchSamplerPlan
from headrace.plan.dataset_copies import DatasetCopyPlan
from headrace.plan.iterator_plan import IteratorPlan
from headrace.plan.mixture import MixtureSampler
from headrace.plan.order import BatchOrder, BatchOrdered, FixedEpoch, Order, Ordered, Sequential, Shuffled
from headrace.plan.passes import Pass, apart, between, undisturbed
from headrace.plan.replicas import ReplicatedStream
from headrace.run.checkpoint import Cursor, Place
from headrace.run.stats import SourceShare

if TYPE_CHECKING:
    from headrace.plan.work import Work
    from headrace.run.settings import Settings

SPARES = 100
"""Replacements of one sample that may fail in a row; with half of all samples bad, one run in 2**100 gets there."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a loop enters an epoch, and what its random numbers come from."""

    key: seeds.Key
    stream: int
    """The epoch that the random numbers belong to: 0 without a seed, where each loop is a run of its own."""
    cursor: Cursor
    saved: dict[str, Any] = field(default_factory=dict)
    """The state that was loaded, if there was one."""
    again: bool = False
    """Whether the loader was looped over before."""


class EpochOrder(ABC):
    """Says what comes next in an epoch, how long the epoch is, and what a saved state must agree with."""

    draws_in_loop = False
    """Whether code of the user's draws random numbers in the loop's own thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @abstractmethod
    def facts(self, saved: dict[str, Any]) -> dict[str, Any]:
        """Return what says which sample comes when, beside the loader's settings."""

    @abstractmethod
    def length(self, key: seeds.Key, epoch: int) -> int:
        """Return how many batches an epoch has."""

    @abstractmethod
    def plan(self, entry: Entry) -> tuple[Plan, int | None]:
        """Return the plan of a loop, and how many samples it has at the most, where that is known."""

    @abstractmethod
    def work_at(self, entry: Entry, epoch: int, step: int) -> Work | None:
        """Return the work of any step for a replay, and move nothing; None where the epoch has fewer steps."""

    def sources(self, key: seeds.Key, cursor: Cursor) -> tuple[SourceShare, ...]:  # noqa: ARG002
        """Return what the run has read of each dataset of a mixture; nothing where there is none."""
        return ()

    def copies(self, saved: dict[str, Any]) -> int:  # noqa: ARG002
        """Return how many copies of the dataset are read side by side: 1 where it has an index."""
        return 1

    def source(self, *, again: bool) -> Source:  # noqa: ARG002
        """Return what workers read: by index, whole batches where the dataset makes them itself."""
        dataset, settings = self._settings.readable(), self._settings
        if getattr(settings.given_sampler, "cuts", False):
            return InPieces(dataset, singly=settings.single)
        read_batch = None
        if settings.own_collate and settings.on_error == "raise":
            read_batch = batch_reader(dataset) or settings.adapter.reader(dataset)
        if read_batch is not None:
            return Batched(dataset, read_batch, batch_beginner(dataset))
        return Indexed(dataset, singly=settings.single)

    def between(self, cursor: Cursor) -> dict[str, Any]:  # noqa: ARG002
        """Return what a state between two loops has of the sampler: nothing where there is none."""
        return {}

    def apart(self, entry: Entry, rank: int) -> Plan | None:  # noqa: ARG002
        """Return the plan of a rank once more, for another thread; None where the order can be read only once."""
        return None


class PlannedOrder(EpochOrder):
    """The loader's own order, or a planned sampler's: a function of key and epoch."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._planner: Any = settings.given_sampler
        self._counted: tuple[Any, int] | None = None
        self._recalled: tuple[Any, BatchPlan | BatchSamplerPlan] | None = None
        self._batches: tuple[seeds.Key, BatchOrder] | None = None
        """The batches of a batch sampler, which keeps what it has planned."""

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_recalled": None, "_batches": None}

    def facts(self, saved: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Return what the sampler's order is made of."""
        if self._planner is None:
            return {"order": "shuffled" if self._settings.shuffle else "sequential"}
        named = {f"sampler.{name}": value for name, value in self._planner.fingerprint.items()}
        return {"order": type(self._planner).__name__, **named}

    def length(self, key: seeds.Key, epoch: int) -> int:
        """Return how many batches an epoch has."""
        what = key, epoch, self._settings.samples
        if self._counted is None or self._counted[0] != what:
            self._counted = what, len(self._whole(key, epoch))
        return self._counted[1]

    def plan(self, entry: Entry) -> tuple[Plan, int | None]:
        """Return the plan, which remembers where it was entered."""
        place = entry.cursor.place
        origin, window = entry.saved.get("samples", 0), entry.saved.get("window")
        plan = entry.cursor.plan = self._whole(entry.key, place.epoch, place.step, origin, window)
        return plan, len(plan.order) if isinstance(plan, BatchPlan) else self._settings.most_samples()

    def apart(self, entry: Entry, rank: int) -> Plan:
        """Return the plan of a rank once more: nothing that it keeps is shared with the one that the loop reads."""
        settings, saved = self._settings, entry.saved
        other = PlannedOrder(dataclasses.replace(settings, rank=rank))
        place = entry.cursor.place
        return other._whole(entry.key, place.epoch, place.step, saved.get("samples", 0), saved.get("window"))

    def sources(self, key: seeds.Key, cursor: Cursor) -> tuple[SourceShare, ...]:
        """Return what the run has read of each dataset of a `MixtureSampler`.

        Where batches are planned from a mixture by window, these are the samples of the windows before the place.
        """
        place, plan = cursor.place, cursor.plan
        mixture = getattr(self._planner, "sampler", self._planner)
        if not isinstance(mixture, MixtureSampler):
            return ()
        inside = 0
        if isinstance(plan, BatchPlan):
            inside = plan.position(place.step)
        elif plan is not None and (window := plan.entry(place.step)) is not None:
            inside = window[0] * self._planner.window
        drawn = mixture.order(key).drawn(place.epoch * mixture.num_samples + inside)
        whole = sum(drawn) or 1
        return tuple(
            SourceShare(count, count / whole, count / size if size else 0.0)
            for count, size in zip(drawn, mixture.part_sizes, strict=True)
        )

    def work_at(self, entry: Entry, epoch: int, step: int) -> Work | None:
        """Return the work of any step."""
        first, origin, window = (entry.saved.get(name, 0) for name in ("step", "samples", "window"))
        if entry.cursor.plan is not None:
            first, origin = entry.cursor.plan.first, entry.cursor.plan.origin
            window = entry.cursor.plan.entry(first)
        place: Any = (entry.key, epoch, 0, 0, None)
        if step >= first:
            place = (entry.key, epoch, first, origin, tuple(window) if window else None)
        what = place, self._settings.samples
        if self._recalled is None or self._recalled[0] != what:
            # Kept for the next sample that is asked for: some plans are worked out for an epoch at a time.
            self._recalled = what, self._whole(*place)
        return self._recalled[1].work(entry.stream, step)

    def _whole(
        self, key: seeds.Key, epoch: int, first: int = 0, origin: int = 0, window: Sequence[int] | None = None
    ) -> BatchPlan | BatchSamplerPlan:
        """Return the plan of an epoch, from a step on that begins at a sample, which may be in a window."""
        settings = self._settings
        replace = settings.on_error == "replace"
        if settings.given_batches:
            if self._batches is None or self._batches[0] != key:
                self._batches = key, self._planner.batch_order(key)
            where = (window[0], window[1]) if window else None
            return BatchSamplerPlan(self._batches[1], epoch, settings.share, key, replace, first, origin, where)
        keys: Order
        if self._planner is not None:
            keys = FixedEpoch(self._planner, key, epoch)
        else:
            size = len(settings.dataset)
            keys = Shuffled(size, key) if settings.shuffle else Sequential(size)
        return BatchPlan(keys, settings.share, settings.drops_short, key, SPARES if replace else 0, first, origin)


class SampledOrder(EpochOrder):
    """The order of a sampler that can only be iterated."""

    draws_in_loop = True

    @property
    def _sampler(self) -> Any:
        return self._settings.given_sampler

    def facts(self, saved: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Return the sampler's class."""
        return {"order": type(self._sampler).__name__}

    def length(self, key: seeds.Key, epoch: int) -> int:  # noqa: ARG002
        """Return what the sampler says, or the batch sampler that was made of it."""
        settings = self._settings
        return len(settings.sampler if settings.batch_sampler is None else settings.batch_sampler)

    def plan(self, entry: Entry) -> tuple[Plan, int | None]:
        """Return the plan, and note the pass over the sampler in the cursor."""
        return self._plan(entry, self._sampler)

    def between(self, cursor: Cursor) -> dict[str, Any]:
        """Return how the next pass over the sampler begins."""
        moved = cursor.sampler.moved if isinstance(cursor.sampler, Pass) else None
        state = between(self._sampler, moved)
        return {"sampler": state} if state else {}

    def _plan(self, entry: Entry, sampler: Any) -> tuple[Plan, int | None]:
        settings, cursor, saved = self._settings, entry.cursor, entry.saved
        name = "batch_sampler" if settings.given_batches else "sampler"
        cursor.sampler = Pass(sampler, saved.get("sampler"), name=name, again=entry.again)
        start, step = cursor.sampler.start, cursor.place.step
        how: dict[str, Any] = {
            "spare": settings.on_error == "replace",
            "first": step,
            "entered": (0, 0) if start is None else (step, start),
            "mark": cursor.sampler.mark,
        }
        if settings.given_batches:
            return IteratorPlan(cursor.sampler, entry.key, **how), settings.most_samples()
        size = settings.batch_size or 1
        read = _read_before(settings, cursor, saved, size, start)
        if start is None:
            how["entered"] = step, read
        skipped = read if start is None else 0
        batches = cursor.sampler.batches(size, drop_last=settings.drops_short, skipped=skipped)
        return IteratorPlan(batches, entry.key, **how), settings.most_samples(sampler) or settings.most_samples()

    def work_at(self, entry: Entry, epoch: int, step: int) -> Work | None:
        """Return the work of a step, by a pass of its own over the sampler."""
        sampler = self._sampler
        copied = apart(sampler)
        _check_repeatable("sampler", sampler, keeps_state=copied is None and hasattr(sampler, "load_state_dict"))
        pass_ = entry.cursor.sampler
        drawn = entry.saved.get("sampler") if pass_ is None else pass_.state() if isinstance(pass_, Pass) else None
        if drawn is None and not (entry.saved or isinstance(sampler, Sequence | np.ndarray)):
            raise ArgumentError(
                f"the order of epoch {epoch} is not known: {kind_of(sampler)} can only be iterated",
                found=epoch,
                expected="the epoch of the newest loop, or of a loaded state",
                cure="use a planned sampler (ShardSampler, MixtureSampler, …) to replay any epoch",
            )
        with undisturbed(sampler):
            again = Entry(entry.key, entry.stream, Cursor(Place(epoch, step)), {"sampler": drawn}, entry.again)
            return self._plan(again, sampler if copied is None else copied)[0].work(entry.stream, step)


class ReplicatedOrder(EpochOrder):
    """An iterable dataset that is read in copies in turn: step ``s`` reads copy ``s mod copies``."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._copies: int | None = None
        """How many copies the run began with, in which it is read to its end."""

    def facts(self, saved: dict[str, Any]) -> dict[str, Any]:
        """Return how many copies there are."""
        return {"order": "stream", "copies": self.copies(saved)}

    def copies(self, saved: dict[str, Any]) -> int:
        """Return how many copies a state was saved with, or else this run reads."""
        return saved.get("plan", {}).get("copies") or self._copies or self._settings.readers

    def length(self, key: seeds.Key, epoch: int) -> int:  # noqa: ARG002
        """Return how many batches the dataset's own length makes."""
        return stream_length(self._settings)

    def plan(self, entry: Entry) -> tuple[Plan, int | None]:
        """Return the plan of all copies together."""
        cursor, saved = entry.cursor, entry.saved
        copies = self._copies = self.copies(saved)
        place, size = cursor.place, self._settings.batch_size or 1
        plan_saved = saved.get("plan", {})
        before = (plan_saved.get("batch_size") or size) * (plan_saved.get("world_size") or 1)
        starts = saved.get("read", [])
        starts = starts if isinstance(starts, list) else [starts]
        if not starts and before != size:
            starts = ReplicatedStream(copies, before, entry.key).at(place.step)
        plan = ReplicatedStream(copies, size, entry.key, place.step, own_states(saved), starts)
        if starts:
            cursor.position = plan.at
        return plan, self._settings.most_samples()

    def work_at(self, entry: Entry, epoch: int, step: int) -> Work | None:  # noqa: ARG002
        """Return the work of a step; making it reads its copy up to there."""
        stream = unmapped(self._settings.dataset)[0]
        _check_repeatable("dataset", stream, keeps_state=hasattr(stream, "load_state_dict"))
        copies = self.copies(entry.saved)
        return ReplicatedStream(copies, self._settings.batch_size or 1, entry.key).work(entry.stream, step)

    def source(self, *, again: bool) -> Source:
        """Return a reader of copies."""
        stream, function = unmapped(self._settings.dataset)
        return Streamed(self._settings.dataset, stream, function, drop_last=self._settings.drops_short, again=again)


class SharedOrder(EpochOrder):
    """An iterable dataset that is read once, here; its samples are shared between ranks and finished by the workers."""

    draws_in_loop = True

    def facts(self, saved: dict[str, Any]) -> dict[str, Any]:
        """Return that there is one copy."""
        return {"order": "stream", "copies": self.copies(saved)}

    def copies(self, saved: dict[str, Any]) -> int:
        """Return 1, or what a state says that was saved with more."""
        return saved.get("plan", {}).get("copies") or 1

    def length(self, key: seeds.Key, epoch: int) -> int:  # noqa: ARG002
        """Return how many batches the dataset's own length makes."""
        return stream_length(self._settings)

    def plan(self, entry: Entry) -> tuple[Plan, int | None]:
        """Return the plan, which reads the dataset as it is asked for works."""
        settings, cursor = self._settings, entry.cursor
        stream, _ = unmapped(settings.dataset)
        whole = settings.share.global_batch_size
        read = _read_before(settings, cursor, entry.saved, whole)
        batches = cursor.sampler = SharedReader(
            stream,
            entry.key,
            entry.stream,
            whole,
            read=read,
            state=own_states(entry.saved).get(0),
            drop_last=settings.drops_short,
            seeding=seeds.GLOBALS if settings.key is not None else (),
            again=entry.again,
        )
        how: dict[str, Any] = {"entered": (cursor.place.step, read), "mark": batches.mark}
        return IteratorPlan(batches, entry.key, stream=True, share=settings.share, **how), settings.most_samples()

    def work_at(self, entry: Entry, epoch: int, step: int) -> Work | None:
        """Return the work of a step, by reading the dataset up to there."""
        stream = unmapped(self._settings.dataset)[0]
        _check_repeatable("dataset", stream, keeps_state=hasattr(stream, "load_state_dict"))
        with undisturbed(stream):
            again = Entry(entry.key, entry.stream, Cursor(Place(epoch, step)), {}, entry.again)
            return self.plan(again)[0].work(entry.stream, step)

    def source(self, *, again: bool) -> Source:  # noqa: ARG002
        """Return what finishes the samples that were read here."""
        return SharedStream(unmapped(self._settings.dataset)[1])


def order_of(settings: Settings) -> EpochOrder:
    """Return the order of a loader's epochs."""
    if settings.shares_stream:
        return SharedOrder(settings)
    if settings.streams:
        return ReplicatedOrder(settings)
    planned = BatchOrdered if settings.given_batches else Ordered
    if settings.given_sampler is None or isinstance(settings.given_sampler, planned):
        return PlannedOrder(settings)
    return SampledOrder(settings)


def stream_length(settings: Settings) -> int:
    """Return how many batches an iterable dataset gives by its own length."""
    if settings.shares_stream:  # this rank's part of it
        whole, rest = divmod(len(settings.dataset), settings.share.global_batch_size)
        return whole + (rest > 0 and not settings.drop_last and settings.share.of(rest)[1] > 0)
    whole, rest = divmod(len(settings.dataset), settings.batch_size or 1)
    return whole + (rest > 0 and not settings.drop_last)


def own_states(saved: dict[str, Any]) -> dict[int, tuple[Any, ...]]:
    """Return what each copy of the dataset kept of itself when a state was saved."""
    return {int(number): tuple(state) for number, state in saved.get("streams", {}).items()}


def kept_dataset(settings: Settings) -> Any:
    """Return the object of the loader's own process that keeps a state of the dataset; None where none does."""
    dataset = unmapped(settings.dataset)[0] if settings.streams else settings.dataset
    # An iterator need not have a state before it is iterated.
    return dataset if keeps_state(dataset) and not isinstance(dataset, Iterator) else None


def count_dataset_copies(settings: Settings) -> int:
    """Return how many copies of a dataset with an index there are: one for each worker process."""
    return settings.num_workers if settings.has_copies else 1


def dataset_copy_states(settings: Settings, saved: dict[str, Any]) -> dict[int, tuple[Any, ...]]:
    """Return the state that each copy of a dataset with an index is to take; the latest, if there are other copies."""
    states, before, copies = own_states(saved), saved.get("dataset_copies", 1), count_dataset_copies(settings)
    if before == copies:
        return states
    turns = (number % before for number in range(saved["step"] - 1, saved["step"] - 1 - before, -1))
    latest = next((states[number] for number in turns if number in states), None)
    return {} if latest is None else dict.fromkeys(range(copies), latest)


def with_own_states(settings: Settings, plan: Plan, waiting: dict[int, tuple[Any, ...]]) -> Plan:
    """Let the works of a dataset with an index restore and return what it keeps of itself, if it keeps a state."""
    if settings.streams or kept_dataset(settings) is None:
        return plan
    return DatasetCopyPlan(plan, count_dataset_copies(settings), waiting)


def _read_before(
    settings: Settings, cursor: Cursor, saved: dict[str, Any], whole: int, start: int | None = None
) -> int:
    """Return how much of a stream or a sampler comes before a place, in batches of ``whole`` from there on."""
    step = cursor.place.step
    plan = saved.get("plan", {})
    before = (plan.get("batch_size") or settings.batch_size or 1) * (plan.get("world_size") or settings.world_size)
    found = saved.get("read", step * before) if start is None else start
    read: int = found[0] if isinstance(found, list) else found
    if read != step * whole:
        cursor.position = lambda at: read + (at - step) * whole
    return read


def _check_repeatable(what: str, thing: Any, *, keeps_state: bool) -> None:
    """Refuse to replay what cannot be passed through once more without moving it."""
    name = kind_of(thing)
    if isinstance(thing, Iterator):
        raise ArgumentError(
            f"the {what}, {name}, is an iterator, which can be read only once",
            found=name,
            expected="an object whose iter() starts again",
            cure="give the loader such an object to replay its batches",
        )
    if keeps_state:
        raise ArgumentError(
            f"the {what}, {name}, keeps a state of its own, which replaying would change",
            found=name,
            expected=f"{article(what)} without load_state_dict",
            cure="load a state saved before the step into another loader, and loop from there",
        )
