"""Transforms that note what they do to pixels, which are then made at once: `headrace.image.pending`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.context import seeds
from headrace.image import pending, sample_fields
from headrace.image.kinds import IMAGE, NONE_DECLARED, Mask
from headrace.storage.mapped_samples import in_memory

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from headrace.image.geometry import Image
    from headrace.image.kinds import Kinds
    from headrace.image.sample_fields import Field, Path
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

    def _run(self, sample: Any, rng: np.random.Generator | None) -> tuple[Collection[Path], Any]:
        """Return the places of images whose pixels are not made, and the sample with every step applied."""
        noted: dict[Path, Any] = {}
        if isinstance(sample, np.ndarray):
            noted = _begun((), sample, None)
        elif self.kinds is NONE_DECLARED and (key := sample_fields.only_image(sample)) is not None:
            noted = _begun((key,), sample[key], None)
        else:
            return self._run_fields(sample, rng)
        if noted:
            sample = sample_fields.replaced(sample, noted)
        for step in self.steps:
            sample = step(sample, rng)
        return noted, sample

    def _run_fields(self, sample: Any, rng: np.random.Generator | None) -> tuple[Collection[Path], Any]:
        """Do what `_run` does to a sample with several fields, which are looked for once."""
        transforms: list[Any] = [getattr(step, "transform", step) for step in self.steps]
        fields: list[Field] = transforms[0].fields_of(sample, self.kinds)
        noted: dict[Path, Any] = {}
        for field in fields:
            if field.kind is IMAGE:
                noted |= _begun(field.path, field.value, None)
            elif isinstance(field.kind, Mask):
                stacked = field.kind.stacked and np.ndim(field.value) == 3
                noted |= _begun(field.path, field.value, field.kind.fill, stacked=stacked)
        known = sample_fields.all_known(sample, fields)
        fields = [field._replace(value=noted.get(field.path, field.value)) for field in fields]
        return noted, sample_fields.replaced(sample, in_turn(transforms, sample, fields, rng, known=known))


def in_turn(transforms: Sequence[Any], sample: Any, fields: list[Field], rng: Any, *, known: bool) -> dict[Path, Any]:
    """Return what transforms one after the other make of a sample's fields, by their paths.

    >>> from headrace import RandomHorizontalFlip
    >>> sample = {"image": np.array([[1, 2, 3]])}
    >>> in_turn([RandomHorizontalFlip(1)], sample, sample_fields.found(sample), np.random.default_rng(0), known=True)
    {('image',): array([[3, 2, 1]])}
    """
    for transform in transforms:
        own = rng if rng is not None or not transform.draws else seeds.rng()
        values = transform.values_for(sample, fields, own, known=known)
        fields = [field._replace(value=values.get(field.path, field.value)) for field in fields]
    return {field.path: field.value for field in fields}


def together(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Return the steps of a chain, with one in place of those whose pixels can be made at once.

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
    return tuple(step if not isinstance(step, Together) or _pays(step) else step.steps[0] for step in grouped)


def _pays(group: Together) -> bool:
    """Say whether a group is quicker than its steps one by one."""
    first: Any = group.steps[0]
    return len(group.steps) > 1 or bool(getattr(getattr(first, "transform", first), "scales", False))


def _begun(path: Path, image: Any, fill: float | None, *, stacked: bool = False) -> dict[Path, Image]:
    if not isinstance(image, np.ndarray) or isinstance(image, pending.Pending):
        return {}
    noted = pending.begun(in_memory(image), fill, stacked=stacked)
    return {path: noted} if isinstance(noted, pending.Pending) else {}


def _at(sample: Any, path: Path) -> Any:
    """Return the part of a sample at a path."""
    for key in path:
        sample = getattr(sample, key) if sample_fields.is_record(sample) else sample[key]
    return sample
