"""The ledger: what it proves of what a training loop has received, whatever came between."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import random
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import DataLoader, IterableDataset, Ledger, get_worker_info, verify_epoch
from headrace.collate import PackedCollate
from headrace.datasets import GroupedDataset, PackedStream, TokenDataset
from headrace.errors import BadFile
from headrace.ledger.fingerprint import HASHED_BYTES, of_batch
from headrace.samplers import (
    BatchSampler,
    BucketBatchSampler,
    MixtureSampler,
    PackingBatchSampler,
    RandomSampler,
    RepeatedSampler,
    ReplacementSampler,
    ShardSampler,
)

FORK: dict[str, Any] = {"backend": "processes", "multiprocessing_context": "fork"}
KINDS: list[dict[str, Any]] = [{}, {"num_workers": 2, "backend": "threads"}, {"num_workers": 2, **FORK}]


class Some:
    """Samples that are their own index; some are bad."""

    def __init__(self, size: int, bad: frozenset[int] = frozenset()) -> None:
        self.size, self.bad = size, bad

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        if index in self.bad:
            raise ValueError(f"{index} is bad")
        return index


@settings(max_examples=40)
@given(
    size=st.integers(1, 60),
    batch_size=st.integers(1, 5),
    worlds=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    shuffle=st.booleans(),
    uneven=st.sampled_from(["pad", "drop", "repeat"]),
    drop_last=st.booleans(),
    stops=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=4, max_size=4),
    bad=st.frozensets(st.integers(0, 59), max_size=3),
    apart=st.booleans(),
)
def test_each_sample_is_proven_to_come_once_across_restarts_and_worlds(
    size: int,
    batch_size: int,
    worlds: list[int],
    shuffle: bool,
    uneven: Any,
    drop_last: bool,
    stops: list[tuple[int, int]],
    bad: frozenset[int],
    apart: bool,
) -> None:
    """Save, go on for some batches, go on from the state in another world: what was made undone is not counted."""
    bad = frozenset(index for index in bad if index < size - 1)
    kept: dict[int, Ledger] = {}
    ledgers: list[Ledger] = []
    received: list[int] = []
    state: dict[str, Any] | None = None
    for number, (world, (stop, beyond)) in enumerate(zip(worlds, stops, strict=False)):
        loaders = []
        for rank in range(world):
            ledger = Ledger() if apart else kept.setdefault(rank, Ledger())
            ledgers.append(ledger)
            loader = DataLoader(
                Some(size, bad),
                batch_size,
                shuffle=shuffle,
                seed=3,
                rank=rank,
                world_size=world,
                uneven=uneven,
                drop_last=drop_last,
                on_error="replace" if bad else "raise",
                ledger=ledger,
            )
            if state is not None:
                loader.load_state_dict(state)
            loaders.append(loader)
        loops = [iter(loader) for loader in loaders]
        last = number == len(worlds) - 1
        for loop in loops:
            received += [index for batch in islice(loop, None if last else stop) for index in batch.tolist()]
        state = loaders[0].state_dict()
        if state["epoch"]:
            break
        for loop in loops:
            list(islice(loop, beyond))
    proof = verify_epoch(*(ledgers if apart else kept.values()), epoch=0)
    assert proof.exact, str(proof)
    assert proof.delivered + proof.bad + proof.left_out == size
    if not bad:
        assert proof.delivered + proof.padding == len(received)
        assert proof.delivered == len(set(received))


@settings(max_examples=40)
@given(
    size=st.integers(1, 40),
    batch_size=st.integers(1, 5),
    drop_last=st.booleans(),
    bad=st.frozensets(st.integers(0, 39), max_size=12),
    stops=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.sampled_from(KINDS)), min_size=1, max_size=3),
)
def test_samples_that_are_passed_over_are_reported(
    size: int, batch_size: int, drop_last: bool, bad: frozenset[int], stops: list[tuple[int, int, dict[str, Any]]]
) -> None:
    """Count a bad sample once, and none of the good ones twice, where batches are filled up."""
    bad = frozenset(index for index in bad if index < size - 1)
    ledger = Ledger()
    state: dict[str, Any] | None = None

    def make(**how: Any) -> DataLoader[Any]:
        policy: dict[str, Any] = {"drop_last": drop_last, "on_error": "skip"}
        loader = DataLoader(Some(size, bad), batch_size, shuffle=True, seed=1, ledger=ledger, **policy, **how)
        if state is not None:
            loader.load_state_dict(state)
        return loader

    for stop, beyond, how in stops:
        loader = make(**how)
        loop = iter(loader)
        list(islice(loop, stop))
        state = loader.state_dict()
        list(islice(loop, beyond))
        loader.close()
    if state is not None and not state["epoch"]:
        list(make())
    proof = verify_epoch(ledger, epoch=0)
    assert proof.exact, str(proof)
    left = (size - len(bad)) % batch_size if drop_last else 0
    assert (proof.delivered, proof.bad, proof.left_out) == (size - len(bad) - left, len(bad), left)


def test_what_is_missing_and_what_is_double_is_named() -> None:
    """Continue a little before and a little behind the place that was saved."""
    for shift, words in ((-2, "2 samples delivered more than once: 2 (2 times), 3 (2 times)"), (2, "missing: 4-5")):
        ledger = Ledger()
        loader = DataLoader(range(12), 4, seed=0, ledger=ledger)
        next(iter(loader))
        state = loader.state_dict()
        loader.load_state_dict({**state, "samples": state["samples"] + shift})
        list(loader)
        proof = verify_epoch(ledger)
        assert not proof.exact
        assert words in str(proof)


def test_a_loop_that_takes_the_last_batch_and_asks_no_more_has_read_the_epoch() -> None:
    """Know the end from the plan, where there is one."""
    for how, ended in (({"batch_size": 4}, True), ({"batch_size": 4, "sampler": range(10)}, False)):
        ledger = Ledger()
        list(islice(DataLoader(range(10), **how, ledger=ledger), 3))
        assert (verify_epoch(ledger).ended, verify_epoch(ledger).exact) == (ended, ended)


def test_a_batch_that_was_lost_to_an_error_is_missing() -> None:
    """Count what was handed over, not what was asked for."""
    ledger = Ledger()
    loop = iter(DataLoader(Some(10, frozenset({4})), 2, ledger=ledger))
    got = []
    while len(got) < 4:
        try:
            got.append(next(loop).tolist())
        except ValueError:
            continue
    assert next(loop, None) is None
    assert str(verify_epoch(ledger)) == "epoch 0: 8 samples delivered; 2 samples missing: 4-5"


def test_a_rank_whose_ledger_is_not_given_is_named(tmp_path: Path) -> None:
    """Prove nothing of what is not there; a folder has them all."""
    for rank in range(3):
        list(DataLoader(range(10), 2, seed=0, rank=rank, world_size=3, ledger=tmp_path / "run"))
    assert verify_epoch(tmp_path / "run").exact
    proof = verify_epoch(tmp_path / "run" / "rank0.ledger", tmp_path / "run" / "rank2.ledger")
    assert proof.absent == ("rank 1 of 3",)
    assert [key for stretch in proof.missing for key in stretch] == [2, 3, 8, 9]
    assert not proof.exact


def test_an_epoch_that_is_not_over_is_not_proven() -> None:
    """Say so, with what is missing so far; the epochs before it stand."""
    ledger = Ledger()
    loader = DataLoader(range(10), 2, shuffle=True, seed=5, ledger=ledger)
    list(loader)
    next(iter(loader))
    assert verify_epoch(ledger, epoch=0).exact
    proof = verify_epoch(ledger)
    assert (proof.epoch, proof.ended, proof.missing_count, proof.delivered) == (1, False, 8, 2)
    with pytest.raises(ValueError, match="have no batch of epoch 7"):
        verify_epoch(ledger, epoch=7)
    with pytest.raises(ValueError, match="the 1 ledgers given have no batch of an epoch"):
        verify_epoch(Ledger())


def test_what_is_fetched_ahead_is_not_received() -> None:
    """Write down what the loop was given, when it was."""
    ledger = Ledger()
    loader = DataLoader(range(40), 2, num_workers=2, backend="threads", ledger=ledger)
    batches = loader._session.loop(lambda batch: batch)
    next(batches), next(batches)
    assert verify_epoch(ledger).delivered == 4
    loader.close()


def test_a_samplers_order_is_proven_by_place() -> None:
    """Tell what the order itself repeats or leaves out; miss nothing of it."""
    orders: list[tuple[dict[str, Any], int, int]] = [
        ({"sampler": RandomSampler(range(10), generator=1), "batch_size": 3}, 0, 0),
        ({"sampler": [1, 2, 2, 7], "batch_size": 3}, 1, 7),
        ({"batch_sampler": BatchSampler(range(10), 4, drop_last=True)}, 0, 2),
    ]
    for how, repeats, without in orders:
        ledger = Ledger()
        loader = DataLoader(range(10), **how, ledger=ledger)
        next(iter(loader))
        loader.load_state_dict(loader.state_dict())
        list(loader)
        proof = verify_epoch(ledger)
        assert proof.exact, str(proof)
        assert (proof.repeats, proof.not_asked_for, proof.sessions) == (repeats, without, 2)


def test_keys_of_any_kind_are_proven_by_place() -> None:
    """Take strings and tuples for keys."""
    data = {"a": 1, "b": 2, ("c", 3): 4}
    ledger = Ledger()
    list(DataLoader(data, 2, sampler=["a", ("c", 3), "b"], ledger=ledger))
    assert str(verify_epoch(ledger)) == "epoch 0: each of 3 samples was delivered exactly once"


PLANNED: dict[str, Any] = {
    "mixture": lambda: {"sampler": MixtureSampler([20, 20], [0.9, 0.1], num_samples=50, seed=1), "batch_size": 3},
    "shards": lambda: {"sampler": ShardSampler([10] * 4, window=2), "batch_size": 3},
    "repeated": lambda: {"sampler": RepeatedSampler(40, 2), "batch_size": 3},
    "drawn": lambda: {"sampler": ReplacementSampler(40, 50), "batch_size": 3},
    "buckets": lambda: {"batch_sampler": BucketBatchSampler(range(1, 41), 4)},
    "packed": lambda: {"batch_sampler": PackingBatchSampler(range(1, 41), 50, batch_size=2)},
}


@pytest.mark.parametrize("name", PLANNED)
@pytest.mark.parametrize("uneven", ["pad", "drop", "repeat"])
def test_a_planned_order_is_proven_by_place_on_any_ranks(name: str, uneven: Any) -> None:
    """Prove each place of a planned sampler's order, from two ranks to three, whatever the order repeats."""
    state: dict[str, Any] | None = None
    ledgers: list[Ledger] = []
    for world, stop in ((2, 2), (3, None)):
        for rank in range(world):
            ledgers.append(Ledger())
            loader = DataLoader(
                Anything(), **PLANNED[name](), seed=1, rank=rank, world_size=world, uneven=uneven, ledger=ledgers[-1]
            )
            if stop is None:
                loader.load_state_dict(state)  # type: ignore[arg-type]
            list(islice(loader, stop))
            saved = loader.state_dict()
        state = saved
    proof = verify_epoch(*ledgers, epoch=0)
    assert proof.exact, str(proof)
    assert (proof.repeats > 0) == (name in ("mixture", "repeated", "drawn"))
    assert not verify_epoch(*ledgers[:-1], epoch=0).exact


