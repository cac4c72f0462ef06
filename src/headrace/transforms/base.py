"""Functions of one sample, applied one after the other: `Transform`, `Compose`, and how a user's function is called.

Nothing here knows what a sample is: a number, a mapping, a tuple with an image. `ImageTransform` knows images.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from inspect import Parameter
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from headrace.checks import kind_of, shown
from headrace.context import seeds
from headrace.errors import ArgumentError, ArgumentTypeError
from headrace.hints import TRANSFORM, Hinted
from headrace.interop.calls import signature

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np


class Step(Protocol):
    """A bound function of one sample: ``step(sample)``, or ``step(sample, rng)``."""

    def __call__(self, sample: Any, rng: np.random.Generator | None = None) -> Any:  # noqa: D102  it says itself
        ...


def _forget_what_is_outdated(cls: type[Transform]) -> None:
    """Reset what describes a class, where a class of its line overrides what is done, and not the description."""
    order, inert = cls.__mro__, frozenset((*cls.described, "check_order", "settings"))
    changed = next(number for number, kind in enumerate(order) if _overrides(kind, order[number + 1 :], inert))
    for name in cls.described:
        definers = [kind for kind in order if name in vars(kind)]
        if order.index(definers[0]) > changed:
            setattr(cls, name, vars(definers[-1])[name])


def _overrides(kind: type, bases: tuple[type, ...], inert: frozenset[str]) -> bool:
    """Say whether a class overrides a method or a property that does something; Transform ends the search."""
    for name, thing in vars(kind).items():
        does = (callable(thing) or isinstance(thing, property)) and name not in inert
        if does and (name == "__call__" or not name.startswith("__")) and any(name in vars(base) for base in bases):
            return True
    return kind is Transform


class Transform(Hinted):
    """Change one sample: the base class of every transform, ours and yours.

    >>> from dataclasses import dataclass
    >>> import headrace
    >>> from headrace.transforms import Transform
    >>> @dataclass(frozen=True)
    ... class Jitter(Transform):
    ...     scale: float
    ...     def apply(self, sample, rng):
    ...         return sample + self.scale * rng.random()
    >>> loader = headrace.DataLoader(headrace.ArrayDataset([1.0, 2.0]).map(Jitter(0.01)), seed=0)
    >>> [f"{batch[0]:.4f}" for batch in loader]
    ['1.0029', '2.0027']

    A subclass defines ``apply(sample, rng)``. ``rng`` is the sample's own `numpy.random.Generator`: its numbers depend
    on seed, epoch and position alone. A class that never draws says ``draws = False`` and gets None. Settings
    belong in a frozen dataclass, or in attributes: `DataLoader.lineage` shows them. Objects must be picklable for
    worker processes. For a transform of the image in a sample, derive from `headrace.transforms.ImageTransform`.

    The other methods describe what ``apply`` does, so that it can be done quicker or shown. Each has a default that
    describes nothing. A subclass that overrides what a transform does, and not its description, gets the default
    again: `Resize`, with another ``apply``, runs step by step.
    """

    __slots__ = ()
    _argument_hints = TRANSFORM
    draws: ClassVar[bool] = True
    """Whether ``apply`` may draw from ``rng``."""
    mergeable: ClassVar[bool] = False
    """Whether a later transform of the same `Compose` may take it into a quicker step of its own."""
    defers: ClassVar[bool] = False
    """Whether it takes images whose pixels are made later, and looks at shape and dtype alone: `image.pending`."""
    described: ClassVar[tuple[str, ...]] = (
        "draws",
        "mergeable",
        "apply_many",
        "native_step",
        "merged",
        "drawn",
        "unpacked",
        "defers",
    )
    """The names of what describes ``apply``: wrong once ``apply`` is another."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _forget_what_is_outdated(cls)

    def __call__(self, sample: Any, rng: np.random.Generator | None = None) -> Any:
        """Return the sample transformed; without ``rng``, numbers are drawn from `headrace.rng`."""
        return self.apply(sample, seeds.rng() if rng is None and self.draws else rng)

    def apply(self, sample: Any, rng: Any) -> Any:
        """Return the sample transformed. ``rng`` is its generator, or perhaps None where ``draws`` is False."""
        raise NotImplementedError(f"{type(self).__qualname__} must define apply(self, sample, rng)")

    def apply_many(self, samples: Sequence[Any]) -> list[Any] | None:  # noqa: ARG002
        """Return several samples transformed, where that is quicker than one by one; None where it is not.

        Only for a class with ``draws = False``. A dataset mapped by it reads the samples of a batch at once, if it is
        the first of the functions.
        """
        return None

    def native_step(self) -> Any:
        """Describe what the native extension does in place of ``apply``; None where it cannot."""
        return None

    def merged(self, steps: tuple[Step, ...]) -> tuple[Step, ...] | None:  # noqa: ARG002
        """Return the steps before it with this one worked into them; None where it is a step of its own."""
        return None

    def grouped(self, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        """Return the steps of its `Compose`, with groups in place of those that are quicker together."""
        return steps

    def joined(self, before: Transform) -> Transform | None:  # noqa: ARG002
        """Return one transform in place of the one before it and itself, which does more than both in turn; or None."""
        return None

    def drawn(self, sample: Any, rng: np.random.Generator) -> dict[str, Any]:  # noqa: ARG002
        """Return by name what it draws for a sample, such as the box of a crop, for `DataLoader.lineage`."""
        return {}

    def unpacked(self) -> tuple[Callable[..., Any], ...]:
        """Return the functions that a `Compose` takes in its place, in order."""
        return (self,)

    def with_kinds(self, kinds: Any) -> Transform:  # noqa: ARG002
        """Return what a `Compose` takes in its place, which was made with these ``kinds``."""
        return self

    def kinds_after(self, kinds: Any) -> Any:
        """Return the kinds of the fields of what comes out, for those that go in; None where none are declared."""
        return kinds

    def check_order(self, before: Sequence[Callable[..., Any]]) -> None:
        """Raise ArgumentError where it cannot follow these functions in a `Compose`."""

    def settings(self) -> dict[str, Any]:
        """Return its settings by name: the fields of a dataclass, or else the public attributes."""
        transform: Any = self
        if is_dataclass(transform):
            return {one.name: getattr(self, one.name) for one in fields(transform) if one.init and one.repr}
        return {name: value for name, value in getattr(self, "__dict__", {}).items() if not name.startswith("_")}

    def __repr__(self) -> str:
        kinds = {name: one.kind for name, one in signature(type(self)).parameters.items()}
        listed = Parameter.VAR_POSITIONAL in kinds.values()
        arguments: list[str] = []
        for name, value in self.settings().items():
            if kinds.get(name) is Parameter.VAR_POSITIONAL:
                arguments += map(repr, value)
            elif listed and kinds.get(name) is Parameter.POSITIONAL_OR_KEYWORD:
                arguments.append(repr(value))
            else:
                arguments.append(f"{name}={value!r}")
        return f"{type(self).__qualname__}({', '.join(arguments)})"


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Compose(Transform):
    """Apply transforms one after the other: ours, and any function of one sample, or of ``(sample, rng)``.

    >>> import numpy as np
    >>> from headrace import Compose, RandomHorizontalFlip, ToCHW, ToFloat
    >>> noise = lambda image, rng: image + rng.normal(size=image.shape).astype(np.float32)
    >>> train = Compose(RandomHorizontalFlip(), ToFloat(), noise, ToCHW())
    >>> train(np.zeros((4, 6, 3), np.uint8)).shape
    (3, 4, 6)
    >>> Compose(str.strip, str.split, len)(" any kind of sample ")
    4

    Takes them one by one or as one list. A Compose among them is replaced by its own ``transforms``. All draw from
    the same generator, in order.

    ``kinds`` declares the fields of a sample: masks, boxes and keypoints are then moved with the image. It has the
    form of the sample: a dict for a dict or a dataclass, a tuple for a tuple. A kind is "image", "mask", "masks",
    "boxes", "keypoints", "labels" (one for each box), "other" (no places in the image), or an object with settings:
    `Mask`, `Boxes` and `Keypoints` of `headrace.transforms`. Fields with one of the first six as their name need no
    declaration.

    >>> from headrace.transforms import Boxes, Mask
    >>> kinds = {"photo": "image", "seg": Mask(fill=255), "bbox": Boxes("xywh"), "labels": "labels"}
    >>> sample = {"photo": np.zeros((4, 6, 3)), "seg": np.eye(4, 6), "bbox": [[0, 0, 2, 1]], "labels": [7]}
    >>> Compose(RandomHorizontalFlip(p=1), kinds=kinds)(sample)["bbox"]
    array([[4., 0., 2., 1.]], dtype=float32)

    Raises ArgumentError for what cannot be called so, and for an image transform in a place where it would mistake
    the order of the channels.
    """

    transforms: tuple[Callable[..., Any], ...]
    _joined: tuple[Callable[..., Any], ...] = field(compare=False)
    _steps: tuple[Step, ...] = field(compare=False)

    def __init__(self, *transforms: Callable[..., Any] | Sequence[Callable[..., Any]], kinds: Any = None) -> None:
        given: Any = transforms
        if len(given) == 1 and isinstance(given[0], (list, tuple)):
            given = given[0]
        flat = tuple(one for t in given for one in (t.unpacked() if isinstance(t, Transform) else (t,)))
        flat = _with_kinds(flat, kinds)
        object.__setattr__(self, "transforms", flat)
        joined = _joined(flat)
        object.__setattr__(self, "_joined", joined)
        object.__setattr__(self, "_steps", _steps_of(joined))

    def __call__(self, sample: Any, rng: np.random.Generator | None = None) -> Any:
        """Return the sample with every transform applied."""
        here = seeds.inside()
        if here is not None and here.trace is not None:
            return here.trace.apply(self._joined, sample, rng)
        for step in self._steps:
            sample = step(sample, rng)
        return sample

    @property
    def steps(self) -> tuple[Step, ...]:
        """What applies its transforms: fewer steps, where some are quicker together."""
        return self._steps

    @property
    def parts(self) -> tuple[Callable[..., Any], ...]:
        """Its transforms, with one in place of several that are better done together."""
        return self._joined

    @property
    def makes_last(self) -> bool:
        """Whether it ends with transforms that can leave the pixels unmade."""
        return bool(self._steps) and hasattr(self._steps[-1], "unmade")

    def unmade(self, sample: Any) -> Any:
        """Return the sample transformed, with images in it whose pixels a `RowWriter` makes, where `makes_last`."""
        here = seeds.inside()
        if here is not None and here.trace is not None:
            return self(sample)
        *before, last = self._steps
        for step in before:
            sample = step(sample)
        return cast("Any", last).unmade(sample)

    def unpacked(self) -> tuple[Callable[..., Any], ...]:
        """Return its transforms."""
        return self.transforms

    def __repr__(self) -> str:
        bound = (one for one in self.transforms if isinstance(one, Transform) and hasattr(one, "kinds"))
        kinds = [f"kinds={one.kinds!r}" for one in bound]
        return f"Compose({', '.join([*map(repr, self.transforms), *kinds[:1]])})"


def _with_kinds(transforms: tuple[Callable[..., Any], ...], kinds: Any) -> tuple[Callable[..., Any], ...]:
    """Return what applies the transforms to samples whose fields have these kinds."""
    bound: list[Callable[..., Any]] = []
    for transform in transforms:
        if isinstance(transform, Transform):
            bound.append(transform if kinds is None else transform.with_kinds(kinds))
            kinds = transform.kinds_after(kinds)
        else:
            bound.append(transform)
    return tuple(bound)


def may_draw(function: Callable[..., Any]) -> bool:
    """Say whether a function of a sample may draw random numbers: all but the transforms known not to.

    >>> from headrace import RandomCrop, Resize
    >>> may_draw(Resize(8)), may_draw(RandomCrop(8)), may_draw(abs)
    (False, True, True)
    """
    return function.draws if isinstance(function, Transform) else True


def takes_rng(function: Callable[..., Any]) -> bool:
    """Say whether a function is to be called as ``f(sample, rng)`` rather than as ``f(sample)``.

    It is where its first two parameters are both required, or where the second is named ``rng``. A function without
    a signature, as some written in C are, takes the sample alone.

    >>> takes_rng(lambda sample: sample), takes_rng(lambda sample, rng: sample)
    (False, True)
    >>> takes_rng(lambda sample, rng=None: sample), takes_rng(lambda sample, times=2: sample)
    (True, False)

    Raises ArgumentError for what cannot be called, and for a function that can be called in neither way.
    """
    if not callable(function):
        raise ArgumentTypeError(
            f"got {shown(function)}, {kind_of(function)}, which cannot be called, for a transform",
            found=function,
            expected="a function of one sample, or of (sample, rng)",
            cure="Pass a function or a Transform.",
        )
    try:
        parameters = list(signature(function).parameters.values())
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is Parameter.empty]
    by_name = [p for p in parameters if p.kind is Parameter.KEYWORD_ONLY and p.default is Parameter.empty]
    any_number = any(p.kind is Parameter.VAR_POSITIONAL for p in parameters)
    if by_name or len(required) > 2 or not (positional or any_number):
        raise ArgumentError(
            f"{getattr(function, '__qualname__', shown(function))} takes ({', '.join(map(str, parameters))})",
            found=function,
            expected="a transform that can be called as f(sample) or f(sample, rng)",
            cure="Set its other arguments with functools.partial.",
        )
    return len(required) == 2 or (len(positional) > 1 and positional[1].name == "rng")


