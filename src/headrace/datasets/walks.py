"""Random walks: value by value, whole walks at once, and as a stream of windows to train a forecaster on.

One process, X_t = mu + X_{t-1} + w_t with w_t ~ N(0, sigma2), in two forms that give the same bits: a step is drawn as
mu + w_t and added to the walk, one after the other, in the loop and in `numpy.cumsum` alike; correlated noise is summed
term by term in one order, never by a matrix product, whose order is the library's own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import as_integer, integer, kind_of, refused
from headrace.context import seeds
from headrace.context.worker_info import get_worker_info
from headrace.datasets.iterable import IterableDataset
from headrace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import ArrayLike, NDArray

    RngLike = np.random.Generator | int | None

STRETCH = 1 << 13
"""Values that are drawn and added up at a time."""

WORTH_THREADS = 1 << 16
"""Values of all walks together above which they are drawn on several threads."""


class random_walk(Iterator[float]):  # noqa: N801  reads as a function where it is used, like range
    """Yield the ``n`` values of a random walk that begins with ``x0``, each drawn when it is asked for.

    >>> from headrace.datasets import random_walk
    >>> list(random_walk(mu=1, x0=10, sigma2=0, n=4))
    [10.0, 11.0, 12.0, 13.0]
    >>> list(random_walk(0, 0, 1, 1000, rng=7)) == list(random_walk(0, 0, 1, 1000, rng=7))
    True

    X_0 = x0, X_t = mu + X_{t-1} + w_t, and the w_t are independent and normal with mean 0 and variance ``sigma2``.
    ``rng`` is a NumPy generator, of which one number is drawn a step, a seed, or None for `headrace.rng`. For all
    values at once, `random_walk_array` gives the same ones.

    Raises `ArgumentError` for a ``mu``, ``x0`` or ``sigma2`` that is no finite number, a negative ``sigma2``, and an
    ``n`` that is no integer from 0 up.
    """

    __slots__ = ("_values", "mu", "n", "sigma2", "x0")

    def __init__(self, mu: float, x0: float, sigma2: float, n: int, *, rng: RngLike = None) -> None:
        self.mu, self.x0, self.sigma2 = _number("mu", mu), _number("x0", x0), _variance(sigma2)
        self.n = integer("n", n, least=0)
        self._values = _values(self.mu, self.x0, math.sqrt(self.sigma2), self.n, _generator(rng))

    def __iter__(self) -> Iterator[float]:
        return self._values

    def __next__(self) -> float:
        return next(self._values)


def _values(mu: float, x: float, sigma: float, n: int, rng: np.random.Generator) -> Iterator[float]:
    if n == 0:
        return
    draw = rng.normal
    yield x
    for _ in range(n - 1):
        x += draw(mu, sigma)
        yield x


def random_walks(
    *walks: Iterable[float], covariance: ArrayLike | None = None, rng: RngLike = None
) -> Iterator[tuple[float, ...]]:
    """Yield the values of several walks side by side, aligned in time: a tuple a step.

    >>> from headrace.datasets import random_walk, random_walks
    >>> up, down = random_walk(1, 0, 0, 4), random_walk(-1, 0, 0, 3)
    >>> list(random_walks(up, down))
    [(0.0, 0.0), (1.0, -1.0), (2.0, -2.0)]

    As with `zip`, the shortest walk is the end, and any iterables of numbers will do. With a ``covariance``, the walks'
    noise at a step is drawn together from N(0, covariance), by ``rng``, and the walks, which must be `random_walk`,
    give ``mu``, ``x0`` and ``n`` alone:

    >>> pair = random_walk(0, 0, 1, 500), random_walk(0, 5, 4, 500)
    >>> x, y = np.array(list(random_walks(*pair, covariance=[[1, 1.8], [1.8, 4]], rng=0))).T
    >>> float(round(np.corrcoef(np.diff(x), np.diff(y))[0, 1], 1))
    0.9

    The covariance has the walks' own variances in its diagonal. It is symmetric and positive semi-definite: walks may
    depend on each other wholly. `random_walk_array` gives the same values at once.

    Raises `ArgumentError` for anything else, and for no walks at all.
    """
    if not walks:
        raise ArgumentError(
            "random_walks got no walks", found=0, expected="at least one walk", cure="Pass a random_walk."
        )
    if covariance is None:
        if rng is not None:
            raise ArgumentError(
                "rng was passed without a covariance, whose noise it draws",
                found=rng,
                expected="no rng, since each walk has its own",
                cure="Pass rng= to each random_walk.",
            )
        return zip(*walks, strict=False)
    ours = [walk for walk in walks if isinstance(walk, random_walk)]
    if len(ours) < len(walks):
        other = kind_of(next(walk for walk in walks if not isinstance(walk, random_walk)))
        raise ArgumentError(
            f"with a covariance, random_walks needs walks made by random_walk; got {other}",
            found=other,
            expected="walks made by random_walk, whose mu and x0 are read",
            cure="Leave covariance= out for other iterables.",
        )
    factor, matrix = _factor(covariance, len(ours))
    variances = [walk.sigma2 for walk in ours]
    if not np.allclose(matrix.diagonal(), variances, rtol=1e-9, atol=0):
        raise ArgumentError(
            f"the diagonal of covariance is {matrix.diagonal().tolist()}, the sigma2 of the walks are {variances}",
            found=tuple(matrix.diagonal().tolist()),
            expected="the variances of the walks in the diagonal",
            cure="Construct the walks with sigma2 from the diagonal.",
        )
    mu, x0 = np.array([walk.mu for walk in ours]), np.array([walk.x0 for walk in ours])
    return _correlated(mu, x0, factor, min(walk.n for walk in ours), _generator(rng))


def _correlated(
    mu: NDArray[np.float64], x: NDArray[np.float64], factor: NDArray[np.float64], n: int, rng: np.random.Generator
) -> Iterator[tuple[float, ...]]:
    if n == 0:
        return
    yield tuple(x.tolist())
    for _ in range(n - 1):
        x = x + _steps(mu, factor, rng.standard_normal(len(mu)))
        yield tuple(x.tolist())


def _steps(mu: NDArray[np.float64], factor: NDArray[np.float64], draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn independent draws into steps: mu plus the factor times the draws, in one order whatever the shape."""
    steps = np.zeros(draws.shape)
    for column in range(len(mu)):
        steps += draws[..., column, None] * factor[:, column]
    steps += mu
    return steps


