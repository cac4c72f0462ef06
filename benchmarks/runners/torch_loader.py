"""torch's DataLoader as the runners make it; also a class with the same arguments in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

if TYPE_CHECKING:
    from common import Job


def loader(dataset: Any, job: Job, kind: type[Any] = DataLoader, **options: Any) -> Any:
    """Return a shuffling loader of the job's batches, with persistent workers that prefetch four batches each."""
    given: dict[str, Any] = {"batch_size": job.batch, "shuffle": job.shuffle, "num_workers": job.workers}
    if job.workers:
        given |= {"prefetch_factor": 4, "persistent_workers": True}
    return kind(dataset, **given | options)
