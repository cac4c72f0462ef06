"""The same script with torch's samplers and with ours: the same indices, lengths and errors."""

# ruff: noqa: FBT003  called by position, as scripts written for torch do

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from headrace.interop.generators import draw_seed, resolve  # noqa: E402
from headrace.samplers import DistributedSampler, RandomSampler, WeightedRandomSampler  # noqa: E402
from tests.parity.both import OURS, same, theirs  # noqa: E402

sizes = st.integers(1, 120)
counts = st.none() | st.integers(-1, 250)
seeds = st.integers(0, 2**40)
generated = st.booleans()


def generator(wanted: bool, seed: int) -> Any:
    return torch.Generator().manual_seed(seed) if wanted else None


def state(held: Any) -> Any:
    return None if held is None else held.get_state().tolist()


@given(size=sizes, count=counts, replacement=st.booleans(), wanted=generated, seed=seeds)
def test_random_samplers_give_the_same_indices(
    size: int, count: int | None, replacement: bool, wanted: bool, seed: int
) -> None:
    """Draw the same numbers from torch's generators in the same order, in two passes, and leave the same state."""

    def script(lib: Any) -> Any:
        held = generator(wanted, seed)
        sampler = lib.RandomSampler(range(size), replacement, count, held)
        return list(sampler), list(sampler), len(sampler), sampler.num_samples, state(held)

    same(script, seed=seed)


@given(indices=st.lists(st.integers(0, 99), max_size=50), wanted=generated, seed=seeds)
def test_subset_samplers_give_the_same_indices(indices: list[int], wanted: bool, seed: int) -> None:
    """Draw the same order of the same indices, in two passes."""

    def script(lib: Any) -> Any:
        held = generator(wanted, seed)
        sampler = lib.SubsetRandomSampler(indices, held)
        return list(sampler), list(sampler), len(sampler), state(held)

    same(script, seed=seed)


@given(
    weights=st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.5, 1e-3, 1e4]), min_size=1, max_size=30),
    count=st.integers(0, 60),
    replacement=st.booleans(),
    wanted=generated,
    seed=seeds,
)
def test_weighted_samplers_give_the_same_indices(
    weights: list[float], count: int, replacement: bool, wanted: bool, seed: int
) -> None:
    """Draw the same indices; what torch refuses at the first pass, we refuse at the door, with a ValueError."""
    drawable = sum(weights) > 0 and (replacement or count <= len(weights))

    def script(lib: Any) -> Any:
        held = generator(wanted, seed)
        sampler = lib.WeightedRandomSampler(weights, count, replacement, held)
        return list(sampler), list(sampler), len(sampler), state(held)

    if drawable or count == 0:
        same(script, seed=seed)
        return
    with pytest.raises(RuntimeError):
        script(theirs())
    with pytest.raises(ValueError, match="weights"):
        OURS.WeightedRandomSampler(weights, count, replacement)


@given(size=st.integers(0, 60), batch_size=st.integers(-1, 20), drop_last=st.booleans(), replicas=st.integers(1, 70))
def test_batches_and_shares_are_cut_the_same(size: int, batch_size: int, drop_last: bool, replicas: int) -> None:
    """Compare batches, and the shares of all ranks without shuffling, in values and lengths."""

    def batches(lib: Any) -> Any:
        sampler = lib.BatchSampler(lib.SequentialSampler(range(size)), batch_size, drop_last)
        return list(sampler), len(sampler)

    def shares(lib: Any) -> Any:
        samplers = [lib.DistributedSampler(range(size), replicas, r, False, 3, drop_last) for r in range(replicas)]
        return [(list(s), len(s), s.num_samples, s.total_size, s.num_replicas, s.rank, s.epoch) for s in samplers]

    same(batches)
    same(shares)


