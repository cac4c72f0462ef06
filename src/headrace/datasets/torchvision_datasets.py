"""Recognize datasets of torchvision's, and Hugging Face's with its transforms: what ``native=True`` does.

Neither is imported here. Only their own classes are recognized (`torchvision_layouts` lists those of torchvision), and
torch's ``Subset`` and ``ConcatDataset`` of them: a subclass may change what a sample is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from operator import index
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace._native import extension
from headrace.checks import kind_of, shown
from headrace.datasets.arrays import ArrayDataset
from headrace.datasets.combine import ConcatDataset
from headrace.datasets.followed import Followed, follow
from headrace.datasets.huggingface import from_huggingface
from headrace.datasets.huggingface_view import HuggingFaceView, OpenedRows
from headrace.datasets.packed_list import PackedList
from headrace.datasets.subset import Indices, Subset
from headrace.datasets.torchvision_fake import FakeImages, ItemTarget, in_memory
from headrace.datasets.torchvision_layouts import ARRAYS, FILES, REFUSED, ArrayLayout, FileLayout
from headrace.datasets.torchvision_view import LoadedImages, TorchvisionView
from headrace.datasets.views import Mapped
from headrace.errors import HeadraceError
from headrace.image import fused
from headrace.image.decoder import READS_PNG
from headrace.image.decoding import Decoding
from headrace.interop import torch_state
from headrace.transforms.torchvision_chain import name_of
from headrace.transforms.torchvision_transforms import Translation, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from headrace.datasets.base import Dataset

FAKE = "FakeData"
"""The class that draws its images."""
JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
READ = (*JPEG, ".ppm", *((".png",) if READS_PNG else ()))
"""How the names of the files end that the native extension decodes."""
LOOKED_AT = 1000
"""How many names of files say whether a folder is one of JPEG files."""
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
"""The dtypes of the columns of Hugging Face's that the native extension reads beside an image."""
OTHERS = ("bool", "float16", "float32", "float64", "large_string", "string")
"""The dtypes of those that are read row by row."""
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
    """A dataset of files: ``held`` is what the dataset itself holds of paths and labels."""

    layout: FileLayout
    held: tuple[Any, ...]
    opened: Callable[[str], Any]
    translation: Translation
    target_transform: Held

    def kept(self) -> FilesPart:
        """Return it with lists of its own, which show later whether the dataset's have changed."""
        return replace(self, held=tuple(list(one) if isinstance(one, list) else one for one in self.held))

    def some(self, most: int) -> FilesPart:
        """Return the same for at most about this many of the samples."""
        return replace(self, held=self.layout.some(self.held, max(1, len(self.held[0]) // most)))

    def built(self, collate: Callable[..., Any]) -> Dataset[Any]:
        """Make the dataset of ours."""
        labels = np.empty(len(self.held[0]), np.int64)

        def paths() -> Iterator[str]:
            for place, (path, label) in enumerate(self.layout.pairs(*self.held)):
                labels[place] = index(label)
                yield os.fspath(path)

        base = LoadedImages(PackedList(paths()), labels, self.opened, DECODING)
        return TorchvisionView(Mapped(base, *self.translation.transforms), self.target_transform.thing, collate)


@dataclass(frozen=True, slots=True)
class ArraysPart:
    """A dataset of arrays: ``labels`` is a list, or the tensor or array that the dataset itself holds."""

    layout: ArrayLayout
    images: Held
    labels: list[Any] | Held
    translation: Translation
    target_transform: Held

    def kept(self) -> ArraysPart:
        """Return it with a list of its own."""
        return replace(self, labels=list(self.labels)) if isinstance(self.labels, list) else self

    def built(self, collate: Callable[..., Any]) -> Dataset[Any]:
        """Make the dataset of ours: pixels and labels are shared where they lie as the native extension reads them."""
        images = np.ascontiguousarray(_lines(np.asarray(self.images.thing), self.layout))
        labels = _labels(self.labels).astype(np.int64, copy=False)
        base = ArrayDataset(images, labels)
        return TorchvisionView(Mapped(base, *self.translation.transforms), self.target_transform.thing, collate)


@dataclass(frozen=True, slots=True)
class FakePart:
    """A `FakeData`: its size, the shape of an image, the number of classes, and the offset of the seeds."""

    numbers: tuple[int, tuple[int, int, int], int, int]
    translation: Translation
    target_transform: Held

    def kept(self) -> FakePart:
        """Return itself."""
        return self

    def built(self, collate: Callable[..., Any]) -> Dataset[Any]:
        """Make the dataset of ours."""
        function = self.target_transform.thing
        target = None if function is None else ItemTarget(function)
        images: Mapped[Any] = Mapped(FakeImages(*self.numbers), *self.translation.transforms)
        return TorchvisionView(images, target, collate)


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

    def built(self, collate: Callable[..., Any]) -> Dataset[Any]:
        """Make the dataset of ours."""
        theirs, followed = self.dataset.thing.with_format(None), self.followed
        plain = from_huggingface(theirs)
        columns = list(dict.fromkeys(column for _, column in followed.names if column is not None))
        others = [column for column in columns if theirs.features[column].dtype in OTHERS]
        beside = [column for column in columns if column not in others]
        odd = next((column for column in beside if not plain.is_integer(column)), None)
        if odd is not None:
            raise TypeError(f"not every value of its column {odd!r} is an integer")
        opened = theirs.select_columns([followed.image, *beside])
        rows = OpenedRows(plain.tuple(followed.image, *beside), opened, followed.image, beside)
        images: Mapped[Any] = Mapped(rows, *self.translation.transforms)
        places: dict[str | None, int | str] = {None: 0, **{column: column for column in others}}
        places |= {column: place for place, column in enumerate(beside, 1)}
        values = from_huggingface(theirs, fields=others) if others else None
        return HuggingFaceView(images, [(name, places[column]) for name, column in followed.names], values, collate)


Part = FilesPart | ArraysPart | FakePart | SubsetPart | ConcatPart | HuggingFacePart


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
    if isinstance(inside.plan, FakePart) and numbers.size and numbers.min() < 0:
        return Found(name, None, "FakeData has images of its own for negative indices", inside.steps)
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
    known = {getattr(datasets, one, None): one for one in (*FILES, *ARRAYS, FAKE)}
    if type(dataset) not in known:
        bases = [kind.__name__ for kind in type(dataset).__mro__ if kind in known]
        why = f"a subclass of {bases[0]} may change what a sample is" if bases else "this dataset is not recognized"
        if type(dataset) is getattr(datasets, name, None) and name in REFUSED:
            why = f"it {REFUSED[name]}"
        return Found(name, None, why)
    if not str(type(dataset).__getitem__.__module__).startswith("torchvision."):
        return Found(name, None, "its __getitem__ was replaced")
    if extension is None:
        return Found(name, None, "the native extension was not built (headrace doctor)")
    applied = dataset.transforms if name in FILES and FILES[name].joint else dataset
    if applied is not dataset and applied is not None and type(applied) is not _standard_transform():
        return Found(name, None, f"its transforms is {name_of(applied)}, which gets image and target")
    translation = translated(getattr(applied, "transform", None))
    target_transform = getattr(applied, "target_transform", None)
    why = translation.refusal
    if not why and target_transform is not None and not target_transform:
        why = f"bool() of its target_transform, {name_of(target_transform)}, is False"
    if why:
        return Found(name, None, why, translation.parts)
    part = _part(name, dataset, translation, Held(target_transform))
    if isinstance(part, str):
        return Found(name, None, part, translation.parts)
    why, steps = _fused(translation, _image_shape(part), oriented=DECODING.oriented)
    return Found(name, None if why else part, why, steps)


def _standard_transform() -> Any:
    return getattr(torch_state.torchvision_module("datasets.vision"), "StandardTransform", None)


def _part(name: str, dataset: Any, translation: Translation, target: Held) -> FilesPart | ArraysPart | FakePart | str:
    """Return how a dataset of one of the classes is read, or why it is not."""
    if name == FAKE:
        return _fake_part(dataset, translation, target)
    return (_files_part if name in FILES else _arrays_part)(name, dataset, translation, target)


def _image_shape(part: FilesPart | ArraysPart | FakePart) -> tuple[int, ...] | None:
    """Return the shape of each image; None where each has its own."""
    if isinstance(part, FilesPart):
        return None
    if isinstance(part, ArraysPart):
        return _lines(np.asarray(part.images.thing[:1]), part.layout).shape[1:]
    return in_memory(part.numbers[1])


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
    other = next((column for column, dtype in kinds.items() if dtype not in (*INTEGERS, *OTHERS)), None)
    if other is not None:
        return Found(
            name, None, f"its column {other!r} holds {kinds[other] or 'no numbers'}, not integers, floats or text"
        )
    if extension is None:
        return Found(name, None, "the native extension was not built (headrace doctor)")
    translation = translated(found.transform)
    why, steps = translation.refusal, translation.parts
    if not why:
        why, steps = _fused(translation, None, oriented=True)
    if why:
        return Found(name, None, why, steps)
    return Found(name, HuggingFacePart(Held(dataset), Held(function), found, translation), "", steps)


def _files_part(name: str, dataset: Any, translation: Translation, target: Held) -> FilesPart | str:
    folder, layout = torch_state.torchvision_module("datasets.folder"), FILES[name]
    loader = folder.pil_loader if layout.loader is None else getattr(dataset, layout.loader, None)
    if loader is None and layout.without:
        return f"it {layout.without}; give it loader=torchvision.datasets.folder.default_loader"
    if loader not in (folder.default_loader, folder.pil_loader):
        return f"its loader is {name_of(loader)}, and not torchvision's default_loader"
    backend = torch_state.torchvision_module().get_image_backend()
    if backend != "PIL" and layout.loader is not None:
        return f"torchvision reads images by {backend}"
    refusal = layout.refusal(dataset)
    if refusal:
        return refusal
    held = layout.held(dataset)
    if not held[0] or not all(isinstance(one, list) for one in held[: layout.each]):
        return "it has no list of samples"
    part = FilesPart(layout, held, loader, translation, target)
    return _unread_files(part) or part


def _unread_files(part: FilesPart) -> str:
    """Say why the native extension does not read some files; empty where it does."""
    try:
        looked_at = list(part.layout.pairs(*part.some(LOOKED_AT).held))
    except (TypeError, ValueError, LookupError) as error:
        return f"its lists do not give paths and labels: {error}"
    odd = next((one for one in looked_at if not _is_sample(one)), None)
    if odd is not None:
        return f"its samples are not all (path, label): {shown(odd)}"
    names = [os.fspath(path) for path, _ in looked_at]
    others = [path for path in names if not path.lower().endswith(READ)]
    if len(others) * 2 > len(looked_at):
        formats = "JPEG, PNG or PPM" if READS_PNG else "JPEG or PPM"
        return f"most of its files are not {formats}, such as {os.path.basename(others[0])}"  # noqa: PTH119
    return ""


def _is_sample(sample: Any) -> bool:
    if not isinstance(sample, tuple) or len(sample) != 2:
        return False
    return isinstance(sample[0], str | PurePath) and isinstance(sample[1], int) and not isinstance(sample[1], bool)


def _arrays_part(name: str, dataset: Any, translation: Translation, target: Held) -> ArraysPart | str:
    layout = ARRAYS[name]
    found = getattr(dataset, layout.labels, None)
    if not getattr(dataset, "compat", True):
        return "compat=False gives labels of eight numbers"
    if found is None:
        return "it has no labels"
    listed = found if isinstance(found, list) else Held(found)
    try:
        first = _lines(np.asarray(dataset.data[:1]), layout)
        labels = _labels(listed[:1] if isinstance(listed, list) else listed)
        if len(found) != len(dataset.data):
            return f"it has {len(dataset.data)} images and {len(found)} {layout.labels}"
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        return f"its data are no arrays: {error}"
    if first.dtype != np.uint8 or first.ndim != (3 if layout.gray else 4) or (not layout.gray and first.shape[3] != 3):
        return f"its images are {first.dtype} of shape {np.shape(dataset.data)[1:]}"
    if labels.ndim != 1 or (labels.dtype.kind not in "iu" if layout.whole else labels.dtype != np.int64):
        return f"its labels are {labels.dtype} of shape {labels.shape[1:]}"
    return ArraysPart(layout, Held(dataset.data), listed, translation, target)


def _lines(images: NDArray[Any], layout: ArrayLayout) -> NDArray[Any]:
    """Return images with their channels last."""
    return images.transpose(0, 2, 3, 1) if layout.planes and images.ndim == 4 else images


def _fake_part(dataset: Any, translation: Translation, target: Held) -> FakePart | str:
    size, shape = dataset.size, dataset.image_size
    try:
        numbers = index(size), tuple(map(index, shape)), index(dataset.num_classes), index(dataset.random_offset)
    except TypeError as error:
        return f"its numbers are not whole: {error}"
    channels, *sides = numbers[1] if len(numbers[1]) == 3 else (0, 0, 0)
    if channels not in (1, 3) or min(sides) < 1 or numbers[0] < 1 or numbers[2] < 1:
        return f"it has {size} images of shape {shape} in {dataset.num_classes} classes"
    return FakePart((numbers[0], (channels, sides[0], sides[1]), *numbers[2:]), translation, target)


def _labels(labels: list[Any] | Held) -> NDArray[Any]:
    """Return labels as an array: QMNIST keeps the class in the first of eight columns."""
    given = np.asarray(labels if isinstance(labels, list) else labels.thing)
    return given[:, 0] if given.ndim == 2 else given


def _integers(indices: Any) -> NDArray[np.int64]:
    numbers = np.asarray(indices)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise TypeError(f"{numbers.dtype} of shape {numbers.shape}")
    return numbers.astype(np.int64, copy=False)
