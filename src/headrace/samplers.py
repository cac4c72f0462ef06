"""Samplers: in which order, and how often, the samples of a dataset are asked for.

They have the names, arguments and lengths of those in ``torch.utils.data``, and give Python ints. Where randomness
comes from, `headrace.interop.generators` says; it is drawn when the first index is asked for, not before.
"""

from __future__ import annotations

import copy
import os
from contextlib import suppress
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np

from headrace.checks import as_integer, check_weights, flag, integer, positive, row
from headrace.context import seeds
from headrace.errors import ArgumentError
from headrace.formatting import call_of
from headrace.hints import looked_up
from headrace.interop import torch_state
from headrace.interop.generators import GeneratorLike, draw_seed, draws, resolve, state_of
from headrace.interop.keys import check_no_mask
from headrace.interop.sampler_states import check_count, check_mapping, checked_state
from headrace.plan.buckets import BucketBatchSampler
from headrace.plan.classes import BalancedBatchSampler
from headrace.plan.mixture import MixtureSampler
from headrace.plan.order import Shuffled
from headrace.plan.packing import PackingBatchSampler
from headrace.plan.passes import Pass, apart, between
from headrace.plan.piece import Piece
from headrace.plan.planned import PlannedBatchSampler, PlannedSampler
from headrace.plan.repeated import RepeatedSampler
from headrace.plan.replacement import ReplacementSampler
from headrace.plan.shard_sampler import ShardSampler
from headrace.plan.token_batches import TokenBatchSampler

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized

    from numpy.typing import ArrayLike, NDArray

    from headrace.interop.generators import Numbers

__all__ = [
    "BalancedBatchSampler",
    "BatchSampler",
    "BucketBatchSampler",
    "DistributedSampler",
    "MixtureSampler",
    "PackingBatchSampler",
    "Piece",
    "PlannedBatchSampler",
    "PlannedSampler",
    "RandomSampler",
    "RepeatedSampler",
    "ReplacementSampler",
    "Sampler",
    "SequentialSampler",
    "ShardSampler",
    "StatefulDistributedSampler",
    "SubsetRandomSampler",
    "TokenBatchSampler",
    "WeightedRandomSampler",
]

if not TYPE_CHECKING:
    __getattr__ = looked_up(__name__)

T_co = TypeVar("T_co", covariant=True)

STRETCH = 2**14
"""Indices that are made Python objects at a time: enough to spread the cost of a call, little to hold."""


class Sampler(Generic[T_co]):
    """What gives a loader its indices, or batches of them: subclasses give ``__iter__``, and ``__len__`` if they can.

    >>> from headrace.samplers import Sampler
    >>> class Backwards(Sampler[int]):
    ...     def __init__(self, size: int) -> None:
    ...         self.size = size
    ...     def __iter__(self):
    ...         return iter(range(self.size - 1, -1, -1))
    >>> list(Backwards(4))
    [3, 2, 1, 0]

    Any other iterable of indices does as well; this class only names the type.
    """

    def __repr__(self) -> str:
        try:
            return call_of(self, whole=Sampler)
        except Exception:  # noqa: BLE001  a subclass may have other attributes
            return object.__repr__(self)

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError(f"{type(self).__qualname__} must define __iter__()")


