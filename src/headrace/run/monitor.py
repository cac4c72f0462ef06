"""The socket by which `headrace top` looks at the loaders of a running process.

Nothing of it exists until a loader is offered. The socket only sends: whoever writes to it, or does not read, loses its
connection, so that no loop ever waits for one. It is in a folder that nobody else may enter.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import selectors
import socket
import stat
import sys
import tempfile
import threading
import warnings
import weakref
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from headrace.errors import UnusableArgument
from headrace.executors import lifecycle
from headrace.run.live_values import live_values

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from headrace.run.session import Session

VARIABLE = "HEADRACE_TOP"
"""The variable of the environment that offers every loader of a process."""
FORMAT = 1
"""Goes up when a key of a message changes its meaning or is removed."""
INTERVAL = 0.5
"""Seconds from message to message."""
IDLE = 5.0
"""Seconds after which a socket that nobody looks at finds that its loaders are gone."""
MOST_BYTES = 1 << 18
"""Of a message."""
MOST_CLIENTS, MOST_LOADERS = 8, 16
ENDING = ".sock"


def folder() -> Path:
    """Return the folder of the sockets: in the user's runtime folder, else in that for temporary files.

    Makes it, for the user alone. Raises `UnusableArgument` for a folder that somebody else made or may enter.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    place = Path(runtime) / "headrace" if Path(runtime).is_absolute() and Path(runtime).is_dir() else None
    found = place or Path(tempfile.gettempdir()) / f"headrace-{os.getuid()}"
    with suppress(FileExistsError):
        found.mkdir(mode=0o700)
    about = found.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or stat.S_IMODE(about.st_mode) & 0o077:
        raise UnusableArgument(
            f"{found} is not a folder of this user alone",
            found=stat.filemode(about.st_mode),
            expected=f"a folder that user {os.getuid()} owns and nobody else may enter",
            cure=f"run chmod 700 {found}, or set XDG_RUNTIME_DIR to a folder of your own",
        )
    return found


class Offer:
    """A loader that `headrace top` may look at, until this is closed."""

    def __init__(self, session: Session, name: str) -> None:
        self.name = name
        self._session = weakref.ref(session)
        self._monitor: Monitor | None = None

    def close(self) -> None:
        """Show the loader no longer; the last one to be closed closes the socket."""
        monitor, self._monitor = self._monitor, None
        if monitor is not None:
            monitor.withdraw(self)

    def __enter__(self) -> Offer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_gone(self) -> bool:
        """Whether the loader no longer exists."""
        return self._session() is None

    def values(self) -> dict[str, Any] | None:
        """Return what the loader does now; None if it no longer exists."""
        session = self._session()
        return None if session is None else {"name": self.name, **live_values(session)}


class Monitor:
    """The socket of this process, and the thread that sends."""

    def __init__(self, first: Offer) -> None:
        self.offers = [first]
        self.ended = False
        """Whether no offer may be added any more; changed under the lock only."""
        self._listener, self._path = _listen()
        self._wakes, self._wake = socket.socketpair()
        self._clients: list[socket.socket] = []
        self._turn = threading.Lock()
        self._pauses = 0
        """How many forks want the thread to be gone."""
        self._thread = self._started()
        lifecycle.PAUSABLE.append(self)

    def pause(self) -> None:
        """End the thread; the socket and whoever looks stay."""
        with self._turn:
            self._pauses += 1
            if self._pauses == 1:
                self._end_thread()

    def resume(self) -> None:
        """Start the thread again, if nobody else wants it to be gone."""
        with self._turn:
            self._pauses -= 1
            if not self._pauses:
                self._thread = self._started()

    def _started(self) -> threading.Thread:
        thread = threading.Thread(target=self._serve, name="headrace-top", daemon=True)
        thread.start()
        return thread

    def _end_thread(self) -> None:
        with suppress(OSError):  # it has ended by itself
            self._wake.send(b"\0")
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=10)

    def withdraw(self, offer: Offer) -> None:
        """Forget an offer; end after the last one."""
        with _lock:
            if offer in self.offers:
                self.offers.remove(offer)
            self.ended = self.ended or not self.offers
        if self.ended:
            self.close()

    def close(self) -> None:
        """End the thread, and remove the socket."""
        with _lock:
            self.ended = True
        self._end_thread()

    def forked(self) -> None:
        """Close what a forked child has of it; the socket is its parent's."""
        for each in [self._listener, self._wakes, self._wake, *self._clients]:
            each.close()

    def _serve(self) -> None:
        stays = False
        try:
            with selectors.PollSelector() as selector:
                for each in (self._listener, self._wakes, *self._clients):
                    selector.register(each, selectors.EVENT_READ)
                self._send_until_ended(selector)
            stays = not self.ended
        finally:
            if not stays:
                with _lock:
                    self.ended = True
                with suppress(ValueError):
                    lifecycle.PAUSABLE.remove(self)
                self._path.unlink(missing_ok=True)
                self.forked()

    def _send_until_ended(self, selector: selectors.BaseSelector) -> None:
        due = monotonic()
        while not (self._pauses or self._is_over()):
            patience = max(0.0, due - monotonic()) if self._clients else IDLE
            new = []
            for key, _ in selector.select(patience):
                if key.fileobj is self._listener:
                    new += self._accepted()
                elif key.fileobj is self._wakes:
                    self._wakes.recv(1)
                elif key.fileobj in self._clients:  # it left, or it writes, which no client of ours does
                    self._drop(selector, key.fileobj)
            for client in new:
                selector.register(client, selectors.EVENT_READ)
            if self._clients and (new or monotonic() >= due):
                self._send(selector)
                due = monotonic() + INTERVAL

    def _is_over(self) -> bool:
        with _lock:
            self.ended = self.ended or all(offer.is_gone for offer in self.offers)
            return self.ended

    def _accepted(self) -> list[socket.socket]:
        with suppress(OSError):
            client, _ = self._listener.accept()
            if len(self._clients) < MOST_CLIENTS:
                client.settimeout(0.0)
                self._clients.append(client)
                return [client]
            client.close()
        return []

    def _send(self, selector: selectors.BaseSelector) -> None:
        message = _message(list(self.offers))
        for client in list(self._clients):
            try:
                whole = client.send(message) == len(message)
            except OSError:
                whole = False
            if not whole:
                self._drop(selector, client)

    def _drop(self, selector: selectors.BaseSelector, client: socket.socket) -> None:
        selector.unregister(client)
        self._clients.remove(client)
        client.close()


