"""The leak check itself is seen to bite."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LEAKS = {
    "a_thread": "threading.Thread(target=threading.Event().wait, name='forgotten', daemon=True).start()",
    "a_descriptor": "os.open(__file__, os.O_RDONLY)",
    "a_process": "subprocess.Popen(['sleep', '30'])",
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_test_that_leaks_fails(leak: str, tmp_path: Path) -> None:
    """Leave something behind in a test of its own, and see that test fail."""
    source = (Path(__file__).parent / "conftest.py").read_text()
    (tmp_path / "conftest.py").write_text(source.replace("SETTLE_SECONDS = 5.0", "SETTLE_SECONDS = 0.1"))
    (tmp_path / "test_it.py").write_text(
        f"import os, subprocess, threading\n\ndef test_it():\n    global kept\n    kept = {LEAKS[leak]}\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1, run.stdout
    assert "left behind" in run.stdout
