"""The loader whose batches are tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.utils.data
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler
from torch.utils.data._utils import collate as torchs

from headrace import loader as numpy_loader
from headrace.errors import ArgumentError
from headrace.run import arguments
from headrace.run.adapter import Adapter
from headrace.torch import accelerated, overrides
from headrace.torch.device import pinning
from headrace.torch.from_numpy import as_tensors
from headrace.torch.iterator_names import like_torchs
from headrace.torch.pipes import received
from headrace.torch.tensor_collate import default_collate, default_convert, reader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.run.session import Session

T_co = TypeVar("T_co", covariant=True)


def _takes_generator(generator: Any) -> bool:
    return generator is None or isinstance(generator, torch.Generator)


class _Layout(torch.utils.data.DataLoader[T_co]):
    """The first base decides how objects lie in memory: as torch's do, so that `patch` can make one of them ours."""


class DataLoader(_Layout[T_co], numpy_loader.DataLoader[T_co], torch.utils.data.DataLoader[T_co]):
    """`headrace.DataLoader` with batches of tensors: the arguments, and what they mean, are the same.

    >>> loader = DataLoader(range(10), batch_size=4, shuffle=True, seed=0)
    >>> [batch.dtype for batch in loader]
    [torch.int64, torch.int64, torch.int64]

    Tensors use the memory that the workers wrote. Once a batch is dropped, its memory is used for a later one. With
    ``pin_memory`` and an accelerator, a thread copies batches to page-locked memory ahead of the loop. ``isinstance``
    says that it is a ``torch.utils.data.DataLoader``, but none of torch's code runs.
    """

    _adapter = Adapter(
        collate=default_collate,
        convert=default_convert,
        # timm and others pass what is the default.
        defaults=((torchs.default_collate, default_collate), (torchs.default_convert, default_convert)),
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

    _iterator = None
    """torch's name for the iterator that persistent workers share; Lightning asks for it. Ours share none."""

    def __iter__(self) -> Iterator[T_co]:
        """Begin a loop over the next epoch, by way of the method ``_get_iterator`` that subclasses override."""
        return self._get_iterator()

    def _get_iterator(self) -> Iterator[T_co]:
        return like_torchs(super().__iter__())

    def check_worker_number_rationality(self) -> None:
        """Warn of more worker processes than there are CPUs, as the loader is made."""
        arguments.check_count(self._session.settings.kind, self.num_workers)

    def _check_count(self) -> None:
        self.check_worker_number_rationality()

    def _show(self, shown: dict[str, Any]) -> None:
        overrides.show(self, shown)

    def _current(self) -> Session:
        self._session.adopt(*overrides.samplers(self, self._session))
        return self._session

    @property
    def _is_accelerate_prepared(self) -> bool:
        # Only Accelerate asks, before it makes a loader of its own of this one.
        if "_is_accelerate_prepared" not in vars(self):
            accelerated.warn_of_loss(self)
            return False
        return bool(vars(self)["_is_accelerate_prepared"])

    @_is_accelerate_prepared.setter
    def _is_accelerate_prepared(self, value: bool) -> None:
        self.__dict__["_is_accelerate_prepared"] = value

    @property
    def multiprocessing_context(self) -> Any:
        """How processes start; torch has a property here too, which reads another attribute."""
        # Of all that it takes from a loader, Accelerate's skip_first_batches is alone in asking for this one.
        accelerated.warn_of_skipping(self)
        return vars(self).get("multiprocessing_context")

    @multiprocessing_context.setter
    def multiprocessing_context(self, value: Any) -> None:
        self.__dict__["multiprocessing_context"] = value

    @property
    def _dataset_kind(self) -> int:
        # torch's name too: libraries tell by it how the dataset is read.
        return overrides.kind_of_dataset(self._session.settings)

    @property
    def _IterableDataset_len_called(self) -> int | None:  # noqa: N802  torch's name
        return self._session.promise.reported

    @_IterableDataset_len_called.setter
    def _IterableDataset_len_called(self, value: int | None) -> None:  # noqa: N802
        if value is None:
            self._session.promise.forget()
        elif value != self._session.promise.reported:
            raise ArgumentError(
                f"_IterableDataset_len_called was set to {value}",
                found=value,
                expected="None, to hold no loop to what len() said before",
                cure="let len(dataset) say how many samples there are",
            )


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

    def __init__(self, *args: Any, snapshot_every_n_steps: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.snapshot_every_n_steps = snapshot_every_n_steps
