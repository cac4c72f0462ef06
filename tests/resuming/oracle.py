"""Random runs beside a model: `python -m tests.resuming.oracle [--trials N] [--seed N] [--trial N]`.

A run changes its ranks, batch size, workers and order of delivery in the middle of epochs, each time from the state of
any one rank, on data with bad samples. The model knows the order of an epoch, and the rules that the guide states.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace import DataLoader, IterableDataset, rng
from headrace.context.seeds import Purpose, generator, key_of
from headrace.errors import TooManyErrors
from headrace.plan.order import Shuffled
from headrace.samplers import (
    BalancedBatchSampler,
    BucketBatchSampler,
    MixtureSampler,
    PackingBatchSampler,
    RepeatedSampler,
    ReplacementSampler,
    ShardSampler,
    TokenBatchSampler,
)

SPARES = 100
Row = tuple[int, float]
"""Which sample, and what it draws: it tells the place in the epoch."""


def sample(key: Any, bad: frozenset[int]) -> Row:
    """Make a sample; every seventh takes longer, so that others overtake it where they may."""
    key = key[0] if isinstance(key, tuple) else key  # of a row of packed samples, the first
    if key in bad:
        raise ValueError(f"{key} is bad")
    if key % 7 == 0:
        time.sleep(0.0005)
    return key, rng().random()


@dataclass
class Numbers:
    """Samples with an index."""

    size: int
    bad: frozenset[int]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: int) -> Row:
        return sample(key, self.bad)


class Stream(IterableDataset[int]):
    """Samples that come one after the other."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.size))


def batches_of(sampler: Any, epoch: int) -> list[list[int]]:
    sampler.set_epoch(epoch)
    return [[key[0] if isinstance(key, tuple) else key for key in batch] for batch in sampler]


