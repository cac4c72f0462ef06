"""A plan whose steps are fetched ahead, where they read objects behind URLs."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from headrace.datasets import protocol
from headrace.formatting import size_of
from headrace.interop.ranks import on_this_machine
from headrace.interop.user_line import user_line
from headrace.run.prefetcher import Prefetcher
from headrace.storage.blocks import BLOCK, MOST, blocks
from headrace.storage.object_spans import BlockNumbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from headrace.plan.batch_plan import Plan
    from headrace.plan.work import Work
    from headrace.run.orders import Entry, EpochOrder
    from headrace.run.prefetcher import PrefetchCounts
    from headrace.run.settings import Settings
    from headrace.storage.blocks import Blocks
    from headrace.storage.object_spans import ObjectSpans

MOST_SAMPLES = 1 << 20
"""How many samples ahead the uses of blocks are looked up, for eviction."""

TOGETHER = 16
"""Steps that are asked for at once: a dataset may have to read a little to know what they need."""

HERE = ("inline", "threads", "native", "processes")
"""The backends whose workers read through the cache of this machine."""


class PrefetchedPlan:
    """Another plan; its works are handed out while what they read is fetched ahead, until it is closed or dropped."""

    def __init__(self, plan: Plan, reader: Blocks, spans: PlannedSpans, first: int, lag: int) -> None:
        self._plan = plan
        self._prefetcher = Prefetcher(reader, spans, first, lag, owner=self)
        self._started = False

    @property
    def counts(self) -> PrefetchCounts:
        """What was counted so far."""
        return self._prefetcher.counts

    def work(self, epoch: int, step: int) -> Work | None:
        """Return the work of a step."""
        work = self._plan.work(epoch, step)
        if work is not None:
            if not self._started:  # not before: worker processes may be forked first
                self._started = True
                self._prefetcher.start()
            self._prefetcher.reached(step)
        return work

    def close(self) -> None:
        """Fetch nothing more."""
        self._prefetcher.close()


class PlannedSpans:
    """What the steps of an epoch read, by a plan of its own: it is asked in another thread than the loop's.

    ``then``: the entry of the epoch after this one, where its order is known.
    """

    def __init__(self, settings: Settings, order: EpochOrder, entry: Entry, then: Entry | None) -> None:
        self._dataset, self._order = settings.dataset, order
        self._rank = settings.rank
        self._ranks = on_this_machine(settings.rank, settings.world_size)
        self._entry, self._then = entry, then
        self._plan = order.apart(entry, settings.rank)
        self._keys = dict[int, list[Any]]()
        """What the steps that are asked for next are made of."""

    def at(self, step: int) -> Iterable[ObjectSpans] | None:
        """Return what a step of this rank reads; None after the last one."""
        if step not in self._keys:
            self._look_at(step)
        keys = self._keys.pop(step, None)
        return None if keys is None else self._spans(keys)

    def _look_at(self, step: int) -> None:
        """Look up what the steps from this one on are made of; what the dataset reads for that, it reads at once."""
        self._keys = {}
        # Nothing delays the first batch.
        count = 1 if step == self._entry.cursor.place.step else TOGETHER
        for each in range(step, step + count):
            keys = None if self._plan is None else self._keys_of(self._plan, self._entry, each)
            if keys is None:
                break
            self._keys[each] = keys
        if len(self._keys) > 1:
            self._spans([key for keys in self._keys.values() for key in keys])

    def uses(self, step: int) -> Iterator[Iterable[ObjectSpans]]:
        """Yield what the steps from this one on read, of all ranks of this machine, into the epoch after this one."""
        left = MOST_SAMPLES
        for entry in (self._entry, self._then):
            plans = [] if entry is None else [self._order.apart(entry, rank) for rank in self._ranks]
            while entry is not None and left > 0:
                keys = [self._keys_of(plan, entry, step) for plan in plans if plan is not None]
                found = [None if each is None else self._spans(each) for each in keys]
                together = [spans for each in found if each is not None for spans in each]
                if all(each is None for each in found):
                    break
                left -= sum(len(spans.file) for spans in together)
                yield together
                step += 1
            step = 0

    def _keys_of(self, plan: Plan, entry: Entry, step: int) -> list[Any] | None:
        try:
            work = plan.work(entry.stream, step)
            return None if work is None else list(work.keys)
        except Exception:  # noqa: BLE001  a sampler's error is the loop's, which asks for the same step
            return None

    def _spans(self, keys: list[Any]) -> Iterable[ObjectSpans] | None:
        try:
            return protocol.object_spans(self._dataset, keys)
        except Exception:  # noqa: BLE001  whoever reads the samples gets the error
            return None


def warn_of_shuffle(remote: Iterable[ObjectSpans], samples: int) -> None:
    """Warn where an exact shuffle reads objects through a cache that does not hold them: say what an epoch costs."""
    numbers, reader = BlockNumbers(), blocks()
    numbers.of(remote)
    whole, room = numbers.total_bytes, reader.room()
    if whole <= room:
        return
    # A sample lies in a block, and reaches into as many more as its length has blocks; the last use is what evicts at
    # worst, and finds a block with the probability that it is held.
    uses = samples + whole / BLOCK
    requests = max(numbers.count, round(uses * (1 - room / whole)))
    warnings.warn(
        f"shuffle=True over {size_of(whole)} of remote data, and the cache holds {size_of(room)}: an epoch "
        f"fetches up to {requests:,} blocks of {size_of(BLOCK)}, as blocks are evicted before all of their samples "
        f"were read. sampler=ShardSampler.of(dataset, window=4) fetches each of the {numbers.count:,} blocks once. Or "
        f"set {MOST} to a larger cache",
        UserWarning,
        stacklevel=user_line(),
    )


def prefetched(
    settings: Settings, order: EpochOrder, entry: Entry, then: Entry | None, plan: Plan, lag: int
) -> PrefetchedPlan | None:
    """Return a plan whose steps are fetched ahead; None where they read no objects, or the order is not planned."""
    if settings.streams or settings.kind not in HERE:
        return None
    try:
        remote = protocol.object_spans(settings.dataset, [])
    except Exception:  # noqa: BLE001  a view of a user's may refuse to be asked for nothing
        return None
    if settings.shuffle:
        warn_of_shuffle(remote, len(settings.dataset))
    if not remote or order.apart(entry, settings.rank) is None:
        return None
    reader = blocks()
    if settings.kind == "processes":
        if not reader.disk.most:
            return None  # what this process holds in memory is of no use to the workers
        reader = reader.for_others()
    return PrefetchedPlan(plan, reader, PlannedSpans(settings, order, entry, then), entry.cursor.place.step, lag)
