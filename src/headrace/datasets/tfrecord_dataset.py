"""Samples in TFRecord files, as TensorFlow writes them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from headrace.checks import flag
from headrace.datasets.fields import Fields
from headrace.datasets.shards import SpanDataset, shard_paths
from headrace.datasets.span_table import indexed
from headrace.formats import tfrecord
from headrace.image.decoding import DEFAULT_MAX_PIXELS, Decoding

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from headrace.datasets.fields import Decoder
    from headrace.datasets.shards import Shards
    from headrace.image.modes import Mode

SUFFIXES = (".tfrecord", ".tfrecords")


class TFRecordDataset(SpanDataset):
    """Samples in TFRecord files: the features of a `tf.train.Example` in each record; TensorFlow is not needed.

    >>> import tempfile, pathlib
    >>> from headrace.datasets import TFRecordDataset
    >>> text = "1c00000000000000c8c1951d0a1a0a0c0a047465787412040a020a000a0a0a016e12051a030a0103c304aa50"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "a.tfrecord").write_bytes(bytes.fromhex(text) * 2)
    ...     dataset = TFRecordDataset(folder)
    ...     sample = dataset[1]
    >>> len(dataset), sample, dataset.labels
    (2, {'__key__': '1', 'text': b'', 'n': 3}, array([3, 3]))

    ``shards``: a path, a pattern with braces or stars, a folder (its ``.tfrecord`` files, sorted), a URL, or a list
    of these. A sample is a dict of its features, and of ``"__key__"``: its number in its file. ``fields``, ``mode``,
    ``max_pixels``, ``allow_truncated``, ``index``: as in `WebDataset`.

    A feature with one value in each sample is an int (known with the index), a float32 or bytes; one with several, or
    none, in any sample is an array of int64, of float32, or a list of bytes, in all samples. A feature that a record
    lacks is missing in the dict. Features named ``image/encoded``, ``jpg``, ``jpeg`` or ``png`` become images.
    ``decoders`` by feature, as in `WebDataset`: ``{"image_raw": "jpg", "text": bytes.decode}``.

    ``features=False``: records are anything else, such as a SequenceExample. A sample has one field, ``"record"``,
    whose bytes ``decoders={"record": function}`` reads.

    The files are indexed when the dataset is constructed. The checksums of lengths and data are checked then, once; a
    file that changes later raises `BadFile`. ``verify=False`` checks the checksums of lengths only.

    Raises `BadFile` for files that are damaged or compressed (decompress them first) and for records that are no
    Example; `MissingFile`; `ArgumentError`. Format: https://www.tensorflow.org/tutorials/load_data/tfrecord.
    """

    def __init__(
        self,
        shards: Shards,
        *,
        fields: Iterable[str] | None = None,
        decoders: Mapping[str, Decoder | str | None] | None = None,
        features: bool = True,
        verify: bool = True,
        mode: Mode = "RGB",
        max_pixels: int = DEFAULT_MAX_PIXELS,
        allow_truncated: bool = False,
        index: str | os.PathLike[str] | None = "auto",
    ) -> None:
        decoding = Decoding(mode, max_pixels, allow_truncated)
        verify, features = flag("verify", verify), flag("features", features)
        indexer = partial(tfrecord.index, verify=verify, features=features)
        table = indexed(shard_paths(shards, *SUFFIXES, urls=True), indexer, f"tfrecord 1 {verify} {features}", index)
        super().__init__(table, Fields(decoding, decoders or {}, table.kinds, tfrecord.READERS), fields)

    def _has(self, row: int, name: str) -> bool:
        return super()._has(row, name) or self._is_list(row, name)

    def _is_list(self, row: int, name: str) -> bool:
        length = self._table.length.get(name + tfrecord.LIST)
        return length is not None and bool(length[row] >= 0)

    def _value(self, row: int, name: str) -> Any:
        if name + tfrecord.LIST not in self._table.length:
            return super()._value(row, name)
        data, kind, listed = self._bytes(row, name), self._table.kinds[name], self._is_list(row, name)
        if kind in tfrecord.READERS:
            return self._decoded(row, name, data, kind + (tfrecord.MANY if listed else tfrecord.ONE))
        return [self._decoded(row, name, value) for value in (tfrecord.texts(data) if listed else [data])]

    def _span(self, row: int, name: str) -> bytes:
        return super()._span(row, name + tfrecord.LIST if self._is_list(row, name) else name)
