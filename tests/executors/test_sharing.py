"""Processes that share batches by a name: each batch is made once, delivered once to each, and no kill loses one."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import threading
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import headrace
from headrace import ArrayDataset, DataLoader, Dataset, IterableDataset
from headrace.collate.default import default_collate
from headrace.errors import ArgumentError, LoaderClosed, WorkerDied
from headrace.executors import shared_preparation, sharing_executor
from headrace.executors.inline import Inline
from headrace.executors.shared_preparation import SharedPreparation
from headrace.executors.sharing_executor import Agreement, SharingExecutor
from headrace.executors.threads import Threads
from headrace.make.maker import Maker
from headrace.make.publishing_maker import PublishingMaker, name_of
from headrace.make.source import Indexed
from headrace.plan.work import Work
from headrace.testing import ExecutorTests
from headrace.transport.batch_store import BatchStore, store_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.executors.base import Executor

FORK = multiprocessing.get_context("fork")


class Noise(Dataset[Any]):
    """Random rows of 8 KiB, drawn for each sample; counts how many were made."""

    suits_threads = True

    def __init__(self, count: int = 48, *, broken: tuple[int, ...] = ()) -> None:
        self.count, self.broken = count, broken
        self.made = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        self.made += 1
        if index in self.broken:
            raise ValueError(f"no {index}")
        return headrace.rng().random(1024) + index, index


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Return a name that nobody else uses, and check that nothing of it is left."""
    monkeypatch.setattr(shared_preparation, "store_folder", lambda name: tmp_path / "batches" / name)
    yield f"test-{uuid.uuid4().hex[:12]}"
    gc.collect()  # an error's frames
    assert not (tmp_path / "batches").exists()


def shared(name: str, dataset: Any = None, workers: int = 0, **options: Any) -> DataLoader[Any]:
    """Return a loader that shares its batches."""
    backend = headrace.share(name, backend=options.pop("backend", "auto"), memory=options.pop("memory", "1GiB"))
    given = {"shuffle": True, "seed": 5, **options}
    return DataLoader(Noise() if dataset is None else dataset, 4, num_workers=workers, backend=backend, **given)


def alone(dataset: Any = None, **options: Any) -> list[Any]:
    """Return the batches of a loader that shares nothing."""
    return list(DataLoader(Noise() if dataset is None else dataset, 4, **{"shuffle": True, "seed": 5, **options}))


def same(one: Any, other: Any) -> bool:
    """Compare batches to the bit."""
    return len(one) == len(other) and all(
        all(np.array_equal(a, b) for a, b in zip(x, y, strict=True)) for x, y in zip(one, other, strict=True)
    )


class _Alone(ExecutorTests):
    """An executor that shares its batches, where nobody else takes part, or somebody who takes none."""

    others = False

    @pytest.fixture(autouse=True)
    def _store(self, tmp_path: Path) -> Iterator[None]:
        self.store = BatchStore(tmp_path / "user" / "name", 1 << 24)
        self.peers = [self.store.join({}) for _ in range(1 + self.others)]
        yield
        for peer in self.peers:
            peer.leave()

    def inner(self, maker: Maker) -> Executor:
        """Return the executor of this process's own workers."""
        return Inline(maker)

    def make(self, maker: Maker) -> Executor:
        """Share what the inner executor makes."""
        inner = self.inner(PublishingMaker.of(maker, self.store))
        return SharingExecutor(inner, self.store, self.peers[0], [0], Agreement(found=True))


class TestInlineAlone(_Alone):
    """In the loop's own thread."""


class TestThreadsAlone(_Alone):
    """On threads."""

    def inner(self, maker: Maker) -> Executor:
        """Return threads."""
        return Threads(maker, 2)


class TestThreadsPublishing(TestThreadsAlone):
    """On threads, for somebody else too."""

    others = True


def test_two_loops_make_each_batch_once(name: str) -> None:
    """Take turns: each batch is made by one of the two, and both get the batches that a loader alone gives."""
    datasets = [Noise(), Noise()]
    loaders = [shared(name, each) for each in datasets]
    first, second = zip(*zip(*loaders, strict=True), strict=True)
    assert same(first, second)
    assert same(first, alone())
    assert sum(each.made for each in datasets) <= 48 + 3 * 2  # each compares three samples
    assert sum(loader.statistics().taken for loader in loaders) == 12
    assert "taken from other processes" in str(loaders[1].statistics())


