"""The step-by-step route, to hold the native extension to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace import DataLoader
from headrace._native import extension
from headrace.datasets import Mapped

if TYPE_CHECKING:
    from numpy.typing import NDArray

WHY = "the native extension was not built here"
MISSING = extension is None


class Stepwise(Mapped[Any]):
    """A `Mapped` that says again what a sample is, and so is read sample by sample."""

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index)


def both(base: Any, *functions: Any) -> tuple[Mapped[Any], Stepwise]:
    """Return the same view twice: read by the native extension, and step by step."""
    return Mapped(base, *functions), Stepwise(base, *functions)


def batches(dataset: Any, size: int = 8, **options: Any) -> list[Any]:
    """Read one epoch, each array copied."""
    loader = DataLoader(dataset, size, **{"seed": 3, "shuffle": True, **options})
    return [[np.array(part) for part in (batch if isinstance(batch, list) else [batch])] for batch in loader]


def assert_equal(found: list[Any], expected: list[Any]) -> None:
    """Hold two epochs to be the same to the last bit."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            assert np.array_equal(a, b)


def far_off(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    """Return which share of values differs by more than a gray level."""
    assert found.shape == expected.shape
    return float(np.mean(np.abs(found.astype(int) - expected.astype(int)) > 1))
