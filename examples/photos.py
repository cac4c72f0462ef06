"""A small folder of photographs for the whole programs: ``train`` and ``val``, with a folder for each class."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from PIL import Image

SIZE, EDGE = (120, 90), 24
"""The size of a crop, and how far apart crops are cut from the bundled photographs."""


def make_photos(folder: Path, each: int = 24) -> Path:
    """Cut crops of the photographs that come with headrace into JPEG files; the class is the photograph."""
    place = folder / "photos"
    for file in sorted((files("headrace") / "demo").iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".jpg"):
            continue
        with file.open("rb") as stream, Image.open(stream) as photograph:
            width, height = photograph.size
            across = (width - SIZE[0]) // EDGE
            for number in range(each):
                left, top = number % across * EDGE, (number // across * EDGE) % (height - SIZE[1])
                part = "val" if number % 4 == 0 else "train"
                target = place / part / file.name.removesuffix(".jpg") / f"{number:03}.jpg"
                target.parent.mkdir(parents=True, exist_ok=True)
                photograph.crop((left, top, left + SIZE[0], top + SIZE[1])).save(target)
    return place
