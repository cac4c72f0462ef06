"""The search for the best workers: what it finds in worlds without clocks, how it measures, and what it remembers."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.run.pipeline_world import Part, World

import headrace
from headrace import DataLoader, Dataset, IterableDataset
from headrace.errors import ArgumentError
from headrace.interop import machine
from headrace.run.bottleneck import Measured
from headrace.run.tuning import auto_workers, makers, space
from headrace.run.tuning.makers import may_start_processes
from headrace.run.tuning.remembered import Remembered
from headrace.run.tuning.search import LEAST_EPOCH, MOST_TRIALS, Search, Trial
from headrace.run.tuning.space import Room, Space
from headrace.run.tuning.tuner import BUDGET, EPOCHS, WINDOW, Tuner
from headrace.run.tuning.worker_setting import WorkerSetting

READ, DECODE, PYTHON = Part("read", "io", 20.0), Part("decode", "cpu", 5.0), Part("other", "python", 5.0)
THREADS, PROCESSES = ("threads", "inline", "processes"), ("processes", "inline")
WORLDS: dict[str, tuple[World, tuple[str, ...]]] = {
    "decode": (World([DECODE], 2, cpus=2), THREADS),
    "Python, threads": (World([PYTHON], 2, cpus=2), THREADS),
    "Python, processes": (World([PYTHON], 2, cpus=4), PROCESSES),
    "storage": (World([READ, Part("decode", "cpu", 1.0)], 2, cpus=2, train=4.0), THREADS),
    "only storage": (World([READ], 2, cpus=2, train=0.5), THREADS),
    "slow training": (World([DECODE], 4, cpus=4, train=20.0), THREADS),
    "one CPU": (World([DECODE], 1, cpus=1), THREADS),
    "a thing to unpickle": (World([DECODE], 2, "processes", cpus=2, opening=4.0, packing=1.0), PROCESSES),
    "mixed": (World([Part("read", "io", 5.0), DECODE], 2, cpus=2, train=3.0), THREADS),
}
GRID = [WorkerSetting("inline")] + [WorkerSetting(kind, n) for kind in ("threads", "processes") for n in (1, 2, 4)]


@cache
def seen(name: str, setting: WorkerSetting) -> Measured:
    """Return what a loop in a world measures, with these workers."""
    world, _ = WORLDS[name]
    if setting.kind != "processes":
        world = replace(world, opening=0.0, packing=0.0)
    # Threads that make a batch together are a worker that takes a part of the time.
    share = setting.at_once / max(1, setting.hands)
    parts = [replace(part, length=part.length * share) for part in world.parts] if share < 1 else world.parts
    how = {"kind": setting.kind, "workers": setting.at_once, "prefetch": setting.prefetch, "parts": parts}
    found = replace(world, **how).run()  # type: ignore[arg-type]  # each of its own type
    if share == 1 or setting.kind == "inline":
        return found
    service, cpu = tuple(each / share for each in found.service), found.cpu / share
    return replace(found, workers=setting.hands, together=setting.together, service=service, cpu=cpu)


def searched(name: str) -> Search:
    """Search for the best workers in a world."""
    world, kinds = WORLDS[name]
    start = WorkerSetting(kinds[0], world.cpus)
    search = Search(start, Space(kinds, world.cpus, most_threads=6, most_processes=6))
    while search.next is not None:
        found = seen(name, search.next)
        search.found(Trial(search.next, (found.period,) * 3, found.waiting / found.period, found))
    return search


@pytest.mark.parametrize("name", WORLDS)
def test_the_search_finds_the_best_of_a_grid(name: str) -> None:
    """Come within 5 % of the best of all settings, with a few trials."""
    search = searched(name)
    kinds = WORLDS[name][1]
    best = min(seen(name, setting).period for setting in GRID if setting.kind in kinds)
    assert search.best is not None
    assert seen(name, search.best).period < best * 1.05, [str(trial.setting) for trial in search.trials]
    assert len(search.trials) <= 8


ROOM_FOR_FOUR = Space(("threads", "inline"), 2, most_ahead=4, most_together=8)
FEW_BATCHES = Space(("threads", "inline"), 2, most_threads=24, most_at_once=3, most_together=8)


@pytest.mark.parametrize("space", [ROOM_FOR_FOUR, FEW_BATCHES], ids=["memory", "epoch"])
def test_threads_make_batches_together_where_few_are_under_way(space: Space) -> None:
    """Let more threads read than there may be batches; come near the best of a grid."""
    search = Search(WorkerSetting("threads", 2), space)
    while search.next is not None:
        found = seen("only storage", search.next)
        search.found(Trial(search.next, (found.period,) * 3, found.waiting / found.period, found))
    assert search.best is not None
    grid = [space.fitted(WorkerSetting("threads", count)) for count in (1, 2, 3, 4, 6, 8, 12, 16, 24)]
    assert all(map(space.has, [*grid, search.best]))
    assert search.best.together > 1
    assert search.best.hands > search.best.ahead
    assert seen("only storage", search.best).period < 1.05 * min(seen("only storage", each).period for each in grid)
    without = seen("only storage", WorkerSetting("threads", 4 if space is ROOM_FOR_FOUR else 3, 1))
    assert seen("only storage", search.best).period < 0.8 * without.period


def test_the_threads_of_a_batch_that_the_user_asks_for_are_kept() -> None:
    """Try no setting with fewer of them, but for pools that have fewer threads."""
    space = Space(("threads", "processes"), 4, most_together=8, together=3, threads=None)
    assert space.fitted(WorkerSetting("threads", 8)) == WorkerSetting("threads", 8, together=3)
    assert space.fitted(WorkerSetting("threads", 2)) == WorkerSetting("threads", 2, together=2)
    assert space.fitted(WorkerSetting("processes", 2, 2, 4)) == WorkerSetting("processes", 2, 2, 4, 3)
    assert not space.has(WorkerSetting("threads", 16, together=9))


def whole_epochs(start: WorkerSetting, space: Space, *, starting: float, spent: float, batches: int) -> Search:
    """Search where each epoch is measured as a whole, and begins with the start of its workers."""
    search = Search(start, space)
    while search.next is not None:
        setting = search.next
        lasts = batches * spent / max(1, setting.workers) + starting * setting.workers
        search.found(Trial(setting, (lasts / batches,) * 2, 1.0, None, spent if setting.workers else None))
    return search


@pytest.mark.parametrize("fastest", [2, 4, 8])
def test_more_batches_ahead_are_tried_for_batches_that_take_no_time(fastest: int) -> None:
    """Double them as long as it helps, though the model sees nothing to gain."""
    search = Search(WorkerSetting("processes", 2), Space(PROCESSES, 2, most_processes=2))
    while search.next is not None:
        setting = search.next
        period = 5e-4 if setting.kind == "inline" else 3e-4 / min(setting.prefetch, fastest) / setting.workers
        search.found(Trial(setting, (period,) * 3, 0.9, None))
    assert search.best == WorkerSetting("processes", 2, fastest)


def test_epochs_that_end_before_their_workers_have_started_get_fewer() -> None:
    """Try no more processes where those that there are stand idle; take none, where that may be."""
    start = WorkerSetting("processes", 2)
    found = whole_epochs(start, Space(PROCESSES, 2), starting=0.5, spent=0.001, batches=10)
    assert [trial.setting for trial in found.trials] == [start, WorkerSetting("inline")]
    assert found.best == WorkerSetting("inline")
    found = whole_epochs(start, Space(("processes",), 2), starting=0.5, spent=0.001, batches=10)
    assert [trial.setting for trial in found.trials] == [start, WorkerSetting("processes", 1)]
    assert found.best == WorkerSetting("processes", 1)


def test_short_epochs_of_slow_batches_get_more_workers() -> None:
    """Try more of them where they are busy, and not the loop's own thread."""
    start, space = WorkerSetting("processes", 2), Space(PROCESSES, 2, most_at_once=3, most_processes=3)
    found = whole_epochs(start, space, starting=0.02, spent=0.8, batches=3)
    assert [trial.setting for trial in found.trials] == [start, WorkerSetting("processes", 3)]
    assert found.best == WorkerSetting("processes", 3)