class SequentialSampler(Sampler[int]):
    """The indices 0, 1, 2, … of whatever has a length.

    >>> from headrace.samplers import SequentialSampler
    >>> list(SequentialSampler("abc"))
    [0, 1, 2]
    """

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """The indices of a dataset in random order; or ``num_samples`` of them, with or without replacement.

    >>> import numpy as np
    >>> from headrace.samplers import RandomSampler
    >>> sorted(RandomSampler(range(6), generator=np.random.default_rng(0)))
    [0, 1, 2, 3, 4, 5]
    >>> five = list(RandomSampler(range(2), num_samples=5, generator=1))
    >>> sorted(five[:2]), sorted(five[2:4]), len(five)
    ([0, 1], [0, 1], 5)

    Without replacement no index comes again before all have come: more samples than the dataset has are whole
    permutations, and a part of one. ``generator``: a NumPy or torch generator, or a seed, from which every pass draws
    anew; without one, from the global generator of torch if torch is loaded, else of NumPy. The dataset's length is
    asked for at every pass.

    Raises `ArgumentError` for a ``num_samples`` that is not a positive integer (an empty dataset's length included)
    and `ArgumentTypeError`, which is a TypeError, for a ``replacement`` that is not a bool.
    """

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: GeneratorLike = None,
    ) -> None:
        self.data_source = data_source
        self.replacement = flag("replacement", replacement, exact=True)
        self._num_samples = None if num_samples is None else positive("num_samples", num_samples)
        self.generator = resolve(generator)
        self._pass: Pass | None = None
        self._yielded = 0
        self._loaded: dict[str, Any] | None = None
        self._settled: dict[str, Any] | None = None
        positive("num_samples", self.num_samples)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_pass": None, "_yielded": 0}  # a copy begins its own passes

    def _apart(self) -> RandomSampler:
        other = copy.copy(self)
        other._loaded = other._settled = None
        return other

    @property
    def num_samples(self) -> int:
        """How many indices a pass gives: live, where it is the dataset's length."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        """Begin a pass, or continue the one of a loaded state."""
        state = self._loaded or self._settled or {}
        self._loaded = self._settled = None
        indices = self._pass = Pass(_Drawn(self), state)
        self._yielded = state.get("yielded", 0)
        for index in islice(indices, self._yielded, None):
            if self._pass is indices:  # a state is about the pass begun last
                self._yielded += 1
            yield index
        if self._pass is indices:
            self._pass = None

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the newest pass, and how to have that pass again, as what JSON can hold.

        >>> import numpy as np
        >>> sampler = RandomSampler(range(6), generator=np.random.default_rng(0))
        >>> indices = iter(sampler)
        >>> _ = next(indices), next(indices)
        >>> other = RandomSampler(range(6), generator=np.random.default_rng(99))
        >>> other.load_state_dict(sampler.state_dict())
        >>> list(other) == list(indices)
        True
        >>> list(other) == list(sampler)
        True

        Between two passes, it draws the seed of the next one, where no generator is given.
        """
        if self._loaded is not None:
            return copy.deepcopy(self._loaded)
        if self._pass is not None:
            self._pass.settle()
            return {"yielded": self._yielded, **self._pass.state()}
        if self._settled is None:
            self._settled = self._upcoming()
        return {"yielded": 0, **self._settled}

    def _upcoming(self) -> dict[str, Any]:
        """Return how the next pass begins: by a seed drawn here, or where the sampler's own generator is now."""
        if self.generator is not None:
            return {"generators": {"generator": state_of(self.generator)}}
        return {"seeds": [draw_seed()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next pass continue where a state was saved, and those after it follow as they would have.

        Raises `StateMismatch`, which is a ValueError, for what is no state of a sampler like this one.
        """
        self._loaded = checked_state(state, self.generator)

    def _drawn(self) -> Iterator[Numbers]:
        size, count = len(self.data_source), self.num_samples
        if not size:
            raise ArgumentError(
                f"RandomSampler cannot draw {count} indices: the dataset is empty",
                found=0,
                expected="a dataset with samples",
                cure="check the dataset's path",
            )
        numbers = draws(self.generator, apart=True)
        yield from numbers.integers(size, count) if self.replacement else numbers.permutations(size, count)

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """Given indices, in random order, each once.

    >>> from headrace.samplers import SubsetRandomSampler
    >>> sorted(SubsetRandomSampler([2, 3, 5, 7]))
    [2, 3, 5, 7]

    ``indices``: a sequence or an array of them. ``generator`` as in `RandomSampler`.
    """

    def __init__(self, indices: Sequence[int], generator: GeneratorLike = None) -> None:
        check_no_mask("SubsetRandomSampler: indices", indices)
        self.indices = indices
        self.generator = resolve(generator)

    def __iter__(self) -> Iterator[int]:
        return _each(self._drawn())

    def _drawn(self) -> Iterator[Any]:
        size = len(self.indices)
        if not size:
            return
        order = next(draws(self.generator).permutations(size, size))
        if hasattr(self.indices, "__array__"):
            yield np.asarray(self.indices)[order]
            return
        for start in range(0, size, STRETCH):
            yield [self.indices[place] for place in order[start : start + STRETCH].tolist()]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """Indices drawn at random, each in proportion to its weight.

    >>> from headrace.samplers import WeightedRandomSampler
    >>> drawn = list(WeightedRandomSampler([0.0, 9.0, 1.0], num_samples=1000, generator=0))
    >>> [round(drawn.count(index) / 1000, 1) for index in range(3)]
    [0.0, 0.9, 0.1]
    >>> sorted(WeightedRandomSampler([0.2, 0.3, 0.5], num_samples=3, replacement=False))
    [0, 1, 2]

    ``weights``: one number from 0 up for each index, any number of them (torch takes 2**24); they need not sum to 1
    and may be changed between passes. Without replacement an index comes once at most, and one of weight 0 only when
    all others have come. ``generator`` as in `RandomSampler`.

    Raises `ArgumentError` for weights that are not one row of finite numbers from 0 up, at least one above 0, and for
    more samples than there are weights, without replacement.
    """

    def __init__(
        self,
        weights: ArrayLike,
        num_samples: int,
        replacement: bool = True,
        generator: GeneratorLike = None,
    ) -> None:
        self.num_samples = positive("num_samples", num_samples)
        self.weights = _numbers(weights)
        self.replacement = flag("replacement", replacement, exact=True)
        self.generator = resolve(generator)
        self._checked()

    def __iter__(self) -> Iterator[int]:
        return _each(self._drawn())

    def _drawn(self) -> Iterator[Numbers]:
        yield from draws(self.generator).weighted(self._checked(), self.num_samples, replacement=self.replacement)

    def _checked(self) -> NDArray[np.float64]:
        found = _numbers(self.weights)
        check_weights(found)
        if not self.replacement and self.num_samples > len(found):
            raise ArgumentError(
                f"cannot draw {self.num_samples} samples by {len(found)} weights without replacement",
                found=self.num_samples,
                expected=f"at most {len(found)} samples",
                cure=f"give replacement=True, or num_samples={len(found)} at most",
            )
        return found

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Another sampler's indices (or those of any iterable), in lists of ``batch_size``.

    >>> from headrace.samplers import BatchSampler
    >>> list(BatchSampler(range(10), batch_size=4, drop_last=False))
    [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    >>> len(BatchSampler(range(10), batch_size=4, drop_last=True))
    2

    The last list is short where the sizes do not divide, or left out with ``drop_last``. Raises `ArgumentError` for a
    ``batch_size`` that is not a positive integer and a ``drop_last`` that is not a bool, and `ArgumentTypeError` at the
    end of a second pass over an iterator, which can be read only once.
    """

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        self.sampler = sampler
        self.batch_size = positive("batch_size", batch_size)
        self.drop_last = flag("drop_last", drop_last, exact=True)
        self._read_before = False
        self._pass: Pass | None = None
        self._batches = 0
        self._moved: frozenset[str] | None = None
        """The generators that the pass before drew from."""
        self._loaded: dict[str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy is read by another process, which has its own iterators.
        return {**vars(self), "_pass": None, "_batches": 0, "_read_before": False}

    def _apart(self) -> BatchSampler | None:
        inner = apart(self.sampler)
        return None if inner is None else type(self)(inner, self.batch_size, self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        """Begin a pass, or continue the one of a loaded state."""
        state, self._loaded = self._loaded or {}, None
        indices = self._pass = Pass(self.sampler, state.get("sampler"), again=self._read_before)
        self._read_before, self._batches = True, state.get("batches", 0)
        given = self._batches * self.batch_size
        if indices.start is None:
            next(islice(indices, given, given), None)
        while batch := list(islice(indices, self.batch_size)):
            if self.drop_last and len(batch) < self.batch_size:
                break
            given += len(batch)
            if self._pass is indices:  # a state is about the pass begun last
                self._batches += 1
                indices.mark(self._batches, given)
                indices.forget(self._batches)
            yield batch
        if self._pass is indices:
            self._pass, self._batches, self._moved = None, 0, indices.moved

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the newest pass, and how to have that pass of the sampler again.

        >>> sampler = BatchSampler(RandomSampler(range(9), generator=1), batch_size=4, drop_last=False)
        >>> batches = iter(sampler)
        >>> _ = next(batches)
        >>> other = BatchSampler(RandomSampler(range(9), generator=2), batch_size=4, drop_last=False)
        >>> other.load_state_dict(sampler.state_dict())
        >>> list(other) == list(batches)
        True

        It holds the state of a sampler that keeps one, and else what its random numbers came from.
        """
        if self._loaded is not None:
            return copy.deepcopy(self._loaded)
        indices = self._pass
        if indices is None:
            return {"batches": 0, "sampler": between(self.sampler, self._moved)}
        indices.settle()
        return {"batches": self._batches, "sampler": indices.state(self._batches)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next pass continue where a state was saved.

        Raises `StateMismatch`, which is a ValueError, for what is no state of a batch sampler.
        """
        check_count("batches", state)
        check_mapping("sampler", state)
        self._loaded = copy.deepcopy(dict(state))

    def __len__(self) -> int:
        whole, rest = divmod(len(cast("Sized", self.sampler)), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)


class DistributedSampler(Sampler[T_co]):
    """One process's share of a dataset: every ``num_replicas``-th index, from ``rank`` on.

    >>> from headrace.samplers import DistributedSampler
    >>> [list(DistributedSampler(range(10), num_replicas=4, rank=rank, shuffle=False)) for rank in range(4)]
    [[0, 4, 8], [1, 5, 9], [2, 6, 0], [3, 7, 1]]
    >>> sampler = DistributedSampler(range(1000), num_replicas=2, rank=0, seed=3)
    >>> first = list(sampler)
    >>> sampler.set_epoch(1)
    >>> first == list(sampler)
    False

    All shares have one length: the first indices come again at the end where it does not divide, or with
    ``drop_last`` the last are left out. The order is a function of (seed, epoch), the same in all processes, so call
    `set_epoch` before each epoch; with torch's sampler epoch 1 of seed 0 is epoch 0 of seed 1, which here it is not.

    ``num_replicas`` and ``rank``, where not given, are those of torch's process group if there is one, else of the
    environment variables ``WORLD_SIZE`` and ``RANK`` that launchers such as torchrun set. Raises `ArgumentError` where
    there are neither, and for a rank that is not under ``num_replicas``.
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        replicas = integer("num_replicas", _from_group("get_world_size", "WORLD_SIZE", num_replicas), least=1)
        given = _from_group("get_rank", "RANK", rank)
        found = as_integer(given)
        if found is not None and not 0 <= found < replicas:
            raise ArgumentError(
                f"Invalid rank {found}, rank should be in the interval [0, {replicas - 1}]",
                found=found,
                expected=f"a rank in the interval [0, {replicas - 1}]",
                cure="give each process its own rank, from 0 up",
            )
        self.dataset = dataset
        self.num_replicas = replicas
        self.rank = integer("rank", given, least=0)
        self.epoch = 0
        self.drop_last = drop_last = flag("drop_last", drop_last)
        whole, rest = divmod(len(dataset), replicas)
        self.num_samples = whole + (rest > 0 and not drop_last)
        self.total_size = self.num_samples * replicas
        self.shuffle = flag("shuffle", shuffle)
        self.seed = seed
        self._key = seeds.key_of(seed)
        self.yielded = 0
        """How many indices the newest pass has given; 0 after its end."""
        self.next_yielded: int | None = None
        """How many the next pass leaves out, because a loaded state says that they were given."""
        self._chosen = False

    def __iter__(self) -> Iterator[T_co]:
        """Begin a pass, or continue the one of a loaded state."""
        self.yielded, self.next_yielded = self.next_yielded or 0, None
        yield from cast("Iterator[T_co]", self._counted(islice(_each(self._share()), self.yielded, None)))
        self.yielded = 0

    def _apart(self) -> DistributedSampler[T_co]:
        other = copy.copy(self)
        other.yielded, other.next_yielded = 0, None
        return other

    def _counted(self, indices: Iterator[int]) -> Iterator[int]:
        for index in indices:
            self.yielded += 1
            yield index

    def state_dict(self) -> dict[str, int]:
        """Return the epoch, and how many of its indices the newest pass has given.

        >>> sampler = DistributedSampler(range(100), num_replicas=2, rank=0, seed=3)
        >>> indices = iter(sampler)
        >>> _ = next(indices), next(indices)
        >>> other = DistributedSampler(range(100), num_replicas=2, rank=0, seed=3)
        >>> other.load_state_dict(sampler.state_dict())
        >>> list(other) == list(indices)
        True
        """
        given = self.yielded if self.next_yielded is None else self.next_yielded
        return {"epoch": self.epoch, "yielded": given}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next pass continue where a state was saved.

        The epoch of the state counts only where `set_epoch` was never called; a state without one is torchdata's.
        Raises `StateMismatch`, which is a ValueError, for what is no state of such a sampler.
        """
        check_count("yielded", state)
        if "epoch" in state:
            check_count("epoch", state)
            if not self._chosen:
                self.epoch = state["epoch"]
        self.next_yielded = state["yielded"]

    def _share(self) -> Iterator[Numbers]:
        size, step = len(self.dataset), STRETCH * self.num_replicas
        order = Shuffled(size, self._key)
        for start in range(self.rank, self.total_size, step):
            # Beyond the end the order begins again, as often as it takes.
            places = np.arange(start, min(start + step, self.total_size), self.num_replicas) % size
            yield order.at(self.epoch, places) if self.shuffle else places

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, whose order is another: call it before each, with the same number in all processes."""
        self.epoch, self._chosen = integer("epoch", epoch, least=0), True


class StatefulDistributedSampler(DistributedSampler[T_co]):
    """The same as `DistributedSampler`, under the name that torchdata gives to the one that keeps a state.

    >>> from headrace.samplers import StatefulDistributedSampler
    >>> sampler = StatefulDistributedSampler(range(10), num_replicas=2, rank=0, shuffle=False)
    >>> sampler.load_state_dict({"yielded": 3})
    >>> list(sampler)
    [6, 8]
    """


class _Drawn:
    """A pass of a `RandomSampler` by itself, as what draws from the sampler's generator."""

    def __init__(self, sampler: RandomSampler) -> None:
        self._sampler = sampler
        self.generator = sampler.generator

    def __iter__(self) -> Iterator[int]:
        return _each(self._sampler._drawn())


def _each(stretches: Iterator[Any]) -> Iterator[int]:
    """Give the numbers of arrays and lists as Python ints, never many at a time."""
    return chain.from_iterable(_lists(stretches))


def _lists(stretches: Iterator[Any]) -> Iterator[list[int]]:
    for stretch in stretches:
        for start in range(0, len(stretch), STRETCH):
            part = stretch[start : start + STRETCH]
            yield part if isinstance(part, list) else part.tolist()


def _numbers(weights: Any) -> NDArray[np.float64]:
    if hasattr(weights, "detach"):  # a tensor, which NumPy can read where it needs no gradient and is on no device
        weights = weights.detach().cpu()
    shape = None
    with suppress(ValueError):  # rows of several lengths
        shape = np.shape(weights)
    if shape is not None and len(shape) != 1:
        raise ArgumentError(
            f"weights should be a 1d sequence but given weights have shape {shape}",
            found=weights,
            expected="a 1d sequence of numbers",
            cure="give one weight for each index",
        )
    return row("weights", weights, "a 1d sequence of numbers", kinds="f", dtype=np.float64)


def _from_group(question: str, variable: str, given: int | None) -> int:
    """Return what was given, else torch's answer, else the launcher's."""
    if given is not None:
        return given
    group = torch_state.process_group()
    if group is not None:
        return int(getattr(group, question)())
    try:
        return int(os.environ[variable])
    except (KeyError, ValueError):
        raise ArgumentError(
            "Default process group has not been initialized, please make sure to call init_process_group",
            found=os.environ.get(variable),
            expected=f"a process group, or an integer in the environment variable {variable}",
            cure=f"launch with torchrun, which sets {variable}, or give num_replicas and rank",
        ) from None
