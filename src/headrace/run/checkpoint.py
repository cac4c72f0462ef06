"""The place of a run, as a few integers: what `DataLoader.state_dict` gives, and `load_state_dict` takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace.checks import shown
from headrace.errors import StateMismatch
from headrace.run.saved import VERSION, validate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headrace.make.shared_reader import SharedReader
    from headrace.plan.batch_plan import BatchPlan
    from headrace.plan.batch_sampler_plan import BatchSamplerPlan
    from headrace.plan.passes import Pass


@dataclass(slots=True)
class Place:
    """The place in a run of the next batch that the consumer has not received; never changed (see `plan.work`)."""

    epoch: int
    step: int = 0
    """Of the plan, in that epoch."""
    beyond: tuple[int, ...] = ()
    """Later steps that were received before it, where order is not asked for."""
    offset: int = 0
    """Samples of that step that were received already, where batches are filled up."""
    batches: int = 0
    """Received in that epoch."""
    bad: int = 0
    """Samples passed over before it, by the rank whose place it is."""
    streams: Mapping[int, Any] = field(default_factory=dict)
    """By replica, the state of a stream that keeps its own."""
    session: str | None = None
    """Under what name the ledger has what was received."""


@dataclass(slots=True)
class Cursor:
    """One loop's place, which the loop moves and anyone may read at any time, and what else it takes to come back."""

    place: Place
    seed: int | None = None
    """What the loop draws from, where the loader has no seed."""
    plan: BatchPlan | BatchSamplerPlan | None = None
    sampler: Pass | SharedReader | None = None
    """What is read once, in order, and knows how to be read from a step on."""
    began: Place | None = None
    """Where the loop began; None where none has."""
    dataset: Any = None
    """What the dataset of this process kept of itself when the loop began, if it keeps a state."""
    rank: int = 0
    """Whose place it is: all ranks have the same, but for the samples that each has passed over."""
    position: Callable[[int], int | list[int]] | None = None
    """Where a step begins in a stream or a sampler, or in each copy, if not where its number and the batch size say."""

    @property
    def inside(self) -> bool:
        """Whether the place is within an epoch that a loop has begun, and not between two loops."""
        place = self.place
        begun = self.began is not None and self.began.epoch == place.epoch
        return bool(begun or place.step or place.offset or place.beyond)

    def to_dict(self, plan: Mapping[str, Any]) -> dict[str, Any]:
        """Return the place, and what it is a place in, as what JSON can hold.

        >>> Cursor(Place(epoch=2, step=7, batches=7), seed=3).to_dict({"samples": 100})
        {'version': 1, 'epoch': 2, 'step': 7, 'batches': 7, 'seed': 3, 'plan': {'samples': 100}}
        """
        place = self.place
        state: dict[str, Any] = {"version": VERSION, "epoch": place.epoch, "step": place.step, "batches": place.batches}
        if self.inside and self.seed is not None:
            state["seed"] = self.seed
        optional: dict[str, Any] = {"streams": {str(number): list(kept) for number, kept in place.streams.items()}}
        if self.inside:
            optional |= {
                "samples": 0 if self.plan is None else self.plan.position(place.step),
                "window": None if self.plan is None else self.plan.entry(place.step),
                "read": None if self.position is None else self.position(place.step),
                "beyond": list(place.beyond),
                "offset": place.offset,
                "bad": place.bad,
                "rank": self.rank if place.bad else 0,
                "ledger": place.session,
                **({} if self.sampler is None else self.sampler.facts(place.step)),
            }
        if optional.get("window"):
            optional["window"] = list(optional["window"])
        state |= {name: value for name, value in optional.items() if value}
        return {**state, "plan": dict(plan)}


def bad_before(state: Mapping[str, Any], rank: int, world_size: int) -> int:
    """Return how many samples this rank has passed over before a place, as far as the state can tell.

    >>> [bad_before({"bad": 3, "rank": 1}, rank, 2) for rank in range(2)]
    [0, 3]

    A rank knows only its own mistakes. Where there are fewer ranks now, one of them counts on for each that saved.
    """
    bad: int = state.get("bad", 0) if state.get("rank", 0) % world_size == rank else 0
    return bad


def from_dict(state: Any) -> Place:
    """Return the place that a state names; raises `StateMismatch` for what is no state of ours."""
    validate(state)
    numbers = {name: state.get(name, 0) for name in ("epoch", "step", "offset", "batches", "bad")}
    streams = {int(replica): value for replica, value in state.get("streams", {}).items()}
    return Place(beyond=tuple(state.get("beyond", ())), streams=streams, session=state.get("ledger"), **numbers)


def check(saved: Mapping[str, Any], here: Mapping[str, Any], *, beyond: bool = False) -> None:
    """Raise `StateMismatch` where a state was saved of another plan than this one: names all that differs.

    >>> check({"samples": 10, "shuffle": True}, {"samples": 12, "shuffle": True})
    Traceback (most recent call last):
    headrace.errors.StateMismatch: the state was saved with samples=10, but this loader has samples=12; ...

    The number of ranks may be another, unless steps ``beyond`` the place were received already, cut as they were.
    """
    names = [name for name in {**saved, **here} if saved.get(name) != here.get(name)]
    if "world_size" in names and not beyond:
        names.remove("world_size")
        if "batch_size" in names and _whole(saved) == _whole(here):  # shared out between another number of ranks
            names.remove("batch_size")
    if names:
        then = ", ".join(f"{name}={shown(saved.get(name))}" for name in names)
        now = ", ".join(f"{name}={shown(here.get(name))}" for name in names)
        raise StateMismatch(
            f"the state was saved with {then}, but this loader has {now}",
            tuple(names),
            found=then,
            expected=now,
            cure="recreate the loader with the saved arguments, or pass strict=False to load_state_dict",
        )


def _whole(plan: Mapping[str, Any]) -> int:
    return (plan.get("batch_size") or 1) * (plan.get("world_size") or 1)
