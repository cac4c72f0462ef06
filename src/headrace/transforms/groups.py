"""Which transforms of a chain make their pixels in one native call, for samples that are read one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.transforms.base import Transform
from headrace.transforms.together import Together

if TYPE_CHECKING:
    from headrace.transforms.base import Compose


def native_groups(chain: Compose) -> list[tuple[Any, int, str]]:
    """Return the transforms of a chain, each with the number of its group; with 0 and the reason where it has none.

    >>> from headrace import CenterCrop, Compose, RandomHorizontalFlip, Resize
    >>> chain = Compose(Resize(64), CenterCrop(48), abs, RandomHorizontalFlip())
    >>> [(number, why) for _, number, why in native_groups(chain)]
    [(1, ''), (1, ''), (0, 'not a headrace transform'), (0, 'no neighbor to be grouped with')]

    Maps that are resampled once are a group, also by themselves; so is what scales images.
    """
    done: list[tuple[Any, int, str]] = []
    number = 0
    for step in chain.steps:
        parts = _within(step)
        grouped = isinstance(step, Together) or len(parts) > 1
        number += grouped
        done += [(one, number, "") if grouped else (one, 0, _why_not(one)) for one in parts]
    # Values may be rounded before channels are moved: in the order that they have in the chain.
    return [done.pop(next(at for at, one in enumerate(done) if one[0] == each)) for each in chain.transforms]


def _within(step: Any) -> list[Any]:
    """Return the functions that a step of a chain applies."""
    if isinstance(step, Together):
        return [one for part in step.steps for one in _within(part)]
    return list(step.unpacked()) if isinstance(step, Transform) else [getattr(step, "function", step)]


def _why_not(transform: Any) -> str:
    if not isinstance(transform, Transform):
        return "not a headrace transform"
    return "no neighbor to be grouped with" if transform.defers else "it makes its own pixels"
