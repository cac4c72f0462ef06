"""The tables of the guide that benchmarks write, between their marks: `<!-- name -->` and `<!-- end of name -->`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def insert(page: Path, name: str, lines: Sequence[str]) -> None:
    """Replace a table in a page of the guide, between its marks."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    text = page.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page} has no table between {begin.strip()} and {end.strip()}")
    page.write_text("".join((before, begin, "\n".join(lines), "\n", end, after)), encoding="utf-8")
