"""``headrace top``: what the loaders of running processes do, live."""

from __future__ import annotations

import json
import selectors
import shutil
import sys
import textwrap
from contextlib import ExitStack, contextmanager, suppress
from time import monotonic, strftime
from typing import TYPE_CHECKING, Any, cast

import click

from headrace.cli.command_errors import Failure
from headrace.cli.output import Result, columns, json_option, say, writes_json
from headrace.formatting import count, duration, percent, plain, rate
from headrace.run import monitor

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 10.0
"""Seconds that a process has for its first message."""
SEARCH = 2.0
"""Seconds after which new processes are looked for."""
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_OTHER_SCREEN, _FIRST_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


@click.command(epilog="Example: headrace top --interval 5")
@click.argument("pid", type=click.IntRange(1), required=False)
@click.option("--once", is_flag=True, help="Show one look, and end.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Seconds between two looks.",
)
@json_option
def top(*, pid: int | None, once: bool, interval: float) -> Result:
    """Show what the loaders of running processes do: workers, queue, rate, waiting, slow and bad samples.

    It shows the processes of this user that run with HEADRACE_TOP=1 in their environment, or that call
    headrace.metrics.watch; with PID that one alone. On a terminal it is drawn again and again until q or Ctrl-C;
    elsewhere it writes a line for each loader. It ends when the last process has ended. With --json it looks once.
    """
    with ExitStack() as stack:
        feeds = stack.enter_context(_Feeds(pid))
        feeds.wait()
        if not feeds.found():
            raise Failure(
                "no loader can be looked at" if pid is None else f"process {pid} offers no loader",
                found="no socket of a running process",
                expected="a process with HEADRACE_TOP=1 in its environment, or that calls headrace.metrics.watch",
                cure="start it with HEADRACE_TOP=1",
            )
        if once or writes_json():
            _say(feeds, once=True)
            return Result({"processes": feeds.found()})
        drawn = sys.stdout.isatty() and sys.stdin.isatty()
        keys = stack.enter_context(_keys()) if drawn else None
        _watch(feeds, interval, keys)
        ended = not feeds.found()
    if ended:
        say("no process offers a loader any more")
    return Result()


def _watch(feeds: _Feeds, interval: float, keys: int | None) -> None:
    """Show what comes, until nothing comes any more, or q is pressed."""
    due = 0.0
    while feeds.found():
        if monotonic() >= due:
            if keys is None:
                _say(feeds)
            else:
                _draw(feeds)
            due = monotonic() + interval
        if feeds.read(max(0.0, due - monotonic()), keys):
            return


