"""What `headrace doctor` finds: needs NumPy only, so that it can say what else is missing."""

from __future__ import annotations

import importlib
import json
import os
import platform
import shlex
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

import headrace
from headrace import _native
from headrace.cli.command_list import short_help
from headrace.cli.documents import asks_for_json, command_asked_for, document
from headrace.cli.pipe import BROKEN_PIPE, mute
from headrace.formatting import memory_of, table
from headrace.interop import machine

LIBRARIES = (
    "pillow", "simplejpeg", "opencv-python-headless", "opencv-python", "click", "tqdm", "ml_dtypes", "torch", "jax",
    "keras",
)  # fmt: skip
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
"""A Python for which simplejpeg has no wheel."""
SMALL = 1 << 28
"""Bytes of shared memory below which a few batches of images fill it: the default of containers is less."""
JPEG_HEADERS = ("/usr/include", "/usr/local/include", "/opt/homebrew/include")
MANAGERS = {
    "apt-get": ("apt install g++ libjpeg-dev", "apt install libjpeg-dev"),
    "dnf": ("dnf install gcc-c++ libjpeg-turbo-devel", "dnf install libjpeg-turbo"),
    "apk": ("apk add g++ libjpeg-turbo-dev", "apk add libjpeg-turbo"),
    "brew": ("xcode-select --install; brew install jpeg-turbo", "brew install jpeg-turbo"),
}
"""By the command of a package manager: what a build needs, and what the built extension needs."""


@dataclass(frozen=True, slots=True)
class Native:
    """The state of the native extension."""

    state: str
    """One of built, never built, built for another Python, cannot be loaded."""
    detail: str = ""


def native(folder: Path | None = None) -> Native:
    """Return whether the native extension was built and can be loaded; ``folder``: where it is looked for.

    >>> native(Path("nowhere"))
    Native(state='never built', detail='')
    """
    if folder is None and _native.extension is not None:
        levels = _native.extension.levels()
        return Native("built", f"libjpeg-turbo {_native.extension.LIBJPEG_TURBO}, {levels[-1]} instructions")
    files = sorted(
        path.name
        for path in (folder or Path(_native.__file__).parent).glob("extension*")
        if path.suffix in (".so", ".pyd")
    )
    if not files:
        return Native("never built")
    if not any(name == f"extension{suffix}" for name in files for suffix in EXTENSION_SUFFIXES):
        return Native("built for another Python", ", ".join(files))
    try:
        importlib.import_module("headrace._native.extension")
    except ImportError as error:
        return Native("cannot be loaded", str(error))
    return Native("built")


def findings(found: Native | None = None) -> tuple[list[tuple[str, str]], list[str]]:
    """Return what was found, by name, and what to do about it.

    >>> dict(findings()[0])["headrace"] == headrace.__version__
    True
    """
    gil = "" if getattr(sys, "_is_gil_enabled", lambda: True)() else ", no GIL"
    facts = [
        ("headrace", headrace.__version__),
        ("Python", f"{platform.python_version()}{gil}"),
        ("NumPy", np.__version__),
    ]
    facts += [(name, known) for name in LIBRARIES if (known := _version(name))]
    advice: list[str] = []
    found = native() if found is None else found
    shown = found.detail if found.state == "built" else f"{found.state}: images are read step by step"
    facts.append(("native extension", shown))
    if found.state != "built":
        advice.append(_native_advice(found))
    if _version("pillow") is None:
        wanted = "'pillow>=10.3'" if FREE_THREADED else "'pillow>=10.3' 'simplejpeg>=1.8'"
        advice.append(f"Pillow is missing: no image can be read without it. Run: pip install {wanted}")
    elif _version("simplejpeg") is None and not FREE_THREADED:
        advice.append(
            "simplejpeg is missing: images outside the native extension are read slower. "
            "Run: pip install 'simplejpeg>=1.8'"
        )
    if _version("click") is None or _version("tqdm") is None:
        advice.append("All commands but doctor need click and tqdm. Run: pip install 'click>=8.1' 'tqdm>=4.66'")
    facts += _processors(advice)
    facts += _shared_memory(advice)
    return facts, advice


def found_here() -> dict[str, Any]:
    """Return what `headrace doctor --json` writes.

    >>> sorted(found_here())
    ['advice', 'facts', 'native_extension']
    """
    found = native()
    facts, advice = findings(found)
    return {
        "native_extension": {"state": found.state, "detail": found.detail},
        "facts": dict(facts),
        "advice": advice,
    }


def report(width: int | None = None) -> tuple[str, list[str]]:
    """Return the table of what was found, and the advice."""
    facts, advice = findings()
    return table(facts, left=2, width=width), advice or ["Nothing is missing."]


def run_without_extras(error: Exception) -> int:
    """Run the part of the command line that needs no optional library; for the rest, say what it needs."""
    try:
        return _run_without_extras(error)
    except BrokenPipeError:
        mute()
        return BROKEN_PIPE


