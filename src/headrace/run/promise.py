"""The length that an iterable dataset promised, and the warning for one that gives more."""

from __future__ import annotations

import warnings
from typing import Any

from headrace.interop.user_line import user_line


class Promise:
    """Remembers what ``len(loader)`` said of an iterable dataset, and warns where a loop gives more."""

    __slots__ = ("_dataset", "_promised")

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._promised: tuple[int, int] | None = None

    @property
    def reported(self) -> int | None:
        """How many samples the dataset promised; None if nobody asked."""
        return None if self._promised is None else self._promised[1]

    def forget(self) -> None:
        """Hold no loop to what was promised before."""
        self._promised = None

    def made(self, batches: int) -> None:
        """Note how many batches were promised."""
        self._promised = batches, len(self._dataset)

    def check(self, batches: int, samples: int) -> None:
        """Warn where more has come than was promised."""
        if self._promised is None:
            return
        promised, reported = self._promised
        # Copies that each end with a short batch may give more batches than were promised, of no more samples.
        if batches > promised and max(batches, samples) > reported:
            warnings.warn(
                f"Length of IterableDataset {self._dataset!r} was reported to be {reported} (when accessing "
                f"len(dataloader)), but {max(batches, samples)} samples have been fetched. For multiprocessing "
                "data-loading, this could be caused by copies that each give everything: where each worker reads a "
                "copy, the dataset should ask get_worker_info for its part, and __len__ count all parts together",
                UserWarning,
                stacklevel=user_line(),
            )
