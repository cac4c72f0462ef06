"""The base class of every dataset of ours, and of views: what a dataset may say of itself, with defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, cast

from headrace import hints
from headrace.datasets import facts, protocol

if TYPE_CHECKING:
    import os
    from builtins import property as default
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from headrace.datasets.columns import Columns
    from headrace.datasets.image_sources import Source
    from headrace.datasets.protocol import Indexed
    from headrace.storage.object_spans import ObjectSpans
else:

    class default:  # noqa: N801  is used as property is
        """A property that a subclass or an instance may replace by a plain value: ``self.labels = labels``."""

        def __init__(self, answer: Callable[[Any], Any]) -> None:
            self._answer = answer
            self.__doc__ = answer.__doc__

        def __get__(self, dataset: Any, kind: type | None = None) -> Any:
            """Return the default."""
            return self if dataset is None else self._answer(dataset)


T_co = TypeVar("T_co", covariant=True)

VIEWS: dict[str, Callable[..., Any]] = {}
"""What makes each view, by the name of the method; its file adds it, as views are datasets, which this file defines."""


class Dataset(hints.Hinted, Generic[T_co]):
    """Samples that can be asked for by index.

    Subclasses give ``__getitem__`` and ``__len__``; anything else that has the two works in a loader just as well.

    >>> from headrace import Dataset
    >>> class Squares(Dataset[int]):
    ...     def __getitem__(self, index: int) -> int:
    ...         return index * index
    ...     def __len__(self) -> int:
    ...         return 4
    >>> list(Squares())
    [0, 1, 4, 9]
    >>> Squares().map(lambda x: x + 1)[3]
    10

    Everything else has a default, and makes a loader faster or its errors better: attributes (``suits_threads``,
    ``labels``, …) may be set in the class or in ``__init__``; methods are overridden. A subclass that overrides
    ``__getitem__`` and not ``read_batch``, ``begin_batch`` and ``native_source`` is read without these three.
    """

    _argument_hints = hints.DATASET
    _method_hints = hints.METHODS
    _is_stream = False
    """Whether it is read by iterating and has no index: see `IterableDataset`."""
    _maps_transform = False
    """Whether ``transform=f`` of the constructor does what ``.map(f)`` does, for code that used torchvision's."""

    def __new__(cls, *given: Any, **named: Any) -> Self:
        """Make the dataset; with torchvision's ``transform=``, return it mapped."""
        if "transform" in named and cls._maps_transform and "transform" not in (hints.argument_names(cls) or named):
            function = named.pop("transform")
            return cast("Self", cls(*given, **named).map(*([] if function is None else [function])))
        return super().__new__(cls, *given, **named)

    @default
    def suits_threads(self) -> bool:
        """Whether a loader uses threads by default: reading mostly releases the GIL."""
        return False

    @default
    def draws(self) -> bool:
        """Whether reading a sample may draw random numbers."""
        return False

    @default
    def labels(self) -> NDArray[Any] | None:
        """Return the label of each sample, known without reading samples; None where it is not."""
        return None

    @default
    def classes(self) -> Sequence[str]:
        """Return the names of the classes, by label; empty where labels have no names."""
        return []

    @default
    def class_to_idx(self) -> dict[str, int]:
        """Return the label of each class, by its name; empty where labels have no names."""
        return {name: label for label, name in enumerate(self.classes)}

    @default
    def shard_lengths(self) -> Sequence[int] | None:
        """Return how many samples each shard has, in order: what `ShardSampler` takes. None: not in shards."""
        return None

    @default
    def columns(self) -> Columns | None:
        """Describe the arrays that `read_batch` returns; None where there is no such method, or they are not known."""
        return None

    @default
    def read_batch(self) -> Callable[..., Any] | None:
        """Make a whole batch: ``read_batch(keys, *, empty)``, what collating the samples of these keys would give.

        Its arrays are made by ``empty(shape, dtype)``, which lends memory. None: a loader reads samples.
        """
        return None

    @default
    def read_part(self) -> Callable[..., Any] | None:
        """Read a part of a sample: ``read_part(index, start, stop)``, its elements from ``start`` to ``stop - 1``.

        It is for keys that are a `Piece`. None: the whole sample is read, and then cut.
        """
        return None

    @default
    def begin_batch(self) -> Callable[..., Any] | None:
        """Begin a batch that is then made without Python: takes the arguments of `read_batch`.

        Returns an `InFlightBatch`: its ``jobs`` are run by the native extension, its ``finish()`` returns the batch.
        """
        return None

    def __getitem__(self, index: int) -> T_co:
        """Make the sample at an index."""
        raise NotImplementedError(f"{type(self).__qualname__} must define __getitem__(index)")

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__qualname__} must define __len__()")

    def __iter__(self) -> Iterator[T_co]:
        for index in range(len(self)):
            yield self[index]

    def native_source(self) -> Source | None:
        """Return where the native extension finds the images of this dataset; None: it reads none of them.

        The source describes the rows that `resolve` gives. Return the same object from each call.
        """
        return None

    def resolve(self, keys: Sequence[Any]) -> tuple[Any, NDArray[np.int64]]:
        """Return the dataset that the samples of these keys are in, and their rows there, counted from 0.

        A view asks the dataset that it reads; any other dataset is its own answer.
        """
        return self, protocol.rows_of(keys, len(self))

    def inner(self, index: Any) -> tuple[Any, Any] | None:  # noqa: ARG002
        """Return the dataset that a view reads a sample from, and the index there; None where this is no view."""
        return None

    def rebuilt(self, make: Callable[[Any], Any]) -> Dataset[Any] | None:  # noqa: ARG002
        """Return this view over ``make(dataset)`` in place of each dataset that it reads.

        None where this is no view, or changes the samples: then mapping it is not the same as mapping those datasets.
        """
        return None

    def where(self, index: int) -> str | None:  # noqa: ARG002
        """Say where a sample comes from (a path), for errors; None where there is nothing to say."""
        return None

    def explain(self) -> str:
        """Say how a loader reads this dataset; see `headrace.explain`."""
        return protocol.explained(self)

    def __repr__(self) -> str:
        try:
            return facts.line(self)
        except Exception:  # noqa: BLE001  a repr is asked for in the middle of errors too
            return object.__repr__(self)

    def _repr_html_(self) -> str | None:
        try:
            return facts.html(self)
        except Exception:  # noqa: BLE001  a stream has no length, and some datasets fail before they are set up
            return None

    def __add__(self, other: Any) -> Dataset[Any]:
        return self.concat(other)

    def map(self, *functions: Callable[..., Any]) -> Dataset[Any]:
        """Return this dataset with functions applied to each sample, one after the other, when it is read.

        A function takes the sample, or the sample and its random generator: ``f(sample)`` or ``f(sample, rng)``.
        """
        made: Dataset[Any] = VIEWS["map"](self, *functions)
        return made

    def filter(self, predicate: Callable[[Any], Any], by: Literal["sample", "label"] = "sample") -> Dataset[T_co]:
        """Return the samples that a predicate is true of.

        >>> import numpy as np
        >>> from headrace import ArrayDataset
        >>> dataset = ArrayDataset(np.arange(6.0), np.array([0, 1, 2, 0, 1, 2]))
        >>> [x.item() for x, label in dataset.filter(lambda sample: sample[0] > 2)]
        [3.0, 4.0, 5.0]
        >>> [x.item() for x, label in dataset.filter(lambda label: label == 1, by="label")]
        [1.0, 4.0]

        The predicate is called once for each sample, in order, when the view is made, so ``len`` is known and a run can
        resume. ``by="label"`` asks about `labels` and reads no sample: prefer it for images. Random transforms draw the
        same numbers in each call. An error of the predicate gets a note with the sample's index and path. Raises
        `ArgumentError` for ``by="label"`` where there are no labels.
        """
        made: Dataset[T_co] = VIEWS["filter"](self, predicate, by)
        return made

    def take(self, count: int) -> Dataset[T_co]:
        """Return the first ``count`` samples, or all where there are fewer.

        >>> import numpy as np
        >>> from headrace import ArrayDataset
        >>> len(ArrayDataset(np.arange(10)).take(3)), len(ArrayDataset(np.arange(10)).take(99))
        (3, 10)

        Raises `ArgumentError` for a count below 0.
        """
        made: Dataset[T_co] = VIEWS["take"](self, count)
        return made

    def skip(self, count: int) -> Dataset[T_co]:
        """Return all samples but the first ``count``.

        >>> import numpy as np
        >>> from headrace import ArrayDataset
        >>> [x.item() for x in ArrayDataset(np.arange(5)).skip(3)]
        [3, 4]

        Raises `ArgumentError` for a count below 0.
        """
        made: Dataset[T_co] = VIEWS["skip"](self, count)
        return made

    def repeat(self, times: int) -> Dataset[T_co]:
        """Return the samples ``times`` times over: an epoch then reads each so often, with other random numbers.

        >>> import numpy as np
        >>> from headrace import ArrayDataset
        >>> [x.item() for x in ArrayDataset(np.arange(2)).repeat(3)]
        [0, 1, 0, 1, 0, 1]

        To repeat without an end, loop over the loader again: each loop is an epoch. Raises `ArgumentError` for
        ``times`` below 1.
        """
        made: Dataset[T_co] = VIEWS["repeat"](self, times)
        return made

    def shard(self, index: int, count: int) -> Dataset[T_co]:
        """Return every ``count``-th sample, from sample ``index`` on: one of ``count`` parts that share no sample.

        >>> import numpy as np
        >>> from headrace import ArrayDataset
        >>> [x.item() for x in ArrayDataset(np.arange(7)).shard(1, 3)]
        [1, 4]

        For the ranks of one run, pass ``rank`` to the loader instead: it divides each epoch's order, so that all ranks
        together see the batches that one rank would. Raises `ArgumentError` for an index not from 0 to ``count - 1``.
        """
        made: Dataset[T_co] = VIEWS["shard"](self, index, count)
        return made

    def zip(self, *others: Indexed) -> Dataset[Any]:
        """Return datasets side by side: a sample is the tuple of their samples at one index.

        >>> import numpy as np
        >>> from headrace import ArrayDataset
        >>> ArrayDataset(np.arange(3)).zip("abc", [True, False, True])[1]
        (np.int64(1), 'b', False)

        It is `StackDataset`. Raises `ArgumentError` for datasets of different lengths: cut the longer with `take`.
        """
        made: Dataset[Any] = VIEWS["zip"](self, *others)
        return made

    def concat(self, *others: Indexed) -> Dataset[Any]:
        """Return datasets end to end, as ``a + b`` does for two.

        >>> import numpy as np
        >>> from headrace import ArrayDataset
        >>> len(ArrayDataset(np.arange(3)).concat([7, 8], "abc"))
        8

        It is `ConcatDataset`.
        """
        made: Dataset[Any] = VIEWS["concat"](self, *others)
        return made

    def pack(
        self,
        path: str | os.PathLike[str],
        *,
        max_side: int | None = None,
        store: Literal["jpeg", "raw", "smart"] = "jpeg",
        quality: int = 90,
        shard_size: int | str = "256MiB",
        budget: int | str | None = None,
        append: bool = False,
        workers: int | None = None,
        progress: Callable[[int], Any] | None = None,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> Dataset[T_co]:
        """Store the samples in Arrow shards, images scaled and encoded once, to be read at the speed of memory.

        >>> import tempfile
        >>> import numpy as np
        >>> from headrace import ArrayDataset
        >>> dataset = ArrayDataset(np.zeros((4, 8, 8, 3), np.uint8), np.arange(4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     packed = dataset.pack(folder, store="raw")
        ...     len(packed), packed[1][0].shape, packed.labels.tolist()
        (4, (8, 8, 3), [0, 1, 2, 3])

        ``path``: a folder, or the URL of one. ``max_side``: images are scaled so that no side has more pixels; masks,
        boxes and keypoints with them. ``store``: ``"jpeg"`` encodes images with ``quality`` (JPEG files of the right
        size stay as they are); ``"raw"`` keeps pixels, which need no decoding and many times the bytes; ``"smart"``
        keeps the pixels of as many images as a ``budget`` of bytes (``"100GB"``) reaches for. An image is a uint8
        array: the sample, the first part of a tuple, or under "image" in a dict. All else is stored as it is:
        numbers, text, bytes, arrays, and what JSON holds. All samples must have the same form.

        ``workers``: threads that decode, scale and encode, one for each CPU by default; the bytes do not depend on it.
        ``progress`` is called with the number of samples done since the last call. After a kill, the same call
        continues: a shard of about ``shard_size`` bytes is there whole or not at all, and is read back after it is
        written. ``append`` adds the samples to a packed dataset of the same form. With ``on_error="skip"``, samples
        that cannot be read are left out; `PackedDataset.skipped` names them.

        Returns a `PackedDataset`. Raises `ArgumentError` for a folder with anything else in it, for samples of
        different forms, and for a dataset that draws random numbers; `UnreadableFile` where the disk is full;
        `MissingDependency` without pyarrow; and what reading a sample raises.
        """
        made: Dataset[T_co] = VIEWS["pack"](
            self,
            path,
            max_side=max_side,
            store=store,
            quality=quality,
            shard_size=shard_size,
            budget=budget,
            append=append,
            workers=workers,
            progress=progress,
            on_error=on_error,
        )
        return made


class View(Dataset[T_co]):
    """A dataset that reads another one, and answers as that one does where it has no answer of its own."""

    @property
    def _viewed(self) -> Indexed:
        """The dataset that is read."""
        raise NotImplementedError(f"{type(self).__qualname__} must define _viewed")

    def __len__(self) -> int:
        return len(self._viewed)

    def object_spans(self, keys: Sequence[Any]) -> list[ObjectSpans]:
        """Ask the dataset: its indices are the same."""
        return protocol.object_spans(self._viewed, keys)

    @property
    def suits_threads(self) -> bool:
        """Whether the dataset suits threads."""
        return protocol.suits_threads(self._viewed)

    @property
    def draws(self) -> bool:
        """Whether reading a sample may draw random numbers."""
        return protocol.draws(self._viewed)

    @property
    def labels(self) -> NDArray[Any] | None:
        """The label of each sample, as the dataset has it."""
        return protocol.labels(self._viewed)

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes, as the dataset has them."""
        return protocol.classes(self._viewed)

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The label of each class, as the dataset has it."""
        return protocol.class_to_idx(self._viewed)

    def path(self, index: Any) -> str:
        """Return the path of a sample's file, as the dataset has it; ArgumentError where samples are no files."""
        found = self.inner(index)
        return protocol.path(*(found or (self._viewed, index)))

    @property
    def shard_lengths(self) -> Sequence[int] | None:
        """How many samples each shard has, as in the dataset."""
        return protocol.shard_lengths(self._viewed)

    def inner(self, index: Any) -> tuple[Any, Any] | None:
        """Return the dataset that is read, and the index there."""
        return self._viewed, index

    def explain(self) -> str:
        """Say how this is read: as the dataset is, where it makes no whole batches itself."""
        return super().explain() if protocol.batch_reader(self) is not None else protocol.explain(self._viewed)

    def where(self, index: Any) -> str | None:
        """Say where a sample comes from, as the dataset does."""
        found = self.inner(index)
        return None if found is None else protocol.where(*found)
