"""``headrace diff RUN_A RUN_B``: the first step at which two runs differ, and in what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace.cli.output import Result, json_option, say
from headrace.formatting import count, plain

if TYPE_CHECKING:
    from headrace.ledger.differences import Comparison


@click.command(epilog="Example: headrace diff runs/monday runs/tuesday")
@click.argument("run_a", metavar="RUN_A", type=click.Path(exists=True, path_type=Path))
@click.argument("run_b", metavar="RUN_B", type=click.Path(exists=True, path_type=Path))
@json_option
def diff(run_a: Path, run_b: Path) -> Result:
    """Name the first step at which RUN_A and RUN_B differ, and in what: order, sample content, augmentation, mixture.

    RUN_A and RUN_B are the folders that DataLoader(..., ledger=FOLDER) has written to, or the file of one rank. The
    exit status is 0 if the batches that both have are the same, 1 if one differs, 2 if a run cannot be read.
    """
    from headrace.ledger.differences import compare

    found = compare(run_a, run_b)
    difference = found.difference
    same = count(found.batches, "batch", "batches")
    if difference is not None:
        rank = f", rank {difference.rank} of {difference.world}" if difference.world > 1 else ""
        say(f"first difference: epoch {difference.epoch}, step {difference.step}{rank}: {difference.kind}")
        say(f"  {plain(difference.words)}")
        for fact in difference.facts:
            say(f"  {plain(fact)}")
        say(f"  the {same} before it are the same")
        return Result(_facts(found), status=1)
    say(f"no difference in the {same} that both runs have")
    for name, number in zip("AB", found.more, strict=True):
        if number:
            say(f"  {name} has {count(number, 'batch', 'batches')} more")
    if found.by_keys and found.batches:
        say("  keys were compared, and not the batches' bytes: a ledger was kept with fingerprints=False")
    return Result(_facts(found))


def _facts(found: Comparison) -> dict[str, Any]:
    difference = found.difference
    a, b = found.more
    return {
        "batches": found.batches,
        "difference": None
        if difference is None
        else {
            "epoch": difference.epoch,
            "step": difference.step,
            "rank": difference.rank,
            "world_size": difference.world,
            "kind": difference.kind,
            "words": difference.words,
            "facts": list(difference.facts),
        },
        "more": {"a": a, "b": b},
        "by_keys": found.by_keys,
    }
