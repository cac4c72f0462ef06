"""Choices that NumPy and the native extension draw alike: each from numbers of ``rng.random()``, in the same order."""

from __future__ import annotations

from typing import Any


def between(rng: Any, least: float, most: float) -> float:
    """Draw a number, uniform from ``least`` to ``most``.

    >>> import numpy as np
    >>> 2 <= between(np.random.default_rng(0), 2, 3) < 3
    True
    """
    return float(least + (most - least) * rng.random())


def one_of(rng: Any, count: int) -> int:
    """Draw one of the numbers from 0 up to ``count``, all equally likely.

    >>> import numpy as np
    >>> one_of(np.random.default_rng(0), 1)
    0
    """
    return int(rng.random() * count)


def shuffled(rng: Any, count: int) -> list[int]:
    """Draw an order of the numbers from 0 up to ``count``, all equally likely.

    >>> import numpy as np
    >>> sorted(shuffled(np.random.default_rng(0), 4))
    [0, 1, 2, 3]
    """
    order = list(range(count))
    for last in range(count - 1, 0, -1):
        other = one_of(rng, last + 1)
        order[last], order[other] = order[other], order[last]
    return order
