"""What libraries override in torch's loader, and read of it: honored as torch honors it, or refused, never ignored."""

from __future__ import annotations

import multiprocessing
import pickle
import warnings
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")
import torch.utils.data as theirs  # noqa: E402

import headrace.torch as ours  # noqa: E402
from headrace.errors import ArgumentError  # noqa: E402
from tests.parity import loads  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

libraries = pytest.mark.parametrize("library", [theirs, ours], ids=["torch", "headrace"])
everywhere = pytest.mark.parametrize("workers", [0, 2])


class Doubled:
    """Doubles the batches of an iterator, and hands everything else on to it."""

    def __init__(self, iterator: Any) -> None:
        self.iterator = iterator

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return next(self.iterator) * 2

    def __len__(self) -> int:
        return len(self.iterator)

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        self.iterator._reset(loader, first_iter)

    def __del__(self) -> None:
        if hasattr(self.iterator, "_workers"):
            self.iterator._shutdown_workers()


@libraries
@everywhere
@pytest.mark.parametrize("persistent", [False, True])
def test_an_overridden_get_iterator_gives_the_loop(library: Any, workers: int, persistent: bool) -> None:
    """Loop over what the subclass wraps around the loader's iterator, in each epoch."""

    class Doubling(library.DataLoader):
        def _get_iterator(self) -> Any:
            return Doubled(super()._get_iterator())

    loader = Doubling(loads.Numbers(5), 2, num_workers=workers, persistent_workers=persistent and workers > 0)
    for _ in range(2):
        assert [batch.tolist() for batch in loader] == [[0, 2], [4, 6], [8]]
    assert len(iter(loader)) == 3


@libraries
@everywhere
def test_a_subclass_may_begin_again_with_get_iterator(library: Any, workers: int) -> None:
    """Keep one iterator, and replace it by another, as ultralytics does when it changes its augmentation."""

    class Endless(library.DataLoader):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            self.iterator = super().__iter__()

        def __iter__(self) -> Iterator[Any]:
            for _ in range(len(self)):
                yield next(self.iterator)

        def reset(self) -> None:
            if hasattr(self.iterator, "_workers"):
                self.iterator._shutdown_workers()
            self.iterator = self._get_iterator()

    loader = Endless(loads.Numbers(4), 2, num_workers=workers)
    for _ in range(3):
        assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3]]
        loader.reset()
    del loader.iterator


@libraries
def test_a_base_class_may_be_called_by_name(library: Any) -> None:
    """Take calls that name the class, in the place of super()."""

    class Named(library.DataLoader):
        def __init__(self, *given: Any) -> None:
            library.DataLoader.__init__(self, *given)

        def __iter__(self) -> Any:
            return map(torch.Tensor.tolist, library.DataLoader.__iter__(self))

        def __len__(self) -> int:
            return -library.DataLoader.__len__(self) + 10

    loader = Named(range(3), 2)
    assert list(iter(loader)) == [[0, 1], [2]]
    assert len(loader) == 8


@libraries
@everywhere
@pytest.mark.parametrize("pin", [False, True])
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator:UserWarning")
def test_iterators_have_the_length_of_the_epoch(library: Any, workers: int, pin: bool) -> None:
    """Say how many batches an epoch has, whatever has come already; of a stream, nothing."""
    for how, expected in (({"batch_size": 3}, 4), ({"batch_size": None}, 10), ({"batch_sampler": [[1], [2, 3]]}, 2)):
        batches = iter(library.DataLoader(loads.Numbers(10), num_workers=workers, pin_memory=pin, **how))
        assert len(batches) == expected
        next(batches)
        assert len(batches) == expected
    with pytest.raises(TypeError):
        len(iter(library.DataLoader(loads.Counted(5), num_workers=workers, pin_memory=pin)))
    assert len(list(iter(library.DataLoader(loads.Counted(5), num_workers=0)))) == 5


@libraries
@everywhere
def test_a_loader_may_be_its_own_collate_function(library: Any, workers: int) -> None:
    """Take what is callable for what it is, whatever length it has, as PyG's ``TemporalDataLoader`` does."""

    class Collating(library.DataLoader):  # type: ignore[misc, name-defined]
        def __init__(self, dataset: Any) -> None:
            super().__init__(dataset, 2, collate_fn=self, num_workers=workers)

        def __len__(self) -> int:
            return len(vars(self).get("dataset", ()))

        def __call__(self, samples: list[int]) -> tuple[int, ...]:
            return tuple(samples)

    assert list(Collating(loads.Numbers(3))) == [(0, 1), (2,)]