def test_no_processes_are_tried_in_the_place_of_threads_where_an_epoch_is_short() -> None:
    """Leave them out of the search, whatever the model thinks of them."""
    search = Search(WorkerSetting("threads", 2), Space(THREADS, 2, most_threads=6, most_processes=6, most_at_once=50))
    while search.next is not None:
        found = seen("Python, threads", search.next)
        search.found(Trial(search.next, (found.period,) * 3, found.waiting / found.period, found))
    assert 50 * found.period < LEAST_EPOCH
    assert all(trial.setting.kind != "processes" for trial in search.trials)


def test_a_slow_loop_gets_the_fewest_workers_that_suffice() -> None:
    """End after two trials, with one worker in the place of four."""
    search = searched("slow training")
    assert str(search.best) == 'num_workers=1, backend="threads"'
    assert len(search.trials) == 2


def test_noise_changes_nothing() -> None:
    """Keep the setting that there is, unless another one is clearly better."""
    noisy = Trial(WorkerSetting("threads", 2), (1.0, 1.4, 0.8, 1.2, 0.9))
    other = Trial(WorkerSetting("threads", 3), (0.9, 1.3, 0.8, 1.1, 0.95))
    assert not other.beats(noisy)
    assert Trial(other.setting, (0.7, 0.71, 0.7, 0.69, 0.7)).beats(noisy)
    quiet = Trial(WorkerSetting("threads", 2), (1.0,) * 5)
    assert Trial(other.setting, (0.97,) * 5).beats(quiet)
    assert not Trial(other.setting, (0.99,) * 5).beats(quiet)


