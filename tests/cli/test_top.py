"""`headrace top`: what it shows of real processes, and what is left when they end."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import headrace
from headrace import DataLoader, Dataset
from headrace.cli.top import _message
from headrace.errors import UnusableArgument
from headrace.executors import lifecycle
from headrace.executors.processes import pool
from headrace.metrics import watch
from headrace.run import monitor
from tests.cli.conftest import COMMAND, PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.conftest import Call

TRAIN = """
import sys
import numpy as np
from headrace import DataLoader

class Rows:
    def __len__(self):
        return 4000
    def where(self, index):
        return f"rows/{index}\\x1b[2J.npy"
    def __getitem__(self, index):
        if index % 50 == 7:
            raise ValueError("a damaged row")
        return np.zeros(4)

if __name__ == "__main__":
    loader = DataLoader(Rows(), 4, num_workers=1, backend=sys.argv[1], on_error="replace")
    for step, batch in enumerate(loader):
        if step == 200:
            print("ready", flush=True)
            sys.stdin.readline()
            break
"""
"""A training that waits at a step until it is told to end."""


@pytest.fixture(autouse=True)
def runtime(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let sockets lie in a folder of the test's own; return the folder of the sockets."""
    root = tmp_path_factory.mktemp("r")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(root))
    return root / "headrace"


