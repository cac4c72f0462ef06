"""What a release is made of: workflows, fragments, the bill of materials, and texts that must agree."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
METADATA = """Metadata-Version: 2.4
Name: headrace
Version: 0.2.0
License-Expression: Apache-2.0
Requires-Dist: numpy>=1.26
Requires-Dist: click>=8.1; extra == 'cli'
"""


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_calls_targets_that_there_are(path: Path) -> None:
    """Parse, run on every job's own machine, and name only targets of the Makefile and scripts of the repository."""
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["runs-on"]
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            command = step.get("run", "")
            if command.startswith("make "):
                assert {word for word in command.split()[1:] if "=" not in word} <= targets
            assert all((ROOT / script).is_file() for script in re.findall(r"scripts/\w+\.py", command))


def test_the_issue_templates_are_forms() -> None:
    """Give each a name, a description and fields with labels."""
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.name != "config.yml":
            assert {"name", "description", "body"} <= set(form)
            assert all(field["attributes"]["label"] for field in form["body"])


def test_every_python_that_is_classified_is_built_and_tried() -> None:
    """Agree between the classifiers, cibuildwheel, nox and the workflow."""
    listed = {text.rpartition(" ")[2] for text in PROJECT["project"]["classifiers"] if ":: 3." in text}
    built = set(re.findall(r"cp3(\d+)-", " ".join(PROJECT["tool"]["cibuildwheel"]["build"])))
    assert {f"3.{minor}" for minor in built} == listed
    assert listed <= set(re.findall(r'"(3\.\d+)"', (ROOT / "noxfile.py").read_text(encoding="utf-8")))
    tests = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    assert set(tests["jobs"]["tests"]["strategy"]["matrix"]["python"]) == listed


def test_each_fragment_has_a_type_that_the_changelog_has() -> None:
    """Name fragments so that none is left out of a release."""
    kinds = {kind["directory"] for kind in PROJECT["tool"]["towncrier"]["type"]}
    names = {path.name for path in (ROOT / "changelog.d").iterdir()} - {"README.md", "template.md.jinja"}
    assert all(name.endswith(".md") and name.split(".")[-2] in kinds for name in names)
    start = PROJECT["tool"]["towncrier"]["start_string"]
    assert (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").count(start) == 1


def test_the_bill_of_materials_names_what_a_wheel_carries(tmp_path: Path) -> None:
    """List the library that is linked in, the photographs with their licenses, and what is required."""
    wheel = tmp_path / "headrace-0.2.0-cp312-cp312-linux_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("headrace-0.2.0.dist-info/METADATA", METADATA)
        archive.writestr("headrace/_native/extension.cpython-312.so", b"\0libjpeg-turbo version 3.1.0 (build)\0")
        archive.writestr("headrace/demo/cat.jpg", b"a photograph")
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "sbom.py"), str(wheel)], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert (found["bomFormat"], found["metadata"]["component"]["version"]) == ("CycloneDX", "0.2.0")
    parts = {part["name"]: part for part in found["components"]}
    assert set(parts) == {"libjpeg-turbo", "nanobind", "headrace/demo/cat.jpg", "numpy"}
    assert parts["libjpeg-turbo"]["version"] == "3.1.0"
    assert parts["headrace/demo/cat.jpg"]["licenses"] == [{"license": {"id": "CC0-1.0"}}]


def test_the_license_texts_of_what_a_wheel_carries_are_in_it() -> None:
    """Ship the text of each library that is linked in."""
    assert PROJECT["project"]["license-files"] == ["LICENSE", "licenses/*.txt"]
    assert "Independent JPEG Group" in (ROOT / "licenses" / "libjpeg-turbo.txt").read_text(encoding="utf-8")
    assert "Wenzel Jakob" in (ROOT / "licenses" / "nanobind.txt").read_text(encoding="utf-8")
