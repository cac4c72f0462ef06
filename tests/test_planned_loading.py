"""Planned samplers through a loader: the same batches whoever makes them, shared out between ranks, resumed."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import DataLoader, StateMismatch, rng
from headrace.samplers import (
    BalancedBatchSampler,
    BucketBatchSampler,
    MixtureSampler,
    PackingBatchSampler,
    RepeatedSampler,
    ReplacementSampler,
    ShardSampler,
    TokenBatchSampler,
)

SIZE = 24
FORK: dict[str, Any] = {"backend": "processes", "multiprocessing_context": "fork"}
KINDS: list[dict[str, Any]] = [
    {},
    {"num_workers": 2, "backend": "threads"},
    {"num_workers": 2, **FORK},
    {"num_workers": 1, "threads_per_worker": 2, **FORK},
]
ORDERS: dict[str, Any] = {
    "shards": lambda seed=None: ShardSampler([5, 0, 7, 3, 9], window=2, seed=seed),
    "mixture": lambda seed=None: MixtureSampler([9, 15], {0: [1, 3], 17: [3, 1]}, num_samples=20, seed=seed),
    "repeated": lambda seed=None: RepeatedSampler(12, 2, together=False, seed=seed),
    "drawn": lambda seed=None: ReplacementSampler(SIZE, 20, seed=seed),
}
BATCHES: dict[str, Any] = {
    "buckets": lambda seed=None: BucketBatchSampler(range(SIZE), 4, bucket_size=9, seed=seed),
    "tokens": lambda seed=None: TokenBatchSampler(range(1, SIZE), 60, window=9, seed=seed),
    "packing": lambda seed=None: PackingBatchSampler(range(1, SIZE), 30, 3, window=9, seed=seed),
    "balanced": lambda seed=None: BalancedBatchSampler([0, 1, 2, 2] * 6, samples_per_class=2, seed=seed),
}
NAMES = [*ORDERS, *BATCHES]


class Noisy:
    """Samples that say which they are and what they draw; key may be a group."""

    def __init__(self, bad: frozenset[str] = frozenset()) -> None:
        self.bad = bad

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, key: Any) -> tuple[str, float]:
        if str(key) in self.bad:
            raise ValueError(f"{key} is bad")
        return str(key), rng().random()


def loader_of(name: str, batch_size: int = 4, own: int | None = None, **how: Any) -> DataLoader[Any]:
    if name in BATCHES:
        return DataLoader(Noisy(), batch_sampler=BATCHES[name](own), **how)
    return DataLoader(Noisy(), batch_size, sampler=ORDERS[name](own), **how)


def plain(batch: Any) -> list[tuple[str, float]]:
    names, draws = batch
    return list(zip(names, np.asarray(draws).tolist(), strict=True))


def expected(name: str, seed: int, epoch: int, batch_size: int, *, drop_last: bool = False) -> list[list[str]]:
    """Cut what the sampler gives when it is iterated by itself."""
    sampler = {**ORDERS, **BATCHES}[name](seed)
    sampler.set_epoch(epoch)
    keys = list(sampler)
    if name in ORDERS:
        keys = [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
        if drop_last and len(keys[-1]) < batch_size:
            del keys[-1]
    return [[str(key) for key in batch] for batch in keys]


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(state)
    assert len(text) < 1024
    again: dict[str, Any] = json.loads(text)
    return again


@settings(max_examples=20)
@given(
    name=st.sampled_from(NAMES),
    batch_size=st.integers(1, 7),
    drop_last=st.booleans(),
    seed=st.integers(0, 9),
    epoch=st.integers(0, 2),
    stop=st.integers(0, 9),
    own=st.booleans(),
    kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)),
)
def test_an_epoch_is_what_the_sampler_says_whoever_makes_it_and_wherever_it_was_left(
    name: str, batch_size: int, drop_last: bool, seed: int, epoch: int, stop: int, own: bool, kinds: Any
) -> None:
    """Stop anywhere and continue with other workers, from a small state: all batches and draws are those of one run."""
    more: dict[str, Any] = {"drop_last": drop_last} if name in ORDERS else {}

    def make(how: dict[str, Any]) -> DataLoader[Any]:
        loader = loader_of(name, batch_size, seed if own else None, seed=seed, **more, **how)
        loader.set_epoch(epoch)
        return loader

    whole = make({})
    length = len(whole)
    batches = [plain(batch) for batch in whole]
    assert [[key for key, _ in batch] for batch in batches] == expected(name, seed, epoch, batch_size, **more)
    assert length == len(batches)
    first = make(kinds[0])
    found = [plain(batch) for batch in islice(first, stop)]
    state = through_json(first.state_dict())
    first.close()
    second = make(kinds[1])
    second.load_state_dict(state)
    if state["epoch"] == epoch:
        found += [plain(batch) for batch in second]
    assert found == batches
    following = make({})
    following.set_epoch(epoch + 1)
    assert [plain(batch) for batch in second] == [plain(batch) for batch in following]


@settings(max_examples=20)
@given(
    name=st.sampled_from(NAMES),
    batch_size=st.integers(1, 5),
    worlds=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    uneven=st.sampled_from(["pad", "drop", "repeat"]),
    stops=st.lists(st.integers(0, 3), min_size=3, max_size=3),
    kind=st.sampled_from(KINDS[:2]),
)
def test_ranks_share_one_order_and_may_change(
    name: str, batch_size: int, worlds: list[int], uneven: Any, stops: list[int], kind: dict[str, Any]
) -> None:
    """Let as many ranks as there are each time have as many steps, of one order: nothing lost, nothing twice."""
    # One sample a position, drawn alone: what each is, and what it draws there.
    alone = [pair for batch in loader_of(name, 1, seed=3) for pair in plain(batch)]
    global_batches = expected(name, 3, 0, batch_size)
    position, state = 0, None
    for world, stop in zip(worlds, [*stops, None], strict=False):
        loaders = [
            loader_of(name, batch_size, seed=3, rank=rank, world_size=world, uneven=uneven, **kind)
            for rank in range(world)
        ]
        for loader in loaders:
            if state is not None:
                loader.load_state_dict(state)
        runs = [[plain(batch) for batch in islice(loader, stop)] for loader in loaders]
        states = [through_json(loader.state_dict()) for loader in loaders]
        for loader in loaders:
            loader.close()
        assert len({len(run) for run in runs}) == 1
        for step in zip(*runs, strict=True):
            fresh = [pair for batch in step for pair in batch][: len(alone) - position]
            assert fresh == alone[position : position + len(fresh)]
            position += len(fresh)
            if name in BATCHES:
                assert all([key for key, _ in batch] in global_batches for batch in step)
        assert all(other == states[0] for other in states)
        state = states[0]
        if state["epoch"]:
            break
    else:
        return
    assert uneven == "drop" or position == len(alone)


@pytest.mark.parametrize("name", NAMES)
def test_each_rank_has_as_many_steps_as_it_says(name: str) -> None:
    """Say the length of a rank's epoch beforehand, whatever becomes of its end."""
    for uneven in ("pad", "drop", "repeat"):
        for world in (2, 5, 40):
            how: dict[str, Any] = {"world_size": world, "uneven": uneven, "seed": 1}
            lengths = {len(loader_of(name, rank=rank, **how)) for rank in range(world)}
            steps = {len(list(loader_of(name, rank=rank, **how))) for rank in (0, world - 1)}
            assert lengths == steps


