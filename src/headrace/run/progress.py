"""Where a loader is in its run: which epoch, which place in it, and what a loaded state says comes next."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any

from headrace.checks import integer, kind_of, shown
from headrace.context import seeds
from headrace.errors import StateMismatch
from headrace.interop.generators import can_be_set, draw_seed, set_state, state_of
from headrace.interop.own_states import restore
from headrace.run.checkpoint import Cursor, Place, bad_before, check, from_dict
from headrace.run.orders import Entry, count_dataset_copies, dataset_copy_states, kept_dataset
from headrace.run.turns import Turn

if TYPE_CHECKING:
    from headrace.run.orders import EpochOrder
    from headrace.run.settings import Settings

MOST_EPOCHS = 2**64 - 1


class Progress:
    """The place of a run, moved by the newest loop; `state_dict` and `load_state_dict` are about nothing else.

    Any thread may call any method; ``turn`` is held by whoever begins a loop.
    """

    def __init__(self, settings: Settings) -> None:
        self.turn = Turn()
        self.cursor = Cursor(Place(0))
        """The newest loop's place."""
        self.looped = False
        """Whether any loop was begun."""
        self.settings = settings
        self._epoch = 0
        self._resume: dict[str, Any] | None = None
        self._next_seed: int | None = None
        self.waiting: dict[int, tuple[Any, ...]] = {}
        """What copies of a dataset with an index are to take with their next work."""

    def __getstate__(self) -> dict[str, Any]:
        # A copy has no part in the loop that runs.
        return {**vars(self), "turn": Turn(), "cursor": Cursor(self.cursor.place)}

    @property
    def epoch(self) -> int:
        """The epoch that comes next, or that a loaded state is in."""
        return self._epoch if self._resume is None else int(self._resume["epoch"])

    @property
    def loaded(self) -> dict[str, Any]:
        """The state that the next loop begins at; empty if none was loaded."""
        return self._resume or {}

    @property
    def mark(self) -> tuple[int, dict[str, Any] | None, Cursor]:
        """What comes next, to be put back later: for whoever looks at some batches and leaves them to the next loop."""
        return self._epoch, self._resume, self.cursor

    @mark.setter
    def mark(self, mark: tuple[int, dict[str, Any] | None, Cursor]) -> None:
        self._epoch, self._resume, self.cursor = mark

    def enter(self) -> tuple[Entry, int]:
        """Return where the next loop begins, and its seed; the epoch after it comes next."""
        settings, saved = self.settings, self.loaded
        place = from_dict(saved) if saved else Place(self._epoch)
        place = dataclasses.replace(place, bad=bad_before(saved, settings.rank, settings.world_size))
        self._epoch = place.epoch + 1
        if not settings.workers_stay:
            self.waiting = {}
        self._restore(saved)
        if not saved and settings.workers_stay and self.cursor.place.epoch == place.epoch:
            place = dataclasses.replace(place, streams=self.cursor.place.streams)
        base = 0 if settings.key is not None else saved["seed"] if "seed" in saved else self._drawn_ahead()
        self._next_seed = None
        cursor = Cursor(place, base if settings.key is None else None, began=place, rank=settings.rank)
        dataset = kept_dataset(settings)
        cursor.dataset = None if dataset is None else copy.deepcopy(dataset.state_dict())
        return Entry(*self.stream(base, place.epoch), cursor, saved, again=self.looped), base

    def _restore(self, saved: dict[str, Any]) -> None:
        """Put the caller's generator, and the dataset, back where they were when a state was saved."""
        if "generator" in saved and self.settings.draws_from is not None:
            set_state(self.settings.draws_from, saved["generator"])
        dataset = kept_dataset(self.settings)
        if dataset is None:
            return
        if "dataset" in saved:
            restore(dataset, "dataset", saved["dataset"])
        if saved and not self.settings.streams:
            self.waiting = dataset_copy_states(self.settings, saved)
            if not self.settings.has_copies and 0 in self.waiting:
                restore(dataset, *self.waiting.pop(0)[:2])

    def begin(self, cursor: Cursor) -> None:
        """Let a loop's cursor say where the run is, now that the loop is there."""
        self.cursor = cursor
        self._resume = None  # not before: whoever asks for the state meanwhile gets the one or the other

    def stream(self, base: int, epoch: int) -> tuple[seeds.Key, int]:
        """Return the key and the epoch that random numbers come from: without a seed, each loop is a run of its own."""
        return (seeds.key_of(base), 0) if self.settings.key is None else (self.settings.key, epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the next epoch; a loaded state that is partway through the same epoch stays."""
        with self.turn.lock:
            self._epoch = integer("epoch", epoch, least=0, most=MOST_EPOCHS)
            if self._resume is not None and self._resume["epoch"] == self._epoch:
                return
            self.cursor = Cursor(Place(self._epoch))
            self._resume = None

    def state_dict(self, order: EpochOrder) -> dict[str, Any]:
        """Return the place after the last batch that was received, and what it is a place in."""
        resume = self._resume  # read once: another thread may begin the loop that takes it
        if resume is not None:
            return copy.deepcopy(resume)
        while True:
            cursor = self.cursor
            place = cursor.place
            state = cursor.to_dict(fingerprint(self.settings, order, {}))
            if cursor.place is place:  # else the loop moved meanwhile, and forgot what belongs to the place before
                break
        if self.settings.key is None and "seed" not in state:  # between two loops: settles the next one's order
            with self.turn.lock:
                state["seed"] = self._drawn_ahead()
        if not cursor.inside:  # after the seed was drawn, which may move the generators that the sampler draws from
            state |= order.between(cursor)
        return state | self._own_states(state, cursor)

    def _own_states(self, state: dict[str, Any], cursor: Cursor) -> dict[str, Any]:
        """Return where the caller's generator is, and what the dataset of this process keeps of itself."""
        settings = self.settings
        found: dict[str, Any] = {}
        if settings.key is None and settings.draws_from is not None:
            found["generator"] = state_of(settings.draws_from)
        dataset = kept_dataset(settings)
        # Without processes, what the dataset keeps after the last batch that was received is there already.
        if dataset is not None and ("streams" not in state or (settings.has_copies and not settings.read_once)):
            found["dataset"] = copy.deepcopy(cursor.dataset if cursor.inside else dataset.state_dict())
        if "streams" in state and not settings.streams:
            found["dataset_copies"] = count_dataset_copies(settings)
        return found

    def check(self, state: dict[str, Any], order: EpochOrder, *, strict: bool) -> dict[str, Any]:
        """Return a state as it can be loaded here; raises `StateMismatch` for one of another run."""
        from_dict(state)
        self._check_own_states(state, strict=strict)
        here = fingerprint(self.settings, order, state)
        if strict:
            check(state["plan"], here, beyond=bool(state.get("beyond")))
        fit = copy.deepcopy(state)
        if state["plan"] != here:
            fit.pop("beyond", None)  # steps of another order, or cut otherwise: better twice than lost
        return fit

    def _check_own_states(self, state: dict[str, Any], *, strict: bool) -> None:
        settings = self.settings
        if strict and "dataset" in state and kept_dataset(settings) is None:
            raise StateMismatch(
                f"the state holds a state of the dataset, but {kind_of(settings.dataset)} has no load_state_dict",
                ("dataset",),
                found=state["dataset"],
                expected="a dataset with load_state_dict",
                cure="load it into a loader of the saved dataset, or pass strict=False to leave it out",
            )
        generator = settings.draws_from
        # A loader without one finishes the epoch as it was: its seed is in the state. Later epochs are its own.
        if "generator" not in state or settings.key is not None or generator is None:
            return
        if not can_be_set(generator, state["generator"]):
            raise StateMismatch(
                f"the state's generator is {shown(state['generator'])}",
                ("generator",),
                found=state["generator"],
                expected=f"the state of {kind_of(generator)}, which is this loader's generator",
                cure="recreate the loader with a generator of the class that the state was saved with",
            )

    def load(self, state: dict[str, Any]) -> None:
        """Let the next loop begin at a state."""
        with self.turn.lock:
            self._resume = state
            self._epoch = state["epoch"]

    def past(self, epoch: int) -> tuple[dict[str, Any], Cursor]:
        """Return what is known of an epoch: the loaded state, if it is partway through it, and the loop's cursor."""
        saved = self.loaded
        if saved.get("epoch") != epoch or not saved["step"]:
            saved = {}
        began = self.cursor.began
        cursor = self.cursor if not saved and began is not None and began.epoch == epoch else Cursor(Place(epoch))
        return saved, cursor

    def _drawn_ahead(self) -> int:
        """Return the seed of the next loop, where the loader has none: drawn once, by whoever asks first."""
        if self._next_seed is None:
            self._next_seed = draw_seed(self.settings.draws_from)
        return self._next_seed


def fingerprint(settings: Settings, order: EpochOrder, saved: dict[str, Any]) -> dict[str, Any]:
    """Return what a place is a place in: the facts that say which sample comes when."""
    facts = {
        "dataset": type(settings.dataset).__name__,
        "samples": settings.samples,
        "batch_size": settings.batch_size,
        "drop_last": settings.drop_last,
        "order": None,
        "seed": settings.seed,
        "on_error": settings.on_error,
        "world_size": settings.world_size,
    }
    return facts | order.facts(saved)
