"""Columns of lists of integers in Arrow files: a record batch is a piece of a file of tokens, a row a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import shown
from headrace.errors import ArgumentError, BadFile
from headrace.formats import arrow
from headrace.formats.arrow import Column
from headrace.formats.arrow_values import Batch, Buffers
from headrace.formats.token_file import TokenFile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from headrace.formats.arrow import ArrowFile, Type

MAGIC = arrow.MAGIC
USUAL = ("input_ids", "tokens")
"""The columns that are read, in this order, where a file has several of lists of integers and none was named."""


def index(path: str, field: str | None) -> TokenFile:
    """Say where the tokens of a column are; raise `BadFile` for a damaged file, `ArgumentError` for another column."""
    file = arrow.index(path)
    return tokens_of(file, column_of(path, {name: column.type for name, column in file.columns.items()}, field))


def column_of(path: str, types: Mapping[str, Type], field: str | None) -> str:
    """Return the name of the column of lists of integers: the given one, the usual one, or the only one."""
    names = [name for name, kind in types.items() if _holds_tokens(kind)]
    return choose(names, {name: kind.name for name, kind in types.items()}, field, path)


def choose(names: Sequence[str], types: Mapping[str, str], field: str | None, path: str) -> str:
    """Return the column of tokens among those of lists of integers; ``types`` are those of all columns, for the error.

    >>> choose(["attention_mask", "input_ids"], {}, None, "a.arrow")
    'input_ids'
    """
    if field is not None:
        found = [name for name in names if name == field]
    else:
        found = list(names) if len(names) == 1 else [name for name in USUAL if name in names][:1]
    if found:
        return found[0]
    have = ", ".join(f"{name} ({kind})" for name, kind in types.items())
    raise ArgumentError(
        f"{path}: {f'field={field!r} holds' if field else f'{len(names)} columns hold'} "
        f"{'no ' if field else ''}lists of integers; it has {shown(have)}",
        path=path,
        found=field,
        expected="a column of lists of integers",
        cure="Pass field= with its name.",
    )


def tokens_of(file: ArrowFile, name: str) -> TokenFile:
    """Return the pieces and documents of a column in an indexed file."""
    column = file.columns[name]
    kind = column.type.children[0][1]
    is_list = column.type.layout == "list"
    child = Column(kind, column.node + 1, column.buffer + (2 if is_list else 1))
    buffers = Buffers()
    try:
        pieces, lengths = list[tuple[int, int]](), [np.empty(0, np.int64)]
        for number, rows in enumerate(file.rows.tolist()):
            batch = Batch(file, number, buffers)
            offsets = _offsets(batch, column, rows)
            begin, end = int(offsets[0]), int(offsets[-1])
            _refuse(
                file,
                number,
                has_nulls=any(batch.valid(*each) is not None for each in ((column, 0, rows), (child, begin, end))),
            )
            at = batch.place(child.buffer + 1, begin * kind.width, (end - begin) * kind.width) if end > begin else 0
            pieces.append((at, end - begin))
            lengths.append(np.diff(offsets))
    except BadFile:
        raise
    except ValueError as error:
        raise BadFile(
            f"column {name!r} cannot be read: {error}",
            path=file.path,
            expected="an undamaged, uncompressed column of lists of integers without nulls",
            cure="Write the file again, without compression and null rows.",
        ) from error
    where = np.array(pieces, np.int64).reshape(-1, 2)
    found = TokenFile(file.path, file.facts, np.dtype(kind.stored), where, has_documents=True)
    return found.with_lengths(np.concatenate(lengths))


def _refuse(file: ArrowFile, number: int, *, has_nulls: bool) -> None:
    if file.codec:
        raise ValueError(f"its buffers are compressed ({file.codec}), and tokens are read where they lie")
    if has_nulls:
        raise ValueError(f"record batch {number} has null rows, or null tokens")


def _holds_tokens(kind: Type) -> bool:
    if kind.layout not in ("list", "fixed_list"):
        return False
    child: Any = kind.children[0][1]
    return bool(child.is_number and child.stored[1] in "iu")


def _offsets(batch: Batch, column: Column, rows: int) -> NDArray[np.int64]:
    if column.type.layout == "list":
        return batch.offsets(column, 0, rows)
    return np.arange(rows + 1, dtype=np.int64) * column.type.width
