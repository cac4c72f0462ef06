"""``headrace check PATH``: read and decode every file; list the bad ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from headrace.cli import options
from headrace.cli.image_set import image_set_of_path
from headrace.cli.output import Result, json_option, writes_json
from headrace.datasets import protocol
from headrace.errors import HeadraceError
from headrace.formatting import count, plain
from headrace.interop.parallel import in_order, usable_cpus
from headrace.loader import DataLoader

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.cli.image_set import ImageSet


def check_script(found: Any, target: str, *, jobs: int | None) -> Result:
    """Read every sample of a script's dataset, or of its loader's."""
    dataset = found.dataset if isinstance(found, DataLoader) else found
    if protocol.is_iterable(dataset):
        return _check_stream(dataset, target)
    # Whether a user's own dataset may be read by several threads at once is not known.
    threads = jobs or (usable_cpus() if protocol.suits_threads(dataset) else 1)

    def where(index: int) -> str:
        return protocol.where(dataset, index) or f"sample {index}"

    return _check(dataset, target, where, threads, "sample")


@click.command(epilog="Example: headrace check photos > bad.txt")
@image_set_of_path(by_class=False, script=check_script)
@options.jobs
@json_option
def check(*, image_set: ImageSet, jobs: int | None) -> Result:
    """Read and decode every image of PATH, and list the bad ones with the reason.

    The list ("path: reason", one a line, in the order of the dataset) goes to standard output; progress and summary
    go to standard error. The exit status is 0 if every image is good, 1 if one is bad, 2 if PATH cannot be used.

    PATH may be SCRIPT:NAME: every sample of the dataset, or of the loader's, is made, with its transforms.
    """
    return _check(image_set.dataset, image_set.name, image_set.where, jobs or usable_cpus(), "image")


def _check(dataset: Any, name: str, where: Callable[[int], str], threads: int, item: str) -> Result:
    from headrace.cli.progress_bar import ProgressBar

    bad: list[dict[str, Any]] = []
    total = len(dataset)
    with ProgressBar(total, "checking", unit=f"{item}s") as progress:
        for index, found in enumerate(in_order(Examine(dataset), range(total), threads, finish=False)):
            if found is not None:
                _report(progress, bad, index, where(index), found)
            progress.advance()
    return _result(name, total, bad, item)


def _check_stream(stream: Any, name: str) -> Result:
    """Read a stream to its end, or to its first error: nobody knows what follows that."""
    from headrace.cli.progress_bar import ProgressBar

    bad: list[dict[str, Any]] = []
    read = 0
    with ProgressBar(None, "checking", unit="samples") as progress:
        try:
            for _ in stream:
                read += 1
                progress.advance()
        except Exception as error:  # noqa: BLE001  as Examine
            _report(progress, bad, read, f"sample {read}", f"{reason(error)}; the stream ended there")
            read += 1
    return _result(name, read, bad, "sample")


def _report(progress: Any, bad: list[dict[str, Any]], index: int, where: str, found: str) -> None:
    if writes_json():
        bad.append({"index": index, "where": where, "reason": found})
    else:
        bad.append({})
        progress.say(f"{plain(where)}: {plain(found)}")


def _result(name: str, checked: int, bad: list[dict[str, Any]], item: str) -> Result:
    read = count(checked, item)
    if not writes_json():
        click.echo(f"{read} checked, {len(bad):,} bad" if bad else f"{read} checked, all good", err=True)
    return Result({"path": name, "checked": checked, "bad": bad}, status=1 if bad else 0)


class Examine:
    """Reads one sample and keeps nothing of it."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __call__(self, index: int) -> str | None:
        """Return what is wrong with a sample; None if nothing is."""
        try:
            self._dataset[index]
        except Exception as error:  # noqa: BLE001  whatever a decoder does, the other files are still to be checked
            return reason(error)
        return None


def reason(error: Exception) -> str:
    """Say in one line what an error found and expected; leave out path and cure. Name the class of a foreign error.

    >>> from headrace.errors import BadImage
    >>> reason(BadImage("0 bytes", path="a/b.jpg", expected="a whole image", cure="Fix or remove the file."))
    '0 bytes; expected a whole image'
    >>> reason(MemoryError()), reason(KeyError("label"))
    ('MemoryError', "KeyError: 'label'")
    """
    message = str(error)
    if isinstance(error, HeadraceError):
        message = f"{error.what}; expected {error.expected}" if error.expected else error.what
    elif not isinstance(error, OSError):
        message = f"{type(error).__name__}: {message}" if message else ""
    return " ".join(message.split()).rstrip(".") or type(error).__name__
