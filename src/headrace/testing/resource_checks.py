"""Checks of the memory that reading keeps, and of what so many workers would need."""

from __future__ import annotations

import gc
import os
import pickle
import resource
import tracemalloc
from contextlib import suppress
from itertools import pairwise
from time import monotonic
from typing import TYPE_CHECKING, Any

from headrace.formatting import count, memory_of
from headrace.interop.machine import free_memory
from headrace.run.arguments import PREFETCH_FACTOR
from headrace.testing.sample_bytes import nbytes
from headrace.testing.source_lines import is_users, shown_file
from headrace.testing.subject import Report, Subject, descriptors, until

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST_GROWTH, LEAST_KEPT = 128, 16 << 10
"""Bytes for each sample read, and of all together, below which memory does not count as growing: libraries keep freed
numbers and small objects for the next ones, up to a bound."""

_ROUNDS = 4
_DEEP = 12


def memory(subject: Subject, seconds: float) -> Report:
    """Read the same samples again and again: memory may not grow, and the workers may not need too much."""
    report = Report()
    before = descriptors()
    for _ in range(2):
        _pass(subject)
    tracemalloc.start(1)
    try:
        begun = monotonic()
        _pass(subject)
        passes = max(3, min(60, int(seconds / 2 / _ROUNDS / max(1e-5, monotonic() - begun))))
        _grown(subject, report, passes, seconds)
        if not report.findings and subject.indexed:
            _kept(subject, report, seconds / 4)
    finally:
        tracemalloc.stop()
    now = descriptors()
    _projected(subject, report, max(0, (now or 0) - (before or 0)))
    return report


def _pass(subject: Subject) -> None:
    for _ in subject.samples():
        pass


def _sizes(subject: Subject, passes: int) -> list[int]:
    """Return how much traced memory there is after each of some rounds of reading."""
    sizes = []
    for _ in range(_ROUNDS):
        for _ in range(passes):
            _pass(subject)
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
    return sizes


def _grown(subject: Subject, report: Report, passes: int, seconds: float) -> None:
    sizes = _sizes(subject, passes)
    steps = [after - before for before, after in pairwise(sizes[1:])]
    reads = passes * max(1, len(subject.keys)) * len(steps)
    each = sum(steps) / reads
    report.facts["memory_growth_bytes"] = max(0.0, each)
    if each < LEAST_GROWTH or sum(steps) < LEAST_KEPT or min(steps) * 4 < max(steps):
        return
    if not _goes_on(subject, each, seconds):
        return
    tracemalloc.stop()
    tracemalloc.start(_DEEP)
    _pass(subject)
    first = tracemalloc.take_snapshot()
    for _ in range(max(2, passes // 4)):
        _pass(subject)
    gc.collect()
    lines = tracemalloc.take_snapshot().compare_to(first, "traceback")
    place = next((found for line in lines if line.size_diff > 0 and (found := _line(line.traceback))), None)
    said = f"{memory_of(sum(steps))} stayed after {count(reads, 'read')} of the same {len(subject.keys) or 12} samples"
    cure = "Keep nothing of a sample in the dataset, or bound what is kept: functools.lru_cache(maxsize=…)."
    report.find("memory", "memory grows with each sample read", said, cure, place or subject.place())


def _goes_on(subject: Subject, each: float, seconds: float) -> bool:
    """Say whether memory still grows by half as much a read after many more: a library's own store has a bound."""
    _passes(subject, seconds / 2)
    before = tracemalloc.get_traced_memory()[0]
    reads = _passes(subject, seconds / 2) * max(1, len(subject.keys))
    gc.collect()
    return tracemalloc.get_traced_memory()[0] - before >= each * reads / 2


def _passes(subject: Subject, seconds: float) -> int:
    """Read all samples again until the time is over; return how often."""
    rounds = 0
    for _ in until(seconds):
        _pass(subject)
        rounds += 1
    return rounds


def _line(stack: Any) -> str | None:
    found = next((frame for frame in reversed(list(stack)) if is_users(frame.filename)), None)
    return None if found is None else f"{shown_file(found.filename)}:{found.lineno}"


def _kept(subject: Subject, report: Report, seconds: float) -> None:
    """Read other samples, and see how much of each is kept: with all samples it may be more than there is."""
    size = len(subject.dataset)
    others = [key for key in range(min(size, 4096)) if key not in set(subject.keys)]
    before, read = tracemalloc.get_traced_memory()[0], 0
    rounds = until(seconds)
    for key, _ in zip(others, rounds, strict=False):
        with suppress(Exception):  # errors are another check's
            subject.read(key)
            read += 1
    gc.collect()
    if read < 2:
        return
    each = (tracemalloc.get_traced_memory()[0] - before) / read
    free = free_memory()
    report.facts["kept_bytes"] = max(0.0, each)
    if free is not None and each >= LEAST_GROWTH and each * size * max(1, subject.workers) > free:
        said = f"{memory_of(each)} of each new sample stay: {memory_of(each * size)} for all {size:,}, in each worker"
        cure = f"Bound the cache: {memory_of(free)} are free, for {count(subject.workers, 'worker')}."
        report.find("memory", "the dataset keeps the samples that it reads", said, cure, subject.place())


def _projected(subject: Subject, report: Report, opened: int) -> None:
    """Say what the workers would hold together, and what of it the machine has not."""
    workers, loader = subject.workers, subject.loader
    samples = [sample for _, sample in subject.samples(subject.keys[:1])][:1]
    if not samples or not workers:
        return
    rows = 1 if loader is None else loader.batch_size or 1
    batches = workers * (PREFETCH_FACTOR if loader is None or not loader.prefetch_factor else loader.prefetch_factor)
    in_flight = batches * rows * nbytes(samples[0])
    own = 0
    with suppress(Exception):  # what cannot be pickled is another check's
        own = len(pickle.dumps(subject.dataset))
    shm, files = _free_shared(), resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    needs: dict[str, tuple[int, int | None, Callable[[float], str]]] = {
        "memory": (in_flight + workers * own, free_memory(), memory_of),
        "shared memory": (in_flight, shm, memory_of),
        "descriptors": (workers * opened, files, str),
    }
    report.facts["workers"] = workers
    report.facts |= {f"projected_{name.replace(' ', '_')}": need for name, (need, _, _) in needs.items()}
    for name, (need, there, said) in needs.items():
        if there is not None and need > there:
            evidence = f"{count(workers, 'worker')} would need {said(need)} of {name}, and there are {said(there)}"
            cure = "Use fewer workers, smaller batches, or a smaller prefetch_factor."
            report.find("projection", "the workers need more than this machine has", evidence, cure)
            return


def _free_shared() -> int | None:
    with suppress(OSError):
        found = os.statvfs("/dev/shm")  # noqa: S108  read only
        return found.f_bavail * found.f_frsize
    return None
