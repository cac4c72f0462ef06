"""Chi-squared by hand: what a test of randomness compares, and when it may fail."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

Z = 4.26
"""A true shuffle fails a test one time in 100,000; and seeds are fixed, so that one that passes goes on passing."""


def surprise(counts: NDArray[Any], expected: float | NDArray[Any], free: int) -> float:
    """Return how far chi-squared is above what chance gives, in standard deviations (Wilson and Hilferty, 1931)."""
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    return ((chi_squared / free) ** (1 / 3) - (1 - 2 / (9 * free))) / sqrt(2 / (9 * free))
