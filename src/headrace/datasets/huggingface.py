"""Datasets of Hugging Face's `datasets` library, read from the Arrow files that they lie in."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import kind_of
from headrace.datasets.arrow_dataset import ArrowDataset
from headrace.datasets.field_samples import FieldDataset
from headrace.datasets.fields import Fields
from headrace.datasets.span_table import at_once
from headrace.errors import ArgumentError, ArgumentTypeError, missing
from headrace.formats import arrow
from headrace.formats.features import classes_of
from headrace.image.decoding import DEFAULT_MAX_PIXELS, Decoding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from headrace.context.memory import Empty
    from headrace.datasets.fields import Decoder
    from headrace.datasets.image_sources import Source
    from headrace.formats.arrow import ArrowFile, Type
    from headrace.image.modes import Mode

ROWS = 1000
"""Rows of a record batch that is written to a temporary file."""

_UNCHANGED = {"cast", "combine_chunks", "replace_schema_metadata"}
"""What `datasets` does to a table without moving rows or names; a cast may change types, which is looked at."""


def from_huggingface(
    dataset: Any,
    *,
    fields: Iterable[str] | None = None,
    decoders: Mapping[str, Decoder | str | None] | None = None,
    mode: Mode = "RGB",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    allow_truncated: bool = False,
) -> HuggingFaceDataset:
    """Read a `datasets.Dataset` from its Arrow files, images by the native extension.

    >>> import datasets  # doctest: +SKIP
    >>> photos = datasets.load_dataset("imagefolder", data_dir="photos", split="train")  # doctest: +SKIP
    >>> train = from_huggingface(photos).tuple("image", "label")  # doctest: +SKIP

    A sample is the dict that ``dataset[index]`` gives, apart from images and audio: an image is an array as ``mode``
    says, audio its bytes; within lists and structs both stay dicts of bytes and path. Shuffled, selected, filtered,
    mapped, renamed and concatenated datasets are read through their indices, so `flatten_indices` is not needed.
    ``with_format("numpy")`` gives NumPy's scalars and arrays, as there. ``fields``, ``decoders``, ``mode``,
    ``max_pixels``, ``allow_truncated``: as in `ArrowDataset`.

    Columns that are in memory only (`Dataset.from_dict`, `add_column`) are written once to a temporary file, which
    is removed when the process ends.

    Raises `ArgumentTypeError` for what is no `datasets.Dataset`; `ArgumentError` for other formats and transforms;
    `BadFile` for files that change while they are read.
    """
    _check(dataset)
    decoding = Decoding(mode, max_pixels, allow_truncated)
    return HuggingFaceDataset(dataset, fields, dict(decoders or {}), decoding)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Where some rows of a column lie: a file, the rows there, and the column's name there."""

    path: str
    rows: range
    name: str


@dataclass(frozen=True, eq=False, slots=True)
class _Column:
    """A column: the files that it is in, its name there, and the row there of each row; None where they are equal."""

    part: ArrowDataset
    name: str
    rows: NDArray[np.int64] | None


