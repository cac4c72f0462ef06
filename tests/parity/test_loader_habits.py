"""What programs written for torch's DataLoader rely on, and its own tests hold: run on torch and on headrace.torch."""

from __future__ import annotations

import copy
import gc
import inspect
import os
import pickle
import random
import threading
import warnings
from collections import namedtuple
from multiprocessing import forkserver
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.utils.data as theirs  # noqa: E402

import headrace.torch as ours  # noqa: E402
from tests.parity import loads  # noqa: E402

libraries = pytest.mark.parametrize("library", [theirs, ours], ids=["torch", "headrace"])


@pytest.fixture(scope="module", autouse=True)
def helpers() -> None:
    """Start what multiprocessing starts once and leaves running, before leaks are counted."""
    forkserver.ensure_running()


@pytest.fixture(autouse=True)
def torchs_workers_end() -> Any:
    """Let what torch's iterators hold go before leaks are counted."""
    yield
    gc.collect()


def flat(loader: Any) -> list[Any]:
    return [item for batch in loader for item in batch.tolist()]


def test_the_constructor_is_torchs_and_then_some() -> None:
    """Take the same parameters, by the same names, in the same order, of the same kind, with the same defaults."""
    expected = inspect.signature(theirs.DataLoader.__init__).parameters
    found = inspect.signature(ours.DataLoader.__init__).parameters
    assert [(p.name, p.kind, p.default) for p in expected.values()] == [
        (p.name, p.kind, p.default) for p in found.values()
    ][: len(expected)]
    assert all(p.kind is p.KEYWORD_ONLY for p in list(found.values())[len(expected) :])


def test_the_loader_is_one_of_torchs() -> None:
    """Be what a library asks for, also with a type between brackets."""
    assert issubclass(ours.DataLoader, theirs.DataLoader)
    assert ours.DataLoader[int] is not None


# As torch does, which then takes ten seconds to end: so it is not run beside ours here.
@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_at_the_streams_beginning_is_raised_by_the_loop(workers: int) -> None:
    """Tell what the dataset's own ``__iter__`` raised."""

    class Failing(theirs.IterableDataset[Any]):
        def __iter__(self) -> Any:
            raise RuntimeError("no beginning")

    with pytest.raises(RuntimeError, match="no beginning"):
        list(iter(ours.DataLoader(Failing(), num_workers=workers)))


@pytest.mark.parametrize("dataset", [loads.Numbers(4), loads.Shared(4)], ids=["map", "stream"])
def test_an_error_in_worker_init_fn_is_raised_by_the_loop(dataset: Any) -> None:
    """Tell what the function raised, with its type."""

    def init(number: int) -> None:
        raise RuntimeError(f"worker {number} has no mind to")

    with pytest.raises(RuntimeError, match="has no mind to"):
        list(ours.DataLoader(dataset, num_workers=2, worker_init_fn=init))


@libraries
@pytest.mark.parametrize("workers", [0, 2])
def test_each_batch_that_fails_is_one_error(library: Any, workers: int) -> None:
    """Continue after errors: as many as there are batches, then the end, and the end again."""

    class Missing(theirs.Dataset[Any]):
        def __len__(self) -> int:
            return 41

    iterator = iter(library.DataLoader(Missing(), batch_size=2, shuffle=True, num_workers=workers))
    errors = 0
    while True:
        try:
            next(iterator)
        except NotImplementedError:
            errors += 1
        except StopIteration:
            break
    assert errors == 21
    with pytest.raises(StopIteration):
        next(iterator)


@libraries
def test_what_the_plan_follows_from_cannot_be_set_afterwards(library: Any) -> None:
    """Refuse it in torch's words, and let a script keep attributes of its own."""
    loader = library.DataLoader(loads.Numbers(4), batch_size=2, num_workers=2)
    for name in ("batch_size", "sampler", "batch_sampler", "drop_last", "dataset", "persistent_workers"):
        with pytest.raises(ValueError, match=f"{name} attribute should not be set after DataLoader is initialized"):
            setattr(loader, name, None)
    loader.own = "attribute"
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3]]


@libraries
@pytest.mark.parametrize("workers", [0, 2])
def test_a_sampler_of_whole_batches_with_batch_size_none(library: Any, workers: int) -> None:
    """Hand lists of indices to the dataset, and pass on what it makes of them."""

    class Bulk(loads.Numbers):
        def __getitem__(self, indices: Any) -> Any:
            return torch.as_tensor(indices) * 10

    sampler = theirs.BatchSampler(theirs.RandomSampler(range(35)), 4, drop_last=False)
    loader = library.DataLoader(Bulk(35), batch_size=None, sampler=sampler, num_workers=workers)
    assert not loader._auto_collation
    for _ in range(2):
        assert sorted(flat(loader)) == list(range(0, 350, 10))


