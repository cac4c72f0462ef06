"""Batches on their way to a device: page-locked memory, and transforms that are finished there."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from headrace.collate.containers import like_mapping, like_sequence
from headrace.interop.user_line import user_line
from headrace.transforms.base import Compose
from headrace.transforms.image_transform import finishing

if TYPE_CHECKING:
    import numpy as np


def pinned(batch: Any, device: Any = None) -> Any:
    """Copy the tensors in a batch to page-locked memory, from which a GPU takes them while the program goes on.

    Containers keep their kind; anything else that has a method ``pin_memory`` is asked to do it itself, as in torch.
    """
    if isinstance(batch, torch.Tensor):
        return batch.pin_memory(device) if device is not None else batch.pin_memory()
    if hasattr(batch, "pin_memory"):
        return batch.pin_memory()
    if isinstance(batch, str | bytes):
        return batch
    if isinstance(batch, Mapping):
        return like_mapping(batch, {key: pinned(value, device) for key, value in batch.items()})
    if isinstance(batch, Sequence):
        items = [pinned(value, device) for value in batch]
        return tuple(items) if type(batch) is tuple else like_sequence(batch, items)
    return batch


def pinning(loader: Any) -> Callable[[Any], Any] | None:
    """Return what copies a batch to page-locked memory, if it was asked for and there is an accelerator."""
    if not loader.pin_memory:
        return None
    if not torch.accelerator.is_available():
        warnings.warn(
            "'pin_memory' argument is set as true but no accelerator is found, then device pinned memory won't be "
            "used.",
            UserWarning,
            stacklevel=user_line(),
        )
        return None
    return partial(pinned, device=loader.pin_memory_device or None)


class on_device(torch.nn.Module):  # noqa: N801  as headrace.jax has it, where it is a function
    """Finish batches where they lie: `ToFloat`, `Normalize`, `ToCHW` and `ToDtype`, done on a device.

    >>> from headrace import Normalize, ToCHW, ToFloat
    >>> finish = on_device(ToFloat(), Normalize((0.5, 0.4, 0.3), 0.25), ToCHW())
    >>> batch = torch.full((2, 8, 9, 3), 255, dtype=torch.uint8)  # .to("cuda")
    >>> finish(batch).shape, finish(batch).dtype, finish(batch)[0, :, 0, 0]
    (torch.Size([2, 3, 8, 9]), torch.float32, tensor([2.0000, 2.4000, 2.8000]))

    Left out of the dataset, they let batches be bytes on their way: a quarter of the memory. Batches are ``(N, H, W)``
    or ``(N, H, W, C)``, and ``(N, C, H, W)`` behind `ToCHW`; the values are those of the transforms themselves, but for
    float32's rounding. As a module it can be the first of a model, goes with it to its device, and has nothing to
    learn or to save. Raises `headrace.errors.ArgumentError` for any other transform.
    """

    def __init__(self, *transforms: Any) -> None:
        super().__init__()
        self.transforms = Compose(*transforms).transforms
        self._steps = finishing(self.transforms)
        self._device = _Tensors()
        for number, step in enumerate(self._steps):
            for name, values in step.constants.items():
                self.register_buffer(f"{name}{number}", torch.tensor(values, dtype=torch.float32), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the batch with every transform applied."""
        for number, step in enumerate(self._steps):
            constants = {name: self.get_buffer(f"{name}{number}").to(images.device) for name in step.constants}
            images = step.run(images, self._device, **constants)
        return images


class _Tensors:
    """torch's own of what a transform does on a device."""

    def dtype(self, images: torch.Tensor) -> str:
        return str(images.dtype).removeprefix("torch.")

    def cast(self, images: torch.Tensor, dtype: np.dtype[Any]) -> torch.Tensor:
        return images.to(getattr(torch, dtype.name))

    def channels_first(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
