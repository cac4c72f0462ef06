"""The loader with processes, samplers and iterable datasets."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import ArrayDataset, DataLoader, IterableDataset, get_worker_info, rng
from headrace.datasets.iterable import MappedIterable
from headrace.errors import ArgumentError, LoaderClosed, WorkerDied
from headrace.samplers import BatchSampler, RandomSampler, SequentialSampler

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
HOW: list[dict[str, Any]] = [
    {},
    {"num_workers": 2, "backend": "threads"},
    {"num_workers": 2, "backend": "processes", "multiprocessing_context": "fork"},
    {"num_workers": 3, "backend": "processes", "multiprocessing_context": "fork"},
]


@pytest.fixture(scope="module", autouse=True)
def helpers_of_multiprocessing() -> None:
    """Start the two processes that multiprocessing starts once and leaves running, before leaks are counted."""
    forkserver.ensure_running()
    resource_tracker.ensure_running()


class Noisy:
    """Samples that draw from every generator there is, and say who made them."""

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> tuple[int, np.ndarray, float]:
        return index, rng().random(500), random.random() + np.random.random()


def bytes_of(loader: Any) -> list[bytes]:
    return [b"".join(np.asarray(column).tobytes() for column in batch) for batch in loader]


@pytest.mark.parametrize("context", ["fork", "forkserver", "spawn"])
def test_processes_give_the_bytes_that_the_loop_itself_gives(context: str) -> None:
    """Compare two epochs, augmentation from `rng` and from the global generators included."""
    inline = DataLoader(Noisy(), 7, shuffle=True, seed=3)
    process = DataLoader(
        Noisy(), 7, shuffle=True, seed=3, num_workers=2, backend="processes", multiprocessing_context=context
    )
    for _ in range(2):
        assert bytes_of(process) == bytes_of(inline)


def test_lambdas_and_what_a_test_defines_reach_spawned_workers() -> None:
    """Carry by value what pickle carries by name only."""
    twice = ArrayDataset(np.arange(6)).map(lambda x: 2 * x)
    loader = DataLoader(twice, 3, num_workers=1, backend="processes", multiprocessing_context="spawn")
    assert [batch.tolist() for batch in loader] == [[0, 2, 4], [6, 8, 10]]


class Deadly(Noisy):
    """Kills its process at one sample, the first time."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __getitem__(self, index: int) -> Any:
        if index == 31 and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_an_epoch_with_a_killed_worker_is_the_epoch_without(tmp_path: Path) -> None:
    """Deliver the same bytes, in order, and warn."""
    whole = bytes_of(DataLoader(Noisy(), 7, shuffle=True, seed=3))
    loader = DataLoader(Deadly(tmp_path / "killed"), 7, shuffle=True, seed=3, **HOW[2])
    with pytest.warns(RuntimeWarning, match="killed by signal: SIGKILL .*at sample 31"):
        assert bytes_of(loader) == whole


@pytest.mark.parametrize("how", HOW, ids=str)
def test_an_error_in_a_worker_keeps_its_type_and_its_place(how: dict[str, Any]) -> None:
    """Raise the user's own error at its step, and continue after it."""

    class Bad(Noisy):
        def __getitem__(self, index: int) -> Any:
            if index == 12:
                raise LookupError(f"nothing at {index}")
            return index

    iterator = iter(DataLoader(Bad(), 5, **how))
    assert [next(iterator).tolist()[0] for _ in range(2)] == [0, 5]
    with pytest.raises(LookupError, match="nothing at 12") as caught:
        next(iterator)
    assert "epoch 0, batch 2: sample 12, made by" in caught.value.__notes__[-1]
    assert next(iterator)[0] == 15
    iterator.close()  # type: ignore[attr-defined]


class Tracked:
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[int, int, bool]:
        info = get_worker_info()
        assert info is not None
        return info.id, info.num_workers, isinstance(info.dataset, Tracked)


