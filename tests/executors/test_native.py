"""The executor of the native extension's own threads."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from tests.image_files import encoded, photo
from tests.native.stepwise import MISSING, WHY

from headrace import (
    ArrayDataset,
    DataLoader,
    ImageFiles,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    Subset,
    ToCHW,
    ToFloat,
)
from headrace._native import extension
from headrace.collate.default import default_collate
from headrace.context import seeds
from headrace.context.seeds import key_of
from headrace.context.timing import timed
from headrace.datasets import StackDataset
from headrace.datasets.protocol import batch_beginner, batch_reader
from headrace.errors import LoaderClosed, WorkerTimeout
from headrace.executors.native import Native
from headrace.make.maker import Maker
from headrace.make.source import Batched
from headrace.plan.work import Done, Failed, Outcome, Work
from headrace.testing import ExecutorTests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

pytestmark = pytest.mark.skipif(MISSING, reason=WHY)

TRAIN = (RandomResizedCrop(24), RandomHorizontalFlip(), ToFloat(), Normalize(0.5, 0.25), ToCHW())


def maker_of(dataset: Any) -> Maker:
    read_batch = batch_reader(dataset)
    assert read_batch is not None
    return Maker(Batched(dataset, read_batch, batch_beginner(dataset)), default_collate)


def work_of(step: int, keys: list[int]) -> Work:
    return Work(key_of(7), epoch=0, step=step, start=step * 8, keys=keys)


def outcomes(dataset: Any, works: list[Work], workers: int = 2) -> list[Outcome]:
    executor = Native(maker_of(dataset), workers)
    try:
        for work in works:
            executor.submit(work)
        return sorted((executor.next(60) for _ in works), key=lambda outcome: outcome.step)
    finally:
        executor.close()


class InFlight:
    """A batch whose rows come from a Python dataset, after a job of the native extension has ended."""

    def __init__(self, job: Any, dataset: Any, keys: Sequence[int]) -> None:
        self._begun, self.jobs = job, job.jobs
        self._dataset, self._keys = dataset, keys

    @property
    def missing(self) -> Sequence[int]:
        return self._begun.missing

    @property
    def underway(self) -> Sequence[int]:
        return self._begun.underway

    def finish(self, stop: Callable[[], None] | None = None) -> Any:
        here = seeds.place()
        samples = []
        for row in seeds.each(len(self._keys)):
            here.alone = True
            samples.append(self._dataset[self._keys[row]])
        with timed("collate"):
            return default_collate(samples)


class TestArrays(ExecutorTests):
    """Batches that the native extension makes whole."""

    rows: Any = ArrayDataset(np.zeros((1, 2, 2, 3), np.uint8)).map(RandomHorizontalFlip())

    def make(self, maker: Maker) -> Native:
        return Native(maker, workers=2)

    def maker(self, dataset: Any) -> Maker:
        def begin(keys: Sequence[int], *, empty: Any) -> InFlight:
            return InFlight(batch_beginner(self.rows)([0] * len(keys), empty=empty), dataset, keys)

        return Maker(Batched(dataset, self.rows.read_batch, begin), default_collate)

    def test_an_interrupt_in_the_dataset_takes_the_place_of_its_batch(self) -> None:
        """Raise it at once instead: the consumer's own thread completes these batches, and Ctrl-C is for it."""
        with pytest.raises(KeyboardInterrupt):
            self.check_error(KeyboardInterrupt())


