"""Samples of different lengths, padded into one batch."""

from __future__ import annotations

import pickle
from collections import namedtuple
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace import DataLoader
from headrace.collate.padded import Padded, PaddedCollate
from headrace.errors import ArgumentError, CollateError, CollateTypeError

Pair = namedtuple("Pair", "tokens label")


@given(
    rows=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    rest=hnp.array_shapes(min_dims=0, max_dims=2, min_side=1, max_side=3),
    dtypes=st.lists(st.sampled_from(["u1", "i4", "f4", "f8"]), min_size=6, max_size=6),
    side=st.sampled_from(["right", "left"]),
    multiple=st.none() | st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_every_sample_is_there_and_the_rest_is_padding(
    rows: list[int], rest: tuple[int, ...], dtypes: list[str], side: Any, multiple: int | None, seed: int
) -> None:
    """Cut each sample out of the batch by its length and by its mask; find the value everywhere else."""
    draw = np.random.default_rng(seed)
    samples = [
        draw.integers(0, 100, (length, *rest)).astype(dtype) for length, dtype in zip(rows, dtypes, strict=False)
    ]
    batch = PaddedCollate(value=101, side=side, multiple_of=multiple, lengths=True)(samples)
    longest = max(rows)
    width = longest if multiple is None else -(-longest // multiple) * multiple
    assert batch.values.shape == (len(rows), width, *rest)
    assert batch.values.dtype == np.result_type(*samples)
    assert batch.lengths.tolist() == rows
    assert (batch.lengths.dtype, batch.mask.dtype) == (np.int64, np.bool_)
    for row, (sample, length) in enumerate(zip(samples, rows, strict=True)):
        begin = 0 if side == "right" else width - length
        np.testing.assert_array_equal(batch.values[row, begin : begin + length], sample)
        np.testing.assert_array_equal(batch.values[row][batch.mask[row]], sample)
        assert (batch.values[row][~batch.mask[row]] == 101).all()
        assert batch.mask[row].sum() == length


def test_lists_of_numbers_are_arrays() -> None:
    """Pad tokens as they come from a tokenizer; an empty list takes the others' dtype."""
    batch = PaddedCollate()([[5, 6], [], [7]])
    assert (batch.tolist(), batch.dtype) == ([[5, 6], [0, 0], [7, 0]], np.int64)
    assert PaddedCollate()([[], [1.5]]).dtype == np.float64
    assert PaddedCollate()([[True], [False, True]]).dtype == np.bool_
    empty = PaddedCollate(lengths=True)([[], []])
    assert (empty.values.shape, empty.values.dtype, empty.mask.shape) == ((2, 0), np.int64, (2, 0))


def test_each_leaf_has_a_value_of_its_own() -> None:
    """Pad what is named, with its value; collate the rest as always."""
    samples = [
        {"ids": [1, 2, 3], "labels": np.array([4]), "meta": {"box": np.zeros(2), "scores": [0.5]}, "name": "a"},
        {"ids": [1], "labels": np.array([4, 5]), "meta": {"box": np.ones(2), "scores": []}, "name": "b"},
    ]
    value = {"ids": 0, "labels": -100, "meta": {"scores": np.nan}}
    batch = PaddedCollate(value, multiple_of=4)(samples)
    assert batch["ids"].tolist() == [[1, 2, 3, 0], [1, 0, 0, 0]]
    assert batch["labels"].tolist() == [[4, -100, -100, -100], [4, 5, -100, -100]]
    assert np.isnan(batch["meta"]["scores"][1]).all()
    assert batch["meta"]["box"].tolist() == [[0, 0], [1, 1]]
    assert batch["name"] == ["a", "b"]


def test_values_go_by_position_in_tuples() -> None:
    """Leave alone what has None; take pairs, lists and named tuples."""
    pairs = [(np.arange(3), np.zeros(2), 7), (np.arange(1), np.ones(2), 8)]
    tokens, fixed, labels = PaddedCollate((9, None, None), multiple_of=4)(pairs)
    assert tokens.tolist() == [[0, 1, 2, 9], [0, 9, 9, 9]]
    assert (fixed.shape, labels.tolist()) == ((2, 2), [7, 8])
    named = PaddedCollate((9, None))([Pair([1, 2], 3), Pair([1], 4)])
    assert isinstance(named, Pair)
    assert named.tokens.tolist() == [[1, 2], [1, 9]]


def test_what_has_no_length_is_collated_as_always() -> None:
    """Leave numbers, scalars, text and arrays of text to the default collate."""
    batch = PaddedCollate()([(1, np.float32(2), np.array(3), "a", np.array(["x"]), [(1, 2)])] * 2)
    assert [np.asarray(part).shape for part in batch] == [(2,), (2,), (2,), (2,), (2, 1), (1, 2, 2)]


def test_whatever_turns_into_an_array_is_padded() -> None:
    """Take tensors of any framework by the array protocol."""

    class Tensor:
        def __init__(self, length: int) -> None:
            self.length = length

        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return np.ones(self.length)

    assert PaddedCollate()([Tensor(1), Tensor(2)]).tolist() == [[1, 0], [1, 1]]


def test_padding_is_written_into_lent_memory() -> None:
    """Ask for the memory of values, lengths and mask."""
    lent: list[np.ndarray] = []

    def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        lent.append(np.full(shape, 1, dtype))
        return lent[-1]

    batch = PaddedCollate(lengths=True)([[1, 2], [3]], empty=empty)
    assert isinstance(batch, Padded)
    assert all(any(part is array for array in lent) for part in batch)
    assert batch.values.tolist() == [[1, 2], [3, 0]]


def test_a_loader_pads_its_batches() -> None:
    """Use it as a collate function on threads; send it to a process."""
    collate = pickle.loads(pickle.dumps(PaddedCollate({"x": -1})))
    loader = DataLoader([{"x": list(range(n))} for n in (1, 3, 2, 0)], 2, collate_fn=collate, num_workers=2)  # type: ignore[arg-type]
    assert [batch["x"].tolist() for batch in loader] == [[[0, -1, -1], [0, 1, 2]], [[0, 1], [-1, -1]]]


@pytest.mark.parametrize(
    ("collate", "samples", "error", "words"),
    [
        (
            PaddedCollate(),
            [np.zeros((1, 2)), np.zeros((1, 3))],
            CollateError,
            r"\(1, 2\) and \(1, 3\), but only the first",
        ),
        (PaddedCollate(), [np.zeros(1), np.zeros((1, 1))], CollateError, "samples 0 and 1 .* more than their length"),
        (PaddedCollate(), [{"x": np.zeros(1)}, {"x": [0.0]}], CollateError, r"at sample\['x'\]: .* \(1,\) and list"),
        (PaddedCollate(), [np.zeros(2), np.array(["a"])], CollateTypeError, "arrays of numbers and of"),
        (PaddedCollate(-1), [np.zeros(1, "u1")], CollateError, "arrays of uint8 cannot be padded with -1"),
        (PaddedCollate(300), [np.zeros(1, "u1")], CollateError, "uint8 cannot be padded with 300"),
        (PaddedCollate(0.5), [[1]], CollateError, "int64 cannot be padded with 0.5"),
        (PaddedCollate(np.nan), [[1]], CollateError, "int64 cannot be padded with nan"),
        (PaddedCollate(1e30), [np.zeros(1, "f2")], CollateError, "float16 cannot be padded with 1e"),
        (PaddedCollate(1j), [np.zeros(1)], CollateError, "float64 cannot be padded with 1j"),
        (PaddedCollate({"y": 0}), [{"x": [1]}], CollateError, r"sample\['y'\], but the samples have the keys \['x'\]"),
        (PaddedCollate({"x": {"y": 0}}), [{"x": [1]}], CollateError, r"sample\['x'\]\['y'\], .* have type list"),
        (PaddedCollate((0, 0)), [([1],)], CollateError, "value has 2 items for sample, which has 1 items"),
        (PaddedCollate((0, 0)), [{"x": 1}], CollateError, "value has 2 items for sample, which has type dict"),
        (
            PaddedCollate({"x": 0}),
            [{"x": [1], "z": np.zeros(n)} for n in (1, 2)],
            CollateError,
            r"at sample\['z'\]: .* shape",
        ),
        (PaddedCollate(), [], CollateError, "at least one"),
    ],
    ids=str,
)
def test_samples_that_cannot_be_padded_are_named(collate: Any, samples: Any, error: Any, words: str) -> None:
    """Say where in the sample, which samples, what each has, and what would do."""
    with pytest.raises(error, match=words):
        collate(samples)


def test_any_number_that_a_dtype_holds_pads_it() -> None:
    """Round a float to the arrays' precision; take infinity and NaN for floats, True for bools."""
    assert PaddedCollate(0.1)([np.ones(1, "f4"), np.ones(2, "f4")])[0, 1] == np.float32(0.1)
    assert np.isinf(PaddedCollate(np.inf)([np.ones(1, "f4"), np.ones(2, "f4")])[0, 1])
    assert PaddedCollate(value=True)([[False], [False, False]]).tolist() == [[False, True], [False, False]]
    assert PaddedCollate(np.float64(2.0))([[1], [1, 1]]).tolist() == [[1, 2], [1, 1]]
    bfloat16 = np.dtype(ml_dtypes.bfloat16)
    padded = PaddedCollate(0.1)([np.ones(1, bfloat16), np.ones(2, bfloat16)])
    assert padded.dtype == bfloat16
    assert padded[0, 1] == bfloat16.type(0.1)
    assert PaddedCollate(1j)([np.ones(1, "c8"), np.ones(2, "c8")])[0, 1] == 1j


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"side": "both"}, "side must be one of 'right', 'left'; got 'both'"),
        ({"multiple_of": 0}, "multiple_of must be an integer from 1 up; got 0"),
        ({"multiple_of": 2.5}, "multiple_of must be"),
        ({"multiple_of": True}, "multiple_of must be"),
        ({"value": "x"}, "value must be a number, or a mapping or sequence of numbers and None; got 'x'"),
        ({"value": {"a": [0, object()]}}, "value must be a number"),
    ],
)
def test_padding_is_checked_at_the_door(arguments: dict[str, Any], words: str) -> None:
    """Name the argument that does not do."""
    with pytest.raises(ArgumentError, match=words):
        PaddedCollate(**arguments)
