"""Keeps samples of a user's dataset from being read out of a memory-mapped file that was cut short."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.interop import torch_state
from headrace.storage import mapped_samples
from headrace.storage.page_faults import take, unread

if TYPE_CHECKING:
    from headrace.storage.mapped_samples import MappedFile


LOOKS = 3
"""Batches at the beginning of an epoch in which files are looked for: looking in each batch would take too long."""


class MapGuard:
    """Checks the memory-mapped files among a dataset's attributes before and after samples are made.

    Code of the dataset's that reads the map itself, and not only returns a row of it, gets zeros for what was cut off;
    `settle` then raises.
    """

    __slots__ = ("_dataset", "_epoch", "_looks", "files")

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.files: list[MappedFile] = []
        self._epoch, self._looks = -1, 0

    def __reduce__(self) -> tuple[Any, ...]:
        return MapGuard, (self._dataset,)

    def look(self, epoch: int = 0) -> None:
        """Look for the files, before the first batches of an epoch: a dataset may open them late."""
        if epoch != self._epoch:
            self._epoch, self._looks = epoch, 0
        if self._looks < LOOKS:
            self._looks += 1
            self.files = mapped_samples.files_of(self._dataset)

    def check(self, *keys: Any) -> None:
        """Raise `BadFile` if one of the files was cut short; the first key is that of the sample at hand."""
        if self.files and keys:
            mapped_samples.check(self.files, f"sample {str(keys[0])[:40]}")

    def settle(self, sample: Any, key: Any, fault: int | None = None, *, arrays: bool = True) -> Any:
        """Return a sample whose tensors lie in memory, and its arrays too; raise `BadFile` if they cannot be read.

        ``fault`` is what `page_faults.take` has given for it. Not ``arrays``: they are copied when they are written to
        their rows of a batch.
        """
        if address := take() if fault is None else fault:
            raise unread(address, "sample ", key)
        if self.files:
            sample = mapped_samples.parts_in_memory(sample, torch_state.in_memory)
        return mapped_samples.parts_in_memory(sample) if arrays else sample

    def settle_all(self, samples: list[Any], key: Any, *, arrays: bool) -> list[Any]:
        """Do what `settle` does for samples that were made in one call; the first of them has the key."""
        fault = take()
        if fault or self.files:
            return [self.settle(sample, key, fault, arrays=arrays) for sample in samples]
        return list(map(mapped_samples.parts_in_memory, samples)) if arrays else samples
