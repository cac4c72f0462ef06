"""A progress bar where there is a terminal to draw it on, and nothing where there is none."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from headrace.cli.output import writes_json
from headrace.formatting import duration, percent, rate

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from headrace import Statistics

    Tqdm = tqdm[Any]
else:
    Tqdm = tqdm


_COLUMNS, _ROWS = 80, 24


NARROW = 80
"""Columns of a terminal below which the bar itself is left out: numbers say more."""


class _Bar(Tqdm):
    monitor_interval = 0  # no thread that outlives the bar; miniters=1 makes it needless
    run: Callable[[], Statistics] | None = None

    @property
    def format_dict(self) -> Any:
        """Add the numbers as all of headrace writes them."""
        known = super().format_dict
        done, elapsed = known["n"], known["elapsed"]
        pace = known["rate"] or (done / elapsed if elapsed else 0.0)
        left = (known["total"] - done) / pace if pace and known["total"] else None
        unit = known["unit"].strip()
        known["done"] = f"{done:,}/{known['total']:,}" if known["total"] else f"{done:,}"
        known["pace"] = rate(pace, 1.0, unit)
        known["left"] = f", {duration(max(0.0, round(left)), digits=0)} left" if left is not None else ""
        known["waiting"] = "" if self.run is None else _waiting(self.run())
        return known


def _waiting(run: Statistics) -> str:
    """Say how long the loop waited, and what limits it, as far as that is known."""
    limit = "" if run.measured is None else f" ({run.measured.bound} is the limit)"
    return f", waiting {percent(run.wait_share)}{limit}"


class ProgressBar:
    """How far a command is, on standard error; gone without a trace at the end."""

    def __init__(
        self,
        total: int | None,
        label: str,
        *,
        unit: str = "images",
        run: Callable[[], Statistics] | None = None,
    ) -> None:
        # tqdm's own lock is one of processes too, for which Python 3.14 starts a process to keep watch.
        _Bar.set_lock(threading.RLock())
        terminal = sys.stderr.isatty()
        # A terminal may say that it has 0 rows of 0 columns, as those of containers do: tqdm would draw nothing.
        size = os.get_terminal_size(sys.stderr.fileno()) if terminal else (0, 0)
        sized = 0 not in size
        bar = "|{bar}| " if total and (size[0] or _COLUMNS) >= NARROW else ""
        share = "{percentage:3.0f}% " if total else ""
        self._bar = _Bar(
            total=total,
            desc=label,
            disable=not terminal,
            leave=False,
            miniters=1,
            dynamic_ncols=sized,
            ncols=None if sized else _COLUMNS,
            nrows=None if sized else _ROWS,
            bar_format=f"{{desc}} {share}{bar}{{done}}, {{pace}}{{left}}{{waiting}}",
            unit=unit,
        )
        self._bar.run = run

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def advance(self, steps: int = 1) -> None:
        """Count what is done."""
        self._bar.update(steps)

    def label(self, text: str) -> None:
        """Change the text before the bar; the next advance draws it."""
        self._bar.set_description_str(text, refresh=False)

    def say(self, line: str) -> None:
        """Write a line to standard output, above the bar; nothing where a script asked for JSON."""
        if not writes_json():
            with _Bar.external_write_mode(file=sys.stdout):
                click.echo(line)
