"""The index of a dataset of shards: where each field of each sample lies, in arrays that are built once and saved."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from headrace.datasets.packed_list import PackedList
from headrace.datasets.saved_arrays import SavedArrays, save
from headrace.errors import BadFile
from headrace.formats.shard import HIDDEN
from headrace.storage import objects, request_loop
from headrace.storage.blocks import user_folder
from headrace.storage.files import unread
from headrace.storage.objects import ASKED_AT_ONCE, is_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from headrace.formats.shard import Shard

    Indexer = Callable[[str], tuple["Shard | ShardColumns", tuple[int, int]]]

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class SpanTable:
    """Where the samples of a dataset lie: an entry of each array for each sample, in the order of the shards.

    ``paths``: the shards. ``facts``: of each, its size in bytes and time of modification (ns) when it was indexed, (n,
    2) int64. ``first``: the number of each shard's first sample, and of all samples at the end. ``file``: the number of
    a sample's shard, uint32. ``offset``, ``length``: by field, in bytes, as uint32 and int32 where all fit, else int64;
    the length is -1 where a sample has no such field. ``numbers``: the values of integer fields.
    ``kinds``: what the bytes of a field are, where the format declares it. ``saved``: the path of the index, whose
    arrays have the checksums ``sums``.
    """

    paths: PackedList
    facts: NDArray[np.int64]
    first: NDArray[np.int64]
    file: NDArray[np.uint32]
    keys: PackedList
    offset: Mapping[str, NDArray[Any]]
    length: Mapping[str, NDArray[Any]]
    numbers: Mapping[str, NDArray[np.int64]]
    kinds: Mapping[str, str]
    saved: str | None = None
    sums: tuple[int, ...] = ()

    def __len__(self) -> int:
        return int(self.first[-1])

    @property
    def fields(self) -> list[str]:
        """The names of the fields, in the order in which they were first met."""
        return list(dict.fromkeys(name.partition(HIDDEN)[0] for name in self.offset))

    def key(self, row: int) -> str:
        """Return the key of a sample; raise `BadFile` for one that a forged index holds."""
        try:
            return self.keys[row]
        except UnicodeDecodeError as error:
            raise BadFile(
                f"the key of sample {row} is not UTF-8",
                path=self.saved,
                expected="an index as headrace saved it",
                cure="Delete the file; it is made again.",
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a saved index as its path: each process maps or reads it itself."""
        if self.saved is not None:
            return _reloaded, (self.saved, list(self.paths), self.facts, self.sums)
        state = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return _rebuilt, (state,)


def _rebuilt(state: dict[str, Any]) -> SpanTable:
    return SpanTable(**state)


def _reloaded(saved: str, paths: list[str], facts: NDArray[np.int64], sums: tuple[int, ...]) -> SpanTable:
    table = load(saved, paths, sums)
    if table is None or not np.array_equal(table.facts, facts):
        raise BadFile(
            "the index was removed or changed while the dataset was sent to another process",
            path=saved,
            expected="the index that the dataset was constructed with",
            cure="Construct the dataset again.",
        )
    return table


def indexed(paths: Sequence[str], indexer: Indexer, kind: str, save: str | os.PathLike[str] | None) -> SpanTable:
    """Load the saved index of shards, or build it and save it.

    A saved index is used if no shard has changed since; otherwise only the changed shards are indexed again. ``kind``
    names format and version. ``save``: the folder of indexes; "auto" is the folder of the first shard, or the user's
    cache if that folder is read-only; None saves nothing. Several processes may do this at once: each gets a whole
    index.
    """
    places = _places(paths, kind, save)
    old = next((table for place in places if (table := load(str(place), paths)) is not None), None)
    table = _joined(paths, at_once(indexer, paths)) if old is None else _followed(old, paths, indexer)
    if table is old:
        return table
    for place in places:
        if _save(table, place):
            return load(str(place), paths) or table
    return table


