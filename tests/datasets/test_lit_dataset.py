"""Samples in LitData chunks: the suites of formats and of datasets."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from tests.formats.writers import write_litdata
from tests.image_files import encoded, photo

from headrace.datasets import LitDataset
from headrace.testing import DatasetTests, FormatTests

FIELDS = {"image": "jpeg", "label": "int", "text": "str"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three chunks of seven images with labels and texts."""
    rows = [
        [encoded(photo(row, 40 + row, 50), "PNG" if row % 5 == 4 else "JPEG"), struct.pack("<q", row % 3), b"x" * row]
        for row in range(21)
    ]
    return write_litdata(tmp_path / "lit", FIELDS, [rows[:7], rows[7:14], rows[14:]])


class TestPairs(FormatTests):
    """Images with labels, which the native extension reads."""

    collates = False

    @pytest.fixture(autouse=True)
    def files(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> Any:
        return LitDataset(self.folder).tuple("image", "label")


class TestDicts(DatasetTests):
    """Samples with some of their fields."""

    collates = False

    @pytest.fixture(autouse=True)
    def files(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> Any:
        return LitDataset(self.folder, fields=["label", "text"])
