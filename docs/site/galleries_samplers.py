"""The gallery of samplers: the code of each, and the batches that it gives, drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import drawing
import galleries
from drawing import Cell

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LENGTHS = [3, 9, 4, 8, 3, 7, 2, 9, 5, 8, 4, 2]


@dataclass(frozen=True)
class Entry:
    """A sampler: what it is for, its code, the group of an index (its color), and how it is drawn."""

    name: str
    purpose: str
    code: str
    groups: Sequence[str] = ()
    group: str = "0"
    kind: str = "order"


def entries() -> list[Entry]:
    """Return the samplers of the gallery."""
    return [Entry(name, **about) for name, about in galleries.read("samplers").items() if name != "not drawn"]


def write(folder: Path) -> None:
    """Write the page and its drawings."""
    text = "# Samplers\nEach number is the index of a sample, and each block a batch.\n"
    text += "Where lengths matter, `7: 9` is sample 7 of length 9, and gray is padding. "
    text += f"`lengths` is `{LENGTHS}`.\n\n"
    for entry in entries():
        name = f"sampler-{entry.name}.svg"
        (folder / name).write_text(drawn(entry), encoding="utf-8")
        text += f"## {entry.name}\n{entry.purpose} [Reference](../reference/headrace.samplers.{entry.name}.rst)\n"
        text += f"```python\n{entry.code}\n```\n![The batches of {entry.name}]({name})\n\n"
    text += "## Not drawn\n"
    text += "".join(
        f"- [{name}](../reference/headrace.samplers.{name}.rst): {purpose}.\n"
        for name, purpose in galleries.read("samplers")["not drawn"].items()
    )
    (folder / "samplers.md").write_text(text, encoding="utf-8")


def drawn(entry: Entry) -> str:
    """Run the code of an entry, and draw the batches that it gives."""
    found = galleries.run(f"from headrace.samplers import *\nlengths = {LENGTHS}\n{entry.code}")
    if entry.kind == "ranks":
        rows = [(f"rank {rank}", _blocks(list(one), entry)) for rank, one in enumerate(found["ranks"])]
        return drawing.cells(rows)
    batches = list(found["sampler"])
    if entry.kind == "order":
        return drawing.cells([("", _blocks(batches, entry))], entry.groups)
    rows = []
    for number, batch in enumerate(batches):
        packed = [list(row) if entry.kind == "packed" else [row] for row in batch]
        width = 12 if entry.kind == "packed" else max(LENGTHS[row[0]] for row in packed)
        for place, row in enumerate(packed):
            rows.append((f"batch {number}" if not place else "", [_padded(row, width)]))
    return drawing.cells(rows, unit=22)


def _blocks(keys: list[Any], entry: Entry) -> list[list[Cell]]:
    batched = bool(keys) and isinstance(keys[0], list)
    batches = keys if batched else [keys[place : place + 4] for place in range(0, len(keys), 4)]
    return [[Cell(str(index), int(eval(entry.group, {"index": index}))) for index in batch] for batch in batches]


def _padded(row: list[int], width: int) -> list[Cell]:
    used = sum(LENGTHS[index] for index in row)
    found = [Cell(f"{index}: {LENGTHS[index]}", place, LENGTHS[index]) for place, index in enumerate(row)]
    return found + ([Cell("", width=width - used, padding=True)] if width > used else [])
