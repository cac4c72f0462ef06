"""The fork server of multiprocessing, kept warm: it imports once what all workers need, and each worker is its fork.

The server lives as long as the program, through all epochs and loaders. Without this module, it would import nothing.
Each worker would import NumPy, headrace and torch itself, which takes longer than the rest of its start.
"""

from __future__ import annotations

import os
import site
import sys
from importlib.machinery import PathFinder
from multiprocessing import forkserver
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.executors.processes import worker
from headrace.interop import torch_state

if TYPE_CHECKING:
    from headrace.executors.processes.payload import Startup

USUAL = ["__main__"]
"""What multiprocessing lets the server import if nobody says anything else."""


def warm(startup: Startup) -> None:
    """Let the fork server import what these workers need, when it starts.

    A server that runs already stays as it is, and so does what the program itself has chosen by
    ``multiprocessing.set_forkserver_preload``.
    """
    server: Any = forkserver._forkserver  # there is no public way to ask it
    if server._forkserver_pid is not None or server._preload_modules != USUAL:
        return
    torch = torch_state.loaded()
    package = os.path.join(os.path.dirname(worker.__file__), "..", "..", "__init__.py")  # noqa: PTH118, PTH120
    origins = {"headrace": package, "numpy": np.__file__, **({} if torch is None else {"torch": torch.__file__})}
    if all(_finds(name, origin) for name, origin in origins.items()):
        maker = startup.maker
        parts = (maker.source.dataset, maker.collate, maker.finish)
        ours = {module for part in parts if (module := str(getattr(part, "__module__", ""))).startswith("headrace.")}
        server.set_forkserver_preload([*USUAL, *origins, *sorted({worker.__name__, *ours})])


def _finds(name: str, origin: str) -> bool:
    """Say whether the server would import a module from the file that this process has imported it from.

    Until 3.12.7, and in 3.13.0, Python does not tell the server what ``sys.path`` is here. It imports what a new
    interpreter does: from the current folder first, and not from what only this program has put on its path.
    """
    if sys.version_info >= (3, 13, 1) or (3, 12, 8) <= sys.version_info < (3, 13):
        return True
    path = [] if sys.flags.safe_path else [os.getcwd()]  # noqa: PTH109
    if _shadows(path):
        return False
    path += [] if sys.flags.ignore_environment else os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path += site.getsitepackages()
    path += [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    for finder in sys.meta_path:
        spec = finder.find_spec(name, path if finder is PathFinder else None)
        if spec is not None:
            return spec.origin is not None and os.path.samefile(spec.origin, origin)  # noqa: PTH121
    return False


def _shadows(path: list[str]) -> bool:
    """Say whether a file there is named like a module of Python's, or like one that this process has from elsewhere.

    Whatever the server imports might import that file in its place.
    """
    loaded = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items()) if "." not in name}
    loaded.pop("__main__", None)
    return any(
        (spec := PathFinder.find_spec(each, path)) and spec.origin not in (None, loaded.get(each))
        for each in sys.stdlib_module_names | loaded.keys()
    )
