"""Rows written at once give the very batch, or the very error, that collating at the end gives."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace import DataLoader, default_collate
from headrace.collate.row_writer import SMALLEST, RowWriter
from headrace.errors import CollateError, CollateTypeError

LARGE = SMALLEST // 4  # of float32

leaves = st.one_of(
    st.integers(0, 9),
    st.text(max_size=3),
    st.builds(
        lambda length, dtype, fill: np.full(length, fill, dtype),
        st.sampled_from([3, LARGE, LARGE + 1, 2 * LARGE]),
        st.sampled_from(["f4", "f8", "u1", "U2"]),
        st.integers(0, 9),
    ),
    st.builds(lambda fill: np.full((2 * LARGE, 2), fill, "f4").T[:, ::2], st.integers(0, 9)),
)
shapes = st.recursive(
    st.just(None),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from("ab"), inner, min_size=1)
    ),
    max_leaves=4,
)


def filled(shape: Any, draw: Any) -> Any:
    if shape is None:
        return draw(leaves)
    if isinstance(shape, dict):
        return {key: filled(inner, draw) for key, inner in shape.items()}
    return type(shape)(filled(inner, draw) for inner in shape)


def outcome(samples: list[Any]) -> Any:
    try:
        return default_collate(samples)
    except (CollateError, CollateTypeError) as error:
        return type(error), str(error)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return (
            type(one) is type(other)
            and one.dtype == other.dtype
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
        )
    if isinstance(one, dict):
        return type(other) is dict and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@given(data=st.data(), shape=shapes, count=st.integers(1, 4), twins=st.booleans())
def test_landing_changes_nothing_but_the_time(data: Any, shape: Any, count: int, twins: bool) -> None:
    """Land nested samples of any kinds, fitting or not; compare with collating the samples themselves."""
    samples = [filled(shape, data.draw) for _ in range(1 if twins else count)] * (count if twins else 1)
    writer = RowWriter(len(samples), np.empty)
    assert same(outcome([writer.write(row, sample) for row, sample in enumerate(samples)]), outcome(samples))


def test_a_dataset_may_use_one_buffer_for_all_its_samples() -> None:
    """Copy a sample before the next is asked for."""

    class OneBuffer:
        buffer = np.empty(LARGE * 4, np.float32)

        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> np.ndarray:
            self.buffer.fill(index)
            return self.buffer

    batches = list(DataLoader(OneBuffer(), 3))
    assert [batch[:, 0].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5]]
    assert all(type(batch) is np.ndarray for batch in batches)
