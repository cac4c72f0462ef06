"""Plots of the measured tables: each table of a page of benchmarks/ with a column of rates becomes bars."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import drawing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RATES = ("images/s", "rows/s", "samples/s", "million tokens/s")
"""The columns that are drawn: more is better."""
NUMBER = r"[\d,]+(?:\.\d+)?"
TABLE = re.compile(r"(?:^\|.*\|\n)+", re.MULTILINE)


def with_plots(text: str, page: str, target: Path) -> str:
    """Put a plot above each table of rates; write the SVG files beside the page."""
    stem = page.rpartition("/")[2].removesuffix(".md")

    def plotted(match: re.Match[str]) -> str:
        found = bars_of(match[0])
        if found is None:
            return match[0]
        unit, rows = found
        title = _heading(text[: match.start()])
        name = f"{stem}-{len(made)}.svg"
        made.append(name)
        path = (target / page).parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(drawing.bars(rows, unit, "headrace", title), encoding="utf-8")
        return f"![{title}: {unit}, as bars]({name})\n\n{match[0]}"

    made: list[str] = []
    return TABLE.sub(plotted, text)


def bars_of(table: str) -> tuple[str, list[tuple[str, float, float, float]]] | None:
    """Return the unit of a table's rates, and name, median, smallest and largest of each row."""
    heading, _, *rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
    unit = next((one for one in RATES if one in heading), None)
    if unit is None:
        return None
    column = heading.index(unit)
    found = []
    for row in rows:
        numbers = [float(number.replace(",", "")) for number in re.findall(NUMBER, row[column])] if row[column:] else []
        if numbers and len(row[0]) <= LONGEST:
            name = re.sub(r"[*`]", "", row[0])
            found.append((name, numbers[0], numbers[1] if numbers[1:] else numbers[0], numbers[-1]))
    return (unit, found) if len(found) > 1 and min(value for _, value, *_ in found) > 0 else None


LONGEST = 44
"""The letters of a name that bars have room for; a longer row stays in the table alone."""


def _heading(above: str) -> str:
    found = re.findall(r"^#+ (.*)$", above, re.MULTILINE)
    return re.sub(r"[`*]", "", found[-1]) if found else ""


def numbers(results: str, chaos: str) -> Iterator[tuple[str, str]]:
    """Yield the two numbers of the start page, and what they are, from the pages that measured them."""
    table = results.partition("### photos, antialiased")[2].partition("\n##")[0]
    read = re.search(rf"^\| torch-torchvision \|[^|]*\| *({NUMBER})", table, re.MULTILINE)
    found = re.search(rf"^\| headrace \|[^|]*\| *({NUMBER})", table, re.MULTILINE)
    killed = re.search(r"^\| \*all\* \| (\d+) \| \d+ \| \d+ \| (\d+) \| (\d+) \|$", chaos, re.MULTILINE)
    if found is None or read is None or killed is None:
        raise ValueError("benchmarks/RESULTS.md or CHAOS.md has no row that the start page shows")
    yield f"{found[1]} images/s", f"on two cores, where torch with torchvision reads {read[1]}: crops of 500x375 photos"
    lost = int(killed[2]) + int(killed[3])
    yield f"{lost} samples", f"lost or repeated, while {int(killed[1]):,} workers were killed at random"
