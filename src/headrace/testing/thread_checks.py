"""Checks of a dataset on several threads at once, and how long reading holds the GIL."""

from __future__ import annotations

import random
import sys
import threading
from contextlib import contextmanager, suppress
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any

from headrace.testing.sample_bytes import digest
from headrace.testing.source_lines import assigned, frames_of_error, is_users, place_of
from headrace.testing.subject import Report, Subject, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

THREADS = 4


def threads(subject: Subject, seconds: float, expected: dict[Any, str] | None) -> Report:
    """Read the same samples on several threads that take turns as often as they can: the bytes stay the same."""
    report = Report()
    alone = {key: digest(sample) for key, sample in subject.samples()}
    if expected is not None and (differs := [key for key in alone if expected.get(key) != alone[key]]):
        report.find(
            "process",
            "a sample has other bytes in another process",
            f"index {differs[0]!r}, read in a forked process, gave other bytes",
            "Leave out what a process has of its own: os.getpid(), id(), the time.",
            subject.place(),
        )
        return report
    report.facts["gil_share"] = gil_share(subject, min(0.3, seconds / 4))
    attributes = {name: id(value) for name, value in vars(subject.dataset).items()} if _has(subject.dataset) else {}
    with _switching():
        for number in until(seconds * 3 / 4):
            found = _round(subject, alone, number)
            if found is None:
                continue
            evidence, place = found
            changed = [name for name, old in attributes.items() if id(getattr(subject.dataset, name, None)) != old]
            if changed and place is None:
                evidence += f"; reads set dataset.{changed[0]}"
                place = assigned(subject.dataset, changed[0], after_init=True)
            report.find(
                "threads",
                "threads that read together disturb each other",
                evidence,
                "Keep what a read needs in local variables or in threading.local(), or use backend='processes'.",
                place or subject.place(),
            )
            break
    return report


def _has(dataset: Any) -> bool:
    return hasattr(dataset, "__dict__")


@contextmanager
def _switching() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _round(subject: Subject, alone: dict[Any, str], number: int) -> tuple[str, str | None] | None:
    """Read all samples on all threads, each in an order of its own; return what went wrong, and where."""
    wrong: list[tuple[str, str | None]] = []
    barrier = threading.Barrier(THREADS)

    def work(place: int) -> None:
        keys = list(alone)
        random.Random(THREADS * number + place).shuffle(keys)  # noqa: S311  no secret
        barrier.wait()
        if number % 2 == 0:  # at every line of the user's another thread gets its turn
            sys.settrace(_yield)
        for key in keys:
            try:
                found = digest(subject.read(key, seeded=False))
            except Exception as error:  # noqa: BLE001  a user's own
                where = place_of(frames_of_error(error))
                wrong.append((f"index {key!r} raised {type(error).__name__}: {error}", where))
                break
            if found != alone[key]:
                wrong.append((f"index {key!r} gave other bytes on {THREADS} threads than on one", None))
                break
        sys.settrace(None)

    subject.pulse.beat(0)
    started = [threading.Thread(target=work, args=(place,), daemon=True) for place in range(THREADS)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    subject.pulse.beat(0, reading=False)
    return wrong[0] if wrong else None


def _yield(frame: FrameType, event: str, _argument: Any) -> Any:
    if not is_users(frame.f_code.co_filename):
        return None
    if event == "line":
        sleep(0)
    return _yield


def gil_share(subject: Subject, seconds: float) -> float | None:
    """Return the share of its time that reading holds the GIL: how often another thread that wants it has to wait.

    The measure is a sample of short sleeps: one that ends late, by more than those do while nobody reads, met the GIL
    in another thread's hands.
    """
    late = _delays(lambda: False, seconds / 3)
    if not late:
        return None
    limit = min(sorted(late)[len(late) * 9 // 10] + 5e-5, 1e-3)
    done = threading.Event()

    def read() -> None:
        with suppress(Exception):  # errors are another check's
            while not done.is_set():
                for key in subject.keys:
                    subject.read(key, seeded=False)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    found = _delays(lambda: not reader.is_alive(), seconds * 2 / 3)
    done.set()
    reader.join()
    return sum(delay > limit for delay in found) / len(found) if found else None


def _delays(over: Any, seconds: float) -> list[float]:
    found, end = [], perf_counter() + seconds
    while perf_counter() < end and not over():
        began = perf_counter()
        sleep(2e-4)
        found.append(perf_counter() - began - 2e-4)
    return found
