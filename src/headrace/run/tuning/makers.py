"""Makers for workers of another kind than the loader would have without a search."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from headrace.errors import ArgumentTypeError
from headrace.formatting import size_of
from headrace.interop.interrupt import held_back
from headrace.make.stand_in_maker import StandInMaker

if TYPE_CHECKING:
    from headrace.make.maker import Maker
    from headrace.run.adapter import Adapter

MOST_COPIED = 1 << 28
"""Bytes of arrays in a dataset that is copied for workers of another kind."""


class Makers:
    """Makes the batches of a loop, whatever kind of workers makes them.

    Worker processes have their own copies of the dataset, and may find that one was never read in this process: files
    that it opens at its first sample are then not shared with them. So each side of that border reads its own copy.
    ``kind``: that of the loader without a search, whose workers read the dataset as it is.
    """

    def __init__(self, maker: Maker, kind: str) -> None:
        self.own = maker
        self._kind = kind
        self._copy: Maker | None = None

    def of(self, kind: str) -> Maker:
        """Return the maker for workers of a kind; raises what pickling the dataset raises."""
        if (kind == "processes") == (self._kind == "processes"):
            return self.own
        if self._copy is None:
            self._copy = copied(self.own)
        return StandInMaker.of(self._copy) if kind != "processes" else self._copy


def copied(maker: Maker) -> Maker:
    """Return a copy of a maker that shares nothing with it, as a worker process has one."""
    with held_back():
        from headrace.executors.processes.inherited import Inherited

    collected = Inherited()
    buffers: list[pickle.PickleBuffer] = []
    try:
        head = collected.dumps(maker, buffers.append)
        arrays = sum(buffer.raw().nbytes for buffer in buffers)
        if collected.fds or arrays > MOST_COPIED:
            raise ArgumentTypeError(
                f"the dataset cannot be copied: it has {size_of(arrays)} of arrays, {len(collected.fds)} open files",
                found=arrays,
                expected=f"at most {size_of(MOST_COPIED)} of arrays, and nothing that processes share",
                cure="choose the kind of workers yourself: backend=",
            )
        return cast("Maker", pickle.loads(head, buffers=[bytearray(buffer.raw()) for buffer in buffers]))  # noqa: S301
    finally:
        collected.close()


def may_start_processes(adapter: Adapter) -> bool:
    """Say whether worker processes can be started in the middle of a loop that had none, and do no harm.

    A fork copies the locks that other threads hold. Any other start imports the main script again, so that must be
    guarded.
    """
    with held_back():
        import multiprocessing

        from headrace.executors.processes.start import other_threads
        from headrace.executors.registry import usual_start

    if multiprocessing.current_process().daemon:
        return False
    if (adapter.start_method or usual_start() or multiprocessing.get_start_method()) == "fork":
        return not other_threads()
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    try:
        return script is not None and "__main__" in Path(script).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
