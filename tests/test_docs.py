"""What README and guide say, runs and prints what they say it prints."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest

import headrace
from headrace.executors import shared_preparation

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
CONTRIBUTING = sorted((ROOT / "docs" / "contributing").glob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
FRAMEWORK = re.compile(r"\b(accelerate|jax|keras|lightning|orbax|pyarrow|ray|torch|torchvision)\b")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)")
CLASSES = ["astronaut", "coffee", "rocket"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of class folders with four crops each of bundled photographs."""
    image = pytest.importorskip("PIL.Image")
    for name in CLASSES:
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        with image.open(Path(headrace.__file__).parent / "demo" / f"{name}.jpg") as photograph:
            for number in range(4):
                photograph.crop((number * 30, 20, number * 30 + 160, 180)).save(folder / f"{number}.jpg")
    return tmp_path


def _frameworks(section: str) -> frozenset[str]:
    return frozenset(name for code, _ in BLOCK.findall(section) for name in FRAMEWORK.findall(code))


def _parts() -> dict[str, str]:
    """Give each page in one part, and its sections that need a framework each in another."""
    parts = {}
    for page in PAGES:
        sections = re.split(r"^(?=## )", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        parts[page.name] = "".join(section for section in sections if not _frameworks(section))
        for section in filter(_frameworks, sections):
            parts[f"{page.name} {section.splitlines()[0]} ({', '.join(sorted(_frameworks(section)))})"] = section
    return parts


PARTS = _parts()


@pytest.mark.parametrize("name", PARTS)
def test_a_pages_code_runs_and_prints_what_it_says(name: str, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the blocks of a page one after the other, as a reader would, and compare what they print."""
    part = PARTS[name]
    for framework in sorted(_frameworks(part)):
        pytest.importorskip(framework)
    monkeypatch.chdir(photos)
    # Another test run on this machine may read the same page at this time.
    monkeypatch.setattr(shared_preparation, "store_folder", lambda name: photos / "batches" / name)
    names: dict[str, object] = {"__name__": name}
    for code, expected in BLOCK.findall(part):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            if _frameworks(part):  # what they call of one another is none of ours
                warnings.simplefilter("ignore", DeprecationWarning)
                warnings.simplefilter("ignore", FutureWarning)
                warnings.filterwarnings("ignore", module="lightning")  # advice on the number of workers
            exec(compile(code, name, "exec", dont_inherit=True), names)
        if expected:
            assert printed.getvalue() == expected


STARTS = dict(
    re.findall(
        r"^## (.*?)\n.*?^```python\n(.*?)^```\n",
        (ROOT / "docs" / "guide" / "start.md").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
)


@pytest.mark.parametrize("name", STARTS)
def test_each_way_to_start_is_a_short_script(name: str, photos: Path) -> None:
    """Run it as its reader does, in a file, beside a folder of images."""
    code = STARTS[name]
    for framework in sorted(_frameworks(f"```python\n{code}```\n")):
        if find_spec(framework) is None:
            pytest.skip(f"needs {framework}")
    assert len(code.splitlines()) <= 20
    assert max(map(len, code.splitlines())) <= 100  # what the site shows without scrolling
    (photos / "train.py").write_text(code, encoding="utf-8")
    command = [sys.executable, "train.py"]
    done = subprocess.run(command, cwd=photos, check=False, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_there_is_a_way_to_start_for_each_kind_of_user() -> None:
    """Have the users that the start page lists."""
    assert list(STARTS) == [
        "torch", "Keras", "JAX", "Language models", "Vision", "Audio", "Coursework", "Tables and arrays",
    ]  # fmt: skip


@pytest.mark.parametrize("page", CONTRIBUTING, ids=lambda page: page.stem)
def test_a_contributors_page_is_a_test_file(page: Path, tmp_path: Path) -> None:
    """Run the code of a page by pytest, as a contributor would: the suites that its classes inherit pass."""
    code = [code for code, _ in BLOCK.findall(page.read_text(encoding="utf-8"))]
    (tmp_path / "test_page.py").write_text("\n\n".join(code), encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert int(re.search(r"(\d+) passed", run.stdout).group(1)) >= 8, "no suite was inherited"  # type: ignore[union-attr]


@pytest.mark.parametrize("page", sorted({*PAGES, *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")}), ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Find every file that a page links to."""
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
