"""Whole batches by the native kernel: what `Mapped` reads with, over pictures in files and over arrays."""

from __future__ import annotations

import os
from functools import partial
from operator import index
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headrace._native import kernel
from headrace.context import memory, seeds
from headrace.context import sharing as crew
from headrace.context.timing import add, timed
from headrace.datasets.arrays import ArrayDataset
from headrace.datasets.images import ImageDataset, ImageFiles, ImageFolder, label_of
from headrace.datasets.lists import ImageList
from headrace.datasets.subset import Subset
from headrace.datasets.tensors import TensorDataset
from headrace.image import fused
from headrace.image.targets import spatial_part
from headrace.interop import floats
from headrace.interop.keys import check_whole
from headrace.transforms.image_transform import ImageTransform

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from headrace.context.memory import Empty
    from headrace.datasets.mapped import MappedRows
    from headrace.image.fused import Plan
    from headrace.transforms.base import Step
    from headrace.transforms.image_transform import Scaling

    Keys = NDArray[np.int64]
    Check = Callable[[], None] | None

PICTURES = (ImageFiles, ImageFolder, ImageList)
ARRAYS = (ArrayDataset, TensorDataset)


def plan_of(base: Any, transforms: Sequence[Callable[..., Any]]) -> Plan | None:
    """Examine a chain of transforms over a dataset; None for one whose samples the kernel cannot read.

    >>> from headrace import ArrayDataset, RandomHorizontalFlip
    >>> plan = plan_of(ArrayDataset(np.zeros((9, 4, 4, 3), np.uint8)), [RandomHorizontalFlip()])
    >>> plan.whole, plan.shape, plan_of([1, 2, 3], [abs])
    (True, (4, 4, 3), None)
    """
    root = _root(base)
    if root is None:
        return None
    if isinstance(root, ImageDataset):
        shrink = scaling_of(base, transforms) is not None
        return fused.plan(transforms, max_pixels=root._max_pixels, shrink=shrink)
    plan = fused.plan(transforms, picture=root.arrays[0].shape[1:])
    moved = any(getattr(transform, "geometric", False) for transform in plan.transforms[: plan.fused])
    # Stand-ins of the rows' shapes: no row is read, which may lie in a file.
    rows = tuple(np.broadcast_to(np.uint8(0), array.shape[1:]) for array in root.arrays)
    if moved and spatial_part(rows, rows[0].shape[:2]):
        return None  # step by step, the first transform that moves pixels refuses the sample
    return plan


def scaling_of(base: Any, transforms: Sequence[Callable[..., Any]]) -> Scaling | None:
    """Return the transform that pictures are decoded smaller for, where their dataset allows that.

    >>> from headrace import ImageFiles
    >>> from headrace import Resize
    >>> scaling_of(ImageFiles(["a.jpg"], scaled_decode=True), [Resize(64)])
    Resize(size=64, interpolation='bilinear', antialias=True)
    """
    root = _root(base)
    if not isinstance(root, ImageDataset) or not root.scaled_decode or not transforms:
        return None
    first = transforms[0]
    return first.scaling_step() if isinstance(first, ImageTransform) else None


def read_scaled(base: Any, index: int, transform: Scaling) -> Any:
    """Read a sample as the transform leaves it that pictures are decoded smaller for."""
    while type(base) is Subset:
        index, base = base.indices[index], base.dataset
    return base.read_scaled(index, transform)


def unfit(base: Any) -> str:
    """Say why the kernel cannot read the samples of a dataset."""
    while type(base) is Subset:
        base = base.dataset
    name = type(base).__qualname__
    if type(base) in ARRAYS:
        return f"the kernel reads C-contiguous uint8 arrays of (N, H, W) or (N, H, W, C), C up to 4; {name} has another"
    if type(base) in PICTURES:
        return f"the native extension decodes to RGB; {name} has mode={base.mode!r}"
    if isinstance(base, (*PICTURES, *ARRAYS)):
        return f"{name} may read its samples in a way of its own"
    return f"the kernel reads picture files and arrays of pictures; {name} is neither"


class InFlightBatch:
    """A batch in lent memory whose rows the kernel is to make: ``job`` is to be run, by whoever has the time."""

    __slots__ = ("_check", "_columns", "_keys", "_one", "_stripped", "job")

    def __init__(
        self,
        columns: list[NDArray[Any]],
        job: Any,
        keys: Sequence[int],
        one: Callable[[int], Any],
        *,
        bare: bool,
        check: Check = None,
    ) -> None:
        self._columns = columns
        self._keys = keys
        self._one = one
        self._stripped = bare
        self._check = check
        self.job = job

    def finish(self, stop: Callable[[], None] | None = None) -> Any:
        """Return the batch of a job that is done; its place is that of the work. ``stop`` may raise between samples."""
        _count(self.job)
        if self._check is not None:
            self._check()
        missing = set(self.job.missing)
        if missing:
            here = seeds.current()
            for row in seeds.each(len(self._keys)):
                if row in missing:
                    if stop is not None:
                        stop()
                    here.alone = True
                    sample = self._one(self._keys[row])
                    self._columns[0][row] = sample[0] if isinstance(sample, tuple) else sample
        return self._columns[0] if self._stripped else self._columns


def begin(plan: Plan, base: Any, keys: Sequence[int], one: Callable[[int], Any], *, empty: Empty) -> InFlightBatch:
    """Begin the batch of these keys: a column for each part of a sample, of which the kernel makes the first.

    ``one`` reads a sample step by step, where the kernel gives it up.
    """
    columns, job, check = _begun(plan, base, keys, seeds.inside() or _anywhere(), empty)
    return InFlightBatch(columns, job, keys, one, bare=is_bare(base), check=check)


