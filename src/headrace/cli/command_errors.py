"""The errors that end a command: one line, and an exit status."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Self

import click

from headrace.cli.output import columns
from headrace.errors import HeadraceError
from headrace.formatting import plain, wrapped
from headrace.storage.signed_urls import plain_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class CommandError(HeadraceError, click.ClickException):
    """The command cannot be run like this: why not, and what to do, in one line; exit status 2."""

    exit_code = 2

    def __init__(self, what: str = "", *, place: str | None = None, **parts: Any) -> None:
        self._given = place
        super().__init__(what, **parts)

    def _place(self, path: str | None) -> str:
        return super()._place(path) if self._given is None else self._given

    @classmethod
    def of(cls, error: HeadraceError, cure: str | None = None) -> Self:
        """Return the command's error for one of the library; ``cure`` is what to do at the command line instead.

        >>> error = HeadraceError("its MD5 is 0", path="a.tar.gz", cure="Pass verify=False.")
        >>> print(CommandError.of(error, "Pass --no-verify."))
        a.tar.gz: its MD5 is 0. Pass --no-verify.
        """
        parts: dict[str, Any] = {name: getattr(error, name) for name in ("place", "path", "index", "found", "expected")}
        return cls(error.what, **parts, cure=cure or error.cure)

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the line to standard error; on a terminal, broken at its width."""
        text = f"headrace: {plain_text(plain(self.format_message()))}"
        click.echo(wrapped(text, columns(sys.stderr)), file=file, err=True)


class Failure(CommandError):
    """The command could not do its work; exit status 3."""

    exit_code = 3

    @classmethod
    def of_system(cls, error: OSError, cure: str | None = None) -> Failure:
        """Return the command's error for one of the operating system, such as a full disk.

        >>> print(Failure.of_system(PermissionError(13, "Permission denied", "out.png"), "choose another file"))
        out.png: Permission denied; choose another file
        """
        path = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else error.filename
        what = error.strerror or str(error) or type(error).__name__
        return cls(what, path=None if path is None else str(path), cure=cure)


@contextmanager
def writing(path: Path, cure: str) -> Iterator[None]:
    """Name the file or folder that is being written in an error of the operating system: a full disk names none."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise Failure.of_system(error, cure) from error
