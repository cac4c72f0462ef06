"""What the documentation site promises: a page for each public name, an entry for each error, no dead table."""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace import errors

ROOT = Path(__file__).parent.parent
HTML = os.environ.get("HEADRACE_SITE")
"""The folder of the site that `make docs` has just built; an older one may lack what is public now."""

sys.path.insert(0, str(ROOT / "docs" / "site"))
reference = pytest.importorskip("reference")
gallery = pytest.importorskip("gallery")
stage = pytest.importorskip("stage")
troubleshooting = pytest.importorskip("troubleshooting")
sys.path.pop(0)


@pytest.fixture(scope="module")
def built() -> Path:
    """The folder of the built site."""
    if HTML is None:
        pytest.skip("needs the site: make docs")
    return Path(HTML)


@pytest.fixture(scope="module")
def index(built: Path) -> dict[str, Any]:
    """The index that the site's search reads."""
    text = (built / "searchindex.js").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text[text.index("{") : text.rindex("}") + 1])
    return found


def test_the_gallery_shows_each_public_transform() -> None:
    """Name each, or say why it has no image; and let each image of the committed page be there."""
    public = {name: getattr(headrace.transforms, name) for name in headrace.transforms.__all__}
    bases = {"Transform", "ImageTransform", "GeometricTransform"}
    found = {
        name for name, thing in public.items() if isinstance(thing, type) and issubclass(thing, public["Transform"])
    }
    assert found - bases <= gallery.shown_names() | gallery.NOT_SHOWN.keys()
    shown = {entry.name for _, shown in gallery.entries() for entry in shown}
    assert shown == (found - bases - gallery.NOT_SHOWN.keys()) | {"Mosaic", "CopyPaste"}
    text = (ROOT / "docs" / "guide" / "gallery.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^### (\w+)$", text, re.MULTILINE)) <= gallery.shown_names()


def test_the_images_of_the_gallery_are_the_same_whenever_they_are_made() -> None:
    """Draw the photograph before and after, several times where the transform draws, the same each time."""
    by_name = {entry.name: entry for _, shown in gallery.entries() for entry in shown}
    for name, tiles in (
        ("RandomRotation", 4), ("LetterBox", 2), ("RandomErasing", 4), ("TenCrop", 6), ("CutMix", 5), ("Mosaic", 4),
    ):  # fmt: skip
        one, other = gallery.strip(by_name[name]), gallery.strip(by_name[name])
        assert one.size == (tiles * (gallery.WIDTH + gallery.GAP) - gallery.GAP, gallery.HEIGHT)
        assert one.tobytes() == other.tobytes()
        before, after = (one.crop((x, 0, x + gallery.WIDTH, gallery.HEIGHT)) for x in (0, gallery.WIDTH + gallery.GAP))
        assert before.tobytes() != after.tobytes()


def _homes() -> list[str]:
    return sorted({reference.home(module, name) for module, names in reference.public().items() for name in names})


def test_the_reference_has_a_page_for_each_public_name_and_module(tmp_path: Path) -> None:
    """Write a page for each name of each public module, adapters too, without importing a framework."""
    reference.write(tmp_path / "reference")
    pages = {path.stem for path in (tmp_path / "reference").iterdir()}
    assert pages == {*_homes(), *reference.MODULES, "index"}
    loader = (tmp_path / "reference" / "headrace.jax.DataLoader.rst").read_text(encoding="utf-8")
    assert "sharding" in loader
    assert not {"torch", "jax", "keras"} & sys.modules.keys() or "torch" in sys.modules


def test_the_adapters_names_in_the_reference_are_public() -> None:
    """List names of an adapter that its `__all__` has, as its source says."""
    for module, names in reference.ADAPTERS.items():
        folder = Path(headrace.__file__).parent / module.rpartition(".")[2]
        path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        source = path.read_text(encoding="utf-8")
        listed = re.findall(r'"(\w+)"', source.partition("__all__ = [")[2].partition("]")[0])
        assert set(names) <= set(listed), module


def test_the_troubleshooting_page_has_each_error_and_what_to_do() -> None:
    """Give each class of `headrace.errors` an anchor, its meaning, and its messages with their cures."""
    page = troubleshooting.page()
    for name in errors.__all__:
        assert f".. _{name}:" in page
        assert (getattr(errors, name).__doc__ or "").split("\n")[0] in page
        kind = getattr(errors, name)
        if issubclass(kind, errors.HeadraceError):
            assert kind.__new__(kind).entry == f"troubleshooting.html#{name.lower()}"
    found = troubleshooting.messages()
    for name in set(errors.__all__) - found.keys() - {"HeadraceError"}:  # whose messages the source puts together
        meaning = (getattr(errors, name).__doc__ or "").partition(">>>")[0]
        assert re.search(r"^    (.*\. )?(Fix|Increase|Draw|Replace|`headrace\.explain`) ", meaning, re.MULTILINE), name
    assert sum(map(len, found.values())) > 150
    assert any("no image in" in what for what in found["MissingFile"])
    assert all(cure for messages in found.values() for cure in messages.values())


