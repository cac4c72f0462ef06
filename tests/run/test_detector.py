"""Generators that a dataset or a transform holds, and shared ones on threads, are reported; nothing else is."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pytest

import headrace
from headrace import (
    ArrayDataset,
    Compose,
    ConcatDataset,
    DataLoader,
    IterableDataset,
    RandomHorizontalFlip,
    Subset,
    random_split,
)
from headrace.datasets import RandomWalkDataset
from headrace.errors import RandomnessWarning
from headrace.interop.held import MOST
from headrace.run.detector import held
from headrace.samplers import BucketBatchSampler, RandomSampler

OUTSIDE = np.random.default_rng(0)
rng = np.random.default_rng(1)


class Own:
    def __init__(self, generator: Any = None) -> None:
        self.generator = generator or np.random.default_rng(0)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> float:
        return index + self.generator.random()

    def jitter(self, sample: float) -> float:
        return sample + self.generator.random()


class Slotted:
    __slots__ = ("rng",)

    def __init__(self) -> None:
        self.rng = random.Random(3)

    def __call__(self, sample: Any) -> Any:
        return sample


class OfClass:
    rng = np.random.RandomState(0)

    def __call__(self, sample: Any) -> Any:
        return sample


class FromOutside:
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> float:
        return index + OUTSIDE.random()


def numbers() -> ArrayDataset:
    return ArrayDataset(np.arange(8.0))


def closure() -> Any:
    generator = np.random.default_rng(0)
    return lambda sample: sample + generator.random()


def by_default(sample: Any, times: int = 2, source: Any = np.random.default_rng(0)) -> Any:  # noqa: B008
    return sample


def first_warning(loader: DataLoader[Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            list(islice(loader, 1))
    loader.close()
    return [str(one.message) for one in caught if issubclass(one.category, RandomnessWarning)]


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (Own, "Own.generator: numpy's Generator"),
        (lambda: Own(np.random.RandomState(0)), "Own.generator: numpy's RandomState"),
        (lambda: Own(random.Random(0)), "Own.generator: random's Random"),
        (FromOutside, "FromOutside.__getitem__: OUTSIDE: numpy's Generator"),
        (lambda: Subset(Own(), range(3)), "Subset.dataset.generator"),
        (lambda: ConcatDataset([numbers(), Own()]), "ConcatDataset.datasets[1].generator"),
        (lambda: numbers().map(Slotted()), "Mapped.functions[0].rng: random's Random"),
        (lambda: numbers().map(abs, OfClass()), "Mapped.functions[1].rng: numpy's RandomState"),
        (lambda: numbers().map(closure()), "Mapped.functions[0]: generator: numpy's Generator"),
        (lambda: numbers().map(by_default), "Mapped.functions[0] (default 1): numpy's Generator"),
        (lambda: numbers().map(lambda sample: sample + OUTSIDE.random()), "Mapped.functions[0]: OUTSIDE"),
        (lambda: numbers().map(Own().jitter), "Mapped.functions[0].generator"),
        (lambda: numbers().map(partial(by_default, source=random.Random(0))), "Mapped.functions[0].keywords['source']"),
        (lambda: numbers().map(Compose(abs, Slotted())), "Slotted"),
    ],
)
def test_a_generator_of_the_datas_own_is_named(make: Any, names: str) -> None:
    """Warn once for a loader, with how it is reached and what to do instead."""
    dataset = make()
    [message] = first_warning(DataLoader(dataset, 2, seed=0))
    if names != "Slotted":
        assert names in message
    assert "headrace.rng()" in message


def test_a_collate_function_is_looked_at_too() -> None:
    """Name what it closes over."""
    noise = closure()
    [message] = first_warning(DataLoader(numbers(), 2, collate_fn=lambda samples: noise(np.stack(samples))))
    assert message.startswith("collate_fn: noise: generator")


def drawing(sample: Any) -> Any:
    return sample + headrace.rng().random()


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"dataset": numbers().map(drawing)},
        lambda: {"dataset": numbers().map(lambda sample, rng: sample + rng.random())},
        lambda: {"dataset": numbers(), "generator": np.random.default_rng(0), "shuffle": True},
        lambda: {"dataset": numbers(), "sampler": RandomSampler(range(8), generator=np.random.default_rng(0))},
        lambda: {"dataset": numbers(), "batch_sampler": BucketBatchSampler(range(8), 2)},
        lambda: {"dataset": random_split(numbers(), [4, 4], generator=np.random.default_rng(0))[0]},
        lambda: {"dataset": ArrayDataset(np.zeros((8, 4, 4))).map(RandomHorizontalFlip())},
        lambda: {"dataset": RandomWalkDataset(0, 0, 1, 40, seed=3)},
        lambda: {"dataset": range(10**6)},
        lambda: {"dataset": [np.random]},
    ],
)
@pytest.mark.parametrize("kind", [{}, {"num_workers": 2, "backend": "threads"}], ids=["inline", "threads"])
def test_what_draws_by_its_place_is_not_told_of(make: Any, kind: dict[str, Any]) -> None:
    """Say nothing of headrace's own generators, of samplers', and of the loader's."""
    given = {"batch_size": 2, **make()} if "batch_sampler" not in make() else make()
    loader: DataLoader[Any] = DataLoader(**given, collate_fn=list, **kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RandomnessWarning)
        try:
            list(islice(loader, 2))
        finally:
            loader.close()


