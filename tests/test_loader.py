"""The loader as its users see it."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import ArrayDataset, DataLoader, rng
from headrace.errors import ArgumentError, LoaderClosed, TooManyErrors, WorkerTimeout

WORKERS = [0, 1, 2, 7]


class Numbers:
    """0, 1, 2, …; those in `bad` cannot be read."""

    suits_threads = True  # so that workers are threads here; tests/test_loader_workers.py has the processes

    def __init__(self, size: int = 100, bad: frozenset[int] = frozenset()) -> None:
        self.size = size
        self.bad = bad

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        if index in self.bad:
            raise ValueError(f"number {index} is bad")
        return index

    def where(self, index: int) -> str:
        return f"numbers/{index}.txt"


class Noisy(Numbers):
    """Each sample is its index and two random numbers."""

    def __getitem__(self, index: int) -> tuple[int, float, float]:
        return index, rng().random(), rng().normal()


def flat(loader: Any) -> list[int]:
    return [int(number) for batch in loader for number in batch]


def bytes_of(loader: Any) -> list[bytes]:
    return [b"".join(column.tobytes() for column in batch) for batch in loader]


def test_the_same_seed_gives_the_same_bytes_on_any_number_of_workers() -> None:
    """Compare three epochs inline, on 1, 2 and 7 threads: byte for byte; other epochs and seeds differ."""
    runs = {}
    for workers in WORKERS:
        loader = DataLoader(Noisy(), 8, shuffle=True, seed=5, num_workers=workers)
        runs[workers] = [bytes_of(loader) for _ in range(3)]
    assert all(run == runs[0] for run in runs.values())
    assert len({tuple(epoch) for epoch in runs[0]}) == 3
    assert bytes_of(DataLoader(Noisy(), 8, shuffle=True, seed=6)) != runs[0][0]


def test_augmentation_belongs_to_the_position_not_to_the_batch() -> None:
    """Draw the same numbers for a sample whatever the batch size."""
    whole = np.concatenate([batch[1] for batch in DataLoader(Noisy(), 100, shuffle=True, seed=1)])
    pieces = np.concatenate([batch[1] for batch in DataLoader(Noisy(), 7, shuffle=True, seed=1, num_workers=2)])
    np.testing.assert_array_equal(whole, pieces)


def test_without_a_seed_numpys_global_generator_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat an order after np.random.seed, and give another in the next loop."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)  # whose own would decide, were it loaded
    loader = DataLoader(Numbers(), 10, shuffle=True)
    np.random.seed(3)
    first, second = flat(loader), flat(loader)
    np.random.seed(3)
    assert flat(loader) == first != second


def test_building_a_loader_draws_nothing() -> None:
    """Leave the global generators alone until a loop begins."""
    before = np.random.get_state()[1].tolist()
    len(DataLoader(Numbers(), 10, shuffle=True))
    assert np.random.get_state()[1].tolist() == before


def test_an_epoch_can_be_chosen() -> None:
    """Read epoch 2 again, then 3."""
    loader = DataLoader(Numbers(), 10, shuffle=True, seed=0)
    epochs = [flat(loader) for _ in range(4)]
    loader.set_epoch(2)
    assert [flat(loader), flat(loader)] == epochs[2:]


@settings(max_examples=60)
@given(
    size=st.integers(0, 40),
    batch_size=st.integers(1, 12),
    drop_last=st.booleans(),
    workers=st.sampled_from([0, 1, 3]),
    prefetch=st.integers(1, 4),
)
def test_an_epoch_in_order_is_the_dataset_cut_into_batches(
    size: int, batch_size: int, drop_last: bool, workers: int, prefetch: int
) -> None:
    """Deliver every sample once, in order, in as many batches as `len` says."""
    loader = DataLoader(
        Numbers(size),
        batch_size,
        num_workers=workers,
        drop_last=drop_last,
        prefetch_factor=prefetch if workers else None,
    )
    batches = [batch.tolist() for batch in loader]
    whole = list(range(size))
    expected = [whole[start : start + batch_size] for start in range(0, size, batch_size)]
    if drop_last and size % batch_size:
        expected.pop()
    assert batches == expected
    assert len(loader) == len(expected)


@settings(max_examples=60)
@given(
    bad=st.sets(st.integers(0, 39), max_size=39),
    batch_size=st.integers(1, 9),
    drop_last=st.booleans(),
    workers=st.sampled_from([0, 3]),
)
def test_skipping_refills_batches_from_what_follows(
    bad: set[int], batch_size: int, drop_last: bool, workers: int
) -> None:
    """Deliver the good samples, in order, in batches of one size; count and name the others."""
    dataset = Numbers(40, frozenset(bad))
    loader = DataLoader(dataset, batch_size, num_workers=workers, drop_last=drop_last, on_error="skip")
    batches = [batch.tolist() for batch in loader]
    good = [number for number in range(40) if number not in bad]
    expected = [good[start : start + batch_size] for start in range(0, len(good), batch_size)]
    if drop_last and expected and len(expected[-1]) < batch_size:
        expected.pop()
    assert batches == expected
    statistics = loader.statistics()
    assert statistics.skipped == len(bad)
    assert [sample.index for sample in statistics.bad] == sorted(bad)
    assert [sample.where for sample in statistics.bad] == [f"numbers/{index}.txt" for index in sorted(bad)]
    assert all("is bad" in sample.error for sample in statistics.bad)


def test_skipping_does_not_change_the_random_numbers_of_the_others() -> None:
    """Augment the sample after a bad one as if the bad one were good."""

    class Torn(Noisy):
        def __getitem__(self, index: int) -> tuple[int, float, float]:
            sample = super().__getitem__(index)
            if index == 3:
                raise OSError("torn")
            return sample

    whole = {int(i): x for batch in DataLoader(Noisy(), 7, seed=2) for i, x in zip(*batch[:2], strict=True)}
    torn = {
        int(i): x
        for batch in DataLoader(Torn(), 7, seed=2, on_error="skip", num_workers=2)
        for i, x in zip(*batch[:2], strict=True)
    }
    del whole[3]
    assert torn == whole


@pytest.mark.parametrize("workers", WORKERS)
def test_replacing_puts_another_good_sample_in_the_place(workers: int) -> None:
    """Keep every batch's size and every good sample's place; the stand-in is the same on any number of workers."""
    bad = frozenset({0, 5, 6, 99})
    loader = DataLoader(Numbers(100, bad), 10, shuffle=True, seed=4, num_workers=workers, on_error="replace")
    numbers = flat(loader)
    plain = flat(DataLoader(Numbers(100), 10, shuffle=True, seed=4))
    assert numbers == flat(DataLoader(Numbers(100, bad), 10, shuffle=True, seed=4, on_error="replace"))
    assert [ours for ours, theirs in zip(numbers, plain, strict=True) if theirs not in bad] == [
        number for number in plain if number not in bad
    ]
    assert not set(numbers) & bad
    assert loader.statistics().replaced == 4
    assert loader.statistics().skipped == 0


def test_replacing_gives_up_where_nothing_is_good() -> None:
    """End the run where no sample can stand in."""
    loader = DataLoader(Numbers(5, frozenset(range(5))), 2, on_error="replace")
    with pytest.raises(TooManyErrors, match="no replacement found for sample 0"):
        next(iter(loader))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("on_error", ["skip", "replace"])
@pytest.mark.parametrize(("max_errors", "allowed"), [(0, 0), (3, 3), (0.02, 2), (0.0, 0)])
def test_a_budget_of_errors_ends_the_run(workers: int, on_error: Any, max_errors: float, allowed: int) -> None:
    """Continue up to the budget, a count or a fraction of the dataset, and end on the error after."""
    good_enough = DataLoader(
        Numbers(100, frozenset(range(50, 50 + allowed))),
        1,
        num_workers=workers,
        on_error=on_error,
        max_errors=max_errors,
    )
    assert len(flat(good_enough)) == 100 - (allowed if on_error == "skip" else 0)
    too_bad = DataLoader(
        Numbers(100, frozenset(range(50, 51 + allowed))),
        1,
        num_workers=workers,
        on_error=on_error,
        max_errors=max_errors,
    )
    iterator = iter(too_bad)
    assert [int(next(iterator)[0]) for _ in range(50)] == list(range(50))
    with pytest.raises(TooManyErrors, match=f"max_errors allows {allowed}.*number {50 + allowed} is bad"):
        list(iterator)
    assert list(iterator) == []


def test_each_epoch_has_its_own_budget() -> None:
    """Do not end the third epoch for the one bad file that every epoch meets."""
    loader = DataLoader(Numbers(10, frozenset({4})), 2, on_error="skip", max_errors=1)
    assert [len(flat(loader)) for _ in range(3)] == [9, 9, 9]


def test_an_epoch_of_nothing_but_errors_is_an_error() -> None:
    """Never pass over a whole dataset in silence."""
    loader = DataLoader(Numbers(10, frozenset(range(10))), 4, on_error="skip")
    with pytest.raises(TooManyErrors, match="all 10 samples of this epoch failed"):
        list(loader)


@pytest.mark.parametrize("workers", WORKERS)
def test_an_error_comes_at_its_step_and_the_loop_can_continue(workers: int) -> None:
    """Raise at the batch it belongs to, in the user's own type, with a note; the next `next` gives the next batch."""
    iterator = iter(DataLoader(Numbers(40, frozenset({17})), 10, num_workers=workers))
    assert next(iterator)[0] == 0
    with pytest.raises(ValueError, match="number 17 is bad") as caught:
        next(iterator)
    (note,) = caught.value.__notes__
    assert note.startswith("headrace: epoch 0, batch 1: sample 17 (numbers/17.txt), made by ")
    assert caught.traceback[-1].name == "__getitem__"
    assert next(iterator)[0] == 20
    assert next(iterator)[0] == 30
    with pytest.raises(StopIteration):
        next(iterator)


