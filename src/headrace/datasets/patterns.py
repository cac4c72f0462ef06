"""Patterns with braces, such as names of shards have them."""

from __future__ import annotations

import re
from itertools import product
from typing import TYPE_CHECKING

from headrace.errors import ArgumentError
from headrace.storage.signed_urls import plain_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_EXPANDED = 1_000_000
"""Paths that the braces of a pattern may give."""


def braces(pattern: str) -> Iterable[str]:
    """Yield the paths of a pattern in which braces hold numbers from one to another, or words between commas.

    >>> list(braces("{a,b}-{08..09}"))
    ['a-08', 'a-09', 'b-08', 'b-09']
    """
    pieces = re.split(r"\{([^{}]*)\}", pattern)
    choices = [[piece] if number % 2 == 0 else _choices(piece) for number, piece in enumerate(pieces)]
    size = 1
    for each in choices:
        size *= len(each)
    if size > MOST_EXPANDED:
        raise ArgumentError(
            f"the pattern {plain_text(pattern)!r} gives {size:,} paths",
            found=plain_text(pattern),
            expected=f"at most {MOST_EXPANDED:,}",
            cure="Give the shards that exist, or a folder.",
        )
    return map("".join, product(*choices))


def _choices(inside: str) -> Sequence[str]:
    numbers = re.fullmatch(r"(\d{1,12})\.\.(\d{1,12})", inside)
    if numbers is None:
        return inside.split(",") if "," in inside else ["{" + inside + "}"]
    first, last = numbers.groups()
    span = range(int(first), int(last) + 1)
    if not span or len(span) > MOST_EXPANDED:
        raise ArgumentError(
            f"the braces {{{inside}}} give {len(span):,} numbers",
            found=inside,
            expected=f"1 to {MOST_EXPANDED:,}",
            cure="Write the smaller number first, such as {0000..0099}.",
        )
    return [str(number).zfill(len(first)) for number in span]
