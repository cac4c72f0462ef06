"""Datasets that are read by iterating: streams, which have no index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from headrace.context.timing import timed
from headrace.datasets import protocol
from headrace.datasets.base import Dataset, T_co
from headrace.errors import ArgumentTypeError, UnusableArgument
from headrace.interop.calls import article
from headrace.interop.once import OnlyOnce
from headrace.transforms.base import Compose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sized


class IterableDataset(Dataset[T_co]):
    """Samples that come one after the other: a log, a socket, shards on a disk far away.

    Subclasses give ``__iter__``; ``__len__`` too, if they know it.

    >>> from headrace import IterableDataset
    >>> class Countdown(IterableDataset[int]):
    ...     def __init__(self, start: int) -> None:
    ...         self.start = start
    ...     def __iter__(self):
    ...         return iter(range(self.start, 0, -1))
    >>> list(Countdown(3))
    [3, 2, 1]
    >>> list(Countdown(2).map(lambda x: 10 * x) + Countdown(1))
    [20, 10, 1]

    Every worker process has its own copy, which is to give its own part of the samples.
    """

    _is_stream = True

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError(f"{type(self).__qualname__} must define __iter__()")

    def __getitem__(self, index: int) -> T_co:
        """Refuse: there is no index."""
        raise NotImplementedError(
            f"{article(type(self).__qualname__)} is iterable: it has no sample {index!r} to ask for"
        )

    def __len__(self) -> int:
        # What Python raises where there is none, and what list() looks for when it asks for a hint.
        raise TypeError(f"object of type {type(self).__qualname__!r} has no len(): it does not define __len__()")

    def __add__(self, other: Any) -> ChainDataset[Any]:
        return ChainDataset([self, other])

    def stages(self) -> tuple[Iterable[Any], Callable[[Any], Any] | None]:
        """Return what is iterated over, and the function that makes a sample of each thing read; None for none.

        Another thread or process may do the second. A subclass that overrides ``__iter__`` alone has no second stage.
        """
        return self, None

    def map(self, *functions: Callable[..., Any]) -> MappedIterable[Any]:
        """Return this dataset with functions applied to each sample, one after the other, when it is read.

        A function takes the sample, or the sample and its random generator: ``f(sample)`` or ``f(sample, rng)``.
        """
        return MappedIterable(self, *functions)


class MappedIterable(IterableDataset[T_co]):
    """An iterable dataset with functions applied to each sample, when it is read: ``dataset.map(f, g)``.

    >>> from headrace.datasets.iterable import MappedIterable
    >>> squares = MappedIterable((n for n in range(4)), lambda x: x * x)
    >>> list(squares)
    [0, 1, 4, 9]

    ``base`` is anything that can be iterated over; the functions are called as those of `Mapped` are. Raises
    `ArgumentError` for what can be neither.
    """

    def __init__(self, base: Iterable[Any], *functions: Callable[..., Any]) -> None:
        if not hasattr(base, "__iter__"):
            raise ArgumentTypeError(f"MappedIterable: base must be iterable; got {article(type(base).__qualname__)}")
        self.base = base
        self.functions = functions
        self._chain = Compose(*functions)

    def __iter__(self) -> Iterator[T_co]:
        return map(self.apply, self.base)

    def stages(self) -> tuple[Iterable[Any], Callable[[Any], Any] | None]:
        """Return the base, and `apply`."""
        return self.base, self.apply

    def inner(self, index: Any) -> tuple[Any, Any]:
        """Return the base."""
        return self.base, index

    def apply(self, sample: Any) -> T_co:
        """Apply the functions to one sample of the base."""
        with timed("transform"):
            return self._chain(sample)  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return len(cast("Sized", self.base))

    @property
    def suits_threads(self) -> bool:
        """Whether the base suits threads."""
        return protocol.suits_threads(self.base)

    def map(self, *functions: Callable[..., Any]) -> MappedIterable[Any]:
        """Return the same base with more functions, applied after those that are there."""
        return MappedIterable(self.base, *self.functions, *functions)

    def __repr__(self) -> str:
        return f"MappedIterable({', '.join(map(repr, (self.base, *self.functions)))})"


class ChainDataset(IterableDataset[T_co]):
    """Iterable datasets, one after the other; each is asked for its iterator when its turn comes.

    >>> from headrace import ChainDataset, IterableDataset
    >>> class Letters(IterableDataset[str]):
    ...     def __init__(self, text: str) -> None:
    ...         self.text = text
    ...     def __iter__(self):
    ...         return iter(self.text)
    >>> "".join(ChainDataset([Letters("head"), Letters("race")]))
    'headrace'

    ``datasets``: a sequence, or any iterable, from which each dataset is taken in its turn. Its length is the sum of
    theirs, where all have one. Raises `UnusableArgument`, a ValueError and an AssertionError, for one that is not read
    by iterating: at once in a sequence, else when it is reached.
    """

    def __init__(self, datasets: Iterable[Iterable[T_co]]) -> None:
        self.datasets = datasets
        self._once: list[OnlyOnce] = []
        self._listed = OnlyOnce()
        if isinstance(datasets, Sequence):
            for _ in self._checked():
                pass

    def _checked(self) -> Iterator[Iterable[T_co]]:
        for number, dataset in enumerate(self._listed.read("list of datasets of ChainDataset", self.datasets)):
            if not protocol.is_iterable(dataset):
                raise UnusableArgument(
                    f"ChainDataset only supports IterableDataset; dataset {number} is "
                    f"{article(type(dataset).__qualname__)}: use ConcatDataset for those that have an index"
                )
            yield dataset

    def __iter__(self) -> Iterator[T_co]:
        for number, dataset in enumerate(self._checked()):
            if number == len(self._once):
                self._once.append(OnlyOnce())
            yield from self._once[number].read(f"dataset {number} of ChainDataset", dataset)

    def __len__(self) -> int:
        if isinstance(self.datasets, Iterator):
            raise TypeError(
                "a ChainDataset of an iterator has no len(): counting would use up its datasets; give a list"
            )
        return sum(len(cast("Sized", dataset)) for dataset in self._checked())