def test_a_process_knows_who_it_is() -> None:
    """Answer get_worker_info in a worker, and None outside."""
    batches = [column.tolist() for batch in DataLoader(Tracked(), 2, **HOW[2]) for column in batch]
    assert batches == [[0, 0], [2, 2], [True, True], [1, 1], [2, 2], [True, True]]
    assert get_worker_info() is None


def test_a_loader_can_run_inside_a_worker() -> None:
    """Start processes from a worker process."""

    class Outer:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> int:
            return sum(int(b.sum()) for b in DataLoader(range(10), 5, **HOW[2]))

    assert [b.tolist() for b in DataLoader(Outer(), 2, **HOW[2])] == [[45, 45]]


@pytest.mark.parametrize("how", HOW, ids=str)
def test_an_iterable_is_read_once_or_once_by_each_process(how: dict[str, Any]) -> None:
    """Never read twice what is read in this process; in others follow torch: each has a copy, and knows which."""

    class Stream(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            info = get_worker_info()
            replica, replicas = (0, 1) if info is None else (info.id, info.num_workers)
            return iter(range(replica, 23, replicas))

    loader: DataLoader[Any] = DataLoader(Stream(), 4, **how)
    for _ in range(2):
        batches = [batch.tolist() for batch in loader]
        assert sorted(n for batch in batches for n in batch) == list(range(23))
        assert all(len(batch) <= 4 for batch in batches)
    copied = Counter(n for batch in DataLoader([5, 6].__iter__(), 1) for n in batch.tolist())
    assert copied == {5: 1, 6: 1}


@settings(max_examples=20)
@given(
    sizes=st.lists(st.integers(0, 20), min_size=1, max_size=3),
    batch_size=st.integers(1, 6),
    drop_last=st.booleans(),
)
def test_lanes_come_in_turn_until_each_is_over(sizes: list[int], batch_size: int, drop_last: bool) -> None:
    """Give what reading each copy in turn gives, whatever their lengths: short batches at each copy's own end."""

    class Uneven(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            info = get_worker_info()
            return iter(range(sizes[info.id if info else 0]))

    workers = len(sizes)
    loader: DataLoader[Any] = DataLoader(
        Uneven(),
        batch_size,
        num_workers=workers,
        backend="processes",
        multiprocessing_context="fork",
        drop_last=drop_last,
    )
    replicas = [
        [
            b
            for start in range(0, n, batch_size)
            if len(b := list(range(n))[start : start + batch_size]) == batch_size or not drop_last
        ]
        for n in sizes
    ]
    expected = [replica[turn] for turn in range(20) for replica in replicas if turn < len(replica)]
    assert [batch.tolist() for batch in loader] == expected


def test_a_stream_continues_where_a_killed_process_was(tmp_path: Path) -> None:
    """Read up to the place again in the new process, and deliver every sample once."""

    class Stream(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            for number in range(40):
                if number == 22 and not (tmp_path / "killed").exists():
                    (tmp_path / "killed").touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                yield number

    loader: DataLoader[Any] = DataLoader(
        Stream(), 4, num_workers=1, backend="processes", multiprocessing_context="fork"
    )
    with pytest.warns(RuntimeWarning, match="SIGKILL"):
        assert [n for batch in loader for n in batch.tolist()] == list(range(40))


def test_an_iterator_cannot_be_read_twice_in_silence() -> None:
    """Refuse the second epoch of a dataset that has none."""
    loader: DataLoader[Any] = DataLoader((n for n in range(5)), 2)
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3], [4]]
    with pytest.raises(TypeError, match="is an iterator that can be read only once"):
        next(iter(loader))


def test_a_streams_random_numbers_belong_to_its_samples() -> None:
    """Draw the same for a sample whatever the batch size, and whoever reads."""

    class Draws(IterableDataset[float]):
        def __iter__(self) -> Iterator[float]:
            for _ in range(12):
                yield rng().random()

    runs = [
        [n for batch in DataLoader(Draws(), size, seed=1, **how) for n in batch.tolist()]
        for size, how in [(5, {}), (3, {}), (5, HOW[1]), (4, {**HOW[2], "num_workers": 1})]
    ]
    assert all(run == runs[0] for run in runs)
    assert len(set(runs[0])) == 12


@pytest.mark.parametrize("how", HOW, ids=str)
def test_samplers_say_the_order(how: dict[str, Any]) -> None:
    """Take any iterable of indices, or of batches of them, and a sampler again for each epoch."""
    squares = [n * n for n in range(10)]
    assert [b.tolist() for b in DataLoader(squares, 2, sampler=[3, 1, 2], **how)] == [[9, 1], [4]]
    assert [b.tolist() for b in DataLoader(squares, 2, sampler=iter([3, 1, 2]), drop_last=True, **how)] == [[9, 1]]
    batches = DataLoader(squares, batch_sampler=BatchSampler(SequentialSampler(squares), 4, drop_last=True), **how)
    assert len(batches) == 2
    assert [[b.tolist() for b in batches] for _ in range(2)] == [[[0, 1, 4, 9], [16, 25, 36, 49]]] * 2
    drawn = DataLoader(squares, 3, sampler=RandomSampler(squares, generator=7), **how)
    assert sorted(n for b in drawn for n in b.tolist()) == squares


def test_without_a_batch_size_samples_come_one_by_one() -> None:
    """Convert leaves, not collate; as they are with a function of one's own."""
    images = ArrayDataset(np.arange(6).reshape(3, 2), np.arange(3.0))
    for how in HOW[:3]:
        samples = list(DataLoader(images, batch_size=None, **how))
        assert [(x.tolist(), float(y)) for x, y in samples] == [([0, 1], 0.0), ([2, 3], 1.0), ([4, 5], 2.0)]
    assert len(DataLoader(images, batch_size=None)) == 3
    assert list(DataLoader([4, 5], batch_size=None, collate_fn=lambda sample: sample + 1)) == [5, 6]


def test_a_generator_fixes_the_loops_that_follow() -> None:
    """Draw a seed for each loop from a NumPy generator or an integer: loops differ, runs repeat."""

    def run(generator: Any) -> list[list[int]]:
        loader = DataLoader(range(50), 50, shuffle=True, generator=generator)
        return [next(iter(loader)).tolist() for _ in range(2)]

    for make in (lambda: np.random.default_rng(3), lambda: 3):
        first, second = run(make())
        assert run(make()) == [first, second]
        assert first != second


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sampler": [0], "shuffle": True}, "sampler option is mutually exclusive with shuffle"),
        ({"batch_sampler": [[0]], "batch_size": 2}, "batch_sampler option is mutually exclusive with batch_size"),
        ({"batch_sampler": [[0]], "drop_last": True}, "mutually exclusive"),
        ({"batch_sampler": [[0]], "on_error": "skip"}, "batch_sampler decides what is in each"),
        ({"batch_size": None, "drop_last": True}, "batch_size=None option disables auto-batching"),
        ({"dataset": iter([1]), "shuffle": True}, "expected unspecified shuffle option, but got shuffle=True"),
        ({"dataset": iter([1]), "sampler": [0]}, "expected unspecified sampler option"),
        ({"dataset": iter([1]), "batch_sampler": [[0]]}, "expected unspecified batch_sampler option"),
        ({"dataset": iter([1]), "on_error": "replace"}, "needs a dataset with an index"),
        ({"backend": "cluster"}, "backend must be one of 'auto', 'inline', 'threads', 'processes'"),
        ({"num_workers": 1, "multiprocessing_context": "vfork"}, "should specify a valid start method in"),
        ({"generator": "x"}, "generator must be"),
        ({"generator": 1, "seed": 1}, "seed=1 and generator= were both given"),
        ({"worker_init_fn": 3}, "worker_init_fn must be callable"),
    ],
    ids=str,
)
def test_more_arguments_are_checked_at_the_door(arguments: dict[str, Any], words: str) -> None:
    """Refuse in the constructor what excludes each other, in torch's words where it has any."""
    with pytest.raises(ArgumentError, match=words):
        DataLoader(**{"dataset": [1, 2, 3], **arguments})