@libraries
@everywhere
def test_iterators_are_torchs(library: Any, workers: int) -> None:
    """Be known by ``isinstance``, refuse to be pickled, and end the workers by torch's name."""
    batches = iter(library.DataLoader(loads.Numbers(8), 2, num_workers=workers))
    assert isinstance(batches, theirs.dataloader._BaseDataLoaderIter)
    assert hasattr(batches, "_workers") is (workers > 0)
    with pytest.raises(NotImplementedError, match="cannot be pickled"):
        pickle.dumps(batches)
    assert next(batches).tolist() == [0, 1]
    if workers:
        processes = batches._workers
        batches._shutdown_workers()
        assert not any(process.is_alive() for process in processes)


@everywhere
@pytest.mark.parametrize("name", ["_next_index", "_next_data", "_reset", "_sampler_iter", "_num_yielded"])
def test_what_torchs_iterators_hold_is_an_error(name: str, workers: int) -> None:
    """Say which parts ours have none of, and what there is in their place."""
    batches = iter(ours.DataLoader(loads.Numbers(8), 2, num_workers=workers))
    with pytest.raises(AttributeError, match=f"no attribute '{name}': headrace's iterators have none of the private"):
        getattr(batches, name)


@libraries
@everywhere
def test_an_overridden_index_sampler_gives_the_order(library: Any, workers: int) -> None:
    """Read the batches that a subclass's ``_index_sampler`` has, in loops and in len."""

    class Backwards(library.DataLoader):
        @property
        def _index_sampler(self) -> Any:
            inner = super()._index_sampler
            return [list(keys) for keys in inner][::-1] if self._auto_collation else list(inner)[::-1]

    assert [b.tolist() for b in Backwards(loads.Numbers(5), 2, num_workers=workers)] == [[4], [2, 3], [0, 1]]
    assert list(Backwards(loads.Numbers(3), None, num_workers=workers)) == [2, 1, 0]
    assert len(Backwards(loads.Numbers(5), 2)) == 3


@libraries
def test_a_property_may_hold_the_batch_sampler(library: Any) -> None:
    """Set attributes by way of the subclass's own setters, and read them back."""

    class Held(library.DataLoader):
        @property
        def batch_sampler(self) -> Any:
            return [[0], [1]] if "held" in vars(self) else None

        @batch_sampler.setter
        def batch_sampler(self, value: Any) -> None:
            object.__setattr__(self, "held", value)

    loader = Held(range(5), 2)
    assert loader.held.batch_size == 2
    assert [batch.tolist() for batch in loader] == [[0], [1]]


@libraries
def test_an_overridden_setattr_sees_what_is_set(library: Any) -> None:
    """Set each attribute by it, of the constructor too."""
    seen = []

    class Watched(library.DataLoader):
        def __setattr__(self, name: str, value: Any) -> None:
            seen.append(name)
            super().__setattr__(name, value)

    loader = Watched(range(5), 2)
    assert {"dataset", "batch_size", "sampler", "batch_sampler", "collate_fn", "num_workers", "drop_last"} <= set(seen)
    assert len(list(loader)) == 3


@libraries
def test_an_overridden_check_of_the_workers_is_the_check(library: Any) -> None:
    """Warn of many workers only as the subclass does."""
    checked = []

    class Quiet(library.DataLoader):
        def check_worker_number_rationality(self) -> None:
            checked.append(self.num_workers)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Quiet(loads.Numbers(4), 2, num_workers=1000)
    assert checked == [1000]


@libraries
def test_what_len_promised_can_be_looked_up_and_taken_back(library: Any) -> None:
    """Show the length of a stream that was asked for, under torch's name, and forget it."""

    class Short(theirs.IterableDataset[int]):
        def __iter__(self) -> Any:
            return iter(range(4))

        def __len__(self) -> int:
            return 2

    loader = library.DataLoader(Short())
    assert loader._IterableDataset_len_called is None
    assert len(loader) == loader._IterableDataset_len_called == 2
    with pytest.warns(UserWarning, match="Length of IterableDataset"):
        list(loader)
    loader._IterableDataset_len_called = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sum(1 for _ in loader) == 4


@libraries
def test_what_a_loader_shows_of_itself(library: Any) -> None:
    """Have the attributes that libraries build another loader from."""
    kinds = theirs.dataloader._DatasetKind
    loader = library.DataLoader(range(5), 2, shuffle=True)
    assert loader._index_sampler is loader.batch_sampler
    assert (loader._auto_collation, loader._dataset_kind) == (True, kinds.Map)
    assert isinstance(loader.batch_sampler.sampler, theirs.RandomSampler)
    assert loader.batch_sampler.sampler is loader.sampler
    assert loader.multiprocessing_context is loader._iterator is None
    single = library.DataLoader(range(5), None)
    assert single._index_sampler is single.sampler
    assert not single._auto_collation
    stream = library.DataLoader(loads.Counted(5), 2)
    assert stream._dataset_kind == kinds.Iterable
    assert next(iter(stream._index_sampler)) == [None, None]


