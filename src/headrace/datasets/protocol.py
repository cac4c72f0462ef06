"""What a loader, a view or another dataset asks of a dataset: any dataset, ours or not, with a default for each answer.

Ours declare these answers in `headrace.Dataset`; a list, a dataset of torch's and anything else with ``__getitem__``
and ``__len__`` may have any of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from headrace._native import extension
from headrace.checks import kind_of
from headrace.datasets.columns import Columns
from headrace.errors import ArgumentError, ArgumentTypeError
from headrace.interop import torch_state
from headrace.interop.keys import places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from headrace.datasets.image_sources import Source
    from headrace.storage.object_spans import ObjectSpans


class Indexed(Protocol):
    """Anything that has a length and gives samples by index: a dataset of ours or torch's, a list, an array."""

    def __getitem__(self, index: int, /) -> Any: ...

    def __len__(self) -> int: ...


REPLACED_BY = {
    "read_batch": {"__getitem__", "__getitems__"},
    "begin_batch": {"__getitem__", "__getitems__", "read_batch"},
    "native_source": {"__getitem__", "__getitems__"},
    "read_scaled": {"__getitem__", "__getitems__"},
    "rebuilt": {"__getitem__", "__getitems__"},
    "read_part": {"__getitem__", "__getitems__"},
    "stages": {"__iter__"},
    "gathers": {"take"},
}
"""What a subclass takes back by overriding one of these methods and not the name itself."""

_BUILT_IN = {kind.__getitem__ for kind in (list, tuple, range, str, bytes, np.ndarray)}
"""How samples are read of what needs no reading."""


def offered(dataset: Any, name: str) -> Any:
    """Return what a dataset has under a name of the protocol; None where an override has invalidated it.

    >>> import numpy as np
    >>> from headrace import ArrayDataset
    >>> class Doubled(ArrayDataset):
    ...     def __getitem__(self, index):
    ...         return 2 * super().__getitem__(index)
    >>> offered(ArrayDataset(np.zeros(3)), "read_batch") is None, offered(Doubled(np.zeros(3)), "read_batch") is None
    (False, True)

    A class that changes what a sample is would otherwise be read past its own ``__getitem__``. It gets whole batches
    and the native extension back by defining ``read_batch`` and ``native_source`` too.
    """
    replaced = REPLACED_BY[name]
    for kind in type(dataset).__mro__:
        own = vars(kind)
        if name in own:
            break
        if not replaced.isdisjoint(own):
            return None
    return getattr(dataset, name, None)


def batch_reader(dataset: Any) -> Callable[..., Any] | None:
    """Return a dataset's ``read_batch``, if it has one that makes what collating its samples would give."""
    reader = offered(dataset, "read_batch")
    return reader if callable(reader) else None


def batch_beginner(dataset: Any) -> Callable[..., Any] | None:
    """Return a dataset's ``begin_batch``, if it has one: what begins a batch that is then made without Python."""
    beginner = offered(dataset, "begin_batch") if batch_reader(dataset) is not None else None
    return beginner if callable(beginner) else None


def native_source(dataset: Any) -> Source | None:
    """Return what the native extension reads a dataset's images from, if the dataset says so.

    Its rows are those that `resolve` gives.
    """
    method = offered(dataset, "native_source")
    return method() if callable(method) else None


def resolve(dataset: Any, keys: Sequence[Any]) -> tuple[Any, NDArray[np.int64]]:
    """Return the dataset that samples are read from in the end, and their rows in it, counted from 0.

    >>> from headrace import Subset
    >>> root, rows = resolve(Subset("abcdef", [1, 3, 5]), [-1, 0])
    >>> root, rows
    ('abcdef', array([5, 1]))

    Raises TypeError for keys that are not integers, and IndexError for those out of range.
    """
    method = getattr(dataset, "resolve", None)
    return method(keys) if callable(method) else (dataset, rows_of(keys, len(dataset)))


def object_spans(dataset: Any, keys: Sequence[Any]) -> list[ObjectSpans]:
    """Return which ranges of objects behind URLs the samples of these keys need, as far as that is known.

    Without keys, the answer is empty only if the dataset reads no objects, or does not know what it needs.
    """
    method = getattr(dataset, "object_spans", None)
    found: list[ObjectSpans] = method(keys) if callable(method) else []
    return found