def read(plan: Plan, base: Any, keys: Sequence[int], one: Callable[[int], Any], *, empty: Empty) -> Any:
    """Make the batch of these keys, as `begin` begins it."""
    begun = begin(plan, base, keys, one, empty=empty)
    crew.run(begun.job)
    return begun.finish()


def samples(plan: Plan, base: Any, keys: Sequence[int], one: Callable[[int], Any], rest: Step) -> list[Any]:
    """Make the samples of these keys one by one, of what the kernel has made of all of them."""
    here = seeds.inside() or _anywhere()
    filled, job, check = _begun(plan, base, keys, here, memory.empty)
    crew.run(job)
    _count(job)
    if check is not None:
        check()
    missing, drawn = set(job.missing), job.drawn
    bare, made = is_bare(base), []
    labelled = isinstance(_root(base), ImageDataset)
    for row in seeds.each(len(keys)):
        here.alone = True
        if row in missing:
            made.append(one(keys[row]))
            continue
        here.skip(drawn[row])
        if bare:
            sample: Any = filled[0][row]
        else:
            sample = (filled[0][row], label_of(filled[1][row])) if labelled else tuple(column[row] for column in filled)
        with timed("transform"):
            made.append(rest(sample))
    return made


def columns(plan: Plan, base: Any) -> list[tuple[Any, tuple[int, ...]]]:
    """Return dtype and shape of the rows of each column of a batch."""
    return [(plan.dtype, plan.shape), *((array.dtype, array.shape[1:]) for array in _others(_root(base)))]


def is_bare(base: Any) -> bool:
    """Whether a sample of the base is a picture alone, and no tuple."""
    root = _root(base)
    return type(root) is ArrayDataset and len(root.arrays) == 1


def _begun(
    plan: Plan, base: Any, keys: Sequence[int], here: seeds.Here, empty: Empty
) -> tuple[list[NDArray[Any]], Any, Check]:
    """Return the columns of a batch, the first for the job to fill; the job; and what raises for a changed file."""
    places, root = _resolved(base, keys)
    count = len(places)
    rows = empty((count, *plan.shape), plan.dtype)
    out = floats.bits(rows)
    begun = None if here.begun is None else [seeds.drawn(generator) for generator in here.begun]
    place = fused.place_of(here)
    maps: list[MappedRows | None] | None = None
    if isinstance(root, ImageDataset):
        paths = root.paths
        folder = os.fsencode(root._base)
        job = plan.kernel.files(paths._text, paths._ends, folder, places, place, out, here.rows, begun)
    else:
        maps = root._maps
        mapped = maps is not None and maps[0] is not None
        job = plan.kernel.arrays(root.arrays[0], places, place, out, here.rows, begun, mapped)
    filled = [rows]
    with timed("collate"):
        for number, array in enumerate(_others(root), 1):
            filled.append(empty((count, *array.shape[1:]), array.dtype))
            if maps is not None and (other := maps[number]) is not None:
                other.take(places, filled[-1])
                continue
            # "clip", for NumPy would write "raise" through a buffer; and not np.take, which takes longer to begin.
            array.take(places, axis=0, out=filled[-1], mode="clip")
    return filled, job, None if maps is None else partial(root._check_files, places)


def _count(job: Any) -> None:
    """Count the seconds of a job that is done, by stage."""
    for stage, seconds in zip(("read", "decode", "transform"), job.seconds, strict=True):
        if seconds:
            add(stage, seconds)


def _others(root: Any) -> Sequence[NDArray[Any]]:
    """Return the arrays whose rows go with the pictures."""
    return [root.labels] if isinstance(root, ImageDataset) else root.arrays[1:]


def _root(base: Any) -> Any:
    """Return the dataset that holds the pictures, if the kernel can read them."""
    while type(base) is Subset:
        base = base.dataset
    if type(base) in PICTURES:
        return base if base.mode == "RGB" else None
    if type(base) not in ARRAYS:
        return None
    first = base.arrays[0]
    fits = first.dtype == np.uint8 and first.flags.c_contiguous and first.size
    channels = first.shape[3] if first.ndim == 4 else 1
    return base if fits and first.ndim in (3, 4) and channels <= 4 else None


def _resolved(base: Any, keys: Sequence[int]) -> tuple[Keys, Any]:
    """Return the places in the root's own order that keys of a dataset stand for, from 0 up, and the root."""
    while type(base) is Subset:
        keys, base = base._keys(keys), base.dataset
    length = len(base)
    if type(keys) is list:
        places: Keys = np.empty(len(keys), np.int64)
        if cast("Any", kernel).indices(keys, length, places):
            return places, base
    given = np.asarray(keys)
    check_whole(keys)
    if given.dtype.kind not in "iu":
        # Whatever stands there, the root says what is the matter with it.
        given = np.array([base._place(key) if isinstance(base, ImageDataset) else index(key) for key in keys], np.int64)
    places = given.astype(np.int64, copy=False)
    if not places.size or ((least := places.min()) >= 0 and places.max() < length):
        return places, base
    if least < -length or places.max() >= length:
        wrong = places[(places < -length) | (places >= length)][0]
        raise IndexError(f"index {wrong} is out of range for {length} samples")
    return np.where(places < 0, places + length, places), base


def _anywhere() -> seeds.Here:
    """Make up a place for a batch that is read outside a loader: freshly drawn, as `headrace.rng` is there."""
    first, second = seeds.rng().integers(0, 2**64, 2, np.uint64).tolist()
    return seeds.Here((first, second))
