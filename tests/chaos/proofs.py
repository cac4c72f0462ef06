"""Epochs drawn at random, and what their ledgers prove, held to what the loops received.

python -m tests.chaos.proofs [--times 600] [--seed N]
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from headrace import DataLoader, IterableDataset, Ledger, get_worker_info, verify_epoch
from headrace.errors import SampleError, TooManyErrors
from headrace.ledger.format import read, records
from headrace.samplers import BucketBatchSampler, MixtureSampler, PackingBatchSampler, RepeatedSampler, ShardSampler

FAR = 10**6


class Some:
    """Samples that are their own index; some cannot be made."""

    suits_threads = True

    def __init__(self, size: int, bad: frozenset[int]) -> None:
        self.size, self.bad = size, bad

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Any) -> int:
        index = sum(index) if isinstance(index, tuple) else int(index)
        if index in self.bad:
            raise SampleError(f"{index} is bad")
        return index


class Stream(IterableDataset[int]):
    """The same as a stream, shared out between its copies."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        return iter(range(self.size) if info is None else range(info.id, self.size, info.num_workers))


@dataclass
class Good:
    """What a stream's samples are made with, which some of them do not survive."""

    bad: frozenset[int]

    def __call__(self, index: int) -> int:
        if index in self.bad:
            raise SampleError(f"{index} is bad")
        return index


def shards(size: int, draws: random.Random) -> list[int]:
    cuts = sorted(draws.sample(range(1, size), min(size - 1, draws.randrange(4))))
    return [stop - start for start, stop in zip([0, *cuts], [*cuts, size], strict=True)]


def mixed(size: int, draws: random.Random) -> dict[str, Any]:
    some = draws.randint(1, size - 1) if size > 1 else 1
    if size == 1:
        return {"sampler": RepeatedSampler(1, 3)}
    count = draws.randint(1, 2 * size)
    return {"sampler": MixtureSampler([some, size - some], [0.7, 0.3], num_samples=count, seed=1)}


ORDERS: dict[str, Callable[[int, random.Random], dict[str, Any]]] = {
    "in order": lambda size, draws: {},
    "shuffled": lambda size, draws: {"shuffle": True},
    "own sampler": lambda size, draws: {"sampler": draws.choices(range(size), k=draws.randint(1, 2 * size))},
    "shards": lambda size, draws: {"sampler": ShardSampler(shards(size, draws), window=draws.randint(1, 3))},
    "mixture": mixed,
    "repeated": lambda size, draws: {"sampler": RepeatedSampler(size, draws.randint(1, 3))},
    "buckets": lambda size, draws: {"batch_sampler": BucketBatchSampler(draws.choices(range(1, 9), k=size), 3)},
    "packed": lambda size, draws: {"batch_sampler": PackingBatchSampler(draws.choices(range(1, 9), k=size), 12, 2)},
    "stream": lambda size, draws: {"stream": True},
    "copies": lambda size, draws: {"stream": True},
}
RANKS = {"in order", "shuffled", "shards", "mixture", "repeated", "buckets", "packed"}
STREAMS = {"stream", "copies"}
THREADS: dict[str, Any] = {"num_workers": 2, "backend": "threads"}


@dataclass
class Tally:
    """What became of the trials of one kind of order."""

    trials: int = 0
    loops: int = 0
    bad: int = 0
    spoiled: int = 0
    wrong: int = 0


