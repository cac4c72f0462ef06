"""Randomness as a function of the place in the data: never of the worker, the thread or the clock.

Every stream of random numbers is a stretch of one counter-based generator, Philox4x64-10 (Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", SC 2011), as NumPy implements it. Its key comes from the seed; its
256-bit counter is laid out as::

    word 3: purpose     word 2: epoch     word 1: position     word 0: counts the draws

so two places can never share a number before one of them has drawn 2**66 of them: disjoint by construction, where
sums (seed + epoch, seed + worker) collide. The key of neighbouring seeds is spread by NumPy's ``SeedSequence``.
"""

from __future__ import annotations

import random
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random.bit_generator import ISpawnableSeedSequence

from headrace.checks import integer
from headrace.context.current import Context, current, put, setting
from headrace.interop import torch_state

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from contextvars import Token

    from numpy.typing import NDArray

    from headrace.context.memory import Recycler

Key = tuple[int, int]
"""Philox's 128-bit key, as two words."""
Drawn = tuple[int, np.random.Generator | None, int]
"""A position, its generator if that was made, and how many numbers the native extension has drawn if not."""


class Purpose(IntEnum):
    """What a stream is for; the highest word of the counter keeps the purposes apart."""

    ORDER = 0
    SAMPLE = 1
    GLOBALS = 2
    SPARES = 3
    REPLACE = 4
    STREAM = 5
    EPOCH = 6
    STRAND = 7
    BATCH = 8


def key_of(seed: int) -> Key:
    """Spread a seed, any integer from 0 up, over the 128 bits of a key.

    >>> key_of(0) == key_of(0), key_of(0) == key_of(1)
    (True, False)
    """
    first, second = np.random.SeedSequence(integer("seed", seed, least=0)).generate_state(2, np.uint64)
    return int(first), int(second)


def fresh_seed() -> int:
    """Draw a seed from NumPy's global generator, so that ``np.random.seed`` keeps its meaning."""
    return int(np.random.randint(0, 2**63, dtype=np.int64))  # noqa: NPY002  the global one is meant


def generator(key: Key, purpose: Purpose, epoch: int, position: int) -> np.random.Generator:
    """Return the generator that belongs to a place in the data.

    >>> a = generator(key_of(7), Purpose.SAMPLE, epoch=0, position=3).random()
    >>> b = generator(key_of(7), Purpose.SAMPLE, epoch=0, position=3).random()
    >>> a == b
    True
    """
    counter = np.array((0, position, epoch, purpose), dtype=np.uint64)
    origin: Any = _Origin(key, counter)  # NumPy's stubs know no other seeds than its own
    return np.random.Generator(np.random.Philox(origin, counter=counter))


class _Origin(ISpawnableSeedSequence):
    """What a generator is made from: the key, and the place that generators spawned from it belong to."""

    __slots__ = ("_children", "_counter", "_key")

    def __init__(self, key: Key, counter: NDArray[np.uint64]) -> None:
        # With `key=`, Philox would make a SeedSequence of the system's entropy: ten times slower, for nothing.
        self._key, self._counter = key, counter
        self._children: np.random.SeedSequence | None = None

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[np.uint64]:  # noqa: ARG002
        """Return the key, which is all that Philox asks for."""
        return _words(self._key)

    def spawn(self, n_children: int) -> list[Any]:
        """Return seeds for generators of the same place, other ones each time."""
        if self._children is None:
            self._children = np.random.SeedSequence((*self._key, *self._counter.tolist()))
        return self._children.spawn(n_children)


@lru_cache(maxsize=16)
def _words(key: Key) -> NDArray[np.uint64]:
    words = np.array(key, dtype=np.uint64)
    words.flags.writeable = False
    return words


