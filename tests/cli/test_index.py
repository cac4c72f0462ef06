"""`headrace index`: shards are indexed before the run that reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.datasets import WebDataset
from tests.datasets.test_shard_formats import FORMATS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run


def test_an_index_is_saved_where_the_dataset_finds_it(run: Run, tmp_path: Path) -> None:
    """Save it beside the shards, and say what is in them."""
    FORMATS["tar"][0](tmp_path)
    done = run("index", tmp_path)
    assert done.returncode == 0
    assert "3 tar shards, 21 samples" in done.stdout
    assert "fields: jpg, cls, json" in done.stdout
    (saved,) = tmp_path.glob(".headrace-*.index")
    assert str(saved) in done.stdout
    written = saved.stat().st_mtime_ns
    assert WebDataset(tmp_path).index_path == str(saved)
    assert saved.stat().st_mtime_ns == written


def test_an_index_may_have_a_folder_of_its_own(run: Run, tmp_path: Path) -> None:
    """Save it there; a format that needs none says so."""
    for name in ("zip", "arrow"):
        (tmp_path / name).mkdir()
        FORMATS[name][0](tmp_path / name)
    assert "3 zip shards" in run("index", "zip", "--folder", "kept").stdout
    assert len(list((tmp_path / "kept").iterdir())) == 1
    assert not list((tmp_path / "zip").glob(".*"))
    assert "index: none is needed" in run("index", "arrow").stdout


def test_what_is_no_shard_is_refused(run: Run, photos: Path) -> None:
    """End with one line, and a status of 2."""
    done = run("index", photos)
    assert done.returncode == 2
    assert "these are no shards" in done.stderr
