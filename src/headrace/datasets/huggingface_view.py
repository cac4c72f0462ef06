"""What reads a dataset of Hugging Face's with a transform by the native extension: its samples are dicts, as there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.context.timing import timed
from headrace.datasets import protocol
from headrace.datasets.base import View
from headrace.datasets.torchvision_view import Converted
from headrace.interop import torch_state

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.context.memory import Empty
    from headrace.datasets.image_sources import Source
    from headrace.datasets.in_flight import InFlightBatch
    from headrace.datasets.protocol import Indexed


class OpenedRows(View[Any]):
    """Tuples of an image and of integers: `datasets` opens the images that the native extension does not decode.

    An image of another format than JPEG, or a damaged one, thus has the pixels that the user's function gets, or the
    same error. ``opened`` is the `datasets.Dataset` of just these columns, without a format.
    """

    def __init__(self, dataset: Indexed, opened: Any, image: str, beside: Sequence[str]) -> None:
        self.dataset = dataset
        self._opened, self._image, self._beside = opened, image, tuple(beside)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Return pixels, and the integers beside them."""
        with timed("decode"):
            row = self._opened[int(index)]
            pixels = np.array(row[self._image].convert("RGB"))
        return pixels, *(row[name] for name in self._beside)

    def native_source(self) -> Source | None:
        """Return the source of the rows."""
        return protocol.native_source(self.dataset)

    @property
    def _viewed(self) -> Indexed:
        return self.dataset


class HuggingFaceView(View[Any]):
    """Tuples of an image and of integers as the dicts that a transform of a `datasets.Dataset` gives.

    ``places`` says for each name, in order, where in the tuple its value is.
    """

    def __init__(self, dataset: Indexed, places: Sequence[tuple[str, int]]) -> None:
        self.dataset = dataset
        self._places = tuple(places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a sample, with the image as a tensor."""
        return self._sample(self.dataset[index])

    def __getitems__(self, indices: list[Any]) -> list[dict[str, Any]]:
        """Read the samples at these indices: the images at once."""
        return [self._sample(sample) for sample in protocol.many(self.dataset, indices)]

    def _sample(self, sample: Any) -> dict[str, Any]:
        torch = torch_state.loaded()
        image = sample[0] if torch is None else torch.from_numpy(sample[0])
        return {name: int(sample[place]) if place else image for name, place in self._places}

    @property
    def _viewed(self) -> Indexed:
        return self.dataset

    @property
    def reads_many(self) -> bool:
        """Whether the images of many samples are made at once."""
        return protocol.reads_many(self.dataset)

    @property
    def read_batch(self) -> Callable[..., Any] | None:
        """What reads whole batches, where the dataset reads them."""
        return None if protocol.batch_reader(self.dataset) is None else self._read_batch

    def _read_batch(self, keys: Sequence[int], *, empty: Empty = np.empty) -> Any:
        read: Any = protocol.batch_reader(self.dataset)
        return self._named(read(keys, empty=empty))

    @property
    def begin_batch(self) -> Callable[..., InFlightBatch] | None:
        """What begins whole batches, where the dataset begins them."""
        return None if protocol.batch_beginner(self.dataset) is None else self._begin_batch

    def _begin_batch(self, keys: Sequence[int], *, empty: Empty = np.empty) -> InFlightBatch:
        begin: Any = protocol.batch_beginner(self.dataset)
        return Converted(begin(keys, empty=empty), self._named)

    def _named(self, batch: Any) -> dict[str, Any]:
        # As torch collates Python's integers.
        return {
            name: np.asarray(batch[place]).astype(np.int64, copy=False) if place else batch[place]
            for name, place in self._places
        }
