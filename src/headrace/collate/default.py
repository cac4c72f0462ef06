"""The default collate function: nested samples become one batch of the same structure, with arrays as leaves.

The container rules are those of torch's ``default_collate`` (torch.utils.data._utils.collate), with NumPy arrays
instead of tensors. Two things differ on purpose. A key that some samples lack is an error and is not dropped. Arrays of
different dtypes are promoted by NumPy's rules if no digit is lost.

The function for a leaf is looked up by type, in a mapping that users can extend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from operator import is_, itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from headrace._native.items import in_common, one_type
from headrace.checks import article
from headrace.collate.containers import like_mapping, like_sequence
from headrace.collate.exact import check_kept, check_unmasked, common_dtype, numbers, of_one_type
from headrace.collate.row_writer import column_of
from headrace.collate.user_types import registered
from headrace.errors import CollateError, CollateTypeError
from headrace.interop import torch_rows, torch_state
from headrace.storage.mapped_samples import any_mapped, in_memory, write_row

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headrace.context.memory import Empty

NOTE = "headrace: the error came "
"""The start of a note that says where in the sample user code failed."""

CollateFn = Callable[..., Any]
"""Makes the batch from samples of one type; called as ``function(samples, collate_fn_map=…)``."""

Short = Callable[[Sequence[Any], "Empty"], Any]
"""Makes a batch of samples that are alike, in memory that it is lent; returns None for others."""

Functions = Mapping[type | tuple[type, ...], CollateFn]


class Collate(Protocol):
    """Makes a batch from samples. Large arrays should be made with ``empty``, which reuses memory."""

    def __call__(self, samples: Sequence[Any], *, empty: Empty = np.empty) -> Any:
        """Return the batch of these samples, at least one."""
        ...


def default_collate(samples: Sequence[Any], *, empty: Empty = np.empty, collate_fn_map: Functions | None = None) -> Any:
    """Make one batch from samples, stacking arrays and numbers along a new first axis.

    >>> from headrace import default_collate
    >>> images, labels = default_collate([(np.zeros((2, 3)), 7), (np.ones((2, 3)), 8)])
    >>> images.shape, labels
    ((2, 2, 3), array([7, 8]))
    >>> default_collate([{"text": "a", "x": 1.5}, {"text": "b", "x": 2}])
    {'text': ['a', 'b'], 'x': array([1.5, 2. ])}

    Arrays of one shape, and objects with ``__array__`` such as tensors, give one array of shape (N, …). Ints give int64
    (uint64 if needed), floats float64, and bools bool. NumPy scalars keep their dtype; str and bytes stay a list.
    Mappings and named tuples keep their type; other tuples and sequences become lists of columns, as in torch. Values
    of several dtypes get a dtype that holds every digit of all of them.

    ``collate_fn_map`` adds functions for your own types, or replaces functions of other types, anywhere in a sample. To
    pass it to a loader, use functools.partial. A function is called as ``function(samples, collate_fn_map=…)``. If its
    samples contain samples, it passes the mapping on to `collate`, which describes the lookup. Your functions come
    before the default ones.

    >>> from datetime import timedelta
    >>> seconds = {timedelta: lambda samples, collate_fn_map: np.array([s.total_seconds() for s in samples])}
    >>> default_collate([{"took": timedelta(minutes=2), "x": 1}], collate_fn_map=seconds)
    {'took': array([120.]), 'x': array([1])}

    Raises `CollateError` if samples do not fit together (different shapes, lengths or keys), or if values would lose
    digits. Raises `CollateTypeError` for types that cannot be in a batch: None, arrays of Python objects, masked arrays
    and others. The message says where in the sample: ``sample['meta']['v']``.
    """
    return collated(samples, _by_default(collate_fn_map or NO_FUNCTIONS, registered()), empty)


def collated(samples: Sequence[Any], found: Found, empty: Empty = np.empty) -> Any:
    """Make one batch from samples with the functions of `Merged`."""
    short = len(samples) > 0 and (not found.odd or _suits(samples[0], found))
    batch = _shortly(samples, found, empty) if short else None
    return _collate(samples, Registry(found, empty)) if batch is None else batch


def _suits(first: Any, found: Found) -> bool:
    """Say whether all leaves of a batch's first sample have functions that need no mapping."""
    kind = type(first)
    if kind in found.short:
        return True
    if kind not in _CONTAINERS and _is_named_tuple(kind) and not any(isinstance(first, of) for of in found.functions):
        found.named.add(kind)
        found.odd.discard(kind)
    if (kind not in _CONTAINERS and kind not in found.named) or not found.plain:
        if torch_state.is_tensor(first) and not any(isinstance(first, of) for of in found.functions):
            found.short[kind] = torch_rows.stacked
            found.odd.discard(kind)
            return True
        function = found.shorts.get(found.kinds.get(kind, collate))
        if function is None:
            return False
        found.short[kind] = function
        found.odd.discard(kind)
        return True
    return all(_suits(leaf, found) for leaf in (first.values() if kind is dict else first))


