"""A caller's randomness: a generator of NumPy's or torch's, a seed, or whatever the program was seeded with.

One rule, wherever a ``generator`` is taken. A NumPy generator (``Generator`` or ``RandomState``) gives one 63-bit
number a pass, and that number all the rest; an integer is made such a generator once, by `resolve`, so that its passes
differ. A torch generator is drawn from by torch itself, and so is torch's global one where no generator is given and
torch is loaded: ``torch.manual_seed`` and a generator re-seeded in place keep their meaning, and the numbers are those
that torch's own samplers would have drawn, so that a split or an order survives the change of library. Without torch,
no generator means NumPy's global one. torch is never imported here: if such a generator exists, it is loaded.
"""

from __future__ import annotations

import base64
import zlib
from collections import deque
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from headrace.checks import refused
from headrace.context import seeds
from headrace.errors import ArgumentTypeError, StateMismatch
from headrace.interop import torch_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    Numbers = NDArray[np.integer[Any]]

CATEGORIES = 2**24
"""torch.multinomial takes no more weights than this."""

STRETCH = 2**16
"""Numbers drawn at a time, where they can be drawn one by one."""


@runtime_checkable
class TorchGenerator(Protocol):
    """What a ``torch.Generator`` is known by."""

    def initial_seed(self) -> int:
        """Return the seed that it was made or last seeded with."""
        ...

    def get_state(self) -> Any:
        """Return its state."""
        ...

    def set_state(self, new_state: Any, /) -> Any:
        """Put it where it stood."""
        ...


Stateful = np.random.Generator | np.random.RandomState | TorchGenerator
GeneratorLike = Stateful | int | None


def resolve(generator: GeneratorLike) -> Stateful | None:
    """Make a seed a generator, whose state moves from pass to pass; leave a generator, and None, as they are.

    >>> a, b = resolve(7), resolve(7)
    >>> a.random() == b.random(), a.random() == resolve(7).random()
    (True, False)

    Raises `ArgumentTypeError`, which is a ValueError and a TypeError, for anything else.
    """
    if generator is None or isinstance(generator, np.random.Generator | np.random.RandomState):
        return generator
    if isinstance(generator, int | np.integer) and not isinstance(generator, bool):
        return np.random.default_rng(seeds.key_of(int(generator)))
    if isinstance(generator, TorchGenerator) and torch_state.loaded() is not None:
        return generator
    expected = (
        "a numpy.random.Generator, a numpy.random.RandomState, a torch.Generator, a seed (an integer from 0 up) or None"
    )
    raise refused("generator", generator, expected, "Pass numpy.random.default_rng(seed).", ArgumentTypeError)


def draw_seed(generator: GeneratorLike = None) -> int:
    """Draw 63 bits: from a generator, else from torch's global one if torch is loaded, else from NumPy's.

    From torch it is the number that ``torch.empty((), dtype=torch.int64).random_(generator=generator)`` is.

    >>> draw_seed(np.random.default_rng(0)) == draw_seed(np.random.default_rng(0))
    True
    >>> draw_seed(3) == draw_seed(3)
    True

    Raises `ArgumentTypeError` for what is no generator.
    """
    source = resolve(generator)
    tapes: list[Tape] = []
    tape = _tape.get()
    while tape is not None:
        tapes.append(tape)
        tape = tape.outer
    again = [tape.again.popleft() for tape in tapes if tape.again]
    number = again[0] if again else _drawn(source)
    for tape in tapes:
        tape.seeds.append(number)
    return number


def _drawn(source: Stateful | None) -> int:
    if isinstance(source, np.random.Generator):
        return int(source.integers(2**63))
    if isinstance(source, np.random.RandomState):
        return int(source.randint(0, 2**63, dtype=np.int64))
    torch = torch_state.loaded()
    if torch is None:
        return seeds.fresh_seed()
    return int(torch.empty((), dtype=torch.int64, device=_device(source)).random_(generator=source).item())


