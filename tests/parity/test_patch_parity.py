"""Our loader in torch's place: for whoever has torch's class, by any name, until it is taken back."""

from __future__ import annotations

import copy
import functools
import inspect
import os
import pickle
import threading
import warnings
from abc import ABC
from multiprocessing import forkserver, get_context
from multiprocessing.context import SpawnContext
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")
import torch.utils.data as theirs  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

import headrace.torch as ours  # noqa: E402
from headrace.errors import ArgumentError  # noqa: E402
from tests.parity import loads  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module", autouse=True)
def helpers() -> None:
    """Start what multiprocessing starts once and leaves running, before leaks are counted."""
    forkserver.ensure_running()


@pytest.fixture(autouse=True)
def torchs_class_is_as_it_was() -> Iterator[None]:
    """Hold every test to what it found: the same attributes, and no trace in the configuration of processes."""
    before = dict(vars(theirs.DataLoader))
    yield
    assert dict(vars(theirs.DataLoader)) == before


class Library(DataLoader):
    """A library's own loader, defined before anything is patched."""

    def __init__(self, dataset: Any, *given: Any, factor: int = 1, **named: Any) -> None:
        self.factor = factor
        super().__init__(dataset, *given, **named)

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            yield batch * self.factor


class Old(DataLoader, ABC):
    """Names its base class, as code for Python 2 did."""

    def __init__(self, *given: Any) -> None:
        DataLoader.__init__(self, *given)

    def __iter__(self) -> Any:
        return iter([batch.tolist() for batch in DataLoader.__iter__(self)])

    def __len__(self) -> int:
        return DataLoader.__len__(self)


makes = functools.partial(DataLoader, batch_size=2)


def made_by(kind: Any = DataLoader) -> Any:
    return kind(range(3))


def test_every_name_of_torchs_class_makes_ours_and_then_torchs_again() -> None:
    """Take names imported before, names in a module, partial functions and default arguments."""
    ways = [
        lambda: DataLoader(range(3)),
        lambda: theirs.DataLoader(range(3)),
        lambda: theirs.dataloader.DataLoader(range(3)),
        lambda: torch.utils.data.DataLoader[int](range(3)),
        lambda: makes(range(3)),
        made_by,
    ]
    for _ in range(2):
        assert not any(isinstance(make(), ours.DataLoader) for make in ways)
        with ours.patch():
            loaders = [make() for make in ways]
            assert all(type(loader) is ours.DataLoader for loader in loaders)
            assert all(isinstance(loader, DataLoader) for loader in loaders)
            assert theirs.DataLoader is DataLoader
        assert [[batch.tolist() for batch in loader] for loader in loaders[:2]] == [[[0], [1], [2]]] * 2


def test_a_module_that_is_imported_later_gets_ours_and_then_torchs() -> None:
    """Leave nothing of ours in a module that was imported while it was there."""
    module = ModuleType("late")
    with ours.patch():
        exec("from torch.utils.data import DataLoader\nclass Late(DataLoader): pass", vars(module))
        assert isinstance(module.DataLoader(range(3)), ours.DataLoader)
        assert isinstance(module.Late(range(3)), ours.DataLoader)
    assert module.DataLoader is DataLoader
    assert not isinstance(module.DataLoader(range(3)), ours.DataLoader)
    assert not isinstance(module.Late(range(3)), ours.DataLoader)


@pytest.mark.parametrize("workers", [0, 2])
def test_subclasses_run_through_ours(workers: int) -> None:
    """Be a library's own class, and ours below it; outlive the patch."""
    with ours.patch():
        loader = Library(loads.Numbers(5), 2, factor=10, num_workers=workers)
        old = Old(range(3), 2)
    assert isinstance(loader, Library)
    assert isinstance(loader, ours.DataLoader)
    assert (type(loader).__name__, type(loader).__module__) == ("Library", __name__)
    assert loader.statistics().batches == 0
    for _ in range(2):
        assert [batch.tolist() for batch in loader] == [[0, 10], [20, 30], [40]]
    assert isinstance(old, ours.DataLoader)
    assert list(old) == [[0, 1], [2]]
    assert len(old) == 2


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda loader: pickle.loads(pickle.dumps(loader))])
@pytest.mark.parametrize("kind", [DataLoader, Library])
def test_loaders_are_copied_and_pickled(how: Any, kind: Any) -> None:
    """Find the class again, whether it is patched or not."""
    with ours.patch():
        loader = kind(loads.Numbers(4), 2)
    again = how(loader)
    assert type(again) is type(loader)
    assert [batch.tolist() for batch in again] == [[0, 1], [2, 3]]
    with pytest.raises(ValueError, match="should not be set"):
        again.batch_size = 3