def _shortly(samples: Sequence[Any], found: Found, empty: Empty) -> Any:
    """Make a batch of samples that are all alike; None of others."""
    first = samples[0]
    kind = type(first)
    function = found.short.get(kind)
    if function is not None:
        return function(samples, empty)
    named = kind in found.named
    if (kind not in _CONTAINERS and not named) or not found.plain:
        found.odd.add(kind)
        return None
    if one_type(samples) is None or not first or (not named and len(set(map(len, samples))) > 1):
        return None
    columns: Iterable[Any]
    try:
        columns = [list(map(itemgetter(key), samples)) for key in first] if kind is dict else zip(*samples, strict=True)
    except KeyError:
        return None
    made = []
    for column in columns:
        batch = _shortly(column, found, empty)
        if batch is None:
            return None
        made.append(batch)
    if named:
        return tuple.__new__(kind, made)
    return dict(zip(first, made, strict=True)) if kind is dict else made


def _is_named_tuple(kind: Any) -> bool:
    """Say whether a type's objects are tuples with names for their items, and nothing else."""
    return issubclass(kind, tuple) and hasattr(kind, "_fields") and not kind.__dictoffset__


def collate(batch: Sequence[Any], *, collate_fn_map: Functions | None = None) -> Any:
    """Make one batch from samples with the functions of a mapping, by type; only containers are built in.

    >>> from headrace.collate.default import collate
    >>> joined = {str: lambda samples, collate_fn_map: "+".join(samples)}
    >>> collate([{"a": "x", "b": ("y", "z")}, {"a": "1", "b": ("2", "3")}], collate_fn_map=joined)
    {'a': 'x+1', 'b': ['y+2', 'z+3']}

    The function for the exact type of the first sample is called. Otherwise it is the function of the first key, in the
    mapping's order, for which ``isinstance`` is true (a key may be a tuple of types). Otherwise mappings and sequences
    are collated item by item, by the rules of `default_collate`. A function can call `collate` with the mapping that it
    received. ``default_collate_fn_map`` has the functions for arrays, numbers and text, for use in your own mapping.
    Raises the same errors as `default_collate`.
    """
    return _collate(batch, _registry(collate_fn_map))


NO_FUNCTIONS: Functions = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Found:
    """The functions for a batch, and whether none of them is for plain tuples, lists or dicts."""

    functions: Functions
    plain: bool = False
    kinds: dict[type, CollateFn] = field(default_factory=dict)
    """The answers so far for types that are no key themselves: asking ``isinstance`` of every key takes long."""
    short: dict[type, Short] = field(default_factory=dict)
    """Of types of leaves, the functions that need no mapping."""
    shorts: Mapping[CollateFn, Short] = field(default_factory=dict)
    """The same, by the functions that they are tried in place of."""
    named: set[type] = field(default_factory=set)
    """Types of named tuples that were met, and that no function is for."""
    odd: set[type] = field(default_factory=set)
    """Types of leaves that were met and have none."""


