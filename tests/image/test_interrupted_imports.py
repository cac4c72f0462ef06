"""Ctrl-C while a library is imported for the first image is Ctrl-C, and no other error."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import io, os, signal, sys
import headrace.image, headrace.datasets

class CtrlC:
    def find_spec(self, name, path, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)

def use():
    if sys.argv[1].startswith("h5py"):
        headrace.datasets.HDF5Dataset(os.devnull, "x")
    headrace.image.decode(bytes.fromhex(sys.argv[2]))

sys.meta_path.insert(0, CtrlC())
for _ in range(2):
    try:
        use()
    except KeyboardInterrupt:
        print("interrupted", sys.argv[1] in sys.modules)
    except Exception as error:
        print(type(error).__name__)
"""
GIF = b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\1\0\1\0\0\2\2D\1\0;"


@pytest.mark.parametrize(
    ("library", "data", "then"),
    [
        ("PIL._imaging", GIF, ""),
        ("simplejpeg._jpeg", b"\xff\xd8\xff", "BadImage"),
        ("h5py._errors", GIF, "UnreadableFile"),
    ],
    ids=["pillow", "simplejpeg", "h5py"],
)
def test_ctrl_c_waits_for_the_end_of_an_import(library: str, data: bytes, then: str) -> None:
    """Let extension modules be imported whole: in the middle, they turn Ctrl-C into an ImportError."""
    pytest.importorskip(library.partition(".")[0])
    command = [sys.executable, "-c", SCRIPT, library, data.hex()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=250)
    assert done.stdout.split("\n", 1)[0] == "interrupted True"
    assert done.stdout.split("\n", 1)[1].strip() == then