FORK: dict[str, Any] = {"backend": "processes", "multiprocessing_context": "fork"}


class Whose:
    """Samples that name the process which made them."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[int, int]:
        return os.getpid(), index


def pids(loader: Any) -> set[int]:
    return {int(pid) for batch in loader for pid in batch[0]}


def test_persistent_workers_serve_every_epoch_and_end_with_the_loader() -> None:
    """Keep the same processes from loop to loop, a loop left in the middle included; none survives `close`."""
    loader = DataLoader(Whose(), 2, num_workers=2, persistent_workers=True, **FORK)
    first = pids(loader)
    assert len(first) == 2
    left = iter(loader)
    next(left)
    left.close()  # type: ignore[attr-defined]
    assert pids(loader) == first
    assert [batch[1].tolist() for batch in loader] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    loader.close()
    assert pids(loader).isdisjoint(first)
    loader.close()


def test_a_second_loop_beside_one_with_persistent_workers_has_its_own() -> None:
    """Let two loops over one loader run side by side, each complete."""
    loader = DataLoader(Whose(), 2, num_workers=1, persistent_workers=True, **FORK)
    outer = iter(loader)
    next(outer)
    assert [batch[1].tolist() for batch in loader] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert [batch[1].tolist() for batch in outer] == [[2, 3], [4, 5], [6, 7]]
    loader.close()


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_threads_in_one_side_process_give_the_same_bytes(context: str) -> None:
    """Run several threads in a worker process: what `rng` draws is the sample's own."""

    class Drawn:
        def __len__(self) -> int:
            return 40

        def __getitem__(self, index: int) -> tuple[int, np.ndarray]:
            return index, rng().random(400)

    inline = bytes_of(DataLoader(Drawn(), 3, shuffle=True, seed=3))
    loader = DataLoader(
        Drawn(), 3, shuffle=True, seed=3, num_workers=1, threads_per_worker=3, multiprocessing_context=context
    )
    assert bytes_of(loader) == inline
    assert loader.statistics().workers == 1


