"""Shuffling without memory: permutations, exactly, that statistics cannot tell from random ones."""

from __future__ import annotations

import tracemalloc
from itertools import permutations
from math import factorial, isqrt, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from headrace.context.seeds import key_of
from headrace.plan import permutation
from headrace.plan.order import Shuffled
from headrace.plan.permutation import Permutations
from tests.plan.statistics import Z, surprise

MILLION = 1_000_003


def whole(size: int, seed: int = 0, epoch: int = 0, part: int = 0) -> NDArray[np.int64]:
    return Permutations(key_of(seed), epoch).at(np.arange(size), size, part)


def many(size: int, count: int, seed: int = 0) -> NDArray[np.int64]:
    """Return ``count`` permutations of one family, a row each."""
    parts = np.repeat(np.arange(count), size)
    return Permutations(key_of(seed), 0).at(np.tile(np.arange(size), count), size, parts).reshape(count, size)


def table(one: NDArray[Any], other: NDArray[Any], size: int, cells: int = 32) -> float:
    """Return how surprising it is where two rows of numbers below ``size`` fall together, in cells by cells."""
    spread = size / cells
    counts = np.bincount((one // spread).astype(int) * cells + (other // spread).astype(int), minlength=cells**2)
    return surprise(counts, len(one) / cells**2, (cells - 1) ** 2)


def test_every_small_size_is_permuted() -> None:
    """Give each number once, of 1 to 600 of them and at the edges of the digits."""
    for size in [*range(1, 601), 2**12, 2**12 + 1, 99_856, 99_857, 2**16, 2**16 - 1, 2**16 + 1, MILLION]:
        assert np.array_equal(np.sort(whole(size, seed=size)), np.arange(size)), size


@pytest.mark.parametrize("size", [2**32, 2**48, 2**48 + 1, 2**52 + 1, 2**62 + 1, 2**63 - 1, 2**63])
def test_huge_sizes_are_permuted_without_collision(size: int) -> None:
    """Send a hundred thousand positions, the first and the last among them, to as many places within the size."""
    ends = np.r_[np.arange(50_000, dtype=np.uint64), np.arange(50_000, dtype=np.uint64) + np.uint64(size - 50_000)]
    found = Permutations(key_of(1), 0).at(ends, size)
    assert len(np.unique(found)) == len(ends)
    assert found.min() >= 0
    assert int(found.max()) < size
    cells = np.bincount((found / (size / 64)).astype(int), minlength=64)
    assert surprise(cells, len(ends) / 64, 63) < Z


@given(data=st.data(), seed=st.integers(0, 2**64), epoch=st.integers(0, 2**63))
def test_one_call_answers_for_many_permutations(data: st.DataObject, seed: int, epoch: int) -> None:
    """Give for mixed sizes, parts and turns what each would give alone."""
    asked = data.draw(
        st.lists(
            st.integers(1, 2**63).flatmap(
                lambda size: st.tuples(
                    st.integers(0, size - 1), st.just(size), st.integers(0, 2**40), st.integers(0, 2**63)
                )
            ),
            min_size=1,
            max_size=20,
        )
    )
    family = Permutations(key_of(seed), epoch)
    columns = [np.array(column, np.uint64) for column in zip(*asked, strict=True)]
    together = family.at(*columns).tolist()
    assert together == [family.at(np.array([place], np.uint64), *rest)[0] for place, *rest in asked]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_all_permutations_of_a_few_are_as_likely(size: int) -> None:
    """Give each of them equally often, over 2,000 seeds, and over 240,000 numbers of one family."""
    seeds = np.array([whole(size, seed) for seed in range(2000)])
    for rows in (seeds, many(size, 240_000)):
        codes = rows @ size ** np.arange(size)
        known = sorted(int(np.array(order) @ size ** np.arange(size)) for order in permutations(range(size)))
        counts = np.array([(codes == code).sum() for code in known])
        assert counts.sum() == len(rows)
        if size > 1:
            assert surprise(counts, len(rows) / factorial(size), factorial(size) - 1) < Z


@pytest.mark.parametrize("size", [6, 7, 16, 17, 36, 37, 100])
def test_every_position_is_as_likely(size: int) -> None:
    """Send each number to each position equally often."""
    rows = many(size, 400_000 // size)
    counts = np.array([np.bincount(column, minlength=size) for column in rows.T])
    assert surprise(counts, len(rows) / size, (size - 1) ** 2) < Z


@pytest.mark.parametrize("size", [6, 9, 16, 17, 23])
def test_every_pair_of_positions_is_as_likely(size: int) -> None:
    """Send each pair of neighbours, and the first and the last, to each pair of positions equally often."""
    rows = many(size, 200_000)
    for one, other in ((0, 1), (size // 2, size // 2 + 1), (0, size - 1)):
        counts = np.bincount(rows[:, one] * size + rows[:, other], minlength=size**2).reshape(size, size)
        apart = counts[~np.eye(size, dtype=bool)]
        assert counts.trace() == 0
        assert surprise(apart, len(rows) / (size * (size - 1)), size * (size - 1) - 1) < Z


@pytest.mark.parametrize("size", [5, 20, 60])
def test_inversions_and_fixed_points_are_those_of_random_permutations(size: int) -> None:
    """Have as many pairs out of order, as widely spread, and as many numbers in their own place.

    Inversions are what the Mallows kernel counts, by which Mitchell et al. compare shuffles.
    """
    count = 20_000
    rows = many(size, count, seed=3)
    inversions = sum((rows[:, [i]] > rows[:, i + 1 :]).sum(axis=1) for i in range(size))
    mean, variance = size * (size - 1) / 4, size * (size - 1) * (2 * size + 5) / 72
    assert abs(float(np.mean(inversions)) - mean) < Z * sqrt(variance / count)
    assert abs(float(np.var(inversions)) / variance - 1) < Z * sqrt(2 / count)
    fixed = (rows == np.arange(size)).sum(axis=1)  # one on average, and a variance of one
    assert abs(float(fixed.mean()) - 1) < Z / sqrt(count)
    assert abs(float(fixed.var()) - 1) < Z * sqrt(3 / count)


@pytest.mark.parametrize("size", [5000, MILLION])
def test_a_number_says_nothing_of_where_it_goes(size: int) -> None:
    """Find positions and their numbers independent of each other, in cells of 32 by 32."""
    for seed in range(5):
        found = whole(size, seed)
        assert table(np.arange(size), found, size) < Z


@pytest.mark.parametrize("size", [5000, MILLION])
def test_a_number_says_nothing_of_its_neighbours(size: int) -> None:
    """Find numbers at distances of 1, 2, 64 and one digit independent, and their differences evenly spread."""
    digit = isqrt(size)
    for lag in (1, 2, 64, digit, digit + 1, 2 * digit):
        found = np.concatenate([whole(size, seed) for seed in range(3)])
        assert table(found[:-lag], found[lag:], size) < Z
        apart = (found[lag:] - found[:-lag]) % size
        counts = np.bincount(apart * 512 // size, minlength=512)
        assert surprise(counts, len(apart) / 512, 511) < Z


def test_neighbouring_seeds_epochs_and_parts_are_independent() -> None:
    """Find no relation between the permutations of seed and seed + 1, epoch and epoch + 1, or across the two."""
    for size in (5000, MILLION):
        places = {
            (seed, epoch, part): whole(size, seed, epoch, part)
            for seed, epoch, part in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**64, 0, 0), (0, 2**63, 0)]
        }
        names = list(places)
        for number, one in enumerate(names):
            for other in names[number + 1 :]:
                assert table(places[one], places[other], size) < Z
                agreeing = int((places[one] == places[other]).sum())  # one on average, as Poisson has it
                assert agreeing < 14


def test_both_kinds_of_permutation_come() -> None:
    """Give even and odd ones, half of each: a cipher on an odd number of places could give even ones alone."""
    for size in (9, 25, 49):
        rows = many(size, 4000)
        inversions = sum((rows[:, [i]] > rows[:, i + 1 :]).sum(axis=1) for i in range(size))
        odd = int((np.asarray(inversions) % 2).sum())
        assert abs(odd - 2000) < Z * sqrt(1000)


@pytest.mark.skipif(permutation.extension is None, reason="the native extension was not built here")
@given(size=st.integers(1, 2**63), seed=st.integers(0, 99), data=st.data())
def test_the_extension_computes_what_numpy_does(size: int, seed: int, data: st.DataObject) -> None:
    """Give the same keys with and without the native extension, of one permutation and of one for each place."""
    places = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=40)), np.uint64)
    parts = np.array(
        data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=len(places), max_size=len(places))), np.uint64
    )
    family = Permutations(key_of(seed), epoch=seed)
    found = [family.at(places, size, part) for part in (0, parts)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(permutation, "extension", None)
        expected = [family.at(places, size, part) for part in (0, parts)]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("size", [1000, 10**7, 2**63 - 1])
def test_no_size_takes_a_megabyte(size: int) -> None:
    """Read a shuffled order of any size from one end, and anywhere, in less than a megabyte."""
    Shuffled(size, key_of(0)).keys(0, 0, 64)
    tracemalloc.start()
    order = Shuffled(size, key_of(1))
    for start in range(0, min(size, 60_000), 64):
        order.keys(0, start, start + 64)
    for start in range(0, size, size // 20):
        order.keys(1, start, start + 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
