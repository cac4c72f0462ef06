"""A loader for Keras 3, on any back end: ``model.fit(loader)``, with ``from headrace.keras import DataLoader``.

Keras asks a ``PyDataset`` for batches by number, in an order that ``fit`` shuffles, and never says when it is done with
it. An adapter is asked for an iterator over an epoch instead, which is what a loader is: it reads ahead, in its own
order, and ends with the iterator. So the loader is both: to Keras's own loops an adapter, to all else a ``PyDataset``.
"""

from __future__ import annotations

import operator
import sys
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from headrace import loader
from headrace.checks import kind_of
from headrace.errors import ArgumentError, ArgumentTypeError, missing
from headrace.run.adapter import Adapter

try:
    import keras
    from keras.src.trainers.data_adapters import data_adapter_utils as convert
    from keras.src.trainers.data_adapters.data_adapter import DataAdapter
except ModuleNotFoundError as error:
    if not (error.name or "").startswith("keras"):
        raise  # a back end that is not there: Keras says itself which
    raise missing("Keras 3.7 or newer", extra="keras", purpose="headrace.keras") from error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["DataLoader"]

T_co = TypeVar("T_co", covariant=True)

LOOK = 2
"""Batches at most that Keras takes to build a model: one, and one more where it reads ahead for a device."""

END, NOT_ASKED = object(), object()

BESIDE = {
    "y": "the targets are part of the batches, (x, y)",
    "sample_weight": "the weights are part of the batches, (x, y, sample_weight)",
}


class DataLoader(loader.DataLoader[T_co], keras.utils.PyDataset, DataAdapter):
    """A loader that ``fit``, ``evaluate`` and ``predict`` of a Keras model take as it is.

    >>> import headrace.keras, keras, numpy as np
    >>> numbers = np.arange(12, dtype="float32").reshape(6, 2)
    >>> pairs = headrace.ArrayDataset(numbers, numbers.sum(1, keepdims=True))
    >>> loader = headrace.keras.DataLoader(pairs, batch_size=4, shuffle=True, num_workers=2)
    >>> model = keras.Sequential([keras.layers.Dense(1)])
    >>> model.compile(loss="mse")
    >>> history = model.fit(loader, epochs=3, verbose=0)
    >>> len(history.history["loss"])
    3

    The arguments are those of `headrace.DataLoader`. A batch is ``x``, ``(x, y)`` or ``(x, y, sample_weight)``, as a
    tuple or a list, or a dictionary. Each pass of Keras over the data is the loader's next epoch; the batch that Keras
    looks at to build a model is not a pass. With ``steps_per_epoch`` each of Keras's epochs has that many batches: it
    reads on where the last one stopped, also across the end of a pass. `state_dict` names the place behind the batches
    that Keras has taken. A stream without a length is read to its end; Keras then warns that it ran out of data, which
    ``steps_per_epoch`` or a ``__len__`` of the dataset prevents. Workers end with the pass.

    The order is the loader's: ``shuffle`` of ``fit`` does nothing. Keras's own workers are not used. Processes start by
    "forkserver" unless ``multiprocessing_context`` says otherwise: Keras's back ends run threads. Raises
    `ArgumentError` where ``fit`` is given ``y`` or ``sample_weight``, which belong into the batches, and where it is
    given ``class_weight`` for batches other than ``(x, y)``; `ValueError` for a batch in another form and for an epoch
    without any.
    """

    # Every back end runs threads, and a fork in the middle of them may hang.
    _adapter = Adapter(start_method="forkserver")

    # Not the properties of the two classes above, which would stand in front of the loader's attributes.
    batch_size: int | None = None
    workers = 1
    use_multiprocessing = False
    max_queue_size = 10

    _within = False
    """Whether one of Keras's epochs has begun and not ended."""
    _looked_at: Any = None
    """The place at which Keras had a look, which is to be read again."""

    def __iter__(self) -> Iterator[T_co]:
        """Begin a loop over the next epoch; its batches have tuples for lists, as Keras wants it."""
        return map(_without_lists, super().__iter__())

    def __getitem__(self, step: int) -> Any:
        """Return batch ``step`` of the next epoch, by reading it up to there: for a look at it, not for a loop."""
        step = operator.index(step)
        if step < 0:
            step += len(self)
        place, batches = self._here, iter(self)
        try:
            for batch in islice(batches, step, None) if step >= 0 else ():
                return _arranged(batch)
            raise IndexError("the epoch has no batch of this number")
        finally:
            del batches
            self._here = place

    @property
    def num_batches(self) -> int | None:
        """How many batches an epoch has, or None where nobody knows."""
        if _noted(sys._getframe(1)).endless:
            return None
        try:
            return len(self)
        except TypeError:
            return None

    def on_epoch_begin(self) -> None:
        """Note that one of Keras's epochs begins."""
        self._within = True

    def on_epoch_end(self) -> None:
        """Note that one of Keras's epochs has ended, or that Keras has seen enough of the data to build the model."""
        self._within = False
        if self._looked_at is not None:
            self._here, self._looked_at = self._looked_at, None

    def get_numpy_iterator(self) -> Any:
        """Return an iterator over the next epoch, as arrays of NumPy's."""
        return convert.get_numpy_iterator(self._asked_for(sys._getframe(1)))

    def get_jax_iterator(self) -> Any:
        """Return an iterator over the next epoch, as arrays that JAX takes."""
        return convert.get_jax_iterator(self._asked_for(sys._getframe(1)))

    def get_torch_dataloader(self) -> Any:
        """Return an iterable over the next epoch, as torch's tensors."""
        return convert.get_torch_dataloader(self._asked_for(sys._getframe(1)))

    def get_tf_dataset(self) -> Any:
        """Return a ``tf.data.Dataset``; each pass over it is the next epoch."""
        import tensorflow as tf

        place, asked = self._here, _found(sys._getframe(1))
        first = list(islice(self._passes(asked), convert.NUM_BATCHES_FOR_TENSOR_SPEC))
        self._here = place
        spec = convert.get_tensor_spec(first)
        return tf.data.Dataset.from_generator(partial(self._passes, asked), output_signature=spec)

    def _asked_for(self, frame: FrameType) -> Iterator[Any]:
        return self._passes(_found(frame))

    def _passes(self, asked: _Asked) -> Iterator[Any]:
        """Read an epoch, or with ``steps_per_epoch`` of ``fit`` one after the other; weigh classes where asked to."""
        while True:
            for batch in self._pass():
                yield batch if asked.class_weight is None else _weighted(batch, asked.class_weight)
            if not asked.endless:
                return

    def _pass(self) -> Iterator[Any]:
        """Read what is left of an epoch; begun with the first batch, for Keras makes more iterators than it uses."""
        place, whole = self._here, self.num_batches
        before = self._session.progress.loaded.get("batches", 0)
        taken, batches = 0, iter(self)
        try:
            batch = next(batches, END)
            while batch is not END:
                taken += 1
                # Keras never asks for more than it knows to be there: with the last batch, we ask for the end, or
                # workers and state would stay in this epoch.
                following = next(batches, END) if taken + before == whole else NOT_ASKED
                yield _arranged(batch)
                batch = next(batches, END) if following is NOT_ASKED else following
        except GeneratorExit:
            if self._within and taken <= LOOK and taken + before != whole:
                self._looked_at = place
            raise
        if not taken and not before:
            raise ArgumentError(
                f"{self!r} gave Keras no batch: its epoch is empty",
                found=0,
                expected="at least one batch in each epoch",
                cure="check the dataset, or use drop_last=False",
            )
        if not taken:
            yield from self._pass()  # the state was that of the epoch's end

    @property
    def _here(self) -> Any:
        """What is read next: an epoch, or the rest of one."""
        return self._session.progress.mark

    @_here.setter
    def _here(self, place: Any) -> None:
        self._session.progress.mark = place


