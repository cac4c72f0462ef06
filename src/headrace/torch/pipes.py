"""torch's data pipes, read as streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.utils.data
from torch.utils.data import IterableDataset, get_worker_info

from headrace.context import seeds

if TYPE_CHECKING:
    from collections.abc import Iterator


# They are deprecated: no dataset is one where torch has them no more.
PIPES: Any = getattr(torch.utils.data, "IterDataPipe", ())


def received(dataset: Any, shuffle: bool | None) -> tuple[Any, bool | None]:
    """Return a data pipe, which shuffles itself, as a stream; any other dataset as it is."""
    if isinstance(dataset, PIPES):
        return _Piped(torch.utils.data.graph_settings.apply_shuffle_settings(dataset, shuffle=shuffle)), None
    return dataset, shuffle


class _Piped(IterableDataset[Any]):
    """A data pipe (``torch.utils.data.datapipes``): each worker's copy gets its part, and all get the same seed."""

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        rank, ranks = 0, 1
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        settings = torch.utils.data.graph_settings
        settings.apply_random_seed(self.pipe, torch.Generator().manual_seed(seeds.epoch_seed()))
        settings.apply_sharding(self.pipe, workers * ranks, worker * ranks + rank)
        return iter(self.pipe)

    def __len__(self) -> int:
        return len(self.pipe)