def test_looking_ends_whatever_there_is_to_look_at() -> None:
    """Stop after some objects, in circles too, and pass over what cannot be looked at."""

    class Odd:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    class Closed:
        __slots__ = ("never",)

    circle: list[Any] = [Odd(), Closed()]
    circle.append(circle)
    circle.append({n: [object() for _ in range(50)] for n in range(1000)})
    assert list(held(circle, "it")) == []
    wide = [[[[n, m] for n in range(60)] for m in range(60)] for _ in range(60)]
    assert MOST < 60**3
    assert list(held(wide, "it")) == []


def test_generators_are_found_in_containers() -> None:
    """Name the item; a bare bit generator counts too."""
    things = {"a": [1, np.random.PCG64(0)], "b": (random.Random(1),)}
    assert [path for path, _ in held(things, "things")] == ["things['a'][1]", "things['b'][0]"]
    assert list(held([random, np.random, random.SystemRandom(), np.random.mtrand._rand], "it")) == []


def test_an_object_that_cannot_be_looked_at_does_not_end_the_run() -> None:
    """Continue without a warning."""

    class Proxy:
        @property
        def __class__(self) -> Any:
            raise RuntimeError("nothing is bound")

    class Holder(Own):
        def __init__(self) -> None:
            self.proxy = Proxy()

        def __getitem__(self, index: int) -> int:
            return index

    assert [batch.tolist() for batch in DataLoader(Holder(), 4)] == [[0, 1, 2, 3], [4, 5, 6, 7]]


class Shared:
    """Draws from a generator that everybody shares, for longer than a thread waits for its turn."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> float:
        return index + sum(self.draw() for _ in range(20_000))


SCRIPT = """
import random, sys, warnings
import numpy as np
from headrace import DataLoader
from headrace.errors import RandomnessWarning
from tests.run.test_detector import Shared

draw = {"python": random.random, "numpy": np.random.random, "none": float}[sys.argv[1]]
loader = DataLoader(Shared(draw), 16, seed=0, num_workers=2, backend=sys.argv[2])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for epoch in range(2):
        for batch in loader:
            np.random.random(), random.random()  # the training loop's own
    np.random.random()
print([str(one.message)[:50] for one in caught if issubclass(one.category, RandomnessWarning)])
"""


@pytest.mark.parametrize(
    ("draws", "workers", "words"),
    [
        ("python", "threads", "['samples draw from random on threads, which share i']"),
        ("numpy", "threads", "['samples draw from np.random on threads, which shar']"),
        ("none", "threads", "[]"),
        ("numpy", "processes", "[]"),
        ("numpy", "inline", "[]"),
    ],
)
def test_threads_that_draw_from_what_they_share_are_reported(draws: str, workers: str, words: str) -> None:
    """Warn once; not of what the training loop draws itself, nor where each has generators of its own."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, draws, workers], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == words


def test_where_other_threads_run_nobody_is_blamed() -> None:
    """Say nothing: it may have been them."""
    stop = threading.Event()

    def others() -> None:
        while not stop.is_set():
            random.random()

    thread = threading.Thread(target=others)
    thread.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RandomnessWarning)
            list(DataLoader(range(64), 4, num_workers=2, backend="threads", seed=0))
    finally:
        stop.set()
        thread.join()


def test_a_sampler_may_draw_from_the_global_generators() -> None:
    """It does so in the loop's own thread."""

    class Sampler:
        def __len__(self) -> int:
            return 8

        def __iter__(self) -> Iterator[int]:
            return (random.randrange(8) for _ in range(8))

    with warnings.catch_warnings():
        warnings.simplefilter("error", RandomnessWarning)
        list(DataLoader(numbers(), 2, sampler=Sampler(), num_workers=2, backend="threads"))


class Stream(IterableDataset[float]):
    def __iter__(self) -> Iterator[float]:
        for number in range(24):
            yield number + headrace.rng().random()


def augmented(sample: Any, rng: np.random.Generator) -> Any:
    return sample + rng.normal(), headrace.rng().integers(1000)


@pytest.mark.parametrize("many", [False, True], ids=["one by one", "many"])
def test_augmentation_is_the_same_however_it_is_made(many: bool) -> None:
    """Split into any batches, by any number and kind of workers and ranks: the same numbers at the same positions."""
    fork: dict[str, Any] = {"backend": "processes", "multiprocessing_context": "fork"}
    dataset: Any = ArrayDataset(np.zeros((24, 8, 8), np.uint8)).map(RandomHorizontalFlip(), augmented)
    if not many:
        dataset = ArrayDataset(np.zeros(24)).map(augmented)
    expected = None
    for batch_size in (1, 5, 24):
        for how in ({}, {"num_workers": 3, "backend": "threads"}, {"num_workers": 2, **fork}):
            for world in (1, 3):
                ranks = [
                    iter(
                        DataLoader(
                            dataset, batch_size, shuffle=True, seed=5, rank=rank, world_size=world, uneven="pad", **how
                        )
                    )
                    for rank in range(world)
                ]
                draws = [draw for step in zip(*ranks, strict=True) for batch in step for draw in batch[1].tolist()][:24]
                expected = expected or draws
                assert draws == expected


class Shuffling:
    """Holds a generator as the streams of Hugging Face's ``datasets`` do: seeded for each epoch, copied to draw."""

    __module__ = "datasets.iterable_dataset"

    def __init__(self, transform: Any = None) -> None:
        self.generator = np.random.default_rng(1)
        self.transform = transform


def test_a_library_that_seeds_its_own_generators_may_hold_them() -> None:
    """Say nothing of the shuffling of a stream of Hugging Face's, but of a transform in it."""
    assert list(held(Shuffling(), "stream")) == []
    assert [path for path, _ in held(Shuffling(Own()), "stream")] == ["stream.transform.generator"]
