"""Planned samplers, each against what it promises, worked out one sample at a time."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import DataLoader
from headrace.context.seeds import Purpose, generator, key_of
from headrace.errors import ArgumentError, StateMismatch
from headrace.plan.mixture import STRIDE, TURN
from headrace.samplers import (
    BalancedBatchSampler,
    BucketBatchSampler,
    MixtureSampler,
    PackingBatchSampler,
    Piece,
    RepeatedSampler,
    ReplacementSampler,
    ShardSampler,
    TokenBatchSampler,
)
from headrace.testing import BatchSamplerTests, SamplerTests

lengths_of = st.lists(st.integers(0, 30), min_size=1, max_size=60)
seeds = st.integers(0, 99)
epochs = st.integers(0, 3)


def of_epoch(sampler: Any, epoch: int) -> list[Any]:
    sampler.set_epoch(epoch)
    return list(sampler)


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any), window=st.integers(1, 14), seed=seeds)
def test_shards_are_read_a_window_at_a_time(sizes: list[int], window: int, seed: int) -> None:
    """Give all indices once, and those of some whole shards before any of the next."""
    sampler = ShardSampler(sizes, window=window, seed=seed)
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    for epoch in range(2):
        order = of_epoch(sampler, epoch)
        assert sorted(order) == list(range(sum(sizes)))
        first, last = {}, {}
        for place, index in enumerate(order):
            first.setdefault(shard_of[index], place)
            last[shard_of[index]] = place
        open_at_once = [sum(first[s] <= place <= last[s] for s in first) for place in range(len(order))]
        assert max(open_at_once) <= window


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    data=st.data(),
    count=st.integers(1, 60),
    shuffle=st.booleans(),
    seed=seeds,
)
def test_a_mixture_is_drawn_sample_by_sample(
    sizes: list[int], data: st.DataObject, count: int, shuffle: bool, seed: int
) -> None:
    """Agree with a walk through the whole run that counts what was drawn; keep each share at any point."""
    share = st.lists(st.sampled_from([0, 0.5, 1, 3]), min_size=len(sizes), max_size=len(sizes)).filter(any)
    changes = data.draw(st.lists(st.integers(1, 150), max_size=2, unique=True))
    weights = {since: data.draw(share) for since in [0, *changes]}
    sampler = MixtureSampler(sizes, weights, num_samples=count, shuffle=shuffle, seed=seed)
    run = [index for epoch in range(3) for index in of_epoch(sampler, epoch)]
    starts = np.cumsum(sizes) - sizes
    here = int(generator(key_of(seed), Purpose.ORDER, 0, 1).integers(0, TURN, dtype=np.uint64))
    drawn, passes = Counter[int](), [set[int]() for _ in sizes]
    for number, index in enumerate(run):
        holding = weights[max(since for since in weights if since <= number)]
        point, part, total = here / TURN * sum(holding), 0, holding[0]
        while point >= total:
            part += 1
            total += holding[part]
        place = index - starts[part]
        assert 0 <= place < sizes[part]
        if not shuffle:
            assert place == drawn[part] % sizes[part]
        assert place not in passes[part]
        passes[part].add(place)
        if len(passes[part]) == sizes[part]:
            passes[part].clear()
        drawn[part] += 1
        here = (here + STRIDE) % TURN
        if not changes:
            assert all(abs(drawn[p] - (number + 1) * w / sum(holding)) < 4 for p, w in enumerate(holding))


@given(
    lengths=lengths_of,
    batch_size=st.integers(1, 7),
    bucket_size=st.integers(1, 30),
    drop_last=st.booleans(),
    shuffle=st.booleans(),
    seed=seeds,
    epoch=epochs,
)
def test_buckets_hold_neighbours_in_length(
    lengths: list[int], batch_size: int, bucket_size: int, drop_last: bool, shuffle: bool, seed: int, epoch: int
) -> None:
    """Cut the samples in order of length into batches; shuffled, no batch spans more than two buckets and itself."""
    how: Any = {"bucket_size": bucket_size, "drop_last": drop_last, "shuffle": shuffle, "seed": seed}
    batches = of_epoch(BucketBatchSampler(lengths, batch_size, **how), epoch)
    ranked = sorted(range(len(lengths)), key=lambda index: lengths[index])
    whole, rest = divmod(len(lengths), batch_size)
    assert [len(batch) for batch in batches] == [batch_size] * whole + [rest] * (rest > 0 and not drop_last)
    seen = [index for batch in batches for index in batch]
    assert len(set(seen)) == len(seen)
    if not shuffle:
        assert seen == ranked[: len(seen)]
        return
    buckets = max(round(len(lengths) / bucket_size), 1)
    for batch in batches:
        ranks = [ranked.index(index) for index in batch]
        assert max(ranks) - min(ranks) < 2 * -(-len(lengths) // buckets) + batch_size + rest


@given(
    lengths=lengths_of,
    most=st.integers(30, 90),
    multiple_of=st.sampled_from([1, 4]),
    max_samples=st.none() | st.integers(1, 5),
    window=st.integers(1, 70),
    shuffle=st.booleans(),
    seed=seeds,
    epoch=epochs,
)
def test_batches_are_within_their_budget_of_tokens(
    lengths: list[int],
    most: int,
    multiple_of: int,
    max_samples: int | None,
    window: int,
    shuffle: bool,
    seed: int,
    epoch: int,
) -> None:
    """Give all samples once, in batches that cost no more than allowed; in order, as many in each as fit."""
    how: Any = {"multiple_of": multiple_of, "max_samples": max_samples, "shuffle": shuffle, "seed": seed}
    batches = of_epoch(TokenBatchSampler(lengths, most + 2, window=window, **how), epoch)
    rounded = [max(-(-length // multiple_of) * multiple_of, 1) for length in lengths]
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert max(rounded[index] for index in batch) * len(batch) <= most + 2
        assert max_samples is None or len(batch) <= max_samples
    if not shuffle:
        expected: list[list[int]] = []
        for start in range(0, len(lengths), window):
            begun = False
            for index in sorted(range(start, min(start + window, len(lengths))), key=lambda index: lengths[index]):
                fits = begun and rounded[index] * (len(expected[-1]) + 1) <= most + 2
                if fits and (max_samples is None or len(expected[-1]) < max_samples):
                    expected[-1].append(index)
                else:
                    expected.append([index])
                begun = True
        assert batches == expected


@given(
    lengths=lengths_of,
    room=st.integers(30, 50),
    batch_size=st.integers(1, 4),
    fit=st.sampled_from(["first", "best"]),
    decreasing=st.booleans(),
    window=st.integers(1, 70),
    shuffle=st.booleans(),
    seed=seeds,
    epoch=epochs,
)
def test_samples_are_packed_into_rows(
    lengths: list[int],
    room: int,
    batch_size: int,
    fit: Any,
    decreasing: bool,
    window: int,
    shuffle: bool,
    seed: int,
    epoch: int,
) -> None:
    """Put each sample into the row that is to have it, looking at every row; shuffled, lose none and overfill none."""
    how: Any = {"fit": fit, "decreasing": decreasing, "window": window, "shuffle": shuffle, "seed": seed}
    batches = of_epoch(PackingBatchSampler(lengths, room, batch_size, **how), epoch)
    rows = [row for batch in batches for row in batch]
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= room for row in rows)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    if shuffle:
        return
    expected: list[list[int]] = []
    for start in range(0, len(lengths), window):
        packed: list[list[int]] = []
        filled: list[int] = []
        samples = list(range(start, min(start + window, len(lengths))))
        for index in sorted(samples, key=lambda index: -lengths[index]) if decreasing else samples:
            left = [room - sum(lengths[other] for other in row) for row in packed]
            fitting = [number for number, space in enumerate(left) if space >= lengths[index]]
            if not fitting:
                packed.append([])
                row = len(packed) - 1
            elif fit == "first":
                row = fitting[0]
            else:
                row = min(fitting, key=lambda number: (left[number], filled.index(number)))
            packed[row].append(index)
            filled = [row, *(other for other in filled if other != row)]
        expected += packed
    assert [list(row) for row in rows] == expected


@given(
    labels=st.lists(st.sampled_from("abcd"), min_size=1, max_size=30),
    each=st.integers(1, 3),
    count=st.integers(1, 12),
    data=st.data(),
    seed=seeds,
)
def test_classes_are_balanced(labels: list[str], each: int, count: int, data: st.DataObject, seed: int) -> None:
    """Give so many samples of so many classes, every class as often as the others, every sample of one in its turn."""
    classes = sorted(set(labels))
    per_batch = data.draw(st.integers(1, len(classes)))
    how: Any = {"classes_per_batch": per_batch, "samples_per_class": each, "num_batches": count, "seed": seed}
    sampler = BalancedBatchSampler(labels, **how)
    drawn = Counter[str]()
    passes: dict[str, set[int]] = {name: set() for name in classes}
    for batch in [batch for epoch in range(3) for batch in of_epoch(sampler, epoch)]:
        found = Counter(labels[index] for index in batch)
        assert len(found) == per_batch
        assert set(found.values()) == {each}
        drawn.update(found)
        assert max(drawn[name] for name in classes) - min(drawn[name] for name in classes) <= 2 * each
        for index in batch:
            mine = passes[labels[index]]
            assert index not in mine
            mine.add(index)
            if len(mine) == labels.count(labels[index]):
                mine.clear()


@given(size=st.integers(1, 30), repeats=st.integers(1, 4), together=st.booleans(), seed=seeds, epoch=epochs)
def test_samples_are_repeated(size: int, repeats: int, together: bool, seed: int, epoch: int) -> None:
    """Give each so many times: one after the other, or a pass apart and never closer than half of one."""
    order = of_epoch(RepeatedSampler(size, repeats, together=together, seed=seed), epoch)
    if together:
        assert order == [index for index in order[::repeats] for _ in range(repeats)]
        assert sorted(order[::repeats]) == list(range(size))
        return
    last: dict[int, int] = {}
    for place, index in enumerate(order):
        assert place - last.get(index, -size) >= size // 2
        last[index] = place
    assert all(sorted(order[turn * size : (turn + 1) * size]) == list(range(size)) for turn in range(repeats))


@pytest.mark.parametrize("size", [1, 6, 1000, 2**31 + 7, 2**33 + 123, 2**62 + 12345, 2**63 - 1])
def test_draws_are_philox_words_as_fractions_of_the_size(size: int) -> None:
    """Give the upper half of the product of a word and the size, at any position."""
    key = key_of(4)
    counter = np.array((0, 2**63, 2, Purpose.ORDER), np.uint64)
    words = np.random.Philox(key=np.array(key, np.uint64), counter=counter).random_raw(500).tolist()
    order = ReplacementSampler(size, 2**40, seed=4).order(key_of(0))
    assert order.keys(2, 0, 500) == [word * size >> 64 for word in words]
    assert order.keys(2, 2**40 - 3, 2**40) == ReplacementSampler(size, 2**40, seed=4).order(key).keys(
        2, 2**40 - 3, 2**40 + 9
    )


def test_draws_are_uniform_and_come_with_replacement() -> None:
    """Draw each index equally often, as far as chance allows, and some of them again."""
    drawn = of_epoch(ReplacementSampler(100, 100_000, seed=0), 0)
    counts = np.bincount(drawn, minlength=100)
    assert len(counts) == 100
    assert abs(counts - 1000).max() < 5 * np.sqrt(1000)
    assert len(set(drawn[:100])) < 100
    assert len(ReplacementSampler("abc")) == 3


SAMPLERS: dict[str, Any] = {
    "shards": lambda seed: ShardSampler([5, 0, 7, 3, 9], window=2, seed=seed),
    "mixture": lambda seed: MixtureSampler([9, 15], {0: [1, 3], 17: [3, 1]}, num_samples=20, seed=seed),
    "repeated": lambda seed: RepeatedSampler(12, 2, together=False, seed=seed),
    "drawn": lambda seed: ReplacementSampler(12, 25, seed=seed),
    "buckets": lambda seed: BucketBatchSampler(range(30), 4, bucket_size=9, seed=seed),
    "tokens": lambda seed: TokenBatchSampler(range(1, 25), 60, window=9, seed=seed),
    "packing": lambda seed: PackingBatchSampler(range(1, 25), 30, 3, window=9, seed=seed),
    "balanced": lambda seed: BalancedBatchSampler([0, 1, 2, 2] * 6, samples_per_class=2, seed=seed),
}


class TestShards(SamplerTests):
    make = staticmethod(SAMPLERS["shards"])


class TestMixture(SamplerTests):
    make = staticmethod(SAMPLERS["mixture"])


class TestRepeated(SamplerTests):
    make = staticmethod(SAMPLERS["repeated"])


class TestDrawn(SamplerTests):
    make = staticmethod(SAMPLERS["drawn"])


class TestBuckets(BatchSamplerTests):
    make = staticmethod(SAMPLERS["buckets"])


class TestBucketsInOrder(BatchSamplerTests):
    shuffles = False

    def make(self, seed: int | None) -> BucketBatchSampler:
        return BucketBatchSampler(range(30), 4, shuffle=False, seed=seed)


class TestTokens(BatchSamplerTests):
    make = staticmethod(SAMPLERS["tokens"])


class TestPacking(BatchSamplerTests):
    make = staticmethod(SAMPLERS["packing"])


class TestBalanced(BatchSamplerTests):
    make = staticmethod(SAMPLERS["balanced"])


@settings(max_examples=30)
@given(name=st.sampled_from(sorted(SAMPLERS)), seed=seeds, epoch=epochs, data=st.data())
def test_batches_can_be_entered_anywhere(name: str, seed: int, epoch: int, data: st.DataObject) -> None:
    """Give the keys of any place, asked of a fresh order, as a pass over the whole epoch gives them."""
    whole = of_epoch(SAMPLERS[name](seed), epoch)
    sampler = SAMPLERS[name](None)
    step = data.draw(st.integers(0, len(whole) - 1))
    if hasattr(sampler, "order"):
        assert sampler.order(key_of(seed)).keys(epoch, step, step + 3) == whole[step : step + 3]
        return
    order = sampler.batch_order(key_of(seed))
    assert order.keys(epoch, step) == whole[step]
    assert order.start(epoch, step) == sum(map(len, whole[:step]))
    assert order.count(epoch) == len(whole)


def test_a_long_schedule_of_weights_is_reported_in_little() -> None:
    """Keep the fingerprint of a thousand changes small, and apart from that of another thousand."""
    one, other = (
        MixtureSampler([9, 9], {step: [1, step + last] for step in range(1000)}, seed=0).fingerprint for last in (1, 2)
    )
    assert len(json.dumps(one)) < 500
    assert one != other


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ShardSampler([3, -1]), "shard_sizes must be integers from 0 up; number 1 is -1"),
        (lambda: ShardSampler([3], window=0), "window must be an integer from 1 up"),
        (lambda: MixtureSampler([3, 3], [1]), "one for each of 2 datasets"),
        (lambda: MixtureSampler([3, 3], [1, float("nan")]), "weight 1 is nan"),
        (lambda: MixtureSampler([3, 0], [1, 1]), "dataset 1 is empty"),
        (lambda: MixtureSampler([3, 3], [0, 0]), "no weight is above 0"),
        (lambda: MixtureSampler([3, 3], {5: [1, 1]}), "the first entry is for 5"),
        (lambda: MixtureSampler([0]), "all datasets are empty"),
        (lambda: MixtureSampler([3, 3], ["a", "b"]), "one row of numbers, one for each of 2"),
        (lambda: BucketBatchSampler([], 2), "lengths is empty"),
        (lambda: BucketBatchSampler([1.5], 2), "number 0 is 1.5"),
        (lambda: BucketBatchSampler([[1], [1, 2]], 2), "one row of integers"),
        (lambda: BucketBatchSampler([1], batch_size=True), "batch_size must be an integer from 1 up; got True"),
        (lambda: BucketBatchSampler([1], 1, shuffle="no"), "shuffle should be a boolean value, but got shuffle='no'"),
        (lambda: TokenBatchSampler([3, 9, 8], 7), r"sample 1 has length 9 \(and 1 more\)"),
        (lambda: TokenBatchSampler([3], 7, multiple_of=8), "max_tokens=7 is smaller than multiple_of=8"),
        (lambda: TokenBatchSampler([3], 7, longer="cut"), "longer must be one of"),
        (lambda: PackingBatchSampler([3], 7, 1, fit="worst"), "fit must be one of"),
        (lambda: BalancedBatchSampler([]), "labels is empty"),
        (lambda: BalancedBatchSampler([[1, 2]]), "one row of numbers or strings"),
        (lambda: BalancedBatchSampler([1, float("nan")]), "label 1 is NaN"),
        (lambda: BalancedBatchSampler([1, 2], classes_per_batch=3), "more than the 2 classes"),
        (lambda: RepeatedSampler(0), "dataset is empty"),
        (lambda: RepeatedSampler(3, 2, num_samples=7), "more than the 6 samples of an epoch"),
        (lambda: RepeatedSampler("abc", seed=-1), "seed must be an integer from 0 up"),
        (lambda: ReplacementSampler([]), "dataset is empty"),
        (lambda: ReplacementSampler(5, 0), "num_samples must be an integer from 1 up; got 0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make: Any, words: str) -> None:
    """Say what is the matter, and where."""
    with pytest.raises(ArgumentError, match=words):
        make()


def test_what_is_too_long_is_left_out_or_cut() -> None:
    """Leave it out, cut it after the limit, or cut it into parts that fit."""
    for longer, keys in (
        ("drop", [0, 2]),
        ("truncate", [0, 2, Piece(1, 0, 10)]),
        ("split", [0, 2, Piece(1, 0, 10), Piece(1, 10, 20), Piece(1, 20, 23)]),
    ):
        how: Any = {"longer": longer, "shuffle": False}
        assert sorted((i for batch in TokenBatchSampler([3, 23, 4], 10, **how) for i in batch), key=str) == sorted(
            keys, key=str
        )
        rows = [row for batch in PackingBatchSampler([3, 23, 4], 10, 1, **how) for row in batch]
        assert sorted((key for row in rows for key in row), key=str) == sorted(keys, key=str)


def test_a_temperature_flattens_the_weights_of_a_mixture() -> None:
    """Raise each weight to one over the temperature: also the lengths, where no weights are given."""
    by_length = MixtureSampler([10_000, 100], temperature=2, num_samples=1100, seed=0)
    assert abs(sum(index >= 10_000 for index in by_length) - 100) < 4
    given = MixtureSampler([5, 5, 5], [16, 1, 0], temperature=4, seed=0)
    assert given.weights[0][0] == pytest.approx(2 * given.weights[0][1])
    assert given.weights[0][2] == 0
    later = given.changed(3, [1, 16, 0])
    assert later.weights[3][1] == pytest.approx(2 * later.weights[3][0])
    assert later.changed(9, [81, 1, 0]).weights[9][0] == pytest.approx(3 * later.changed(9, [81, 1, 0]).weights[9][1])
    for wrong in (0, -1, float("nan"), "hot"):
        with pytest.raises((ArgumentError, TypeError), match="temperature"):
            MixtureSampler([3, 3], temperature=wrong)  # type: ignore[arg-type]


@given(data=st.data(), seed=seeds, shuffle=st.booleans())
def test_a_dataset_of_a_mixture_is_read_by_its_own_sampler(data: st.DataObject, seed: int, shuffle: bool) -> None:
    """Give the samples of each part in the order of its sampler, epoch by epoch, whatever range is asked for."""
    shards = ShardSampler([2, 3, 1], window=2, seed=5)
    inner = MixtureSampler([3, 4], [1, 2], num_samples=5, seed=6)
    sampler = MixtureSampler(
        [6, 4, 7], [2, 1, 1], num_samples=9, samplers=[shards, None, inner], shuffle=shuffle, seed=seed
    )
    order = sampler.order(key_of(0))
    run = [index for epoch in range(6) for index in order.keys(epoch, 0, 9)]
    for low, size, own in ((0, 6, shards), (10, 7, inner)):
        mine = [index - low for index in run if low <= index < low + size]
        walked = [key for epoch in range(9) for key in of_epoch(own, epoch)]
        assert mine == walked[: len(mine)]
    start, stop = sorted(data.draw(st.tuples(st.integers(0, 9), st.integers(0, 9))))
    assert sampler.order(key_of(0)).keys(4, start, stop) == run[4 * 9 + start : 4 * 9 + stop]
    drawn = Counter(0 if index < 6 else 1 if index < 10 else 2 for index in run)
    assert sampler.passes(len(run)) == [drawn[0] / 6, drawn[1] / 4, drawn[2] / 5]


def test_a_mixture_with_samplers_of_its_datasets_loads_and_resumes() -> None:
    """Name the samplers in the state; refuse the state of other ones."""

    def loader_with(window: int) -> DataLoader[Any]:
        parts: list[Any] = [ShardSampler([4, 4], window=window), None]
        return DataLoader(range(12), 3, sampler=MixtureSampler([8, 4], [3, 1], samplers=parts), seed=3)

    loader = loader_with(1)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    rest = [batch.tolist() for batch in batches]
    other = loader_with(1)
    other.load_state_dict(state)
    assert [batch.tolist() for batch in other] == rest
    with pytest.raises(StateMismatch, match=r"sampler\.samplers"):
        loader_with(2).load_state_dict(state)


@pytest.mark.parametrize(
    ("samplers", "says"),
    [
        ([None], "one for each of 2 datasets"),
        ([None, [0, 1]], "must be planned samplers or None"),
        ([MixtureSampler([9], num_samples=4, shuffle=False), None], "gave index 3, but the dataset has 3 samples"),
        ([ShardSampler([0]), None], "the sampler of dataset 0 is empty"),
    ],
)
def test_samplers_that_do_not_fit_a_mixture_are_refused(samplers: Any, says: str) -> None:
    """Say which one, and what fits."""
    with pytest.raises(ArgumentError, match=says):
        list(MixtureSampler([3, 3], num_samples=12, samplers=samplers))
