"""Training killed with SIGKILL at random moments, each time on other workers and ranks: what it received in the end."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from headrace import verify_epoch
from tests.resuming.training import KINDS, expected

ROOT = Path(__file__).parents[2]
EPOCHS = 3


@dataclass(slots=True)
class Tally:
    """What came of it."""

    kills: int = 0
    runs: int = 0
    sessions: int = 0
    """Loops that had a part in the epochs of a run."""


def killed(kills: int, seed: int, *, most: float = 0.25) -> Tally:
    """Kill so many, whole runs of them; each run must receive what one receives that is left alone."""
    draws, tally = random.Random(seed), Tally()
    while tally.kills < kills:
        with TemporaryDirectory() as folder:
            run_seed = draws.randrange(100)
            _run(Path(folder), run_seed, draws, kills, tally, most)
            assert (Path(folder) / "received").read_bytes() == expected(EPOCHS, run_seed), f"seed {seed}: lost or twice"
            for epoch in range(EPOCHS):
                proof = verify_epoch(Path(folder) / "ledgers", epoch=epoch)
                assert proof.exact, f"seed {seed}: {proof}"
                tally.sessions += proof.sessions
        tally.runs += 1
    return tally


def _run(folder: Path, run_seed: int, draws: random.Random, kills: int, tally: Tally, most: float) -> None:
    """Start the script again and again, until it comes to its end."""
    while True:
        kind, world = draws.choice(list(KINDS)), draws.choice((1, 2, 3, 4))
        command = [sys.executable, "-m", "tests.resuming.training", str(folder), str(EPOCHS), str(run_seed), kind]
        process = subprocess.Popen([*command, str(world)], cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True)
        assert process.stdout is not None
        with process, process.stdout:
            if tally.kills < kills and process.stdout.readline():
                # From its first batch on, workers' starts, saving and all: whenever it is.
                killer = threading.Timer(draws.uniform(0, most), process.kill)
                killer.name = "headrace-killer"
                killer.start()
                process.wait()
                killer.cancel()
                killer.join()
            process.wait()
        if process.returncode == 0:
            return
        assert process.returncode == -signal.SIGKILL, f"the script failed by itself: {process.returncode}"
        tally.kills += 1