@given(size=st.integers(1, 60), drop_last=st.booleans(), replicas=st.integers(1, 9), epoch=st.integers(0, 3))
def test_shuffled_shares_are_cut_by_the_same_rule(size: int, drop_last: bool, replicas: int, epoch: int) -> None:
    """Shuffle otherwise than torch does, by (seed, epoch), and share the order out as it does."""

    def script(lib: Any) -> Any:
        samplers = [lib.DistributedSampler(range(size), replicas, r, drop_last=drop_last) for r in range(replicas)]
        for sampler in samplers:
            sampler.set_epoch(epoch)
        order = [index for group in zip(*samplers, strict=True) for index in group]
        # Which places hold the same index again says how the order was begun anew.
        return [order.index(index) for index in order], sorted(set(order)) == sorted(range(size)), len(order)

    same(script)


@pytest.mark.parametrize(
    "script",
    [
        lambda lib: lib.RandomSampler(range(5), replacement=0),
        lambda lib: lib.RandomSampler(range(5), num_samples="3"),
        lambda lib: lib.RandomSampler(range(5), num_samples=2.0),
        lambda lib: lib.RandomSampler([]),
        lambda lib: lib.RandomSampler(5),
        lambda lib: list(lib.RandomSampler(range(5), generator="g")),
        lambda lib: list(lib.SubsetRandomSampler(range(5), generator="g")),
        lambda lib: lib.SubsetRandomSampler(5).__len__(),
        lambda lib: lib.WeightedRandomSampler([1.0], True),
        lambda lib: lib.WeightedRandomSampler([1.0], "1"),
        lambda lib: lib.WeightedRandomSampler([1.0], 1, 1),
        lambda lib: lib.WeightedRandomSampler([[1.0]], 1),
        lambda lib: lib.WeightedRandomSampler(["a"], 1),
        lambda lib: lib.BatchSampler(range(5), True, False),
        lambda lib: lib.BatchSampler(range(5), 1.0, False),
        lambda lib: lib.BatchSampler(range(5), None, False),
        lambda lib: lib.BatchSampler(range(5), 2, 0),
        lambda lib: lib.BatchSampler(range(5), 2, None),
        lambda lib: len(lib.BatchSampler(iter(range(5)), 2, False)),
        lambda lib: list(lib.BatchSampler(5, 2, False)),
        lambda lib: lib.DistributedSampler(range(5), 2, 2),
        lambda lib: lib.DistributedSampler(range(5), 2, -1),
        lambda lib: lib.DistributedSampler(range(5), 0, 0),
        lambda lib: lib.DistributedSampler(range(5)),
        lambda lib: lib.DistributedSampler(5, 1, 0),
        lambda lib: list(lib.Sampler()),
        lambda lib: len(lib.Sampler()),
        lambda lib: lib.SequentialSampler(range(3)).__len__(),
        lambda lib: [lib.Sampler[int] is not None, lib.DistributedSampler[int] is not None],
    ],
)
def test_samplers_refuse_the_same_arguments(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise an error that torch's own type catches."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    same(script)


SAMPLERS = {
    "random": lambda lib, held: lib.RandomSampler(range(9), generator=held),
    "replacement": lambda lib, held: lib.RandomSampler(range(9), True, generator=held),
    "subset": lambda lib, held: lib.SubsetRandomSampler(range(9), held),
    "weights": lambda lib, held: lib.WeightedRandomSampler(range(1, 10), 9, generator=held),
    "weights once": lambda lib, held: lib.WeightedRandomSampler(range(1, 10), 9, False, generator=held),
}


@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)
def test_seeding_torch_fixes_the_order(make: Any) -> None:
    """Follow torch.manual_seed, and a generator re-seeded in place, in all passes and in passes at once."""
    held = torch.Generator()
    for sampler, reseed in [(make(OURS, None), torch.manual_seed), (make(OURS, held), held.manual_seed)]:
        reseed(0)
        passes = list(sampler) + list(sampler)
        reseed(0)
        assert list(sampler) + list(sampler) == passes
        iterators = iter(sampler), iter(sampler)
        pairs = []
        for place in range(9):
            pair = []
            for iterator in iterators:
                if place == 0:
                    reseed(0)
                pair.append(next(iterator))
            pairs.append(pair)
        if make is not SAMPLERS["replacement"] or sampler.generator is None:
            assert all(one == other for one, other in pairs)