def random_walk_array(
    mu: ArrayLike,
    x0: ArrayLike,
    sigma2: ArrayLike,
    n: int,
    *,
    rng: RngLike | Sequence[np.random.Generator] = None,
) -> NDArray[np.float64]:
    """Return all ``n`` values of a random walk at once: the numbers of `random_walk`, bit for bit, without a loop.

    >>> from headrace.datasets import random_walk, random_walk_array
    >>> walk = random_walk_array(0.1, 3, 2, 1000, rng=7)
    >>> walk.shape, walk.tolist() == list(random_walk(0.1, 3, 2, 1000, rng=7))
    ((1000,), True)

    A list of generators gives one walk for each, drawn on as many threads as there are cores: ``(walks, n)``.

    >>> generators = np.random.default_rng(7).spawn(3)
    >>> random_walk_array(0.1, 3, 2, 1000, rng=generators).shape
    (3, 1000)

    Walks side by side, as `random_walks` has them, are given by their means and beginnings, ``(d,)`` each, and the
    ``(d, d)`` covariance of their noise: ``(n, d)``, or ``(walks, n, d)``.

    >>> random_walk_array([0, 0], [0, 5], [[1, 1.8], [1.8, 4]], 500, rng=0).shape
    (500, 2)

    The values are float64. Raises `ArgumentError` as `random_walk` and `random_walks` do, and for a generator that is
    given twice.
    """
    walk = _Walk(mu, x0, sigma2, integer("n", n, least=0))
    if not isinstance(rng, Sequence):
        return walk.draw(_generator(rng), np.empty(walk.shape))
    generators = [_generator(one) for one in rng]
    if len({id(one.bit_generator) for one in generators}) < len(generators):
        raise ArgumentError(
            "rng: one generator is in the list twice",
            found=len(generators),
            expected="a generator of its own for each walk",
            cure="Make them with numpy.random.default_rng(seed).spawn(count).",
        )
    walks = np.empty((len(generators), *walk.shape))
    threads = min(_cores(), len(generators)) if walks.size >= WORTH_THREADS else 1
    if threads > 1:  # NumPy draws without Python's lock
        with ThreadPoolExecutor(threads, "headrace-walks") as pool:
            list(pool.map(walk.draw, generators, walks))
    else:
        list(map(walk.draw, generators, walks))
    return walks


