"""Recognize datasets of torchvision's, and Hugging Face's with its transforms: what ``native=True`` does.

Neither is imported here. Only their own classes are recognized, and torch's ``Subset`` and ``ConcatDataset`` of them: a
subclass may change what a sample is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace._native import extension
from headrace.checks import kind_of, shown
from headrace.datasets.arrays import ArrayDataset
from headrace.datasets.combine import ConcatDataset
from headrace.datasets.followed import Followed, follow
from headrace.datasets.huggingface import from_huggingface
from headrace.datasets.huggingface_view import HuggingFaceView, OpenedRows
from headrace.datasets.subset import Indices, Subset
from headrace.datasets.torchvision_view import LoadedImages, TorchvisionView
from headrace.datasets.views import Mapped
from headrace.errors import HeadraceError
from headrace.image import fused
from headrace.image.decoding import Decoding
from headrace.interop import torch_state
from headrace.transforms.torchvision_chain import name_of
from headrace.transforms.torchvision_transforms import Translation, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from headrace.datasets.base import Dataset

FILES = {"DatasetFolder": "samples", "ImageFolder": "samples", "Imagenette": "_samples"}
"""The classes whose samples are files, and where each keeps its list of (path, label)."""
ARRAYS = ("CIFAR10", "CIFAR100", "EMNIST", "FashionMNIST", "KMNIST", "MNIST", "QMNIST")
"""The classes that hold their images as ``data`` and their labels as ``targets``."""
JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
LOOKED_AT = 1000
"""How many names of files say whether a folder is one of JPEG files."""
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
"""The dtypes of the columns of Hugging Face's that the native extension reads beside an image."""
DECODING = Decoding(oriented=False)
"""torchvision applies no EXIF orientation."""


@dataclass(frozen=True, slots=True)
class Found:
    """A dataset, examined: what reads it by the native extension, or why nothing does."""

    name: str
    plan: Part | None
    refusal: str = ""
    """Why it is read as on torch; empty where the native extension reads it."""
    steps: tuple[tuple[str, str], ...] = ()
    """The transforms of the first of its datasets: the name of each, and why it is not recognized or not fused."""

    def __str__(self) -> str:
        head = f"{self.name}: with native=True in DataLoader, "
        unfused = next((name for name, why in self.steps if why), "")
        if self.refusal:
            head += f"sample by sample as on torch: {self.refusal}"
        else:
            head += f"fused before {unfused}, from there headrace's own, step by step" if unfused else "all fused"
        width = max((len(name) for name, _ in self.steps), default=0)
        good, bad = ("recognized", "step by step: it ") if self.refusal else ("fused", "step by step: ")
        rows = [f"  {name:{width}}  {bad + why if why else good}" for name, why in self.steps]
        return "\n".join([head, *rows])


@dataclass(frozen=True, slots=True)
class Held:
    """An object that is the same as another one only if it is that one."""

    thing: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and self.thing is other.thing

    def __hash__(self) -> int:
        return id(self.thing)


@dataclass(frozen=True, slots=True)
class FilesPart:
    """A dataset of files: ``samples`` is the list of (path, label) that the dataset itself holds."""

    samples: list[tuple[str, int]]
    loader: Callable[[str], Any]
    translation: Translation
    target_transform: Held

    def kept(self) -> FilesPart:
        """Return it with a list of its own, which shows later whether the dataset's has changed."""
        return replace(self, samples=list(self.samples))

    def built(self, collate: Callable[..., Any]) -> Dataset[Any]:
        """Make the dataset of ours."""
        labels = np.fromiter((index(label) for _, label in self.samples), np.int64, len(self.samples))
        base = LoadedImages([path for path, _ in self.samples], labels, self.loader, DECODING)
        return TorchvisionView(Mapped(base, *self.translation.transforms), self.target_transform.thing, collate)


@dataclass(frozen=True, slots=True)
class ArraysPart:
    """A dataset of arrays: ``labels`` is a list, or the tensor or array that the dataset itself holds."""

    images: Held
    labels: list[Any] | Held
    translation: Translation
    target_transform: Held

    def kept(self) -> ArraysPart:
        """Return it with a list of its own."""
        return replace(self, labels=list(self.labels)) if isinstance(self.labels, list) else self

    def built(self, collate: Callable[..., Any]) -> Dataset[Any]:
        """Make the dataset of ours: pixels and labels are shared where they lie as the native extension reads them."""
        images = np.ascontiguousarray(self.images.thing)
        base = ArrayDataset(images, _labels(self.labels))
        return TorchvisionView(Mapped(base, *self.translation.transforms), self.target_transform.thing, collate)


