"""Samples to batches: torch's container rules, with arrays for leaves."""

from __future__ import annotations

from collections import OrderedDict, UserList, defaultdict, namedtuple
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace import DataLoader, default_collate
from headrace.errors import CollateError, CollateTypeError

Point = namedtuple("Point", "x y")


@given(
    arrays=hnp.array_shapes(min_dims=0, max_side=5).flatmap(
        lambda shape: st.lists(hnp.arrays(st.sampled_from(["u1", "i8", "f4"]), shape), min_size=1, max_size=5)
    )
)
def test_arrays_of_one_shape_are_stacked(arrays: list[np.ndarray]) -> None:
    """Stack as np.stack does, in values and in dtype."""
    expected = np.stack(arrays)
    ints = [(row, array) for row, array in zip(expected, arrays, strict=True) if array.dtype.kind == "i"]
    if any([int(x) for x in row.flat] != [int(x) for x in array.flat] for row, array in ints):
        with pytest.raises(CollateError, match="lose digits"):
            default_collate(arrays)
        return
    batch = default_collate(arrays)
    assert batch.dtype == expected.dtype
    np.testing.assert_array_equal(batch, expected)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([1, 2, 3], np.array([1, 2, 3], np.int64)),
        ([1.5, 2], np.array([1.5, 2.0])),
        ([True, False], np.array([True, False])),
        ([1j, 2], np.array([1j, 2])),
        ([np.float32(1), np.float32(2)], np.array([1, 2], np.float32)),
        ([np.uint8(7)], np.array([7], np.uint8)),
        ([np.datetime64("2026-01-01")], np.array(["2026-01-01"], "M8[D]")),
        ([np.array(3), np.array(4)], np.array([3, 4])),
        ([np.float16(3), np.float16(4)], np.array([3, 4], np.float16)),
        ([ml_dtypes.bfloat16(3), ml_dtypes.bfloat16(4)], np.array([3, 4], ml_dtypes.bfloat16)),
    ],
    ids=repr,
)
def test_numbers_become_one_array(samples: list[Any], expected: np.ndarray) -> None:
    """Give ints int64, floats float64, bools bool; NumPy's scalars keep their dtype."""
    batch = default_collate(samples)
    assert batch.dtype == expected.dtype
    np.testing.assert_array_equal(batch, expected)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("side", [3, 300])
def test_floats_of_two_bytes_stay_what_they_are(dtype: Any, side: int) -> None:
    """Stack them as they are, small rows and those that land as they are made."""
    rows = [np.full((side, 2), row, dtype) for row in range(3)]
    for batch in (default_collate(rows), *DataLoader(rows, 3)):
        assert batch.dtype == dtype
        assert batch.shape == (3, side, 2)
        assert np.array_equal(batch, np.stack(rows))


def test_text_and_bytes_stay_a_list() -> None:
    """Leave strings alone, NumPy's own too."""
    assert default_collate(["a", "bc"]) == ["a", "bc"]
    assert default_collate([b"a", b""]) == [b"a", b""]
    assert default_collate([np.str_("a"), np.str_("bc")]) == ["a", "bc"]


def test_tuples_become_lists_of_columns_and_named_tuples_stay() -> None:
    """Follow torch: (image, label) pairs give [images, labels]; named tuples keep their type."""
    assert [type(c) for c in default_collate([(1, "a"), (2, "b")])] == [np.ndarray, list]
    assert isinstance(default_collate([(1, "a")]), list)
    batch = default_collate([Point(1, 2), Point(3, 4)])
    assert isinstance(batch, Point)
    np.testing.assert_array_equal(batch.y, [2, 4])


def test_mappings_keep_their_type() -> None:
    """Give dicts for dicts, and for subclasses themselves with what they carry."""
    assert type(default_collate([{"a": 1}])) is dict
    assert type(default_collate([OrderedDict(b=1, a=2)])) is OrderedDict
    ours = default_collate([defaultdict(list, a=1), defaultdict(list, a=2)])
    assert ours.default_factory is list
    np.testing.assert_array_equal(ours["a"], [1, 2])
    frozen = default_collate([MappingProxyType({"a": 1})])
    np.testing.assert_array_equal(frozen["a"], [1])


def test_other_sequences_keep_their_type_where_they_can() -> None:
    """Rebuild a list's relatives as torch does."""
    assert type(default_collate([UserList([1, 2]), UserList([3, 4])])) is UserList
    assert type(default_collate([[1, 2], [3, 4]])) is list
    assert type(default_collate([range(2), range(2)])) is list


def test_nested_samples_nest_in_the_batch() -> None:
    """Walk through mappings and tuples to the leaves."""
    batch = default_collate([{"pair": (np.zeros(2), "a"), "n": 1}, {"pair": (np.ones(2), "b"), "n": 2}])
    assert batch["pair"][0].shape == (2, 2)
    assert batch["pair"][1] == ["a", "b"]


def test_whatever_turns_into_an_array_is_stacked() -> None:
    """Take tensors of any framework by the array protocol."""

    class Tensor:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return np.arange(3.0)

    assert default_collate([Tensor(), Tensor()]).shape == (2, 3)


def test_arrays_are_written_into_lent_memory() -> None:
    """Ask for the memory of every column of arrays; a column of numbers is made in one call, in memory of its own."""
    lent: list[np.ndarray] = []

    def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        lent.append(np.empty(shape, dtype))
        return lent[-1]

    batch = default_collate([(np.zeros((2, 2)), 1), (np.ones((2, 2)), 2)], empty=empty)
    assert len(lent) == 1
    assert lent[0] is batch[0]


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 4))], r"samples 0 and 2 .* shape: \(2, 3\) and \(2, 4\)"),
        ([np.zeros(2), 5], r"samples 0 and 1 .* shape: \(2,\) and int"),
        ([{"a": 1, "b": 2}, {"a": 1}], r"samples 0 and 1 .* keys: \['a', 'b'\] and \['a'\]"),
        ([{"a": 1}, {"a": 1, "b": 2}], r"samples 0 and 1 .* keys"),
        ([{"a": 1}, 7], r"keys: \['a'\] and int"),
        ([(1, 2), (1, 2, 3)], r"samples 0 and 1 .* length: 2 and 3"),
        ([[1], 4], r"length: 1 and int"),
        ([{"x": (np.zeros(1),)}, {"x": (np.zeros(2),)}], r"at sample\['x'\]\[0\]: samples 0 and 1"),
        ([], "at least one"),
    ],
    ids=str,
)
def test_samples_that_do_not_fit_are_named(samples: list[Any], words: str) -> None:
    """Name the two rows that disagree, where in the sample, and what each has."""
    with pytest.raises(CollateError, match=words):
        default_collate(samples)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([None, None], "samples of type NoneType"),
        ([object()], "samples of type object"),
        ([{1, 2}], "samples of type set"),
        ([np.array([None])], "Python objects"),
        ([1, None], "sample 1 of the batch is a NoneType"),
        ([1, "a"], "sample 1 of the batch is a str"),
        ([1, [2]], "sample 1 of the batch is a list"),
        ([2**70], "numbers that NumPy can hold"),
    ],
    ids=str,
)
def test_what_cannot_be_put_in_a_batch_is_named(samples: list[Any], words: str) -> None:
    """Refuse with a TypeError of ours that says what was found and what would do."""
    with pytest.raises(CollateTypeError, match=words):
        default_collate(samples)