@pytest.mark.parametrize("workers", WORKERS)
def test_shapes_that_do_not_fit_are_reported_with_their_samples(workers: int) -> None:
    """Name the two samples of the dataset, not only their rows in the batch."""

    class Ragged(Numbers):
        def __getitem__(self, index: int) -> Any:
            return np.zeros(3 if index == 12 else 2)

    loader = DataLoader(Ragged(), 5, num_workers=workers)
    with pytest.raises(RuntimeError, match=r"samples 0 and 2 .* shape: \(2,\) and \(3,\)") as caught:
        list(loader)
    (note,) = caught.value.__notes__
    assert "batch 2: sample 10 (numbers/10.txt) and sample 12 (numbers/12.txt), made by" in note


@pytest.mark.parametrize("workers", WORKERS)
def test_a_loop_can_be_left_and_started_again(workers: int) -> None:
    """Break, loop again, and read two epochs at once."""
    loader = DataLoader(Numbers(50), 5, num_workers=workers)
    for batch in loader:
        if batch[0] == 10:
            break
    assert flat(loader) == list(range(50))
    pairs = [(a.tolist(), b.tolist()) for a, b in zip(loader, loader, strict=True)]
    assert len(pairs) == 10
    assert all(a == b for a, b in pairs)


def test_two_loops_at_once_read_two_epochs() -> None:
    """Give each iterator an epoch of its own."""
    loader = DataLoader(Numbers(), 10, shuffle=True, seed=0, num_workers=2)
    epochs = [flat(loader), flat(loader)]
    loader.set_epoch(0)
    first, second = [], []
    for a, b in zip(loader, loader, strict=True):
        first += a.tolist()
        second += b.tolist()
    assert [first, second] == epochs


