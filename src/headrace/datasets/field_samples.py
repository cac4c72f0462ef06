"""Samples that are dicts of named fields, whatever file format they come from, and tuples of some fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from headrace.checks import kind_of, shown
from headrace.datasets.base import Dataset
from headrace.errors import ArgumentError, HeadraceError, SampleError
from headrace.formats.shard import HIDDEN
from headrace.interop.keys import place as place_of
from headrace.interop.keys import places
from headrace.storage.files import DEFAULT_MAX_BYTES
from headrace.storage.object_spans import fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from headrace.context.memory import Empty
    from headrace.datasets.fields import Fields
    from headrace.datasets.image_sources import Source
    from headrace.storage.object_spans import ObjectSpans

T = TypeVar("T")


class FieldDataset(Dataset[dict[str, Any]]):
    """The base of datasets whose sample is a dict of its fields, by name.

    >>> from headrace.datasets import WebDataset
    >>> issubclass(WebDataset, FieldDataset)
    True

    A format defines ``__len__``, ``shards``, ``shard_lengths``, and what begins with an underscore at the end of this
    class: the key of a row, its place, one value, and where the images are. ``names``: all fields that samples have;
    ``chosen``: those to read, None for all.
    """

    suits_threads = True
    _remote = False
    """Whether a shard is behind a URL."""

    def __init__(self, names: Sequence[str], fields: Fields, chosen: Iterable[str] | None) -> None:
        self._fields = fields
        self._chosen = list(names) if chosen is None else _chosen(chosen, names)

    @property
    def fields(self) -> list[str]:
        """The names of the fields that samples have; a sample may lack some."""
        return list(self._chosen)

    @property
    def shards(self) -> list[str]:
        """The paths of the shards, in order."""
        raise NotImplementedError(f"{type(self).__qualname__} must define shards")

    @property
    def shard_lengths(self) -> list[int]:
        """How many samples each shard has: what `ShardSampler` takes."""
        raise NotImplementedError(f"{type(self).__qualname__} must define shard_lengths")

    @property
    def labels(self) -> NDArray[Any] | None:
        """The values of the one integer field that all samples have (``cls``), known without reading; else None."""
        return self._labels(self._chosen)

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes, by label, where the format has them."""
        return self._classes(self._chosen)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read the sample at an index: a dict of its key and its fields."""
        return self._guarded(self._sample, index)

    @property
    def reads_many(self) -> bool:
        """Whether reading many samples at once is better than one by one: of objects behind URLs."""
        return self._remote

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Read many samples; what they need of objects is fetched by several requests at once."""
        self._fetch(indices, self._chosen)
        return [self[index] for index in indices]

    def object_spans(self, keys: Sequence[int]) -> list[ObjectSpans]:
        """Return which ranges of objects behind URLs the samples of these keys need."""
        return self._spans_of(self._rows(keys), self._chosen) if self._remote else []

    def _fetch(self, indices: Sequence[int], names: Iterable[str]) -> None:
        """Fetch what these fields of samples need of objects behind URLs."""
        if self._remote:
            fetch(self._spans_of(self._rows(indices), names))

    def _spans_of(self, rows: NDArray[np.int64], names: Iterable[str]) -> list[ObjectSpans]:  # noqa: ARG002
        """Return which ranges of objects behind URLs these fields of samples need, where the format knows that."""
        return []

    def _guarded(self, read: Callable[[int], T], index: int) -> T:
        """Read something of a sample; formats whose index is a mapped file live through its end being cut off."""
        return read(index)

    def _sample(self, index: int) -> dict[str, Any]:
        row = self._row(index)
        sample: dict[str, Any] = {"__key__": self._key(row)}
        for name in self._chosen:
            if self._has(row, name):
                sample[name] = self._value(row, name)
        return sample

    @property
    def read_batch(self) -> Callable[..., Any] | None:
        """What reads whole batches of rows at once, where the format can do that with all fields; else None."""
        return None if self._readers(self._chosen) is None else self._read_batch

    def _read_batch(self, keys: Sequence[int], *, empty: Empty = np.empty) -> dict[str, Any]:
        self._fetch(keys, self._chosen)
        rows = self._rows(keys)
        found: dict[str, Any] = {"__key__": [self._key(row) for row in rows.tolist()]}
        return found | dict(zip(self._chosen, self._read_fields(self._chosen, rows, empty), strict=True))

    def _read_fields(self, names: Sequence[str], rows: NDArray[np.int64], empty: Empty) -> list[Any]:
        try:
            return [reader(rows, empty) for reader in self._readers(names) or ()]
        except ValueError:
            for row in rows.tolist():  # the error of a row says which it is
                for name in names:
                    self._value(row, name)
            raise

    def _rows(self, keys: Sequence[int]) -> NDArray[np.int64]:
        return places(keys, len(self), f"{kind_of(self)} of {{}} samples").astype(np.int64, copy=False)

    def tuple(self, *fields: str) -> FieldTuples:
        """Return a dataset whose samples are tuples of these fields: ``dataset.tuple("jpg", "cls")``.

        With an image first and integers after it, the native extension reads them. Raises `ArgumentError` for a field
        that no sample has.
        """
        return FieldTuples(self, [self._known(name) for name in fields])

    def is_image(self, field: str) -> bool:
        """Say whether a field is decoded as an image."""
        return self._fields.is_image(field)

    def is_integer(self, field: str) -> bool:
        """Say whether a field is an integer that all samples have, known without reading them."""
        return self._numbers(field) is not None

    def where(self, index: int) -> str:
        """Return the shard and the key of a sample, for errors."""
        return self._guarded(lambda at: self._where(self._row(at)), index)

    def _labels(self, names: Iterable[str]) -> NDArray[Any] | None:
        known = [name for name in dict.fromkeys(names) if self.is_integer(name)]
        return self._numbers(known[0]) if len(known) == 1 else None

    def _classes(self, names: Iterable[str]) -> Sequence[str]:  # noqa: ARG002  for formats that have them
        """Return the names of the classes, where one of these fields is a label with names."""
        return []

    def _native(self, names: Sequence[str]) -> Source | None:
        """Return where the images of a tuple are, with the integers beside them; None for any other tuple."""
        if not names or not self.is_image(names[0]):
            return None
        beside = [self._numbers(name) for name in names[1:]]
        found = [numbers for numbers in beside if numbers is not None]
        return self._source(names[0], found) if len(found) == len(beside) else None

    def _refuse(self, *kinds: str) -> None:
        """Raise `ArgumentError` for a field of a kind that nothing safe reads."""
        for name in self._chosen:
            kind = self._fields.kind(name)
            if kind in kinds:
                raise ArgumentError(
                    f"field {name!r} holds {kind}, and reading that can run any code",
                    found=kind,
                    expected="fields that are data",
                    cure=f"Leave it out with fields=, or pass decoders={{{name!r}: None}} for its bytes.",
                )

    def _refuse_large(self, row: int, name: str, length: int) -> None:
        if length > DEFAULT_MAX_BYTES:
            raise SampleError(
                f"field {name.partition(HIDDEN)[0]!r} has {length:,} bytes",
                path=self._where(row),
                index=row,
                expected=f"at most {DEFAULT_MAX_BYTES:,} bytes",
                cure="Write the field to a file of its own, or leave it out with fields=.",
            )

    def _row(self, index: int) -> int:
        return place_of(index, len(self), f"{kind_of(self)} of {{}} samples")

    def _known(self, field: str) -> str:
        if field in self._chosen:
            return field
        raise _no_field(field, self._chosen, "Give one of these names.")

    def _decoded(self, row: int, name: str, data: bytes, kind: str | None = None) -> Any:
        """Return the value of a field; ``kind`` for one that the format does not declare for the whole field."""
        try:
            return self._fields.decoded(name, data, self._where(row), kind)
        except SampleError as error:
            error.at(row)
            raise

    def _key(self, row: int) -> str:
        """Return the key of a sample in its shard."""
        raise NotImplementedError(f"{type(self).__qualname__} must define _key")

    def _where(self, row: int) -> str:
        """Return the shard and the key of a sample."""
        raise NotImplementedError(f"{type(self).__qualname__} must define _where")

    def _has(self, row: int, name: str) -> bool:  # noqa: ARG002  for formats whose samples lack fields
        """Say whether a sample has a field."""
        return True

    def _value(self, row: int, name: str) -> Any:
        """Return the value of a field that a sample has."""
        raise NotImplementedError(f"{type(self).__qualname__} must define _value")

    def _readers(self, names: Sequence[str]) -> Sequence[Callable[[NDArray[np.int64], Empty], Any]] | None:  # noqa: ARG002
        """Return what reads each of these fields of many rows at once; None where one is read row by row."""
        return None

    def _numbers(self, name: str) -> NDArray[Any] | None:  # noqa: ARG002
        """Return the values of an integer field that all samples have, known without reading; else None."""
        return None

    def _source(self, image: str, beside: Sequence[NDArray[Any]]) -> Source | None:  # noqa: ARG002
        """Return where the images of a field are, for the native extension; None if they are in no file as such."""
        return None


