"""Several samples for one key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.datasets import protocol
from headrace.datasets.base import View
from headrace.datasets.pieces import many_pieces, read_piece
from headrace.plan.piece import Piece

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.datasets.protocol import Indexed
    from headrace.storage.object_spans import ObjectSpans


class GroupedDataset(View[list[Any]]):
    """A dataset read by groups of indices: the sample at a tuple is the list of the samples at its indices.

    >>> from headrace.datasets import GroupedDataset
    >>> words = GroupedDataset(["a", "bb", "ccc"])
    >>> words[(0, 2)], words[1]
    (['a', 'ccc'], ['bb'])

    It is what the keys of a `PackingBatchSampler` are for. Some of them may be a `Piece`, a part of a sample. Random
    numbers drawn while a group is read are one stream for the whole group. Raises `ArgumentTypeError`, a TypeError, for
    a dataset that cannot be indexed.
    """

    def __init__(self, dataset: Indexed) -> None:
        protocol.check_indexed("GroupedDataset", dataset, 0)
        self.dataset = dataset

    @property
    def _viewed(self) -> Indexed:
        return self.dataset

    def __getitem__(self, index: Any) -> list[Any]:
        """Read the samples of a group, or one by itself."""
        samples = []
        for number in _group(index):
            piece = isinstance(number, Piece)
            try:
                samples.append(read_piece(self.dataset, number) if piece else self.dataset[number])
            except Exception as error:
                where = protocol.where(self.dataset, number.index if piece else number)
                error.add_note(f"headrace: sample {number}{f' ({where})' if where else ''} of the group {index!r}")
                raise
        return samples

    def __getitems__(self, indices: Sequence[Any]) -> list[list[Any]]:
        """Read the samples of several groups, in one call of the dataset's where it has ``__getitems__``."""
        groups = [_group(index) for index in indices]
        samples = iter(many_pieces(self.dataset, [number for group in groups for number in group]))
        return [[next(samples) for _ in group] for group in groups]

    @property
    def reads_many(self) -> bool:
        """Whether the dataset reads many samples at once."""
        return protocol.reads_many(self.dataset)

    def object_spans(self, keys: Sequence[Any]) -> list[ObjectSpans]:
        """Ask the dataset for the samples of all groups; of a part of a sample, for the whole of it."""
        numbers = [number for key in keys for number in _group(key)]
        whole = [number.index if isinstance(number, Piece) else number for number in numbers]
        return protocol.object_spans(self.dataset, whole)

    def where(self, index: Any) -> str | None:
        """Say where the first sample of a group comes from, as the dataset does."""
        first = _group(index)[0]
        return protocol.where(self.dataset, first.index if isinstance(first, Piece) else first)


def _group(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)
