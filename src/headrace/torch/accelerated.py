"""Loaders that Accelerate prepares: it makes another loader, from the arguments that torch has."""

from __future__ import annotations

import inspect
import sys
import warnings
from typing import Any

import torch.utils.data

from headrace.checks import kind_of
from headrace.errors import ArgumentError, ArgumentTypeError
from headrace.loader import DataLoader

DEEPEST = 6
"""How many frames lie between Accelerate's function and the constructor of a loader, at most."""
LOST = (
    "seed",
    "backend",
    "native",
    "threads_per_worker",
    "threads_per_batch",
    "restart_workers",
    "read_once",
    "uneven",
    "on_error",
    "max_errors",
    "ledger",
    "remember_tuning",
)
"""The arguments that Accelerate does not know, but for rank and world_size: it has its own."""


MAKERS = ("prepare_data_loader", "skip_first_batches")
"""The functions of Accelerate that make a loader of another one, which each of them calls ``dataloader``."""


def own_arguments(loader: DataLoader[Any]) -> dict[str, Any]:
    """Return headrace's own arguments of a loader, where they are not the defaults."""
    defaults = inspect.signature(DataLoader).parameters
    found = {name: getattr(loader, name) for name in LOST if getattr(loader, name) != defaults[name].default}
    return found | measured_arguments(loader)


def measured_arguments(loader: DataLoader[Any]) -> dict[str, Any]:
    """Return ``num_workers="auto"`` where a loader has it: its attribute is the number that it begins with."""
    if not loader._session.measures:
        return {}
    prefetch = {} if loader._session.settings.sets_prefetch else {"prefetch_factor": None}
    return {"num_workers": "auto", **prefetch}


def kept_arguments() -> dict[str, Any]:
    """Return the own arguments of the loader that Accelerate makes another of; empty where it makes none.

    A function of Accelerate's in a frame above has that loader. Accelerate chooses the batches by a
    ``batch_sampler``, so that those cannot be refilled.
    """
    frame = sys._getframe(1)
    for _ in range(DEEPEST):
        if frame.f_back is None:
            return {}
        frame = frame.f_back
        if frame.f_code.co_name in MAKERS and frame.f_globals.get("__name__") == "accelerate.data_loader":
            source = frame.f_locals.get("dataloader")
            source = getattr(source, "base_dataloader", source)
            found = own_arguments(source) if isinstance(source, DataLoader) else {}
            return {name: value for name, value in found.items() if not _is_refused(name, found)}
    return {}


def _is_refused(name: str, found: dict[str, Any]) -> bool:
    return name in ("on_error", "max_errors") and found.get("on_error") == "skip"


def warn_of_loss(loader: DataLoader[Any]) -> None:
    """Warn that what Accelerate is about to make of a loader has none of headrace's own arguments."""
    lost = _lost(loader)
    if lost:
        warnings.warn(
            f"Accelerate makes a loader of its own of this one, without {', '.join(lost)}: it knows the arguments of "
            "torch only. headrace.torch.prepare(accelerator, loader), in the place of accelerator.prepare(loader), "
            "keeps them",
            UserWarning,
            stacklevel=4,
        )


def warn_of_skipping(loader: DataLoader[Any]) -> None:
    """Warn that Accelerate's ``skip_first_batches`` makes a loader of another, if that is what runs."""
    frame, level = sys._getframe(2), 4
    # Between them are a comprehension, and the attribute of a prepared loader.
    while frame.f_code.co_name != "skip_first_batches" and frame.f_back is not None and level < DEEPEST:
        frame, level = frame.f_back, level + 1
    if frame.f_code.co_name != "skip_first_batches" or frame.f_globals.get("__name__") != "accelerate.data_loader":
        return
    lost = _lost(loader)
    if lost:
        warnings.warn(
            f"skip_first_batches makes a loader of Accelerate's own of this one, without {', '.join(lost)}: a shuffled "
            "order is another one, and so are the batches that it skips. Save loader.state_dict(), and resume with "
            "loader.load_state_dict(state)",
            UserWarning,
            stacklevel=level,
        )


def _lost(loader: DataLoader[Any]) -> list[str]:
    """Return which arguments a loader of Accelerate's does not get."""
    found = own_arguments(loader)
    if hasattr(torch.utils.data.DataLoader.__init__, "_of_headrace"):  # under the patch, most are kept
        order = loader.seed is not None and loader._session.settings.shuffle
        found = {name: value for name, value in found.items() if _is_refused(name, found) or (order and name == "seed")}
    found.pop("prefetch_factor", None)
    return ['num_workers="auto"' if name == "num_workers" else f"{name}=" for name in found]


def prepare(accelerator: Any, loader: Any) -> Any:
    """Prepare a loader by Accelerate, and let what comes of it read through headrace, with all arguments.

    >>> accelerator = accelerate.Accelerator(cpu=True)  # doctest: +SKIP
    >>> loader = prepare(accelerator, DataLoader(dataset, 32, seed=0, on_error="replace"))  # doctest: +SKIP

    In the place of ``accelerator.prepare(loader)``, which makes a loader of torch's arguments only. The result is
    Accelerate's: it moves batches to the device, and counts steps for ``accumulate`` and ``gather_for_metrics``. For
    several processes, make the loader with ``rank="auto"`` and a ``seed``: it reads this process's part, and
    ``batch_size`` is that of one process. Raises `ArgumentError` where the loader does not divide its order between as
    many processes as Accelerate has, with ``split_batches``, and for a loader that is not headrace's.
    """
    if not isinstance(loader, DataLoader):
        raise ArgumentTypeError(
            f"prepare reads through a loader of headrace's; got {kind_of(loader)}",
            found=kind_of(loader),
            expected="a headrace.torch.DataLoader",
            cure="use accelerator.prepare for anything else",
        )
    world = accelerator.num_processes
    _check_ranks(loader, world, split_batches=accelerator.split_batches)
    # Accelerate asks for this attribute as it begins, and the answer is the warning.
    vars(loader)["_is_accelerate_prepared"] = False
    try:
        prepared = accelerator.prepare_data_loader(loader)
    finally:
        del vars(loader)["_is_accelerate_prepared"]
    if world > 1 and hasattr(prepared, "slice_fn"):
        raise ArgumentError(
            "Accelerate dispatches the batches of a stream from one process to all others",
            expected="a loader that reads this process's part",
            cure="give Accelerator a DataLoaderConfiguration(dispatch_batches=False)",
        )
    made = prepared.base_dataloader
    # It reckons how many samples all processes have read from these two.
    prepared.sampler, prepared.batch_sampler = made.sampler, made.batch_sampler
    prepared.base_dataloader = loader
    return prepared


def _check_ranks(loader: DataLoader[Any], world: int, *, split_batches: bool) -> None:
    if loader.world_size != world:
        raise ArgumentError(
            f"Accelerate has {world} processes, but the loader's order is divided between {loader.world_size}",
            found=loader.world_size,
            expected=f"world_size={world}",
            cure='make the loader with rank="auto" and a seed, after the Accelerator',
        )
    if world > 1 and split_batches:
        raise ArgumentError(
            "split_batches=True divides each batch between processes, and so does the loader",
            found=True,
            expected="split_batches=False, and the batch_size of one process",
            cure="leave split_batches out, and give the loader batch_size // num_processes",
        )
