"""How far workers on a cluster scale: `python benchmarks/cluster_model.py` writes docs/scaling.md's tables and figures.

A model of the plan, the window and the transport, step by step. `benchmarks/cluster_service.py` measures the driver's
service times, and how far the model is from runs that fit on one machine. Nothing here runs headrace: the model says
what to expect where there is no cluster to measure.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

IN_HAND = 2
"""Works in flight for each actor of one thread; the rest of the window waits for the actor that is free first."""

SERVICE: dict[str, float] = json.loads(Path(__file__).with_name("cluster_service.json").read_text(encoding="utf-8"))
"""What the driver spends, as measured by cluster_service.py."""


@dataclass(frozen=True)
class Setting:
    """A training run: seconds, bytes and counts. The defaults are photographs to 224 x 224 as uint8, batch 64."""

    nodes: int = 4
    actors: int = 16
    """On each node."""
    ranks: int = 1
    prefetch: int = 2
    make: float = 64 * 0.008
    """Seconds that an actor takes for a batch."""
    spread: float = 0.1
    """How much that varies: the standard deviation of its logarithm."""
    stragglers: float = 0.0
    """The part of the batches that take `slow` times as long."""
    slow: float = 10.0
    uneven: float = 0.0
    """How much nodes differ in speed: the standard deviation of its logarithm."""
    speeds: tuple[float, ...] = ()
    """The speed of each node, where it is known."""
    lifetime: float = 0.0
    """Mean seconds until a node is lost; 0: never."""
    restart: float = 20.0
    """Seconds until another has taken its place, and opened the dataset."""
    step: float = 0.0
    """Seconds of a training step; 0: the loop does nothing else."""
    nbytes: float = 64 * 150_528
    network: float = 0.8e9
    """Bytes a second into each rank's machine."""
    copy: float = SERVICE["copy"]
    """Bytes a second that the loop copies out of the store."""
    call: float = SERVICE["call"]
    """Seconds that the loop takes to submit a work and to take its answer."""
    each: float = SERVICE["each"]
    """Seconds for each work in flight, when the loop has to look which are done: then it takes all that are."""
    shared: bool = False
    """Whether all ranks share one pool of actors; else each has its part of them."""


@dataclass(frozen=True)
class Result:
    """What came of it."""

    rate: float
    """Batches a second, of all ranks."""
    ideal: float
    """The batches a second that the actors alone could make, or the training steps take."""
    first: float
    """Seconds to the first batch."""
    again: int
    """Batches that were made again."""
    limit: str
    """What was busy most of the time."""

    @property
    def efficiency(self) -> float:
        return self.rate / self.ideal


class Rank:
    """The works of one rank: each goes to the actor that has the fewest of them, as the loader sends them."""

    def __init__(self, setting: Setting, actors: list[tuple[int, int]]) -> None:
        self.setting = setting
        self.actors = actors
        """The number of each actor, and of its node, in the order in which the rank turns to them."""
        self.limit = min(setting.prefetch, IN_HAND)
        self.most = IN_HAND * setting.nodes * setting.actors // setting.ranks
        self.loads = [0] * len(actors)
        self.fewest = [(0, place) for place in range(len(actors))]
        """A heap of loads and places; those that are out of date are passed over."""
        self.done: list[tuple[float, int]] = []
        """When each work that was sent is answered, and by the actor at which place."""

    def answered(self, until: float) -> None:
        """Take the answers until then."""
        while self.done and self.done[0][0] <= until:
            self._change(heapq.heappop(self.done)[1], -1)

    def send(self, now: float) -> tuple[float, int]:
        """Return when a work can be sent, and the place of the actor that gets it."""
        self.answered(now)
        while True:
            load, place = heapq.heappop(self.fewest)
            if load != self.loads[place]:
                continue
            if load < self.limit and len(self.done) < self.most:
                self._change(place, 1)
                return now, place
            heapq.heappush(self.fewest, (load, place))
            now = self.done[0][0]
            self.answered(now)

    def make(
        self, now: float, free: list[float], draws: random.Random, speeds: list[float]
    ) -> tuple[float, float, int]:
        """Make a batch; return when it is done, the seconds spent, and how many actors died of it."""
        setting, spent, deaths = self.setting, 0.0, 0
        while True:
            sent, place = self.send(now)
            actor, node = self.actors[place]
            begun = max(sent, free[actor])
            took = setting.make * draws.lognormvariate(0, setting.spread) / speeds[node]
            if setting.stragglers and draws.random() < setting.stragglers:
                took *= setting.slow
            dies = draws.expovariate(1 / setting.lifetime) if setting.lifetime else took
            if dies >= took:
                free[actor] = begun + took
                heapq.heappush(self.done, (free[actor], place))
                return free[actor], spent + took, deaths
            # Another takes its place after a while; whoever has the fewest works makes the batch again.
            free[actor] = begun + dies + setting.restart
            heapq.heappush(self.done, (free[actor], place))
            now, spent, deaths = begun + dies, spent + dies, deaths + 1

    def _change(self, place: int, by: int) -> None:
        self.loads[place] += by
        heapq.heappush(self.fewest, (self.loads[place], place))