@dataclass(slots=True)
class Here:
    """Where in the data this thread is working; `rng` reads it, the maker moves it from sample to sample.

    Setting ``position`` or ``reading`` is enough to go to another sample, and costs next to nothing: what belongs to a
    sample, such as its generator, is looked at when it is asked for.
    """

    key: Key = (0, 0)
    epoch: int = 0
    position: int = 0
    start: int = 0
    """The place of the batch: that of its first sample."""
    collating: bool = False
    """Whether all samples of the batch are made, and are being put together."""
    alone: bool = False
    """Whether a dataset that reads whole batches is reading this one sample by itself."""
    skipped: int = 0
    """How many numbers the native extension has drawn from the sample's generator, if that is not made yet."""
    reading: bool = False
    """Whether a stream is being read: who reads a sample need not be who finishes it, so each draws its own numbers."""
    rows: Sequence[int] | None = None
    """Which samples, counted from the one at hand, the next call for many is to make; None: one after the other."""
    begun: Sequence[np.random.Generator] | None = None
    """The generators of those samples, where numbers were drawn from them before that call."""
    tokens: tuple[int, int] | None = None
    """Tokens, and positions of padding, that were counted for the batch (`context.tokens`)."""
    tokens_collated: bool = False
    """Whether they were counted while the batch was collated."""
    slowest: tuple[str, float] | None = None
    """The sample of the batch that took longest, and its seconds, where that is noted."""
    helped: float = 0.0
    """CPU seconds of other threads that made samples of the batch."""
    _generator: np.random.Generator | None = field(default=None, repr=False)
    _owner: int = field(default=-1, repr=False)
    """Which sample, and whether it is being read, ``_generator`` and ``skipped`` belong to."""

    def move(self, position: int, *, reading: bool = False, begun: np.random.Generator | None = None) -> None:
        """Go to a sample, or to the same one again; its generator is made when asked for, unless it has ``begun``."""
        self.position = position
        self.collating = self.alone = False
        self.skipped = 0
        self.reading = reading
        self._generator = begun
        self._owner = 2 * position + reading

    def begin(self, step: int, start: int) -> None:
        """Say whose samples come next: the batch of a step, whose first sample is at position ``start``."""

    def _arrive(self) -> None:
        """Forget what belongs to another sample."""
        owner = 2 * self.position + self.reading
        if owner != self._owner:
            self._owner, self._generator, self.skipped = owner, None, 0

    def drawn(self) -> Drawn:
        """Return the sample at hand, and what was drawn from its generator: for `resume`."""
        self._arrive()
        return self.position, self._generator, self.skipped

    def resume(self, drawn: Drawn) -> None:
        """Go to a sample that another thread has made, and draw what comes next."""
        position, generator, skipped = drawn
        self.move(position, begun=generator)
        self.skipped = skipped

    @property
    def traced(self) -> bool:
        """Whether what is done to samples is written down: in a replay alone."""
        return False

    @property
    def trace(self) -> Any:
        """What is done to the sample at hand is written down in; None: nowhere, but in a replay."""
        return None

    def generator(self) -> np.random.Generator:
        """Return the generator of the sample at hand: the same object until the next one."""
        self._arrive()
        if self._generator is None:
            purpose = Purpose.STREAM if self.reading else Purpose.SAMPLE
            self._generator = generator(self.key, purpose, self.epoch, self.position)
            if self.skipped:
                self._generator.random(self.skipped)
        return self._generator

    def skip(self, count: int) -> None:
        """Let the sample's generator continue after the numbers that the native extension has drawn."""
        self._arrive()
        if self._generator is None:
            self.skipped += count
        else:
            self._generator.random(count)


POSITION: Any = vars(Here)["position"]
"""Where a place keeps its position, for subclasses that do something each time it is set."""


def inside() -> Here | None:
    """Return the place in the data at which this thread works; None outside a loader."""
    here: Here | None = current().here
    return here


def place() -> Here:
    """Return the place in the data at which this thread works; outside a loader, one that nobody looks at."""
    return inside() or Here()


class at(setting):  # noqa: N801  a context manager, named for how it reads
    """Let `rng` answer for this place, in this thread, for the length of a block; count the time there too, if asked.

    One block for both, because one is entered for every batch.
    """

    __slots__ = ("_here", "_seconds")

    def __init__(self, here: Here, seconds: dict[str, float] | None = None) -> None:
        self._here = here
        self._seconds = seconds

    def __enter__(self) -> Here:
        self._token = enter(self._here, self._seconds)
        return self._here


