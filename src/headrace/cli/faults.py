"""An error as the command line tells it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import click

from headrace.cli.text import plain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Fault(click.ClickException):
    """The command cannot be run like this: why not, and what to do, in one line; exit status 2."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the line to standard error."""
        click.echo(f"headrace: {plain(self.format_message())}", file=file, err=True)


class Failure(Fault):
    """The command could not do its work; exit status 1."""

    exit_code = 1

    @classmethod
    def of(cls, error: OSError, cure: str = "") -> Failure:
        """Tell an error of the operating system: what it is about, what happened, and what to do about it.

        >>> print(Failure.of(PermissionError(13, "Permission denied", "out.png"), cure="choose another file"))
        out.png: Permission denied: choose another file
        """
        what = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else error.filename
        parts = [what, error.strerror or str(error) or type(error).__name__, cure]
        return cls(": ".join(str(part) for part in parts if part))


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
        raise Failure.of(error, cure) from error