class TestGivenUpRows(TestArrays):
    """Batches with rows that the native extension gives up, so that threads of Python complete them."""

    @pytest.fixture(autouse=True)
    def bmp(self, tmp_path: Path) -> None:
        (tmp_path / "0.bmp").write_bytes(encoded(photo(0, 40, 60), "BMP"))
        self.rows = ImageFiles([tmp_path / "0.bmp"]).map(*TRAIN)

    def test_an_interrupt_in_the_dataset_takes_the_place_of_its_batch(self) -> None:
        """Deliver it at its step: it is a thread's, and no Ctrl-C of the consumer's."""
        self.check_error(KeyboardInterrupt())


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Make 40 images, every seventh of which the native extension gives up."""
    files = [tmp_path / f"{number}.img" for number in range(40)]
    for number, file in enumerate(files):
        form = "BMP" if number % 7 == 3 else "JPEG"
        file.write_bytes(encoded(photo(number, 40 + number, 90 - number), form))
    return files


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_every_work_gets_the_batch_that_is_made_of_it_elsewhere(images: list[Path], workers: int) -> None:
    """Make images of several formats; their bytes are those of a batch that is read by itself."""
    dataset = ImageFiles(images, np.arange(40)).map(*TRAIN)
    works = [work_of(step, [(step * 11 + row * 3) % 40 for row in range(8)]) for step in range(20)]
    maker = maker_of(dataset)
    for found, work in zip(outcomes(dataset, works, workers), works, strict=True):
        expected = maker.make(work)
        assert isinstance(found, Done)
        assert isinstance(expected, Done)
        assert all(map(np.array_equal, found.batch, expected.batch))


def test_loaders_give_the_same_batches_on_any_number_of_threads(images: list[Path]) -> None:
    """Deliver in order, over views of views and several epochs, what is delivered inline."""
    views = Subset(ImageFiles(images, np.arange(40)).map(*TRAIN), [*range(39, 0, -1)])
    found = []
    for workers in (0, 1, 3):
        loader = DataLoader(views, 4, shuffle=True, seed=3, num_workers=workers)
        found.append([[batch[0].tobytes(), batch[1].tolist()] for _ in range(2) for batch in loader])
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("joined", ["end to end", "side by side"])
def test_the_parts_of_a_dataset_make_their_rows_at_once(images: list[Path], joined: str) -> None:
    """Give what the parts give by themselves: whole, with rows that are given up, and with an error at its batch."""
    first, second = ImageFiles(images[:20], np.arange(20)), ImageFiles(images[20:], np.arange(20))
    dataset: Any
    if joined == "end to end":
        dataset = (first + second).map(*TRAIN)
    else:
        dataset = StackDataset(first.map(*TRAIN), second.map(Resize((24, 24)), ToCHW()))
    images[25].write_bytes(b"no image")
    keys = [[(step * 11 + row * 3) % len(dataset) for row in range(8)] for step in range(20)]
    works = [work_of(step, each) for step, each in enumerate(keys)]
    assert batch_beginner(dataset) is not None
    maker = maker_of(dataset)
    failed = 0
    for found, work in zip(outcomes(dataset, works), works, strict=True):
        expected = maker.make(work)
        assert type(found) is type(expected)
        if isinstance(found, Failed):
            other = cast("Failed", expected)
            assert str(found.error) == str(other.error)
            assert found.place.partition(", made by")[0] == other.place.partition(", made by")[0]
            failed += 1
        else:
            equal_batches(cast("Done", found).batch, cast("Done", expected).batch)
    assert 0 < failed < 20


def equal_batches(found: Any, expected: Any) -> None:
    if isinstance(expected, list):
        for one, other in zip(found, expected, strict=True):
            equal_batches(one, other)
    else:
        np.testing.assert_array_equal(found, expected)


def test_arrays_alone_stay_bare() -> None:
    """Give an array, and no list of one, where a sample is an array."""
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), np.uint8)
    found = list(DataLoader(ArrayDataset(images).map(ToFloat()), 16, num_workers=2))
    np.testing.assert_array_equal(np.concatenate(found), images / np.float32(255))


def test_an_error_takes_the_place_of_its_batch(images: list[Path]) -> None:
    """Tell of a missing file, a file that is no image and an index that is none, each at its own step."""
    images[5].unlink()
    images[12].write_bytes(b"no image at all")
    dataset = ImageFiles(images).map(*TRAIN)
    missing, broken, beyond, good = outcomes(
        dataset, [work_of(0, [4, 5]), work_of(1, [12, 13]), work_of(2, [1, 40]), work_of(3, [0, 1])]
    )
    assert isinstance(missing, Failed)
    assert isinstance(missing.error, FileNotFoundError)
    assert missing.place.startswith(f"sample 5 ({images[5]}), made by headrace-")
    assert isinstance(broken, Failed)
    assert str(images[12]) in str(broken.error)
    assert isinstance(beyond, Failed)
    assert isinstance(beyond.error, IndexError)
    assert isinstance(good, Done)


def test_time_is_reported_by_stage(images: list[Path]) -> None:
    """Report what the native extension's threads did, and what Python did."""
    for dataset, stages in (
        (ImageFiles(images[:3]).map(*TRAIN), {"read", "decode", "transform", "collate", "other"}),
        (ArrayDataset(np.ones((3, 8, 8, 3), np.uint8)).map(ToFloat()), {"transform", "collate", "other"}),
    ):
        (outcome,) = outcomes(dataset, [work_of(0, [0, 1, 2])])
        assert isinstance(outcome, Done)
        assert outcome.seconds.keys() == stages
        assert all(seconds > 0 for seconds in outcome.seconds.values())


