"""Parts of a dataset: the samples at given indices, and random splits."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np

from headrace.checks import integer, kind_of
from headrace.datasets import protocol
from headrace.datasets.base import T_co, View
from headrace.datasets.pieces import read_piece
from headrace.errors import ArgumentError, ArgumentTypeError, shown
from headrace.interop.generators import GeneratorLike, draws
from headrace.interop.keys import is_mask, places, selected, whole
from headrace.plan.piece import Piece

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from headrace.context.memory import Empty
    from headrace.datasets.columns import Columns
    from headrace.datasets.image_sources import Source
    from headrace.datasets.protocol import Indexed
    from headrace.storage.object_spans import ObjectSpans


class Subset(View[T_co]):
    """The samples of a dataset at given indices.

    >>> from headrace import Subset
    >>> odd = Subset("abcdef", [1, 3, 5])
    >>> len(odd), odd[0], list(odd)
    (3, 'b', ['b', 'd', 'f'])

    ``indices``: a sequence or an array of what ``dataset`` is to be asked for. A list or slice of positions asks the
    dataset for the list of their indices, which datasets of arrays answer. A boolean mask of the dataset's length
    selects the samples where it is True. Whole batches are read where ``dataset``
    reads them. Raises NotImplementedError for a subclass that defines ``__getitem__`` without ``__getitems__``.
    """

    def __init__(self, dataset: Indexed, indices: Sequence[Any] | NDArray[Any]) -> None:
        protocol.check_indexed("Subset", dataset, 0, sized=False)
        kind = type(self)
        if kind.__getitem__ is not Subset.__getitem__ and kind.__getitems__ is Subset.__getitems__:
            raise NotImplementedError(
                f"{kind.__name__} overrides __getitem__ but not __getitems__, which loaders read many samples with; "
                "define it too: def __getitems__(self, indices): return [self[index] for index in indices]"
            )
        self.dataset = dataset
        if not (hasattr(indices, "__getitem__") and hasattr(indices, "__len__")):
            raise ArgumentTypeError(
                f"Subset: indices must be a sequence or an array; got {kind_of(indices)}",
                found=indices,
                expected="a sequence or an array",
                cure="Pass list(indices).",
            )
        if is_mask(indices):
            indices = Indices(selected("Subset: indices", indices, len(dataset)))
        elif isinstance(indices, np.ndarray) and indices.ndim != 1:
            raise ArgumentTypeError(
                f"Subset: indices must have one axis; got an array of shape {indices.shape}",
                found=indices.shape,
                expected="an array of shape (n,)",
                cure="Pass indices.ravel().",
            )
        self.indices = indices

    def __getitem__(self, index: Any) -> Any:
        """Return the dataset's sample at the index at this position; or those of several positions."""
        if isinstance(index, list):
            return self.dataset[self._keys(index)]  # type: ignore[index]
        if type(index) is not int and not isinstance(index, slice):
            index = whole(index)
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: list[int]) -> list[T_co]:
        """Read the samples at these positions, in one call of the dataset's where it has ``__getitems__``."""
        return protocol.many(self.dataset, self._keys(indices))

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def _viewed(self) -> Indexed:
        return self.dataset

    @property
    def reads_many(self) -> bool:
        """Whether ``__getitems__`` is more than a loop over ``__getitem__``."""
        return type(self).__getitems__ is not Subset.__getitems__ or protocol.reads_many(self.dataset)

    @property
    def labels(self) -> NDArray[Any] | None:
        """The labels of these samples, where the dataset has labels."""
        labels = protocol.labels(self.dataset)
        return None if labels is None else labels[np.asarray(self.indices, dtype=np.intp)]

    @property
    def shard_lengths(self) -> Sequence[int] | None:
        """How many of these samples each shard has, where they are in the dataset's order; else None."""
        lengths = protocol.shard_lengths(self.dataset)
        if lengths is None:
            return None
        if isinstance(self.indices, Repetition):
            return lengths * self.indices.times
        indices = np.asarray(self.indices, dtype=np.int64)
        if (np.diff(indices, prepend=0) < 0).any():
            return None
        ends: list[int] = np.diff(np.searchsorted(indices, np.cumsum(lengths)), prepend=0).tolist()
        return ends

    @property
    def columns(self) -> Columns | None:
        """The arrays of a whole batch, as the dataset has them."""
        return protocol.columns(self.dataset)

    @property
    def read_batch(self) -> Callable[..., Any] | None:
        """What reads whole batches, where the dataset reads them."""
        return None if protocol.batch_reader(self.dataset) is None else self._read_batch

    def _read_batch(self, keys: Sequence[int], *, empty: Empty = np.empty) -> Any:
        read: Any = protocol.batch_reader(self.dataset)
        return read(self._keys(keys), empty=empty)

    @property
    def begin_batch(self) -> Callable[..., Any] | None:
        """What begins whole batches, where the dataset begins them."""
        return None if protocol.batch_beginner(self.dataset) is None else self._begin_batch

    def _begin_batch(self, keys: Sequence[int], *, empty: Empty = np.empty) -> Any:
        begin: Any = protocol.batch_beginner(self.dataset)
        return begin(self._keys(keys), empty=empty)

    def read_part(self, index: int, start: int, stop: int) -> Any:
        """Read a part of a sample, as the dataset does."""
        return read_piece(self.dataset, Piece(self._keys([index])[0], start, stop))

    def native_source(self) -> Source | None:
        """Return what the dataset's images are read from."""
        return protocol.native_source(self.dataset)

    def resolve(self, keys: Sequence[Any]) -> tuple[Any, NDArray[np.int64]]:
        """Ask the dataset, by its own indices."""
        return protocol.resolve(self.dataset, self._keys(keys))

    def object_spans(self, keys: Sequence[Any]) -> list[ObjectSpans]:
        """Ask the dataset, by its own indices."""
        return protocol.object_spans(self.dataset, self._keys(keys))

    def rebuilt(self, make: Callable[[Any], Any]) -> Subset[Any]:
        """Return the same indices of ``make(dataset)``."""
        return Subset(make(self.dataset), self.indices)

    def explain(self) -> str:
        """Say how the dataset is read: choosing among its samples makes no difference."""
        return protocol.explain(self.dataset)

    def inner(self, index: Any) -> tuple[Any, Any]:
        """Return the dataset, and its own index of a sample."""
        return self.dataset, self.indices[index]

    def _keys(self, positions: Sequence[int]) -> list[Any]:
        if isinstance(self.indices, Indices | Repetition):
            return self.indices.take(positions)
        if not set(map(type, positions)) <= {int}:
            positions = [whole(position) for position in positions]
        return [self.indices[position] for position in positions]


