"""The suites for datasets: samples, whole batches, views, and all that a loader makes of them."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from headrace._native import extension
from headrace.collate.default import default_collate
from headrace.datasets import protocol
from headrace.datasets.combine import ConcatDataset
from headrace.datasets.subset import Subset
from headrace.ledger.proof import verify_epoch
from headrace.loader import DataLoader
from headrace.testing.transforms import assert_same, copied
from headrace.transforms import RandomHorizontalFlip, RandomResizedCrop, ToCHW, ToFloat

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class OneByOne:
    """A dataset that offers only the samples of another one, so that a loader reads and collates one by one.

    >>> len(OneByOne("abc")), OneByOne("abc")[1]
    (3, 'b')
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        return self._dataset[index]


class DatasetTests:
    """What every dataset with an index must do: inherit it and define ``make``.

    >>> from headrace import ArrayDataset
    >>> class TestArrays(DatasetTests):
    ...     def make(self):
    ...         return ArrayDataset(np.arange(20).reshape(10, 2), np.arange(10))
    >>> TestArrays().test_a_loader_gives_what_collating_its_samples_gives()

    A dataset of files writes them in a fixture (``@pytest.fixture(autouse=True)``), as ``make`` is called many times.
    At least five samples are needed. Each call of ``make`` returns an equal dataset.
    """

    collates = True
    """Whether samples fit together in one batch: images of several sizes do not."""

    def make(self) -> Any:
        """Return a new dataset."""
        raise NotImplementedError(f"{type(self).__qualname__} must define make(), which returns a dataset")

    def label(self, sample: Any) -> Any:
        """Return the label of a sample: the last part of a tuple, or what is under "label"."""
        return sample["label"] if isinstance(sample, dict) else sample[-1]

    def loader(self, dataset: Any, **options: Any) -> DataLoader[Any]:
        """Return a loader of shuffled batches of four."""
        how = {"shuffle": True, "seed": 5} | ({} if self.collates else {"collate_fn": list}) | options
        return DataLoader(dataset, 4, **how)

    def samples(self, dataset: Any) -> list[Any]:
        """Return all samples, as a loader gives them one by one, in order."""
        return list(DataLoader(OneByOne(dataset), None, seed=5, collate_fn=lambda sample: sample))

    def test_it_has_a_length_and_a_sample_at_each_index(self) -> None:
        """Read every sample; iterating gives as many."""
        dataset = self.make()
        assert len(dataset) >= 5
        assert len(self.samples(dataset)) == len(dataset)
        assert sum(1 for _ in dataset) == len(dataset)

    def test_an_index_may_be_negative(self) -> None:
        """Count from the end, as a list does; take NumPy's integers too."""
        dataset, size = self.make(), len(self.make())
        backwards: Any = Subset(OneByOne(dataset), [index - size for index in range(size)])
        assert_same(self.samples(backwards), self.samples(dataset))
        numpys: Any = Subset(OneByOne(dataset), [cast("int", np.int64(index)) for index in range(size)])
        assert_same(self.samples(numpys), self.samples(dataset))

    def test_an_index_out_of_range_is_an_index_error(self) -> None:
        """Raise IndexError just beyond both ends, so that plain iteration ends too."""
        dataset = self.make()
        with pytest.raises(IndexError):
            dataset[len(dataset)]
        with pytest.raises((IndexError, ValueError)):  # torch's ConcatDataset raises ValueError here
            dataset[-len(dataset) - 1]

    def test_many_samples_at_once_are_the_same_samples(self) -> None:
        """Return from ``__getitems__``, where there is one, what each index gives, in the order of the indices."""
        dataset = self.make()
        if not protocol.reads_many(dataset) or protocol.draws(dataset):
            pytest.skip("it reads one sample at a time")
        indices = [3, 0, 3, len(dataset) - 1]
        assert_same(list(dataset.__getitems__(indices)), [dataset[index] for index in indices])

    def test_whole_batches_are_what_collating_gives(self) -> None:
        """Return from ``read_batch``, where there is one, the collated samples, with the columns that it declares."""
        dataset = self.make()
        read = protocol.batch_reader(dataset)
        if read is None:
            pytest.skip("it reads no whole batches")
        indices = [3, 0, 3, len(dataset) - 1]
        batch = read(indices, empty=np.empty)
        if not protocol.draws(dataset):
            assert_same(batch, default_collate([dataset[index] for index in indices]))
        columns = protocol.columns(dataset)
        if columns is not None:
            found = [(array.dtype, array.shape[1:]) for array in columns.arrays(batch)]
            assert found == list(columns.rows)
        with pytest.raises(IndexError):
            read([0, len(dataset)], empty=np.empty)

    def test_a_loader_gives_what_collating_its_samples_gives(self) -> None:
        """Make the same batches as of a dataset that has nothing but samples: whole batches are a shortcut only."""
        expected = list(self.loader(OneByOne(self.make())))
        assert_same(list(self.loader(self.make())), expected)
        assert_same(list(self.loader(self.make(), num_workers=3, backend="threads")), expected)

    def test_a_pickled_copy_is_the_same_dataset(self) -> None:
        """Survive pickle, as worker processes need; the copy gives the same samples."""
        copy = pickle.loads(pickle.dumps(self.make()))  # noqa: S301  our own pickle
        assert len(copy) == len(self.make())
        assert_same(self.samples(copy), self.samples(self.make()))

    def test_threads_may_read_it_together(self) -> None:
        """Read one object on several threads, with small batches, and get what one thread gets."""
        dataset = self.make()
        how: dict[str, Any] = {"seed": 5, "collate_fn": list}
        expected: list[Any] = list(DataLoader(OneByOne(dataset), 1, **how))
        assert_same(list(DataLoader(OneByOne(dataset), 1, **how, num_workers=4, backend="threads")), expected)

    def test_it_says_where_a_sample_comes_from(self) -> None:
        """Answer ``where`` with a text or None for each index; a subset answers the same for its samples."""
        dataset = self.make()
        places = [protocol.where(dataset, index) for index in range(len(dataset))]
        assert all(place is None or isinstance(place, str) for place in places)
        assert protocol.where(Subset(dataset, [2, 0]), 1) == places[0]

    def test_labels_are_those_of_the_samples(self) -> None:
        """Know the label of each sample without reading it, where it has ``labels``; views keep them."""
        dataset = self.make()
        labels = protocol.labels(dataset)
        if labels is None:
            pytest.skip("it knows no labels")
        assert len(labels) == len(dataset)
        for sample, label in zip(self.samples(dataset), labels, strict=True):
            np.testing.assert_array_equal(self.label(sample), label)
        assert_same(protocol.labels(Subset(dataset, [2, 0])), labels[[2, 0]])
        assert_same(protocol.labels(ConcatDataset([dataset, dataset])), np.concatenate([labels, labels]))

    def test_views_give_its_samples(self) -> None:
        """Give the same samples through a subset and a concatenation, of views too."""
        indices = [3, 0, len(self.make()) - 1, 3, 1]
        kinds: list[Callable[[Any], Any]] = [
            lambda dataset: Subset(dataset, indices),
            lambda dataset: ConcatDataset([dataset, Subset(dataset, indices)]),
            lambda dataset: Subset(ConcatDataset([dataset, dataset]), [len(dataset) + 1, 1, 2]),
        ]
        for views in kinds:
            assert_same(list(self.loader(views(self.make()))), list(self.loader(views(OneByOne(self.make())))))

    def test_a_loop_resumes_where_its_state_was_saved(self) -> None:
        """Save a state after each of the first batches: another loader continues with the batches that were left."""
        whole = list(self.loader(self.make()))
        for steps in range(min(len(whole), 3)):
            begun = self.loader(self.make())
            batches = iter(begun)
            for _ in range(steps):
                next(batches)
            resumed = self.loader(self.make(), num_workers=2, backend="threads")
            resumed.load_state_dict(json.loads(json.dumps(begun.state_dict())))
            assert_same(list(resumed), whole[steps:])
            begun.close()

    def test_a_batch_and_a_sample_can_be_replayed(self) -> None:
        """Make one batch again, byte for byte, and tell the lineage of one of its samples."""
        loader = self.loader(self.make())
        batches = list(loader)
        assert_same(loader.replay(epoch=0, step=1), batches[1])
        lineage = loader.lineage(epoch=0, step=1, index=0)
        assert_same(lineage.sample, loader.replay(epoch=0, step=1, index=0))
        assert lineage.where is None or isinstance(lineage.where, str)

    def test_a_ledger_proves_that_each_sample_came_once(self, tmp_path: Path) -> None:
        """Write a ledger of two epochs, each of them exact."""
        loader = self.loader(self.make(), ledger=tmp_path / "ledger")
        for epoch in range(2):
            for _ in loader:
                pass
            assert verify_epoch(tmp_path / "ledger", epoch=epoch).exact


