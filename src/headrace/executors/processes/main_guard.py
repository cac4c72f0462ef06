"""Scripts that start workers while a worker imports them: found at once, and ended."""

from __future__ import annotations

import os
import sys
from multiprocessing import process

WORKER_NAME = "headrace-"
"""What the names of worker processes begin with."""

UNGUARDED = 113
"""The exit code of a worker that found the script it imports starting workers."""

GUARD = "put the code that starts processes under `if __name__ == '__main__':`, or start them by fork"


def exit_where_unguarded() -> None:
    """End this process if it is importing the script that started it: a worker of ours, or the fork server.

    At once, whatever the script would do with an error. The loader raises the error, once.
    """
    here = process.current_process()
    if not getattr(here, "_inheriting", False):
        return
    if here.name == "MainProcess":  # the fork server, which may be another program's
        sys.stderr.write(f"headrace: the main script started workers while it was imported; {GUARD}\n")
        sys.stderr.flush()
    elif not here.name.startswith(WORKER_NAME):
        return
    os._exit(UNGUARDED)
