"""``headrace cache``: what the cache of blocks of remote objects holds, whether it is sound, and how to empty it."""

from __future__ import annotations

from pathlib import Path

import click

from headrace.cli.output import Result, json_option, say
from headrace.formatting import count, plain, size_of
from headrace.storage.block_cache import BlockCache
from headrace.storage.blocks import FOLDER, MOST, cache_of_environment


@click.command(
    epilog="Example: headrace cache status",
)
@click.argument("action", type=click.Choice(["status", "verify", "clear"]))
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help=f"The folder of the cache.  [default: {FOLDER}, else the user's cache folder]",
)
@json_option
def cache(*, action: str, folder: Path | None) -> Result:
    """Say what the cache of remote data holds, check it, or empty it.

    status counts blocks and bytes. verify reads every block, compares its checksum, and deletes the damaged ones.
    clear deletes all blocks that no running process is downloading; it deletes nothing else, and refuses a folder that
    holds other files.
    """
    held = cache_of_environment()
    if folder is not None:
        held = BlockCache(folder, held.most)
    place = plain(str(held.folder))
    found: dict[str, object] = {"action": action, "folder": str(held.folder), "most_bytes": held.most}
    if action == "clear":
        blocks, nbytes = held.clear()
        say(f"{place}: {count(blocks, 'block')} of {size_of(nbytes)} deleted")
        return Result(found | {"blocks": blocks, "bytes": nbytes})
    if action == "verify":
        sound, damaged = held.verify()
        say(f"{place}: {count(sound, 'sound block')}, {len(damaged)} damaged and deleted")
        return Result(found | {"sound": sound, "damaged": damaged}, status=1 if damaged else 0)
    status = held.status()
    say(f"{place}: {count(status.blocks, 'block')}, {size_of(status.nbytes)} of at most {size_of(held.most)} ({MOST})")
    if status.downloads:
        say(f"{count(status.downloads, 'download')} running or left by a process that died")
    if status.strangers:
        say(f"{count(len(status.strangers), 'other file')}, which nothing here deletes: {plain(status.strangers[0])}")
    return Result(
        found
        | {
            "blocks": status.blocks,
            "bytes": status.nbytes,
            "downloads": status.downloads,
            "other_files": list(status.strangers),
        }
    )