class _Walk:
    """The parameters of a walk, checked, of one number a step or of ``d``."""

    def __init__(self, mu: ArrayLike, x0: ArrayLike, sigma2: ArrayLike, n: int) -> None:
        together = any(map(_is_list, (mu, x0, sigma2)))
        self.mu: Any
        self.x0: Any
        self.scale: Any
        if together:
            self.mu, self.x0 = _vector("mu", mu), _vector("x0", x0)
            if len(self.mu) != len(self.x0):
                raise ArgumentError(
                    f"mu has {len(self.mu)} numbers, and x0 has {len(self.x0)}",
                    found=(len(self.mu), len(self.x0)),
                    expected="one number a walk in both",
                    cure="Pass lists of one length.",
                )
            self.scale, _ = _factor(sigma2, len(self.mu))
        else:
            self.mu, self.x0, self.scale = _number("mu", mu), _number("x0", x0), math.sqrt(_variance(sigma2))
        self.shape: tuple[int, ...] = (n, len(self.mu)) if together else (n,)

    def draw(self, rng: np.random.Generator, out: NDArray[np.float64]) -> NDArray[np.float64]:
        """Write the walk of a generator into an array."""
        if len(out) == 0:
            return out
        out[0] = self.x0
        # A stretch at a time, while it is in the cache; each goes on from the last value of the one before it.
        stretch = max(1, STRETCH // (out[0].size or 1))
        with np.errstate(over="ignore", invalid="ignore"):  # past the largest number there is inf, as in the loop
            for start in range(1, len(out), stretch):
                steps = out[start : start + stretch]
                if len(self.shape) == 1:
                    steps[:] = rng.normal(self.mu, self.scale, len(steps))
                else:
                    steps[:] = _steps(self.mu, self.scale, rng.standard_normal(steps.shape))
                onward = out[start - 1 : start + stretch]
                np.cumsum(onward, axis=0, out=onward)
        return out


class RandomWalkDataset(IterableDataset[Any]):
    """A stream of random walks, cut into pairs of a window and what comes after it, to train forecasters on.

    >>> from headrace import DataLoader
    >>> from headrace.datasets import RandomWalkDataset
    >>> dataset = RandomWalkDataset(0, 0, 1, 100, walks=8, window=16, horizon=4)
    >>> windows, targets = next(iter(DataLoader(dataset, batch_size=32, seed=0)))
    >>> windows.shape, targets.shape, len(dataset)
    ((32, 16), (32, 4), 648)

    ``walks`` walks of ``n`` values each, one after the other; windows of ``window`` values begin ``stride`` values
    apart, and the target is the ``horizon`` values that follow. Without a ``window`` the samples are the values
    themselves. ``mu``, ``x0`` and ``sigma2`` are as in `random_walk_array`; where they are of ``d`` walks side by side,
    windows are ``(window, d)`` and targets ``(horizon, d)``. All are float64 arrays of their own.

    In a loader, walk ``i`` is a function of (seed, epoch, i) alone: a replay gives it again, the next epoch has other
    walks. With a ``seed`` of its own the dataset gives the same walks always, as for validation. Several worker
    processes share the samples out: sample ``s`` comes from worker ``s mod workers``, so that all have as many, none
    comes twice, and all together are those that one process gives.

    Raises `ArgumentError` for parameters that cannot be used, and for walks too short for one window and its target.
    """

    def __init__(
        self,
        mu: ArrayLike,
        x0: ArrayLike,
        sigma2: ArrayLike,
        n: int,
        *,
        walks: int = 1,
        window: int | None = None,
        horizon: int = 1,
        stride: int = 1,
        seed: int | None = None,
    ) -> None:
        self.n, self.walks = integer("n", n, least=0), integer("walks", walks, least=0)
        self.window = None if window is None else integer("window", window, least=1)
        self.horizon, self.stride = integer("horizon", horizon, least=1), integer("stride", stride, least=1)
        self._walk = _Walk(mu, x0, sigma2, self.n)
        self._key = None if seed is None else seeds.key_of(seed)
        if self.window is None:
            self._each = self.n
            return
        if self.n < self.window + self.horizon:
            raise ArgumentError(
                f"walks of n={self.n} values are too short for a window of {self.window} and a horizon of "
                f"{self.horizon}",
                found=self.n,
                expected=f"n={self.window + self.horizon} or more",
                cure="Pass a larger n, or a smaller window or horizon.",
            )
        self._each = (self.n - self.window - self.horizon) // self.stride + 1

    def __len__(self) -> int:
        return self.walks * self._each

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        generator = self._generators()
        current, values = -1, np.empty(0)
        for sample in range(first, len(self), step):
            walk, place = divmod(sample, self._each)
            if walk != current:
                current, values = walk, self._walk.draw(generator(walk), np.empty(self._walk.shape))
            yield self._sample(values, place)

    def _sample(self, values: NDArray[np.float64], place: int) -> Any:
        if self.window is None:
            return values[place].copy()
        begin = place * self.stride
        middle = begin + self.window
        # Copies: a transform that works in place would reach into the windows that overlap this one.
        return values[begin:middle].copy(), values[middle : middle + self.horizon].copy()

    def _generators(self) -> Callable[[int], np.random.Generator]:
        """Return what gives each walk its generator, for one pass."""
        if self._key is None:
            return seeds.strands()
        key = self._key
        return lambda walk: seeds.generator(key, seeds.Purpose.STRAND, 0, walk)


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple) or (not isinstance(value, str | bytes) and np.ndim(value) > 0)  # type: ignore[arg-type]