class Anything:
    def __len__(self) -> int:
        return 40

    def __getitem__(self, key: Any) -> int:
        return 0


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        return iter(range(23) if info is None else range(info.id, 23, info.num_workers))


@pytest.mark.parametrize(
    "how",
    [{}, {"num_workers": 2, **FORK}, {"num_workers": 1, "backend": "threads"}, {"num_workers": 2, "read_once": True}],
    ids=str,
)
@pytest.mark.parametrize("drop_last", [False, True])
def test_a_stream_is_proven_by_place(how: dict[str, Any], drop_last: bool) -> None:
    """Follow each copy of it from its beginning to its end, over a restart."""
    ledger = Ledger()
    loader = DataLoader(Stream(), 4, drop_last=drop_last, ledger=ledger, **how)
    loop = iter(loader)
    next(loop), next(loop)
    state = loader.state_dict()
    next(loop)
    loader.close()
    loader.load_state_dict(state)
    count = 8 + sum(len(batch) for batch in loader)
    proof = verify_epoch(ledger)
    assert proof.exact, str(proof)
    assert proof.delivered == count


def test_ledgers_of_loops_that_run_at_once_do_not_mix(tmp_path: Path) -> None:
    """Keep the loops of several threads apart in one file."""
    ledger = Ledger(tmp_path / "one.ledger")
    loader = DataLoader(range(200), 3, shuffle=True, seed=1, ledger=ledger)
    loops = [iter(loader) for _ in range(3)]
    threads = [threading.Thread(target=list, args=(loop,), name="headrace-test") for loop in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.close()
    assert all(verify_epoch(tmp_path, epoch=epoch).exact for epoch in range(3))


def test_closing_a_loader_closes_its_ledger(tmp_path: Path) -> None:
    """Give the descriptor back, and continue writing with the next loop."""
    with DataLoader(range(9), 2, ledger=tmp_path) as loader:
        list(loader)
    list(loader)
    assert [verify_epoch(tmp_path, epoch=epoch).exact for epoch in (0, 1)] == [True, True]
    loader.close()
    assert loader.ledger is not None
    assert loader.ledger._file is None


def written(tmp_path: Path) -> Path:
    path = tmp_path / "run.ledger"
    ledger = Ledger(path)
    loader = DataLoader(range(9), 2, shuffle=True, seed=0, ledger=ledger)
    list(loader)
    ledger.close()
    return path


def test_a_file_that_was_cut_short_continues_where_it_ends(tmp_path: Path) -> None:
    """Take what is whole at every length of a file, and append to it."""
    path = written(tmp_path)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        ledger = Ledger(path)
        before = len(ledger.sessions()[1])
        list(DataLoader(range(9), 2, shuffle=True, seed=0, ledger=ledger))
        ledger.close()
        assert len(Ledger(path).sessions()[1]) == before + 6
        assert verify_epoch(path).exact


def told(path: Path) -> Any:
    with contextlib.suppress(BadFile):
        return Ledger(path).sessions()
    return None


def test_a_damaged_file_is_reported_and_runs_nothing(tmp_path: Path) -> None:
    """Name the file for any byte that was changed, and never take it for good."""
    path = written(tmp_path)
    data = path.read_bytes()
    draws = random.Random(5)
    for at in range(len(data)):
        spoiled = bytearray(data)
        spoiled[at] ^= draws.randrange(1, 256)
        path.write_bytes(spoiled)
        assert told(path) is None
    path.write_bytes(b"\x80\x04cposix\nsystem\n" * 9)
    with pytest.raises(BadFile, match="not a ledger"):
        verify_epoch(path)


def test_a_file_with_good_checksums_and_nonsense_in_it_is_refused(tmp_path: Path) -> None:
    """Check what a record says before it is believed."""
    for payload in (b"", b"X", b"S{}", b"S[]", b'S{"beyond": []}', b"S" + b"[" * 100_000, b"B" + bytes(70)):
        ledger = Ledger(tmp_path / "nonsense.ledger")
        ledger.append(payload)
        ledger.close()
        with pytest.raises(BadFile, match="record 0 is invalid"):
            verify_epoch(tmp_path)
        (tmp_path / "nonsense.ledger").unlink()


def test_a_ledger_is_small(tmp_path: Path) -> None:
    """Take two bytes a sample of a shuffled million, next to nothing of one in order."""
    for shuffle, most in ((True, 2.4), (False, 0.4)):
        folder = tmp_path / str(shuffle)
        loader = DataLoader(range(10**6), 256, shuffle=shuffle, ledger=folder, seed=0)
        list(islice(loader, 100))
        loader.ledger.close()
        assert (folder / "rank0.ledger").stat().st_size < 25_600 * most + 1000


def test_the_door_says_what_a_ledger_may_be(tmp_path: Path) -> None:
    """Refuse what is neither a ledger nor a folder, and a folder without any."""
    with pytest.raises(ValueError, match="ledger must be a Ledger"):
        DataLoader([1], ledger=3)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="ledger is a file; expected a folder"):
        DataLoader([1], ledger=tmp_path / "file")
    with pytest.raises(ValueError, match=r"no \*\.ledger file"):
        verify_epoch(tmp_path)
    with pytest.raises(ValueError, match="no such file"):
        verify_epoch(tmp_path / "none")


