"""What is asked for, what is here, what is next: the order of delivery, without threads, clocks or I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.errors import IterationError
from headrace.plan.work import Ended

if TYPE_CHECKING:
    from collections.abc import Collection

    from headrace.plan.work import Outcome


class Window:
    """A sliding window over the steps of an epoch: outcomes come in any order and are taken in the steps' order.

    A step whose outcome is `Ended` is passed over: step ``s`` reads replica ``s mod replicas``, which has ended.

    >>> from headrace.plan.work import Done
    >>> window = Window(size=2)
    >>> window.ask(), window.ask(), window.room
    (0, 1, False)
    >>> window.put(Done(1, "second"))
    >>> window.take() is None
    True
    >>> window.put(Done(0, "first"))
    >>> window.take().batch, window.take().batch, window.room
    ('first', 'second', True)

    Invariant: ``taken <= asked <= taken + size``; so no more than ``size`` batches are ever held or being made. After
    `resize` to fewer, those asked for are taken first. A window may begin in the middle: at step ``first``, with steps
    ``beyond`` it that were taken already.
    """

    __slots__ = ("_asked", "_beyond", "_ended", "_here", "_replicas", "_size", "_taken")

    def __init__(self, size: int, replicas: int = 1, first: int = 0, beyond: Collection[int] = ()) -> None:
        self._size = size
        self._replicas = replicas
        self._ended: set[int] = set()
        self._asked = first
        self._taken = first
        self._here: dict[int, Outcome | None] = {}
        """None: a step beyond the first that was taken before, by another window."""
        self._beyond = frozenset(beyond)
        self._pass_over()

    @property
    def over(self) -> bool:
        """Whether every replica has ended: nothing more is to be asked for."""
        return len(self._ended) == self._replicas

    @property
    def place(self) -> tuple[int, tuple[int, ...]]:
        """The first step that was not taken, and those beyond it that were."""
        if not self._beyond:
            return self._taken, ()
        return self._taken, tuple(sorted(step for step in self._beyond if step >= self._taken))

    @property
    def asked(self) -> int:
        """The step that is asked for next: every one before it was asked for."""
        return self._asked

    @property
    def room(self) -> bool:
        """Whether another step may be asked for."""
        return self._asked - self._taken < self._size and len(self._ended) < self._replicas

    @property
    def open(self) -> int:
        """How many steps were asked for and not taken yet."""
        return self._asked - self._taken

    @property
    def in_flight(self) -> int:
        """How many steps were asked for and are not here yet."""
        return self._asked - self._taken - len(self._here)

    def resize(self, size: int) -> None:
        """Hold another number of batches at most; what was asked for stays."""
        self._size = size

    def ask(self) -> int:
        """Claim the next step: exactly one outcome for it must be put."""
        if not self.room:
            raise _full(self._size)
        step, self._asked = self._asked, self._asked + 1
        self._pass_over()
        return step

    def _pass_over(self) -> None:
        while self._asked in self._beyond:
            self._here[self._asked] = None
            self._asked += 1

    def put(self, outcome: Outcome) -> None:
        """Put the outcome of a step that was asked for."""
        step = outcome.step
        if not self._taken <= step < self._asked or step in self._here:
            open_steps = [number for number in range(self._taken, self._asked) if number not in self._here]
            raise _unasked(step, open_steps)
        self._here[step] = outcome

    def take(self) -> Outcome | None:
        """Take the outcome of the next step, or None while it is not here."""
        while self._taken in self._here:
            outcome = self._here.pop(self._taken)
            self._taken += 1
            if isinstance(outcome, Ended):
                self._ended.add(outcome.step % self._replicas)
            elif outcome is not None:
                return outcome
        return None


class Unordered:
    """A window whose outcomes are taken as they come; no replica is asked for more than its share.

    >>> from headrace.plan.work import Done
    >>> window = Unordered(size=2)
    >>> window.ask(), window.ask(), window.room
    (0, 1, False)
    >>> window.put(Done(1, "quick"))
    >>> window.take().batch, window.room, window.in_flight
    ('quick', True, 1)

    Step ``s`` reads replica ``s mod replicas``; a replica's own steps are asked for in their order.
    """

    __slots__ = ("_beyond", "_flying", "_here", "_live", "_low", "_replicas", "_size", "_skip", "_turn", "_turns")

    def __init__(self, size: int, replicas: int = 1, first: int = 0, beyond: Collection[int] = ()) -> None:
        self._size = size
        self._replicas = replicas
        self._live = list(range(replicas))
        self._low = first
        self._beyond = set(beyond)
        self._skip = frozenset(beyond)
        self._turns = [max(0, -(-(first - replica) // replicas)) for replica in range(replicas)]
        for replica in range(replicas):
            self._pass_over(replica)
        self._turn = first % replicas
        self._flying: dict[int, None] = {}
        self._here: dict[int, Outcome] = {}

    @property
    def over(self) -> bool:
        """Whether every replica has ended: nothing more is to be asked for."""
        return not self._live

    @property
    def place(self) -> tuple[int, tuple[int, ...]]:
        """The first step that was not taken, and those beyond it that were."""
        return self._low, tuple(sorted(self._beyond))

    @property
    def asked(self) -> int:
        """The step that is asked for next."""
        replica = self._next_replica()
        return self._turns[replica] * self._replicas + replica if replica is not None else -1

    @property
    def room(self) -> bool:
        """Whether another step may be asked for."""
        return self.open < self._size and self._next_replica() is not None

    @property
    def open(self) -> int:
        """How many steps were asked for and not taken yet."""
        return self.in_flight + len(self._here)

    @property
    def in_flight(self) -> int:
        """How many steps were asked for and are not here yet."""
        return len(self._flying)

    def resize(self, size: int) -> None:
        """Hold another number of batches at most; what was asked for stays."""
        self._size = size

    def ask(self) -> int:
        """Claim the next step: exactly one outcome for it must be put."""
        replica = self._next_replica()
        if replica is None or not self.room:
            raise _full(self._size)
        step = self.asked
        self._turns[replica] += 1
        self._pass_over(replica)
        self._turn = replica + 1
        self._flying[step] = None
        return step

    def put(self, outcome: Outcome) -> None:
        """Put the outcome of a step that was asked for."""
        if outcome.step not in self._flying:
            raise _unasked(outcome.step, list(self._flying))
        del self._flying[outcome.step]
        if not isinstance(outcome, Ended):
            self._here[outcome.step] = outcome
        else:
            self._taken(outcome.step)
            if outcome.step % self._replicas in self._live:
                self._live.remove(outcome.step % self._replicas)

    def take(self) -> Outcome | None:
        """Take the outcome that came first, or None while there is none."""
        if not self._here:
            return None
        outcome = self._here.pop(next(iter(self._here)))
        self._taken(outcome.step)
        return outcome

    def _taken(self, step: int) -> None:
        self._beyond.add(step)
        while self._low in self._beyond or self._is_void(self._low):
            self._beyond.discard(self._low)
            self._low += 1

    def _is_void(self, step: int) -> bool:
        """Say whether a step will never come, for its replica is over."""
        over = bool(self._live) and step % self._replicas not in self._live
        return over and step not in self._flying and step not in self._here

    def _pass_over(self, replica: int) -> None:
        while self._turns[replica] * self._replicas + replica in self._skip:
            self._turns[replica] += 1

    def _next_replica(self) -> int | None:
        share = max(1, self._size // len(self._live)) if self._live else 0
        for replica in (*(n for n in self._live if n >= self._turn), *(n for n in self._live if n < self._turn)):
            if sum(step % self._replicas == replica for step in self._flying) < share:
                return replica
        return None


def _full(size: int) -> IterationError:
    return IterationError(
        f"another step was begun while {size} steps are open",
        found=size,
        expected=f"at most {size} open steps",
        cure="Take an outcome first.",
    )


def _unasked(step: int, open_steps: list[int]) -> IterationError:
    return IterationError(
        f"the executor returned an outcome of step {step}, which is not awaited",
        found=step,
        expected=f"one outcome for each submitted step; {open_steps} are open",
        cure="Return one outcome for each work from the executor's next().",
    )