def test_a_batch_that_kills_a_process_with_threads_is_found_out() -> None:
    """Give up on the guilty batch alone; its neighbours, which died with it, are all made."""

    class Deadly:
        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int) -> int:
            if index == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            return index

    iterator = iter(DataLoader(Deadly(), 1, num_workers=1, threads_per_worker=3, **FORK))
    made: list[int] = []
    failed: list[tuple[int, str]] = []

    def run() -> None:
        for step in range(12):
            try:
                made.extend(next(iterator).tolist())
            except WorkerDied as error:
                failed.append((step, str(error)))

    with pytest.warns(RuntimeWarning, match="SIGKILL"):
        run()
    assert made == [n for n in range(12) if n != 5]
    assert [step for step, _ in failed] == [5]
    assert "batch 5 has ended 3 workers" in failed[0][1]
    iterator.close()  # type: ignore[attr-defined]


def test_without_restarts_a_death_is_an_error_at_once() -> None:
    """Name the process, the signal and the batches that it had; then the loop is at its end."""

    class Deadly:
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> int:
            os.kill(os.getpid(), signal.SIGTERM)
            return index

    iterator = iter(DataLoader(Deadly(), 1, num_workers=2, restart_workers=0, **FORK))
    with pytest.raises(
        WorkerDied, match=r"pid \d+\) is killed by signal: SIGTERM .* it had the batches \[\d, \d\] in hand"
    ):
        next(iterator)
    with pytest.raises(LoaderClosed):
        next(iterator)


