"""The suite for transforms: the same sample at the same place, whoever applies it, and no change of its input."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np

from headrace.datasets.base import Dataset
from headrace.loader import DataLoader


class Samples(Dataset[Any]):
    """A dataset of given samples.

    >>> Samples(["a", "b"])[1]
    'b'
    """

    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


class TransformTests:
    """What every transform must do, of images or not: inherit it and define ``make``.

    >>> from headrace import RandomHorizontalFlip
    >>> class TestFlip(TransformTests):
    ...     def make(self):
    ...         return RandomHorizontalFlip()
    >>> TestFlip().test_the_input_is_not_changed()

    A transform that takes other samples than uint8 images also overrides ``samples``.
    """

    def make(self) -> Any:
        """Return a new transform: a callable of one sample, or of ``(sample, rng)``."""
        raise NotImplementedError(f"{type(self).__qualname__} must define make(), which returns a transform")

    def samples(self) -> list[Any]:
        """Return new samples that the transform takes: here twelve uint8 images of shape (40, 60, 3)."""
        return list(np.random.default_rng(0).integers(0, 256, (12, 40, 60, 3), np.uint8))

    def transformed(self, transform: Any, **options: Any) -> list[Any]:
        """Return the samples as a loader gives them, in order."""
        dataset = Samples(self.samples()).map(transform)
        loader: DataLoader[list[Any]] = DataLoader(dataset, 4, seed=5, collate_fn=list, **options)
        return [sample for batch in loader for sample in batch]

    def test_its_result_depends_on_the_place_alone(self) -> None:
        """Give the same samples in the loop's own thread, on worker threads, and from a pickled copy."""
        first = self.transformed(self.make())
        assert len(first) == len(self.samples())
        assert_same(self.transformed(self.make()), first)
        assert_same(self.transformed(self.make(), num_workers=2, backend="threads"), first)
        assert_same(self.transformed(copied(self.make())), first)

    def test_one_object_serves_many_samples(self) -> None:
        """Keep nothing of a sample: the second pass with one object gives what the first gave."""
        transform = self.make()
        assert_same(self.transformed(transform), self.transformed(transform))

    def test_the_input_is_not_changed(self) -> None:
        """Leave the sample as it was: its dataset may give the same object again."""
        samples = self.samples()
        before = copy.deepcopy(samples)
        dataset = Samples(samples).map(self.make())
        for _ in DataLoader(dataset, 4, seed=5, collate_fn=list):
            pass
        assert_same(samples, before)

    def test_it_needs_no_writable_input(self) -> None:
        """Take arrays that cannot be written to: those of memory maps and of bytes."""
        samples = self.samples()
        for sample in samples:
            for array in arrays_in(sample):
                array.setflags(write=False)
        loader: DataLoader[list[Any]] = DataLoader(
            Samples(samples).map(self.make()), len(samples), seed=5, collate_fn=list
        )
        assert_same(next(iter(loader)), self.transformed(self.make()))

    def test_equal_arguments_make_an_equal_name(self) -> None:
        """Have a representation that names its class, without an address in memory."""
        assert repr(self.make()) == repr(self.make()) == repr(copied(self.make()))
        assert type(self.make()).__name__ in repr(self.make())

    def test_lineage_names_it(self) -> None:
        """Appear under the name of its class in the lineage of a sample, which ends with the loader's sample."""
        transform = self.make()
        loader: DataLoader[list[Any]] = DataLoader(Samples(self.samples()).map(transform), 4, seed=5, collate_fn=list)
        batch = list(loader)[1]
        lineage = loader.lineage(epoch=0, step=1, index=2)
        assert lineage.steps[-1].name.startswith(type(transform).__name__)
        assert_same([lineage.sample], [batch[2]])
        assert_same([lineage.before], [self.samples()[6]])

    def test_a_batch_can_be_replayed(self) -> None:
        """Make one batch of an epoch again, byte for byte."""
        loader: DataLoader[list[Any]] = DataLoader(Samples(self.samples()).map(self.make()), 4, seed=5, collate_fn=list)
        assert_same(loader.replay(epoch=0, step=2), list(loader)[2])


def copied(transform: Any) -> Any:
    """Return a pickled copy.

    >>> copied([1])
    [1]
    """
    return pickle.loads(pickle.dumps(transform))  # noqa: S301  our own pickle


def arrays_in(sample: Any) -> list[Any]:
    """Return the arrays of a sample: itself, or those that it holds.

    >>> len(arrays_in({"image": np.zeros(3), "label": 1}))
    1
    """
    if isinstance(sample, np.ndarray):
        return [sample]
    parts = sample.values() if isinstance(sample, dict) else sample if isinstance(sample, list | tuple) else ()
    return [array for part in parts for array in arrays_in(part)]


def assert_same(found: Any, expected: Any) -> None:
    """Compare samples of any form: types, dtypes, shapes, and every value.

    >>> assert_same([{"image": np.zeros(2)}, 1], [{"image": np.zeros(2)}, 1])
    """
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        found, expected = list(found.values()), list(expected.values())
    if isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, np.ndarray | np.generic):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected or (found != found and expected != expected)
