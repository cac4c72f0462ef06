"""States that somebody has edited, cut or made up: `python -m tests.resuming.hostile [--times N] [--seed N]`.

Each is a true state with one entry replaced or taken out. It must be refused by `load_state_dict`, with an error of
ours, or read on; a raw error, at once or later, is a fault.
"""

from __future__ import annotations

import argparse
import copy
import random
import sys
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

import headrace as hr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENTRIES = ("seed", "samples", "beyond", "offset", "bad", "rank", "read", "sampler", "ledger", "streams", "extra")
WITHIN = ("seeds", "generators", "own")
REFUSED, READ, RAW = "refused at the call", "read on", "raw error"
UNFIT = "refused by the stream that is to take it"
"""Whether an iterator can take a state is known when it is there: when the loop begins."""

RIGHT = (REFUSED, READ, UNFIT)


class Stream(hr.IterableDataset[int]):
    """A stream that keeps a state of its own."""

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Iterator[int]:
        while self.at < 20:
            self.at += 1
            yield self.at
        self.at = 0

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


class Drawn:
    """A sampler that draws from Python's global generator."""

    def __len__(self) -> int:
        return 20

    def __iter__(self) -> Iterator[int]:
        return iter(random.sample(range(20), 20))


LOADERS: dict[str, Callable[[], hr.DataLoader[Any]]] = {
    "shuffled": lambda: hr.DataLoader(range(20), 3, shuffle=True),
    "seeded": lambda: hr.DataLoader(range(20), 3, shuffle=True, seed=1),
    "sampler of ours": lambda: hr.DataLoader(range(20), 3, sampler=hr.samplers.RandomSampler(range(20))),
    "own sampler": lambda: hr.DataLoader(range(20), 3, sampler=Drawn(), seed=0),
    "skip": lambda: hr.DataLoader(range(20), 3, on_error="skip", seed=1),
    "any order": lambda: hr.DataLoader(range(20), 3, in_order=False, num_workers=2, backend="threads"),
    "stream": lambda: hr.DataLoader(Stream(), 3),
    "planned": lambda: hr.DataLoader(range(20), 3, sampler=hr.samplers.ShardSampler([8, 12], window=2), seed=3),
}


class Odd:
    """An object that even its repr refuses."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


JUNK: list[Any] = [
    *(None, True, -1, 0, 1, 10**30, 10**5000, 2**63, float("nan"), float("inf"), 1.5, "x", "", b"x", [], [1], {}),
    *({"a": 1}, [None], [[["x"]]], {"0": 1}, {"0": ["dataset", 3]}, {"0": ["iterator", None]}, {"-1": ["ended", None]}),
    *(["own"], {"own": ["sampler", 1]}, {"seeds": [1.5]}, {"generators": {"random": [3, [1], None]}}, Odd(), object()),
    *({"generators": {"numpy": ["MT19937", [1], 3]}}, {"generators": {"elsewhere": 1}}, [3, 3], {"seeds": []}),
]


def spoiled(draw: random.Random, name: str) -> dict[str, Any]:
    """Return a true state of a loader, spoiled in one place."""
    with LOADERS[name]() as loader:
        batches = iter(loader)
        for _ in range(draw.randrange(4)):
            next(batches)
        state: dict[str, Any] = copy.deepcopy(loader.state_dict())
    part = state
    if draw.random() < 0.3:
        part = state["plan"]
    elif isinstance(state.get("sampler"), dict) and draw.random() < 0.3:
        part = state["sampler"]
    key = draw.choice([*part, *(WITHIN if part is state.get("sampler") else ENTRIES), "copies"])
    if draw.random() < 0.2:
        part.pop(key, None)
    else:
        part[key] = draw.choice(JUNK)
    return state


def outcome(name: str, state: dict[str, Any], *, strict: bool) -> str:
    """Load a state and read on, and return what came of it; a refused load must leave the loader as it was."""
    with LOADERS[name]() as loader:
        before = loader.state_dict()
        try:
            loader.load_state_dict(state, strict=strict)
        except hr.StateMismatch:
            return REFUSED if loader.state_dict() == before else "refused, and the loader changed"
        except Exception as error:  # noqa: BLE001  what is looked for
            return f"{RAW} at the call: {type(error).__name__}"
        try:
            for _ in loader:
                pass
        except hr.StateMismatch:
            return UNFIT
        except Exception as error:  # noqa: BLE001
            return f"{RAW} later: {type(error).__name__}"
    return READ


def main() -> None:
    """Try many, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=4400)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    draw = random.Random(given.seed)
    names = sorted(LOADERS)
    tally: Counter[tuple[str, str]] = Counter()
    for number in range(given.times):
        name = names[number % len(names)]
        state = spoiled(draw, name)
        tally[name, outcome(name, state, strict=draw.random() < 0.6)] += 1
    kinds = sorted({kind for _, kind in tally} | {*RIGHT})
    print(f"{given.times:,} hostile states, seed {given.seed}\n")
    print("| loader | " + " | ".join(kinds) + " |")
    print("| --- " * (len(kinds) + 1) + "|")
    for name in names:
        print(f"| {name} | " + " | ".join(str(tally[name, kind]) for kind in kinds) + " |")
    sys.exit(any(kind not in RIGHT for kind in kinds))


if __name__ == "__main__":
    main()
