"""Damaged and forged shards of all formats: `python -m tests.formats.fuzz [--seconds N] [--seed N] [--formats NAME …]`.

Each case spoils a small shard and reads it. It gives data or an error of ours, within a limit of time and memory. The
cases of a format run in processes of their own, so that a crash is a finding too. A finding is a format and a number:
`--formats NAME --seed NUMBER --cases 1` runs it again.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from tests.formats.shards_to_spoil import SHARDS

from headrace._native import extension
from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CASES = 250
"""Cases in a process."""

MOST_SECONDS, MOST_BYTES = 20, 1 << 30
"""What a case may take."""

NUMBERS = (
    0,
    1,
    2,
    127,
    128,
    255,
    256,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
WORDS = (
    b"",
    b"\0",
    b"\xff" * 8,
    b"9" * 30,
    b"-1",
    b"NaN",
    b"null",
    b"[" * 200,
    b"{}",
    b"../../etc/passwd",
    b"\x80" * 12,
)


class Spoiler:
    """What damages bytes, by a generator; each place that hands it bytes may get them back whole."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def __call__(self, whole: bytes, often: float = 1) -> bytes:
        """Return bytes with up to eight faults."""
        data = bytearray(whole)
        if self._rng.random() >= often:
            return whole
        for _ in range(1 + min(self._rng.getrandbits(3), self._rng.getrandbits(3))):
            self._fault(data)
        return bytes(data)

    def _fault(self, data: bytearray) -> None:
        rng = self._rng
        at = rng.randint(0, len(data)) if rng.random() < 0.5 else rng.randint(0, min(len(data), 64))
        if rng.random() < 0.2:
            at = max(0, len(data) - rng.randint(0, 64))
        kind = rng.randrange(8)
        if kind == 0:
            del data[at:]
        elif kind == 1 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind == 3:
            width = rng.choice((2, 4, 8))
            number = (rng.choice(NUMBERS) + rng.randint(-2, 2)) % (1 << 8 * width)
            data[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 4:
            word = rng.choice(WORDS)
            data[at : at + len(word)] = word
        elif kind == 5:
            size = rng.randint(1, 64)
            data[at : at + size] = b""
        elif kind == 6:
            other = rng.randint(0, len(data))
            data[at:at] = data[other : other + rng.randint(1, 600)]
        elif kind == 7:
            self._digits(data)

    def _digits(self, data: bytearray) -> None:
        """Put another number in the place of one that is written as text."""
        places = [at for at, byte in enumerate(data) if 48 <= byte < 58]
        if places:
            at = end = self._rng.choice(places)
            while end < len(data) and 48 <= data[end] < 58:
                end += 1
            data[at:end] = str(self._rng.choice(NUMBERS)).encode()


def case(name: str, seed: int, folder: Path) -> None:
    """Spoil a shard of a format, and read it: what is raised is an error of ours."""
    make = SHARDS[name](folder, Spoiler(seed))
    try:
        dataset = make()
    except HeadraceError:
        return
    ours(lambda: dataset.labels)
    ours(lambda: dataset.shard_lengths)
    count = len(dataset)
    rows = sorted({*range(min(count, 12)), *range(max(0, count - 4), count)})
    for row in rows:
        ours(lambda row=row: dataset[row])
        ours(lambda row=row: dataset.where(row))
    for field in getattr(dataset, "fields", [])[:20]:
        ours(lambda field=field: native(dataset.tuple(field)))


def native(samples: Any) -> None:
    """Hand the ranges of images to the native extension."""
    source = samples.native_source()
    if source is not None and extension is not None and not source.refusal(""):
        source.opened_by(extension)


def ours(function: Callable[[], Any]) -> None:
    """Call a function that may raise an error of ours."""
    with contextlib.suppress(HeadraceError):
        function()


def child(name: str, seed: int, cases: int) -> None:
    """Run cases in this process, and say which one runs; a traceback is a finding, and so is a crash."""
    faulthandler.enable()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    found = []
    for number in range(seed, seed + cases):
        print(number, flush=True)
        faulthandler.dump_traceback_later(MOST_SECONDS, exit=True)
        with tempfile.TemporaryDirectory() as folder:
            try:
                case(name, number, Path(folder))
            except BaseException:  # noqa: BLE001  that is what is looked for
                found.append((number, traceback.format_exc()))
    print(json.dumps(found))


def command(name: str, seed: int, cases: int) -> list[str]:
    """Return what runs cases in a process of their own."""
    return [sys.executable, "-m", "tests.formats.fuzz", "--child", name, "--seed", str(seed), "--cases", str(cases)]


def run(name: str, seed: int, cases: int) -> list[tuple[int, str]]:
    """Run cases of a format in a process; return the findings."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    done = subprocess.run(command(name, seed, cases), capture_output=True, text=True, check=False, env=environment)
    lines = done.stdout.splitlines() or ["-1"]
    if done.returncode == 0:
        return [tuple(each) for each in json.loads(lines[-1])]
    how = f"status {done.returncode}"
    if done.returncode < 0:
        how = signal.Signals(-done.returncode).name
    at = int(lines[-1])
    rest = run(name, at + 1, seed + cases - at - 1) if seed <= at < seed + cases - 1 else []
    return [(at, f"the process ended with {how}\n{done.stderr[-4000:]}"), *rest]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all formats in turn until the time is over; return how many findings there are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--seed", type=int, default=struct.unpack("<I", os.urandom(4))[0])
    parser.add_argument("--cases", type=int, default=0, help="run so many cases of each format instead")
    parser.add_argument("--formats", nargs="+", choices=sorted(SHARDS), default=list(SHARDS))
    parser.add_argument("--child", choices=sorted(SHARDS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        child(options.child, options.seed, options.cases)
        return 0
    end, seed, done, found = monotonic() + options.seconds, options.seed, 0, 0
    while not done or (not options.cases and monotonic() < end):
        for name in options.formats:
            cases = options.cases or CASES
            for number, what in run(name, seed, cases):
                found += 1
                print(f"{name}, case {number}:\n{what}", flush=True)
            done += cases
            if not options.cases and monotonic() > end:
                break
        seed += options.cases or CASES
    print(f"{done:,} spoiled shards from seed {options.seed} on: {found} findings")
    return found


if __name__ == "__main__":
    sys.exit(min(main(), 1))
