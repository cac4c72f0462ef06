"""A stream with ``read_once=True``: who makes the batches, and how many ranks there are, changes nothing of it."""

from __future__ import annotations

import random
import warnings
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace import DataLoader, IterableDataset, rng

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
HOW: dict[str, dict[str, Any]] = {
    "inline": {},
    "threads": {"num_workers": 2, "backend": "threads"},
    "processes": {"num_workers": 2, "backend": "processes", "multiprocessing_context": "fork"},
}
executors = pytest.mark.parametrize("how", HOW.values(), ids=HOW)


class Drawing(IterableDataset[Any]):
    """A stream that shuffles by the global generators, and draws from headrace's; it counts what was read of it."""

    def __init__(self, size: int = 11) -> None:
        self.size, self.read = size, 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Any]:
        offset = random.randrange(1000)
        for number in range(self.size):
            self.read += 1
            yield np.array([number, offset, np.random.randint(1000), rng().integers(1000)])


class Keeping(Drawing):
    """One that keeps its place."""

    at = 0

    def __iter__(self) -> Iterator[Any]:
        first, self.at = self.at, 0
        for number in range(first, self.size):
            self.read += 1
            self.given = number + 1
            yield number

    def state_dict(self) -> dict[str, int]:
        return {"at": getattr(self, "given", 0)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


def ranks(how: dict[str, Any], world: int, size: int = 2, **arguments: Any) -> list[list[Any]]:
    found = []
    for rank in range(world):
        stream = arguments.pop("stream", None) or Drawing()
        with DataLoader(
            stream, size, seed=3, read_once=True, rank=rank, world_size=world, **how, **arguments
        ) as loader:
            batches = [batch.tolist() for batch in loader]
            assert len(loader) == len(batches)
            found.append(batches)
    return found


@executors
def test_global_generators_are_seeded_where_the_stream_is_read(how: dict[str, Any]) -> None:
    """Give the same samples whatever the program's own generators say, and leave those where they were."""
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()
    first = ranks(how, 1)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    random.seed(2)
    np.random.seed(2)
    assert ranks(how, 1) == first == ranks({}, 1)


@executors
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_what_one_rank_reads(world: int, how: dict[str, Any]) -> None:
    """Cut each global batch into the ranks' parts; the length that a rank tells is that of its own part."""
    whole = np.concatenate([np.array(batch) for batch in ranks({}, 1, 6)[0]])
    parts = ranks(how, world, 6 // world)
    steps = [np.concatenate([np.array(part[step]) for part in parts]) for step in range(len(parts[0]))]
    shared = np.concatenate(steps)[: len(whole)]
    np.testing.assert_array_equal(shared, whole)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("size", [1, 5, 8, 9, 16])
@pytest.mark.parametrize("uneven", ["pad", "drop", "repeat"])
def test_the_length_is_that_of_this_ranks_part(uneven: Any, size: int, drop_last: bool) -> None:
    """Count as many batches as come, with no warning of more."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rank in range(2):
            with DataLoader(
                Drawing(size), 4, seed=0, read_once=True, rank=rank, world_size=2, uneven=uneven, drop_last=drop_last
            ) as loader:
                assert len(loader) == len(list(loader))


@executors
@pytest.mark.parametrize("taken", [1, 2, 3, 4])
def test_a_stream_that_keeps_its_place_is_not_read_again(taken: int, how: dict[str, Any]) -> None:
    """Enter at the place that the stream itself says, whoever finishes its samples."""
    with DataLoader(Keeping(), 3, read_once=True, seed=0, **how) as first:
        loop = iter(first)
        for _ in islice(loop, taken):
            pass
        state = first.state_dict()
        expected = [batch.tolist() for batch in loop]
    stream = Keeping()
    with DataLoader(stream, 3, read_once=True, seed=0, **how) as second:
        second.load_state_dict(state)
        assert [batch.tolist() for batch in second] == expected
    assert stream.read == sum(map(len, expected))
