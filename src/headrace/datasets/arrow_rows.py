"""Rows whose columns lie in Arrow's buffers, wherever those come from: what Arrow files and Parquet share."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.context.timing import timed
from headrace.datasets.field_samples import FieldDataset
from headrace.datasets.fields import Fields
from headrace.errors import ArgumentError, BadFile, HeadraceError, SampleError
from headrace.formats.arrow_values import blob, value, values
from headrace.formats.features import classes_of, has_shape, is_file, kind_of, shaped
from headrace.storage.files import read_file
from headrace.storage.objects import is_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from headrace.datasets.fields import Decoder
    from headrace.formats.arrow import Column, Type
    from headrace.formats.arrow_values import Batch
    from headrace.image.decoding import Decoding


class ArrowRows(FieldDataset):
    """The base of datasets whose columns have Arrow's types.

    >>> from headrace.datasets import ArrowDataset
    >>> issubclass(ArrowDataset, ArrowRows)
    True

    A format calls ``_lay_out``, and defines ``shard_lengths``, ``_place`` (the record batch of a row, the column in it,
    the row there), ``_each_batch`` (all of them, with the rows before and in each) and ``_has_nulls``.
    """

    def __init__(
        self,
        types: Mapping[str, Type],
        features: Mapping[str, Any],
        decoding: Decoding,
        decoders: Mapping[str, Decoder | str | None],
        chosen: Iterable[str] | None,
        *,
        follow_paths: bool,
        plain: bool = False,
    ) -> None:
        self._types, self._features = dict(types), dict(features)
        self._follow, self._plain = follow_paths, plain
        kinds = {name: kind_of(kind, self._features.get(name)) for name, kind in self._types.items()}
        read = Fields(decoding, decoders, {name: kind for name, kind in kinds.items() if kind})
        super().__init__(list(self._types), read, chosen)
        for name in self._chosen:
            _refuse(name, self._types[name], read, kinds[name])
        self._decoded_fields = {name for name, kind in kinds.items() if kind and (kind == "jpg" or read.has_own(name))}
        self._decoded_fields |= {name for name, kind in self._types.items() if is_file(kind)}
        self._shaped = set() if plain else {name for name, each in self._features.items() if has_shape(each)}
        self._read_numbers: dict[str, NDArray[np.int64]] = {}

    def _lay_out(self, paths: Sequence[str], rows: Sequence[Sequence[int]]) -> None:
        """Note the files, and how many rows each part of each has."""
        self._paths = list(paths)
        self._remote = any(is_url(path) for path in paths)
        self._first: list[int] = np.cumsum([0, *(each for file in rows for each in file)]).tolist()
        """The number of each part's first row, and of all rows at the end."""
        self._file_first: list[int] = np.cumsum([0, *map(sum, rows)]).tolist()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_read_numbers": {}}

    @property
    def shards(self) -> list[str]:
        """The paths of the files, in order."""
        return list(self._paths)

    def __len__(self) -> int:
        return self._first[-1]

    def is_integer(self, field: str) -> bool:
        """Say whether a field is an integer that all samples have."""
        kind = self._types.get(field)
        return kind is not None and kind.is_integer and self._fields.is_integer(field) and not self._has_nulls(field)

    def read(self, index: int, field: str) -> bytes:
        """Read the bytes of a field of text, bytes, or an image, without decoding them.

        Raises `SampleError` for null, and `ArgumentError` for a field of another type.
        """
        row, name = self._row(index), self._known(field)
        if not _has_bytes(self._types[name]):
            raise ArgumentError(
                f"field {name!r} holds {self._types[name].name}, which is no bytes",
                found=self._types[name].name,
                expected="a field of text, bytes or images",
                cure="Read its value: dataset[index].",
            )
        data = self._bytes(row, name)
        if data is None:
            raise SampleError(
                f"field {name!r} is null", path=self._where(row), index=row, expected="bytes", cure="Leave the row out."
            )
        return data

    def _value(self, row: int, name: str) -> Any:
        if name in self._read_numbers:
            return int(self._read_numbers[name][row])
        if name in self._decoded_fields:
            data = self._bytes(row, name)
            return None if data is None else self._decoded(row, name, data)
        batch, column, place = self._place(row, name)
        try:
            with timed("read"):
                found = value(batch, column, place, plain=self._plain)
        except ValueError as error:
            raise self._damaged(row, name, error) from error
        return shaped(found, self._features[name]) if name in self._shaped else found

    def _bytes(self, row: int, name: str) -> bytes | None:
        """Return the bytes of a field; None for null."""
        batch, column, place = self._place(row, name)
        try:
            data, path = _stored(batch, column, place)
        except ValueError as error:
            raise self._damaged(row, name, error) from error
        if data is not None or path is None:
            return data
        if not self._follow:
            raise _elsewhere(name, self._where(row), path)
        try:
            with timed("read"):
                return read_file(path)
        except SampleError as error:
            error.at(row)
            raise

    def _damaged(self, row: int, name: str, error: ValueError) -> HeadraceError:
        if isinstance(error, HeadraceError):
            return error
        return BadFile(
            f"field {name!r} cannot be read: {error}",
            path=self._where(row),
            expected="an undamaged Arrow file",
            cure="Copy the file again, or write it again.",
        )

    def _numbers(self, name: str) -> NDArray[Any] | None:
        if name not in self._read_numbers and self.is_integer(name):
            found = np.empty(len(self), np.int64)
            for first, batch, column, count in self._each_batch(name):
                try:
                    found[first : first + count] = values(batch, column, 0, count, plain=False)
                except ValueError as error:
                    raise self._damaged(first, name, error) from error
            self._read_numbers[name] = found
        return self._read_numbers.get(name)

    def _classes(self, names: Iterable[str]) -> list[str]:
        return classes_of(self._features, names)

    def _key(self, row: int) -> str:
        return str(row - self._file_first[self._file_of(row)])

    def _where(self, row: int) -> str:
        return f"{self._paths[self._file_of(row)]}: {self._key(row)}"

    def _file_of(self, row: int) -> int:
        return bisect_right(self._file_first, row) - 1

    def _place(self, row: int, name: str) -> tuple[Batch, Column, int]:
        """Return the batch of a row, the column there, and the row in the batch."""
        raise NotImplementedError(f"{type(self).__qualname__} must define _place")

    def _each_batch(self, name: str) -> Iterable[tuple[int, Batch, Column, int]]:
        """Yield the rows before each batch, the batch, a column there, and its rows."""
        raise NotImplementedError(f"{type(self).__qualname__} must define _each_batch")

    def _has_nulls(self, name: str) -> bool:
        """Say whether a column may have nulls."""
        raise NotImplementedError(f"{type(self).__qualname__} must define _has_nulls")


