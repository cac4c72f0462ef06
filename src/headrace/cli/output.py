"""What commands write: text for a person, or one JSON document for a script."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

import click

from headrace.cli.documents import document
from headrace.formatting import table, wrapped
from headrace.storage.signed_urls import plain_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.errors import HeadraceError

LEAST_COLUMNS, MOST_COLUMNS = 60, 200
"""The widths of a terminal that text is laid out for."""
_WANTED = "headrace.json"


@dataclass(frozen=True, slots=True)
class Result:
    """What a command found, as values for JSON, and its exit status."""

    found: dict[str, Any] = field(default_factory=dict)
    status: int = 0


def _set(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    ctx.meta[_WANTED] = value


json_option = click.option(
    "--json",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_set,
    help="Write one JSON document to standard output in place of the text.",
)


def writes_json() -> bool:
    """Say whether the command that runs was asked for JSON."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(_WANTED))


def columns(stream: TextIO | None = None) -> int | None:
    """Return how wide text on a stream (standard output) may be: the terminal's width within limits; else None."""
    if not (stream or sys.stdout).isatty():
        return None
    return min(MOST_COLUMNS, max(LEAST_COLUMNS, shutil.get_terminal_size().columns or LEAST_COLUMNS))


def say(text: str = "") -> None:
    """Write text for a person, broken at the terminal's width; nothing where a script asked for JSON."""
    if not writes_json():
        click.echo(wrapped(plain_text(text), columns()))


def say_table(rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Write a table for a person, as `say` does."""
    if not writes_json():
        click.echo(table(rows, left=left, width=columns()))


def write_result(command: str, result: Result) -> None:
    """Write what a command found as JSON, where a script asked for it."""
    if writes_json():
        _write(document(command, result.status, result=result.found))


def write_error(command: str, status: int, error: BaseException, message: str) -> None:
    """Write an error as JSON."""
    parts = {name: getattr(error, name, None) for name in ("what", "path", "expected", "cure")}
    about: dict[str, str | None] = {"type": _name(error), "message": message}
    about |= {name: None if part is None else str(part) for name, part in parts.items()}
    _write(document(command, status, error=about))


def _name(error: BaseException) -> str:
    """Return the name of the error that a library's user would catch, in place of the command's own."""
    cause: HeadraceError | BaseException = error.__cause__ or error
    return type(cause).__name__


def _write(found: dict[str, Any]) -> None:
    click.echo(plain_text(json.dumps(found, indent=1, allow_nan=False)))
