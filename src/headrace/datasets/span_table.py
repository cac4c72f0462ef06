"""The index of a dataset of shards: where each field of each sample lies, in arrays that are built once and saved."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from headrace.datasets.packed_list import PackedList
from headrace.errors import BadFile, SampleError
from headrace.formats.shard import HIDDEN
from headrace.storage.files import unread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from headrace.formats.shard import Shard

    Indexer = Callable[[str], tuple[Shard, tuple[int, int]]]

Item = TypeVar("Item")
Result = TypeVar("Result")

MAGIC = b"headrace index 1\n"
MAPPED_FROM = 1 << 26
"""Bytes from which on a saved index is memory-mapped, so that workers share it; a smaller one is read and checked."""

_ALIGNED = 64
_DTYPES = ("|u1", "<u4", "<u8", "<i8")
_MOST_HEADER = 1 << 26


@dataclass(frozen=True, eq=False)
class SpanTable:
    """Where the samples of a dataset lie: an entry of each array for each sample, in the order of the shards.

    ``paths``: the shards. ``facts``: of each, its size in bytes and time of modification (ns) when it was indexed, (n,
    2) int64. ``first``: the number of each shard's first sample, and of all samples at the end. ``offset``, ``length``:
    by field, in bytes; the length is -1 where a sample has no such field. ``numbers``: the values of integer fields.
    ``kinds``: what the bytes of a field are, where the format declares it.
    """

    paths: PackedList
    facts: NDArray[np.int64]
    first: NDArray[np.int64]
    file: NDArray[np.int64]
    keys: PackedList
    offset: Mapping[str, NDArray[np.int64]]
    length: Mapping[str, NDArray[np.int64]]
    numbers: Mapping[str, NDArray[np.int64]]
    kinds: Mapping[str, str]
    saved: str | None = None

    def __len__(self) -> int:
        return int(self.first[-1])

    @property
    def fields(self) -> list[str]:
        """The names of the fields, in the order in which they were first met."""
        return list(dict.fromkeys(name.partition(HIDDEN)[0] for name in self.offset))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a saved index as its path: each process maps or reads it itself."""
        if self.saved is not None:
            return _reloaded, (self.saved, list(self.paths), self.facts)
        state = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return _rebuilt, (state,)


def _rebuilt(state: dict[str, Any]) -> SpanTable:
    return SpanTable(**state)


def _reloaded(saved: str, paths: list[str], facts: NDArray[np.int64]) -> SpanTable:
    table = load(saved, paths)
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
    now = np.array([_facts(path) for path in paths], np.int64).reshape(-1, 2)
    if old is not None and np.array_equal(old.facts, now):
        return old
    fresh = np.ones(len(paths), bool) if old is None else (old.facts != now).any(axis=1)
    changed = [path for path, new in zip(paths, fresh.tolist(), strict=True) if new]
    made = iter(at_once(indexer, changed))
    parts = [next(made) if new else (_part(old, number), tuple(now[number])) for number, new in enumerate(fresh)]
    table = _joined(paths, parts)
    for place in places:
        if _save(table, place):
            return load(str(place), paths) or table
    return table