@dataclass
class Trial:
    """One epoch, read by some loops one after the other, each from the state that the one before it saved."""

    kind: str
    draws: random.Random
    workers: dict[str, Any] = field(default_factory=lambda: THREADS)
    """Those that some of the trials have."""
    ledgers: list[Ledger] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    loops: int = 0

    def __post_init__(self) -> None:
        draws = self.draws
        self.size = draws.randint(1, 40)
        self.policy = draws.choice(["raise", "skip", "replace"])
        self.order = ORDERS[self.kind](self.size, draws)
        own = "batch_sampler" in self.order
        if (own and self.policy == "skip") or (self.kind in STREAMS and self.policy == "replace"):
            self.policy = "raise"
        count = draws.choice([0, 1, 1, 2, 5, 12]) if self.policy != "raise" else 0
        last = draws.random() < 0.5  # near the end
        places = range(max(0, self.size - 4), self.size) if last else range(self.size)
        self.bad = frozenset(draws.sample(places, min(count, len(places), self.size - 1)))
        self.batch_size = draws.randint(1, 6)
        self.drop_last = draws.random() < 0.4
        self.uneven: Any = draws.choice(["pad", "drop", "repeat"])
        self.apart = draws.random() < 0.5
        self.many = self.kind in RANKS and self.policy != "skip"
        # A stream is read in as many copies as its first loop has workers.
        copies = self.kind == "copies"
        if not copies and draws.random() >= 0.2:
            self.workers = {}
        self.how: dict[str, Any] = {"on_error": self.policy, "seed": 3}
        if copies:
            self.how["read_once"] = True
        if not own:
            self.how |= {"batch_size": self.batch_size, "drop_last": self.drop_last}
        if self.workers and self.policy != "skip":
            self.how["in_order"] = draws.random() < 0.5

    def __str__(self) -> str:
        return f"{self.kind}: size={self.size}, bad={sorted(self.bad)}, {self.how}, {self.uneven}, {self.loops} loops"

    def loader(self, **how: Any) -> DataLoader[Any]:
        order = dict(self.order)
        if order.pop("stream", False):
            stream: Any = Stream(self.size)
            return DataLoader(stream.map(Good(self.bad)) if self.bad else stream, **self.how, **how)
        return DataLoader(Some(self.size, self.bad), **order, **self.how, **how)

    def plan(self) -> list[int]:
        """Return the order of the samples, from a loop without bad ones, ranks and restarts."""
        if self.kind in STREAMS:
            return list(range(self.size))
        how = {"on_error": "raise", "seed": 3}
        if "batch_sampler" not in self.order:
            how["batch_size"] = 1
        return [int(key) for batch in DataLoader(Some(self.size, frozenset()), **self.order, **how) for key in batch]

    def run(self) -> None:
        """Read the epoch: every loop but the last saves a state, and reads on behind it before it is given up."""
        draws, state = self.draws, None
        kept: dict[int, Ledger] = {}
        times = draws.choice([1, 1, 2, 3, 4])
        for number in range(times):
            world = draws.choice([1, 1, 2, 3, 4]) if self.many and self.how.get("in_order", True) else 1
            stop, beyond = draws.randrange(5), draws.randrange(4)
            loaders = []
            for rank in range(world):
                ledger = Ledger() if self.apart else kept.setdefault(rank, Ledger())
                self.ledgers.append(ledger)
                ranks: dict[str, Any] = (
                    {"rank": rank, "world_size": world, "uneven": self.uneven} if self.kind in RANKS else {}
                )
                loaders.append(self.loader(ledger=ledger, **ranks, **self.workers))
                if state is not None:
                    loaders[-1].load_state_dict(state)
            loops = [iter(loader) for loader in loaders]
            self.loops += 1
            try:
                for loop in loops:
                    taken = islice(loop, None if number == times - 1 else stop)
                    self.received += [int(key) for batch in taken for key in batch]
                state = draws.choice(loaders).state_dict()
                if state["epoch"]:
                    break
                for loop in loops:
                    list(islice(loop, beyond))
            finally:
                for loader in loaders:
                    loader.close()
        self.ledgers = self.ledgers if self.apart else list(kept.values())

    def check(self) -> None:
        """Hold the proof to what was received, and to the order."""
        proof, order = verify_epoch(*self.ledgers, epoch=0), self.plan()
        assert proof.exact, str(proof)
        places, received = len(order), Counter(self.received)
        asked = order if self.kind in ("own sampler", *STREAMS) and not proof.left_out else order[:places]
        bad = sum(key in self.bad for key in asked)
        filled = self.policy == "skip" and self.kind in RANKS and self.uneven == "repeat"
        filling = [order[place % places] for place in range(-places % self.batch_size)] if filled else []
        rows = proof.delivered + proof.padding + (proof.bad if self.policy == "replace" else 0)
        rows -= sum(key in self.bad for key in filling[: proof.padding])
        assert rows == received.total(), f"{rows} of {received.total()} received: {proof}"
        if self.kind in RANKS or self.policy == "skip":
            assert proof.delivered + proof.bad + proof.left_out == places, f"of {places}: {proof}"
        if self.policy == "skip":
            assert proof.bad == bad, f"{bad} bad: {proof}"
            more = sum(key not in self.bad for key in filling)
            left = max(0, (places - bad + more) % self.batch_size - more) if self.drop_last else 0
            assert proof.left_out == left, f"{left} left out: {proof}"
        if self.policy == "replace" and self.kind in RANKS:
            inside = sum(key in self.bad for key in order[: places - proof.left_out])
            # The samples of an order that is proven by key are the same at its end and elsewhere.
            assert proof.bad == inside, f"{inside} bad: {proof}"
        good = Counter(key for key in order if key not in self.bad)
        if self.policy != "replace" and not proof.padding:
            assert received <= good, f"received: {received - good} too many"
        if self.policy != "replace" and self.kind in RANKS:
            left = good - received
            assert left.total() == proof.left_out or self.policy == "raise", f"{left} not received: {proof}"
        by_place = self.kind not in ("in order", "shuffled", "stream", "copies", "packed")
        if by_place and not proof.left_out and self.policy != "replace":
            own = order if self.kind in RANKS or not self.drop_last else self.received
            if self.policy == "raise":
                assert proof.repeats == len(own) - len(set(own)), str(proof)
            if own is order:
                assert proof.not_asked_for == self.size - len(set(own)), str(proof)

    def spoil(self) -> bool:
        """Take a batch out of a ledger, or put it in twice: the proof must name as many samples as it has."""
        if self.loops > 1:
            return False
        number = self.draws.randrange(len(self.ledgers))
        ledger = self.ledgers[number]
        data = io.BytesIO(ledger._memory.getvalue())
        sessions, entries = read(data, "")
        batches = [at for at, entry in enumerate(entries) if not entry.over]
        if not batches:
            return False
        data.seek(0)
        payloads = [payload for _, payload in records(data, "")][1:]
        begun = payloads[: len(payloads) - len(entries)]
        (session,) = sessions.values()
        at = self.draws.choice(batches)
        entry, twice = entries[at], self.draws.random() < 0.5
        stop = entry.stop if session.samples is None else min(entry.stop, session.samples)
        rest = payloads[len(begun) :]
        again = rest[at][:5] + FAR.to_bytes(8, "little") + rest[at][13:]  # under the number of another step
        rest = [*rest, again] if twice else rest[:at] + rest[at + 1 :]
        ledgers = [Ledger() if each is ledger else each for each in self.ledgers]
        for payload in (*begun, *rest):
            ledgers[number].append(payload)
        proof, count = verify_epoch(*ledgers, epoch=0), max(0, stop - entry.start)
        if self.kind in STREAMS and not twice:
            return False  # nobody knows how long a stream was to be
        if self.kind == "own sampler" and not twice and at == batches[-1]:
            return False
        found = proof.double_count if twice else proof.missing_count
        # In an order that is proven by key, nobody knows which keys were left out at the end when others are missing.
        left = {count, count + verify_epoch(*self.ledgers).left_out} if not twice else {count}
        assert (found in left, proof.exact) == (True, not count), f"spoiled by {count}: {proof}"
        return True