def _run_without_extras(error: Exception) -> int:
    arguments = sys.argv[1:]
    wanted, *others = [argument for argument in arguments if not argument.startswith("-")] or [""]
    if not wanted and "--version" in arguments:
        _write(f"headrace {headrace.__version__}")
    elif not wanted or (wanted == "doctor" and {"-h", "--help"} & set(arguments)):
        _write(short_help())
    elif wanted == "doctor" and not others:  # SCRIPT:NAME needs what the other commands need
        table_of_facts, advice = report()
        _write(
            json.dumps(document("doctor", 0, result=found_here()), indent=1)
            if asks_for_json()
            else "\n".join([table_of_facts, "", *advice])
        )
    else:
        if asks_for_json():
            about = {"type": type(error).__name__, "message": str(error)}
            _write(json.dumps(document(command_asked_for(), 2, error=about), indent=1))
        else:
            print(error, file=sys.stderr)
        return 2
    return 0


def _write(text: str) -> None:
    print(text, flush=True)  # a reader that has gone is met here, not when Python ends


def _native_advice(found: Native) -> str:
    """Say what is missing for the native extension, and the commands that bring it."""
    slow = "Images are read correctly, and several times slower."
    manager = next((name for name in MANAGERS if shutil.which(name)), None)
    install = _reinstall()
    if found.state == "cannot be loaded":
        library = MANAGERS[manager][1] if manager else "install the library that is named there"
        return f"The native extension was built, and cannot be loaded ({found.detail}). {slow} Run: {library}"
    if found.state == "built for another Python":
        return (
            f"The native extension was built for another Python ({found.detail}); this is {sys.version_info.major}."
            f"{sys.version_info.minor}. {slow} Run: {install}"
        )
    missing = _missing_tools()
    if not missing:
        return f"The native extension was never built; a compiler and the headers are here now. {slow} Run: {install}"
    system = MANAGERS[manager][0] if manager else "install a C++ compiler and libjpeg-turbo's headers"
    what = " and ".join(missing)
    return f"The native extension was never built: {what} missing. {slow} Run: {system}; then: {install}"


def _missing_tools() -> list[str]:
    """Return what a build of the native extension needs and this machine lacks."""
    found = [] if any(map(shutil.which, ("c++", "g++", "clang++"))) else ["a C++ compiler is"]
    prefixes = [part for part in os.environ.get("CMAKE_PREFIX_PATH", "").split(":") if part]
    places = [*JPEG_HEADERS, *(f"{prefix}/include" for prefix in [*prefixes, sys.prefix])]  # the last is conda's
    multiarch = sysconfig.get_config_var("MULTIARCH")
    if multiarch:
        places.append(f"/usr/include/{multiarch}")
    if not any(Path(place, "jpeglib.h").is_file() for place in places):
        found.append("libjpeg-turbo's headers are")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        found.append("Python's headers (python3-dev) are")
    return found


def _reinstall() -> str:
    """Return the command that installs headrace from where it came from."""
    command = "pip install --force-reinstall --no-deps --no-cache-dir"
    try:
        text = distribution("headrace").read_text("direct_url.json")
        origin = json.loads(text) if text else {}
    except (PackageNotFoundError, ValueError):
        origin = {}
    return _from(origin, command)


def _from(origin: dict[str, Any], command: str) -> str:
    """Return the command that installs headrace from its origin, as pip has written it down (PEP 610).

    >>> _from({"url": "file:///src/headrace%2Bmine", "dir_info": {"editable": True}}, "pip install")
    'pip install --editable /src/headrace+mine'
    >>> _from({"url": "https://example.org/headrace", "vcs_info": {"vcs": "git"}}, "pip install")
    'pip install git+https://example.org/headrace'
    """
    url = unquote(str(origin.get("url", "")))
    if url.endswith(".whl"):
        return f"{command} SOURCES, the folder or the sdist of headrace (its wheel {url.rpartition('/')[2]} has none)"
    if url:
        vcs = f"{origin['vcs_info']['vcs']}+" if "vcs_info" in origin else ""
        editable = "--editable " if origin.get("dir_info", {}).get("editable") else ""
        return f"{command} {editable}{vcs}{shlex.quote(url.removeprefix('file://'))}"
    return f"{command} headrace"


def _processors(advice: list[str]) -> list[tuple[str, str]]:
    there = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    usable = machine.cpus()
    limits = [f"affinity allows {allowed}"] if allowed < there else []
    if usable < allowed:
        limits.append(f"the control group gives time for {usable}")
        advice.append(
            f"This process has the time of {usable} of {allowed} processors: more workers than that only wait."
        )
    return [("processors", f"{usable} usable of {there}" + "".join(f", {limit}" for limit in limits))]


def _shared_memory(advice: list[str]) -> list[tuple[str, str]]:
    folder = Path("/dev/shm")  # noqa: S108  looked at, not written to
    if not folder.exists():
        return []
    space = os.statvfs(folder)
    size, free = space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize
    if size < SMALL:
        advice.append(
            f"Shared memory (/dev/shm) is {memory_of(size)}. headrace keeps no batches there, torch does: "
            "docker run --shm-size=2g, or --ipc=host, where torch's loader runs too."
        )
    return [("shared memory", f"{memory_of(free)} free of {memory_of(size)}")]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
