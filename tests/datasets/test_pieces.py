"""Keys that are parts of samples: the loader cuts what the dataset gives, whoever reads it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from headrace import ConcatDataset, DataLoader, Dataset, Ledger, Subset, verify_epoch
from headrace.collate import PackedCollate, PaddedCollate
from headrace.datasets import GroupedDataset, TokenDataset
from headrace.datasets.pieces import read_piece
from headrace.errors import ArgumentError, ArgumentTypeError
from headrace.plan.piece import Piece
from headrace.samplers import MixtureSampler, PackingBatchSampler, TokenBatchSampler

LENGTHS = [3, 25, 9, 0, 14, 10]
DOCUMENTS = [np.arange(length, dtype=np.uint16) + 100 * number for number, length in enumerate(LENGTHS)]
KINDS: list[dict[str, Any]] = [
    {},
    {"num_workers": 2, "backend": "threads"},
    {"num_workers": 2, "backend": "processes", "multiprocessing_context": "fork"},
]


class Documents(Dataset[Any]):
    """Documents that are read whole, with what was read of them."""

    def __init__(self) -> None:
        self.read: list[Any] = []

    def __getitem__(self, index: int) -> Any:
        self.read.append(index)
        return DOCUMENTS[index]

    def __len__(self) -> int:
        return len(DOCUMENTS)

    def where(self, index: int) -> str:
        return f"documents.bin, document {index}"


class InParts(Documents):
    """Documents that are read in parts."""

    def read_part(self, index: int, start: int, stop: int) -> Any:
        self.read.append((index, start, stop))
        return DOCUMENTS[index][start:stop]


class Named(NamedTuple):
    tokens: Any
    label: Any


def test_every_array_of_a_samples_length_is_cut() -> None:
    """Cut arrays and lists of numbers in mappings and tuples; leave labels and arrays of other lengths whole."""
    sample = {"ids": np.arange(6), "pair": Named([1, 2, 3, 4, 5, 6], 7), "name": "a", "embedding": np.zeros(4)}
    found = read_piece([sample], Piece(0, 2, 5))
    assert found["ids"].tolist() == [2, 3, 4]
    assert found["pair"] == Named([3, 4, 5], 7)
    assert found["name"] == "a"
    assert found["embedding"].shape == (4,)


def test_a_dataset_may_read_only_the_part() -> None:
    """Ask for the part through views that change no sample, and for the whole sample through those that do."""
    parts = InParts()
    both = ConcatDataset([DOCUMENTS, Subset(parts, [4, 1])])
    assert read_piece(both, Piece(7, 10, 12)).tolist() == [110, 111]
    assert parts.read == [(1, 10, 12)]
    assert read_piece(both.map(lambda tokens: tokens + 1), Piece(7, 10, 12)).tolist() == [111, 112]
    assert parts.read[1:] == [1]

    class Changed(InParts):
        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index)[::-1]

    assert read_piece(Changed(), Piece(1, 0, 2)).tolist() == [124, 123]


def test_a_document_of_a_token_file_is_read_in_parts() -> None:
    """Copy only the tokens of the part; windows are cut like any other sample."""
    documents = TokenDataset(DOCUMENTS[:3], documents=True)
    assert documents.read_part is not None
    assert read_piece(documents, Piece(1, 20, 25)).tolist() == DOCUMENTS[1][20:25].tolist()
    with pytest.raises(ArgumentError, match="sample 2 has length 9, but its part from 8 to 12 was asked for"):
        read_piece(documents, Piece(2, 8, 12))
    inputs, targets = read_piece(TokenDataset(DOCUMENTS[:3], length=8), Piece(0, 2, 4))
    assert inputs.tolist() == [102, 103]
    assert targets.tolist() == [103, 104]


def test_a_group_of_a_dataset_of_single_samples_is_an_error() -> None:
    """Say which dataset reads the groups of packed rows."""
    dataset = TokenDataset([[1, 2, 3], [4, 5]], documents=True)
    loader: DataLoader[Any] = DataLoader(dataset, batch_sampler=PackingBatchSampler(dataset.lengths, 4, 2))
    with pytest.raises(ArgumentTypeError, match=r"indices must be integers; got \(\d,\), .* in GroupedDataset"):
        list(loader)


def test_a_sample_that_has_no_such_part_is_an_error() -> None:
    """Name the sample and the part."""
    with pytest.raises(ArgumentError, match="sample 2 has length 9, but its part from 8 to 12 was asked for"):
        read_piece(DOCUMENTS, Piece(2, 8, 12))
    with pytest.raises(ArgumentTypeError, match="sample 1 is 'b', which has no length to cut"):
        read_piece(["a", "b"], Piece(1, 0, 1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("longer", ["split", "truncate"])
@pytest.mark.parametrize("packs", [True, False])
def test_what_is_too_long_is_cut_once_for_all(kind: Any, longer: Any, packs: bool) -> None:
    """Give all tokens, or those up to the limit, with no word of it to the dataset or to collate; replay the same."""
    how: Any = {"longer": longer, "window": 4}
    loader: DataLoader[Any]
    if packs:
        rows = PackingBatchSampler(LENGTHS, 10, 2, **how)
        loader = DataLoader(
            GroupedDataset(Documents()), batch_sampler=rows, collate_fn=PackedCollate(10), seed=0, **kind
        )
        batches = list(loader)
        tokens = [batch.values[batch.segment_ids > 0] for batch in batches]
        replayed = loader.replay(epoch=0, step=1).values
        assert np.array_equal(replayed, batches[1].values)
    else:
        budget = TokenBatchSampler(LENGTHS, 20, max_samples=3, **how)
        collate = PaddedCollate(lengths=True)
        loader = DataLoader(Documents(), batch_sampler=budget, collate_fn=collate, seed=0, **kind)
        batches = list(loader)
        tokens = [batch.values[batch.mask] for batch in batches]
        assert np.array_equal(loader.replay(epoch=0, step=1).values, batches[1].values)
    most = 10 if packs else 20
    expected = [document if longer == "split" else document[:most] for document in DOCUMENTS]
    assert sorted(np.concatenate(tokens).tolist()) == np.concatenate(expected).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_names_document_and_part(kind: Any) -> None:
    """Say which part of which document could not be read, and where it is."""

    class Wrong(Documents):
        def __getitem__(self, index: int) -> Any:
            if index == 1:
                raise ValueError("broken")
            return super().__getitem__(index)

    budget = TokenBatchSampler(LENGTHS, 20, longer="split", shuffle=False)
    loader: DataLoader[Any] = DataLoader(Wrong(), batch_sampler=budget, collate_fn=PaddedCollate(), **kind)
    with pytest.raises(ValueError, match="broken") as caught:
        list(loader)
    notes = "\n".join(caught.value.__notes__)
    assert "Piece(index=1, start=20, stop=25)" in notes
    assert "documents.bin, document 1" in notes
    rows = PackingBatchSampler(LENGTHS, 10, 2, longer="split", shuffle=False)
    packed: DataLoader[Any] = DataLoader(
        GroupedDataset(Wrong()), batch_sampler=rows, collate_fn=PackedCollate(10), **kind
    )
    with pytest.raises(ValueError, match="broken") as caught:
        list(packed)
    assert "sample Piece(index=1, start=0, stop=10) (documents.bin, document 1)" in "\n".join(caught.value.__notes__)


def test_a_part_has_a_lineage_and_is_proven_once() -> None:
    """Follow a part to its document; prove each part of an epoch by the ledger, of a mixture too."""
    both = ConcatDataset([Subset(Documents(), [1]), Documents()])
    ledger = Ledger()
    sampler = MixtureSampler([1, 6], [1, 6], num_samples=14)
    budget = TokenBatchSampler([25, *LENGTHS], 20, sampler=sampler, longer="split", shuffle=False)
    loader: DataLoader[Any] = DataLoader(both, batch_sampler=budget, collate_fn=PaddedCollate(), seed=0, ledger=ledger)
    steps = list(loader)
    keys = [
        loader.lineage(epoch=0, step=step, index=row) for step, batch in enumerate(steps) for row in range(len(batch))
    ]
    part = next(found for found in keys if isinstance(found.key, Piece))
    assert part.key.index in (0, 2)
    assert part.sample.tolist() == DOCUMENTS[1][part.key.start : part.key.stop].tolist()
    assert part.where == "documents.bin, document 1"
    assert [name for name, _ in part.dataset][:1] == ["ConcatDataset"]
    assert part.dataset[-1] == ("Documents", 1)
    proof = verify_epoch(ledger)
    assert proof.exact
    assert proof.delivered == len(keys)
