"""The submodules of torch.utils.data under our name: all that torch has in them, but our loader and our collate."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from headrace.errors import MissingDependency
from headrace.torch.tensor_collate import default_collate, default_convert
from headrace.torch.tensor_loader import DataLoader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec

THEIRS = "torch.utils.data"
OURS = __name__.rpartition(".")[0]

_COLLATE = {"default_collate": default_collate, "default_convert": default_convert}
REPLACED: dict[str, dict[str, Any]] = {
    f"{THEIRS}.dataloader": {"DataLoader": DataLoader, **_COLLATE},
    f"{THEIRS}._utils.collate": _COLLATE,
}
"""What is ours in a module of torch's; anything else is torch's own."""

PIPES = {
    "DFIterDataPipe",
    "DataChunk",
    "IterDataPipe",
    "MapDataPipe",
    "argument_validation",
    "datapipes",
    "functional_datapipe",
    "graph",
    "graph_settings",
    "guaranteed_datapipes_determinism",
    "non_deterministic",
    "runtime_validation",
    "runtime_validation_disabled",
}
"""torch's data pipes, which are deprecated: a torch without them is expected."""


class Mirror(ModuleType):
    """One of torch's modules under our name, with what `REPLACED` has for it."""

    def __init__(self, name: str, theirs: ModuleType) -> None:
        super().__init__(name, theirs.__doc__)
        vars(self).update(REPLACED.get(theirs.__name__, {}), _theirs=theirs)
        if hasattr(theirs, "__path__"):
            self.__path__: list[str] = []  # for a package, whose modules `Finder` finds

    def __getattr__(self, name: str) -> Any:
        return found(vars(self)["_theirs"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        # What is torch's is changed where torch looks for it.
        if name.startswith("__") or name in vars(self) or isinstance(value, Mirror):
            super().__setattr__(name, value)
        else:
            setattr(vars(self)["_theirs"], name, value)

    def __dir__(self) -> list[str]:
        return dir(vars(self)["_theirs"])


def found(theirs: ModuleType, name: str) -> Any:
    """Return what one of torch's modules has by a name; of its submodules, the mirror.

    Raises ImportError for data pipes where torch has none any more, and AttributeError for any other name.
    """
    try:
        value = getattr(theirs, name)
    except AttributeError:
        if theirs.__name__ == THEIRS and name in PIPES:
            # No AttributeError, whose text `from headrace.torch import …` would replace by its own.
            raise _no_pipes(name) from None
        raise AttributeError(f"module {_our_name(theirs.__name__)!r} has no attribute {name!r}") from None
    if isinstance(value, ModuleType) and value.__name__.startswith(f"{THEIRS}."):
        return import_module(_our_name(value.__name__))
    return value


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds torch.utils.data's modules where somebody imports them under our name."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Return where a module is found, or None if torch has no such module."""
        if not fullname.startswith(f"{OURS}."):
            return None
        name = THEIRS + fullname.removeprefix(OURS)
        try:
            known = name in sys.modules or importlib.util.find_spec(name) is not None
        except ImportError:
            known = False
        if not known:
            pipes = name.removeprefix(f"{THEIRS}.").partition(".")[0]
            if pipes in PIPES:
                raise _no_pipes(fullname)
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package=hasattr(import_module(name), "__path__"))

    def create_module(self, spec: ModuleSpec) -> Mirror:
        """Return the mirror of a module."""
        return Mirror(spec.name, import_module(THEIRS + spec.name.removeprefix(OURS)))

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: torch's module has run."""


def install() -> None:
    """Let the modules of torch.utils.data be imported under our name."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.append(Finder())


def _our_name(theirs: str) -> str:
    return OURS + theirs.removeprefix(THEIRS)


def _no_pipes(name: str) -> MissingDependency:
    error = MissingDependency(
        f"{OURS} has no {name.removeprefix(f'{OURS}.')}: torch {torch.__version__} has no data pipes any more",
        expected="a dataset",
        cure="write a Dataset or an IterableDataset, which DataLoader shuffles, shares between workers and batches; "
        "datasets of headrace have map(), filter(), zip() and others as methods",
    )
    error.name = name
    return error