def test_an_abandoned_loop_leaves_no_thread() -> None:
    """End the threads when the iterator is dropped, and when only a cycle holds it."""
    before = threading.active_count()
    loader = DataLoader(Numbers(), 5, num_workers=3)
    iterator: Any = iter(loader)
    next(iterator)
    assert threading.active_count() == before + 3
    del iterator
    assert threading.active_count() == before
    cycle: list[Any] = [iter(loader)]
    next(cycle[0])
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert threading.active_count() == before


def test_an_epoch_that_ends_leaves_no_thread() -> None:
    """End the threads with the epoch, while the iterator is still held."""
    before = threading.active_count()
    iterator = iter(DataLoader(Numbers(), 5, num_workers=3))
    assert len(list(iterator)) == 20
    assert threading.active_count() == before
    assert list(iterator) == []


@pytest.mark.parametrize("workers", WORKERS)
def test_closing_ends_running_loops_aloud(workers: int) -> None:
    """Raise in a loop that continues after `close`: a short epoch must not look like a whole one."""
    before = threading.active_count()
    with DataLoader(Numbers(), 5, num_workers=workers) as loader:
        iterator = iter(loader)
        next(iterator)
    assert threading.active_count() == before
    with pytest.raises(LoaderClosed):
        next(iterator)
    loader.close()
    assert len(flat(loader)) == 100


