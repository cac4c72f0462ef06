"""``headrace bench SCRIPT --free``: how fast a training script is with its loader, and with one that costs nothing.

The script runs as it is. Each of its loops gets some batches from the loader, and then, with the workers stopped, the
newest of them again: what the loop takes then is its own time.
"""

from __future__ import annotations

import functools
import runpy
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

import click

from headrace.cli import options
from headrace.cli.command_errors import CommandError
from headrace.cli.output import Result, say, say_table
from headrace.cli.script_objects import failed
from headrace.errors import HeadraceError
from headrace.formatting import duration, percent, plain
from headrace.run.session import Session

KEPT = 8
"""Batches that are given again and again: no more memory than a loader with workers holds."""
MEASURED = 64
"""Batches of each part of a loop: from the loader, and given again."""
_OTHERS = ("workers", "batch_size", "epochs", "wanted", "size", "seed", "backend")


@dataclass(slots=True)
class Spent:
    """When a loop asked for batches, and got them: first from its loader, then without."""

    loader: list[float] = field(default_factory=list)
    free: list[float] = field(default_factory=list)

    def seconds(self) -> tuple[float, float] | None:
        """Return the seconds a batch of both parts, without their first batches; None for a loop that was left."""
        parts = [self.loader[1:], self.free[1:]]
        if min(map(len, parts)) < 2:
            return None
        with_loader, free = ((times[-1] - times[0]) / (len(times) - 1) for times in parts)
        return with_loader, free


class FreeLoop(Iterator[Any]):
    """A loop that stops its loader after some batches, and gives the newest of them again."""

    def __init__(self, loop: Any, spent: Spent, measured: int) -> None:
        self._loop = loop
        self._spent = spent
        self._measured = measured
        self._kept: deque[Any] = deque(maxlen=KEPT)
        self._over = False

    def __len__(self) -> int:
        return len(self._loop)

    def __next__(self) -> Any:
        if not self._over:
            if len(self._spent.loader) < self._measured:
                try:
                    batch = next(self._loop)
                except StopIteration:
                    self._end()
                else:
                    self._spent.loader.append(perf_counter())
                    self._kept.append(batch)
                    return batch
            else:
                self._end()
        # In turns, so that no cache of the processor has them all.
        if not self._kept or len(self._spent.free) >= max(len(self._spent.loader), KEPT):
            raise StopIteration
        self._spent.free.append(perf_counter())
        self._kept.rotate(-1)
        return self._kept[-1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def _end(self) -> None:
        self._over = True
        if hasattr(self._loop, "close"):  # without workers, an adapter's has nothing to close
            self._loop.close()


@contextmanager
def free_loops(measured: int = MEASURED) -> Iterator[list[Spent]]:
    """Let every loop over a loader that begins in the block be a `FreeLoop`; yield the times of all of them."""
    begun: list[Spent] = []
    begin = Session.loop

    def freed(self: Session, place: Callable[[Any], Any] | None = None) -> Iterator[Any]:
        begun.append(Spent())
        return FreeLoop(begin(self, place), begun[-1], measured)

    Session.loop = freed  # type: ignore[method-assign]  # a script's loaders are made where nobody can be asked
    try:
        yield begun
    finally:
        Session.loop = begin  # type: ignore[method-assign]


def free_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option ``--free``, which takes a whole script."""

    @functools.wraps(command)
    def chosen(*, free: bool, path: str, **given: Any) -> Any:
        if not free:
            return command(path=path, **given)
        options.refuse(_OTHERS, "with --free the script says how its loaders work")
        return bench_free(path)

    return click.option(
        "--free",
        is_flag=True,
        help="PATH is a script: run it, and compare its loops with a loader that costs nothing.",
    )(chosen)


def bench_free(script: str) -> Result:
    """Run a script, and say how much of the time of its loops is their own."""
    path = Path(script)
    if not path.is_file() or path.suffix != ".py":
        raise CommandError("--free runs a script", found=script, expected="the path of a Python file")
    say(f"{plain(script)}: {MEASURED} batches of each loop from its loader, then the same number given again")
    with free_loops() as begun:
        _run(path)
    measured = [(number, found) for number, spent in enumerate(begun) if (found := spent.seconds()) is not None]
    if not measured:
        raise CommandError(
            "no loop took enough batches",
            path=script,
            found=len(begun),
            expected="a loop over a loader of headrace that takes 3 batches or more",
            cure="let the script train for a few batches",
        )
    rows = [("loop", "with its loader", "alone", "batches/s alone", "below")]
    rows += [
        (str(number), duration(with_loader), duration(free), f"{1 / free:,.1f}", percent(_below(with_loader, free)))
        for number, (with_loader, free) in measured
    ]
    say_table(rows)
    with_loader, free = (fmean(found[part] for _, found in measured) for part in (0, 1))
    below = _below(with_loader, free)
    say(
        f"the loops alone take {duration(free)} a batch: no loader gives more than {1 / free:,.1f} batches/s; "
        f"with theirs they are {percent(below)} below"
    )
    loops = [{"loop": n, "seconds_a_batch": found[0], "free_seconds_a_batch": found[1]} for n, found in measured]
    return Result({"path": script, "loops": loops, "below_free": below})


def _below(with_loader: float, free: float) -> float:
    """Return the part of the rate that is lost to the loader."""
    return max(0.0, 1.0 - free / with_loader) if with_loader > 0.0 else 0.0


def _run(path: Path) -> None:
    """Run a script as ``python SCRIPT`` does; its exit status 0 is no error."""
    arguments, sys.argv = sys.argv, [str(path)]
    sys.path.insert(0, str(path.resolve().parent))
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as error:
        if error.code not in (None, 0):
            raise failed(path, error) from error
    except (HeadraceError, click.ClickException):
        raise
    except Exception as error:
        raise failed(path, error) from error
    finally:
        sys.argv = arguments
        sys.path.remove(str(path.resolve().parent))
