"""Ranks of JAX, as real processes on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.adapters.ranks import trained
from tests.free_ports import free_ports

pytest.importorskip("jax")


def free_address(world: int) -> str:
    (port,) = free_ports(1)
    return f"localhost:{port}"


def test_processes_of_jax_may_change_in_number_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    """Go from two to three to one, by the state of one rank: nothing lost, nothing twice."""
    trained("jax", tmp_path, free_address)


GLOBAL = """
import sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from headrace.jax import DataLoader
rank = int(sys.argv[2])
jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=rank)
devices = jax.devices()
assert len(devices) == 4, devices
numbers = np.arange(40, dtype=np.float32).reshape(20, 2)
mesh = Mesh(np.array(devices), ("batch",))
split, everywhere = NamedSharding(mesh, PartitionSpec("batch")), NamedSharding(mesh, PartitionSpec())
for workers in (0, 2):
    for how, rows in (({"rank": "auto", "seed": 0}, 4), ({}, 8)):
        loader = DataLoader(numbers, rows, num_workers=workers, sharding=split, drop_last=True, **how)
        batches = list(loader)
        assert [batch.shape for batch in batches] == [(8, 2)] * 2, batches
        for number, batch in enumerate(batches):
            assert batch.sharding == split and not batch.is_fully_addressable
            assert len(batch.addressable_shards) == 2
            whole = numbers[8 * number : 8 * number + 8]
            for shard in batch.addressable_shards:
                assert shard.data.shape == (2, 2)
                np.testing.assert_array_equal(np.asarray(shard.data), whole[shard.index])
    pairs = DataLoader(
        [{"x": np.ones(3, np.uint8), "y": n, "name": "a"} for n in range(16)],
        4, num_workers=workers, sharding=split, rank="auto", seed=0,
    )
    batch = next(iter(pairs))
    assert (batch["x"].shape, batch["x"].dtype, batch["y"].shape, batch["y"].dtype) == ((8, 3), "uint8", (8,), "int32")
    assert batch["name"] == ["a"] * 4
    try:
        next(iter(DataLoader(numbers, 4, num_workers=workers, sharding=everywhere, rank="auto", seed=0)))
    except ValueError as error:
        assert "2 ranks gives its part" in "".join(error.__notes__), error.__notes__
    else:
        raise AssertionError("each rank has another batch, which cannot be the whole of one")
total = jax.jit(lambda batch: batch.sum())(batches[0])
assert float(total) == numbers[:8].sum()
print("global")
jax.distributed.shutdown()
"""


def test_processes_share_global_arrays() -> None:
    """Make one array of the parts of two processes: its shape, its sharding, and what each of them holds."""
    address = free_address(2)
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", GLOBAL, address, str(rank)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    results = [process.communicate() for process in processes]
    for process, (out, said) in zip(processes, results, strict=True):
        assert (process.returncode, out.splitlines()[-1:]) == (0, ["global"]), said  # gloo prints before it
