"""The executor without workers."""

from __future__ import annotations

import random

import numpy as np

from headrace.executors.inline import Inline
from headrace.make.maker import Maker
from headrace.testing.executors import ExecutorTests, Squares, maker_of, work_of


class TestInline(ExecutorTests):
    def make(self, maker: Maker) -> Inline:
        return Inline(maker)


class GlobalNoise(Squares):
    def __getitem__(self, index: int) -> float:
        return random.random() + np.random.random()


def test_global_generators_are_seeded_for_the_dataset_and_given_back() -> None:
    """Make user code that draws from the global generators reproducible, without moving the caller's own stream."""
    batches = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        theirs = random.getstate(), np.random.get_state()[1].tolist()
        executor = Inline(maker_of(GlobalNoise()))
        executor.submit(work_of(0))
        batches.append(executor.next().batch.tolist())
        assert (random.getstate(), np.random.get_state()[1].tolist()) == theirs
    assert batches[0] == batches[1]
