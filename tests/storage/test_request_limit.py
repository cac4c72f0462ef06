"""How many requests run at once: more while that helps, fewer where the server refuses, some kept for who waits."""

from __future__ import annotations

import threading
from contextlib import ExitStack

from headrace.storage.request_limit import FEWEST, RequestLimit


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def a_round(limit: RequestLimit, clock: Clock, seconds: float) -> None:
    """Send as many requests as may run at once, and let them end together after so many seconds."""
    with ExitStack() as sent:
        for _ in range(limit.now):
            sent.enter_context(limit.request(1 << 20, urgent=False))
        clock.now += seconds


def test_the_number_doubles_while_that_brings_far_more_and_then_grows_slowly() -> None:
    clock = Clock()
    limit = RequestLimit(first=8, most=100, clock=clock)
    found = []
    for rate in (160, 320, 352, 384, 420):  # requests a second
        a_round(limit, clock, limit.now / rate)
        found.append(limit.now)
    assert found == [16, 32, 36, 40, 45]


def test_more_requests_run_at_once_while_that_brings_more() -> None:
    clock = Clock()
    limit = RequestLimit(first=8, most=70, clock=clock)
    for _ in range(5):
        a_round(limit, clock, 1.0)  # always as long: each place more brings more bytes a second
    assert limit.now == 70


def test_the_number_stays_where_more_brings_nothing_and_falls_where_it_harms() -> None:
    clock = Clock()
    limit = RequestLimit(first=8, clock=clock)
    a_round(limit, clock, 1.0)
    reached = limit.now
    for _ in range(5):
        a_round(limit, clock, limit.now / 8)  # the bandwidth is used up
    assert limit.now == reached
    a_round(limit, clock, limit.now / 2)
    assert limit.now < reached


def test_a_pause_between_rounds_says_nothing_of_the_server() -> None:
    clock = Clock()
    limit = RequestLimit(first=8, most=16, clock=clock)
    for _ in range(3):
        a_round(limit, clock, 1.0)
        clock.now += 100
    assert limit.now == 16


def test_requests_that_leave_places_free_change_nothing() -> None:
    clock = Clock()
    limit = RequestLimit(first=8, clock=clock)
    for _ in range(50):
        clock.now += 0.1
        with limit.request(1):
            pass
    assert limit.now == 8


def test_a_refusal_halves_the_number_once_a_round_down_to_a_least() -> None:
    clock = Clock()
    limit = RequestLimit(first=16, clock=clock)
    limit.refused()
    limit.refused()
    assert limit.now == 8
    for _ in range(10):
        a_round(limit, clock, 1.0)
        limit.refused()
    assert limit.now == FEWEST


def test_a_request_waits_for_a_place_and_an_urgent_one_goes_before_it() -> None:
    limit = RequestLimit(first=1)
    entered = threading.Event()

    def later() -> None:
        with limit.request(1, urgent=False):
            entered.set()

    thread = threading.Thread(target=later)
    with limit.request(1):
        thread.start()
        with limit.request(1):  # urgent: it has a place beyond the limit
            assert not entered.is_set()
    thread.join()
    assert entered.is_set()
    assert limit.busy == 0


def test_a_request_takes_a_place_for_each_mebibyte() -> None:
    clock = Clock()
    limit = RequestLimit(first=16, clock=clock)
    with limit.request(8 << 20), limit.request((7 << 20) + 1):
        assert limit.busy == 16
        clock.now += 1
    assert (limit.busy, limit.now) == (0, 32)  # a round of sixteen


def test_a_request_that_fails_gives_its_place_back() -> None:
    limit = RequestLimit(first=1)
    for _ in range(3):
        try:
            with limit.request(1):
                raise OSError("broken")
        except OSError:
            pass
    assert limit.busy == 0
