"""The window against a model, over random histories."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.window import Window
from headrace.work import Done, Failed


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
            with pytest.raises(RuntimeError, match="none was awaited"):
                self.window.put(Done(step, None))

    @invariant()
    def the_counts_agree(self) -> None:
        assert self.window.asked == self.asked
        assert self.window.in_flight == len(self.away)
        assert self.window.room == (self.asked - self.taken < self.size)
        assert self.asked - self.taken <= self.size


TestWindow = WindowHistories.TestCase
