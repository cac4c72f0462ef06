"""How the commands write numbers, names and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


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

    >>> count(1, "picture"), count(2400, "picture"), count(2, "batch", "batches")
    ('1 picture', '2,400 pictures', '2 batches')
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
