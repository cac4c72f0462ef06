"""Conformance suites for what you add, and `examine`, which property-tests a dataset of your own.

A suite is a class of plain test methods. Its name ends in ``Tests``, so pytest runs the classes that inherit it only::

    from headrace.testing import ExecutorTests

    class TestRay(ExecutorTests):
        def make(self, maker):
            return Ray(maker)

``examine`` needs no pytest; ``headrace doctor SCRIPT:NAME`` calls it. The suites import pytest when they are asked for.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from headrace.errors import MissingDependency
from headrace.testing.examination import Examination, examine
from headrace.testing.subject import Finding

if TYPE_CHECKING:
    from headrace.testing.datasets import DatasetTests, FormatTests
    from headrace.testing.executors import ExecutorTests
    from headrace.testing.samplers import BatchSamplerTests, SamplerTests
    from headrace.testing.transforms import TransformTests

_SUITES = {
    "BatchSamplerTests": "samplers",
    "DatasetTests": "datasets",
    "ExecutorTests": "executors",
    "FormatTests": "datasets",
    "SamplerTests": "samplers",
    "TransformTests": "transforms",
}
"""The module of each suite."""

__all__ = [
    "BatchSamplerTests",
    "DatasetTests",
    "Examination",
    "ExecutorTests",
    "Finding",
    "FormatTests",
    "SamplerTests",
    "TransformTests",
    "examine",
]


def __getattr__(name: str) -> Any:
    """Import a suite."""
    if name not in _SUITES:
        raise AttributeError(f"module 'headrace.testing' has no attribute {name!r}")
    try:
        import pytest
    except ImportError as error:
        raise MissingDependency(
            f"headrace.testing.{name} needs pytest, which is not installed",
            expected="pytest",
            cure="pip install pytest",
        ) from error
    # Before the suites are imported: a failed assert then shows the values that it compared.
    names = {f"headrace.testing.{module}" for module in _SUITES.values()}
    pytest.register_assert_rewrite(*sorted(names - sys.modules.keys()))
    return getattr(import_module(f"headrace.testing.{_SUITES[name]}"), name)