def test_a_full_disk_is_reported() -> None:
    """Raise what the operating system says; hand over nothing that is not written down."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    ledger = Ledger()
    ledger.path = Path("/dev/full")
    loader = DataLoader(range(4), 2, ledger=ledger)
    with pytest.raises(OSError, match="No space"):
        next(iter(loader))
    ledger.close()


def test_copies_of_a_ledger_share_its_file(tmp_path: Path) -> None:
    """Go through pickle by path."""
    ledger = Ledger(tmp_path / "a.ledger", fingerprints=False)
    for again in (pickle.loads(pickle.dumps(ledger)), copy.copy(ledger)):
        assert (again.path, again.fingerprints) == (ledger.path, False)
        list(DataLoader(range(4), 2, ledger=again))
        again.close()
    assert verify_epoch(ledger).exact
    assert repr(ledger) == f"Ledger({str(tmp_path / 'a.ledger')!r})"


BATCHES: list[Any] = [
    np.arange(6),
    np.arange(6, dtype=np.int32),
    np.arange(6).reshape(2, 3),
    np.arange(12)[::2],
    np.array(3),
    np.array(["a", "b"]),
    np.zeros(0),
    [np.arange(3), np.arange(3)],
    [np.arange(6)],
    {"a": np.arange(6)},
    {"b": np.arange(6)},
    ["a", "b"],
    [1, 2],
    [1.0, 2.0],
    "text",
    7,
    b"bytes",
    [],
    {},
    [["a"], np.arange(2)],
    np.zeros(HASHED_BYTES, np.uint8),
    np.zeros((4, HASHED_BYTES), np.uint8),
    np.zeros((HASHED_BYTES, 4), np.uint8),
]


def test_batches_that_differ_have_other_fingerprints() -> None:
    """Tell structure, dtype, shape and values apart; give the same for the same."""
    prints = [of_batch(batch) for batch in BATCHES]
    assert len(set(prints)) == len(BATCHES)
    assert prints == [of_batch(copy.deepcopy(batch)) for batch in BATCHES]
    assert of_batch(np.arange(6)) == of_batch(np.arange(12)[:6])


@settings(max_examples=50)
@given(st.integers(0, HASHED_BYTES - 1), st.integers(1, 255))
def test_any_changed_byte_shows_in_a_small_array(at: int, change: int) -> None:
    """Depend on every byte up to 64 KiB."""
    array = np.arange(HASHED_BYTES, dtype=np.uint32).astype(np.uint8)
    before = of_batch(array)
    array[at] ^= change
    assert of_batch(array) != before


def test_another_sample_or_crop_shows_in_a_large_batch() -> None:
    """Look at every sample, at places that differ."""
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 224, 224), np.uint8)
    before = of_batch(images)
    for row in range(64):
        kept = images[row].copy()
        images[row] = kept[:, :, ::-1]
        flipped = of_batch(images)
        images[row] = np.roll(kept, 1, axis=2)
        assert len({before, flipped, of_batch(images)}) == 3
        images[row] = kept
    assert of_batch(images) == before


def test_what_has_no_bytes_of_its_own_has_a_fingerprint() -> None:
    """Look at the type alone of what cannot be compared between runs; never fail."""
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    for thing in (object(), deep, np.array([object()]), {1: object()}, threading.Lock(), os.environ):
        assert of_batch(thing) == of_batch(thing)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_ledger_counts_the_documents_and_tokens_of_packed_rows(kind: dict[str, Any], world: int) -> None:
    """Count each document once, parts of one too, over ranks, a restart on one rank, and without what fills a step."""
    lengths = np.random.default_rng(3).integers(0, 40, 90)
    texts = GroupedDataset([np.arange(length) for length in lengths])

    def loader_of(rank: int, ranks: int) -> tuple[DataLoader[Any], Ledger]:
        rows = PackingBatchSampler(lengths, 16, 3, longer="split", window=20)
        ledger = Ledger()
        how: dict[str, Any] = {"rank": rank, "world_size": ranks, **kind}
        return DataLoader(texts, batch_sampler=rows, collate_fn=PackedCollate(16), seed=1, ledger=ledger, **how), ledger

    pairs = [loader_of(rank, world) for rank in range(world)]
    loops = [iter(loader) for loader, _ in pairs]
    for _ in range(4):
        for loop in loops:
            next(loop)
    state = pairs[0][0].state_dict()
    part = verify_epoch(*(ledger for _, ledger in pairs))
    assert not part.exact
    assert 0 < part.tokens < lengths.sum()
    for loop in loops:  # undone by the restart
        next(loop, None)
    resumed, ledger = loader_of(0, 1)
    resumed.load_state_dict(state)
    for _ in resumed:
        pass
    ledgers = [*(each for _, each in pairs), ledger]
    proof = verify_epoch(*ledgers)
    assert proof.exact
    assert (proof.documents, proof.tokens) == (90, lengths.sum())
    assert str(proof).endswith(f": 90 documents, {lengths.sum():,} tokens")
    for loader, each in pairs:
        loader.close()
        each.close()


def test_a_ledger_counts_the_windows_of_a_token_file(tmp_path: Path) -> None:
    """Leave out the windows that fill the last global batch; count nothing for other data."""
    np.arange(8 * 13 + 1, dtype=np.uint16).tofile(tmp_path / "train.bin")
    ledgers = [Ledger() for _ in range(2)]
    for rank, ledger in enumerate(ledgers):
        windows = TokenDataset(tmp_path / "train.bin", 8, dtype=np.uint16)
        for _ in DataLoader(windows, 3, shuffle=True, seed=0, rank=rank, world_size=2, ledger=ledger):
            pass
    proof = verify_epoch(*ledgers)
    assert proof.exact
    assert (proof.documents, proof.tokens) == (13, 8 * 13)
    other = Ledger()
    for _ in DataLoader(range(5), 2, ledger=other):
        pass
    assert (verify_epoch(other).documents, verify_epoch(other).tokens) == (0, 0)


def test_a_ledger_counts_the_tokens_of_a_packed_stream() -> None:
    """Count tokens alone: what is a document, a stream does not say."""
    ledger = Ledger()
    rows = PackedStream([np.arange(length) for length in (3, 9, 4, 2)], 8, longer="split")
    for _ in DataLoader(rows, 2, collate_fn=PackedCollate(8), ledger=ledger):
        pass
    proof = verify_epoch(ledger)
    assert (proof.documents, proof.tokens) == (0, 18)
