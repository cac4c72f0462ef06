"""What a driver of workers on a cluster spends, measured here, and the model beside runs that fit on this machine.

`python benchmarks/cluster_service.py` writes benchmarks/cluster_service.json, which cluster_model.py reads, and the
part of docs/scaling.md between `<!-- service -->` and `<!-- model -->`. Needs Ray (`make ray` makes .venv-ray), takes
about three minutes, and wants a machine that does nothing else. The workers sleep instead of computing, so that many
of them fit on few cores: what is checked is the plan, the window and the deaths, not the speed of a core.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from statistics import median
from time import perf_counter, thread_time
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from cluster_model import SERVICE, Setting, simulate

MAKE, SPREAD, SMALL, LARGE = 0.25, 0.1, 8192, 16 * 150_528
SLOW = 1.5
"""How much longer one of two nodes takes, where nodes differ."""
SEEDS = 20
"""Times that the model is run for each measurement."""
KILL = 4.0
"""Seconds between two kills."""


class Sleeps:
    """Samples that take a while without a processor: whole batches, as the loader reads them with ``batch_size=1``."""

    def __init__(self, count: int, seconds: float, nbytes: int, stragglers: float = 0.0, slow: int = 0) -> None:
        self.count, self.seconds, self.nbytes = count, seconds, nbytes
        self.stragglers, self.slow = stragglers, slow
        """Actors with numbers below ``slow`` are on the slower node."""

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        from headrace import get_worker_info, rng

        draws = rng()
        seconds = self.seconds * draws.lognormal(0, SPREAD)
        seconds *= Setting.slow if draws.random() < self.stragglers else 1
        info = get_worker_info()
        time.sleep(seconds * (SLOW if info is not None and info.id < self.slow else 1))
        return np.zeros(self.nbytes, np.uint8)


def loops_of(pools: list[Any], datasets: list[Sleeps], prefetch: int) -> list[Any]:
    """Begin a loop for each dataset, all in step; with one pool, they share it."""
    from headrace import DataLoader

    ranks = len(datasets)
    return [
        iter(
            DataLoader(
                dataset,
                1,
                seed=0,
                num_workers=pools[rank % len(pools)].workers * len(pools) // ranks,
                prefetch_factor=prefetch,
                rank=rank,
                world_size=ranks,
                backend=pools[rank % len(pools)],
            )
        )
        for rank, dataset in enumerate(datasets)
    ]


def rate(loops: list[Any], step: float = 0.0, kill: float = 0.0) -> tuple[float, float, int]:
    """Read all loops in step; return batches a second of all, the thread's CPU seconds a batch, and the kills.

    The first quarter is left out, as the model does.
    """
    arrived, began, kills, last = [], thread_time(), 0, perf_counter()
    for _ in zip(*loops, strict=True):
        arrived.append(perf_counter())
        if kill and arrived[-1] - last > kill:
            opened = [each.opened for each in loops[0]._dispatcher.executor._state.actors if each.opened is not None]
            os.kill(opened[kills % len(opened)].pid, signal.SIGKILL)
            kills, last = kills + 1, perf_counter()
        time.sleep(step)
    spent = (thread_time() - began) / len(arrived) / len(loops)
    rest = len(arrived) // 4
    return len(loops) * (len(arrived) - 1 - rest) / (arrived[-1] - arrived[rest]), spent, kills


def service(pool: Any, rounds: int) -> dict[str, float]:
    """Measure what the loop's thread spends on a batch, on its bytes, and on each work in flight."""
    small = median(rate(loops_of([pool], [Sleeps(1500, 0.0, 8)], 8))[1] for _ in range(rounds))
    large = median(rate(loops_of([pool], [Sleeps(200, 0.0, LARGE)], 2))[1] for _ in range(rounds))
    each = median(looking() for _ in range(rounds))
    return {
        "call": round(small, 6),
        "copy": round(LARGE / (large - small), -7),
        "each": round(each, 8),
        "restart": round(median(restarting(pool) for _ in range(rounds)), 1),
    }