@pytest.mark.parametrize("name", NAMES)
def test_without_a_seed_each_loop_has_an_order_of_its_own(name: str) -> None:
    """Draw the order with the loop, and go on with it from its state; a sampler's own seed goes on through epochs."""
    loader = loader_of(name, generator=5)
    first, second = ([plain(batch) for batch in loader] for _ in range(2))
    assert first != second
    iterator = iter(loader)
    next(iterator)
    state = through_json(loader.state_dict())
    rest = [plain(batch) for batch in iterator]
    successor = loader_of(name)
    successor.load_state_dict(state)
    assert [plain(batch) for batch in successor] == rest
    own = loader_of(name, own=7)
    for epoch in range(3):
        assert [[key for key, _ in plain(batch)] for batch in own] == expected(name, 7, epoch, 4)


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_sample_is_replaced_by_one_of_the_epoch(name: str) -> None:
    """Draw the same other sample, on any workers."""
    runs = []
    for kind in KINDS[:3]:
        given = {"batch_sampler": BATCHES[name]()} if name in BATCHES else {"sampler": ORDERS[name](), "batch_size": 4}
        batches = expected(name, 1, 0, 4)
        keys, bad = {key for batch in batches for key in batch}, frozenset({max(batches, key=len)[0]})
        loader: DataLoader[Any] = DataLoader(Noisy(bad), seed=1, on_error="replace", **given, **kind)
        runs.append([plain(batch) for batch in loader])
        assert {key for batch in runs[-1] for key, _ in batch} <= keys - bad
        assert loader.statistics().replaced
    assert runs[0] == runs[1] == runs[2]


