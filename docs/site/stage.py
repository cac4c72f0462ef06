"""Collects the pages of the site in one folder: committed Markdown with its links, and pages made from the code."""

from __future__ import annotations

import io
import os
import posixpath
import re
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import galleries
import gallery
import plots
import reference
import troubleshooting

ROOT = Path(__file__).parent.parent.parent
FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"\[([\w-]+)\.md\]\(")
"""A link that shows a file's name, which a site's reader has not got."""
LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
FOLDERS = {"docs/guide": "guide", "docs/decisions": "decisions", "docs/contributing": "contributing"}
SINGLE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing/index.md",
    "benchmarks/ARRAYS.md": "benchmarks/arrays.md",
    "benchmarks/AUGMENTATION.md": "benchmarks/augmentation.md",
    "benchmarks/CHAOS.md": "benchmarks/chaos.md",
    "benchmarks/CLEAN_DATASETS.md": "benchmarks/clean-datasets.md",
    "benchmarks/CLUSTER.md": "benchmarks/cluster.md",
    "benchmarks/DIAGNOSIS.md": "benchmarks/diagnosis.md",
    "benchmarks/EVICTION.md": "benchmarks/eviction.md",
    "benchmarks/FORMATS.md": "benchmarks/formats.md",
    "benchmarks/PACKED.md": "benchmarks/packed.md",
    "benchmarks/PACKING.md": "benchmarks/packing.md",
    "benchmarks/PROCESSES.md": "benchmarks/processes.md",
    "benchmarks/RAY_CHAOS.md": "benchmarks/ray-chaos.md",
    "benchmarks/README.md": "benchmarks/index.md",
    "benchmarks/REMOTE.md": "benchmarks/remote.md",
    "benchmarks/REMOTE_KINDS.md": "benchmarks/remote-kinds.md",
    "benchmarks/REMOTE_CHAOS.md": "benchmarks/remote-chaos.md",
    "benchmarks/RESULTS.md": "benchmarks/results.md",
    "benchmarks/SHARING.md": "benchmarks/sharing.md",
    "benchmarks/SMALL_BATCHES.md": "benchmarks/small-batches.md",
    "benchmarks/TOKENS.md": "benchmarks/tokens.md",
    "benchmarks/TUNING.md": "benchmarks/tuning.md",
    "docs/design.md": "design.md",
    "docs/releasing.md": "releasing.md",
    "docs/index.md": "index.md",
    "docs/scaling.md": "scaling.md",
    "examples/README.md": "examples/index.md",
    "src/headrace/demo/README.md": "examples/photographs.md",
}
FIGURES, SHEET, ERRORS = "<!-- figures -->", "<!-- contact sheet -->", "<!-- errors -->"
NUMBERS, GALLERIES = "<!-- numbers -->", "<!-- galleries -->"
"""Where the start page has the README's figures, an image, two numbers, and links to what only the site has."""
SHEET_FILE = "contact-sheet.png"


def pages() -> dict[str, str]:
    """Return the page of each committed Markdown file, by its path in the repository."""
    found = {name: page for name, page in SINGLE.items() if (ROOT / name).exists()}
    for folder, section in FOLDERS.items():
        for path in sorted((ROOT / folder).glob("*.md")):
            name = "index.md" if path.name == "README.md" else path.name
            found[f"{folder}/{path.name}"] = f"{section}/{name}"
    return found


def stage(target: Path) -> None:
    """Write all pages of the site, and the images that they show, to an empty folder."""
    shutil.rmtree(target, ignore_errors=True)
    known = pages()
    sources: dict[str, str] = {}
    for name, page in known.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        if FIGURES in text:
            text = text.replace(FIGURES, _figures() + "\n")
        text = _linked(text, name, page, known, sources, target)
        text = text.replace(SHEET, f"![Photographs before and after random crops]({SHEET_FILE})\n")
        text = text.replace(ERRORS, "[Every error, and what to do](troubleshooting).\n")
        text = text.replace(NUMBERS, _numbers())
        text = text.replace(
            GALLERIES, "[Galleries](galleries/index.md) show what transforms, samplers and datasets give.\n"
        )
        if page.startswith("benchmarks/") and page != "benchmarks/index.md":
            text = plots.with_plots(text, page, target)
        _write(target / page, text + _contents(page, known))
    for name, page in sources.items():
        _write(target / page, _source_page(name, page, target))
    galleries.write(target / "galleries")
    reference.write(target / "reference")
    _write(target / "troubleshooting.rst", troubleshooting.page())
    _sheet(target / SHEET_FILE)
    gallery.write(target / "guide")