def at_once(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Call a function for each item, on several threads: most of the time goes into reading files.

    >>> at_once(len, ["a", "bc"])
    [1, 2]
    """
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 1)) as pool:
        return list(pool.map(function, items))


@dataclass(frozen=True, slots=True)
class _Part:
    """The samples of a shard, as arrays."""

    keys: PackedList
    offset: Mapping[str, NDArray[np.int64]]
    length: Mapping[str, NDArray[np.int64]]
    numbers: Mapping[str, NDArray[np.int64]]
    kinds: Mapping[str, str]


def _part(table: SpanTable | None, number: int) -> _Part:
    """Take a shard out of an index."""
    assert table is not None  # noqa: S101  for the type checker: a shard is old only where there is an old index
    rows = slice(int(table.first[number]), int(table.first[number + 1]))
    offset, length, numbers = (
        {name: array[rows] for name, array in arrays.items()} for arrays in (table.offset, table.length, table.numbers)
    )
    fields = {name.partition(HIDDEN)[0] for name in length if (length[name] >= 0).any()}
    held = {name for name in length if name.partition(HIDDEN)[0] in fields}
    return _Part(
        table.keys[rows],
        {name: offset[name] for name in offset if name in held},
        {name: length[name] for name in length if name in held},
        numbers,
        {name: kind for name, kind in table.kinds.items() if name in held},
    )


def _as_part(shard: Shard | _Part) -> _Part:
    if isinstance(shard, _Part):
        return shard
    return _Part(
        PackedList(shard.keys),
        {name: np.asarray(spans.offset, np.int64) for name, spans in shard.fields.items()},
        {name: np.asarray(spans.length, np.int64) for name, spans in shard.fields.items()},
        {name: np.asarray(values, np.int64) for name, values in shard.numbers.items()},
        shard.kinds,
    )


def _joined(paths: Sequence[str], parts: Sequence[tuple[Shard | _Part, tuple[int, int]]]) -> SpanTable:
    shards = [_as_part(shard) for shard, _ in parts]
    counts = np.array([len(shard.keys) for shard in shards], np.int64)
    names = list(dict.fromkeys(name for shard in shards for name in shard.offset))
    known = [
        name
        for name in names
        if all(name in shard.numbers for shard in shards if len(shard.keys)) and any(len(s.keys) for s in shards)
    ]

    def joined(arrays: list[Mapping[str, NDArray[np.int64]]], name: str, missing: int) -> NDArray[np.int64]:
        pieces = [
            each[name] if name in each else np.full(count, missing, np.int64)
            for each, count in zip(arrays, counts, strict=True)
        ]
        return np.concatenate(pieces) if pieces else np.empty(0, np.int64)

    return SpanTable(
        PackedList(paths),
        np.array([facts for _, facts in parts], np.int64).reshape(-1, 2),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.repeat(np.arange(len(paths), dtype=np.int64), counts),
        PackedList(key for shard in shards for key in shard.keys),
        {name: joined([shard.offset for shard in shards], name, 0) for name in names},
        {name: joined([shard.length for shard in shards], name, -1) for name in names},
        {name: joined([shard.numbers for shard in shards], name, 0) for name in known},
        _kinds(paths, shards),
    )


def _kinds(paths: Sequence[str], shards: Sequence[_Part]) -> dict[str, str]:
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


def load(place: str, paths: Sequence[str]) -> SpanTable | None:
    """Return the saved index of these shards; None if there is none, or it is damaged."""
    try:
        with open(place, "rb") as file:  # noqa: PTH123
            size = os.fstat(file.fileno()).st_size
            head = file.read(len(MAGIC) + 8)
            start = len(head) + int.from_bytes(head[len(MAGIC) :], "little")
            if head[: len(MAGIC)] != MAGIC or start > min(_MOST_HEADER, size):
                return None
            header = json.loads(file.read(start - len(head)))
            data = file.read() if size < MAPPED_FROM else None
        if header["paths"] != _names(paths) or (data is not None and zlib.crc32(data) != header["crc"]):
            return None
        held = {name: _array(place, data, start, size, *told) for name, told in header["arrays"].items()}
        offset, length, numbers = (
            {name: held[f"{kind}:{name}"] for name in header[kind]} for kind in ("offset", "length", "numbers")
        )
        keys = PackedList.of_arrays(held["text"], held["ends"])
        facts, first, of_shard = held["facts"].reshape(-1, 2), held["first"], held["file"]
        kinds = {str(name): str(kind) for name, kind in header["kinds"].items()}
        table = SpanTable(PackedList(paths), facts, first, of_shard, keys, offset, length, numbers, kinds, place)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return table if _fits(table) and (data is None or _in_shards(table)) else None


def _array(place: str, data: bytes | None, start: int, size: int, dtype: str, count: int, at: int) -> NDArray[Any]:
    """Return an array of a saved index: of its bytes, or a map of a large file."""
    if dtype not in _DTYPES or min(count, at) < 0 or start + at + count * np.dtype(dtype).itemsize > size:
        raise ValueError(dtype)
    if data is not None or not count:
        return np.frombuffer(data or b"", dtype, count, at if count else 0)
    return np.memmap(place, dtype, "r", start + at, (count,))


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


def _in_shards(table: SpanTable) -> bool:
    """Say whether every range lies in its shard: a forged index may have a true checksum."""
    if not np.array_equal(table.file, np.repeat(np.arange(len(table.paths)), np.diff(table.first))):
        return False
    sizes = table.facts[:, 0][table.file]
    return all(
        bool(((table.length[name] < 0) | ((offset >= 0) & (offset <= sizes - table.length[name]))).all())
        for name, offset in table.offset.items()
        if HIDDEN not in name
    )


def _save(table: SpanTable, place: Path) -> bool:
    """Save an index under a temporary name, then rename it, so that nobody reads half of one; False if that fails."""
    arrays: dict[str, NDArray[Any]] = {
        "facts": table.facts.reshape(-1),
        "first": table.first,
        "file": table.file,
        "text": table.keys._text,
        "ends": table.keys._ends,
    }
    for kind, of_fields in (("offset", table.offset), ("length", table.length), ("numbers", table.numbers)):
        arrays |= {f"{kind}:{name}": array for name, array in of_fields.items()}
    told, pieces, at, crc = {}, list[Any](), 0, 0
    for name, array in arrays.items():
        told[name] = (array.dtype.str, len(array), at)
        pieces += [np.ascontiguousarray(array).view(np.uint8), bytes(-array.nbytes % _ALIGNED)]
        at += len(pieces[-2]) + len(pieces[-1])
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    header = {"paths": _names(list(table.paths)), "crc": crc, "arrays": told}
    header |= {"offset": list(table.offset), "length": list(table.length), "numbers": list(table.numbers)}
    header["kinds"] = dict(table.kinds)
    text = json.dumps(header).encode()
    text += b" " * (-(len(MAGIC) + 8 + len(text)) % _ALIGNED)
    passing = place.with_name(f"{place.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with passing.open("xb") as file:
                file.write(MAGIC + len(text).to_bytes(8, "little") + text)
                file.writelines(pieces)
            passing.replace(place)
        finally:
            passing.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _names(paths: Sequence[str]) -> list[str]:
    """Return the shards by name below the folder of the first, so that a dataset may be moved with its index."""
    folder = os.path.dirname(paths[0]) if paths else ""  # noqa: PTH120
    return [os.path.relpath(path, folder or ".") for path in paths]


def _places(paths: Sequence[str], kind: str, save: str | os.PathLike[str] | None) -> list[Path]:
    if save is None or not paths:
        return []
    told = json.dumps([kind, _names(paths)]).encode("utf-8", "surrogatepass")
    if save != "auto":
        folder = str(Path(paths[0]).absolute().parent).encode("utf-8", "surrogatepass")
        return [Path(save) / f"{hashlib.sha256(told + folder).hexdigest()[:16]}.index"]
    beside = Path(paths[0]).parent / f".headrace-{hashlib.sha256(told).hexdigest()[:16]}.index"
    return [beside, *_places(paths, kind, cache_folder())]


def cache_folder() -> Path:
    """Return the user's folder for indexes, as the XDG base directory specification has it."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path.home() / ".cache") / "headrace" / "indexes"  # noqa: PTH117


def _facts(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError) as error:
        raise _shard_error(path, error) from error
    return found.st_size, found.st_mtime_ns


def _shard_error(path: str, error: OSError | ValueError) -> SampleError:
    return unread(path, error, "Give the path of a shard.")
