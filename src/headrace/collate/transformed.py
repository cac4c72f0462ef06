"""A collate function that changes whole batches: MixUp, CutMix, one resolution for all images of a batch."""

from __future__ import annotations

import copy
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from headrace.checks import refused
from headrace.collate.default import default_collate
from headrace.context import seeds
from headrace.interop.calls import signature
from headrace.transforms.base import Compose, Transform
from headrace.transforms.batches import RandomResolution
from headrace.transforms.control import Picking

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.context.memory import Empty


@dataclass(frozen=True, slots=True, init=False)
class TransformedCollate:
    """A collate function that puts samples together, and then transforms the batch.

    >>> import numpy as np
    >>> from headrace import ArrayDataset, DataLoader
    >>> from headrace.collate import TransformedCollate
    >>> from headrace.transforms import CutMix, MixUp, RandomChoice
    >>> images, labels = np.zeros((8, 6, 6, 3), np.float32), np.arange(8) % 4
    >>> mix = TransformedCollate(RandomChoice([MixUp(num_classes=4), CutMix(num_classes=4)]))
    >>> images, labels = next(iter(DataLoader(ArrayDataset(images, labels), 8, collate_fn=mix, seed=0)))
    >>> images.shape, labels.shape
    ((8, 6, 6, 3), (8, 4))

    ``transforms`` are `MixUp`, `CutMix`, `RandomChoice` of them, or any functions of a batch, or of (batch, rng).
    `RandomResolution` comes first, where it is among them: it changes the samples before they are put together.
    ``collate_fn`` is what puts them together.

    ``rng`` belongs to the batch: its numbers are a function of seed, epoch and the batch's place, so that any worker
    makes the same bytes, before and after a resume. `DataLoader.lineage` names what was drawn.
    """

    transforms: tuple[Callable[..., Any], ...]
    _: KW_ONLY
    collate_fn: Callable[..., Any] = default_collate
    _resolution: RandomResolution | None = field(compare=False, repr=False)
    _chain: Compose = field(compare=False, repr=False)
    _empty: bool = field(compare=False, repr=False)
    gives_arrays: ClassVar[bool] = True
    """A loader for a framework converts them."""

    def __init__(self, *transforms: Callable[..., Any], collate_fn: Callable[..., Any] = default_collate) -> None:
        if not callable(collate_fn):
            raise refused("collate_fn", collate_fn, "a function of a list of samples", "Leave it out for the default.")
        first = transforms[0] if transforms and isinstance(transforms[0], RandomResolution) else None
        rest = transforms if first is None else transforms[1:]
        if any(isinstance(one, RandomResolution) for one in rest):
            what = "RandomResolution as the first of the transforms"
            raise refused("transforms", transforms, what, "Put it first: it changes samples, not batches.")
        object.__setattr__(self, "transforms", transforms)
        object.__setattr__(self, "collate_fn", collate_fn)
        object.__setattr__(self, "_resolution", first)
        object.__setattr__(self, "_chain", Compose(*rest))
        object.__setattr__(self, "_empty", "empty" in signature(collate_fn).parameters)

    def __call__(self, samples: Sequence[Any], *, empty: Empty = np.empty) -> Any:
        """Return the batch, transformed."""
        rng = seeds.batch_rng()
        if self._resolution is not None:
            samples = self._resolution.apply(samples, rng)
        batch = self.collate_fn(samples, empty=empty) if self._empty else self.collate_fn(samples)
        for transform in self._chain.transforms:
            batch = Compose(transform)(batch, rng)
        return batch

    def drawn(self, samples: Sequence[Any], rng: np.random.Generator) -> list[tuple[Any, dict[str, Any]]]:
        """Return the transforms, each with what it draws for a batch, by name: for `DataLoader.lineage`."""
        steps: list[tuple[Any, dict[str, Any]]] = []
        batch: Any = list(samples)
        if self._resolution is not None:
            steps.append((self._resolution, self._resolution.drawn(batch, copy.deepcopy(rng))))
            batch = self._resolution.apply(batch, rng)
        batch = self.collate_fn(batch)
        for transform in self._chain.transforms:
            batch = _noted(transform, batch, rng, steps)
        return steps


def _noted(transform: Any, batch: Any, rng: np.random.Generator, steps: list[tuple[Any, dict[str, Any]]]) -> Any:
    """Return a batch transformed; write down what is drawn, also by the transforms that another one picks."""
    meant = transform.drawn(batch, copy.deepcopy(rng)) if isinstance(transform, Transform) else {}
    steps.append((transform, meant))
    if not isinstance(transform, Picking) or not meant:
        return Compose(transform)(batch, rng)
    transform.drawn(batch, rng)  # it draws nothing else itself
    for one in transform.picked(meant):
        batch = _noted(one, batch, rng, steps)
    return batch
