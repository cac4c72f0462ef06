"""What is left to do when the reader of standard output has gone (``headrace check photos | head``)."""

from __future__ import annotations

import os
import sys

BROKEN_PIPE = 141
"""The exit status, as a shell counts a death by SIGPIPE: 128 + 13."""


def mute() -> None:
    """Send what is still to be written nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