def test_a_batch_is_not_held_by_the_loader() -> None:
    """Let a batch go as soon as its user does, or its memory could not be reused."""
    big = ArrayDataset(np.zeros((20, 1 << 16), np.uint8))
    # Without the GIL, the last reference goes when the thread that made the batch runs next.
    for workers in (0, 1) if getattr(sys, "_is_gil_enabled", lambda: True)() else (0,):
        iterator = iter(DataLoader(big, 2, num_workers=workers))
        batch = next(iterator)
        gone = weakref.ref(batch)
        del batch
        assert gone() is None
        del iterator


def test_batches_kept_by_the_user_are_never_overwritten() -> None:
    """Keep all batches of an epoch made in recycled memory; each still holds its own rows."""
    rows = np.arange(64, dtype=np.int32)[:, None] * np.ones((1, 1 << 15), np.int32)
    for workers in (0, 2):
        kept = list(DataLoader(ArrayDataset(rows), 4, num_workers=workers))
        np.testing.assert_array_equal(np.concatenate(kept), rows)


def test_memory_of_dropped_batches_is_reused() -> None:
    """Run a long epoch in a handful of pieces of memory."""
    rows = ArrayDataset(np.zeros((400, 1 << 15), np.uint8))
    places = {batch.ctypes.data for batch in DataLoader(rows, 4, num_workers=2)}
    assert len(places) <= 2 * 2 + 2 + 2  # in flight, in the workers' hands, in the loop's


def test_whole_batches_are_read_at_once_where_the_dataset_can() -> None:
    """Give the same batch from ArrayDataset's gather as from its rows collated one by one."""
    images = np.random.default_rng(0).integers(0, 255, (30, 4, 5), np.uint8)
    labels = np.arange(30)
    gathered = DataLoader(ArrayDataset(images, labels), 8, shuffle=True, seed=1)
    by_rows = DataLoader(ArrayDataset(images, labels).map(lambda row: row), 8, shuffle=True, seed=1, num_workers=2)
    assert bytes_of(gathered) == bytes_of(by_rows)
    assert [type(batch) for batch in gathered] == [type(batch) for batch in by_rows]


def test_getitems_reads_a_list_of_keys_in_one_call() -> None:
    """Use torch's `__getitems__` where the dataset has it, with Python ints; one by one to find a bad sample."""

    class Many(Numbers):
        calls: list[list[int]] = []

        def __getitems__(self, keys: list[int]) -> list[int]:
            assert all(type(key) is int for key in keys)
            self.calls.append(keys)
            return [self[key] for key in keys]

    assert flat(DataLoader(Many(10), 4, shuffle=True, seed=0)) == flat(DataLoader(Numbers(10), 4, shuffle=True, seed=0))
    assert len(Many.calls) == 3
    assert flat(DataLoader(Many(10, frozenset({2})), 4, on_error="skip")) == [0, 1, 3, 4, 5, 6, 7, 8, 9]


