"""Batches on JAX devices."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import warnings
from multiprocessing import forkserver
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests.adapters.data import FINISHES, HALVES, BrokenImages, Images, batches_to_finish, by_the_steps, halves

import headrace
from headrace.datasets import TokenDataset
from headrace.errors import ArgumentError, LoaderClosed

jax = pytest.importorskip("jax")
jnp = jax.numpy
DataLoader = pytest.importorskip("headrace.jax").DataLoader

WORKERS: list[dict[str, Any]] = [
    {},
    {"num_workers": 2, "backend": "threads"},
    {"num_workers": 2, "backend": "processes"},
]
NAMES = ["inline", "threads", "processes"]


@pytest.fixture(scope="module", autouse=True)
def helpers() -> None:
    """Start what JAX and multiprocessing start once and leave running, before leaks are counted."""
    jax.device_put(np.zeros(1)).block_until_ready()
    forkserver.ensure_running()


@pytest.mark.parametrize("how", WORKERS, ids=NAMES)
def test_batches_are_those_of_headrace(how: dict[str, Any], patches: Any) -> None:
    """Deliver the same values in the same order, as JAX arrays."""
    ours = DataLoader(patches, 64, shuffle=True, seed=3, **how)
    plain = headrace.DataLoader(patches, 64, shuffle=True, seed=3)
    for _ in range(2):
        seen = list(ours)
        assert len(seen) == len(ours) == 10
        for (images, labels), (expected, names) in zip(seen, plain, strict=True):
            assert isinstance(images, jax.Array)
            assert images.dtype == np.uint8
            assert labels.dtype == np.int32
            np.testing.assert_array_equal(images, expected)
            np.testing.assert_array_equal(labels, names)


@pytest.mark.parametrize("how", WORKERS, ids=NAMES)
@pytest.mark.parametrize("dtype", HALVES)
def test_halves_stay_halves(dtype: str, how: dict[str, Any]) -> None:
    """Deliver float16 and bfloat16 as they are, bit for bit."""
    ours = DataLoader(halves(dtype), 8, shuffle=True, seed=3, **how)
    plain = headrace.DataLoader(halves(dtype), 8, shuffle=True, seed=3)
    for (images, _), (expected, _) in zip(ours, plain, strict=True):
        assert isinstance(images, jax.Array)
        assert images.dtype.name == dtype
        assert np.asarray(images).tobytes() == expected.tobytes()


@pytest.mark.parametrize("how", WORKERS, ids=NAMES)
def test_tokens_are_int32_without_a_warning(how: dict[str, Any]) -> None:
    """Deliver what JAX has for int64, with the same values."""
    dataset = TokenDataset([np.arange(200, dtype=np.uint16)], 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for (inputs, targets), expected in zip(
            DataLoader(dataset, 4, **how), headrace.DataLoader(dataset, 4), strict=True
        ):
            assert inputs.dtype == targets.dtype == np.int32
            np.testing.assert_array_equal(inputs, expected[0])
            np.testing.assert_array_equal(targets, expected[1])


@pytest.mark.parametrize("how", WORKERS, ids=NAMES)
def test_a_model_learns_photographs(how: dict[str, Any], patches: Any) -> None:
    """Train a small network on patches of photographs to less than half of its first loss."""

    def loss(weights: Any, images: Any, labels: Any) -> Any:
        values = images.reshape(len(images), -1).astype(jnp.float32) / 128 - 1
        hidden = jnp.maximum(values @ weights["in"], 0)
        scores = jax.nn.log_softmax(hidden @ weights["out"])
        return -jnp.take_along_axis(scores, labels[:, None], axis=1).mean()

    @jax.jit
    def step(weights: Any, images: Any, labels: Any) -> Any:
        value, slopes = jax.value_and_grad(loss)(weights, images, labels)
        return jax.tree.map(lambda weight, slope: weight - 0.1 * slope, weights, slopes), value

    one, two = jax.random.split(jax.random.key(0))
    weights = {"in": jax.random.normal(one, (768, 32)) / 28, "out": jax.random.normal(two, (32, 3)) / 6}
    losses = []
    with DataLoader(patches, 50, shuffle=True, seed=0, **how) as loader:
        for _ in range(8):
            values = []
            for images, labels in loader:
                weights, value = step(weights, images, labels)
                values.append(float(value))
            losses.append(np.mean(values))
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("how", WORKERS, ids=NAMES)
def test_kept_batches_stay_as_they_were(how: dict[str, Any]) -> None:
    """Keep every batch: what JAX took without a copy is never written to again."""
    kept = list(DataLoader(Images(), 2, **how))
    for number, batch in enumerate(kept):
        assert set(np.unique(batch[0])) == {2 * number}
        assert set(np.unique(batch[1])) == {2 * number + 1}


@pytest.mark.parametrize("how", WORKERS, ids=NAMES)
def test_views_of_dropped_batches_stay_as_they_were(how: dict[str, Any]) -> None:
    """Keep results that were computed of batches and views of them, and no batch itself, while memory is reused."""
    kept = [(np.asarray(batch), batch + 1) for batch in DataLoader(Images(), 2, **how)]
    for number, (view, sums) in enumerate(kept):
        assert set(np.unique(view)) == {2 * number, 2 * number + 1}
        assert set(np.unique(sums)) == {2 * number + 1, 2 * number + 2}


class Pair(NamedTuple):
    left: Any
    right: Any


def test_all_that_is_no_array_passes_through() -> None:
    """Place the arrays of nested containers; keep strings, objects, dates and numbers as they are."""

    def collate(samples: list[Any]) -> Any:
        return {
            "pair": Pair(np.ones(2, np.float16), [np.float32(2), "text"]),
            "names": np.array(["a", "bc"]),
            "objects": np.array([None, {}], object),
            "dates": np.array(["2024-01-01"], "M8[D]"),
            "structured": np.zeros(2, [("x", "f4")]),
            "complex": np.ones(1, np.complex64),
            "true": np.array([True]),
            "none": None,
            "number": 3,
            "already": jnp.zeros(1),
            "small": np.zeros(2, jnp.bfloat16),
        }

    (batch,) = DataLoader([0], collate_fn=collate)
    assert isinstance(batch["pair"], Pair)
    assert isinstance(batch["pair"].left, jax.Array)
    assert batch["pair"].left.dtype == np.float16
    assert batch["pair"].right[1] == "text"
    for name in ("names", "objects", "dates", "structured"):
        assert isinstance(batch[name], np.ndarray), name
    for name in ("complex", "true", "already", "small"):
        assert isinstance(batch[name], jax.Array), name
    assert batch["true"].dtype == np.bool_
    assert batch["small"].dtype == jnp.bfloat16
    assert batch["none"] is None
    assert batch["number"] == 3


@pytest.mark.parametrize(
    "wrong", [{"device": "cpu"}, {"sharding": 3}, {"device": 0}, {"device": True, "sharding": True}], ids=repr
)
def test_a_device_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    """Say which argument is wrong."""
    with pytest.raises(ArgumentError, match=r"device|sharding"):
        DataLoader(range(3), **wrong)


@pytest.mark.parametrize("how", WORKERS, ids=NAMES)
def test_an_error_comes_at_its_step(how: dict[str, Any]) -> None:
    """Raise what a dataset raises at its batch, with the place in a note, and continue after it."""
    batches = iter(DataLoader(BrokenImages(8), 2, **how))
    assert [int(next(batches)[0, 0, 0]) for _ in range(2)] == [0, 2]
    with pytest.raises(KeyError, match="five") as caught:
        next(batches)
    assert any("batch 2" in note for note in caught.value.__notes__)
    assert int(next(batches)[0, 0, 0]) == 6
    assert next(batches, None) is None


@pytest.mark.parametrize("how", WORKERS, ids=NAMES)
def test_a_loop_left_early_leaves_nothing(how: dict[str, Any]) -> None:
    """End thread and workers when the iterator is dropped, and when the loader is closed."""
    before = threading.active_count()
    loader = DataLoader(Images(), 2, **how)
    for _ in loader:
        break
    batches = iter(loader)
    next(batches)
    del batches
    assert threading.active_count() == before
    assert not multiprocessing.active_children()
    batches = iter(loader)
    next(batches)
    loader.close()
    with pytest.raises(LoaderClosed):
        next(batches)
    assert threading.active_count() == before
    assert not multiprocessing.active_children()


def test_workers_that_stay_serve_the_next_loop() -> None:
    """Leave loops early, again and again, with the same worker processes; the next loop gets its own batches."""
    with DataLoader(Images(), 2, num_workers=2, backend="processes", persistent_workers=True) as loader:
        for taken in (0, 1, 3):
            batches = iter(loader)
            for step in range(taken):
                assert int(next(batches)[0, 0, 0]) == 2 * step
            staff = {process.pid for process in multiprocessing.active_children()}
            del batches
            assert [int(batch[0, 0, 0]) for batch in loader] == list(range(0, 40, 2))
            assert {process.pid for process in multiprocessing.active_children()} == staff
    assert not multiprocessing.active_children()


def test_the_state_is_that_of_the_consumer() -> None:
    """Name the place behind the last batch received, not behind those on their way to the device."""
    loader = DataLoader(Images(), 2, shuffle=True, seed=4, num_workers=2, backend="threads")
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    state = loader.state_dict()
    assert (state["epoch"], state["step"]) == (0, 3)
    rest = [int(batch[0, 0, 0]) for batch in batches]
    resumed = DataLoader(Images(), 2, shuffle=True, seed=4)
    resumed.load_state_dict(state)
    assert [int(batch[0, 0, 0]) for batch in resumed] == rest


def test_no_more_is_held_than_two_batches_beside_the_users() -> None:
    """Hold on the device what waits and what the user holds, and nothing older."""

    def collate(samples: list[int]) -> Any:
        return np.full(12345, samples[0], np.float32)

    loader = DataLoader(range(20), 1, num_workers=2, backend="threads", collate_fn=collate)
    for batch in loader:
        gc.collect()
        alive = [array for array in jax.live_arrays() if array.shape == (12345,)]
        assert len(alive) <= 2
        del batch, alive


def test_waiting_is_counted_in_front_of_the_thread() -> None:
    """Count batches once, and as waiting only what the consumer waited."""
    loader = DataLoader(Images(), 2, num_workers=2, backend="threads")
    for _ in loader:
        pass
    statistics = loader.statistics()
    assert (statistics.batches, statistics.samples) == (20, 40)
    assert statistics.wait_seconds >= 0


def test_two_loops_at_once_do_not_disturb_each_other() -> None:
    """Read two epochs side by side, each its own."""
    loader = DataLoader(range(30), 3, shuffle=True, seed=1, num_workers=2)
    pairs = list(zip(loader, loader, strict=True))
    first, second = ([int(n) for batch in side for n in batch] for side in zip(*pairs, strict=True))
    assert sorted(first) == sorted(second) == list(range(30))
    assert first != second


SPREAD = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from headrace.jax import DataLoader
devices = jax.devices()
assert len(devices) == 2, devices
numbers = np.arange(22, dtype=np.float32).reshape(11, 2)
for workers in (0, 2):
    on_second = list(DataLoader(numbers, 4, num_workers=workers, device=devices[1]))
    assert [batch.devices() for batch in on_second] == [{devices[1]}] * 3
    with jax.default_device(devices[1]):
        assert next(iter(DataLoader(numbers, 4, num_workers=workers))).devices() == {devices[1]}
    sharding = NamedSharding(Mesh(np.array(devices), ("batch",)), PartitionSpec("batch"))
    loader = DataLoader(numbers, 4, num_workers=workers, sharding=sharding, drop_last=True)
    batches = list(loader)
    assert [batch.sharding for batch in batches] == [sharding] * 2
    assert [shard.data.shape for shard in batches[0].addressable_shards] == [(2, 2)] * 2
    np.testing.assert_array_equal(np.concatenate(batches), numbers[:8])
    total = jax.jit(lambda batch: batch.sum())(batches[1])
    assert float(total) == numbers[4:8].sum()
    try:
        list(DataLoader(numbers, 4, num_workers=workers, sharding=sharding))
    except ValueError as error:
        assert "drop_last" in "".join(error.__notes__), error.__notes__
    else:
        raise AssertionError("11 rows cannot be split evenly")
print("spread")
"""