class Merged:
    """The functions of several mappings in one, those of the first before the others; put together once.

    ``without`` says which functions of the mappings are left out. ``shorts`` has for some functions one that is tried
    in its place: it takes the samples and the memory to use, and returns None where it cannot put them together.

    >>> merged, mine, default = Merged(), {int: sum}, {int: max, str: min}
    >>> found = merged(mine, default)
    >>> found.functions[int] is sum, found.plain, merged(mine, default) is found
    (True, True, True)
    """

    __slots__ = ("_base", "_last", "_shorts", "_without")

    def __init__(
        self,
        base: Functions | None = None,
        without: Callable[[CollateFn], bool] | None = None,
        shorts: Mapping[CollateFn, Short] | None = None,
    ) -> None:
        self._base = base or {}
        self._without = without
        self._shorts = shorts or {}
        self._last: tuple[Any, Any, Found] = (), (), Found({})

    def __call__(self, *mappings: Mapping[Any, CollateFn]) -> Found:
        """Return the functions of these mappings, then of the base: the last answer, if no mapping has changed."""
        same, before, found = self._last  # read once: other threads may set it meanwhile
        if mappings == before and all(map(is_, mappings, same)):
            return found
        functions: dict[Any, CollateFn] = {}
        for mapping in mappings:
            for key, function in mapping.items():
                if self._without is None or not self._without(function):
                    functions.setdefault(key, function)
        for key, function in self._base.items():
            functions.setdefault(key, function)
        containers: tuple[Any, ...] = ((), [], {})
        plain = not any(isinstance(one, types) for types in functions for one in containers)
        short = {kind: self._shorts[one] for kind, one in functions.items() if one in self._shorts}
        found = Found(functions, plain, short=short, shorts=self._shorts)
        self._last = mappings, tuple(map(dict, mappings)), found
        return found


class Registry(dict[Any, CollateFn]):
    """The functions for one batch, by type, with the memory to use and the current place in the sample."""

    __slots__ = ("_kinds", "_plain", "empty", "place")

    def __init__(self, found: Found, empty: Empty = np.empty) -> None:
        super().__init__(found.functions)
        self.empty = empty
        self.place: tuple[Any, ...] = ()
        self._plain, self._kinds = found.plain, found.kinds

    def find(self, sample: Any) -> CollateFn | None:
        """Return the function for a sample: by its exact type, then by the first matching key."""
        kind = type(sample)
        function = self.get(kind)
        if function is not None or (self._plain and kind in _CONTAINERS):
            return function
        function = self._kinds.get(kind)
        if function is None:
            function = next((one for types, one in self.items() if isinstance(sample, types)), None)
            if function is not None and sample.__class__ is kind:  # a proxy has the class of what it stands for
                self._kinds[kind] = function
        return function

    @property
    def field(self) -> str:
        """The current place in the sample, as text for errors; empty for the whole sample."""
        return field_of(self.place)


def field_of(place: tuple[Any, ...]) -> str:
    """Return a place in the sample as text; empty for the whole sample.

    >>> field_of(("meta", 0)), field_of(())
    ("sample['meta'][0]", '')
    """
    return f"sample{''.join(f'[{key!r}]' for key in place)}" if place else ""


_SEQUENCES = frozenset({tuple, list})
_AS_THEY_ARE = frozenset({int, float, bool, str, bytes})
_CONTAINERS = _SEQUENCES | {dict}


def _registry(functions: Functions | None) -> Registry:
    return functions if isinstance(functions, Registry) else Registry(Found(functions or {}))


def _collate(samples: Sequence[Any], registry: Registry) -> Any:
    if len(samples) == 0:
        raise CollateError(
            "there are no samples to make a batch of",
            field=registry.field,
            found=0,
            expected="at least one sample",
            cure="check that the batch, or the list in each sample, is not empty",
        )
    first = samples[0]
    function = registry.find(first)
    if function is not None:
        return _called(function, samples, registry)
    if isinstance(first, Mapping):
        return _mapping(samples, registry)
    if isinstance(first, Sequence):
        return collate_columns(samples, registry)
    arrays = registry.get(np.ndarray)
    if arrays is not None and hasattr(first, "__array__"):
        return _called(arrays, _as_arrays(samples, registry), registry)
    raise CollateTypeError(
        f"samples of type {name_of(first)} cannot be put in a batch",
        field=registry.field,
        found=name_of(first),
        expected="arrays, numbers, strings, or mappings or sequences of them",
        cure="convert the samples, call register_collate for the type, or pass a collate_fn or collate_fn_map",
    )


def _called(function: CollateFn, samples: Sequence[Any], registry: Registry) -> Any:
    """Call the function of a type; errors of user code get a note with the place in the sample."""
    try:
        return function(samples, collate_fn_map=registry)
    except (CollateError, CollateTypeError):
        raise
    except Exception as error:
        if registry.place and not any(NOTE in note for note in getattr(error, "__notes__", ())):
            error.add_note(f"{NOTE}at {registry.field}")
        raise


