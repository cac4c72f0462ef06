"""What a thread works on: one object, nested blocks, copies of the context, threads."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

import headrace
from headrace.context.current import Context, current, leave
from headrace.context.memory import Recycler, recycling
from headrace.context.seeds import Here, at, key_of, rng
from headrace.context.sharing import sharing
from headrace.context.timing import counting, timed
from headrace.context.worker_info import get_worker_info, serving


def attributes(context: Context) -> dict[str, Any]:
    return {name: getattr(context, name) for name in Context.__slots__}


def test_each_block_changes_its_own_part_and_gives_it_back() -> None:
    """Nest a block for each part: all are seen inside, and none is left outside."""
    before = attributes(current())
    here, recycler, share = Here(key_of(1)), Recycler(keep=1), list[Any]().append
    with recycling(recycler), sharing(share), counting() as seconds, at(here), serving(1, 3, "dataset"):
        now = current()
        assert (now.here, now.seconds, now.recycler, now.share) == (here, seconds, recycler, share)
        info = get_worker_info()
        assert info is not None
        assert (info.id, info.num_workers) == (1, 3)
        with counting() as inner, timed("inside"):
            assert current().here is here
        assert current().seconds is seconds
        assert "inside" in inner
        assert "inside" not in seconds
    assert attributes(current()) == before


def test_a_place_and_its_timing_are_entered_together() -> None:
    """Count into the dictionary that is given with the place; without one, go on counting as before."""
    seconds: dict[str, float] = {}
    with counting() as outer:
        with at(Here(), seconds), timed("one"):
            pass
        with at(Here()), timed("two"):
            pass
    assert (list(seconds), list(outer)) == (["one"], ["two"])


def test_an_error_gives_the_context_back() -> None:
    """Leave a block by an exception."""
    before = current()
    try:
        with at(Here()):
            raise LookupError
    except LookupError:
        pass
    assert current() is before


def test_a_thread_starts_with_nothing_and_a_copy_with_everything() -> None:
    """Start a thread inside a block, plainly and in a copied context; what it changes stays with it."""
    seen: list[Any] = []
    here = Here(key_of(1))

    def look() -> None:
        seen.append(current().here)
        with at(Here()):
            seen.append(current().here)

    with at(here):
        context = contextvars.copy_context()
        for target, arguments in ((contextvars.Context().run, (look,)), (context.run, (look,))):
            thread = threading.Thread(target=target, args=arguments)
            thread.start()
            thread.join()
        assert current().here is here
    assert seen[0] is None
    assert seen[2] is here
    assert all(other is not here for other in (seen[1], seen[3]))


def test_a_generator_sees_the_context_of_whoever_pulls() -> None:
    """Read a generator in one block and then in another."""

    def places() -> Iterator[Any]:
        while True:
            yield current().here

    pulled = places()
    for _ in range(2):
        with at(Here()) as here:
            assert next(pulled) is here
    assert next(pulled) is None


def test_outside_a_loader_a_thread_has_one_generator() -> None:
    """Return the same generator again, and another in another thread."""

    def ours() -> None:
        generator = rng()
        assert rng() is generator
        with at(Here(key_of(1))):
            assert rng() is not generator
        assert rng() is generator
        seen.append(generator)

    seen: list[np.random.Generator] = []
    threads = [threading.Thread(target=contextvars.Context().run, args=(ours,)) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    assert len({id(generator) for generator in seen}) == 2


def test_leaving_keeps_the_worker_and_what_is_shared() -> None:
    """Forget the place, the timing and the memory, as a thread that reads ahead must."""
    share = list[Any]().append

    def inside() -> None:
        leave()
        now = current()
        assert (now.here, now.seconds, now.recycler) == (None, None, None)
        assert now.share is share
        assert get_worker_info() is not None

    with at(Here(), {}), recycling(Recycler(keep=1)), sharing(share), serving(0, 2, None):
        contextvars.copy_context().run(inside)
        assert current().here is not None


def test_a_loader_inside_a_dataset_of_a_loader_has_a_context_of_its_own() -> None:
    """Give the outer sample its generator and its timing back after an inner loop."""

    class Outer:
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> tuple[float, float]:
            first = headrace.rng().random()
            with timed("inner"):
                assert len(list(headrace.DataLoader(range(6), 2, seed=index))) == 3
            return first, headrace.rng().random()

    class Plain(Outer):
        def __getitem__(self, index: int) -> tuple[float, float]:
            return headrace.rng().random(), headrace.rng().random()

    loader = headrace.DataLoader(Outer(), 2, seed=3)
    got = [np.stack(batch) for batch in loader]
    expected = [np.stack(batch) for batch in headrace.DataLoader(Plain(), 2, seed=3)]
    np.testing.assert_array_equal(got, expected)
    assert loader.statistics().stage_seconds["inner"] > 0