class HuggingFaceDataset(FieldDataset):
    """The rows of a `datasets.Dataset`: what `from_huggingface` returns."""

    def __init__(
        self,
        dataset: Any,
        chosen: Iterable[str] | None,
        decoders: dict[str, Decoder | str | None],
        decoding: Decoding,
    ) -> None:
        form, names = dataset.format, list(dataset.column_names)
        shown = [name for name in names if name in form["columns"]]
        super().__init__(names, Fields(decoding, decoders), shown if chosen is None else chosen)
        self._as_numpy = form["type"] == "numpy"
        self._length = len(dataset)
        indices = None if dataset._indices is None else dataset._indices.column(0).to_numpy().astype(np.int64)
        blocks = getattr(dataset.data, "blocks", None) or [[dataset.data]]
        sizes = [row[0].num_rows for row in blocks]
        self._sizes = sizes if indices is None else [self._length]
        pieces = _pieces(blocks, self._chosen)
        features = {name: feature for name, feature in dataset.features.to_dict().items() if name in pieces}
        self._features = features
        self._columns = _columns(pieces, features, decoders, decoding, plain=not self._as_numpy)
        if indices is not None:
            taken: dict[int, NDArray[np.int64]] = {}
            for name, column in self._columns.items():
                rows = column.rows
                moved = taken.setdefault(id(rows), indices if rows is None else rows[indices])
                self._columns[name] = _Column(column.part, column.name, moved)

    @property
    def shards(self) -> list[str]:
        """The paths of the Arrow files."""
        return list(dict.fromkeys(path for column in self._columns.values() for path in column.part.shards))

    @property
    def shard_lengths(self) -> list[int]:
        """How many rows each part has that follow each other in the files; one part where indices are mapped."""
        return list(self._sizes)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read the sample at an index: a dict of its columns."""
        row = self._row(index)
        return {name: self._value(row, name) for name in self._chosen}

    @property
    def read_batch(self) -> Callable[..., Any] | None:
        """What reads whole batches of rows at once, where all columns are numbers or text without nulls; else None."""
        return None if self._readers(self._chosen) is None else self._read_batch

    def _read_batch(self, keys: Sequence[int], *, empty: Empty = np.empty) -> dict[str, Any]:
        return dict(zip(self._chosen, self._read_fields(self._chosen, self._rows(keys), empty), strict=True))

    def _readers(self, names: Sequence[str]) -> Sequence[Callable[[NDArray[np.int64], Empty], Any]] | None:
        if self._as_numpy:
            return None
        found: list[Callable[..., Any]] = []
        for name in names:
            column = self._columns[name]
            readers = column.part._readers([column.name])
            if readers is None:
                return None
            found.append(readers[0] if column.rows is None else partial(_moved, readers[0], column.rows))
        return found

    def is_image(self, field: str) -> bool:
        """Say whether a field is decoded as an image."""
        column = self._columns.get(field)
        return column is not None and column.part.is_image(column.name)

    def is_integer(self, field: str) -> bool:
        """Say whether a field is an integer that all samples have."""
        column = self._columns.get(field)
        return column is not None and not self._as_numpy and column.part.is_integer(column.name)

    def _classes(self, names: Iterable[str]) -> list[str]:
        return classes_of(self._features, names)

    def _place(self, row: int, name: str) -> tuple[ArrowDataset, str, int]:
        column = self._columns[name]
        return column.part, column.name, row if column.rows is None else int(column.rows[row])

    def _key(self, row: int) -> str:
        return str(row)

    def _where(self, row: int) -> str:
        if not self._chosen:
            return f"row {row}"
        part, _, place = self._place(row, self._chosen[0])
        return part._where(place)

    def _value(self, row: int, name: str) -> Any:
        part, own, place = self._place(row, name)
        found = part._value(place, own)
        return _formatted(found, part._types[own]) if self._as_numpy and not part.is_image(own) else found

    def _numbers(self, name: str) -> NDArray[Any] | None:
        if not self.is_integer(name):
            return None
        column = self._columns[name]
        found = column.part._numbers(column.name)
        return found if found is None or column.rows is None else found[column.rows]

    def _source(self, image: str, beside: Sequence[NDArray[Any]]) -> Source | None:
        column = self._columns[image]
        return column.part._images(column.name, beside, column.rows)


def _check(dataset: Any) -> None:
    try:
        from datasets import Dataset, IterableDataset
    except ImportError as error:
        raise missing("datasets", extra="huggingface", purpose="reading datasets of Hugging Face") from error
    if not isinstance(dataset, Dataset):
        cure = "Pass one of its splits." if isinstance(dataset, dict) else "Pass what datasets.load_dataset returns."
        if isinstance(dataset, IterableDataset):
            cure = "Load it without streaming=True."
        raise ArgumentTypeError(
            f"from_huggingface got {kind_of(dataset)}", found=kind_of(dataset), expected="a datasets.Dataset", cure=cure
        )
    form = dataset.format
    kind, all_columns = form["type"], form["output_all_columns"] and form["type"] is not None
    if kind not in (None, "numpy") or form["format_kwargs"] or all_columns:
        named = "a transform" if kind == "custom" else f"the format {kind!r}"
        options = " with options" if kind == "numpy" else ""
        raise ArgumentError(
            f"the dataset has {named}{options}, set by with_transform, set_transform, with_format or set_format",
            found=kind,
            expected='no format, or "numpy"',
            cure="Pass dataset.with_format(None), and functions to .map() of what from_huggingface returns.",
        )


def _pieces(blocks: Sequence[Sequence[Any]], chosen: Sequence[str]) -> dict[str, list[_Piece]]:
    """Return where each chosen column lies: blocks follow each other, and those in one row lie side by side."""
    found: dict[str, list[_Piece]] = {name: [] for name in dict.fromkeys(chosen)}
    for row in blocks:
        for block in row:
            names = [name for name in block.column_names if name in found]
            located, moved = _located(block), dict[str, str]()
            for name in names:
                first = found[name][0].name if found[name] else None
                piece = located.get(name)
                if piece is not None and first in (None, piece.name):
                    found[name].append(piece)
                else:
                    moved[name] = first or name
            if moved:
                path = _written(block.table, moved)
                for name, own in moved.items():
                    found[name].append(_Piece(path, range(block.num_rows), own))
    return found


def _located(block: Any) -> dict[str, _Piece]:
    """Return where the columns of a block lie in its file; nothing for those that are in memory only."""
    path = getattr(block, "path", None)
    if path is None or not len(block.table.schema):
        return {}
    import pyarrow as pa

    with pa.OSFile(path) as source:
        schema = pa.ipc.open_stream(source).schema
    names = {name: name for name in schema.names}
    start, size = 0, int(arrow.index(path).rows.sum())
    for done, args, kwargs in block.replays:
        given = args[0] if args else next(iter(kwargs.values()), None)
        current = list(names)
        if done == "slice":
            offset, length = args[0] if args else kwargs.get("offset", 0), args[1] if len(args) > 1 else None
            length = kwargs.get("length") if length is None else length
            start, left = start + min(offset, size), max(0, size - offset)
            size = left if length is None else min(length, left)
        elif done == "rename_columns" and isinstance(given, list):
            names = {new: names[old] for new, old in zip(given, current, strict=True)}
        elif done == "select" and isinstance(given, list):
            names = {name: names[name] for name in (current[each] if isinstance(each, int) else each for each in given)}
        elif done == "drop" and isinstance(given, list):
            names = {name: own for name, own in names.items() if name not in given}
        elif done == "remove_column" and isinstance(given, int):
            names.pop(current[given])
        elif done == "flatten":
            names = {name: own for name, own in names.items() if not pa.types.is_struct(schema.field(own).type)}
        elif done not in _UNCHANGED:
            return {}
    if size != block.num_rows:
        return {}
    types = block.table.schema
    same = {name for name in types.names if name in names and types.field(name).type == schema.field(names[name]).type}
    return {name: _Piece(path, range(start, start + size), names[name]) for name in same}


def _columns(
    pieces: dict[str, list[_Piece]],
    features: Mapping[str, Any],
    decoders: Mapping[str, Decoder | str | None],
    decoding: Decoding,
    *,
    plain: bool,
) -> dict[str, _Column]:
    """Return the columns, those of the same files together."""
    paths = list(dict.fromkeys(piece.path for each in pieces.values() for piece in each))
    files = dict(zip(paths, at_once(arrow.index, paths), strict=True))
    together = dict[tuple[tuple[str, range], ...], list[str]]()
    for name, each in pieces.items():
        together.setdefault(tuple((piece.path, piece.rows) for piece in each), []).append(name)
    found = dict[str, _Column]()
    for where, names in together.items():
        of_files = list(dict.fromkeys(path for path, _ in where))
        own = {name: pieces[name][0].name for name in names}
        part = ArrowDataset._of(
            [_only(files[path], own.values()) for path in of_files],
            decoding,
            {own[name]: decoders[name] for name in names if name in decoders},
            {own[name]: features.get(name) for name in names},
            plain=plain,
        )
        starts = dict(zip(of_files, part._file_first, strict=False))
        rows = [np.arange(starts[path] + each.start, starts[path] + each.stop) for path, each in where]
        joined = np.concatenate(rows) if rows else np.empty(0, np.int64)
        whole = np.array_equal(joined, np.arange(len(part)))
        found |= {name: _Column(part, own[name], None if whole else joined) for name in names}
    return {name: found[name] for name in pieces}


def _only(file: ArrowFile, names: Iterable[str]) -> ArrowFile:
    return replace(file, columns={name: file.columns[name] for name in names})


def _written(table: Any, names: Mapping[str, str]) -> str:
    """Write columns that are in memory to a temporary file, under other names."""
    import pyarrow as pa

    taken = table.select(list(names)).rename_columns(list(names.values()))
    handle, path = tempfile.mkstemp(".arrow", dir=_temporary())
    os.close(handle)
    with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, taken.schema) as writer:
        writer.write_table(taken, max_chunksize=ROWS)
    return path


def _temporary() -> str:
    """Return this process's folder of temporary files."""
    here = os.getpid()
    if here not in _folders:
        _folders[here] = tempfile.mkdtemp(prefix="headrace-")
        atexit.register(_remove, here)
    return _folders[here]


