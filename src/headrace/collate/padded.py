"""A collate function for samples of different lengths: it pads them to the longest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from headrace.checks import flag, integer, one_of, shown
from headrace.collate.default import (
    Registry,
    collate_arrays,
    collate_columns,
    default_collate,
    name_of,
)
from headrace.collate.exact import check_kept, check_unmasked, common_dtype, numbers
from headrace.collate.token_fields import (
    IGNORED,
    Fields,
    Place,
    batch_of,
    check_fields,
    labels_of,
    token_rows,
    widened,
)
from headrace.context.tokens import count_tokens
from headrace.errors import ArgumentError, CollateError, CollateTypeError
from headrace.interop import floats
from headrace.storage.mapped_samples import in_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.context.memory import Empty

Number = int | float | complex | np.generic
Value = Number | Mapping[Any, Any] | Sequence[Any] | None
"""A number for all leaves, or one per leaf in the structure of a sample; None leaves a leaf unpadded."""


FIELDS = ("values", "lengths", "mask", "positions", "labels", "loss_mask")


class Padded(NamedTuple):
    """A padded leaf with its lengths and its mask, from ``PaddedCollate(lengths=True)``.

    >>> from headrace.collate import PaddedCollate
    >>> values, lengths, mask = PaddedCollate(lengths=True)([[5, 6], [7]])
    >>> values, lengths, mask
    (array([[5, 6],
           [7, 0]]), array([2, 1]), array([[ True,  True],
           [ True, False]]))

    All three have one row for each sample.
    """

    values: npt.NDArray[Any]
    lengths: npt.NDArray[np.int64]
    """The length of each sample."""
    mask: npt.NDArray[np.bool_]
    """True for values of a sample, False for padding."""


@dataclass(frozen=True, slots=True)
class PaddedCollate:
    """A collate function that pads arrays to the length of the longest in the batch.

    >>> from headrace.collate import PaddedCollate
    >>> tokens = [np.array([5, 6, 7]), np.array([8])]
    >>> PaddedCollate()(tokens)
    array([[5, 6, 7],
           [8, 0, 0]])
    >>> samples = [{"tokens": t, "label": n} for n, t in enumerate(tokens)]
    >>> batch = PaddedCollate({"tokens": -1}, side="left", multiple_of=4, lengths=True)(samples)
    >>> batch["tokens"].values, batch["label"]
    (array([[-1,  5,  6,  7],
           [-1, -1, -1,  8]]), array([0, 1]))
    >>> batch["tokens"].lengths, batch["tokens"].mask.sum(axis=1)
    (array([3, 1]), array([3, 1]))

    The first axis of an array is its length; the other axes must agree. A list of numbers counts as an array. ``value``
    is the padding. It is one number for every array of a sample, or a mapping or tuple with one number per leaf. Leaves
    with None, leaves that a mapping omits, and leaves that are not arrays are collated as in `default_collate`.
    ``side`` is the side of the padding, "right" or "left". The length is rounded up to a multiple of ``multiple_of``.
    With ``lengths=True``, a padded leaf is a `Padded`: (values, lengths, mask).

    With ``fields``, the batch is a dict of "values", "lengths", "mask", "positions", "labels" and "loss_mask", or of
    those that are named, as in `PackedCollate`; ``tokens`` and ``shifted`` are as there. All padded leaves of a sample
    must then have one length.

    >>> batch = PaddedCollate(fields=["values", "labels"])(tokens)
    >>> batch["values"], batch["labels"]
    (array([[5, 6, 7],
           [8, 0, 0]]), array([[   6,    7, -100],
           [-100, -100, -100]]))

    Raises `ArgumentError` for invalid arguments. A call raises `CollateError` for samples that differ in more than
    their length. It also raises if ``value`` has a leaf that samples lack, or does not fit an array's dtype.
    """

    value: Value = 0
    side: Literal["right", "left"] = "right"
    multiple_of: int | None = None
    lengths: bool = False
    fields: Fields = None
    tokens: Any = None
    shifted: bool = True
    gives_arrays: ClassVar[bool] = True
    """A loader for a framework converts them."""

    def __post_init__(self) -> None:
        check_value(self.value)
        object.__setattr__(self, "lengths", flag("lengths", self.lengths))
        object.__setattr__(self, "fields", check_fields(self.fields, FIELDS))
        object.__setattr__(self, "shifted", flag("shifted", self.shifted))
        if self.lengths and self.fields is not None:
            raise ArgumentError(
                "lengths=True makes tuples of leaves, and fields a dict",
                found=self.fields,
                expected="one of the two",
                cure='add "lengths" and "mask" to fields',
            )
        one_of("side", self.side, ("right", "left"))
        if self.multiple_of is not None:
            integer("multiple_of", self.multiple_of, least=1, cure="give None for no rounding")

    def __call__(self, samples: Sequence[Any], *, empty: Empty = np.empty) -> Any:
        """Return the batch of these samples."""
        if len(samples):
            check_names(self.value, samples[0], "")
        leaves = _Leaves()
        arrays, lists = partial(self._arrays, leaves), partial(self._lists, leaves)
        values = default_collate(samples, empty=empty, collate_fn_map={np.ndarray: arrays, list: lists})
        return values if self.fields is None else self._with_fields(values, leaves, empty)

    def _with_fields(self, values: Any, leaves: _Leaves, empty: Empty) -> dict[str, Any]:
        if not leaves.rows:
            raise CollateError(
                "samples have no array to pad",
                found=name_of(values),
                expected="arrays, or lists of numbers",
                cure="give at least one of them in each sample",
            )
        lengths = np.array(leaves.lengths)[:, None]
        places = np.arange(next(iter(leaves.rows.values())).shape[1])
        begin = 0 if self.side == "right" else len(places) - lengths
        mask = (places >= begin) & (places < begin + lengths)

        def labels(empty: Empty = empty) -> npt.NDArray[np.int64]:
            return labels_of(token_rows(leaves.rows, self.tokens), mask, shifted=self.shifted, empty=empty)

        made: dict[str, Callable[[], Any]] = {
            "lengths": lambda: lengths[:, 0],
            "mask": lambda: mask,
            "positions": lambda: np.where(mask, places - begin, 0).astype(np.int32),
            "labels": labels,
            "loss_mask": lambda: labels(np.empty) != IGNORED,
        }
        return batch_of(cast("dict[str, str]", self.fields), values, made)

    def _arrays(self, leaves: _Leaves, batch: Sequence[Any], *, collate_fn_map: Registry) -> Any:
        value = value_at(self.value, collate_fn_map.place)
        first = batch[0]
        if value is None or first.ndim == 0 or floats.kind(first.dtype) not in "biufc":
            return collate_arrays(batch, collate_fn_map=collate_fn_map)
        return self._padded(batch, value, collate_fn_map, leaves)

    def _lists(self, leaves: _Leaves, batch: Sequence[Any], *, collate_fn_map: Registry) -> Any:
        value = value_at(self.value, collate_fn_map.place)
        if value is None or not all(isinstance(sample, list) and all_numbers(sample) for sample in batch):
            return collate_columns(batch, collate_fn_map)
        return self._padded(rows_of(batch, collate_fn_map), value, collate_fn_map, leaves)

    def _padded(self, batch: Sequence[Any], value: Any, registry: Registry, leaves: _Leaves) -> Any:
        batch = [in_memory(array) if isinstance(array, np.ndarray) else array for array in batch]
        dtype = common(batch, registry)
        lengths = [len(array) for array in batch]
        longest = max(lengths)
        if self.multiple_of is not None:
            longest += -longest % self.multiple_of
        if self.fields is not None:
            leaves.agree(lengths, registry)
            dtype = widened(dtype, batch, registry.field)
        padding = filler(value, dtype, registry)
        if not leaves.lengths:  # of one leaf: a sample's leaves have the same tokens
            leaves.lengths = lengths
            count_tokens(sum(lengths), len(batch) * longest - sum(lengths))
        values = registry.empty((len(batch), longest, *batch[0].shape[1:]), dtype)
        own = [slice(length) if self.side == "right" else slice(longest - length, None) for length in lengths]
        pad = [slice(length, None) if self.side == "right" else slice(longest - length) for length in lengths]
        for row, array in enumerate(batch):
            values[row, own[row]] = array
            values[row, pad[row]] = padding
        leaves.rows[registry.place] = values
        if not self.lengths:
            return values
        mask = registry.empty((len(batch), longest), np.dtype(bool))
        counts = registry.empty((len(batch),), np.dtype(np.int64))
        mask[...] = False
        counts[...] = lengths
        for row, place in enumerate(own):
            mask[row, place] = True
        return Padded(values, counts, mask)


@dataclass(slots=True)
class _Leaves:
    """The padded leaves of a batch, by their place in a sample, and the lengths of the first of them."""

    rows: dict[Place, npt.NDArray[Any]] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)

    def agree(self, lengths: list[int], registry: Registry) -> None:
        """Raise unless another leaf has the same lengths."""
        if self.lengths and lengths != self.lengths:
            odd = next(n for n, (one, other) in enumerate(zip(lengths, self.lengths, strict=True)) if one != other)
            raise CollateError(
                f"sample {odd} of the batch has length {lengths[odd]} here, but {self.lengths[odd]} in another array",
                rows=(odd,),
                field=registry.field,
                found=lengths[odd],
                expected=f"length {self.lengths[odd]} in all arrays of the sample",
                cure="pass value=None for arrays that are not padded",
            )


def _in_row(registry: Registry, row: int) -> str:
    return f"{registry.field}, row {row}" if registry.field else f"row {row}"


def rows_of(batch: Sequence[list[Any]], registry: Registry) -> list[npt.NDArray[Any]]:
    """Return an array for each list of numbers."""
    rows = [numbers(sample, _in_row(registry, row)) if sample else None for row, sample in enumerate(batch)]
    # An empty list has no dtype; NumPy's default, float64, would turn the other rows into floats.
    none = np.empty(0, next((row.dtype for row in rows if row is not None), np.int64))
    return [none if row is None else row for row in rows]


def common(batch: Sequence[Any], registry: Registry) -> np.dtype[Any]:
    """Return the dtype that holds all of these arrays, which may differ only in length."""
    first = batch[0]
    dtype: np.dtype[Any] = first.dtype
    mixed = False
    for row, array in enumerate(batch):
        if not isinstance(array, np.ndarray) or array.ndim != first.ndim or array.shape[1:] != first.shape[1:]:
            found = array.shape if isinstance(array, np.ndarray) else name_of(array)
            raise CollateError(
                f"samples 0 and {row} of the batch differ in more than their length: their shapes are "
                f"{first.shape} and {found}, but only the first axis is padded",
                rows=(0, row),
                field=registry.field,
                found=str(found),
                expected=f"axes of {first.shape[1:]} after the first",
                cure="make the other axes equal",
            )
        if type(array) is not np.ndarray:
            check_unmasked(array, row, registry.field)
        mixed = mixed or array.dtype != dtype
    if mixed:
        dtype = common_dtype(batch, registry.field)
        check_kept(batch, [array.astype(dtype) for array in batch], registry.field)
    if floats.kind(dtype) not in "biufc":
        raise CollateTypeError(
            f"arrays of numbers and of {dtype} cannot be put in one batch",
            field=registry.field,
            found=str(dtype),
            expected="arrays of numbers",
            cure="give all samples one dtype",
        )
    return dtype


def filler(value: Any, dtype: np.dtype[Any], registry: Registry) -> Any:
    """Return the padding value in an array's dtype; raise if it does not fit."""
    asked = np.asarray(value)
    with np.errstate(all="ignore"):
        if dtype.kind == "c" or (floats.kind(dtype) == "f" and asked.dtype.kind != "c"):
            cast = asked.astype(dtype)
            fits = bool(np.isfinite(cast) == np.isfinite(asked))  # rounding is allowed, but not to infinity
        else:
            fits = asked.dtype.kind in "biuf" and bool(np.isfinite(asked))
            cast = asked.astype(dtype) if fits else asked
            fits = fits and bool(cast == asked)
    if not fits:
        raise CollateError(
            f"arrays of {dtype} cannot be padded with {shown(value)}",
            field=registry.field,
            found=value,
            expected=f"a value that {dtype} holds exactly",
            cure="give another value, or convert the arrays",
        )
    return cast


