"""A sampler that mixes several datasets in given proportions, which may change during a run."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import check_weights, flag, integer, number, row, shown
from headrace.context.seeds import Purpose, generator, key_of
from headrace.errors import ArgumentError
from headrace.plan.order import AHEAD
from headrace.plan.permutation import Permutations
from headrace.plan.planned import PlannedSampler, compact, counts, size_of
from headrace.plan.range_cache import RangeCache

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence, Sized

    from numpy.typing import NDArray

    from headrace.context.seeds import Key
    from headrace.plan.order import Order

TURN = 2**64
STRIDE = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio: points on a circle at this distance are spread most evenly."""


class MixtureSampler(PlannedSampler[int]):
    """Indices into concatenated datasets, drawn from each dataset in proportion to its weight.

    >>> from headrace import ConcatDataset, DataLoader
    >>> from headrace.samplers import MixtureSampler
    >>> english, french = ["a", "b", "c", "d"], ["à", "é"]
    >>> both = ConcatDataset([english, french])
    >>> sampler = MixtureSampler([english, french], [0.9, 0.1], num_samples=1000)
    >>> letters = [letter for batch in DataLoader(both, 50, sampler=sampler, seed=0) for letter in batch]
    >>> [letters.count(letter) for letter in "abcdàé"]
    [225, 225, 225, 225, 50, 50]

    ``datasets`` are the datasets that `ConcatDataset` joins, or their lengths. ``weights`` has one weight from 0 up for
    each dataset, in any unit; None for their lengths. The proportions hold at every point of a run, to within a
    few samples. Each dataset is shuffled separately, and starts
    again in another order when all its samples have come. With ``shuffle=False`` it is read in its own order.

    ``temperature`` flattens the weights: each is raised to the power of ``1 / temperature`` (Raffel et al., "Exploring
    the limits of transfer learning with a unified text-to-text transformer", 2020). ``samplers`` has a planned sampler
    for each dataset, or None for the order above: `ShardSampler.of` for a dataset in shards, another `MixtureSampler`
    for one that is a mixture itself. Each pass over such a dataset is one epoch of its sampler.

    ``num_samples`` is the length of an epoch; None for the sum of the lengths. An epoch continues where the last one
    ended. ``weights`` may also be a mapping from a number of samples, counted from the start of the first epoch, to the
    weights from there on: ``{0: [0.9, 0.1], 1_000_000: [0.5, 0.5]}``. `changed` returns a sampler whose weights change
    at some point, with the same samples before it. `passes` says how often each dataset was read.
    ``seed`` is as in `ShardSampler`.

    Raises `ArgumentError` for weights that are not finite numbers from 0 up, one for each dataset, with at least one
    above 0. Also for a weight on an empty dataset, for a mapping that does not start at 0, for a temperature that is
    not above 0, and for samplers that are not planned ones, one for each dataset.
    """

    def __init__(
        self,
        datasets: Iterable[Sized | int],
        weights: Sequence[float] | Mapping[int, Sequence[float]] | None = None,
        *,
        num_samples: int | None = None,
        temperature: float = 1.0,
        samplers: Sequence[PlannedSampler[Any] | None] | None = None,
        shuffle: bool = True,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        self.sizes = [size_of(f"dataset {number}", dataset) for number, dataset in enumerate(datasets)]
        self.samplers = _samplers(samplers, len(self.sizes))
        if not any(self.sizes):
            raise ArgumentError(
                "all datasets are empty",
                found=self.sizes,
                expected="at least one dataset with samples",
                cure="check the paths of the datasets",
            )
        given: Any = self.sizes if weights is None else weights
        if not isinstance(given, Mapping):
            given = {0: given}
        self.temperature = number("temperature", temperature, above=0)
        self._given = {
            integer("a number of samples in weights", since, least=0): _weights(share, self.sizes)
            for since, share in given.items()
        }
        self.weights = {since: _flattened(share, self.temperature) for since, share in sorted(self._given.items())}
        if 0 not in self.weights:
            raise ArgumentError(
                f"weights have no entry for sample 0; the first entry is for {min(given, default=None)}",
                found=sorted(self.weights),
                expected="an entry for sample 0",
                cure="add the weights that the run begins with, as {0: [...], ...}",
            )
        self.num_samples = sum(self.sizes) if num_samples is None else integer("num_samples", num_samples, least=1)
        self.shuffle = flag("shuffle", shuffle)

    def changed(self, since: int, weights: Sequence[float]) -> MixtureSampler:
        """Return this mixture with other weights from the ``since``-th sample of the run on.

        >>> from headrace.samplers import MixtureSampler
        >>> half = MixtureSampler([10, 10], [0.5, 0.5], num_samples=12, seed=0)
        >>> later = half.changed(6, [0, 1])
        >>> list(half)[:6] == list(later)[:6], [index >= 10 for index in list(later)[6:]]
        (True, [True, True, True, True, True, True])

        The samples before it stay the same. If all batches have one size, ``since`` is the step times that size. A
        batch sampler that plans windows of samples plans each window as a whole: to resume with a change, choose the
        start of a window after the state's. Earlier changes planned for that sample or later are dropped.
        """
        since = integer("since", since, least=0)
        return MixtureSampler(
            self.sizes,
            {**{at: share for at, share in self._given.items() if at < since}, since: weights},
            num_samples=self.num_samples,
            temperature=self.temperature,
            samplers=self.samplers,
            shuffle=self.shuffle,
            seed=self.seed,
        )

    def order(self, key: Key) -> MixtureOrder:
        """Return the order for a key, or for the sampler's own seed if it has one."""
        return MixtureOrder(self, self.key_for(key))

    def passes(self, samples: int, seed: int | None = None) -> list[float]:
        """Return how often each dataset was read in the first ``samples`` samples of a run.

        >>> from headrace.samplers import MixtureSampler
        >>> MixtureSampler([1000, 10], [0.9, 0.1], seed=0).passes(2000)
        [1.8, 20.0]

        ``seed`` is the loader's, for a sampler without one.
        """
        drawn = self.order(key_of(0 if seed is None else seed)).drawn(integer("samples", samples, least=0))
        return [count / size if size else 0.0 for count, size in zip(drawn, self.part_sizes, strict=True)]

    @property
    def part_sizes(self) -> list[int]:
        """The number of samples in one pass over each dataset."""
        return [
            size if sampler is None else len(sampler) for size, sampler in zip(self.sizes, self.samplers, strict=True)
        ]

    def __len__(self) -> int:
        return self.num_samples

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The settings of the order, by name, with the schedule of weights."""
        return {
            "sizes": compact(self.sizes),
            "weights": compact([[since, *share] for since, share in self.weights.items()]),
            "num_samples": self.num_samples,
            "shuffle": self.shuffle,
            "seed": self.seed,
            **({"samplers": compact(_facts(self.samplers))} if any(self.samplers) else {}),
        }


@dataclass(frozen=True, slots=True)
class WeightPhase:
    """The part of a run from sample ``since`` on with the same weights."""

    since: int
    parts: NDArray[np.intp]
    """The datasets with a weight above 0."""
    bounds: tuple[int, ...]
    """The start of each dataset's arc on a circle of 2**64 points, and the circle's end."""
    drawn: tuple[int, ...]
    """The number of earlier samples of each dataset."""


class MixtureOrder:
    """The order of a `MixtureSampler`.

    The n-th sample of a run has the point ``offset + n * STRIDE`` on a circle, and comes from the dataset whose arc
    contains it. This is Weyl's sequence of the golden ratio. Each arc contains its share of the first n points, up to
    the logarithm of n (Kuipers and Niederreiter, "Uniform distribution of sequences", 1974, chapter 2.3). The number of
    points in an arc is a sum of floors. Euclid's algorithm computes it in about fifty steps, so a run can start at any
    position.
    """

    def __init__(self, sampler: MixtureSampler, key: Key) -> None:
        from fractions import Fraction  # only where it is used

        self._sizes = np.array(sampler.sizes, np.int64)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._passes = np.array(sampler.part_sizes, np.int64)
        self._count = sampler.num_samples
        self._offset = int(generator(key, Purpose.ORDER, 0, 1).integers(0, TURN, dtype=np.uint64))
        self._family = Permutations(key, 0) if sampler.shuffle else None
        self._orders = {
            part: own.order(_key_of_part(key, part)) for part, own in enumerate(sampler.samplers) if own is not None
        }
        self._phases: list[WeightPhase] = []
        drawn = (0,) * len(self._sizes)
        for since, share in sampler.weights.items():
            if self._phases:
                drawn = self._drawn(self._phases[-1], since)
            parts = np.flatnonzero(np.array(share) > 0)
            sums = [Fraction(0), *accumulate(Fraction(share[part]) for part in parts)]
            bounds = tuple(int(total * TURN / sums[-1]) for total in sums)
            self._phases.append(WeightPhase(since, parts, bounds, drawn))
        self._cache = RangeCache(AHEAD)

    def __len__(self) -> int:
        return self._count

    def keys(self, epoch: int, start: int, stop: int) -> list[int]:
        """Return a range of the epoch's order."""
        return self._cache.take(epoch, start, stop, self._compute, end=self._count)

    def drawn(self, upto: int) -> tuple[int, ...]:
        """Return the number of samples of each dataset before sample ``upto`` of the run."""
        starts = [phase.since for phase in self._phases]
        return self._drawn(self._phases[bisect_right(starts, upto) - 1], upto)

    def _compute(self, epoch: int, start: int, stop: int) -> list[int]:
        first = epoch * self._count
        starts = [phase.since for phase in self._phases]
        low, high = first + start, first + stop
        cuts = [low, *(since for since in starts if low < since < high), high]
        keys: list[int] = []
        for begin, end in pairwise(cuts):
            keys += self._alike(self._phases[bisect_right(starts, begin) - 1], begin, end)
        return keys

    def _alike(self, phase: WeightPhase, begin: int, end: int) -> list[int]:
        """Return the keys of samples ``begin`` to ``end - 1`` of the run, within one phase."""
        here = np.uint64((self._offset + begin * STRIDE) % TURN)
        places = here + np.arange(end - begin, dtype=np.uint64) * np.uint64(STRIDE)
        inner = np.array([min(bound, TURN - 1) for bound in phase.bounds[1:-1]], np.uint64)
        share = np.searchsorted(inner, places, side="right")
        part = phase.parts[share]
        # For each sample, the number of earlier samples of its dataset: here, and then in the run.
        by_part = np.argsort(part, kind="stable")
        here_of = np.bincount(part, minlength=len(self._sizes))
        number = np.empty(len(part), np.int64)
        number[by_part] = np.arange(len(part)) - np.repeat(np.cumsum(here_of) - here_of, here_of)
        number += np.array(self._drawn(phase, begin), np.int64)[part]
        turn, place = np.divmod(number, self._passes[part])
        if self._family is not None:
            place = self._family.at(place, self._passes[part], part, turn)
        for own, order in self._orders.items():
            mine = np.flatnonzero(part == own)
            if len(mine):
                place[mine] = self._ordered(own, order, int(number[mine[0]]), len(mine))
        keys: list[int] = (self._starts[part] + place).tolist()
        return keys

    def _ordered(self, part: int, order: Order, start: int, count: int) -> NDArray[np.int64]:
        """Return the next samples of a dataset with a sampler of its own, which may be in several passes over it."""
        size = int(self._passes[part])
        keys: list[Any] = []
        while len(keys) < count:
            turn, place = divmod(start + len(keys), size)
            keys += order.keys(turn, place, min(place + count - len(keys), size))
        found = counts(f"the keys of the sampler of dataset {part}", keys)
        outside = np.flatnonzero(found >= self._sizes[part])
        if len(outside):
            key, most = int(found[outside[0]]), int(self._sizes[part])
            raise ArgumentError(
                f"the sampler of dataset {part} gave index {key}, but the dataset has {most} samples",
                found=key,
                expected=f"indices below {most}",
                cure="make the sampler of this dataset, or of its length",
            )
        return found

    def _drawn(self, phase: WeightPhase, upto: int) -> tuple[int, ...]:
        """Return the number of samples of each dataset before sample ``upto`` of the run."""
        drawn = list(phase.drawn)
        offset, count = (self._offset + phase.since * STRIDE) % TURN, upto - phase.since
        below = [_below(bound, offset, count) for bound in phase.bounds]
        for part, (low, high) in zip(phase.parts.tolist(), pairwise(below), strict=True):
            drawn[part] += high - low
        return tuple(drawn)


def _below(bound: int, offset: int, count: int) -> int:
    """Return how many of the points ``offset + n * STRIDE`` of the circle, for n below ``count``, are below a bound.

    >>> sum((7 + n * STRIDE) % TURN < 2**62 for n in range(1000)), _below(2**62, 7, 1000)
    (251, 251)
    """
    return _floors(count, offset) - _floors(count, offset - bound + TURN) + count


def _floors(count: int, offset: int) -> int:
    """Return the sum of ``(offset + n * STRIDE) // TURN`` for n below ``count``, by Euclid's algorithm."""
    total, modulus, stride = 0, TURN, STRIDE
    while count:
        total += (count - 1) * count // 2 * (stride // modulus) + count * (offset // modulus)
        stride, offset = stride % modulus, offset % modulus
        last = stride * count + offset
        count, offset = divmod(last, modulus)
        modulus, stride = stride, modulus
    return total


def _key_of_part(key: Key, part: int) -> Key:
    first, second = generator(key, Purpose.ORDER, part, 3).integers(0, 2**64, 2, dtype=np.uint64).tolist()
    return first, second


def _samplers(given: Any, parts: int) -> list[PlannedSampler[Any] | None]:
    if given is None:
        return [None] * parts
    found = list(given)
    planned = all(sampler is None or isinstance(sampler, PlannedSampler) for sampler in found)
    if len(found) != parts or not planned:
        raise ArgumentError(
            f"samplers must be planned samplers or None, one for each of {parts} datasets; got {shown(found)}",
            found=found,
            expected="planned samplers, such as ShardSampler, or None",
            cure="give None for a dataset without its own sampler",
        )
    for part, sampler in enumerate(found):
        if sampler is not None and not len(sampler):
            raise ArgumentError(
                f"the sampler of dataset {part} is empty",
                found=0,
                expected="a sampler with samples",
                cure="give None for this dataset, or a sampler of its length",
            )
    return found


def _facts(samplers: list[PlannedSampler[Any] | None]) -> list[Any]:
    return [None if own is None else [type(own).__name__, own.fingerprint] for own in samplers]


def _weights(given: Any, sizes: list[int]) -> tuple[float, ...]:
    expected = f"one row of numbers, one for each of {len(sizes)} datasets"
    found = row("weights", given, expected, kinds="f", dtype=np.float64)
    if len(found) != len(sizes):
        what = f"weights must be {expected}; got {len(found)}"
        raise ArgumentError(what, found=found.tolist(), expected=expected, cure="give a weight for each dataset")
    check_weights(found)
    for part, (weight, size) in enumerate(zip(found.tolist(), sizes, strict=True)):
        if weight and not size:
            raise ArgumentError(
                f"dataset {part} is empty, but its weight is {weight}",
                found=weight,
                expected="weight 0 for an empty dataset",
                cure="set the weight to 0, or remove the dataset",
            )
    return tuple(found.tolist())


def _flattened(weights: tuple[float, ...], temperature: float) -> tuple[float, ...]:
    if temperature == 1:
        return weights
    most = max(weights)
    return tuple((weight / most) ** (1 / temperature) if weight else 0.0 for weight in weights)
