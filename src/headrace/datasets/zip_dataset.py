"""Samples in zip archives: members with one key are one sample."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from headrace.checks import flag
from headrace.datasets.fields import Fields
from headrace.datasets.shards import SpanDataset, shard_paths
from headrace.datasets.span_table import indexed
from headrace.errors import SampleError
from headrace.formats.zip import DEFLATED, SIZES, inflated
from headrace.formats.zip import index as index_of
from headrace.image.decoding import DEFAULT_MAX_PIXELS, Decoding
from headrace.storage.files import CURE

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from headrace.datasets.fields import Decoder
    from headrace.datasets.shards import Shards
    from headrace.image.modes import Mode


class ZipDataset(SpanDataset):
    """Samples in zip archives: members with one key are one sample, as in `WebDataset`, in any order.

    >>> import tempfile, zipfile
    >>> from headrace.datasets import ZipDataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with zipfile.ZipFile(f"{folder}/0.zip", "w") as archive:
    ...         for name, data in [("cat.txt", "a cat"), ("dog.txt", "a dog"), ("cat.cls", "3"), ("dog.cls", "5")]:
    ...             archive.writestr(name, data)
    ...     dataset = ZipDataset(f"{folder}/0.zip")
    ...     sample, pair = dataset[1], dataset.tuple("txt", "cls")[0]
    >>> len(dataset), sample, pair
    (2, {'__key__': 'dog', 'txt': 'a dog', 'cls': 5}, ('a cat', 3))

    ``shards``: a path, a pattern with braces or stars, a folder (its ``.zip`` files, sorted), a URL, or a list of
    these. The name of a member is ``key.field``: the field begins after the first dot of the file's name, and folders
    belong to the key. ``fields``, ``decoders``, ``mode``, ``max_pixels``, ``allow_truncated``, ``index``: as in
    `WebDataset`.

    Stored members are read by one read, and images by the native extension. Deflated members are inflated when they are
    read, up to the size that the directory claims, and their CRC-32 is checked. Store images for speed (``zip -0``).
    Archives above 4 GiB (zip64) are read. ``verify=True`` checks the CRC-32 of stored members too, once, when an
    archive is indexed; this reads it as a whole.

    Raises `BadFile` for damaged archives, and for members that are encrypted, links, or compressed by another method
    than deflate; `SampleError` for a member that does not give what the directory claims; `MissingFile`; and
    `ArgumentError`. Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT.
    """

    def __init__(
        self,
        shards: Shards,
        *,
        fields: Iterable[str] | None = None,
        decoders: Mapping[str, Decoder | str | None] | None = None,
        verify: bool = False,
        mode: Mode = "RGB",
        max_pixels: int = DEFAULT_MAX_PIXELS,
        allow_truncated: bool = False,
        index: str | os.PathLike[str] | None = "auto",
    ) -> None:
        decoding = Decoding(mode, max_pixels, allow_truncated)
        indexer = partial(index_of, verify=flag("verify", verify))
        table = indexed(shard_paths(shards, ".zip", urls=True), indexer, "zip 1 verified" if verify else "zip 1", index)
        super().__init__(table, Fields(decoding, decoders or {}), fields)

    def _is_range(self, column: str) -> bool:
        return not column.endswith(SIZES)

    def _has(self, row: int, name: str) -> bool:
        deflated = self._table.length.get(name + DEFLATED)
        return super()._has(row, name) or (deflated is not None and bool(deflated[row] >= 0))

    def _span(self, row: int, name: str) -> bytes:
        if super()._has(row, name):
            return super()._span(row, name)
        total, size = (int(column[name + SIZES][row]) for column in (self._table.offset, self._table.length))
        self._refuse_large(row, name, size)
        data = super()._span(row, name + DEFLATED)
        try:
            return inflated(data, size, total)
        except ValueError as error:
            raise SampleError(
                f"field {name!r}: {error}",
                path=self._where(row),
                index=row,
                expected="a member as the directory describes it",
                cure=CURE,
            ) from error
