"""Lists of tar shards that other programs keep beside them: wids's JSON, and the folder `.nv-meta` of Energon."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from headrace.checks import shown
from headrace.datasets.patterns import braces
from headrace.errors import ArgumentError, BadFile
from headrace.formats.chunk import AGAIN, Listing
from headrace.storage.files import read_file
from headrace.storage.objects import folder_of, is_url, place_of
from headrace.storage.signed_urls import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

META, INFO, SPLITS = ".nv-meta", ".info.json", ("split.yaml", "split.json")
"""The folder that Energon prepares, and what is in it: how many samples each shard has; which shards a split has."""

_MOST = 1 << 26
_LINE = re.compile(r"(?P<indent> *)(?:- +(?P<item>\S.*)|(?P<name>[^\s:][^:]*):(?: +\[\])?)")


class ListedShard(NamedTuple):
    """A shard of a list: its path, and what the list says of it; None where it says nothing."""

    path: str
    samples: int | None = None
    size: int | None = None
    source: str = ""


def listed_shards(shards: Any, split: str | None) -> list[ListedShard]:
    """Return the shards of a list: a JSON file of wids, or a folder that Energon prepared; nothing for anything else.

    ``split``: a part that Energon's ``split.yaml`` names; None for all shards. Raises `ArgumentError` for a split that
    there is none of, and `BadFile` for a damaged list, and for one of shards elsewhere.
    """
    if isinstance(shards, str | os.PathLike):
        text = plain(os.fsdecode(shards))
        folder = folder_of(text)
        if is_url(text):
            is_list = place_of(text).endswith(".json")
            found = _wids(Listing(folder, text[len(folder) + 1 :]), split) if is_list else []
        else:
            found = _on_disk(Path(text).absolute(), split)
        if found:
            return found
    if split is not None:
        raise _no_split(split, "there are no splits: no folder .nv-meta is beside the shards")
    return []


def _on_disk(path: Path, split: str | None) -> list[ListedShard]:
    if path.suffix == ".json" and path.is_file():
        return _wids(Listing(str(path.parent), path.name), split)
    return _energon(str(path), split) if (path / META / INFO).is_file() else []


def is_wids(path: Path) -> bool:
    """Say whether a file is a JSON list of shards as wids writes it."""
    if path.suffix != ".json":
        return False
    listing = Listing(str(path.parent), path.name)
    return isinstance(listing.value, dict) and "wids_version" in listing.value


def agree(listed: Sequence[ListedShard], lengths: Sequence[int], sizes: Sequence[int]) -> None:
    """Raise `BadFile` unless shards have as many samples and bytes as their list says."""
    for shard, length, size in zip(listed, lengths, sizes, strict=True):
        for what, found, said in (("samples", length, shard.samples), ("bytes", size, shard.size)):
            if said is not None and found != said:
                raise BadFile(
                    f"it has {found:,} {what}",
                    path=shard.path,
                    expected=f"{said:,}, as {shard.source} says",
                    cure="Copy the shard again, write the list again, or pass the paths of the shards in its place.",
                )


def _wids(listing: Listing, split: str | None) -> list[ListedShard]:
    """Return the shards of ``{"wids_version": 1, "shardlist": [{"url", "nsamples", "filesize"}]}``."""
    version = listing.get(listing.value, "wids_version", int)
    if version != 1 or listing.value.get("datasets"):
        what = f"it has the wids_version {version}" if version != 1 else "it is a list of several data sets"
        raise listing.damaged(what, "one list of shards of wids_version 1", "Pass the paths of the shards.")
    if split is not None:
        raise _no_split(split, f"{listing.path} has no splits")
    shards = []
    for each in listing.get(listing.value, "shardlist", list):
        url = listing.get(each, "url", str)
        if "://" in url or url.startswith("/"):
            raise listing.damaged(
                f"it names the shard {url[:200]!r}",
                "shards beside it, by their names",
                "Pass the paths of the shards; headrace downloads nothing.",
            )
        counts = [listing.get(each, key, int, -1) for key in ("nsamples", "filesize")]
        samples, size = (None if count < 0 else count for count in counts)
        shards.append(ListedShard(listing.shard(url), samples, size, listing.path))
    return shards or _empty(listing)


def _energon(folder: str, split: str | None) -> list[ListedShard]:
    """Return the shards of ``.info.json``, or those of a split, less those that its file excludes."""
    listing = Listing(folder, f"{META}/{INFO}")
    counts = listing.get(listing.value, "shard_counts", dict)
    if not all(type(count) is int and count >= 0 for count in counts.values()):
        raise listing.damaged("'shard_counts' has a value that is no count", "the number of samples of each shard")
    names = list(counts)
    if split is not None:
        path, parts, excluded = _split_file(folder)
        if split not in parts:
            raise _no_split(split, f"{path} has the splits {', '.join(map(repr, parts)) or 'none'}")
        left_out = {name for pattern in excluded for name in braces(pattern)}
        names = [name for pattern in parts[split] for name in braces(pattern) if name not in left_out]
        samples = next((name for name in left_out if name.rpartition("/")[0] in names), None)
        if samples is not None:
            raise BadFile(
                f"it excludes single samples: {samples[:80]!r}",
                path=path,
                expected="shards to exclude, as a whole",
                cure="Pass the paths of the shards, and leave the samples out with Subset.",
            )
    if missing := next((name for name in names if name not in counts), None):
        raise listing.damaged(f"it has no shard {missing[:80]!r}", "all shards of the split", "Prepare it again.")
    return [ListedShard(listing.shard(name), counts[name], None, listing.path) for name in names] or _empty(listing)


def _empty(listing: Listing) -> list[ListedShard]:
    raise listing.damaged("it names no shards", "one shard or more")


def _split_file(folder: str) -> tuple[str, dict[str, list[str]], list[str]]:
    """Return the file of splits, the shards of each, and what is excluded."""
    name = next((name for name in SPLITS if Path(folder, META, name).is_file()), SPLITS[0])
    path = os.path.join(folder, META, name)  # noqa: PTH118
    if name.endswith(".json"):
        listing = Listing(folder, f"{META}/{name}")
        parts = listing.get(listing.value, "split_parts", dict)
        excluded = listing.names(listing.value, "exclude") if "exclude" in listing.value else []
        return path, {part: listing.names(parts, part) for part in parts}, excluded
    text = read_file(path, max_bytes=_MOST, cure=AGAIN).decode("utf-8", "replace")
    parts, excluded = _split_yaml(path, text)
    return path, parts, excluded


def _split_yaml(path: str, text: str) -> tuple[dict[str, list[str]], list[str]]:
    """Read the YAML that Energon writes: two maps of lists, a name or an item a line. Any other YAML is refused."""
    parts, excluded = dict[str, list[str]](), list[str]()
    top, items = "", excluded
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s)#.*", "", raw).rstrip()
        found = _LINE.fullmatch(line)
        if not line or line == "---":
            continue
        item, name = (found["item"], found["name"]) if found else (None, None)
        if name is not None and found and not found["indent"] and name in ("split_parts", "exclude"):
            top, items = name, excluded
        elif name is not None and top == "split_parts":
            items = parts.setdefault(_unquoted(name), [])
        elif item is not None and (top == "exclude" or items is not excluded):
            items.append(_unquoted(item))
        else:
            raise BadFile(
                f"line {number} cannot be read: {line[:80]!r}",
                path=path,
                expected="YAML as Energon writes it: split_parts, and in each a list of shards; exclude",
                cure="Write it as split.json, which Energon reads too.",
            )
    return parts, excluded


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] in "'\"" and text[0] == text[-1] else text


def _no_split(split: object, what: str) -> ArgumentError:
    return ArgumentError(
        f"split is {shown(split)}, and {what}",
        found=split,
        expected="a split that Energon's split.yaml names, or None",
        cure="Pass the paths of the shards of the split.",
    )
