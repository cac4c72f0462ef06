"""What torchdata keeps of samplers, generators and datasets over all epochs after a resume: one script on both."""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

torch = pytest.importorskip("torch")
torchdata = pytest.importorskip("torchdata.stateful_dataloader")
from torch.utils.data import Dataset, IterableDataset, RandomSampler, get_worker_info  # noqa: E402
from torchdata.stateful_dataloader import sampler as theirs  # noqa: E402

from headrace import torch as ours  # noqa: E402

libraries = pytest.mark.parametrize(
    "library", [torchdata.StatefulDataLoader, ours.StatefulDataLoader], ids=["torchdata", "headrace"]
)
pytestmark = pytest.mark.filterwarnings("ignore")  # of forking beside torch's threads
SIZE = 8


class Counted(Dataset[int]):
    """Counts what it was asked for."""

    def __init__(self) -> None:
        self.calls = 0

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> int:
        self.calls += 1
        return index * 1000 + self.calls

    def state_dict(self) -> dict[str, int]:
        return {"calls": self.calls}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.calls = state["calls"]


class Epochs(IterableDataset[int]):
    """Counts its epochs, and keeps its place."""

    def __init__(self) -> None:
        self.epoch, self.at, self.told = 0, 0, 0

    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        self.at, self.told = self.told, 0
        for number in range(SIZE)[first::step][self.at :]:
            self.at += 1
            yield 100 * self.epoch + number
        self.epoch, self.at = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.told = state["epoch"], state["at"]


def seeded() -> Any:
    return torch.Generator().manual_seed(5)


MAKERS: dict[str, Any] = {
    "counted": lambda: {"dataset": Counted()},
    "epochs": lambda: {"dataset": Epochs()},
    "torchdata's sampler": lambda: {"dataset": range(SIZE), "sampler": theirs.RandomSampler(range(SIZE))},
    "its own generator": lambda: {"dataset": range(SIZE),
                                  "sampler": theirs.RandomSampler(range(SIZE), generator=seeded())},
    "its batch sampler": lambda: {
        "dataset": range(SIZE), "batch_size": 1,
        "batch_sampler": theirs.BatchSampler(theirs.RandomSampler(range(SIZE), generator=seeded()), 2, drop_last=False),
    },
    "generator": lambda: {"dataset": range(SIZE), "shuffle": True, "generator": seeded()},
    "torch's sampler": lambda: {"dataset": range(SIZE), "sampler": RandomSampler(range(SIZE), generator=seeded())},
}  # fmt: skip
NOT_THEIRS = {"generator", "torch's sampler"}
"""What torchdata forgets: later epochs of its own differ after a resume."""


@pytest.fixture(autouse=True)
def workers_end() -> Any:
    """Let what torchdata's iterators hold go before leaks are counted."""
    yield
    gc.collect()


def epoch(loop: Any) -> list[Any]:
    return [batch.tolist() for batch in loop]


@libraries
@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(("workers", "stops"), [(0, [0, 1, 3, None]), (2, [1, None])])
def test_all_epochs_after_a_resume_are_the_same(library: Any, name: str, workers: int, stops: list[Any]) -> None:
    """Save in the second epoch, and after it: what is left of it and the next two are what would have come."""
    if library is not ours.StatefulDataLoader and name in NOT_THEIRS:
        pytest.skip("torchdata's differs")
    for stop in stops:
        loader = library(**{"batch_size": 2, **MAKERS[name]()}, num_workers=workers)
        epoch(loader)
        loop = iter(loader)
        for _ in islice(loop, stop):
            pass
        state = copy.deepcopy(loader.state_dict())
        expected = [] if stop is None else [epoch(loop)]
        expected += [epoch(loader) for _ in range(2)]
        torch.manual_seed(99)
        resumed = library(**{"batch_size": 2, **MAKERS[name]()}, num_workers=workers)
        resumed.load_state_dict(state)
        assert [epoch(resumed) for _ in expected] == expected, stop


@pytest.mark.parametrize("module", [theirs, ours], ids=["torchdata", "headrace"])
def test_the_distributed_sampler_keeps_its_place(module: Any) -> None:
    """Count what was given, refuse what is no count, and continue after it, once."""
    sampler = module.StatefulDistributedSampler(range(20), num_replicas=2, rank=1, shuffle=True, seed=3)
    assert (sampler.yielded, sampler.next_yielded) == (0, None)
    indices = iter(sampler)
    given = list(islice(indices, 4))
    assert sampler.state_dict() == {"yielded": 4}
    other = module.StatefulDistributedSampler(range(20), num_replicas=2, rank=1, shuffle=True, seed=3)
    for junk in ({}, {"yielded": -1}):
        with pytest.raises(ValueError):  # noqa: PT011  the words are each library's own
            other.load_state_dict(junk)
    other.load_state_dict({"yielded": 4})
    assert other.next_yielded == 4
    assert given + list(other) == given + list(indices) == list(other)