def all_numbers(items: list[Any]) -> bool:
    """Return whether a list holds only numbers."""
    return all(isinstance(item, Number) and not isinstance(item, str | bytes) for item in items)


def value_at(value: Any, place: tuple[Any, ...]) -> Any:
    """Return the padding for a place in the sample, or None if it is not padded."""
    for key in place:
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, Sequence):
            value = value[key]
        else:
            break
    return value if isinstance(value, Number) else None


def check_value(value: Any) -> None:
    """Raise unless the value is a number, or a mapping or sequence of numbers and None."""
    if isinstance(value, Mapping):
        for inner in value.values():
            check_value(inner)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for inner in value:
            check_value(inner)
    elif value is not None and (isinstance(value, str | bytes) or not isinstance(value, Number)):
        expected = "a number, or a mapping or sequence of numbers and None"
        raise ArgumentError(f"value must be {expected}; got {shown(value)}", found=value, expected=expected)


def check_names(value: Any, sample: Any, place: str) -> None:
    """Raise if ``value`` has a leaf that samples lack; most likely its name is misspelled."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(sample, Mapping) or key not in sample:
                found = f"the keys {list(sample)}" if isinstance(sample, Mapping) else f"type {name_of(sample)}"
                raise CollateError(
                    f"value has sample{place}[{key!r}], but the samples have {found}",
                    found=f"sample{place}[{key!r}]",
                    expected="names that every sample has",
                    cure="remove it, or correct its name",
                )
            check_names(inner, sample[key], f"{place}[{key!r}]")
    elif isinstance(value, Sequence):
        if not isinstance(sample, Sequence) or isinstance(sample, str | bytes) or len(sample) != len(value):
            found = f"{len(sample)} items" if isinstance(sample, Sequence) else f"type {name_of(sample)}"
            raise CollateError(
                f"value has {len(value)} items for sample{place}, which has {found}",
                found=len(value),
                expected="one item for each item of the sample",
                cure="give one item for each",
            )
        for index, inner in enumerate(value):
            check_names(inner, sample[index], f"{place}[{index}]")