class FormatTests(DatasetTests):
    """What a format must do whose images the native extension reads: all of `DatasetTests`, and the native path.

    ``make`` returns a dataset of RGB images whose ``native_source()`` says where they are in files. Images may have
    several sizes (then set ``collates = False``).

    >>> from headrace import ArrayDataset
    >>> class TestImages(FormatTests):
    ...     def make(self):
    ...         return ArrayDataset(np.arange(10 * 27, dtype=np.uint8).reshape(10, 3, 3, 3))
    >>> TestImages().test_its_source_is_made_once()
    """

    chain: Any = (RandomResizedCrop(24), RandomHorizontalFlip(), ToFloat(), ToCHW())
    """Transforms that the native extension knows."""

    def test_its_source_is_made_once(self) -> None:
        """Return the same source from each call, and a source from a pickled copy too."""
        dataset = self.make()
        source = protocol.native_source(dataset)
        assert source is not None
        assert protocol.native_source(dataset) is source
        assert isinstance(protocol.native_source(copied(dataset)), type(source))

    def test_the_native_path_gives_what_the_steps_give(self) -> None:
        """Make the same batches by the native extension as sample by sample, through views too."""
        indices = [3, 0, len(self.make()) - 1, 3, 1]
        kinds: list[Callable[[Any], Any]] = [lambda dataset: dataset, lambda dataset: Subset(dataset, indices)]
        for views in kinds:
            native, steps = views(self.make().map(*self.chain)), OneByOne(views(self.make().map(*self.chain)))
            expected: list[Any] = list(DataLoader(steps, 4, seed=5))
            for workers in (0, 2):
                assert_same(list(DataLoader(native, 4, seed=5, num_workers=workers)), expected)

    def test_the_native_extension_takes_the_whole_chain(self) -> None:
        """Explain that all steps are fused."""
        if extension is None:
            pytest.skip("the native extension was not built: headrace doctor says why")
        assert "all fused" in protocol.explain(self.make().map(*self.chain))