def _linked(text: str, name: str, page: str, known: dict[str, str], sources: dict[str, str], target: Path) -> str:
    """Turn the links of a file of the repository into those of its page; add other linked files to the sources."""

    def turned(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(name), match[2]))
        if (ROOT / path).is_dir():
            path = next((f"{path}/{one}" for one in ("README.md", "__init__.py") if (ROOT / path / one).exists()), path)
        if path in known:
            found = known[path]
        elif path == "README.md":
            found = "index.md"
        elif Path(path).suffix in {".png", ".jpg", ".svg", ".webp"}:
            found = posixpath.join(posixpath.dirname(page), posixpath.basename(path))
            (target / found).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, target / found)
        elif (ROOT / path).is_file():
            found = sources[path] = f"sources/{path}.md"
        else:
            return match[0]  # a page of the site, which the repository does not have
        return f"{match[1]}{posixpath.relpath(found, posixpath.dirname(page))}{match[3] or ''})"

    parts = FENCE.split(text)
    parts[::2] = [LINK.sub(turned, FILE_NAME.sub(r"[\1](", part)) for part in parts[::2]]
    return "".join(parts)


def _contents(page: str, known: dict[str, str]) -> str:
    """Return what a section's first page lists on its left: the pages in the order in which it links to them."""
    if page == "index.md":
        entries = ["guide/index", "galleries/index", "reference/index", "troubleshooting"]
        more = [
            "examples/index",
            "benchmarks/index",
            "design",
            "scaling",
            "decisions/index",
            "contributing/index",
            "releasing",
            "changelog",
        ]
        return _toctree(entries, "Use headrace") + _toctree(more, "The project")
    if posixpath.basename(page) != "index.md":
        return ""
    section = posixpath.dirname(page)
    name = next(name for name, one in known.items() if one == page)
    linked = [one for _, one, _ in LINK.findall((ROOT / name).read_text(encoding="utf-8"))]
    order = [known.get(posixpath.normpath(posixpath.join(posixpath.dirname(name), one)), "") for one in linked]
    order += sorted(known.values())
    entries = [one for one in dict.fromkeys(order) if posixpath.dirname(one) == section and one != page]
    return _toctree([posixpath.basename(one).removesuffix(".md") for one in entries], "")


def _toctree(entries: list[str], caption: str) -> str:
    options = f":caption: {caption}\n" if caption else ""
    return f"\n\n```{{toctree}}\n:hidden:\n{options}\n" + "\n".join(entries) + "\n```\n" if entries else ""


def _figures() -> str:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^## How fast\n(.*?)^## ", readme, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError("README.md has no section 'How fast', which the start page shows")
    return found[1].strip().replace("](benchmarks/", "](../benchmarks/")


def _numbers() -> str:
    results, chaos = ((ROOT / "benchmarks" / name).read_text(encoding="utf-8") for name in ("RESULTS.md", "CHAOS.md"))
    return "".join(f"- **{number}** {about}\n" for number, about in plots.numbers(results, chaos))


def _source_page(name: str, page: str, target: Path) -> str:
    path = os.path.relpath(ROOT / name, (target / page).parent)
    language = {".py": "python", ".toml": "toml", ".sh": "bash"}.get(Path(name).suffix, "text")
    return f"---\norphan: true\n---\n# `{name}`\n```{{literalinclude}} {path}\n:language: {language}\n```\n"


def _sheet(path: Path) -> None:
    """Save the start page's image: the demo's photographs before and after the usual transforms."""
    import headrace
    from headrace import RandomHorizontalFlip, RandomResizedCrop
    from headrace.image.sheet import Pair, contact_sheet

    files = sorted((Path(headrace.__file__).parent / "demo").glob("*.jpg"))[:4]
    dataset = headrace.ImageFiles(files)
    augmented = dataset.map(RandomResizedCrop(224), RandomHorizontalFlip())
    (batch, _), *_others = headrace.DataLoader(augmented, len(files), seed=3)
    pairs = [
        Pair(image, after, file.stem, f"{image.shape[1]} x {image.shape[0]} to 224 x 224")
        for file, (image, _), after in zip(files, dataset, batch, strict=True)
    ]
    subtitle = "RandomResizedCrop(224), flips; seed 3"
    sheet = contact_sheet(pairs, title="A batch, before and after", subtitle=subtitle, columns=2)
    png = io.BytesIO()
    sheet.save(png, "PNG")
    path.write_bytes(png.getvalue())


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    stage(Path(sys.argv[1]).resolve())
