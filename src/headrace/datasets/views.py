"""Datasets made of another dataset, which they read when they are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from headrace.calls import article
from headrace.datasets import parts
from headrace.datasets.base import Dataset, T_co
from headrace.errors import ArgumentError
from headrace.image.transforms import Compose
from headrace.timing import timed

if TYPE_CHECKING:
    from collections.abc import Callable


class Indexed(Protocol):
    """Anything that has a length and gives samples by index: a dataset of ours or torch's, a list, an array."""

    def __getitem__(self, index: int, /) -> Any: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True, init=False, repr=False, eq=False)
class Mapped(Dataset[T_co]):
    """A dataset with functions applied to each sample, one after the other, when it is read: ``dataset.map(f, g)``.

    >>> import numpy as np
    >>> from headrace import ArrayDataset, DataLoader, Mapped
    >>> doubled = Mapped([1, 2, 3], lambda x: 2 * x)
    >>> len(doubled), doubled[-1], list(doubled.map(str))
    (3, 6, ['2', '4', '6'])
    >>> jittered = ArrayDataset(np.zeros(4)).map(lambda x, rng: x + rng.random())
    >>> [len(batch) for batch in DataLoader(jittered, batch_size=2, seed=0)]
    [2, 2]

    ``base`` is anything with ``__getitem__`` and ``__len__``, which also decides what indices mean. A function takes
    the sample, or the sample and its random generator (see `headrace.rng`), one for all functions of a sample;
    which, its signature says: it gets the generator where its first two parameters are both required, or where the
    second is named ``rng``. The base's own attributes are asked of the base: ``dataset.base.classes``.

    Raises ArgumentError for a base without these methods, and for functions that cannot be called so.
    """

    base: Indexed
    functions: tuple[Callable[..., Any], ...]
    _chain: Compose = field()

    def __init__(self, base: Indexed, *functions: Callable[..., Any]) -> None:
        if not (hasattr(base, "__getitem__") and hasattr(base, "__len__")):
            raise ArgumentError(
                f"Mapped: base must be a dataset, with __getitem__ and __len__; got {article(type(base).__qualname__)}"
            )
        object.__setattr__(self, "base", base)
        object.__setattr__(self, "functions", functions)
        object.__setattr__(self, "_chain", Compose(*functions))

    def __getitem__(self, index: int) -> T_co:
        """Read a sample of the base and apply the functions to it."""
        sample = self.base[index]
        with timed("transform"):
            return self._chain(sample)  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return len(self.base)

    @property
    def suits_threads(self) -> bool:
        """Whether the base suits threads."""
        return parts.suits_threads(self.base)

    def map(self, *functions: Callable[..., Any]) -> Mapped[Any]:
        """Return the same base with more functions, applied after those that are there."""
        return Mapped(self.base, *self.functions, *functions)

    def where(self, index: int) -> str | None:
        """Say where a sample comes from, as the base does."""
        where = getattr(self.base, "where", None)
        return where(index) if callable(where) else None

    def __repr__(self) -> str:
        return f"Mapped({', '.join(map(repr, (self.base, *self.functions)))})"