def test_a_search_ends_whatever_is_measured() -> None:
    """Stop after so many trials where each is better than the one before, and nothing is known of the batches."""
    search, period = Search(WorkerSetting("threads", 1), Space(("threads",), 2)), 1.0
    while search.next is not None:
        period /= 2
        search.found(Trial(search.next, (period,) * 3))
    assert len(search.trials) <= MOST_TRIALS


def test_kinds_that_fail_are_left_out() -> None:
    """Try no other setting of a kind that cannot be had; go back to the best of the others."""
    search = Search(WorkerSetting("threads", 2), Space(THREADS, 2))
    search.found(Trial(WorkerSetting("threads", 2), (1.0,) * 3))
    search.found(Trial(WorkerSetting("processes", 2), (0.5,) * 3))
    assert search.best == WorkerSetting("processes", 2)
    search.failed(WorkerSetting("processes", 3))
    assert search.best == WorkerSetting("threads", 2)
    assert search.next is None or search.next.kind != "processes"


def measured_by(tuner: Tuner, period: float, batches: int, now: float = 0.0) -> tuple[bool, float]:
    """Let a loop take batches, one every ``period``; return whether that was enough, and the time."""
    for _ in range(batches):
        now += period
        if tuner.took(now - period / 2, now):
            return True, now
    return False, now


def test_windows_of_time_are_measured_after_the_pipeline_has_filled() -> None:
    """Leave out the batches that were under way; end with the median of windows, and what part the loop waited."""
    start = WorkerSetting("threads", 2)
    tuner = Tuner(start, lambda: Space(("threads",), 2))
    tuner.enter(0.0)
    done, now = measured_by(tuner, 1.0, start.ahead)
    assert not done
    assert tuner.is_measuring
    done, now = measured_by(tuner, WINDOW / 8, 1000, now)
    assert done
    changed = tuner.tried(None)
    trial = tuner._search.trials[0]  # type: ignore[union-attr]
    assert trial.period == pytest.approx(WINDOW / 8)
    assert trial.waiting == pytest.approx(0.5)
    assert changed == WorkerSetting("threads", 3)
    tuner.changed(under_way=3)
    filling = tuner.is_measuring
    measured_by(tuner, 0.1, 3 + changed.ahead, now)
    assert (filling, tuner.is_measuring) == (False, True)


