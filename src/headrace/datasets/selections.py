"""Parts and repetitions of a dataset, chosen by position or by a predicate: what `Dataset`'s methods return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from headrace.checks import integer, kind_of, one_of
from headrace.context import seeds
from headrace.datasets import protocol
from headrace.datasets.base import VIEWS
from headrace.datasets.subset import Indices, Repetition, Subset
from headrace.errors import ArgumentError, ArgumentTypeError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from headrace.datasets.protocol import Indexed

By = Literal["sample", "label"]
"""What a predicate is asked about."""


def filtered(dataset: Indexed, predicate: Callable[[Any], Any], by: By = "sample") -> Subset[Any]:
    """Return the samples that a predicate is true of; it is called once for each sample, now."""
    if not callable(predicate):
        raise ArgumentTypeError(
            f"filter: predicate is {kind_of(predicate)}",
            found=predicate,
            expected="a function of one sample or label",
            cure="To select by a mask or by indices, use headrace.Subset(dataset, mask).",
        )
    one_of("filter: by", by, ("sample", "label"))
    keep = _by_label(dataset, predicate) if by == "label" else _by_sample(dataset, predicate)
    return Subset(dataset, Indices(np.flatnonzero(keep)))


def _by_label(dataset: Indexed, predicate: Callable[[Any], Any]) -> list[bool]:
    labels = protocol.labels(dataset)
    if labels is None or len(labels) != len(dataset):
        found = "has no labels" if labels is None else f"has {len(labels)} labels for {len(dataset)} samples"
        raise ArgumentError(
            f"filter: {kind_of(dataset)} {found}",
            found=None if labels is None else len(labels),
            expected="one label a sample",
            cure="Set its attribute `labels`, or filter by='sample'.",
        )
    return [bool(predicate(label)) for label in (labels.tolist() if labels.ndim == 1 else labels)]


def _by_sample(dataset: Indexed, predicate: Callable[[Any], Any]) -> list[bool]:
    keep = []
    here = seeds.Here()  # random transforms draw the same numbers each time, so the choice depends on the data alone
    for index in range(len(dataset)):
        here.move(index)
        try:
            with seeds.at(here):
                keep.append(bool(predicate(dataset[index])))
        except Exception as error:
            where = protocol.where(dataset, index)
            error.add_note(f"headrace: filter: sample {index}{f' ({where})' if where else ''}")
            raise
    return keep


def taken(dataset: Indexed, count: int) -> Subset[Any]:
    """Return the first samples of a dataset, or all where it has fewer."""
    return Subset(dataset, range(min(integer("take: count", count, least=0), len(dataset))))


def skipped(dataset: Indexed, count: int) -> Subset[Any]:
    """Return all but the first samples of a dataset."""
    return Subset(dataset, range(min(integer("skip: count", count, least=0), len(dataset)), len(dataset)))


def repeated(dataset: Indexed, times: int) -> Subset[Any]:
    """Return a dataset several times over."""
    return Subset(dataset, Repetition(len(dataset), integer("repeat: times", times, least=1)))


def sharded(dataset: Indexed, index: int, count: int) -> Subset[Any]:
    """Return every ``count``-th sample, from the ``index``-th on."""
    of = integer("shard: count", count, least=1)
    first = integer("shard: index", index, least=0, most=of - 1, cure="Shards count from 0 to count - 1.")
    return Subset(dataset, range(min(first, len(dataset)), len(dataset), of))


def packed(dataset: Indexed, path: str | os.PathLike[str], **how: Any) -> Any:
    """Store the samples of a dataset in shards."""
    from headrace.datasets.pack_writer import pack  # what writes is not loaded by those who only read

    return pack(dataset, path, **how)


VIEWS.update(filter=filtered, take=taken, skip=skipped, repeat=repeated, shard=sharded, pack=packed)
