"""The frame of every JSON document that a command writes."""

from __future__ import annotations

import sys
from typing import Any

import headrace
from headrace.cli.command_list import COMMANDS

FORMAT = 1
"""Goes up when a key changes its meaning or is removed; new keys may come at any time."""


def document(
    command: str, status: int, *, result: dict[str, Any] | None = None, error: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return a document: what was found, or the error that ended the command.

    >>> document("check", 0, result={"bad": []})["result"]
    {'bad': []}
    """
    return {
        "format": FORMAT,
        "headrace": headrace.__version__,
        "command": command,
        "status": status,
        "result": result,
        "error": error,
    }


def asks_for_json() -> bool:
    """Say whether the arguments of the command line ask for JSON: also where they cannot be parsed."""
    arguments = sys.argv[1:]
    return "--json" in (arguments[: arguments.index("--")] if "--" in arguments else arguments)


def command_asked_for() -> str:
    """Return the command that the arguments name; an empty text if they name none."""
    return next((argument for argument in sys.argv[1:] if argument in COMMANDS), "")