def test_weights_may_change_at_a_step_and_the_state_says_so() -> None:
    """Refuse a state of other weights, naming both; continue with those that the state holds."""

    def make(sampler: MixtureSampler) -> DataLoader[Any]:
        return DataLoader(Noisy(), 4, sampler=sampler, seed=0)

    before = MixtureSampler([12, 12], [1, 1], num_samples=40)
    after = before.changed(3 * 4, [1, 3])
    whole = [plain(batch) for batch in make(after)]
    assert whole[:3] == [plain(batch) for batch in islice(make(before), 3)]
    loader = make(after)
    list(islice(loader, 5))
    state = through_json(loader.state_dict())
    assert state["plan"]["sampler.weights"] == [[0, 1.0, 1.0], [12, 1.0, 3.0]]
    with pytest.raises(StateMismatch, match=r"sampler.weights=\[\[0, 1.0, 1.0\], \[12.*has sampler.weights=\[\[0"):
        make(before).load_state_dict(state)
    weights = {since: share for since, *share in state["plan"]["sampler.weights"]}
    successor = make(MixtureSampler([12, 12], weights, num_samples=40))
    successor.load_state_dict(state)
    assert [plain(batch) for batch in successor] == whole[5:]
    # From here on others again: the run so far is the same, so the state may be gone on with.
    later = make(after.changed(5 * 4, [0, 1]))
    later.load_state_dict(state, strict=False)
    assert all(int(key) >= 12 for batch in later for key, _ in plain(batch))


def test_a_far_epoch_and_step_are_reached_at_once() -> None:
    """Enter a mixture of a billion samples in the middle."""
    sampler = MixtureSampler([10**9, 10**6], [3, 1])
    loader = DataLoader(range(10**9 + 10**6), 8, sampler=sampler, seed=1)
    loader.load_state_dict({**loader.state_dict(), "epoch": 10**4, "step": 10**7, "samples": 8 * 10**7})
    asked = sampler.order(loader._session.settings.key)  # type: ignore[arg-type]  # it has a seed
    assert next(iter(loader)).tolist() == asked.keys(10**4, 8 * 10**7, 8 * 10**7 + 8)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_of_another_sampler_is_refused(name: str) -> None:
    """Name what differs: the sampler, or what it is made of."""
    state = loader_of(name, seed=1).state_dict()
    with pytest.raises(StateMismatch, match=r"sampler\.seed=None, but this loader has sampler\.seed=2"):
        loader_of(name, own=2, seed=1).load_state_dict(state)
    other = "shards" if name != "shards" else "mixture"
    with pytest.raises(StateMismatch, match=f"order='{state['plan']['order']}'"):
        loader_of(other, seed=1).load_state_dict(state)


def test_a_batch_sampler_given_as_a_sampler_gives_keys_that_are_lists() -> None:
    """Do with it as torch does: each of its batches is one key."""
    batches = list(BucketBatchSampler(range(8), 2, shuffle=False))
    loader: DataLoader[Any] = DataLoader(np.arange(8), None, sampler=BucketBatchSampler(range(8), 2, shuffle=False))
    assert [batch.tolist() for batch in loader] == batches