def slow(files: list[Path]) -> Any:
    """Return a dataset of images that take long: each is scaled up a great deal."""
    return ImageFiles(files).map(RandomResizedCrop((1500, 1500), interpolation="lanczos"))


def test_a_timeout_says_which_samples_are_at_hand(images: list[Path]) -> None:
    """Name the batch, and the samples that were started and are not made."""
    executor = Native(maker_of(slow(images)), workers=1)
    executor.submit(work_of(0, [0] * 100))
    said = ""
    while not re.search(r"batch 0: sample \d+ of 100, \d+ of them not begun", said):  # until the first is begun
        with pytest.raises(WorkerTimeout) as caught:
            executor.next(timeout=0.05)
        said = str(caught.value)
    executor.close()


def test_closing_ends_a_batch_between_two_rows(images: list[Path]) -> None:
    """Leave the rows that were not started, whatever was submitted; closing twice is allowed."""
    executor = Native(maker_of(slow(images)), workers=2)
    for step in range(4):
        executor.submit(work_of(step, [0] * 200))
    jobs = [job for pending in executor._begun.values() for job in pending.begun.jobs]
    executor.close()
    executor.close()
    assert all(job.finished for job in jobs)
    assert sum(len(job.missing) for job in jobs) > 700
    with pytest.raises(LoaderClosed):
        executor.submit(work_of(9, [0]))
    with pytest.raises(LoaderClosed):
        executor.next()


def test_closing_wakes_a_consumer_that_waits(images: list[Path]) -> None:
    """Raise LoaderClosed in a thread that stands in next while another closes."""
    executor = Native(maker_of(ImageFiles(images).map(*TRAIN)), workers=1)
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            executor.next()
        except LoaderClosed as error:
            caught.append(error)

    consumer = threading.Thread(target=wait)
    consumer.start()
    executor.close()
    consumer.join(60)
    assert len(caught) == 1


def test_a_subclass_with_its_own_batches_is_asked_for_them() -> None:
    """Begin nothing behind the back of a ``read_batch`` that was said again."""
    dataset = ArrayDataset(np.zeros((8, 2, 2, 3), np.uint8)).map(RandomHorizontalFlip())

    class Bright(Subset[Any]):
        def read_batch(self, keys: Any, *, empty: Any = np.empty) -> Any:
            return super().read_batch(keys, empty=empty) + np.uint8(7)

    assert batch_beginner(Subset(dataset, range(8))) is not None
    for workers in (0, 2):
        assert [int(batch.max()) for batch in DataLoader(Bright(dataset, range(8)), 4, num_workers=workers)] == [7, 7]


def test_closing_meets_a_consumer_in_the_middle_of_taking() -> None:
    """Raise nothing but LoaderClosed where one thread takes batches and another closes, whenever it does."""
    dataset = ArrayDataset(np.zeros((400, 2, 2, 3), np.uint8)).map(RandomHorizontalFlip())
    caught: list[BaseException] = []

    def take(iterator: Iterator[Any]) -> None:
        try:
            for _ in iterator:
                pass
        except BaseException as error:  # noqa: BLE001
            caught.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for batches in range(200):
            loop = iter(DataLoader(dataset, 4, num_workers=2, prefetch_factor=16))
            consumer = threading.Thread(target=take, args=(loop,))
            consumer.start()
            while loop.running and loop._meter.batches < batches % 50:  # type: ignore[attr-defined]
                time.sleep(0)
            loop.close()  # type: ignore[attr-defined]
            consumer.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert {type(error) for error in caught} <= {LoaderClosed}


