"""What a user may choose about workers on a Ray cluster; imports nothing of Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from headrace.checks import flag, one_of, shown
from headrace.errors import ArgumentTypeError
from headrace.interop.interrupt import held_back

if TYPE_CHECKING:
    from headrace.executors.base import Executor
    from headrace.executors.worker_options import Options
    from headrace.make.maker import Maker

PLACEMENTS = ("SPREAD", "DEFAULT")


@dataclass(frozen=True)
class RayCluster:
    """Makes batches in actors on a Ray cluster: ``DataLoader(..., num_workers=32, backend=RayCluster())``.

    >>> from headrace import DataLoader
    >>> from headrace.executors import RayCluster
    >>> cluster = RayCluster(worker_resources={"CPU": 2, "memory": 4e9}, labels={"disk": "ssd"})
    >>> loader = DataLoader(range(100), 10, num_workers=4, backend=cluster)

    ``backend="ray"`` is this with no arguments. ``address`` is the cluster's ("auto", "10.0.0.1:6379",
    "ray://10.0.0.1:10001"). With None, a cluster that this process is connected to is used, else one that runs here or
    that ``RAY_ADDRESS`` names, else a local one is started, and a line on standard error says so.

    ``worker_resources`` is what each actor takes from its node: "CPU" (``threads_per_worker`` by default), "GPU",
    "memory" in bytes, and custom resources. ``labels`` restricts actors to nodes with these labels. ``placement``:
    "SPREAD" puts actors on as many nodes as it can; "DEFAULT" fills one node first. ``copy``: batches are copied into
    memory of the loader's own, which it reuses. With False their arrays are read-only views of Ray's object store,
    which cannot free a batch before the last view of it is dropped. ``probe``: each actor reads one sample before its
    first batch, so that a node that cannot open the dataset is an error at the start.

    Batches have the shapes and dtypes that they have without workers. Raises `ArgumentTypeError` or `ArgumentError` for
    options of another kind, and `MissingDependency` without Ray when a loop begins.
    """

    address: str | None = None
    worker_resources: Mapping[str, float] | None = None
    labels: Mapping[str, str] | None = None
    placement: str = "SPREAD"
    copy: bool = True
    probe: bool = True

    kind: ClassVar[str] = "ray"

    def __post_init__(self) -> None:
        if self.address is not None and not isinstance(self.address, str):
            raise _not("address", self.address, "text or None", 'pass "auto", or "ray://" and the address of the head')
        for name, value in (("worker_resources", self.worker_resources), ("labels", self.labels)):
            if value is not None and not isinstance(value, Mapping):
                raise _not(name, value, "a dictionary or None", 'pass a dictionary, such as {"CPU": 2}')
        one_of("placement", self.placement, PLACEMENTS)
        flag("copy", self.copy)
        flag("probe", self.probe)

    def __call__(self, maker: Maker, options: Options) -> Executor:
        """Make the executor; connects to the cluster, and waits until the nodes have opened the dataset."""
        with held_back():
            from headrace.executors.ray_cluster.actor_sources import OwnActors
            from headrace.executors.ray_cluster.actors import RayActors

        how, needs = self._actor_options(options.threads), self._needs(options.threads)
        source = OwnActors(options.workers, options.threads, self.address, how, needs)
        return RayActors(maker, options, source, copy=self.copy, probe=self.probe)

    def _actor_options(self, threads: int) -> dict[str, Any]:
        """Return what Ray needs to know of each actor.

        >>> RayCluster(worker_resources={"memory": 1e9, "fast": 1})._actor_options(threads=2)["num_cpus"]
        2
        """
        needs: dict[str, Any] = dict(self.worker_resources or {})
        given = {
            "num_cpus": needs.pop("CPU", threads),
            "num_gpus": needs.pop("GPU", 0),
            "scheduling_strategy": self.placement,
            "max_concurrency": threads,
            "max_restarts": 0,  # an actor that Ray restarts itself would be one without a dataset
            "max_task_retries": 0,
        }
        if "memory" in needs:
            given["memory"] = int(needs.pop("memory"))
        if needs:
            given["resources"] = needs
        if self.labels:
            given["label_selector"] = dict(self.labels)
        return given

    def _needs(self, threads: int) -> dict[str, float]:
        """Return what each actor takes from its node, by Ray's names."""
        return {"CPU": threads, **(self.worker_resources or {})}


def _not(name: str, value: Any, expected: str, cure: str) -> ArgumentTypeError:
    what = f"{name} must be {expected}; got {shown(value)}"
    return ArgumentTypeError(what, found=value, expected=expected, cure=cure)
