"""CRC-32C: by the instruction, by tables, and by NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace._native import extension
from headrace.storage.crc32c import crc32c, crc32c_by_numpy

KNOWN = [
    (b"", 0),
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (b"123456789", 0xE3069283),
]
"""RFC 3720, appendix B.4, and the check value of the polynomial."""


@pytest.mark.parametrize(("data", "value"), KNOWN)
def test_the_sums_are_those_of_the_standard(data: bytes, value: int) -> None:
    """Give the published values."""
    assert crc32c(data) == crc32c_by_numpy(data) == value


@given(st.integers(0, 70_000), st.integers(0, 2**32 - 1))
def test_all_three_ways_give_one_sum(size: int, seed: int) -> None:
    """Agree for any length."""
    if extension is None:
        pytest.skip("the native extension was not built")
    data = np.random.default_rng(seed).bytes(size)
    assert extension.crc32c(data) == extension.crc32c(data, tables=True) == crc32c_by_numpy(data)


def test_without_the_extension_numpy_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fall back where there is no extension, or one that is older."""
    monkeypatch.setattr("headrace.storage.crc32c.extension", None)
    assert crc32c(b"123456789" * 1000) == crc32c_by_numpy(b"123456789" * 1000)