def random_split(
    dataset: Indexed,
    lengths: Sequence[int | float],
    generator: GeneratorLike = None,
    *,
    seed: int | None = None,
    stratify: ArrayLike | bool = False,
) -> list[Subset[Any]]:
    """Split a dataset at random into parts of given lengths, or of given fractions of its length.

    >>> from headrace import random_split
    >>> train, test = random_split(range(10), [0.7, 0.3], generator=0)
    >>> len(train), len(test), sorted([*train, *test]) == list(range(10))
    (7, 3, True)

    Numbers that sum to 1 are fractions: each part gets its share rounded down, and what is left over goes to the
    first parts, one sample each; an empty part is warned of. ``generator``: a NumPy or torch generator, or a seed (the
    same one always gives the same split); without one, the global generator of torch if torch is loaded, else of
    NumPy. With torch's generators the split is the one that torch makes. ``seed`` is a seed, by its usual name.

    With ``stratify=True``, each part has its share of each class, to within one sample or two; the dataset knows its
    labels, or ``stratify`` is an array of them.

    >>> from headrace import ArrayDataset
    >>> labels = np.array([0] * 8 + [1] * 4)
    >>> train, test = random_split(ArrayDataset(np.arange(12), labels), [0.75, 0.25], seed=0, stratify=True)
    >>> np.bincount(train.labels).tolist(), np.bincount(test.labels).tolist()
    ([6, 3], [2, 1])

    Raises `ArgumentError` for lengths that do not sum to the dataset's, for fractions not between 0 and 1, for a seed
    beside a generator, and for a dataset without labels.
    """
    protocol.check_indexed("random_split", dataset, 0)
    generator = _generator_of(generator, seed)
    size = len(dataset)
    total = sum(lengths)
    if total <= 1 and math.isclose(total, 1):
        counts = _shares(size, lengths)
        for number, count in enumerate(counts):
            if count == 0:
                warnings.warn(
                    f"Length of split at index {number} is 0. This might result in an empty dataset.", stacklevel=2
                )
    else:
        counts = [_count(length) for length in lengths]
    if sum(counts) != size:
        raise ArgumentError(
            "Sum of input lengths does not equal the length of the input dataset! "
            f"The lengths {list(lengths)} sum to {total}, the dataset has {size}",
            found=total,
            expected=f"lengths that sum to {size}, or fractions that sum to 1",
            cure="Change one of them.",
        )
    order = next(draws(generator).permutations(size, size)) if size else np.empty(0, np.int64)
    if stratify is not False and size:
        return [Subset(dataset, Indices(part)) for part in _stratified(order, counts, _classes_of(dataset, stratify))]
    ends = [0, *np.cumsum(counts, dtype=np.int64).tolist()]
    return [Subset(dataset, Indices(order[begin:end])) for begin, end in pairwise(ends)]


def _generator_of(generator: GeneratorLike, seed: int | None) -> GeneratorLike:
    if seed is None:
        return generator
    if generator is not None:
        raise ArgumentError(
            "random_split got a seed and a generator",
            found=shown(generator),
            expected="one of them",
            cure="leave generator out",
        )
    return integer("seed", seed, least=0)


