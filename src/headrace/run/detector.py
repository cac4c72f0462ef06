"""Randomness that a loader cannot keep: generators that a dataset or a transform holds, and shared ones on threads."""

from __future__ import annotations

import threading
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from headrace.context import seeds
from headrace.errors import RandomnessWarning
from headrace.interop.held import attributes, is_generator, reached
from headrace.interop.user_line import user_line

if TYPE_CHECKING:
    from collections.abc import Iterator

OWNERS = ("datasets.iterable_dataset",)
"""Modules whose objects seed the generators that they hold for each epoch, and copy them before they draw."""


def held(thing: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Find the generators that an object holds, in its attributes and those of what it holds, and how they are reached.

    >>> import random
    >>> class Noisy:
    ...     def __init__(self):
    ...         self.random = random.Random(0)
    >>> [(path, type(found).__name__) for path, found in held([Noisy()], "dataset")]
    [('dataset[0].random', 'Random')]
    """
    passed: set[int] = set()

    def is_passed(one: Any) -> bool:
        if str(type(one).__module__).startswith(OWNERS):
            passed.update(id(part) for part in attributes(one).values() if is_generator(part))
        seeds_held = getattr(type(one), "seeds_held", None)
        if callable(seeds_held):
            passed.update(map(id, seeds_held(one)))
        return id(one) in passed

    yield from reached(thing, name, is_generator, is_passed)


def warn_of_held(dataset: Any, collate_fn: Any) -> None:
    """Warn of the first generators that a dataset, its transforms, or a collate function hold."""
    found: list[tuple[str, Any]] = []
    with suppress(Exception):  # whatever a user's object does when it is looked at, the run goes on
        found += held(dataset, type(dataset).__qualname__)
        found += held(collate_fn, "collate_fn")
    if not found:
        return
    names = ", ".join(path for path, _ in found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
    kind = type(found[0][1])
    warnings.warn(
        f"{names}: {kind.__module__.partition('.')[0]}'s {kind.__name__}, held by the data. Each worker has a copy of "
        "it, or all threads share it: what a sample draws from it depends on the workers, and is other in a run that "
        "is resumed. Draw from headrace.rng() where the sample is made, let the transform take rng as its second "
        "parameter, or wrap a transform of another library in headrace.transforms.Seeded",
        RandomnessWarning,
        stacklevel=user_line(),
    )


class Watch:
    """Sees whether the global generators move in stretches in which nobody but worker threads is at work.

    Where the process has other threads, whoever draws cannot be told, and nothing is said.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._before: dict[str, Any] | None = None
        self._stretches: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def begin(self) -> None:
        """Note where they stand."""
        others = [t for t in threading.enumerate() if not type(t).__module__.startswith("tqdm")]
        alone = threading.current_thread() is threading.main_thread() and len(others) <= 1 + self._workers
        self._before = seeds.settled_states() if alone else None

    def pause(self) -> None:
        """Note where they stand before others may draw again; comparing takes longer, and is done at the end."""
        if self._before is not None:
            self._stretches.append((self._before, seeds.settled_states()))
            self._before = None

    def end(self) -> None:
        """Warn where they have moved."""
        self.pause()
        drawn = {name for before, after in self._stretches for name in seeds.moved(before, after)}
        if drawn:
            names = {"random": "random", "numpy": "np.random", "torch": "torch's global generator"}
            warnings.warn(
                f"samples draw from {' and '.join(names[name] for name in sorted(drawn))} on threads, which share it: "
                "what each gets depends on who comes first. Draw from headrace.rng(), or use processes "
                '(backend="processes")',
                RandomnessWarning,
                stacklevel=user_line(),
            )
