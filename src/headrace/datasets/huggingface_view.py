"""What reads a dataset of Hugging Face's with a transform by the native extension: its samples are dicts, as there."""

from __future__ import annotations

from functools import partial
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

    ``places`` says for each name, in order, where in the tuple its value is, or which column of ``values`` it is. That
    dataset has the same rows; ``collate`` makes a column of a batch of its values.
    """

    def __init__(
        self,
        dataset: Indexed,
        places: Sequence[tuple[str, int | str]],
        values: Indexed | None,
        collate: Callable[..., Any],
    ) -> None:
        self.dataset = dataset
        self._places = tuple(places)
        self._values = values
        self._collate = collate

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a sample, with the image as a tensor."""
        return self._sample(index, self.dataset[index])

    def __getitems__(self, indices: list[Any]) -> list[dict[str, Any]]:
        """Read the samples at these indices: the images at once."""
        return [self._sample(*each) for each in zip(indices, protocol.many(self.dataset, indices), strict=True)]

    def _sample(self, index: Any, sample: Any) -> dict[str, Any]:
        torch = torch_state.loaded()
        made: dict[int | str, Any] = {place: int(number) for place, number in enumerate(sample) if place}
        made[0] = sample[0] if torch is None else torch.from_numpy(sample[0])
        made |= {} if self._values is None else self._values[index]
        return {name: made[place] for name, place in self._places}

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
        return self._named(keys, read(keys, empty=empty))

    @property
    def begin_batch(self) -> Callable[..., InFlightBatch] | None:
        """What begins whole batches, where the dataset begins them."""
        return None if protocol.batch_beginner(self.dataset) is None else self._begin_batch

    def _begin_batch(self, keys: Sequence[int], *, empty: Empty = np.empty) -> InFlightBatch:
        begin: Any = protocol.batch_beginner(self.dataset)
        return Converted(begin(keys, empty=empty), partial(self._named, keys))

    def _named(self, keys: Sequence[int], batch: Any) -> dict[str, Any]:
        # As torch collates Python's integers.
        made: dict[int | str, Any] = {
            place: np.asarray(column).astype(np.int64, copy=False) for place, column in enumerate(batch) if place
        }
        made[0] = batch[0]
        if self._values is not None:
            rows = [self._values[key] for key in keys]
            made |= {column: self._collate([row[column] for row in rows]) for column in rows[0]}
        return {name: made[place] for name, place in self._places}
