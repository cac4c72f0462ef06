"""SRC of the commands that write a dataset in another form: shards or a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headrace.cli.command_errors import CommandError
from headrace.cli.image_set import open_folder
from headrace.datasets.images import ImageFiles, ImageFolder
from headrace.datasets.shard_kinds import open_shards, shard_kind
from headrace.storage.objects import is_url

if TYPE_CHECKING:
    from headrace.datasets.field_samples import FieldDataset


def open_source(src: str, fields: str | None) -> FieldDataset | ImageFolder | ImageFiles:
    """Open shards of any format, with some of their fields (``"a,b"``), or a folder of images.

    Raises `CommandError` for anything else, and for what has no sample.
    """
    chosen = None if fields is None else [name.strip() for name in fields.split(",") if name.strip()]
    found: FieldDataset | ImageFolder | ImageFiles | None = None
    if src and shard_kind(src) is not None:
        found = open_shards(src, fields=chosen)
    elif src and Path(src).is_dir():
        dataset = open_folder(Path(src), src).dataset
        if isinstance(dataset, ImageFolder | ImageFiles):
            if chosen is not None:
                raise CommandError(
                    "--fields was given, but SRC is no shard", path=src, expected="shards", cure="leave it out"
                )
            found = dataset
    if found is None:
        raise CommandError(
            "this is neither shards nor a folder of images",
            path=src,
            expected="a shard, a pattern, a folder of shards, or a folder of images",
        )
    if not len(found):
        raise CommandError("there is no sample in it", path=src, expected="one sample or more")
    return found


def check_apart(src: str, dst: str) -> None:
    """Raise `CommandError` for a DST inside SRC."""
    if not is_url(dst) and Path(src).is_dir() and Path(dst).resolve().is_relative_to(Path(src).resolve()):
        raise CommandError(
            "DST is inside SRC, which would then be read too",
            path=dst,
            expected="a folder elsewhere",
            cure="choose another folder",
        )