def rows_of(keys: Sequence[Any], length: int) -> NDArray[np.int64]:
    """Return the rows, from 0 up, that keys of a dataset of this length stand for."""
    native: Any = extension
    if isinstance(keys, list) and native is not None:
        rows = np.empty(len(keys), np.int64)
        if native.indices(keys, length, rows):
            return rows
    return places(keys, length, "{} samples").astype(np.int64, copy=False)


def rebuilt(dataset: Any, make: Callable[[Any], Any]) -> Any:
    """Return a view over ``make(part)`` in place of each dataset that it reads; None where it cannot be rebuilt."""
    method = offered(dataset, "rebuilt")
    return method(make) if callable(method) else None


def inner(dataset: Any, index: Any) -> tuple[Any, Any] | None:
    """Return the dataset that a view reads a sample from, and the index there; None for a dataset that is no view.

    >>> from headrace import ConcatDataset
    >>> inner(ConcatDataset(["abc", "de"]), -1), inner("abc", 0)
    (('de', 1), None)
    """
    method = getattr(dataset, "inner", None)
    found: tuple[Any, Any] | None = method(index) if callable(method) else None
    if found is not None:
        return found
    if hasattr(dataset, "cumulative_sizes"):  # torch's ConcatDataset
        ends = dataset.cumulative_sizes
        index = index + ends[-1] if index < 0 else index
        part = int(np.searchsorted(ends, index, side="right"))
        return dataset.datasets[part], index - (ends[part - 1] if part else 0)
    if hasattr(dataset, "dataset"):
        return dataset.dataset, dataset.indices[index] if hasattr(dataset, "indices") else index
    return None


def columns(dataset: Any) -> Columns | None:
    """Return what a dataset's whole batches are made of; None where it reads none, or it is not known.

    A dataset that does not declare its columns is asked for a batch of no samples.
    """
    read = batch_reader(dataset)
    if read is None:
        return None
    declared = getattr(dataset, "columns", None)
    if isinstance(declared, Columns):
        return declared
    try:
        batch = read([], empty=np.empty)
    except Exception:  # noqa: BLE001  then its samples are read one by one
        return None
    return Columns.of(batch)


def labels(dataset: Any) -> NDArray[Any] | None:
    """Return the labels of all samples, where a dataset knows them without reading samples; else None.

    >>> from headrace import ArrayDataset, Subset
    >>> labels(Subset(ArrayDataset(np.zeros(3), np.array([7, 8, 9])), [2, 0]))
    array([9, 7])

    Of a dataset that is not ours these are its attribute ``labels`` or ``targets``.
    """
    for attribute in ("labels", "targets"):
        found = getattr(dataset, attribute, None)
        if found is not None and not callable(found):
            return np.asarray(found)
    return None


def classes(dataset: Any) -> list[str]:
    """Return the names of a dataset's classes, by label; empty where it has none."""
    found = getattr(dataset, "classes", None)
    return [] if found is None or callable(found) else list(found)


def class_to_idx(dataset: Any) -> dict[str, int]:
    """Return the label of each of a dataset's classes, by name; empty where labels have no names."""
    found = getattr(dataset, "class_to_idx", None)
    return dict(found) if isinstance(found, dict) else {name: label for label, name in enumerate(classes(dataset))}


def path(dataset: Any, index: Any) -> str:
    """Return the path of a sample's file, as the dataset that has the files says it.

    Raises ArgumentError where that dataset has no ``path(index)``.
    """
    method = getattr(dataset, "path", None)
    if callable(method):
        return str(method(index))
    found = inner(dataset, index)
    if found is None:
        raise ArgumentError(
            f"{kind_of(dataset)} has no path(index): its samples are not one file each",
            found=kind_of(dataset),
            expected="a dataset of files, such as ImageFolder, or a view of one",
            cure="where(index) says where a sample comes from, if that is known.",
        )
    return path(*found)


def shard_lengths(dataset: Any) -> list[int] | None:
    """Return how many samples each shard of a dataset has, in order; None where it is not in shards."""
    found = getattr(dataset, "shard_lengths", None)
    return None if found is None or callable(found) else [int(length) for length in found]


def is_iterable(dataset: Any) -> bool:
    """Say whether a dataset is read by iterating: an IterableDataset, torch's too, or what cannot be indexed.

    >>> is_iterable([1, 2]), is_iterable(iter([1, 2]))
    (False, True)
    """
    if _is_stream(dataset):
        return True
    return hasattr(dataset, "__iter__") and not hasattr(dataset, "__getitem__")


