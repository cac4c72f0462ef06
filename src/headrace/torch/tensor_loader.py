"""The loader whose batches are tensors."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.utils.data
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

from headrace import loader as numpy_loader
from headrace.run.adapter import Adapter
from headrace.torch.device import pinning
from headrace.torch.from_numpy import as_tensors
from headrace.torch.pipes import received
from headrace.torch.tensor_collate import default_collate, default_convert, reader

T_co = TypeVar("T_co", covariant=True)


def _takes_generator(generator: Any) -> bool:
    return generator is None or isinstance(generator, torch.Generator)


class DataLoader(numpy_loader.DataLoader[T_co], torch.utils.data.DataLoader[T_co]):
    """`headrace.DataLoader` with batches of tensors: the arguments, and what they mean, are the same.

    >>> loader = DataLoader(range(10), batch_size=4, shuffle=True, seed=0)
    >>> [batch.dtype for batch in loader]
    [torch.int64, torch.int64, torch.int64]

    Tensors share the memory that the workers wrote, which is used again once they are dropped. With ``pin_memory`` a
    thread copies batches to page-locked memory ahead of the loop, where there is an accelerator. It is a
    ``torch.utils.data.DataLoader`` to whoever asks; only ours is run.
    """

    _adapter = Adapter(
        collate=default_collate,
        convert=default_convert,
        finish=as_tensors,
        reader=reader,
        random_sampler=RandomSampler,
        sequential_sampler=SequentialSampler,
        batch_sampler=BatchSampler,
        # What torch has there, so that `_auto_collation` and others' code find it.
        stream_sampler=torch.utils.data.dataloader._InfiniteConstantSampler,
        takes_generator=_takes_generator,
        receive=received,
        place=pinning,
    )

    multiprocessing_context: Any = None
    """torch has a property here, which would hide the loader's own attribute."""
    _iterator = None
    """torch's name for the iterator that persistent workers share; Lightning asks for it. Ours share none."""

    @property
    def _dataset_kind(self) -> int:
        # torch's name too: libraries tell by it how the dataset is read.
        kinds = torch.utils.data.dataloader._DatasetKind
        return int(kinds.Iterable if self._session.settings.streams else kinds.Map)


class StatefulDataLoader(DataLoader[T_co]):
    """`DataLoader` under the name that torchdata gives to the one that has a state, with the argument that its has.

    >>> loader = StatefulDataLoader(range(6), batch_size=2, snapshot_every_n_steps=10)
    >>> batches = iter(loader)
    >>> _ = next(batches)
    >>> resumed = StatefulDataLoader(range(6), batch_size=2)
    >>> resumed.load_state_dict(loader.state_dict())
    >>> list(resumed)
    [tensor([2, 3]), tensor([4, 5])]

    ``snapshot_every_n_steps`` says nothing here: the state is exact at every step, and costs a few numbers.
    """

    def __init__(self, *given: Any, snapshot_every_n_steps: int = 1, **named: Any) -> None:
        super().__init__(*given, **named)
        self.snapshot_every_n_steps = snapshot_every_n_steps
