"""The command `headrace`, also ``python -m headrace``."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

from headrace.errors import missing
from headrace.interop.interrupt import held_back


def main() -> int:
    """Run the command line and return its exit status; 130 after Ctrl-C."""
    try:
        for library in ("click", "tqdm"):
            if find_spec(library) is None:
                print(missing(library, extra="cli", purpose="the command line"), file=sys.stderr)  # noqa: T201
                return 2
        with held_back():
            from headrace.cli.app import run

        return run()
    except KeyboardInterrupt:
        print("\ninterrupted" if sys.stderr.isatty() else "interrupted", file=sys.stderr, flush=True)  # noqa: T201
        # Everything is unwound by now, but a thread may be stuck in a read that nothing can interrupt (a pipe, a
        # network drive that is gone), and the interpreter would wait for it.
        os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
