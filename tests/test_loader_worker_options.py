"""What a loader lets its workers be: their kind, their number, how they start, what they are given."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from headrace import ArrayDataset, DataLoader, get_worker_info
from headrace.errors import ArgumentTypeError
from headrace.interop.machine import cpus
from tests.test_loader_workers import FORK, Letters, Whose, helpers_of_multiprocessing

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")

__all__ = ["helpers_of_multiprocessing"]


class Seeded:
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[float, float]:
        return random.random(), np.random.random()


def test_what_an_init_function_seeds_is_left_to_it() -> None:
    """Seed the generators that it leaves alone for every batch, and not those that it has seeded itself."""

    def init(number: int) -> None:
        random.seed(77)

    ours = [float(n) for batch in DataLoader(Seeded(), 1, seed=1) for n in batch[1]]
    loader = DataLoader(Seeded(), 1, seed=1, num_workers=1, worker_init_fn=init, multiprocessing_context="fork")
    batches = list(loader)
    expected = random.Random(77)
    assert [float(batch[0][0]) for batch in batches] == [expected.random() for _ in range(6)]
    assert [float(batch[1][0]) for batch in batches] == ours


def test_workers_are_what_the_dataset_suits() -> None:
    """Take threads for our own datasets and plain sequences, processes for all else and where they are asked for."""

    def made_by(dataset: Any, **how: Any) -> bool:
        iterator = iter(DataLoader(dataset, 2, num_workers=1, **how))
        own = threading.active_count() > threads
        iterator.close()  # type: ignore[attr-defined]
        return own

    threads = threading.active_count()
    arrays = ArrayDataset(np.arange(4))
    for dataset in ([1, 2], range(4), arrays, arrays.map(abs), arrays + arrays, iter([1, 2])):
        assert made_by(dataset)
    assert not made_by(Whose())
    assert not made_by(arrays, multiprocessing_context="fork")
    assert not made_by([1, 2], collate_fn=list)
    assert made_by(Whose(), backend="threads")
    assert not made_by(arrays, backend="inline")


def test_the_number_of_workers_can_follow_the_machine() -> None:
    """Take one a CPU, no more than there are batches, and one for a stream."""
    assert DataLoader(range(100), 10, num_workers="auto").num_workers == min(cpus(), 10)
    assert DataLoader(range(10), 10, num_workers="auto").num_workers == 1
    assert DataLoader(Letters("a"), 1, num_workers="auto").num_workers == 1
    assert DataLoader([], 10, num_workers="auto").num_workers == 0


@pytest.mark.parametrize("value", ["autox", "Auto", "", "4"])
def test_a_misspelled_auto_names_the_right_one(value: str) -> None:
    """Say which text there is, where another one is given."""
    with pytest.raises(ArgumentTypeError, match=f"""got '{value}'; use num_workers="auto" """):
        DataLoader(range(4), num_workers=value)  # type: ignore[arg-type]  # what is tested
    with pytest.raises(ArgumentTypeError, match="num_workers must be an integer"):
        DataLoader(range(4), num_workers=np.arange(2))  # type: ignore[arg-type]  # the same


def test_a_stream_that_is_longer_than_it_said_warns() -> None:
    """Warn only of what `len` has promised."""

    class Liar(Letters):
        def __len__(self) -> int:
            return 2

    assert sum(1 for _ in DataLoader(Liar("abcd"), 1)) == 4  # list() would ask for the length
    loader: DataLoader[Any] = DataLoader(Liar("abc"), 1)
    assert len(loader) == 2
    with pytest.warns(UserWarning, match=r"Length of IterableDataset .* was reported to be 2 .* 3 samples have been"):
        assert len(list(loader)) == 3


def test_more_batches_of_no_more_samples_do_not_warn() -> None:
    """Let copies each end with a short batch: five samples in parts of three and two are three batches of two."""

    class Halves(Letters):
        def __len__(self) -> int:
            return 5

        def __iter__(self) -> Iterator[str]:
            info = get_worker_info()
            return iter(self.text if info is None else self.text[info.id :: info.num_workers])

    for text, parts in (("abcde", 3), ("abcdef", 2)):
        loader: DataLoader[Any] = DataLoader(Halves(text), 2, num_workers=parts, backend="processes")
        assert len(loader) == 3
        if parts == 3:
            assert sum(map(len, loader)) == 5
        else:
            with pytest.warns(UserWarning, match="but 6 samples have been fetched"):
                assert sum(map(len, loader)) == 6


def test_arguments_that_only_a_loop_can_refuse_are_refused_there() -> None:
    """Raise when the loop begins, as torch does by assertion."""
    with pytest.raises(AssertionError, match="timeout=3 needs workers"):
        iter(DataLoader([1], timeout=3))
    with pytest.raises(AssertionError, match="prefetch_factor must be 1 or more"):
        iter(DataLoader([1], num_workers=1, prefetch_factor=0))


def test_what_cannot_be_sent_to_a_worker_is_named() -> None:
    """Say which attribute of what it is, in the dataset or in the collate function."""

    class Inner:
        def __init__(self) -> None:
            self.lock = threading.Lock()

    class Outer(Whose):
        def __init__(self) -> None:
            self.parts = {"left": [1, Inner()]}

    how: Any = {"num_workers": 1, "multiprocessing_context": "spawn"}
    with pytest.raises(TypeError, match=r"dataset\.parts\['left'\]\[1\]\.lock \(a lock\) cannot be sent to a worker"):
        iter(DataLoader(Outer(), **how))
    inner = Inner()
    with pytest.raises(TypeError, match=r"collate_fn -> inner\.lock \(a lock\) cannot be sent"):
        iter(DataLoader(Whose(), collate_fn=lambda samples: (samples, inner), **how))


def test_forking_while_threads_run_is_warned_of() -> None:
    """Name the threads, and the start method that has no such risk."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="busy")
    thread.start()
    try:
        with pytest.warns(RuntimeWarning, match=r"other threads run \(busy\).*forkserver"):
            list(DataLoader(Whose(), 4, num_workers=1, **FORK))
    finally:
        end.set()
        thread.join()


def test_batches_can_be_had_from_a_plain_generator() -> None:
    """Give one epoch, or one after the other until it is closed; an empty one cannot be endless."""
    loader = DataLoader(range(5), 2, num_workers=1)
    assert [batch.tolist() for batch in loader.batches()] == [[0, 1], [2, 3], [4]]
    endless = loader.batches(endless=True)
    assert [next(endless).tolist() for _ in range(5)] == [[0, 1], [2, 3], [4], [0, 1], [2, 3]]
    endless.close()  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="an epoch gave none"):
        next(DataLoader([], 2).batches(endless=True))


def test_a_collate_function_may_ask_for_lent_memory() -> None:
    """Give memory to a function with a parameter ``empty``; its batch then lies in the workers' slot already."""

    def collate(samples: list[np.ndarray], *, empty: Any = np.empty) -> np.ndarray:
        batch: np.ndarray = empty((len(samples), 5000), np.dtype(np.float32))
        for row, sample in enumerate(samples):
            batch[row] = sample
        return batch

    rows = [np.full(5000, number, np.float32) for number in range(8)]
    loader = DataLoader(rows, 4, num_workers=1, collate_fn=collate, **FORK)
    assert [batch[:, -1].tolist() for batch in loader] == [[0, 1, 2, 3], [4, 5, 6, 7]]
