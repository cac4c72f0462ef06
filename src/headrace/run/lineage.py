"""A batch or a sample made again, out of its place in a run, and what was done to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import integer
from headrace.context import seeds
from headrace.datasets.protocol import inner
from headrace.errors import ArgumentError
from headrace.formatting import html_table
from headrace.make.maker import Maker
from headrace.make.source import Batched, Indexed
from headrace.plan.piece import Piece
from headrace.plan.work import BadSample, Done, Failed
from headrace.run.tracing import Draw, Trace, Traced, name_of, shown
from headrace.transforms.base import Transform

if TYPE_CHECKING:
    from headrace.context.memory import Empty
    from headrace.plan.work import Outcome, Work
    from headrace.run.tracing import Applied


@dataclass(frozen=True, slots=True)
class Step:
    """A transform that a sample went through."""

    transform: Any
    parameters: dict[str, Any]
    """What it drew, as it means it: the box of a crop, whether an image was flipped."""
    draws: tuple[Draw, ...]
    """What it drew, as its generator gave it."""
    result: str
    """What came out, in words."""

    @property
    def name(self) -> str:
        """How the transform is called, with those of its settings that are not the usual ones."""
        return name_of(self.transform)


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a sample of a batch comes from, and all that was done to it: what `DataLoader.lineage` returns.

    >>> import numpy as np
    >>> from headrace import ArrayDataset, DataLoader, RandomCrop
    >>> images = ArrayDataset(np.zeros((10, 8, 8), np.uint8)).map(RandomCrop(6))
    >>> loader = DataLoader(images, 4, shuffle=True, seed=0)
    >>> lineage = loader.lineage(epoch=2, step=1, index=3)
    >>> lineage.position, lineage.steps[0].parameters
    (7, {'top': 1, 'left': 2, 'height': 6, 'width': 6})
    >>> print(lineage)
    epoch 2, step 1, index 3: position 7 of the epoch, seed 0
    Mapped[9] > ArrayDataset[9]
    before: uint8 array of (8, 8)
      RandomCrop((6, 6)): top 1, left 2, height 6, width 6 -> uint8 array of (6, 6)
    """

    dataset: tuple[tuple[str, Any], ...]
    """From the loader's dataset inwards, the class of each and the key it was asked for."""
    key: Any
    """What the loader's dataset was asked for; None of a stream."""
    where: str | None
    """The path, or what else the dataset says of where the sample comes from."""
    seed: int | None
    """The loader's, or the one that the loop drew."""
    epoch: int
    step: int
    index: int
    position: int
    """The place in the epoch, counted through all ranks: with seed and epoch, all that randomness depends on."""
    before: Any
    """The sample before its first transform; the sample itself where it has none."""
    sample: Any
    """The sample as it went into the batch."""
    steps: tuple[Step, ...]
    """The transforms that it went through, in order."""
    draws: tuple[Draw, ...]
    """What the dataset drew itself."""
    replaced: BadSample | None = None
    """The bad sample that this one stands in for."""
    batch: tuple[tuple[Any, dict[str, Any]], ...] = ()
    """The transforms of its whole batch by `TransformedCollate`, each with what it drew."""

    def __str__(self) -> str:
        visits = " > ".join(f"{kind}[{key!r}]" if key is not None else kind for kind, key in self.dataset)
        place = f"epoch {self.epoch}, step {self.step}, index {self.index}: position {self.position} of the epoch"
        lines = [f"{place}, seed {self.seed}", f"{visits}: {self.where}" if self.where else visits]
        if self.replaced is not None:
            lines.append(f"in place of sample {self.replaced.index!r}: {self.replaced.error}")
        lines += [f"  {draw.by}: {draw}" for draw in self.draws]
        lines.append(f"before: {told(self.before)}")
        for step in self.steps:
            meant = ", ".join(f"{name} {shown(value)}" for name, value in step.parameters.items())
            lines.append(f"  {step.name}{f': {meant}' if meant else ''} -> {step.result}")
            if not meant:
                lines += [f"    {draw}" for draw in step.draws]
        for transform, drawn in self.batch:
            meant = ", ".join(f"{name} {shown(value)}" for name, value in drawn.items())
            lines.append(f"  the batch: {name_of(transform)}{f': {meant}' if meant else ''}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        place, visits, *_ = str(self).splitlines()
        rows = [("step", "what it drew", "result")]
        rows += [(draw.by, str(draw), "") for draw in self.draws]
        rows.append(("before", "", told(self.before)))
        for step in self.steps:
            meant = [f"{name} {shown(value)}" for name, value in step.parameters.items()]
            rows.append((step.name, ", ".join(meant or map(str, step.draws)), step.result))
        bad = "" if self.replaced is None else f"; in place of sample {self.replaced.index!r}: {self.replaced.error}"
        return html_table(rows, left=3, title=f"{place}; {visits}{bad}")


def batch(maker: Maker, work: Work) -> Any:
    """Make a batch again."""
    return _opened(maker.make(work, seeding=seeds.GLOBALS), work).batch


def traced(maker: Maker, work: Work, index: int) -> tuple[Any, Trace, BadSample | None]:
    """Make one sample of a batch again, and write down how."""
    index = integer("index", index, least=0, most=work.rows - 1, cure=f"the batch has {work.rows} samples")
    source = maker.source
    alone = isinstance(source, Batched | Indexed)
    if isinstance(source, Batched):
        source = OneByOne(source.dataset)
    many = isinstance(source, Indexed) and source.reads_many
    samples = Maker(source, _kept, maker.on_error)
    if alone and not many:
        one = replace(work, start=work.start + index, keys=[work.keys[index]], replica=None)
        with seeds.seeded(work.seed, work.epoch, work.start):
            before = seeds.global_states()
            made = _made(samples, one, 0, seeding=())
            if not seeds.moved(before, seeds.global_states()):
                return made
        # It draws from the global generators, which are seeded for the batch: those before it drew first.
    return _made(samples, work, index, seeding=seeds.GLOBALS)


def _made(maker: Maker, work: Work, index: int, seeding: Sequence[str]) -> tuple[Any, Trace, BadSample | None]:
    apart = 1 if work.replica is None else work.replica.count
    here = Traced(range(work.start, work.start + work.rows * apart))
    done = _opened(maker.make(work, here=here, seeding=seeding), work)
    rows = len(done.batch)  # of a stream's last batch, fewer than planned
    integer("index", index, least=0, most=rows - 1, cure=f"the batch has {rows} samples")
    # A dataset that reads many samples and does not go from one to the next draws for all of them where they begin.
    position = work.start + index * apart
    trace = here.traces.get(position) or here.traces.get(work.start) or Trace()
    bad = [sample for sample in done.bad if work.replica is None and sample.index == work.keys[index]]
    return done.batch[index], trace, bad[0] if bad else None


def steps(trace: Trace) -> tuple[Step, ...]:
    """Return the transforms of a trace, with what their draws mean."""
    return tuple(Step(s.transform, meaning(s), tuple(s.draws), told(s.after)) for s in trace.steps)


def of_batch(maker: Maker, work: Work, sample: Any) -> tuple[tuple[Any, dict[str, Any]], ...]:
    """Return what was done to the batch that a sample went into, with what was drawn for it.

    Draws depend on the place, on how many samples there are and on their size: as many of the one stand for all.
    """
    collate = getattr(maker.collate, "_collate", maker.collate)
    drawn = getattr(collate, "drawn", None)
    if drawn is None or work.replica is not None or maker.on_error == "skip":
        return ()
    rng = seeds.generator(work.seed, seeds.Purpose.BATCH, work.epoch, work.start)
    return tuple(drawn([sample] * work.rows, rng))


def meaning(step: Applied) -> dict[str, Any]:
    """Return by name what a transform drew, where it says so."""
    transform = step.transform
    return transform.drawn(step.before, step.generator) if step.draws and isinstance(transform, Transform) else {}


def image_of(sample: Any) -> Any:
    """Return the array in a sample where image transforms find one; None where there is none."""
    if isinstance(sample, Mapping):
        sample = sample.get("image")
    elif isinstance(sample, tuple | list) and sample:
        sample = sample[0]
    if hasattr(sample, "detach"):  # a tensor
        sample = sample.detach().cpu()
        sample = (sample.float() if str(sample.dtype) == "torch.bfloat16" else sample).numpy()
    elif hasattr(sample, "__array_interface__") and not isinstance(sample, np.generic):  # an image of Pillow's
        sample = np.asarray(sample)
    return sample if isinstance(sample, np.ndarray) and sample.ndim in (2, 3) else None


def told(sample: Any) -> str:
    """Say in a few words what a sample is.

    >>> told((np.zeros((32, 32, 3), np.uint8), 7)), told({"x": 1.5})
    ('(uint8 array of (32, 32, 3), 7)', '{x: 1.5}')
    """
    if isinstance(sample, Mapping):
        return "{" + ", ".join(f"{key}: {told(value)}" for key, value in list(sample.items())[:8]) + "}"
    if isinstance(sample, tuple | list) and len(sample) <= 8:
        ends = "()" if isinstance(sample, tuple) else "[]"
        return ends[0] + ", ".join(map(told, sample)) + ends[1]
    return shown(sample)


def visits(dataset: Any, key: Any) -> tuple[tuple[str, Any], ...]:
    """Return the datasets that a key leads through, from the outermost inwards, and what each was asked for.

    >>> from headrace import ConcatDataset, Subset
    >>> visits(Subset(ConcatDataset(["abc", "de"]), [4, 0]), 0)
    (('Subset', 0), ('ConcatDataset', 4), ('str', 1))
    """
    found = [(type(dataset).__qualname__, key)]
    if isinstance(key, Piece):
        key = key.index
    with suppress(Exception):  # a dataset that only looks like a view
        while len(found) < 20 and (inside := inner(dataset, key)) is not None:
            dataset, key = inside
            found.append((type(dataset).__qualname__, key))
    return tuple(found)


class OneByOne(Indexed):
    """Reads sample by sample what else is read by the native extension, many at once; the same numbers are drawn."""

    @property
    def reads_many(self) -> bool:
        """False."""
        return False


def _kept(samples: Sequence[Any], *, empty: Empty = np.empty) -> list[Any]:  # noqa: ARG001
    return list(samples)


def _opened(outcome: Outcome, work: Work) -> Done:
    if isinstance(outcome, Failed):
        outcome.error.add_note(f"headrace: replaying step {work.step}: {outcome.place}")
        raise outcome.error
    if not isinstance(outcome, Done):
        raise ArgumentError(
            f"step {work.step} is not in the epoch: the iterable dataset ends before it",
            found=work.step,
            expected="a step of the epoch",
            cure="ask for an earlier step",
        )
    return outcome