@pytest.mark.parametrize("at", ["begin_batch", "finish"])
def test_ctrl_c_in_the_consumers_part_of_a_batch_waits_for_no_turn(at: str) -> None:
    """Raise it where it strikes, and not at the batch that was being started, for which it may be long."""
    dataset = ArrayDataset(np.zeros((64, 2, 2, 3), np.uint8)).map(RandomHorizontalFlip())

    class Struck:
        def __init__(self, begun: Any) -> None:
            self.jobs, self.missing, self.underway = begun.jobs, begun.missing, begun.underway

        def finish(self, stop: Any = None) -> Any:
            os.kill(os.getpid(), signal.SIGINT)

    def begin(keys: Any, *, empty: Any) -> Any:
        if at == "begin_batch":
            os.kill(os.getpid(), signal.SIGINT)
        return Struck(batch_beginner(dataset)(keys, empty=empty))  # type: ignore[misc]

    executor = Native(Maker(Batched(dataset, dataset.read_batch, begin), default_collate), 2)

    def take() -> None:
        executor.submit(work_of(0, [*range(8)]))
        executor.next(60)

    with pytest.raises(KeyboardInterrupt):
        take()
    executor.close()


def test_whoever_waits_makes_rows_of_arrays_that_no_thread_is_free_for() -> None:
    """Make them in the thread that waits, while the pool's only thread is at rows that take long."""
    pool = cast("Any", extension).ThreadPool(1)
    pictures = np.random.default_rng(0).integers(0, 256, (8, 2, 2, 3), np.uint8)
    small = cast("Any", batch_beginner(ArrayDataset(pictures).map(ToFloat())))
    large = cast("Any", batch_beginner(ArrayDataset(np.zeros((1, 2000, 2000, 3), np.uint8)).map(Resize((9, 9)))))
    events = 0

    def finished(job: Any) -> None:
        nonlocal events
        while not job.finished:
            events = pool.wait(events, 1)

    def made_meanwhile() -> bool:
        quick, awaited = small(range(8), empty=np.empty), small(range(8), empty=np.empty)
        long = large([0] * 9, empty=np.empty)
        pool.submit(quick.jobs[0])
        finished(quick.jobs[0])  # the pool learns how quickly rows are made
        pool.submit(long.jobs[0])
        while long.jobs[0].left == 9:
            time.sleep(0)
        pool.submit(awaited.jobs[0])
        pool.wait(events, 0)
        made = awaited.jobs[0].finished and not long.jobs[0].finished
        long.jobs[0].stop()
        finished(long.jobs[0])
        finished(awaited.jobs[0])
        np.testing.assert_array_equal(awaited.finish(), pictures / np.float32(255))
        return made

    # What the pool learns is wrong where the operating system took the CPU away meanwhile.
    assert any(made_meanwhile() for _ in range(50))
    pool.close(60)


def test_nobody_waits_for_what_was_left_behind() -> None:
    """Drop pool and job while a row is still being made, which closing had no time for."""
    large = ArrayDataset(np.zeros((1, 8000, 8000, 3), np.uint8)).map(Resize((4000, 4000)))
    [job] = batch_beginner(large)([0], empty=np.empty).jobs  # type: ignore[misc]
    pool = cast("Any", extension).ThreadPool(1)
    pool.submit(job)
    while job.left:
        time.sleep(0)
    assert not pool.close(0)
    job.abandon()
    del pool
    assert not job.finished, "dropping the pool has waited for its thread"
    job.wait()  # the suite's leak check wants the thread to have ended


