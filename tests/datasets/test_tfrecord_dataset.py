"""Samples in TFRecord files: the suites of formats and of datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.formats.writers import example, feature, write_tfrecord
from tests.image_files import encoded, photo

from headrace.datasets import TFRecordDataset
from headrace.testing import DatasetTests, FormatTests


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files of seven images with labels and notes."""
    for shard in range(3):
        rows = [
            example(
                {
                    "image/encoded": feature([encoded(photo(row, 40 + row, 50), "PNG" if row % 5 == 4 else "JPEG")]),
                    "label": feature([row % 3]),
                    "ids": feature(list(range(row % 4))),
                    "score": feature([row / 7]),
                }
            )
            for row in range(shard * 7, shard * 7 + 7)
        ]
        write_tfrecord(tmp_path / f"train.tfrecord-{shard:05}-of-00003", rows)
    return tmp_path


class TestPairs(FormatTests):
    """Images with labels, which the native extension reads."""

    collates = False

    @pytest.fixture(autouse=True)
    def files(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> Any:
        return TFRecordDataset(self.folder).tuple("image/encoded", "label")


class TestDicts(DatasetTests):
    """Samples with numbers, and lists of any length."""

    collates = False

    @pytest.fixture(autouse=True)
    def files(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> Any:
        return TFRecordDataset(self.folder, fields=["label", "ids", "score"])
