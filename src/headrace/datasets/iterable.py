"""Datasets that are read by iterating: streams, which have no index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Literal, cast

from headrace.checks import integer, kind_of, shown
from headrace.context.timing import timed
from headrace.datasets import protocol
from headrace.datasets.base import Dataset, T_co
from headrace.errors import ArgumentError, ArgumentTypeError, UnusableArgument
from headrace.formatting import argument
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
        raise NotImplementedError(f"{kind_of(self)} is iterable: it has no sample {index!r} to ask for")

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

    def filter(self, predicate: Callable[[Any], Any], by: Literal["sample", "label"] = "sample") -> Dataset[T_co]:
        """Return the samples that a predicate is true of, asked when they are read.

        >>> from headrace.datasets.iterable import MappedIterable
        >>> list(MappedIterable(range(6)).filter(lambda number: number % 2))
        [1, 3, 5]

        Raises `ArgumentError` for ``by="label"``: a stream has no labels before its samples are read.
        """
        if by != "sample":
            raise ArgumentError(
                f"filter: {kind_of(self)} is a stream, which has no labels before its samples are read; got by={by!r}",
                found=by,
                expected="by='sample'",
                cure="Leave by= out, and pass a predicate of the sample.",
            )
        return FilteredIterable(self, predicate)

    def take(self, count: int) -> Dataset[T_co]:
        """Return the first ``count`` samples; where worker processes each read a copy, of each copy.

        >>> from headrace.datasets.iterable import MappedIterable
        >>> list(MappedIterable(range(9)).take(2))
        [0, 1]
        """
        return SlicedIterable(self, 0, integer("take: count", count, least=0))

    def skip(self, count: int) -> Dataset[T_co]:
        """Return all samples but the first ``count``, which are read and dropped.

        >>> from headrace.datasets.iterable import MappedIterable
        >>> list(MappedIterable(range(5)).skip(3))
        [3, 4]
        """
        return SlicedIterable(self, integer("skip: count", count, least=0), None)

    def repeat(self, times: int | None = None) -> Dataset[T_co]:
        """Return the stream ``times`` times over, or without an end: it is asked for a new iterator each time.

        >>> from headrace.datasets.iterable import MappedIterable
        >>> list(MappedIterable(range(2)).repeat(3))
        [0, 1, 0, 1, 0, 1]

        Reading raises `ArgumentTypeError` for a stream that can be read only once.
        """
        return RepeatedIterable(self, None if times is None else integer("repeat: times", times, least=1))

    def zip(self, *others: Any) -> Dataset[Any]:
        """Return streams side by side: tuples of one sample of each, up to the end of the shortest.

        >>> from headrace.datasets.iterable import MappedIterable
        >>> list(MappedIterable(range(2)).zip("abc"))
        [(0, 'a'), (1, 'b')]
        """
        return ZippedIterable(self, *others)

    def concat(self, *others: Any) -> Dataset[Any]:
        """Return streams one after the other: a `ChainDataset`.

        >>> from headrace.datasets.iterable import MappedIterable
        >>> list(MappedIterable(range(2)).concat(MappedIterable(range(3))))
        [0, 1, 0, 1, 2]
        """
        return ChainDataset([self, *others])

    def shard(self, index: int, count: int) -> Dataset[T_co]:
        """Refuse: a stream is divided where it is read."""
        raise ArgumentTypeError(
            f"shard(index={shown(index)}, count={shown(count)}): {kind_of(self)} is a stream, which has no index",
            found=kind_of(self),
            expected="a dataset with __getitem__ and __len__",
            cure="Let its __iter__ ask headrace.get_worker_info() for its part, or pass rank= to the loader.",
        )


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
            raise ArgumentTypeError(
                f"MappedIterable: base must be iterable; got {kind_of(base)}",
                found=base,
                expected="an object with __iter__",
                cure="Pass an IterableDataset, a generator or a list.",
            )
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
        return f"MappedIterable({', '.join([argument(self.base, Dataset), *map(repr, self.functions)])})"


class StreamView(IterableDataset[T_co]):
    """A stream made of another one."""

    def __init__(self, base: Iterable[Any]) -> None:
        self.base = base
        self._once = OnlyOnce()

    def _read(self) -> Iterator[Any]:
        """Iterate over the base; raise where it is an iterator that was read before."""
        stream, function = protocol.unmapped(self.base)
        items = self._once.read("dataset", stream)
        return items if function is None else map(function, items)

    @property
    def suits_threads(self) -> bool:
        """Whether the base suits threads."""
        return protocol.suits_threads(self.base)

    def inner(self, index: Any) -> tuple[Any, Any]:
        """Return the base."""
        return self.base, index


class FilteredIterable(StreamView[T_co]):
    """The samples of a stream that a predicate is true of: ``dataset.filter(predicate)``."""

    def __init__(self, base: Iterable[Any], predicate: Callable[[Any], Any]) -> None:
        if not callable(predicate):
            raise ArgumentTypeError(
                f"filter: predicate is {kind_of(predicate)}",
                found=predicate,
                expected="a function of one sample",
                cure="Pass a function that returns True for the samples to keep.",
            )
        super().__init__(base)
        self.predicate = predicate

    def __iter__(self) -> Iterator[T_co]:
        return filter(self.predicate, self._read())


class SlicedIterable(StreamView[T_co]):
    """A stretch of a stream: ``dataset.take(count)`` and ``dataset.skip(count)``."""

    def __init__(self, base: Iterable[Any], start: int, stop: int | None) -> None:
        super().__init__(base)
        self.start, self.stop = start, stop

    def __iter__(self) -> Iterator[T_co]:
        return islice(self._read(), self.start, self.stop)

    def __len__(self) -> int:
        return len(range(len(cast("Sized", self.base)))[self.start : self.stop])

    def stages(self) -> tuple[Iterable[Any], Callable[[Any], Any] | None]:
        """Return the stretch of what the base reads, and what the base makes of it."""
        stream, function = protocol.unmapped(self.base)
        return (self, None) if function is None else (SlicedIterable(stream, self.start, self.stop), function)


class RepeatedIterable(StreamView[T_co]):
    """A stream several times over, or without an end: ``dataset.repeat(times)``."""

    def __init__(self, base: Iterable[Any], times: int | None) -> None:
        super().__init__(base)
        self.times = times

    def __iter__(self) -> Iterator[T_co]:
        passes = count() if self.times is None else range(self.times)
        for _ in passes:
            yield from self._read()

    def __len__(self) -> int:
        if self.times is None:
            raise TypeError("a stream repeated without an end has no len(); pass times= to repeat")
        return self.times * len(cast("Sized", self.base))

    def stages(self) -> tuple[Iterable[Any], Callable[[Any], Any] | None]:
        """Return the repetition of what the base reads, and what the base makes of it."""
        stream, function = protocol.unmapped(self.base)
        return (self, None) if function is None else (RepeatedIterable(stream, self.times), function)


class ZippedIterable(StreamView[Any]):
    """Streams side by side, up to the end of the shortest: ``dataset.zip(other)``."""

    def __init__(self, base: Iterable[Any], *others: Iterable[Any]) -> None:
        for number, other in enumerate(others, 1):
            if not hasattr(other, "__iter__"):
                raise ArgumentTypeError(
                    f"zip: dataset {number} is {kind_of(other)}, which cannot be iterated over",
                    found=other,
                    expected="a stream or a sequence",
                    cure="Pass an IterableDataset or a list.",
                )
        super().__init__(base)
        self.others = others

    def __iter__(self) -> Iterator[Any]:
        return zip(self._read(), *self.others, strict=False)

    def __len__(self) -> int:
        return min(len(cast("Sized", each)) for each in (self.base, *self.others))

    @property
    def suits_threads(self) -> bool:
        """Whether all of them suit threads."""
        return all(map(protocol.suits_threads, (self.base, *self.others)))


class ChainDataset(IterableDataset[T_co]):
    """Iterable datasets, one after the other; each is asked for its iterator when its turn comes.

    >>> from headrace import IterableDataset
    >>> from headrace.datasets import ChainDataset
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
                    f"ChainDataset only supports IterableDataset; dataset {number} is {kind_of(dataset)}",
                    found=dataset,
                    expected="datasets that are read by iterating",
                    cure="Use ConcatDataset for datasets with an index.",
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
