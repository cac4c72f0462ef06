"""What the whole batches of a dataset are made of, known before a batch is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Columns:
    """The arrays of a whole batch: their dtypes, the shapes of their rows, and how a batch holds them.

    >>> import numpy as np
    >>> columns = Columns.of([np.zeros((8, 3), np.float32), np.zeros(8, np.int64)])
    >>> columns.rows
    ((dtype('float32'), (3,)), (dtype('int64'), ()))
    >>> columns == Columns.of([np.ones((2, 3), np.float32), np.ones(2, np.int64)])
    True

    A batch is a list of the arrays; the array by itself where it is ``bare``; a dict where there are ``names``.
    """

    rows: tuple[tuple[np.dtype[Any], tuple[int, ...]], ...]
    names: tuple[Hashable, ...] | None = None
    bare: bool = False

    @classmethod
    def of(cls, batch: Any) -> Columns | None:
        """Return the columns of a batch; None for one that is no array, and no list or dict of arrays."""
        if isinstance(batch, Mapping):
            names, arrays = tuple(batch), list(batch.values())
        else:
            names, arrays = None, [batch] if isinstance(batch, np.ndarray) else batch
        if not isinstance(arrays, list | tuple) or not arrays:
            return None
        if not all(isinstance(array, np.ndarray) and array.ndim for array in arrays):
            return None
        return cls.beside(arrays, names=names, bare=isinstance(batch, np.ndarray))

    @classmethod
    def beside(
        cls, arrays: Iterable[NDArray[Any]], *, names: tuple[Hashable, ...] | None = None, bare: bool = False
    ) -> Columns:
        """Return the columns of arrays whose first axis counts samples."""
        return cls(tuple((array.dtype, array.shape[1:]) for array in arrays), names, bare)

    def arrays(self, batch: Any) -> Sequence[NDArray[Any]]:
        """Return the arrays of a batch that has these columns."""
        if self.bare:
            return [batch]
        return batch if self.names is None else list(batch.values())

    def batch(self, arrays: Sequence[NDArray[Any]]) -> Any:
        """Put arrays together to a batch."""
        if self.bare:
            return arrays[0]
        return list(arrays) if self.names is None else dict(zip(self.names, arrays, strict=True))
