"""Samples in MDS shards, as Mosaic Streaming writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.datasets.fields import Fields
from headrace.datasets.shards import SpanDataset
from headrace.datasets.span_table import at_once, indexed
from headrace.errors import ArgumentError
from headrace.formats import mds
from headrace.formats.chunk import Listing
from headrace.image.decoding import DEFAULT_MAX_PIXELS, Decoding
from headrace.storage.objects import absolute, is_there, path_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from headrace.datasets.fields import Decoder
    from headrace.formats.mds import ShardInfo
    from headrace.image.modes import Mode


class MDSDataset(SpanDataset):
    """Samples in a folder of MDS shards, as Mosaic Streaming writes them; nothing is downloaded.

    >>> import json, struct, tempfile, pathlib
    >>> from headrace.datasets import MDSDataset
    >>> samples = [struct.pack("<Iq", 2, number) + text for number, text in ((3, b"hi"), (5, b"yo"))]
    >>> shard = struct.pack("<4I", 2, 16, 30, 44) + b"".join(samples)
    >>> columns = {"column_names": ["n", "text"], "column_encodings": ["int", "str"], "column_sizes": [8, None]}
    >>> raw = {"basename": "0.mds", "bytes": len(shard), "hashes": {}}
    >>> about = {"version": 2, "format": "mds", "samples": 2, "raw_data": raw, **columns}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "0.mds").write_bytes(shard)
    ...     _ = pathlib.Path(folder, "index.json").write_text(json.dumps({"version": 2, "shards": [about]}))
    ...     dataset = MDSDataset(folder)
    ...     sample, pair = dataset[1], dataset.tuple("text", "n")[0]
    >>> sample, pair, dataset.labels
    ({'__key__': '1', 'n': 5, 'text': 'yo'}, ('hi', 3), array([3, 5]))

    ``folder`` has an ``index.json`` (version 2), which names the shards; it may be a URL. A sample is a dict of its
    columns, and of ``"__key__"``: its number in its shard. ``fields``, ``mode``, ``max_pixels``, ``allow_truncated``,
    ``index``: as in `WebDataset`.

    ``jpeg``, ``png`` and ``pil`` become arrays, their lists lists of arrays; integers of all sizes an int, which is
    known with the index; floats NumPy's scalars; ``ndarray`` an array; ``str``, ``json``, ``bytes``, ``str_int``,
    ``str_float`` and ``str_decimal`` what they say. ``pkl`` is refused, as unpickling runs code. ``decoders`` come
    first: by column, as in `WebDataset`; ``{"image": "jpg"}`` reads a column of bytes as images.

    Compressed shards (zstd, gz, bz2) are decompressed once, into ``cache``, by default a folder in the user's cache;
    it is up to you to delete it. Those behind a URL are downloaded for that, all of them, here. zstd needs the extra
    ``zstd`` before Python 3.14. Hashes in ``index.json`` are checked when a shard is decompressed, and of all shards
    with ``verify=True``, which reads them whole.

    Raises `BadFile` for shards that are damaged or not what ``index.json`` says; `MissingFile`; `ArgumentError`.
    Format: https://github.com/mosaicml/streaming.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        fields: Iterable[str] | None = None,
        decoders: Mapping[str, Decoder | str | None] | None = None,
        mode: Mode = "RGB",
        max_pixels: int = DEFAULT_MAX_PIXELS,
        allow_truncated: bool = False,
        verify: bool = False,
        cache: str | os.PathLike[str] | None = None,
        index: str | os.PathLike[str] | None = "auto",
    ) -> None:
        decoding = Decoding(mode, max_pixels, allow_truncated)
        listing = Listing(absolute(path_of("folder", folder)))
        shards = mds.shards_of(listing)
        if not shards:
            raise listing.damaged("it names no shards", "one shard or more")
        paths = at_once(lambda shard: _ready(shard, verify, cache), shards)
        known = dict(zip(paths, shards, strict=True))
        table = indexed(paths, lambda path: mds.index(path, known[path]), f"mds 1 {listing.digest}", index)
        read = Fields(decoding, decoders or {}, table.kinds, mds.readers(set(table.kinds.values())))
        super().__init__(table, read, fields)
        self._refuse(mds.PICKLED)


def _ready(shard: ShardInfo, verify: bool, cache: str | os.PathLike[str] | None) -> str:
    """Return the path of a shard that is not compressed."""
    from headrace.datasets.unpacked import known, unpacked, verified

    if verify and shard.hashes and not known(shard.hashes):
        raise ArgumentError(
            f"verify=True, but index.json has hashes of {', '.join(shard.hashes)} only",
            found=True,
            expected="a hash that Python computes, such as sha1",
            cure="Pass verify=False, or write the shards with hashes=['sha1'].",
        )
    if shard.packed is None or is_there(shard.path):
        if verify:
            verified(shard.path, shard.hashes)
        return shard.path
    return unpacked(shard.packed, shard.algorithm, (shard.size, shard.size), shard.hashes, cache)
