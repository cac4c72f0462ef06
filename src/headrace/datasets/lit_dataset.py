"""Samples in LitData chunks, as `litdata.optimize` writes them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from headrace.datasets.fields import Fields
from headrace.datasets.shards import SpanDataset
from headrace.datasets.span_table import at_once, indexed
from headrace.formats import litdata
from headrace.formats.chunk import Listing
from headrace.image.decoding import DEFAULT_MAX_PIXELS, Decoding
from headrace.storage.objects import absolute, is_there, path_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from headrace.datasets.fields import Decoder
    from headrace.image.modes import Mode


class LitDataset(SpanDataset):
    """Samples in a folder of LitData chunks, as `litdata.optimize` writes them; nothing is downloaded.

    >>> import json, struct, tempfile, pathlib
    >>> from headrace.datasets import LitDataset
    >>> items = [struct.pack("<2Iq", 8, 2, number) + text for number, text in ((3, b"hi"), (5, b"yo"))]
    >>> chunk = struct.pack("<4I", 2, 16, 34, 52) + b"".join(items)
    >>> leaf = {"type": None, "context": None, "children_spec": []}
    >>> spec = [1, {"type": "builtins.dict", "context": '["n", "text"]', "children_spec": [leaf, leaf]}]
    >>> config = {"data_format": ["int", "str"], "data_spec": json.dumps(spec)}
    >>> index = {"chunks": [{"filename": "0.bin", "chunk_size": 2}], "config": config}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "0.bin").write_bytes(chunk)
    ...     _ = pathlib.Path(folder, "index.json").write_text(json.dumps(index))
    ...     dataset = LitDataset(folder)
    ...     sample, pair = dataset[1], dataset.tuple("text", "n")[0]
    >>> sample, pair, dataset.labels
    ({'__key__': '1', 'n': 5, 'text': 'yo'}, ('hi', 3), array([3, 5]))

    ``folder``, or a URL of one, has an ``index.json``, which names the chunks. A sample is a dict of the leaves of its
    item, and of ``"__key__"``: its number in its chunk. A leaf of a dict in a dict is named ``"outer.inner"``, the
    items of a tuple or a list ``"0"``, ``"1"``. ``fields``, ``mode``, ``max_pixels``, ``allow_truncated``, ``index``:
    as in `WebDataset`.

    Images become arrays; ``int`` an int, which is known with the index; tensors and arrays NumPy's arrays; ``str``,
    ``bool``, ``float``, ``json`` what they say; files of video, audio and the like stay bytes. ``pickle`` and ``graph``
    are refused, as unpickling runs code. ``decoders`` come first: by field, as in `WebDataset`.

    Chunks that are compressed as a whole are decompressed once, into ``cache``, by default a folder in the user's
    cache; it is up to you to delete it. Those behind a URL are downloaded for that, all of them, here. zstd needs the
    extra ``zstd`` before Python 3.14. Chunks that are encrypted, hold items compressed one by one, tokens, or an Arrow
    table of rows are refused.

    Raises `BadFile` for chunks that are damaged or not what ``index.json`` says; `MissingFile`; `ArgumentError`.
    Format: https://github.com/Lightning-AI/litdata.
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
        cache: str | os.PathLike[str] | None = None,
        index: str | os.PathLike[str] | None = "auto",
    ) -> None:
        decoding = Decoding(mode, max_pixels, allow_truncated)
        listing = Listing(absolute(path_of("folder", folder)))
        found = litdata.chunks_of(listing)
        if not found.chunks:
            raise listing.damaged("it names no chunks", "one chunk or more")
        paths = at_once(lambda chunk: _ready(chunk, found.compressed, cache), found.chunks)
        items = {path: chunk[1] for path, chunk in zip(paths, found.chunks, strict=True)}
        table = indexed(
            paths,
            lambda path: litdata.index(path, items[path], found.fields),
            f"litdata 1 {listing.digest}",
            index,
        )
        read = Fields(decoding, decoders or {}, table.kinds, litdata.readers(set(table.kinds.values())))
        super().__init__(table, read, fields)
        self._refuse(*litdata.PICKLED)


def _ready(chunk: tuple[str, int, int], compressed: bool, cache: str | os.PathLike[str] | None) -> str:
    """Return the path of a chunk that is not compressed."""
    path, items, size = chunk
    whole = re.sub(r"\.zstd(:\d+)?\.bin$", ".bin", path)
    if not compressed or (whole != path and is_there(whole)):  # litdata leaves decompressed chunks
        return whole if compressed else path
    from headrace.datasets.unpacked import unpacked

    # Whether the bytes of a chunk include the offsets at its beginning depends on the version that wrote it.
    return unpacked(path, "zstd", (size, size + 4 * (items + 2)), {}, cache)