@dataclass(frozen=True, slots=True)
class SubsetPart:
    """The samples of a dataset at some indices."""

    part: Part
    indices: Any

    def kept(self) -> SubsetPart:
        """Return it with a list of its own."""
        indices = list(self.indices) if isinstance(self.indices, list) else self.indices
        return SubsetPart(self.part.kept(), indices)

    def built(self, collate: Callable[..., Any]) -> Dataset[Any]:
        """Make the dataset of ours."""
        indices = self.indices.thing if isinstance(self.indices, Held) else self.indices
        return Subset(self.part.built(collate), Indices(_integers(indices)))


@dataclass(frozen=True, slots=True)
class ConcatPart:
    """Datasets end to end."""

    parts: tuple[Part, ...]

    def kept(self) -> ConcatPart:
        """Return it with lists of its own."""
        return ConcatPart(tuple(part.kept() for part in self.parts))

    def built(self, collate: Callable[..., Any]) -> Dataset[Any]:
        """Make the dataset of ours."""
        return ConcatDataset([part.built(collate) for part in self.parts])


@dataclass(frozen=True, slots=True)
class HuggingFacePart:
    """A `datasets.Dataset` with a function that applies a transform to its images."""

    dataset: Held
    function: Held
    followed: Followed
    translation: Translation

    def kept(self) -> HuggingFacePart:
        """Return itself: such a dataset does not change, but for its function."""
        return self

    def built(self, collate: Callable[..., Any]) -> Dataset[Any]:  # noqa: ARG002  every column is read by headrace
        """Make the dataset of ours."""
        bare = self.dataset.thing.with_format(None)
        plain = from_huggingface(bare)
        followed = self.followed
        beside = list(dict.fromkeys(column for _, column in followed.names if column is not None))
        other = next((column for column in beside if not plain.is_integer(column)), None)
        if other is not None:
            raise TypeError(f"not every value of its column {other!r} is an integer")
        opened = bare.select_columns([followed.image, *beside])
        rows = OpenedRows(plain.tuple(followed.image, *beside), opened, followed.image, beside)
        images: Mapped[Any] = Mapped(rows, *self.translation.transforms)
        return HuggingFaceView(
            images, [(name, 0 if column is None else 1 + beside.index(column)) for name, column in followed.names]
        )


Part = FilesPart | ArraysPart | SubsetPart | ConcatPart | HuggingFacePart


def examined(dataset: Any) -> Found | None:
    """Examine a dataset of torchvision's, or one of torch's over some; None for any other.

    >>> examined([1, 2, 3]) is None
    True
    """
    theirs = torch_state.data_module()
    if theirs is not None:
        kind = type(dataset)
        if kind is theirs.Subset:
            inside = examined(dataset.dataset)
            return None if inside is None else _subset(dataset, inside)
        if kind is theirs.ConcatDataset:
            parts = [examined(part) for part in dataset.datasets]
            found = [part for part in parts if part is not None]
            return _concat(dataset, found) if found else None
    if (type(dataset).__module__, type(dataset).__name__) == ("datasets.arrow_dataset", "Dataset"):
        return _huggingface(dataset)
    if not any(str(kind.__module__).startswith("torchvision.datasets") for kind in type(dataset).__mro__):
        return None
    return _leaf(dataset)


class NativeReading:
    """A dataset of torchvision's as the native extension reads it, examined again as each loop begins.

    ``collate`` puts what a ``target_transform`` returns together. The dataset may get other transforms, files or labels
    between two loops: they count, as on torch.
    """

    def __init__(self, dataset: Any, collate: Callable[..., Any]) -> None:
        self._dataset = dataset
        self._collate = collate
        self._kept: Part | None = None
        self._built: Dataset[Any] | None = None

    def current(self) -> tuple[Dataset[Any] | None, str]:
        """Return the dataset to read in place of the user's, or None, and why there is none."""
        found = examined(self._dataset)
        if found is None:
            known = "torchvision, nor one of Hugging Face with images, nor one of headrace that is fused"
            return None, f"{kind_of(self._dataset)} is not a dataset of {known}"
        if found.plan is None:
            return None, f"{found.name}: {found.refusal}"
        if self._built is None or self._kept != found.plan:
            try:
                self._kept, self._built = found.plan.kept(), found.plan.built(self._collate)
            except (HeadraceError, OverflowError, TypeError, ValueError) as error:  # of one label or path of millions
                return None, f"{found.name}: {error}"
        return self._built, ""


