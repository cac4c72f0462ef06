"""The site's galleries, plots and short pages: each sampler and dataset is there, and each example is short."""

from __future__ import annotations

import re
import sys
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from headrace import datasets, samplers

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "docs" / "guide"
sys.path.insert(0, str(ROOT / "docs" / "site"))
drawing = pytest.importorskip("drawing")
galleries = pytest.importorskip("galleries")
galleries_datasets = pytest.importorskip("galleries_datasets")
galleries_samplers = pytest.importorskip("galleries_samplers")
plots = pytest.importorskip("plots")
sys.path.pop(0)

CODE = re.compile(r"^```python\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


def _sections(page: str) -> dict[str, str]:
    parts = re.split(r"^## ", (GUIDE / page).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {part.splitlines()[0]: part for part in parts}


def test_each_of_eight_kinds_of_user_has_a_script_under_20_lines() -> None:
    """Count the lines of each script of the page, which test_docs.py runs."""
    found = {name: CODE.findall(part) for name, part in _sections("start.md").items()}
    assert list(found) == [
        "torch", "Keras", "JAX", "Language models", "Vision", "Audio", "Coursework", "Tables and arrays",
    ]  # fmt: skip
    for name, codes in found.items():
        assert len(codes) == 1, name
        lines = [line for line in codes[0].splitlines() if line.strip() and not line.startswith(("import ", "from "))]
        assert len(lines) < 20, name


def test_a_recipe_is_about_ten_lines() -> None:
    """Keep recipes short: one question, one answer."""
    recipes = _sections("how-to.md")
    assert len(recipes) >= 12
    for name, part in recipes.items():
        (code,) = CODE.findall(part)
        assert len(code.splitlines()) <= 15, name


def test_the_install_page_has_each_extra() -> None:
    """Name every extra of pyproject.toml in the table."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    named = re.findall(
        r"^\| ((?:`[\w-]+`(?:, )?)+) \|", (GUIDE / "install.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {name for cell in named for name in re.findall(r"`([\w-]+)`", cell)} == set(extras)


def test_each_sampler_and_each_dataset_is_in_its_gallery() -> None:
    """Draw or name every public sampler and dataset."""
    drawn = {entry.name for entry in galleries_samplers.entries()}
    assert drawn | set(galleries.read("samplers")["not drawn"]) == set(samplers.__all__)
    shown = {entry.name for entry in galleries_datasets.entries()}
    classes = {name for name in datasets.__all__ if name[0].isupper()} - galleries_datasets.BASES
    assert classes <= shown | set(galleries.read("datasets")["not shown"])
    assert shown <= set(datasets.__all__)


@pytest.mark.parametrize("name", [entry.name for entry in galleries_samplers.entries()])
def test_the_batches_of_a_sampler_are_drawn(name: str) -> None:
    """Run the code of each entry; the drawing is XML with a number for each sample."""
    entry = next(one for one in galleries_samplers.entries() if one.name == name)
    root = ET.fromstring(galleries_samplers.drawn(entry))
    texts = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert sum(text.split(":")[0].isdigit() for text in texts) >= 8


def test_the_examples_of_datasets_are_read_and_shown() -> None:
    """Make, read and show each example whose package is installed, photographs as images."""
    pytest.importorskip("PIL")
    with galleries.photos():
        for entry in galleries_datasets.entries():
            if entry.needs:
                pytest.importorskip(entry.needs)
            figure = galleries_datasets.shown(entry)
            images = entry.name in {"CIFAR10", "FaceDataset"} or any(
                "160, 160" in cell for row in figure.rows for cell in row
            )
            assert (figure.png is not None) == images, entry.name


def test_a_table_of_rates_becomes_bars_with_the_spread_of_its_rounds() -> None:
    """Read median, smallest and largest; draw a logarithmic axis where short bars would look alike."""
    table = "| runner | images/s |\n| --- | ---: |\n| headrace | 1,733 (1,725..1,776) |\n| torch | 678 (542..699) |\n"
    unit, rows = plots.bars_of(table)
    assert (unit, rows) == ("images/s", [("headrace", 1733.0, 1725.0, 1776.0), ("torch", 678.0, 542.0, 699.0)])
    assert "logarithmic" not in drawing.bars(rows, unit, "headrace", "photos")
    assert "logarithmic axis" in drawing.bars([*rows, ("slow", 3.0, 3.0, 3.0)], unit, "headrace", "photos")
    assert plots.bars_of("| a | b |\n| --- | --- |\n| x | y |\n") is None


def test_the_pages_of_measurements_have_plots_and_the_two_numbers_of_the_start_page(tmp_path: Path) -> None:
    """Find plots in each page with rates, and the numbers in the pages that measured them."""
    pages = {name: (ROOT / "benchmarks" / name).read_text(encoding="utf-8") for name in ("RESULTS.md", "CHAOS.md")}
    text = plots.with_plots(pages["RESULTS.md"], "benchmarks/results.md", tmp_path)
    made = sorted((tmp_path / "benchmarks").glob("*.svg"))
    assert len(made) >= 4
    assert all(f"]({path.name})" in text for path in made)
    for path in made:
        ET.parse(path)
    (rate, about), (lost, _) = plots.numbers(pages["RESULTS.md"], pages["CHAOS.md"])
    assert f"| headrace | 2 threads | {rate.split()[0]} " in pages["RESULTS.md"]
    assert "torchvision" in about
    assert lost == "0 samples"
