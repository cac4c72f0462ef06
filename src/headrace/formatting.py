"""How commands, notebooks and statistics write numbers, names and tables."""

from __future__ import annotations

import inspect
import math
import textwrap
from html import escape
from typing import TYPE_CHECKING, Any

from headrace.interop import floats

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

SHORT, MOST_LETTERS = 16, 400
"""The most items of a collection, and letters of an argument, that `call_of` writes."""


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


def call_of(made: Any, whole: type) -> str:
    """Write the call that makes an object, by the attributes that have the names of its arguments.

    Defaults are left out. `argument` says how each is written.

    >>> class Every:
    ...     def __init__(self, source, step=2, name=None):
    ...         self.source, self.step, self.name = source, step, name
    >>> call_of(Every([1, 2], name="odd"), Every), call_of(Every([0] * 99, 3), Every)
    ("Every([1, 2], name='odd')", 'Every(<list of 99>, step=3)')
    """
    arguments: list[str] = []
    for name, parameter in inspect.signature(type(made)).parameters.items():
        value = getattr(made, name)
        if not arguments:
            arguments.append(argument(value, whole))
        elif value is not parameter.default:
            arguments.append(f"{name}={argument(value, whole)}")
    return f"{type(made).__name__}({', '.join(arguments)})"


def argument(value: Any, whole: type) -> str:
    """Write an argument as Python code; one that is long or has no such form, in angle brackets.

    >>> argument([1, 2], int), argument([0] * 99, int), argument(range(99), int), argument(object(), int)
    ('[1, 2]', '<list of 99>', 'range(0, 99)', '<object>')

    Objects of ``whole`` are written as their ``repr``.
    """
    if isinstance(value, whole):
        return repr(value)
    length = None if isinstance(value, range | str) else _length(value)
    if length is not None:
        items = value.tolist() if getattr(value, "ndim", 0) == 1 and length <= SHORT else value
        if not (isinstance(items, list | tuple) and length <= SHORT and all(map(_is_number, items))):
            return f"<{type(value).__qualname__} of {length}>"
        value = items
    text = repr(value)
    return f"<{type(value).__name__}>" if " at 0x" in text or len(text) > MOST_LETTERS else text


def _length(value: Any) -> int | None:
    try:
        return len(value)
    except Exception:  # noqa: BLE001  a stream has none, or an array of no dimensions, and a repr never fails
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


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


def memory_of(nbytes: float) -> str:
    """Write an amount of memory.

    >>> memory_of(512), memory_of(31_400_000), memory_of(4.2e9)
    ('512 bytes', '29.9 MiB', '3.91 GiB')
    """
    if nbytes < 1 << 10:
        return f"{nbytes:.0f} bytes"
    if nbytes < 1 << 20:
        return f"{nbytes / (1 << 10):.1f} KiB"
    return f"{nbytes / (1 << 20):,.1f} MiB" if nbytes < 1 << 30 else f"{nbytes / (1 << 30):,.2f} GiB"


def duration(seconds: float, digits: int | None = None) -> str:
    """Write a time; ``digits`` after the point, below a minute.

    >>> duration(0.0123), duration(1.26), duration(61.4), duration(7322), duration(4.2, digits=0)
    ('0.012 s', '1.26 s', '1 min 1 s', '2 h 2 min', '4 s')
    """
    if seconds < 59.5:
        return f"{seconds:.{(3 if seconds < 1 else 2) if digits is None else digits}f} s"
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def percent(share: float, digits: int = 0) -> str:
    """Write a part of a whole.

    >>> percent(0.253), percent(0.0012, 1)
    ('25 %', '0.1 %')
    """
    return f"{100 * share:.{digits}f} %"


def rate(number: float, seconds: float, unit: str) -> str:
    """Write how many there are a second.

    >>> rate(2400, 2.0, "images"), rate(5, 2.0, "images"), rate(0, 0.0, "images")
    ('1,200 images/s', '2.5 images/s', '0.0 images/s')
    """
    pace = number / seconds if seconds else 0.0
    return f"{pace:,.0f} {unit}/s" if pace >= 100 else f"{pace:,.1f} {unit}/s"


