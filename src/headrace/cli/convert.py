"""``headrace convert SRC DST``: shards or a folder of images into another format."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace.cli import options
from headrace.cli.command_errors import CommandError
from headrace.cli.conversion import (
    CLASSES,
    MDS_LIST,
    TARGETS,
    FolderSource,
    ShardSource,
    Source,
    begin,
    convert_shard,
    upload_shard,
)
from headrace.cli.output import Result, json_option, say
from headrace.cli.source_path import check_apart, open_source
from headrace.datasets.field_samples import FieldDataset
from headrace.datasets.shard_kinds import open_shards
from headrace.formats.shard_writers import image_kind
from headrace.formatting import count, plain
from headrace.interop.parallel import in_order, usable_cpus
from headrace.storage.objects import absolute
from headrace.storage.shard_folders import ObjectFolder, shard_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHARD_BYTES = 256 << 20
"""The size of a shard unless told otherwise, by the mean of the first samples."""
PROBED = 100
MOST_SAMPLES = 100_000


@click.command(
    epilog="Example: headrace convert photos shards --to tar",
)
@click.argument("src", type=click.Path(exists=False))
@click.argument("dst", type=click.Path(file_okay=False))
@click.option("--to", "form", type=click.Choice(sorted(TARGETS)), required=True, help="The format to convert to.")
@click.option("--fields", metavar="A,B", help="Which fields to convert.  [default: all]")
@options.number(
    "--samples",
    least=1,
    most=MOST_SAMPLES,
    about="Samples in a shard.  [default: as many as have 256 MiB]",
)
@options.jobs
@json_option
def convert(*, src: str, dst: str, form: str, fields: str | None, samples: int | None, jobs: int | None) -> Result:
    """Convert SRC, shards of any format or a folder of images, into a new folder DST.

    DST may be a URL (s3://bucket/folder). Images stay encoded as they are. Each shard is read back and compared with
    the source. After a kill, the same command continues: shards that are there already are compared, and kept if they
    are right. The names of the classes of a folder go to classes.txt.
    """
    from headrace.cli.progress_bar import ProgressBar

    check_apart(src, dst)
    source = _source(src, fields)
    probed = [source[row][1] for row in range(min(PROBED, len(source)))]
    size = samples or _samples_of(probed)
    images = {image_kind(value) for values in probed for value in values.values() if isinstance(value, bytes)} - {None}
    where = absolute(src)
    about = {"from": where, "to": form, "fields": fields, "samples": size, "of": len(source)}
    folder = shard_folder(dst)
    if form == "folder" and isinstance(folder, ObjectFolder):
        raise CommandError(
            "image files are not written to a URL", path=dst, expected="a format of shards", cure="choose --to tar"
        )
    begin(folder, about, source.classes)
    parts = [range(start, min(start + size, len(source))) for start in range(0, len(source), size)]
    # An MDS shard is listed after those before it.
    threads = 1 if form == "mds" else min(jobs or usable_cpus(), len(parts))
    made = 0
    with ProgressBar(len(source), "converting", unit="samples") as progress, ExitStack() as stack:
        make = TARGETS[form]
        ending = images.pop() if len(images) == 1 else "jpg"
        if isinstance(folder, ObjectFolder):
            base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-")))
            one: Any = partial(upload_shard, source, make(base, source.classes, ending), folder)
        else:
            base = folder.path
            one = partial(convert_shard, source, make(base, source.classes, ending))
        numbered = list(enumerate(parts))
        for part, new in zip(parts, in_order(lambda each: one(*each), numbered, threads, finish=True), strict=True):
            made += new
            progress.advance(len(part))
        if isinstance(folder, ObjectFolder) and form == "mds":
            folder.put(MDS_LIST, base / MDS_LIST)  # only now: a reader takes the shards that it lists for all
    folder.finish()
    kept = f", {len(parts) - made:,} of them there already" if made < len(parts) else ""
    parts_said = count(len(parts), "part" if form == "folder" else "shard")
    say(f"{plain(dst)}: {count(len(source), 'sample')} in {parts_said}, read back{kept}")
    found = {"samples": len(source), "parts": len(parts), "written": made, "kept": len(parts) - made}
    return Result({"source": src, "folder": dst, "format": form, "classes": len(source.classes), **found})


def _source(src: str, fields: str | None) -> Source:
    dataset = open_source(src, fields)
    if not isinstance(dataset, FieldDataset):
        return FolderSource(dataset)
    images = list(filter(dataset.is_image, dataset.fields))
    names = Path(src) / CLASSES
    classes = tuple(names.read_text(encoding="utf-8").splitlines()) if names.is_file() else ()
    return ShardSource(open_shards(src, fields=dataset.fields, decoders=dict.fromkeys(images)), classes)


def _samples_of(probed: Sequence[Mapping[str, Any]]) -> int:
    """Return how many samples a shard gets."""
    sizes = [len(value) if isinstance(value, bytes | str) else 8 for values in probed for value in values.values()]
    return max(1, min(MOST_SAMPLES, SHARD_BYTES * len(probed) // max(1, sum(sizes))))
