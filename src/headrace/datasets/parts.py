"""What a dataset made of others must know of them: how they are read, and whether many samples are read at once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import ArgumentError, ArgumentTypeError
from headrace.interop.calls import article

if TYPE_CHECKING:
    from collections.abc import Callable


def is_iterable(dataset: Any) -> bool:
    """Say whether a dataset is read by iterating: an IterableDataset, torch's too, or what cannot be indexed.

    >>> is_iterable([1, 2]), is_iterable(iter([1, 2]))
    (False, True)
    """
    if isinstance(dataset, _iterable_datasets()):
        return True
    return hasattr(dataset, "__iter__") and not hasattr(dataset, "__getitem__")


def _iterable_datasets() -> tuple[type, ...]:
    from headrace.datasets.iterable import IterableDataset

    return IterableDataset, getattr(sys.modules.get("torch.utils.data"), "IterableDataset", IterableDataset)


def suits_threads(dataset: Any, *, collates: bool = False) -> bool:
    """Say whether reading a dataset on several threads at once is worth it, and what its user expects.

    A dataset says so itself (``suits_threads``): ours do, whose time goes into code that releases Python's lock, and
    so do those made of them. Of what needs no reading (a list, a range, an array) it depends on ``collates``: whether a
    function of the user's puts its items together. An iterable that is no `IterableDataset` can be read only here.

    >>> from headrace import ArrayDataset
    >>> suits_threads([1, 2]), suits_threads([1, 2], collates=True), suits_threads(ArrayDataset([1, 2]).map(abs))
    (True, False, True)
    """
    if type(dataset) in (list, tuple, range, str, bytes, np.ndarray):
        return not collates
    if is_iterable(dataset) and not hasattr(dataset, "suits_threads"):
        return not isinstance(dataset, _iterable_datasets())
    return bool(getattr(dataset, "suits_threads", False))


def check_indexed(
    name: str,
    dataset: Any,
    place: object,
    *,
    sized: bool = True,
    error: type[ArgumentError] = ArgumentTypeError,
) -> None:
    """Raise for a part that cannot be asked for a sample by index: ``error`` for one that is iterable."""
    kind = article(type(dataset).__qualname__)
    if is_iterable(dataset):
        raise error(
            f"{name} does not support IterableDataset; dataset {place!r} is {kind}, which has no index: "
            "ChainDataset puts iterable ones together"
        )
    needed = ["__getitem__", "__len__"] if sized else ["__getitem__"]
    if not all(hasattr(dataset, method) for method in needed):
        raise ArgumentTypeError(f"{name} needs datasets with {' and '.join(needed)}; dataset {place!r} is {kind}")


def reads_many(dataset: Any) -> bool:
    """Say whether ``__getitems__`` reads many samples at once, rather than one by one for want of anything better.

    A dataset made of others always has the method, as in torch; its attribute ``reads_many`` tells which it is.
    """
    return callable(getattr(dataset, "__getitems__", None)) and bool(getattr(dataset, "reads_many", True))


def draws(dataset: Any) -> bool:
    """Say whether reading a sample may draw random numbers from its generator, as a view with random transforms does.

    Of two such parts of one sample, the second goes on where the first has stopped.
    """
    return bool(getattr(dataset, "draws", False))


def batch_reader(dataset: Any) -> Callable[..., Any] | None:
    """Return a dataset's ``read_batch``, if it has one that makes what collating its samples would give.

    >>> import numpy as np
    >>> from headrace import ArrayDataset
    >>> class Doubled(ArrayDataset):
    ...     def __getitem__(self, index):
    ...         return 2 * super().__getitem__(index)
    >>> batch_reader(ArrayDataset(np.zeros(3))) is None, batch_reader(Doubled(np.zeros(3))) is None
    (False, True)

    A subclass that says anew what a sample is has not thereby said what a batch is.
    """
    reader: Callable[..., Any] | None = getattr(dataset, "read_batch", None)
    if not callable(reader):
        return None
    for kind in type(dataset).__mro__:
        if "read_batch" in vars(kind):
            return reader
        if "__getitem__" in vars(kind) or "__getitems__" in vars(kind):
            return None
    return reader


def batch_beginner(dataset: Any) -> Callable[..., Any] | None:
    """Return a dataset's ``begin_batch``, if it has one: what begins a batch that is then made without Python.

    A subclass that says anew how a batch is read has not thereby said how one is begun.
    """
    if batch_reader(dataset) is None:
        return None
    for kind in type(dataset).__mro__:
        if "begin_batch" in vars(kind):
            break
        if "read_batch" in vars(kind):
            return None
    return getattr(dataset, "begin_batch", None)


def no_batches(dataset: Any) -> AttributeError:
    """Build the error of a ``read_batch`` that is not there, because the parts have none that would do."""
    return AttributeError(f"this {type(dataset).__qualname__} reads no whole batches: its parts do not, or differ")


def where(dataset: Any, index: Any) -> str | None:
    """Say where a part's sample comes from, if the part can."""
    answer = getattr(dataset, "where", None)
    return answer(index) if callable(answer) else None


def many(dataset: Any, indices: list[Any]) -> list[Any]:
    """Read samples of a part: all in one call where it can, and as many as were asked for."""
    if not callable(getattr(dataset, "__getitems__", None)):
        return [dataset[index] for index in indices]
    samples = list(dataset.__getitems__(indices))
    if len(samples) != len(indices):
        raise ArgumentError(
            f"Nested dataset's output size mismatch. Expected {len(indices)}, got {len(samples)}: "
            f"{type(dataset).__qualname__}.__getitems__ must give one sample for each index"
        )
    return samples
