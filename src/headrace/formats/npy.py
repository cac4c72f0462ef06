"""Headers of `.npy` files: where the numbers of an array lie, and what they are.

Format: NEP 1, "A Simple File Format for NumPy Arrays".
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import BadFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headrace.formats.reader import ShardReader

MOST_HEADER = 1 << 16
"""Bytes in which a header must end."""


@dataclass(frozen=True, slots=True)
class ArraySpan:
    """An array in a file: where its numbers begin, their dtype, its shape, and whether its columns come first."""

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool = False

    def of(self, raw: NDArray[np.uint8]) -> NDArray[Any]:
        """Return the array as a view of the bytes of its file.

        >>> ArraySpan(2, np.dtype("<u2"), (2,)).of(np.arange(6, dtype=np.uint8)).tolist()
        [770, 1284]
        """
        size = math.prod(self.shape) * self.dtype.itemsize
        array = np.ndarray.view(raw[self.offset : self.offset + size], self.dtype)
        return array.reshape(self.shape[::-1]).T if self.fortran else array.reshape(self.shape)


def index(reader: ShardReader) -> ArraySpan:
    """Return the array of an open file; raises `BadFile` for a damaged one, and for Python objects."""
    try:
        return header(reader.read(0, min(reader.size, MOST_HEADER)), reader.size)
    except BadFile:
        raise
    except Exception as error:  # NumPy raises anything on strangers' bytes
        raise reader.damaged(f"cannot be read: {str(error)[:200]}", "a .npy file of numbers") from error


def header(data: bytes, size: int) -> ArraySpan:
    """Return what the first bytes of a file of ``size`` bytes say, as an array from its beginning on.

    Raises ValueError for damaged bytes, for a shape that does not fit the size, and for Python objects, which are
    pickled.
    """
    stream = io.BytesIO(data[:MOST_HEADER])
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the .npy format is not known")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    held = size - stream.tell()
    if dtype.hasobject or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != held:
        raise ValueError(f"it claims {shape} of {dtype}, and holds {held:,} bytes of data")
    return ArraySpan(stream.tell(), dtype, shape, fortran)
