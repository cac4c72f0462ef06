"""`Seeded`: transforms of other libraries, with their randomness keyed to the sample."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import kind_of, shown
from headrace.context import seeds
from headrace.errors import ArgumentTypeError
from headrace.interop.held import reached, takes_a_seed
from headrace.transforms.base import Transform

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _Copies(threading.local):
    """Each thread's copies of transforms that hold generators of their own."""

    def __init__(self) -> None:
        self.of: dict[int, tuple[Any, Any]] = {}


_copies = _Copies()


class _Held:
    """The transforms that a function holds and that take a seed: found in each process by itself."""

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: list[Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Held, ()


@dataclass(frozen=True, slots=True)
class Seeded(Transform):
    """Apply a transform of another library, so that what it draws depends on the sample's place alone.

    >>> import random
    >>> import headrace
    >>> from headrace.transforms import Seeded
    >>> noisy = headrace.ArrayDataset([0.0] * 4).map(Seeded(lambda x: x + random.random()))
    >>> one, other = (list(headrace.DataLoader(noisy, size, seed=1)) for size in (1, 4))
    >>> [batch[0] for batch in one] == other[0].tolist()
    True

    Before each call, the global generators of ``random``, NumPy and torch (if it is loaded) are seeded by the sample's
    generator; they are given back after it. So torchvision's transforms, which draw from torch's, give the same on any
    worker, with any batch size, and in a replay. Without `Seeded`, loaders seed these generators once for a batch.

    A transform with ``set_random_seed``, as albumentations' have, is seeded by it, and called by keywords: with the
    items of a mapping, or with the image of an array or of a tuple. Others are called with the sample. A function that
    calls such transforms has them seeded too, where they are its variables, global or not, or lie in an attribute:
    ``Seeded(lambda image: chain(image=image)["image"])``. A transform that is made in the call is not found.

    Threads take turns, because the generators belong to the whole process: processes are faster. Raises
    `ArgumentTypeError` for what cannot be called.
    """

    function: Callable[..., Any]
    _own: bool = field(init=False, repr=False, compare=False)
    _held: _Held = field(init=False, repr=False, compare=False, default_factory=_Held)

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ArgumentTypeError(
                f"Seeded got {shown(self.function)}, {kind_of(self.function)}, which cannot be called",
                found=self.function,
                expected="a function of one sample, or a transform of another library",
                cure="Pass the transform itself.",
            )
        object.__setattr__(self, "_own", takes_a_seed(self.function))

    def seeds_held(self) -> list[Any]:
        """Return what it seeds of what its function holds: no warning is needed of the generators in it."""
        if self._own:
            return [self.function]
        if self._held.found is None:
            self._held.found = [one for _, one in reached(self.function, "", takes_a_seed)]
        return self._held.found

    def apply(self, sample: Any, rng: Any) -> Any:
        """Return the sample transformed."""
        words = self._words(rng)
        seed = int(words[0] >> 1)
        if self._own:
            return _by_keywords(self._seeded(seed), sample)
        with seeds.SEEDING:
            before = seeds.global_states()
            seeds.seed_globals(words, before)
            for one in self.seeds_held():
                one.set_random_seed(seed)
            try:
                return self.function(sample)
            finally:
                seeds.restore_globals(before)

    def drawn(self, sample: Any, rng: np.random.Generator) -> dict[str, Any]:  # noqa: ARG002
        """Return the seed of what takes one."""
        return {"seed": int(self._words(rng)[0] >> 1)} if self.seeds_held() else {}

    def _words(self, rng: Any) -> NDArray[np.uint32]:
        """Draw the numbers that all generators are seeded with."""
        words: NDArray[np.uint32] = rng.integers(0, 1 << 32, 8, dtype=np.uint32)
        return words

    def _seeded(self, seed: int) -> Any:
        """Return this thread's copy of the transform, whose own generators are seeded."""
        held = _copies.of.get(id(self))
        if held is None or held[0] is not self:
            held = _copies.of[id(self)] = (self, copy.deepcopy(self.function))
        transform: Any = held[1]
        transform.set_random_seed(seed)
        return transform


def _by_keywords(transform: Any, sample: Any) -> Any:
    if isinstance(sample, Mapping):
        return transform(**sample)
    if isinstance(sample, tuple | list) and sample:
        return type(sample)([transform(image=sample[0])["image"], *sample[1:]])
    return transform(image=sample)["image"]
