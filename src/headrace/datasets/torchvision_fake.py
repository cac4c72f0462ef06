"""The images of torchvision's ``FakeData``, drawn by several threads at once as it draws them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.context.timing import timed
from headrace.datasets import protocol
from headrace.datasets.base import Dataset
from headrace.datasets.image_sources import Source
from headrace.errors import ArgumentError
from headrace.interop import torch_state

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

UNKNOWN = -1


class FakeImages(Dataset[tuple[Any, int]]):
    """Images of noise that torch draws by their index, and labels that it draws after them.

    ``image_size`` is (channels, height, width), as in ``FakeData``. torch's global generator is left alone: each image
    has one of its own, so that threads do not disturb each other.
    """

    suits_threads = True

    def __init__(self, size: int, image_size: tuple[int, int, int], num_classes: int, random_offset: int) -> None:
        self._numbers = size, image_size, num_classes, random_offset
        self._source = _Drawn(self, beside=(np.full(size, UNKNOWN, np.int64),))

    def __reduce__(self) -> Any:
        return FakeImages, self._numbers

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of an image in memory."""
        return in_memory(self._numbers[1])

    def __len__(self) -> int:
        return self._numbers[0]

    def __getitem__(self, index: int) -> tuple[NDArray[Any], int]:
        """Draw an image, and its label."""
        _, rows = self.resolve([index])
        with timed("read"):
            return self.drawn(int(rows[0]))

    def resolve(self, keys: Sequence[Any]) -> tuple[FakeImages, NDArray[np.int64]]:
        """Return the rows of keys. A negative one raises `ArgumentError`: `FakeData` draws other images for those."""
        least = min(keys, default=0)
        if least < 0:
            raise ArgumentError(
                f"index {least}: FakeData does not count negative indices from its end, but draws images of their own",
                found=int(least),
                expected=f"indices from 0 to {len(self) - 1}",
                cure="pass indices from 0 up, or remove native=True",
            )
        return self, protocol.rows_of(keys, len(self))

    def drawn(self, row: int) -> tuple[NDArray[Any], int]:
        """Draw an image by what `FakeData` does, with a generator of its own in place of the global one."""
        torch, transforms = torch_state.loaded(), torch_state.torchvision_module("transforms")
        _, shape, classes, offset = self._numbers
        generator = torch.Generator()
        generator.manual_seed(row + offset)
        image = torch.randn(*shape, generator=generator, device="cpu")
        label = torch.randint(0, classes, size=(1,), generator=generator, dtype=torch.long, device="cpu")
        return np.asarray(transforms.ToPILImage()(image)), int(label[0])

    def native_source(self) -> Source:
        """Return the source of these images, which are drawn for each batch."""
        return self._source


@dataclass(frozen=True, eq=False)
class _Drawn(Source):
    """Images that are drawn when a batch begins. ``beside`` has the labels of those that were drawn already."""

    images: FakeImages

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape that all images have."""
        return self.images.image_shape

    @property
    def waits(self) -> bool:
        """Let workers begin batches, as drawing takes long."""
        return True

    def refusal(self, name: str) -> str:  # noqa: ARG002  it reads all of them
        """Refuse nothing."""
        return ""

    def opened_for(self, extension: Any, rows: NDArray[np.int64]) -> tuple[Any, NDArray[np.int64]]:
        """Draw the images of a batch."""
        pixels = np.empty((len(rows), *self.image_shape), np.uint8)
        with timed("read"):
            for place, row in enumerate(rows.tolist()):
                pixels[place], self.beside[0][row] = self.images.drawn(row)
        return extension.Source.arrays(pixels), np.arange(len(rows))

    def take(self, number: int, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Copy labels, each drawn with its image."""
        for row in np.unique(rows[self.beside[0][rows] == UNKNOWN]).tolist():
            self.beside[0][row] = self.images.drawn(row)[1]
        super().take(number, rows, out)


def in_memory(image_size: tuple[int, int, int]) -> tuple[int, ...]:
    """Return the shape of an image in memory: gray ones have no channels.

    >>> in_memory((3, 4, 5)), in_memory((1, 4, 5))
    ((4, 5, 3), (4, 5))
    """
    channels, height, width = image_size
    return (height, width) if channels == 1 else (height, width, channels)


class ItemTarget:
    """A ``target_transform`` as `FakeData` calls it: it gets a tensor, and its result becomes a number."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def __call__(self, label: int) -> Any:
        """Return the target of a label."""
        return self._function(torch_state.loaded().tensor(label)).item()
