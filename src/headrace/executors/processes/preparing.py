"""What a worker does before its first batch, wherever it runs: random numbers, the user's function, threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headrace.context import seeds
from headrace.interop import torch_state

if TYPE_CHECKING:
    from headrace.executors.processes.payload import Startup


def prepare(startup: Startup, number: int) -> set[str]:
    """Let the user's function prepare this worker; return which global generators are ours to seed for each batch.

    Those that the function has seeded are its own from then on. It finds them seeded as torch's workers have them:
    another for each worker, and from the loop's own seed.
    """
    words = np.random.SeedSequence((startup.seed, number)).generate_state(8).astype(np.uint32)
    ours = set(seeds.global_states())
    seeds.seed_globals(words, ours - {"torch"})
    torch = torch_state.loaded()
    if "torch" in ours:
        torch.manual_seed(startup.seed + number)
    if startup.init is None:
        return {*ours, "torch"}  # which may be loaded later
    before = seeds.global_states()
    startup.init(number)
    return {*ours, "torch"} - seeds.moved(before, seeds.global_states())


def one_thread_each() -> None:
    """As many workers as cores, each with a thread pool as wide as the machine, would only get in each other's way."""
    torch = torch_state.loaded()
    if torch is not None:
        torch.set_num_threads(1)