def _followed(old: SpanTable, paths: Sequence[str], indexer: Indexer) -> SpanTable:
    """Index the shards that have changed again, and return the index of all; the old one if none has."""
    remote = any(is_url(path) for path in paths[:1])
    stated = at_once(facts_of, paths, remote=True) if remote else [facts_of(path) for path in paths]
    now = np.array(stated, np.int64).reshape(-1, 2)
    fresh = (old.facts != now).any(axis=1)
    if not fresh.any():
        return old
    made = iter(at_once(indexer, [path for path, new in zip(paths, fresh.tolist(), strict=True) if new]))
    parts = [next(made) if new else (_part(old, number), tuple(now[number])) for number, new in enumerate(fresh)]
    return _joined(paths, parts)


def at_once(function: Callable[[Item], Result], items: Iterable[Item], *, remote: bool = False) -> list[Result]:
    """Call a function for each item, on several threads: most of the time goes into reading files.

    >>> at_once(len, ["a", "bc"])
    [1, 2]

    ``remote``: whether it waits for servers, and reads little of each object.
    """
    if remote:
        return request_loop.at_once(function, items, ASKED_AT_ONCE, "headrace-open")
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 1)) as pool:
        return list(pool.map(function, items))


@dataclass(frozen=True, slots=True)
class ShardColumns:
    """The samples of a shard, as arrays: what `Shard` holds as lists, and what an indexer may return in its place."""

    keys: PackedList
    offset: Mapping[str, NDArray[Any]]
    length: Mapping[str, NDArray[Any]]
    numbers: Mapping[str, NDArray[np.int64]]
    kinds: Mapping[str, str]


def _part(table: SpanTable, number: int) -> ShardColumns:
    """Take a shard out of an index."""
    rows = slice(int(table.first[number]), int(table.first[number + 1]))
    offset, length, numbers = (
        {name: array[rows] for name, array in arrays.items()} for arrays in (table.offset, table.length, table.numbers)
    )
    fields = {name.partition(HIDDEN)[0] for name in length if (length[name] >= 0).any()}
    held = {name for name in length if name.partition(HIDDEN)[0] in fields}
    return ShardColumns(
        table.keys[rows],
        {name: offset[name] for name in offset if name in held},
        {name: length[name] for name in length if name in held},
        numbers,
        {name: kind for name, kind in table.kinds.items() if name in held},
    )


def _as_part(shard: Shard | ShardColumns) -> ShardColumns:
    if isinstance(shard, ShardColumns):
        return shard
    return ShardColumns(
        PackedList(shard.keys),
        {name: np.asarray(spans.offset, np.int64) for name, spans in shard.fields.items()},
        {name: np.asarray(spans.length, np.int64) for name, spans in shard.fields.items()},
        {name: np.asarray(values, np.int64) for name, values in shard.numbers.items()},
        shard.kinds,
    )


def _joined(paths: Sequence[str], parts: Sequence[tuple[Shard | ShardColumns, tuple[int, int]]]) -> SpanTable:
    shards = [_as_part(shard) for shard, _ in parts]
    counts = np.array([len(shard.keys) for shard in shards], np.int64)
    names = list(dict.fromkeys(name for shard in shards for name in shard.offset))
    known = [
        name
        for name in names
        if all(name in shard.numbers for shard in shards if len(shard.keys)) and any(len(s.keys) for s in shards)
    ]

    def joined(arrays: list[Mapping[str, NDArray[Any]]], name: str, missing: int) -> NDArray[np.int64]:
        pieces = [
            each[name] if name in each else np.full(count, missing, np.int64)
            for each, count in zip(arrays, counts, strict=True)
        ]
        return np.concatenate(pieces).astype(np.int64, copy=False) if pieces else np.empty(0, np.int64)

    return SpanTable(
        PackedList(paths),
        np.array([facts for _, facts in parts], np.int64).reshape(-1, 2),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.repeat(np.arange(len(paths), dtype=np.uint32), counts),
        PackedList.joined(shard.keys for shard in shards),
        {name: _narrow(joined([shard.offset for shard in shards], name, 0), np.dtype("<u4")) for name in names},
        {name: _narrow(joined([shard.length for shard in shards], name, -1), np.dtype("<i4")) for name in names},
        {name: joined([shard.numbers for shard in shards], name, 0) for name in known},
        _kinds(paths, shards),
    )