def bind(function: Callable[..., Any]) -> Step:
    """Return a function called ``step(sample, rng=None)``: its signature is read here once, for all samples.

    >>> bind(lambda sample: sample + 1)(1), bind(lambda sample, rng: rng)(1, "the generator")
    (2, 'the generator')

    Raises ArgumentError as `takes_rng` does.
    """
    if not takes_rng(function):
        return _Alone(function)
    # A Transform asks for the generator itself, if it draws: making one costs microseconds.
    return function if isinstance(function, Transform) else _WithRng(function)


@dataclass(frozen=True, slots=True)
class _Alone:
    function: Callable[[Any], Any]

    def __call__(self, sample: Any, rng: np.random.Generator | None = None) -> Any:  # noqa: ARG002
        return self.function(sample)


@dataclass(frozen=True, slots=True)
class _WithRng:
    function: Callable[[Any, np.random.Generator], Any]

    def __call__(self, sample: Any, rng: np.random.Generator | None = None) -> Any:
        return self.function(sample, seeds.rng() if rng is None else rng)


def _joined(transforms: tuple[Callable[..., Any], ...]) -> tuple[Callable[..., Any], ...]:
    """Return the transforms, with one in place of several that are better done together."""
    together: list[Callable[..., Any]] = []
    for transform in transforms:
        before = together[-1] if together else None
        both = isinstance(before, Transform) and isinstance(transform, Transform) and transform.joined(before)
        if both:
            together[-1] = both
        else:
            together.append(transform)
    return tuple(together)


def _steps_of(transforms: tuple[Callable[..., Any], ...]) -> tuple[Step, ...]:
    """Return what applies the transforms: fewer steps, where some are quicker together."""
    steps: tuple[Step, ...] = ()
    for number, transform in enumerate(transforms):
        step = bind(transform)
        if isinstance(transform, Transform):
            transform.check_order(transforms[:number])
            together = transform.merged(steps)
            if together is not None:
                steps = together
                continue
        steps = (*steps, step)
    first = next((step for step in steps if isinstance(step, Transform) and step.defers), None)
    return steps if first is None else first.grouped(steps)
