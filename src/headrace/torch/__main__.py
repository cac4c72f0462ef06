"""Run a script of torch's with our loader: ``python -m headrace.torch [--native] [--explain] train.py ARGS…``."""

from __future__ import annotations

import argparse
import sys

from headrace.torch import main_script
from headrace.torch.patching import patch


def main() -> None:
    """Put our loader in torch's place, and become the script."""
    parser = argparse.ArgumentParser(
        prog="python -m headrace.torch",
        description="Run a script with headrace's DataLoader in the place of torch's, in all libraries.",
        usage="%(prog)s [-h] [--native] [--explain] (SCRIPT | -m MODULE) [ARGS ...]",
    )
    parser.add_argument("--native", action="store_true", help="let the native extension read what it recognizes")
    parser.add_argument("--explain", action="store_true", help="print to stderr how each loader reads its dataset")
    parser.add_argument("-m", dest="module", metavar="MODULE", help="run a module, as python -m does")
    options, arguments = _parsed(parser, sys.argv[1:])
    patch(explain=options.explain, **({"native": True} if options.native else {}))
    if options.module is not None:
        main_script.run_module(options.module, arguments)
    else:
        main_script.run_file(arguments[0], arguments[1:])


def _parsed(parser: argparse.ArgumentParser, given: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Read our own options, up to the script or the module; whatever follows is its own."""
    end = 0
    while end < len(given) and given[end].startswith("-"):
        own = given[end]
        end += 2 if own == "-m" else 1
        if own.startswith("-m"):
            return parser.parse_args(given[:end]), given[end:]
    options = parser.parse_args(given[:end])
    if end == len(given):
        parser.error("a script is needed, or -m and a module")
    return options, given[end:]


if __name__ == "__main__":
    main()