class Tape:
    """The seeds that were drawn in a block, and those to be drawn again in their place.

    >>> with taping(Tape()) as first:
    ...     seed = draw_seed()
    >>> with taping(Tape(first.seeds)):
    ...     draw_seed() == seed
    True
    """

    __slots__ = ("again", "outer", "seeds")

    def __init__(self, again: Iterable[int] = ()) -> None:
        self.seeds: list[int] = []
        self.outer: Tape | None = None
        """The tape of the block around this one, which has what is drawn here too."""
        self.again = deque(again)


_tape: ContextVar[Tape | None] = ContextVar("headrace_tape", default=None)


@contextmanager
def taping(tape: Tape) -> Iterator[Tape]:
    """Record the seeds that are drawn in a block, in this thread, or draw those that the tape has."""
    tape.outer = _tape.get()
    token = _tape.set(tape)
    try:
        yield tape
    finally:
        _tape.reset(token)


def state_of(generator: Stateful) -> Any:
    """Return the state of a generator as what JSON can hold.

    >>> one = np.random.default_rng(3)
    >>> state = state_of(one)
    >>> first = one.random()
    >>> set_state(one, state)
    >>> one.random() == first
    True
    """
    return as_text(snapshot(generator))


def snapshot(generator: Stateful) -> Any:
    """Return the state of a generator, to be compared and for `as_text`: bytes, where packing them takes long."""
    if isinstance(generator, np.random.Generator):
        return _plain(generator.bit_generator.state)
    if isinstance(generator, np.random.RandomState):
        return _plain(generator.get_state(legacy=False))
    return generator.get_state().numpy().tobytes()


def as_text(state: Any) -> Any:
    """Return a `snapshot` as what JSON can hold; what JSON can hold already, as it is."""
    if not isinstance(state, bytes):
        return state
    return base64.b64encode(zlib.compress(state, 9)).decode("ascii")  # half of it is zeros


def set_state(generator: Stateful, state: Any) -> None:
    """Put a generator where it stood; its kind must be the one that the state is of."""
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        data = np.frombuffer(bytearray(_inflated(base64.b64decode(state, validate=True))), np.uint8)
        generator.set_state(torch_state.loaded().from_numpy(data))


def can_be_set(generator: Stateful, state: Any) -> bool:
    """Say whether a generator takes a state, by trying; it is left where it was."""
    before = state_of(generator)
    try:
        set_state(generator, state)
    except Exception:  # noqa: BLE001  they raise anything
        return False
    finally:
        set_state(generator, before)
    return True


def _inflated(data: bytes) -> bytes:
    """Return the state of a torch generator, and never more than one can have: it may come from anywhere."""
    stream = zlib.decompressobj()
    found = stream.decompress(data, MOST_STATE)
    if not stream.eof:
        raise StateMismatch(
            f"the generator's state has more than {MOST_STATE} bytes",
            ("generator",),
            expected="the state of a torch generator",
            cure="Load a state that state_dict() returned.",
        )
    return found


MOST_STATE = 1 << 16
"""Bytes of a torch generator's state: it has 5,056 on the CPU, and 16 on other devices."""


