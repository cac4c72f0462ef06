"""Pack a dataset: its samples, scaled and encoded on threads, in order, into shards that are whole or not there."""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import flag, function, integer, nbytes, one_of
from headrace.datasets import facts, protocol
from headrace.datasets.packed_dataset import PackedDataset
from headrace.datasets.packed_index import read_listing
from headrace.datasets.packed_samples import Samples
from headrace.errors import ArgumentError, BadFile, HeadraceError, MissingDependency, TooManyErrors
from headrace.formats.packed_layout import LISTING, SUFFIX, Layout, ShardLayout, shard_name
from headrace.formats.packed_tables import Stored, pyarrow, write_shard
from headrace.interop.machine import cpus
from headrace.interop.parallel import in_order
from headrace.storage.crc32c import crc32c
from headrace.storage.files import unopened
from headrace.storage.objects import path_of
from headrace.storage.shard_folders import shard_folder

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from headrace.formats.packed_tables import Row
    from headrace.storage.shard_folders import ShardFolder

Skipped = tuple[int, str | None, str]
"""A sample that was left out: its index, where it comes from, and its error."""

STORES = ("jpeg", "raw", "smart")
MOST_SKIPPED, MOST_TEXT = 10_000, 500
"""Samples that one shard leaves out, and characters of what is said of each: they are in its metadata."""
MOST_SHARD = 3 << 29
"""Bytes of a shard: the offsets in it have 31 bits, and a sample may be as large as a GiB."""
MOST_EXPANDED = 24
"""In a smart dataset, pixels of more than this many times the bytes of the encoded image stay encoded: they decode
quickly, and would take the room of several others."""


def pack(
    dataset: Any,
    path: str | os.PathLike[str],
    *,
    max_side: int | None = None,
    store: str = "jpeg",
    quality: int = 90,
    shard_size: int | str = "256MiB",
    budget: int | str | None = None,
    append: bool = False,
    workers: int | None = None,
    progress: Callable[[int], Any] | None = None,
    on_error: str = "raise",
) -> PackedDataset:
    """Do what `Dataset.pack` says, to anything that has a length and gives samples by index."""
    _check_dataset(dataset)
    how = Layout(
        one_of("pack: store", store, STORES),
        None,
        (),
        tuple(map(str, protocol.classes(dataset))),
        None if max_side is None else integer("pack: max_side", max_side, least=1, most=65_000),
        None if store == "raw" else integer("pack: quality", quality, least=1, most=100),
    )
    pyarrow()
    if (budget is not None) != (store == "smart"):
        raise ArgumentError(
            f"pack: store={store!r}, and budget={budget!r}",
            found=budget,
            expected='a budget of bytes with store="smart", and none with any other',
            cure='Pass store="smart", budget="100GB".',
        )
    packing = _Packing(
        dataset,
        shard_folder(path_of("pack: path", path), SUFFIX, LISTING),
        how,
        shard_bytes=nbytes("pack: shard_size", shard_size, most=MOST_SHARD),
        budget=None if budget is None else nbytes("pack: budget", budget),
        append=flag("pack: append", append),
        threads=cpus() if workers is None else integer("pack: workers", workers, least=1),
        skips=one_of("pack: on_error", on_error, ("raise", "skip")) == "skip",
    )
    return packing.run(function("pack: progress", progress) or (lambda _samples: None))


@dataclass(frozen=True)
class _Begun:
    """What is in the folder: shards and samples that are not of this dataset, then those that are."""

    shards_before: int
    samples_before: int
    shards: int
    samples: int
    skipped: int
    spent: int
    parts: list[Any]


