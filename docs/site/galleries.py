"""The galleries: what each sampler's order is, drawn; what each dataset reads, shown; contact sheets."""

from __future__ import annotations

import contextlib
import os
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import galleries_datasets
import galleries_samplers

import headrace

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGES = {
    "samplers": "which samples each sampler puts into which batch, drawn",
    "datasets": "what each dataset reads, and one batch of it",
    "sheets": "contact sheets of `headrace.show`: photographs, masks and boxes, sounds, tokens",
}
"""The pages, and what is on them; the guide has that of transforms (gallery.py)."""


def write(folder: Path) -> None:
    """Write the pages and their images."""
    folder.mkdir(parents=True)
    galleries_samplers.write(folder)
    with photos():
        galleries_datasets.write(folder)
        galleries_datasets.write_sheets(folder)
    text = "# Galleries\nEach drawing is made by the code beside it, when the site is built.\n\n"
    text += "".join(f"- [{name.capitalize()}]({name}.md): {purpose}.\n" for name, purpose in PAGES.items())
    text += "- [Transforms](../guide/gallery.md): each before and after, on a photograph with a mask and boxes.\n"
    text += "\n```{toctree}\n:hidden:\n\n" + "\n".join(PAGES) + "\n```\n"
    (folder / "index.md").write_text(text, encoding="utf-8")


@contextlib.contextmanager
def photos() -> Iterator[None]:
    """Go to a folder with ``photos/``: three classes of four crops of the bundled photographs."""
    from PIL import Image

    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        for kind in ("astronaut", "coffee", "rocket"):
            target = Path(name, "photos", kind)
            target.mkdir(parents=True)
            with Image.open(Path(headrace.__file__).parent / "demo" / f"{kind}.jpg") as photograph:
                for number in range(4):
                    photograph.crop((number * 30, 20, number * 30 + 160, 180)).save(target / f"{number}.jpg")
        os.chdir(name)
        try:
            yield
        finally:
            os.chdir(before)


def read(name: str) -> dict[str, Any]:
    """Return the entries of a gallery."""
    with (Path(__file__).parent / f"galleries_{name}.toml").open("rb") as file:
        return tomllib.load(file)


def run(code: str) -> dict[str, Any]:
    """Run the code of an entry; return its names."""
    names: dict[str, Any] = {"__name__": "gallery"}
    exec(compile(code, "gallery", "exec"), names)
    return names