def _as_arrays(samples: Sequence[Any], registry: Registry) -> list[npt.NDArray[Any]]:
    """Convert objects with ``__array__`` to arrays."""
    made = []
    for row, sample in enumerate(samples):
        try:
            made.append(np.asarray(sample))
        except Exception as error:
            raise CollateTypeError(
                f"sample {row} of the batch, {article(name_of(sample))}, does not convert to an array: {error}",
                rows=(row,),
                field=registry.field,
                found=name_of(sample),
                expected="an object that numpy.asarray() converts",
                cure="give an array, or pass a collate_fn",
            ) from error
    return made


def collate_arrays(batch: Sequence[Any], *, collate_fn_map: Functions | None = None) -> npt.NDArray[Any]:
    """Stack arrays of one shape."""
    column = column_of(batch)
    if column is not None:
        return column
    registry = _registry(collate_fn_map)
    first = batch[0]
    shape, dtype = first.shape, first.dtype
    if shape and _alike(batch) and not dtype.hasobject:
        stacked = registry.empty((len(batch), *shape), dtype)
        np.concatenate(batch, out=stacked.reshape(len(batch) * shape[0], *shape[1:]))
        return stacked
    mixed = False
    for row, array in enumerate(batch):
        if not isinstance(array, np.ndarray) or array.shape != shape:
            found = array.shape if isinstance(array, np.ndarray) else name_of(array)
            raise CollateError(
                f"samples 0 and {row} of the batch differ in shape: {shape} and {found}",
                rows=(0, row),
                field=registry.field,
                found=str(found),
                expected=str(shape),
                cure="give them one shape (Resize, a crop, padding), or pass a collate_fn",
            )
        if type(array) is not np.ndarray:
            check_unmasked(array, row, registry.field)
        mixed = mixed or array.dtype != dtype
    if mixed:
        batch = [in_memory(array) for array in batch]
        dtype = common_dtype(batch, registry.field)
    if dtype.hasobject:
        raise CollateTypeError(
            "arrays of Python objects cannot be put in a batch",
            field=registry.field,
            found=str(dtype),
            expected="arrays of numbers",
            cure="give numbers, or pass a collate_fn",
        )
    stacked = registry.empty((len(batch), *shape), dtype)
    for row, array in enumerate(batch):
        write_row(stacked, row, array)
    if mixed:
        check_kept(batch, stacked, registry.field)
    return stacked


def _alike(arrays: Sequence[Any]) -> bool:
    """Say whether these are plain arrays of one shape and dtype, none of them in a mapped file."""
    return (
        one_type(arrays) is np.ndarray
        and in_common(arrays, "shape") is not None
        and in_common(arrays, "dtype") is not None
        and not any_mapped(arrays)
    )


def _numbers(batch: Sequence[Any], *, collate_fn_map: Functions | None = None) -> npt.NDArray[Any]:
    values = of_one_type(batch)
    return numbers(batch, _registry(collate_fn_map).field) if values is None else values


def _text(batch: Sequence[Any], *, collate_fn_map: Functions | None = None) -> Sequence[Any]:  # noqa: ARG001
    return batch if isinstance(batch, list | np.ndarray) else list(batch)


default_collate_fn_map: Functions = MappingProxyType(
    {
        np.ndarray: collate_arrays,
        str: _text,
        bytes: _text,
        int: _numbers,
        float: _numbers,
        complex: _numbers,
        np.generic: _numbers,
    }
)
"""The functions of `default_collate`, by type of leaf; read-only."""


def short_arrays(batch: Sequence[Any], empty: Empty) -> npt.NDArray[Any] | None:
    """Stack plain arrays of one shape and dtype; return None for others."""
    column = column_of(batch)
    if column is None and not batch[0].dtype.hasobject and _alike(batch):
        shape = batch[0].shape
        if not shape:
            return np.fromiter(batch, batch[0].dtype, len(batch)) if batch[0].dtype.kind in "biufc" else None
        column = empty((len(batch), *shape), batch[0].dtype)
        np.concatenate(batch, out=column.reshape(len(batch) * shape[0], *shape[1:]))
    return column


def _short_numbers(batch: Sequence[Any], empty: Empty) -> npt.NDArray[Any] | None:  # noqa: ARG001
    return of_one_type(batch)


def _short_text(batch: Sequence[Any], empty: Empty) -> Sequence[Any]:  # noqa: ARG001
    return _text(batch)


SHORT_TEXT: Mapping[CollateFn, Short] = {_text: _short_text}
_by_default = Merged(
    default_collate_fn_map, shorts={collate_arrays: short_arrays, _numbers: _short_numbers, **SHORT_TEXT}
)


