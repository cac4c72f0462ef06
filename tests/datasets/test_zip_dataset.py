"""Samples in zip archives: the suites of formats and of datasets."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tests.image_files import encoded, photo

from headrace.datasets import ZipDataset
from headrace.testing import DatasetTests, FormatTests


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three archives of seven images with labels and notes; images are stored, notes deflated."""
    for shard in range(3):
        with zipfile.ZipFile(tmp_path / f"train-{shard:02}.zip", "w") as archive:
            for row in range(shard * 7, shard * 7 + 7):
                image = encoded(photo(row, 40 + row, 50), "PNG" if row % 5 == 4 else "JPEG")
                archive.writestr(f"{row:04}.jpg", image)
            for row in range(shard * 7, shard * 7 + 7):
                archive.writestr(f"{row:04}.cls", str(row % 3))
                archive.writestr(f"{row:04}.json", json.dumps({"row": row} | {"n": [0] * 50}), zipfile.ZIP_DEFLATED)
    return tmp_path


class TestPairs(FormatTests):
    """Images with labels, which the native extension reads."""

    collates = False

    @pytest.fixture(autouse=True)
    def files(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> Any:
        return ZipDataset(self.folder).tuple("jpg", "cls")


class TestDicts(DatasetTests):
    """Samples with stored and deflated fields."""

    collates = False

    @pytest.fixture(autouse=True)
    def files(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> Any:
        return ZipDataset(self.folder, fields=["cls", "json"])

    def label(self, sample: Any) -> Any:
        return sample["cls"]
