"""Worker processes beside torch's: `python benchmarks/process_workers.py` (medians; smallest..largest).

Each measurement is an interpreter of its own, in turn, round by round; ratios are taken within each round. All run in
the peers' environment that has torch (`make bench-peers`); without it only headrace runs, in this one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from registry import HERE, PEERS

if TYPE_CHECKING:
    from collections.abc import Sequence

PYTHON = PEERS / "torch" / "bin" / "python"
STACKED = "torch, NumPy batches (`collate_fn=np.stack`)"
METHODS = ("fork", "forkserver", "spawn")
RUNNER = HERE / "runners" / "process_workers.py"


@dataclass(frozen=True, slots=True)
class Row:
    """One loader in one table; its ratios are to the row called ``beside``."""

    name: str
    workload: str
    kind: str
    arrays: bool = False
    beside: str | None = None
    method: str = ""
    """How workers start, where that is what is measured."""


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    rows: tuple[Row, ...]
    columns: tuple[tuple[str, str, str], ...]
    """Heading, figure, format."""
    ratios: tuple[tuple[str, str], ...]
    """Heading, figure."""


def _start(kind: str, method: str) -> Row:
    beside = None if kind == "torch" else f"torch, {method}"
    return Row(f"{kind}, {method}", "start", kind, beside=beside, method=method)


TABLES = {
    "transport": Table(
        "Transport: existing samples of 600 KB float32, batch 64, 2 workers",
        (
            Row(STACKED, "transport", "torch", arrays=True),
            Row("headrace, NumPy batches", "transport", "headrace", beside=STACKED),
            Row("torch, tensors", "transport", "torch"),
            Row("headrace.torch, tensors", "transport", "headrace.torch", beside="torch, tensors"),
        ),
        (("samples/s", "samples_per_s", ",.0f"), ("CPU s / 1000", "cpu_s_per_1000", ".2f")),
        (("x torch", "samples_per_s"), ("CPU x torch", "cpu_s_per_1000")),
    ),
    "first_batch": Table(
        "First batch of 2 spawned workers, of a dataset that holds {few:,} path strings",
        (
            Row("torch", "first_batch", "torch"),
            Row("headrace", "first_batch", "headrace", beside="torch"),
            Row("headrace.torch", "first_batch", "headrace.torch", beside="torch"),
        ),
        (
            ("first batch s", "first_batch_s", ".2f"),
            ("CPU s of all processes", "cpu_s", ".2f"),
            ("CPU s of iter() itself", "start_s", ".3f"),
            ("CPU s of pickling the dataset once", "pickle_s", ".3f"),
        ),
        (("x torch", "first_batch_s"),),
    ),
    "start": Table(
        "First batch of 2 workers: of a program's first loop, and of each later one",
        (
            *(_start("torch", method) for method in METHODS),
            *(_start("headrace", method) for method in METHODS),
            *(_start("headrace.torch", method) for method in METHODS[:2]),
        ),
        (
            ("first loop s", "first_loop_s", ".3f"),
            ("later loop s", "later_loop_s", ".3f"),
            ("CPU s of all processes in a later one", "cpu_s", ".2f"),
        ),
        (("first loop x torch", "first_loop_s"), ("later x torch", "later_loop_s")),
    ),
    "memory": Table(
        "Peak proportional memory (PSS) with 4 forked workers over {paths:,} path strings, shuffled",
        (
            Row("torch, a list", "memory", "torch"),
            Row("headrace, a list", "memory", "headrace", beside="torch, a list"),
            Row("headrace.torch, a list", "memory", "headrace.torch", beside="torch, a list"),
            Row("headrace, PackedList", "memory", "headrace", arrays=True, beside="torch, a list"),
            Row("headrace.torch, PackedList", "memory", "headrace.torch", arrays=True, beside="torch, a list"),
            Row("torch, headrace's PackedList", "memory", "torch", arrays=True, beside="torch, a list"),
        ),
        (("peak PSS MiB", "peak_pss_mib", ",.0f"), ("before the loop", "idle_pss_mib", ",.0f")),
        (("x torch", "peak_pss_mib"),),
    ),
}  # fmt: skip

Found = dict[str, list[dict[str, float]]]


def measure(row: Row, given: argparse.Namespace) -> dict[str, float]:
    python = str(PYTHON) if PYTHON.exists() else sys.executable
    count = {"memory": given.paths, "first_batch": given.paths // 10}.get(row.workload, given.samples)
    command = [
        python,
        "-W",
        "ignore",
        str(RUNNER),
        row.workload,
        row.kind,
        "--seconds",
        str(given.seconds),
        "--count",
        str(count),
    ]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "src"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, *(["--arrays"] if row.arrays else []), *(["--method", row.method] if row.method else [])],
        env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=given.timeout,
    )  # fmt: skip
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def spread(values: Sequence[float], form: str) -> str:
    return f"{median(values):{form}} ({min(values):{form}}..{max(values):{form}})"


def document(table: Table, rows: Sequence[Row], found: Found, given: argparse.Namespace) -> list[str]:
    heads = ["loader", *(name for name, _, _ in table.columns), *(name for name, _ in table.ratios)]
    lines = [f"## {table.title.format(paths=given.paths, few=given.paths // 10)}", "", f"| {' | '.join(heads)} |"]
    lines.append(f"| --- |{' ---: |' * (len(heads) - 1)}")
    for row in rows:
        mine, cells = found[row.name], [row.name]
        cells += [spread([each[figure] for each in mine], form) for _, figure, form in table.columns]
        theirs = found.get(row.beside) if row.beside else None
        for _, figure in table.ratios:
            ratios = [one[figure] / other[figure] for one, other in zip(mine, theirs or (), strict=False)]
            cells.append(spread(ratios, ".2f") if ratios else "")
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def versions() -> str:
    if not PYTHON.exists():
        return "torch is not installed"
    code = "import torch, numpy; print(f'torch {torch.__version__}, numpy {numpy.__version__}')"
    return subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="that transport is measured for (3)")
    parser.add_argument("--samples", type=int, default=640, help="that transport brings over at the least (640)")
    parser.add_argument("--paths", type=int, default=2_000_000, help="strings (2,000,000)")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds a measurement may take (600)")
    parser.add_argument("--output", type=Path, help="write the tables to this file too")
    given = parser.parse_args()
    machine = (
        f"{len(os.sched_getaffinity(0))} cores, Linux {platform.release()}, Python {platform.python_version()}, "
        f"{versions()}; load average before: {os.getloadavg()[0]:.1f}"
    )
    protocol = (
        f"{given.rounds} rounds, loaders in turn, each in an interpreter of its own; medians (smallest..largest), "
        "ratios round by round"
    )
    lines = [
        "# Worker processes",
        "",
        f"Made on {datetime.now(UTC):%Y-%m-%d} by `python benchmarks/process_workers.py --rounds {given.rounds}`.",
        "",
        f"- {machine}",
        f"- {protocol}",
        "",
    ]  # fmt: skip
    for name in given.workloads:
        table, found = TABLES[name], Found()
        rows = [row for row in table.rows if PYTHON.exists() or row.kind == "headrace"]
        for turn in range(given.rounds):
            for row in rows:
                found.setdefault(row.name, []).append(measure(row, given))
                print(f"[{turn + 1}/{given.rounds}] {name}: {row.name}: {found[row.name][-1]}", file=sys.stderr)
        lines += document(table, rows, found, given)
    text = "\n".join(lines)
    print(text)
    if given.output:
        given.output.write_text(text)


if __name__ == "__main__":
    main()
