"""The command `headrace`, also ``python -m headrace``."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec

from headrace.cli.documents import asks_for_json, command_asked_for, document
from headrace.errors import missing
from headrace.interop.interrupt import held_back


def main() -> int:
    """Run the command line and return its exit status; 130 after Ctrl-C."""
    try:
        library = next((name for name in ("click", "tqdm") if find_spec(name) is None), None)
        with held_back():
            if library is not None:
                from headrace.cli.findings import run_without_extras as run_without
            else:
                from headrace.cli.app import run
        return run() if library is None else run_without(missing(library, extra="cli", purpose="this command"))
    except KeyboardInterrupt:
        if asks_for_json():
            about = {"type": "KeyboardInterrupt", "message": "interrupted"}
            print(json.dumps(document(command_asked_for(), 130, error=about)), flush=True)  # noqa: T201
        print("\ninterrupted" if sys.stderr.isatty() else "interrupted", file=sys.stderr, flush=True)  # noqa: T201
        # Everything is unwound by now, but a thread may be stuck in a read that nothing can interrupt (a pipe, a
        # network drive that is gone), and the interpreter would wait for it.
        os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
