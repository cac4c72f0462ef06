"""``headrace diff RUN_A RUN_B``: the first step at which two runs differ, and in what."""

from __future__ import annotations

from pathlib import Path

import click

from headrace.formatting import count, plain


@click.command(epilog="Example: headrace diff runs/monday runs/tuesday", short_help="Where two runs part.")
@click.argument("run_a", metavar="RUN_A", type=click.Path(exists=True, path_type=Path))
@click.argument("run_b", metavar="RUN_B", type=click.Path(exists=True, path_type=Path))
@click.pass_context
def diff(ctx: click.Context, run_a: Path, run_b: Path) -> None:
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
        click.echo(f"first difference: epoch {difference.epoch}, step {difference.step}{rank}: {difference.kind}")
        click.echo(f"  {plain(difference.words)}")
        for fact in difference.facts:
            click.echo(f"  {plain(fact)}")
        click.echo(f"  the {same} before it are the same")
        ctx.exit(1)
    click.echo(f"no difference in the {same} that both runs have")
    for name, number in zip("AB", found.more, strict=True):
        if number:
            click.echo(f"  {name} has {count(number, 'batch', 'batches')} more")
    if found.by_keys and found.batches:
        click.echo("  keys were compared, and not the batches' bytes: a ledger was kept with fingerprints=False")
