"""A collate function that concatenates several samples in a row, with segment ids for attention."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from headrace.checks import flag, integer
from headrace.collate.default import Registry, collate_arrays, collate_columns, default_collate, name_of
from headrace.collate.padded import (
    Value,
    all_numbers,
    check_names,
    check_value,
    common,
    filler,
    rows_of,
    value_at,
)
from headrace.collate.token_fields import (
    IGNORED,
    Fields,
    Place,
    batch_of,
    boundaries,
    check_fields,
    labels_of,
    token_rows,
    widened,
)
from headrace.context.tokens import count_tokens
from headrace.errors import CollateError
from headrace.interop import floats
from headrace.storage.mapped_samples import in_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.collate.default import Functions
    from headrace.context.memory import Empty

FIELDS = ("values", "segment_ids", "positions", "labels", "loss_mask", "cu_seqlens", "max_seqlen")


class Packed(NamedTuple):
    """A packed batch: rows, and the sample of each position in them.

    >>> import numpy as np
    >>> from headrace.collate import PackedCollate
    >>> packed = PackedCollate(row_length=4)([[np.array([5, 6]), np.array([7])]])
    >>> same = packed.segment_ids[:, :, None] == packed.segment_ids[:, None, :]
    >>> attends = same & (packed.segment_ids != 0)[:, :, None]  # a mask for attention, (rows, queries, keys)
    >>> attends[0].astype(int)
    array([[1, 1, 0, 0],
           [1, 1, 0, 0],
           [0, 0, 1, 0],
           [0, 0, 0, 0]])

    ``values`` has the structure of a sample, with arrays of shape (rows, row_length, …).
    """

    values: Any
    segment_ids: npt.NDArray[np.int32]
    """(rows, row_length): 1 in the first sample of a row, 2 in the second, …; 0 in padding."""
    positions: npt.NDArray[np.int32]
    """(rows, row_length): 0, 1, 2, … from the start of each sample; 0 in padding."""


@dataclass(frozen=True, slots=True)
class PackedCollate:
    """A collate function that concatenates the samples of each group in a row.

    >>> import numpy as np
    >>> from headrace.collate import PackedCollate
    >>> rows = [[np.array([5, 6]), np.array([7])], [np.array([8, 9, 10])]]
    >>> values, segment_ids, positions = PackedCollate(row_length=4)(rows)
    >>> values
    array([[ 5,  6,  7,  0],
           [ 8,  9, 10,  0]])
    >>> segment_ids, positions
    (array([[1, 1, 2, 0],
           [1, 1, 1, 0]], dtype=int32), array([[0, 1, 0, 0],
           [0, 1, 2, 0]], dtype=int32))

    The input is lists of samples: the groups that `GroupedDataset` reads for the keys of a `PackingBatchSampler`. A
    sample is an array, whose first axis is its length, or a list of numbers, or a mapping or tuple of arrays of one
    length. Other leaves, and leaves with ``value=None``, are collated as in `default_collate`, in the order of the
    rows. ``value`` fills the ends of the rows: one number for all leaves, or one per leaf as in `PaddedCollate`.

    With ``fields``, the batch is a dict that has these fields, or with a mapping, has them under other names:

    >>> fields = {"values": "input_ids", "labels": "labels", "cu_seqlens": "cu_seqlens", "max_seqlen": "max_seqlen"}
    >>> batch = PackedCollate(4, fields=fields)(rows)
    >>> batch["labels"]
    array([[   6, -100, -100, -100],
           [   9,   10, -100, -100]])
    >>> batch["cu_seqlens"], batch["max_seqlen"]
    (array([0, 2, 3, 4, 7, 8], dtype=int32), 3)

    - "values", "segment_ids" and "positions" are those of `Packed`. Integers in values become int64.
    - "labels" are int64: the next token of the same sample, and -100 at its last token and in padding. With
      ``shifted=False`` a label is the token itself, for models that shift labels themselves (those of Hugging Face):
      -100 at the first token of each sample and in padding.
    - "loss_mask" is True where a label counts.
    - "cu_seqlens" (int32) has where each sample begins in the flattened rows, and their end; "max_seqlen" (an int) is
      the longest. They are what ``flash_attn_varlen_func`` takes. The padding of a row counts as a sample.

    If samples are mappings, their fields keep their names in the batch, and ``tokens`` names the one that labels are
    made of, if there are several.

    Raises `ArgumentError` for invalid arguments. A call raises `CollateError` for a group that is longer than a row,
    for samples that differ in more than their length, and for labels of what is not token ids.
    """

    row_length: int
    value: Value = 0
    fields: Fields = None
    tokens: Any = None
    shifted: bool = True
    gives_arrays: ClassVar[bool] = True
    """A loader for a framework converts them."""

    def __post_init__(self) -> None:
        integer("row_length", self.row_length, least=1)
        object.__setattr__(self, "fields", check_fields(self.fields, FIELDS))
        object.__setattr__(self, "shifted", flag("shifted", self.shifted))
        check_value(self.value)

    def __call__(self, samples: Sequence[Any], *, empty: Empty = np.empty) -> Any:
        """Return the batch of these groups."""
        for row, group in enumerate(samples):
            if not isinstance(group, list | tuple) or not group:
                found = name_of(group) if not isinstance(group, list | tuple) else "an empty one"
                raise CollateError(
                    f"row {row} must be a list of samples; got {found}",
                    rows=(row,),
                    found=found,
                    expected="a list of samples",
                    cure="use GroupedDataset, which returns such lists",
                )
        layout = _Layout(self, [len(group) for group in samples])
        flat = [sample for group in samples for sample in group]
        if flat:
            check_names(self.value, flat[0], "")
        functions: Functions = {np.ndarray: layout.arrays, list: layout.lists}
        values = default_collate(flat, empty=empty, collate_fn_map=functions)
        if layout.lengths is None:
            raise CollateError(
                "samples have no array to concatenate",
                found=name_of(flat[0]) if flat else None,
                expected="arrays, or lists of numbers",
                cure="give at least one of them in each sample",
            )
        tokens = sum(layout.lengths)
        count_tokens(tokens, len(samples) * self.row_length - tokens)
        return layout.batch(values, empty)


@dataclass(slots=True)
class _Layout:
    """The positions of the samples of one batch; the lengths come from its first array, and the others must agree."""

    how: PackedCollate
    groups: list[int]
    lengths: list[int] | None = field(default=None)
    leaves: dict[Place, npt.NDArray[Any]] = field(default_factory=dict)

    def arrays(self, batch: Sequence[Any], *, collate_fn_map: Registry) -> Any:
        value = value_at(self.how.value, collate_fn_map.place)
        first = batch[0]
        if value is None or first.ndim == 0 or floats.kind(first.dtype) not in "biufc":
            return collate_arrays(batch, collate_fn_map=collate_fn_map)
        return self._rows(batch, value, collate_fn_map)

    def lists(self, batch: Sequence[Any], *, collate_fn_map: Registry) -> Any:
        value = value_at(self.how.value, collate_fn_map.place)
        if value is None or not all(isinstance(sample, list) and all_numbers(sample) for sample in batch):
            return collate_columns(batch, collate_fn_map)
        return self._rows(rows_of(batch, collate_fn_map), value, collate_fn_map)

    def _rows(self, batch: Sequence[Any], value: Any, registry: Registry) -> Any:
        batch = [in_memory(array) if isinstance(array, np.ndarray) else array for array in batch]
        dtype = common(batch, registry)
        if self.how.fields is not None:
            dtype = widened(dtype, batch, registry.field)
        padding = filler(value, dtype, registry)
        self._agree([len(array) for array in batch], registry)
        rows = registry.empty((len(self.groups), self.how.row_length, *batch[0].shape[1:]), dtype)
        arrays = iter(batch)
        for row, count in zip(rows, self.groups, strict=True):
            place = 0
            for _ in range(count):
                array = next(arrays)
                row[place : place + len(array)] = array
                place += len(array)
            row[place:] = padding
        self.leaves[registry.place] = rows
        return rows

    def _agree(self, lengths: list[int], registry: Registry) -> None:
        if self.lengths is not None:
            if lengths != self.lengths:
                odd = next(n for n, (one, other) in enumerate(zip(lengths, self.lengths, strict=True)) if one != other)
                raise CollateError(
                    f"sample {odd} of the batch has length {lengths[odd]} here, but {self.lengths[odd]} in another "
                    "array",
                    rows=(odd,),
                    field=registry.field,
                    found=lengths[odd],
                    expected=f"length {self.lengths[odd]} in all arrays of the sample",
                    cure="pass value=None for arrays that are not packed",
                )
            return
        self.lengths = lengths
        place = 0
        for row, count in enumerate(self.groups):
            mine = lengths[place : place + count]
            if sum(mine) > self.how.row_length:
                raise CollateError(
                    f"row {row} has samples of lengths {mine}, in total {sum(mine)}, more than "
                    f"row_length={self.how.row_length}",
                    rows=(row,),
                    field=registry.field,
                    found=sum(mine),
                    expected=f"at most {self.how.row_length}",
                    cure="use the row_length of the PackingBatchSampler, and lengths as they are after transforms",
                )
            place += count

    def batch(self, values: Any, empty: Empty) -> Any:
        """Return the batch, in the form that was asked for."""
        packed = Packed(values, *self.segments(empty))
        if self.how.fields is None:
            return packed
        lengths = iter(self.lengths or ())
        rows = [[next(lengths) for _ in range(count)] for count in self.groups]
        made = {
            "segment_ids": lambda: packed.segment_ids,
            "positions": lambda: packed.positions,
            "labels": lambda: self._labels(packed.segment_ids, empty),
            "loss_mask": lambda: self._labels(packed.segment_ids, np.empty) != IGNORED,
            "cu_seqlens": lambda: boundaries(rows, self.how.row_length)[0],
            "max_seqlen": lambda: boundaries(rows, self.how.row_length)[1],
        }
        return batch_of(cast("dict[str, str]", self.how.fields), values, made)

    def _labels(self, segments: npt.NDArray[np.int32], empty: Empty) -> npt.NDArray[np.int64]:
        return labels_of(token_rows(self.leaves, self.how.tokens), segments, shifted=self.how.shifted, empty=empty)

    def segments(self, empty: Empty) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Return the sample of each position of the rows, and the position within the sample."""
        shape = len(self.groups), self.how.row_length
        numbers, positions = empty(shape, np.dtype(np.int32)), empty(shape, np.dtype(np.int32))
        lengths = iter(self.lengths or ())
        counting = np.arange(self.how.row_length, dtype=np.int32)
        for number, position, count in zip(numbers, positions, self.groups, strict=True):
            place = 0
            for segment in range(1, count + 1):
                end = place + next(lengths)
                number[place:end] = segment
                position[place:end] = counting[: end - place]
                place = end
            number[place:] = 0
            position[place:] = 0
        return numbers, positions