def test_one_loop_alone_makes_all(name: str) -> None:
    """Take nothing where nobody else is, with any kind of workers."""
    for workers, backend in ((0, "auto"), (2, "threads")):
        loader = shared(name, workers=workers, backend=backend)
        assert same(list(loader), alone())
        assert loader.statistics().taken == 0
        del loader


def test_worker_processes_share(name: str) -> None:
    """Put batches into the store in worker processes; they stay for the next epoch."""
    loaders = [
        shared(name, workers=1, backend="processes", multiprocessing_context="fork", persistent_workers=True)
        for _ in range(2)
    ]
    for epoch in range(2):
        reference = DataLoader(Noise(), 4, shuffle=True, seed=5)
        reference.set_epoch(epoch)
        first, second = zip(*zip(*loaders, strict=True), strict=True)
        assert same(first, list(reference))
        assert same(first, second)
        assert sum(loader.statistics().taken for loader in loaders) >= 8
    for loader in loaders:
        loader.close()


def test_a_batch_is_each_ones_own(name: str) -> None:
    """Write to a batch: nobody else sees it, neither who made it nor who took it."""
    one, other = (iter(shared(name)) for _ in range(2))
    for expected in alone():
        mine, theirs = next(one), next(other)
        mine[0][:] = -1
        assert np.array_equal(theirs[0], expected[0])
        theirs[0][:] = -2
        assert (mine[0] == -1).all()


def test_batches_outlive_the_loader(name: str) -> None:
    """Keep batches when all have left."""
    loaders = [shared(name) for _ in range(2)]
    pairs = list(zip(*loaders, strict=True))
    for loader in loaders:
        loader.close()
    del loaders
    assert same([pair[0] for pair in pairs], alone())
    assert same([pair[1] for pair in pairs], alone())


def test_a_late_one_and_one_that_stops_early(name: str) -> None:
    """Begin when the other is at batch 6, which then stops: both have had what they should."""
    early, late = iter(shared(name)), shared(name)
    begun = [next(early) for _ in range(6)]
    steps = iter(late)
    found = [next(steps) for _ in range(3)]
    begun += [next(early) for _ in range(2)]
    early.close()
    del early
    found += list(steps)
    assert same(found, alone())
    assert same(begun, alone()[:8])


def test_a_loop_resumes_beside_others(name: str) -> None:
    """Load a state of a loader that shared nothing, partway through an epoch."""
    reference = DataLoader(Noise(), 4, shuffle=True, seed=5)
    steps = iter(reference)
    for _ in range(5):
        next(steps)
    loaders = [shared(name) for _ in range(2)]
    for loader in loaders:
        loader.load_state_dict(reference.state_dict())
    pairs = list(zip(*loaders, strict=True))
    assert same([pair[0] for pair in pairs], alone()[5:])
    assert same([pair[1] for pair in pairs], alone()[5:])
    assert loaders[0].state_dict()["epoch"] == 1


@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_bad_samples_are_dealt_with_as_ever(name: str, policy: Any) -> None:
    """Skip and replace: both loops have the same batches, and name the bad samples."""
    datasets = [Noise(broken=(3, 17, 30)) for _ in range(2)]
    loaders = [shared(name, each, on_error=policy) for each in datasets]
    first, second = zip(*zip(*loaders, strict=True), strict=True)
    assert same(first, alone(Noise(broken=(3, 17, 30)), on_error=policy))
    assert same(first, second)
    for loader in loaders:
        assert sorted(bad.index for bad in loader.statistics().bad) == [3, 17, 30]


def test_an_error_comes_to_each(name: str) -> None:
    """Raise a sample's error in each process at its step, without waiting for the others."""
    for workers, backend in ((0, "auto"), (2, "threads")):
        loaders = [iter(shared(name, Noise(broken=(9,)), workers, backend=backend, shuffle=False)) for _ in range(2)]
        for steps in loaders:
            next(steps), next(steps)
            with pytest.raises(ValueError, match="no 9"):
                next(steps)
        for steps in loaders:
            steps.close()
        del loaders, steps


def test_ranks_share_what_is_the_same(name: str) -> None:
    """Give two ranks of two one name: their batches differ, and each gets its own."""
    loaders = [shared(name, rank=rank, world_size=2) for rank in range(2)]
    references = [alone(rank=rank, world_size=2) for rank in range(2)]
    first, second = zip(*zip(*loaders, strict=True), strict=True)
    assert same(first, references[0])
    assert same(second, references[1])
    assert sum(loader.statistics().taken for loader in loaders) == 0


