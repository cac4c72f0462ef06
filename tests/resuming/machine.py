"""A machine that saves, loads, breaks off, fails, and changes workers and ranks at random; what comes is compared.

The model is one list an epoch, of every sample with what it draws: what one rank gets that nothing ever happens to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from headrace import DataLoader, IterableDataset, Ledger, StateMismatch, get_worker_info, rng, verify_epoch
from headrace.samplers import BucketBatchSampler, MixtureSampler

FORK: dict[str, Any] = {"backend": "processes", "multiprocessing_context": "fork"}
KINDS: list[dict[str, Any]] = [
    {},
    {"num_workers": 1, "backend": "threads"},
    {"num_workers": 4, "backend": "threads"},
    {"num_workers": 1, **FORK},
    {"num_workers": 2, **FORK, "persistent_workers": True},
    {"num_workers": 1, **FORK, "threads_per_worker": 2},
]
SIZE = 47


class Flaky:
    """Samples that say which they are and what they draw; one fails when it is told to."""

    def __init__(self) -> None:
        self.fails: int | None = None

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> tuple[int, float]:
        if index == self.fails:
            raise ValueError(f"{index} fails")
        return index, rng().random()


class Shards(IterableDataset[tuple[int, float]]):
    """A stream in which each copy gives its part, shuffled in a buffer."""

    def __iter__(self) -> Iterator[tuple[int, float]]:
        info = get_worker_info()
        numbers = list(range(SIZE) if info is None else range(info.id, SIZE, info.num_workers))
        while numbers:
            yield numbers.pop(int(rng().integers(min(5, len(numbers))))), rng().random()


ORDERS: dict[str, Any] = {
    "in order": dict,
    "shuffled": lambda: {"shuffle": True},
    "mixture": lambda: {"sampler": MixtureSampler([20, SIZE - 20], [0.7, 0.3], num_samples=60)},
    "buckets": lambda: {"batch_sampler": BucketBatchSampler([1 + n % 9 for n in range(SIZE)], 4)},
}


def rows(batch: Any) -> list[tuple[Any, ...]]:
    return list(zip(*(np.asarray(column).tolist() for column in batch), strict=True))


class Resuming(RuleBasedStateMachine):
    """Ranks in step, on what was saved."""

    kinds = KINDS
    """Workers that it changes between; a stream begins with one of the first four."""

    def __init__(self) -> None:
        super().__init__()
        self.models: dict[int, list[Any]] = {}
        self.ledgers = [Ledger() for _ in range(4)]
        self.loaders: list[Any] = []
        self.loops: list[Any] = []
        self.armed = False

    @initialize(
        order=st.sampled_from(["in order", "shuffled", "mixture", "buckets", "stream"]),
        seed=st.integers(0, 3),
        batch_size=st.integers(1, 4),
        drop_last=st.booleans(),
        chosen=st.integers(0, 3),
    )
    def begin(self, order: str, seed: int, batch_size: int, drop_last: bool, chosen: int) -> None:
        kind = self.kinds[chosen]
        self.order, self.seed = order, seed
        self.size: dict[str, Any] = {"batch_size": batch_size, "drop_last": drop_last}
        if order == "buckets":
            self.size = {}
        # Where copies of a stream are counted, their number is that of the first loop.
        self.first_kind = kind
        self.dataset = Flaky()
        self.epoch, self.place, self.lost = 0, 0, False
        self.state: Any = None
        self.make(kind, 1)
        self.save()

    def arguments(self) -> dict[str, Any]:
        if self.order == "stream":
            return {"dataset": Shards(), "seed": self.seed, **self.size}
        return {"dataset": self.dataset, "seed": self.seed, **self.size, **ORDERS[self.order]()}

    def make(self, kind: dict[str, Any], world: int) -> None:
        for loader in self.loaders:
            loader.close()
        if self.order == "stream":
            world, kind = 1, {name: value for name, value in kind.items() if name != "threads_per_worker"}
        self.kind = kind
        self.loaders = [
            DataLoader(**self.arguments(), **kind, rank=rank, world_size=world, ledger=self.ledgers[rank])
            for rank in range(world)
        ]
        self.loops = []

    def model(self) -> list[Any]:
        """The epoch's samples, one after the other; of batches that a sampler chose, and of streams, batch by batch."""
        if self.epoch not in self.models:
            if self.order in ("buckets", "stream"):
                loader = DataLoader(**self.arguments(), **(self.first_kind if self.order == "stream" else {}))
                loader.set_epoch(self.epoch)
                self.models[self.epoch] = [rows(batch) for batch in loader]
            else:
                loader = DataLoader(**{**self.arguments(), "batch_size": 1, "drop_last": False})
                loader.set_epoch(self.epoch)
                self.models[self.epoch] = [row for batch in loader for row in rows(batch)]
        return self.models[self.epoch]

    def expected(self) -> list[list[Any]] | None:
        """What each rank gets next; None at the end."""
        model, world = self.model(), len(self.loaders)
        if self.order in ("buckets", "stream"):
            part = model[self.place : self.place + world]
            return [[*part, *[None] * world][rank] for rank in range(world)] if part else None
        size = self.size["batch_size"]
        left = len(model) - self.place
        if left <= 0 or (left < size * world and self.size["drop_last"]):
            return None
        each = size if left >= size * world else -(-left // world)
        part = [*model[self.place : self.place + each * world], *[None] * (each * world)]
        return [part[rank * each : (rank + 1) * each] for rank in range(world)]

    def run(self) -> None:
        if not self.loops:
            self.loops, self.armed = [iter(loader) for loader in self.loaders], False

    @rule(times=st.integers(1, 3))
    def step(self, times: int) -> None:
        """Every rank takes a batch: those of the model; what fills up the last ones is not compared."""
        for _ in range(times):
            self.run()
            expected = self.expected()
            found = [next(loop, None) for loop in self.loops]
            if expected is None:
                assert found == [None] * len(self.loops)
                self.at_the_end()
                return
            for batch, wanted in zip(found, expected, strict=True):
                assert batch is not None
                if wanted is not None:
                    got = rows(batch)
                    assert len(got) == len(wanted)
                    assert [row for row, want in zip(got, wanted, strict=True) if want is not None] == [
                        want for want in wanted if want is not None
                    ]
            self.place += self.taken(expected)

    def taken(self, expected: list[Any]) -> int:
        if self.order in ("buckets", "stream"):
            return len(expected)
        return sum(len(part) for part in expected)

    def at_the_end(self) -> None:
        world = len(self.loaders)
        if not self.lost:
            proof = verify_epoch(*self.ledgers, epoch=self.epoch)
            assert proof.exact, f"{proof} on {world} ranks"
        self.epoch, self.place, self.lost, self.loops = self.epoch + 1, 0, False, []

    @rule()
    def save(self) -> None:
        """Every rank's state is the same, but for batches lost to errors, and small; it goes through JSON."""
        states = [loader.state_dict() for loader in self.loaders]
        assert self.lost or all(state == states[0] for state in states)
        text = json.dumps(states[-1])
        assert len(text) < 1024
        self.state = json.loads(text), self.epoch, self.place, self.lost

    @rule(chosen=st.integers(0, 5), world=st.integers(1, 4))
    def load(self, chosen: int, world: int) -> None:
        """Others go on from the last state, on other workers and ranks."""
        self.make(self.kinds[chosen], world)
        state, self.epoch, self.place, self.lost = self.state
        for loader in self.loaders:
            loader.load_state_dict(state)
            assert loader.state_dict() == state
        self.armed = True

    @rule(chosen=st.integers(0, 5), world=st.integers(1, 4))
    def hand_over(self, chosen: int, world: int) -> None:
        """Others go on from here."""
        self.save()
        self.load(chosen, world)

    @rule()
    def come_back(self) -> None:
        """The same loaders go back to the last state, with loops running."""
        state, self.epoch, self.place, self.lost = self.state
        for loader in self.loaders:
            loader.load_state_dict(state)
        self.loops, self.armed = [], True

    @precondition(lambda self: bool(self.loops))
    @rule()
    def break_off(self) -> None:
        """A loop that is left begins anew with the next epoch."""
        self.loops = []
        self.run()
        self.epoch, self.place, self.lost = self.epoch + 1, 0, False

    @rule(epoch=st.integers(0, 3))
    def choose_an_epoch(self, epoch: int) -> None:
        """Set another epoch, or the same."""
        for loader in self.loaders:
            loader.set_epoch(epoch)
        self.loops = []
        if not self.armed or epoch != self.epoch:
            self.epoch, self.place, self.lost, self.armed = epoch, 0, False, False

    @precondition(lambda self: self.order not in ("stream", "buckets", "mixture") and "process" not in str(self.kind))
    @rule(at=st.integers(0, SIZE - 1))
    def fail(self, at: int) -> None:
        """A sample fails once: its batch is lost to the rank that should have had it, and the others go on."""
        expected = self.expected()
        if expected is None or not any(want for part in expected for want in part):
            return
        self.run()
        if self.kind:
            return  # others may have made it already, ahead of the loop
        wanted = [want[0] for part in expected for want in part if want is not None]
        self.dataset.fails = wanted[at % len(wanted)]
        raised = 0
        for loop in self.loops:
            try:
                next(loop)
            except ValueError:
                raised += 1
        self.dataset.fails = None
        assert raised >= 1
        self.place += self.taken(expected)
        self.lost = True

    @rule()
    def refuse(self) -> None:
        """A state of another seed is refused, and changes nothing."""
        state = self.state[0]
        before = self.loaders[0].state_dict()
        with pytest.raises(StateMismatch, match="seed=99"):
            self.loaders[0].load_state_dict({**state, "plan": {**state["plan"], "seed": 99}})
        assert self.loaders[0].state_dict() == before

    def teardown(self) -> None:
        for loader in self.loaders:
            loader.close()
        self.loops = []


def proven(steps: int, each: int = 50, machine: type[Resuming] = Resuming) -> None:
    """Take so many steps, in examples of ``each``."""
    few = settings(
        max_examples=-(-steps // each), stateful_step_count=each, deadline=None, phases=[Phase.generate, Phase.shrink]
    )
    run_state_machine_as_test(machine, settings=few)
