"""What a loop has delivered: the place after it, the ledger's entries, and the counters."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from headrace.errors import TooManyErrors
from headrace.run.checkpoint import Place
from headrace.run.stats import measure
from headrace.run.turns import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headrace.ledger.recorder import Recorder
    from headrace.plan.work import Done
    from headrace.run.checkpoint import Cursor
    from headrace.run.dispatch import Direct
    from headrace.run.lives import Lives
    from headrace.run.stats import Meter
    from headrace.run.tolerance import Budget, Refill
    from headrace.run.window import Unordered, Window


class Journal:
    """Moves the cursor, writes the ledger and counts, each time that the consumer takes a batch."""

    __slots__ = (
        "_bad",
        "_budget",
        "_cursor",
        "_earlier",
        "_first",
        "_latest",
        "_lives",
        "_places",
        "_record",
        "_recorder",
        "_refill",
        "_session",
        "_settles",
        "_stays",
        "_streams",
        "_window",
        "broken",
        "meter",
        "over",
    )

    def __init__(
        self,
        cursor: Cursor,
        meter: Meter,
        budget: Budget,
        window: Window | Unordered | Direct,
        refill: Refill | None,
        recorder: Recorder | None,
        lives: Lives,
        *,
        stays: bool = False,
    ) -> None:
        self.meter = meter
        self.over = False
        """Whether the epoch has ended."""
        self.broken = False
        """Whether too many samples were bad: the place is then before the batch that had the last of them."""
        self._cursor = cursor
        self._budget = budget
        self._window = window
        self._refill = refill
        self._recorder = recorder
        self._lives = lives
        self._first = self._latest = cursor.place
        self._streams = dict(cursor.place.streams)
        self._bad = cursor.place.bad
        self._session = None if recorder is None else recorder.session.name
        self._settles = recorder is not None or cursor.sampler is not None
        """Whether more than the cursor is to be moved."""
        self._stays = stays
        """Whether the copies of the dataset, with what they keep of themselves, stay for the next epoch."""
        self._earlier: dict[int, dict[int, Any]] = {}
        """With refilled batches: the streams' states before each step whose samples are not all delivered yet."""
        self._record: bytes | None = None
        self._places: deque[tuple[Place, bytes | None]] | None = None

    @property
    def batches(self) -> int:
        """How many batches of the epoch were received, those before the loop began included."""
        return self._first.batches + self.meter.batches

    def made(self, outcome: Done) -> None:
        """Take note of what a worker reports with its batch; raises `TooManyErrors`."""
        meter = self.meter
        if self._recorder is not None:
            self._recorder.completed(outcome)
        self._lives.made(outcome)
        meter.taken += outcome.taken
        meter.made(outcome.seconds, outcome.bad, outcome.tokens, outcome.made_on, skip=self._refill is not None)
        if outcome.stream is not None:
            replica, state = outcome.stream
            if self._refill is not None:
                self._earlier[outcome.step] = self._streams
            self._streams = {**self._streams, replica: state}
        if outcome.bad:
            self._bad = self._first.bad + meter.skipped + meter.replaced
            try:
                self._budget.check(self._bad, outcome.bad)
            except TooManyErrors:
                self.broken = True
                raise

    def lost(self, step: int) -> None:
        """Take note of a step whose batch is an error."""
        if self._recorder is not None:
            self._recorder.failed(step)
        self._lives.lost(step)

    def finished(self, ended: Mapping[int, Any]) -> None:
        """Take note of the end of the epoch, and of what streams keep of themselves after it."""
        kept = {
            number: state if state[0] == "dataset" else ("dataset", *state[2:])
            for number, state in {**self._streams, **ended}.items()
            if state[0] == "dataset" or len(state) > 2
        }
        self._streams = kept if self._stays else {}
        if self._recorder is not None:
            self._record = self._recorder.end_record(self._window.place[0])
        self.over = True

    def delivered(self, batch: Any, rows: int, asked: float) -> None:
        """Take note of a batch on its way to the consumer, who asked for it at that time.

        ``rows`` is its size, where it was refilled.
        """
        if self._recorder is not None:
            rows = rows if self._refill is not None else measure(batch)[0]
            self._record = self._recorder.entry_record(batch, self.batches, rows, self._place().step)
        self.meter.delivered(batch, asked)
        self._lives.delivered(asked, self.meter.ended)

    def received(self, batch: Any, asked: float, step: int) -> None:
        """Do what `made`, `delivered` and `move` do for a batch that there is nothing else to say of.

        ``step`` is the first one that was not taken after it.
        """
        meter, first, cursor = self.meter, self._first, self._cursor
        meter.delivered(batch, asked)
        batches = first.batches + meter.batches
        cursor.place = Place(first.epoch, step, (), 0, batches, self._bad, self._streams, None)
        if cursor.sampler is not None:
            cursor.sampler.forget(step)

    def move(self) -> None:
        """Move to the place after what was delivered; where batches are fetched ahead, note it for later."""
        record, self._record = self._record, None
        self._latest = place = self._place()
        if self._places is not None:
            self._places.append((place, record))
        elif self._settles:
            self._settle(place, record)
        else:
            self._cursor.place = place

    def fetched_ahead(self) -> Callable[[], None]:
        """Return what to call for each batch that is handed to the consumer, where somebody fetches them ahead."""
        places = self._places = deque()
        turn = Turn()

        def handed_on() -> None:
            with turn.lock:  # places are taken up in their order, by however many threads
                if places:
                    self._settle(*places.popleft())

        return handed_on

    def _settle(self, place: Place, record: bytes | None) -> None:
        # First the ledger: a state saved from here on says that the batch was received.
        if self._recorder is not None:
            self._recorder.write(record)
        self._cursor.place = place
        if self._cursor.sampler is not None:
            self._cursor.sampler.forget(place.step)

    def _place(self) -> Place:
        if self.broken:
            return self._latest
        first, streams = self._first, self._streams
        if self.over:
            return Place(first.epoch + 1, streams=streams)
        step, beyond = self._window.place
        offset, bad = 0, self._bad
        if self._refill is not None and (place := self._refill.place) is not None:
            step, offset, again = place
            bad -= again
            # Samples in hand are read again: from where their streams were then.
            for old in [each for each in self._earlier if each < step]:
                del self._earlier[old]
            streams = self._earlier.get(step, streams)
        batches = first.batches + self.meter.batches
        return Place(first.epoch, step, beyond, offset, batches, bad, streams, self._session)