def _arranged(batch: Any) -> Any:
    """Return a batch in one of the forms that Keras takes."""
    if isinstance(batch, np.ndarray):
        batch = (batch,)
    if not isinstance(batch, dict) and not (isinstance(batch, tuple) and 1 <= len(batch) <= 3):
        what = f"a tuple of {len(batch)}" if isinstance(batch, tuple) else kind_of(batch)
        expected = "x, (x, y), (x, y, sample_weight) or a dictionary"
        raise ArgumentTypeError(
            f"Keras takes batches that are {expected}; got {what}",
            found=what,
            expected=expected,
            cure="change the samples to that form, or the batches with collate_fn",
        )
    return batch


def _without_lists(batch: Any) -> Any:
    if type(batch) is dict:
        return {key: _without_lists(value) for key, value in batch.items()}
    if not isinstance(batch, list):
        return batch
    if batch and all(isinstance(item, str | bytes) for item in batch):
        return np.array(batch)  # a column of strings
    return tuple(_without_lists(item) for item in batch)


def _weighted(batch: Any, weights: dict[int, float]) -> Any:
    """Give each sample the weight of its class, as Keras does for its own data sets."""
    if not isinstance(batch, tuple) or len(batch) != 2 or not isinstance(batch[1], np.ndarray):
        raise ArgumentError(
            f"class_weight needs batches (x, y) with one array of targets; got {kind_of(batch)}",
            found=kind_of(batch),
            expected="batches (x, y) with one array of targets",
            cure="give each sample its weight, (x, y, sample_weight)",
        )
    return (*batch, convert.class_weight_to_sample_weights(batch[1], weights))


@dataclass(frozen=True, slots=True)
class _Asked:
    """The arguments of one of Keras's loops beside the loader."""

    class_weight: dict[int, float] | None = None
    endless: bool = False
    """Whether it counts steps, so that the data are to go on behind the end of an epoch."""


NOTE = "_headrace_asked"


def _noted(frame: FrameType) -> _Asked:
    """Note the arguments of Keras's loop on it, for the adapter, whose constructor it calls later."""
    if not frame.f_globals.get("__name__", "").startswith("keras."):
        return _Asked()
    told, iterator = frame.f_locals, frame.f_locals.get("self")
    for name, reason in BESIDE.items():
        if told.get(name) is not None:
            raise ArgumentError(
                f"{name} cannot be given together with a loader: {reason}",
                found=kind_of(told[name]),
                expected=f"{name} in the batches",
                cure=f"leave {name} out",
            )
    if "steps_per_epoch" in told and "class_weight" in told and iterator is not None:
        endless = bool(told["steps_per_epoch"]) and _trains(frame)
        setattr(iterator, NOTE, _Asked(told["class_weight"], endless))
    return getattr(iterator, NOTE, _Asked())


def _trains(frame: FrameType) -> bool:
    """Say whether ``fit`` makes this loop to train; it makes a second one to validate."""
    caller: FrameType | None = frame
    while caller is not None and caller.f_globals.get("__name__", "").startswith("keras."):
        if caller.f_code.co_name in ("evaluate", "predict"):
            return False
        if caller.f_code.co_name == "fit":
            return caller.f_locals.get("epoch_iterator") is None
        caller = caller.f_back
    return False


def _found(frame: FrameType | None) -> _Asked:
    """Return the arguments of the loop that asks for batches."""
    while frame is not None and frame.f_globals.get("__name__", "").startswith("keras."):
        asked = getattr(frame.f_locals.get("self"), NOTE, None)
        if isinstance(asked, _Asked):
            return asked
        frame = frame.f_back
    return _Asked()
