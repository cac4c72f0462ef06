"""Property tests of a user's own dataset, transforms and collate function, each with its evidence and its cure."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from headrace.checks import kind_of, non_negative, number
from headrace.datasets import protocol
from headrace.errors import ArgumentTypeError
from headrace.formatting import count, duration, memory_of, percent
from headrace.loader import DataLoader
from headrace.testing.isolated import Pulse, Ran, isolated
from headrace.testing.process_checks import Fresh, pickles
from headrace.testing.resource_checks import memory
from headrace.testing.resume_checks import resumes
from headrace.testing.sample_checks import kinds, reads, repeats
from headrace.testing.source_lines import place_of
from headrace.testing.subject import Finding, Report, Subject
from headrace.testing.thread_checks import threads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CHECKS: dict[str, str] = {
    "reads": "samples can be read, and no read hangs or ends the process",
    "length": "len() says how many samples there are",
    "structure": "samples have the same fields, dtypes and shapes",
    "collate": "samples can be collated, each time into the same batch",
    "aliasing": "a sample keeps its bytes when others are read",
    "randomness": "no sample draws from a global generator",
    "repeat": "an index read twice gives the same bytes",
    "order": "an index gives the same bytes in any order",
    "pickle": "the dataset can be pickled, also after a read",
    "handles": "forked workers share no open handle",
    "spawn": "a pickled copy gives the same bytes in a fresh process",
    "process": "a forked process gives the same bytes",
    "threads": "threads that read together get the same bytes",
    "memory": "reading keeps nothing",
    "descriptors": "reading leaves no file open",
    "projection": "the workers need no more than the machine has",
    "resume": "a resumed loop gives the batches that would have come",
}
"""What is checked, by the name that a finding has."""

_FIRST = {"repeat", "order", "aliasing", "randomness", "descriptors", "collate"}
"""Findings after which other processes, threads, or a resumed loop say nothing new."""

_PART = 1 / 6
"""The share of the time for each of the checks that search for as long as they may."""

_HANGS = 1 / 3
"""The share of the time after which a read hangs."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What `examine` found, measured, and could not check.

    >>> examine([1, 2, 3], seconds=1).findings
    ()
    """

    name: str
    """What was examined."""
    findings: tuple[Finding, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What was measured: numbers by name."""
    unchecked: Mapping[str, str] = field(default_factory=dict)
    """Names of checks that were not made, each with the reason."""
    seconds: float = 0.0

    @property
    def checked(self) -> tuple[str, ...]:
        """The names of the checks that were made."""
        return tuple(name for name in CHECKS if name not in self.unchecked)

    def __str__(self) -> str:
        """Return the findings, the facts and what was not checked, a line for each."""
        lines = [f"{self.name}: {count(len(self.findings), 'finding')} in {duration(self.seconds)}"]
        lines += [f"{found.check}: {found}" for found in self.findings]
        lines += [f"{name}: not checked: {why}" for name, why in self.unchecked.items()]
        return "\n".join(lines + self.remarks())

    def remarks(self) -> list[str]:
        """Return in words what was measured."""
        found, lines = self.facts, []
        if (share := found.get("gil_share")) is not None:
            what = "processes help more than threads" if share > 0.5 else "threads can share the work"
            lines.append(f"reading holds the GIL for {percent(share)} of its time: {what}")
        if "pickled_bytes" in found:
            lines.append(
                f"pickled, the dataset has {memory_of(found['pickled_bytes'])}: each spawned worker has a copy"
            )
        if "projected_memory" in found:
            need = memory_of(found["projected_memory"])
            shm = memory_of(found["projected_shared_memory"])
            lines.append(f"{count(found['workers'], 'worker')}: {need} of memory, {shm} of them shared for batches")
        return lines


def examine(dataset: Any, *, seconds: float = 30.0, workers: int = 4) -> Examination:
    """Property-test a dataset with its transforms, or a loader with its collate function too.

    >>> from headrace import ArrayDataset
    >>> found = examine(ArrayDataset([1, 2, 3]).map(lambda number: number + 1), seconds=6)
    >>> [finding.check for finding in found.findings]
    ['pickle']

    Reads a dozen samples in forked processes, so that nothing that a sample does reaches the caller, and a read that
    hangs or crashes is a finding too. Takes about ``seconds`` at most; what does not fit in is in
    `Examination.unchecked`. ``workers`` is for how many the memory is projected. Raises `ArgumentTypeError` for what
    is neither a loader nor a dataset.
    """
    seconds = number("seconds", seconds, least=0.1)
    workers = non_negative("workers", workers, "give the number of workers that training uses")
    loader = dataset if isinstance(dataset, DataLoader) else None
    data = dataset if loader is None else loader.dataset
    if not protocol.is_iterable(data) and not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise ArgumentTypeError(
            f"examine needs a loader or a dataset; got {kind_of(dataset)}",
            found=dataset,
            expected="a DataLoader, or an object with __getitem__ and __len__, or with __iter__",
            cure="pass a dataset or a loader of headrace",
        )
    subject = Subject(data, loader, Pulse(), workers if loader is None else loader.num_workers or workers)
    return _Examiner(subject, seconds).run()