def test_batches_are_spread_over_devices() -> None:
    """Place batches on a chosen device and across two; say what helps where a batch cannot be split."""
    # XLA reads its flags when it starts: so in an interpreter of its own.
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run([sys.executable, "-c", SPREAD], capture_output=True, text=True, env=environment, check=False)
    assert (run.stdout, run.returncode) == ("spread\n", 0), run.stderr


def test_the_interpreter_exits_with_a_loop_still_running() -> None:
    """Exit quietly in the middle of a loop."""
    script = """
from headrace.jax import DataLoader
batches = iter(DataLoader(range(1000), 2, num_workers=2))
print(int(next(batches)[1]))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr, run.returncode) == ("1\n", "", 0)


@pytest.mark.parametrize("name", FINISHES)
def test_a_device_finishes_batches_as_the_steps_do(name: str) -> None:
    """Come within float32's rounding, for bytes, two bytes and floats."""
    finish = pytest.importorskip("headrace.jax").on_device(*FINISHES[name])
    for batch in batches_to_finish().values():
        found = np.asarray(finish(jnp.asarray(batch)))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, by_the_steps(batch, name), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_device_rounds_to_halves(dtype: str) -> None:
    """End in the dtype asked for, as near to the steps as its neighbours are to one another."""
    steps = [*FINISHES["normalised"], headrace.ToDtype(dtype)]
    batch = batches_to_finish()["uint8"]
    found = np.asarray(pytest.importorskip("headrace.jax").on_device(*steps)(jnp.asarray(batch)))
    assert found.dtype.name == dtype
    expected = np.stack([headrace.Compose(*steps)(image) for image in batch]).astype(np.float32)
    np.testing.assert_allclose(found.astype(np.float32), expected, rtol=HALVES[dtype], atol=1e-6)


def test_a_device_refuses_other_transforms() -> None:
    """Name what a device cannot do."""
    with pytest.raises(ArgumentError, match="RandomHorizontalFlip"):
        pytest.importorskip("headrace.jax").on_device(headrace.RandomHorizontalFlip())
