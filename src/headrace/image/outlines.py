"""Masks from what annotations hold: outlines (polygons) and run lengths, by the rules of COCO's tools.

Run lengths count pixels down the columns, first the zeros before the first one. An outline is drawn on a grid that is
five times as fine, and each column of pixels is filled between the crossings of the outline with its middle.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import kind_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Mask = NDArray[np.uint8]

FINE = 5
"""Places of the fine grid along a pixel."""
AT_ONCE = 1 << 18
"""Places of outlines that are worked on at once."""
MOST_CHARACTERS = 12
"""Of one number in compressed run lengths: 60 bits."""


def run_lengths_mask(counts: str | bytes | Sequence[int], height: int, width: int) -> Mask:
    """Return the mask ``(height, width)`` of run lengths: a list of numbers, or COCO's compressed text.

    >>> run_lengths_mask([1, 2, 3], 2, 3)
    array([[0, 1, 0],
           [1, 0, 0]], dtype=uint8)
    >>> run_lengths_mask("123", 2, 3)
    array([[0, 1, 0],
           [1, 0, 0]], dtype=uint8)

    Raises ValueError for counts that do not fill the mask exactly: nothing larger than the mask is allocated.
    """
    if isinstance(counts, (str, bytes)):
        runs = _from_text(counts, height * width)
    else:
        runs = _from_numbers(counts, height * width)
    if runs.size and (runs.min() < 0 or runs.max() > height * width):
        raise ValueError(f"a run of {runs.min() if runs.min() < 0 else runs.max()} pixels")
    if int(runs.sum()) != height * width:
        raise ValueError(f"runs of {int(runs.sum())} pixels for a mask of {height * width}")
    values = np.zeros(len(runs), np.uint8)
    values[1::2] = 1
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)


def run_lengths(mask: NDArray[Any]) -> list[int]:
    """Return the run lengths of a mask ``(H, W)``: the inverse of `run_lengths_mask`.

    >>> run_lengths(np.array([[0, 1, 0], [1, 0, 0]]))
    [1, 2, 3]
    """
    flat = (np.asarray(mask) != 0).T.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = [0, *changes.tolist(), len(flat)]
    runs = np.diff(ends).tolist()
    return [0, *runs] if len(flat) and flat[0] else runs


def box_around(mask: NDArray[Any]) -> list[int]:
    """Return the box x1, y1, x2, y2 around the pixels of a mask ``(H, W)`` that are set: there must be one.

    >>> box_around(np.array([[0, 0, 0], [0, 1, 1]]))
    [1, 1, 3, 2]
    """
    rows, columns = (np.flatnonzero((mask != 0).any(axis=axis)) for axis in (1, 0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def polygons_mask(polygons: Sequence[Any], height: int, width: int) -> Mask:
    """Return the mask ``(height, width)`` of an object that one or more outlines surround.

    >>> polygons_mask([[0, 0, 2, 0, 2, 1, 0, 1]], 2, 3)
    array([[1, 1, 0],
           [0, 0, 0]], dtype=uint8)

    An outline is ``[x1, y1, x2, y2, …]`` in pixels, where the whole image reaches from 0 to width. Raises ValueError
    for outlines of fewer than three points, of other than finite numbers, and far outside the image.
    """
    mask = np.zeros((width, height), np.uint8)
    for polygon in polygons:
        mask |= _filled(points_of(polygon, height, width), height, width)
    return np.ascontiguousarray(mask.T)


def points_of(polygon: Any, height: int, width: int) -> NDArray[np.float64]:
    """Return the points ``(K, 2)`` of an outline ``[x1, y1, x2, y2, …]``; raises ValueError as `polygons_mask` does.

    >>> points_of([0, 0, 2, 0, 2, 1], 2, 3).tolist()
    [[0.0, 0.0], [2.0, 0.0], [2.0, 1.0]]
    """
    try:
        values = np.array(polygon, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("a polygon of something else than numbers") from None
    if values.ndim != 1 or len(values) % 2 or len(values) < 6:
        raise ValueError(f"a polygon of {values.size} numbers instead of x and y for three points or more")
    if not np.isfinite(values).all():
        raise ValueError("a polygon with NaN or infinity")
    far = max(height, width)
    if values.min() < -far or values.max() > 2 * far:
        raise ValueError(f"a polygon point far outside the image of {width} x {height} pixels")
    return values.reshape(-1, 2)


def _from_numbers(counts: Sequence[int], most: int) -> NDArray[np.int64]:
    if not isinstance(counts, (list, tuple, np.ndarray)):
        raise ValueError(f"run lengths that are {kind_of(counts)}")  # noqa: TRY004  bad data, no bad call
    for count in counts:
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or not 0 <= count <= most:
            raise ValueError(f"a run of {count!r} pixels in a mask of {most}")
    return np.array(counts, np.int64)


def _from_text(text: str | bytes, most: int) -> NDArray[np.int64]:
    """Read numbers of five bits a character; each but the first three is the difference from the one two before."""
    data = text.encode("ascii", "replace") if isinstance(text, str) else text
    codes = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    if not len(codes):
        return codes
    if codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("compressed run lengths with a character that has no meaning there")
    ends = np.flatnonzero(codes & 32 == 0) + 1
    begins = np.concatenate([[0], ends[:-1]])
    if (ends - begins).max() > MOST_CHARACTERS:
        raise ValueError("a compressed run length of more than 60 bits")
    places = np.arange(len(codes)) - np.repeat(begins, ends - begins)
    numbers: NDArray[np.int64] = np.add.reduceat((codes & 31) << (5 * places), begins)
    negative = codes[ends - 1] & 16 != 0
    numbers[negative] -= np.int64(1) << (5 * (ends - begins)[negative])
    if np.abs(numbers).max() > most:
        raise ValueError(f"a run of more pixels than the {most} of the mask")
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def _filled(points: NDArray[np.float64], height: int, width: int) -> Mask:
    """Return the inside of one outline, transposed: ``(width, height)``."""
    fine: NDArray[np.int64] = np.trunc(FINE * points + 0.5).astype(np.int64)
    begins, ends = fine, np.roll(fine, -1, axis=0)
    lengths = np.abs(ends - begins).max(axis=1)
    where = np.cumsum(lengths) // AT_ONCE
    cuts = [0, *(np.flatnonzero(np.diff(where)) + 1).tolist(), len(fine)]
    parts = [_crossings(begins[a:b], ends[a:b], height, width) for a, b in pairwise(cuts)]
    changes = np.sort(np.concatenate(parts))
    runs = np.diff(changes, prepend=0, append=height * width)
    values = (np.arange(len(runs)) & 1).astype(np.uint8)
    return np.repeat(values, runs).reshape(width, height)


def _crossings(begins: NDArray[np.int64], ends: NDArray[np.int64], height: int, width: int) -> NDArray[np.int64]:
    """Return where lines of the fine grid cross the middles of columns, as places in the transposed mask."""
    along = np.abs(ends - begins)
    steep = along[:, 0] < along[:, 1]
    lengths = np.where(steep, along[:, 1], along[:, 0])
    # Each line is drawn from its low end along its longer side, so that both directions give the same places.
    low = np.where(steep, begins[:, 1] > ends[:, 1], begins[:, 0] > ends[:, 0])[:, np.newaxis]
    begins, ends = np.where(low, ends, begins), np.where(low, begins, ends)
    line = np.repeat(np.arange(len(begins)), lengths + 1)
    firsts = np.cumsum(lengths + 1) - lengths - 1
    step = np.arange(len(line)) - firsts[line]
    longer, shorter = np.where(steep, 1, 0), np.where(steep, 0, 1)
    rows = np.arange(len(begins))
    slope = (ends[rows, shorter] - begins[rows, shorter]) / np.maximum(lengths, 1)
    far = begins[rows, longer][line] + step
    near = np.trunc(begins[rows, shorter][line] + slope[line] * step + 0.5).astype(np.int64)
    x, y = np.where(steep[line], near, far), np.where(steep[line], far, near)
    left, right = x[:-1], x[1:]
    at = np.minimum(left, right)
    crosses = (line[:-1] == line[1:]) & (left != right) & (at % FINE == FINE // 2) & (at >= 0)
    column = at[crosses] // FINE
    row = np.ceil((np.minimum(y[:-1], y[1:])[crosses] + 0.5) / FINE - 0.5)
    row = np.clip(row, 0, height).astype(np.int64)
    inside = column < width
    places: NDArray[np.int64] = column[inside] * height + row[inside]
    return places
