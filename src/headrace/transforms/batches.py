"""Transforms of whole batches: `MixUp`, `CutMix`, and one random resolution for all images of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from headrace.checks import fraction, integer, number, one_of, refused, shown
from headrace.context import memory
from headrace.errors import ArgumentError
from headrace.image.sample_fields import replaced
from headrace.transforms import parameters
from headrace.transforms.base import Compose, Transform
from headrace.transforms.spatial import Resize

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from headrace.image.geometry import Interpolation

    Batch = Any
    Weights = NDArray[np.float64]

Mode = Literal["batch", "elem"]
Layout = Literal["NHWC", "NCHW"]
CHANNELS = (1, 3, 4)
CACHED = 1 << 18
"""Bytes of rows that are mixed at a time."""
SPATIAL = frozenset({"mask", "masks", "boxes", "keypoints"})
IMAGES, LABELS = ("image", "images"), ("label", "labels", "target", "targets")


@dataclass(frozen=True, slots=True)
class MixUp(Transform):
    """Mix each image of a batch with the one before it, and their labels by the same weights.

    >>> import numpy as np
    >>> from headrace.transforms import MixUp
    >>> batch = [np.array([[[[0.0]]], [[[1.0]]]]), np.array([0, 2])]
    >>> images, labels = MixUp(num_classes=3)(batch, np.random.default_rng(0))
    >>> images.ravel().round(2), labels.round(2)
    (array([0.13, 0.87]), array([[0.87, 0.  , 0.13],
           [0.13, 0.  , 0.87]], dtype=float32))

    A batch is a list or tuple of images and labels, or a mapping with them under "image" and "label". Images are
    ``(N, …)``; floats keep their dtype, and integers are rounded. Labels are integers ``(N,)``, which become float32 of
    ``(N, num_classes)``; or floats of that shape already. ``label_smoothing`` is spread over all classes.

    The weight is drawn from Beta(``alpha``, ``alpha``): one for the batch, or with ``mode="elem"`` one for each sample.
    With probability 1 - ``p`` (of the batch, or of each sample) nothing is mixed; the labels have the same form.

    Use it in `TransformedCollate`. Raises `ArgumentError` for labels that are no classes, and for batches with masks,
    boxes or keypoints. Source: Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018.
    """

    alpha: float = 1.0
    _: KW_ONLY
    num_classes: int
    mode: Mode = "batch"
    p: float = 1.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        _check(self)

    def apply(self, batch: Batch, rng: Any) -> Batch:
        """Return the batch, mixed."""
        images, labels = _parts(self, batch)
        kept = self._kept(len(images.value), rng)
        mixed = _blended(images.value, _column(kept, images.value.ndim))
        return _replaced(batch, images, mixed, labels, _soft(self, labels.value, kept))

    def drawn(self, batch: Batch, rng: np.random.Generator) -> dict[str, Any]:
        """Return the share that each image keeps of itself: one number where all are equal."""
        kept = self._kept(len(_parts(self, batch)[0].value), rng)
        return {"lam": float(kept[0]) if self.mode == "batch" else kept.round(4).tolist()}

    def _kept(self, count: int, rng: Any) -> Weights:
        return _weights(self, count, rng)


@dataclass(frozen=True, slots=True)
class CutMix(Transform):
    """Replace a box of each image of a batch by that of the one before it, and mix their labels by its area.

    >>> import numpy as np
    >>> from headrace.transforms import CutMix
    >>> batch = {"image": np.arange(2.0)[:, None, None, None] + np.zeros((2, 8, 8, 3)), "label": np.array([0, 1])}
    >>> batch = CutMix(num_classes=2)(batch, np.random.default_rng(2))
    >>> batch["image"][0, ..., 0].mean(), batch["label"].round(4).tolist()
    (np.float64(0.375), [[0.625, 0.375], [0.375, 0.625]])

    Images are ``(N, H, W, C)`` or ``(N, C, H, W)``: ``layout`` says which, where the number of channels does not. The
    area is 1 - lam of Beta(``alpha``, ``alpha``) before the box is clipped to the image; with ``minmax``, each side is
    drawn between these fractions of the image's. With ``mode="elem"`` each sample has a box of its own. The other
    arguments, labels and errors are as for `MixUp`.

    Source: Yun et al., "CutMix: Regularization strategy to train strong classifiers with localizable features", ICCV
    2019.
    """

    alpha: float = 1.0
    _: KW_ONLY
    num_classes: int
    mode: Mode = "batch"
    p: float = 1.0
    minmax: tuple[float, float] | None = None
    label_smoothing: float = 0.0
    layout: Layout | None = None

    def __post_init__(self) -> None:
        _check(self)
        one_of("CutMix: layout", self.layout, (*get_args(Layout), None))
        if self.minmax is not None:
            low, high = parameters.positive_range("CutMix", "minmax", self.minmax)
            if high > 1:
                raise refused("CutMix: minmax", self.minmax, "fractions of the image's sides", "Pass (0.2, 0.8).")
            object.__setattr__(self, "minmax", (low, high))

    def apply(self, batch: Batch, rng: Any) -> Batch:
        """Return the batch, with boxes of other images."""
        images, labels = _parts(self, batch)
        boxes = self._boxes(images.value, rng)
        mixed = memory.empty(images.value.shape, images.value.dtype)
        np.copyto(mixed, images.value)
        rows = self._axis(images.value)
        for place, (top, left, bottom, right) in enumerate(boxes.tolist()):
            inside = (slice(top, bottom), slice(left, right))
            at = (slice(None), *inside) if rows == 2 else inside
            mixed[place][at] = images.value[place - 1][at]
        sides = images.value.shape[rows : rows + 2]
        kept = 1 - (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) / (sides[0] * sides[1])
        return _replaced(batch, images, mixed, labels, _soft(self, labels.value, kept))

    def drawn(self, batch: Batch, rng: np.random.Generator) -> dict[str, Any]:
        """Return the boxes as top, left, bottom and right: one where all are equal."""
        boxes = self._boxes(_parts(self, batch)[0].value, rng).tolist()
        return {"box": boxes[0]} if self.mode == "batch" else {"boxes": boxes}

    def _boxes(self, images: NDArray[Any], rng: Any) -> NDArray[np.int64]:
        """Draw the boxes: top, left, bottom, right."""
        rows = self._axis(images)
        height, width = images.shape[rows : rows + 2]
        kept = _weights(self, len(images), rng)
        count = 1 if self.mode == "batch" else len(images)
        numbers = rng.random((count, 4))
        sides = np.array([height, width])
        if self.minmax is None:
            # The center may be anywhere, so that a box may be clipped.
            centers = (numbers[:, :2] * sides).astype(np.int64)
            halves = (0.5 * np.sqrt(1 - kept[:count])[:, np.newaxis] * sides).astype(np.int64)
            boxes = np.concatenate([np.maximum(centers - halves, 0), np.minimum(centers + halves, sides)], axis=1)
        else:
            low, high = self.minmax
            lengths = ((low + (high - low) * numbers[:, :2]) * sides).astype(np.int64) * (kept[:count] < 1)[
                :, np.newaxis
            ]
            corners = (numbers[:, 2:] * (sides - lengths + 1)).astype(np.int64)
            boxes = np.concatenate([corners, corners + lengths], axis=1)
        return np.broadcast_to(boxes, (len(images), 4)).astype(np.int64)

    def _axis(self, images: NDArray[Any]) -> int:
        """Return the axis of the height."""
        if self.layout is not None or images.ndim == 3:
            return 2 if self.layout == "NCHW" else 1
        last, first = images.shape[-1] in CHANNELS, images.ndim == 4 and images.shape[1] in CHANNELS
        if images.ndim != 4 or last == first:  # images of 3 x 3 pixels, or of five channels
            cure = 'Pass layout="NHWC" or layout="NCHW".'
            raise refused("CutMix: images of shape", images.shape, "(N, H, W, C) or (N, C, H, W)", cure)
        return 1 if last else 2


@dataclass(frozen=True, slots=True, init=False, repr=False)
class RandomResolution(Transform):
    """Resize all images of a batch to one size, drawn for the batch: training at several scales.

    >>> import numpy as np
    >>> from headrace.transforms import RandomResolution
    >>> samples = [(np.zeros((9, 9, 3), np.uint8), 1), (np.zeros((8, 7, 3), np.uint8), 2)]
    >>> {image.shape for image, label in RandomResolution([4, 6])(samples, np.random.default_rng(0))}
    {(6, 6, 3)}

    Use it first in `TransformedCollate`: it takes the list of samples, before they are put together, and moves masks,
    boxes and keypoints with the images. ``sizes`` are lengths or (height, width), all equally likely. ``transforms``
    are applied to each sample after it: those that put channels first must come here. ``kinds`` are as in `Compose`.
    """

    sizes: tuple[tuple[int, int], ...]
    transforms: tuple[Callable[..., Any], ...]
    interpolation: Interpolation
    antialias: bool
    _chains: tuple[Compose, ...] = field(repr=False)

    def __init__(
        self,
        sizes: Iterable[int | tuple[int, int]],
        *transforms: Callable[..., Any],
        interpolation: Interpolation = "bilinear",
        antialias: bool = True,
        kinds: Any = None,
    ) -> None:
        given: Any = sizes if isinstance(sizes, Sequence) and not isinstance(sizes, str) else ()
        pairs = tuple(parameters.size_pair("RandomResolution", size) for size in given)
        if not pairs:
            raise refused("RandomResolution: sizes", sizes, "at least one size", "Pass [448, 512, 576], for example.")
        chains = tuple(
            Compose(Resize(pair, interpolation=interpolation, antialias=antialias), *transforms, kinds=kinds)
            for pair in pairs
        )
        for name, value in (("sizes", pairs), ("transforms", transforms), ("_chains", chains)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "interpolation", interpolation)
        object.__setattr__(self, "antialias", antialias)

    def apply(self, samples: Any, rng: Any) -> Any:
        """Return the samples, resized alike."""
        if not isinstance(samples, Sequence):
            cure = "Put it first in TransformedCollate."
            raise refused("RandomResolution: the batch", type(samples).__name__, "a list of samples", cure)
        chain = self._chains[int(rng.integers(len(self.sizes)))]
        return [chain(sample, rng) for sample in samples]

    def drawn(self, samples: Any, rng: np.random.Generator) -> dict[str, Any]:  # noqa: ARG002
        """Return the size."""
        return dict(zip(("height", "width"), self.sizes[int(rng.integers(len(self.sizes)))], strict=True))


class _Part:
    """The images or the labels of a batch, and where they are in it."""

    def __init__(self, key: Any, value: NDArray[Any]) -> None:
        self.key, self.value = key, value


def _check(transform: MixUp | CutMix) -> None:
    name = type(transform).__name__
    object.__setattr__(transform, "alpha", number(f"{name}: alpha", transform.alpha, above=0))
    object.__setattr__(transform, "num_classes", integer(f"{name}: num_classes", transform.num_classes, least=1))
    one_of(f"{name}: mode", transform.mode, get_args(Mode))
    object.__setattr__(transform, "p", fraction(f"{name}: p", transform.p))
    object.__setattr__(transform, "label_smoothing", fraction(f"{name}: label_smoothing", transform.label_smoothing))


def _weights(transform: MixUp | CutMix, count: int, rng: Any) -> Weights:
    """Draw the share that each image keeps."""
    draws = 1 if transform.mode == "batch" else count
    applied = rng.random(draws) < transform.p
    kept = np.where(applied, rng.beta(transform.alpha, transform.alpha, draws), 1.0)
    return np.broadcast_to(kept, (count,))


def _parts(transform: MixUp | CutMix, batch: Batch) -> tuple[_Part, _Part]:
    """Return the images and the labels of a batch."""
    name = type(transform).__name__
    if isinstance(batch, Mapping):
        spatial = sorted(SPATIAL & batch.keys())
        if spatial:
            cure = "Leave it out for detection and segmentation, or use Mosaic and CopyPaste."
            raise refused(f"{name}: the batch", spatial, "no masks, boxes or keypoints, which would not be mixed", cure)
        image = next((key for key in IMAGES if key in batch), None)
        label = next((key for key in LABELS if key in batch), None)
    else:
        pair = isinstance(batch, list | tuple) and len(batch) > 1
        image, label = (0, 1) if pair else (None, None)  # type: ignore[assignment]
    parts = () if image is None or label is None else (batch[image], batch[label])
    if not parts or not all(isinstance(part, np.ndarray) for part in parts) or not len(parts[0]):
        expected = 'arrays of images and labels: [images, labels], or {"image": images, "label": labels}'
        raise refused(f"{name}: the batch", shown(type(batch)), expected, "Give all images of a batch one size.")
    return _Part(image, parts[0]), _Part(label, parts[1])


def _column(weights: Weights, ndim: int) -> Weights:
    return weights.reshape(-1, *[1] * (ndim - 1))


def _blended(values: NDArray[Any], kept: Weights) -> NDArray[Any]:
    """Return each row, mixed with the one before it, in the dtype of the rows."""
    floats = values.dtype if values.dtype.kind == "f" else np.dtype(np.float32)
    weights = kept.astype(floats)
    mixed = memory.empty(values.shape, values.dtype)
    # A few rows at a time, which stay in the cache: each row is read from memory once. NumPy lets go of the GIL.
    count = max(1, CACHED // max(1, values[:1].size * floats.itemsize))
    for first, last in _spans(len(values), count):
        before = values[first - 1 : last - 1] if first else values[-1:]
        made = values[first:last] * weights[first:last]
        made += before * (1 - weights[first:last])
        if values.dtype.kind != "f":
            np.rint(made, out=made)
        mixed[first:last] = made
    return mixed


def _spans(count: int, length: int) -> Iterator[tuple[int, int]]:
    """Return where the first row lies, and each few of the others."""
    yield 0, 1
    for first in range(1, count, length):
        yield first, min(count, first + length)


def _soft(transform: MixUp | CutMix, labels: NDArray[Any], kept: Weights) -> NDArray[Any]:
    """Return labels as shares of classes, mixed."""
    name, classes = type(transform).__name__, transform.num_classes
    if labels.ndim == 1 and labels.dtype.kind in "iu":
        if labels.min() < 0 or labels.max() >= classes:
            odd = labels.min() if labels.min() < 0 else labels.max()
            raise refused(f"{name}: a label", int(odd), f"from 0 to {classes - 1}", "Pass the right num_classes=.")
        shares = np.full((len(labels), classes), transform.label_smoothing / classes, np.float32)
        shares[np.arange(len(labels)), labels] += 1 - transform.label_smoothing
    elif labels.shape[1:] == (classes,) and labels.dtype.kind == "f":
        shares = labels
    else:
        raise ArgumentError(
            f"{name} got labels of shape {labels.shape} and dtype {labels.dtype}",
            found=labels.shape,
            expected=f"integers (N,), or floats (N, {classes})",
            cure="Map a function that gives each sample one label.",
        )
    return _blended(shares, _column(kept, 2))


def _replaced(batch: Batch, images: _Part, mixed: Any, labels: _Part, soft: Any) -> Batch:
    return replaced(batch, {(images.key,): mixed, (labels.key,): soft})