def test_short_epochs_are_measured_as_a_whole() -> None:
    """Where an epoch is over before the pipeline is full, compare whole epochs."""
    tuner = Tuner(WorkerSetting("threads", 2), lambda: Space(("threads",), 2))
    for epoch in range(EPOCHS):
        assert not tuner.enter(10.0 * epoch)
        assert measured_by(tuner, 0.5, 3, 10.0 * epoch) == (False, 10.0 * epoch + 1.5)
    assert tuner.enter(100.0)
    assert tuner.tried(None) == WorkerSetting("threads", 3)
    assert tuner._search.trials[0].period == 0.5  # type: ignore[union-attr]


def test_the_search_ends_when_its_time_is_over() -> None:
    """Try nothing else after the budget, and keep the best setting."""
    tuner = Tuner(WorkerSetting("threads", 1), lambda: Space(("threads",), 2))
    tuner.enter(0.0)
    now, period = 0.0, 0.2
    while not tuner.over:
        done, now = measured_by(tuner, period, 1, now)
        if done:
            tuner.tried(None)
            period *= 0.7
    assert BUDGET < now < 2 * BUDGET
    assert tuner.setting == tuner._search.best  # type: ignore[union-attr]


def test_the_room_limits_what_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep within memory, files and batches; share a machine between its ranks."""
    how: dict[str, Any] = {"batches": None, "prefetch": None, "threads": 1, "under_way": 2}
    small = Room(cpus=2, memory=400 << 20, files=None).space(THREADS, batch_bytes=50 << 20, **how)
    assert small.most_ahead == 3
    assert small.most_processes == 1
    assert not small.has(WorkerSetting("threads", 4))
    assert small.has(WorkerSetting("threads", 3, 1))
    few = Room(cpus=2, memory=None, files=40).space(THREADS, batch_bytes=1, **{**how, "batches": 5})
    assert few.most_processes == 2
    assert few.counts("threads") == [1, 2, 3, 4, 5]
    objects = Room(cpus=2, memory=1 << 40, files=None).space(THREADS, batch_bytes=0, **how)
    assert objects.most_ahead == 32
    fixed = Room(cpus=2, memory=None, files=None).space(THREADS, batch_bytes=1, **{**how, "prefetch": 4})
    assert not fixed.has(WorkerSetting("threads", 2))
    assert fixed.has(WorkerSetting("threads", 2, 4))
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(space, "cpus", lambda: 8)
    assert Room.here(1, 2).cpus == 4


def test_workers_run_ahead_only_as_far_as_there_is_memory() -> None:
    """Try more workers with fewer batches ahead of each, where memory is what lacks; never against the user's word."""
    room = Space(("threads",), 2, most_ahead=4)
    assert room.fitted(WorkerSetting("threads", 3)) == WorkerSetting("threads", 3, 1)
    assert room.fitted(WorkerSetting("threads", 2)) == WorkerSetting("threads", 2)
    assert replace(room, prefetch=2).fitted(WorkerSetting("threads", 3)) == WorkerSetting("threads", 3)
    search = Search(WorkerSetting("threads", 2), room)
    assert search.found(Trial(WorkerSetting("threads", 2), (1.0,) * 3)) == WorkerSetting("threads", 3, 1)


def test_too_many_batches_for_the_memory_make_fewer_workers_worth_a_trial() -> None:
    """Propose a setting that fits, whatever the model says."""
    search = Search(WorkerSetting("threads", 4), Space(("threads",), 4, most_ahead=2))
    following = search.found(Trial(WorkerSetting("threads", 4), (1.0,) * 3))
    assert following is not None
    assert following.ahead <= 2


class Loud(Dataset[Any]):
    """A dataset for threads."""

    suits_threads = True

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> int:
        return index


class Counting(IterableDataset[Any]):
    """An iterable dataset."""

    def __iter__(self) -> Any:
        yield from range(9)


