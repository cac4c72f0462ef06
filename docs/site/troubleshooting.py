"""The page of errors: what each class means, what to do, and each message that the source has."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import headrace
from headrace import errors

SOURCE = Path(headrace.__file__).parent


def page() -> str:
    """Return the page, in reStructuredText: a section for each error, with an anchor that is the name of its class."""
    found = messages()
    text = "Troubleshooting, by error\n=========================\n\n"
    text += (
        "An error says what happened, what was expected and what to do. The parts are attributes too:\n"
        "``error.what``, ``error.found``, ``error.expected``, ``error.cure``, ``error.path``, ``error.index``.\n"
        "The headings are the classes, which Python names before the message: ``headrace.errors.BadFile: …``. "
        "``error.entry`` is the link to its section.\n"
        "Below, ``…`` is a value. Search this page, or the site, for the words of your message.\n\n"
    )
    for name in errors.__all__:
        kind = getattr(errors, name)
        text += f".. _{name}:\n\n{name}\n{'-' * len(name)}\n\n"
        bases = ", ".join(f"``{base.__name__}``" for base in kind.__bases__ if not base.__name__.startswith("_"))
        doc, _, example = (inspect.getdoc(kind) or "").partition("\n\n>>>")
        del example
        text += f"{doc}\n\nIt is also: {bases}. :doc:`Reference <reference/headrace.errors.{name}>`.\n\n"
        rows = sorted(found.get(name, {}).items())
        if rows:
            text += ".. list-table::\n   :header-rows: 1\n   :widths: 50 50\n   :class: messages\n\n"
            text += "   * - message\n     - what to do\n"
            text += "".join(f"   * - {_escaped(what)}\n     - {_escaped(cure)}\n" for what, cure in rows) + "\n"
    return text


def messages() -> dict[str, dict[str, str]]:
    """Return the messages of each class that the source constructs, with what to do."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        if path.name == "errors.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func).rpartition(".")[2]
            if name not in errors.__all__ or not node.args:
                continue
            what = _text(node.args[0])
            parts = {one.arg: _text(one.value) for one in node.keywords}
            said = [("Expected: ", parts.get("expected", "")), ("", parts.get("cure", ""))]
            advice = " ".join(_sentence(mark + text) for mark, text in said if text.strip("… "))
            if what.strip("…: ") and advice:
                found.setdefault(name, {})[what] = advice
    return found


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:].rstrip(".") + "."


def _text(node: ast.expr) -> str:
    """Return the text of a string in the source, with … for each value in it."""
    if isinstance(node, ast.Constant):
        return str(node.value) if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(one.value if isinstance(one, ast.Constant) else "…" for one in node.values)  # type: ignore[misc]
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return "…"


def _escaped(text: str) -> str:
    text = re.sub("…+", "…", " ".join(text.split()))
    parts = re.split("`([^`]+)`", text)
    parts[::2] = [re.sub(r"([\\*`_|])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"\\ ``{part}``\\ " for part in parts[1::2]]
    return "".join(parts)