def test_a_dropped_executor_takes_its_threads_with_it(images: list[Path]) -> None:
    """End threads and let go of batches where nobody closes: the leak check of the suite sees to it."""
    executor = Native(maker_of(ImageFiles(images).map(*TRAIN)), workers=3)
    for step in range(6):
        executor.submit(work_of(step, [*range(8)]))
    del executor


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of forking with threads: the very case
def test_a_forked_child_gets_an_error_and_can_begin_again(images: list[Path]) -> None:
    """Raise in a child that continues with its parent's loop; let it read the same dataset on threads of its own."""
    dataset = ImageFiles(images, np.arange(40)).map(*TRAIN)
    executor = Native(maker_of(dataset), workers=2)
    for step in range(4):
        executor.submit(work_of(step, [*range(40)]))
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(LoaderClosed):
            executor.submit(work_of(4, [0]))
            os._exit(3)
        try:
            executor.next()
        except LoaderClosed:
            executor.close()
            del executor
            labels = [label for _, batch in DataLoader(dataset, 8, num_workers=2) for label in batch.tolist()]
            os._exit(17 if labels == [*range(40)] else 2)
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 17
    assert all(isinstance(executor.next(60), Done) for _ in range(4))
    executor.close()


SCRIPT = """
import sys, numpy as np, headrace
images = np.zeros((100_000, 32, 32, 3), np.uint8)
dataset = headrace.ArrayDataset(images).map(headrace.ToFloat())
iterator = iter(headrace.DataLoader(dataset, batch_size=10, num_workers=4))
next(iterator)
{end}
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [("", 0), ("raise SystemExit(5)", 5), ("raise ValueError('x')", 1), ("keep = [iterator]; keep.append(keep)", 0)],
    ids=["running off the end", "sys.exit", "an error", "held in a cycle"],
)
def test_the_interpreter_ends_with_a_loop_still_running(end: str, code: int) -> None:
    """Leave a script in the middle of a loop: it ends at once, without a message of ours."""
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(end=end)], capture_output=True, text=True, timeout=250, check=False
    )
    assert run.returncode == code
    assert run.stderr.count("Traceback") == (1 if code == 1 else 0)
    assert "headrace" not in run.stderr


def _large(folder: Path) -> Path:
    """Write a photograph of 3,000 by 4,000 pixels, by repeating those of a small one."""
    path = folder / "large.jpg"
    path.write_bytes(encoded(photo(0, 300, 400).repeat(10, axis=0).repeat(10, axis=1)))
    return path


MAKING = """
import os, signal, sys, threading, headrace
from headrace import DataLoader, ImageFiles, Resize
from headrace.context import sharing

jobs = []

def run(job):
    jobs.append(job)
    job.run()

def interrupt():
    while not jobs or jobs[0].left > 99_999:
        pass
    os.kill(os.getpid(), signal.SIGINT)

sharing.run = run
threading.Thread(target=interrupt).start()
dataset = ImageFiles([sys.argv[1]] * 100_000).map(Resize((8, 8)))
try:
    next(iter(DataLoader(dataset, batch_size=100_000)))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_ctrl_c_ends_a_batch_that_the_loop_itself_makes(tmp_path: Path) -> None:
    """Interrupt the native extension in the middle of a batch that would take it an hour."""
    command = [sys.executable, "-c", MAKING, str(_large(tmp_path))]
    run = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert (run.stdout, run.returncode) == ("interrupted\n", 0)


WAITING = """
import sys, headrace
from headrace import DataLoader, ImageFiles, Resize
dataset = ImageFiles([sys.argv[1]] * 100_000).map(Resize((8, 8)))
print("begun", flush=True)
try:
    next(iter(DataLoader(dataset, batch_size=50_000, num_workers=2)))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="whether the threads are at work is asked of /proc")
def test_ctrl_c_ends_the_waiting_for_a_batch(tmp_path: Path) -> None:
    """Interrupt a program that waits for a batch which is an hour away."""
    command = [sys.executable, "-c", WAITING, str(_large(tmp_path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        while not any(
            name.read_text() == "headrace-pool\n" for name in Path(f"/proc/{process.pid}/task").glob("*/comm")
        ):
            assert process.poll() is None
            time.sleep(0)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=250)[0] == "interrupted\n"
    assert process.returncode == 0