class _Feeds:
    """The connections to processes, and the newest message of each."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._selector = selectors.DefaultSelector()
        self._parts: dict[socket.socket, bytearray] = {}
        self._paths: dict[socket.socket, Path] = {}
        self._newest: dict[socket.socket, dict[str, Any]] = {}
        self._searched = -SEARCH

    def __enter__(self) -> _Feeds:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in list(self._parts):
            self._drop(connection)
        self._selector.close()

    def found(self) -> list[dict[str, Any]]:
        """Return the newest message of each process."""
        return [self._newest[connection] for connection in self._parts if connection in self._newest]

    def wait(self) -> None:
        """Wait until each process that there is has sent a message."""
        ends = monotonic() + PATIENCE
        self._search()
        while self._parts.keys() - self._newest.keys() and monotonic() < ends:
            self.read(0.1)

    def read(self, seconds: float, keys: int | None = None) -> bool:
        """Take what comes within some time; say whether q was pressed."""
        ends = monotonic() + seconds
        if keys is not None and keys not in self._selector.get_map():
            self._selector.register(keys, selectors.EVENT_READ)
        while True:
            if monotonic() - self._searched >= SEARCH:
                self._search()
            for key, _ in self._selector.select(max(0.0, min(ends - monotonic(), SEARCH))):
                if key.fileobj == keys:
                    if sys.stdin.read(1).lower() in ("q", ""):
                        return True
                else:
                    self._receive(cast("socket.socket", key.fileobj))
            if monotonic() >= ends or not self._parts:
                return False

    def _search(self) -> None:
        """Connect to processes that have come."""
        self._searched = monotonic()
        known = set(self._paths.values())
        wanted = None if self._pid is None else f"{self._pid}-"
        for path, connection in monitor.sockets(known):
            if wanted is None or path.name.startswith(wanted):
                self._parts[connection], self._paths[connection] = bytearray(), path
                self._selector.register(connection, selectors.EVENT_READ)
            else:
                connection.close()

    def _receive(self, connection: socket.socket) -> None:
        part = self._parts[connection]
        try:
            received = connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        part += received
        *lines, rest = bytes(part).split(b"\n")
        part[:] = rest
        message = _message(lines[-1]) if lines else None
        if message is not None:
            self._newest[connection] = message
        if not received or len(rest) > monitor.MOST_BYTES or (lines and message is None):
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        for known in (self._parts, self._paths, self._newest):
            known.pop(connection, None)
        connection.close()


def _message(line: bytes) -> dict[str, Any] | None:
    """Return a message of a process; None for anything else."""
    if len(line) > monitor.MOST_BYTES:
        return None
    with suppress(ValueError, RecursionError):
        found = json.loads(line)
        if isinstance(found, dict) and found.get("format") == monitor.FORMAT:
            loaders = found.get("loaders")
            return found if isinstance(loaders, list) and all(isinstance(each, dict) for each in loaders) else None
    return None


def _draw(feeds: _Feeds) -> None:
    """Draw the screen again, in its place."""
    width, height = columns() or 80, _height()
    found = feeds.found()
    loaders = sum(len(each["loaders"]) for each in found)
    processes = count(len(found), "process", "processes")
    lines = [f"headrace top: {count(loaders, 'loader')} in {processes}, {strftime('%H:%M:%S')}; q ends"]
    for each in found:
        for loader in each["loaders"]:
            lines += ["", *_block(each, loader)]
    broken = [part for line in lines for part in textwrap.wrap(line, width, subsequent_indent=" " * 11) or [""]]
    shown = [line[:width] for line in broken[: height - 1]]
    click.echo(_HOME + "".join(f"{line}{_CLEAR_LINE}\r\n" for line in shown) + _CLEAR_BELOW, nl=False, color=True)


def _height() -> int:
    return max(10, shutil.get_terminal_size().lines)


def _block(process: dict[str, Any], loader: dict[str, Any]) -> list[str]:
    """Return the lines of a loader on the screen."""
    title = f"{_title(process, loader)}: {loader.get('dataset', '')}"
    if "error" in loader:
        return [plain(title), plain(f"  error    {loader['error']}")]
    lines = [title, f"  rate     {_rate(loader)}", f"  queue    {_queue(loader)}"]
    if loader.get("limit"):
        lines.append(f"  limit    {loader['limit']}")
    for number, one in enumerate(loader["slowest"][:3]):
        what = one["sample"] or "a whole batch"
        lines.append(f"  {'slowest' if not number else '':<8} {duration(one['seconds'])}  batch {one['step']}, {what}")
    for number, bad in enumerate(loader["bad"][-3:]):
        lines.append(f"  {'bad' if not number else '':<8} {_bad(bad)}")
    return [plain(line) for line in lines]


def _title(process: dict[str, Any], loader: dict[str, Any]) -> str:
    rank = f", rank {loader['rank']} of {loader['world_size']}" if loader.get("world_size", 1) > 1 else ""
    return f"{loader['name']} (process {process['pid']}, {process['program']}{rank})"


def _rate(loader: dict[str, Any]) -> str:
    recent = loader["recent_samples_per_second"]
    pace = rate(loader["samples_per_second"] if recent is None else recent, 1.0, "samples")
    waits = loader["wait_share"] if loader["recent_wait_share"] is None else loader["recent_wait_share"]
    state = "" if loader["running"] else ", between two loops"
    of = f" of {loader['dataset_samples']:,}" if loader["dataset_samples"] else ""
    done = f"epoch {loader['epoch']}: {loader['samples']:,}{of} samples, {count(loader['batches'], 'batch', 'batches')}"
    return f"{pace}, waiting {percent(waits)}; {done}{state}"


def _queue(loader: dict[str, Any]) -> str:
    workers = count(loader["workers"], "worker")
    kind = "no workers: the loop's own thread" if loader["backend"] == "inline" else f"{workers} ({loader['backend']})"
    if loader["ready_batches"] is None or loader["backend"] == "inline":
        return kind
    ready = f"{loader['ready_batches']:.1f} of {loader['capacity']} batches ready"
    return f"{kind}, {loader['busy_workers']:.1f} busy; {ready}"


def _bad(bad: dict[str, Any]) -> str:
    return f"{bad['where'] or 'sample ' + str(bad['index'])}: {bad['error']}"


def _say(feeds: _Feeds, *, once: bool = False) -> None:
    """Write a line for each loader, or once all that the screen would show."""
    for process in feeds.found():
        for loader in process["loaders"]:
            if once:
                for line in _block(process, loader):
                    say(line)
            elif "error" in loader:
                say(plain(f"{_title(process, loader)}: {loader['error']}"))
            else:
                say(plain(f"{strftime('%H:%M:%S')} {_title(process, loader)}: {_rate(loader)}; {_queue(loader)}"))
    sys.stdout.flush()


@contextmanager
def _keys() -> Iterator[int]:
    """Take each key as it is pressed, on a screen of its own; put the terminal back at the end."""
    import termios
    import tty

    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    try:
        tty.setcbreak(number)
        click.echo(_OTHER_SCREEN, nl=False, color=True)
        yield number
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
        click.echo(_FIRST_SCREEN, nl=False, color=True)
