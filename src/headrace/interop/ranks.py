"""Which of several processes of one training run this is."""

from __future__ import annotations

import os

from headrace.errors import ArgumentError
from headrace.interop import torch_state

VARIABLES = (
    ("RANK", "WORLD_SIZE"),  # torchrun, and most launchers since
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),  # Open MPI
    ("PMI_RANK", "PMI_SIZE"),  # MPICH, Intel MPI
    ("SLURM_PROCID", "SLURM_NTASKS"),
)


def found() -> tuple[int, int]:
    """Return rank and world size as this process has them: (0, 1) where it is alone.

    >>> found()
    (0, 1)

    Asked are, in this order: ``torch.distributed`` where it is initialised, JAX where it has several processes, Ray
    Train in its workers, and the variables that launchers set (``RANK`` and ``WORLD_SIZE``, those of MPI, those of
    Slurm). Raises `ArgumentError` for variables that make no sense.
    """
    group = torch_state.process_group()
    if group is not None:
        return group.get_rank(), group.get_world_size()
    processes = torch_state.jax_processes()
    if processes is not None:
        return processes
    worker = torch_state.ray_train_worker()
    if worker is not None:
        return worker
    for rank, size in VARIABLES:
        if rank in os.environ and size in os.environ:
            try:
                return checked(int(os.environ[rank]), int(os.environ[size]))
            except ValueError:
                raise ArgumentError(
                    f"the environment has {rank}={os.environ[rank]!r} and {size}={os.environ[size]!r}",
                    found=(os.environ[rank], os.environ[size]),
                    expected=f"a {rank} from 0 to {size} - 1",
                    cure="Pass rank= and world_size=.",
                ) from None
    return 0, 1


def on_this_machine(rank: int, world_size: int) -> range:
    """Return the ranks of this machine, this one among them; this one alone where the launcher does not say.

    >>> on_this_machine(3, 8)
    range(3, 4)

    ``LOCAL_RANK`` and ``LOCAL_WORLD_SIZE`` are what torchrun sets.
    """
    given = [os.environ.get(name, "") for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE")]
    if all(text.isdecimal() for text in given):
        local, size = map(int, given)
        if local < size and rank >= local and rank - local + size <= world_size:
            return range(rank - local, rank - local + size)
    return range(rank, rank + 1)


def checked(rank: int, world_size: int) -> tuple[int, int]:
    """Return a rank and a world size that fit together."""
    if world_size < 1 or not 0 <= rank < world_size:
        raise ArgumentError(
            f"rank must be from 0 to world_size - 1; got rank={rank} and world_size={world_size}",
            found=(rank, world_size),
            expected="0 to world_size - 1",
            cure="Ranks count from 0.",
        )
    return rank, world_size
