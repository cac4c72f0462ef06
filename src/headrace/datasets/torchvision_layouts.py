"""Where datasets of torchvision's keep their samples: one line for each class that ``native=True`` recognizes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Pairs = Iterable[tuple[Any, Any]]


def _itself(samples: Sequence[tuple[Any, Any]]) -> Pairs:
    return samples


def _aligned(paths: Sequence[Any], labels: Sequence[Any]) -> Pairs:
    return zip(paths, labels, strict=True)


def _pets(paths: Sequence[Any], breeds: Sequence[Any], animals: Sequence[Any], kinds: Sequence[str]) -> Pairs:
    return zip(paths, breeds if kinds[0] == "category" else animals, strict=True)


def _species(index: Sequence[tuple[int, str]], root: str, folders: Any, levels: Any, kinds: Sequence[str]) -> Pairs:
    level = kinds[0]
    for number, name in index:
        label = number if level == "full" else levels[number][level]
        yield os.path.join(root, folders[number], name), label  # noqa: PTH118  as torchvision joins them


def _characters(images: Sequence[tuple[str, int]], folder: str, characters: Sequence[str]) -> Pairs:
    for name, number in images:
        yield os.path.join(folder, characters[number], name), number  # noqa: PTH118  as torchvision joins them


@dataclass(frozen=True, slots=True)
class FileLayout:
    """How a class holds image files and their labels."""

    holds: tuple[str, ...]
    """Its attributes that say where the files are and what their labels are."""
    pairs: Callable[..., Pairs] = _itself
    """Makes (path, label) of what these attributes hold."""
    each: int = 1
    """How many of them, the first ones, have an entry for each sample."""
    loader: str | None = "loader"
    """The attribute of what opens a file; None where the class itself does, and converts to RGB."""
    without: str = ""
    """What the class does where it has no loader."""
    joint: bool = False
    """Whether it applies what it was constructed with, its ``transforms``, and not the attribute ``transform``."""
    kinds: str = ""
    """The attribute that lists the kinds of targets. A dataset with several of them is not read."""
    numbers: tuple[str, ...] | None = None
    """Those kinds that are whole numbers; None for all."""

    def refusal(self, dataset: Any) -> str:
        """Say which kinds of targets are not read; empty for others."""
        kinds = list(getattr(dataset, self.kinds, ())) if self.kinds else []
        if self.kinds and (len(kinds) != 1 or (self.numbers is not None and kinds[0] not in self.numbers)):
            return f"its targets are {', '.join(map(str, kinds)) or 'none'}"
        return ""

    def held(self, dataset: Any) -> tuple[Any, ...]:
        """Return what the attributes hold, None for one that another version of torchvision does not have."""
        return tuple(getattr(dataset, name, None) for name in self.holds)

    def some(self, held: tuple[Any, ...], step: int) -> tuple[Any, ...]:
        """Return the same for each ``step``-th sample."""
        return (*(one[::step] for one in held[: self.each]), *held[self.each :])


_UNCONVERTED = "opens images without converting them to RGB"
_GRAY = "converts images to gray"
_SAMPLES = FileLayout(("samples",))
_PRIVATE = FileLayout(("_samples",))
_LISTS = FileLayout(("_image_files", "_labels"), _aligned, 2)

FILES = {
    "CLEVRClassification": _LISTS,
    "Country211": _SAMPLES,
    "DTD": _LISTS,
    "DatasetFolder": _SAMPLES,
    "EuroSAT": _SAMPLES,
    "FGVCAircraft": _LISTS,
    "Flowers102": _LISTS,
    "Food101": _LISTS,
    "GTSRB": FileLayout(("_samples",), loader=None),
    "INaturalist": FileLayout(
        ("index", "root", "all_categories", "categories_map", "target_type"),
        _species,
        without=_UNCONVERTED,
        kinds="target_type",
    ),
    "ImageFolder": _SAMPLES,
    "ImageNet": _SAMPLES,
    "Imagenette": _PRIVATE,
    "LFWPeople": FileLayout(("data", "targets"), _aligned, 2, loader="_loader"),
    "Omniglot": FileLayout(("_flat_character_images", "target_folder", "_characters"), _characters, without=_GRAY),
    "OxfordIIITPet": FileLayout(
        ("_images", "_labels", "_bin_labels", "_target_types"),
        _pets,
        3,
        loader=None,
        joint=True,
        kinds="_target_types",
        numbers=("category", "binary-category"),
    ),
    "Places365": FileLayout(("imgs",), joint=True),
    "RenderedSST2": _PRIVATE,
    "SUN397": _LISTS,
    "StanfordCars": _PRIVATE,
}
"""The classes whose samples are files that are opened, converted to RGB and transformed."""


@dataclass(frozen=True, slots=True)
class ArrayLayout:
    """How a class holds its images, as ``data``, and their labels."""

    labels: str = "targets"
    gray: bool = False
    planes: bool = False
    """Whether the channels of an image come before its rows."""
    whole: bool = True
    """Whether each label becomes a Python integer, whatever dtype they have."""


_MNIST = ArrayLayout(gray=True)
_CIFAR = ArrayLayout(whole=False)
_PLANES = ArrayLayout("labels", planes=True)

ARRAYS = {
    "CIFAR10": _CIFAR,
    "CIFAR100": _CIFAR,
    "EMNIST": _MNIST,
    "FashionMNIST": _MNIST,
    "KMNIST": _MNIST,
    "MNIST": _MNIST,
    "QMNIST": _MNIST,
    "SEMEION": ArrayLayout("labels", gray=True),
    "STL10": _PLANES,
    "SVHN": _PLANES,
    "USPS": _MNIST,
}
"""The classes that hold their images as one array."""

REFUSED = {
    "Caltech101": _UNCONVERTED,
    "Caltech256": _UNCONVERTED,
    "CelebA": _UNCONVERTED,
    "LFWPairs": "gives two images a sample",
    "PCAM": "reads an HDF5 file",
    "Flickr30k": "gives lists of captions",
    "Flickr8k": "gives lists of captions",
    "SBU": "gives captions",
}
"""What other classes do that is not read."""
