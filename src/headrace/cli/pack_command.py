"""``headrace pack SRC DST``: shards or a folder of images, scaled and encoded once, to be read at memory speed."""

from __future__ import annotations

import click

from headrace.cli import options
from headrace.cli.output import Result, json_option, say
from headrace.cli.source_path import check_apart, open_source
from headrace.datasets.pack_writer import STORES
from headrace.datasets.pack_writer import pack as pack_dataset
from headrace.formatting import count, plain, size_of
from headrace.interop.parallel import usable_cpus


@click.command(
    epilog="Example: headrace pack photos packed --max-side 256",
)
@click.argument("src", type=click.Path(exists=False))
@click.argument("dst", type=click.Path(file_okay=False))
@options.number(
    "--max-side", least=1, most=65_000, about="Scale images so that no side is longer.  [default: as they are]"
)
@click.option(
    "--store", type=click.Choice(STORES), default="jpeg", show_default=True, help="JPEG files, pixels, or some of both."
)
@options.number("--quality", least=1, most=100, default=90, about="Of JPEG files that are encoded.")
@click.option("--shard-size", metavar="SIZE", default="256MiB", show_default=True, help="Bytes of a shard.")
@click.option("--budget", metavar="SIZE", help="With --store smart: bytes that all images may have.")
@click.option("--fields", metavar="A,B", help="Which fields of shards to pack.  [default: all]")
@click.option(
    "--on-error",
    type=click.Choice(("raise", "skip")),
    default="raise",
    show_default=True,
    help="What to do with samples that cannot be read.",
)
@click.option("--append", is_flag=True, help="Add to a packed dataset.")
@options.jobs
@json_option
def pack(
    *,
    src: str,
    dst: str,
    max_side: int | None,
    store: str,
    quality: int,
    shard_size: str,
    budget: str | None,
    fields: str | None,
    on_error: str,
    append: bool,
    jobs: int | None,
) -> Result:
    """Store SRC, shards of any format or a folder of images, in a new folder DST, its images scaled and encoded once.

    DST has Arrow shards, which headrace.datasets.PackedDataset reads; it may be a URL (s3://bucket/folder). Each is
    read back after it is written. After a kill, the same command continues. To convert between formats without a
    change, use headrace convert.
    """
    from headrace.cli.progress_bar import ProgressBar

    check_apart(src, dst)
    dataset = open_source(src, fields)
    with ProgressBar(len(dataset), "packing", unit="samples") as progress:
        packed = pack_dataset(
            dataset,
            dst,
            max_side=max_side,
            store=store,
            quality=quality,
            shard_size=shard_size,
            budget=budget,
            append=append,
            on_error=on_error,
            workers=jobs or usable_cpus(),
            progress=progress.advance,
        )
    size = int(packed._index.facts[:, 0].sum())
    shards = count(len(packed.shards), "shard")
    say(f"{plain(dst)}: {count(len(packed), 'sample')} in {shards} of {size_of(size)}, read back")
    for bad in packed.skipped:
        say(f"left out: sample {bad.index} ({plain(bad.where or '')}): {plain(bad.error)}")
    found = {"skipped": len(packed.skipped), "samples": len(packed), "shards": len(packed.shards), "bytes": size}
    return Result({"source": src, "folder": dst, "store": store, **found})
