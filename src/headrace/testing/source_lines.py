"""The lines of a user's files: where an error was raised, where an attribute is set, where a function begins."""

from __future__ import annotations

import ast
import inspect
import os
import re
import sysconfig
import textwrap
import traceback
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_OURS = str(Path(__file__).parents[1]) + os.sep
_LIBRARIES = tuple(
    {sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")} | {_OURS}
)
_DUMPED = re.compile(r'File "(.+)", line (\d+) in (.+)')


class Frame(NamedTuple):
    """A line of a stack."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{shown_file(self.file)}:{self.line} in {self.function}"


@cache
def is_users(file: str) -> bool:
    """Say whether a file is neither Python's own, nor an installed library, nor one of headrace.

    >>> is_users("/home/me/train.py"), is_users(os.__file__), is_users("<string>")
    (True, False, False)
    """
    return not file.startswith(("<", *_LIBRARIES)) and "site-packages" not in file


def shown_file(file: str) -> str:
    """Return a file as a person in this folder writes it."""
    with suppress(ValueError):
        return str(Path(file).relative_to(Path.cwd()))
    return file


def frames_of_error(error: BaseException) -> tuple[Frame, ...]:
    """Return the stack of an error, the innermost line first."""
    found = traceback.extract_tb(error.__traceback__)
    return tuple(Frame(one.filename, one.lineno or 0, one.name) for one in reversed(found))


def frames_of_dump(text: str) -> tuple[Frame, ...]:
    """Return the lines of a dump of all threads, the innermost line of each first.

    >>> frames_of_dump('File "a.py", line 3 in read')
    (Frame(file='a.py', line=3, function='read'),)
    """
    return tuple(Frame(file, int(line), function) for file, line, function in _DUMPED.findall(text))


def place_of(frames: Iterable[Frame]) -> str | None:
    """Return the innermost line that is the user's own."""
    found = next((one for one in frames if is_users(one.file)), None)
    return None if found is None else f"{shown_file(found.file)}:{found.line}"


def defined(thing: Any) -> str | None:
    """Return where a function or a class of the user's begins, or what makes the samples of an object of his."""
    while isinstance(thing, partial):
        thing = thing.func
    if inspect.ismethod(thing):
        thing = thing.__func__
    if inspect.isfunction(thing):
        code = thing.__code__
        return f"{shown_file(code.co_filename)}:{code.co_firstlineno}" if is_users(code.co_filename) else None
    for name in ("__getitem__", "__iter__", "__call__", "__getitems__"):
        function = getattr(type(thing), name, None)
        if inspect.isfunction(function) and (place := defined(function)):
            return place
    return None


def assigned(owner: Any, attribute: str, *, after_init: bool = False) -> str | None:
    """Return the line of a class that sets an attribute of its objects; ``after_init``: outside of ``__init__``."""
    for kind in type(owner).__mro__:
        with suppress(OSError, TypeError):
            if not is_users(inspect.getsourcefile(kind) or "<"):
                continue
            file, lines = inspect.getsourcefile(kind) or "", _assignments(kind)
            lines = [one for one in lines if one[0] == attribute and not (after_init and one[1] == "__init__")]
            if lines:
                line = min(lines, key=lambda one: (one[1] != "__init__", one[2]))[2]
                return f"{shown_file(file)}:{line}"
    return None


@cache
def _assignments(kind: type) -> list[tuple[str, str, int]]:
    source, first = inspect.getsourcelines(kind)
    found = []
    for method in ast.walk(ast.parse(textwrap.dedent("".join(source)))):
        if isinstance(method, ast.FunctionDef):
            for node in ast.walk(method):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                    found += [(node.attr, method.name, first + node.lineno - 1)]
    return found
