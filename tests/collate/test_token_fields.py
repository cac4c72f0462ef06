"""Labels, masks and boundaries of packed and padded tokens, each against a walk over the tokens one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import DataLoader
from headrace.collate import PackedCollate, PaddedCollate
from headrace.datasets import GroupedDataset
from headrace.errors import ArgumentError, CollateError, CollateTypeError
from headrace.samplers import PackingBatchSampler

PACKED = ["values", "segment_ids", "positions", "labels", "loss_mask", "cu_seqlens", "max_seqlen"]
PADDED = ["values", "lengths", "mask", "positions", "labels", "loss_mask"]
documents = st.lists(st.lists(st.integers(0, 65535), max_size=5), min_size=1, max_size=4)


def tokens(document: list[int]) -> Any:
    return np.array(document, np.uint16)


@given(rows=st.lists(documents, min_size=1, max_size=3), shifted=st.booleans())
def test_packed_fields_are_those_of_each_document(rows: list[list[list[int]]], shifted: bool) -> None:
    """Give each token the next one of its document as its label, and cover the flattened rows with boundaries."""
    samples = [[tokens(document) for document in row] for row in rows]
    batch = PackedCollate(20, fields=PACKED, shifted=shifted)(samples)
    plain = PackedCollate(20)(samples)
    assert batch["values"].dtype == batch["labels"].dtype == np.int64
    assert np.array_equal(batch["values"], plain.values)
    assert np.array_equal(batch["segment_ids"], plain.segment_ids)
    assert np.array_equal(batch["positions"], plain.positions)
    labels, ends = [], [0]
    for row in rows:
        own: list[int] = []
        for document in row:
            own += [*document[1:], -100] if shifted and document else [-100, *document[1:]] if document else []
            ends += [ends[-1] + len(document)] if document else []
        rest = 20 - len(own)
        labels.append([*own, *[-100] * rest])
        ends += [ends[-1] + rest] if rest else []
    assert batch["labels"].tolist() == labels
    assert np.array_equal(batch["loss_mask"], batch["labels"] != -100)
    assert batch["cu_seqlens"].dtype == np.int32
    assert batch["cu_seqlens"].tolist() == ends
    assert batch["max_seqlen"] == max(np.diff(ends))


@given(rows=documents, shifted=st.booleans(), side=st.sampled_from(["left", "right"]))
def test_padded_fields_are_those_of_each_document(rows: list[list[int]], shifted: bool, side: Any) -> None:
    """Give no label in padding, on either side."""
    collate = PaddedCollate(9, side, 4, fields=PADDED, shifted=shifted)
    batch = collate([tokens(row) for row in rows])
    longest = batch["values"].shape[1]
    assert longest % 4 == 0
    for number, row in enumerate(rows):
        pad = longest - len(row)
        own = [*row[1:], -100] if shifted and row else [-100, *row[1:]] if row else []

        def filled(values: Any, value: Any, pad: int = pad) -> list[Any]:
            return [*values, *[value] * pad] if side == "right" else [*[value] * pad, *values]

        assert batch["values"][number].tolist() == filled(row, 9)
        assert batch["labels"][number].tolist() == filled(own, -100)
        assert batch["mask"][number].tolist() == filled([1] * len(row), 0)
        assert batch["positions"][number].tolist() == filled(range(len(row)), 0)
    assert batch["lengths"].tolist() == [len(row) for row in rows]
    assert np.array_equal(batch["loss_mask"], batch["labels"] != -100)


def test_names_are_the_users_and_fields_of_mappings_keep_theirs() -> None:
    """Rename what was asked for; make labels of the named tokens."""
    sample = {"input_ids": tokens([3, 4, 5]), "weights": np.array([0.5, 1, 1])}
    fields = {"labels": "targets", "positions": "position_ids"}
    batch = PackedCollate(4, fields=fields, tokens="input_ids")([[sample]])
    assert list(batch) == ["input_ids", "weights", "targets", "position_ids"]
    assert batch["targets"].tolist() == [[4, 5, -100, -100]]
    assert batch["weights"].dtype == np.float64
    padded = PaddedCollate(fields={"values": "x", "labels": "y"})([[1, 2, 3], [4]])
    assert padded["y"].tolist() == [[2, 3, -100], [-100, -100, -100]]
    pair = PackedCollate(4, (0, -100), fields=["values", "positions"])([[(tokens([3, 4]), tokens([4, 5]))]])
    assert [part.tolist() for part in pair["values"]] == [[[3, 4, 0, 0]], [[4, 5, -100, -100]]]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PackedCollate(4, fields=["label"]), "each of fields must be one of 'values', 'segment_ids'"),
        (lambda: PackedCollate(4, fields="labels"), "fields must be names of fields"),
        (lambda: PaddedCollate(fields={"values": "x", "labels": "x"}), "two of fields have the same name"),
        (lambda: PaddedCollate(lengths=True, fields=["values"]), r"lengths=True makes tuples .* add \"lengths\""),
        (
            lambda: PackedCollate(4, fields=["labels"])([[{"a": [1], "b": [2]}]]),
            "tokens=None, and the samples have 'a', 'b'",
        ),
        (lambda: PackedCollate(4, fields=["labels"])([[np.zeros(2)]]), "the tokens are float64"),
        (lambda: PaddedCollate(fields=["labels"])([{"labels": [1, 2]}]), "the samples have a field 'labels'"),
        (
            lambda: PaddedCollate(fields=["mask"])([{"a": [1, 2], "b": [1]}]),
            "sample 0 of the batch has length 1 here, but 2 in another",
        ),
        (lambda: PaddedCollate(fields=["mask"])([3, 4]), "no array to pad"),
        (
            lambda: PackedCollate(4, fields=["values"])([[np.array([2**63 + 1], np.uint64)]]),
            "sample 0 of the batch has the token 9223372036854775809, which int64 cannot hold",
        ),
        (lambda: PaddedCollate(fields=["values"])([[1], [2**63]]), "sample 1 of the batch has the token 92233"),
    ],
)
def test_fields_that_cannot_be_made_are_errors(make: Any, words: str) -> None:
    """Say which, and what to pass."""
    with pytest.raises((ArgumentError, CollateError, CollateTypeError), match=words):
        make()


@pytest.mark.parametrize("kind", [{}, {"num_workers": 2, "backend": "processes", "multiprocessing_context": "fork"}])
def test_a_loader_gives_batches_with_fields(kind: Any) -> None:
    """Deliver the same dict from any worker, and count its tokens."""
    texts = [tokens(list(range(length))) for length in (5, 3, 2, 6)]
    rows = PackingBatchSampler([5, 3, 2, 6], 8, 2, seed=0)
    collate = PackedCollate(8, fields=PACKED)
    loader: DataLoader[Any] = DataLoader(GroupedDataset(texts), batch_sampler=rows, collate_fn=collate, **kind)
    (batch,) = loader
    assert list(batch) == PACKED
    assert isinstance(batch["max_seqlen"], int)
    assert batch["loss_mask"].sum() == 16 - 4
    assert loader.statistics().tokens == 16
