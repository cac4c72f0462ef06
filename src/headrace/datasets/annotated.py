"""The base of datasets whose samples are dicts of an image and its targets."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from headrace.context.timing import timed
from headrace.datasets.base import Dataset
from headrace.errors import BadAnnotation, SampleError
from headrace.image.decoder import decode_as
from headrace.interop.keys import place as place_of
from headrace.storage.files import RAISE, read_file
from headrace.storage.objects import local

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headrace.datasets.packed_list import PackedList
    from headrace.image.decoding import Decoding

FIX = 'Fix the annotation, or skip the sample with on_error="skip".'
MOST_OF_MASKS = 1 << 31
"""Bytes of the masks of one sample, so that a small file of annotations cannot fill the memory."""


def number_of(word: str) -> float:
    """Return the number that a word of a file gives: without underscores, and in plain digits.

    >>> number_of("0.5"), number_of("-1e3")
    (0.5, -1000.0)

    Raises ValueError for any other word.
    """
    if "_" in word or not word.isascii():  # which Python takes
        raise ValueError(f"{word!r} is no number")
    return float(word)


class AnnotatedImages(Dataset[dict[str, Any]]):
    """Images with targets: where the images are, and how one is read."""

    suits_threads = True

    def __init__(self, root: str, paths: PackedList, classes: Sequence[str], decoding: Decoding) -> None:
        self._root, self._paths, self._classes = local("root", root), paths, tuple(classes)
        self._base = os.path.abspath(root)  # noqa: PTH100  a worker may be in another folder
        self._decoding, self._warned = decoding, set[str]()

    @property
    def root(self) -> str:
        """The folder that the paths begin in."""
        return self._root

    @property
    def paths(self) -> PackedList:
        """The paths of the images, below `root`."""
        return self._paths

    @property
    def classes(self) -> list[str]:
        """The names of the classes, by label."""
        return list(self._classes)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read an image and its targets."""
        place = place_of(index, len(self._paths), "{} images")
        try:
            return self._sample(place)
        except SampleError as error:
            raise error.at(place) from error.__cause__

    def path(self, index: int) -> str:
        """Return the path of an image, ready to be opened."""
        place = place_of(index, len(self._paths), "{} images")
        return os.path.join(self._base, self._paths[place])  # noqa: PTH118  a Path costs several times as much

    def where(self, index: int) -> str:
        """Return the path of an image, for errors."""
        return self.path(index)

    def __repr__(self) -> str:
        classes = f" in {len(self._classes)} classes" if self._classes else ""
        return f"<{type(self).__name__} of {len(self)} images{classes}, {self._root}>"

    def _sample(self, place: int) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__qualname__} must define _sample(place)")

    def _read(self, path: str) -> bytes:
        with timed("read"):
            most = self._decoding.max_bytes
            return read_file(path, max_bytes=most, limit=f"{RAISE} with max_pixels= (3 bytes for each pixel)")

    def _image(self, place: int, size: tuple[int, int] | None = None) -> NDArray[Any]:
        """Read an image, whose annotations are for an image of this height and width."""
        path = self.path(place)
        return sized(self._read(path), path, self._decoding, self._warned, size)


def sized(data: bytes, path: str, decoding: Decoding, warned: set[str], size: tuple[int, int] | None) -> NDArray[Any]:
    """Decode an image; of its two orientations (as stored, or by EXIF) the one that has a size, the stored one first.

    Raises `BadAnnotation` where neither has it.
    """
    from dataclasses import replace

    with timed("decode"):
        if size is None:
            return decode_as(data, path, decoding, warned)
        pixels = decode_as(data, path, replace(decoding, oriented=False), warned)
        if pixels.shape[:2] != size and pixels.shape[1::-1] == size:
            pixels = decode_as(data, path, replace(decoding, oriented=True), warned)
    if pixels.shape[:2] != size:
        given = f"{pixels.shape[1]} x {pixels.shape[0]}"
        what = f"the image has {given} pixels, its annotations are for {size[1]} x {size[0]}"
        wrong(path, what, "annotations of this image")
    return pixels


def read_mask(path: str, decoding: Decoding, warned: set[str]) -> NDArray[Any]:
    """Read a mask ``(H, W)`` of integers as its file has them: indices of a palette stay indices."""
    from dataclasses import replace

    how = replace(decoding, mode="unchanged", oriented=False)
    with timed("read"):
        data = read_file(path, max_bytes=how.max_bytes)
    with timed("decode"):
        mask = decode_as(data, path, how, warned)
    if mask.ndim != 2 or mask.dtype.kind not in "bui":
        what = f"a mask of shape {mask.shape} and dtype {mask.dtype}"
        wrong(path, what, "an index for each pixel: a palette, or one channel of integers")
    return mask.astype(np.uint8) if mask.dtype.kind == "b" else mask


def wrong(path: str, what: str, expected: str, *, cure: str = FIX) -> NoReturn:
    """Raise the error for annotations that cannot be used."""
    raise BadAnnotation(what, path=path, expected=expected, cure=cure) from None


def stacked_masks(masks: list[NDArray[np.uint8]], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return masks as one array ``(N, H, W)``, which may be of none.

    >>> stacked_masks([], (2, 3)).shape
    (0, 2, 3)
    """
    return np.stack(masks) if masks else np.zeros((0, *size), np.uint8)


def check_masks(path: str, count: int, size: tuple[int, int]) -> None:
    """Refuse masks that would take more memory than a sample may."""
    if count * size[0] * size[1] > MOST_OF_MASKS:
        wrong(path, f"{count:,} masks of {size[1]} x {size[0]} pixels", f"masks of {MOST_OF_MASKS >> 30} GiB at most")