def test_loaders_that_were_there_before_stay_torchs() -> None:
    """Let them go on, in the middle of an epoch and in the next."""
    loader = Library(range(4), 2)
    batches = iter(loader)
    next(batches)
    with ours.patch():
        assert not isinstance(loader, ours.DataLoader)
        assert [batch.tolist() for batch in batches] == [[2, 3]]
        assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3]]
        assert len(loader) == 2
        loader.own = 1


def test_the_signature_stays_torchs() -> None:
    """Let libraries that read the signature find torch's."""
    before = inspect.signature(DataLoader)
    with ours.patch():
        assert inspect.signature(DataLoader) == before
        assert inspect.signature(DataLoader(range(3)).__init__).parameters.keys() > before.parameters.keys()


def test_patches_within_patches() -> None:
    """Give the arguments of the newest, take them back in any order, and more than once."""
    first, second = ours.patch(seed=1), ours.patch(seed=2, on_error="skip")
    loader: Any = DataLoader(range(3))
    assert (loader.seed, loader.on_error) == (2, "skip")
    first.undo()
    loader = DataLoader(range(3))
    assert loader.seed == 2
    assert ours.DataLoader(range(3)).seed is None
    first.undo(), second.undo(), second.undo()
    assert not isinstance(DataLoader(range(3)), ours.DataLoader)


def test_arguments_of_the_call_come_before_those_of_the_patch() -> None:
    """Let a script that knows ours say what it wants."""
    with ours.patch(seed=1, backend="threads"):
        loader: Any = Library(range(3), seed=5)
    assert (loader.seed, loader.backend) == (5, "threads")


@pytest.mark.parametrize("name", ["num_workers", "batch_size", "nonsense"])
def test_only_arguments_of_ours_are_taken(name: str) -> None:
    """Refuse torch's own, which every script decides about, and names that nobody knows."""
    with pytest.raises(ArgumentError, match=f"patch got {name}=, which no loader takes from it"):
        ours.patch(**{name: 1})


def test_an_error_takes_it_back() -> None:
    """Restore torch's class when the block raises."""
    with pytest.raises(KeyError), ours.patch():
        raise KeyError
    assert not isinstance(DataLoader(range(3)), ours.DataLoader)


def test_somebody_elses_wrapper_is_left_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be taken back under a wrapper that was put on later, which then has torch's constructor below it."""
    patch = ours.patch()
    hooked = DataLoader.__init__

    def wrapper(self: Any, *given: Any, **named: Any) -> None:
        hooked(self, *given, **named)

    monkeypatch.setattr(DataLoader, "__init__", wrapper)
    assert isinstance(DataLoader(range(3)), ours.DataLoader)
    patch.undo()
    assert not isinstance(DataLoader(range(3)), ours.DataLoader)
    monkeypatch.undo()
    assert not isinstance(DataLoader(range(3)), ours.DataLoader)
    with ours.patch():
        assert isinstance(DataLoader(range(3)), ours.DataLoader)


def test_a_subclass_that_ours_cannot_follow_is_left_to_torch() -> None:
    """Say so, and give what torch gives."""

    class Odd(DataLoader):
        _auto_collation = False  # type: ignore[assignment]

    with ours.patch(), pytest.warns(UserWarning, match="Odd is left to torch: it overrides _auto_collation"):
        loader: Any = Odd(range(3), 2)
    assert not isinstance(loader, ours.DataLoader)
    assert [int(item) for item in loader] == [0, 1, 2]


class Threads(SpawnContext):
    """A context as MONAI's ``ThreadDataLoader`` has it, in as far as it is looked at."""

    Process = threading.Thread  # type: ignore[assignment]


def test_threads_in_the_place_of_processes_are_left_to_torch() -> None:
    """Say what to do where the loader is ours, and let torch do what it does where it would become ours."""
    with pytest.raises(ArgumentError, match=r"starts threads in the place of processes.* pass backend=\"threads\""):
        ours.DataLoader(range(3), num_workers=1, multiprocessing_context=Threads())
    with ours.patch(), pytest.warns(UserWarning, match="left to torch: its multiprocessing_context starts threads"):
        loader: Any = DataLoader(range(3), num_workers=1, multiprocessing_context=Threads())
    assert not isinstance(loader, ours.DataLoader)


