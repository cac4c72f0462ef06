"""Programs that end: killed, interrupted, or by themselves with a loop half done."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.chaos.programs import HOW, Program
from tests.leaks import named_memory

PROCESSES = ["fork", "forkserver", "spawn"]

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")


def kill_at_random(how: str, draws: random.Random) -> float:
    """SIGKILL a program that loops for ever; return the seconds until none of its processes is left."""
    program = Program("epochs", how)
    program.says("begun")
    time.sleep(draws.uniform(0, 1))  # the moment is what is drawn: while they start, work, end
    memory = named_memory(program.processes())
    program.process.kill()
    seconds = program.seconds_to_be_gone()
    program.end()
    assert not [file for file in memory if file.exists()]
    return seconds


@pytest.mark.parametrize("how", [*PROCESSES, "persistent", "fork, 2 threads each"])
def test_a_killed_program_leaves_nothing(how: str) -> None:
    """Find no process and no shared memory of a program killed at a moment of its life."""
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    kill_at_random(how, random.Random(seed))


@pytest.mark.parametrize("name", ["waiting", "waiting_in_c", "training"])
@pytest.mark.parametrize("how", PROCESSES)
def test_ctrl_c_gives_one_traceback(name: str, how: str) -> None:
    """Interrupt the whole group while a worker is in a sample that would take an hour."""
    program = Program(name, how)
    program.says("stuck")
    os.killpg(program.process.pid, signal.SIGINT)
    said, seconds = program.end()
    print(f"ended after {seconds:.2f} s")
    assert said.count("Traceback (most recent call last)") == 1
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert program.process.returncode == -signal.SIGINT
    program.seconds_to_be_gone()


@pytest.mark.parametrize("how", PROCESSES)
def test_ctrl_c_that_the_program_answers_itself_says_nothing(how: str) -> None:
    """Close in the handling of it: the program's own exit code, and not a word."""
    program = Program("training_in_a_function", how)
    program.says("stuck")
    os.killpg(program.process.pid, signal.SIGINT)
    said, seconds = program.end()
    print(f"ended after {seconds:.2f} s")
    assert (said, program.process.returncode) == ("", 130)
    program.seconds_to_be_gone()


@pytest.mark.parametrize("name", ["left_open", "left_open_in_a_cycle"])
@pytest.mark.parametrize("how", HOW)
def test_a_program_may_end_with_a_loop_half_done(name: str, how: str) -> None:
    """Hang nothing, say nothing, leave nothing, end with exit code 0."""
    program = Program(name, how)
    said, _ = program.end()
    assert (said, program.process.returncode) == ("", 0)
    program.seconds_to_be_gone()
