"""Sphinx's settings: see `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))

import reference

import headrace

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "headrace"
author = "the headrace developers"
release = headrace.__version__
version = release.partition("+")[0]  # without the commit, which does not fit beside the search
extensions = ["myst_parser", "sphinx.ext.autodoc"]
templates_path: list[str] = []
root_doc = "index"

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # a table of the arguments has them: see reference.py
autodoc_preserve_defaults = True
add_module_names = False
toc_object_entries = False
default_role = "py:obj"
suppress_warnings = ["misc.highlighting_failure"]  # an outline with … in it is no Python, and need not be

myst_heading_anchors = 4
myst_enable_extensions: list[str] = []

html_theme = "furo"
html_title = f"headrace {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "a11y-light"
pygments_dark_style = "a11y-dark"


def setup(app: Sphinx) -> dict[str, Any]:
    """Add signatures, the tables of arguments, and links from unqualified names in docstrings."""
    app.connect("autodoc-process-signature", reference.own_signature)
    app.connect("autodoc-process-docstring", reference.add_arguments)
    app.connect("autodoc-process-bases", reference.keep_public_bases)
    app.connect("missing-reference", reference.resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