class Gate:
    """Sample 0 waits until the file is there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> int:
        while index == 0 and not self.path.exists():
            time.sleep(0.001)
        return index


def opening(path: Path, key: int, loader: Any) -> Iterator[int]:
    """Pass on what comes, and open the gate when one of them is here."""
    for batch in loader:
        if batch.item() == key:
            path.touch()
        yield batch.item()


def test_out_of_order_a_slow_batch_holds_up_no_other(tmp_path: Path) -> None:
    """Give a worker no more works than its share while it is busy, and everything else to the other."""
    loader = DataLoader(Gate(tmp_path / "open"), 1, num_workers=2, in_order=False, **FORK)
    assert list(opening(tmp_path / "open", 9, loader)) == [1, 3, 4, 5, 6, 7, 8, 9, 0, 2]


@pytest.mark.parametrize("how", [{"backend": "threads"}, FORK, {}], ids=str)
def test_out_of_order_every_batch_comes_once(how: dict[str, Any]) -> None:
    """Deliver all of an epoch, in whatever order."""
    numbers = ArrayDataset(np.arange(60)).map(lambda number, rng: (number, rng.random()))
    loader = DataLoader(numbers, 7, shuffle=True, seed=3, num_workers=2, in_order=False, **how)
    assert sorted(bytes_of(loader)) == sorted(bytes_of(DataLoader(numbers, 7, shuffle=True, seed=3)))


def test_out_of_order_a_slow_copy_of_a_stream_holds_up_no_other(tmp_path: Path) -> None:
    """Read the other copy to its end while one waits."""

    class Stream(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            info = get_worker_info()
            assert info is not None
            for number in range(5):
                while info.id == 0 and not (tmp_path / "open").exists():
                    time.sleep(0.001)
                yield 10 * info.id + number

    loader: DataLoader[Any] = DataLoader(Stream(), 1, num_workers=2, in_order=False, **FORK)
    assert list(opening(tmp_path / "open", 14, loader)) == [10, 11, 12, 13, 14, 0, 1, 2, 3, 4]


class Letters(IterableDataset[str]):
    """A stream that gives everything to whoever reads it, and counts how often it is read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.reads = 0

    def __iter__(self) -> Iterator[str]:
        self.reads += 1
        for letter in self.text:
            yield f"{letter}{rng().integers(10)}"


@pytest.mark.parametrize("how", [{"backend": "threads"}, FORK, {**FORK, "threads_per_worker": 2}], ids=str)
def test_a_stream_that_does_not_shard_itself_is_read_once_and_handed_round(how: dict[str, Any]) -> None:
    """Give the samples, and the random numbers, of reading it inline, whoever finishes them; read it here, once."""

    def finish(sample: str, generator: np.random.Generator) -> str:
        return f"{sample}{generator.integers(10)}"

    def run(**arguments: Any) -> list[list[str]]:
        letters = Letters("abcdefghijk")
        loader: DataLoader[Any] = DataLoader(letters.map(finish), 3, seed=2, **arguments)
        batches = list(loader)
        if arguments:
            assert letters.reads == 1
        return batches

    assert run(num_workers=2, read_once=True, **how) == run() == run(read_once=True)


def test_large_samples_of_a_stream_reach_the_workers() -> None:
    """Send what was read to the workers, however large, without filling their channels."""
    rows = [np.full(300_000, number, np.float32) for number in range(12)]
    stream: Any = (row for row in rows)
    loader: DataLoader[Any] = DataLoader(stream, 2, num_workers=2, read_once=True, **FORK)
    assert [batch[:, 0].tolist() for batch in loader] == [[2.0 * n, 2.0 * n + 1] for n in range(6)]


def test_a_bad_sample_of_a_shared_stream_is_named_by_its_place() -> None:
    """Say where in the stream it stood, not what was in it."""

    def fussy(letter: str) -> str:
        if letter == "c":
            raise ValueError("c is bad")
        return letter

    mapped = MappedIterable((letter for letter in "abcdef"), fussy)
    loader: DataLoader[Any] = DataLoader(mapped, 2, num_workers=2, read_once=True, on_error="skip", **FORK)
    assert list(loader) == [["a", "b"], ["d", "e"], ["f"]]
    assert [(bad.index, bad.error) for bad in loader.statistics().bad] == [(2, "ValueError: c is bad")]
    iterator = iter(DataLoader(MappedIterable(list("abc"), fussy), 2))
    next(iterator)
    with pytest.raises(ValueError, match="c is bad") as caught:
        next(iterator)
    assert "sample 2 of the stream" in caught.value.__notes__[-1]