def _remove(process: int) -> None:
    if os.getpid() == process:  # a forked child may run what its parent registered
        shutil.rmtree(_folders[process], ignore_errors=True)


_folders = dict[int, str]()


def _moved(reader: Callable[..., Any], places: NDArray[np.int64], rows: NDArray[np.int64], empty: Empty) -> Any:
    """Read rows where an indices mapping has put them."""
    return reader(places[rows], empty)


def _formatted(found: Any, kind: Type, *, inside: bool = False) -> Any:
    """Return a value as `datasets` gives it with the format of NumPy; numbers ``inside`` a struct are arrays there."""
    if kind.layout == "struct" and isinstance(found, dict):
        return {name: _formatted(found[name], child, inside=True) for name, child in kind.children}
    if kind.layout in ("list", "fixed_list") and found is not None:
        child = kind.children[0][1]
        if isinstance(found, list) and child.layout == "fixed":
            found = np.array(found, np.float64)  # null becomes nan
        if isinstance(found, np.ndarray):
            return found.astype({"i": np.int64, "u": np.int64, "f": np.float32}.get(found.dtype.kind, found.dtype))
        return _joined([_formatted(each, child) for each in found])
    if kind.layout == "bool" or kind.dtype[1:2] in ("M", "m"):
        return np.asarray(found)
    if kind.layout == "fixed" and kind.dtype[0] != "V":
        if inside:
            return None if found is None else np.asarray(found.item() if isinstance(found, np.number) else found)
        return np.float64("nan") if found is None else np.dtype(kind.dtype).type(found)
    return found


def _joined(items: list[Any]) -> NDArray[Any]:
    """Return equal arrays as one array, and others as an array of objects."""
    arrays = [each for each in items if isinstance(each, np.ndarray | np.number)]
    if items and len(arrays) == len(items) and len({(each.shape, each.dtype) for each in arrays}) == 1:
        return np.stack(arrays)
    found = np.empty(len(items), object)
    found[:] = items
    return found