def _subset(dataset: Any, inside: Found) -> Found:
    name = f"Subset of {inside.name}"
    if inside.plan is None:
        return replace(inside, name=name)
    try:
        numbers = _integers(dataset.indices)
    except (TypeError, ValueError) as error:
        return Found(name, None, f"its indices are not whole numbers: {error}", inside.steps)
    size = len(dataset.dataset)
    if numbers.size and not -size <= numbers.min() <= numbers.max() < size:
        return Found(name, None, f"an index is not one of its {size} samples", inside.steps)
    indices = dataset.indices if isinstance(dataset.indices, list | range) else Held(dataset.indices)
    return Found(name, SubsetPart(inside.plan, indices), "", inside.steps)


def _concat(dataset: Any, found: Sequence[Found]) -> Found:
    name = f"ConcatDataset of {', '.join(dict.fromkeys(part.name for part in found))}"
    bad = next((part for part in found if part.plan is None), None)
    if bad is not None:
        return Found(name, None, bad.refusal, bad.steps)
    if len(found) < len(dataset.datasets):
        return Found(name, None, "some of its datasets are not torchvision's", found[0].steps)
    return Found(name, ConcatPart(tuple(part.plan for part in found if part.plan is not None)), "", found[0].steps)


def _leaf(dataset: Any) -> Found:
    name = type(dataset).__name__
    datasets = torch_state.torchvision_module("datasets")
    known = {getattr(datasets, one, None): one for one in (*FILES, *ARRAYS)}
    if type(dataset) not in known:
        bases = [kind.__name__ for kind in type(dataset).__mro__ if kind in known]
        why = f"a subclass of {bases[0]} may change what a sample is" if bases else "this dataset is not recognized"
        return Found(name, None, why)
    if not str(type(dataset).__getitem__.__module__).startswith("torchvision."):
        return Found(name, None, "its __getitem__ was replaced")
    if extension is None:
        return Found(name, None, "the native extension was not built (headrace doctor)")
    translation = translated(dataset.transform)
    why = translation.refusal or (_unread_files(dataset) if name in FILES else _unread_arrays(dataset))
    steps = translation.parts
    if not why:
        shape = None if name in FILES else tuple(np.asarray(dataset.data[:1]).shape[1:])
        why, steps = _fused(translation, shape, oriented=DECODING.oriented)
    target_transform = Held(dataset.target_transform)
    if why:
        return Found(name, None, why, steps)
    if name in FILES:
        part: Part = FilesPart(getattr(dataset, FILES[name]), dataset.loader, translation, target_transform)
    else:
        labels = dataset.targets if isinstance(dataset.targets, list) else Held(dataset.targets)
        part = ArraysPart(Held(dataset.data), labels, translation, target_transform)
    return Found(name, part, "", steps)