def test_a_cap_too_small_only_costs_time(name: str) -> None:
    """Give the store less than one batch: each makes all itself."""
    loaders = [shared(name, memory=1000) for _ in range(2)]
    first, second = zip(*zip(*loaders, strict=True), strict=True)
    assert same(first, second)
    assert same(first, alone())


def test_a_store_that_is_deleted_only_costs_time(name: str, tmp_path: Path) -> None:
    """Delete all files in the middle of an epoch."""
    loaders = [iter(shared(name, workers=1, backend="threads")) for _ in range(2)]
    found = [[next(steps) for steps in loaders] for _ in range(3)]
    (tmp_path / "batches" / name).rename(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "elsewhere")
    found += list(zip(*loaders, strict=True))
    assert same([pair[0] for pair in found], alone())
    assert same([pair[1] for pair in found], alone())
    with suppress(OSError):
        (tmp_path / "batches").rmdir()


def test_no_place_for_files_is_a_warning(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Share nothing where no folder can be made, and name the line that reads the batches."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(shared_preparation, "store_folder", lambda name: tmp_path / "file" / "x" / name)
    with pytest.warns(RuntimeWarning, match="this process makes all itself") as caught:
        assert same(list(shared(name)), alone())
    assert {warning.filename for warning in caught} == {__file__}


def test_a_stopped_maker_delays_only_so_long(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for the batch of a process that stands still, and make it when patience ends."""
    monkeypatch.setattr(sharing_executor, "PATIENCE", 0.05)
    loader = shared(name)
    steps = iter(loader)
    found = [next(steps)]
    executor = steps._dispatcher.executor  # type: ignore[attr-defined]
    store = executor._store
    claims = [store.claim(wanted.name) for wanted in executor._state.wanted.values()]
    assert any(claims)
    found += list(steps)
    assert same(found, alone())
    for claim in claims:
        if claim is not None:
            claim.release()


def test_closing_wakes_who_waits_for_another_process(name: str) -> None:
    """Close a loop that waits in another thread for a batch that somebody else has claimed."""
    loader = shared(name)
    steps = iter(loader)
    next(steps)
    executor = steps._dispatcher.executor  # type: ignore[attr-defined]
    store = executor._store
    held = [store.claim(each.name) for each in executor._state.wanted.values()]
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            for _ in range(12):
                next(steps)
        except LoaderClosed as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not any(each.watched >= 0 for each in list(executor._state.wanted.values())):
        thread.join(0.001)
    loader.close()
    thread.join(60)
    assert raised
    for claim in held:
        if claim is not None:
            claim.release()


def test_a_timeout_says_what_is_waited_for(name: str) -> None:
    """Raise WorkerTimeout while another process makes the batch."""
    loader = shared(name, workers=1, backend="threads", timeout=0.05)
    steps = iter(loader)
    executor = steps._dispatcher.executor  # type: ignore[attr-defined]
    held, said = [], ""
    while "another process makes" not in said:  # once those in the making are delivered
        held += [executor._store.claim(each.name) for each in executor._state.wanted.values()]
        try:
            next(steps)
        except headrace.errors.WorkerTimeout as error:
            said = str(error)
    steps.close()
    for claim in held:
        if claim is not None:
            claim.release()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 6}, "seed: 5 there, 6 here"),
        ({"dataset": Noise(44)}, "samples: 48 there, 44 here"),
        ({"collate_fn": list}, "collate_fn: 'default_collate' there, 'list' here"),
        ({"drop_last": True}, "drop_last"),
    ],
)
def test_another_run_under_the_name_is_an_error(name: str, change: dict[str, Any], said: str) -> None:
    """Name what differs, before the first batch."""
    steps = iter(shared(name))
    next(steps)
    with pytest.raises(ArgumentError, match=said):
        next(iter(shared(name, **change)))
    assert len(list(steps)) == 11


@pytest.mark.parametrize(("workers", "backend"), [(0, "auto"), (2, "threads")])
def test_other_samples_under_the_name_are_an_error(name: str, workers: int, backend: str) -> None:
    """Compare samples: the same facts, but other data or another transform."""
    steps = iter(shared(name, Noise().map(lambda sample: (sample[0], sample[1]))))
    next(steps)
    other = shared(name, Noise().map(lambda sample: (sample[0] * 2, sample[1])), workers, backend=backend)
    with pytest.raises(ArgumentError, match="the same samples are other data there"):
        next(iter(other))
    assert len(list(steps)) == 11


def test_a_loader_needs_a_seed_and_an_index(name: str) -> None:
    """Refuse what is no function of a plan."""
    with pytest.raises(ArgumentError, match="only with a seed"):
        iter(shared(name, seed=None)).__next__()

    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[int]:
            return iter(range(5))

    for options in ({}, {"read_once": True}):
        with pytest.raises(ArgumentError, match="cannot be shared"):
            next(iter(DataLoader(Stream(), 2, seed=0, backend=headrace.share(name), **options)))


@pytest.mark.parametrize("given", ["", ".", "..", "a/b", "../x", "a b", "-a", ".a", "é", "a" * 65, None, 3, b"a"])
def test_a_name_is_that_of_a_file(given: Any) -> None:
    """Refuse what could be a path, or is no text."""
    with pytest.raises(ArgumentError, match="name must be"):
        headrace.share(given)


def test_what_cannot_be_shared_is_an_error() -> None:
    """Refuse unknown workers, those of a cluster, sharing twice, and no memory."""
    for backend in ("ray", headrace.executors.RayCluster(), headrace.share("a")):
        with pytest.raises(ArgumentError, match="cannot share its batches"):
            headrace.share("b", backend=backend)
    with pytest.raises(ArgumentError, match="backend"):
        headrace.share("b", backend="fast")
    with pytest.raises(ArgumentError, match="memory"):
        headrace.share("b", memory=0)


def test_it_is_pickled_as_its_name() -> None:
    """Copy and pickle a shared preparation: the copy takes part by itself."""
    import copy
    import pickle

    given = headrace.share("a", backend="threads", memory="1MiB")
    for other in (pickle.loads(pickle.dumps(given)), copy.deepcopy(given)):
        assert isinstance(other, SharedPreparation)
        assert (other.name, other.backend, other.memory) == ("a", "threads", 1 << 20)
    assert repr(given) == "share('a')"


def test_batches_are_kept_in_memory() -> None:
    """Use files in memory where the system has them, in a folder of the user."""
    folder = store_folder("a")
    assert folder.name == "a"
    assert str(os.geteuid()) in folder.parent.name
    if os.access("/dev/shm", os.W_OK):
        assert folder.parent.parent == Path("/dev/shm")


class Deadly(Noise):
    """Kills the loader's process when it, or one of its workers, has made n samples."""

    def __init__(self, count: int, deadly: int) -> None:
        super().__init__(count)
        self.deadly, self.loader = deadly, os.getpid()

    def __getitem__(self, index: int) -> Any:
        if 0 <= self.deadly <= self.made:  # threads may count past it
            os.kill(self.loader, signal.SIGKILL)
        return super().__getitem__(index)


def _read(name: str, workers: int, backend: str, deadly: int, end: Any) -> None:
    loader = shared(name, Deadly(240, deadly), workers, backend=backend)
    labels: list[int] = []
    total = 0.0
    for rows, indices in loader:
        labels += indices.tolist()
        total += float(rows.sum())
    if deadly >= 0:  # the others have made nearly all
        os.kill(os.getpid(), signal.SIGKILL)
    end.send((labels, total))
    loader.close()


@pytest.mark.parametrize(
    ("workers", "backend", "deadly"),
    [(0, "auto", 3), (0, "auto", 30), (2, "threads", 5), (2, "threads", 41), (2, "processes", 6), (2, "processes", 22)],
)
def test_a_killed_process_loses_nothing(name: str, workers: int, backend: str, deadly: int) -> None:
    """Kill one of three processes in the middle of a batch: the others have each sample once, and the same data."""
    batches = alone(Noise(240))
    expected = ([int(i) for _, indices in batches for i in indices], sum(float(rows.sum()) for rows, _ in batches))
    pipes = [FORK.Pipe(duplex=False) for _ in range(3)]
    started = [
        FORK.Process(target=_read, args=(name, workers, backend, deadly if number == 1 else -1, pipe[1]))
        for number, pipe in enumerate(pipes)
    ]
    for process, (_, end) in zip(started, pipes, strict=True):
        process.start()
        end.close()
    for number, (found, _) in enumerate(pipes):
        if number == 1:
            with pytest.raises(EOFError):
                found.recv()
        else:
            assert found.recv() == expected
        found.close()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0, -signal.SIGKILL, 0]
    list(shared(name))  # where the killed one was the last, the next one cleans up


_kept: list[Any] = []


def _keep(name: str, workers: int) -> None:
    _kept.append(shared(name, workers=workers, backend="threads" if workers else "auto"))
    _kept.append(iter(_kept[0]))
    next(_kept[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_child_that_ends_with_its_loader_leaves_nothing(name: str, workers: int) -> None:
    """End a process of multiprocessing, which runs no function of `atexit`, in the middle of an epoch."""
    child = FORK.Process(target=_keep, args=(name, workers))
    child.start()
    child.join()
    assert child.exitcode == 0  # the fixture looks for files


def test_a_batch_that_the_loop_itself_makes_is_not_kept_waiting(tmp_path: Path) -> None:
    """Take a batch that is there, beside one that was claimed just now: the claim ends before the user has either."""
    store = BatchStore(tmp_path / "user" / "name", 1 << 24)
    peers = [store.join({}) for _ in range(2)]
    maker = Maker(Indexed(Noise()), default_collate)
    one, other = (
        SharingExecutor(Inline(PublishingMaker.of(maker, store)), store, peer, [0], Agreement(found=True))
        for peer in peers
    )
    works = [Work((0, 0), 0, step, 4 * step, list(range(4 * step, 4 * step + 4))) for step in range(2)]
    other.submit(works[1])
    assert other.next().step == 1
    for work in works:
        one.submit(work)
    one.next()
    claim = store.claim(name_of(works[0]))
    assert claim is not None
    claim.release()
    assert {one.next().step} <= {0, 1}
    for executor in (one, other):
        executor.close()
    for peer in peers:
        peer.leave()


def test_patience_begins_when_another_process_makes_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for a batch long before another process claims it: its maker has the whole time from then on."""
    now = [0.0]
    monkeypatch.setattr(sharing_executor, "monotonic", lambda: now[0])
    store = BatchStore(tmp_path / "user" / "name", 1 << 24)
    peer = store.join({})
    inner = Inline(PublishingMaker.of(Maker(Indexed(Noise()), default_collate), store))
    executor = SharingExecutor(inner, store, peer, [0], Agreement(found=True))
    work = Work((0, 0), 0, 0, 0, [0, 1, 2, 3])
    executor.submit(work)
    claim = store.claim(name_of(work))
    assert claim is not None
    for now[0] in (100.0, 99.0 + sharing_executor.PATIENCE):
        with pytest.raises(headrace.errors.WorkerTimeout):
            executor.next(0.001)
    now[0] += 2
    assert executor.next().step == 0
    claim.release()
    executor.close()
    peer.leave()


@pytest.mark.parametrize(("workers", "backend"), [(0, "auto"), (1, "threads")])
def test_samples_that_cannot_be_unpickled_are_not_shared(name: str, workers: int, backend: str) -> None:
    """Give objects that a process cannot read again: each makes its own."""
    options: dict[str, Any] = {"workers": workers, "backend": backend, "collate_fn": list, "shuffle": False}
    dataset = Noise(12).map(lambda sample: (sample[1], Stubborn()))
    pairs = list(zip(*(shared(name, dataset, **options) for _ in range(2)), strict=True))
    assert [[index for index, _ in batch] for batch, _ in pairs] == [list(range(n, n + 4)) for n in (0, 4, 8)]


class Stubborn:
    """Can be pickled, and not unpickled."""

    def __reduce__(self) -> Any:
        return divmod, (1, 0)


def test_ctrl_c_ends_the_comparison_only_here(name: str) -> None:
    """Interrupt the first sample: that is no difference to others, and the next loop begins again."""

    def interrupt(sample: Any) -> Any:
        if presses:
            raise presses.pop()
        return sample

    presses = [KeyboardInterrupt()]
    steps = iter(shared(name, Noise().map(tuple)))
    next(steps)
    interrupted = shared(name, Noise().map(interrupt))
    with pytest.raises(KeyboardInterrupt):
        next(iter(interrupted))
    interrupted.set_epoch(0)
    assert same(list(interrupted), alone())
    assert len(list(steps)) == 11


def _kill_at_five(number: Any) -> Any:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.filterwarnings("ignore:.*is killed by signal")
def test_a_sample_that_kills_workers_is_named_while_processes_compare(name: str) -> None:
    """The middle one of 12 samples is among those that are compared first."""
    dataset = ArrayDataset(np.arange(12)).map(_kill_at_five)
    backend = headrace.share(name, backend="processes")
    loader = DataLoader(dataset, 4, seed=0, num_workers=1, backend=backend)
    with pytest.raises(WorkerDied, match=r"sample 5 of the comparison with other processes.* has ended 3 workers"):
        list(loader)