def _message(offers: list[Offer]) -> bytes:
    found = []
    for offer in offers[:MOST_LOADERS]:
        try:
            values = offer.values()
        except Exception as error:  # noqa: BLE001  a user's dataset may have a length that raises
            values = {"name": offer.name, "error": f"{type(error).__name__}: {error}"[:300]}
        if values is not None:
            found.append(values)
    about = {"format": FORMAT, "pid": os.getpid(), "program": Path(sys.argv[0] or "python").name[:100]}
    text = json.dumps(about | {"interval": INTERVAL, "loaders": found}, default=str).encode() + b"\n"
    return text if len(text) <= MOST_BYTES else json.dumps(about | {"loaders": []}).encode() + b"\n"


def _listen() -> tuple[socket.socket, Path]:
    """Return a socket that listens in the folder, which has its name only then."""
    if not hasattr(socket, "AF_UNIX"):
        raise UnusableArgument(
            "headrace top needs Unix sockets, which Python has not on this system",
            expected="Linux or macOS",
            cure="use headrace.metrics.prometheus, or loader.statistics()",
        )
    place = folder()
    path = place / f"{os.getpid()}-{secrets.token_hex(4)}{ENDING}"
    early = path.with_suffix(".new")
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(early))
        early.chmod(0o600)
        listener.listen(MOST_CLIENTS)
        listener.settimeout(0.0)
        early.rename(path)
    except OSError as error:
        listener.close()
        early.unlink(missing_ok=True)
        raise UnusableArgument(
            f"no socket can be made in {place}: {error.strerror or error}",
            found=str(place),
            expected="a folder that can be written to, with a path below 80 characters",
            cure="set XDG_RUNTIME_DIR to such a folder",
        ) from error
    return listener, path


def sockets(known: Collection[Path] = ()) -> Iterator[tuple[Path, socket.socket]]:
    """Yield a connection to each process that offers a loader, but ``known`` ones; remove sockets of those that died.

    The socket of a process that is killed is left behind: nobody listens to it.
    """
    for path in sorted(set(folder().glob(f"*{ENDING}")) - set(known)):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(0.0)
        try:
            connection.connect(str(path))
        except ConnectionRefusedError:  # nobody listens, nor ever will: a socket has its name after it listens
            connection.close()
            with suppress(OSError):
                path.unlink()
        except OSError:  # it has just gone, or too many wait
            connection.close()
        else:
            yield path, connection


_lock = threading.Lock()
_monitor: Monitor | None = None


def offer(session: Session, name: str) -> Offer:
    """Let `headrace top` look at a loader, under this name."""
    global _monitor  # noqa: PLW0603  a process has one socket
    made = Offer(session, name[:100])
    with _lock:
        if _monitor is None or _monitor.ended:
            _monitor = Monitor(made)
        else:
            _monitor.offers.append(made)
        made._monitor = _monitor
    session.watched = True
    session.count_samples()
    return made


def offer_if_asked(session: Session) -> None:
    """Offer a loader if the environment asks for it; warn if that cannot be done."""
    if session.watched or os.environ.get(VARIABLE, "0") in ("", "0"):
        return
    session.watched = True
    try:
        offer(session, type(session.settings.dataset).__qualname__)
    except (UnusableArgument, OSError) as error:
        warnings.warn(f"{VARIABLE} is set, and headrace top cannot look at this loader: {error}", stacklevel=3)


def _close() -> None:
    if _monitor is not None:
        _monitor.close()


def _after_fork() -> None:
    global _lock, _monitor  # noqa: PLW0603
    _lock = threading.Lock()  # the parent's may be held by a thread that is not here
    monitor, _monitor = _monitor, None
    if monitor is not None:
        with suppress(ValueError):
            lifecycle.PAUSABLE.remove(monitor)
        monitor.forked()


atexit.register(_close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
