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
    from types import TracebackType


_take: Any = getattr(extension, "take_fault", None)
_survive: Any = getattr(extension, "survive_faults", None)


class surviving:  # noqa: N801  a context manager, named for how it reads
    """Let this thread live through such reads for the length of a block.

    >>> with surviving():
    ...     check_faults("sample 0")
    """

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = _survive is not None and _survive(on=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if _survive is not None:
            _survive(on=self._before)


def check_faults(what: str, key: Any = "") -> None:
    """Raise `BadFile` if this thread, or one beside it, could not read a mapped file while ``what`` was made."""
    address = 0 if _take is None else _take()
    if address:
        raise lost(file_at(address), f"{what}{str(key)[:40]}")


def cause_of(error: BaseException) -> BaseException:
    """Return an error as it is; or a `BadFile`, caused by it, if its code read a mapped file that was cut short."""
    try:
        check_faults("a sample")
    except BadFile as found:
        found.__cause__ = error
        return found
    return error