@libraries
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_dataset_that_grows_has_a_longer_epoch(library: Any, shuffle: bool) -> None:
    """Ask for the length again each time."""
    dataset = [torch.ones(4) for _ in range(4)]
    loader = library.DataLoader(dataset, shuffle=shuffle)
    assert len(loader) == len(list(loader)) == 4
    dataset.append(torch.ones(4))
    assert len(loader) == len(list(loader)) == 5


@libraries
def test_several_loops_at_once(library: Any) -> None:
    """Let loops over one loader, and over two, run side by side."""
    one = library.DataLoader(loads.Numbers(4), num_workers=1)
    two = library.DataLoader(loads.Numbers(4), num_workers=2, multiprocessing_context="fork")
    a, b, c = iter(one), iter(one), iter(two)
    assert [int(next(each)) for each in (a, b, c, a, b, c)] == [0, 0, 0, 1, 1, 1]
    assert [len(list(each)) for each in (a, b, c)] == [2, 2, 2]


@libraries
@pytest.mark.parametrize("kind", [list, tuple, set, sum])
@pytest.mark.parametrize("workers", [0, 1])
def test_builtins_read_a_loader(library: Any, kind: Any, workers: int) -> None:
    """Give all samples to list() and its like, which ask for a length first."""
    for dataset in (loads.Numbers(20), loads.Counted(20)):
        assert kind(library.DataLoader(dataset, batch_size=None, num_workers=workers)) == kind(range(20))
    assert list(map(torch.Tensor.tolist, library.DataLoader(loads.Counted(5), 2, num_workers=workers))) == [
        [0, 1],
        [2, 3],
        [4],
    ]


class Parts(theirs.IterableDataset[Any]):
    """Gives each worker a part of a length of its own."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes

    def __len__(self) -> int:
        return sum(self.sizes)

    def __iter__(self) -> Any:
        number = theirs.get_worker_info().id
        start = sum(self.sizes[:number])
        return iter(range(start, start + self.sizes[number]))


@libraries
@pytest.mark.parametrize("prefetch", [None, 3])
@pytest.mark.parametrize("drop_last", [False, True])
def test_parts_of_a_stream_are_batched_apart(library: Any, prefetch: int | None, drop_last: bool) -> None:
    """Batch each worker's part by itself, turn by turn; workers that are done are passed over."""
    loader = library.DataLoader(
        Parts([20, 5, 13]), 7, num_workers=3, drop_last=drop_last, prefetch_factor=prefetch, worker_init_fn=loads.greet
    )
    batches = [batch.tolist() for batch in iter(loader)]
    expected = [
        [0, 1, 2, 3, 4, 5, 6],
        [20, 21, 22, 23, 24],
        [25, 26, 27, 28, 29, 30, 31],
        [7, 8, 9, 10, 11, 12, 13],
        [32, 33, 34, 35, 36, 37],
        [14, 15, 16, 17, 18, 19],
    ]
    assert batches == ([batch for batch in expected if len(batch) == 7] if drop_last else expected)
    assert len(loader) == (5 if drop_last else 6)


@libraries
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("taken", [1, 100])
def test_workers_have_ended_well_when_the_iterator_is_gone(library: Any, persistent: bool, taken: int) -> None:
    """End the processes with exit code 0, after the last batch or in the middle of an epoch."""
    loader = library.DataLoader(loads.Numbers(20), 2, num_workers=2, persistent_workers=persistent)
    iterator = iter(loader)
    for _ in zip(range(taken), iterator, strict=False):
        pass
    workers = iterator._workers
    del iterator, loader
    gc.collect()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
        assert worker.exitcode == 0


@libraries
def test_chained_streams_in_workers(library: Any) -> None:
    """Read streams one after the other, each by its rules."""
    chained = theirs.ChainDataset([loads.Shared(4), loads.Counted(3)])
    assert len(chained) == 7
    assert flat(library.DataLoader(chained, 2, num_workers=0)) == [0, 1, 2, 3, 0, 1, 2]
    assert sorted(flat(library.DataLoader(chained, 2, num_workers=2))) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]


