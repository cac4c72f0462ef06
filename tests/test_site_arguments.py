"""The reference says what each argument does: each has a line, and each line an argument."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

SITE = Path(__file__).parent.parent / "docs" / "site"
sys.path.insert(0, str(SITE))
reference = pytest.importorskip("reference")
arguments = pytest.importorskip("arguments")
sys.path.pop(0)


def _documented() -> Iterator[tuple[str, Any]]:
    """Yield each class, function and method that has a table, with its key in `arguments.toml`."""
    for module, names in reference.public().items():
        for name in names if module not in reference.ADAPTERS else []:
            thing = getattr(import_module(module), name)
            if not callable(thing) or reference.home(module, name) != f"{module}.{name}":
                continue
            yield name, thing
            for method in vars(thing) if inspect.isclass(thing) else ():
                found = getattr(thing, method)
                if not method.startswith("_") and inspect.isroutine(found) and found.__doc__:
                    yield f"{name}.{method}", found


DOCUMENTED = list(_documented())
TESTED = ("Tests.test_", "Tests.check_")  # methods that pytest calls with fixtures


def test_each_argument_is_described() -> None:
    """Find a line for every argument of every public class, function and method."""
    missing = [
        f"{key}: {one.name}"
        for key, thing in DOCUMENTED
        if not any(mark in key for mark in TESTED)
        for one in arguments.parameters(thing, key)
        if not arguments.of(thing, key, one.name)
    ]
    assert missing == [], "add a line for each to docs/site/arguments.toml"


def test_each_argument_of_an_adapter_is_described() -> None:
    """Find a line for the arguments of torch's, JAX's and Keras's names, read from their source."""
    for module, names in reference.ADAPTERS.items():
        for name in names:
            text, _ = reference._from_source(module, name)
            rows = text.split(" * - ")[1:]
            assert all(len(row.split(" - ")) < 4 or row.split(" - ")[3].strip() for row in rows), f"{module}.{name}"


def test_each_line_is_of_an_argument_and_says_it_in_one_sentence_or_two() -> None:
    """Keep no line of an argument that is gone, and none that is a paragraph."""
    names: dict[str, set[str]] = {}
    for key, thing in DOCUMENTED:
        kind, dot, method = key.partition(".")
        for owner in (kind, *arguments.bases(thing, key)):
            names.setdefault(owner + dot + method, set()).update(one.name for one in arguments.parameters(thing, key))
    adapters = {name for found in reference.ADAPTERS.values() for name in found}
    stale = [
        f"{key}: {name}"
        for key, lines in arguments.sections().items()
        for name in lines
        if key != "shared" and key.partition(".")[0] not in adapters and name not in names.get(key, set())
    ]
    assert stale == []
    for lines in arguments.sections().values():
        for line in lines.values():
            assert line.endswith(".")
            assert len(line) < 150, line


def test_the_table_of_an_argument_has_its_type_its_default_and_what_it_does() -> None:
    """Write all four cells, with code as code."""
    lines: list[str] = []
    thing = import_module("headrace.samplers").ShardSampler
    reference.add_arguments(None, "class", "headrace.samplers.ShardSampler", thing, None, lines)
    text = "\n".join(lines)
    assert "* - ``window``\n     - ``int``\n     - ``16``\n     - How many shards are shuffled together." in text
