"""A progress bar where there is a terminal to draw it on, and nothing where there is none."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

if TYPE_CHECKING:
    from types import TracebackType

    Tqdm = tqdm[Any]
else:
    Tqdm = tqdm


_COLUMNS, _ROWS = 80, 24


class _Bar(Tqdm):
    monitor_interval = 0  # no thread that outlives the bar; miniters=1 makes it needless


class ProgressBar:
    """How far a command is, on standard error; gone without a trace at the end."""

    def __init__(self, total: int, label: str, *, unit: str = "images") -> None:
        # tqdm's own lock is one of processes too, for which Python 3.14 starts a process to keep watch.
        _Bar.set_lock(threading.RLock())
        terminal = sys.stderr.isatty()
        # A terminal may say that it has 0 rows of 0 columns, as those of containers do: tqdm would draw nothing.
        sized = terminal and 0 not in os.get_terminal_size(sys.stderr.fileno())
        self._bar = _Bar(
            total=total,
            desc=label,
            disable=not terminal,
            leave=False,
            miniters=1,
            dynamic_ncols=sized,
            ncols=None if sized else _COLUMNS,
            nrows=None if sized else _ROWS,
            bar_format=f"{{desc}} {{percentage:3.0f}}% |{{bar}}| {{n_fmt}}/{{total_fmt}} {unit}, "
            "{rate_noinv_fmt}, {remaining} left",
            unit=f" {unit}",
        )

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
        """Write a line to standard output, above the bar."""
        with _Bar.external_write_mode(file=sys.stdout):
            click.echo(line)