SAMPLERS: dict[str, Any] = {
    "shards": lambda n, seed: ShardSampler([3] * (n // 3) + [n % 3], window=2, seed=seed),
    "mixture": lambda n, seed: MixtureSampler([n // 2, n - n // 2], [0.6, 0.4], num_samples=n + 5, seed=seed),
    "repeated": lambda n, seed: RepeatedSampler(n, 2, seed=seed),
    "drawn": lambda n, seed: ReplacementSampler(n, n + 5, seed=seed),
}
BATCH_SAMPLERS: dict[str, Any] = {
    "buckets": lambda n, seed: BucketBatchSampler([1 + k % 9 for k in range(n)], 4, seed=seed),
    "tokens": lambda n, seed: TokenBatchSampler([1 + k % 9 for k in range(n)], 24, seed=seed),
    "balanced": lambda n, seed: BalancedBatchSampler([k % 3 for k in range(n)], samples_per_class=2, seed=seed),
    "packed": lambda n, seed: PackingBatchSampler([1 + k % 9 for k in range(n)], 12, 2, seed=seed),
}
PLAIN = ("sequential", "shuffled")
ALONE = ("list", "copies")
"""Orders that ranks do not share out."""
KINDS = [*SAMPLERS, *BATCH_SAMPLERS, *PLAIN, *ALONE, "stream"]


@dataclass
class Trial:
    """One run: what it reads, and what the model says that it gets."""

    draws: random.Random
    backend: Any = "threads"
    """The workers of loops that have any."""
    epoch: int = 0
    place: int = 0
    """Of the samples (of good ones, where bad ones are left out), or of the batches that a sampler chose."""
    counts: list[int] = field(default_factory=lambda: [0])
    """How many bad samples each rank knows of."""

    def __post_init__(self) -> None:
        draw = self.draws
        self.kind = draw.choice(KINDS)
        self.size, self.seed = draw.randint(12, 60), draw.randrange(5)
        self.chosen, self.streams = self.kind in BATCH_SAMPLERS, self.kind in ("stream", "copies")
        policies = ["raise", "skip"] if self.streams else ["raise", "replace", "replace", "skip"]
        self.on_error = draw.choice([name for name in policies if name != "skip" or not self.chosen])
        shared = self.on_error != "skip" and self.kind not in ALONE
        self.uneven = draw.choice(["pad", "drop", "repeat"]) if shared else "pad"
        self.drop_last = not self.chosen and draw.random() < 0.3
        bad = draw.sample(range(self.size), draw.randint(0, 3)) if self.on_error != "raise" else []
        if self.kind in ("list", *BATCH_SAMPLERS) and self.on_error == "replace":
            bad = []  # only the batch's own samples may stand in, and how it was cut decides
        self.bad = frozenset(bad)
        self.most = draw.choice([None, None, draw.randint(1, 4)]) if self.on_error == "replace" else None
        self.items = draw.sample(range(self.size), self.size)

    # --- what is made ---

    def loaders(self, world: int, size: int, ordered: bool, workers: int) -> list[Any]:
        how: dict[str, Any] = {"seed": self.seed, "on_error": self.on_error, "in_order": ordered}
        how |= {"num_workers": workers, "backend": self.backend if workers else "inline", "max_errors": self.most}
        if not self.chosen:
            how |= {"batch_size": size, "drop_last": self.drop_last}
        dataset: Any = Numbers(self.size, self.bad)
        if self.streams:
            bad = self.bad
            dataset = Stream(self.size).map(lambda key: sample(key, bad))
            how["read_once"] = self.kind == "stream"
        elif self.kind in SAMPLERS:
            how["sampler"] = SAMPLERS[self.kind](self.size, self.seed)
        elif self.chosen:
            how["batch_sampler"] = BATCH_SAMPLERS[self.kind](self.size, self.seed)
        elif self.kind == "list":
            how["sampler"] = self.items
        else:
            how["shuffle"] = self.kind == "shuffled"
        ranks = [{"rank": rank, "world_size": world} for rank in range(world)] if world > 1 else [{}]
        return [DataLoader(dataset, **how, **rank, uneven=self.uneven) for rank in ranks]

    # --- the model ---

    def order(self) -> list[Any]:
        """The epoch's keys, or its batches of keys."""
        if self.chosen:
            return batches_of(BATCH_SAMPLERS[self.kind](self.size, self.seed), self.epoch)
        if self.kind in SAMPLERS:
            sampler = SAMPLERS[self.kind](self.size, self.seed)
            sampler.set_epoch(self.epoch)
            return list(sampler)
        if self.kind == "shuffled":
            return Shuffled(self.size, key_of(self.seed)).keys(self.epoch, 0, self.size)
        return self.items if self.kind == "list" else list(range(self.size))

    def drawn(self, position: int, purpose: Purpose = Purpose.SAMPLE) -> np.random.Generator:
        return generator(key_of(self.seed), purpose, self.epoch, position)

    def row(self, key: int, position: int, pool: Any = ()) -> Row:
        if key in self.bad:
            numbers = self.drawn(position, Purpose.REPLACE).permutation(len(pool)).tolist()
            key = next(pool[number] for number in numbers if pool[number] not in self.bad)
        return key, float(self.drawn(position).random())

    def spares(self, order: list[int], position: int) -> list[int]:
        places = self.drawn(position, Purpose.SPARES).integers(len(order), size=SPARES).tolist()
        if self.kind in SAMPLERS:
            places = [(places[0] + n) % len(order) for n in range(SPARES)]
        return [order[place] for place in places]

    def expected(self, world: int, size: int) -> tuple[list[list[Row]], list[int], int] | None:
        """What each rank gets next, how many bad samples that has, and the place after it; None at the end."""
        order = self.order()
        if self.chosen:
            return self.expected_batches(order, world)
        if self.on_error == "skip":
            good = [self.row(key, p) for p, key in enumerate(order) if key not in self.bad]
            part = good[self.place : self.place + size]
            return ([part], [0], self.place + len(part)) if len(part) > (size - 1 if self.drop_last else 0) else None
        left, whole = len(order) - self.place, world * size
        each = size
        if left < whole:
            if left <= 0 or self.drop_last:
                return None
            each = {"pad": -(-left // world), "drop": left // world, "repeat": size}[self.uneven]
        if not each:
            return None
        pool = self.spares(order, self.place) if self.on_error == "replace" and self.bad else []
        found, bad = [], []
        for rank in range(world):
            places = range(self.place + rank * each, self.place + (rank + 1) * each)
            # What comes after the end fills up: of a stream, the samples of the same global batch come again.
            base, span = (self.place, min(left, whole)) if self.streams else (0, len(order))
            keys = [order[base + (p - base) % span] for p in places]
            found.append([self.row(key, p, pool) for key, p in zip(keys, places, strict=True)])
            bad.append(sum(key in self.bad for key in keys))
        return found, bad, min(len(order), self.place + whole)

    def expected_batches(self, order: list[list[int]], world: int) -> tuple[list[list[Row]], list[int], int] | None:
        left = len(order) - self.place
        if left <= 0 or (left < world and self.uneven == "drop"):
            return None
        starts = np.concatenate([[0], np.cumsum([len(batch) for batch in order])]).tolist()
        found = []
        for rank in range(world):
            turn, number = divmod(self.place + rank, len(order))
            start = starts[number] + turn * starts[-1]
            found.append([self.row(key, start + row) for row, key in enumerate(order[number])])
        return found, [0] * world, min(len(order), self.place + world)

    # --- the run ---

    def run(self) -> None:
        """Go from state to state, and compare every batch."""
        state, before = None, (0, 0)
        for _ in range(self.draws.randint(1, 5)):
            world = 1 if self.kind in ALONE or self.on_error == "skip" else self.draws.choice((1, 1, 2, 3))
            size = self.draws.randint(1, 6) if before[1] == 0 or self.draws.random() < 0.5 else before[1]
            workers, ordered = self.draws.choice((0, 0, 1, 3)), self.draws.random() < 0.6
            if not ordered and world == 1 and self.on_error != "skip" and workers:
                ordered = True  # what comes then is compared elsewhere: `unordered`
            loaders = self.loaders(world, size, ordered, workers)
            if state is not None:
                same = self.chosen or size == before[1] or size * world == before[0] * before[1]
                for loader in loaders:
                    loader.load_state_dict(state, strict=same)
            more = self.steps(loaders, world, size)
            if not more:
                return  # a rank that had too many bad samples stands before a step that the others have behind them
            states = [json.loads(json.dumps(loader.state_dict())) for loader in loaders]
            self.same(states)
            saved = self.draws.randrange(world)
            state, before = states[saved], (world, size)
            self.counts = [self.counts[saved] if rank == saved else 0 for rank in range(world)]
            for loader in loaders:
                loader.close()

    def steps(self, loaders: list[Any], world: int, size: int) -> bool:
        known = sum(self.counts)
        holder = next((rank for rank, count in enumerate(self.counts) if count), 0) % world
        self.counts = [known if rank == holder else 0 for rank in range(world)]
        loops = [iter(loader) for loader in loaders]
        for _ in range(self.draws.randint(0, 9)):
            expected = self.expected(world, size)
            if expected is None:
                assert [next(loop, None) for loop in loops] == [None] * world
                self.epoch, self.place, self.counts = self.epoch + 1, 0, [0] * world
                loops = [iter(loader) for loader in loaders]
                continue
            rows, bad, after = expected
            for rank in range(world):
                states = loaders[rank].state_dict()
                self.counts[rank] += bad[rank]
                if bad[rank] and self.most is not None and self.counts[rank] > self.most:
                    try:
                        next(loops[rank])
                    except TooManyErrors:
                        assert loaders[rank].state_dict() == states
                        return False
                    raise AssertionError("too many bad samples, and no error")
                batch = next(loops[rank])
                found = list(zip(*(np.asarray(column).tolist() for column in batch), strict=True))
                assert found == rows[rank], f"rank {rank} of {world}: {found}, expected {rows[rank]}"
            self.place = after
        return True

    @staticmethod
    def same(states: list[Any]) -> None:
        """All ranks' states are the same, but for what each has passed over."""
        own = ("bad", "rank")
        shared = [{name: value for name, value in state.items() if name not in own} for state in states]
        assert all(state == shared[0] for state in shared), "ranks that took the same steps differ in their states"


def unordered(draws: random.Random) -> None:
    """One rank whose batches come as they are made: over a chain of states, each sample comes once."""
    size, seed = draws.randint(12, 60), draws.randrange(5)
    shuffle = draws.random() < 0.5
    order = Shuffled(size, key_of(seed)).keys(0, 0, size) if shuffle else list(range(size))
    wanted = Counter(
        (key, float(generator(key_of(seed), Purpose.SAMPLE, 0, position).random()))
        for position, key in enumerate(order)
    )
    found: Counter[Any] = Counter()
    state: Any = None
    batch_size = draws.randint(1, 4)
    while state is None or state["epoch"] == 0:
        loader: Any = DataLoader(
            Numbers(size, frozenset()), batch_size, shuffle=shuffle, seed=seed, num_workers=draws.choice((0, 2, 3)),
            backend="threads", in_order=draws.random() < 0.2,
        )  # fmt: skip
        if state is not None:
            loader.load_state_dict(state)
        loop = iter(loader)
        for _ in range(draws.randint(1, 6)):
            batch = next(loop, None)
            if batch is None:
                break
            found.update(zip(*(np.asarray(column).tolist() for column in batch), strict=True))
        state = json.loads(json.dumps(loader.state_dict()))
        loader.close()
    assert found == wanted, f"lost: {wanted - found}; twice or strange: {found - wanted}"


def proven(trials: int, seed: int, *, first: int = 0, backend: Any = "threads") -> None:
    """Make so many trials; raises AssertionError for the first that is not as the model says, with its number."""
    for number in range(first, first + trials):
        draws = random.Random(f"{seed}/{number}")
        trial = None
        try:
            if draws.random() < 0.1:
                unordered(draws)
            else:
                trial = Trial(draws, backend)
                trial.run()
        except Exception as error:
            made = "" if trial is None else f": {vars(trial)}"
            error.add_note(f"python -m tests.resuming.oracle --seed {seed} --trial {number}{made}")
            raise


def main() -> None:
    """Make the trials and say what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=5000, help="how many runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trial", type=int, help="this one alone")
    given = parser.parse_args()
    began = time.perf_counter()
    trials = given.trials if given.trial is None else 1
    proven(trials, given.seed, first=given.trial or 0)
    print(f"{trials:,} random runs as the model says, {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