def _plain(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _plain(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray | np.generic) else state


class Draws(Protocol):
    """The random numbers of one pass, each drawn when it is asked for, in stretches."""

    def permutations(self, size: int, count: int) -> Iterator[Numbers]:
        """Draw ``count`` of the integers under ``size``: each of them once before any comes again."""
        ...

    def integers(self, size: int, count: int) -> Iterator[Numbers]:
        """Draw ``count`` integers under ``size``, each independent of the others."""
        ...

    def weighted(self, weights: NDArray[np.float64], count: int, *, replacement: bool) -> Iterator[Numbers]:
        """Draw ``count`` indices of weights, each as often as its weight says."""
        ...


def draws(generator: GeneratorLike = None, *, apart: bool = False) -> Draws:
    """Return the random numbers of a pass, drawn from a generator as this module says.

    >>> first, second = draws(np.random.default_rng(0)).permutations(3, 5)
    >>> sorted(first.tolist()), len(second)
    ([0, 1, 2], 2)

    ``apart``: where no generator is given, take one number from the global one and all the rest from it. Raises
    `ArgumentTypeError` for what is no generator.
    """
    source = resolve(generator)
    torch = torch_state.loaded()
    if torch is not None and (source is None or isinstance(source, TorchGenerator)):
        return _Torch(torch, torch.Generator().manual_seed(draw_seed()) if apart and source is None else source)
    return _NumPy(np.random.default_rng(draw_seed(source)))


class _NumPy:
    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def permutations(self, size: int, count: int) -> Iterator[Numbers]:
        dtype = np.int32 if size < 2**31 else np.int64
        for start in range(0, count, size):
            order: Numbers = np.arange(size, dtype=dtype)
            self._generator.shuffle(order)
            yield order[: count - start]

    def integers(self, size: int, count: int) -> Iterator[Numbers]:
        for start in range(0, count, STRETCH):
            yield self._generator.integers(size, size=min(STRETCH, count - start))

    def weighted(self, weights: NDArray[np.float64], count: int, *, replacement: bool) -> Iterator[Numbers]:
        if not replacement:
            yield self._without_replacement(weights, count)
            return
        ends = np.cumsum(weights)
        last = np.flatnonzero(weights)[-1]
        for start in range(0, count, STRETCH):
            points = self._generator.random(min(STRETCH, count - start)) * ends[-1]
            found: Numbers = np.searchsorted(ends, points, side="right")
            # A product may be rounded up to the very end, where no weight is left.
            found[found > last] = last
            yield found

    def _without_replacement(self, weights: NDArray[np.float64], count: int) -> Numbers:
        # The order in which exponential clocks of these rates ring is that of drawing one by one without putting
        # back (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", IPL 2006). What has no weight
        # comes when all else has been drawn, as in torch.
        waits = self._generator.exponential(size=len(weights))
        some, none = np.flatnonzero(weights), np.flatnonzero(weights == 0)
        with np.errstate(over="ignore"):  # the smallest of weights may wait for ever
            rings = waits[some] / weights[some]
        rest = max(0, count - len(some))
        return np.concatenate((_first(some, rings, count), _first(none, waits[none], rest)))


class _Torch:
    """Draws as torch's samplers do, call for call: the same numbers, and the generator left in the same state."""

    def __init__(self, torch: Any, generator: Any) -> None:
        self._torch = torch
        self._generator = generator
        self._device = _device(generator)

    def permutations(self, size: int, count: int) -> Iterator[Numbers]:
        for _ in range(count // size):
            yield self._permutation(size)
        yield self._permutation(size)[: count % size]

    def _permutation(self, size: int) -> Numbers:
        return self._array(self._torch.randperm(size, generator=self._generator, device=self._device))

    def integers(self, size: int, count: int) -> Iterator[Numbers]:
        torch = self._torch
        for length in chain(repeat(32, count // 32), (count % 32,)):
            yield self._array(
                torch.randint(size, (length,), dtype=torch.int64, generator=self._generator, device=self._device)
            )

    def weighted(self, weights: NDArray[np.float64], count: int, *, replacement: bool) -> Iterator[Numbers]:
        if len(weights) > CATEGORIES:
            ours = _NumPy(np.random.default_rng(draw_seed(self._generator)))
            yield from ours.weighted(weights, count, replacement=replacement)
            return
        tensor = self._torch.tensor(weights, device=self._device)
        yield self._array(self._torch.multinomial(tensor, count, replacement, generator=self._generator))

    @staticmethod
    def _array(tensor: Any) -> Numbers:
        array: Numbers = tensor.cpu().numpy()
        return array


def _first(indices: Numbers, keys: NDArray[np.float64], count: int) -> Numbers:
    """Return the indices of the ``count`` smallest keys, in the keys' order; all of them if there are fewer."""
    if count < len(keys):
        near = np.argpartition(keys, count)[:count]
        indices, keys = indices[near], keys[near]
    return indices[np.argsort(keys)]


def _device(generator: Any) -> Any:
    # Said outright, because torch.set_default_device does not move the generators.
    return "cpu" if generator is None else generator.device
