"""Streams whose samples are packed in rows."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import DataLoader, get_worker_info
from headrace.collate import PackedCollate
from headrace.datasets import IterableDataset, PackedStream
from headrace.errors import ArgumentError, ArgumentTypeError

LENGTHS = [3, 5, 2, 4, 9, 1, 8, 0, 6, 2, 17, 3, 3]


def texts(lengths: list[int]) -> list[Any]:
    """Return texts whose tokens say which text they are of, and which token of it."""
    return [1000 * number + np.arange(length) for number, length in enumerate(lengths)]


class Texts(IterableDataset[Any]):
    """A stream of texts, which worker processes share."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths

    def __iter__(self) -> Any:
        info = get_worker_info()
        mine, count = (0, 1) if info is None else (info.id, info.num_workers)
        return iter(texts(self.lengths)[mine::count])


@given(
    lengths=st.lists(st.integers(0, 40), max_size=40),
    room=st.integers(1, 20),
    window=st.integers(1, 15),
    longer=st.sampled_from(["split", "truncate", "drop"]),
)
def test_each_text_is_in_one_row_or_its_parts_are(lengths: list[int], room: int, window: int, longer: Any) -> None:
    """Deliver every token once, or those that are kept, in rows that have room, and no text of a later window early."""
    rows = list(PackedStream(texts(lengths), room, window=window, longer=longer))
    assert all(row and sum(map(len, row)) <= room for row in rows)
    found = sorted(token for row in rows for text in row for token in text.tolist())
    kept = {
        "split": texts(lengths),
        "truncate": [text[:room] for text in texts(lengths)],
        "drop": [text for text in texts(lengths) if len(text) <= room],
    }[longer]
    assert found == sorted(token for text in kept for token in text.tolist())
    windows = [{int(text[0]) // 1000 // window for text in row if len(text)} for row in rows]
    assert all(len(each) <= 1 for each in windows)
    assert (order := [min(each) for each in windows if each]) == sorted(order)


@pytest.mark.parametrize(
    "options", [{}, {"num_workers": 2, "backend": "threads"}, {"num_workers": 2, "backend": "processes"}]
)
def test_a_packed_stream_is_loaded_and_resumed(options: dict[str, Any]) -> None:
    """Deliver each token once, and after a state the rest, with every executor."""
    whole = sorted(token for text in texts(LENGTHS) for token in text.tolist())

    def loader() -> DataLoader[Any]:
        rows = PackedStream(Texts(LENGTHS), 8, window=4, longer="split")
        return DataLoader(rows, 2, collate_fn=PackedCollate(8, value=-1), seed=3, **options)

    def tokens(batches: Any) -> list[int]:
        return [token for batch in batches for token in batch.values.ravel().tolist() if token >= 0]

    first = loader()
    batches = iter(first)
    before = tokens(islice(batches, 2))
    state = first.state_dict()
    after = tokens(batches)
    assert sorted(before + after) == whole
    second = loader()
    second.load_state_dict(state)
    assert tokens(second) == after
    assert first.statistics().tokens == len(whole)


def test_samples_with_several_parts_are_cut_together() -> None:
    """Cut the longest parts, and keep labels."""
    samples = [{"tokens": np.arange(5), "mask": [1, 1, 1, 1, 0], "source": "web"}]
    rows = list(PackedStream(samples, 3, longer="split"))
    assert [[len(part["tokens"]), len(part["mask"]), part["source"]] for row in rows for part in row] == [
        [3, 3, "web"],
        [2, 2, "web"],
    ]


def test_an_empty_list_is_a_text_of_no_tokens() -> None:
    """Pack lists as arrays are packed, with a row of padding where nothing else is."""
    assert list(PackedStream([[], [3, 4], {"tokens": []}], 4)) == [[[3, 4], [], {"tokens": []}]]
    (batch,) = DataLoader(PackedStream([[], [3, 4], []], 4), 2, collate_fn=PackedCollate(4))
    assert batch.values.tolist() == [[3, 4, 0, 0]]


def test_a_text_that_is_too_long_is_named_by_its_place_in_the_stream() -> None:
    """Count through all windows, and deliver the rows before."""
    rows = iter(PackedStream(texts([2, 3, 2, 9]), 4, window=2))
    assert [len(next(rows)), len(next(rows))] == [1, 1]
    with pytest.raises(ArgumentError, match=r"sample 3 of the stream has length 9, more than row_length=4") as caught:
        next(rows)
    assert caught.value.index == 3


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: PackedStream(5, 4), "must be iterable"),  # type: ignore[arg-type]
        (lambda: PackedStream([], 0), "row_length"),
        (lambda: PackedStream([], 4, window=0), "window"),
        (lambda: PackedStream([], 4, longer="wrap"), "longer"),  # type: ignore[arg-type]
        (lambda: list(PackedStream(["text"], 4)), "sample 0 of the stream is 'text', which has no length"),
        (lambda: list(PackedStream([7], 4)), "which has no length"),
    ],
)
def test_what_cannot_be_packed_is_refused(make: Any, says: str) -> None:
    """Say what was found, and what to do."""
    with pytest.raises(ArgumentError, match=says):
        make()


def test_an_iterator_can_be_packed_once() -> None:
    """Raise in the second epoch, where nothing is left."""
    rows = PackedStream(iter(texts([2, 2])), 4)
    assert len(list(rows)) == 1
    with pytest.raises(ArgumentTypeError, match="can be read"):
        list(rows)