def _classes_of(dataset: Indexed, stratify: ArrayLike | bool) -> NDArray[Any]:
    labels = protocol.labels(dataset) if stratify is True else np.asarray(stratify)
    if labels is None or labels.shape != (len(dataset),):
        found = "none" if labels is None else f"shape {labels.shape}"
        raise ArgumentError(
            f"random_split cannot stratify: it needs one label for each of {len(dataset)} samples; got {found}",
            found=found,
            expected=f"labels of shape ({len(dataset)},)",
            cure="pass stratify=labels, an array with the class of each sample",
        )
    return labels


def _stratified(order: NDArray[Any], counts: Sequence[int], labels: NDArray[Any]) -> list[NDArray[Any]]:
    """Deal shuffled indices out class by class, so that each part gets them as evenly as its length allows.

    >>> [part.tolist() for part in _stratified(np.arange(6), [4, 2], np.array([0, 0, 0, 1, 1, 1]))]
    [[0, 2, 3, 5], [1, 4]]
    """
    by_class = order[np.argsort(labels[order], kind="stable")]
    turns = np.concatenate([(np.arange(count) + 0.5) / max(count, 1) for count in counts])
    parts = np.repeat(np.arange(len(counts)), counts)[np.argsort(turns, kind="stable")]
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    # Sorted by class, a part would begin with one class only; the shuffle's order is taken again.
    return [found[np.argsort(place[found])] for found in (by_class[parts == part] for part in range(len(counts)))]


class Indices(Sequence[int]):
    """The indices of a random split: a read-only list of ints, held as an array.

    >>> from headrace.datasets.subset import Indices
    >>> indices = Indices(np.array([4, 1, 3]))
    >>> indices[0], indices[1:], indices == [4, 1, 3], indices + [0]
    (4, [1, 3], True, [4, 1, 3, 0])

    A worker gets one array instead of an object for each index, and forked ones go on sharing it.
    """

    __slots__ = ("_numbers",)

    def __init__(self, numbers: NDArray[np.integer[Any]]) -> None:
        self._numbers = numbers.copy()  # a view would hold, and pickle with some protocols, the whole permutation
        self._numbers.flags.writeable = False

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        numbers: int | list[int] = self._numbers[index if isinstance(index, slice) else operator.index(index)].tolist()
        return numbers

    def take(self, positions: Sequence[int]) -> list[int]:
        """Return the indices at some positions."""
        numbers: list[int] = self._numbers[places(positions, len(self), "a Subset of {} samples")].tolist()
        return numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[int]:
        return iter(memoryview(cast("Any", self._numbers)))  # gives Python ints, one by one

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self._numbers, dtype=dtype) if copy else np.asarray(self._numbers, dtype=dtype)

    def __add__(self, other: Sequence[int]) -> list[int]:
        return [*self, *other]

    def __radd__(self, other: Sequence[int]) -> list[int]:
        return [*other, *self]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Indices):
            return np.array_equal(self._numbers, other._numbers)
        return list(self) == other if isinstance(other, list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as a list is

    def __repr__(self) -> str:
        if len(self) <= 6:
            return f"Indices({list(self)!r})"
        return f"Indices([{self[0]}, {self[1]}, … {self[-1]}], {len(self)} of them)"

    def __reduce__(self) -> tuple[Any, ...]:
        return Indices, (self._numbers,)


class Repetition(Sequence[int]):
    """The indices of a dataset several times over: ``0, 1, …, size - 1``, and from 0 again.

    >>> from headrace.datasets.subset import Repetition
    >>> list(Repetition(3, times=2)), Repetition(3, times=2)[-1]
    ([0, 1, 2, 0, 1, 2], 2)
    """

    __slots__ = ("size", "times")

    def __init__(self, size: int, times: int) -> None:
        self.size = size
        self.times = times

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        if isinstance(index, slice):
            return [place % self.size for place in range(len(self))[index]]
        return range(len(self))[index] % self.size

    def take(self, positions: Sequence[int]) -> list[int]:
        """Return the indices at some positions."""
        numbers: list[int] = (places(positions, len(self), "a Subset of {} samples") % max(self.size, 1)).tolist()
        return numbers

    def __len__(self) -> int:
        return self.size * self.times

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.tile(np.arange(self.size, dtype=dtype), self.times)

    def __repr__(self) -> str:
        return f"Repetition({self.size}, times={self.times})"


def _shares(size: int, fractions: Sequence[float]) -> list[int]:
    for number, fraction in enumerate(fractions):
        if not 0 <= fraction <= 1:
            raise ArgumentError(
                f"Fraction at index {number} is not between 0 and 1: it is {fraction!r}",
                found=fraction,
                expected="a fraction from 0 to 1",
                cure="Pass fractions that sum to 1.",
            )
    counts = [math.floor(size * fraction) for fraction in fractions]
    rest = size - sum(counts)
    return [count + rest // len(counts) + (number < rest % len(counts)) for number, count in enumerate(counts)]


def _count(length: Any) -> int:
    return integer("lengths", length, least=0, cure="Pass numbers of samples, or fractions that sum to 1.")
