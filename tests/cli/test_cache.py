"""`headrace cache`: what is held, whether it is sound, and deleting it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from headrace.storage.block_cache import BlockCache, Claim

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run


def _held(folder: Path, count: int) -> BlockCache:
    cache = BlockCache(folder, 1 << 20)
    for number in range(count):
        claim = cache.claim(f"{number:032x}-{0:08x}", 100)
        assert isinstance(claim, Claim)
        claim.finish(bytes(100))
    return cache


def test_status_counts_blocks_and_names_files_of_others(run: Run, tmp_path: Path) -> None:
    _held(tmp_path / "blocks", 2)
    (tmp_path / "blocks" / "notes.txt").write_text("mine")
    done = run("cache", "status", "--folder", tmp_path / "blocks", "--json")
    found = json.loads(done.stdout)["result"]
    assert (found["blocks"], found["bytes"], found["other_files"]) == (2, 208, ["notes.txt"])


def test_verify_deletes_damaged_blocks_and_exits_with_1(run: Run, tmp_path: Path) -> None:
    _held(tmp_path / "blocks", 2)
    (tmp_path / "blocks" / f"{0:032x}-{0:08x}.block").write_bytes(b"what")
    done = run("cache", "verify", "--folder", tmp_path / "blocks")
    assert done.returncode == 1
    assert "1 sound block, 1 damaged and deleted" in done.stdout
    assert run("cache", "verify", "--folder", tmp_path / "blocks").returncode == 0


def test_clear_deletes_the_blocks_and_refuses_files_of_others(run: Run, tmp_path: Path) -> None:
    cache = _held(tmp_path / "blocks", 2)
    stranger = tmp_path / "blocks" / "notes.txt"
    stranger.write_text("mine")
    refused = run("cache", "clear", "--folder", tmp_path / "blocks")
    assert refused.returncode != 0
    assert "notes.txt" in refused.stderr
    assert cache.status().blocks == 2
    stranger.unlink()
    done = run("cache", "clear", "--folder", tmp_path / "blocks")
    assert "2 blocks" in done.stdout
    assert cache.status().blocks == 0
