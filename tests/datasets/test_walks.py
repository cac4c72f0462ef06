"""Random walks: the loop, the array, and the stream of windows are one process, and it is the right one."""

from __future__ import annotations

import itertools
import math
import pickle
from multiprocessing import resource_tracker
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace
from headrace import DataLoader
from headrace.datasets import RandomWalkDataset, random_walk, random_walk_array, random_walks
from headrace.errors import ArgumentError

# Python 3.12 and later warn of a fork while threads run, which pytest's own may.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def helper_of_multiprocessing() -> None:
    """Start the process that multiprocessing starts once and leaves running, before leaks are counted."""
    resource_tracker.ensure_running()


PAIR = [[1.0, 1.8], [1.8, 4.0]]


def numbers(walk: Any) -> list[float]:
    return np.asarray(list(walk), dtype=np.float64).ravel().tolist()


@given(
    mu=st.floats(-1e3, 1e3),
    x0=st.floats(-1e6, 1e6),
    sigma2=st.floats(0, 1e6),
    n=st.integers(0, 300),
    seed=st.integers(0, 2**70),
)
@settings(max_examples=60, deadline=None)
def test_the_array_is_the_loop_bit_for_bit(mu: float, x0: float, sigma2: float, n: int, seed: int) -> None:
    """Give the same float64 numbers, and leave the generator where the loop leaves it."""
    one, other = np.random.default_rng(seed), np.random.default_rng(seed)
    lazy = np.array(list(random_walk(mu, x0, sigma2, n, rng=one)), dtype=np.float64)
    assert lazy.tobytes() == random_walk_array(mu, x0, sigma2, n, rng=other).tobytes()
    assert one.random() == other.random()


@pytest.mark.parametrize("bits", [np.random.PCG64, np.random.Philox, np.random.SFC64, np.random.MT19937])
def test_long_walks_are_the_same_bits_too(bits: Any) -> None:
    """Add up in the same order, however long the walk."""
    lazy = np.array(list(random_walk(1e-3, 5, 0.3, 200_000, rng=np.random.Generator(bits(1)))))
    assert lazy.tobytes() == random_walk_array(1e-3, 5, 0.3, 200_000, rng=np.random.Generator(bits(1))).tobytes()


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_correlated_walks_are_the_same_bits(size: int) -> None:
    """Agree for any number of walks side by side, with a covariance of full rank and without."""
    draws = np.random.default_rng(size).normal(size=(size, size))
    for factor in (draws, draws[:, :1]):
        covariance = factor @ factor.T
        mu, x0 = np.arange(size) / 7, np.arange(size) * 3.0
        walks = [random_walk(mu[i], x0[i], covariance[i, i], 500) for i in range(size)]
        lazy = np.array(list(random_walks(*walks, covariance=covariance, rng=3)))
        array = random_walk_array(mu, x0, covariance, 500, rng=3)
        assert array.shape == (500, size)
        assert lazy.tobytes() == array.tobytes()


def test_a_walk_is_lazy_and_begins_where_it_should() -> None:
    """Draw a number a step, when the step is asked for; yield Python floats."""
    rng = np.random.default_rng(0)
    walk = random_walk(0, 2, 1, 10**12, rng=rng)
    assert next(walk) == 2.0
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state
    first = list(itertools.islice(walk, 3))
    assert first == np.cumsum([2, *np.random.default_rng(0).normal(size=3)])[1:].tolist()
    assert all(type(value) is float for value in first)
    assert list(random_walk(0, 1, 1, 0)) == []
    assert list(random_walk(0, 1, 1, 1)) == [1.0]
    assert random_walk_array(0, 1, 1, 0).shape == (0,)
    assert random_walk_array([0, 0], [1, 1], PAIR, 0).shape == (0, 2)


def test_walks_are_aligned_and_end_with_the_shortest() -> None:
    """Zip walks of different lengths, and other iterables among them."""
    rows = list(random_walks(random_walk(1, 0, 0, 5), [10, 20, 30], random_walk(0, 7, 0, 9)))
    assert rows == [(0.0, 10, 7.0), (1.0, 20, 7.0), (2.0, 30, 7.0)]
    pair = random_walk(0, 0, 1, 5), random_walk(0, 0, 4, 3)
    assert len(list(random_walks(*pair, covariance=PAIR, rng=0))) == 3


