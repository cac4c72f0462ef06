"""Which files of shared memory a process uses: other programs on the machine have theirs, which are none of ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

FOLDER = Path("/dev/shm")


def named_memory(processes: Iterable[int | str]) -> set[Path]:
    """Return the files in /dev/shm that these processes have mapped or open.

    A file that was unlinked is not among them: it goes with the last process that uses it.
    """
    found: set[str] = set()
    for process in processes:
        folder = Path("/proc", str(process))
        try:
            for line in (folder / "maps").read_text().splitlines():
                found.add(line.partition("/")[2])
            for entry in (folder / "fd").iterdir():
                found.add(_target(entry).removeprefix("/"))
        except OSError:  # it has ended meanwhile, or is not ours to look into
            continue
    inside = f"{FOLDER}/".removeprefix("/")
    return {Path("/", name) for name in found if name.startswith(inside) and not name.endswith(" (deleted)")}


def _target(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except OSError:  # closed meanwhile
        return ""
