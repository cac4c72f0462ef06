"""``headrace doctor``: what is installed and what the machine gives; or what is wrong with a dataset of the user's."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from headrace.cli.command_errors import CommandError
from headrace.cli.findings import found_here, report
from headrace.cli.output import Result, columns, json_option, say, writes_json

if TYPE_CHECKING:
    from headrace.testing import Examination


@click.command(epilog="Example: headrace doctor train.py:dataset --seconds 20")
@click.argument("target", metavar="[SCRIPT:NAME]", required=False)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 86400),
    default=30.0,
    show_default=True,
    metavar="S",
    help="With SCRIPT:NAME: how long the checks may take together.",
)
@click.option(
    "--workers",
    type=click.IntRange(0, 4096),
    default=4,
    show_default=True,
    metavar="N",
    help="With SCRIPT:NAME: for how many workers memory and files are projected, if the loader has none.",
)
@json_option
def doctor(*, target: str | None, seconds: float, workers: int) -> Result:
    """Print versions, the native extension, the processors and memory that there are, and what would help.

    With SCRIPT:NAME, as in train.py:loader, property-test the dataset, its transforms and the collate function of a
    Python file, which is imported: pickling, fresh and forked processes, threads, global randomness, open handles,
    length, structure, resuming, memory. Each finding has its evidence, the line to change and the cure. The exit
    status is 0 without findings, and 1 with one.
    """
    if target is not None:
        return _examined(target, seconds, workers)
    if writes_json():
        return Result(found_here())
    facts, advice = report(columns())
    say(facts)
    say()
    for line in advice:
        say(line)
    return Result()


def _examined(target: str, seconds: float, workers: int) -> Result:
    from headrace.cli.script_objects import is_script, loader_or_dataset_of, running
    from headrace.formatting import count, duration, plain
    from headrace.testing import examine

    if not is_script(target):
        raise CommandError(
            f"{plain(target)} names nothing in a script",
            found=target,
            expected="a script and a name in it, as in train.py:dataset",
        )
    with running(target):
        found = examine(loader_or_dataset_of(target), seconds=seconds, workers=workers)
    say(plain(f"{target}: {found.name}; {len(found.checked)} checks in {duration(found.seconds)}"))
    for finding in found.findings:
        say()
        say(plain(f"{finding.check}: {finding.what}" + (f"  ({finding.place})" if finding.place else "")))
        say(plain(f"  seen: {finding.evidence}"))
        say(plain(f"  cure: {finding.cure}"))
    say()
    for name, why in found.unchecked.items():
        say(plain(f"not checked: {name}: {why}"))
    for line in found.remarks():
        say(line)
    say(count(len(found.findings), "finding") if found.findings else "nothing found")
    return Result(_values(target, found), status=1 if found.findings else 0)


def _values(target: str, found: Examination) -> dict[str, Any]:
    return {
        "path": target,
        "name": found.name,
        "findings": [asdict(finding) for finding in found.findings],
        "facts": dict(found.facts),
        "checked": list(found.checked),
        "unchecked": dict(found.unchecked),
        "seconds": found.seconds,
    }
