"""Read files ahead into the page cache, which all processes of a machine share, as far as memory reaches."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.formatting import size_of
from headrace.interop.machine import free_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

_BLOCK = 8 << 20
KEPT_FREE = 0.1
"""The share of the free memory that is left to others."""


class Warming:
    """Files that are being read ahead, in a thread of its own.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "shard")
    ...     _ = file.write_bytes(bytes(5000))
    ...     warming = Warming([(str(file), 5000)], free=10**6)
    ...     warming.wait()
    >>> warming
    <Warming: 5.0 kB of 5.0 kB fit in memory, 5.0 kB read>

    ``total``: the bytes of the files; ``fits``: how many of them fit in the memory that was free; ``read``: how many
    were read so far. Files beyond ``fits`` are not read.
    """

    def __init__(self, files: Sequence[tuple[str, int]], *, free: int | None = None) -> None:
        self.total = sum(size for _, size in files)
        room = free_memory() if free is None else free
        self.fits = self.total if room is None else min(self.total, int(room * (1 - KEPT_FREE)))
        self.read = 0
        self._files = list(files)
        self._thread = threading.Thread(target=self._run, name="headrace-warming", daemon=True)
        self._thread.start()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until all that fits is read."""
        self._thread.join(timeout)

    def __repr__(self) -> str:
        return f"<Warming: {size_of(self.fits)} of {size_of(self.total)} fit in memory, {size_of(self.read)} read>"

    def _run(self) -> None:
        block = bytearray(_BLOCK)
        for path, _ in self._files:
            # A file that is gone or cannot be read is an error where its samples are read.
            with suppress(OSError), Path(path).open("rb", buffering=0) as file:
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
                while self.read < self.fits:
                    wanted = min(_BLOCK, self.fits - self.read)
                    count = file.readinto(memoryview(block)[:wanted])
                    if not count:
                        break
                    self.read += count
