"""Ranks of JAX, as real processes on the CPU."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from tests.adapters.ranks import trained

pytest.importorskip("jax")


def free_address(world: int) -> str:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return f"localhost:{listener.getsockname()[1]}"


def test_processes_of_jax_may_change_in_number_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    """Go from two to three to one, by the state of one rank: nothing lost, nothing twice."""
    trained("jax", tmp_path, free_address)
