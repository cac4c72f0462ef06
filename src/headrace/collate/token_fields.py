"""What a training step needs beside rows of tokens, under names of the user's choice: labels, masks, boundaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import one_of, shown
from headrace.collate.default import name_of
from headrace.errors import ArgumentError, CollateError, CollateTypeError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from headrace.context.memory import Empty

IGNORED = -100
"""The label that torch's cross entropy, and most others, leave out."""

Place = tuple[Any, ...]
Fields = Sequence[str] | Mapping[str, str] | None
"""The fields of a batch: their names, or a new name for each."""


def check_fields(fields: Any, known: Sequence[str]) -> dict[str, str] | None:
    """Return the fields of a batch with the name of each in it.

    >>> check_fields(["values", "labels"], ["values", "labels", "positions"])
    {'values': 'values', 'labels': 'labels'}
    >>> check_fields({"values": "input_ids"}, ["values"])
    {'values': 'input_ids'}
    """
    if fields is None:
        return None
    if not isinstance(fields, Mapping | Sequence) or isinstance(fields, str | bytes):
        expected = "names of fields, or a mapping from them to names in the batch"
        raise ArgumentError(f"fields must be {expected}; got {shown(fields)}", found=fields, expected=expected)
    named = dict(fields) if isinstance(fields, Mapping) else {name: name for name in fields}
    for field in named:
        one_of("each of fields", field, known)
    if len(set(named.values())) < len(named):
        raise ArgumentError(
            f"two of fields have the same name: {shown(named)}",
            found=named,
            expected="a name of its own for each field",
            cure="rename one of them",
        )
    return named


def widened(dtype: np.dtype[Any], batch: Sequence[npt.NDArray[Any]], field: str) -> np.dtype[Any]:
    """Return int64 for a dtype of integers, any other as it is; raise for integers that int64 cannot hold.

    >>> widened(np.dtype(np.uint16), [], ""), widened(np.dtype(np.float32), [], "")
    (dtype('int64'), dtype('float32'))
    """
    if dtype.kind not in "iu":
        return dtype
    if dtype == np.uint64:
        for row, array in enumerate(batch):
            if array.size and (most := int(array.max())) >= 2**63:
                raise CollateError(
                    f"sample {row} of the batch has the token {most}, which int64 cannot hold",
                    rows=(row,),
                    field=field,
                    found=most,
                    expected="tokens below 2**63",
                    cure="check the tokens, or leave fields out",
                )
    return np.dtype(np.int64)


def token_rows(leaves: Mapping[Place, npt.NDArray[Any]], tokens: Any) -> npt.NDArray[Any]:
    """Return the leaf that holds token ids: the one named, or the only one."""
    place = (tokens,) if tokens is not None else next(iter(leaves)) if len(leaves) == 1 else None
    rows = None if place is None else leaves.get(place)
    if rows is None:
        names = ", ".join(repr(place[0]) for place in leaves if place)
        raise CollateError(
            f"no tokens to make labels from: tokens={tokens!r}, and the samples have {names or 'no names'}",
            found=tokens,
            expected="the name of the tokens in a sample",
            cure="pass tokens=, the key of a mapping or the place in a tuple",
        )
    if rows.ndim != 2 or rows.dtype.kind not in "iu":
        raise CollateTypeError(
            f"labels are made of token ids, but the tokens are {rows.dtype} of shape {rows.shape[1:]} each",
            found=str(rows.dtype),
            expected="rows of integers",
            cure='leave "labels" and "loss_mask" out of fields, or pass tokens=',
        )
    return rows


def labels_of(
    tokens: npt.NDArray[Any], segments: npt.NDArray[Any], *, shifted: bool, empty: Empty = np.empty
) -> npt.NDArray[np.int64]:
    """Return for each position the next token of its sample; or not ``shifted``, the token that the one before it has.

    >>> tokens, segments = np.array([[5, 6, 7, 8, 0]]), np.array([[1, 1, 2, 2, 0]])
    >>> labels_of(tokens, segments, shifted=True), labels_of(tokens, segments, shifted=False)
    (array([[   6, -100,    8, -100, -100]]), array([[-100,    6, -100,    8, -100]]))
    """
    labels = empty(tokens.shape, np.dtype(np.int64))
    labels[...] = IGNORED
    follows = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] != 0)
    np.copyto(labels[:, :-1] if shifted else labels[:, 1:], tokens[:, 1:], where=follows, casting="unsafe")
    return labels


def boundaries(lengths: Sequence[Sequence[int]], row_length: int) -> tuple[npt.NDArray[np.int32], int]:
    """Return where sequences begin and end in the flattened rows, and the length of the longest.

    >>> boundaries([[2, 1], [4]], 4)
    (array([0, 2, 3, 4, 8], dtype=int32), 4)

    The padding of a row is a sequence of its own, as otherwise the last sample would attend to it.
    """
    sizes = [size for row in lengths for size in (*row, row_length - sum(row)) if size]
    ends = np.zeros(len(sizes) + 1, np.int32)
    np.cumsum(sizes, out=ends[1:])
    return ends, max(sizes, default=0)


def batch_of(fields: Mapping[str, str], values: Any, made: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Return a batch with these fields; those of samples that are mappings keep their own names."""
    batch: dict[str, Any] = dict(values) if isinstance(values, Mapping) else {}
    for field, name in fields.items():
        if field == "values":
            if not isinstance(values, Mapping):
                batch[name] = values
            continue
        if name in batch:
            raise CollateError(
                f"the samples have a field {name!r}, and {field} would have the same name",
                field=name,
                found=name_of(batch[name]),
                expected="another name",
                cure=f"pass fields={{{field!r}: 'another name', …}}",
            )
        batch[name] = made[field]()
    return batch
