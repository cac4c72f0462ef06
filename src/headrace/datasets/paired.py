"""Two datasets joined by label: each sample of one with rows of the other, drawn at random among those of its label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import flag, integer, kind_of
from headrace.context import seeds
from headrace.datasets import protocol
from headrace.datasets.base import View
from headrace.errors import ArgumentError
from headrace.interop.keys import place

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from headrace.datasets.protocol import Indexed


class PairedDataset(View[Any]):
    """The samples of a dataset, each with ``k`` rows of another, drawn at random among those of the same label.

    >>> from headrace import ArrayDataset, DataLoader
    >>> from headrace.datasets import PairedDataset
    >>> images = ArrayDataset(np.zeros((6, 8, 8, 3)), np.array([0, 1, 0, 1, 0, 1]))
    >>> sounds = ArrayDataset(np.arange(10.0)[:, None] + np.zeros(16), np.array([0] * 5 + [1] * 5))
    >>> (images, audio), labels = next(iter(DataLoader(PairedDataset(images, sounds, k=3), 4, seed=0)))
    >>> images.shape, audio.shape, labels
    ((4, 8, 8, 3), (4, 3, 16), array([0, 1, 0, 1]))
    >>> bool(((audio >= 5) == labels[:, None, None]).all())
    True

    A sample of ``dataset`` is a pair of anything and a label; ours is ``([anything, rows], label)``, of which a batch
    keeps the shape: ``([images, audio], labels)``. ``rows`` is an array ``(k, …)``, or, with ``k=None``, one row as it
    is. Where a sample of ``others`` is a tuple, its row is what comes first.

    Which rows come is drawn by the sample's own generator (`headrace.rng`), before the sample itself is read: other
    ones in each epoch, the same ones in a replay, on any number of workers. They are drawn with replacement; with
    ``replacement=False`` no row comes twice for one sample.

    The labels, one integer a sample, are taken from the datasets where they can be had without reading samples: the
    attribute ``labels`` or ``targets``, the last of an `ArrayDataset`'s arrays, and through views. Else give them:
    ``labels``, ``other_labels``. They decide who is joined with whom; the label of
    the sample stays what ``dataset`` makes of it.

    Raises `ArgumentError`, before anything is read, where a label of ``dataset`` has no row among ``others``, or fewer
    than ``k`` without replacement; where labels cannot be had; and for arguments that cannot be used.
    """

    def __init__(
        self,
        dataset: Indexed,
        others: Indexed,
        k: int | None = None,
        *,
        replacement: bool = True,
        labels: ArrayLike | None = None,
        other_labels: ArrayLike | None = None,
    ) -> None:
        protocol.check_indexed("PairedDataset", dataset, "dataset")
        protocol.check_indexed("PairedDataset", others, "others")
        self.dataset, self.others = dataset, others
        self.k = None if k is None else integer("k", k, least=1)
        self.replacement = flag("replacement", replacement)
        mine = _labels("labels", dataset, labels)
        theirs = _labels("other_labels", others, other_labels)
        # The rows of each label are a stretch of one list, in their own order.
        kinds, counts = np.unique(theirs, return_counts=True)
        self._rows = np.argsort(theirs, kind="stable")
        self._begins = np.concatenate(([0], np.cumsum(counts)))
        found = np.searchsorted(kinds, mine)
        self._kinds = np.minimum(found, max(len(kinds) - 1, 0))
        self._labels = kinds
        self._check(mine, kinds, counts)

    def _check(self, mine: NDArray[np.int64], kinds: NDArray[np.int64], counts: NDArray[np.intp]) -> None:
        lonely = mine if not len(kinds) else mine[kinds[self._kinds] != mine]
        if len(lonely):
            names, times = np.unique(lonely, return_counts=True)
            told = ", ".join(f"{name} ({many} samples)" for name, many in zip(names[:8], times[:8], strict=True))
            raise ArgumentError(
                f"PairedDataset: no row among the others for {len(names)} labels: {told}"
                f"{', …' if len(names) > 8 else ''}; the others have rows for {_some(kinds)}",
                found=tuple(names.tolist()),
                expected="rows for every label",
                cure="Add rows for these labels, or leave their samples out with Subset.",
            )
        needed = 0 if self.replacement else (self.k or 1)
        scarce = np.unique(self._kinds[counts[self._kinds] < needed]) if len(mine) else np.empty(0, np.intp)
        if len(scarce):
            told = ", ".join(f"{kinds[kind]} ({counts[kind]} rows)" for kind in scarce[:8])
            raise ArgumentError(
                f"PairedDataset: fewer than k={needed} rows for {len(scarce)} labels: "
                f"{told}{', …' if len(scarce) > 8 else ''}",
                found=tuple(kinds[scarce].tolist()),
                expected="at least k rows for every label without replacement",
                cure="Pass a smaller k, or replacement=True.",
            )

    @property
    def _viewed(self) -> Indexed:
        return self.dataset

    @property
    def labels(self) -> NDArray[np.int64]:
        """The labels that decide which rows may come."""
        return self._labels[self._kinds]

    def __getitem__(self, index: int) -> Any:
        """Read a sample and the rows drawn for it."""
        rows = self._draw(index)
        sample = self.dataset[index]
        return self._joined(index, sample, [self.others[row] for row in rows])

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """Read these samples, and all their rows in one call where ``others`` has ``__getitems__``."""
        drawn: list[list[int]] = []
        generators: list[Any] = []
        for row in seeds.each(len(indices)):
            drawn.append(self._draw(indices[row]))
            generators.append(seeds.rng())
        with seeds.continued(generators):
            if protocol.reads_many(self.dataset):
                samples = protocol.many(self.dataset, indices)
            else:
                samples = [self.dataset[indices[row]] for row in seeds.each(len(indices))]
            if protocol.reads_many(self.others) and not protocol.draws(self.others):
                rows = iter(protocol.many(self.others, [row for mine in drawn for row in mine]))
            else:
                rows = iter([self.others[row] for sample in seeds.each(len(indices)) for row in drawn[sample]])
        return [
            self._joined(index, sample, [next(rows) for _ in mine])
            for index, sample, mine in zip(indices, samples, drawn, strict=True)
        ]

    @property
    def reads_many(self) -> bool:
        """Whether either dataset reads many samples at once."""
        return protocol.reads_many(self.dataset) or protocol.reads_many(self.others)

    @property
    def draws(self) -> bool:
        """Whether reading a sample may draw random numbers: always."""
        return True

    def _draw(self, index: int) -> list[int]:
        kind = self._kinds[place(index, len(self._kinds), "a PairedDataset of {} samples")]
        begin, end = self._begins[kind], self._begins[kind + 1]
        size = self.k or 1
        rng = seeds.rng()
        places = rng.integers(begin, end, size) if self.replacement else begin + rng.permutation(end - begin)[:size]
        rows: list[int] = self._rows[places].tolist()
        return rows

    def _joined(self, index: int, sample: Any, rows: list[Any]) -> Any:
        if not isinstance(sample, tuple | list) or len(sample) != 2:
            size = f" of {len(sample)}" if isinstance(sample, tuple | list) else ""
            raise ArgumentError(
                f"PairedDataset: sample {index} is {kind_of(sample)}{size}",
                index=index,
                found=f"{kind_of(sample)}{size}",
                expected="a pair of anything and a label",
                cure="Convert the samples to (inputs, label) with .map.",
            )
        first, label = sample
        bare = [row[0] if isinstance(row, tuple | list) else row for row in rows]
        if self.k is None:
            return [first, bare[0]], label
        try:
            return [first, np.stack(bare)], label
        except ValueError as error:
            shapes = sorted({np.shape(row) for row in bare})
            raise ArgumentError(
                f"PairedDataset: the rows drawn for sample {index} differ in shape: {', '.join(map(str, shapes))}",
                index=index,
                found=tuple(shapes),
                expected="rows of one shape",
                cure="Convert the others to one shape with .map.",
            ) from error


def _some(kinds: NDArray[Any]) -> str:
    if not len(kinds):
        return "no label at all"
    return f"{', '.join(map(str, kinds[:8]))}{', …' if len(kinds) > 8 else ''}"


def _labels(name: str, dataset: Indexed, given: ArrayLike | None) -> NDArray[np.int64]:
    labels = protocol.labels(dataset) if given is None else np.asarray(given)
    if labels is None:
        raise ArgumentError(
            f"PairedDataset: {kind_of(dataset)} has no labels",
            found=dataset,
            expected="an attribute `labels` or `targets`, one integer a sample",
            cure=f"Pass them as {name}=.",
        )
    if labels.shape != (len(dataset),) or (labels.dtype.kind not in "iu" and labels.size):
        raise ArgumentError(
            f"PairedDataset: {name} must be one integer for each of {len(dataset)} samples; "
            f"got {labels.dtype} of shape {labels.shape}",
            found=f"{labels.dtype} of shape {labels.shape}",
            expected=f"integers of shape ({len(dataset)},)",
            cure="Give each sample the number of its class.",
        )
    return labels.astype(np.int64)
