"""Where actors run and what they run with: labels, nodes that join, the native extension, clusters elsewhere."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import DataLoader, ImageFolder, RandomResizedCrop, rng
from headrace.errors import ArgumentError
from headrace.executors import RayCluster
from headrace.executors.ray_cluster import connection
from tests.free_ports import free_ports
from tests.image_files import encoded, photo
from tests.native.stepwise import MISSING, WHY
from tests.ray_cluster.conftest import NODE, remove, until

HALF: dict[str, Any] = {"CPU": 0.5}


class Noise:
    """Random by place."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        return index, rng().random(3)


def nodes_of(loop: Any, actors: int) -> list[str]:
    """Wait until so many actors take part; return where they are."""
    loop._dispatcher.executor._await_actors(actors)
    return [each.opened.node for each in loop._dispatcher.executor._state.actors if each.opened is not None]


def equal(one: Any, other: Any) -> bool:
    return all(np.array_equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


def test_actors_run_where_the_labels_say(cluster: Any) -> None:
    """Add a node with a label: all actors are there."""
    node = cluster.add_node(**NODE, labels={"disk": "ssd"})
    backend = RayCluster(worker_resources=HALF, labels={"disk": "ssd"})
    loop = iter(DataLoader(Noise(), 4, num_workers=2, backend=backend))
    assert nodes_of(loop, 2) == [node.node_id] * 2
    loop._dispatcher.executor.close()
    remove(cluster, node)


def test_actors_spread_over_the_nodes(cluster: Any) -> None:
    """Use both nodes, where one would do."""
    loop = iter(DataLoader(Noise(), 4, num_workers=2, backend=RayCluster(worker_resources={"CPU": 1})))
    assert len(set(nodes_of(loop, 2))) == 2
    loop._dispatcher.executor.close()


def test_a_cluster_that_grows_takes_more_actors(cluster: Any) -> None:
    """Begin with the actors that have room; those that wait take part once a node joins."""
    backend = RayCluster(worker_resources={"CPU": 0.5, "extra": 1})
    few = cluster.add_node(**NODE, resources={"extra": 1})
    loader = DataLoader(Noise(), 1, num_workers=2, backend=backend)
    with pytest.warns(RuntimeWarning, match="room for 1 of 2 workers"):
        loop: Any = iter(loader)
    keys = [int(next(loop)[0][0])]
    assert nodes_of(loop, 1) == [few.node_id]
    more = cluster.add_node(**NODE, resources={"extra": 1})
    loop._dispatcher.executor._await_actors(2)
    keys += [int(batch[0][0]) for batch in loop]
    assert keys == list(range(40))
    assert {each.node_id for each in loader.statistics().nodes} == {few.node_id, more.node_id}
    loader.close()
    remove(cluster, few)
    remove(cluster, more)


def only_whole_batches(number: int) -> None:
    """Refuse to crop single images in this actor's process; the native extension calls no transform."""

    def refused(self: Any, image: Any) -> Any:
        raise AssertionError(f"worker {number} crops image by image")

    RandomResizedCrop.__call__ = refused  # type: ignore[method-assign]


@pytest.mark.skipif(MISSING, reason=WHY)
def test_the_native_extension_makes_whole_batches_in_the_threads_of_an_actor(tmp_path: Path) -> None:
    """Decode and crop images in actors in which no single sample can be made: the bytes of no workers."""
    for number in range(12):
        path = tmp_path / f"class {number % 2}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(photo(number)))
    dataset = ImageFolder(tmp_path, transform=RandomResizedCrop(32))
    expected = list(DataLoader(dataset, 4, shuffle=True, seed=1))
    backend = RayCluster(worker_resources=HALF, probe=False)
    loader = DataLoader(
        dataset, 4, shuffle=True, seed=1, num_workers=2, threads_per_worker=2, backend=backend,
        worker_init_fn=only_whole_batches,
    )  # fmt: skip
    assert equal(list(loader), expected)


def test_a_batch_of_the_cluster_comes_again_without_it() -> None:
    """Replay batches and samples that actors made."""
    loader = DataLoader(Noise(), 4, shuffle=True, seed=1, num_workers=2, backend=RayCluster(worker_resources=HALF))
    batches = list(loader)
    for step in (0, 7):
        assert equal([loader.replay(epoch=0, step=step)], [batches[step]])
        key, drawn = loader.replay(epoch=0, step=step, index=2)
        assert key == batches[step][0][2]
        assert np.array_equal(drawn, batches[step][1][2])


def test_ranks_change_on_the_cluster_in_the_middle_of_an_epoch() -> None:
    """Begin with two ranks and go on with three: each sample comes once, with the numbers that it has on one rank."""
    how: dict[str, Any] = {"shuffle": True, "seed": 1, "num_workers": 1}
    how["backend"] = RayCluster(worker_resources={"CPU": 0.1}, probe=False)
    inline = DataLoader(Noise(), 4, shuffle=True, seed=1)
    whole = {int(key): row.tolist() for batch in inline for key, row in zip(*batch, strict=True)}
    found: list[tuple[int, Any]] = []
    state: Any = None
    for world in (2, 3):
        loaders = [DataLoader(Noise(), 4, rank=rank, world_size=world, uneven="drop", **how) for rank in range(world)]
        loops: list[Any] = []
        for loader in loaders:
            if state is not None:
                loader.load_state_dict(state)
            loops.append(iter(loader))
        for _ in range(2):
            for loop in loops:
                found += [(int(key), row.tolist()) for key, row in zip(*next(loop), strict=True)]
        state = loaders[0].state_dict()
        for loader in loaders:
            loader.close()
    assert len(found) == 40
    assert dict(found) == whole


READS = """
from headrace import DataLoader
from headrace.executors import RayCluster
from headrace.executors.ray_cluster import connection

for copy in (True, False):
    backend = RayCluster(address={address!r}, worker_resources={{"CPU": 0.5}}, copy=copy)
    print([batch.tolist() for batch in DataLoader(range(12), 4, num_workers=1, backend=backend)])
"""


def test_a_program_elsewhere_reads_through_rays_client(cluster: Any) -> None:
    """Connect by ``ray://``: the batches come through the server of Ray's client."""
    pytest.importorskip("grpc", reason="Ray's client needs grpcio")
    (port,) = free_ports(1)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "ray.util.client.server", f"--address={cluster.address}", f"--port={port}"]
    server = subprocess.Popen(
        [*command, "--mode=specific-server"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        assert until(lambda: answers(port), 120)
        done = subprocess.run(
            [sys.executable, "-c", READS.format(address=f"ray://127.0.0.1:{port}")],
            capture_output=True, text=True, env=environment, timeout=250, check=False,
        )  # fmt: skip
    finally:
        server.kill()
        server.wait()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]"] * 2


def answers(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


class NoCluster:
    """Stands in for Ray where no cluster runs."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []

    def is_initialized(self) -> bool:
        return False

    def init(self, **how: Any) -> None:
        if how["address"] != "local":
            raise ConnectionError("nobody answers")
        self.started.append(how)


def test_a_local_cluster_is_started_where_there_is_none_and_a_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Give it a CPU for each worker; where an address was given, raise an error that names it."""
    ray = NoCluster()
    monkeypatch.setattr(connection, "imported", lambda: ray)
    connection.connect(None, workers=64, cpus_each=2)
    assert [how["num_cpus"] for how in ray.started] == [128]
    assert "no Ray cluster was found; a local one with 128 CPUs was started" in capsys.readouterr().err
    with pytest.raises(ArgumentError, match=r"no Ray cluster answers at address='10\.0\.0\.1:6379'"):
        connection.connect("10.0.0.1:6379", workers=1, cpus_each=1)
    assert len(ray.started) == 1