def test_a_users_collate_function_gets_a_list_of_samples() -> None:
    """Pass what it returns through untouched."""
    loader = DataLoader(Numbers(5), 2, collate_fn=lambda samples: (type(samples), samples), num_workers=1)
    assert list(loader) == [(list, [0, 1]), (list, [2, 3]), (list, [4])]


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_stop_iteration_in_collate_cannot_end_the_epoch(on_error: Any) -> None:
    """Turn it into a RuntimeError wherever the batch is joined."""
    loader = DataLoader(Numbers(5), 2, collate_fn=lambda samples: next(iter(())), on_error=on_error)
    with pytest.raises(RuntimeError, match="StopIteration"):
        next(iter(loader))


def test_statistics_tell_what_was_delivered() -> None:
    """Count batches, samples, bytes and seconds of the newest loop."""
    loader = DataLoader(ArrayDataset(np.zeros((10, 3)), np.arange(10)), 4, num_workers=2)
    before = loader.statistics()
    assert (before.batches, before.first_batch_seconds, before.samples_per_second) == (0, None, 0.0)
    iterator = iter(loader)
    next(iterator)
    half = loader.statistics()
    assert (half.epoch, half.workers, half.batches, half.samples, half.nbytes) == (0, 2, 1, 4, 4 * 3 * 8 + 4 * 8)
    assert half.seconds == half.first_batch_seconds  # of a single batch, which may be made before the first `next`
    list(iterator)
    after = loader.statistics()
    assert (after.batches, after.samples, half.batches) == (3, 10, 1)
    assert after.first_batch_seconds is not None
    assert 0 <= after.wait_seconds <= after.seconds
    assert after.samples_per_second > 0
    assert set(after.stage_seconds) == {"read", "other"}
    with pytest.raises(AttributeError):
        after.batches = 7  # type: ignore[misc]


def test_a_sample_that_does_not_come_in_time_is_named() -> None:
    """Raise WorkerTimeout with the sample that is to blame; the loop can be tried again."""
    reached, opened = threading.Event(), threading.Event()

    class Slow(Numbers):
        def __getitem__(self, index: int) -> int:
            if index == 3:
                reached.set()
                assert opened.wait(60)
            return index

    iterator = iter(DataLoader(Slow(10), 2, num_workers=1, timeout=0.05))
    assert reached.wait(60)
    assert next(iterator).tolist() == [0, 1]
    with pytest.raises(WorkerTimeout, match="sample 3 of batch 1"):
        next(iterator)
    opened.set()
    batch = None
    while batch is None:
        with suppress(WorkerTimeout):  # the worker may take longer than the timeout
            batch = next(iterator)
    assert batch.tolist() == [2, 3]
    del iterator


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"dataset": 5}, "an int, which can be neither indexed nor iterated over"),
        ({"batch_size": 0}, "batch_size should be a positive integer value, but got batch_size=0"),
        ({"batch_size": True}, "batch_size .* got batch_size=True"),
        ({"batch_size": 2.0}, "batch_size .* got batch_size=2.0"),
        ({"batch_size": "8"}, "batch_size .* got batch_size='8'"),
        ({"num_workers": -1}, "num_workers option should be non-negative; got -1.* use num_workers=0"),
        ({"num_workers": 1.5}, "num_workers must be an integer from 0 up; got 1.5"),
        ({"num_workers": 1, "prefetch_factor": -1}, "prefetch_factor option should be non-negative"),
        ({"prefetch_factor": 2}, "prefetch_factor option could only be specified in multiprocessing"),
        ({"persistent_workers": True}, "persistent_workers option needs num_workers > 0"),
        ({"multiprocessing_context": "fork"}, r"multi-process loading \(num_workers > 0\), but got"),
        ({"num_workers": 1, "multiprocessing_context": 3}, "multiprocessing_context option should be a valid context"),
        ({"read_once": True}, "is for iterable datasets"),
        ({"threads_per_worker": 0}, "threads_per_worker must be an integer from 1 to 64; got 0"),
        ({"restart_workers": -1}, "restart_workers must be an integer from 0 up"),
        ({"dataset": [], "shuffle": True}, "num_samples should be a positive integer value, but got num_samples=0"),
        ({"collate_fn": 3}, "collate_fn must be callable"),
        ({"seed": -1}, "seed must be an integer from 0 up; got -1"),
        ({"on_error": "ignore"}, "on_error must be one of 'raise', 'skip', 'replace'; got 'ignore'"),
        ({"max_errors": 3}, 'expected on_error="skip" or "replace"'),
        ({"on_error": "skip", "max_errors": -1}, "max_errors must be a count"),
        ({"on_error": "skip", "max_errors": 1.5}, "max_errors must be a count"),
        ({"on_error": "skip", "max_errors": True}, "max_errors must be a count"),
        ({"timeout": -1}, "timeout option should be non-negative"),
        ({"timeout": "1"}, "timeout must be seconds"),
    ],
    ids=str,
)
def test_arguments_are_checked_at_the_door(arguments: dict[str, Any], words: str) -> None:
    """Refuse in the constructor, naming the argument, what was given and what would do."""
    with pytest.raises(ArgumentError, match=words):
        DataLoader(**{"dataset": [1, 2, 3], **arguments})


