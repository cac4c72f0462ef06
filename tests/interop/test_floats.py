"""Batches of float16 and bfloat16: the same bytes whoever makes them, and known for what they are everywhere."""

from __future__ import annotations

import re
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.image_files import encoded, photo
from tests.native.stepwise import assert_equal, batches, both

import headrace
from headrace import (
    ArrayDataset,
    ConcatDataset,
    DataLoader,
    ImageFiles,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Subset,
    ToCHW,
    ToDtype,
    ToFloat,
)
from headrace._native import extension
from headrace.collate import PackedCollate
from headrace.ledger.fingerprint import of_batch

HALVES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
PIXELS = np.random.default_rng(0).integers(0, 256, (24, 36, 40, 3), np.uint8)

WORKERS: dict[str, dict[str, Any]] = {
    "inline": {},
    "threads": {"num_workers": 2, "backend": "threads"},
    "forked": {"num_workers": 2, "backend": "processes", "multiprocessing_context": "fork"},
    "spawned": {"num_workers": 1, "backend": "processes", "multiprocessing_context": "spawn"},
}


@pytest.fixture(scope="module", autouse=True)
def helper_of_multiprocessing() -> None:
    """Start the process that multiprocessing starts once and leaves running, before leaks are counted."""
    resource_tracker.ensure_running()


def arrays(*functions: Any) -> Any:
    return both(ArrayDataset(PIXELS, np.arange(len(PIXELS))), *functions)


def chain(dtype: str, *before: Any) -> tuple[Any, ...]:
    return (*before, RandomHorizontalFlip(), ToFloat(), Normalize(0.4, 0.2), ToCHW(), ToDtype(dtype))


@pytest.mark.parametrize("how", WORKERS)
@pytest.mark.parametrize("dtype", HALVES)
def test_arrays_are_the_same_halves_whoever_makes_them(dtype: str, how: str) -> None:
    """Give the bytes of the steps: by the native extension and step by step, inline, on threads and in processes."""
    quick, slow = arrays(*chain(dtype, RandomCrop(32)))
    expected = batches(slow)
    assert expected[0][0].dtype == HALVES[dtype]
    for dataset in (quick, slow):
        assert_equal(batches(dataset, **WORKERS[how]), expected)


@pytest.mark.parametrize("how", WORKERS)
@pytest.mark.parametrize("dtype", HALVES)
def test_files_are_the_same_halves_whoever_makes_them(dtype: str, how: str, tmp_path: Path) -> None:
    """Likewise JPEG files, with files among them that the native extension leaves to the steps."""
    paths = [tmp_path / f"{number}.{'bmp' if number % 3 else 'jpg'}" for number in range(9)]
    for number, path in enumerate(paths):
        path.write_bytes(encoded(photo(number, 40, 50), "BMP" if number % 3 else "JPEG"))
    quick, slow = both(ImageFiles(paths, range(9)), *chain(dtype, RandomResizedCrop(24)))
    expected = batches(slow, 4)
    assert {batch[0].dtype for batch in expected} == {HALVES[dtype]}
    for dataset in (quick, slow):
        assert_equal(batches(dataset, 4, **WORKERS[how]), expected)


@settings(deadline=None)
@given(
    image=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 4)),
    steps=st.lists(
        st.sampled_from(
            [ToFloat(), ToCHW(), ToDtype("float16"), ToDtype("bfloat16"), ToDtype("float32"), Normalize(0.1, 1e-4)]
        ),
        max_size=6,
    ),
    mean=st.floats(-2, 2),
    std=st.floats(1e-3, 4),
    dtype=st.sampled_from([*HALVES]),
    last=st.booleans(),
)
def test_whatever_is_fused_gives_the_bits_of_the_steps(
    image: tuple[int, int, int], steps: list[Any], mean: float, std: float, dtype: str, last: bool
) -> None:
    """Put the steps in any order that Compose allows: one dtype, one shape, the same bits, or the same error."""
    height, width, channels = image
    shape = (3, height, width, channels) if channels else (3, height, width)
    base = ArrayDataset(np.random.default_rng(1).integers(0, 256, shape, np.uint8))
    end = (ToCHW(), ToDtype(dtype)) if last else (ToDtype(dtype), ToCHW())
    try:
        quick, slow = both(base, *steps, ToFloat(), Normalize(mean, std), *end)
    except headrace.errors.ArgumentError:
        return  # ToCHW twice, or in front of what wants channels last
    try:
        expected = batches(slow, 2)
    except headrace.errors.ArgumentError as error:
        with pytest.raises(headrace.errors.ArgumentError, match=re.escape(str(error))):
            batches(quick, 2)
        return
    for (found,), (wanted,) in zip(batches(quick, 2), expected, strict=True):
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        assert found.dtype == HALVES[dtype]
        assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("dtype", HALVES)
