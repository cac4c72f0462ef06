"""The structure of the project: layers, cycles, sizes, exact types, prose, a light import, public names."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import headrace
from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(headrace.__file__).parent
PROJECT = Path(__file__).parent.parent

# Each layer imports only what stands below it; what shares a line may import each other only as `WITHIN` says.
LAYERS = [
    {"__init__", "__main__", "cli", "jax", "keras", "metrics", "testing", "torch"},
    {"figure"},
    {"loader"},
    {"run"},
    {"executors"},
    {"make"},
    {"datasets", "collate", "samplers", "transport", "ledger"},
    {"transforms"},
    {"formats", "image", "plan"},
    {"formatting"},
    {"interop"},
    {"storage"},
    {"context"},
    {"checks", "hints"},
    {"errors", "_native"},
]
WITHIN = {
    ("__init__", "cli"): False,
    ("__init__", "torch"): False,
    ("__main__", "cli"): True,
    ("cli", "testing"): True,  # the doctor's examination
    ("context", "interop"): True,  # torch_state, which imports nothing of ours
}
FRAMEWORKS = {"jax": "jax.py", "keras": "keras.py", "tensorflow": "keras.py", "torch": "torch"}
FIRST_HELD = "0ce2f07"
"""The last commit before subjects were held to a length."""
SUBMODULES = ["collate", "datasets", "errors", "executors", "image", "metrics", "samplers", "testing", "transforms"]
MOST_NAMES = 45
WITHOUT_EXAMPLE = {
    "Arrays",
    "BadSample",
    "Bytes",
    "ChangeValues",
    "DeviceStep",
    "EpochProof",
    "Executor",
    "Files",
    "NativeStep",
    "Padded",
    "Ranges",
    "Source",
    "WorkerInfo",
}
"""Records, and a protocol."""
COMMAND_ERRORS = {"CommandError", "Failure"}
"""The errors of the command line, which are not in `headrace.errors`."""
SAME_NAMES = {
    "__main__": "headrace and headrace.torch can each be run by python -m",
    "base": "the protocol of its package, which has no better name",
    "datasets": "headrace.testing has a suite for each public module, under the name of that module",
    "executors": "as datasets",
    "samplers": "as datasets",
    "transforms": "as datasets",
}
"""The base names that several modules may have, each with its reason."""
LIGHT = ["PIL", "cv2", "h5py", "ml_dtypes", "simplejpeg", "click", "tqdm", "torch", "jax", "keras", "tensorflow"]
LIGHT += ["datasets", "pyarrow", "ray"]


CIRCULAR: tuple[str, ...] = ()
"""Where files still import each other in a circle, type-only imports counted."""

MOST_LINES, MOST_IN_FUNCTION, MOST_METHODS = 600, 60, 25
LONG_FUNCTIONS = {"src/headrace/loader.py: __init__"}
"""A signature: torch's arguments and ours, one a line."""

PLAIN_TYPES = {"bool", "bytes", "dict", "float", "int", "list", "np.ndarray", "range", "str", "tuple"}
"""Builtin containers and numbers, whose exact type says how data is laid out: any file may compare these."""
EXACT_TYPES = {
    "collate/exact.py": "samples of one class are collated by that class's own rule, subclasses not",
    "collate/row_writer.py": "a row already written is marked by a class of its own, compared for every field",
    "context/memory.py": "memory is returned to its pool only if the pool lent it",
    "datasets/pickled_data.py": "an unpickler for hostile files accepts exact types only",
    "datasets/torchvision_datasets.py": "a subclass of torchvision's may change what a sample is",
    "executors/processes/messages.py": "an error that pickles into another class is sent as text instead",
    "image/sample_fields.py": "as image/targets.py",
    "image/targets.py": "looks at every sample: exact types of plain values are skipped first, for speed",
    "interop/keys.py": "looks at every index: exact types are the fast path",
    "interop/torch_rows.py": "a subclass may change what a sample, or a row of a tensor, is",
    "interop/torch_state.py": "a subclass of Tensor may have behavior of its own",
    "run/stats.py": "looks at every batch: exact types of plain values are skipped first, for speed",
    "storage/mapped_samples.py": "looks at every array: exact types are the fast path, and a subclass may hold more",
    "testing/transforms.py": "compares results, whose types must agree",
    "torch/from_numpy.py": "a subclass of Tensor may have behavior of its own",
    "torch/tensor_collate.py": "as from_numpy",
    "transforms/torchvision_chain.py": "a subclass of torchvision's may do something else",
}

