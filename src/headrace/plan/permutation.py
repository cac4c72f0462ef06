"""Permutations of any size up to 2**63, computed position by position, in constant memory.

A permutation is a block cipher for a domain of any size. A position is split into two digits of one base. Each round
adds a keyed hash of one digit to the other: a Feistel network (Luby and Rackoff, "How to construct pseudorandom
permutations from pseudorandom functions", 1988) on numbers modulo the base (Black and Rogaway, "Ciphers with arbitrary
finite domains", CT-RSA 2002). A result outside the size goes through the network again (cycle walking, from the same
paper). That is rare, because the square of the base is barely larger than the size. Mitchell et al., "Bandwidth-optimal
random shuffling for GPUs" (ACM TOPC 2022), shuffle with such ciphers. Our tests follow theirs. The cipher is not
secure. The reasons for this choice: docs/decisions/0009-shuffling-without-memory.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace._native import extension
from headrace.context.seeds import Key, Purpose, generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[np.uint64]

ROUNDS = 10
"""Our tests of small sizes fail with 4 and 6 rounds and pass with 8; two more are a margin."""

CHUNK = 2**13
"""Positions per chunk, so that intermediate results stay in the CPU cache."""

EXACT = 2**48
"""Larger sizes use a power of two as base: 32 hashed bits are uniform over it, or over much smaller bases."""

_HALF = np.uint64(32)


class Permutations:
    """A family of permutations, fixed by (key, epoch, stream); each has a size and a number in the family.

    >>> from headrace.context.seeds import key_of
    >>> family = Permutations(key_of(0), epoch=0)
    >>> sorted(family.at(np.arange(5), 5).tolist())
    [0, 1, 2, 3, 4]
    >>> trillion = 10**12
    >>> one, other = family.at(np.array([0, trillion - 1]), trillion).tolist()
    >>> 0 <= one < trillion, 0 <= other < trillion, one == other
    (True, True, False)

    ``stream`` separates several families of one plan.
    """

    __slots__ = ("_numbers", "_rounds")

    def __init__(self, key: Key, epoch: int, stream: int = 0) -> None:
        words = generator(key, Purpose.ORDER, epoch, stream).integers(0, 2**64, (ROUNDS + 1, 3), dtype=np.uint64)
        words[:, :2] |= np.uint64(1)  # odd multipliers lose no bit of their operand
        self._rounds = words[:-1]
        self._numbers = words[-1]

    def at(
        self,
        positions: NDArray[np.integer[Any]],
        size: int | NDArray[np.integer[Any]],
        part: int | NDArray[np.integer[Any]] = 0,
        turn: int | NDArray[np.integer[Any]] = 0,
    ) -> NDArray[np.int64]:
        """Return the values at positions of permutation (part, turn) of 0..size-1.

        The other arguments are one number, or an array with one number for each position. Positions must be from 0 to
        size - 1, and sizes from 1 to 2**63; this is not checked.
        """
        places, sizes, tweak = _words(positions), _words(size), self._tweak(_words(part), _words(turn))
        bases = _base(sizes)
        found = np.empty(len(places), np.int64)
        for start in range(0, len(places), CHUNK):
            here = slice(start, start + CHUNK)
            found[here] = self._cycle_walked(places[here], _cut(sizes, here), _cut(bases, here), _cut(tweak, here))
        return found

    def _cycle_walked(self, places: Words, sizes: Words, bases: Words, tweak: Words) -> Words:
        found = self._passed(places, bases, tweak)
        outside = np.flatnonzero(found >= sizes)
        while len(outside):
            again = self._passed(found[outside], _cut(bases, outside), _cut(tweak, outside))
            found[outside] = again
            outside = outside[again >= _cut(sizes, outside)]
        return found

    def _passed(self, places: Words, bases: Words, tweak: Words) -> Words:
        """Apply the network once to each position; its domain is the square of the base."""
        if extension is not None:
            sent = places.copy()
            extension.permute(sent, self._rounds, bases, tweak)
            return sent
        left = places // bases
        right = places - left * bases
        spare = np.empty_like(left)
        for first, second, addend in self._rounds:
            hashed = right * first
            hashed += addend ^ tweak
            np.right_shift(hashed, _HALF, out=spare)
            hashed ^= spare
            hashed *= second
            # 32 bits as a fraction of 2**32, times the base: a number below the base (Lemire, "Fast random integer
            # generation in an interval", 2019).
            hashed >>= _HALF
            hashed *= bases
            hashed >>= _HALF
            left += hashed
            np.subtract(left, bases, out=spare)
            np.minimum(left, spare, out=left)  # back below the base: a negative number wraps to a large one
            left, right = right, left
        left *= bases
        left += right
        return left

    def _tweak(self, part: Words, turn: Words) -> Words:
        """Hash the number of a permutation in the family, with the finalizer of SplitMix64 (Steele et al., 2014)."""
        first, second, addend = self._numbers
        mixed: Words = part * first + turn * second + addend
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def _words(numbers: int | NDArray[np.integer[Any]]) -> Words:
    return np.atleast_1d(np.asarray(numbers, np.uint64))


def _cut(words: Words, here: slice | NDArray[np.intp]) -> Words:
    return words if len(words) == 1 else words[here]


def _base(sizes: Words) -> Words:
    """Return the base of the two digits; its square is at least the size.

    It is even, because sums modulo an odd number give only even permutations. It is at least 4, because two binary
    digits do not mix well enough in this number of rounds.
    """
    bases = (np.sqrt(sizes.astype(np.float64)).astype(np.uint64) + np.uint64(2)) & ~np.uint64(1)
    digits = (np.frexp((sizes - np.uint64(1)).astype(np.float64))[1] + 1) // 2
    bases = np.where(sizes > EXACT, np.uint64(1) << digits.astype(np.uint64), bases)
    least: Words = np.maximum(bases, np.uint64(4))
    return least
