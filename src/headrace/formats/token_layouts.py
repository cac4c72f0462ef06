"""Files of token ids: where the tokens lie, their dtype, and where documents begin, found without an index file.

Layouts: nanoGPT's ``.bin`` has nothing but tokens. llm.c's ``.bin`` has 256 int32 first: a magic number, a version, the
number of tokens. Megatron's ``.bin`` has nothing but tokens, and its ``.idx`` beside it says all else. ``.npy``,
``.npz`` and safetensors files have one row of integers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import shown
from headrace.errors import ArgumentError, BadFile
from headrace.formats import npy, npz, safetensors, token_lists
from headrace.formats.npy import ArraySpan
from headrace.formats.reader import ShardReader
from headrace.formats.token_file import TokenFile
from headrace.storage.mapped_samples import in_memory
from headrace.storage.objects import is_there, is_url, place_of
from headrace.storage.signed_urls import path_part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

NPY, MEGATRON, FAIRSEQ = b"\x93NUMPY", b"MMIDIDX\0\0", b"TNTIDX\0\0"
HEADERS: dict[int, tuple[int, str]] = {20240520: (1, "<u2"), 20240801: (7, "<u4")}
"""The magic numbers of llm.c: the version that belongs to each, and the dtype."""
HEADER_BYTES = 1024
DTYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f8", 7: "<f4", 8: "<u2"}
"""The codes of Megatron's ``.idx`` files."""
INDEX_HEADER = 34
"""Bytes of a ``.idx`` file before its arrays: magic, u64 version, u8 dtype, u64 sequences, u64 documents."""
SUFFIXES = (".bin", ".npy", ".npz", ".safetensors", ".arrow", ".arrows")
SCANNED = 1 << 24
"""Bytes that are read at once in search of a separator."""
CHECK = "Copy the file again, or write it again."


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of each file: the dtype of files that do not say it, an array or a column, documents."""

    dtype: np.dtype[Any] | None = None
    field: str | None = None
    documents: bool = False
    separator: int | None = None


def token_paths(paths: list[str]) -> list[str]:
    """Return the files that hold tokens: Megatron's ``.bin`` for its ``.idx`` or for the prefix of both.

    >>> token_paths(["a.idx", "a.bin", "b.bin"])
    ['a.bin', 'b.bin']
    """
    found = [_data_path(path) for path in paths]
    twice = {_beside(path, ".idx", ".bin") for path in paths} & set(paths)
    return [data for path, data in zip(paths, found, strict=True) if data == path or data not in twice]


def index(path: str, wanted: Wanted) -> TokenFile:
    """Say where the tokens of a file are; raise `BadFile` for a damaged one, and `ArgumentError` for one without dtype.

    What a file is, its first bytes say. Only headers and, for documents, indexes are read.
    """
    beside = _beside(path, ".bin", ".idx")
    if beside and is_there(beside):
        return _of_integers(_megatron(path, beside, wanted))
    with ShardReader(path) as reader:
        head = reader.read(0, min(16, reader.size))
        if head[:6] == token_lists.MAGIC or (head[:4] == b"\xff\xff\xff\xff" and _may_be(path, ".arrow", wanted)):
            return token_lists.index(path, wanted.field)
        if head.startswith((MEGATRON, FAIRSEQ)):
            what = "it is an index of fairseq's" if head.startswith(FAIRSEQ) else "it is an index, and named otherwise"
            raise reader.damaged(what, "Megatron's .idx file, beside the .bin file of its name")
        span = _span(reader, head, wanted)
        if span is not None:
            return TokenFile.of(path, reader.facts, span.dtype, span.offset, span.shape[0])
        return _raw(reader, wanted.dtype)


def separated(source: TokenFile | NDArray[Any], separator: int) -> tuple[NDArray[np.int64], int]:
    """Return the lengths of documents, and how many separators there are.

    Documents end with the separator; or begin with it, if the first does.

    >>> separated(np.array([5, 6, 0, 7, 0, 8]), 0), separated(np.array([0, 5, 6, 0, 7]), 0)
    ((array([3, 2, 1]), 2), (array([3, 2]), 2))

    A file is read once from front to back, a few MiB at a time. Raises `BadFile` for one that has changed.
    """
    limits = np.iinfo(source.dtype)
    if not limits.min <= separator <= limits.max:
        raise ArgumentError(
            f"separator={separator} cannot be among tokens of {source.dtype}",
            found=separator,
            expected=f"a token from {limits.min} to {limits.max}",
            cure="Pass the token that separates documents.",
        )
    if isinstance(source, TokenFile):
        places, count = _places(source, separator), source.count
    else:
        places, count = np.flatnonzero(in_memory(source) == separator), len(source)
    begins = places if len(places) and places[0] == 0 else np.concatenate([[0], places + 1])
    return np.diff(np.append(begins[begins < count], count)), len(places)


def _places(file: TokenFile, separator: int) -> NDArray[np.int64]:
    found, dtype = [np.empty(0, np.int64)], file.dtype
    at, (offset, count) = 0, file.pieces[0].tolist()
    step = SCANNED // dtype.itemsize
    with ShardReader(file.path) as reader:
        if reader.facts != file.facts:
            raise reader.damaged("it has changed since the dataset was constructed", "the same file")
        while at < count:
            here = min(step, count - at)
            data = reader.read(offset + at * dtype.itemsize, here * dtype.itemsize)
            found.append(np.flatnonzero(np.frombuffer(data, dtype) == separator) + at)
            at += here
    return np.concatenate(found)


def _beside(path: str, ending: str, other: str) -> str:
    """Return the path with another ending; nothing where it does not end so."""
    place, query = path_part(path)
    return f"{place.removesuffix(ending)}{other}{query}" if place.endswith(ending) else ""


def _data_path(path: str) -> str:
    if data := _beside(path, ".idx", ".bin"):
        return data
    if is_url(path):
        is_prefix = not place_of(path).endswith(SUFFIXES) and is_there(_beside(path, "", ".idx"))
    else:
        is_prefix = not os.path.lexists(path) and Path(f"{path}.idx").is_file()
    return _beside(path, "", ".bin") if is_prefix else path


def _may_be(path: str, suffix: str, wanted: Wanted) -> bool:
    """Say whether to trust first bytes that may be tokens: where no dtype was given, or the name agrees."""
    return wanted.dtype is None or suffix in path


def _of_integers(file: TokenFile) -> TokenFile:
    if file.dtype.kind not in "iu":
        raise BadFile(f"its tokens are {file.dtype}", path=file.path, expected="integers", cure="Write token ids.")
    return file


def _span(reader: ShardReader, head: bytes, wanted: Wanted) -> ArraySpan | None:
    """Return where the tokens are in a file that has one row of them; None for a raw file."""
    name = Path(place_of(reader.path)).name
    if head[:6] == NPY:
        return _row(reader, name, npy.index(reader))
    if head[:4] == b"PK\3\4" and _may_be(name, ".npz", wanted):
        return _row(reader, *_chosen(reader, npz.index(reader), wanted.field))
    if safetensors.is_one(head[:9]) and _may_be(name, ".safetensors", wanted):
        return _row(reader, *_chosen(reader, safetensors.index(reader), wanted.field))
    if int.from_bytes(head[:4], "little") in HEADERS and len(head) >= 12:
        return _llm_c(reader, np.frombuffer(head[:12], "<i4").tolist())
    return None


def _raw(reader: ShardReader, dtype: np.dtype[Any] | None) -> TokenFile:
    if dtype is None:
        raise ArgumentError(
            f"{reader.path} has no header that says the dtype of its tokens",
            path=reader.path,
            found=None,
            expected="the dtype of raw files, as they were written",
            cure="Pass dtype=np.uint16 (for vocabularies below 65,536, as nanoGPT writes) or dtype=np.uint32.",
        )
    count, rest = divmod(reader.size, dtype.itemsize)
    if rest:
        raise reader.damaged(f"it has {reader.size:,} bytes", f"whole tokens of {dtype.itemsize} bytes each")
    return TokenFile.of(reader.path, reader.facts, dtype, 0, count, says_dtype=False)


def _llm_c(reader: ShardReader, numbers: list[int]) -> ArraySpan:
    magic, version, count = numbers[:3]
    known, code = HEADERS[magic]
    if version != known:
        raise reader.damaged(f"it is version {version} of llm.c's format {magic}", f"version {known}")
    dtype = np.dtype(code)
    held = reader.size - HEADER_BYTES
    if held < 0 or count * dtype.itemsize != held:
        what = f"its header claims {count:,} tokens of {dtype}, and {max(held, 0):,} bytes follow it"
        raise reader.damaged(what, f"{max(count, 0) * dtype.itemsize:,} bytes")
    return ArraySpan(HEADER_BYTES, dtype, (count,))


def _chosen(reader: ShardReader, arrays: Mapping[str, ArraySpan], field: str | None) -> tuple[str, ArraySpan]:
    rows = [name for name, span in arrays.items() if len(span.shape) == 1 and span.dtype.kind in "iu"]
    names = rows if field is None else [name for name in arrays if name == field]
    if len(names) == 1:
        return names[0], arrays[names[0]]
    what = f"field={field!r} is not in it" if field is not None else f"{len(names)} of its arrays are rows of integers"
    raise ArgumentError(
        f"{reader.path}: {what}; it has {shown(', '.join(arrays))}",
        path=reader.path,
        found=field,
        expected="one row of integers",
        cure="Pass field= with the name of the array of tokens.",
    )


def _row(reader: ShardReader, name: str, span: ArraySpan) -> ArraySpan:
    if len(span.shape) == 1 and span.dtype.kind in "iu":
        return span
    raise BadFile(
        f"{name} has the shape {span.shape} and holds {span.dtype}",
        path=reader.path,
        expected="one row of integers",
        cure="Write it as one row: array.ravel().astype(np.uint32).",
    )


def _megatron(path: str, beside: str, wanted: Wanted) -> TokenFile:
    with ShardReader(path) as tokens, ShardReader(beside) as reader:
        head = reader.read(0, min(INDEX_HEADER, reader.size))
        if not head.startswith(MEGATRON) or len(head) < INDEX_HEADER:
            raise reader.damaged(f"it begins with {head[:9]!r}", "Megatron's index, which begins with b'MMIDIDX'")
        version, sequences, documents = (int.from_bytes(head[a : a + 8], "little") for a in (9, 18, 26))
        if version != 1 or head[17] not in DTYPES:
            raise reader.damaged(f"it is version {version} with dtype code {head[17]}", "version 1, and codes 1 to 8")
        least = INDEX_HEADER + 12 * sequences + 8 * documents
        if reader.size not in (least, least + sequences):
            what = f"it claims {sequences:,} sequences and {documents:,} documents, and has {reader.size:,} bytes"
            raise reader.damaged(what, f"{least:,} bytes, or {least + sequences:,} with modes")
        dtype = np.dtype(DTYPES[head[17]])
        count, rest = divmod(tokens.size, dtype.itemsize)
        if rest:
            raise tokens.damaged(f"it has {tokens.size:,} bytes", f"whole tokens of {dtype.itemsize} bytes each")
        file = TokenFile.of(path, tokens.facts, dtype, 0, count, has_documents=True)
        lengths, pointers = _sequences(reader, sequences, dtype, count, all_of_them=wanted.documents)
        if not wanted.documents:
            return file
        marks = np.frombuffer(reader.read(INDEX_HEADER + 12 * sequences, 8 * documents), "<i8")
        return file.with_documents(*_documents(reader, lengths, pointers, marks))


def _sequences(
    reader: ShardReader, sequences: int, dtype: np.dtype[Any], count: int, *, all_of_them: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the tokens in each sequence and where it begins; of the last one only, where that will do."""
    first = 0 if all_of_them else max(sequences - 1, 0)
    many = sequences - first
    lengths = np.frombuffer(reader.read(INDEX_HEADER + 4 * first, 4 * many), "<i4").astype(np.int64)
    pointers = np.frombuffer(reader.read(INDEX_HEADER + 4 * sequences + 8 * first, 8 * many), "<i8")
    begins = pointers // dtype.itemsize
    outside = (lengths < 0) | (pointers < 0) | (pointers % dtype.itemsize != 0) | (begins > count - lengths)
    if outside.any():
        at = int(np.argmax(outside))
        what = f"sequence {first + at} has {lengths[at]:,} tokens at byte {pointers[at]:,} of the .bin file"
        raise reader.damaged(what, f"a part of the {count:,} tokens of {dtype} there")
    return lengths, begins


def _documents(
    reader: ShardReader, lengths: NDArray[np.int64], begins: NDArray[np.int64], marks: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first token and the length of each document, which is made of sequences that follow each other."""
    sequences = len(lengths)
    if len(marks) and (marks[0] < 0 or marks[-1] > sequences or (marks[1:] < marks[:-1]).any()):
        raise reader.damaged("its document index does not ascend", f"numbers of sequences from 0 to {sequences:,}")
    apart = np.flatnonzero(begins[1:] != begins[:-1] + lengths[:-1]) + 1
    if len(apart) and len(marks):
        inside = np.setdiff1d(apart, marks)
        inside = inside[(marks[0] < inside) & (inside < marks[-1])]
        if len(inside):
            raise reader.damaged(f"sequence {inside[0]} does not follow the one before it", "documents of one piece")
    ends = np.concatenate([[0], np.cumsum(lengths)])
    first = np.append(begins, 0)[marks[:-1]]
    return first, ends[marks[1:]] - ends[marks[:-1]]