def _mapping(samples: Sequence[Mapping[Any, Any]], registry: Registry) -> Any:
    first, place = samples[0], registry.place
    columns = {}
    for key, column in _columns_of(first, samples, registry):
        registry.place = (*place, key)
        columns[key] = _collate(column, registry)
    registry.place = place
    return like_mapping(first, columns)


def _columns_of(
    first: Mapping[Any, Any], samples: Sequence[Mapping[Any, Any]], registry: Registry
) -> Iterable[tuple[Any, Sequence[Any]]]:
    """Return the values of each key; raise for samples that differ in their keys."""
    if len(first) > 1 and set(map(type, samples)) == {dict} and set(map(len, samples)) == {len(first)}:
        with suppress(KeyError):  # which one differs is found out below
            columns = zip(*map(itemgetter(*first), samples), strict=True)
            return zip(first, map(list, columns), strict=True)  # lists, as functions of users' own know them from torch
    keys = first.keys()
    for row, sample in enumerate(samples):
        mapping = type(sample) is dict or isinstance(sample, Mapping)  # the second takes ten times as long
        if not mapping or sample.keys() != keys:
            found = list(sample) if mapping else name_of(sample)
            raise CollateError(
                f"samples 0 and {row} of the batch differ in their keys: {list(first)} and {found}",
                rows=(0, row),
                field=registry.field,
                found=str(found),
                expected=str(list(first)),
                cure="give every sample the same keys, or pass a collate_fn",
            )
    return [(key, [sample[key] for sample in samples]) for key in first]


def collate_columns(samples: Sequence[Any], registry: Registry) -> Any:
    """Collate sequences of one length, item by item."""
    first, place = samples[0], registry.place
    if not set(map(type, samples)) <= _SEQUENCES or set(map(len, samples)) != {len(first)}:
        for row, sample in enumerate(samples):
            if not isinstance(sample, Sequence) or len(sample) != len(first):
                found = len(sample) if isinstance(sample, Sequence) else name_of(sample)
                raise CollateError(
                    f"samples 0 and {row} of the batch differ in length: {len(first)} and {found}",
                    rows=(0, row),
                    field=registry.field,
                    found=found,
                    expected=str(len(first)),
                    cure="pad them to one length (PaddedCollate), or pass a collate_fn",
                )
    columns = []
    for index, column in enumerate(zip(*samples, strict=True)):
        registry.place = (*place, index)
        columns.append(_collate(column, registry))
    registry.place = place
    return like_sequence(first, columns)


def reader(dataset: Any) -> Callable[..., Any] | None:
    """Return what reads whole batches of torch's datasets over tensors, unless somebody collates these differently."""
    functions = _by_default(NO_FUNCTIONS, registered())
    torch = torch_state.loaded()
    if torch is None or not functions.plain or any(issubclass(torch.Tensor, types) for types in functions.functions):
        return None
    return torch_rows.reader(dataset, default_collate, arrays=True)


def default_convert(data: Any) -> Any:
    """Convert the NumPy scalars of one sample to arrays, and leave its other leaves unchanged.

    >>> from headrace.collate import default_convert
    >>> default_convert((np.float32(1.5), [2, "text"], {"x": np.zeros(2)}))
    [array(1.5, dtype=float32), [2, 'text'], {'x': array([0., 0.])}]

    A loader without batches (``batch_size=None``) does this to each sample. Containers become new ones by the rules of
    `default_collate` (a tuple becomes a list). Where torch returns a tensor, the result is an array.
    """
    kind = type(data)
    if kind in _AS_THEY_ARE:
        return data
    if kind is dict:
        return {key: default_convert(item) for key, item in data.items()}
    if kind in _SEQUENCES:
        return [default_convert(item) for item in data]
    if isinstance(data, str | bytes):  # includes NumPy's str_ and bytes_
        return data
    if isinstance(data, np.generic):
        return np.asarray(data)
    if isinstance(data, np.ndarray):
        return in_memory(data)
    if isinstance(data, Mapping):
        return like_mapping(data, {key: default_convert(data[key]) for key in data})
    if isinstance(data, Sequence):
        return like_sequence(data, [default_convert(item) for item in data])
    return data


def name_of(thing: object) -> str:
    """Return the name of an object's type, with its module."""
    kind = type(thing)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