@libraries
@pytest.mark.parametrize(("promise", "warned"), [(20, False), (19, True)])
def test_a_stream_that_gives_more_than_it_said_warns_after_len(library: Any, promise: int, warned: bool) -> None:
    """Warn with each sample too many; and only where the length was asked for."""

    class Said(loads.Stream):
        def __len__(self) -> int:
            return promise

    loader = library.DataLoader(Said(20), batch_size=1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert sum(1 for _ in loader) == 20
        assert not said
        assert len(loader) == promise
        assert sum(1 for _ in loader) == 20
    assert len(said) == int(warned)
    if warned:
        assert f"was reported to be {promise}" in str(said[0].message)
        assert "get_worker_info" not in str(said[0].message) or library is ours


class Told(loads.Numbers):
    """Says which worker reads it, in which process, and what its worker_init_fn has left with it."""

    def __getitem__(self, index: int) -> Any:
        return torch.tensor(self.value)


def tell(number: int) -> None:
    info: Any = theirs.get_worker_info()
    assert info.id == number < info.num_workers
    assert info.seed == torch.initial_seed()
    assert isinstance(info.dataset, Told)
    assert not hasattr(info.dataset, "value")
    with pytest.raises((RuntimeError, AttributeError), match=r"[Cc]annot assign"):  # older and newer torch
        info.id = 3999
    assert all(f"{name}=" in repr(info) for name in ("id", "num_workers", "seed", "dataset"))
    info.dataset.value = [number, os.getpid()]


@libraries
def test_worker_info_is_there_for_those_who_ask_torch(library: Any) -> None:
    """Know the worker and its copy of the dataset inside; None, and an untouched dataset, outside."""
    assert theirs.get_worker_info() is None
    dataset = Told(8)
    loader = library.DataLoader(dataset, 2, num_workers=2, worker_init_fn=tell)
    iterator = iter(loader)
    pids = [worker.pid for worker in iterator._workers]
    assert torch.cat(list(iterator)).tolist() == [[n, pids[n]] for n in (0, 0, 1, 1, 0, 0, 1, 1)]
    assert theirs.get_worker_info() is None
    assert not hasattr(dataset, "value")


class Seed(loads.Numbers):
    def __getitem__(self, index: int) -> int:
        return torch.initial_seed()


@libraries
def test_each_worker_has_a_seed_of_its_own_that_the_generator_says(library: Any) -> None:
    """Seed workers apart, again for each loop, and alike for a generator seeded alike."""

    def loop(seed: int) -> Any:
        generator = torch.Generator().manual_seed(seed)
        loader = library.DataLoader(Seed(6), num_workers=6, generator=generator)
        return [set(flat(loader)) for _ in range(2)]

    first, second = loop(42)
    assert len(first) == len(second) == 6
    assert first != second
    assert loop(42) == [first, second]
    assert loop(43) != [first, second]


class GlobalDraws(loads.Numbers):
    """Draws from every global generator."""

    def __getitem__(self, index: int) -> Any:
        return random.random(), np.random.random(), torch.rand(1).item()


def test_the_callers_own_seeding_reaches_a_dataset_without_workers() -> None:
    """Give what torch gives where nobody asked for a seed: the caller's streams, moved on as the dataset draws."""

    def run(library: Any) -> Any:
        random.seed(1), np.random.seed(2), torch.manual_seed(3)
        drawn = [torch.stack(batch).tolist() for batch in library.DataLoader(GlobalDraws(6), 2)]
        return drawn, random.random(), np.random.random(), torch.rand(1).item()

    assert run(ours) == run(theirs)


def seeding(number: int) -> None:
    torch.manual_seed(12345)
    np.random.seed(number)


@libraries
def test_what_worker_init_fn_seeds_stays_seeded(library: Any) -> None:
    """Leave torch's generator where the function put it."""
    assert set(flat(library.DataLoader(Seed(4), 2, num_workers=2, worker_init_fn=seeding))) == {12345}


class Kept(loads.Numbers):
    """Is its own worker_init_fn."""

    number = -1

    def begin(self, number: int) -> None:
        self.number = number

    def __getitem__(self, index: int) -> Any:
        return self.number, index


@pytest.mark.parametrize(
    ("library", "method"), [(theirs, "fork"), (ours, "fork"), (ours, "forkserver")], ids=["torch", "headrace", "server"]
)
def test_the_datasets_own_method_prepares_the_copy_that_is_read(library: Any, method: str) -> None:
    """Send the dataset and its bound method together: they are one in the worker, as they were outside."""
    dataset = Kept(8)
    loader = library.DataLoader(
        dataset, 2, num_workers=2, worker_init_fn=dataset.begin, multiprocessing_context=method, shuffle=False
    )
    assert [workers.tolist() for workers, _ in loader] == [[0, 0], [1, 1], [0, 0], [1, 1]]
    assert dataset.number == -1


class Pinned(loads.Numbers):
    def __getitem__(self, index: int) -> Any:
        return sorted(os.sched_getaffinity(0))


@libraries
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinities here")
def test_worker_init_fn_may_bind_the_worker_to_a_cpu(library: Any) -> None:
    """Leave affinities to the user."""
    cpu = max(os.sched_getaffinity(0))
    loader = library.DataLoader(Pinned(4), num_workers=2, worker_init_fn=lambda number: os.sched_setaffinity(0, [cpu]))
    assert [[one.item() for one in batch] for batch in loader] == [[cpu]] * 4


@libraries
def test_too_many_workers_are_warned_of(library: Any) -> None:
    """Warn as the loader is made, in torch's words."""
    with pytest.warns(UserWarning, match="excessive worker creation might get DataLoader running slow or even freeze"):
        library.DataLoader(loads.Numbers(4), batch_size=2, num_workers=1000)


@libraries
def test_a_distributed_sampler_shuffles_by_its_epoch(library: Any) -> None:
    """Use the sampler as it is, with its ``set_epoch``; ranks share the epoch without overlap."""
    seen = []
    for rank in range(2):
        sampler = theirs.DistributedSampler(loads.Numbers(10), 2, rank, shuffle=True, seed=5)
        loader = library.DataLoader(loads.Numbers(10), 2, sampler=sampler)
        assert len(loader) == 3
        epochs = []
        for number in (0, 1, 0):
            sampler.set_epoch(number)
            epochs.append(flat(loader))
        assert epochs[0] == epochs[2] != epochs[1]
        seen += epochs[0]
    assert sorted(seen) == list(range(10))


Pair = namedtuple("Pair", "left right")


class Mixed(loads.Numbers):
    def __getitem__(self, index: int) -> Any:
        return {"pair": Pair(torch.tensor(index), [str(index), index / 2]), "bytes": b"x", "flag": index > 1}


@libraries
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("pin", [False, True])
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator:UserWarning")
def test_containers_keep_their_kind(library: Any, workers: int, pin: bool) -> None:
    """Give a named tuple for named tuples, lists of strings for strings, through workers and pinning."""
    (batch,) = library.DataLoader(Mixed(3), 3, num_workers=workers, pin_memory=pin)
    pair = batch["pair"]
    assert type(pair) is Pair
    assert pair.left.tolist() == [0, 1, 2]
    assert list(pair.right[0]) == ["0", "1", "2"]
    assert pair.right[1].tolist() == [0, 0.5, 1]
    assert pair.right[1].dtype == torch.float64
    assert batch["bytes"] == [b"x"] * 3
    assert batch["flag"].dtype == torch.bool


class Custom:
    """A batch that is no container, with a pin_memory of its own."""

    def __init__(self, samples: Any) -> None:
        self.numbers = torch.tensor(samples)

    def pin_memory(self) -> Any:
        return self


@libraries
@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_may_be_of_any_class(library: Any, workers: int) -> None:
    """Pass on what collate_fn makes, from workers too."""
    batches = list(library.DataLoader(loads.Numbers(4), 2, collate_fn=Custom, num_workers=workers))
    assert [(type(batch), batch.numbers.tolist()) for batch in batches] == [(Custom, [0, 1]), (Custom, [2, 3])]


@pytest.mark.parametrize(
    ("library", "workers"), [(theirs, 0), (ours, 0), (ours, 1)], ids=["torch", "inline", "process"]
)
@pytest.mark.parametrize("layout", ["coo", "csr", "nested"])
@pytest.mark.filterwarnings("ignore:.*(prototype|beta|Sparse invariant):UserWarning")
def test_sparse_and_nested_tensors_pass_but_do_not_stack(library: Any, layout: str, workers: int) -> None:
    """Pass them on one by one, or with a collate_fn; refuse to stack them in torch's words."""

    class Odd(loads.Numbers):
        def __getitem__(self, index: int) -> Any:
            if layout == "nested":
                return torch.nested.nested_tensor([torch.full((2,), 1.0 * index), torch.zeros(3)])
            tensor = torch.eye(3) * index
            return tensor.to_sparse() if layout == "coo" else tensor.to_sparse_csr()

    def dense(tensor: Any) -> Any:
        return [part.tolist() for part in tensor.unbind()] if tensor.is_nested else tensor.to_dense().tolist()

    expected = [dense(Odd(3)[index]) for index in range(3)]
    assert [dense(one) for one in library.DataLoader(Odd(3), batch_size=None, num_workers=workers)] == expected
    (batch,) = library.DataLoader(Odd(3), 3, collate_fn=list, num_workers=workers)
    assert [dense(one) for one in batch] == expected
    kind = "nested" if layout == "nested" else "sparse"
    with pytest.raises(
        RuntimeError, match=f"Batches of {kind} tensors are not currently supported by the default coll"
    ):
        next(iter(library.DataLoader(Odd(3), 3, num_workers=workers)))


@libraries
@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda loader: pickle.loads(pickle.dumps(loader))])
def test_loaders_are_copied_and_pickled(library: Any, how: Any) -> None:
    """Give a loader that gives the same, also where the first is in the middle of a loop."""
    loader = library.DataLoader(loads.Numbers(6), 2, shuffle=True, num_workers=1, collate_fn=loads.bag)
    iterator = iter(loader)
    next(iterator)
    again = how(loader)
    assert (again.batch_size, again.num_workers, again.collate_fn) == (2, 1, loads.bag)
    assert sorted(n for batch in again for n in batch["bag"]) == list(range(6))
    assert len(list(iterator)) == 2
    with pytest.raises(ValueError, match="should not be set"):
        again.batch_size = 3


