"""Arrays as a dataset whose samples are always tuples, as torch's TensorDataset has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.datasets.arrays import ArrayDataset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headrace.context.memory import Empty
    from headrace.datasets.image_sources import Arrays


class TensorDataset(ArrayDataset):
    """An `ArrayDataset` whose samples are tuples even where there is one array: ``for (x,) in loader``.

    >>> from headrace import DataLoader, TensorDataset
    >>> dataset = TensorDataset(np.arange(6.0).reshape(3, 2))
    >>> dataset[1]
    (array([2., 3.]),)
    >>> for (x,) in DataLoader(dataset, batch_size=3):
    ...     print(x.shape)
    (3, 2)

    Takes arrays, and what turns into one. Raises `ArgumentError` as `ArrayDataset` does.
    """

    checks_maps = True
    _bare = False

    @property
    def tensors(self) -> tuple[NDArray[Any], ...]:
        """The arrays, by torch's name."""
        return self.arrays

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        """Return the tuple of rows at an index."""
        return tuple(self._row(number, index) for number in range(len(self.arrays)))

    def read_batch(self, keys: Sequence[int], *, empty: Empty = np.empty) -> list[NDArray[Any]]:
        """Gather the rows of these keys into lent memory: a list of arrays."""
        batch = super().read_batch(keys, empty=empty)
        return batch if isinstance(batch, list) else [batch]

    def native_source(self) -> Arrays:
        """Return the arrays: the first as the images, the others beside it."""
        return super().native_source()
