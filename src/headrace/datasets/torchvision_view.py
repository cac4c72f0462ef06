"""What reads a dataset of torchvision's by the native extension: its samples are torchvision's, in torch's types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headrace.context import seeds
from headrace.context.timing import timed
from headrace.datasets import protocol
from headrace.datasets.base import View
from headrace.datasets.image_sources import label_of
from headrace.datasets.images import ImageDataset
from headrace.datasets.packed_list import PackedList
from headrace.interop import torch_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from headrace.context.memory import Empty
    from headrace.datasets.columns import Columns
    from headrace.datasets.image_sources import Files
    from headrace.datasets.in_flight import InFlightBatch
    from headrace.datasets.protocol import Indexed
    from headrace.image.decoding import Decoding


class LoadedImages(ImageDataset):
    """Image files that a function opens as Pillow images, where the native extension does not decode them.

    >>> import tempfile
    >>> from PIL import Image
    >>> from headrace.image import Decoding
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (4, 3), "red").save(f"{folder}/a.png")
    ...     images = LoadedImages([f"{folder}/a.png"], np.array([7]), Image.open, Decoding(oriented=False))
    ...     image, label = images[0]
    >>> image.shape, label
    ((3, 4, 3), 7)

    A file of another format than JPEG, or a damaged one, thus has torchvision's pixels, or its error.
    """

    def __init__(
        self, paths: Iterable[str], labels: NDArray[Any], opened: Callable[[str], Any], decoding: Decoding
    ) -> None:
        super().__init__("", PackedList(paths), labels, (), decoding)
        self._opened = opened

    def __getitem__(self, index: int) -> tuple[NDArray[Any], Any]:
        """Return pixels and label."""
        place = self._place(index)
        with timed("decode"):
            pixels = np.array(self._opened(self._full(place)))
        return pixels, label_of(self._labels[place])

    def native_source(self) -> Files:
        """Return the files, with the labels beside the images."""
        return self._images_source


class TorchvisionView(View[Any]):
    """A dataset of images and labels with torchvision's samples: tensors, and labels behind a ``target_transform``.

    ``collate`` makes a column of a batch of what ``target_transform`` returns.
    """

    def __init__(
        self, dataset: Indexed, target_transform: Callable[[Any], Any] | None, collate: Callable[..., Any]
    ) -> None:
        self.dataset = dataset
        self.target_transform = target_transform
        self._collate = collate

    def __getitem__(self, index: int) -> Any:
        """Return the image as a tensor, and its target."""
        return self._sample(self.dataset[index])

    def __getitems__(self, indices: list[Any]) -> list[Any]:
        """Read the samples at these indices: the images at once."""
        return [self._sample(sample) for sample in protocol.many(self.dataset, indices)]

    def _sample(self, sample: Any) -> Any:
        image, label = sample
        torch = torch_state.loaded()
        return image if torch is None else torch.from_numpy(image), self._target(int(label))

    def _target(self, label: int) -> Any:
        return label if self.target_transform is None else self.target_transform(label)

    @property
    def _viewed(self) -> Indexed:
        return self.dataset

    @property
    def reads_many(self) -> bool:
        """Whether the images of many samples are made at once."""
        return protocol.reads_many(self.dataset)

    @property
    def columns(self) -> Columns | None:
        """The arrays of a whole batch; not known where a function makes the targets."""
        return protocol.columns(self.dataset) if self.target_transform is None else None

    @property
    def read_batch(self) -> Callable[..., Any] | None:
        """What reads whole batches, where the dataset reads them."""
        return None if protocol.batch_reader(self.dataset) is None else self._read_batch

    def _read_batch(self, keys: Sequence[int], *, empty: Empty = np.empty) -> Any:
        read: Any = protocol.batch_reader(self.dataset)
        return self._with_targets(read(keys, empty=empty))

    @property
    def begin_batch(self) -> Callable[..., InFlightBatch] | None:
        """What begins whole batches, where the dataset begins them."""
        return None if protocol.batch_beginner(self.dataset) is None else self._begin_batch

    def _begin_batch(self, keys: Sequence[int], *, empty: Empty = np.empty) -> InFlightBatch:
        begin: Any = protocol.batch_beginner(self.dataset)
        begun: InFlightBatch = begin(keys, empty=empty)
        return begun if self.target_transform is None else Converted(begun, self._with_targets)

    def _with_targets(self, batch: Any) -> Any:
        if self.target_transform is None:
            return batch
        images, labels = batch
        here, targets = seeds.place(), []
        for row in seeds.each(len(labels)):
            here.alone = True  # an error names the sample
            targets.append(self._target(int(labels[row])))
        return [images, self._collate(targets)]


class Converted:
    """A batch that is converted when its images are made."""

    __slots__ = ("_begun", "_then")

    def __init__(self, begun: InFlightBatch, then: Callable[[Any], Any]) -> None:
        self._begun = begun
        self._then = then

    @property
    def jobs(self) -> Sequence[Any]:
        """The jobs of the dataset."""
        return self._begun.jobs

    @property
    def missing(self) -> Sequence[int]:
        """The rows that are not made."""
        return self._begun.missing

    @property
    def underway(self) -> Sequence[int]:
        """The missing rows that a thread has begun."""
        return self._begun.underway

    def finish(self, stop: Callable[[], None] | None = None) -> Any:
        """Return the batch, after all jobs have ended, as `InFlightBatch.finish` does."""
        return cast("list[Any]", self._then(self._begun.finish(stop)))