def test_the_tables_for_those_who_come_from_another_loader_name_what_exists() -> None:
    """Find each class that the right column names among our public names."""
    public = {name for names in reference.public().values() for name in names}
    guide = ROOT / "docs" / "guide"
    text = "\n".join(
        path.read_text(encoding="utf-8") for path in [guide / "coming-from.md", *sorted(guide.glob("from-*.md"))]
    )
    rows = re.findall(r"^\|.*\| (.*) \|$", text, re.MULTILINE)
    named = {name for row in rows for code in re.findall(r"`([^`]*)`", row) for name in re.findall(r"\b[A-Z]\w+", code)}
    assert len(named) > 25
    assert named - public - {"DST", "SRC", "True", "False", "None"} == set()


def test_each_library_that_readers_come_from_has_a_table() -> None:
    """Have a section for each, with a table or a page of its own that exists."""
    text = (ROOT / "docs" / "guide" / "coming-from.md").read_text(encoding="utf-8")
    sections = {part.splitlines()[0]: part for part in text.split("\n## ")[1:]}
    assert list(sections) == [
        "torch.utils.data", "torchdata", "torchvision", "albumentations", "WebDataset", "Mosaic Streaming", "LitData",
        "Grain", "tf.data", "DALI", "FFCV", "Hugging Face datasets",
    ]  # fmt: skip
    for name, part in sections.items():
        assert part.count("\n| ") > 5 or re.search(r"\]\(from-\w+\.md", part), name


def test_the_arguments_that_the_tables_name_exist() -> None:
    """Find each ``Name(argument=…)`` of the right columns in our signatures."""
    guide = ROOT / "docs" / "guide"
    pages = [guide / "coming-from.md", *sorted(guide.glob("from-*.md"))]
    homes = [import_module(module) for module in reference.public() if module not in reference.ADAPTERS]
    calls = 0
    for row in re.findall(
        r"^\|.*\| (.*) \|$", "\n".join(page.read_text(encoding="utf-8") for page in pages), re.MULTILINE
    ):
        for name, given in re.findall(r"\b([A-Z]\w+|random_split|open_shards)\(([^()]*)\)", row):
            found = next((getattr(home, name) for home in homes if hasattr(home, name)), None)
            for argument in re.findall(r"\b([a-z]\w*)=", given):
                assert found is not None, row
                assert argument in inspect.signature(found).parameters, f"{name}({argument}=) in {row}"
                calls += 1
    assert calls > 20


def test_every_committed_page_of_the_guide_is_in_the_site() -> None:
    """Stage all Markdown below docs/, and what it links to."""
    staged = stage.pages()
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")} <= staged.keys()


def test_the_search_finds_each_public_name(index: dict[str, Any]) -> None:
    """Have each public name in the index of the search, as an object with a page."""
    objects = {
        f"{prefix}.{name}": index["docnames"][page]
        for prefix, entries in index["objects"].items()
        for page, *_, name in entries
    }
    missing = [name for name in _homes() if objects.get(name) != f"reference/{name}"]
    assert not missing


def test_each_errors_anchor_is_on_the_built_page(built: Path) -> None:
    """Link to the entry of an error by the name of its class."""
    page = (built / "troubleshooting.html").read_text(encoding="utf-8")
    missing = [name for name in errors.__all__ if f'id="{name.lower()}"' not in page]
    assert not missing


def test_no_built_page_refers_to_a_file_that_is_not_there(built: Path) -> None:
    """Find the target of each link, image, style and script of the site within it."""
    missing = set()
    for page in built.rglob("*.html"):
        for target in re.findall(r'(?:href|src)="([^"#?]+)', page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:|//", target) and not (page.parent / target).exists():
                missing.add((str(page.relative_to(built)), target))
    assert not missing


def test_no_class_on_a_built_page_hides_its_arguments(built: Path) -> None:
    """Show the arguments of the constructor, not of the check of their names."""
    pages = {page.name: page.read_text(encoding="utf-8") for page in (built / "reference").glob("*.html")}
    assert not [name for name, text in pages.items() if ">given<" in text and ">named<" in text]
