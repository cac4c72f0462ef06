"""Batches on JAX devices, the next one on its way while a step runs: ``from headrace.jax import DataLoader``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from headrace import loader
from headrace.checks import shown
from headrace.errors import ArgumentError, ArgumentTypeError, missing
from headrace.interop.user_line import user_line
from headrace.run.adapter import Adapter
from headrace.transforms.base import Compose
from headrace.transforms.image_transform import finishing

try:
    import jax
except ModuleNotFoundError as error:
    raise missing("JAX", extra="jax", purpose="headrace.jax") from error

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DataLoader", "on_device"]

T_co = TypeVar("T_co", covariant=True)


def _placing(loader: Any) -> Callable[[Any], Any]:
    """Return what puts a batch on the loader's device or sharding."""
    if loader.pin_memory:
        said = "pin_memory=True does nothing here: JAX stages its copies itself"
        warnings.warn(said, UserWarning, stacklevel=user_line())
    return _Place(loader.device if loader.sharding is None else loader.sharding, loader.world_size)


CURES = {"device": "pass one of jax.devices()", "sharding": "pass a jax.sharding.NamedSharding, or another sharding"}


class DataLoader(loader.DataLoader[T_co]):
    """A loader whose batches are JAX arrays on a device, or spread over several.

    >>> import headrace.jax
    >>> loader = headrace.jax.DataLoader(range(10), batch_size=4, num_workers=2)
    >>> for batch in loader:
    ...     print(type(batch).__name__, batch.shape, batch.dtype)
    ArrayImpl (4,) int32
    ArrayImpl (4,) int32
    ArrayImpl (2,) int32

    The arguments are those of `headrace.DataLoader`, and one of these: ``device`` (a ``jax.Device``) or ``sharding``
    (a ``jax.sharding.Sharding``, which must fit every array of a batch); by default, the device that is JAX's default
    when the loop begins. With workers, a thread copies the next batch to the device while the last one is used: two
    batches lie on it at the most. With ``num_workers=0`` each is copied when it is asked for. Worker processes start by
    "forkserver" unless ``multiprocessing_context`` says otherwise: JAX runs threads, which make forking unsafe.

    A ``sharding`` over the devices of several processes makes global arrays. With ``rank="auto"`` each gives its
    part of the global batch; without ranks each reads the whole one and keeps the part of its devices.

    Every NumPy array of a batch, in any of JAX's pytrees, becomes a JAX array of the same shape. Strings, objects and
    all else that JAX has no dtype for pass through. uint8 stays uint8, and bfloat16 bfloat16; unless
    ``jax_enable_x64`` is set, JAX makes int64 int32 and float64 float32. Raises `ArgumentError` for a device or a
    sharding that is none.
    """

    # JAX runs threads, and a fork in the middle of them may hang.
    _adapter = Adapter(place=_placing, start_method="forkserver")

    def __init__(
        self,
        dataset: Any,
        *args: Any,
        device: Any = None,
        sharding: Any = None,
        **arguments: Any,
    ) -> None:
        if device is not None and sharding is not None:
            raise ArgumentError(
                "device and sharding were both given",
                found=shown(device),
                expected="one of them, because a sharding names its devices",
                cure="leave device out",
            )
        for name, value, kind in (("device", device, jax.Device), ("sharding", sharding, jax.sharding.Sharding)):
            if value is not None and not isinstance(value, kind):
                expected = f"a jax {kind.__name__}, or None"
                what = f"{name} must be {expected}; got {shown(value)}"
                raise ArgumentTypeError(what, found=value, expected=expected, cure=CURES[name])
        super().__init__(dataset, *args, **arguments)
        self.device = device
        self.sharding = sharding


def on_device(*transforms: Any) -> Callable[[Any], Any]:
    """Return a function that finishes batches where they lie: `ToFloat`, `Normalize`, `ToCHW` and `ToDtype`.

    >>> from headrace import Normalize, ToCHW, ToFloat
    >>> finish = on_device(ToFloat(), Normalize((0.5, 0.4, 0.3), 0.25), ToCHW())
    >>> batch = jax.numpy.full((2, 8, 9, 3), 255, "uint8")
    >>> finish(batch).shape, finish(batch).dtype.name, [f"{value:.3f}" for value in finish(batch)[0, :, 0, 0]]
    ((2, 3, 8, 9), 'float32', ['2.000', '2.400', '2.800'])

    Left out of the dataset, they let batches be bytes on their way: a quarter of the memory. Batches are ``(N, H, W)``
    or ``(N, H, W, C)``, and ``(N, C, H, W)`` behind `ToCHW`; the values are those of the transforms themselves, but for
    float32's rounding. The function is jitted, and can be part of a step that is. Raises `ArgumentError` for any other
    transform.
    """
    steps, device = finishing(Compose(*transforms).transforms), _Arrays()

    def finish(images: Any) -> Any:
        for step in steps:
            constants = {name: np.asarray(values, np.float32) for name, values in step.constants.items()}
            images = step.run(images, device, **constants)
        return images

    jitted: Callable[[Any], Any] = jax.jit(finish)
    return jitted


class _Arrays:
    """JAX's own of what a transform does on a device."""

    def dtype(self, images: Any) -> str:
        return str(images.dtype.name)

    def cast(self, images: Any, dtype: np.dtype[Any]) -> Any:
        return images.astype(dtype)

    def channels_first(self, images: Any) -> Any:
        return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)


class _Place:
    """Puts a batch where it belongs; JAX keeps the memory of a batch alive for as long as it looks at it."""

    def __init__(self, where: Any, world: int) -> None:
        self._where = where
        self._world = world
        self._global = isinstance(where, jax.sharding.Sharding) and not where.is_fully_addressable
        self._default = jax.config.jax_default_device  # of the consumer's thread: it may be set for a block only

    def __call__(self, batch: Any) -> Any:
        leaves, tree = jax.tree.flatten(batch)
        arrays = [number for number, leaf in enumerate(leaves) if _has_jax_dtype(leaf)]
        try:
            with jax.default_device(self._default):
                # All at once: JAX starts the copies together.
                given = [leaves[number] for number in arrays]
                placed = [*map(self._of_all, given)] if self._global else jax.device_put(given, self._where)
        except ValueError as error:
            several = self._global and self._world > 1
            ranks = f"; each of {self._world} ranks gives its part of the first dimension: split it over all processes"
            error.add_note(
                f"headrace: arrays of shapes {[leaves[number].shape for number in arrays]} do not go to {self._where}; "
                f"where the last batch cannot be split evenly, drop_last=True leaves it out{ranks if several else ''}"
            )
            raise
        for number, array in zip(arrays, placed, strict=True):
            leaves[number] = array
        return jax.tree.unflatten(tree, leaves)

    def _of_all(self, array: Any) -> Any:
        """Make this process's part of a global array; without ranks every process has all of it."""
        shape = (array.shape[0] * self._world, *array.shape[1:]) if array.shape else ()
        return jax.make_array_from_process_local_data(self._where, np.asarray(array), shape)


def _has_jax_dtype(leaf: Any) -> bool:
    if isinstance(leaf, np.ndarray):
        # By exclusion: the small floats and integers of machine learning are kinds of void to NumPy.
        return leaf.dtype.kind not in "OSUTMm" and leaf.dtype.type is not np.void
    return isinstance(leaf, jax.Array)
