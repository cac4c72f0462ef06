"""A batch or a sample of any place again, as it was; and what was done to it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.image_files import encoded, photo
from tests.test_planned_loading import KINDS, NAMES, loader_of, plain

import headrace
from headrace import (
    ArrayDataset,
    CenterCrop,
    Compose,
    ConcatDataset,
    DataLoader,
    ImageFolder,
    IterableDataset,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Subset,
    ToFloat,
    get_worker_info,
    rng,
)
from headrace.errors import ArgumentError
from headrace.run.lineage import image_of
from headrace.run.tracing import Recording, Trace
from headrace.samplers import RandomSampler


class Noisy:
    """Samples that say which they are and what they draw; some are bad."""

    def __init__(self, size: int, bad: frozenset[int] = frozenset()) -> None:
        self.size, self.bad = size, bad

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[str, float]:
        if index in self.bad:
            raise ValueError(f"{index} is bad")
        return str(index), rng().random()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dozen images of their own sizes, in two classes."""
    pytest.importorskip("PIL")
    for number in range(12):
        place = tmp_path / "ab"[number % 2]
        place.mkdir(exist_ok=True)
        (place / f"{number}.jpg").write_bytes(encoded(photo(number, 40 + number, 52 - number)))
    return tmp_path


@settings(max_examples=30)
@given(
    name=st.sampled_from([*NAMES, "shuffled", "sequential"]),
    batch_size=st.integers(1, 6),
    seed=st.integers(0, 9),
    epoch=st.integers(0, 2),
    world=st.integers(1, 3),
    uneven=st.sampled_from(["pad", "drop", "repeat"]),
    kind=st.sampled_from(KINDS),
    data=st.data(),
)
def test_any_batch_and_any_sample_come_again(
    name: str, batch_size: int, seed: int, epoch: int, world: int, uneven: Any, kind: dict[str, Any], data: Any
) -> None:
    """Replay every plan, on every rank and kind of worker, from a loader that has read nothing and stays there."""
    ranks: dict[str, Any] = {"seed": seed, "rank": data.draw(st.integers(0, world - 1)), "world_size": world}

    def make(**how: Any) -> DataLoader[Any]:
        if name in NAMES:
            return loader_of(name, batch_size, uneven=uneven, **ranks, **how)
        return DataLoader(Noisy(24), batch_size, name == "shuffled", uneven=uneven, **ranks, **how)

    loader = make(**kind)
    loader.set_epoch(epoch)
    batches = [plain(batch) for batch in loader]
    if not batches:
        return
    fresh = make()
    state = fresh.state_dict()
    for step in data.draw(st.lists(st.integers(0, len(batches) - 1), min_size=1, max_size=3)):
        assert plain(fresh.replay(epoch=epoch, step=step)) == batches[step]
        index = data.draw(st.integers(0, len(batches[step]) - 1))
        assert fresh.replay(epoch=epoch, step=step, index=index) == batches[step][index]
        lineage = fresh.lineage(epoch=epoch, step=step, index=index)
        assert (str(lineage.key), lineage.sample) == (batches[step][index][0], batches[step][index])
        assert [draw.value for draw in lineage.draws] == [batches[step][index][1]]
    assert fresh.state_dict() == state


def test_a_loop_that_runs_is_not_disturbed() -> None:
    """Replay in the middle of it, by threads and without: what comes is what would have come."""
    for kind in KINDS[:2]:
        expected = [plain(batch) for batch in DataLoader(Noisy(30), 4, shuffle=True, seed=3)]
        loader: DataLoader[Any] = DataLoader(Noisy(30), 4, shuffle=True, seed=3, **kind)
        found = []
        for step, batch in enumerate(loader):
            found.append(plain(batch))
            state = loader.state_dict()
            assert plain(loader.replay(epoch=0, step=len(expected) - 1 - step)) == expected[-1 - step]
            loader.lineage(epoch=7, step=0, index=1)
            assert loader.state_dict() == state
        assert found == expected


TRANSFORMS: list[Any] = [
    [RandomResizedCrop(24), RandomHorizontalFlip(), ToFloat()],
    [RandomCrop(16), lambda sample, rng: (sample[0] + rng.normal(size=3), sample[1]), ToFloat()],
    [CenterCrop(20), Compose(RandomHorizontalFlip(), RandomCrop((8, 12)))],
]


