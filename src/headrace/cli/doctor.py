"""``headrace doctor``: what is installed, what the machine gives, and what to do about either."""

from __future__ import annotations

import click

from headrace.cli.findings import found_here, report
from headrace.cli.output import Result, columns, json_option, say, writes_json


@click.command(epilog="Example: headrace doctor")
@json_option
def doctor() -> Result:
    """Print versions, the native extension, the processors and memory that there are, and what would help."""
    if writes_json():
        return Result(found_here())
    facts, advice = report(columns())
    say(facts)
    say()
    for line in advice:
        say(line)
    return Result()
