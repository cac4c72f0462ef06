"""Ports for servers that a test starts."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

BELOW_CONNECTIONS = range(20_000, 30_000)
"""The system gives none of these to a connection: until its server starts, a port stays free."""


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that are free now."""
    found: list[int] = []
    with ExitStack() as held:
        for port in random.SystemRandom().sample(BELOW_CONNECTIONS, len(BELOW_CONNECTIONS)):
            if len(found) == count:
                break
            tried = held.enter_context(socket.socket())
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:  # another server has it
                continue
            found.append(port)
    return found
