"""Randomness as a function of the place."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.context.seeds import Here, Purpose, at, generator, key_of, rng
from headrace.errors import ArgumentError

places = st.tuples(st.integers(0, 3), st.integers(0, 2**63), st.integers(0, 2**63), st.sampled_from(Purpose))


@given(one=places, other=places)
def test_two_places_share_no_numbers(one: tuple[int, int, int, Purpose], other: tuple[int, int, int, Purpose]) -> None:
    """Give the same stream for the same place, and another for any other."""

    def draw(place: tuple[int, int, int, Purpose]) -> list[int]:
        seed, epoch, position, purpose = place
        return generator(key_of(seed), purpose, epoch, position).integers(0, 2**63, size=4).tolist()

    assert (draw(one) == draw(other)) == (one == other)


def test_the_numbers_are_those_of_the_key_and_counter() -> None:
    """Give Philox's stream for the key and counter of the place, now and in later versions."""
    key = key_of(7)
    counter = np.array((0, 5, 3, Purpose.SAMPLE), np.uint64)
    plain = np.random.Generator(np.random.Philox(key=np.array(key, np.uint64), counter=counter))
    np.testing.assert_array_equal(generator(key, Purpose.SAMPLE, 3, 5).random(9), plain.random(9))


def test_spawned_generators_depend_on_the_place_alone() -> None:
    """Spawn the same generators again for the same place, others for another, and others in a second call."""

    def draw(position: int) -> list[float]:
        parent = generator(key_of(7), Purpose.SAMPLE, 0, position)
        return [child.random() for _ in range(2) for child in parent.spawn(2)]

    assert draw(1) == draw(1)
    assert len({*draw(1), *draw(2)}) == 8


def test_a_copied_generator_continues_alike() -> None:
    """Draw and spawn the same from a copy, or after pickling."""
    first = generator(key_of(7), Purpose.SAMPLE, 0, 1)
    first.random()
    copies = [copy.deepcopy(first), pickle.loads(pickle.dumps(first))]
    drawn = [(one.random(), one.spawn(1)[0].random()) for one in (first, *copies)]
    assert drawn[1:] == drawn[:1] * 2


@pytest.mark.parametrize("seed", [-1, True, 1.5, "7", None, 2.0])
def test_a_seed_must_be_an_integer_from_zero_up(seed: object) -> None:
    """Refuse what is no seed, by name."""
    with pytest.raises(ArgumentError, match="seed must be an integer from 0 up"):
        key_of(seed)  # type: ignore[arg-type]


def test_seeds_of_any_size_and_numpy_integers_are_taken() -> None:
    """Take 2**200 as it is, and treat np.int64(5) as 5."""
    assert key_of(2**200) != key_of(2**200 + 1)
    assert key_of(np.int64(5)) == key_of(5)


def test_a_sample_has_one_generator_until_the_next() -> None:
    """Return the same object within a sample, so that two transforms do not draw the same numbers."""
    with at(Here(key_of(0), epoch=0)) as here:
        first = rng()
        assert rng() is first
        here.move(1)
        assert rng() is not first


def test_outside_a_loader_each_thread_has_its_own_generator() -> None:
    """Answer in a notebook too, with an ordinary generator that no other thread shares."""
    ours = rng()
    assert rng() is ours
    theirs: list[np.random.Generator] = []
    thread = threading.Thread(target=lambda: theirs.append(rng()))
    thread.start()
    thread.join()
    assert theirs[0] is not ours


def test_neighbouring_positions_are_independent() -> None:
    """See no correlation between the first numbers of neighbouring samples, epochs and seeds (|r| < 5 sigma)."""
    count = 20_000
    key = key_of(0)
    by_position = np.array([generator(key, Purpose.SAMPLE, 0, p).random() for p in range(count)])
    by_epoch = np.array([generator(key, Purpose.SAMPLE, e, 0).random() for e in range(count)])
    by_seed = np.array([generator(key_of(s), Purpose.SAMPLE, 0, 0).random() for s in range(count)])
    for numbers in (by_position, by_epoch, by_seed):
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 5 / np.sqrt(count)
        assert abs(numbers.mean() - 0.5) < 5 / np.sqrt(12 * count)