def wrapped(text: str, width: int | None) -> str:
    """Break lines that are longer than ``width`` between words; what follows is indented. None: no limit.

    >>> print(wrapped("a line of several words", 12))
    a line of
      several
      words
    """
    if width is None:
        return text
    lines: list[str] = []
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip())]
        broken = textwrap.wrap(
            line,
            width,
            subsequent_indent=f"{indent}  ",
            break_long_words=False,
            break_on_hyphens=False,
            drop_whitespace=True,
        )
        lines += broken if len(line) > width else [line]
    return "\n".join(lines)


LEAST_COLUMN = 16
"""The fewest characters that a column of text is narrowed to."""


def table(rows: Sequence[Sequence[str]], *, left: int = 1, width: int | None = None) -> str:
    """Align cells in columns: the first ``left`` of them to the left, the numbers after them to the right.

    A table wider than ``width`` breaks the text of its widest left column between words.

    >>> print(table([("stage", "seconds"), ("reading", "0.12"), ("decoding", "10.40")]))
    stage     seconds
    reading      0.12
    decoding    10.40
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    total = sum(widths) + 2 * (len(widths) - 1)
    widest = max(range(min(left, len(widths))), key=widths.__getitem__, default=None)
    if width is not None and total > width and widest is not None:
        narrow = max(LEAST_COLUMN, widths[widest] - (total - width))
        if narrow < widths[widest]:
            rows = [line for row in rows for line in _broken(row, widest, narrow)]
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _broken(row: Sequence[str], place: int, width: int) -> list[list[str]]:
    """Return the lines of a row with one cell broken between words."""
    parts = textwrap.wrap(row[place], width, break_long_words=False, break_on_hyphens=False) or [""]
    first = [*row[:place], parts[0], *row[place + 1 :]]
    return [first, *([*[""] * place, part, *[""] * (len(row) - place - 1)] for part in parts[1:])]


def html_table(rows: Sequence[Sequence[str]], *, left: int = 1, title: str = "", heading: bool = True) -> str:
    """Write rows as an HTML table for notebooks; the first row is the heading if ``heading`` is true.

    >>> print(html_table([("stage", "seconds"), ("reading", "0.12")], title="epoch 1"))
    <div style="font-weight: bold; text-align: left">epoch 1</div><table>
    <tr><th style="text-align: left">stage</th><th style="text-align: right">seconds</th></tr>
    <tr><td style="text-align: left">reading</td><td style="text-align: right">0.12</td></tr></table>
    """
    # Above the table, not its caption: a caption is only as wide as the table, and a loader's title is long.
    said = f'<div style="font-weight: bold; text-align: left">{escape(title)}</div>' if title else ""
    lines = [f"{said}<table>"]
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


def array_facts(named: Iterable[tuple[str, NDArray[Any]]]) -> list[dict[str, Any]]:
    """Return what `ranges` writes as values for JSON; what has no order, or is not finite, is None.

    >>> import numpy as np
    >>> array_facts([("labels", np.array([3, 5]))])
    [{'name': 'labels', 'shape': [2], 'dtype': 'int64', 'smallest': 3, 'largest': 5}]
    """
    found = []
    for name, array in named:
        ordered = floats.kind(array.dtype) in "biuf" and array.size > 0
        ends = [finite(value.item()) for value in (array.min(), array.max())] if ordered else [None, None]
        about = {"name": name, "shape": list(array.shape), "dtype": str(array.dtype)}
        found.append(about | {"smallest": ends[0], "largest": ends[1]})
    return found


def finite(value: float | bool) -> float | bool | None:
    """Return a number that JSON can hold; None in place of infinity and of what is no number."""
    return value if math.isfinite(value) else None


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
