"""One script, run with torch's DataLoader and with headrace.torch's: results, errors, warnings, lengths, attributes.

What differs by design, and is left out of the comparison here; docs/guide/torch.md tells users the same:
- which permutation a seed gives: ours is a function of (seed, epoch), of a number drawn as torch draws it;
- that an error from a worker is the dataset's own, with notes, where torch makes another of its type and text;
- who makes the batches of lists and ranges: threads, where torch starts processes;
- that `timeout` and `prefetch_factor=0` are refused by an assertion of ours, with other words;
- that with persistent workers, too, each epoch draws a seed, so that samplers drawing from the same generator continue
  from another place than with torch, which draws for the first epoch only;
- that a stream's length is held against the samples it gave, where torch counts batches;
- that samples which do not fit together are reported with their places, and that an extra key is an error.
"""

from __future__ import annotations

import gc
import re
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
import torch.utils.data as theirs  # noqa: E402

import headrace.torch as ours  # noqa: E402
from tests.parity import loads  # noqa: E402

LIBRARIES = (theirs, ours)
OMITTED = "omitted"

DATASETS: dict[str, Any] = {
    "numbers": loads.Numbers,
    "records": loads.Records,
    "many": loads.Many,
    "broken": loads.Broken,
    "tensors": lambda size: theirs.TensorDataset(torch.arange(size * 2).reshape(size, 2), torch.arange(size) / 2),
    "list": lambda size: [torch.full((2,), number) for number in range(size)],
    "range": range,
    "subset": lambda size: theirs.Subset(loads.Numbers(20), range(size)),
    "stream": loads.Stream,
    "counted": loads.Counted,
    "shared": loads.Shared,
    "broken stream": loads.BrokenStream,
}
STREAMS = {"stream", "counted", "shared", "broken stream"}
SAMPLERS: dict[str, Any] = {
    "none": lambda size: None,
    "list": lambda size: list(range(size))[::-1],
    "numpy": np.arange,
    "sequential": lambda size: theirs.SequentialSampler(range(size)),
    "random": lambda size: theirs.RandomSampler(range(size)),
    "seeded": lambda size: theirs.RandomSampler(range(size), generator=torch.Generator().manual_seed(3)),
    "replacement": lambda size: theirs.RandomSampler(range(size), replacement=True, num_samples=7),
    "weighted": lambda size: theirs.WeightedRandomSampler([1.0] * max(size, 1), 5),
    "subset": lambda size: theirs.SubsetRandomSampler(range(size)),
    "shares": lambda size: theirs.DistributedSampler(range(size), 2, 1, shuffle=False),
    "once": loads.Unsized,
}
BATCH_SAMPLERS: dict[str, Any] = {
    "none": lambda size: None,
    "lists": lambda size: [list(range(start, min(start + 3, size))) for start in range(0, size, 3)],
    "batches": lambda size: theirs.BatchSampler(theirs.SequentialSampler(range(size)), 2, drop_last=False),
    "shuffled": lambda size: theirs.BatchSampler(theirs.RandomSampler(range(size)), 2, drop_last=True),
}


def often(usual: Any, *others: Any) -> Any:
    """Draw what is usual four times in five, so that most combinations of arguments can be used."""
    return st.integers(0, 4).flatmap(lambda n: st.sampled_from(others) if n == 0 else st.just(usual))


INLINE = {
    "dataset": st.sampled_from(sorted(DATASETS)),
    "size": st.integers(0, 9),
    "batch_size": st.sampled_from([OMITTED, 1, 2, 3, 20, None]) | often(2, *[0, -1, True, 2.5, "2"]),
    "shuffle": st.sampled_from([OMITTED, None, False, True]),
    "sampler": often("none", *SAMPLERS),
    "batch_sampler": often("none", *BATCH_SAMPLERS),
    "drop_last": st.booleans(),
    "collate_fn": st.sampled_from([OMITTED, OMITTED, None, loads.bag]),
    "generator": st.sampled_from([None, None, 5]),
}
WORKERS = {
    "num_workers": often(2, 0, 1, -1),
    "prefetch_factor": often(None, 1, 3, -1),
    "persistent_workers": st.booleans(),
    "timeout": often(0, 60, 60.5, -1),
    "in_order": often(*[True, False]),
    "worker_init_fn": often(None, loads.greet),
    "multiprocessing_context": often(None, "fork", "knife", 3),
}