class FieldTuples(Dataset[tuple[Any, ...]]):
    """Some fields of a dataset of shards, as a tuple: what `FieldDataset.tuple` returns."""

    suits_threads = True

    def __init__(self, dataset: FieldDataset, names: Sequence[str]) -> None:
        self._dataset, self._names = dataset, tuple(names)
        self._source = dataset._native(self._names)

    def __getstate__(self) -> dict[str, Any]:
        return {"dataset": self._dataset, "names": self._names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # The ranges of all samples are found again: a saved index is shared by processes, a pickled one is not.
        self._dataset, self._names = state["dataset"], state["names"]
        try:
            self._source = self._dataset._native(self._names)
        except HeadraceError:  # a shard has changed: the samples in it say so when they are read
            self._source = None

    @property
    def labels(self) -> NDArray[Any] | None:
        """The values of the one integer field among these, known without reading; else None."""
        return self._dataset._labels(self._names)

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes, by label, where the format has them."""
        return self._dataset._classes(self._names)

    @property
    def shard_lengths(self) -> list[int]:
        """How many samples each shard has."""
        return self._dataset.shard_lengths

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Read these fields of the sample at an index."""
        return self._dataset._guarded(self._sample, index)

    @property
    def reads_many(self) -> bool:
        """Whether reading many samples at once is better than one by one: of objects behind URLs."""
        return self._dataset.reads_many

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, ...]]:
        """Read these fields of many samples; what they need of objects is fetched by several requests at once."""
        self._dataset._fetch(indices, self._names)
        return [self[index] for index in indices]

    def object_spans(self, keys: Sequence[int]) -> list[ObjectSpans]:
        """Return which ranges of objects behind URLs the samples of these keys need."""
        dataset = self._dataset
        return dataset._spans_of(dataset._rows(keys), self._names) if dataset.reads_many else []

    def _sample(self, index: int) -> tuple[Any, ...]:
        row = self._dataset._row(index)
        return tuple([self._dataset._value(row, name) for name in self._names])

    @property
    def shards(self) -> list[str]:
        """The paths of the shards, in order."""
        return self._dataset.shards

    @property
    def read_batch(self) -> Callable[..., Any] | None:
        """What reads whole batches of rows at once, where the format can do that with these fields; else None."""
        return None if self._dataset._readers(self._names) is None else self._read_batch

    def _read_batch(self, keys: Sequence[int], *, empty: Empty = np.empty) -> list[Any]:
        self._dataset._fetch(keys, self._names)
        return self._dataset._read_fields(self._names, self._dataset._rows(keys), empty)

    def native_source(self) -> Source | None:
        """Return the ranges of the images, with the integers beside them."""
        return self._source

    def where(self, index: int) -> str:
        """Return the shard and the key of a sample, for errors."""
        return self._dataset.where(index)


def _chosen(names: Iterable[str], known: Sequence[str]) -> list[str]:
    chosen = [names] if isinstance(names, str) else list(names)
    for name in chosen:
        if name not in known:
            raise _no_field(name, known, "Give names of fields in fields=.")
    return chosen


def _no_field(name: object, known: Sequence[str], cure: str) -> ArgumentError:
    what, found = f"no sample has a field {shown(name)}", shown(name)
    if not known:
        return ArgumentError(what, found=found, expected="samples with fields", cure="Check which shards you give.")
    return ArgumentError(what, found=found, expected=f"one of {', '.join(map(repr, known))}", cure=cure)
