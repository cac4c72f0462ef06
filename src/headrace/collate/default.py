"""Samples of any nested shape become one batch of the same shape, with arrays for leaves.

The container rules are those of torch's ``default_collate`` (torch.utils.data._utils.collate), with NumPy arrays
where it makes tensors; two things differ, knowingly: a key that only some of the samples have is an error
rather than dropped, and arrays of different dtypes are promoted by NumPy's rules where no digit is lost.

What becomes of a leaf is looked up by its type, in a mapping that a caller may put his own types into.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from headrace.collate.containers import like_mapping, like_sequence
from headrace.collate.exact import check_kept, check_unmasked, common_dtype, numbers
from headrace.collate.register import registered
from headrace.collate.row_writer import column_of
from headrace.errors import CollateError, CollateTypeError

if TYPE_CHECKING:
    from headrace.context.memory import Empty

NOTE = "headrace: the error came "
"""How a note begins that says where in the sample something of the user's has failed."""

CollateFn = Callable[..., Any]
"""Makes the batch of samples of one type: called ``function(samples, collate_fn_map=…)``."""

Functions = Mapping[type | tuple[type, ...], CollateFn]


class Collate(Protocol):
    """Samples -> batch. Arrays of any size are best made with ``empty``: memory that is lent and used again."""

    def __call__(self, samples: Sequence[Any], *, empty: Empty = np.empty) -> Any:
        """Return the batch of these samples, of which there is at least one."""
        ...


def default_collate(samples: Sequence[Any], *, empty: Empty = np.empty, collate_fn_map: Functions | None = None) -> Any:
    """Put samples together in one batch, stacking arrays and numbers along a new first axis.

    >>> from headrace import default_collate
    >>> images, labels = default_collate([(np.zeros((2, 3)), 7), (np.ones((2, 3)), 8)])
    >>> images.shape, labels
    ((2, 2, 3), array([7, 8]))
    >>> default_collate([{"text": "a", "x": 1.5}, {"text": "b", "x": 2}])
    {'text': ['a', 'b'], 'x': array([1.5, 2. ])}

    Arrays (and what turns into one by ``__array__``: tensors) of one shape give one array of shape (N, …); ints give
    int64 (uint64 where they need it), floats float64, bools bool, NumPy scalars keep their dtype; str and bytes stay a
    list. Mappings and named tuples keep their type, other tuples and sequences become lists of columns (as in torch).
    Values of several dtypes get one that holds every digit of them all.

    ``collate_fn_map`` adds types of one's own, or replaces what becomes of others, anywhere in a sample; to give it to
    a loader, use functools.partial. A function is called as ``function(samples, collate_fn_map=…)``, and passes the
    mapping on to `collate` where it has samples inside its samples. How a type is looked up, `collate` says; one's own
    come before those that are there.

    >>> from datetime import timedelta
    >>> seconds = {timedelta: lambda samples, collate_fn_map: np.array([s.total_seconds() for s in samples])}
    >>> default_collate([{"took": timedelta(minutes=2), "x": 1}], collate_fn_map=seconds)
    {'took': array([120.]), 'x': array([1])}

    Raises `CollateError` where samples do not fit together (two shapes, two lengths, another set of keys), and
    `CollateTypeError` for what cannot be put in a batch (None, arrays of Python objects, masked arrays, other types).
    Values that would lose digits are refused too. The message says where in the sample: ``sample['meta']['v']``.
    """
    functions: Functions = default_collate_fn_map
    if collate_fn_map or registered():
        functions = dict(collate_fn_map or {})
        for others in (registered(), default_collate_fn_map):  # looked up in this order
            functions |= {key: function for key, function in others.items() if key not in functions}
    return _collate(samples, Registry(functions, empty))


def collate(batch: Sequence[Any], *, collate_fn_map: Functions | None = None) -> Any:
    """Put samples together with the functions of a mapping, by type; of its own it knows containers alone.

    >>> from headrace.collate.default import collate
    >>> joined = {str: lambda samples, collate_fn_map: "+".join(samples)}
    >>> collate([{"a": "x", "b": ("y", "z")}, {"a": "1", "b": ("2", "3")}], collate_fn_map=joined)
    {'a': 'x+1', 'b': ['y+2', 'z+3']}

    The function for the first sample's very type is called; else that of the first key, in the mapping's order, that
    it is an instance of (a key may be a tuple of types); else mappings and sequences are walked into, by the rules of
    `default_collate`. Inside a function that was called with a mapping, giving it that mapping goes on in the same
    way. ``default_collate_fn_map`` holds the functions for arrays, numbers and text, to be put in a mapping of one's
    own. Raises as `default_collate` does.
    """
    return _collate(batch, _registry(collate_fn_map))


class Registry(dict[Any, CollateFn]):
    """The functions of a batch that is being made, by type; ours find in it the lent memory, and where they are."""

    __slots__ = ("empty", "place")

    def __init__(self, functions: Functions, empty: Empty = np.empty) -> None:
        super().__init__(functions)
        self.empty = empty
        self.place: tuple[Any, ...] = ()

    def find(self, sample: Any) -> CollateFn | None:
        """Return the function for a sample: by its type, else by the first key that it is an instance of."""
        function = self.get(type(sample))
        if function is None:
            function = next((function for types, function in self.items() if isinstance(sample, types)), None)
        return function

    @property
    def at(self) -> str:
        """Where in the sample this is, as an error's message begins."""
        return at_place(self.place)


