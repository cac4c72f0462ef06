"""Opens pages of the built site in Chromium, at three widths, in both themes; fails where one has a defect.

``python docs/site/screenshots.py build/site/html build/site/screenshots``: a PNG of each goes to the second folder.
A defect: sideways scrolling, an image that is not shown, text of too little contrast, an error of a script, a search
that does not find a public name.
"""

from __future__ import annotations

import os
import shutil
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parent))

import reference

PAGES = [
    "index", "guide/index", "guide/torch", "guide/shards", "guide/faces", "guide/coming-from", "guide/start",
    "guide/how-to", "guide/install", "guide/gallery", "galleries/index", "galleries/samplers", "galleries/datasets",
    "galleries/sheets", "design", "reference/index", "reference/headrace", "reference/headrace.DataLoader",
    "reference/headrace.torch.DataLoader", "reference/headrace.datasets.ImageFolder", "troubleshooting",
    "benchmarks/results", "changelog",
]  # fmt: skip
WIDTHS = (360, 800, 1400)
THEMES = ("light", "dark")
LEAST_CONTRAST = 4.5
"""What WCAG 2 asks of text of usual size, at level AA."""
SCROLLED_WIDTHS = range(320, 2001, 40)
"""Between them, no page may scroll sideways either: columns come and go with the width."""
MOST_HEIGHT = 4000
"""How much of a long page a screenshot shows."""

FIND_DEFECTS = """(least) => {
  const found = [];
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide > 0) {
    const edge = document.documentElement.clientWidth;
    const boxes = [...document.querySelectorAll("article *")].filter(e => e.getBoundingClientRect().right > edge + 1);
    found.push(`scrolls sideways by ${wide} px: ${boxes.slice(0, 3).map(e => e.outerHTML.slice(0, 80)).join(" | ")}`);
  }
  for (const image of document.images)
    if (!image.complete || !image.naturalWidth) found.push(`no image: ${image.src}`);
  const numbers = (color) => {
    const parts = color.match(/[\\d.]+/g).map(Number);
    return parts.length < 4 ? [...parts, 1] : parts;
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = numbers(getComputedStyle(e).backgroundColor);
      if (color[3] > 0.99) return color;
    }
    return numbers(getComputedStyle(document.body).backgroundColor);
  };
  const seen = new Set();
  const walker = document.createTreeWalker(document.querySelector("article"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const box = element.getBoundingClientRect();
    const style = getComputedStyle(element);
    const hidden = style.visibility === "hidden" || Number(style.opacity) < 0.5 || element.closest(".headerlink");
    if (!walker.currentNode.data.trim() || !box.width || hidden) continue;
    const [front, back] = [light(numbers(style.color)), light(behind(element))];
    const contrast = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    const name = `${element.tagName}.${element.className} ${style.color}`;
    if (contrast < least && !seen.has(name)) {
      seen.add(name);
      found.push(`contrast ${contrast.toFixed(2)}: ${name} ${walker.currentNode.data.trim().slice(0, 40)}`);
    }
  }
  return found;
}"""


class Quiet(SimpleHTTPRequestHandler):
    """Serves the files of the site, and says nothing about it."""

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Serves a browser that leaves a page before all of it has come."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a connection that the browser closed; an image that does not come is a defect of its page."""


def check(site: Path, output: Path) -> list[str]:
    """Return the defects of the pages; save a screenshot of each."""
    server = Server(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    Thread(target=server.serve_forever, daemon=True).start()
    home = f"http://127.0.0.1:{server.server_address[1]}"
    defects: list[str] = []
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=_chromium(), args=["--no-sandbox"])
            for theme in THEMES:
                for width in WIDTHS:
                    defects += _looked_at(browser, home, theme, width, output)
            defects += _scrolling(browser, home)
            defects += _not_found(browser, home)
            browser.close()
    finally:
        server.shutdown()
    return defects


def _looked_at(browser: Any, home: str, theme: Any, width: int, output: Path) -> list[str]:
    defects: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    page = context.new_page()
    page.on("pageerror", lambda error: defects.append(f"{page.url}: {error}"))
    for name in PAGES:
        page.goto(f"{home}/{name}.html")
        found = page.evaluate(FIND_DEFECTS, LEAST_CONTRAST)
        defects += [f"{name}, {width} px, {theme}: {defect}" for defect in found]
        path = output / f"{name.replace('/', '-')}-{width}-{theme}.png"
        height = min(MOST_HEIGHT, page.evaluate("document.documentElement.scrollHeight"))
        page.screenshot(path=path, full_page=True, clip={"x": 0, "y": 0, "width": width, "height": height})
    context.close()
    return defects


def _scrolling(browser: Any, home: str) -> list[str]:
    page = browser.new_page()
    defects = []
    for name in PAGES:
        page.goto(f"{home}/{name}.html")
        for width in SCROLLED_WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            if wide > 0:
                defects.append(f"{name}, {width} px: scrolls sideways by {wide} px")
    return defects


def _not_found(browser: Any, home: str) -> list[str]:
    """Search for each public name, as a reader would, and name those that the first results do not have."""
    page = browser.new_page()
    page.goto(f"{home}/search.html?q=DataLoader")
    page.wait_for_selector("ul.search li a")
    missing = []
    for module, names in reference.public().items():
        for name in names:
            page.goto(f"{home}/search.html?q={name}")
            page.wait_for_selector("ul.search li a, p.search-summary:not(:empty)")
            wanted = f"{reference.home(module, name)}.html"
            try:
                page.wait_for_selector(f'ul.search li a[href*="{wanted}"]', timeout=5000, state="attached")
            except Exception:  # noqa: BLE001  named below, with the others
                missing.append(f"search does not find {module}.{name}")
    return missing


def _chromium() -> str:
    for name in ("CHROMIUM", "chromium", "chromium-browser", "google-chrome"):
        found = os.environ.get(name) if name.isupper() else shutil.which(name)
        if found:
            return found
    raise SystemExit("Chromium is not installed: install the system's package chromium, or set CHROMIUM to its path")


if __name__ == "__main__":
    target = Path(sys.argv[2])
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    problems = check(Path(sys.argv[1]), target)
    print("\n".join(problems) or f"no defect; screenshots: {target}")
    sys.exit(bool(problems))
