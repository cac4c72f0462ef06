"""The leak check itself is seen to bite."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.leaks import FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAKS = {
    "a_thread": "threading.Thread(target=threading.Event().wait, name='forgotten', daemon=True).start()",
    "a_descriptor": "os.open(__file__, os.O_RDONLY)",
    "a_process": "subprocess.Popen(['sleep', '30'])",
    "shared_memory": "mmap.mmap(os.open('{memory}', os.O_RDWR | os.O_CREAT), 1 << 16)",
}


@pytest.fixture
def memory() -> Iterator[Path]:
    """Give the name of a file of shared memory."""
    if not FOLDER.exists():
        pytest.skip(f"needs {FOLDER}")
    file = FOLDER / f"sem.headrace-{uuid.uuid4().hex}"
    file.write_bytes(bytes(1 << 16))
    yield file
    file.unlink()


def run_a_test(statement: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run one test that consists of a statement, under our conftest."""
    source = (Path(__file__).parent / "conftest.py").read_text()
    (folder / "conftest.py").write_text(source.replace("SETTLE_SECONDS = 60.0", "SETTLE_SECONDS = 0.1"))
    (folder / "test_it.py").write_text(
        f"import mmap, os, subprocess, threading\n\ndef test_it():\n    global kept\n    kept = {statement}\n"
    )
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )


@pytest.mark.parametrize("leak", LEAKS)
def test_a_test_that_leaks_fails(leak: str, tmp_path: Path, memory: Path) -> None:
    """Leave something behind in a test of its own, and see that test fail."""
    run = run_a_test(LEAKS[leak].format(memory=memory), tmp_path)
    assert run.returncode == 1, run.stdout
    assert "left behind" in run.stdout
    assert leak != "shared_memory" or str(memory) in run.stdout


def test_shared_memory_of_other_programs_is_no_leak(tmp_path: Path, memory: Path) -> None:
    """Pass a test during which a file appears in /dev/shm that no process of ours uses."""
    other = memory.with_name(f"{memory.name}-other")
    try:
        run = run_a_test(f"os.close(os.open('{other}', os.O_RDWR | os.O_CREAT))", tmp_path)
        assert other.exists()
    finally:
        other.unlink(missing_ok=True)
    assert run.returncode == 0, run.stdout
