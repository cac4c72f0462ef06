"""Conformance suites: inherit one in a test file, give it a factory, and pytest checks all that the loader relies on.

A suite is a class of plain test methods. Its name ends in ``Tests``, so pytest runs the classes that inherit it only::

    from headrace.testing import ExecutorTests

    class TestRay(ExecutorTests):
        def make(self, maker):
            return Ray(maker)

Nothing else in headrace imports this package, and pytest is needed here alone.
"""

from __future__ import annotations

from headrace.errors import MissingDependency

try:
    import pytest
except ImportError as error:
    raise MissingDependency(
        "headrace.testing needs pytest, which is not installed", expected="pytest", cure="pip install pytest"
    ) from error

# Before the suites are imported: a failed assert then shows the values that it compared.
for _name in ("datasets", "executors", "samplers", "transforms"):
    pytest.register_assert_rewrite(f"headrace.testing.{_name}")

from headrace.testing.datasets import DatasetTests, FormatTests  # noqa: E402
from headrace.testing.executors import ExecutorTests  # noqa: E402
from headrace.testing.samplers import BatchSamplerTests, SamplerTests  # noqa: E402
from headrace.testing.transforms import TransformTests  # noqa: E402

__all__ = ["BatchSamplerTests", "DatasetTests", "ExecutorTests", "FormatTests", "SamplerTests", "TransformTests"]