@pytest.mark.parametrize("transforms", TRANSFORMS, ids=["fused", "partly", "composed"])
@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: Subset(d, range(11, -1, -1)), lambda d: ConcatDataset([d, d])])
def test_images_are_augmented_as_they_were(folder: Path, transforms: list[Any], wrap: Any) -> None:
    """Give the pixels of the batch, whether the native extension made it or not; name crop and flip."""
    dataset = wrap(ImageFolder(folder).map(*transforms))
    loader = DataLoader(dataset, 5, shuffle=True, seed=2, num_workers=2)
    for step, (images, labels) in enumerate(loader):
        again = loader.replay(epoch=0, step=step)
        assert np.array_equal(again[0], images)
        for index in range(len(images)):
            lineage = loader.lineage(epoch=0, step=step, index=index)
            assert np.array_equal(lineage.sample[0], images[index])
            assert lineage.sample[1] == labels[index]
            assert lineage.where is not None
            assert Path(lineage.where).parent.name == "ab"[labels[index]]
            assert lineage.dataset[-1][0] == "ImageFolder"
            assert lineage.before[0].shape[0] >= 40
            box = next(step.parameters for step in lineage.steps if step.name.startswith("Random"))
            assert box
            assert lineage.where in str(lineage)
    if transforms is TRANSFORMS[0]:
        crop, flip, _ = lineage.steps
        assert sorted(crop.parameters) == ["height", "left", "top", "width"]
        assert flip.parameters["flipped"] in (True, False)


def test_the_parameters_are_those_that_made_the_image() -> None:
    """Cut the box out of the sample before, and mirror it as told: the sample after."""
    images = ArrayDataset(np.random.default_rng(0).integers(0, 255, (9, 20, 30), np.uint8))
    loader = DataLoader(images.map(RandomCrop(12), RandomHorizontalFlip()), 3, seed=1)
    for index in range(3):
        lineage = loader.lineage(epoch=4, step=1, index=index)
        box = lineage.steps[0].parameters
        cut = lineage.before[box["top"] : box["top"] + 12, box["left"] : box["left"] + 12]
        assert np.array_equal(cut[:, ::-1] if lineage.steps[1].parameters["flipped"] else cut, lineage.sample)


def test_a_replaced_sample_says_for_which_it_stands() -> None:
    """Draw the same stand-in, and tell the bad one's error."""
    for kind in KINDS[:3]:
        bad = frozenset({1, 5, 6, 7, 8})
        loader: DataLoader[Any] = DataLoader(Noisy(9, bad), 3, seed=1, on_error="replace", **kind)
        batches = [plain(batch) for batch in loader]
        lineage = loader.lineage(epoch=0, step=0, index=1)
        assert lineage.sample == batches[0][1]
        assert lineage.replaced is not None
        assert (lineage.replaced.index, lineage.replaced.error) == (1, "ValueError: 1 is bad")
        assert "in place of sample 1: ValueError" in str(lineage)
        assert loader.lineage(epoch=0, step=0, index=0).replaced is None
        assert [plain(loader.replay(epoch=0, step=step)) for step in range(3)] == batches


def test_an_error_comes_again_with_its_place() -> None:
    """Raise what the dataset raises, and say of which sample."""
    loader = DataLoader(Noisy(9, frozenset({4})), 3, seed=1)
    for index in (None, 1):
        with pytest.raises(ValueError, match="4 is bad") as caught:
            loader.replay(epoch=0, step=1, index=index)
        assert "sample 4" in caught.value.__notes__[0]


