"""Where a caller's randomness comes from, whatever he hands over."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from headrace.errors import ArgumentError, ArgumentTypeError
from headrace.interop.generators import draw_seed, draws, resolve


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if torch were not loaded, whatever other tests have imported."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState])
def test_a_seed_is_one_draw_from_the_generator(make: Any) -> None:
    """Give another number at each call, the same ones from the same state, and leave NumPy's global state alone."""
    before = np.random.get_state()[1].tolist()  # type: ignore[index]
    generator, twin = make(5), make(5)
    seeds = [draw_seed(generator) for _ in range(3)]
    assert seeds == [draw_seed(twin) for _ in range(3)]
    assert len(set(seeds)) == 3
    assert all(type(seed) is int and 0 <= seed < 2**63 for seed in seeds)
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]


def test_no_generator_means_the_global_one(without_torch: None) -> None:
    """Follow np.random.seed."""
    np.random.seed(3)
    first = draw_seed(), draw_seed()
    np.random.seed(3)
    assert (draw_seed(), draw_seed()) == first
    assert first[0] != first[1]


def test_a_seed_becomes_a_generator_once() -> None:
    """Let the passes of one object differ, and those of two with the same seed be the same."""
    one, other = resolve(11), resolve(np.int64(11))
    assert [draw_seed(one), draw_seed(one)] == [draw_seed(other), draw_seed(other)]
    assert draw_seed(one) != draw_seed(resolve(11))
    assert resolve(one) is one
    assert resolve(None) is None


@pytest.mark.parametrize("wrong", [True, 1.5, "seed", object(), np.random], ids=repr)
def test_what_is_no_generator_is_refused(wrong: Any) -> None:
    """Raise what is both a TypeError, as in torch, and one of our own ValueErrors, naming what would do."""
    with pytest.raises(ArgumentTypeError, match=r"generator must be a numpy.random.Generator.*got") as caught:
        resolve(wrong)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ArgumentError)


def test_a_seed_below_zero_is_refused() -> None:
    """Say from where up a seed is."""
    with pytest.raises(ArgumentError, match="integer from 0 up; got -1"):
        resolve(-1)


def test_a_torch_generator_without_torch_is_refused(without_torch: None) -> None:
    """Not pretend to draw from what only looks like one."""

    class Alike:
        def initial_seed(self) -> int:
            return 0

        def get_state(self) -> Any:
            return None

        def set_state(self, state: Any) -> None:
            pass

    with pytest.raises(ArgumentTypeError):
        resolve(Alike())


def test_permutations_are_whole_before_any_number_comes_again() -> None:
    """Draw more than there are: each number as often as any other, give or take one."""
    drawn = np.concatenate(list(draws(np.random.default_rng(0)).permutations(7, 24)))
    assert len(drawn) == 24
    assert [sorted(drawn[start : start + 7].tolist()) for start in (0, 7, 14)] == [list(range(7))] * 3
    assert set(np.bincount(drawn)) == {3, 4}


def test_drawing_by_weight_follows_the_weights() -> None:
    """Compare frequencies with the weights, with replacement; a chi-square of 99.99 % allowed."""
    weights = np.array([0.0, 1.0, 2.0, 0.0, 5.0, 0.0])
    drawn = np.concatenate(list(draws(np.random.default_rng(1)).weighted(weights, 100_000, replacement=True)))
    counts = np.bincount(drawn, minlength=6)
    assert counts[[0, 3, 5]].tolist() == [0, 0, 0]
    expected = 100_000 * weights[[1, 2, 4]] / weights.sum()
    assert float(((counts[[1, 2, 4]] - expected) ** 2 / expected).sum()) < 18.4


def test_drawing_without_replacement_is_drawing_one_by_one() -> None:
    """Compare the frequencies of the orders of three with their probabilities."""
    weights, tries = np.array([1.0, 2.0, 3.0]), 20_000
    numbers = np.random.default_rng(2)
    orders = [tuple(next(iter(draws(numbers).weighted(weights, 3, replacement=False))).tolist()) for _ in range(tries)]
    for first, second in [(0, 1), (1, 2), (2, 0), (2, 1)]:
        chance = weights[first] / 6 * weights[second] / (6 - weights[first])
        third = 3 - first - second
        assert abs(orders.count((first, second, third)) / tries - chance) < 0.015


def test_what_has_no_weight_comes_last_without_replacement() -> None:
    """Draw it only when all else has been drawn, as torch does, and then in random order."""
    weights = np.array([0.0, 1.0, 0.0, 0.0, 3.0])
    numbers = np.random.default_rng(3)
    drawn = [next(iter(draws(numbers).weighted(weights, 4, replacement=False))).tolist() for _ in range(50)]
    assert all(sorted(order[:2]) == [1, 4] for order in drawn)
    assert {index for order in drawn for index in order[2:]} == {0, 2, 3}
    assert all(len(set(order)) == 4 for order in drawn)


def test_the_smallest_weights_do_not_overflow() -> None:
    """Take the smallest number there is for a weight, with no warning."""
    tiny = np.full(4, 5e-324)
    generator = draws(np.random.default_rng(4))
    assert sorted(next(iter(generator.weighted(tiny, 4, replacement=False))).tolist()) == [0, 1, 2, 3]
    assert set(next(iter(generator.weighted(tiny, 100, replacement=True))).tolist()) <= {0, 1, 2, 3}


def test_torch_is_never_imported() -> None:
    """Draw in a fresh interpreter, and find no torch in it."""
    script = (
        "import sys, headrace.samplers as s, headrace.datasets.subset as d; list(s.RandomSampler(range(5))); "
        "d.random_split(range(4), [2, 2]); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