def test_warnings_name_the_line_of_the_script() -> None:
    """Point at who made the loader, or began the loop, however it came to be ours."""

    class Sub(DataLoader):
        pass

    with ours.patch(native=True):
        for kind in (DataLoader, Sub, functools.partial(ours.DataLoader, native=True)):
            with pytest.warns(UserWarning, match="99 worker processes|not a dataset of torchvision") as heard:
                kind(loads.Numbers(2), num_workers=99)
            assert [warning.filename for warning in heard] == [__file__] * 2


def test_subclasses_of_every_kind_become_ours_or_stay_torchs() -> None:
    """Take slots, and what is done with each subclass; leave alone what no class can be made of."""
    counted = []

    class Counting(DataLoader):
        def __init_subclass__(cls, name: str) -> None:
            counted.append(name)

    class Named(Counting, name="named"):
        __slots__ = ("extra",)

        def __init__(self, dataset: Any) -> None:
            self.extra = 3
            super().__init__(dataset)

    class Choosy(type):
        def __new__(cls, name: str, bases: Any, names: Any, *, must: int) -> Any:
            return super().__new__(cls, name, bases, names)

        def __init__(cls, name: str, bases: Any, names: Any, *, must: int) -> None:
            super().__init__(name, bases, names)

    class Chosen(DataLoader, metaclass=Choosy, must=1):
        pass

    with ours.patch():
        loader: Any = Named(range(3))
        with pytest.warns(UserWarning, match="Chosen is left to torch: no subclass of it can be made"):
            chosen: Any = Chosen(range(3))
    assert isinstance(loader, ours.DataLoader)
    assert loader.extra == 3
    assert counted == ["named"]
    assert not isinstance(chosen, ours.DataLoader)
    assert len(list(chosen)) == len(list(loader)) == 3


def test_arguments_that_cannot_be_pickled_stay_in_this_process() -> None:
    """Start workers all the same."""
    with ours.patch(backend=lambda *given, **named: None):
        loader = theirs.DataLoader(Asking(), 2, num_workers=1, multiprocessing_context="spawn", backend="processes")
        assert [batch[0].tolist() for batch in loader] == [[False, False]] * 2


def test_explain_says_how_each_loader_reads(capsys: pytest.CaptureFixture[str]) -> None:
    """Print to stderr, once for each loader, and nothing without it."""
    with ours.patch(explain=True):
        loader = DataLoader(loads.Numbers(4), 2)
        list(loader), list(loader)
    with ours.patch():
        DataLoader(loads.Numbers(4), 2)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("headrace: DataLoader(<Numbers of 4>, batch_size=2, shuffle=False, num_workers=0)") == 1
    assert said.err.count("Numbers: ") == 1


class Asking(theirs.Dataset[Any]):
    """Says in a worker which class a loader has there, and which worker it is."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        info = theirs.get_worker_info()
        return isinstance(theirs.DataLoader(range(2)), ours.DataLoader), info.id, os.getpid()


def ask(answer: Any) -> None:
    loader: Any = theirs.DataLoader(range(2))
    answer.put((isinstance(loader, ours.DataLoader), getattr(loader, "seed", None)))


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_worker_processes_have_it_too(method: str) -> None:
    """Start workers in every way; what they make is ours as well."""
    with ours.patch(seed=1):
        loader = theirs.DataLoader(Asking(), 2, num_workers=2, multiprocessing_context=method)
        batches = list(loader)
    assert [batch[0].tolist() for batch in batches] == [[True, True]] * 2
    assert [batch[1].tolist() for batch in batches] == [[0, 0], [1, 1]]
    assert all(os.getpid() not in batch[2].tolist() for batch in batches)


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_child_processes_have_it_as_long_as_it_is_there(method: str) -> None:
    """Let a program's own processes, such as those of torch.multiprocessing.spawn, do as their parent does."""
    context = get_context(method)
    answer = context.SimpleQueue()
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        for patched in (True, False):
            patch = ours.patch(seed=3)
            if not patched:
                patch.undo()
            child = context.Process(target=ask, args=(answer,))
            child.start()
            found.append(answer.get())
            child.join()
            patch.undo()
    answer.close()
    assert found == [(True, 3), (False, None)]


def test_torchdata_and_ours_are_as_they_are() -> None:
    """Leave other loaders alone: ours, and one with a constructor of its own."""

    class Own(DataLoader):
        def __init__(self) -> None:
            object.__setattr__(self, "made", 1)

    with ours.patch(seed=4):
        assert ours.DataLoader(range(3)).seed is None
        loader = Own()
    assert loader.made == 1
    assert type(loader) is Own