def test_a_list_of_generators_gives_a_walk_for_each() -> None:
    """Give row i the walk of generator i, on one thread or several, for one number a step or two."""
    for n in (10, 40_000):
        rows = random_walk_array(0.5, 1, 2, n, rng=np.random.default_rng(1).spawn(4))
        for row, rng in zip(rows, np.random.default_rng(1).spawn(4), strict=True):
            assert row.tobytes() == random_walk_array(0.5, 1, 2, n, rng=rng).tobytes()
    assert random_walk_array([0, 0], [0, 0], PAIR, 30, rng=np.random.default_rng(1).spawn(3)).shape == (3, 30, 2)
    assert random_walk_array(0, 0, 1, 30, rng=[]).shape == (0, 30)
    with pytest.raises(ArgumentError, match="one generator is in the list twice"):
        random_walk_array(0, 0, 1, 30, rng=[np.random.default_rng(0)] * 2)


# Statistics, over 4,000 walks of 400 steps with fixed seeds: each bound is five standard errors or more.
MU, X0, SIGMA2, STEPS, WALKS = 0.25, -3.0, 2.25, 400, 4000


@pytest.fixture(scope="module")
def many() -> Any:
    return random_walk_array(MU, X0, SIGMA2, STEPS + 1, rng=np.random.default_rng(2024).spawn(WALKS))


def test_the_mean_grows_by_mu_a_step(many: Any) -> None:
    """Be at x0 + mu t on average."""
    t = np.arange(STEPS + 1)
    error = np.sqrt(SIGMA2 * t / WALKS)
    assert (np.abs(many.mean(axis=0) - (X0 + MU * t)) <= 5 * error + 1e-9).all()


def test_the_variance_grows_by_sigma2_a_step(many: Any) -> None:
    """Have variance sigma2 t: none at the start, and in proportion from there."""
    t = np.arange(STEPS + 1)
    variance = many.var(axis=0)
    assert variance[0] == 0
    assert (np.abs(variance[1:] / (SIGMA2 * t[1:]) - 1) <= 5 * math.sqrt(2 / WALKS)).all()


def test_steps_are_independent_and_normal(many: Any) -> None:
    """Find no correlation between steps, none between walks, and a normal's third and fourth moments."""
    noise = (np.diff(many, axis=1) - MU) / math.sqrt(SIGMA2)
    size = noise.size
    for lag in (1, 2, 10):
        assert abs((noise[:, lag:] * noise[:, :-lag]).mean()) < 5 / math.sqrt(size)
    assert abs((noise[1:] * noise[:-1]).mean()) < 5 / math.sqrt(size)
    assert abs((noise**3).mean()) < 5 * math.sqrt(15 / size)
    assert abs((noise**4).mean() - 3) < 5 * math.sqrt(96 / size)


def test_correlated_noise_has_the_covariance() -> None:
    """Draw steps with the covariance asked for; independent in time."""
    walk = random_walk_array([0.1, -0.1], [0, 5], PAIR, 200_001, rng=5)
    steps = np.diff(walk, axis=0)
    assert np.allclose(steps.mean(axis=0), [0.1, -0.1], atol=5 * 2 / math.sqrt(200_000))
    assert np.allclose(np.cov(steps.T), PAIR, rtol=5 * math.sqrt(2 / 200_000))
    centred = steps - steps.mean(axis=0)
    assert np.abs((centred[1:].T @ centred[:-1]) / 200_000).max() < 5 * 4 / math.sqrt(200_000)