@given(seed=seeds, wanted=generated)
def test_a_seed_is_the_one_that_torchs_loader_draws(seed: int, wanted: bool) -> None:
    """Draw a loader's base seed, number for number."""
    held = generator(wanted, seed)
    torch.manual_seed(seed)
    ours = [draw_seed(held), draw_seed(held)]
    held = generator(wanted, seed)
    torch.manual_seed(seed)
    assert ours == [int(torch.empty((), dtype=torch.int64).random_(generator=held).item()) for _ in range(2)]
    assert all(type(number) is int for number in ours)


def test_numpys_generators_leave_torchs_alone() -> None:
    """Draw from what was given, and nothing else, while torch is loaded."""
    before = torch.get_rng_state()
    first = list(RandomSampler(range(100), generator=np.random.default_rng(3)))
    assert list(RandomSampler(range(100), generator=np.random.default_rng(3))) == first
    assert list(RandomSampler(range(100), generator=3)) != first
    assert torch.equal(torch.get_rng_state(), before)


def test_a_half_imported_torch_is_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw from NumPy while torch is still being imported."""
    monkeypatch.setitem(sys.modules, "torch", type(sys)("torch"))
    np.random.seed(0)
    first = draw_seed()
    np.random.seed(0)
    assert draw_seed() == first
    with pytest.raises(TypeError):
        resolve(torch.Generator())


def test_weights_may_be_a_tensor() -> None:
    """Read weights that need a gradient, of any precision, and see them change."""
    weights = torch.tensor([0.0, 1.0], dtype=torch.float64)
    sampler = WeightedRandomSampler(weights, 5)
    assert list(sampler) == [1] * 5
    weights[0], weights[1] = 1, 0
    assert list(sampler) == [0] * 5
    assert list(WeightedRandomSampler(torch.tensor([0.0, 1.0], requires_grad=True), 2)) == [1, 1]


def test_indices_may_be_a_tensor() -> None:
    """Give ints, where torch gives tensors."""
    indices = list(OURS.SubsetRandomSampler(torch.arange(5)))
    assert sorted(indices) == list(range(5))
    assert all(type(index) is int for index in indices)


def test_more_weights_than_torch_takes_are_drawn_by_us() -> None:
    """Go past torch.multinomial's 2**24, from the generator given anyway."""
    weights = np.zeros(2**24 + 2)
    weights[-2:] = 1, 3
    passes = [
        list(WeightedRandomSampler(weights, 1000, generator=torch.Generator().manual_seed(seed))) for seed in (0, 0, 1)
    ]
    assert passes[0] == passes[1] != passes[2]
    assert math.isclose(passes[0].count(2**24 + 1), 750, abs_tol=100)


def test_torchs_process_group_says_which_process_this_is(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the group, if there is one, before the launcher."""
    monkeypatch.setenv("WORLD_SIZE", "7")
    monkeypatch.setenv("RANK", "5")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", world_size=1, rank=0)
    try:
        sampler = DistributedSampler(range(4), shuffle=False)
        assert (sampler.num_replicas, sampler.rank, list(sampler)) == (1, 0, [0, 1, 2, 3])
    finally:
        torch.distributed.destroy_process_group()
    assert DistributedSampler(range(14)).rank == 5


def test_torchs_loader_takes_our_samplers() -> None:
    """Give torch's DataLoader an order, and batches."""
    load = torch.utils.data.DataLoader
    assert sorted(index.item() for index in load(range(5), sampler=RandomSampler(range(5)))) == list(range(5))
    batches = load(range(5), batch_sampler=OURS.BatchSampler(range(5), 2, False))
    assert [batch.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
