"""A file that stays open while it is read, and must stay what it was: HDF5 gives zeros for what was cut off."""

from __future__ import annotations

import os
from dataclasses import dataclass

from headrace.errors import BadFile, MissingFile
from headrace.storage import objects


@dataclass(frozen=True, slots=True)
class Unchanged:
    """What a file was when it was opened: which one, its size and when it was written.

    A file may grow, as one that is appended to does: what was there before still is. Of an object behind a URL,
    ``written`` is the number of its version, which each read compares.
    """

    path: str
    file: tuple[int, int]
    size: int
    written: int

    @classmethod
    def of(cls, path: str) -> Unchanged:
        """Return what a file is now."""
        if objects.is_url(path):
            return cls(path, (0, 0), *objects.facts(path))
        facts = os.stat(path)  # noqa: PTH116  quicker than a Path, before every block
        return cls(path, (facts.st_dev, facts.st_ino), facts.st_size, facts.st_mtime_ns)

    def check(self, place: str) -> None:
        """Raise `BadFile` if the file was cut short, written over or replaced, and `MissingFile` if it is gone."""
        if objects.is_url(self.path):
            return
        try:
            now = Unchanged.of(self.path)
        except FileNotFoundError as error:
            raise MissingFile(
                f"{place}: the file was removed while it was read",
                path=self.path,
                expected="a file that stays where it is",
                cure="Keep it until the loop has ended.",
            ) from error
        if now == self or (now.file == self.file and now.size > self.size):
            return
        if now.file != self.file:
            what = "another file was put in its place"
        elif now.size < self.size:
            what = f"it was cut short, from {self.size:,} bytes to {now.size:,}"
        else:
            what = "it was written to"
        raise BadFile(
            f"{place}: {what} while it was read",
            path=self.path,
            expected="a file that stays as it is",
            cure="Do not write to it during a loop, and construct the dataset again.",
        )


def is_worker_of(pid: int) -> bool:
    """Say whether the process of this number has started this one: a worker reads the file that its loader began with.

    >>> is_worker_of(0)
    False
    """
    import multiprocessing  # only where a file stays open: it brings sockets, and every import of headrace would wait

    parent = multiprocessing.parent_process()
    return parent is not None and parent.pid == pid
