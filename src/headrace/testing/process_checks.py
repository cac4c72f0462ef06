"""Checks of a dataset in other processes: pickling, a fresh interpreter, and handles that forked workers share."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import socket
import sqlite3
import warnings
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from headrace.checks import kind_of
from headrace.formatting import memory_of
from headrace.testing.isolated import Pulse, isolated
from headrace.testing.sample_bytes import digest
from headrace.testing.source_lines import assigned, defined, frames_of_error, place_of
from headrace.testing.subject import Report, Subject, walked

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

MOST_SENT = 64 << 20
"""How large a pickled dataset may be to be sent to a fresh interpreter."""

STARTING = 60.0
"""Seconds that a fresh interpreter may take to start: on a busy machine that says nothing of the dataset."""

_START = "spawn"
"""How the fresh process is started."""

_HANDLES = ("h5py", "lmdb", "sqlite3", "_sqlite3")
_CURE = (
    "Open it where the sample is read, once in each process (compare os.getpid()), and leave it out of __getstate__."
)


def pickles(subject: Subject) -> Report:
    """Pickle the dataset and collate function, before and after a read; look for handles that a fork shares."""
    report = Report()
    shared = _shared(subject, report)
    data = _pickled(subject, report, shared, "")
    if data is not None:
        report.kept["pickle"] = data if len(data) <= MOST_SENT else None
        report.facts["pickled_bytes"] = len(data)
        if report.kept["pickle"] is None:
            report.unchecked["spawn"] = f"the dataset pickles to {memory_of(len(data))}: it was not sent to a process"
    with suppress(Exception):  # errors are another check's
        for _ in subject.samples():
            pass
    if data is not None:
        _pickled(subject, report, _shared(subject, report), " once a sample was read")
    return report


def _pickled(subject: Subject, report: Report, shared: set[int], when: str) -> bytes | None:
    try:
        return pickle.dumps((subject.dataset, subject.collate if subject.own_collate else None))
    except Exception as error:  # noqa: BLE001  whatever pickling raises
        said = f"{type(error).__name__}: {error}"
    named = [("dataset", subject.dataset)]
    named += [("collate_fn", subject.collate)] if subject.own_collate else []
    for name, thing in named:
        blamed = _blamed(thing, name)
        if blamed is None:
            continue
        path, one, owner = blamed
        if any(id(held) in shared for _, held, _ in walked(one, "")):
            return None  # reported as a handle, whose cure is the same
        place = defined(one) or assigned(owner, path.rpartition(".")[2].partition("[")[0]) or defined(thing)
        report.find(
            "pickle",
            f"the {'dataset' if name == 'dataset' else 'collate function'} cannot be pickled for spawned workers{when}",
            f"{path} is {kind_of(one)}: {said}",
            "Define functions at the top level of a module; leave locks and handles out of __getstate__.",
            place,
        )
        break
    return None


def _blamed(thing: Any, name: str) -> tuple[str, Any, Any] | None:
    """Return the innermost part that cannot be pickled, how it is reached, and its owner."""
    found = None
    inner: set[int] = set()
    for path, one, owner in walked(thing, name):
        if owner is not None and found is not None and id(owner) not in inner:
            continue
        if not _can_be_pickled(one):
            found = (path, one, owner)
            inner.add(id(one))
    return found


def _can_be_pickled(thing: Any) -> bool:
    try:
        pickle.dumps(thing)
    except Exception:  # noqa: BLE001  whatever pickling raises
        return False
    return True


def _is_handle(one: Any) -> bool:
    if isinstance(one, io.BytesIO | io.StringIO):
        return False
    if isinstance(one, io.IOBase):
        with suppress(OSError, ValueError):
            return not one.closed and one.fileno() >= 0
        return False
    if isinstance(one, socket.socket):
        return one.fileno() >= 0
    if isinstance(one, sqlite3.Connection | sqlite3.Cursor):
        return True
    return type(one).__module__.partition(".")[0] in _HANDLES and bool(one)


def _handles(dataset: Any) -> dict[str, tuple[Any, Any]]:
    found: dict[str, tuple[Any, Any]] = {}
    inside: set[int] = set()
    for path, one, owner in walked(dataset, "dataset"):
        if id(owner) in inside:
            inside.add(id(one))
        elif _is_handle(one):
            found[path] = (one, owner)
            inside.add(id(one))
    return found


def _position(handle: Any) -> int | None:
    with suppress(AttributeError, OSError, ValueError):
        return os.lseek(handle.fileno(), 0, os.SEEK_CUR)
    return None


def _shared(subject: Subject, report: Report) -> set[int]:
    """Read a sample in a forked process, and see which open handles it used that this one has too."""
    handles = _handles(subject.dataset)
    known = {found.evidence.partition(" ")[0] for found in report.findings if found.check == "handles"}
    if not handles:
        return set()

    def after_a_read() -> list[str]:
        with suppress(Exception):  # errors are another check's
            for _ in subject.samples(subject.keys[-1:]):
                break
        now = _handles(subject.dataset)
        return [path for path, (one, _) in handles.items() if path in now and now[path][0] is one]

    before = {path: _position(one) for path, (one, _) in handles.items()}
    kept = isolated(after_a_read, Pulse(), seconds=5, patience=5).value
    for path in handles if kept is None else kept:
        one, owner = handles[path]
        if path in known:
            continue
        evidence = f"{path} is {kind_of(one)}, opened before the workers start"
        now = _position(one)
        if now != before[path]:
            evidence += f"; a read in a forked process moved its position here from {before[path]} to {now}"
        place = assigned(owner, path.rpartition(".")[2].partition("[")[0]) or subject.place()
        report.find("handles", "forked workers share an open handle", evidence, _CURE, place)
    return {id(inner) for one, _ in handles.values() for _, inner, _ in walked(one, "")}


class Fresh:
    """A spawned interpreter that reads the same samples from a pickled copy."""

    def __init__(self, pickled: bytes, keys: list[Any], *, streams: bool) -> None:
        context: Any = multiprocessing.get_context(_START)
        self._receive, send = context.Pipe(duplex=False)
        self._process: Any = context.Process(target=_read, args=(pickled, keys, streams, send), daemon=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._process.start()
        send.close()

    def check(self, expected: dict[Any, str] | None, place: str | None, seconds: float) -> Report:
        """Compare its digests with those that were read here, ``seconds`` after it began to read at the latest."""
        report = Report()
        end = monotonic() + STARTING
        begun, answer = False, None
        try:
            while answer is None and self._receive.poll(max(0.1, end - monotonic())):
                begun, answer, end = True, self._receive.recv(), monotonic() + seconds
            if answer is None:
                report.unchecked["spawn"] = "a fresh process gave no answer in time"
        except EOFError:
            if begun:
                report.find("spawn", "a fresh process died while it read", "it ended without an answer", _SPAWN, place)
            else:
                report.unchecked["spawn"] = "no fresh process can be started: it cannot import the main script"
        finally:
            self.close()
        if answer is None:
            return report
        found, error, where = answer
        if error:
            what = "a fresh process cannot read a pickled copy"
            report.find("spawn", what, error, _SPAWN, where or place)
        elif expected is not None and (differs := [key for key in expected if found.get(key) != expected[key]]):
            report.find(
                "spawn",
                "a sample has other bytes in another process",
                f"index {differs[0]!r}, read in a fresh process, gave other bytes",
                "Leave out what a process has of its own: hash() of a text, id(), os.getpid(), module variables.",
                place,
            )
        return report

    def close(self) -> None:
        """End the process."""
        self._receive.close()
        self._process.kill()
        self._process.join()
        self._process.close()


_SPAWN = "Let the dataset find all it needs in its own attributes, which are pickled, or on disk."


def _read(pickled: bytes, keys: list[Any], streams: bool, send: Connection) -> None:
    """Be the fresh process: read samples of a copy and send their digests."""
    send.send(None)  # whatever ends the process from here on, the dataset did
    warnings.simplefilter("ignore")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        dataset, _ = pickle.loads(pickled)  # noqa: S301  our own pickle
        subject = Subject(dataset, None, Pulse(), 0, keys)
        samples = enumerate(subject.stream(4)) if streams else subject.samples()
        send.send(({key: digest(sample) for key, sample in samples}, "", None))
    except Exception as error:  # noqa: BLE001  whatever a user's code raises is the answer
        send.send(({}, f"{type(error).__name__}: {error}", place_of(frames_of_error(error))))
