"""`Figure`: a table, texts and a contact sheet, as a notebook, a terminal or a file shows them."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.errors import ArgumentError
from headrace.formatting import html_table, table

if TYPE_CHECKING:
    import os


@dataclass(frozen=True, slots=True, repr=False)
class Figure:
    """What `headrace.show` returns: a notebook shows it, and `save` writes it to a file.

    >>> import numpy as np
    >>> import headrace
    >>> headrace.show([np.zeros((2, 3), np.float32), np.array([5, 7])])
    a batch of 2
         shape   dtype    smallest  largest
    [0]  (2, 3)  float32     0.000    0.000
    [1]  (2,)    int64           5        7
    [0]: 0 0 0
    """

    title: str
    rows: tuple[tuple[str, ...], ...]
    """The table: its heading first."""
    left: int = 3
    """How many of its columns are text."""
    texts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """The first values of parts that are no images, by name."""
    png: bytes | None = None
    """The contact sheet; None where there is no image."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the contact sheet to a .png file, or everything to an .html file.

        Raises `ArgumentError` for another ending, and for a .png where there is no image.
        """
        target = Path(path)
        ending = target.suffix.lower()
        if ending == ".html":
            page = f"<!doctype html><meta charset=utf-8><title>{escape(self.title)}</title>{self._repr_html_()}"
            target.write_text(page, encoding="utf-8")
        elif ending == ".png" and self.png is not None:
            target.write_bytes(self.png)
        else:
            raise ArgumentError(
                f"a figure{' without images' if ending == '.png' else ''} cannot be saved as {target.name}",
                found=ending,
                expected=".html, or .png where there are images",
                cure="choose a name that ends with .html",
            )

    def __repr__(self) -> str:
        lines = [self.title, table(self.rows, left=self.left)]
        lines += [f"{name}: {value}" for name, values in self.texts for value in values[:1]]
        return "\n".join(lines)

    def _repr_png_(self) -> bytes | None:
        return self.png

    def _repr_html_(self) -> str:
        parts = [html_table(self.rows, left=self.left, title=self.title)]
        for name, values in self.texts:
            items = "".join(f"<li><code>{escape(value)}</code></li>" for value in values)
            parts.append(f"<p>{escape(name)}</p><ul>{items}</ul>")
        if self.png is not None:
            data = base64.b64encode(self.png).decode("ascii")
            parts.append(f'<img alt="{escape(self.title)}" style="max-width: 100%" src="data:image/png;base64,{data}">')
        return "\n".join(parts)
