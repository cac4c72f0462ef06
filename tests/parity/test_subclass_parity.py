"""Loaders that libraries make of torch's by subclassing it: run on torch and on headrace.torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")
import torch.utils.data as theirs  # noqa: E402

import headrace.torch as ours  # noqa: E402
from headrace.errors import ArgumentError  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

libraries = pytest.mark.parametrize("library", [theirs, ours], ids=["torch", "headrace"])


class Repeat:
    """Goes through a sampler for ever."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from iter(self.sampler)


class Stretched:
    """Gives what a sampler gives, for ever, with its length."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from iter(self.sampler)


def by_object_setattr(library: Any) -> Any:
    """Build the loader of ultralytics and yolov5, which writes past the loader's own lock."""

    class Endless(library.DataLoader):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            object.__setattr__(self, "batch_sampler", Repeat(self.batch_sampler))
            self.iterator = super().__iter__()

        def __len__(self) -> int:
            return len(self.batch_sampler.sampler)

        def __iter__(self) -> Iterator[Any]:
            for _ in range(len(self)):
                yield next(self.iterator)

    return Endless


def by_opening_the_lock(library: Any) -> Any:
    """Build the loader of timm, which opens torch's lock, replaces the sampler, and closes it."""

    class MultiEpochs(library.DataLoader):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._DataLoader__initialized = False
            if self.batch_sampler is None:
                self.sampler = Stretched(self.sampler)
            else:
                self.batch_sampler = Stretched(self.batch_sampler)
            self._DataLoader__initialized = True
            self.iterator = super().__iter__()

        def __len__(self) -> int:
            return len(self.sampler) if self.batch_sampler is None else len(self.batch_sampler.sampler)

        def __iter__(self) -> Iterator[Any]:
            for _ in range(len(self)):
                yield next(self.iterator)

    return MultiEpochs


@libraries
@pytest.mark.parametrize("make", [by_object_setattr, by_opening_the_lock])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_replaced_batch_sampler_is_read(library: Any, make: Any, workers: int) -> None:
    """Go through epoch after epoch with one iterator, over a sampler that never ends."""
    loader = make(library)(list(range(6)), 2, num_workers=workers)
    assert [[batch.tolist() for batch in loader] for _ in range(3)] == [[[0, 1], [2, 3], [4, 5]]] * 3
    del loader.iterator


@libraries
def test_a_replaced_sampler_is_read_where_samples_come_one_by_one(library: Any) -> None:
    """Do the same with ``batch_size=None``."""
    loader = by_opening_the_lock(library)([1, 2, 3], None)
    assert [list(loader) for _ in range(2)] == [[1, 2, 3]] * 2
    del loader.iterator


@libraries
def test_the_lock_is_closed_again(library: Any) -> None:
    """Refuse another sampler after the subclass has closed the lock."""
    loader = by_opening_the_lock(library)([1, 2, 3], 2)
    with pytest.raises(ValueError, match="should not be set after"):
        loader.batch_sampler = [[0]]
    del loader.iterator


def test_ranks_refuse_a_replaced_sampler() -> None:
    """Say that ranks share no order but the loader's own, instead of giving every rank everything."""
    loader = ours.DataLoader(list(range(6)), 2, seed=0, rank=0, world_size=2)
    object.__setattr__(loader, "batch_sampler", [[0, 1]])
    with pytest.raises(ArgumentError, match="pass the sampler to the constructor"):
        iter(loader)


class UnknownLength(theirs.IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(4))

    def __len__(self) -> int:
        raise ValueError("unknown before the index is read")


class Endless(theirs.Dataset[int]):
    def __len__(self) -> int:
        return 10**20

    def __getitem__(self, index: int) -> int:
        return index


@libraries
def test_a_length_that_nobody_needs_is_not_asked_for(library: Any) -> None:
    """Read a stream whose length is an error, and what a sampler says of a dataset longer than any."""
    assert [batch.tolist() for batch in library.DataLoader(UnknownLength(), 2)] == [[0, 1], [2, 3]]
    assert [batch.tolist() for batch in library.DataLoader(Endless(), 2, sampler=[1, 2])] == [[1, 2]]
