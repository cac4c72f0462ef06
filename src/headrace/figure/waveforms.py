"""Sounds of a batch as curves on a contact sheet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEIGHT, WIDTH = 120, 240
_PAPER, _AXIS, _CURVE = (248, 249, 251), (205, 210, 218), (38, 110, 190)


def waveform(sound: NDArray[Any], peak: float = 0) -> NDArray[np.uint8]:
    """Draw a sound, ``(T,)`` or ``(channels, T)``, as an image: each column spans its smallest to its largest value.

    >>> image = waveform(np.array([0.0, 1, 0, -1] * 60))
    >>> image.shape, image[0, 0].tolist(), image[60, 2].tolist()
    ((120, 240, 3), [248, 249, 251], [38, 110, 190])

    ``peak`` is the value at the edge; by default the largest absolute value. Channels are drawn below each other.
    """
    channels = np.nan_to_num(np.atleast_2d(np.asarray(sound, np.float64)))
    peak = peak or float(np.abs(channels).max(initial=0)) or 1.0
    rows = HEIGHT // len(channels)
    return np.concatenate([_channel(one / peak, rows, pad=HEIGHT - rows * len(channels)) for one in channels])[:HEIGHT]


def _channel(values: NDArray[np.float64], height: int, *, pad: int) -> NDArray[np.uint8]:
    edges = np.linspace(0, len(values), WIDTH + 1).astype(int)
    begins = np.minimum(edges[:-1], len(values) - 1)
    # A column also has the next one's first value, so that the curve has no gaps.
    following = np.append(values[begins[1:]], values[-1])
    low = np.minimum(np.minimum.reduceat(values, begins), following)
    high = np.maximum(np.maximum.reduceat(values, begins), following)
    middle = (height - 1) / 2
    top, bottom = (np.rint(middle - edge.clip(-1, 1) * (middle - 2)) for edge in (high, low))
    y = np.arange(height + pad)[:, None]
    image = np.full((height + pad, WIDTH, 3), _PAPER, np.uint8)
    image[int(middle)] = _AXIS
    image[(y >= top) & (y <= bottom)] = _CURVE
    return image