def enter(here: Here, seconds: dict[str, float] | None, recycler: Recycler | None = None) -> Token[Context]:
    """Begin what `at` is a block of, and lend memory from a recycler, if there is one; `current.reset` ends it."""
    now = current()
    seconds = now.seconds if seconds is None else seconds
    return put(Context(here, seconds, recycler or now.recycler, now.share, now.worker, now.generator))


def rng() -> np.random.Generator:
    """Return the random generator of the sample being made.

    Inside a dataset or a transform that a loader runs, it is a function of (seed, epoch, position of the sample)
    alone: the same numbers inline, on any number of threads, and in a replay. Outside a loader, where no place is
    known, it is an ordinary generator of this thread, freshly seeded.

    >>> import headrace
    >>> noisy = headrace.ArrayDataset(np.zeros(4)).map(lambda x: x + headrace.rng().normal())
    >>> inline = [batch.tolist() for batch in headrace.DataLoader(noisy, 2, seed=1)]
    >>> threads = [batch.tolist() for batch in headrace.DataLoader(noisy, 2, seed=1, num_workers=2)]
    >>> inline == threads
    True
    """
    now = current()
    if now.here is not None:
        return now.here.generator()  # type: ignore[no-any-return]  # a `Here`
    if now.generator is None:
        put(Context(None, now.seconds, now.recycler, now.share, now.worker, np.random.default_rng()))
    return current().generator  # type: ignore[no-any-return]  # as above


def batch_rng() -> np.random.Generator:
    """Return the random generator of the batch that is being put together, which no sample draws from.

    Outside a loader it is that of `rng`.
    """
    here = inside()
    return rng() if here is None else generator(here.key, Purpose.BATCH, here.epoch, here.start)


def epoch_seed() -> int:
    """Return 63 bits that belong to the epoch being read: the same in all workers, others in the next.

    For what a stream must do alike everywhere: shuffle before each worker takes its part. Outside a loader they are
    fresh ones.
    """
    here = inside()
    numbers = rng() if here is None else generator(here.key, Purpose.EPOCH, here.epoch, 0)
    return int(numbers.integers(2**63))


def drawn(generator: np.random.Generator) -> int:
    """Return how many of its 64-bit words a sample's generator has given.

    >>> ours = generator(key_of(0), Purpose.SAMPLE, 0, 0)
    >>> _ = ours.random(5)
    >>> drawn(ours)
    5
    """
    state: Any = generator.bit_generator.state
    # Four words are made at a time, and counted when they are made.
    return int(state["state"]["counter"][0]) * 4 + int(state["buffer_pos"]) - 4


def strands() -> Callable[[int], np.random.Generator]:
    """Return what gives the parts of a stream, by their number, generators that do not depend on who reads them.

    Inside a loader, part ``i`` has the one of (seed, epoch, i), in every worker; outside, of a seed freshly drawn.

    >>> parts = strands()
    >>> parts(3).random() == parts(3).random(), parts(3).random() == parts(4).random()
    (True, False)
    """
    here = inside()
    key, epoch = (key_of(int(rng().integers(2**63))), 0) if here is None else (here.key, here.epoch)
    return lambda number: generator(key, Purpose.STRAND, epoch, number)


def each(count: int) -> Iterator[int]:
    """Go from sample to sample of those that one call makes, so that `rng` is each one's own, as one by one.

    For a ``__getitems__``: inside ``for row in each(len(indices))``, the sample at hand is ``indices[row]``.
    """
    here = inside()
    if here is None:
        yield from range(count)
        return
    start, rows, begun = here.position, here.rows, here.begun
    here.rows = here.begun = None
    for row in range(count):
        here.move(start + (row if rows is None else rows[row]), begun=None if begun is None else begun[row])
        yield row
    # Only where all went well: else the place stays where the error is, which is then told.
    here.move(start)
    here.rows, here.begun = rows, begun


