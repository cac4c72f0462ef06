"""Which line of the user's code a warning is about."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"


def user_line() -> int:
    """Return the ``stacklevel`` by which a warning of the caller names the line that called headrace.

    >>> user_line()
    1

    How many of our functions lie between depends on what the loader is made of.
    """
    frame, level = sys._getframe(1), 1
    while frame.f_code.co_filename.startswith(PACKAGE) and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    return level
