"""The window against a model, over random histories."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headrace.plan.work import Done, Ended, Failed
from headrace.run.window import Unordered, Window


class WindowHistories(RuleBasedStateMachine):
    """Ask, put in any order, take: what is taken is every step once, in order, never more than the size ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 4
        self.window = Window(self.size)
        self.asked = 0
        self.away: list[int] = []
        self.taken = 0

    @precondition(lambda self: self.window.room)
    @rule()
    def ask(self) -> None:
        step = self.window.ask()
        assert step == self.asked
        self.asked += 1
        self.away.append(step)

    @precondition(lambda self: self.away)
    @rule(data=st.data(), failed=st.booleans())
    def put(self, data: st.DataObject, failed: bool) -> None:
        step = self.away.pop(data.draw(st.integers(0, len(self.away) - 1)))
        self.window.put(Failed(step, ValueError()) if failed else Done(step, step))

    @rule()
    def take(self) -> None:
        outcome = self.window.take()
        here = self.taken < self.asked and self.taken not in self.away
        assert (outcome is not None) == here
        if outcome is not None:
            assert outcome.step == self.taken
            self.taken += 1

    @precondition(lambda self: not self.window.room)
    @rule()
    def ask_too_much(self) -> None:
        with pytest.raises(RuntimeError, match="are open"):
            self.window.ask()

    @rule(step=st.integers(-1, 50))
    def put_what_nobody_asked_for(self, step: int) -> None:
        if step not in self.away:
            with pytest.raises(RuntimeError, match="which is not awaited"):
                self.window.put(Done(step, None))

    @invariant()
    def the_counts_agree(self) -> None:
        assert self.window.asked == self.asked
        assert self.window.in_flight == len(self.away)
        assert self.window.room == (self.asked - self.taken < self.size)
        assert self.asked - self.taken <= self.size


TestWindow = WindowHistories.TestCase


class LanesInAnyOrder(RuleBasedStateMachine):
    """ReplicatedStream of known lengths, whose outcomes come in any order: each step comes once."""

    SIZE = 6

    @initialize(lengths=st.lists(st.integers(0, 4), min_size=1, max_size=3))
    def begin(self, lengths: list[int]) -> None:
        self.lengths = lengths
        self.window = Unordered(self.SIZE, len(lengths))
        self.away: list[int] = []
        self.taken: list[int] = []

    def _turn(self, step: int) -> tuple[int, int]:
        turn, replica = divmod(step, len(self.lengths))
        return replica, turn

    @precondition(lambda self: self.window.room and not self.window.over)
    @rule()
    def ask(self) -> None:
        step = self.window.asked
        assert self.window.ask() == step
        self.away.append(step)
        replica, _ = self._turn(step)
        assert sum(self._turn(other)[0] == replica for other in self.away) <= self.SIZE

    @precondition(lambda self: self.away)
    @rule(data=st.data())
    def put(self, data: st.DataObject) -> None:
        # A replica is read in its own order: its first open step is answered first.
        replica = data.draw(st.sampled_from(sorted({self._turn(step)[0] for step in self.away})))
        step = min(step for step in self.away if self._turn(step)[0] == replica)
        self.away.remove(step)
        over = self._turn(step)[1] >= self.lengths[replica]
        self.window.put(Ended(step) if over else Done(step, step))

    @rule()
    def take(self) -> None:
        outcome = self.window.take()
        if outcome is not None:
            self.taken.append(outcome.step)

    @invariant()
    def nothing_comes_twice_or_too_early(self) -> None:
        assert len(set(self.taken)) == len(self.taken)
        assert self.window.in_flight == len(self.away) <= self.SIZE

    def teardown(self) -> None:
        while self.window.room and not self.window.over:
            self.ask()
            self.window.put(self._answer(self.away.pop()))
            self.take()
        while self.away:
            self.away.sort()
            self.window.put(self._answer(self.away.pop(0)))
        while (outcome := self.window.take()) is not None:
            self.taken.append(outcome.step)
        if self.window.over:
            whole = {t * len(self.lengths) + replica for replica, n in enumerate(self.lengths) for t in range(n)}
            assert set(self.taken) == whole

    def _answer(self, step: int) -> Done | Ended:
        replica, turn = self._turn(step)
        return Done(step, step) if turn < self.lengths[replica] else Ended(step)


TestLanesInAnyOrder = LanesInAnyOrder.TestCase
