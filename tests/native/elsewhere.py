"""Run pytest on a copy of the package that lies elsewhere: `python tests/native/elsewhere.py FOLDER ARGUMENTS…`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    folder = str(Path(sys.argv[1]).resolve())
    # An editable installation answers for the package before the path is asked.
    sys.meta_path[:] = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("_editable")]
    sys.path[:0] = [folder, str(Path.cwd())]
    from headrace._native import extension

    assert extension is not None and str(extension.__file__).startswith(folder), extension  # noqa: PT018
    sys.exit(pytest.main(sys.argv[2:]))
