"""Scripts that start worker processes end, with the guard and without it, and nothing survives them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BODY = """
import headrace

def main():
    loader = headrace.DataLoader(
        range(8), 4, num_workers=2, backend="processes", multiprocessing_context="{method}", worker_init_fn={init}
    )
    for batch in loader:
        print(batch)

"""
GUARDED = BODY + "if __name__ == '__main__':\n    main()\n"
UNGUARDED = BODY + "main()\n"


def run(folder: Path, script: str, method: str, init: str = "None") -> subprocess.CompletedProcess[str]:
    """Run a script until its output closes, which the last of the processes that it started holds open."""
    file = folder / "script.py"
    file.write_text(script.format(init=init, method=method))
    # All warnings are shown, but for that of workers that start slowly, on a busy machine.
    command = [sys.executable, "-X", "dev", "-W", "ignore:no batch came within", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_script_with_the_guard_runs_once(method: str, tmp_path: Path) -> None:
    """Print the batches once, and nothing else."""
    done = run(tmp_path, GUARDED, method)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0 1 2 3]\n[4 5 6 7]\n", "")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("init", ["None", "print"])
def test_a_script_without_the_guard_ends_and_says_why(method: str, init: str, tmp_path: Path) -> None:
    """Raise one error that names the guard, and print nothing else."""
    done = run(tmp_path, UNGUARDED, method, init)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("Traceback (most recent call last)") == 1
    assert "Warning" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("headrace.errors.WorkerDied: a worker process ")
    assert "under `if __name__ == '__main__':`" in last


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_script_on_standard_input_gets_the_cause(method: str) -> None:
    """Start no worker that would look for a file named <stdin>."""
    script = GUARDED.format(init="None", method=method)
    done = subprocess.run([sys.executable, "-"], input=script, capture_output=True, text=True, timeout=250, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("Traceback (most recent call last)") == 1
    assert "there is no file '<stdin>'" in done.stderr.splitlines()[-1]
    forked = GUARDED.format(init="None", method="fork")
    done = subprocess.run([sys.executable, "-"], input=forked, capture_output=True, text=True, timeout=250, check=False)
    assert (done.returncode, done.stdout) == (0, "[0 1 2 3]\n[4 5 6 7]\n")


DAEMONIC = """
import multiprocessing
import headrace

def load(kind):
    return [batch.tolist() for batch in headrace.DataLoader(range(4), 2, num_workers=1, backend=kind)]

def attempt(kind):
    try:
        return load(kind)
    except AssertionError as error:
        return str(error)

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(1) as pool:
        print(pool.map(attempt, ["threads", "processes"]))
"""


def test_a_daemonic_process_is_pointed_to_threads(tmp_path: Path) -> None:
    """Load on threads in a worker of a pool; refuse processes there with the way out."""
    file = tmp_path / "script.py"
    file.write_text(DAEMONIC)
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    assert "[[[0, 1], [2, 3]], " in done.stdout
    assert 'backend="threads"' in done.stdout
