"""Transforms that decide by a draw which others are applied, to whole samples of any kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from headrace.checks import fraction, number, refused
from headrace.context.draws import one_of
from headrace.image.kinds import NONE_DECLARED
from headrace.image.native_steps import ChangePixels, ErasePart, MapPlaces, changes_of
from headrace.transforms.base import Compose, Transform
from headrace.transforms.together import in_turn, together

if TYPE_CHECKING:
    import numpy as np

    from headrace.image.kinds import Kinds
    from headrace.image.native_changes import Change
    from headrace.image.sample_fields import Field, Path
    from headrace.transforms.base import Step

Function = Callable[..., Any]


class Picking(Transform):
    """Decide by a draw which other transforms are applied: the base class of the transforms of this file.

    A subclass has ``_chains``, and defines ``choose``.
    """

    __slots__ = ()
    described: ClassVar[tuple[str, ...]] = tuple(
        name for name in Transform.described if name not in ("defers", "drawn")
    )
    _chains: tuple[Compose, ...]

    def choose(self, rng: Any) -> int | None:
        """Draw which of the chains is applied; None for none."""
        raise NotImplementedError(f"{type(self).__qualname__} must define choose(self, rng)")

    def apply(self, sample: Any, rng: Any) -> Any:
        """Return the sample transformed, or itself."""
        if self.defers:
            self.fields_of(sample, self.kinds)  # whether a sample is refused must not depend on a draw
        place = self.choose(rng)
        return sample if place is None else self._chains[place](sample, rng)

    def drawn(self, sample: Any, rng: np.random.Generator) -> dict[str, Any]:  # noqa: ARG002
        """Return the place of the transform drawn, None for none; nothing where a subclass may draw otherwise."""
        return {"choice": self.choose(rng)} if self._is_own() else {}

    def picked(self, drawn: dict[str, Any]) -> tuple[Function, ...]:
        """Return the transforms that are applied, for what `drawn` returned."""
        place = drawn["choice"]
        return () if place is None else self._chains[place].transforms

    @property
    def defers(self) -> bool:  # type: ignore[override]  # its transforms decide
        """Whether all of the transforms take images whose pixels are made later, of samples of the same kinds."""
        inner = self._inner() if self._is_own() else []
        return bool(inner) and all(getattr(one, "defers", False) and _kinds(one) == self.kinds for one in inner)

    @property
    def kinds(self) -> Kinds:
        """The kinds of the samples of its first transform."""
        return _kinds(next(iter(self._inner()), None))

    def fields_of(self, sample: Any, kinds: Kinds) -> list[Field]:
        """Return the fields of a sample that have a kind, where it `defers`."""
        first: Any = self._inner()[0]
        return cast("list[Field]", getattr(first, "transform", first).fields_of(sample, kinds))

    def values_for(self, sample: Any, fields: list[Field], rng: Any, *, known: bool = False) -> dict[Path, Any]:
        """Return the new values of a sample's fields, where it `defers`."""
        place = self.choose(rng)
        return {} if place is None else in_turn(_within(self._chains[place]), sample, fields, rng, known=known)

    def grouped(self, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        """Return the steps with groups in place of those whose pixels are made at once."""
        return together(steps)

    def check_order(self, before: Sequence[Function]) -> None:
        """Raise ArgumentError where one of the transforms does."""
        for chain in self._chains:
            for place, one in enumerate(chain.transforms):
                if isinstance(one, Transform):
                    one.check_order((*before, *chain.transforms[:place]))

    def _is_own(self) -> bool:
        return type(self).apply is Picking.apply

    def _inner(self) -> list[Function]:
        return [one for chain in self._chains for one in chain.parts]


@dataclass(frozen=True, slots=True)
class RandomApply(Picking):
    """Apply transforms one after the other with probability ``p``, or none of them.

    >>> from headrace.transforms import RandomApply
    >>> RandomApply([str.strip, str.upper], p=1)(" any sample ")
    'ANY SAMPLE'

    ``transforms`` are ours or any functions of a sample, or of (sample, rng), or one such.
    """

    transforms: Function | Sequence[Function]
    p: float = 0.5
    _chains: tuple[Compose, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "transforms", _several("RandomApply", self.transforms))
        object.__setattr__(self, "p", fraction("RandomApply: p", self.p))
        object.__setattr__(self, "_chains", _chains("RandomApply", [self.transforms]))

    def choose(self, rng: Any) -> int | None:
        """Draw whether they are applied."""
        return 0 if rng.random() < self.p else None

    def with_kinds(self, kinds: Any) -> Transform:
        """Return the same with transforms for samples of declared kinds."""
        return replace(self, transforms=_with_kinds([self.transforms], kinds)[0])

    def drawn(self, sample: Any, rng: np.random.Generator) -> dict[str, Any]:  # noqa: ARG002
        """Return whether they are applied; nothing where a subclass may draw otherwise."""
        return {"applied": self.choose(rng) is not None} if self._is_own() else {}

    def picked(self, drawn: dict[str, Any]) -> tuple[Function, ...]:
        """Return all or none."""
        return self._chains[0].transforms if drawn["applied"] else ()

    def native_step(self) -> ChangePixels | None:
        """Do them or not, where the native extension can do all of them."""
        return _native_step(self._chains, lambda parts: ("apply", (self.p,), parts))


@dataclass(frozen=True, slots=True)
class RandomChoice(Picking):
    """Apply one of several transforms, drawn by their weights ``p``: equal ones by default.

    >>> from headrace.transforms import RandomChoice
    >>> RandomChoice([str.upper, str.title], p=[0, 3])("any sample")
    'Any Sample'

    A choice that is a list is applied as a chain.
    """

    transforms: Sequence[Function | Sequence[Function]]
    p: Sequence[float] | None = None
    _chains: tuple[Compose, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_choices(self, "RandomChoice")

    def choose(self, rng: Any) -> int:
        """Draw the place of one of them."""
        return _place(self, rng)

    def with_kinds(self, kinds: Any) -> Transform:
        """Return the same with transforms for samples of declared kinds."""
        return replace(self, transforms=_with_kinds(self.transforms, kinds))

    def native_step(self) -> ChangePixels | None:
        """Do one of them, where the native extension can do all of them."""
        weights = cast("tuple[float, ...]", self.p or ())
        if not weights:
            return _native_step(self._chains, lambda parts: ("choice", (), parts))
        return _native_step(self._chains, lambda parts: ("weighted", (sum(weights), *weights), parts))


@dataclass(frozen=True, slots=True)
class OneOf(Picking):
    """Apply one of several transforms with probability ``p``, or none of them.

    >>> from headrace.transforms import OneOf
    >>> OneOf([str.upper], p=1)("any sample")
    'ANY SAMPLE'

    All are equally likely. A choice that is a list is applied as a chain.
    """

    transforms: Sequence[Function | Sequence[Function]]
    p: float = 0.5
    _chains: tuple[Compose, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "transforms", _choices("OneOf", self.transforms))
        object.__setattr__(self, "_chains", _chains("OneOf", self.transforms))
        object.__setattr__(self, "p", fraction("OneOf: p", self.p))

    def choose(self, rng: Any) -> int | None:
        """Draw the place of one of them; None for none."""
        return one_of(rng, len(self.transforms)) if rng.random() < self.p else None

    def with_kinds(self, kinds: Any) -> Transform:
        """Return the same with transforms for samples of declared kinds."""
        return replace(self, transforms=_with_kinds(self.transforms, kinds))

    def native_step(self) -> ChangePixels | None:
        """Do one of them or none, where the native extension can do all of them."""
        return _native_step(self._chains, lambda parts: ("apply", (self.p,), (("choice", (), parts),)))


def _several(owner: str, transforms: Any) -> tuple[Function, ...]:
    if callable(transforms):
        return (transforms,)
    if not isinstance(transforms, Sequence) or isinstance(transforms, str) or not transforms:
        raise refused(f"{owner}: transforms", transforms, "a transform, or a list of them", "Pass at least one.")
    return tuple(transforms)


def _choices(owner: str, transforms: Any) -> tuple[Any, ...]:
    given = _several(owner, transforms)
    return tuple(tuple(one) if isinstance(one, list) else one for one in given)


def _chains(owner: str, transforms: Sequence[Any]) -> tuple[Compose, ...]:
    return tuple(_chain(owner, one) for one in transforms)


def _check_choices(transform: RandomChoice, owner: str) -> None:
    object.__setattr__(transform, "transforms", _choices(owner, transform.transforms))
    object.__setattr__(transform, "_chains", _chains(owner, transform.transforms))
    if transform.p is None:
        return
    given = transform.p if isinstance(transform.p, Iterable) else ()
    weights = tuple(number(f"{owner}: p", one, least=0) for one in given)
    if len(weights) != len(transform.transforms) or not sum(weights):
        expected = f"{len(transform.transforms)} weights, one for each transform, not all 0"
        raise refused(f"{owner}: p", transform.p, expected, "Leave it out for equal ones.")
    object.__setattr__(transform, "p", weights)


def _place(transform: RandomChoice, rng: Any) -> int:
    if transform.p is None:
        return one_of(rng, len(transform.transforms))
    at = float(rng.random()) * sum(transform.p)
    for place, weight in enumerate(transform.p):
        at -= weight
        if at < 0:
            return place
    return max(place for place, weight in enumerate(transform.p) if weight)


def _kinds(function: Function | None) -> Kinds:
    """Return the kinds of the samples that a function is for."""
    return cast("Kinds", getattr(function, "kinds", NONE_DECLARED))


def _within(chain: Compose) -> list[Any]:
    """Return the transforms of a chain, without the kinds that they are bound to."""
    return [getattr(one, "transform", one) for one in chain.parts]


def _chain(owner: str, choice: Any) -> Compose:
    """Return a choice as a chain; the transforms after it must know the format of boxes, whatever is drawn."""
    chain = Compose(*choice) if isinstance(choice, list | tuple) else Compose(choice)
    for one in chain.transforms:
        if isinstance(one, Transform) and one.kinds_after(NONE_DECLARED) != NONE_DECLARED:
            expected = "transforms that keep the format of boxes, which must not depend on a draw"
            raise refused(f"{owner}: transforms", one, expected, f"Put it before or after {owner}.")
    return chain


def _native_step(chains: Sequence[Compose], together: Callable[[tuple[Change, ...]], Change]) -> ChangePixels | None:
    """Return what the native extension does for chains: a change made of one for each; None where it cannot."""
    described = []
    for chain in chains:
        found = [one.native_step() if isinstance(one, Transform) else None for one in chain.transforms]
        steps = [step for step in found if isinstance(step, ChangePixels | ErasePart | MapPlaces)]
        if len(steps) < len(found):
            return None
        described.append(steps)

    def describe(size: tuple[int, int, int]) -> Change:
        return together(tuple(("all", (), changes_of(steps, size)) for steps in described))

    return ChangePixels(describe)


def _with_kinds(transforms: Sequence[Any], kinds: Any) -> tuple[Any, ...]:
    return tuple(
        Compose(*(one if isinstance(one, list | tuple) else (one,)), kinds=kinds).transforms for one in transforms
    )
