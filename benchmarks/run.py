"""Run headrace and its peers side by side and write a Markdown table; `--help` says how, README.md what it means."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from data import WORKLOADS, Prepared, Workload, prepare
from registry import AUGMENTED, BASELINES, GOALS, HERE, IMAGES, RUNNERS, TARGETS, Runner
from report import Row, Run, goals, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    signal.signal(signal.SIGTERM, _end)
    runners = [*RUNNERS, *args.runner]
    chosen = [runner for runner in runners if args.only is None or runner.name in args.only]
    missing = sorted({family for runner in chosen for family in runner.missing})
    present = [runner for runner in chosen if runner.installed]

    machine = facts_of_machine()
    data = {}
    try:
        for name in args.workloads:
            say(f"preparing {name}")
            data[name] = prepare(WORKLOADS[name], args.cache, args.photos, args.images)
        runs = measure(args, present, data)
    except KeyboardInterrupt:
        say("interrupted; nothing written")
        return INTERRUPTED

    text, problems = document(args, chosen, data, runs, machine, missing)
    if args.only is None and "photos" in args.workloads:
        text += native_profile(args)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")
    if args.json:
        args.json.write_text(json.dumps([raw(key, run) for key, found in runs.items() for run in found], indent=1))
    for problem in problems:
        say(problem)
    return 1 if problems else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    names = list(dict.fromkeys(runner.name for runner in RUNNERS))
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--resize", nargs="+", choices=("plain", "antialiased"), default=["plain", "antialiased"])
    parser.add_argument("--only", nargs="+", metavar="RUNNER", help=f"some of: {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each runner (default 5)")
    parser.add_argument("--workers", type=int, default=2, help="threads or processes (default 2)")
    parser.add_argument("--seconds", type=float, default=4.0, help="measured in each turn (default 4)")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds before that (default 2)")
    parser.add_argument("--memory-seconds", type=float, default=1.5, help="seconds after that, sampling memory")
    parser.add_argument("--baseline", metavar="RUNNER", help="ratios are to this runner")
    parser.add_argument("--photos", type=Path, help="folder or tar of JPEG files (default: crops of bundled ones)")
    parser.add_argument("--images", type=int, help="length of an epoch (default: the workload's)")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where made data is kept")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds a turn may take (default 300)")
    parser.add_argument("--output", type=Path, help="write the table to this file too")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    parser.add_argument(
        "--runner", type=outside_runner, action="append", default=[], metavar="NAME=FILE",
        help="one more runner, for every workload, run by this interpreter",
    )  # fmt: skip
    args = parser.parse_args(argv)
    known = {*names, *(runner.name for runner in args.runner)}
    for name in [*(args.only or []), *([args.baseline] if args.baseline else [])]:
        if name not in known:
            parser.error(f"no runner {name!r}; there are {', '.join(sorted(known))}")
    return args


def outside_runner(text: str) -> Runner:
    name, _, file = text.partition("=")
    if not name or not Path(file).is_file():
        raise argparse.ArgumentTypeError(f"expected NAME=FILE with a file that exists, got {text!r}")
    return Runner(name, Path(file), None, tuple(WORKLOADS), ("plain", "antialiased"), "its own")


def default_cache() -> Path:
    # The temporary folder is everybody's; the name keeps one user's data from another's.
    return Path(tempfile.gettempdir()) / f"headrace-bench-{os.getuid()}"


Key = tuple[str, str, str]  # workload, resize, runner


def turns(args: argparse.Namespace, runners: Sequence[Runner]) -> list[tuple[str, str, Runner]]:
    """List one round: every workload and every runner in every flavour it has and that was asked for."""
    found = []
    for workload in args.workloads:
        for runner in runners:
            if workload not in runner.workloads:
                continue
            if runner.resize and workload in (*IMAGES, *AUGMENTED, *TARGETS):
                flavours = [
                    each for each in runner.resize if each in args.resize and each in WORKLOADS[workload].resize
                ]
            else:
                flavours = ["none"]
            found += [(workload, resize, runner) for resize in flavours]
    return found


def measure(args: argparse.Namespace, runners: Sequence[Runner], data: dict[str, Prepared]) -> dict[Key, list[Run]]:
    plan = turns(args, runners)
    runs: dict[Key, list[Run]] = {(workload, resize, runner.name): [] for workload, resize, runner in plan}
    total = args.rounds * len(plan)
    for turn in range(args.rounds):
        for number, (workload, resize, runner) in enumerate(plan, turn * len(plan) + 1):
            run = take_turn(args, runner, WORKLOADS[workload], resize, data[workload].folder, turn)
            runs[workload, resize, runner.name].append(run)
            flavour = "" if resize == "none" else f" {resize}"
            unit = WORKLOADS[workload].unit
            answer = f"{run.result['images_per_s']:,.0f} {unit}/s" if run.result else f"FAILED: {run.error}"
            say(f"[{number}/{total}] {workload}{flavour}: {runner.name}: {answer}")
    return runs


def take_turn(args: argparse.Namespace, runner: Runner, workload: Workload, resize: str, data: Path, turn: int) -> Run:
    """Run one runner in a new interpreter; any failure becomes the error of its `Run`."""
    command = [
        runner.python, str(runner.file), "--workload", workload.name, "--data", str(data),
        "--size", str(workload.size), "--batch", str(workload.batch),
        "--workers", str(args.workers if runner.workers is None else runner.workers), "--resize", resize,
        "--form", runner.form, *([] if runner.shuffle else ["--in-order"]),
        "--seconds", str(args.seconds), "--warmup", str(args.warmup), "--memory-seconds", str(args.memory_seconds),
    ]  # fmt: skip
    environment = dict(os.environ)
    # Everyone on the CPU; and no path of this environment leaks into a peer's.
    environment["CUDA_VISIBLE_DEVICES"] = ""
    if runner.family:
        environment.pop("PYTHONPATH", None)
    try:
        with started(command, environment) as process:
            out, err = process.communicate(timeout=args.timeout)
    except subprocess.TimeoutExpired:
        return Run(runner.name, turn, None, f"took longer than {args.timeout:g} s")
    answer = next((line for line in reversed(out.splitlines()) if line.startswith("{")), None)
    if process.returncode == 0 and answer is not None:
        return Run(runner.name, turn, json.loads(answer))
    complaint = next((line.strip() for line in reversed(err.splitlines()) if line.strip()), "said nothing")
    # Results are read elsewhere: the places of this machine mean nothing there.
    complaint = complaint.replace(str(HERE.parent), ".")
    return Run(runner.name, turn, None, f"exit status {process.returncode}: {complaint}")


@contextmanager
def started(command: Sequence[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start a command as the leader of its own process group, and leave none of the group alive."""
    command = [*command, "--started", str(time.monotonic())]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def document(
    args: argparse.Namespace,
    runners: Sequence[Runner],
    data: dict[str, Prepared],
    runs: dict[Key, list[Run]],
    machine: list[str],
    missing: Sequence[str],
) -> tuple[str, list[str]]:
    """Return the whole Markdown text, and what went wrong."""
    now = datetime.now(UTC)
    lines = [f"# Benchmark results: {', '.join(args.workloads)}", ""]
    lines += [f"Made on {now:%Y-%m-%d} by `{shown_command(args)}`.", ""]
    lines += [f"- {fact}" for fact in [*machine, versions(runs)]]
    rounds = "1 round" if args.rounds == 1 else f"{args.rounds} rounds, runners in turn"
    lines.append(
        f"- {rounds}, each runner in a new interpreter, {args.seconds:g} s measured after {args.warmup:g} s of "
        "warm-up; medians (smallest..largest); ratios by round."
    )
    if missing:
        lines.append(f"- Not installed, so not here: {', '.join(missing)} (`benchmarks/install_peers.sh`).")
    problems = []
    for name, prepared in data.items():
        workload = WORKLOADS[name]
        lines += ["", f"## {name}", "", f"{workload.title}, batch {workload.batch}; {prepared.about}."]
        for resize in workload.resize:
            if resize not in (*args.resize, "none"):
                continue
            mine = [runner for runner in runners if name in runner.workloads]
            rows = [row for runner in mine if (row := row_of(args, runner, name, resize, runs))]
            if not rows:
                continue
            if resize != "none":
                lines += ["", f"### {name}, {RESIZE_TITLES[resize]}"]
            candidates = (args.baseline,) if args.baseline else BASELINES.get((name, resize), ())
            body, found = table(rows, candidates, workload.unit)
            reached = goals(rows, GOALS.get(name, ()))
            lines += ["", *body, *(["", *reached] if reached else [])]
            if found:
                lines += ["", *(f"- {problem}" for problem in found)]
                problems += [f"{name} {resize}: {problem}" for problem in found]
    return "\n".join(lines), problems