class Counting(theirs.Dataset[int]):
    """Counts how often somebody asks for its length."""

    asked = 0

    def __len__(self) -> int:
        self.asked += 1
        return 10

    def __getitem__(self, index: int) -> int:
        return index


@libraries
@everywhere
@pytest.mark.parametrize("how", [{"sampler": [1, 2]}, {"batch_sampler": [[1], [2]]}], ids=str)
def test_a_sampler_makes_the_length_of_a_dataset_needless(library: Any, workers: int, how: dict[str, Any]) -> None:
    """Never ask a dataset for a length that the order does not depend on."""
    dataset = Counting()
    loader = library.DataLoader(dataset, num_workers=workers, **how)
    assert len(list(loader)) == len(loader) == 2
    assert dataset.asked == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_torchs_own_collate_functions_are_read_as_ours(workers: int) -> None:
    """Lose nothing of ours where a library passes the function that is the default."""
    loader = ours.DataLoader(range(4), 2, num_workers=workers, collate_fn=theirs.default_collate)
    assert loader.collate_fn is ours.default_collate
    assert loader._session.settings.kind == ("threads" if workers else "inline")
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3]]
    single = ours.DataLoader(range(4), None, collate_fn=theirs.default_convert)
    assert single.collate_fn is ours.default_convert


def as_a_property(value: Any) -> Any:
    return property(lambda self: value, lambda self, given: None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_auto_collation", False),
        ("_dataset_kind", 1),
        ("batch_size", 3),
        ("collate_fn", list),
        ("multiprocessing_context", "spawn"),
        ("num_workers", 2),
    ],
)
def test_an_override_that_cannot_be_honored_is_an_error(name: str, value: Any) -> None:
    """Refuse what a loop would not read, and say which attribute it is."""
    kind = type("Changed", (ours.DataLoader,), {name: as_a_property(value)})
    with pytest.raises(ArgumentError, match=f"{name} of Changed is .*, but the loader was made with"):
        iter(kind(loads.Numbers(4), 2))


@pytest.mark.parametrize(("name", "value"), [("collate_fn", list), ("num_workers", 1), ("timeout", 3)])
def test_a_change_past_the_loader_is_an_error(name: str, value: Any) -> None:
    """Refuse to loop after somebody changed an attribute where the loader does not see it."""
    loader = ours.DataLoader(loads.Numbers(4), 2)
    object.__setattr__(loader, name, value)
    with pytest.raises(ArgumentError, match=f"pass {name}= to the constructor"):
        iter(loader)


def test_a_stream_refuses_a_replaced_sampler() -> None:
    """Say that a stream has its own order, instead of reading a sampler that gives no index."""
    loader = ours.DataLoader(loads.Counted(4), 2)
    object.__setattr__(loader, "batch_sampler", [[0, 1]])
    with pytest.raises(ArgumentError, match="the sampler of a loader over an iterable dataset was replaced"):
        iter(loader)


@libraries
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_how_batches_are_made_can_be_set_for_later_loops(library: Any, workers: int, persistent: bool) -> None:
    """Let scripts set what says how batches are made, as Lightning sets ``worker_init_fn``."""
    loader = library.DataLoader(loads.Numbers(4), 2, num_workers=workers, persistent_workers=persistent and workers > 0)
    if not persistent:  # torch's workers that stay know nothing of it
        assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3]]
    loader.collate_fn = tuple
    loader.worker_init_fn = print
    loader.timeout = 60 * (workers > 0)
    loader.generator = generator = torch.Generator()
    assert (loader.collate_fn, loader.worker_init_fn, loader.generator) == (tuple, print, generator)
    assert list(loader) == [(0, 1), (2, 3)]


def test_the_number_of_workers_can_be_set() -> None:
    """Use other workers in the next loop; those that stayed for it end."""
    loader = ours.DataLoader(loads.Numbers(4), 2, num_workers=2, persistent_workers=True)
    assert len(list(loader)) == 2
    before = multiprocessing.active_children()
    loader.num_workers = 1
    assert not set(before) & set(multiprocessing.active_children())
    batches = iter(loader)
    assert (next(batches).tolist(), loader.num_workers) == ([0, 1], 1)
    with pytest.raises(ValueError, match="num_workers was set while a loop uses the workers that stay"):
        loader.num_workers = 2
    assert (next(batches).tolist(), loader.num_workers) == ([2, 3], 1)
    with pytest.raises(ValueError, match="persistent_workers option needs num_workers > 0"):
        loader.num_workers = 0
    assert len(list(loader)) == 2


def test_arguments_of_ours_cannot_be_set() -> None:
    """Refuse what a saved state depends on."""
    loader = ours.DataLoader(loads.Numbers(4), batch_size=2, seed=0)
    for name, value in (("seed", 1), ("on_error", "skip"), ("rank", 1)):
        with pytest.raises(ValueError, match=f"make another loader, with {name}="):
            setattr(loader, name, value)