class _Packing:
    """One run of `pack`."""

    def __init__(
        self,
        dataset: Any,
        folder: ShardFolder,
        how: Layout,
        *,
        shard_bytes: int,
        budget: int | None,
        append: bool,
        threads: int,
        skips: bool,
    ) -> None:
        self._dataset, self._folder, self._how, self._threads = dataset, folder, how, threads
        self._shard_bytes, self._budget, self._append = shard_bytes, budget, append
        self._skips = skips
        self._about = _about(dataset, how, shard_bytes, budget) | ({"on_error": "skip"} if skips else {})
        self._packed = self._skipped = 0
        """How many samples of the dataset are stored, and how many left out."""

    def run(self, progress: Callable[[int], Any]) -> PackedDataset:
        """Pack what is not there yet; return all of it."""
        begun = self._begin()
        self._packed, self._skipped = begun.samples, begun.skipped
        done = begun.samples + begun.skipped
        progress(done)
        if done < len(self._dataset) or not begun.shards:
            samples = self._samples(self._layout(begun))
            self._write(samples, begun, progress)
        self._finish(begun.parts)
        return PackedDataset(self._folder.place(""))

    def _begin(self) -> _Begun:
        """Look at what is in the folder; raise where that is something else."""
        names, told = self._folder.names(), read_listing(self._folder)
        parts = told.get("parts", []) if told else []
        if told is None and names:
            raise self._other("other files")
        same = bool(parts) and parts[-1]["about"] == self._about
        if parts and not same and not (self._append and told and told.get("finished")):
            raise self._other("another dataset, or this one packed in another way")
        if not same:
            parts = [*parts, {"about": self._about}]
        kept = [int(part["shards"]) for part in parts[:-1]]
        rows = [int(part["samples"]) for part in parts[:-1]]
        return _Begun(sum(kept), sum(rows), *self._kept_shards(sum(kept), _shards_in(names)), parts)

    def _samples(self, layout: Layout | None) -> Samples:
        """Return what makes the samples; their form is that of the first one that can be read."""
        for number in range(len(self._dataset) - 1):
            try:
                return Samples(self._dataset, self._how, layout, number)
            except Exception as error:
                if not self._passes_over(error):
                    raise
        return Samples(self._dataset, self._how, layout, len(self._dataset) - 1)

    def _passes_over(self, error: Exception) -> bool:
        """Say whether a sample with this error is left out: not for what is no fault of the sample's."""
        return self._skips and not isinstance(error, ArgumentError | MissingDependency | MemoryError)

    def _kept_shards(self, before: int, there: Sequence[str]) -> tuple[int, int, int, int]:
        """Return how many shards are there already and right, their samples and those left out, and their bytes.

        The first that is not, and all after it, are written again.
        """
        shards = samples = skipped = spent = 0
        while (name := shard_name(before + shards)) in there:
            try:
                found = PackedDataset(self._folder.place(name))
                shard = found._index.told[0]
                if shard.first != samples or shard.before != spent:
                    break
                if not self._folder.is_known(name):
                    _verify(found)
            except (HeadraceError, ValueError):
                break
            shards, samples, skipped = shards + 1, samples + shard.rows, skipped + len(shard.skipped)
            spent += _image_bytes_of(found)
        for name in there[before + shards :]:
            self._folder.remove(name)
        return shards, samples, skipped, spent

    def _layout(self, begun: _Begun) -> Layout | None:
        """Return the layout that the shards in the folder have; None where there are none."""
        if not begun.shards_before + begun.shards:
            return None
        layout, how = PackedDataset(self._folder.place(shard_name(0)))._layout, self._how
        if replace(layout, structure=None, fields=()) != how:
            raise self._other("a dataset of other classes, or packed in another way")
        return layout

    def _write(self, samples: Samples, begun: _Begun, progress: Callable[[int], Any]) -> None:
        self._tell(begun.parts, finished=False)
        number = begun.shards_before + begun.shards
        with ThreadPoolExecutor(1, thread_name_prefix="headrace-pack") as writer:
            writing: Future[None] | None = None
            with closing(self._shards(samples, begun, progress)) as made:
                for shard, rows in made:
                    if writing is not None:
                        writing.result()
                    writing = writer.submit(self._write_one, number, shard, rows)
                    number += 1
            if writing is not None:
                writing.result()

    def _shards(
        self, samples: Samples, begun: _Begun, progress: Callable[[int], Any]
    ) -> Generator[tuple[ShardLayout, list[Row]]]:
        """Yield the samples of one shard after the other: where one ends depends on the samples alone."""
        rows, size, first, spent = list[Any](), 0, begun.samples, begun.spent
        skipped, waiting = list[Skipped](), list[Skipped]()
        before = spent
        wanted = range(begun.samples + begun.skipped, len(self._dataset))
        found = in_order(partial(self._row, samples), wanted, self._threads, finish=True)
        for number, pair in zip(wanted, found, strict=True):
            progress(1)
            if len(pair) == 3:
                waiting.append(pair)
                _check_many(len(skipped) + len(waiting), pair)
                continue
            small, large = pair
            row = small if self._budget is None else self._chosen(samples.layout, small, large, spent, number)
            added = sum(len(value.data or b"") if isinstance(value, Stored) else 8 for value in row)
            if rows and size + added > self._shard_bytes:
                yield ShardLayout(samples.layout, first, len(rows), before, skipped=skipped), rows
                first += len(rows)
                rows, size, before, skipped = [], 0, spent, []
            skipped, waiting = skipped + waiting, []
            rows.append(row)
            size += added
            spent += _image_bytes(samples.layout, row)
            self._packed += 1
        self._skipped = len(self._dataset) - self._packed
        if rows:
            yield ShardLayout(samples.layout, first, len(rows), before, skipped=skipped + waiting), rows

    def _row(self, samples: Samples, number: int) -> tuple[Row, Row] | Skipped:
        """Return a sample as it is stored, or what is said of one that is left out."""
        try:
            return samples.row(number)
        except Exception as error:
            if not self._passes_over(error):
                raise
            said = f"{type(error).__name__}: {error}"
            return number, protocol.where(self._dataset, number), said[:MOST_TEXT]

    def _chosen(self, layout: Layout, small: Row, large: Row, spent: int, number: int) -> Row:
        """Return the pixels of a sample where they are cheap and the budget so far reaches, else its encoded images."""
        bytes_of = partial(_image_bytes, layout)
        share = (self._budget or 0) * (number + 1) // len(self._dataset)
        fits = spent + bytes_of(large) <= share
        return large if fits and bytes_of(large) <= MOST_EXPANDED * bytes_of(small) else small

    def _write_one(self, number: int, shard: ShardLayout, rows: list[Row]) -> None:
        name = shard_name(number)

        def write(place: Path) -> None:
            write_shard(place, shard, rows)
            _verify(PackedDataset(place))

        try:
            self._folder.write(name, write)
        except OSError as error:
            if isinstance(error, HeadraceError):
                raise
            raise unopened(
                self._folder.place(name),
                error,
                expected="a disk with room for it",
                cure="Make room, and run the same again: it continues.",
                action="written",
            ) from error

    def _finish(self, parts: list[Any]) -> None:
        before, first = (sum(int(part[what]) for part in parts[:-1]) for what in ("shards", "samples"))
        shards = len(_shards_in(self._folder.names()))
        parts[-1] = {"about": self._about, "shards": shards - before, "samples": self._packed}
        self._tell(parts, finished=True, shards=shards, samples=first + self._packed)
        self._folder.finish()

    def _tell(self, parts: list[Any], **more: Any) -> None:
        text = json.dumps({"parts": parts, **more}, indent=1, sort_keys=True)
        try:
            self._folder.write(LISTING, lambda place: place.write_text(text, encoding="utf-8"))
        except OSError as error:
            if isinstance(error, HeadraceError):
                raise
            path, cure = self._folder.place(LISTING), "Give another folder."
            raise unopened(path, error, expected="a folder to write to", cure=cure, action="written") from error

    def _other(self, what: str) -> ArgumentError:
        return ArgumentError(
            f"pack: the folder {self._folder.place('')} is not empty: it has {what}",
            found=self._folder.place(""),
            expected="an empty folder, or what packing this dataset in this way has begun there",
            cure="Give another folder; or pass append=True to add to a packed dataset.",
        )


