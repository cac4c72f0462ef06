"""What a framework hands over to a loader: how samples become batches, and where batches go."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.collate.default import default_collate, default_convert, reader
from headrace.interop.user_line import user_line
from headrace.samplers import BatchSampler, RandomSampler, SequentialSampler

if TYPE_CHECKING:
    from collections.abc import Callable


def _as_given(dataset: Any, shuffle: bool | None) -> tuple[Any, bool | None]:
    return dataset, shuffle


def _takes_any(generator: Any) -> bool:  # noqa: ARG001
    return True


def _no_placement(loader: Any) -> None:
    if loader.pin_memory:
        warnings.warn(
            "pin_memory=True does nothing for NumPy batches: use headrace.torch.DataLoader, which pins tensors",
            UserWarning,
            stacklevel=user_line(),
        )


@dataclass(frozen=True, slots=True)
class Adapter:
    """What a loader for a framework does in its own way; the defaults make batches of NumPy arrays.

    >>> Adapter(start_method="forkserver").collate is default_collate
    True
    """

    collate: Callable[..., Any] = default_collate
    """Makes a batch of a list of samples, where the user gives no ``collate_fn``."""
    convert: Callable[..., Any] = default_convert
    """Converts a sample, where samples come one by one."""
    defaults: tuple[tuple[Callable[..., Any], Callable[..., Any]], ...] = ()
    """The framework's own functions of the same meaning, each with ours: a ``collate_fn`` that is read as ours."""
    reader: Callable[[Any], Callable[..., Any] | None] = reader
    """Returns what reads whole batches of a dataset of the framework's own, as ``read_batch`` does; None: nothing."""
    finish: Callable[[Any], Any] | None = None
    """Converts a batch that the dataset made itself."""
    random_sampler: Callable[..., Any] = RandomSampler
    """Makes what the attribute ``sampler`` is with ``shuffle=True``."""
    sequential_sampler: Callable[..., Any] = SequentialSampler
    """Makes what the attribute ``sampler`` is without."""
    batch_sampler: Callable[..., Any] = BatchSampler
    """Makes what the attribute ``batch_sampler`` is."""
    stream_sampler: Callable[[], Any] | None = None
    """Makes what the attribute ``sampler`` is for an iterable dataset; None: there is none."""
    takes_generator: Callable[[Any], bool] = _takes_any
    """Says whether the framework's samplers can draw from a generator."""
    receive: Callable[[Any, bool | None], tuple[Any, bool | None]] = _as_given
    """Returns the dataset to read, and whether the loader shuffles it."""
    place: Callable[[Any], Callable[[Any], Any] | None] = _no_placement
    """Takes the loader as a loop begins, and returns what moves its batches to a device, one ahead; None: nothing."""
    start_method: str | None = None
    """How worker processes start where the user says nothing; None: as the platform does."""


NUMPY = Adapter()
