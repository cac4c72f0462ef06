"""A helper process that reads and writes objects for a forked process, in which obstore's threads do not exist."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, cast

from headrace.errors import UnreadableFile
from headrace.storage.object_clients import ObstoreClient, all_variables
from headrace.storage.request_loop import SECONDS, result_of, settle
from headrace.storage.signed_urls import plain, whole

if TYPE_CHECKING:
    from headrace.storage.object_clients import Facts

THREADS = 16
_PROGRAM = "from headrace.storage.object_relay import main; main()"
_CURE = "Run again; if the helper ends each time, pass multiprocessing_context='forkserver' to the loader."


def relay() -> Relay:
    """Return the helper of this process, started unless it runs; another one when the environment is another one."""
    variables = all_variables()
    with _lock:
        held = _held.get(os.getpid())
        if held is None or held.ended or held.variables != variables:
            if held is not None and not held.is_busy:
                held.close()
            _held.clear()  # a parent's helper is not ours
            held = _held[os.getpid()] = Relay(variables)
        return held


_held: dict[int, Relay] = {}
_lock = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


class Relay:
    """Sends calls to a helper process: any number of threads at once."""

    def __init__(self, variables: tuple[tuple[str, str], ...]) -> None:
        self.variables = variables
        """What the helper's clients are made of."""
        ours, theirs = socket.socketpair()
        self.ended = False
        self._waiting: dict[int, Future[Any]] = {}
        self._lock, self._number = threading.Lock(), 0
        command = [sys.executable, "-c", _PROGRAM, str(theirs.fileno())]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        with theirs:
            # In a session of its own: Ctrl-C is for those who wait for it, and it ends when they do.
            self._process = subprocess.Popen(  # noqa: S603
                command, pass_fds=[theirs.fileno()], env=environment, start_new_session=True
            )
        self._line = Connection(ours.detach())
        self._receiver = threading.Thread(target=self._receive, name="headrace-objects", daemon=True)
        self._receiver.start()
        atexit.register(self.close)

    @property
    def is_busy(self) -> bool:
        """Whether somebody waits for an answer."""
        return bool(self._waiting)

    def facts(self, url: str) -> Facts:
        """Return size and version of an object."""
        return cast("Facts", self._call("facts", url))

    def read(self, url: str, begin: int, end: int) -> tuple[bytes, Facts]:
        """Return a range of an object, and its facts."""
        return cast("tuple[bytes, Facts]", self._call("read", url, begin, end))

    def write(self, url: str, path: str) -> None:
        """Write a file as an object."""
        self._call("write", url, path, seconds=None)

    def delete(self, url: str) -> None:
        """Delete an object, if it is there."""
        self._call("delete", url)

    def listing(self, url: str) -> list[tuple[str, Facts]]:
        """Return the objects below a URL, and their facts."""
        return cast("list[tuple[str, Facts]]", self._call("listing", url))

    def close(self) -> None:
        """End the helper."""
        self.ended = True
        with suppress(OSError):
            self._process.kill()
            self._process.wait(5)
        self._receiver.join(5)

    def _call(self, name: str, url: str, *rest: int | str, seconds: float | None = 3 * SECONDS) -> Any:
        answer: Future[Any] = Future()
        with self._lock:
            self._number += 1
            self._waiting[self._number] = answer
            if self.ended:
                raise _gone(url)
            try:
                self._line.send((self._number, name, whole(url), *rest))
            except OSError as error:
                self.ended = True
                raise _gone(url) from error
        try:
            return result_of(answer, seconds)
        except (EOFError, Late) as error:
            raise _gone(url) from error

    def _receive(self) -> None:
        try:
            while True:
                number, fine, value = self._line.recv()
                answer = self._waiting.pop(number)
                settle(answer, value if fine else None, error=None if fine else value)
        except (EOFError, OSError):
            with self._lock:
                self.ended = True
                left, self._waiting = self._waiting, {}
                self._line.close()
            for answer in left.values():
                settle(answer, error=EOFError())


def _gone(url: str) -> UnreadableFile:
    return UnreadableFile("the helper process that reads it ended", path=url, expected="an answer", cure=_CURE)


def serve(line: Connection) -> None:
    """Answer calls until the other end is closed; those that run then are nobody's."""
    sending, client = threading.Lock(), ObstoreClient()

    def answer(number: int, name: str, url: str, rest: tuple[int | str, ...]) -> None:
        try:
            found, fine = getattr(client, name)(plain(url), *rest), True
        except Exception as error:  # noqa: BLE001  it is raised at the other end
            found, fine = error, False
        with sending, suppress(OSError):
            line.send((number, fine, found))

    pool = ThreadPoolExecutor(THREADS)
    with suppress(EOFError, OSError):
        while True:
            number, name, url, *rest = line.recv()
            pool.submit(answer, number, name, url, tuple(rest))


def main() -> None:
    """Serve on the descriptor that the command line names."""
    serve(Connection(int(sys.argv[1])))
    os._exit(0)