def test_an_empty_dataset_is_an_empty_loop() -> None:
    """Loop over nothing without a fuss."""
    for workers in WORKERS:
        assert list(DataLoader([], 4, num_workers=workers)) == []
        assert list(DataLoader([], 4, num_workers=workers, on_error="skip")) == []


def test_epoch_numbers_are_checked() -> None:
    """Refuse an epoch below zero."""
    with pytest.raises(ArgumentError, match="epoch must be an integer from 0 to"):
        DataLoader([1]).set_epoch(-1)


def test_a_loader_tells_what_it_is() -> None:
    """Show dataset, batch size and workers in the repr."""
    assert repr(DataLoader([1, 2], 2, num_workers=3)) == (
        "DataLoader(<list of 2>, batch_size=2, shuffle=False, num_workers=3)"
    )


def test_the_bar_of_tqdm_auto_reads_every_epoch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin no loop for the iterator that the bar makes and never reads: no epoch, no loaded state is passed over."""
    bar = pytest.importorskip("tqdm.asyncio").tqdm_asyncio
    monkeypatch.setattr(bar, "monitor_interval", 0)  # no thread
    loader = DataLoader(range(10), 2, shuffle=True, seed=0, num_workers=2)
    expected = [[batch.tolist() for batch in DataLoader(range(10), 2, shuffle=True, seed=0)]]
    found, epochs = [], []
    for _ in range(2):
        found.append([batch.tolist() for batch in bar(loader, disable=True)])
        epochs.append(loader.statistics().epoch)
    assert (found[:1], epochs) == (expected, [0, 1])
    state = loader.state_dict() | {"epoch": 0, "step": 3, "batches": 3, "samples": 6}
    loader.load_state_dict(state)
    assert [batch.tolist() for batch in bar(loader, disable=True)] == expected[0][3:]


def test_a_coroutine_loops_over_a_loader() -> None:
    """Read an epoch by `async for`."""

    async def read() -> list[list[int]]:
        return [batch.tolist() async for batch in DataLoader(range(4), 2)]

    assert asyncio.run(read()) == [[0, 1], [2, 3]]


def test_loops_in_many_threads_do_not_disturb_each_other() -> None:
    """Read one loader from eight threads at once, each with a loop of its own."""
    loader = DataLoader(Numbers(200), 7, num_workers=2)
    found: list[list[int]] = []
    threads = [threading.Thread(target=lambda: found.append(flat(loader))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [list(range(200))] * 8


# The inner loader seeds the global generators for its own batches, on a thread of the outer one.
@pytest.mark.filterwarnings("ignore::headrace.errors.RandomnessWarning")
def test_a_loader_can_run_inside_a_sample_of_another() -> None:
    """Nest loaders: the inner one's random numbers do not leak into the outer sample's."""

    class Outer(Numbers):
        def __getitem__(self, index: int) -> float:
            before = rng()
            list(DataLoader(Noisy(4), 2, seed=index, num_workers=1))
            list(DataLoader(Noisy(4), 2, seed=index))
            assert rng() is before
            return float(before.random())

    outer = [bytes_of([b] for b in DataLoader(Outer(6), 2, seed=9, num_workers=w)) for w in (0, 2)]
    assert outer[0] == outer[1]
