"""Images that are encoded in memory, such as a column of JPEGs that a database returned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import kind_of
from headrace.context.timing import timed
from headrace.datasets.base import Dataset
from headrace.datasets.image_sources import Bytes, label_of
from headrace.datasets.memory_maps import Sent, mapped_rows
from headrace.errors import ArgumentError, ArgumentTypeError, SampleError
from headrace.image.decoder import decode_as
from headrace.image.decoding import DEFAULT_MAX_PIXELS, Decoding
from headrace.interop.keys import place as place_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

    from headrace.image.modes import Mode

    Encoded = bytes | bytearray | memoryview | NDArray[np.uint8]


class EncodedImages(Dataset[Any]):
    """Images that are in memory as the bytes of image files.

    >>> import io
    >>> from PIL import Image
    >>> from headrace import DataLoader, RandomResizedCrop
    >>> from headrace.datasets import EncodedImages
    >>> def png(color):
    ...     file = io.BytesIO()
    ...     Image.new("RGB", (40, 30), color).save(file, "PNG")
    ...     return file.getvalue()
    >>> dataset = EncodedImages([png("red"), png("blue"), png("lime")], [0, 1, 2])
    >>> image, label = dataset[1]
    >>> image.shape, image[0, 0].tolist(), label
    ((30, 40, 3), [0, 0, 255], 1)
    >>> images, labels = next(iter(DataLoader(dataset.map(RandomResizedCrop(16)), 3, seed=0)))
    >>> images.shape, labels.tolist()
    ((3, 16, 16, 3), [0, 1, 2])

    ``images``: the bytes of each, which are copied into one buffer; or a buffer of all of them (bytes, or a uint8
    array, memory-mapped too), with ``begins``: image ``i`` is ``buffer[begins[i]:begins[i + 1]]``. ``labels``: a number
    or a row of numbers for each image; without them, a sample is the image alone. ``mode``, ``max_pixels``,
    ``allow_truncated``: as in `ImageFolder`. The native extension decodes the images, without the GIL.

    Raises `ArgumentError` and `ArgumentTypeError`; `SampleError` for an image that cannot be decoded, with its index.
    """

    suits_threads = True

    def __init__(
        self,
        images: Iterable[Encoded] | Encoded,
        labels: ArrayLike | None = None,
        *,
        begins: ArrayLike | None = None,
        mode: Mode = "RGB",
        max_pixels: int = DEFAULT_MAX_PIXELS,
        allow_truncated: bool = False,
    ) -> None:
        buffer, ends = _joined(images) if begins is None else _checked(images, begins)
        beside = () if labels is None else (_labels(labels, len(ends) - 1),)
        self._warned = set[str]()
        self._source = Bytes(
            buffer, ends, Decoding(mode, max_pixels, allow_truncated), beside=beside, bare=labels is None
        )

    @property
    def labels(self) -> NDArray[Any] | None:
        """The label of each image; None without labels."""
        return self._source.beside[0] if self._source.beside else None

    def __len__(self) -> int:
        return len(self._source.begins) - 1

    def __getitem__(self, index: int) -> Any:
        """Decode the image at an index, and return it with its label."""
        row = place_of(index, len(self), "EncodedImages of {} images")
        with timed("read"):
            data = self._source.read(row)
        try:
            with timed("decode"):
                image = decode_as(data, self.where(row), self._source.decoding, self._warned)
        except SampleError as error:
            error.at(row)
            raise
        return (image, label_of(self._source.beside[0][row])) if self._source.beside else image

    def native_source(self) -> Bytes:
        """Return the buffer, with the labels beside it."""
        return self._source

    def where(self, index: int) -> str:
        """Say which image it is, for errors."""
        return f"image {place_of(index, len(self), 'EncodedImages of {} images')} in memory"

    def __getstate__(self) -> dict[str, Any]:
        source = self._source
        rows = mapped_rows(source.buffer)
        buffer = source.buffer if rows is None else Sent(source.buffer, rows)
        return {"buffer": buffer, "begins": source.begins, "how": source.decoding, "labels": self.labels}

    def __setstate__(self, state: dict[str, Any]) -> None:
        buffer, labels = state["buffer"], state["labels"]
        self._warned = set()
        self._source = Bytes(
            buffer.array if isinstance(buffer, Sent) else buffer,
            state["begins"],
            state["how"],
            beside=() if labels is None else (labels,),
            bare=labels is None,
        )


def _joined(images: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    if isinstance(images, bytes | bytearray | memoryview | str | np.ndarray) and getattr(images, "ndim", 1) == 1:
        raise ArgumentTypeError(
            f"images is {kind_of(images)}",
            found=kind_of(images),
            expected="a list with the bytes of each image",
            cure="Pass a list; or pass begins= with a buffer that holds all images.",
        )
    parts = [_flat(image, number) for number, image in enumerate(images)]
    begins = np.cumsum([0, *(part.size for part in parts)], dtype=np.int64)
    return np.concatenate([np.empty(0, np.uint8), *parts]), begins


def _flat(image: Any, number: int) -> NDArray[np.uint8]:
    try:
        view = memoryview(image)
        return np.frombuffer(view.cast("B") if view.nbytes else b"", np.uint8)
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(
            f"image {number} is {kind_of(image)}",
            found=kind_of(image),
            expected="the bytes of an image file",
            cure="Pass what file.read() returns; for arrays of pixels use ArrayDataset, for paths ImageFiles.",
        ) from error


def _checked(buffer: Any, begins: ArrayLike) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    array = buffer if isinstance(buffer, np.ndarray) else _flat(buffer, 0)
    ends = np.asarray(begins)
    whole = array.dtype == np.uint8 and array.ndim == 1 and array.flags.c_contiguous
    if not whole or ends.ndim != 1 or not len(ends) or ends.dtype.kind not in "iu":
        raise ArgumentError(
            f"images is a buffer of {array.dtype} {array.shape}, and begins of {ends.dtype} {ends.shape}",
            found=(array.shape, ends.shape),
            expected="a contiguous uint8 array, and integers: one more than there are images",
            cure="Pass np.frombuffer(data, np.uint8), and np.cumsum([0, *lengths]).",
        )
    if int(ends.min()) < 0 or int(ends.max()) > array.size or (ends[1:] < ends[:-1]).any():
        raise ArgumentError(
            f"begins has values from {ends.min()} to {ends.max()}, and the buffer {array.size} bytes",
            found=(int(ends.min()), int(ends.max())),
            expected="ascending places in the buffer",
            cure="Pass np.cumsum([0, *lengths]).",
        )
    return array, ends.astype(np.int64)


def _labels(labels: ArrayLike, count: int) -> NDArray[Any]:
    array = np.array(labels)
    if array.ndim not in (1, 2) or len(array) != count or array.dtype.kind not in "biuf":
        raise ArgumentError(
            f"labels is an array of {array.dtype} {array.shape}, and there are {count} images",
            found=array.shape,
            expected="a number, or a row of numbers, for each image",
            cure="Pass one label for each image.",
        )
    array.flags.writeable = False
    return array
