"""The base of datasets whose samples are dicts of an image and its targets."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from headrace.context.timing import timed
from headrace.datasets.base import Dataset
from headrace.datasets.object_images import Urls, facts_of, has_urls, refuse_listing
from headrace.datasets.packed_list import PackedList
from headrace.datasets.protocol import rows_of
from headrace.errors import BadAnnotation, SampleError
from headrace.image.decoder import decode_as
from headrace.interop.keys import place as place_of
from headrace.storage.files import RAISE, read_file
from headrace.storage.object_spans import ObjectSpans, fetch
from headrace.storage.objects import absolute, is_url, joined

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

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
    """Images with targets: where the files of a sample are, and how one is read.

    Of files behind URLs, size and version are asked for here, unless ``listing`` names a file that has them, or
    ``facts`` are given: (n, 2), of all files of the first sample, then of the second.
    """

    suits_threads = True

    def __init__(
        self,
        root: str,
        paths: PackedList,
        classes: Sequence[str],
        decoding: Decoding,
        listing: str | os.PathLike[str] | None = None,
        facts: NDArray[np.int64] | None = None,
    ) -> None:
        self._root, self._paths, self._classes = root, paths, tuple(classes)
        self._base = absolute(root)  # a worker may be in another folder
        self._decoding, self._warned = decoding, set[str]()
        first = self._files(0) if len(paths) else ()
        self._each, self._facts, self._urls = len(first), facts, Urls(self._base, paths)
        if facts is not None or is_url(root) or has_urls(paths) or any(map(is_url, first)):
            names = PackedList(chain.from_iterable(map(self._files, range(len(paths)))))
            self._urls = Urls(self._base, names)
            self._facts = facts_of(self._base, names, listing) if facts is None else facts
        else:
            refuse_listing(listing)

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

    @property
    def reads_many(self) -> bool:
        """Whether reading many samples at once is better than one by one: of files behind URLs."""
        return self._facts is not None

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Read many samples; files behind URLs are fetched by several requests at once."""
        fetch(self.object_spans(indices))
        return [self[index] for index in indices]

    def object_spans(self, keys: Sequence[Any]) -> list[ObjectSpans]:
        """Return which objects behind URLs the files of these samples are."""
        if self._facts is None:
            return []
        rows = rows_of(keys, len(self))
        file = (rows[:, None] * self._each + np.arange(self._each)).ravel()
        return [ObjectSpans(self._urls, self._facts, file, np.zeros_like(file), self._facts[file, 0])]

    def path(self, index: int) -> str:
        """Return the path of an image, ready to be opened."""
        return self._path(place_of(index, len(self._paths), "{} images"))

    def where(self, index: int) -> str:
        """Return the path of an image, for errors."""
        return self.path(index)

    def __repr__(self) -> str:
        classes = f" in {len(self._classes)} classes" if self._classes else ""
        return f"<{type(self).__name__} of {len(self)} images{classes}, {self._root}>"

    def _sample(self, place: int) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__qualname__} must define _sample(place)")

    def _files(self, place: int) -> tuple[str, ...]:
        """Return the paths of the files of a sample, below `root` or whole, the image first: as many of each sample."""
        return (self._paths[place],)

    def _path(self, place: int, which: int = 0) -> str:
        return joined(self._base, self._files(place)[which])

    def _known(self, place: int, which: int = 0) -> tuple[int, int] | None:
        """Return size and version of a file behind a URL; negative where it was not there."""
        if self._facts is None:
            return None
        size, version = self._facts[place * self._each + which].tolist()
        return size, version

    def _read(self, place: int, which: int = 0, max_bytes: int | None = None) -> bytes:
        """Read a file of a sample."""
        known = self._known(place, which)
        limit = f"{RAISE} with max_pixels= (3 bytes for each pixel)" if max_bytes is None else RAISE
        most = self._decoding.max_bytes if max_bytes is None else max_bytes
        with timed("read"):
            facts = None if known is None or known[0] < 0 else known
            return read_file(self._path(place, which), max_bytes=most, limit=limit, facts=facts)

    def _image(self, place: int, size: tuple[int, int] | None = None) -> NDArray[Any]:
        """Read an image, whose annotations are for an image of this height and width."""
        return sized(self._read(place), self._path(place), self._decoding, self._warned, size)

    def _mask(self, place: int, which: int) -> NDArray[Any]:
        """Read a mask ``(H, W)`` of integers as its file has them: indices of a palette stay indices."""
        how, path = replace(self._decoding, mode="unchanged", oriented=False), self._path(place, which)
        data = self._read(place, which, how.max_bytes)
        with timed("decode"):
            mask = decode_as(data, path, how, self._warned)
        if mask.ndim != 2 or mask.dtype.kind not in "bui":
            what = f"a mask of shape {mask.shape} and dtype {mask.dtype}"
            wrong(path, what, "an index for each pixel: a palette, or one channel of integers")
        return mask.astype(np.uint8) if mask.dtype.kind == "b" else mask


def sized(data: bytes, path: str, decoding: Decoding, warned: set[str], size: tuple[int, int] | None) -> NDArray[Any]:
    """Decode an image; of its two orientations (as stored, or by EXIF) the one that has a size, the stored one first.

    Raises `BadAnnotation` where neither has it.
    """
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