class Globals:
    """Draws from the generators that everybody shares."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[float, float]:
        return random.random(), np.random.random()


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[2]], ids=["inline", "processes"])
def test_code_that_draws_from_the_global_generators_is_replayed_too(kind: dict[str, Any]) -> None:
    """Seed them as they were, and draw for the samples before in the batch; leave them as they were."""
    loader: DataLoader[Any] = DataLoader(Globals(), 5, seed=1, **kind)
    batches = [plain(batch) for batch in loader]
    random.seed(5)
    for step, index in ((0, 3), (2, 1)):
        assert loader.replay(epoch=0, step=step, index=index) == batches[step][index]
        assert plain(loader.replay(epoch=0, step=step)) == batches[step]
    assert random.random() == random.Random(5).random()


class Many(Noisy):
    """Reads a batch in one call, and draws for all of it at once."""

    def __getitems__(self, indices: list[int]) -> list[tuple[str, float]]:
        return [(str(index), draw) for index, draw in zip(indices, rng().random(len(indices)).tolist(), strict=True)]


def test_a_dataset_that_reads_many_at_once_is_asked_as_it_was() -> None:
    """Read the whole batch for one sample of it: its numbers may depend on the others."""
    loader = DataLoader(Many(10), 4, seed=1, shuffle=True)
    batches = [plain(batch) for batch in loader]
    assert loader.replay(epoch=0, step=1, index=2) == batches[1][2]
    lineage = loader.lineage(epoch=0, step=1, index=2)
    assert [draw.call for draw in lineage.draws] == ["random(4)"]


class Stream(IterableDataset[tuple[str, float]]):
    """Shards itself, and draws while it is read."""

    def __iter__(self) -> Iterator[tuple[str, float]]:
        info = get_worker_info()
        for number in range(17) if info is None else range(info.id, 17, info.num_workers):
            yield str(number), rng().random()


@pytest.mark.parametrize("kind", [*KINDS[:3], {"num_workers": 2, "backend": "threads", "read_once": True}], ids=str)
def test_a_stream_is_read_again_up_to_the_step(kind: dict[str, Any]) -> None:
    """Read the same copy from its beginning; finish only what is asked for."""
    finished: list[str] = []

    def finish(sample: tuple[str, float], rng: Any) -> tuple[str, float]:
        finished.append(sample[0])
        return sample[0], sample[1] + rng.random()

    loader: DataLoader[Any] = DataLoader(Stream().map(finish), 3, seed=1, **kind)
    batches = [plain(batch) for batch in loader]
    for step in (len(batches) - 1, 2):
        finished.clear()
        assert plain(loader.replay(epoch=0, step=step)) == batches[step]
        assert finished == [name for name, _ in batches[step]]
        lineage = loader.lineage(epoch=0, step=step, index=1)
        assert lineage.sample == batches[step][1]
        assert len(lineage.steps[0].draws) == 1
    with pytest.raises(ArgumentError, match="not in"):
        loader.replay(epoch=0, step=20)


def test_a_stream_that_cannot_be_read_twice_is_refused() -> None:
    """Say why: an iterator is spent, and one with a state of its own would be moved."""

    class Keeper(Stream):
        def state_dict(self) -> dict[str, int]:
            return {}

        def load_state_dict(self, state: dict[str, int]) -> None: ...

    numbers = iter(range(9))
    with pytest.raises(ArgumentError, match="a range_iterator, is an iterator, which can be read only once"):
        DataLoader(numbers, 2, seed=0).replay(epoch=0, step=0)
    assert next(numbers) == 0
    with pytest.raises(ArgumentError, match="keeps a state of its own"):
        DataLoader(Keeper(), 2, seed=0).replay(epoch=0, step=0)


def test_without_a_seed_only_what_is_known_can_be_replayed() -> None:
    """Replay the epoch started last, and that of a loaded state; of others say what is missing."""
    loader = DataLoader(Noisy(12), 4, shuffle=True, generator=3)
    with pytest.raises(ArgumentError, match="without a seed"):
        loader.replay(epoch=0, step=0)
    batches = [plain(batch) for batch in loader]
    assert plain(loader.replay(epoch=0, step=1)) == batches[1]
    batches = [plain(batch) for batch in islice(loader, 2)]
    state = loader.state_dict()
    assert plain(loader.replay(epoch=1, step=0)) == batches[0]
    with pytest.raises(ArgumentError, match="the order of epoch 0 is not known"):
        loader.replay(epoch=0, step=1)
    other = DataLoader(Noisy(12), 4, shuffle=True)
    other.load_state_dict(state)
    assert plain(other.replay(epoch=1, step=1)) == batches[1]
    assert plain(other.replay(epoch=1, step=2)) == plain(next(iter(other)))


@pytest.mark.parametrize("generator", [None, 3])
def test_a_pass_over_a_sampler_is_made_again(generator: int | None) -> None:
    """Replay the pass started last, and leave the sampler's generator where it is."""
    sampler = RandomSampler(range(12), generator=generator)
    loader = DataLoader(Noisy(12), 4, sampler=sampler, seed=0)
    with pytest.raises(ArgumentError, match="a RandomSampler can only be iterated"):
        loader.replay(epoch=0, step=0)
    epochs = []
    for epoch in range(3):
        epochs.append([plain(batch) for batch in loader])
        assert [plain(loader.replay(epoch=epoch, step=step)) for step in (2, 0)] == [epochs[-1][2], epochs[-1][0]]
    with pytest.raises(ArgumentError, match="the order of epoch 1 is not known"):
        loader.replay(epoch=1, step=0)
    if generator is not None:
        alone = DataLoader(Noisy(12), 4, sampler=RandomSampler(range(12), generator=generator), seed=0)
        assert [[plain(batch) for batch in alone] for _ in range(3)] == epochs
    listed = DataLoader(Noisy(12), 4, sampler=[3, 1, 4, 1, 5], seed=0)
    assert [name for name, _ in plain(listed.replay(epoch=9, step=1))] == ["5"]


