"""Reads of mapped files that were cut short, by any code: they give zeros in place of SIGBUS, and an error afterwards.

A user's dataset, a transform or a collate function may read a memory map itself. The native extension exchanges a page
that cannot be read for one of zeros, so that the interpreter lives. What was made meanwhile is not delivered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace._native import extension
from headrace.errors import BadFile
from headrace.storage.mapped_samples import file_at, lost

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


take: Callable[[], int] = getattr(extension, "take_fault", int)
"""Return where this thread, or one beside it, could not read a mapped file since the last call; 0 for nowhere."""

survive: Any = getattr(extension, "survive_faults", lambda *, on: on)
"""Let this thread live through such reads, or not any longer; return whether it did."""


class surviving:  # noqa: N801  a context manager, named for how it reads
    """Let this thread live through such reads for the length of a block.

    >>> with surviving():
    ...     check_faults("sample 0")
    """

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = survive(on=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        survive(on=self._before)


def check_faults(what: str, key: Any = "") -> None:
    """Raise `BadFile` if this thread, or one beside it, could not read a mapped file while ``what`` was made."""
    if address := take():
        raise unread(address, what, key)


def unread(address: int, what: str, key: Any = "") -> BadFile:
    """Return the error for what was made when the memory at an address could not be read."""
    return lost(file_at(address), f"{what}{str(key)[:40]}")


def cause_of(error: BaseException) -> BaseException:
    """Return an error as it is; or a `BadFile`, caused by it, if its code read a mapped file that was cut short."""
    try:
        check_faults("a sample")
    except BadFile as found:
        found.__cause__ = error
        return found
    return error
