"""Transforms that note what they do to pixels, which are then made at once: `headrace.image.pending`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.image import pending, sample_fields
from headrace.image.kinds import IMAGE, NONE_DECLARED, Mask
from headrace.storage.mapped_samples import in_memory

if TYPE_CHECKING:
    from headrace.image.geometry import Image
    from headrace.image.kinds import Kinds
    from headrace.image.sample_fields import Path
    from headrace.transforms.base import Step


@dataclass(frozen=True, slots=True)
class Together:
    """Steps whose pixels are made at once, after the last of them."""

    steps: tuple[Step, ...]
    kinds: Kinds

    def __call__(self, sample: Any, rng: np.random.Generator | None = None) -> Any:
        """Return the sample with every step applied."""
        noted, sample = self._run(sample, rng)
        return (
            sample_fields.replaced(sample, {path: pending.done(_at(sample, path)) for path in noted})
            if noted
            else sample
        )

    def unmade(self, sample: Any, rng: np.random.Generator | None = None) -> Any:
        """Return the sample with every step applied, and images in it whose pixels are not made yet.

        Only where these are parts of a plain dict, tuple or list, or the sample itself: a `RowWriter` finds them there.
        """
        if type(sample) not in (np.ndarray, dict, tuple, list):
            return self(sample, rng)
        noted, sample = self._run(sample, rng)
        deep = {path: pending.done(_at(sample, path)) for path in noted if len(path) > 1}
        return sample_fields.replaced(sample, deep) if deep else sample

    def _run(self, sample: Any, rng: np.random.Generator | None) -> tuple[dict[Path, Any], Any]:
        """Return the places of images whose pixels are not made, and the sample with every step applied."""
        noted = self._noted(sample)
        if noted:
            sample = sample_fields.replaced(sample, noted)
        for step in self.steps:
            sample = step(sample, rng)
        return noted, sample

    def _noted(self, sample: Any) -> dict[Path, Any]:
        """Return the image and the masks of a sample as what notes their changes; none where nothing can be noted."""
        if isinstance(sample, np.ndarray):
            return _begun((), sample, None)
        key = sample_fields.only_image(sample) if self.kinds is NONE_DECLARED else None
        if key is not None:
            return _begun((key,), sample[key], None)
        noted: dict[Path, Any] = {}
        for field in sample_fields.found(sample, self.kinds):
            if field.kind is IMAGE:
                noted |= _begun(field.path, field.value, None)
            elif isinstance(field.kind, Mask) and not field.kind.stacked:
                noted |= _begun(field.path, field.value, field.kind.fill)
        return noted


def together(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Return the steps of a chain, with one in place of several whose pixels can be made at once.

    >>> together((abs, abs)) == (abs, abs)
    True
    """
    if not pending.ABLE:
        return steps
    grouped: list[Step] = []
    for step in steps:
        kinds = getattr(step, "kinds", NONE_DECLARED)
        last = grouped[-1] if grouped else None
        if not getattr(step, "defers", False):
            grouped.append(step)
        elif isinstance(last, Together) and last.kinds == kinds:
            grouped[-1] = Together((*last.steps, step), kinds)
        else:
            grouped.append(Together((step,), kinds))
    return tuple(step.steps[0] if isinstance(step, Together) and len(step.steps) == 1 else step for step in grouped)


def _begun(path: Path, image: Any, fill: float | None) -> dict[Path, Image]:
    if not isinstance(image, np.ndarray):
        return {}
    noted = pending.begun(in_memory(image), fill)
    return {path: noted} if isinstance(noted, pending.Pending) else {}


def _at(sample: Any, path: Path) -> Any:
    """Return the part of a sample at a path."""
    for key in path:
        sample = getattr(sample, key) if sample_fields.is_record(sample) else sample[key]
    return sample