class Stateful(Loud):
    """A dataset that keeps a state of its own."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def kinds(dataset: Any, **how: Any) -> tuple[str, ...] | None:
    """Return which kinds of workers a loader may choose from; None where it does not search."""
    session = DataLoader(dataset, 4, **{"num_workers": "auto", **how})._session
    return None if session._auto is None else session.settings.free_kinds


def test_only_workers_that_make_the_same_bytes_are_tried() -> None:
    """Take no kind that was not asked for, and leave datasets alone that depend on who reads them."""
    assert kinds(Loud()) == ("threads", "inline", "processes")
    assert kinds(list("abcdefgh"), collate_fn=list) == ("processes", "inline")
    assert kinds(Loud(), backend="threads") == ("threads",)
    assert kinds(Loud(), multiprocessing_context="fork") == ("processes",)
    assert kinds(Loud(), timeout=5) == ("threads", "processes")
    assert kinds(Counting(), read_once=True) is not None
    assert kinds(Counting()) is None
    assert kinds(Stateful()) is None
    assert kinds(Loud(), num_workers=2) is None
    assert kinds(Loud(), backend="inline") is None
    assert kinds(Loud(), backend=headrace.share("kinds")) is None


def test_processes_are_not_started_where_that_does_harm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Fork no process that has other threads, and import no main script again that has no guard."""
    adapter = DataLoader._adapter
    monkeypatch.setattr("headrace.executors.registry.usual_start", lambda: "fork")
    monkeypatch.setattr("headrace.executors.processes.start.other_threads", lambda: ["somebody's"])
    assert not may_start_processes(adapter)
    monkeypatch.setattr("headrace.executors.processes.start.other_threads", list)
    assert may_start_processes(adapter)
    monkeypatch.setattr("headrace.executors.registry.usual_start", lambda: "spawn")
    script = tmp_path / "train.py"
    monkeypatch.setattr(makers.sys.modules["__main__"], "__file__", str(script), raising=False)  # type: ignore[attr-defined]
    assert not may_start_processes(adapter)
    script.write_text("train()", encoding="utf-8")
    assert not may_start_processes(adapter)
    script.write_text("if __name__ == '__main__':\n    train()", encoding="utf-8")
    assert may_start_processes(adapter)


FACTS = {"dataset": "Photos", "samples": 40}
WHOLE = Space(THREADS, 2)


