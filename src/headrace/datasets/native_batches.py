"""Make whole batches by the native extension, for `Mapped` over a dataset whose images it can read."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headrace._native import extension
from headrace.context import memory, seeds, sharing
from headrace.context.timing import add, timed
from headrace.datasets import protocol
from headrace.datasets.columns import Columns
from headrace.image import fused
from headrace.image.targets import spatial_part
from headrace.interop import floats
from headrace.storage.spans import span_error
from headrace.transforms.base import Compose
from headrace.transforms.groups import native_groups
from headrace.transforms.image_transform import ImageTransform, WithKinds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from headrace.context.memory import Empty
    from headrace.datasets.image_sources import Source
    from headrace.errors import HeadraceError
    from headrace.image.fused import Plan
    from headrace.transforms.base import Step
    from headrace.transforms.image_transform import Scaling


def plan_of(base: Any, transforms: Sequence[Callable[..., Any]]) -> Plan | None:
    """Examine a chain of transforms over a dataset; None where the native extension cannot read the samples.

    >>> from headrace import ArrayDataset, RandomHorizontalFlip
    >>> plan = plan_of(ArrayDataset(np.zeros((9, 4, 4, 3), np.uint8)), [RandomHorizontalFlip()])
    >>> plan.whole, plan.shape, plan_of([1, 2, 3], [abs])
    (True, (4, 4, 3), None)
    """
    source = source_of(base)
    if source is None:
        return None
    decoding = getattr(source, "decoding", None)
    if decoding is not None:
        shrink = scaling_of(base, transforms) is not None
        oriented = decoding.oriented
        return fused.plan(transforms, max_pixels=decoding.max_pixels, shrink=shrink, oriented=oriented)
    shape = cast("tuple[int, ...]", source.image_shape)
    plan = fused.plan(transforms, image_shape=shape)
    moved = any(getattr(transform, "geometric", False) for transform in plan.transforms[: plan.fused])
    # Stand-ins of the rows' shapes: no row is read, which may lie in a file.
    rows = tuple(np.broadcast_to(np.uint8(0), each) for each in (shape, *(a.shape[1:] for a in source.beside)))
    if moved and spatial_part(rows, shape[:2]):
        return None  # step by step, the first transform that moves pixels refuses the sample
    return plan


def source_of(base: Any) -> Source | None:
    """Return what the images of a dataset are read from, if the native extension can read it."""
    source = protocol.native_source(base)
    return source if source is not None and not source.refusal("") else None


def waits(base: Any) -> bool:
    """Say whether reading the images of a dataset may wait for a server."""
    source = source_of(base)
    return source is not None and source.waits


def scaling_of(base: Any, transforms: Sequence[Callable[..., Any]]) -> Scaling | None:
    """Return the transform that images are decoded smaller for, where their dataset allows that.

    >>> from headrace import ImageFiles
    >>> from headrace import Resize
    >>> scaling_of(ImageFiles(["a.jpg"], scaled_decode=True), [Resize(64)])
    Resize(size=64, interpolation='bilinear', antialias=True)

    The dataset's own ``read_scaled(index, transform)`` reads such a sample.
    """
    decoding = getattr(source_of(base), "decoding", None)
    if decoding is None or not decoding.scaled or not transforms:
        return None
    if not callable(protocol.offered(protocol.resolve(base, [])[0], "read_scaled")):
        return None
    first = transforms[0]
    return first.scaling_step() if isinstance(first, ImageTransform) else None


def read_scaled(base: Any, index: int, transform: Scaling) -> Any:
    """Read a sample as the transform leaves it that images are decoded smaller for."""
    root, rows = protocol.resolve(base, [index])
    return root.read_scaled(int(rows[0]), transform)


def unfit(base: Any) -> str:
    """Say why the native extension cannot read the samples of a dataset."""
    while (found := protocol.inner(base, 0)) is not None:
        base = found[0]
    name = type(base).__qualname__
    source = protocol.native_source(base)
    if source is not None:
        return source.refusal(name)
    if callable(getattr(base, "native_source", None)) and base.native_source() is not None:
        return f"{name} may read its samples in a way of its own"
    return f"the native extension reads image files and arrays of images; {name} has no native_source()"


def explained(name: str, base: Any, plan: Plan | None, chain: Compose) -> str:
    """Say which steps of a chain over a dataset are fused, which are grouped, and why not the others."""
    if plan is None:
        head = f"{name}: sample by sample: {unfit(base)}"
        rows = _group_rows(chain, [])
        return _table(head, rows) if any(how.startswith("group") for _, how in rows) else head
    fused_rows = [(_called(step), "fused") for step in plan.transforms[: plan.fused]]
    rows = fused_rows + _group_rows(Compose(*plan.rest), plan.why[plan.fused :])
    if plan.recipe is None:
        head = f"{name}: sample by sample"
    elif plan.whole:
        head = f"{name}: all fused"
    else:
        first = "the first" if plan.fused == 1 else f"the first {plan.fused}"
        head = f"{name}: {first} of its {len(rows)} steps fused, then sample by sample"
    if plan.recipe is not None and extension is None:
        head = f"{name}: sample by sample: the native extension was not built (headrace doctor); with it:"
    return _table(head, rows)


def _group_rows(chain: Compose, unfused: Sequence[str]) -> list[tuple[str, str]]:
    """Return for each transform its name and group, with why it is not fused, or else why it has no group."""
    found = native_groups(chain)
    whys = unfused or [why for _, _, why in found]
    wheres = [f"group {number}" if number else "step by step" for _, number, _ in found]
    names = [_called(step) for step, _, _ in found]
    return [(name, f"{here}: {why}" if why else here) for name, here, why in zip(names, wheres, whys, strict=True)]


def _table(head: str, rows: Sequence[tuple[str, str]]) -> str:
    width = max((len(step) for step, _ in rows), default=0)
    return "\n".join([head, *(f"  {step:{width}}  {how}" for step, how in rows)])


def _called(step: Any) -> str:
    step = step.transform if isinstance(step, WithKinds) else step
    return str(getattr(step, "__qualname__", type(step).__qualname__)).rpartition(".")[2]


class NativeBatch:
    """An `InFlightBatch` of one dataset, whose rows one job makes."""

    __slots__ = ("_check", "_columns", "_keys", "_one", "_stripped", "jobs")

    def __init__(
        self,
        columns: list[NDArray[Any]],
        job: Any,
        keys: Sequence[int],
        one: Callable[[int], Any],
        *,
        bare: bool,
        check: Callable[[], None],
    ) -> None:
        self._columns = columns
        self._keys = keys
        self._one = one
        self._stripped = bare
        self._check = check
        self.jobs = (job,)

    @property
    def missing(self) -> list[int]:
        """The rows that are not made: not yet, or left to be read step by step."""
        return cast("list[int]", self.jobs[0].missing)

    @property
    def underway(self) -> list[int]:
        """The missing rows that a thread has begun: rows are begun in order."""
        begun = len(self._keys) - self.jobs[0].left
        return [row for row in self.missing if row < begun]

    def finish(self, stop: Callable[[], None] | None = None) -> Any:
        """Return the batch, after the job has ended, as `InFlightBatch.finish` does."""
        (job,) = self.jobs
        _count(job)
        self._check()
        missing = set(job.missing)
        if missing:
            here, failures = seeds.place(), _failures(job)
            for row in seeds.each(len(self._keys)):
                if row in missing:
                    if stop is not None:
                        stop()
                    here.alone = True
                    if row in failures:
                        raise _unread(failures[row])
                    sample = self._one(self._keys[row])
                    self._columns[0][row] = sample[0] if isinstance(sample, tuple) else sample
        return self._columns[0] if self._stripped else self._columns


def begin(plan: Plan, base: Any, keys: Sequence[int], one: Callable[[int], Any], *, empty: Empty) -> NativeBatch:
    """Begin the batch of these keys: a column for each part of a sample; the native extension makes the first.

    ``one`` reads a sample step by step, where the extension cannot read its file.
    """
    source, columns, job, check = _begun(plan, base, keys, seeds.inside() or _anywhere(), empty)
    return NativeBatch(columns, job, keys, one, bare=source.bare, check=check)


def read(plan: Plan, base: Any, keys: Sequence[int], one: Callable[[int], Any], *, empty: Empty) -> Any:
    """Make the batch of these keys, as `begin` begins it."""
    begun = begin(plan, base, keys, one, empty=empty)
    sharing.run(begun.jobs[0])
    return begun.finish()


def samples(plan: Plan, base: Any, keys: Sequence[int], one: Callable[[int], Any], rest: Step) -> list[Any]:
    """Make the samples of these keys one by one, from the batch that the extension has made of all of them."""
    here = seeds.inside() or _anywhere()
    source, filled, job, check = _begun(plan, base, keys, here, memory.empty)
    sharing.run(job)
    _count(job)
    check()
    missing, drawn = set(job.missing), job.drawn
    failures = _failures(job) if missing else {}
    made = []
    for row in seeds.each(len(keys)):
        here.alone = True
        if row in failures:
            raise _unread(failures[row])
        if row in missing:
            made.append(one(keys[row]))
            continue
        here.skip(drawn[row])
        with timed("transform"):
            made.append(rest(source.sample(filled, row)))
    return made


def columns(plan: Plan, base: Any) -> Columns:
    """Return the columns of a batch that the plan makes whole."""
    source = cast("Source", source_of(base))
    beside = Columns.beside(source.beside).rows
    return Columns(((plan.dtype, plan.shape), *beside), bare=source.bare)


def _begun(
    plan: Plan, base: Any, keys: Sequence[int], here: seeds.Here, empty: Empty
) -> tuple[Source, list[NDArray[Any]], Any, Callable[[], None]]:
    """Return the source; the columns of a batch, the first for the job to fill; the job; what raises for a change."""
    root, rows = protocol.resolve(base, keys)
    kept = plan.kept
    read = kept.read
    if read is None or read[0] is not root:
        found = protocol.native_source(root)
        # An extension that was built earlier knows no arrays beside the images.
        gathers = getattr(extension, "GATHERS", False) and protocol.offered(found, "gathers")
        read = kept.read = root, found, gathers
    source: Any = read[1]
    filled = [empty((len(rows), *plan.shape), plan.dtype)]
    begun = None if here.begun is None else [seeds.drawn(generator) for generator in here.begun]
    place, out = fused.place_of(here), floats.bits(filled[0])
    opened, among = source.opened_for(extension, rows)
    with timed("collate"):
        filled += [empty((len(rows), *array.shape[1:]), array.dtype) for array in source.beside]
        if read[2] and among is rows:
            job = kept.pipeline.rows(opened, among, place, out, here.rows, begun, source.beside, filled[1:])
        else:
            job = kept.pipeline.rows(opened, among, place, out, here.rows, begun)
            for number, column in enumerate(filled[1:]):
                source.take(number, rows, column)
    return source, filled, job, partial(source.check, rows)


def _failures(job: Any) -> dict[int, Any]:
    """Return why rows could not be read, where reading them again might give other bytes."""
    return dict(job.failures)


def _unread(failure: Any) -> HeadraceError:
    return span_error(
        failure.kind,
        failure.path,
        failure.offset,
        failure.length,
        found=failure.found,
        error=failure.error,
    )


def _count(job: Any) -> None:
    """Count the seconds of a finished job, by stage."""
    for stage, seconds in zip(("read", "decode", "transform"), job.seconds, strict=True):
        if seconds:
            add(stage, seconds)


def _anywhere() -> seeds.Here:
    """Return a random position, for a batch that is read outside a loader."""
    first, second = seeds.rng().integers(0, 2**64, 2, np.uint64).tolist()
    return seeds.Here((first, second))
