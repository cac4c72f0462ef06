"""What is examined: a dataset or a loader, how its samples are read, and what is said of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.collate.default import default_collate
from headrace.context import seeds
from headrace.datasets import protocol
from headrace.interop import torch_state
from headrace.interop.held import DEEP, FEW, MOST, is_foreign, parts
from headrace.testing.source_lines import defined

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headrace.loader import DataLoader
    from headrace.testing.isolated import Pulse

KEYS = 12
"""How many samples most checks read."""

_KEY = seeds.key_of(0)


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault of a dataset, a transform or a collate function.

    >>> print(Finding("pickle", "the dataset cannot be pickled", "dataset.lock is a lock", "Open it later.", "a.py:3"))
    a.py:3: the dataset cannot be pickled: dataset.lock is a lock. Open it later.
    """

    check: str
    """The name of the check that found it."""
    what: str
    """What is wrong, in one sentence."""
    evidence: str
    """What was seen."""
    cure: str
    """What to do."""
    place: str | None = None
    """The line to change, as ``file:line``; None where it is not known."""

    def __str__(self) -> str:
        place = f"{self.place}: " if self.place else ""
        return f"{place}{self.what}: {self.evidence}. {self.cure}"


@dataclass(slots=True)
class Report:
    """What one check found, measured, and did not look at."""

    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)
    """Names of checks that were not made, each with the reason."""
    kept: dict[str, Any] = field(default_factory=dict)
    """What later checks need."""

    def find(self, check: str, what: str, evidence: str, cure: str, place: str | None = None) -> None:
        """Add a finding."""
        self.findings.append(Finding(check, what, evidence, cure, place))


@dataclass(slots=True)
class Subject:
    """A dataset, or the dataset of a loader, and the samples of it that are read."""

    dataset: Any
    loader: DataLoader[Any] | None
    pulse: Pulse
    workers: int
    keys: list[Any] = field(default_factory=list)

    @property
    def streams(self) -> bool:
        """Whether it is read by iterating."""
        return protocol.is_iterable(self.dataset)

    @property
    def collate(self) -> Any:
        """What makes a batch of samples; None where a batch is one sample."""
        if self.loader is None:
            return default_collate
        return None if self.loader.batch_size is None and self.loader.batch_sampler is None else self.loader.collate_fn

    @property
    def own_collate(self) -> bool:
        """Whether that is a function of the user's, which may take samples of any structure."""
        return self.loader is not None and not getattr(self.loader._session.settings, "own_collate", False)

    @property
    def indexed(self) -> bool:
        """Whether the keys are all integers from 0 up: no sampler of the user's names others."""
        return not self.streams and (self.loader is None or self.loader._session.settings.given_sampler is None)

    def choose(self) -> list[Any]:
        """Return the keys of some samples: the ends, and others spread over the dataset."""
        if self.loader is not None and not self.indexed and not self.streams:
            given = self.loader._session.settings
            keys = islice(iter(given.given_sampler), KEYS)
            return [key for batch in keys for key in batch][:KEYS] if given.given_batches else list(keys)
        return sorted({int(key) for key in np.linspace(0, len(self.dataset) - 1, KEYS)}) if len(self.dataset) else []

    def read(self, key: Any, *, seeded: bool = True) -> Any:
        """Read a sample as a loader does; ``seeded``: with the global generators seeded for it."""
        number = key if isinstance(key, int) else 0
        self.pulse.beat(number)
        if seeded:
            seed(number)
        try:
            with seeds.at(seeds.Here(_KEY, 0, abs(number))), torch_state.on_cpu():
                return self.dataset[key]
        finally:
            self.pulse.beat(number, reading=False)

    def stream(self, most: int = KEYS) -> Iterator[Any]:
        """Read the first samples of a stream, from its beginning."""
        self.pulse.beat(0)
        seed(0)
        with seeds.at(seeds.Here(_KEY, 0, 0, reading=True)):
            iterator = iter(self.dataset)
        for number in range(most):
            self.pulse.beat(number)
            with seeds.at(seeds.Here(_KEY, 0, number, reading=True)):
                sample = next(iterator, self)
            self.pulse.beat(number, reading=False)
            if sample is self:
                return
            yield sample

    def samples(self, keys: Sequence[Any] | None = None) -> Iterator[tuple[Any, Any]]:
        """Read the chosen samples, with their keys."""
        if self.streams:
            yield from enumerate(self.stream())
        else:
            for key in self.keys if keys is None else keys:
                yield key, self.read(key)

    def place(self) -> str | None:
        """Return where the user's own code makes a sample."""
        for _, one, _ in walked(self.dataset, "dataset"):
            if place := defined(one):
                return place
        return None


def seed(number: int) -> None:
    """Seed the global generators, so that what a sample draws from them is the same each time."""
    words = np.arange(number, number + 8).astype(np.uint32)
    seeds.seed_globals(words, ("random", "numpy") if torch_state.loaded() is None else seeds.GLOBALS)


def walked(thing: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    """Give what an object holds, how it is reached, and its owner; nothing of it is called.

    >>> [path for path, _, _ in walked({"a": (1,)}, "dataset")]
    ['dataset', "dataset['a']", "dataset['a'][0]"]
    """
    seen: set[int] = set()
    waiting: list[tuple[str, Any, Any, int]] = [(name, thing, None, 0)]
    for path, one, owner, depth in waiting:
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield path, one, owner
        plain = isinstance(one, str | bytes | np.ndarray | type)
        if depth < DEEP and len(waiting) < MOST and not plain and not is_foreign(one):
            waiting += [(path + suffix, part, one, depth + 1) for suffix, part in islice(parts(one), FEW)]


def descriptors() -> int | None:
    """Return how many files this process has open; None where nobody says."""
    for folder in (Path("/proc/self/fd"), Path("/dev/fd")):
        with suppress(OSError):
            return sum(1 for _ in folder.iterdir())
    return None


def until(seconds: float) -> Iterator[int]:
    """Count rounds until so many seconds are over; at least two.

    >>> next(until(0))
    0
    """
    end, rounds = monotonic() + seconds, 0
    while rounds < 2 or monotonic() < end:
        yield rounds
        rounds += 1