def _number(name: str, value: object) -> float:
    try:
        number = float(value) if not isinstance(value, str | bytes) and not _is_list(value) else math.nan  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise refused(name, value, "a finite number", "Pass an int or a float.")
    return number


def _variance(value: object) -> float:
    number = _number("sigma2", value)
    if number < 0:
        raise refused("sigma2", value, "a variance, from 0 up", "Pass the square of the standard deviation.")
    return number


def _vector(name: str, value: ArrayLike) -> NDArray[np.float64]:
    try:
        vector = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        vector = np.empty((0, 0))
    if vector.ndim != 1 or not len(vector) or not np.isfinite(vector).all():
        cure = "Pass mu, x0 and the matrix sigma2 for the same walks."
        raise refused(name, value, "a list of finite numbers, one a walk", cure)
    return vector


def _factor(covariance: ArrayLike, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return L with L Lᵀ = covariance, lower triangular, and the covariance; of walks wholly dependent too.

    By hand, because LAPACK's Cholesky refuses matrices that are only semi-definite, and other factors of them differ
    between libraries: the same seed is to give the same walks.
    """
    try:
        matrix = np.asarray(covariance, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape != (size, size):
        cure = "Pass a row and a column for each walk."
        raise refused("covariance", covariance, f"a {size} x {size} matrix of numbers", cure)
    if not np.isfinite(matrix).all():
        raise refused("covariance", matrix.tolist(), "a matrix of finite numbers", "Remove NaN and infinity.")
    largest = float(np.abs(matrix).max())
    slack = 8 * size * np.finfo(np.float64).eps * largest
    if np.abs(matrix - matrix.T).max() > slack:
        row, column = divmod(int(np.abs(matrix - matrix.T).argmax()), size)
        raise ArgumentError(
            f"the covariance has {float(matrix[row, column])!r} at [{row}, {column}], "
            f"but {float(matrix[column, row])!r} at [{column}, {row}]",
            found=(float(matrix[row, column]), float(matrix[column, row])),
            expected="a symmetric matrix",
            cure="Pass (matrix + matrix.T) / 2.",
        )
    smallest = float(np.linalg.eigvalsh(matrix)[0])
    if smallest < -slack:
        raise ArgumentError(
            f"the smallest eigenvalue of the covariance is {smallest:.3g}: {matrix.tolist()}",
            found=smallest,
            expected="a positive semi-definite matrix",
            cure="Make the covariances between walks smaller.",
        )
    factor = np.zeros_like(matrix)
    for column in range(size):
        left = matrix[column:, column].copy()
        for earlier in range(column):
            left -= factor[column:, earlier] * factor[column, earlier]
        if left[0] > slack:
            factor[column:, column] = left / math.sqrt(left[0])
    return factor, matrix


def _generator(rng: object) -> np.random.Generator:
    if rng is None:
        return seeds.rng()
    if isinstance(rng, np.random.Generator):
        return rng
    seed = as_integer(rng)
    if seed is not None and seed >= 0:
        return np.random.default_rng(seed)
    expected = "a numpy.random.Generator, a seed (an integer from 0 up) or None"
    raise refused("rng", rng, expected, "Pass numpy.random.default_rng(seed).")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