def arguments(case: dict[str, Any]) -> dict[str, Any]:
    """Make the arguments that a case names: again for each library, for generators and samplers move."""
    size = case["size"]
    given = {name: value for name, value in case.items() if value != OMITTED and name != "size"}
    given["dataset"] = DATASETS[case["dataset"]](size)
    for name, makers in (("sampler", SAMPLERS), ("batch_sampler", BATCH_SAMPLERS)):
        given[name] = makers[case[name]](size)
    if case["generator"] is not None:
        given["generator"] = torch.Generator().manual_seed(case["generator"])
    return given


def exact(value: Any) -> Any:
    """Say a batch so that two can be compared: tensors with their dtype and shape, containers with their type."""
    if isinstance(value, torch.Tensor):
        return "tensor", str(value.dtype), str(tuple(value.shape)), value.tolist()
    if isinstance(value, np.ndarray):
        return "array", str(value.dtype), str(value.shape), value.tolist()
    if isinstance(value, dict):
        return type(value).__name__, [(key, exact(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value).__name__, [exact(item) for item in value]
    return type(value).__name__, value


def attributes(loader: Any) -> dict[str, Any]:
    """Return what libraries rebuild loaders from."""
    simple = ["batch_size", "num_workers", "prefetch_factor", "timeout", "pin_memory", "pin_memory_device", "drop_last"]
    simple += ["persistent_workers", "in_order", "worker_init_fn", "multiprocessing_context", "_auto_collation"]
    simple += ["_dataset_kind"]
    found = {name: getattr(loader, name) for name in simple}
    found["sampler"], found["batch_sampler"] = type(loader.sampler).__name__, type(loader.batch_sampler).__name__
    found["collate_fn"] = loader.collate_fn.__name__
    found["generator"] = loader.generator is not None
    return found


def epoch(loader: Any) -> list[Any]:
    """Read one epoch, errors and all: each is at its step, and the loop continues after it."""
    events: list[Any] = []
    iterator = iter(loader)
    for _ in range(30):
        try:
            events.append(("batch", exact(next(iterator))))
        except StopIteration:
            break
        except Exception as error:  # noqa: BLE001  what is raised is what is compared
            # Without its traceback, whose frames would keep the iterator and its workers.
            events.append(("error", error.with_traceback(None)))
    return events


def run(library: Any, case: dict[str, Any]) -> SimpleNamespace:
    """Make the loader, look at it, and read two epochs."""
    seen = SimpleNamespace(error=None, attributes=None, length=None, epochs=[], states=[], warnings=[])
    torch.manual_seed(1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            loader = library.DataLoader(**arguments(case))
            seen.attributes = attributes(loader)
            try:
                seen.length = len(loader)
            except Exception as error:  # noqa: BLE001
                seen.length = type(error)
            for _ in range(2):
                seen.epochs.append(epoch(loader))
                seen.states.append(torch.get_rng_state().tolist())
        except Exception as error:  # noqa: BLE001
            seen.error = error.with_traceback(None)
    loader = None
    if case.get("num_workers"):
        gc.collect()
    # The threads of a loader of torch's may outlive it for a moment, and then ours warns of forking beside them.
    said = [each for each in said if "worker processes are forked" not in str(each.message)]
    seen.warnings = [(each.category, str(each.message)[:40]) for each in said]
    return seen


def alike(found: BaseException | None, expected: BaseException | None) -> bool:
    """Say whether an error is of the kind that was expected: whoever catches torch's catches ours."""
    if str(expected).startswith(f"Caught {type(found).__name__} in DataLoader worker process"):
        return True  # where torch cannot make such an error from a text, it raises a RuntimeError
    return found is expected if expected is None else isinstance(found, type(expected))


def compare(case: dict[str, Any]) -> None:
    """Run both, and hold one to the other."""
    expected, found = (run(library, case) for library in LIBRARIES)
    assert alike(found.error, expected.error), (found.error, expected.error)
    assert found.attributes == expected.attributes
    assert found.length == expected.length
    if case["batch_size"] in (OMITTED, 1, None):  # else torch holds batches against a length in samples
        assert found.warnings == expected.warnings
    shuffled, in_order = case["shuffle"] is True, case.get("in_order", True)
    alike_epochs = 1 if case.get("persistent_workers") else 2
    for ours_, theirs_ in list(zip(found.epochs, expected.epochs, strict=True))[:alike_epochs]:
        if not in_order:
            ours_, theirs_ = (sorted(events, key=str) for events in (ours_, theirs_))
        assert [kind for kind, _ in ours_] == [kind for kind, _ in theirs_]
        for (kind, ours_one), (_, theirs_one) in zip(ours_, theirs_, strict=True):
            if kind == "error":
                assert alike(ours_one, theirs_one), (ours_one, theirs_one)
        batches, wanted = ([event for kind, event in events if kind == "batch"] for events in (ours_, theirs_))
        if shuffled:
            assert case["drop_last"] or loads.leaves(batches) == loads.leaves(wanted)
            batches, wanted = list(map(loads.blank, batches)), list(map(loads.blank, wanted))
        assert batches == wanted
    if not shuffled:  # there torch's sampler draws one number more, as it begins
        assert found.states[:alike_epochs] == expected.states[:alike_epochs]


@settings(max_examples=100)
@given(case=st.fixed_dictionaries(INLINE))
def test_inline_all_is_the_same(case: dict[str, Any]) -> None:
    """Draw any arguments, right or wrong, and read two epochs."""
    if case["dataset"] == "broken" and case["shuffle"] is True:  # which batch fails is not the same
        case["shuffle"] = False
    compare(case)


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(case=st.fixed_dictionaries({**INLINE, **WORKERS}))
def test_with_workers_all_is_the_same(case: dict[str, Any]) -> None:
    """Draw the arguments for workers too."""
    if case["dataset"] == "broken" and case["shuffle"] is True:
        case["shuffle"] = False
    compare(case)


NUMBERS: dict[str, Any] = {"dataset": [0, 1, 2, 3]}
STREAM: dict[str, Any] = {"dataset": loads.Stream(4)}
REFUSED: list[dict[str, Any]] = [
    {**NUMBERS, "num_workers": -1},
    {**NUMBERS, "timeout": -1},
    {**NUMBERS, "timeout": -0.5, "num_workers": 1},
    {**NUMBERS, "prefetch_factor": 2},
    {**NUMBERS, "prefetch_factor": 0},
    {**NUMBERS, "prefetch_factor": -1, "num_workers": 1},
    {**NUMBERS, "persistent_workers": True},
    {**NUMBERS, "batch_size": 0},
    {**NUMBERS, "batch_size": -2},
    {**NUMBERS, "batch_size": True},
    {**NUMBERS, "batch_size": 1.5},
    {**NUMBERS, "batch_size": "3"},
    {**NUMBERS, "batch_size": None, "drop_last": True},
    {**NUMBERS, "sampler": [1], "shuffle": True},
    {**NUMBERS, "batch_sampler": [[1]], "batch_size": 11},
    {**NUMBERS, "batch_sampler": [[1]], "batch_size": None},
    {**NUMBERS, "batch_sampler": [[1]], "shuffle": True},
    {**NUMBERS, "batch_sampler": [[1]], "sampler": [1]},
    {**NUMBERS, "batch_sampler": [[1]], "drop_last": True},
    {**NUMBERS, "multiprocessing_context": "fork"},
    {**NUMBERS, "multiprocessing_context": "bad", "num_workers": 1},
    {**NUMBERS, "multiprocessing_context": object(), "num_workers": 1},
    {**STREAM, "shuffle": True},
    {**STREAM, "sampler": [1]},
    {**STREAM, "sampler": 3},
    {**STREAM, "sampler": theirs.SequentialSampler([1])},
    {**STREAM, "batch_sampler": [[1]]},
    {**STREAM, "batch_sampler": 3},
    {**STREAM, "batch_size": None, "drop_last": True},
    {**STREAM, "batch_size": 0},
    {"dataset": [], "shuffle": True},
]


@pytest.mark.parametrize("arguments", REFUSED, ids=lambda given: str({**given, "dataset": type(given["dataset"])}))
def test_what_torch_refuses_is_refused_in_its_words(arguments: dict[str, Any]) -> None:
    """Raise an error that torch's own type catches, with all that torch says up to what it was given."""
    with pytest.raises(Exception) as expected:  # noqa: PT011  whatever it is
        theirs.DataLoader(**arguments)
    with pytest.raises(expected.type) as found:
        ours.DataLoader(**arguments)
    said = re.split(r"[,;:.(]|\bset\b|\blet\b", str(expected.value))[0].strip()
    assert said
    assert said in str(found.value)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torch's own iterator, half made
@pytest.mark.parametrize(
    "arguments", [{"num_workers": 1, "prefetch_factor": 0}, {"timeout": 3}, {"timeout": 0.5}], ids=str
)
def test_what_torch_refuses_only_when_a_loop_begins_is_refused_then(arguments: dict[str, Any]) -> None:
    """Take it in the constructor, and raise an AssertionError at iter()."""
    for library in LIBRARIES:
        loader = library.DataLoader([1, 2], **arguments)
        with pytest.raises(AssertionError):
            iter(loader)
    gc.collect()


TAKEN: list[dict[str, Any]] = [
    {"batch_sampler": [[1], [0, 2]], "batch_size": 1},
    {"batch_sampler": [[1], [0, 2]], "shuffle": False, "drop_last": False},
    {"batch_size": np.int64(2).item()},
    {"shuffle": 0},
    {"shuffle": 1, "generator": torch.Generator(), "batch_size": 4},
    {"sampler": [2, 2, 0], "batch_size": None},
    {"sampler": theirs.BatchSampler(theirs.SequentialSampler(range(4)), 2, drop_last=False), "batch_size": None},
    {"sampler": range(3, -1, -1), "drop_last": True, "batch_size": 3},
    {"sampler": (), "batch_size": 2},
    {"batch_sampler": ()},
    {"collate_fn": tuple, "batch_size": 3},
    {"collate_fn": str, "batch_size": None},
    {"pin_memory_device": "cpu"},
    {"in_order": False},
    {"worker_init_fn": print},
    {"num_workers": 0, "timeout": 0.0},
]


@pytest.mark.parametrize("arguments", TAKEN, ids=lambda given: ", ".join(map(str, given)))
def test_what_torch_takes_gives_the_same(arguments: dict[str, Any]) -> None:
    """Read odd, but right, combinations of arguments."""
    dataset = loads.Many(4) if "sampler" in arguments and arguments.get("batch_size", 1) is None else loads.Numbers(4)
    if isinstance(arguments.get("sampler"), theirs.BatchSampler):
        dataset = theirs.TensorDataset(torch.arange(4))
    both = [epoch(library.DataLoader(dataset, **arguments)) for library in LIBRARIES]
    assert [kind for kind, _ in both[0]] == [kind for kind, _ in both[1]]
    if arguments.get("shuffle") != 1:
        assert both[0] == both[1]