def one(kind: str, seed: str, tally: Tally, workers: dict[str, Any] = THREADS) -> None:
    """Make one trial; an epoch with too many bad samples for its batches is none."""
    trial = Trial(kind, random.Random(seed), workers)
    try:
        trial.run()
    except TooManyErrors:
        return
    tally.trials += 1
    tally.loops += trial.loops
    tally.bad += len(trial.bad)
    try:
        trial.check()
        tally.spoiled += trial.spoil()
    except Exception as error:
        error.add_note(f"seed {seed}: {trial}")
        raise


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.proofs", description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=600)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    given = parser.parse_args()
    tallies = {kind: Tally() for kind in ORDERS}
    for number in range(given.times):
        kind = list(ORDERS)[number % len(ORDERS)]
        try:
            one(kind, f"{given.seed}-{number}", tallies[kind])
        except Exception:  # noqa: BLE001  the other trials go on
            tallies[kind].wrong += 1
            traceback.print_exc()
    heads = "order", "epochs", "loops", "bad samples", "batches lost or doubled, found", "proofs that were wrong"
    print(f"Seed {given.seed}.\n")
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for kind, tally in tallies.items():
        print(f"| {kind} | {tally.trials} | {tally.loops} | {tally.bad} | {tally.spoiled} | {tally.wrong} |")
    return int(any(tally.wrong for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