def _shards_in(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.startswith("packed-") and name.endswith(SUFFIX)]


def _about(dataset: Any, how: Layout, shard_bytes: int, budget: int | None) -> dict[str, Any]:
    """Return what says whether a folder holds this dataset, packed in this way."""
    labels = protocol.labels(dataset)
    ends = [protocol.where(dataset, index) for index in (0, len(dataset) - 1)]
    return {
        "dataset": facts.chain(dataset),
        "samples": len(dataset),
        "labels": None if labels is None else crc32c(np.ascontiguousarray(labels).tobytes()),
        "ends": ends,
        "store": how.store,
        "max_side": how.max_side,
        "quality": how.quality,
        "shard_size": shard_bytes,
        "budget": budget,
    }


def _check_dataset(dataset: Any) -> None:
    if not len(dataset):
        raise ArgumentError(
            "pack: the dataset is empty", found=0, expected="one sample or more", cure="Check which files it reads."
        )
    if protocol.draws(dataset):
        raise ArgumentError(
            "pack: reading a sample draws random numbers, and would draw them only once",
            found=type(dataset).__qualname__,
            expected="a dataset without random transforms",
            cure="Pack the dataset before .map(...), and map the packed one.",
        )


def _check_many(count: int, last: Skipped) -> None:
    if count > MOST_SKIPPED:
        raise TooManyErrors(
            f"pack: {count:,} samples could not be read for one shard; the last: {last[2]}",
            (f"sample {last[0]}: {last[2]}",),
            index=last[0],
            found=count,
            expected=f"at most {MOST_SKIPPED:,}",
            cure="Fix the dataset; `headrace check` lists what cannot be read.",
        )


def _image_bytes(layout: Layout, row: Row) -> int:
    return sum(len(row[n].data or b"") for n, each in enumerate(layout.fields) if each.kind == "image")


def _image_bytes_of(packed: PackedDataset) -> int:
    index = packed._index
    return sum(int(index.spans(each).length.sum()) for each in index.layout.fields if each.kind == "image")


def _verify(packed: PackedDataset) -> None:
    """Raise `BadFile` unless all that a shard holds has the checksums that were computed before it was written."""
    index, layout = packed._index, packed._layout
    for number, each in enumerate(each for each in layout.fields if each.has_bytes):
        spans, sums = index.spans(each), index.sums()[:, number]
        skipped = packed._skipped(each)
        for row, (offset, length) in enumerate(zip(spans.offset.tolist(), spans.length.tolist(), strict=True)):
            past = int(skipped[row])
            if crc32c(index.read(0, offset + past, length - past)) != sums[row]:
                raise BadFile(
                    f"what was written reads back differently: sample {row}, field {each.name!r}",
                    path=index.files[0].path,
                    expected="the bytes that were written",
                    cure="Look at the disk, and at whether something else writes there; then pack it again.",
                )
