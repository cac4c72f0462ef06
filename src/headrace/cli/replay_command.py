"""``headrace replay SCRIPT:NAME``: samples of a run again, where they come from and what was done to them."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from headrace.checks import kind_of
from headrace.cli.command_errors import CommandError, Failure
from headrace.cli.options import Number
from headrace.formatting import count, plain, table
from headrace.interop import floats
from headrace.loader import DataLoader
from headrace.run import past

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headrace.image.sheet import Pair
    from headrace.run.lineage import Lineage

MOST_BYTES = 1 << 26
"""A state is less than 1 KB, and a few hundred with a sampler that keeps generators of its own."""

MOST_PAIRS = 24

SAVE = "Save json.dumps(loader.state_dict())."


@click.command(
    epilog="Example: headrace replay train.py:loader --state state.json --index 3",
    short_help="Show a sample of a run again, before and after.",
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
def replay(
    *, target: str, state: Path | None, epoch: int | None, step: int | None, index: int | None, out: Path
) -> None:
    """Make a batch of a run again, tell where its samples come from, and show them before and after the transforms.

    SCRIPT is a Python file, which is run as an import runs it: what stands under `if __name__ == "__main__":` is left
    alone. NAME is a loader in it, or a function without arguments that returns one.
    """
    loader = _loader(target)
    if state is not None:
        saved = _state(state)
        loader.load_state_dict(saved)
        epoch = saved["epoch"] if epoch is None else epoch
        if step is None:
            step = max(0, saved["step"] - 1) if epoch == saved["epoch"] else 0
    epoch, step = epoch or 0, step or 0
    if index is not None:
        lineages = [loader.lineage(epoch=epoch, step=step, index=index)]
        for line in str(lineages[0]).splitlines():
            click.echo(plain(line))
    else:
        rows = past.work_at(loader._session, epoch, step)[0].rows
        lineages = [loader.lineage(epoch=epoch, step=step, index=row) for row in range(min(rows, MOST_PAIRS))]
        click.echo(f"epoch {epoch}, step {step}, {count(rows, 'sample')}, seed {lineages[0].seed}")
        click.echo(_in_brief(lineages))
        if rows > len(lineages):
            click.echo(f"and {rows - len(lineages)} more")
        click.echo("--index N tells what was done to one of them")
    _save_sheet(lineages, plain(target), out)


def _loader(target: str) -> DataLoader[Any]:
    script, colon, name = target.rpartition(":")
    if not colon or not script or not name.isidentifier():
        raise CommandError(
            f"{target} names no loader", found=target, expected="a script and a name in it, as in train.py:loader"
        )
    path = Path(script)
    if not path.is_file():
        raise CommandError("there is no such file", path=script, cure="correct the path of the script")
    module = _imported(path)
    found = getattr(module, name, None)
    if not isinstance(found, DataLoader) and callable(found):
        try:
            found = found()
        except Exception as error:
            raise _failed(path, error) from error
    if not isinstance(found, DataLoader):
        there = [known for known, thing in vars(module).items() if isinstance(thing, DataLoader)]
        raise CommandError(
            f"no loader of headrace is named {name}",
            path=script,
            found=name,
            expected=f"one of {', '.join(there)}" if there else "a loader outside of functions; there is none",
            cure="give the name of a loader, or of a function that returns one",
        )
    return found


def _imported(path: Path) -> Any:
    """Run a script as an import does: its folder is where it finds its own modules."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise CommandError("not a Python script", path=str(path), expected="a name that ends with .py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    sys.argv = [str(path)]
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _failed(path, error) from error
    return module


def _failed(path: Path, error: BaseException) -> Failure:
    """Return the error for a script that raised one, with the line of the script."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    if isinstance(error, SyntaxError):
        lines.append(error.lineno)
    place = f"{path}, line {lines[-1]}" if lines else str(path)
    return Failure(f"{type(error).__name__}: {error}", path=place, cure="Fix the script.")


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


def _in_brief(lineages: Sequence[Lineage]) -> str:
    rows = [("index", "position", "key", "where")]
    for one in lineages:
        key = "" if one.key is None else plain(repr(one.key))[:40]
        rows.append((str(one.index), str(one.position), key, plain(one.where or "")))
    return table(rows, left=4)


def _save_sheet(lineages: Sequence[Lineage], title: str, out: Path) -> None:
    pairs = [pair for one in lineages if (pair := _pair(one)) is not None]
    if not pairs:
        click.echo("no image: the samples have no array of (H, W), (H, W, C) or (C, H, W)")
        return
    from headrace.cli.preview import save
    from headrace.image.sheet import contact_sheet

    png = io.BytesIO()
    first = lineages[0]
    place = f"epoch {first.epoch}, step {first.step}, seed {first.seed}"
    contact_sheet(pairs, title=title, subtitle=place).save(png, format="PNG")
    save(png.getvalue(), out)
    click.echo(f"before and after: {plain(str(out))}")


def _pair(one: Lineage) -> Pair | None:
    from headrace.image.sheet import Pair, with_box
    from headrace.run.lineage import image_of

    before, after = viewable(image_of(one.before)), viewable(image_of(one.sample), one)
    if before is None or after is None:
        return None
    first = one.steps[0].parameters if one.steps else {}
    if "top" in first:
        before = with_box(before, first["top"], first["left"], first["height"], first["width"])
    drawn = [_short(step.name, step.parameters) for step in one.steps if step.parameters]
    name = Path(one.where).name if one.where else f"sample {one.key}"
    return Pair(before, after, plain(f"{one.index}: {name}"), plain(", ".join(drawn) or "nothing drawn"))


def _short(name: str, parameters: dict[str, Any]) -> str:
    if "flipped" in parameters:
        return "flipped" if parameters["flipped"] else "not flipped"
    return f"{name.partition('(')[0]} {parameters['height']} x {parameters['width']}"


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
        if type(step.transform).__name__ == "Normalize":
            values = values * np.asarray(step.transform.std) + np.asarray(step.transform.mean)
    low, high = float(values.min()), float(values.max())
    if low < -0.01 or high > 1.01:
        values = (values - low) / ((high - low) or 1)
    pixels: NDArray[np.uint8] = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    return pixels