def _fused(
    translation: Translation, shape: tuple[int, ...] | None, *, oriented: bool
) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return why the native extension does nothing of a chain, or "" where it begins it; and what it does not do."""
    plan = fused.plan(translation.transforms, image_shape=shape, oriented=oriented)
    unfused = {place: why for place, why in zip(translation.places, plan.why, strict=True) if why}
    steps = tuple((name, unfused.get(place, "")) for place, (name, _) in enumerate(translation.parts))
    if plan.fused:
        return "", steps
    at = min(unfused, default=0)
    return f"{translation.parts[at][0]}: {unfused[at]}", translation.parts


def _huggingface(dataset: Any) -> Found | None:
    """Examine a dataset of Hugging Face's; None for one without images."""
    images = [name for name, feature in dataset.features.items() if type(feature).__name__ == "Image"]
    if not images:
        return None
    name, form = "Dataset", dataset.format
    function = form["format_kwargs"].get("transform") if form["type"] == "custom" else None
    if function is None:
        return Found(name, None, "it has no transform: use with_transform, with a transform of torchvision's")
    if form.get("output_all_columns"):
        return Found(name, None, "output_all_columns=True adds columns that the transform does not see")
    found = follow(function, form["columns"], [one for one in images if dataset.features[one].decode])
    if isinstance(found, str):
        return Found(name, None, found)
    own = dataset.features[found.image].mode
    if (found.mode or own) != "RGB":
        return Found(name, None, f"it does not convert {found.image!r} to RGB")
    if own not in (None, "RGB"):
        return Found(name, None, f"its column {found.image!r} converts images to {own}")
    kinds = {column: getattr(dataset.features[column], "dtype", "") for _, column in found.names if column is not None}
    other = next((column for column, dtype in kinds.items() if dtype not in INTEGERS), None)
    if other is not None:
        return Found(name, None, f"its column {other!r} holds {kinds[other] or 'no integers'}, and not integers")
    if extension is None:
        return Found(name, None, "the native extension was not built (headrace doctor)")
    translation = translated(found.transform)
    why, steps = translation.refusal, translation.parts
    if not why:
        why, steps = _fused(translation, None, oriented=True)
    if why:
        return Found(name, None, why, steps)
    return Found(name, HuggingFacePart(Held(dataset), Held(function), found, translation), "", steps)


def _unread_files(dataset: Any) -> str:
    """Say why the native extension does not read a dataset of files; empty where it does."""
    folder = torch_state.torchvision_module("datasets.folder")
    loader = getattr(dataset, "loader", None)
    if loader not in (folder.default_loader, folder.pil_loader):
        return f"its loader is {name_of(loader)}, and not torchvision's default_loader"
    backend = torch_state.torchvision_module().get_image_backend()
    if backend != "PIL":
        return f"torchvision reads images by {backend}"
    samples = getattr(dataset, FILES[type(dataset).__name__])
    if not isinstance(samples, list) or not samples:
        return "it has no list of samples"
    looked_at = samples[:: max(1, len(samples) // LOOKED_AT)]
    odd = next((one for one in looked_at if not _is_sample(one)), None)
    if odd is not None:
        return f"its samples are not all (path, label): {shown(odd)}"
    others = [path for path, _ in looked_at if not path.lower().endswith(JPEG)]
    if len(others) * 2 > len(looked_at):
        return f"most of its files are not JPEG, such as {os.path.basename(others[0])}"  # noqa: PTH119
    return ""


def _is_sample(sample: Any) -> bool:
    if not isinstance(sample, tuple) or len(sample) != 2:
        return False
    return isinstance(sample[0], str) and isinstance(sample[1], int)


def _unread_arrays(dataset: Any) -> str:
    """Say why the native extension does not read a dataset of arrays; empty where it does."""
    if not getattr(dataset, "compat", True):
        return "compat=False gives labels of eight numbers"
    try:
        first = np.asarray(dataset.data[:1])
        labels = _labels(dataset.targets[:1] if isinstance(dataset.targets, list) else Held(dataset.targets))
    except (TypeError, ValueError, RuntimeError) as error:
        return f"its data are no arrays: {error}"
    gray = type(dataset).__name__.endswith("MNIST")
    if first.dtype != np.uint8 or first.ndim != (3 if gray else 4) or (not gray and first.shape[3] != 3):
        return f"its images are {first.dtype} of shape {first.shape[1:]}"
    if len(dataset.targets) != len(dataset.data):
        return f"it has {len(dataset.data)} images and {len(dataset.targets)} targets"
    if labels.dtype != np.int64 or labels.ndim != 1:
        return f"its labels are {labels.dtype} of shape {labels.shape[1:]}"
    return ""


def _labels(labels: list[Any] | Held) -> NDArray[Any]:
    """Return labels as an array: QMNIST keeps the class in the first of eight columns."""
    given = np.asarray(labels if isinstance(labels, list) else labels.thing)
    return given[:, 0] if given.ndim == 2 else given


def _integers(indices: Any) -> NDArray[np.int64]:
    numbers = np.asarray(indices)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise TypeError(f"{numbers.dtype} of shape {numbers.shape}")
    return numbers.astype(np.int64, copy=False)
