"""`Seeded`: what a transform of another library draws depends on the sample's place alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from headrace import ArrayDataset, DataLoader
from headrace.errors import ArgumentTypeError, RandomnessWarning
from headrace.testing import TransformTests
from headrace.testing.transforms import assert_same
from headrace.transforms import Seeded


def globally(image: Any) -> Any:
    """Draw from the global generators, as torchvision's first transforms did."""
    noise = np.random.random() + random.random()
    return image + noise


class Own:
    """A transform with generators of its own and called by keywords, in the manner of albumentations."""

    def __init__(self) -> None:
        self.random = random.Random()

    def set_random_seed(self, seed: int) -> None:
        self.random = random.Random(seed)

    def __call__(self, **parts: Any) -> dict[str, Any]:
        return parts | {"image": parts["image"] + self.random.random()}


CHAIN = Own()


def by_a_global(image: Any) -> Any:
    return CHAIN(image=image)["image"]


def by_a_variable() -> Any:
    """Return a function that calls a transform of its own, and another function."""
    chain = {"first": [Own()]}
    return lambda image: by_a_global(chain["first"][0](image=image)["image"])


class Wrapped:
    """Holds a transform as an attribute."""

    def __init__(self) -> None:
        self.chain = Own()

    def __call__(self, image: Any) -> Any:
        return self.chain(image=image)["image"] + np.random.random()


class TestGlobal(TransformTests):
    def make(self) -> Any:
        return Seeded(globally)

    def samples(self) -> list[Any]:
        return [image / np.float32(255) for image in super().samples()]


def batches(transform: Any, size: int, **options: Any) -> list[Any]:
    dataset = ArrayDataset(np.zeros((12, 2))).map(Seeded(transform))
    loader: DataLoader[Any] = DataLoader(dataset, size, seed=3, shuffle=True, **options)
    return [row for batch in loader for row in batch.tolist()]


@pytest.mark.parametrize("make", [lambda: globally, Own, lambda: by_a_global, by_a_variable, Wrapped])
def test_numbers_are_keyed_to_the_sample_and_not_to_the_batch_or_the_thread(make: Any) -> None:
    expected = batches(make(), 4)
    assert len({row[0] for row in expected}) == 12
    assert batches(make(), 1) == expected
    assert batches(make(), 6) == expected
    assert batches(make(), 3, num_workers=3, backend="threads") == expected


@pytest.mark.parametrize("transform", [by_a_global, Wrapped()])
def test_workers_in_processes_find_the_transforms_that_a_function_holds(transform: Any) -> None:
    """Seed the worker's own copy, and no copy of the copy."""
    assert batches(transform, 4, num_workers=2, backend="processes") == batches(transform, 4)


def test_a_generator_that_no_seed_reaches_is_warned_of() -> None:
    """Pass over what `Seeded` seeds, and over nothing else."""
    rng, chain = random.Random(0), Own()
    with pytest.warns(RandomnessWarning, match=r"function: rng: random's Random.*headrace\.transforms\.Seeded"):
        batches(lambda image: chain(image=image)["image"] + rng.random(), 4, num_workers=2, backend="threads")


def test_lineage_names_the_seed_on_one_line() -> None:
    """Show a transform whose name has several lines, as albumentations', on one."""

    class Long(Own):
        def __repr__(self) -> str:
            return "Compose([\n  Noise(p=1)\n])"

    loader: DataLoader[Any] = DataLoader(ArrayDataset(np.zeros((4, 2))).map(Seeded(Long())), 2, seed=0)
    step = loader.lineage(epoch=0, step=0, index=1).steps[0]
    assert step.name == "Seeded(Compose([ Noise(p=1) ]))"
    assert step.parameters.keys() == {"seed"}


def test_the_callers_own_generators_stay_where_they_were() -> None:
    random.seed(5)
    np.random.seed(5)
    expected = random.random(), np.random.random()
    random.seed(5)
    np.random.seed(5)
    Seeded(globally)(np.zeros(2), np.random.default_rng(0))
    assert (random.random(), np.random.random()) == expected


def test_a_transform_by_keywords_takes_images_tuples_and_mappings() -> None:
    seeded = Seeded(Own())
    one, two, three = (
        seeded(sample, np.random.default_rng(0))
        for sample in (np.zeros(2), (np.zeros(2), 7), {"image": np.zeros(2), "id": 7})
    )
    assert_same(two, (one, 7))
    assert_same(three, {"image": one, "id": 7})


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(ArgumentTypeError, match="Seeded got 3"):
        Seeded(3)  # type: ignore[arg-type]
