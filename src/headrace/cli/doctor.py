"""``headrace doctor``: what is installed, what the machine gives, and what to do about either."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click
import numpy as np

import headrace
from headrace._native import extension
from headrace.formatting import table
from headrace.interop import machine

LIBRARIES = ("pillow", "simplejpeg", "opencv-python-headless", "opencv-python", "ml_dtypes", "torch", "jax", "keras")
HEADERS = "apt install g++ libjpeg62-turbo-dev; brew install jpeg-turbo"
SMALL = 1 << 28
"""Bytes of shared memory below which a few batches of images fill it: what containers have unless told otherwise."""


@click.command(epilog="Example: headrace doctor", short_help="Say what is installed, and what is missing.")
def doctor() -> None:
    """Print versions, the native extension, the processors and memory that there are, and what would help."""
    facts, advice = findings()
    click.echo(table(facts, left=2))
    click.echo()
    click.echo("\n".join(advice or ["Nothing is missing."]))


def findings() -> tuple[list[tuple[str, str]], list[str]]:
    """Return what was found, by name, and what to do about it.

    >>> dict(findings()[0])["headrace"] == headrace.__version__
    True
    """
    facts = [
        ("headrace", headrace.__version__),
        (
            "Python",
            f"{platform.python_version()}{'' if getattr(sys, '_is_gil_enabled', lambda: True)() else ', no GIL'}",
        ),
        ("NumPy", np.__version__),
    ]
    facts += [(name, found) for name in LIBRARIES if (found := _version(name))]
    advice: list[str] = []
    if extension is None:
        facts.append(("native extension", "none: images go step by step"))
        advice.append(
            "The native extension is missing: images are read correctly, and several times slower. It needs a C++ "
            f"compiler and libjpeg-turbo's headers ({HEADERS}); then: pip install --force-reinstall --no-deps headrace"
        )
    else:
        facts.append(
            ("native extension", f"libjpeg-turbo {extension.LIBJPEG_TURBO}, {extension.levels()[-1]} instructions")
        )
    if _version("pillow") is None:
        advice.append("Pillow is missing, without which no image can be read: pip install 'headrace[images]'")
    elif _version("simplejpeg") is None:
        advice.append(
            "simplejpeg is missing: images that go step by step are read slower: pip install 'headrace[images]'"
        )
    facts += _processors(advice)
    facts += _shared_memory(advice)
    return facts, advice


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
            f"Shared memory (/dev/shm) is {size >> 20} MiB. headrace's own batches are not kept there, torch's are: "
            "docker run --shm-size=2g, or --ipc=host, where torch's loader runs too."
        )
    return [("shared memory", f"{free >> 20:,} MiB free of {size >> 20:,}")]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