def test_walks_that_depend_wholly_go_together() -> None:
    """Take a covariance that is only semi-definite, and one of nothing but zeros."""
    walk = random_walk_array([0, 0], [0, 0], [[1, 2], [2, 4]], 100, rng=1)
    assert np.allclose(walk[:, 1], 2 * walk[:, 0])
    assert np.ptp(random_walk_array([0, 0], [3, 3], np.zeros((2, 2)), 100)) == 0
    late = random_walk_array([0, 0, 0], [0, 0, 0], [[0, 0, 0], [0, 1, 1], [0, 1, 1]], 100, rng=1)
    assert (late[:, 0] == 0).all()
    assert (late[:, 1] == late[:, 2]).all()


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 0, -1, 5), "sigma2 must be a variance, from 0 up; got -1"),
        ((0, 0, NAN, 5), "sigma2 must be a finite number; got nan"),
        ((0, 0, "1", 5), "sigma2 must be a finite number; got '1'"),
        ((NAN, 0, 1, 5), "mu must be a finite number"),
        ((0, INF, 1, 5), "x0 must be a finite number"),
        ((0, None, 1, 5), "x0 must be a finite number"),
        ((0, 10**400, 1, 5), "x0 must be a finite number"),
        ((0, 0, 1, -1), "n must be an integer from 0 up; got -1"),
        ((0, 0, 1, 2.5), "n must be an integer from 0 up; got 2.5"),
        ((0, 0, 1, True), "n must be an integer from 0 up; got True"),
        ((1j, 0, 1, 5), "mu must be a finite number"),
    ],
)
def test_bad_parameters_are_reported_before_a_step_is_made(arguments: tuple[Any, ...], words: str) -> None:
    """Name the parameter and what was given, in the loop, the array and the dataset alike."""
    for make in (random_walk, random_walk_array, RandomWalkDataset):
        with pytest.raises(ArgumentError, match=words):
            make(*arguments)


@pytest.mark.parametrize(
    ("covariance", "words"),
    [
        ([[1, 2], [2, 1]], "smallest eigenvalue .* is -1: .*; expected a positive semi-definite"),
        ([[1, 0.5], [0.4, 1]], r"0.5 at \[0, 1\], but 0.4 at \[1, 0\]; expected a symmetric matrix"),
        ([[1, NAN], [NAN, 1]], "finite numbers"),
        ([[-1, 0], [0, 1]], "positive semi-definite"),
        ([[1]], "2 x 2 matrix"),
        ([1, 1], "2 x 2 matrix"),
        ("x", "2 x 2 matrix"),
        ([[1, 0], [0]], "2 x 2 matrix"),
    ],
)
def test_a_covariance_that_no_noise_can_have_is_reported(covariance: Any, words: str) -> None:
    """Say what is wrong with it, and where."""
    with pytest.raises(ArgumentError, match=words):
        random_walk_array([0, 0], [0, 0], covariance, 5)
    with pytest.raises(ArgumentError, match=words):
        random_walks(random_walk(0, 0, 1, 5), random_walk(0, 0, 1, 5), covariance=covariance)
    with pytest.raises(ArgumentError, match=words):
        RandomWalkDataset([0, 0], [0, 0], covariance, 5)


def test_walks_that_do_not_fit_a_covariance_are_reported() -> None:
    """Want walks of ours, with the variances of the diagonal; and an rng only where it is used."""
    walk = random_walk(0, 0, 1, 5)
    with pytest.raises(ArgumentError, match="diagonal"):
        random_walks(walk, random_walk(0, 0, 1, 5), covariance=PAIR)
    with pytest.raises(ArgumentError, match=r"made by random_walk.*got a list"):
        random_walks(walk, [1, 2], covariance=PAIR)
    with pytest.raises(ArgumentError, match="at least one"):
        random_walks()
    with pytest.raises(ArgumentError, match="each walk has its own"):
        random_walks(walk, rng=0)
    for bad in ("0", -1, 1.5, True, np.random.RandomState(0)):
        with pytest.raises(ArgumentError, match="rng must be"):
            random_walk(0, 0, 1, 5, rng=bad)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="one number a walk"):
        random_walk_array([0, 0], [0], PAIR, 5)
    with pytest.raises(ArgumentError, match="mu must be a list"):
        random_walk_array(0, [0, 0], PAIR, 5)


