"""What is asked for, what is here, what is next: the order of delivery, without threads, clocks or I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.work import Outcome


class Window:
    """A sliding window over the steps of an epoch: outcomes come in any order and are taken in the steps' order.

    >>> from headrace.work import Done
    >>> window = Window(size=2)
    >>> window.ask(), window.ask(), window.room
    (0, 1, False)
    >>> window.put(Done(1, "second"))
    >>> window.take() is None
    True
    >>> window.put(Done(0, "first"))
    >>> window.take().batch, window.take().batch, window.room
    ('first', 'second', True)

    Invariant: ``taken <= asked <= taken + size``; so no more than ``size`` batches are ever held or being made.
    """

    __slots__ = ("_asked", "_here", "_size", "_taken")

    def __init__(self, size: int) -> None:
        self._size = size
        self._asked = 0
        self._taken = 0
        self._here: dict[int, Outcome] = {}

    @property
    def asked(self) -> int:
        """How many steps were asked for: also the step that is asked for next."""
        return self._asked

    @property
    def room(self) -> bool:
        """Whether another step may be asked for."""
        return self._asked - self._taken < self._size

    @property
    def in_flight(self) -> int:
        """How many steps were asked for and are not here yet."""
        return self._asked - self._taken - len(self._here)

    def ask(self) -> int:
        """Claim the next step: exactly one outcome for it must be put."""
        if not self.room:
            raise RuntimeError(f"step {self._asked} asked for while {self._size} steps are open")
        self._asked += 1
        return self._asked - 1

    def put(self, outcome: Outcome) -> None:
        """Put the outcome of a step that was asked for."""
        step = outcome.step
        if not self._taken <= step < self._asked or step in self._here:
            raise RuntimeError(
                f"an outcome of step {step} came where none was awaited: steps {self._taken} to {self._asked - 1} "
                f"are open, of which {sorted(self._here)} are here"
            )
        self._here[step] = outcome

    def take(self) -> Outcome | None:
        """Take the outcome of the next step, or None while it is not here."""
        outcome = self._here.pop(self._taken, None)
        if outcome is not None:
            self._taken += 1
        return outcome