def agreed(files: Iterable[tuple[str, Mapping[str, Type]]]) -> dict[str, Type]:
    """Return the types of the columns; all files must have the same, in any order."""
    types: dict[str, Type] = {}
    for number, (path, found) in enumerate(files):
        types = types if number else dict(found)
        for name in [*types, *found]:
            first, here = (each[name].name if name in each else "no such column" for each in (types, found))
            if first != here:
                raise BadFile(
                    f"column {name!r} holds {here}, and {first} in files before this one",
                    path=path,
                    expected="the same columns in all files",
                    cure="Read these files as two datasets, or write one of them again.",
                )
    return types


def _has_bytes(kind: Type) -> bool:
    return kind.layout == "binary" or is_file(kind)


def _stored(batch: Batch, column: Column, row: int) -> tuple[bytes | None, str | None]:
    """Return the bytes of a row; of an image in a file of its own, the path."""
    with timed("read"):
        if column.type.layout != "struct":
            return blob(batch, column, row), None
        if batch.is_null(column, row):
            return None, None
        data = blob(batch, column.child("bytes"), row)
        return data, None if data is not None else value(batch, column.child("path"), row, plain=False)


def _refuse(name: str, kind: Type, fields: Fields, known: str | None) -> None:
    """Raise `ArgumentError` for a column of a type that is not read, and for decoders of what is no bytes."""
    if any(each.layout == "other" for each in _inside(kind)):
        raise ArgumentError(
            f"column {name!r} holds {kind.name}, which is not read",
            found=kind.name,
            expected="numbers, text, bytes, times, lists and structs",
            cure="Leave it out with fields=, or write it as another type.",
        )
    if known is None and not kind.is_integer and fields.has_own(name):
        raise ArgumentError(
            f"decoders has {name!r}, which holds {kind.name}",
            found=kind.name,
            expected="decoders of columns of bytes, text or images",
            cure="Take it out of decoders=, and pass a function to .map() instead.",
        )


def _inside(kind: Type) -> Iterable[Type]:
    yield kind
    for _, child in kind.children:
        yield from _inside(child)


def _elsewhere(name: str, place: str, path: str) -> SampleError:
    return SampleError(
        f"field {name!r} has no bytes, only the path {path[:200]!r}",
        path=place,
        expected="images in the Arrow file",
        cure="Pass follow_paths=True if you trust whoever wrote the file to name files of yours.",
    )
