"""The house stands: layers, a light import, and public names that are sorted and documented."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import headrace

ROOT = Path(headrace.__file__).parent

# Each layer imports only what stands below it; what shares a line may import each other only as `WITHIN` says.
LAYERS = [
    {"__init__", "__main__", "cli", "jax", "keras", "testing", "torch"},
    {"loader"},
    {"run"},
    {"executors"},
    {"make"},
    {"datasets", "collate", "image", "samplers", "transport", "ledger"},
    {"plan"},
    {"interop"},
    {"context", "storage"},
    {"errors", "_native"},
]
WITHIN = {
    ("__init__", "cli"): False,
    ("__init__", "torch"): False,
    ("__main__", "cli"): True,
    ("datasets", "image"): True,
}
FRAMEWORKS = {"jax": "jax.py", "keras": "keras.py", "tensorflow": "keras.py", "torch": "torch.py"}
FIRST_HELD = "0ce2f07"
"""The last commit before subjects were held to a length."""
LIGHT = ["PIL", "cv2", "h5py", "ml_dtypes", "simplejpeg", "click", "tqdm", "torch", "jax", "keras", "tensorflow"]


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def _imports() -> set[tuple[str, str, str]]:
    found = set()
    for path in ROOT.rglob("*.py"):
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "headrace":
                names = [node.module] if node.module != "headrace" else [f"headrace.{a.name}" for a in node.names]
                for name in names:
                    known = (ROOT / _room(name)).exists() or (ROOT / f"{_room(name)}.py").exists()
                    found.add((room, _room(name) if known else "__init__", str(path.relative_to(ROOT))))
            elif isinstance(node, ast.Import):
                found |= {
                    (room, _room(alias.name), str(path.relative_to(ROOT)))
                    for alias in node.names
                    if alias.name.split(".")[0] == "headrace"
                }
    return found


def _level(room: str) -> int:
    return next(level for level, rooms in enumerate(LAYERS) if room in rooms)


def test_every_module_has_a_layer() -> None:
    """Name every file and folder of the package in the layers above."""
    rooms = {
        path.name.removesuffix(".py")
        for path in ROOT.iterdir()
        if path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").exists())
    }
    assert rooms == set().union(*LAYERS)


def test_each_layer_imports_only_what_stands_below_it() -> None:
    """Find no import upwards, and none between neighbours but those allowed."""
    wrong = [
        f"{path}: {room} imports {target}"
        for room, target, path in _imports()
        if room != target
        and _level(target) <= _level(room)
        and not WITHIN.get((room, target), False)
        and not (room == "cli" and target == "__init__")
    ]
    assert not wrong


def test_each_framework_is_imported_by_its_adapter_only() -> None:
    """Find no import of a framework, not even inside a function, in any other file."""
    wrong: list[str] = []
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found = {name.split(".")[0] for name in names} & FRAMEWORKS.keys()
            wrong += [f"{path.relative_to(ROOT)} imports {name}" for name in found if path != ROOT / FRAMEWORKS[name]]
    assert not wrong


def test_importing_headrace_is_light() -> None:
    """Import no image library, no command line and no framework."""
    script = f"import headrace, sys; print([name for name in {LIGHT} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_public_names_are_sorted_and_exist() -> None:
    """Keep __all__ sorted, complete and true."""
    assert headrace.__all__ == sorted(headrace.__all__)
    assert all(hasattr(headrace, name) for name in headrace.__all__)
    public = {
        name for name, thing in vars(headrace).items() if not name.startswith("_") and not inspect.ismodule(thing)
    }
    assert public == set(headrace.__all__) - {"__version__"}


@pytest.mark.parametrize("name", [name for name in headrace.__all__ if not name.startswith("_")])
def test_public_names_are_documented(name: str) -> None:
    """Open every public docstring with one sentence; and give all but errors and records an example that runs."""
    thing = getattr(headrace, name)
    doc = inspect.getdoc(thing)
    assert doc
    assert doc.split("\n\n")[0].rstrip().endswith((".", ":", "all.")) or ":" in doc.split("\n\n")[0]
    error = inspect.isclass(thing) and issubclass(thing, BaseException)
    if not error and name not in {
        "BadSample",
        "EpochProof",
        "WorkerInfo",
        "Padded",
        "DEFAULT_MAX_PIXELS",
        "DEFAULT_EXTENSIONS",
    }:
        assert ">>>" in doc


def test_the_version_is_told_once() -> None:
    """Agree with the installed package and the changelog."""
    assert version("headrace") == headrace.__version__
    changelog = Path(__file__).parent.parent / "CHANGELOG.md"
    assert f"## {headrace.__version__}" in changelog.read_text(encoding="utf-8")


def test_commit_subjects_fit_one_line_of_a_log() -> None:
    """Keep the subjects of commits within 72 characters, from the first that was held to it on."""
    root = Path(__file__).parent.parent
    log = ["git", "-C", str(root), "log", "--format=%h %s", f"{FIRST_HELD}..HEAD"]
    try:
        run = subprocess.run(log, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a clone with its history")
    long = [line for line in run.stdout.splitlines() if len(line.partition(" ")[2]) > 72]
    assert not long
