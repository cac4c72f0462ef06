"""Turn measurements into Markdown tables: medians, spread and ratios by round."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# The means of about 500 random crops differ by less than this, unless channels are swapped or normalization differs.
MEAN_TOLERANCE = 0.25
STD_TOLERANCE = 0.25


HEADINGS = (
    "runner",
    "workers",
    "{unit}/s",
    "x {baseline}",
    "first batch s",
    "next epoch s",
    "CPU s / 1000",
    "peak PSS MiB",
    "of it idle",
    "start s",
)
ALIGNMENT = "| --- | --- |" + " ---: |" * (len(HEADINGS) - 2)


@dataclass(frozen=True, slots=True)
class Run:
    """One turn of one runner: its JSON answer, or an error."""

    runner: str
    round: int
    result: dict[str, Any] | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A runner's turns in one table; ``how`` describes its workers, and a ``limit`` does only part of the work."""

    runner: str
    how: str
    runs: tuple[Run, ...]
    limit: bool = False

    def values(self, field: str) -> list[float]:
        found = (run.result.get(field) for run in self.runs if run.result)
        return [value for value in found if value is not None]

    def by_round(self, field: str) -> dict[int, float]:
        return {run.round: run.result[field] for run in self.runs if run.result}

    @property
    def facts(self) -> dict[str, Any] | None:
        return next((run.result["facts"] for run in self.runs if run.result), None)

    @property
    def error(self) -> str | None:
        return next((run.error for run in self.runs if run.error), None)


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, smallest and largest."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        found = sorted(values)
        return cls(median(found), found[0], found[-1]) if found else None


def ratios(ours: dict[int, float], theirs: dict[int, float]) -> list[float]:
    """Return ours / theirs of each round that both finished, so that a slow moment affects both."""
    return [ours[turn] / theirs[turn] for turn in sorted(ours.keys() & theirs.keys())]


def difference(facts: dict[str, Any] | None, reference: dict[str, Any] | None) -> str | None:
    """Return how two runners' batches differ too much to be the same work, or None."""
    if facts is None or reference is None:
        return None
    for name in ("shape", "dtype"):
        if facts[name] != reference[name]:
            return f"{name} {facts[name]} against {reference[name]}"
    for name, tolerance in (("mean", MEAN_TOLERANCE), ("std", STD_TOLERANCE)):
        if any(abs(a - b) > tolerance for a, b in zip(facts[name], reference[name], strict=True)):
            return f"{name} per channel {facts[name]} against {reference[name]}"
    return None


def choose_baseline(rows: Sequence[Row], candidates: Sequence[str]) -> Row | None:
    """Return the fastest candidate that ran, otherwise the first row that ran and does all the work."""
    ran = [row for row in rows if row.values("images_per_s")]
    named = [row for row in ran if row.runner in candidates]
    if named:
        return max(named, key=lambda row: median(row.values("images_per_s")))
    return next((row for row in ran if not row.limit), None)


def goals(rows: Sequence[Row], goals: Iterable[tuple[str, Sequence[str], float]]) -> list[str]:
    """Return a line for each goal whose runners ran: the ratio by round, and what it is to be."""
    ran = {row.runner: row for row in rows if row.values("images_per_s")}
    lines = []
    for name, others, least in goals:
        named = [ran[other] for other in others if other in ran]
        if name not in ran or not named:
            continue
        other = max(named, key=lambda row: median(row.values("images_per_s")))
        ratio = Spread.of(ratios(ran[name].by_round("images_per_s"), other.by_round("images_per_s")))
        if ratio is not None:
            verdict = "reached" if ratio.middle >= least else "missed"
            lines.append(f"- {name}: {_spread(ratio, '.2f')} x {other.runner} (goal {least:g}: {verdict})")
    return lines


def table(rows: Sequence[Row], candidates: Sequence[str], unit: str = "images") -> tuple[list[str], list[str]]:
    """Return the lines of a Markdown table, and sentences about rows whose work differs from the baseline's."""
    baseline = choose_baseline(rows, candidates)
    name = baseline.runner if baseline else "baseline"
    lines = [f"| {' | '.join(HEADINGS).format(baseline=name, unit=unit)} |", ALIGNMENT]
    problems = []
    for row in rows:
        unlike = difference(row.facts, baseline.facts) if baseline else None
        if unlike:
            problems.append(f"{row.runner} does not do the same work as {name}: {unlike}")
        lines.append(_line(row, baseline, unlike=unlike is not None))
    problems += [f"{row.runner} failed: {row.error}" for row in rows if row.error]
    return lines, problems


def _line(row: Row, baseline: Row | None, *, unlike: bool) -> str:
    rates = Spread.of(row.values("images_per_s"))
    if rates is None:
        cells = ["failed", *[""] * 7]
    else:
        against = "" if baseline is None else "not comparable"
        if baseline and not unlike:
            ratio = Spread.of(ratios(row.by_round("images_per_s"), baseline.by_round("images_per_s")))
            against = _spread(ratio, ".2f")
        cells = [
            _spread(rates, ",.0f"),
            against,
            _median(row, "first_batch_s", ".3f"),
            _median(row, "epoch_gap_s", ".3f"),
            _median(row, "cpu_s_per_1000", ".4f"),
            _median(row, "peak_pss_mib", ",.0f"),
            _median(row, "idle_pss_mib", ",.0f"),
            _median(row, "imports_s", ".1f"),
        ]
        if row.error:
            cells[0] += " (some rounds failed)"
    label = f"*{row.runner}* (limit)" if row.limit else row.runner
    return f"| {label} | {row.how} | {' | '.join(cells)} |"


def _spread(spread: Spread | None, form: str) -> str:
    if spread is None:
        return "n/a"
    return f"{spread.middle:{form}} ({spread.low:{form}}..{spread.high:{form}})"


def _median(row: Row, field: str, form: str) -> str:
    values = row.values(field)
    return f"{median(values):{form}}" if values else "n/a"
