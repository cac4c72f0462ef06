"""SCRIPT:NAME on the command line: a loader or a dataset of a user's own Python file."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace.checks import kind_of
from headrace.cli.command_errors import CommandError, Failure
from headrace.datasets import Dataset, IterableDataset
from headrace.errors import HeadraceError
from headrace.loader import DataLoader

if TYPE_CHECKING:
    from collections.abc import Iterator


def is_script(target: str) -> bool:
    """Say whether an argument names something in a script, and is no path.

    >>> is_script("train.py:loader"), is_script("photos"), is_script("C:photos"), is_script("train.py")
    (True, False, False, False)
    """
    script, colon, _ = target.rpartition(":")
    return bool(colon) and script.endswith(".py") and not Path(target).exists()


def loader_of(target: str) -> DataLoader[Any]:
    """Return the loader that SCRIPT:NAME names; raise `CommandError` for anything else."""
    module, path, name = _module(target)
    found = _called(getattr(module, name, None), path)
    if not isinstance(found, DataLoader):
        raise _not_found(module, path, name, found, loaders_only=True)
    return found


def loader_or_dataset_of(target: str, *, or_batch: bool = False) -> Any:
    """Return the loader or the dataset that SCRIPT:NAME names, or a batch; raise `CommandError` for anything else."""
    module, path, name = _module(target)
    found = _called(getattr(module, name, None), path)
    if not (_is_meant(found) or (or_batch and isinstance(found, dict))):
        raise _not_found(module, path, name, found, loaders_only=False)
    return found


def _is_meant(found: Any) -> bool:
    if isinstance(found, DataLoader):
        return True
    if found is None or isinstance(found, str | bytes | dict | type) or hasattr(found, "__next__"):
        return False
    return (hasattr(found, "__getitem__") and hasattr(found, "__len__")) or hasattr(found, "__iter__")


def _called(found: Any, path: Path) -> Any:
    """Return what a function without arguments returns; anything else as it is."""
    if _is_meant(found) or not callable(found):
        return found
    try:
        return found()
    except Exception as error:
        raise failed(path, error) from error


def _module(target: str) -> tuple[Any, Path, str]:
    script, colon, name = target.rpartition(":")
    if not colon or not script or not name.isidentifier():
        raise CommandError(
            f"{target} names no loader", found=target, expected="a script and a name in it, as in train.py:loader"
        )
    path = Path(script)
    if not path.is_file():
        raise CommandError("there is no such file", path=script, cure="correct the path of the script")
    return _imported(path), path, name


def _not_found(module: Any, path: Path, name: str, found: Any, *, loaders_only: bool) -> CommandError:
    noun = "loader of headrace" if loaders_only else "loader of headrace or dataset"
    there = [
        known
        for known, thing in vars(module).items()
        if not known.startswith("_")
        and (isinstance(thing, DataLoader) or (not loaders_only and isinstance(thing, Dataset | IterableDataset)))
    ]
    has = f"; {name} is {kind_of(found)}" if found is not None else ""
    return CommandError(
        f"no {noun} is named {name}{has}",
        path=str(path),
        found=name,
        expected=f"one of {', '.join(there)}" if there else f"a {noun} outside of functions; there is none",
        cure="give the name of one, or of a function without arguments that returns one",
    )


def _imported(path: Path) -> Any:
    """Run a script as an import does: its folder is where it finds its own modules."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise CommandError("not a Python script", path=str(path), expected="a name that ends with .py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    arguments, sys.argv = sys.argv, [str(path)]
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise failed(path, error) from error
    finally:
        sys.argv = arguments
    return module


@contextmanager
def running(target: str) -> Iterator[None]:
    """Say in one line what a script's own code raises, in a block that reads from its loader or its dataset."""
    try:
        yield
    except (HeadraceError, OSError, click.ClickException):
        raise
    except Exception as error:
        raise failed(Path(target.rpartition(":")[0]), error) from error


def failed(path: Path, error: BaseException) -> Failure:
    """Return the error for a script that raised one, with the line of the script."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    if isinstance(error, SyntaxError):
        lines.append(error.lineno)
    place = f"{path}, line {lines[-1]}" if lines else str(path)
    notes = "".join(f" ({note.removeprefix('headrace: ')})" for note in getattr(error, "__notes__", ()))
    return Failure(f"{type(error).__name__}: {error}{notes}", path=place, cure="Fix the script.")