def test_a_run_that_went_on_with_other_ranks_is_replayed_as_it_went_on() -> None:
    """Count the steps after the change from there."""

    def make(rank: int, world: int) -> DataLoader[Any]:
        return DataLoader(Noisy(60), 2, shuffle=True, seed=1, rank=rank, world_size=world)

    first = make(0, 4)
    before = [plain(batch) for batch in islice(first, 3)]
    second = make(1, 3)
    second.load_state_dict(first.state_dict())
    after = [plain(batch) for batch in islice(second, 4)]
    for step, batch in enumerate(after, 3):
        assert plain(second.replay(epoch=0, step=step)) == batch
    assert plain(first.replay(epoch=0, step=2)) == before[2]
    third = make(1, 3)
    third.load_state_dict(first.state_dict())
    assert plain(third.replay(epoch=0, step=5)) == after[2]


@pytest.mark.parametrize(
    ("how", "place", "words"),
    [
        ({}, {"epoch": 0, "step": 5}, "step 5 is not in epoch 0"),
        ({}, {"epoch": -1, "step": 0}, "epoch must be an integer from 0 to"),
        ({}, {"epoch": 0, "step": 1.5}, "step must be an integer from 0 up"),
        ({}, {"epoch": 0, "step": 2, "index": 4}, "index must be an integer from 0 to 3"),
        ({}, {"epoch": 0, "step": 2, "index": -1}, "index must be an integer from 0 to 3"),
        ({}, {"epoch": 0, "step": 2, "index": 1.5}, "index must be an integer from 0 to 3"),
        ({"on_error": "skip"}, {"epoch": 0, "step": 0}, "refills batches"),
    ],
    ids=str,
)
def test_places_that_are_none_are_refused(how: dict[str, Any], place: dict[str, Any], words: str) -> None:
    """Name what there is."""
    with pytest.raises(ArgumentError, match=words):
        DataLoader(Noisy(20), 4, seed=0, **how).replay(**place)


def test_samples_one_by_one_are_replayed_as_they_are() -> None:
    """Without batches, a step is one sample."""
    loader = DataLoader(Noisy(5), None, seed=0)
    samples = list(loader)
    assert loader.replay(epoch=0, step=3) == samples[3]
    assert list(loader.replay(epoch=0, step=3, index=0)) == samples[3]


@pytest.mark.parametrize(
    "name", [n for n in dir(np.random.Generator) if n[0] != "_" and n not in ("bit_generator", "spawn")]
)
def test_a_recording_generator_gives_what_any_other_gives(name: str) -> None:
    """Give the same numbers by every method, and write each call down once."""
    given: Any = {
        **dict.fromkeys(["permutation", "permuted", "shuffle"], (np.arange(9),)),
        **dict.fromkeys(["beta", "f", "noncentral_chisquare", "vonmises", "wald"], (1.0, 2.0)),
        **dict.fromkeys(["chisquare", "gamma", "geometric", "logseries", "pareto", "power", "weibull"], (0.9,)),
        **dict.fromkeys(["binomial", "negative_binomial"], (9, 0.5)),
        **dict.fromkeys(["bytes", "choice", "integers", "poisson"], (9,)),
        **dict.fromkeys(["standard_gamma", "standard_t", "zipf"], (3.0,)),
        **dict.fromkeys(["noncentral_f", "triangular"], (1.0, 2.0, 4.0)),
        "dirichlet": ([1.0, 2.0],),
        "hypergeometric": (5, 5, 3),
        "multinomial": (5, [0.5, 0.5]),
        "multivariate_hypergeometric": ([5, 5], 3),
        "multivariate_normal": ([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]]),
    }.get(name, ())
    trace = Trace()
    plain_one, ours = np.random.Generator(np.random.Philox(3)), Recording(np.random.Philox(3), trace)
    expected, found = (getattr(one, name)(*map(np.copy, given)) for one in (plain_one, ours))
    assert np.array_equal(found, expected)
    assert len(trace.draws) == 1
    assert trace.draws[0].by.startswith("test_a_recording_generator_gives_what_any_other_gives")


