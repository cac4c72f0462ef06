"""The benchmark of worker processes runs on what is here, and its figures are what its table shows."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "process_workers.py"

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="CPU time and memory are read from /proc")


@pytest.mark.parametrize("workload", ["transport", "first_batch", "start", "memory"])
def test_each_table_is_made_without_peers(workload: str, tmp_path: Path) -> None:
    """Measure headrace where torch is not installed; leave the ratios out."""
    # A copy elsewhere finds no environments of peers beside it.
    shutil.copytree(BENCHMARK.parent, tmp_path / "benchmarks", ignore=shutil.ignore_patterns(".peers", "__pycache__"))
    (tmp_path / "src").symlink_to(BENCHMARK.parents[1] / "src")
    command = [sys.executable, str(tmp_path / "benchmarks" / "process_workers.py"), "--workloads", workload]
    small = ["--rounds", "1", "--seconds", "0", "--samples", "64", "--paths", "8000"]
    done = subprocess.run([*command, *small], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| headrace")]
    assert len(rows) == {"memory": 2, "start": 3}.get(workload, 1)
    for row in rows:
        assert row.count("..") >= 2
        assert row.endswith("|  |")