def restarting(pool: Any) -> float:
    """Return the seconds from the death of an actor to the next batch, where it is the only one."""
    (loop,) = loops_of([pool], [Sleeps(4, 0.0, 8)], 1)
    next(loop)
    began = perf_counter()
    os.kill(loop._dispatcher.executor._state.actors[0].opened.pid, signal.SIGKILL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        list(loop)
    return perf_counter() - began


def looking(works: int = 20_000) -> float:
    """Return the seconds that one look at answers takes for each, where none is there."""
    import ray

    waits = ray.remote(num_cpus=1, resources={"none has this": 1})(lambda: None)
    refs = [waits.remote() for _ in range(works)]
    began = thread_time()
    for _ in range(3):
        ray.wait(list(dict.fromkeys(refs)), num_returns=works, timeout=0)
    spent = (thread_time() - began) / 3 / works
    for ref in refs:
        ray.cancel(ref)
    return spent


def checks(pools: dict[str, Any]) -> list[tuple[str, float, list[float]]]:
    """Run what fits here; return for each what was measured, and what the model says with the same figures."""
    measured = {"call": SERVICE["call"], "copy": SERVICE["copy"], "each": SERVICE["each"], "network": float("inf")}
    found: list[tuple[str, float, list[float]]] = []

    def check(name: str, loops: list[Any], steps: int, kill: float = 0.0, **how: Any) -> None:
        setting = Setting(**{**measured, "make": MAKE, "spread": SPREAD, "nbytes": SMALL, **how})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the actors that are killed here
            made = rate(loops, setting.step, kill)[0]
        said = sorted(simulate(setting, steps, seed).rate for seed in range(SEEDS))
        found.append((name, made, said))
        print(f"{name}: {made:.1f} batches/s, the model says {median(said):.1f}", file=sys.stderr, flush=True)

    for actors in (1, 4, 16):
        steps, pool = 40 * actors, pools[f"{actors}"]
        check(f"{actors}", loops_of([pool], [Sleeps(steps, MAKE, SMALL)], 2), steps, nodes=1, actors=actors)
    sixteen, one = pools["16"], {"nodes": 1, "actors": 16}
    check("16, batches of 2.4 MB", loops_of([sixteen], [Sleeps(640, MAKE, LARGE)], 2), 640, nbytes=LARGE, **one)
    for prefetch in (2, 16):
        check(
            f"16, steps of 20 ms, 1 % of the batches take 10 times as long, prefetch {prefetch}",
            loops_of([sixteen], [Sleeps(640, MAKE, SMALL, stragglers=0.01)], prefetch), 640,
            stragglers=0.01, prefetch=prefetch, step=0.02, **one,
        )  # fmt: skip
    check(
        f"16, one is killed every {KILL:g} s", loops_of([sixteen], [Sleeps(960, MAKE, SMALL)], 2), 960, kill=KILL,
        nodes=16, actors=1, lifetime=16 * KILL, restart=SERVICE["restart"],
    )  # fmt: skip
    two: dict[str, Any] = {"ranks": 2, "nodes": 2, "actors": 8, "step": 0.025, "speeds": (1 / SLOW, 1.0)}
    slow, usual = Sleeps(640, MAKE, SMALL, slow=8), Sleeps(640, MAKE, SMALL)
    halves = [pools["8"], pools["other 8"]]
    check("2 ranks with 8 each, one node 1.5 times as slow", loops_of(halves, [slow, usual], 2), 320, **two)
    for prefetch in (2, 4):
        check(
            f"the same nodes, one pool of 16, prefetch {prefetch}",
            loops_of([sixteen], [slow, slow], prefetch), 320, shared=True, prefetch=prefetch, **two,
        )  # fmt: skip
    return found


def page(found: list[tuple[str, float, list[float]]]) -> str:
    """Return the part of docs/scaling.md that was measured."""
    lines = [
        "",
        "## What was measured",
        "",
        f"By `python benchmarks/cluster_service.py`, on {os.cpu_count()} cores: the loop's thread spends",
        f"{SERVICE['call'] * 1000:.2f} ms of CPU time on a batch, copies {SERVICE['copy'] / 1e9:.1f} GB/s, and",
        f"looks at a work in flight in {SERVICE['each'] * 1e6:.2f} µs. The tables below are made with these figures.",
        f"An actor that is killed is back after {SERVICE['restart']:.1f} s.",
        "",
        "The model beside runs that fit on this machine. So that many actors fit on few cores, they sleep",
        f"{MAKE * 1000:.0f} ms (10 % log-normal) for a batch.",
        "",
        "| actors | measured, batches/s | model | model, lowest to highest | measured / model |",
        f"| --- |{' ---: |' * 4}",
    ]
    for name, made, said in found:
        middle = median(said)
        lines.append(f"| {name} | {made:.1f} | {middle:.1f} | {said[0]:.1f} to {said[-1]:.1f} | {made / middle:.2f} |")
    return "\n".join([*lines, "", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="docs/scaling.md, whose part between the marks is replaced")
    given = parser.parse_args()
    import ray

    from headrace.executors import RayCluster, RayPool

    ray.init(address="local", num_cpus=4, object_store_memory=800 << 20, include_dashboard=False,
             log_to_driver=False, logging_level="ERROR")  # fmt: skip
    cluster = RayCluster(worker_resources={"CPU": 0.05}, probe=False)
    pools = {name: RayPool(int(name.split()[-1]), cluster) for name in ("1", "4", "16", "8", "other 8")}
    for pool in pools.values():  # all actors are there before anything is measured
        for loop in loops_of([pool], [Sleeps(pool.workers * 4, 0.05, 8)], 2):
            loop._dispatcher.executor._await_actors(pool.workers)
            list(loop)
    SERVICE.update(service(pools["1"], given.rounds))
    print(SERVICE, file=sys.stderr, flush=True)
    Path(__file__).with_suffix(".json").write_text(json.dumps(SERVICE, indent=1) + "\n", encoding="utf-8")
    text = page(checks(pools))
    print(text)
    for pool in pools.values():
        pool.close()
    if given.output is not None:
        head, mark, rest = given.output.read_text(encoding="utf-8").partition("<!-- service -->\n")
        _, model, tables = rest.partition("<!-- model -->\n")
        given.output.write_text(f"{head}{mark}{text}{model}{tables}", encoding="utf-8")


if __name__ == "__main__":
    main()
