"""Makes the images of ``headrace demo``: random crops of the photographs that come with headrace."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from headrace.cli.command_errors import CommandError
from headrace.interop.parallel import in_order, usable_cpus

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from PIL import Image

_MARK = "made-by-headrace-demo.json"
_SIDES = (160, 400)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that the images depend on: the same recipe makes the same folder."""

    images: int
    seed: int = 0
    version: int = 1


def photographs() -> dict[str, Image.Image]:
    """Open the photographs that come with headrace, by name.

    >>> sorted(photographs())
    ['astronaut', 'camera', 'cat', 'coffee', 'retina', 'rocket']
    """
    from PIL import Image

    found = {}
    for item in sorted((files("headrace") / "demo").iterdir(), key=lambda item: item.name):
        if item.name.endswith(".jpg"):
            with Image.open(io.BytesIO(item.read_bytes())) as photograph:
                photograph.load()  # here, so that threads only ever read it
                found[item.name.removesuffix(".jpg")] = photograph.copy()
    return found


def ready(folder: Path, recipe: Recipe) -> bool:
    """Say whether a folder holds this recipe's images; raise `CommandError` if it holds something that is not ours."""
    mark = folder / _MARK
    if mark.is_file():
        return mark.read_text(encoding="utf-8") == _mark_of(recipe)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise CommandError(
            "this folder was not made by headrace demo",
            path=str(folder),
            expected="an empty folder, or one that headrace demo made",
            cure="choose another place with --output",
        )
    return False


def make_images(folder: Path, recipe: Recipe) -> Iterator[int]:
    """Make the recipe's images in class folders, and give the bytes of each; left early, nothing stays behind."""
    part = folder.with_name(folder.name + ".part")
    ready(part, recipe)  # what a killed run left behind is taken away, what is not ours never is
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        (part / _MARK).write_text(_mark_of(recipe), encoding="utf-8")
        yield from _fill(part, recipe)
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _fill(folder: Path, recipe: Recipe) -> Iterator[int]:
    sources = photographs()
    for name in sources:
        (folder / name).mkdir()
    make = partial(_write, folder, list(sources.items()), recipe)
    yield from in_order(make, range(recipe.images), usable_cpus(), finish=True)


def _write(folder: Path, sources: Sequence[tuple[str, Image.Image]], recipe: Recipe, index: int) -> int:
    """Write one image: a crop of one photograph, scaled, perhaps mirrored, lighter or darker, and compressed."""
    name, photograph = sources[index % len(sources)]
    rng = np.random.default_rng((recipe.seed, index))
    data = _crop(photograph, rng)
    (folder / name / f"{index // len(sources):05d}.jpg").write_bytes(data)
    return len(data)


def _crop(photograph: Image.Image, rng: np.random.Generator) -> bytes:
    from PIL import Image

    width, height = (int(side) for side in rng.integers(_SIDES[0], _SIDES[1], size=2, endpoint=True))
    # The largest crop of these proportions, then somewhat less.
    scale = min(photograph.width / width, photograph.height / height) * rng.uniform(0.5, 1.0)
    left = rng.uniform(0, photograph.width - width * scale)
    top = rng.uniform(0, photograph.height - height * scale)
    box = (left, top, left + width * scale, top + height * scale)
    image = photograph.resize((width, height), Image.Resampling.BILINEAR, box=box)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    light = rng.uniform(0.7, 1.2)
    image = image.point([min(255, round(value * light)) for value in range(256)] * len(image.getbands()))
    data = io.BytesIO()
    image.save(data, format="JPEG", quality=int(rng.integers(75, 95, endpoint=True)))
    return data.getvalue()


def _mark_of(recipe: Recipe) -> str:
    return json.dumps({"made by": "headrace demo", **asdict(recipe)}) + "\n"