def test_explain_shows_what_is_made(dtype: str) -> None:
    """Show the step in explain, count two bytes a value, tell the dtype in a lineage; replay the very batch."""
    dataset = ArrayDataset(PIXELS).map(*chain(dtype))
    if extension is not None:
        assert headrace.explain(dataset).startswith("Mapped: all fused")
    loader = DataLoader(dataset, 8, shuffle=True, seed=5)
    seen = [batch.copy() for batch in loader]
    assert loader.statistics().nbytes == 2 * PIXELS.size
    assert loader.statistics().samples == len(PIXELS)
    again = loader.replay(epoch=0, step=1)
    assert again.dtype == HALVES[dtype]
    assert again.tobytes() == seen[1].tobytes()
    lineage = loader.lineage(epoch=0, step=1, index=3)
    assert lineage.sample.tobytes() == seen[1][3].tobytes()
    assert f"ToDtype('{dtype}') -> {dtype} array of (3, 36, 40)" in str(lineage)


@pytest.mark.parametrize("dtype", HALVES)
def test_the_values_of_a_byte_stay_apart(dtype: str) -> None:
    """Keep 256 values of 256, normalized by the numbers that most models are."""
    byte = np.arange(256, dtype=np.uint8)[np.newaxis, :, np.newaxis].repeat(3, axis=2)
    normalize = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    rounded = headrace.Compose(ToFloat(), normalize, ToDtype(dtype))(byte).astype(np.float32)
    assert [len(np.unique(rounded[..., channel])) for channel in range(3)] == [256] * 3


def test_a_ledger_tells_halves_from_halves() -> None:
    """Take the same bits of two dtypes for two batches, and the same batch for one."""
    bits = np.arange(40_000, dtype=np.uint16)
    marks = [of_batch(bits.view(dtype)) for dtype in HALVES.values()]
    assert len({of_batch(bits), *marks}) == 3
    assert marks == [of_batch(bits.copy().view(dtype)) for dtype in HALVES.values()]


@pytest.mark.parametrize("dtype", HALVES)
def test_a_resumed_run_continues_with_the_same_halves(dtype: str) -> None:
    """Save after a batch, load elsewhere, and receive what comes next."""
    dataset = ArrayDataset(PIXELS).map(*chain(dtype))
    first = DataLoader(dataset, 6, shuffle=True, seed=5)
    batches = iter(first)
    next(batches)
    second = DataLoader(dataset, 6, shuffle=True, seed=5, num_workers=2)
    second.load_state_dict(first.state_dict())
    assert [batch.tobytes() for batch in second] == [batch.tobytes() for batch in batches]


@pytest.mark.parametrize("dtype", HALVES)
def test_memory_of_halves_is_reused_and_kept_batches_stay(dtype: str) -> None:
    """Keep every other batch of large ones: none that is kept is written to again."""
    rows = ArrayDataset(np.arange(40, dtype=np.uint8)[:, None, None].repeat(200, 1).repeat(300, 2))
    for how in WORKERS.values():
        kept = list(DataLoader(rows.map(ToFloat(), ToDtype(dtype)), 2, **how))[::2]
        for number, batch in enumerate(kept):
            assert batch.dtype == HALVES[dtype]
            expected = (np.array([4 * number, 4 * number + 1]) / np.float32(255)).astype(np.float32)
            assert np.array_equal(batch[:, 0, 0], expected.astype(HALVES[dtype]))
            assert np.array_equal(batch[:, 0, 0], batch[:, -1, -1])


@pytest.mark.parametrize("dtype", HALVES)
def test_views_and_parts_of_halves_are_read_as_whole_batches(dtype: str) -> None:
    """Put datasets of halves one behind the other, and take parts of them."""
    quick, slow = arrays(*chain(dtype))
    joined, expected = (ConcatDataset([one, Subset(one, [3, 1])]) for one in (quick, slow))
    assert_equal(batches(joined), batches(expected))


def test_rows_of_bfloat16_are_packed_end_to_end() -> None:
    """Lay arrays of bfloat16 in rows, as those of other floats."""
    packed = PackedCollate(4)([[np.ones(3, HALVES["bfloat16"])], [np.ones(2, HALVES["bfloat16"])]])
    assert packed.values.dtype == HALVES["bfloat16"]
    assert packed.values.tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
