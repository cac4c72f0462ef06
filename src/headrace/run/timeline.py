"""A file that shows what happened when: the trace of a loader's batches, for Perfetto and Chrome.

It is in the Trace Event Format, as an array of events, which may lack its end: a trace of a program that was killed can
be opened too. Each event goes to the file soon, so that a long run needs no more memory than a short one.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import warnings
import weakref
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.checks import integer, kind_of, shown
from headrace.errors import ArgumentError
from headrace.run.turns import Turn

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from headrace.run.life import Life

MOST_BYTES = 256 << 20
FLUSHED = 1 << 16
"""Bytes that are written at once."""
END = 1 << 10
"""Bytes that are kept free for the last event."""
INSIDE = 1e-6
"""Seconds before the end of a slice at which an arrow ends: an arrow at the very end belongs to no slice."""
REMOTE_PIDS = 1 << 22
"""Processes of other machines get numbers from here up, which Linux gives to none."""


class Timeline:
    """Writes the lives of batches into a file, as long as it is open. What `DataLoader.trace` returns.

    >>> import json, tempfile
    >>> from pathlib import Path
    >>> from headrace import DataLoader
    >>> loader = DataLoader(range(8), batch_size=4, num_workers=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with loader.trace(folder + "/epoch.json"):
    ...         batches = list(loader)
    ...     events = json.loads(Path(folder, "epoch.json").read_text())
    >>> sum(event["name"] == "wait" for event in events)
    2
    """

    def __init__(self, path: str | os.PathLike[str], max_bytes: int = MOST_BYTES) -> None:
        most = integer("max_bytes", max_bytes, least=1 << 16)
        if not isinstance(path, str | os.PathLike):
            raise ArgumentError(
                f"path is {kind_of(path)}",
                found=path,
                expected="the path of the file to write",
                cure='pass a text or a pathlib.Path, such as "trace.json"',
            )
        self.path = Path(path)
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise ArgumentError(
                f"the trace cannot be written to {shown(os.fspath(path))}: {error}",
                found=path,
                expected="a file that can be written",
                cure="choose a path in a folder that exists",
            ) from error
        self._sink = _Sink(file, most)
        self._turn = Turn()
        self._known: set[tuple[int, int]] = set()
        """Processes and threads that have a name; a process as the thread -1."""
        self._remote: dict[tuple[str, int], int] = {}
        self._clocks: dict[str, _Clock] = {}
        self._ids = count()
        self._last: dict[int, float] = {}
        """When each thread that asks for batches got its last one."""
        self._finish = weakref.finalize(self, self._sink.close)

    def __enter__(self) -> Timeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether events are written: it was not closed, is not full, and the disk has room."""
        return self._sink.is_open

    def close(self) -> None:
        """Write what is left, and close the file; loops continue without it."""
        with self._turn.lock:
            self._finish()

    def add(self, lives: Sequence[Life], asked: float, delivered: float, *, ready: int) -> None:
        """Write when this thread got a batch, the lives of the steps in it, and that ``ready`` batches wait."""
        with self._turn.lock:
            if not self.is_open:
                return
            pid, thread, events = os.getpid(), threading.get_native_id(), list[str]()
            self._name(events, pid, -1, "loader")
            self._name(events, pid, thread, "loop")
            last = self._last.get(thread)
            if last is not None and last <= asked:
                events.append(_slice("train", "consumer", pid, thread, last, asked, "{}"))
            self._last[thread] = delivered
            steps = ",".join(str(life.step) for life in lives)
            events.append(_slice("wait", "deliver", pid, thread, asked, delivered, f'{{"steps":[{steps}]}}'))
            events.append(f'{{"name":"ready","ph":"C","pid":{pid},"ts":{_us(delivered)},"args":{{"batches":{ready}}}}}')
            for life in lives:
                events += self._events(life, pid)
            self._sink.write(events)

    def _events(self, life: Life, pid: int) -> list[str]:
        events: list[str] = []
        step = f'{{"step":{life.step}}}'
        number = next(self._ids)
        track = f'"cat":"batch","id":"{pid}.{number}","pid":{pid},"tid":{life.consumer}'
        stages: list[tuple[str, float, float]] = []
        making, carried = life.making, life.carried
        if making is not None:
            owner, shift = self._place(life, pid)
            began, ended = making.began + shift, making.ended + shift
            stages = [("queued", life.submitted, began), ("made", began, ended)]
            if carried is not None:
                self._name(events, pid, life.receiver, "loop")
                stages.append(("transport", ended, carried.opened))
                events.append(_slice("open", "transport", pid, life.receiver, carried.opening, carried.opened, step))
            stages.append(("in order", life.received, life.delivered))
            if making.thread:
                self._making(events, life, owner, shift, step)
                flow = f'"name":"batch","cat":"flow","id":{number}'
                start = f'"ph":"s","pid":{owner},"tid":{making.thread},"ts":{_us(began)}'
                inside = max(life.asked, life.delivered - INSIDE)
                end = f'"ph":"f","bp":"e","pid":{pid},"tid":{life.consumer},"ts":{_us(inside)}'
                events += [f"{{{flow},{start}}}", f"{{{flow},{end}}}"]
        events.append(f'{{"name":"batch","ph":"b",{track},"ts":{_us(life.submitted)},"args":{step}}}')
        for stage, began, ended in stages:
            low = min(max(began, life.submitted), life.delivered)
            high = min(max(low, ended), life.delivered)
            events.append(f'{{"name":"{stage}","ph":"b",{track},"ts":{_us(low)}}}')
            events.append(f'{{"name":"{stage}","ph":"e",{track},"ts":{_us(high)}}}')
        events.append(f'{{"name":"batch","ph":"e",{track},"ts":{_us(life.delivered)}}}')
        return events

    def _making(self, events: list[str], life: Life, pid: int, shift: float, step: str) -> None:
        """Write what the worker's thread did: the batch, its stages in it, and the packing after it."""
        making, carried = life.making, life.carried
        assert making is not None  # noqa: S101  for the type checker
        title = making.name or "worker"
        if pid != os.getpid():
            self._name(events, pid, -1, f"worker {title}" + (f" on {life.node}" if life.node else ""))
        self._name(events, pid, making.thread, title)
        thread = making.thread
        events.append(_slice("make", "worker", pid, thread, making.began + shift, making.ended + shift, step))
        for stage, began, ended in making.spans:
            events.append(_slice(stage, "stage", pid, thread, began + shift, ended + shift, "{}"))
        if carried is not None:
            events.append(_slice("pack", "transport", pid, thread, making.ended + shift, carried.packed + shift, step))

    def _place(self, life: Life, pid: int) -> tuple[int, float]:
        """Return the number of a worker's process here, and what its clock lags behind ours."""
        making = life.making
        assert making is not None  # noqa: S101  for the type checker
        if not life.node:
            return making.pid, 0.0
        clock = self._clocks.setdefault(life.node, _Clock())
        sent = making.ended if life.carried is None else life.carried.packed
        clock.look(life.submitted - making.began, life.received - sent)
        known = self._remote.setdefault((life.node, making.pid), REMOTE_PIDS + len(self._remote))
        return (making.pid if making.pid == pid else known), clock.shift

    def _name(self, events: list[str], pid: int, thread: int, name: str) -> None:
        """Name a process, or a thread of one, the first time that it is met."""
        if (pid, thread) in self._known:
            return
        self._known.add((pid, thread))
        kind, tid = ("process_name", pid) if thread < 0 else ("thread_name", thread)
        arguments = json.dumps({"name": name})
        events.append(f'{{"name":"{kind}","ph":"M","pid":{pid},"tid":{tid},"ts":0,"args":{arguments}}}')


class _Clock:
    """What is known of another machine's clock: it read ``began`` after we submitted, and ``sent`` before we received.

    >>> clock = _Clock()
    >>> clock.look(90.0, 110.0)
    >>> clock.shift
    100.0
    >>> clock.look(-1.0, 120.0)
    >>> clock.shift
    100.0
    """

    def __init__(self) -> None:
        self._least, self._most = float("-inf"), float("inf")

    def look(self, least: float, most: float) -> None:
        """Narrow it down by one batch."""
        self._least, self._most = max(self._least, least), min(self._most, most)

    @property
    def shift(self) -> float:
        """Seconds to add to its times; 0 where that fits, as it does for processes of this machine."""
        return 0.0 if self._least <= 0.0 <= self._most else (self._least + self._most) / 2


class _Sink:
    """The file, which ends where it is full or cannot be written; known to the timeline and to its finalizer."""

    def __init__(self, file: int, most: int) -> None:
        self._file, self._left = file, most - END
        self._pid = os.getpid()
        self._waiting: list[str] = []
        self._held = 0
        self._begun = False

    @property
    def is_open(self) -> bool:
        """Whether this process may write."""
        return self._file >= 0 and self._pid == os.getpid()

    def write(self, events: list[str]) -> None:
        """Write events; the last one says so where there is no room for more."""
        size = sum(map(len, events)) + 2 * len(events)
        if size > self._left:
            said = '"the trace is full: pass a larger max_bytes to trace()"'
            last = f'{{"name":{said},"ph":"i","s":"g","pid":{self._pid},"tid":{threading.get_native_id()},"ts":'
            stamp = json.loads(events[-1])["ts"]
            self._waiting.append(f"{last}{stamp}}}")
            self.close()
            return
        self._left -= size
        self._waiting += events
        self._held += size
        if self._held > FLUSHED:
            self._flush()

    def _flush(self) -> None:
        text = ("" if self._begun else "[\n") + (",\n" if self._begun and self._waiting else "")
        data = memoryview((text + ",\n".join(self._waiting)).encode())
        self._waiting.clear()
        self._held, self._begun = 0, True
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:  # a full disk ends the trace, not the training
            self._drop()
            warnings.warn(f"the trace ends here: {error}", RuntimeWarning, stacklevel=6)

    def _drop(self) -> None:
        file, self._file = self._file, -1
        with contextlib.suppress(OSError):
            os.close(file)

    def close(self) -> None:
        """Write what waits, and the end."""
        if not self.is_open:
            return
        self._flush()
        if self.is_open:
            with contextlib.suppress(OSError):
                os.write(self._file, b"\n]\n")
            self._drop()


def _slice(name: str, category: str, pid: int, thread: int, began: float, ended: float, arguments: str) -> str:
    start = _us(began)
    return (
        f'{{"name":{_quoted(name)},"cat":"{category}","ph":"X","pid":{pid},"tid":{thread},"ts":{start},'
        f'"dur":{max(0.0, round(_us(ended) - start, 3))},"args":{arguments}}}'
    )


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 3)


@lru_cache(maxsize=256)
def _quoted(name: str) -> str:
    return json.dumps(name)
