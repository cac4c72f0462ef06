"""How commands, notebooks and statistics write numbers, names and tables."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from headrace.interop import floats

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray


def plain(text: str) -> str:
    r"""Escape what would move a terminal's cursor or cannot be encoded; a file's name can hold either.

    >>> print(plain("photos/caf\u00e9\x1b[2J\n.jpg"))
    photos/café\x1b[2J\n.jpg
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun.

    >>> count(1, "image"), count(2400, "image"), count(2, "batch", "batches")
    ('1 image', '2,400 images', '2 batches')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def size_of(nbytes: float) -> str:
    """Write a number of bytes.

    >>> size_of(512), size_of(31_400_000), size_of(4.2e9)
    ('512 bytes', '31.4 MB', '4.20 GB')
    """
    if nbytes < 1000:
        return f"{nbytes:.0f} bytes"
    if nbytes < 1e6:
        return f"{nbytes / 1e3:.1f} kB"
    return f"{nbytes / 1e6:.1f} MB" if nbytes < 1e9 else f"{nbytes / 1e9:.2f} GB"


def table(rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Align cells in columns: the first ``left`` of them to the left, the numbers after them to the right.

    >>> print(table([("stage", "seconds"), ("reading", "0.12"), ("decoding", "10.40")]))
    stage     seconds
    reading      0.12
    decoding    10.40
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def html_table(rows: Sequence[Sequence[str]], *, left: int = 1, title: str = "", heading: bool = True) -> str:
    """Write rows as an HTML table for notebooks; the first row is the heading if ``heading`` is true.

    >>> print(html_table([("stage", "seconds"), ("reading", "0.12")], title="epoch 1"))
    <table><caption style="caption-side: top; text-align: left; font-weight: bold">epoch 1</caption>
    <tr><th style="text-align: left">stage</th><th style="text-align: right">seconds</th></tr>
    <tr><td style="text-align: left">reading</td><td style="text-align: right">0.12</td></tr></table>
    """
    style = "caption-side: top; text-align: left; font-weight: bold"
    lines = [f'<table><caption style="{style}">{escape(title)}</caption>' if title else "<table>"]
    for number, row in enumerate(rows):
        kind = "td" if number or not heading else "th"
        cells = (
            f'<{kind} style="text-align: {"left" if place < left else "right"}">{escape(cell)}</{kind}>'
            for place, cell in enumerate(row)
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join(lines) + "</table>"


def ranges(named: Iterable[tuple[str, NDArray[Any]]]) -> str:
    """Write the shape, dtype and range of values of arrays, one a line.

    >>> import numpy as np
    >>> print(ranges([("images", np.zeros((2, 8, 8), np.uint8)), ("labels", np.array([3, 5]))]))
            shape      dtype  smallest  largest
    images  (2, 8, 8)  uint8         0        0
    labels  (2,)       int64         3        5
    >>> print(ranges([("none", np.zeros((0, 8)))]))
          shape   dtype    smallest  largest
    none  (0, 8)  float64
    """
    return table(range_rows(named), left=3)


def range_rows(named: Iterable[tuple[str, NDArray[Any]]]) -> list[tuple[str, ...]]:
    """Return the rows of the table that `ranges` writes, the heading first."""
    rows: list[tuple[str, ...]] = [("", "shape", "dtype", "smallest", "largest")]
    for name, array in named:
        kind = floats.kind(array.dtype)
        ordered = kind in "biuf" and array.size > 0
        values = (array.min(), array.max()) if ordered else ("", "")
        smallest, largest = (f"{value:.3f}" if kind == "f" and ordered else str(value) for value in values)
        rows.append((name, str(array.shape), str(array.dtype), smallest, largest))
    return rows


def most_common(counted: Counter[str], most: int) -> str:
    """Write what was counted, the most common first.

    >>> from collections import Counter
    >>> most_common(Counter("banana"), most=2)
    'a (3), n (2), and 1 more'
    """
    items = [f"{item} ({number})" if number > 1 else item for item, number in counted.most_common(most)]
    if len(counted) > most:
        items.append(f"and {len(counted) - most} more")
    return ", ".join(items)