def test_a_transform_of_a_users_own_tells_what_it_drew() -> None:
    """Name the calls and the function that made them."""

    class Jitter:
        def __call__(self, sample: Any, rng: np.random.Generator) -> Any:
            return sample * self.factor(rng)

        def factor(self, rng: np.random.Generator) -> float:
            return rng.uniform(0.5, 1.5)

    loader = DataLoader(ArrayDataset(np.ones((6, 4))).map(Jitter()), 2, seed=0)
    lineage = loader.lineage(epoch=1, step=2, index=0)
    assert lineage.steps[0].name.endswith("Jitter")
    [draw] = lineage.steps[0].draws
    assert draw.by.endswith("Jitter.factor")
    assert np.array_equal(lineage.before * draw.value, lineage.sample)
    assert str(draw).startswith("uniform(0.5, 1.5) = ")


def test_a_changing_transform_does_not_change_what_was_before() -> None:
    """Keep the sample as it was, though a function works in place."""

    def blacken(image: Any) -> Any:
        image[:] = 0
        return image

    numbers = np.arange(12).reshape(3, 4)
    loader = DataLoader(ArrayDataset(numbers.copy()).map(np.copy, blacken), 1, seed=0)
    lineage = loader.lineage(epoch=0, step=1, index=0)
    assert np.array_equal(lineage.before, numbers[1])
    assert not lineage.sample.any()


def test_outside_a_replay_nothing_is_written_down() -> None:
    """Give ordinary generators to what a loader makes."""
    seen: list[type] = []

    def note(sample: Any, rng: Any) -> Any:
        seen.append(type(rng))
        return sample

    loader = DataLoader(ArrayDataset(np.arange(4)).map(note), 2, seed=0)
    list(loader)
    assert set(seen) == {np.random.Generator}
    loader.replay(epoch=0, step=0)
    assert set(seen) == {np.random.Generator}
    assert headrace.rng().__class__ is np.random.Generator


def test_a_packed_row_is_one_sample() -> None:
    """Give the row by its place in the batch; its key is the group."""
    loader = loader_of("packing", seed=0)
    batches = [plain(batch) for batch in loader]
    assert plain(loader.replay(epoch=0, step=1)) == batches[1]
    assert isinstance(loader.lineage(epoch=0, step=1, index=0).key, tuple)


def test_an_epoch_is_worked_out_once_for_all_that_is_asked_of_it() -> None:
    """Keep the plan of the epoch replayed last: a token budget takes a second for a million samples."""
    asked = []

    class Counted(headrace.samplers.TokenBatchSampler):
        def batch_order(self, key: Any) -> Any:
            asked.append(key)
            return super().batch_order(key)

    loader = DataLoader(Noisy(24), batch_sampler=Counted(range(24), 60), seed=0)
    first = [loader.replay(epoch=1, step=step) for step in range(3)]
    assert len(asked) == 1
    again = [plain(batch) for batch in islice((loader.set_epoch(1), loader)[1], 3)]
    assert [plain(batch) for batch in first] == again


def test_pillows_images_are_looked_at_as_arrays() -> None:
    """Find the image in a sample of any kind."""
    image = pytest.importorskip("PIL.Image")
    opened = image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3))
    assert np.array_equal(image_of((opened, 3)), np.asarray(opened))
    assert image_of({"image": np.zeros((2, 2))}) is not None
    assert [image_of(nothing) for nothing in (3, "ab", np.float64(1), [], {"x": 1}, np.zeros(4))] == [None] * 6