def test_a_setting_is_remembered_for_its_dataset_and_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Find it again with the same facts, and only then."""
    setting = WorkerSetting("processes", 3, 4)
    Remembered(tmp_path, FACTS).save(setting)
    assert Remembered(tmp_path, FACTS).load(WHOLE) == setting
    assert Remembered(tmp_path, {**FACTS, "samples": 41}).load(WHOLE) is None
    monkeypatch.setattr("headrace.run.tuning.remembered.cpus", lambda: 99)
    assert Remembered(tmp_path, FACTS).load(WHOLE) is None
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_the_usual_folder_is_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Follow XDG_CACHE_HOME."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    Remembered(place=True, facts=FACTS).save(WorkerSetting("threads", 3))
    assert len(list((tmp_path / "headrace" / "workers").iterdir())) == 1


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 30_000,
        {"format": "another"},
        {"facts": {}},
        {"setting": 3},
        {"setting": {"kind": "threads", "workers": True, "prefetch": 2, "threads": 1}},
        {"setting": {"kind": "threads", "workers": -3, "prefetch": 2, "threads": 1}},
        {"setting": {"kind": "threads", "workers": 3, "prefetch": 0, "threads": 1}},
        {"setting": {"kind": "inline", "workers": 3, "prefetch": 2, "threads": 1}},
        {"setting": {"kind": 7, "workers": 3, "prefetch": 2, "threads": 1}},
        {"setting": {"kind": "ray", "workers": 3, "prefetch": 2, "threads": 1}},
        {"setting": {"kind": "threads", "workers": 10**9, "prefetch": 2, "threads": 1}},
    ],
    ids=str,
)
def test_a_damaged_or_foreign_file_is_ignored_with_a_warning(tmp_path: Path, damage: Any) -> None:
    """Measure again, whatever the file has become."""
    file = Remembered(tmp_path, FACTS)
    file.save(WorkerSetting("threads", 3))
    whole = json.loads(file.path.read_text(encoding="utf-8"))
    file.path.write_text(damage if isinstance(damage, str) else json.dumps({**whole, **damage}), encoding="utf-8")
    with pytest.warns(RuntimeWarning, match="it is ignored, and the workers are measured again"):
        assert file.load(WHOLE) is None


def test_a_folder_that_cannot_be_used_is_a_warning(tmp_path: Path) -> None:
    """Train all the same."""
    taken = tmp_path / "file"
    taken.write_text("no folder", encoding="utf-8")
    file = Remembered(taken, FACTS)
    with pytest.warns(RuntimeWarning, match="was not saved"):
        file.save(WorkerSetting("threads", 3))
    with pytest.warns(RuntimeWarning, match="cannot be read"):
        assert file.load(WHOLE) is None


class _Quick(Tuner):
    """Measures nothing, and chooses three threads with the second batch."""

    def took(self, asked: float, now: float) -> bool:
        super().took(asked, now)
        return self._batches > 1

    def tried(self, measured: Any) -> WorkerSetting | None:
        self.over, self.setting = True, WorkerSetting("threads", 3)
        return self.setting


def test_a_loader_prints_its_choice_and_takes_it_in_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Say one line that can be pasted, keep the setting for later epochs, and begin with it in the next run."""
    monkeypatch.setattr(auto_workers, "Tuner", _Quick)
    how: dict[str, Any] = {"num_workers": "auto", "remember_tuning": tmp_path, "seed": 1, "shuffle": True}
    loader: DataLoader[Any] = DataLoader(Loud(), 4, **how)
    assert loader.statistics().tuned is None
    first = [batch.tolist() for batch in loader]
    said = 'DataLoader(..., num_workers=3, backend="threads")\n'
    assert capsys.readouterr().err.endswith(said)
    assert loader.statistics().tuned == 'num_workers=3, backend="threads"'
    second = [batch.tolist() for batch in loader]
    assert loader.statistics().workers == 3
    monkeypatch.setattr(auto_workers, "Tuner", Tuner)
    again: DataLoader[Any] = DataLoader(Loud(), 4, **how)
    assert [[batch.tolist() for batch in again] for _ in range(2)] == [first, second]
    assert again.statistics().tuned == 'num_workers=3, backend="threads"'
    assert capsys.readouterr().err == f'headrace: num_workers="auto": a search in an earlier run has chosen {said}'


def test_other_ranks_say_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Print one line for all ranks."""
    monkeypatch.setattr(auto_workers, "Tuner", _Quick)
    for _ in DataLoader(Loud(), 4, num_workers="auto", rank=1, world_size=2, seed=0):
        pass
    assert capsys.readouterr().err == ""


def test_remembering_needs_a_search() -> None:
    """Refuse what would have no effect, and what is no folder."""
    with pytest.raises(ArgumentError, match='remember_tuning=True needs num_workers="auto"; got num_workers=2'):
        DataLoader(Loud(), 4, num_workers=2, remember_tuning=True)
    with pytest.raises(TypeError, match="remember_tuning must be True, False or a folder; got an int"):
        DataLoader(Loud(), 4, num_workers="auto", remember_tuning=3)  # type: ignore[arg-type]


def test_a_remembered_kind_that_cannot_be_made_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go back to the workers without a search, with a warning, where the dataset cannot be copied any more."""
    monkeypatch.setattr(auto_workers, "may_start_processes", lambda adapter: True)
    monkeypatch.setattr(Remembered, "load", lambda self, space: WorkerSetting("processes", 2))

    class Held(Loud):
        def __init__(self) -> None:
            self.file = Path(os.devnull).open("rb")  # noqa: SIM115  cannot be pickled

    dataset = Held()
    loader: DataLoader[Any] = DataLoader(dataset, 4, num_workers="auto", remember_tuning=tmp_path)
    with pytest.warns(RuntimeWarning, match="goes back to"):
        assert len(list(loader)) == 10
    dataset.file.close()


def test_files_left_and_memory_are_asked_of_the_system() -> None:
    """Know how many files may still be opened, and how much memory is free."""
    room = Room.here(0, 1)
    assert room.cpus == machine.cpus()
    assert room.files is None or room.files > 0