@contextmanager
def training(folder: Path, backend: str = "threads", **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a training in a process of its own, up to a step at which it waits."""
    (folder / "train.py").write_text(TRAIN)
    process = subprocess.Popen(
        [sys.executable, "train.py", backend],
        cwd=folder,
        env={**os.environ, "HEADRACE_TOP": "1", **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def end(process: subprocess.Popen[str]) -> None:
    """Let a training end by itself."""
    assert process.communicate("\n", timeout=PATIENCE_SECONDS)[0] == ""
    assert process.returncode == 0


def test_processes_are_shown_with_workers_queue_rate_and_bad_samples(call: Call, tmp_path: Path, runtime: Path) -> None:
    """Show each process that asked for it, from threads and from processes, and escape what would move the cursor."""
    with training(tmp_path) as threads, training(tmp_path, "processes") as processes:
        assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
        assert [stat.S_IMODE(path.stat().st_mode) for path in runtime.iterdir()] == [0o600] * 2
        status, text, error = call("top", "--once")
        assert (status, error) == (0, "")
        assert "\x1b" not in text
        for process, kind in ((threads, "threads"), (processes, "processes")):
            assert f"Rows (process {process.pid}, train.py): Rows\n" in text
            assert f"1 worker ({kind})" in text
        assert len(re.findall(r"epoch 0: 804 of 4,000 samples, 201 batches\n", text)) == 2
        assert re.search(r"  slowest  \d.\d+ s  batch \d+, rows/\d+\\x1b\[2J.npy\n", text)
        assert re.search(r"  bad      rows/\d+\\x1b\[2J.npy: ValueError: a damaged row\n", text)
        alone = json.loads(call("top", str(threads.pid), "--json")[1])["result"]["processes"]
        assert [each["pid"] for each in alone] == [threads.pid]
        (loader,) = alone[0]["loaders"]
        assert (loader["batches"], loader["workers"], loader["running"]) == (201, 1, True)
        end(threads)
        end(processes)
    assert not list(runtime.iterdir())


def test_a_killed_process_is_recognized_and_its_socket_removed(call: Call, tmp_path: Path, runtime: Path) -> None:
    """Remove what kill -9 leaves behind, and say how a process is offered."""
    with training(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(list(runtime.iterdir())) == 1
        status, _, error = call("top")
    assert status == 3
    assert "no loader can be looked at" in error
    assert "HEADRACE_TOP=1" in error
    assert not list(runtime.iterdir())


def test_it_ends_with_the_last_loader_and_at_q_and_ctrl_c(tmp_path: Path) -> None:
    """Write a line at a time into a pipe until the loop has ended; on a terminal, draw until q or Ctrl-C."""
    with training(tmp_path) as process:
        lines = subprocess.Popen([*COMMAND, "top", "--interval", "0.1"], stdout=subprocess.PIPE, text=True)
        assert lines.stdout is not None
        assert "201 batches" in lines.stdout.readline()
        for key, status in (("q", 0), ("\x03", 130)):
            assert _typed(key) == status
        end(process)
        rest, _ = lines.communicate(timeout=PATIENCE_SECONDS)
    assert rest.splitlines()[-1] == "no process offers a loader any more"
    assert lines.returncode == 0


def _typed(key: str) -> int:
    """Run it on a terminal, press a key once it has drawn, and return its exit status."""
    ours, theirs = pty.openpty()
    try:
        # A session of its own has the terminal that Ctrl-C comes from.
        code = "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); sys.argv = ['headrace', 'top']\n"
        code += "from headrace.__main__ import main; sys.exit(main())"
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
            shown = b""
            while b"batch" not in shown:
                shown += os.read(ours, 4096)
            assert b"headrace top: 1 loader in 1 process" in shown
            os.write(ours, key.encode())
            drain = threading.Thread(target=_drain, args=(ours,))
            drain.start()
            status = process.wait(PATIENCE_SECONDS)
    finally:
        os.close(theirs)
    drain.join()
    os.close(ours)
    return status


def _drain(terminal: int) -> None:
    with suppress(OSError):  # the other end is closed
        while os.read(terminal, 4096):
            pass


def _connected() -> socket.socket:
    ((_, connection),) = monitor.sockets()
    connection.settimeout(PATIENCE_SECONDS)
    return connection


def _read(connection: socket.socket) -> dict[str, Any]:
    with connection.makefile("rb") as file:
        found: dict[str, Any] = json.loads(file.readline())
    return found


def test_a_loader_is_offered_by_a_call_until_its_block_ends(runtime: Path) -> None:
    """Have one socket for all loaders of a process, and none after the last one."""
    first: DataLoader[Any] = DataLoader(range(8), 2)
    second: DataLoader[Any] = DataLoader([1.0, 2.0], 1)
    with watch(first, "train"):
        offered = watch(second, "valid")
        for batch in first:
            del batch
        with _connected() as connection:
            loaders = _read(connection)["loaders"]
        assert [(each["name"], each["samples"], each["running"]) for each in loaders] == [
            ("train", 8, False),
            ("valid", 0, False),
        ]
        offered.close()
        offered.close()
        assert len(list(runtime.iterdir())) == 1
    assert not list(runtime.iterdir())


class Counted(Dataset[int]):
    """A dataset that notes who asks for its length, and that processes make."""

    def __init__(self) -> None:
        self.asked_by: list[threading.Thread] = []

    def __len__(self) -> int:
        self.asked_by.append(threading.current_thread())
        return 40

    def __getitem__(self, index: int) -> int:
        return index


def test_forked_workers_start_while_the_sending_thread_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork without threads beside; whoever looks stays connected, and no thread but the user's asks the dataset."""
    beside: list[list[str]] = []
    original = pool.start.start_worker

    def start_worker(*given: Any) -> Any:
        beside.append([thread.name for thread in threading.enumerate() if thread.name == "headrace-top"])
        return original(*given)

    monkeypatch.setattr(pool.start, "start_worker", start_worker)
    dataset = Counted()
    loader = DataLoader(dataset, 4, num_workers=2, backend="processes", multiprocessing_context="fork")
    with watch(loader), _connected() as connection, connection.makefile("rb") as messages:
        for _ in range(2):
            assert sum(len(batch) for batch in loader) == 40
        found: dict[str, Any] = {"epoch": 0}
        while (found["epoch"], found.get("batches")) != (1, 10):
            found = json.loads(messages.readline())["loaders"][0]
            assert found["dataset_samples"] == 40
    assert beside == [[]] * 4
    assert set(dataset.asked_by) == {threading.main_thread()}


def test_pauses_may_overlap() -> None:
    """Start the sending thread again after the last of them; let an offer end meanwhile."""
    loader = DataLoader(range(4), 2)
    offer = watch(loader)
    with lifecycle.paused():
        with lifecycle.paused():
            assert "headrace-top" not in [thread.name for thread in threading.enumerate()]
        assert "headrace-top" not in [thread.name for thread in threading.enumerate()]
    with _connected() as connection:
        assert _read(connection)["loaders"][0]["name"] == "loader"
    thread = monitor._monitor._thread  # type: ignore[union-attr]
    with lifecycle.paused():
        offer.close()
    monitor._monitor._thread.join(60)  # type: ignore[union-attr]
    assert not thread.is_alive()
    assert lifecycle.PAUSABLE == []
    assert list(monitor.sockets()) == []


def test_a_client_that_does_not_read_or_that_writes_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no client stop the others, nor the loop: its buffer is full at some time, and then it is closed."""
    monkeypatch.setattr(monitor, "INTERVAL", 0.0)
    loader: DataLoader[Any] = DataLoader(range(8), 2)
    with watch(loader), _connected() as idle, _connected() as writing, _connected() as reading:
        writing.sendall(b'{"run": "this"}\n')
        with suppress(ConnectionResetError):
            while writing.recv(1 << 16):
                pass
        while len(_peers()) > 1:
            assert reading.recv(1 << 16)
        with suppress(ConnectionResetError):
            while idle.recv(1 << 16):  # what it was sent before, and then the end
                pass


def _peers() -> list[socket.socket]:
    assert monitor._monitor is not None
    return list(monitor._monitor._clients)


def test_a_forked_child_has_no_part_in_the_socket(runtime: Path) -> None:
    """Leave it to the parent; a child that offers a loader of its own makes its own."""
    loader: DataLoader[Any] = DataLoader(range(8), 2)
    with watch(loader):
        pid = os.fork()
        if not pid:
            with suppress(BaseException):
                assert monitor._monitor is None
                with watch(loader, "child"):
                    os._exit(0 if len(list(runtime.glob("*.sock"))) == 2 else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        with _processes() as found:
            assert [each["pid"] for each in found] == [os.getpid()]


@contextmanager
def _processes() -> Iterator[list[dict[str, Any]]]:
    """Give the first message of each process that can be looked at."""
    found = []
    for _, connection in monitor.sockets():
        with connection:
            connection.settimeout(PATIENCE_SECONDS)
            found.append(_read(connection))
    yield found


def test_batches_are_the_same_with_and_without_a_look_at_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Change no byte of what a loop delivers."""

    def batches() -> list[Any]:
        data = headrace.ArrayDataset(np.arange(60.0).reshape(20, 3)).map(_noisy)
        loader: DataLoader[Any] = DataLoader(data, 3, shuffle=True, seed=1, num_workers=2)
        with loader:
            return list(loader)

    plain = batches()
    monkeypatch.setenv(monitor.VARIABLE, "1")
    watched = batches()
    assert monitor._monitor is not None
    monitor._monitor.close()
    assert all(map(np.array_equal, plain, watched))


def _noisy(row: Any, rng: np.random.Generator) -> Any:
    return row + rng.random()


def test_a_folder_that_others_may_enter_is_refused(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise where the call asks for it, and only warn where the environment does."""
    runtime.mkdir(mode=0o755)
    runtime.chmod(0o755)
    loader: DataLoader[Any] = DataLoader(range(8), 2)
    with pytest.raises(UnusableArgument, match="not a folder of this user alone"):
        watch(loader)
    monkeypatch.setenv(monitor.VARIABLE, "1")
    with pytest.warns(UserWarning, match="cannot look at this loader"):
        assert len(list(loader)) == 4


def test_a_path_that_is_too_long_for_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Say which variable moves it, and leave nothing behind."""
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with pytest.raises(UnusableArgument, match="no socket can be made") as caught:
        watch(DataLoader(range(8), 2))
    assert "XDG_RUNTIME_DIR" in str(caught.value)
    assert not list((deep / "headrace").iterdir())


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[]", b'{"format": 1}', b'{"format": 1, "loaders": [3]}', b"[" * 100_000, b" " * 300_000],
)
def test_what_is_no_message_is_none(line: bytes) -> None:
    """Take nothing from a socket but what a process of ours sends."""
    assert _message(line) is None
