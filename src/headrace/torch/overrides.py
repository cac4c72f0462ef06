"""What subclasses of torch's loader put in the place of its parts: read where torch would read it, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.utils.data

from headrace.checks import shown
from headrace.errors import ArgumentError
from headrace.loader import DataLoader
from headrace.run.settings import SHOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.run.session import Session
    from headrace.run.settings import Settings

THEIRS = torch.utils.data.DataLoader

MAP, STREAM = (int(getattr(torch.utils.data.dataloader._DatasetKind, name)) for name in ("Map", "Iterable"))

SAMPLERS = ("sampler", "batch_sampler")
"""What a subclass may replace: a loop reads them as it begins."""


def unreadable(kind: type) -> list[str]:
    """Name what a subclass of torch's loader overrides and our loop does not read."""
    names = [name for name in SHOWN if name not in SAMPLERS and hasattr(getattr(kind, name, None), "__set__")]
    return sorted(
        name
        for name in (*names, "_auto_collation", "_dataset_kind")
        if getattr(kind, name, None) is not getattr(THEIRS, name, None)
    )


def show(loader: Any, values: Mapping[str, Any]) -> None:
    """Set a loader's attributes by way of what its class has in their place; refuse those that come out otherwise."""
    kind: Any = type(loader)
    own = [name for name in values if hasattr(getattr(kind, name, None), "__set__")]
    if own or kind.__setattr__ is not DataLoader.__setattr__:
        for name, value in values.items():
            setattr(loader, name, value)
    else:
        vars(loader).update(values)
    for name in own:
        found = getattr(loader, name)
        if name not in SAMPLERS and not _same(found, values[name]):
            raise _refused(kind, name, found, values[name])


def samplers(loader: Any, session: Session) -> tuple[Any, Any]:
    """Return what a loop reads its order from: the sampler and the batch sampler, whatever a subclass has made of them.

    Raises `ArgumentError` where a subclass, or somebody past the loader, has changed what cannot change.
    """
    attributes, kind = vars(loader), type(loader)
    for name, value in session.fixed.items():
        found = attributes.get(name, value)
        if found is not value and not _same(found, value):
            raise _refused(kind, name, found, value)
    sampler, batch_sampler = loader.sampler, loader.batch_sampler
    read, single = kind_of_dataset(session.settings), batch_sampler is None
    if loader._dataset_kind != read:
        raise _refused(kind, "_dataset_kind", loader._dataset_kind, read)
    if kind._auto_collation is not THEIRS._auto_collation and loader._auto_collation is single:
        raise _refused(kind, "_auto_collation", single, not single)
    if kind._index_sampler is not THEIRS._index_sampler:
        if single:
            sampler = loader._index_sampler
        else:
            batch_sampler = loader._index_sampler
    return sampler, batch_sampler


def kind_of_dataset(settings: Settings) -> int:
    """Return how the dataset is read, in torch's terms."""
    return STREAM if settings.streams else MAP


def _same(found: Any, expected: Any) -> bool:
    if found is expected:
        return True
    # Copies of a loader have numbers and strings of their own.
    return isinstance(found, int | float | str) and isinstance(expected, int | float | str) and found == expected


def _refused(kind: type, name: str, found: Any, expected: Any) -> ArgumentError:
    private = name.startswith("_")
    return ArgumentError(
        f"{name} of {kind.__name__} is {shown(found)}, but the loader was made with {shown(expected)}",
        found=found,
        expected=f"the {name} that torch's DataLoader has" if private else f"{name} as the constructor got it",
        cure=f"leave {name} as it is" if private else f"pass {name}= to the constructor",
    )
