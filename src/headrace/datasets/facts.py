"""What a dataset knows of itself without reading a sample, in words: for its repr, notebooks and `headrace.show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.datasets import protocol
from headrace.formatting import count, html_table

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_CLASSES = 12
"""How many classes are named, with the number of their samples."""
DEEPEST = 8
"""How many views are named, one inside the other."""


def line(dataset: Any) -> str:
    """Describe a dataset in one line.

    >>> from headrace import ArrayDataset
    >>> line(ArrayDataset(np.zeros((4, 2)), np.array([0, 1, 1, 0])).take(3))
    '<Subset of 3 samples, from ArrayDataset>'
    """
    names = chain(dataset)
    classes = protocol.classes(dataset)
    within = f" in {count(len(classes), 'class', 'classes')}" if classes else ""
    source = f", from {', '.join(names[1:])}" if names[1:] else ""
    return f"<{names[0]} of {count(len(dataset), 'sample')}{within}{source}>"


def chain(dataset: Any) -> list[str]:
    """Return the name of a dataset's class, and those of what it reads, the first of several."""
    names = [type(dataset).__qualname__]
    while len(dataset) and len(names) < DEEPEST:
        found = protocol.inner(dataset, 0)
        if found is None:
            break
        dataset = found[0]
        names.append(type(dataset).__qualname__)
    return names


def rows(dataset: Any) -> list[tuple[str, str]]:
    """Return names and values: samples, classes, labels, arrays, shards, and where the first sample comes from.

    >>> from headrace import ArrayDataset
    >>> rows(ArrayDataset(np.zeros((4, 2)), np.array([0, 1, 1, 0])))
    [('samples', '4'), ('labels', '2 values from 0 to 1'), ('a sample', 'float64 (2,), int64')]
    """
    found = [("samples", f"{len(dataset):,}")]
    classes, labels = protocol.classes(dataset), protocol.labels(dataset)
    if classes:
        found.append(("classes", _classes(classes, labels)))
    elif labels is not None and labels.size and labels.ndim == 1 and labels.dtype.kind in "iu":
        values = np.unique(labels)
        found.append(("labels", f"{count(len(values), 'value')} from {values[0]} to {values[-1]}"))
    columns = protocol.columns(dataset)
    if columns is not None:
        parts = [f"{dtype} {shape}" if shape else str(dtype) for dtype, shape in columns.rows]
        found.append(("a sample", ", ".join(parts)))
    shards = protocol.shard_lengths(dataset)
    if shards is not None:
        found.append(("shards", f"{len(shards):,}"))
    first = protocol.where(dataset, 0) if len(dataset) else None
    if first:
        found.append(("the first is", first))
    return found


def html(dataset: Any) -> str:
    """Describe a dataset for a notebook."""
    return html_table(rows(dataset), left=2, title=" of ".join(chain(dataset)), heading=False)


def _classes(classes: Sequence[str], labels: Any) -> str:
    known = labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu"
    counts = np.bincount(labels[labels >= 0], minlength=len(classes)) if known else None
    named = [
        name if counts is None else f"{name} ({counts[label]:,})" for label, name in enumerate(classes[:MOST_CLASSES])
    ]
    more = [f"and {len(classes) - MOST_CLASSES} more"] if len(classes) > MOST_CLASSES else []
    return f"{len(classes)}: {', '.join([*named, *more])}"