def simulate(setting: Setting, steps: int = 200, seed: int = 0) -> Result:
    """Run so many steps of all ranks, which take each step together, as data-parallel training does."""
    draws = random.Random(seed)
    workers = setting.nodes * setting.actors
    speeds = list(setting.speeds) or [
        draws.lognormvariate(0, setting.uneven) if setting.uneven else 1.0 for _ in range(setting.nodes)
    ]
    window = max(1, setting.prefetch * workers // setting.ranks)
    free = [0.0] * workers
    senders = _ranks(setting)
    handling, looking = setting.call + setting.nbytes / setting.copy, setting.each * window
    wire = setting.nbytes / setting.network
    network, loop = [0.0] * setting.ranks, [0.0] * setting.ranks
    taken: list[float] = []
    again = 0
    busy = {"actors": 0.0, "network": 0.0, "driver": 0.0}
    for step in range(steps):
        opened = taken[step - window] if step >= window else 0.0
        arrived = 0.0
        for rank in range(setting.ranks):
            done, seconds, lost = senders[rank].make(opened, free, draws, speeds)
            again += lost
            network[rank] = max(network[rank], done) + wire
            spent = handling + (looking if loop[rank] < network[rank] else 0.0)
            loop[rank] = max(loop[rank], network[rank]) + spent
            busy["driver"] += spent / setting.ranks
            arrived = max(arrived, loop[rank])
            busy["actors"] += seconds
        # The loop's own thread takes batches and trains: a step begins when every rank has its batch.
        now = max(arrived, taken[-1] + setting.step if taken else 0.0)
        taken.append(now)
        loop = [now + setting.step if setting.step else each for each in loop]
        busy["network"] += wire
    rest = steps // 4  # the pipeline fills first
    span = taken[-1] - taken[rest]
    rate = setting.ranks * (steps - 1 - rest) / span if span else float("inf")
    ideal = workers / (setting.make * _mean(setting))
    if setting.step:
        ideal = min(ideal, setting.ranks / setting.step)
    whole = taken[-1]
    shares = {
        "actors": busy["actors"] / whole / workers,
        "network": busy["network"] / whole,
        "driver": busy["driver"] / whole,
        "training": setting.step * steps / whole,
    }
    return Result(rate, ideal, taken[0], again, max(shares, key=lambda name: shares[name]))


def _ranks(setting: Setting) -> list[Rank]:
    """Give each rank its actors: those of its own nodes, or of a pool as many as it has works in flight."""
    actors = [(number, number // setting.actors) for number in range(setting.nodes * setting.actors)]
    if not setting.shared:
        return [
            Rank(setting, [each for each in actors if each[1] % setting.ranks == rank]) for rank in range(setting.ranks)
        ]
    random.Random(0).shuffle(actors)
    twice = actors * 2
    # With so few works in flight, a rank turns to no more actors than these.
    most = IN_HAND * len(actors) // setting.ranks
    firsts = [rank * most % len(actors) for rank in range(setting.ranks)]
    return [Rank(setting, twice[first : first + min(most, len(actors))]) for first in firsts]


def _mean(setting: Setting) -> float:
    return 1 + setting.stragglers * (setting.slow - 1)


NODES = (1, 2, 4, 8, 16, 32, 64, 125, 250, 500, 1000)
RANKS = (1, 4, 16, 64, 256, 1024)
SMALL = Setting(nbytes=64 * 8192, make=64 * 0.02)
"""20 ms of work for 8 KB: audio or text."""


@cache
def by_nodes(setting: Setting, steps: int) -> list[tuple[int, Result]]:
    """Add nodes for one rank."""
    return [(nodes, simulate(replace(setting, nodes=nodes), max(steps, 8 * nodes * setting.actors))) for nodes in NODES]


BUSY = Setting(actors=20, step=0.03)
"""What one node makes is 15 % more than a rank takes."""
KINDS = {
    "equal nodes": {},
    "uneven nodes": {"uneven": 0.2},
    "uneven nodes, one pool": {"uneven": 0.2, "shared": True},
    "uneven nodes, one pool, prefetch 4": {"uneven": 0.2, "shared": True, "prefetch": 4},
    "stragglers": {"stragglers": 0.001},
    "stragglers, prefetch 16": {"stragglers": 0.001, "prefetch": 16},
}


@cache
def by_ranks(steps: int) -> dict[str, list[Result]]:
    """Add ranks, with one node each."""
    return {
        name: [
            simulate(replace(BUSY, ranks=ranks, nodes=ranks, **kind), steps * max(1, 32 // ranks)) for ranks in RANKS
        ]
        for name, kind in KINDS.items()
    }


def tables(steps: int) -> str:
    """Return the tables as Markdown."""
    lines = ["## One rank, more nodes", ""]
    lines += ["16 actors on each node; the loop does nothing but take batches of 64.", ""]
    lines += ["| nodes | photographs, batches/s | of ideal | limit | 8 KB samples, batches/s | of ideal | limit |"]
    lines += [f"|{' ---: |' * 3} --- |{' ---: |' * 2} --- |"]
    for (nodes, large), (_, small) in zip(by_nodes(Setting(), steps), by_nodes(SMALL, steps), strict=True):
        lines.append(f"| {nodes:,} | {_cells(large)} | {_cells(small)} |")
    lines += ["", "## More ranks, one node of 20 actors each", ""]
    lines += [
        "Steps of 30 ms, which all ranks take together. The share of the steps that training alone would make.",
        "",
    ]
    found = by_ranks(steps)
    lines += [f"| ranks | {' | '.join(found)} |", f"|{' ---: |' * (1 + len(found))}"]
    for place, ranks in enumerate(RANKS):
        lines.append(f"| {ranks:,} | {' | '.join(_share(row[place]) for row in found.values())} |")
    lines += ["", "## Failures", "", "One rank, 16 nodes of photographs, steps of 30 ms.", ""]
    lines += ["| a node is lost every | batches/s | of ideal | batches made again, of 2,000 |", f"|{' ---: |' * 4}"]
    for name, lifetime in (("never", 0.0), ("24 h", 86400.0), ("1 h", 3600.0), ("10 min", 600.0), ("1 min", 60.0)):
        # A batch is lost with its node, and each of its actors is hit.
        once = simulate(replace(Setting(), nodes=16, step=0.03, lifetime=lifetime), 2000)
        lines.append(f"| {name} | {once.rate:.1f} | {_share(once)} | {once.again} |")
    return "\n".join(lines)


def _cells(found: Result) -> str:
    return f"{found.rate:,.1f} | {_share(found)} | {found.limit}"


def _share(found: Result) -> str:
    return f"{min(1.0, found.efficiency):.0%}".replace("%", " %")


def figure(path: Path, steps: int) -> None:
    """Draw both curves."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    drawn, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, setting in (("150 KB samples, 8 ms", Setting()), ("8 KB samples, 20 ms", SMALL)):
        curve = by_nodes(setting, steps)
        left.loglog([nodes for nodes, _ in curve], [64 * found.rate for _, found in curve], "o-", label=name)
        left.loglog(
            [nodes for nodes, _ in curve], [64 * found.ideal for _, found in curve], ":", color="gray", linewidth=1
        )
    left.set(xlabel="nodes of 16 actors", ylabel="samples/s", title="More nodes, one rank (dotted: ideal)")
    left.legend()
    # The others are the first line again.
    for name in ("equal nodes", "uneven nodes", "stragglers"):
        row = by_ranks(steps)[name]
        right.semilogx(RANKS, [100 * min(1.0, found.efficiency) for found in row], "o-", label=name)
    right.set(xlabel="ranks, one node each", ylabel="% of training's own speed", ylim=(0, 105), title="Ranks in step")
    right.legend()
    drawn.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--output", type=Path, help="the page, whose part after the line `<!-- model -->` is replaced")
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    text = tables(given.steps)
    print(text)
    if given.output is not None:
        head, mark, _ = given.output.read_text(encoding="utf-8").partition("<!-- model -->\n")
        given.output.write_text(f"{head}{mark}\n{text}\n", encoding="utf-8")
    if given.figure is not None:
        figure(given.figure, given.steps)


if __name__ == "__main__":
    main()
