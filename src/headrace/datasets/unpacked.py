"""Compressed shards, decompressed once into the user's cache folder: then every sample has its place in a file."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import os
import secrets
import zlib
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.datasets.span_table import cache_folder, facts_of
from headrace.errors import BadFile, missing
from headrace.formats.reader import COPY
from headrace.storage import objects
from headrace.storage.files import opened, unopened
from headrace.storage.objects import absolute

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

MOST_BYTES = 1 << 32
"""Of a decompressed shard: the offsets in it have 32 bits."""

_BLOCK = 1 << 20


def unpacked(
    path: str,
    algorithm: str,
    sizes: tuple[int, int],
    hashes: Mapping[str, str],
    folder: str | os.PathLike[str] | None,
) -> str:
    """Return the path of a compressed shard's decompressed copy, which is made unless it is there.

    A shard behind a URL is downloaded for that, through the cache of blocks.
    ``sizes`` are the least and the most bytes it may have, ``hashes`` what it must give; ``folder`` is for copies, None
    the user's cache. Two processes may do this at once. Raises `BadFile` for a shard that is damaged or gives anything
    else, `MissingDependency` for zstd without its library, and `MissingFile`.
    """
    if sizes[1] > MOST_BYTES:
        raise _damaged(path, f"it has {sizes[1]:,} bytes decompressed, by index.json", f"at most {MOST_BYTES:,}")
    size, version = facts_of(path, COPY)
    told = f"{absolute(path)} {size} {version}"
    root = (
        Path(objects.local("cache", folder, "Pass a folder on this machine."))
        if folder is not None
        else cache_folder().parent / "shards"
    )
    name = hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    place = root / name / Path(path).name.removesuffix(Path(path).suffix)
    with contextlib.suppress(OSError):
        if sizes[0] <= place.stat().st_size <= sizes[1]:
            return str(place)
    passing = place.with_name(f"{place.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with opened(path, max_bytes=1 << 62, cure=COPY) as source, _decompressor(path, source, algorithm) as packed:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with passing.open("xb") as file:
                _copied(path, packed, file, sizes, hashes)
            passing.replace(place)
        except OSError as error:
            cure = "Pass cache= a folder on a disk with room for the decompressed shards."
            raise unopened(str(place), error, expected="a place for a copy", cure=cure, action="written") from error
        finally:
            with contextlib.suppress(OSError):
                passing.unlink(missing_ok=True)
    return str(place)


def _copied(path: str, packed: Any, file: BinaryIO, sizes: tuple[int, int], hashes: Mapping[str, str]) -> None:
    sums = {name: hashlib.new(name) for name in known(hashes)}
    least, left = sizes
    while True:
        try:
            block = packed.read(min(_BLOCK, left + 1))
        except (EOFError, OSError, ValueError, zlib.error, _zstd_error()) as error:
            raise _damaged(path, f"it cannot be decompressed: {error}", f"{least:,} bytes") from error
        if not block:
            break
        left -= len(block)
        if left < 0:
            raise _damaged(path, f"it has more bytes decompressed than {sizes[1]:,}", "as many as index.json says")
        file.write(block)
        for each in sums.values():
            each.update(block)
    if sizes[1] - left < least:
        raise _damaged(path, f"it has {sizes[1] - left:,} bytes decompressed", f"{least:,}, as index.json says")
    compared(path, {name: each.hexdigest() for name, each in sums.items()}, hashes)


def verified(path: str, hashes: Mapping[str, str]) -> None:
    """Raise `BadFile` unless a file gives its hashes; those that Python cannot compute are left out."""
    sums = {name: hashlib.new(name) for name in known(hashes)}
    with opened(path, max_bytes=1 << 62, cure=COPY) as file:
        while block := file.read(_BLOCK):
            for each in sums.values():
                each.update(block)
    compared(path, {name: each.hexdigest() for name, each in sums.items()}, hashes)


def known(hashes: Mapping[str, str]) -> list[str]:
    """Return the names of the hashes that Python computes.

    >>> known({"sha1": "", "xxh64": ""})
    ['sha1']
    """
    return [name for name in hashes if name in hashlib.algorithms_available and not name.startswith("shake")]


def compared(path: str, found: Mapping[str, str], hashes: Mapping[str, str]) -> None:
    """Raise `BadFile` if a hash differs."""
    for name, value in found.items():
        if value != hashes[name]:
            raise _damaged(path, f"its {name} is {value}", f"{hashes[name]}, as index.json says")


def _decompressor(path: str, source: BinaryIO, algorithm: str) -> Any:
    if algorithm == "gz":
        return gzip.GzipFile(fileobj=source)
    if algorithm == "bz2":
        return bz2.BZ2File(source)
    if algorithm in ("zstd", "zst"):
        library = _zstd()
        if library is None:
            raise missing("zstandard", extra="zstd", purpose="reading shards compressed with zstd")
        if library.__name__ == "zstandard":
            limited = library.ZstdDecompressor(max_window_size=1 << 27)
            return limited.stream_reader(source, read_across_frames=True, closefd=False)
        return library.ZstdFile(source)
    raise BadFile(
        f"it is compressed with {algorithm[:20]!r}",
        path=path,
        expected="'zstd', 'gz' or 'bz2'",
        cure="Decompress the shards, or write them again with compression='zstd' or without.",
    )


def _zstd() -> Any:
    """Return Python's module for zstd (3.14), or the library; None for neither."""
    for name in ("compression.zstd", "zstandard"):
        with contextlib.suppress(ImportError):
            return import_module(name)
    return None


def _zstd_error() -> type[Exception]:
    library = _zstd()
    found: type[Exception] = getattr(library, "ZstdError", zlib.error)
    return found


def _damaged(path: str, what: str, expected: str) -> BadFile:
    return BadFile(what, path=path, expected=expected, cure=COPY)
