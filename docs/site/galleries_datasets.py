"""The gallery of datasets: the code that reads a small example of each, and a batch of it; and contact sheets."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import galleries

import headrace
from headrace.collate import PackedCollate

BEFORE = """
import io, tarfile, zipfile
from pathlib import Path
import numpy as np
import headrace
from headrace import *
from headrace.datasets import *
paths = sorted(Path("photos").rglob("*.jpg"))
"""


@dataclass(frozen=True)
class Entry:
    """A dataset: what it reads, how the example is made (not shown), its code, and the package that it needs."""

    name: str
    reads: str
    code: str
    made: str = ""
    needs: str = ""


def entries() -> list[Entry]:
    """Return the datasets of the gallery."""
    return [Entry(name, **about) for name, about in galleries.read("datasets").items() if name != "not shown"]


BASES = {
    "Arrays", "Bytes", "Columns", "Dataset", "Decoding", "Files", "IterableDataset", "Mapped", "PackedList", "Ranges",
    "Source", "SpanDataset", "Subset",
}  # fmt: skip
"""Base classes, views and values: they read nothing of their own."""
ALONE = {"FaceDataset"}
"""Its samples differ in shape, so no batch is made of them."""


def write(folder: Path) -> None:
    """Write the page and its images."""
    shown_by = "headrace.show(DataLoader(dataset, batch_size=4, shuffle=True, seed=0))"
    text = f"# Datasets\nUnder the code of each: what `{shown_by}` prints.\n\n"
    for entry in entries():
        text += f"## {entry.name}\n{entry.reads} [Reference](../reference/{_home(entry.name)}.rst)\n"
        text += f"```python\n{entry.code.strip()}\n```\n"
        if entry.needs and importlib.util.find_spec(entry.needs) is None:
            text += f"It needs the package {entry.needs}, which was not installed when this page was made.\n\n"
            continue
        figure = shown(entry)
        text += "```text\n{}\n```\n".format(repr(figure).replace(f"{Path.cwd()}/", ""))
        if figure.png:
            name = f"dataset-{entry.name}.png"
            (folder / name).write_bytes(figure.png)
            text += f"![A batch of {entry.name}]({name})\n\n"
    text += "## Not shown\n" + "".join(
        f"- [{name}](../reference/{_home(name)}.rst): {reads}.\n"
        for name, reads in galleries.read("datasets")["not shown"].items()
    )
    (folder / "datasets.md").write_text(text, encoding="utf-8")


def shown(entry: Entry) -> Any:
    """Make the example of an entry, run its code, and return the figure of a batch."""
    dataset = galleries.run(f"{BEFORE}{entry.made}\n{entry.code}")["dataset"]
    if entry.name in ALONE:
        return headrace.show(dataset, 4)
    collate = PackedCollate(8) if entry.name == "PackedStream" else None
    mixed = None if isinstance(dataset, headrace.IterableDataset) else True
    with headrace.DataLoader(dataset, batch_size=4, shuffle=mixed, seed=0, collate_fn=collate) as loader:
        return headrace.show(loader)


def write_sheets(folder: Path) -> None:
    """Write the page of contact sheets."""
    text = (
        "# Contact sheets\n`headrace.show` of loaders, as a notebook shows it. [Notebooks](../guide/notebooks.md)\n\n"
    )
    for title, entry in galleries.read("sheets").items():
        figure = galleries.run(f"{BEFORE}{entry['code']}")["figure"]
        name = f"sheet-{title.lower().replace(' ', '-')}.png"
        text += f"## {title}\n{entry['about']}\n```python\n{entry['code'].strip()}\n```\n"
        if figure.png:
            (folder / name).write_bytes(figure.png)
            text += f"![{entry['about']}]({name})\n\n"
    (folder / "sheets.md").write_text(text, encoding="utf-8")


def _home(name: str) -> str:
    return f"headrace.datasets.{name}"
