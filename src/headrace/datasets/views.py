"""`Mapped`: functions applied to the samples of a dataset when they are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headrace.checks import kind_of
from headrace.context import seeds
from headrace.context.timing import timed
from headrace.datasets import native_batches as fused
from headrace.datasets import protocol
from headrace.datasets.base import VIEWS, Dataset, T_co, View
from headrace.errors import ArgumentTypeError
from headrace.formatting import argument
from headrace.transforms.base import Compose, Transform, may_draw

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.context.memory import Empty
    from headrace.datasets.columns import Columns
    from headrace.datasets.in_flight import InFlightBatch
    from headrace.datasets.protocol import Indexed
    from headrace.image.fused import Plan
    from headrace.transforms.image_transform import Scaling


@dataclass(frozen=True, slots=True, init=False, repr=False, eq=False)
class Mapped(View[T_co]):
    """A dataset with functions applied to each sample, one after the other, when it is read: ``dataset.map(f, g)``.

    >>> import numpy as np
    >>> from headrace import ArrayDataset, DataLoader
    >>> from headrace.datasets import Mapped
    >>> doubled = Mapped([1, 2, 3], lambda x: 2 * x)
    >>> len(doubled), doubled[-1], list(doubled.map(str))
    (3, 6, ['2', '4', '6'])
    >>> jittered = ArrayDataset(np.zeros(4)).map(lambda x, rng: x + rng.random())
    >>> [len(batch) for batch in DataLoader(jittered, batch_size=2, seed=0)]
    [2, 2]

    ``base`` is anything with ``__getitem__`` and ``__len__``, which also decides what indices mean. A function takes
    the sample, or the sample and its random generator (see `headrace.rng`). All functions of a sample share one
    generator. A function gets it if its first two parameters are both required, or if the second is named ``rng``.
    Labels, classes and paths are those of the base; ask for its other attributes by ``dataset.base``.

    Raises ArgumentError for a base without these methods, and for functions that cannot be called so.
    """

    base: Indexed
    functions: tuple[Callable[..., Any], ...]
    _chain: Compose = field()
    _plan: Plan | None = field()
    """What the native extension can run of the functions; None where it cannot read the base."""
    _rest: Compose = field()
    _scaling: Scaling | None = field()
    """The first of the functions, where images are decoded no larger than it takes; `_behind` are the others."""
    _behind: Compose = field()
    _apart: Dataset[Any] | None = field()
    """The functions over each dataset of the base, where the native extension reads those and not the base."""
    _together: Transform | None = field()
    """The first of the functions, where it takes many samples at once; `_after` are the others."""
    _after: Compose = field()

    def __init__(self, base: Indexed, *functions: Callable[..., Any]) -> None:
        if not (hasattr(base, "__getitem__") and hasattr(base, "__len__")):
            raise ArgumentTypeError(
                f"Mapped: base must be a dataset, with __getitem__ and __len__; got {kind_of(base)}",
                found=base,
                expected="a dataset, with __getitem__ and __len__",
                cure="Use IterableDataset.map for a stream.",
            )
        object.__setattr__(self, "base", base)
        object.__setattr__(self, "functions", functions)
        chain = Compose(*functions)
        plan = fused.plan_of(base, chain.transforms)
        object.__setattr__(self, "_chain", chain)
        object.__setattr__(self, "_plan", plan)
        object.__setattr__(self, "_rest", Compose(*plan.rest) if plan is not None else chain)
        scaling = fused.scaling_of(base, chain.transforms)
        object.__setattr__(self, "_scaling", scaling)
        object.__setattr__(self, "_behind", chain if scaling is None else Compose(*chain.transforms[1:]))
        together = _takes_many(chain.transforms)
        object.__setattr__(self, "_together", together)
        object.__setattr__(self, "_after", chain if together is None else Compose(*chain.transforms[1:]))
        apart = protocol.rebuilt(base, lambda part: Mapped(part, *functions)) if plan is None else None
        helps = apart is not None and (protocol.batch_reader(apart) is not None or protocol.reads_many(apart))
        object.__setattr__(self, "_apart", apart if helps else None)

    def __getitem__(self, index: int) -> T_co:
        """Read a sample of the base and apply the functions to it."""
        sample: Any = self.base[index] if self._scaling is None else fused.read_scaled(self.base, index, self._scaling)
        with timed("transform"):
            return self._behind(sample)  # type: ignore[no-any-return]

    @property
    def unmade(self) -> Callable[[int], Any] | None:
        """What reads a sample with images whose pixels a `RowWriter` makes; None where nothing can be left to it."""
        able = self._behind.makes_last and type(self).__getitem__ is Mapped.__getitem__
        return self._unmade if able else None

    def _unmade(self, index: int) -> Any:
        sample: Any = self.base[index] if self._scaling is None else fused.read_scaled(self.base, index, self._scaling)
        with timed("transform"):
            return self._behind.unmade(sample)

    @property
    def _viewed(self) -> Indexed:
        return self.base

    @property
    def _is_whole(self) -> bool:
        """Whether the native extension runs all of the functions."""
        return self._plan is not None and self._plan.active and self._plan.whole

    @property
    def read_batch(self) -> Callable[..., Any] | None:
        """What reads whole batches, where the native extension runs all of the functions."""
        if self._apart is not None:
            return protocol.batch_reader(self._apart)
        return self._read_batch if self._is_whole else None

    def _read_batch(self, keys: Sequence[int], *, empty: Empty = np.empty) -> Any:
        return fused.read(cast("Plan", self._plan), self.base, keys, self.__getitem__, empty=empty)

    @property
    def begin_batch(self) -> Callable[..., InFlightBatch] | None:
        """What begins whole batches, where `read_batch` is, and nobody waits for a server meanwhile."""
        if self._apart is not None:
            return protocol.batch_beginner(self._apart)
        return self._begin_batch if self._is_whole and not fused.waits(self.base) else None

    def _begin_batch(self, keys: Sequence[int], *, empty: Empty = np.empty) -> InFlightBatch:
        return fused.begin(cast("Plan", self._plan), self.base, keys, self.__getitem__, empty=empty)

    @property
    def columns(self) -> Columns | None:
        """The arrays of a whole batch, where there is `read_batch`."""
        if self._apart is not None:
            return protocol.columns(self._apart)
        return fused.columns(cast("Plan", self._plan), self.base) if self._is_whole else None

    @property
    def reads_many(self) -> bool:
        """Whether the first of the functions runs for many samples at once, natively or by its ``apply_many``."""
        active = self._together is not None or self._apart is not None
        active = active or (self._plan is not None and self._plan.active)
        return active and type(self).__getitem__ is Mapped.__getitem__

    @property
    def draws(self) -> bool:
        """Whether reading a sample may draw random numbers: any function may, but transforms that say they do not."""
        return protocol.draws(self.base) or any(map(may_draw, self._chain.transforms))

    def __getitems__(self, indices: Sequence[int]) -> list[T_co]:
        """Read the samples at these indices: the fused functions at once, the others one by one."""
        here = seeds.inside()
        if here is None or not self.reads_many:
            return [self[index] for index in indices]
        if here.traced:  # the native extension records nothing of its steps
            return [self[indices[row]] for row in seeds.each(len(indices))]
        if self._together is not None:
            return self._all_at_once(self._together, indices)
        if self._apart is not None:
            return protocol.many(self._apart, list(indices))
        return fused.samples(cast("Plan", self._plan), self.base, indices, self.__getitem__, self._rest)

    def _all_at_once(self, first: Transform, indices: Sequence[int]) -> list[Any]:
        try:
            samples = protocol.many(self.base, list(indices))
            with timed("transform"):
                found = first.apply_many(samples)
        except Exception:  # noqa: BLE001  one by one, the error says which sample it is
            found = None
        if found is None:
            return [self[indices[row]] for row in seeds.each(len(indices))]
        with timed("transform"):
            return [self._after(found[row]) for row in seeds.each(len(indices))]

    def map(self, *functions: Callable[..., Any]) -> Mapped[Any]:
        """Return the same base with more functions, applied after those that are there."""
        return Mapped(self.base, *self.functions, *functions)

    def explain(self) -> str:
        """Say which of the functions are fused, and why not the others."""
        if self._apart is not None:
            return protocol.explain(self._apart)
        return fused.explained(type(self).__qualname__, self.base, self._plan, self._chain)

    def __repr__(self) -> str:
        return f"Mapped({', '.join([argument(self.base, Dataset), *map(repr, self.functions)])})"


def _takes_many(transforms: tuple[Callable[..., Any], ...]) -> Transform | None:
    first = transforms[0] if transforms else None
    if not isinstance(first, Transform) or first.draws or type(first).apply_many is Transform.apply_many:
        return None
    return first


VIEWS["map"] = Mapped
