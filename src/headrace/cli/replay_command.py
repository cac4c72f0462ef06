"""``headrace replay SCRIPT:NAME``: samples of a run again, where they come from and what was done to them."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from headrace.checks import kind_of
from headrace.cli.command_errors import CommandError
from headrace.cli.options import Number
from headrace.cli.output import Result, json_option, say, say_table
from headrace.cli.script_objects import loader_of
from headrace.datasets import protocol
from headrace.figure.showing import known_kinds
from headrace.figure.targets_drawn import bare, kinds_along, overlay_of
from headrace.figure.targets_drawn import plain as in_numpy
from headrace.formatting import count, finite, plain
from headrace.interop import floats
from headrace.run import past
from headrace.run.tracing import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headrace.image.sheet import Pair
    from headrace.run.lineage import Lineage, Step

MOST_BYTES = 1 << 26
"""A state is less than 1 KB, and a few hundred with a sampler that keeps generators of its own."""

MOST_PAIRS = 24

SAVE = "Save json.dumps(loader.state_dict())."


@click.command(
    epilog="Example: headrace replay train.py:loader --state state.json --index 3",
)
@click.argument("target", metavar="SCRIPT:NAME")
@click.option(
    "--state",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What state_dict() gave, as JSON: says the epoch, and the step received last.",
)
@click.option("--epoch", "-e", type=Number(0, 2**64 - 1), metavar="N", help="The epoch.  [default: the state's, or 0]")
@click.option(
    "--step", "-s", type=Number(0, 2**64 - 1), metavar="N", help="The step.  [default: the last before the state]"
)
@click.option(
    "--index", "-i", type=Number(0, 2**64 - 1), metavar="N", help="A sample of the batch.  [default: all, in brief]"
)
@click.option(
    "--out",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("headrace-replay.png"),
    show_default=True,
    help="Where to save the images before and after, a PNG.",
)
@json_option
def replay(
    *, target: str, state: Path | None, epoch: int | None, step: int | None, index: int | None, out: Path
) -> Result:
    """Make a batch of a run again, tell where its samples come from, and show them before and after the transforms.

    SCRIPT is a Python file. It is imported: the code under `if __name__ == "__main__":` does not run. NAME is a loader
    in it, or a function without arguments that returns one.
    """
    loader = loader_of(target)
    if state is not None:
        saved = _state(state)
        loader.load_state_dict(saved)
        epoch = saved["epoch"] if epoch is None else epoch
        if step is None:
            step = max(0, saved["step"] - 1) if epoch == saved["epoch"] else 0
    epoch, step = epoch or 0, step or 0
    rows = past.work_at(loader._session, epoch, step)[0].rows
    if index is not None:
        lineages = [loader.lineage(epoch=epoch, step=step, index=index)]
        for line in str(lineages[0]).splitlines():
            say(plain(line))
    else:
        lineages = [loader.lineage(epoch=epoch, step=step, index=row) for row in range(min(rows, MOST_PAIRS))]
        say(f"epoch {epoch}, step {step}, {count(rows, 'sample')}, seed {lineages[0].seed}")
        say_table(_in_brief(lineages), left=4)
        if rows > len(lineages):
            say(f"and {rows - len(lineages)} more")
        say("--index N tells what was done to one of them")
    has_images = _save_sheet(lineages, loader.dataset, plain(target), out)
    return Result(
        {
            "target": target,
            "epoch": epoch,
            "step": step,
            "samples": rows,
            "seed": lineages[0].seed,
            "lineages": [_facts(one) for one in lineages],
            "sheet": str(out) if has_images else None,
        }
    )


def _state(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MOST_BYTES:
        raise CommandError(f"{path.stat().st_size:,} bytes are too many for a state", path=str(path), cure=SAVE)
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CommandError(f"not JSON ({error})", path=str(path), expected="a state as JSON", cure=SAVE) from error
    if not isinstance(state, dict):
        raise CommandError(
            f"this is {kind_of(state)}, not a state", path=str(path), expected="a JSON object", cure=SAVE
        )
    return state


def _facts(one: Lineage) -> dict[str, Any]:
    """Return a lineage as values for JSON; what JSON has no type for is its repr."""
    steps = [
        {
            "transform": step.name,
            "parameters": {name: _plain_value(value) for name, value in step.parameters.items()},
            "draws": [str(draw) for draw in step.draws],
            "result": step.result,
        }
        for step in one.steps
    ]
    return {
        "index": one.index,
        "position": one.position,
        "key": _plain_value(one.key),
        "where": one.where,
        "replaces": None if one.replaced is None else _plain_value(one.replaced.index),
        "steps": steps,
    }


def _plain_value(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return finite(value)
    return value if value is None or isinstance(value, bool | int | str) else repr(value)


def _in_brief(lineages: Sequence[Lineage]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("index", "position", "key", "where")]
    for one in lineages:
        key = "" if one.key is None else plain(repr(one.key))[:40]
        rows.append((str(one.index), str(one.position), key, plain(one.where or "")))
    return rows


def _save_sheet(lineages: Sequence[Lineage], dataset: Any, title: str, out: Path) -> bool:
    """Save the images before and after; return whether there are any."""
    pairs = [pair for one in lineages if (pair := _pair(one, dataset)) is not None]
    if not pairs:
        say("no image: the samples have no array of (H, W), (H, W, C) or (C, H, W)")
        return False
    from headrace.cli.preview import save
    from headrace.image.sheet import contact_sheet

    png = io.BytesIO()
    first = lineages[0]
    place = f"epoch {first.epoch}, step {first.step}, seed {first.seed}"
    contact_sheet(pairs, title=title, subtitle=place).save(png, format="PNG")
    save(png.getvalue(), out)
    say(f"before and after: {plain(str(out))}")
    return True


def _pair(one: Lineage, dataset: Any) -> Pair | None:
    from headrace.image.sheet import Pair
    from headrace.run.lineage import image_of

    before, after = viewable(image_of(one.before)), viewable(image_of(one.sample), one)
    if before is None or after is None:
        return None
    classes, known = protocol.classes(dataset), known_kinds(dataset)
    kinds = kinds_along(step.transform for step in one.steps)
    kinds = kinds[0] or known[0], kinds[1] or known[1]
    first = overlay_of(in_numpy(one.before), before.shape[:2], kinds[0], classes)
    last = overlay_of(in_numpy(one.sample), after.shape[:2], kinds[1], classes)
    first = replace(first, outline=_cropped(one))
    drawn = [_short(step) for step in one.steps if step.parameters]
    name = Path(one.where).name if one.where else f"sample {one.key}"
    caption, detail = plain(f"{one.index}: {name}"), plain(", ".join(drawn) or "nothing drawn")
    return Pair(before, after, caption, detail, (first, last))


def _cropped(one: Lineage) -> tuple[int, int, int, int] | None:
    """Return the part of the image that the first transform of its places keeps, where that is a crop."""
    for step in one.steps:
        found = step.parameters
        if getattr(bare(step.transform), "geometric", True):
            whole = {"top", "left", "height", "width"} <= found.keys()
            return (found["top"], found["left"], found["height"], found["width"]) if whole else None
    return None


def _short(step: Step) -> str:
    """Say in a few words what a transform drew."""
    found, name = step.parameters, step.name.partition("(")[0]
    if "flipped" in found:
        return "flipped" if found["flipped"] else "not flipped"
    if found.get("applied") is False:
        return f"no {name}"
    if {"height", "width"} <= found.keys():
        return f"{name} {found['height']} x {found['width']}"
    values = [f"{key} {shown(value)}" for key, value in found.items() if key != "applied"]
    return " ".join([name, ", ".join(values)]).strip()


def viewable(image: Any, lineage: Lineage | None = None) -> NDArray[np.uint8] | None:
    """Return an image that a person can look at, (H, W, 3) uint8, of any that a sample holds; None where none is.

    >>> viewable(np.full((1, 4, 5), 0.5, np.float32)).shape, viewable(np.zeros((4, 5), bool)).dtype
    ((4, 5, 3), dtype('uint8'))

    Normalizing is undone, where the lineage tells by what; other floats are stretched to their range.
    """
    if image is None or not image.size or floats.kind(image.dtype) not in "buif":
        return None
    if image.ndim == 3 and image.shape[2] not in (1, 3, 4):
        if image.shape[0] not in (1, 3, 4):
            return None
        image = image.transpose(1, 2, 0)
    image = image[:, :, np.newaxis] if image.ndim == 2 else image
    image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[:, :, :3]
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    values = np.nan_to_num(image.astype(np.float64))
    for step in reversed(lineage.steps if lineage is not None else ()):
        transform = bare(step.transform)
        if type(transform).__name__ == "Normalize":
            values = values * np.asarray(transform.std) + np.asarray(transform.mean)
    low, high = float(values.min()), float(values.max())
    if low < -0.01 or high > 1.01:
        values = (values - low) / ((high - low) or 1)
    pixels: NDArray[np.uint8] = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    return pixels
