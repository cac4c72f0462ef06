"""The fork server, which imports once what all workers need."""

from __future__ import annotations

import subprocess
import sys
from multiprocessing import forkserver
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace.executors.processes import warm_server, worker
from headrace.executors.processes.payload import Startup
from headrace.interop import torch_state
from headrace.testing.executors import Squares, maker_of

if TYPE_CHECKING:
    from pathlib import Path

TELLS_PATH = sys.version_info >= (3, 13, 1) or (3, 12, 8) <= sys.version_info < (3, 13)
STARTUP = Startup(1, 1, 0, maker_of(Squares()), None)

PROGRAM = """
import os
from headrace import DataLoader

class Parents:
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return os.getppid()

if __name__ == "__main__":
    print(os.getpid(), end=" ")
    for _ in range(2):
        loader = DataLoader(Parents(), 1, num_workers=2, backend="processes", multiprocessing_context="forkserver")
        print(*(int(parent) for batch in loader for parent in batch), end=" ")
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a fork server that does not run, in the place of this program's own."""
    new = forkserver.ForkServer()
    monkeypatch.setattr(forkserver, "_forkserver", new)
    return new


def test_it_imports_what_the_workers_need(server: Any) -> None:
    """Name headrace, NumPy and the worker's own module, and keep the main script."""
    warm_server.warm(STARTUP)
    assert server._preload_modules[:3] == ["__main__", "headrace", "numpy"]
    assert worker.__name__ in server._preload_modules


def test_torch_is_imported_where_the_program_has_it(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name torch, if this program has loaded the one that the server would find."""
    monkeypatch.setattr(torch_state, "loaded", lambda: SimpleNamespace(__file__=np.__file__))
    monkeypatch.setattr(warm_server, "_finds", lambda name, origin: True)
    warm_server.warm(STARTUP)
    assert "torch" in server._preload_modules


def test_what_the_program_has_chosen_stays(server: Any) -> None:
    """Add nothing to what the program lets the server import."""
    server.set_forkserver_preload(["json"])
    warm_server.warm(STARTUP)
    assert server._preload_modules == ["json"]


def test_a_server_that_runs_stays_as_it_is(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change nothing for a server that has imported what it was told to."""
    monkeypatch.setattr(server, "_forkserver_pid", 1)
    warm_server.warm(STARTUP)
    assert server._preload_modules == ["__main__"]


@pytest.mark.skipif(TELLS_PATH, reason="Python tells the server where to import from")
@pytest.mark.parametrize("name", ["headrace", "numpy", "statistics", "pytest"])
def test_a_module_that_the_server_would_find_elsewhere_is_left_to_the_workers(
    server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Import nothing early where the current folder has a module of that name, or of one that they import."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the wrong one')")
    monkeypatch.chdir(tmp_path)
    warm_server.warm(STARTUP)
    assert server._preload_modules == ["__main__"]


def test_one_server_starts_the_workers_of_all_loaders(tmp_path: Path) -> None:
    """Fork the workers of two loaders from one process, which is not the program itself."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=300)
    own, *parents = done.stdout.split()
    assert len(parents) == 8
    assert len(set(parents)) == 1
    assert own not in parents
