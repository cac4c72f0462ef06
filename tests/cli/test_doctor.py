"""``headrace doctor``."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import headrace
from headrace._native import extension
from headrace.cli import findings

if TYPE_CHECKING:
    from tests.cli.conftest import Run


def test_it_says_what_is_there(run: Run) -> None:
    """Name versions, native extension, processors and shared memory, and end well."""
    done = run("doctor")
    assert done.returncode == 0, done.stderr
    assert f"headrace {headrace.__version__}" in " ".join(done.stdout.split())
    assert "native extension" in done.stdout
    assert " usable of " in done.stdout
    assert ("several times slower" in done.stdout) == (extension is None)


def test_an_extension_that_was_never_built_is_reported_with_its_cure() -> None:
    """Say in one line what is missing, what it costs and what to run."""
    facts, advice = findings.findings(findings.native(Path("nowhere")))
    assert dict(facts)["native extension"].startswith("never built")
    (line,) = [line for line in advice if "native extension" in line]
    assert "never built" in line
    assert "several times slower" in line
    assert "pip install --force-reinstall" in line


def test_an_extension_of_another_python_is_told_from_none(tmp_path: Path) -> None:
    """Name the file that was built."""
    (tmp_path / "extension.cpython-27-none.so").write_bytes(b"")
    found = findings.native(tmp_path)
    assert (found.state, found.detail) == ("built for another Python", "extension.cpython-27-none.so")
    assert "this is 3." in " ".join(findings.findings(found)[1])


COPY = """
import runpy, sys
sys.meta_path = [one for one in sys.meta_path if not type(one).__module__.startswith("_editable")]
runpy.run_module("headrace", run_name="__main__", alter_sys=True)
"""
"""Runs headrace from the path: an editable install answers before it."""


@pytest.mark.skipif(
    extension is None or b"libjpeg.so." not in Path(extension.__file__).read_bytes(), reason="libjpeg-turbo is inside"
)
def test_a_library_that_is_gone_is_told_from_an_extension_that_was_never_built(tmp_path: Path) -> None:
    """Name the library that the built extension does not find, and the package that has it."""
    shutil.copytree(Path(headrace.__file__).parent, tmp_path / "headrace", ignore=shutil.ignore_patterns("__pycache__"))
    assert extension is not None
    built = tmp_path / "headrace" / "_native" / Path(extension.__file__).name
    built.unlink(missing_ok=True)
    built.write_bytes(re.sub(rb"libjpeg\.so\.\d", b"libjpeg.so.X", Path(extension.__file__).read_bytes()))
    done = subprocess.run(
        [sys.executable, "-c", COPY, "doctor", "--json"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)["result"]
    assert found["native_extension"]["state"] == "cannot be loaded"
    assert "libjpeg.so.X" in found["native_extension"]["detail"]
    assert any("was built, and cannot be loaded" in line for line in found["advice"])


def test_what_the_advice_installs_is_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name a requirement that pip installs without headrace being on any index."""
    monkeypatch.setattr(findings, "_version", lambda _name: None)
    monkeypatch.setattr(findings, "FREE_THREADED", False)
    advice = " ".join(findings.findings()[1])
    assert "pip install 'pillow>=10.3' 'simplejpeg>=1.8'" in advice
    monkeypatch.setattr(findings, "FREE_THREADED", True)
    assert any(line.endswith("Run: pip install 'pillow>=10.3'") for line in findings.findings()[1])
    assert "pip install 'click>=8.1' 'tqdm>=4.66'" in advice


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


SCRIPT = """
import numpy as np

class Noisy:
    def __len__(self):
        return 9

    def __getitem__(self, index):
        if index >= 9:
            raise IndexError(index)
        return index + np.random.rand()

noisy = Noisy()

def sound():
    return [1, 2, 3]
"""


def test_a_fault_of_a_script_s_dataset_has_its_line_and_exits_with_1(run: Run, tmp_path: Path) -> None:
    """Name the check, the line to change, what was seen and the cure; as values too."""
    (tmp_path / "train.py").write_text(SCRIPT)
    done = run("doctor", "train.py:noisy", "--seconds", "12")
    assert done.returncode == 1, done.stderr
    assert "randomness: samples draw from a global generator  (train.py:11)" in done.stdout
    assert "seen: reading moves np.random" in done.stdout
    assert "cure: Draw from headrace.rng()" in done.stdout
    assert "1 finding" in done.stdout.splitlines()[-1]


def test_a_sound_dataset_of_a_script_exits_with_0(run: Run, tmp_path: Path) -> None:
    """Find nothing, and write that as one document."""
    (tmp_path / "train.py").write_text(SCRIPT)
    done = run("doctor", "train.py:sound", "--seconds", "12", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)["result"]
    assert (result["findings"], result["name"]) == ([], "list, 3 samples")
    assert "pickle" in result["checked"]
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "command-line.md").read_text(encoding="utf-8")
    assert all(f"`{key}`" in guide for key in result)


def test_what_names_nothing_in_a_script_is_wrong_use(run: Run) -> None:
    """Exit with 2 for a folder."""
    done = run("doctor", "photos")
    assert done.returncode == 2
    assert "as in train.py:dataset" in done.stderr
