"""``headrace doctor``."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import headrace
from headrace._native import extension
from headrace.cli import doctor

if TYPE_CHECKING:
    import pytest

    from tests.cli.conftest import Run


def test_it_says_what_is_there(run: Run) -> None:
    """Name versions, native extension, processors and shared memory, and end well."""
    done = run("doctor")
    assert done.returncode == 0, done.stderr
    assert f"headrace {headrace.__version__}" in " ".join(done.stdout.split())
    assert "native extension" in done.stdout
    assert " usable of " in done.stdout
    assert ("several times slower" in done.stdout) == (extension is None)


def test_a_missing_extension_is_reported_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say in one line what is missing, what it costs and what to do."""
    monkeypatch.setattr(doctor, "extension", None)
    facts, advice = doctor.findings()
    assert dict(facts)["native extension"].startswith("none")
    assert any("libjpeg-turbo's headers" in line for line in advice)


def test_without_the_extension_all_goes_step_by_step() -> None:
    """Read the same batches, and say why it is slower."""
    script = """
import sys, importlib.abc
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "headrace._native.extension":
            raise ImportError(name)
sys.meta_path.insert(0, Hidden())
import numpy as np, headrace
images = headrace.ArrayDataset(np.arange(4 * 48, dtype=np.uint8).reshape(4, 4, 4, 3))
dataset = images.map(headrace.RandomHorizontalFlip(), headrace.ToFloat())
print(headrace.explain(dataset).splitlines()[0])
print(next(iter(headrace.DataLoader(dataset, 4, seed=0))).tobytes().hex())
"""
    lines = [
        subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout.splitlines()
        for text in (script, script.replace("sys.meta_path.insert(0, Hidden())", ""))
    ]
    assert "not built" in lines[0][0]
    assert lines[0][1] == lines[1][1]