@libraries
def test_subclasses_set_attributes_and_extend_the_loop(library: Any) -> None:
    """Let a subclass set what it likes before and after the constructor, and wrap iter and len."""

    class Doubling(library.DataLoader):  # type: ignore[misc,name-defined]
        def __init__(self, *given: Any, factor: int = 2, **named: Any) -> None:
            self.before = 1
            super().__init__(*given, collate_fn=self.collate, **named)
            self.factor = factor

        def collate(self, samples: Any) -> Any:
            return [sample * self.factor for sample in samples]

        def __iter__(self) -> Any:
            for batch in super().__iter__():
                yield batch, self.before

        def __len__(self) -> int:
            return super().__len__() * 10

    for workers in (0, 1):
        loader = Doubling(loads.Numbers(4), 2, num_workers=workers, factor=3)
        assert list(loader) == [([0, 3], 1), ([6, 9], 1)]
        assert len(loader) == 20


@libraries
@pytest.mark.parametrize("workers", [0, 2])
def test_a_sampler_is_read_as_far_as_is_fetched_ahead(library: Any, workers: int) -> None:
    """Take indices from a sampler when they are asked for, and no more than prefetching needs."""
    taken = []

    class Counting:
        def __iter__(self) -> Any:
            for index in range(100):
                taken.append(index)
                yield index

    iterator = iter(library.DataLoader(loads.Numbers(100), 5, sampler=Counting(), num_workers=workers))
    next(iterator)
    # With workers, torch asks for one more with each that it gives; ours when the next is wanted.
    assert len(taken) in ((20, 25) if workers else (5,))
    del iterator


