"""Executors are found by name, and a loader takes a factory of the user's own."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

from headrace import DataLoader
from headrace.errors import ArgumentError, LoaderClosed
from headrace.executors import Options, registry

if TYPE_CHECKING:
    from headrace.make.maker import Maker
    from headrace.plan.work import Outcome, Work


class Backwards:
    """An executor that makes what it was asked for last, first."""

    def __init__(self, maker: Maker, options: Options) -> None:
        self.capacity = max(1, options.workers) * options.prefetch
        self._maker = maker
        self._works: deque[Work] = deque()
        self._closed = False

    def submit(self, work: Work) -> None:
        """Take a work."""
        self._works.append(work)

    def next(self, timeout: float | None = None) -> Outcome:
        """Make the newest work."""
        if self._closed:
            raise LoaderClosed("closed")
        return self._maker.make(self._works.pop())

    def close(self) -> None:
        """Forget all works."""
        self._closed = True
        self._works.clear()


def test_a_factory_makes_the_executor() -> None:
    """Give the same batches, in order, whatever the order in which the user's executor makes them."""
    expected = [batch.tolist() for batch in DataLoader(range(20), 3, shuffle=True, seed=0)]
    loader = DataLoader(range(20), 3, shuffle=True, seed=0, num_workers=2, backend=Backwards)
    assert [batch.tolist() for batch in loader] == expected


def test_a_factory_is_given_the_options() -> None:
    """Hand over how many workers there are, how far they run ahead, and what starts them."""
    given: list[Options] = []

    def factory(maker: Maker, options: Options) -> Any:
        given.append(options)
        return Backwards(maker, options)

    list(DataLoader(range(4), 2, num_workers=3, prefetch_factor=5, seed=1, backend=factory))
    assert (given[0].workers, given[0].prefetch, given[0].in_turns) == (3, 5, True)


def test_a_registered_executor_is_found_by_its_name() -> None:
    """Find it, with its state saved and loaded as with any other."""
    registry.register("backwards", Backwards)
    loader = DataLoader(range(20), 4, shuffle=True, seed=0, num_workers=1, backend="backwards")
    batches = iter(loader)
    first = [next(batches).tolist() for _ in range(2)]
    resumed = DataLoader(range(20), 4, shuffle=True, seed=0)
    resumed.load_state_dict(loader.state_dict())
    rest = [batch.tolist() for batch in resumed]
    assert first + rest == [batch.tolist() for batch in DataLoader(range(20), 4, shuffle=True, seed=0)]
    loader.close()


@pytest.mark.parametrize("backend", ["inline", "threads", "processes", Backwards])
def test_persistent_workers_need_no_executor_that_can_keep_them(backend: Any) -> None:
    """Make an executor that cannot be reused again for each epoch."""
    loader = DataLoader(range(8), 4, num_workers=2, backend=backend, persistent_workers=True)
    with loader:
        assert [[batch.tolist() for batch in loader] for _ in range(2)] == [[[0, 1, 2, 3], [4, 5, 6, 7]]] * 2


def test_a_factory_that_makes_no_executor_is_refused() -> None:
    """Name what was made and what an executor has; let a factory's own error through."""

    def broken(maker: Maker, options: Options) -> Any:
        raise OSError("the cluster is down")

    with pytest.raises(
        ArgumentError, match=r"made an int; expected an executor, with capacity, submit\(\), next\(\) and close"
    ):
        list(DataLoader(range(8), 4, backend=lambda maker, options: 3))  # type: ignore[arg-type, return-value]
    with pytest.raises(OSError, match="the cluster is down"):
        list(DataLoader(range(8), 4, backend=broken))


@pytest.mark.parametrize(
    ("name", "factory", "words"),
    [
        ("inline", Backwards, "an executor named 'inline' is registered already"),
        ("auto", Backwards, "name must be a text other than 'auto'"),
        ("", Backwards, "name must be a text"),
        ("mine", 3, "factory must be callable"),
    ],
)
def test_what_cannot_be_registered_is_refused(name: str, factory: Any, words: str) -> None:
    """Refuse a name that is taken or none, and what is no factory."""
    with pytest.raises(ArgumentError, match=words):
        registry.register(name, factory)