class _Examiner:
    """Makes the checks one after the other, as far as the time goes."""

    def __init__(self, subject: Subject, seconds: float) -> None:
        self._subject = subject
        self._seconds = seconds
        self._begun = monotonic()
        self._patience = max(1.5, seconds * _HANGS)
        self._findings: list[Finding] = []
        self._facts: dict[str, Any] = {}
        self._unchecked: dict[str, str] = {}
        self._kept: dict[str, Any] = {}

    def run(self) -> Examination:
        """Make all checks."""
        subject, share = self._subject, self._seconds * _PART
        first = self._check(partial(reads, subject), "reads", "length", "structure", "collate", "aliasing")
        subject.keys = self._kept.get("keys", [])
        if first is None or any(found.check in ("reads", "hang") for found in self._findings) or self._is_empty():
            for name in CHECKS:
                if name not in ("reads", *self._unchecked):
                    self._unchecked[name] = "no sample could be read"
            return self._ended()
        self._check(partial(repeats, subject), "repeat", "order", "randomness", "descriptors")
        self._check(partial(pickles, subject), "pickle", "handles")
        uneven = next((found.check for found in self._findings if found.check in _FIRST), None)
        reason = f"it would say nothing new: see {uneven}"
        fresh = self._fresh(None if uneven is None else reason)
        try:
            if uneven is None and not subject.streams:
                check = partial(threads, subject, share, self._kept.get("digests"))
                self._check(check, "process", "threads")
            else:
                self._unchecked["threads"] = self._unchecked["process"] = (
                    "a stream is read by one thread" if uneven is None else reason
                )
            if uneven != "descriptors":
                self._check(partial(memory, subject, share), "memory", "projection")
            else:
                self._unchecked["memory"] = self._unchecked["projection"] = reason
            if uneven is None and not any(found.check == "length" for found in self._findings):
                self._add(resumes(subject, max(1.0, self._left()), self._patience))
            else:
                self._unchecked["resume"] = reason if uneven else "it would say nothing new: see length"
        finally:
            if fresh is not None:
                self._add(fresh.check(self._kept.get("digests"), subject.place(), max(10.0, self._left())))
        return self._ended()

    def _is_empty(self) -> bool:
        return not self._subject.streams and not self._subject.keys

    def _fresh(self, reason: str | None) -> Fresh | None:
        pickled = self._kept.get("pickle")
        if pickled is None or reason is not None:
            self._unchecked.setdefault("spawn", reason or "the dataset cannot be pickled: see pickle and handles")
            return None
        return Fresh(pickled, self._subject.keys, streams=self._subject.streams)

    def _left(self) -> float:
        return self._seconds - (monotonic() - self._begun)

    def _check(self, check: Callable[[], Report], *names: str) -> Report | None:
        """Run one check in a process of its own, and note what it found or how it ended."""
        left = self._left()
        if left <= 0:
            self._unchecked |= dict.fromkeys(names, "out of time")
            return None
        ran = isolated(check, self._subject.pulse, seconds=max(left, 1.0), patience=self._patience)
        report: Report | None = ran.value
        if report is not None:
            self._add(report)
        else:
            self._broken(ran, names)
        return report

    def _add(self, report: Report) -> None:
        self._findings += report.findings
        self._facts |= report.facts
        self._unchecked |= report.unchecked
        self._kept |= report.kept

    def _broken(self, ran: Ran, names: tuple[str, ...]) -> None:
        at = "a sample" if ran.key is None else f"sample {ran.key}"
        place = place_of(ran.frames) or self._subject.place()
        others = [name for name in names if name != "reads"]
        if ran.hang:
            together = " on several threads" if "threads" in names else ""
            stack = " < ".join(map(str, ran.frames[:6])) or "no stack could be had"
            what, cure = f"reading {at} hangs{together}", "Give what it waits for a timeout."
            self._findings.append(
                Finding("hang", what, f"{duration(self._patience)} without an end: {stack}", cure, place)
            )
        elif ran.late:
            self._unchecked |= dict.fromkeys(names, "out of time: give more seconds")
            return
        elif ran.died:
            what = f"reading {at} ends the process"
            said = f"signal {ran.died}" if ran.died > 0 else f"exit status {-ran.died}"
            cure = "Look for a crash in a library that it calls, or for os._exit."
            self._findings.append(Finding("crash", what, f"it died of {said}", cure, place))
        else:
            what = "samples cannot be examined"
            self._findings.append(Finding("reads", what, ran.error, "Fix the error at this line.", place))
        self._unchecked |= dict.fromkeys(others, "the process ended before: see the findings")

    def _ended(self) -> Examination:
        order = {name: place for place, name in enumerate(self._unchecked)}
        unchecked = {name: self._unchecked[name] for name in sorted(self._unchecked, key=order.__getitem__)}
        name = kinds(self._subject.dataset)
        return Examination(name, tuple(self._findings), self._facts, unchecked, monotonic() - self._begun)
