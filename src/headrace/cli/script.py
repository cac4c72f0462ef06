"""SCRIPT:NAME on the command line: a loader or a dataset of a script."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from typing import Any

from headrace.cli.command_errors import CommandError, Failure
from headrace.loader import DataLoader


def loader_of(target: str) -> DataLoader[Any]:
    """Return the loader of a script, or what the function of this name returns."""
    found, there, path = _found(target)
    if not isinstance(found, DataLoader):
        name = target.rpartition(":")[2]
        raise CommandError(
            f"no loader of headrace is named {name}",
            path=str(path),
            found=name,
            expected=f"one of {', '.join(there)}" if there else "a loader outside of functions; there is none",
            cure="give the name of a loader, or of a function that returns one",
        )
    return found


def thing_of(target: str) -> Any:
    """Return a loader, a dataset or a batch of a script, or what the function of this name returns."""
    found, there, path = _found(target)
    if found is None:
        name = target.rpartition(":")[2]
        raise CommandError(
            f"nothing is named {name}",
            path=str(path),
            found=name,
            expected="a loader, a dataset or a batch" + (f", such as {', '.join(there)}" if there else ""),
            cure="give the name of one, or of a function that returns one",
        )
    return found


def is_target(path: str) -> bool:
    """Say whether a PATH is a script and a name in it.

    >>> is_target("train.py:loader"), is_target("photos"), is_target("a.py")
    (True, False, False)
    """
    script, _, name = path.rpartition(":")
    return script.endswith(".py") and name.isidentifier()


def _found(target: str) -> tuple[Any, list[str], Path]:
    """Return what a script has under a name, called if it is a function; and the names of its loaders."""
    script, colon, name = target.rpartition(":")
    if not colon or not script or not name.isidentifier():
        raise CommandError(
            f"{target} names no loader", found=target, expected="a script and a name in it, as in train.py:loader"
        )
    path = Path(script)
    if not path.is_file():
        raise CommandError("there is no such file", path=script, cure="correct the path of the script")
    module = _imported(path)
    found = getattr(module, name, None)
    if callable(found) and not isinstance(found, DataLoader) and not hasattr(found, "__getitem__"):
        try:
            found = found()
        except Exception as error:
            raise _failed(path, error) from error
    return found, [known for known, thing in vars(module).items() if isinstance(thing, DataLoader)], path


def _imported(path: Path) -> Any:
    """Run a script as an import does: its folder is where it finds its own modules."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise CommandError("not a Python script", path=str(path), expected="a name that ends with .py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    sys.argv = [str(path)]
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _failed(path, error) from error
    return module


def _failed(path: Path, error: BaseException) -> Failure:
    """Return the error for a script that raised one, with the line of the script."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    if isinstance(error, SyntaxError):
        lines.append(error.lineno)
    place = f"{path}, line {lines[-1]}" if lines else str(path)
    return Failure(f"{type(error).__name__}: {error}", path=place, cure="Fix the script.")
