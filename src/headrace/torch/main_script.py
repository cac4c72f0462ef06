"""A script or a module that runs as the main module, as under ``python SCRIPT`` and ``python -m MODULE``."""

from __future__ import annotations

import builtins
import importlib.util
import io
import os
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import TracebackType

_former = sys.modules["__main__"]
"""What was the main module: Python would clear it, were there no reference to it."""


def run_file(path: str, arguments: list[str]) -> None:
    """Run a file as the main module, with its folder first among the places where modules are found."""
    absolute = os.path.abspath(path)  # noqa: PTH100  a link keeps its name, as in Python
    try:
        with io.open_code(absolute) as file:
            source = file.read()
    except OSError as error:
        raise _exit(f"can't open file {absolute!r}: [Errno {error.errno}] {error.strerror}", 2) from None
    if not sys.flags.safe_path:
        sys.path[0] = str(Path(absolute).resolve().parent)
    main = _main(__file__=absolute, __loader__=SourceFileLoader("__main__", absolute))
    sys.argv[:] = [path, *arguments]
    exec(compile(source, absolute, "exec", dont_inherit=True), vars(main))  # noqa: S102  the user's own code


def run_module(name: str, arguments: list[str]) -> None:
    """Run a module as the main module; of a package, its ``__main__``."""
    sys.argv[:] = ["-m", *arguments]
    spec = _found(name)
    main = _main(__file__=spec.origin, __loader__=spec.loader, __spec__=spec, __package__=spec.parent)
    sys.argv[0] = spec.origin or name
    exec(spec.loader.get_code(spec.name), vars(main))  # type: ignore[union-attr]  # noqa: S102


def _found(name: str) -> ModuleSpec:
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name = f"{name}.__main__"
            spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise
        spec = None
    if spec is None or not hasattr(spec.loader, "get_code"):
        raise _exit(f"No module named {name}", 1)
    return spec


def _main(**attributes: Any) -> ModuleType:
    """Put a new module in the place of the main one; worker processes import what it says of itself."""
    main = ModuleType("__main__")
    vars(main).update(__builtins__=builtins, __cached__=None, **attributes)
    sys.modules["__main__"] = main
    _hide_our_frames(vars(main))
    return main


def _hide_our_frames(names: dict[str, Any]) -> None:
    """Let a traceback that ends the program begin in the script."""
    others = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        while trace is not None and trace.tb_frame.f_globals is not names:
            trace = trace.tb_next
        if trace is not None or isinstance(error, SyntaxError):
            error = error.with_traceback(trace)
        others(kind, error, error.__traceback__)

    sys.excepthook = hook


def _exit(why: str, status: int) -> SystemExit:
    print(f"{sys.executable}: {why}", file=sys.stderr)  # noqa: T201
    return SystemExit(status)