def _is_stream(dataset: Any) -> bool:
    if getattr(type(dataset), "_is_stream", False):
        return True
    theirs = torch_state.iterable_dataset()
    return theirs is not None and isinstance(dataset, theirs)


def unmapped(dataset: Iterable[Any]) -> tuple[Iterable[Any], Callable[[Any], Any] | None]:
    """Return what is read, and what is then done to each sample: who does the one need not do the other."""
    stages = offered(dataset, "stages")
    return stages() if callable(stages) else (dataset, None)


def in_memory(dataset: Any) -> bool:
    """Say whether samples are there already: in a list, a range, an array or the like, whose own indexing gives them.

    >>> in_memory([1, 2]), in_memory(range(2)), in_memory(object())
    (True, True, False)
    """
    return getattr(type(dataset), "__getitem__", None) in _BUILT_IN


def suits_threads(dataset: Any, *, collates: bool = False) -> bool:
    """Say whether reading a dataset on several threads at once is worth it, and what its user expects.

    A dataset says so itself (``suits_threads``): ours do whose time goes into code that releases the GIL, and so do
    their views. For what needs no reading (a list, a range, an array) it depends on ``collates``: whether a function of
    the user's puts its items together. An iterable that is no `IterableDataset` can be read only here.

    >>> from headrace import ArrayDataset
    >>> suits_threads([1, 2]), suits_threads([1, 2], collates=True), suits_threads(ArrayDataset([1, 2]).map(abs))
    (True, False, True)
    """
    if in_memory(dataset):
        return not collates
    if is_iterable(dataset) and not hasattr(dataset, "suits_threads"):
        return not _is_stream(dataset)
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
    kind = kind_of(dataset)
    if is_iterable(dataset):
        raise error(
            f"{name} does not support IterableDataset; dataset {place!r} is {kind}, which has no index",
            found=dataset,
            expected="datasets with __getitem__ and __len__",
            cure="Chain streams with ChainDataset.",
        )
    needed = ["__getitem__", "__len__"] if sized else ["__getitem__"]
    if not all(hasattr(dataset, method) for method in needed):
        raise ArgumentTypeError(
            f"{name} needs datasets with {' and '.join(needed)}; dataset {place!r} is {kind}",
            found=dataset,
            expected=f"datasets with {' and '.join(needed)}",
            cure="Pass a Dataset, a list or an array.",
        )


def reads_many(dataset: Any) -> bool:
    """Say whether ``__getitems__`` reads many samples at once, and is more than a loop over ``__getitem__``.

    A view always has the method, as in torch; its attribute ``reads_many`` tells which it is.
    """
    return callable(getattr(dataset, "__getitems__", None)) and bool(getattr(dataset, "reads_many", True))


def draws(dataset: Any) -> bool:
    """Say whether reading a sample may draw random numbers from its generator, as a view with random transforms does.

    Of two such parts of one sample, the second continues where the first has stopped.
    """
    return bool(getattr(dataset, "draws", False))


def where(dataset: Any, index: Any) -> str | None:
    """Say where a sample comes from, if the dataset can."""
    answer = getattr(dataset, "where", None)
    return answer(index) if callable(answer) else None


def many(dataset: Any, indices: list[Any]) -> list[Any]:
    """Read samples of a part: all in one call where it can, and as many as were asked for."""
    if not callable(getattr(dataset, "__getitems__", None)):
        return [dataset[index] for index in indices]
    samples = list(dataset.__getitems__(indices))
    if len(samples) != len(indices):
        raise ArgumentError(
            f"Nested dataset's output size mismatch. Expected {len(indices)}, got {len(samples)}",
            found=len(samples),
            expected="one sample for each index",
            cure=f"Fix {type(dataset).__qualname__}.__getitems__.",
        )
    return samples


def explain(dataset: Any) -> str:
    """Say how a loader reads a dataset, as the dataset explains it."""
    method = getattr(dataset, "explain", None)
    return str(method()) if callable(method) else explained(dataset)


def explained(dataset: Any) -> str:
    """Say how a loader reads a dataset that has no transforms."""
    name = type(dataset).__qualname__
    if batch_reader(dataset) is not None:
        return f"{name}: whole batches are gathered at once"
    return f"{name}: sample by sample: there is nothing to fuse without .map(...)"