def at_place(place: tuple[Any, ...]) -> str:
    """Return where in the sample a place is, as an error's message begins.

    >>> at_place(("meta", 0)), at_place(())
    ("at sample['meta'][0]: ", '')
    """
    return f"at sample{''.join(f'[{key!r}]' for key in place)}: " if place else ""


def _registry(functions: Functions | None) -> Registry:
    return functions if isinstance(functions, Registry) else Registry(functions or {})


def _collate(samples: Sequence[Any], registry: Registry) -> Any:
    if len(samples) == 0:
        raise CollateError(f"{registry.at}no samples: a batch needs at least one")
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
        f"{registry.at}samples of type {name_of(first)} cannot be put in a batch; give arrays, numbers, strings, "
        "mappings or sequences of them, put a function for the type in collate_fn_map, or pass a collate_fn"
    )


def _called(function: CollateFn, samples: Sequence[Any], registry: Registry) -> Any:
    """Call the function of a type; an error that is not ours gets a note of the place in the sample."""
    try:
        return function(samples, collate_fn_map=registry)
    except (CollateError, CollateTypeError):
        raise
    except Exception as error:
        if registry.place and not any(NOTE in note for note in getattr(error, "__notes__", ())):
            error.add_note(f"{NOTE}{registry.at.removesuffix(': ')}")
        raise


def _as_arrays(samples: Sequence[Any], registry: Registry) -> list[npt.NDArray[Any]]:
    """Return the arrays that things of an ``__array__`` turn into."""
    made = []
    for row, sample in enumerate(samples):
        try:
            made.append(np.asarray(sample))
        except Exception as error:
            raise CollateTypeError(
                f"{registry.at}sample {row} of the batch, a {name_of(sample)}, cannot be made a NumPy array: {error}; "
                "give an array, or pass a collate_fn"
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
    mixed = False
    for row, array in enumerate(batch):
        if not isinstance(array, np.ndarray) or array.shape != shape:
            found = array.shape if isinstance(array, np.ndarray) else name_of(array)
            raise CollateError(
                f"{registry.at}samples 0 and {row} of the batch differ in shape: {shape} and {found}; "
                "bring them to one shape (Resize, a crop, padding), or pass a collate_fn",
                rows=(0, row),
            )
        if type(array) is not np.ndarray:
            check_unmasked(array, row, registry.at)
        mixed = mixed or array.dtype != dtype
    if mixed:
        dtype = common_dtype(batch, registry.at)
    if dtype.hasobject:
        raise CollateTypeError(
            f"{registry.at}arrays of Python objects cannot be put in a batch; give numbers, or pass a collate_fn"
        )
    stacked = registry.empty((len(batch), *shape), dtype)
    for row, array in enumerate(batch):
        stacked[row] = array
    if mixed:
        check_kept(batch, stacked, registry.at)
    return stacked


def _numbers(batch: Sequence[Any], *, collate_fn_map: Functions | None = None) -> npt.NDArray[Any]:
    registry = _registry(collate_fn_map)
    values = numbers(batch, registry.at)
    column = registry.empty(values.shape, values.dtype)
    column[...] = values
    return column


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
"""What `default_collate` makes of leaves, by their type; read-only."""


def _mapping(samples: Sequence[Mapping[Any, Any]], registry: Registry) -> Any:
    first, place = samples[0], registry.place
    for row, sample in enumerate(samples):
        if not isinstance(sample, Mapping) or sample.keys() != first.keys():
            found = list(sample) if isinstance(sample, Mapping) else name_of(sample)
            raise CollateError(
                f"{registry.at}samples 0 and {row} of the batch differ in their keys: {list(first)} and {found}; "
                "give every sample the same keys, or pass a collate_fn",
                rows=(0, row),
            )
    columns = {}
    for key in first:
        registry.place = (*place, key)
        columns[key] = _collate([sample[key] for sample in samples], registry)
    registry.place = place
    return like_mapping(first, columns)


def collate_columns(samples: Sequence[Any], registry: Registry) -> Any:
    """Put together sequences of one length, item by item."""
    first, place = samples[0], registry.place
    for row, sample in enumerate(samples):
        if not isinstance(sample, Sequence) or len(sample) != len(first):
            found = len(sample) if isinstance(sample, Sequence) else name_of(sample)
            raise CollateError(
                f"{registry.at}samples 0 and {row} of the batch differ in length: {len(first)} and {found}; "
                "pad them to one length (PaddedCollate), or pass a collate_fn",
                rows=(0, row),
            )
    columns = []
    for index, column in enumerate(zip(*samples, strict=True)):
        registry.place = (*place, index)
        columns.append(_collate(column, registry))
    registry.place = place
    return like_sequence(first, columns)


def default_convert(data: Any) -> Any:
    """Turn the NumPy scalars of one sample into arrays, and leave its other leaves as they are.

    >>> from headrace import default_convert
    >>> default_convert((np.float32(1.5), [2, "text"], {"x": np.zeros(2)}))
    [array(1.5, dtype=float32), [2, 'text'], {'x': array([0., 0.])}]

    What a loader without batches (``batch_size=None``) does to a sample: the containers become new ones by the rules
    of `default_collate` (a tuple becomes a list), and what torch would make a tensor of is an array.
    """
    if isinstance(data, str | bytes):  # NumPy's own too
        return data
    if isinstance(data, np.generic):
        return np.asarray(data)
    if isinstance(data, Mapping):
        return like_mapping(data, {key: default_convert(data[key]) for key in data})
    if isinstance(data, Sequence):
        return like_sequence(data, [default_convert(item) for item in data])
    return data


def name_of(thing: object) -> str:
    """Return the name of a thing's type, with its module."""
    kind = type(thing)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
