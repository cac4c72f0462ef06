"""What every dataset of ours is: indexed, sized, iterable in order, and ready to be mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace.datasets.views import Mapped

T_co = TypeVar("T_co", covariant=True)


class Dataset(Generic[T_co]):
    """Samples that can be asked for by index.

    Subclasses give ``__getitem__`` and ``__len__``; anything else that has the two works in a loader just as well.

    >>> from headrace import Dataset
    >>> class Squares(Dataset[int]):
    ...     def __getitem__(self, index: int) -> int:
    ...         return index * index
    ...     def __len__(self) -> int:
    ...         return 4
    >>> list(Squares())
    [0, 1, 4, 9]
    >>> Squares().map(lambda x: x + 1)[3]
    10
    """

    @property
    def suits_threads(self) -> bool:
        """Whether a loader's workers are threads where it is not told: reading mostly releases Python's lock."""
        return False

    def __getitem__(self, index: int) -> T_co:
        """Make the sample at an index."""
        raise NotImplementedError(f"{type(self).__qualname__} must define __getitem__(index)")

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__qualname__} must define __len__()")

    def __iter__(self) -> Iterator[T_co]:
        for index in range(len(self)):
            yield self[index]

    def __add__(self, other: Any) -> Dataset[Any]:
        from headrace.datasets.combine import ConcatDataset

        return ConcatDataset([self, other])

    def map(self, *functions: Callable[..., Any]) -> Mapped[Any]:
        """Return this dataset with functions applied to each sample, one after the other, when it is read.

        A function takes the sample, or the sample and its random generator: ``f(sample)`` or ``f(sample, rng)``.
        """
        from headrace.datasets.views import Mapped

        return Mapped(self, *functions)

    def where(self, index: int) -> str | None:  # noqa: ARG002
        """Say where a sample comes from (a path), for errors; None where there is nothing to say."""
        return None
