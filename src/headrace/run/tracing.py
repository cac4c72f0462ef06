"""What is done to one sample on its way, written down: in a replay, and nowhere else."""

from __future__ import annotations

import copy
import sys
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.context import seeds
from headrace.transforms.base import Transform, bind
from headrace.transforms.geometric_transform import GeometricTransform
from headrace.transforms.image_transform import WithKinds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SHOWN = 60
"""How many letters of a drawn value or of an argument are worth reading."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One call of a sample's generator."""

    by: str
    """The function that called it."""
    call: str
    value: Any
    """What it gave: a copy."""

    def __str__(self) -> str:
        return f"{self.call} = {shown(self.value)}"


@dataclass(slots=True)
class Applied:
    """A transform that a sample went through."""

    transform: Any
    before: Any
    """The sample as the transform got it; not a copy."""
    generator: np.random.Generator
    """The sample's generator, as it stood before the transform drew from it."""
    draws: list[Draw] = field(default_factory=list)
    after: Any = None


@dataclass(slots=True)
class Trace:
    """What was done to one sample."""

    before: Any = None
    """The sample before its first transform: a copy."""
    steps: list[Applied] = field(default_factory=list)
    draws: list[Draw] = field(default_factory=list)
    """What was drawn outside of transforms: by the dataset."""
    applying: Applied | None = None

    def apply(self, transforms: Sequence[Callable[..., Any]], sample: Any, rng: np.random.Generator | None) -> Any:
        """Apply transforms one after the other, as `Compose` does."""
        for transform in transforms:
            if not self.steps:
                self.before = copy.deepcopy(sample)
            generator = copy.deepcopy(seeds.rng() if rng is None else rng)
            step = Applied(transform, sample, generator)
            self.steps.append(step)
            outer, self.applying = self.applying, step
            try:
                sample = step.after = bind(transform)(sample, rng)
            finally:
                self.applying = outer
        return sample

    def note(self, draw: Draw) -> None:
        """Write down what was drawn, under the transform that is being applied."""
        (self.draws if self.applying is None else self.applying.draws).append(draw)


class Traced(seeds.Here):
    """A place that writes down what is done to the samples at some positions."""

    __slots__ = ("_fresh", "positions", "traces")

    def __init__(self, positions: range) -> None:
        self._fresh = True
        super().__init__()
        self.positions = positions
        self.traces: dict[int, Trace] = {}

    @property
    def position(self) -> int:
        """The sample at hand; set for another one, or for the same again when another sample replaces it."""
        return int(seeds.POSITION.__get__(self))

    @position.setter
    def position(self, position: int) -> None:
        self._fresh = True
        seeds.POSITION.__set__(self, position)

    @property
    def traced(self) -> bool:
        """True."""
        return True

    @property
    def trace(self) -> Trace | None:
        """The trace of the sample at hand."""
        if self.position not in self.positions:
            return None
        if self._fresh:
            self.traces[self.position] = Trace()
            self._fresh = False
        return self.traces.setdefault(self.position, Trace())

    def generator(self) -> np.random.Generator:
        """Return the generator of the sample at hand, which gives the same numbers and writes them down."""
        trace = self.trace
        self._arrive()
        if self._generator is None and trace is not None:
            self._generator = Recording(super().generator().bit_generator, trace)
        return super().generator()


class Recording(np.random.Generator):
    """A generator that gives what any other would, and writes down what it was asked for.

    >>> trace = Trace()
    >>> rng = Recording(np.random.PCG64(0), trace)
    >>> rng.integers(6, size=2).tolist() == np.random.default_rng(0).integers(6, size=2).tolist()
    True
    >>> [str(draw) for draw in trace.draws]
    ['integers(6, size=2) = [5, 3]']
    """

    def __init__(self, bit_generator: Any, trace: Trace) -> None:
        super().__init__(bit_generator)
        self._trace = trace
        self._inner = False

    def __reduce__(self) -> tuple[Any, ...]:
        return np.random.Generator, (copy.deepcopy(self.bit_generator),)

    def __deepcopy__(self, memo: dict[int, Any]) -> np.random.Generator:
        return np.random.Generator(copy.deepcopy(self.bit_generator))


def _recorded(name: str, draw: Callable[..., Any], rng: Recording, /, *args: Any, **kwargs: Any) -> Any:
    if rng._inner:  # one method calls another
        return draw(rng, *args, **kwargs)
    rng._inner = True
    try:
        value = draw(rng, *args, **kwargs)
    finally:
        rng._inner = False
    asked = [*map(shown, args), *(f"{key}={shown(given)}" for key, given in kwargs.items())]
    by = sys._getframe(2).f_code.co_qualname
    given = args[0] if value is None and args else value  # `shuffle` changes what it is given
    rng._trace.note(Draw(by, f"{name}({', '.join(asked)})", copy.deepcopy(given)))
    return value


def _method(name: str) -> Callable[..., Any]:
    draw = getattr(np.random.Generator, name)

    def method(self: Recording, *args: Any, **kwargs: Any) -> Any:
        return _recorded(name, draw, self, *args, **kwargs)

    return method


for _name in dir(np.random.Generator):
    if not _name.startswith("_") and _name not in ("bit_generator", "spawn"):
        setattr(Recording, _name, _method(_name))


def shown(value: Any) -> str:
    """Return a value in a few letters.

    >>> shown(0.123456789), shown(np.arange(3)), shown(np.zeros((40, 30))), shown({"a": 1})
    ('0.1235', '[0, 1, 2]', 'float64 array of (40, 30)', "{'a': 1}")
    """
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    if isinstance(value, np.ndarray):
        if value.size > 8:
            return f"{value.dtype} array of {value.shape}"
        return "[" + ", ".join(map(shown, value.tolist())) + "]" if value.ndim else shown(value.item())
    if isinstance(value, np.generic):
        return shown(value.item())
    text = " ".join(repr(value).split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def name_of(transform: Any) -> str:
    """Return how a transform is called, with those of its settings that are not the usual ones.

    >>> from headrace import RandomResizedCrop
    >>> name_of(RandomResizedCrop(32)), name_of(partial(round, ndigits=2)), name_of(abs)
    ('RandomResizedCrop((32, 32))', 'round', 'abs')
    """
    if isinstance(transform, partial):
        return name_of(transform.func)
    if isinstance(transform, WithKinds):
        return name_of(transform.transform)
    if isinstance(transform, GeometricTransform) and len(transform.unpacked()) > 1:  # resampled together
        return " + ".join(map(name_of, transform.unpacked()))
    if is_dataclass(transform) and not isinstance(transform, type):
        settings = []
        for one in fields(transform):
            value = getattr(transform, one.name)
            if one.init and one.repr and (one.default is MISSING or value != one.default):
                settings.append(shown(value) if not one.kw_only else f"{one.name}={shown(value)}")
        return f"{type(transform).__qualname__}({', '.join(settings)})"
    if isinstance(transform, Transform):
        named = ", ".join(f"{name}={shown(value)}" for name, value in transform.settings().items())
        return f"{type(transform).__qualname__}({named})"
    return getattr(transform, "__qualname__", type(transform).__qualname__)
