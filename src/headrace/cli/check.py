"""``headrace check PATH``: read and decode every file; list the bad ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headrace.cli import options
from headrace.cli.image_set import image_set_of_path
from headrace.errors import HeadraceError
from headrace.formatting import count, plain
from headrace.interop.parallel import in_order, usable_cpus

if TYPE_CHECKING:
    from headrace.cli.image_set import ImageSet
    from headrace.datasets.cifar import CifarDataset
    from headrace.datasets.field_samples import FieldTuples
    from headrace.datasets.images import ImageDataset


@click.command(
    epilog="Example: headrace check photos > bad.txt",
    short_help="Read every file, list the bad ones.",
)
@image_set_of_path(by_class=False)
@options.jobs
@click.pass_context
def check(ctx: click.Context, *, image_set: ImageSet, jobs: int | None) -> None:
    """Read and decode every image of PATH, and list the bad ones with the reason.

    The list ("path: reason", one a line, in the order of the dataset) goes to standard output; progress and summary
    go to standard error. The exit status is 0 if every image is good, 1 if one is bad, 2 if PATH cannot be used.
    """
    from headrace.cli.progress_bar import ProgressBar

    dataset = image_set.dataset
    examine = Examine(dataset)
    bad = 0
    with ProgressBar(len(dataset), "checking") as progress:
        for index, reason in enumerate(in_order(examine, range(len(dataset)), jobs or usable_cpus(), finish=False)):
            if reason is not None:
                bad += 1
                progress.say(f"{plain(image_set.where(index))}: {plain(reason)}")
            progress.advance()
    read = count(len(dataset), "image")
    click.echo(f"{read} checked, {bad:,} bad" if bad else f"{read} checked, all good", err=True)
    ctx.exit(1 if bad else 0)


class Examine:
    """Reads one image and keeps nothing of it."""

    def __init__(self, dataset: ImageDataset | CifarDataset | FieldTuples) -> None:
        self._dataset = dataset

    def __call__(self, index: int) -> str | None:
        """Return what is wrong with an image; None if nothing is."""
        try:
            self._dataset[index]
        except Exception as error:  # noqa: BLE001  whatever a decoder does, the other files are still to be checked
            return reason(error)
        return None


def reason(error: Exception) -> str:
    """Say in one line what an error found and expected; path and cure are left out.

    >>> from headrace.errors import BadImage
    >>> reason(BadImage("0 bytes", path="a/b.jpg", expected="a whole image", cure="Fix or remove the file."))
    '0 bytes; expected a whole image'
    >>> reason(MemoryError())
    'MemoryError'
    """
    message = str(error)
    if isinstance(error, HeadraceError):
        message = f"{error.what}; expected {error.expected}" if error.expected else error.what
    return " ".join(message.split()).rstrip(".") or type(error).__name__