def test_windows_and_their_targets_are_stretches_of_one_walk() -> None:
    """Cut each walk from its beginning, a stride apart; let the target follow the window."""
    dataset = RandomWalkDataset(1, 100, 0, 10, walks=2, window=3, horizon=2, stride=2)
    samples = list(dataset)
    assert len(samples) == len(dataset) == 6
    assert [window.tolist() for window, _ in samples[:3]] == [[100, 101, 102], [102, 103, 104], [104, 105, 106]]
    assert [target.tolist() for _, target in samples[:3]] == [[103, 104], [105, 106], [107, 108]]
    assert samples[3][0][0] == 100
    samples[0][0][:] = 0
    assert samples[1][0][0] == 102
    assert [float(x) for x in RandomWalkDataset(1, 0, 0, 3, walks=2)] == [0, 1, 2, 0, 1, 2]
    window, target = next(iter(RandomWalkDataset([0, 0], [0, 0], PAIR, 30, window=4, horizon=2)))
    assert (window.shape, target.shape) == ((4, 2), (2, 2))
    assert list(RandomWalkDataset(0, 0, 1, 30, walks=0, window=4)) == []
    assert list(RandomWalkDataset(0, 0, 1, 0)) == []


def collected(dataset: Any, **how: Any) -> list[bytes]:
    loader = DataLoader(dataset, 7, **how)
    return [window.tobytes() + target.tobytes() for batch in loader for window, target in zip(*batch, strict=True)]


def test_a_stream_of_walks_is_replayed_exactly() -> None:
    """Give the same samples for a seed and an epoch, whoever reads; others in the next epoch."""
    dataset = RandomWalkDataset(0, 0, 1, 40, walks=5, window=8, horizon=2)
    inline = collected(dataset, seed=1)
    assert len(inline) == len(set(inline)) == len(dataset)
    assert inline == collected(dataset, seed=1, num_workers=2, backend="threads")
    assert inline != collected(dataset, seed=2)
    loader = DataLoader(dataset, 7, seed=1)
    first, second = [[x[0].tobytes() for x in loader] for _ in range(2)]
    assert first != second
    loader.set_epoch(1)
    assert [x[0].tobytes() for x in loader] == second


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.parametrize("workers", [2, 3])
def test_processes_share_the_samples_out(context: str, workers: int) -> None:
    """Give each sample once, all together those that one process gives; as many from each worker as can be."""
    dataset = RandomWalkDataset(0, 0, 1, 40, walks=2, window=8, horizon=2)
    how: dict[str, Any] = {"backend": "processes", "multiprocessing_context": context}
    shared = collected(dataset, seed=1, num_workers=workers, **how)
    assert sorted(shared) == sorted(collected(dataset, seed=1))
    assert shared == collected(dataset, seed=1, num_workers=workers, **how)


def test_a_dataset_with_a_seed_gives_the_same_walks_always() -> None:
    """Be a fixed set, in a loader of any seed and outside one, and after pickling; without a seed, be new each time."""
    dataset = RandomWalkDataset(0, 0, 1, 40, walks=3, window=8, seed=4)
    samples = [window.tobytes() + target.tobytes() for window, target in dataset]
    assert samples == collected(dataset, seed=1) == collected(dataset, seed=2)
    again = [window.tobytes() + target.tobytes() for window, target in pickle.loads(pickle.dumps(dataset))]
    assert samples == again
    fresh = RandomWalkDataset(0, 0, 1, 40)
    assert numbers(fresh) != numbers(fresh)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"window": 0}, "window must be an integer from 1 up; got 0"),
        ({"window": 4, "horizon": 0}, "horizon"),
        ({"window": 4, "stride": -1}, "stride"),
        ({"walks": -1}, "walks must be an integer from 0 up"),
        ({"window": 8, "horizon": 3}, "too short for a window of 8 and a horizon of 3; expected n=11 or more"),
        ({"seed": -1}, "seed must be an integer"),
    ],
)
def test_windows_that_cannot_be_cut_are_reported(how: dict[str, Any], words: str) -> None:
    """Say what would do."""
    with pytest.raises(ArgumentError, match=words):
        RandomWalkDataset(0, 0, 1, 10, **how)


def test_a_walk_in_a_dataset_is_the_samples_own() -> None:
    """Draw from headrace.rng() where no generator is given."""
    walks = headrace.ArrayDataset(np.zeros(6)).map(lambda x0: random_walk_array(0, x0, 1, 16))
    one = np.concatenate(list(DataLoader(walks, 6, seed=3)))
    two = np.concatenate(list(DataLoader(walks, 4, seed=3, num_workers=2)))
    assert np.array_equal(one, two)
    assert len({row.tobytes() for row in one}) == 6