@libraries
@pytest.mark.parametrize("workers", [0, 2])
def test_tensors_in_shared_memory_stay_shared(library: Any, workers: int) -> None:
    """Let workers write where the loop reads."""

    class Writing(loads.Numbers):
        seen = torch.zeros(4).share_memory_()

        def __getitem__(self, index: int) -> int:
            self.seen[index] = 1
            return index

    dataset = Writing(4)
    assert flat(library.DataLoader(dataset, 2, num_workers=workers)) == [0, 1, 2, 3]
    assert dataset.seen.tolist() == [1, 1, 1, 1]


class Nested(loads.Numbers):
    """Has a loader, with workers, of its own in each worker."""

    def __getitem__(self, index: int) -> int:
        return sum(flat(ours.DataLoader(loads.Numbers(index + 1), 2, num_workers=1)))


def test_a_loader_in_a_worker_may_have_workers() -> None:
    """Nest loaders, where torch's workers may have no children."""
    assert flat(ours.DataLoader(Nested(4), 2, num_workers=2)) == [0, 1, 3, 6]


@libraries
def test_a_loop_may_run_in_a_thread(library: Any) -> None:
    """Read in another thread than the main one, with workers."""
    found: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of forking beside what torch has left running
        loader = library.DataLoader(loads.Numbers(6), 2, num_workers=2)
        reader = threading.Thread(target=lambda: found.extend(flat(loader)))
        reader.start()
        reader.join()
    assert found == [0, 1, 2, 3, 4, 5]