@contextmanager
def among(rows: Sequence[int]) -> Iterator[None]:
    """Say which of the samples that this call makes another call, inside the block, makes a part of."""
    here = inside()
    if here is None:
        yield
        return
    outer, begun = here.rows, here.begun
    here.rows = rows if outer is None else [outer[row] for row in rows]
    here.begun = None if begun is None else [begun[row] for row in rows]
    try:
        yield
    finally:
        here.rows, here.begun = outer, begun


@contextmanager
def continued(generators: Sequence[np.random.Generator]) -> Iterator[None]:
    """Let calls inside the block continue with these generators: the samples have drawn numbers from them already.

    One for each sample, as `rng` gave it inside `each`.
    """
    here = inside()
    if here is None:
        yield
        return
    outer = here.begun
    here.begun = generators
    try:
        yield
    finally:
        here.begun = outer


GLOBALS = ("random", "numpy", "torch")
"""The generators that everybody shares, by the library they belong to."""


@contextmanager
def seeded(
    key: Key, epoch: int, position: int, names: Collection[str] = GLOBALS, *, back: bool = True
) -> Iterator[None]:
    """Seed the global generators of ``random``, NumPy and torch (if loaded) for a block; give them back as they were.

    For code that draws from them: reproducible where one thread has them to itself, and the caller's own stream of
    random numbers is not moved. Not ``back``: they stay where the block leaves them, which takes half the time.
    """
    if not names:
        yield
        return
    words = generator(key, Purpose.GLOBALS, epoch, position).integers(0, 2**32, size=8, dtype=np.uint32)
    if not back:
        loaded = ("random", "numpy") if torch_state.loaded() is None else GLOBALS
        seed_globals(words, [name for name in loaded if name in names])
        yield
        return
    theirs = {name: state for name, state in global_states().items() if name in names}
    try:
        seed_globals(words, theirs)
        yield
    finally:
        for name, state in theirs.items():
            _set_state(name, state)


SEEDING = threading.RLock()
"""Held by the one thread that has seeded the global generators for a call, and gives them back."""


def seed_globals(words: NDArray[np.uint32], names: Iterable[str]) -> None:
    """Seed global generators with eight random words."""
    for name in names:
        if name == "random":
            random.seed(words.tobytes())
        elif name == "numpy":
            np.random.seed(words)  # noqa: NPY002  the global one is meant
        else:
            torch_state.default_generator().manual_seed(int(words[:2].view(np.uint64)[0] >> np.uint64(1)))


def global_states() -> dict[str, Any]:
    """Return the state of each global generator; torch's only if torch is loaded."""
    states: dict[str, Any] = {"random": random.getstate(), "numpy": np.random.get_state()}  # noqa: NPY002
    theirs = torch_state.default_generator()
    if theirs is not None:
        states["torch"] = theirs.get_state()
    return states


def settled_states() -> dict[str, Any]:
    """Return the state of each global generator, once no thread has seeded it for one call.

    >>> "random" in settled_states()
    True
    """
    with SEEDING:
        return global_states()


def restore_globals(states: dict[str, Any]) -> None:
    """Give global generators the states that `global_states` found."""
    for name, state in states.items():
        _set_state(name, state)


def moved(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """Return which global generators have another state than before.

    >>> before = global_states()
    >>> _ = random.random()
    >>> moved(before, global_states())
    {'random'}
    """
    return {name for name, state in after.items() if name not in before or not _same(before[name], state)}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, tuple) and any(isinstance(part, tuple | np.ndarray) for part in one):
        return all(_same(a, b) for a, b in zip(one, other, strict=True))
    return np.array_equal(one, other) if hasattr(one, "__array__") else bool(one == other)


def _set_state(name: str, state: Any) -> None:
    if name == "random":
        random.setstate(state)
    elif name == "numpy":
        np.random.set_state(state)  # noqa: NPY002
    else:
        torch_state.default_generator().set_state(state)
