"""Small SVG drawings for the site: rows of colored cells, and bars. No library is needed, and the text stays text."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Okabe and Ito's colors, which color-blind readers can tell apart.
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#7f7f7f")
PAPER, EDGE, INK, FAINT, PAD = "#ffffff", "#dadde2", "#1c2026", "#5b636d", "#e9ebee"
FONT = "font-family='system-ui, DejaVu Sans, sans-serif'"
CELL, GAP, MARGIN, HEIGHT = 26, 3, 14, 24
WIDTH = 640


@dataclass(frozen=True)
class Cell:
    """A colored cell: its text, its group (the color), and how many units it is wide."""

    text: str
    group: int = 0
    width: float = 1
    padding: bool = False


def cells(rows: Sequence[tuple[str, Sequence[Sequence[Cell]]]], legend: Sequence[str] = (), unit: float = CELL) -> str:
    """Draw rows of blocks of cells: each row has a name, and each block is a batch.

    A row that is wider than the drawing continues below.
    """
    left = MARGIN + max((len(name) for name, _ in rows), default=0) * 7 + (8 if any(name for name, _ in rows) else 0)
    body, y, widest = [], MARGIN, 0.0
    for name, blocks in rows:
        if name:
            body.append(_text(MARGIN, y + HEIGHT * 0.68, name, FAINT))
        x = float(left)
        for block in blocks:
            width = sum(cell.width * unit for cell in block) + GAP * (len(block) - 1)
            if x > left and x + width > WIDTH - MARGIN:
                x, y = float(left), y + HEIGHT + 8
            for cell in block:
                body.append(_cell(x, y, cell, unit))
                x += cell.width * unit + GAP
            widest = max(widest, x)
            x += 10
        y += HEIGHT + 8
    x = float(MARGIN)
    for number, text in enumerate(legend):
        body.append(f"<rect x='{x:.0f}' y='{y + 4}' width='12' height='12' rx='2' fill='{COLORS[number]}'/>")
        body.append(_text(x + 17, y + 14, text, FAINT))
        x += 17 + len(text) * 7 + 18
    height = y + (26 if legend else 0) + MARGIN - 8
    return _page("".join(body), max(widest, x) + MARGIN, height)


def bars(named: Sequence[tuple[str, float, float, float]], unit: str, marked: str, title: str) -> str:
    """Draw horizontal bars: name, value, smallest and largest; bars whose name begins with ``marked`` are in color.

    The axis starts at 0. If one value is more than thirty times another, it is logarithmic, and says so.
    """
    values = [value for _, value, _, _ in named]
    ratio = max(values) / min(value for value in values if value > 0)
    logarithmic = ratio > LOGARITHMIC
    left = MARGIN + max(len(name) for name, *_ in named) * 7.2 + 10
    room = WIDTH - left - 110
    least = min(value for value in values if value > 0) / 2

    def place(value: float) -> float:
        if logarithmic:
            return room * max(0.0, (_log(value) - _log(least)) / (_log(max(values)) - _log(least)))
        return room * value / max(high for *_, high in named)

    body = [_text(MARGIN, 22, title, INK, bold=True)]
    y = 36
    for name, value, low, high in named:
        color = COLORS[0] if name.startswith(marked) else "#9aa3ad"
        body.append(_text(left - 8, y + 14, name, INK, end=True))
        body.append(f"<rect x='{left:.0f}' y='{y}' width='{place(value):.1f}' height='18' rx='2' fill='{color}'/>")
        if high > low:
            body.append(
                f"<line x1='{left + place(low):.1f}' x2='{left + place(high):.1f}' y1='{y + 9}' y2='{y + 9}' "
                f"stroke='{INK}' stroke-width='1.5'/>"
            )
        body.append(_text(left + max(place(value), place(high)) + 8, y + 14, f"{value:,.5g}", INK))
        y += 24
    scale = "logarithmic axis" if logarithmic else "line: smallest to largest round"
    body.append(_text(left, y + 12, f"{unit}; {scale}", FAINT))
    return _page("".join(body), WIDTH, y + 26)


LOGARITHMIC = 30
"""The ratio of largest to smallest value above which an axis is logarithmic: short bars would all look alike."""


def _log(value: float) -> float:
    from math import log10

    return log10(value)


def _cell(x: float, y: float, cell: Cell, unit: float) -> str:
    color = PAD if cell.padding else COLORS[cell.group % len(COLORS)]
    width = cell.width * unit
    ink = INK if cell.padding or _light(color) else "#ffffff"
    box = f"<rect x='{x:.1f}' y='{y}' width='{width:.1f}' height='{HEIGHT}' rx='3' fill='{color}'/>"
    middle = f"<text x='{x + width / 2:.1f}' y='{y + HEIGHT * 0.68:.1f}' {FONT} font-size='12' text-anchor='middle' "
    return box + (f"{middle}fill='{ink}'>{escape(cell.text)}</text>" if cell.text else "")


def _light(color: str) -> bool:
    red, green, blue = (int(color[place : place + 2], 16) for place in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue > 130


def _text(x: float, y: float, text: str, color: str, *, end: bool = False, bold: bool = False) -> str:
    more = (" text-anchor='end'" if end else "") + (" font-weight='600'" if bold else "")
    return f"<text x='{x:.1f}' y='{y:.1f}' {FONT} font-size='13' fill='{color}'{more}>{escape(text)}</text>"


def _page(body: str, width: float, height: float) -> str:
    """Put a drawing on a white card, which both themes show alike."""
    size = f"width='{width:.0f}' height='{height:.0f}' viewBox='0 0 {width:.0f} {height:.0f}'"
    inner = f"x='0.5' y='0.5' width='{width - 1:.0f}' height='{height - 1:.0f}'"
    card = f"<rect {inner} rx='8' fill='{PAPER}' stroke='{EDGE}'/>"
    return f"<svg xmlns='http://www.w3.org/2000/svg' {size}>{card}{body}</svg>\n"