def _narrow(numbers: NDArray[np.int64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return numbers in a dtype of 4 bytes where all fit: an index of many samples takes half of the memory."""
    held = np.iinfo(dtype)
    fits = not len(numbers) or (int(numbers.min()) >= held.min and int(numbers.max()) <= held.max)
    return numbers.astype(dtype) if fits else numbers


def _kinds(paths: Sequence[str], shards: Sequence[ShardColumns]) -> dict[str, str]:
    """Return what the fields hold; all shards must agree."""
    kinds = dict[str, str]()
    for path, shard in zip(paths, shards, strict=True):
        for name, kind in shard.kinds.items():
            if kinds.setdefault(name, kind) != kind:
                raise BadFile(
                    f"field {name!r} holds {kind}, and {kinds[name]} in shards before this one",
                    path=path,
                    expected="each field of one kind in all shards",
                    cure="Read these shards as two datasets, or write one of them again.",
                )
    return kinds


def load(place: str, paths: Sequence[str], sums: tuple[int, ...] | None = None) -> SpanTable | None:
    """Return the saved index of these shards; None if there is none, or it is damaged.

    ``sums`` are those of an index that another process has checked: it must be the same, and is not read again.
    """
    try:
        with SavedArrays(place) as saved:
            about = saved.about
            if about["paths"] != _names(paths) or (sums is not None and sums != saved.sums):
                return None
            offset, length, numbers = (
                {name: saved.array(f"{kind}:{name}") for name in about[kind]}
                for kind in ("offset", "length", "numbers")
            )
            keys = PackedList.of_arrays(saved.array("text"), saved.array("ends"))
            kinds = {str(name): str(kind) for name, kind in about["kinds"].items()}
            facts, first, file = saved.array("facts").reshape(-1, 2), saved.array("first"), saved.array("file")
            table = SpanTable(
                PackedList(paths), facts, first, file, keys, offset, length, numbers, kinds, place, saved.sums
            )
            return table if _fits(table) and (sums is not None or _is_true(saved, table)) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _fits(table: SpanTable) -> bool:
    """Say whether the arrays of an index belong together."""
    first, size = table.first, len(table.keys)
    arrays = [table.file, *table.offset.values(), *table.length.values(), *table.numbers.values()]
    return bool(
        len(table.facts) == len(table.paths) == len(first) - 1
        and first[0] == 0
        and first[-1] == size
        and (np.diff(first) >= 0).all()
        and all(len(array) == size for array in arrays)
        and set(table.offset) == set(table.length)
        and set(table.numbers) <= set(table.offset)
    )


def _is_true(saved: SavedArrays, table: SpanTable) -> bool:
    """Say whether checksums match and every range lies in its shard: a forged index may have true checksums.

    The arrays are read, not mapped: so they take no memory of a process that only opens the dataset.
    """
    checks = [partial(_sum, saved, name) for name in ("facts", "first", "text")]
    checks += [partial(_sum, saved, f"numbers:{name}") for name in table.numbers]
    checks += [partial(_ascends, saved, len(table.keys._text)), partial(_in_order, saved, table)]
    checks += [partial(_in_shards, saved, table, name) for name in table.offset]
    return all(at_once(lambda check: check(), checks))


def _sum(saved: SavedArrays, name: str) -> bool:
    return all(True for _ in saved.blocks(name))


def _ascends(saved: SavedArrays, size: int) -> bool:
    """Say whether the ends of the keys ascend from 0 to the end of their text."""
    last = 0
    for ends in saved.blocks("ends"):
        if int(ends[0]) < last or (ends[1:] < ends[:-1]).any():
            return False
        last = int(ends[-1])
    return last == size


def _in_order(saved: SavedArrays, table: SpanTable) -> bool:
    """Say whether each sample has the number of its shard."""
    begin = 0
    for file in saved.blocks("file"):
        if not np.array_equal(file, _of_rows(table, np.arange(len(table.paths)), begin, len(file))):
            return False
        begin += len(file)
    return True


def _in_shards(saved: SavedArrays, table: SpanTable, name: str) -> bool:
    """Say whether the ranges of a field lie in their shards; those of a helper column are checked when it is read."""
    begin = 0
    for offset, length in zip(saved.blocks(f"offset:{name}"), saved.blocks(f"length:{name}"), strict=True):
        sizes = _of_rows(table, table.facts[:, 0], begin, len(offset))
        begin += len(offset)
        at = offset.astype(np.int64, copy=False)
        if HIDDEN not in name and not ((length < 0) | ((at >= 0) & (at <= sizes - length))).all():
            return False
    return True


def _of_rows(table: SpanTable, values: NDArray[np.int64], begin: int, count: int) -> NDArray[np.int64]:
    """Return the values of shards for each of these rows."""
    least, most = np.searchsorted(table.first, [begin, begin + count], "right") - 1
    shards = slice(int(least), int(most) + 1)
    ends = np.clip(table.first[shards.start : shards.stop + 1], begin, begin + count)
    counts = ends[1:] - ends[:-1]
    return np.repeat(values[shards][: len(counts)], counts)


def _save(table: SpanTable, place: Path) -> bool:
    arrays: dict[str, NDArray[Any]] = {
        "facts": table.facts.reshape(-1),
        "first": table.first,
        "file": table.file,
        "text": table.keys._text,
        "ends": table.keys._ends,
    }
    about: dict[str, Any] = {"paths": _names(list(table.paths)), "kinds": dict(table.kinds)}
    for kind, of_fields in (("offset", table.offset), ("length", table.length), ("numbers", table.numbers)):
        arrays |= {f"{kind}:{name}": array for name, array in of_fields.items()}
        about[kind] = list(of_fields)
    return save(place, about, arrays)


def _names(paths: Sequence[str]) -> list[str]:
    """Return the shards by name below the folder of the first, so that a dataset may be moved with its index."""
    folder = "" if not paths else objects.folder_of(paths[0]) if is_url(paths[0]) else os.path.dirname(paths[0])  # noqa: PTH120
    below = os.path.join(folder, "") if folder else "\0"  # noqa: PTH118  of a million shards, most are below it
    return [path[len(below) :] if path.startswith(below) else _relative(path, folder or ".") for path in paths]


def _relative(path: str, folder: str) -> str:
    return path if is_url(path) else os.path.relpath(path, folder)


_A_FOLDER = "Pass a folder on this machine, or one that all machines see."


def _places(paths: Sequence[str], kind: str, save: str | os.PathLike[str] | None) -> list[Path]:
    if save is None or not paths:
        return []
    told = json.dumps([kind, _names(paths)]).encode("utf-8", "surrogatepass")
    if save != "auto":
        first = paths[0]
        base = objects.folder_of(first if is_url(first) else os.path.abspath(first))  # noqa: PTH100
        folder = base.encode("utf-8", "surrogatepass")
        return [
            Path(objects.local("index", save, _A_FOLDER)) / f"{hashlib.sha256(told + folder).hexdigest()[:16]}.index"
        ]
    if is_url(paths[0]):
        return _places(paths, kind, cache_folder())
    beside = Path(paths[0]).parent / f".headrace-{hashlib.sha256(told).hexdigest()[:16]}.index"
    return [beside, *_places(paths, kind, cache_folder())]


def cache_folder() -> Path:
    """Return the user's folder for indexes, as the XDG base directory specification has it."""
    return user_folder("indexes")


def facts_of(path: str, cure: str = "Give the path of a shard.") -> tuple[int, int]:
    """Return what tells a shard from another one: its size, and its time of modification or the number of its version.

    ``cure`` is the advice of errors. Raises `MissingFile` and `UnreadableFile`.
    """
    if is_url(path):
        return objects.facts(path)
    try:
        found = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError) as error:
        raise unread(path, error, cure) from error
    return found.st_size, found.st_mtime_ns