BANNED = re.compile(
    r"\b(pictures?|Python's lock|anew|thereby|of which|(is|are|was|were|be) told|(go|goes|going|gone|went) on with"
    r"|stands|mend(s|ed)?|used again|for want of|native kernel|whosoever)\b",
    re.IGNORECASE,
)
"""Words that the readers of a message or of a docstring's first line stumble over."""


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def _imports() -> set[tuple[str, str, str]]:
    found = set()
    for path in ROOT.rglob("*.py"):
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for node in ast.walk(_tree(path)):
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


def test_no_two_modules_have_one_base_name() -> None:
    """Find each file and package by its base name alone, but for the listed ones."""
    names = [_module(path).rpartition(".")[2] for path in ROOT.rglob("*.py")]
    assert {name for name in names if names.count(name) > 1} == SAME_NAMES.keys()


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
        for node in ast.walk(_tree(path)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found = {name.split(".")[0] for name in names} & FRAMEWORKS.keys()
            place = path.relative_to(ROOT)
            wrong += [f"{place} imports {name}" for name in found if place.parts[0] != FRAMEWORKS[name]]
    assert not wrong


def test_importing_headrace_is_light() -> None:
    """Import no image library, no command line and no framework; nor to say that images are resized."""
    resized = "headrace.RandomResizedCrop(8), headrace.Resize(8, antialias=False)"
    script = f"import headrace, sys; {resized}; print([name for name in {LIGHT} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def _public() -> list[tuple[str, str]]:
    modules = [headrace, *(import_module(f"headrace.{name}") for name in SUBMODULES)]
    return [(module.__name__, name) for module in modules for name in module.__all__ if not name.startswith("_")]


def _pages() -> Iterator[tuple[str, str]]:
    """Yield each page with Python code for users and contributors, and its code."""
    for path in [
        PROJECT / "README.md",
        *(PROJECT / "docs" / "guide").glob("*.md"),
        *(PROJECT / "docs").glob("con*/*.md"),
    ]:
        blocks = re.findall(r"```(?:python|pycon).*?\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
        yield str(path.relative_to(PROJECT)), "\n".join(blocks)
    for path in (PROJECT / "examples").rglob("*.py"):
        yield str(path.relative_to(PROJECT)), path.read_text(encoding="utf-8")


def test_pages_and_examples_import_public_modules_only() -> None:
    """Show users no module that may change in any version (docs/decisions/0013)."""
    public = {"headrace", *(f"headrace.{name}" for name in (*SUBMODULES, "jax", "keras", "torch"))}
    found = {
        (page, name)
        for page, code in _pages()
        for name in re.findall(r"^\s*(?:>>> |\.\.\. )?(?:from|import) (headrace[\w.]*)", code, re.MULTILINE)
    }
    assert len(found) > 40
    assert {(page, name) for page, name in found if name not in public} == set()


@pytest.mark.parametrize("module", ["headrace", *(f"headrace.{name}" for name in SUBMODULES)])
def test_public_names_are_sorted_and_exist(module: str) -> None:
    """Keep __all__ sorted, complete and true, in the package and in its public submodules."""
    public = import_module(module)
    assert public.__all__ == sorted(public.__all__)
    assert all(hasattr(public, name) for name in public.__all__)


def test_the_package_exports_what_most_scripts_need() -> None:
    """Export at most 45 names, and nothing that is not in __all__ but submodules."""
    public = {
        name for name, thing in vars(headrace).items() if not name.startswith("_") and not inspect.ismodule(thing)
    }
    assert public == set(headrace.__all__) - {"__version__"}
    assert len(headrace.__all__) <= MOST_NAMES


@pytest.mark.parametrize(("module", "name"), _public())
def test_public_names_are_documented(module: str, name: str) -> None:
    """Open every public docstring with one sentence; and give all but errors and records an example that runs."""
    thing = getattr(import_module(module), name)
    doc = inspect.getdoc(thing)
    assert doc
    assert doc.split("\n\n")[0].rstrip().endswith((".", ":", "all.")) or ":" in doc.split("\n\n")[0]
    error = inspect.isclass(thing) and issubclass(thing, BaseException)
    if not error and name not in WITHOUT_EXAMPLE:
        assert ">>>" in doc


def test_the_version_is_told_once() -> None:
    """Agree with the installed package and the changelog."""
    assert version("headrace") == headrace.__version__
    changelog = Path(__file__).parent.parent / "CHANGELOG.md"
    heading = f"## {headrace.__version__}" if "dev" not in headrace.__version__ else "## 0.1.0 (unreleased)"
    assert heading in changelog.read_text(encoding="utf-8")


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


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imported() -> dict[str, set[str]]:
    """Return what each module imports of the package, in functions and for type checkers too."""
    modules = {_module(path): path for path in ROOT.rglob("*.py")}
    imported: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ImportFrom) and node.module:
                full = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
                imported[name] |= {found if found in modules else node.module for found in full.values()}
            elif isinstance(node, ast.Import):
                imported[name] |= {alias.name for alias in node.names}
        imported[name] = (imported[name] & modules.keys()) - {name}
    return imported


def _cycles(imported: dict[str, set[str]]) -> list[set[str]]:
    """Return the sets of modules that reach each other."""
    reached = {}
    for name in imported:
        seen, ahead = set[str](), [name]
        while ahead:
            new = imported[ahead.pop()] - seen
            seen |= new
            ahead += new
        reached[name] = seen
    return [{one for one in reached[name] if name in reached[one]} for name in reached if name in reached[name]]


def test_no_weak_set_is_used() -> None:
    """Ctrl-C in the callbacks of a `WeakSet` would be lost: see ``context/dropped.py``."""
    assert [str(path) for path in sorted(ROOT.rglob("*.py")) if "WeakSet(" in path.read_text("utf-8")] == []


def test_no_files_import_each_other_in_a_circle() -> None:
    """Find no circle of files, type-only imports counted, outside the listed packages."""
    assert not [cycle for cycle in _cycles(_imported()) if not all(name.startswith(CIRCULAR) for name in cycle)]


def _sources(*suffixes: str) -> Iterator[tuple[str, Path]]:
    for folder in ("src", "tests", "benchmarks", "docs", "examples", "scripts"):
        for path in sorted((PROJECT / folder).rglob("*")):
            parts = path.relative_to(PROJECT)
            if path.suffix in suffixes and not any(part.startswith((".", "CMakeFiles")) for part in parts.parts):
                yield str(parts), path


def test_no_file_is_long() -> None:
    """Split a file of Python or C++ before it has more than 600 lines."""
    long = {name for name, path in _sources(".py", ".cpp", ".hpp") if _lines(path) > MOST_LINES}
    assert not long


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_function_is_long_and_no_class_is_wide() -> None:
    """Keep functions within 60 lines, of C++ too, and classes within 25 public methods."""
    long, wide = set(), set()
    for name, path in _sources(".py"):
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if (node.end_lineno or 0) - node.lineno >= MOST_IN_FUNCTION:
                    long.add(f"{name}: {node.name}")
            elif isinstance(node, ast.ClassDef) and not name.startswith("tests"):
                methods = [one.name for one in node.body if isinstance(one, ast.FunctionDef)]
                if len([one for one in methods if not one.startswith("_")]) > MOST_METHODS:
                    wide.add(f"{name}: {node.name}")
    for name, path in _sources(".cpp", ".hpp"):
        long |= {f"{name}: {function}" for function in _long_functions(path.read_text(encoding="utf-8"))}
    assert not long - LONG_FUNCTIONS
    assert not wide


def _long_functions(text: str) -> Iterator[str]:
    """Name the long functions of C++: braces after a parenthesis, outside of any other such braces."""
    text = re.sub(r'"(\\.|[^"\\\n])*"|\'(\\.|[^\'\\\n])\'|//[^\n]*|^ *#[^\n]*', "", text, flags=re.MULTILINE)
    scopes: list[tuple[int, str] | None] = []
    head = ""
    for number, line in enumerate(text.splitlines(), 1):
        for letter in line:
            if letter == "{":
                inside = any(scope is not None for scope in scopes)
                function = None if inside else re.search(r"(\w+)\s*\(", head)
                scopes.append((number, function.group(1)) if function else None)
            elif letter == "}" and scopes:
                scope = scopes.pop()
                if scope is not None and number - scope[0] >= MOST_IN_FUNCTION:
                    yield scope[1]
            head = "" if letter in "{};" else head + letter
        head += " "


def test_no_dataset_or_transform_is_told_apart_by_its_exact_type() -> None:
    """Compare exact types in listed files only, each with its reason; those of plain data anywhere."""
    wrong = []
    for path in ROOT.rglob("*.py"):
        name = str(path.relative_to(ROOT))
        for node in ast.walk(_tree(path)):
            sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
            asked = [one for one in sides if isinstance(one, ast.Call) and ast.unparse(one.func) == "type"]
            others = [one for side in sides if side not in asked for one in getattr(side, "elts", [side])]
            plain = {ast.unparse(one) for one in others} <= PLAIN_TYPES and others
            if asked and not plain and name not in EXACT_TYPES:
                wrong.append(f"{name}:{node.lineno}: {ast.unparse(node)}")
    assert not wrong


def _messages(path: Path) -> Iterator[tuple[int, str]]:
    """Give the text of errors and warnings, and the first lines of docstrings, with their places."""
    for node in ast.walk(_tree(path)):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if isinstance(node, ast.Raise) or called.rpartition(".")[2] == "warn":
            texts = [one for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            yield from ((one.lineno, str(one.value)) for one in texts)
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            first = (ast.get_docstring(node) or "").partition("\n")[0]
            yield getattr(node, "lineno", 1), first


def _native_messages(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        yield from ((number, text) for text in re.findall(r'"((?:\\.|[^"\\])*)"', line) if "#include" not in line)


def test_messages_use_the_words_of_the_field() -> None:
    """Find no banned word in errors, warnings and the first lines of docstrings."""
    wrong = []
    for path in sorted(ROOT.rglob("*")):
        name = str(path.relative_to(ROOT))
        if path.suffix not in (".py", ".cpp", ".hpp") or "CMakeFiles" in name:
            continue
        for line, text in _messages(path) if path.suffix == ".py" else _native_messages(path):
            wrong += [f"{name}:{line}: {found.group()!r} in {text!r}" for found in BANNED.finditer(text)]
    assert not wrong


def _constructed(tree: ast.Module) -> Iterator[tuple[int, str, set[str | None]]]:
    """Give the place, the class and the keywords of each error of ours that a file constructs."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            ours = name in headrace.errors.__all__ and issubclass(getattr(headrace.errors, name), HeadraceError)
            if ours or name in COMMAND_ERRORS:
                yield node.lineno, name, {keyword.arg for keyword in node.keywords}


def test_errors_say_what_was_expected_or_what_to_do() -> None:
    """Pass `expected` or `cure` to every error, so that a program can read them as attributes."""
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {kind}"
        for path in sorted(ROOT.rglob("*.py"))
        for line, kind, parts in _constructed(_tree(path))
        if not parts & {"expected", "cure"} and path != ROOT / "errors.py"
    ]
    assert not wrong
