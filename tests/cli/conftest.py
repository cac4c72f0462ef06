"""The command line as its users have it: a process of its own, its output and its exit status."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import pytest

from headrace.cli.app import run as command_line
from tests.image_files import encoded, photo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = [sys.executable, "-m", "headrace"]
STRICT = [sys.executable, "-W", "error", "-m", "headrace"]
PATIENCE_SECONDS = 250.0
"""On a busy machine, a command takes half a minute to start; a test is ended after 300 seconds."""


class Run(Protocol):
    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]: ...


class Start(Protocol):
    def __call__(self, *arguments: str | Path) -> subprocess.Popen[str]: ...


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command to its end, in an empty folder; a traceback is never right."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*STRICT, *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


class Call(Protocol):
    def __call__(self, *arguments: str | Path) -> tuple[int, str, str]: ...


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process, in an empty folder, for its status and what it writes: a fraction of the time."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["headrace", *map(str, arguments)])
        monkeypatch.setattr(sys, "path", sys.path.copy())
        capfd.readouterr()
        status = command_line()
        return status, *capfd.readouterr()

    return call


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a command in an empty folder; kill it at the end of the test if it still runs."""
    with ExitStack() as stack:

        def start(*arguments: str | Path) -> subprocess.Popen[str]:
            process = stack.enter_context(
                subprocess.Popen(
                    [*COMMAND, *map(str, arguments)],
                    cwd=tmp_path,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder of three classes of four JPEG files."""
    root = tmp_path_factory.mktemp("photos")
    for label, name in enumerate(("cat", "dog", "émeu")):
        (root / name).mkdir()
        for number in range(4):
            image = photo(seed=10 * label + number, height=120 + 20 * label, width=160)
            (root / name / f"{number}.jpg").write_bytes(encoded(image))
    return root


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a list file that takes long to read: a bad image, then the same good one over and over."""
    root = tmp_path_factory.mktemp("endless")
    (root / "good.jpg").write_bytes(encoded(photo(height=480, width=640)))
    (root / "list.txt").write_text("gone.jpg 0\n" + "good.jpg 0\n" * 100_000)
    return root / "list.txt"