RESIZE_TITLES = {
    "plain": "plain bilinear resizing (OpenCV's)",
    "antialiased": "antialiased bilinear resizing (Pillow's, torchvision's)",
}


def row_of(
    args: argparse.Namespace, runner: Runner, workload: str, resize: str, runs: dict[Key, list[Run]]
) -> Row | None:
    # A limit does no resizing, so its measurement is in both tables.
    found = runs.get((workload, resize, runner.name)) or runs.get((workload, "none", runner.name))
    if not found:
        return None
    workers = args.workers if runner.workers is None else runner.workers
    how = f"{workers} {runner.where}" if workers else runner.where
    return Row(runner.name, how, tuple(found), runner.limit)


def versions(runs: dict[Key, list[Run]]) -> str:
    """Return one line with every library and all its versions."""
    seen: dict[str, set[str]] = {}
    for found in runs.values():
        for run in found:
            if run.result:
                for package, version in run.result["versions"].items():
                    seen.setdefault(package, set()).add(version)
    return ", ".join(f"{package} {' and '.join(sorted(seen[package]))}" for package in sorted(seen))


def facts_of_machine() -> list[str]:
    """Return a description of the machine, and its load before the first turn."""
    model = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    # Only the first part of the release string is the version of the operating system.
    kernel = platform.release().partition("-")[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = [f"{model}, {cores} cores, {platform.system()} {kernel}, Python {platform.python_version()}"]
    busy = os.getloadavg()[0]
    facts.append(f"Load average before the first turn: {busy:.1f}" + (" (not a quiet machine)" if busy > 0.5 else ""))
    return facts


def native_profile(args: argparse.Namespace) -> str:
    """Return the profile of the native extension from `native_profile.py`."""
    command = [sys.executable, str(HERE / "native_profile.py"), "--cache", str(args.cache)]
    command += [str(args.photos)] if args.photos else []
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        return f"\n\nNo profile of the native extension: {answer.stderr.strip().splitlines()[-1]}"
    about = "One thread, photos scaled to 224x224 (`python benchmarks/native_profile.py`)."
    return f"\n\n## The native extension\n\n{about}\n\n{answer.stdout.strip()}"


def shown_command(args: argparse.Namespace) -> str:
    """Return the command without the paths of this machine."""
    words = ["python", "benchmarks/run.py"]
    words += ["--workloads", *args.workloads, "--resize", *args.resize]
    words += [f"--rounds={args.rounds}", f"--workers={args.workers}", f"--seconds={args.seconds:g}"]
    words += [f"--warmup={args.warmup:g}"]
    words += [f"--photos={args.photos.name}"] if args.photos else []
    words += [f"--images={args.images}"] if args.images else []
    words += [f"--baseline={args.baseline}"] if args.baseline else []
    words += ["--only", *args.only] if args.only else []
    return shlex.join(words)


def raw(key: Key, run: Run) -> dict[str, Any]:
    return {"workload": key[0], "resize": key[1], "runner": key[2], "round": run.round, "error": run.error} | (
        run.result or {}
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _end(_signal: int, _frame: FrameType | None) -> NoReturn:
    # Like an interrupt, so that the current runner is stopped too.
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
