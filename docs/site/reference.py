"""The reference: a page for each public name, with a table of its arguments, made from the docstrings."""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import arguments

import headrace

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

MODULES = {
    "headrace": "What most scripts need.",
    "headrace.datasets": "Datasets and their views.",
    "headrace.transforms": "Transforms of samples and images.",
    "headrace.samplers": "Which samples make each batch.",
    "headrace.collate": "Samples to a batch.",
    "headrace.image": "Bytes to pixels.",
    "headrace.errors": "Errors and warnings, with what each says.",
    "headrace.executors": "Executors of your own.",
    "headrace.metrics": "A loader's numbers for Prometheus, OpenTelemetry, TensorBoard and Weights & Biases.",
    "headrace.testing": "Property tests of your dataset, and conformance suites for what you add.",
    "headrace.torch": "Batches of tensors, and torch's names.",
    "headrace.jax": "Batches on JAX devices.",
    "headrace.keras": "A loader for `fit`, `evaluate` and `predict`.",
}
"""The public modules, in the order of the reference."""


ADAPTERS = {
    "headrace.torch": [
        "DataLoader", "StatefulDataLoader", "StatefulDistributedSampler", "as_tensors", "default_collate",
        "default_convert", "on_device", "patch", "pinned", "prepare",
    ],
    "headrace.jax": ["DataLoader", "on_device"],
    "headrace.keras": ["DataLoader"],
}  # fmt: skip
"""The names of the adapters that are ours, not the framework's; read from the source, as no framework is installed."""
PACKAGE = Path(headrace.__file__).parent
MOST_LETTERS = 60
"""How much of a long default a table shows."""
Row = tuple[str, str, str, str]
"""An argument of a table: its name, type and default, and what it does."""


def public() -> dict[str, list[str]]:
    """Return the public names of each module."""
    own = (module for module in MODULES if module not in ADAPTERS)
    return {module: [n for n in import_module(module).__all__ if not n.startswith("_")] for module in own} | ADAPTERS


def home(module: str, name: str) -> str:
    """Return the full name that a public name is documented by: where two modules have it, that of the later one."""
    thing = None if module in ADAPTERS else getattr(import_module(module), name)
    homes = [one for one, names in _ours().items() if name in names and getattr(import_module(one), name) is thing]
    return f"{(homes or [module])[-1]}.{name}"


def _ours() -> dict[str, list[str]]:
    return {module: names for module, names in public().items() if module not in {"headrace", *ADAPTERS}}


def write(folder: Path) -> None:
    """Write a page for each public name, one for each module, and the first page of the reference."""
    folder.mkdir(parents=True)
    for module, names in public().items():
        text = _title(module) + f"\n{MODULES[module]}\n\n.. py:module:: {module}\n\n"
        text += ".. list-table::\n   :widths: 35 65\n   :class: names\n\n"
        for name in names:
            full = home(module, name)
            page, first = _page(full)
            text += f"   * - :doc:`{name} <{full}>`\n     - {first}\n"
            (folder / f"{full}.rst").write_text(page, encoding="utf-8")
        (folder / f"{module}.rst").write_text(text, encoding="utf-8")
    index = _title("API reference")
    index += "\nEvery public name, by module. Everything else may change in any version.\n\n"
    index += ".. list-table::\n   :widths: auto\n   :class: names\n\n"
    index += "".join(f"   * - :doc:`{module}`\n     - {purpose}\n" for module, purpose in MODULES.items())
    index += "\n.. toctree::\n   :hidden:\n\n" + "".join(f"   {module}\n" for module in MODULES)
    (folder / "index.rst").write_text(index, encoding="utf-8")


def _page(full: str) -> tuple[str, str]:
    """Return the page of a name, and the first sentence of its docstring."""
    module, _, name = full.rpartition(".")
    # Hundreds of names in the list on the left of each page would help nobody: the module's page has them.
    text = f":orphan:\n\n{_title(name)}\nIn :doc:`{module}`.\n\n.. currentmodule:: {module}\n\n"
    if module in ADAPTERS:
        described, doc = _from_source(module, name)
        if name == "DataLoader":
            described += "\n".join(["", "The arguments of `headrace.DataLoader`:", *_loader_rows()])
        return text + described, _first(doc)
    thing = getattr(import_module(module), name)
    error = inspect.isclass(thing) and issubclass(thing, BaseException)
    kind = "exception" if error else "class" if inspect.isclass(thing) else "function"
    text += f".. auto{kind}:: {full}\n"
    if kind != "function":
        text += "   :members:\n"
        if thing.__bases__ != (object,):
            text += "   :show-inheritance:\n"
    return text, _first(inspect.getdoc(thing) or "")


def _loader_rows() -> list[str]:
    """Return the table of the arguments that the loaders of all adapters have."""
    loader = headrace.DataLoader
    found = arguments.parameters(loader, "DataLoader")
    return _table([(*_row(one), arguments.of(loader, "DataLoader", one.name)) for one in found])


def _first(doc: str) -> str:
    return doc.partition("\n\n")[0].replace("\n", " ")


def _from_source(module: str, name: str) -> tuple[str, str]:
    """Describe a class or a function of an adapter without importing it; return its docstring too."""
    folder = PACKAGE / module.rpartition(".")[2]
    for path in sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
                return _described(node, name, ""), ast.get_docstring(node) or ""
    raise ValueError(f"{module} has no class or function {name}: correct ADAPTERS in docs/site/reference.py")


def _described(node: ast.ClassDef | ast.FunctionDef, name: str, indent: str, kind: str = "") -> str:
    key = f"{kind}.{name}" if kind else name
    body = [one for one in node.body if isinstance(one, ast.FunctionDef)] if isinstance(node, ast.ClassDef) else []
    made = next((one for one in body if one.name == "__init__"), None)
    function = node if isinstance(node, ast.FunctionDef) else made
    rows = _rows_of_source(function, key) if function else []
    directive = "class" if isinstance(node, ast.ClassDef) else "method" if indent else "function"
    if directive == "method" and any(ast.unparse(one) == "property" for one in node.decorator_list):
        directive, rows = "property", []
    called = "" if directive == "property" else f"({_bare(function)})"
    lines = [f".. py:{directive}:: {name}{called}", ""]
    inside = [*(ast.get_docstring(node) or "").splitlines(), *_table(rows), ""]
    lines += [f"   {line}" if line else "" for line in inside]
    text = "".join(f"{indent}{line}".rstrip() + "\n" for line in lines)
    methods = [one for one in body if not one.name.startswith("_") and ast.get_docstring(one)]
    return text + "".join(_described(one, one.name, indent + "   ", name) for one in methods)


def _bare(node: ast.FunctionDef | None) -> str:
    """Return the arguments of a function as its call has them: without types, and without the object itself."""
    if node is None:
        return ""
    found = ast.parse(ast.unparse(node)).body[0]
    assert isinstance(found, ast.FunctionDef)
    own = found.args
    for one in (*own.posonlyargs, *own.args, *own.kwonlyargs, own.vararg, own.kwarg):
        if one is not None:
            one.annotation = None
    return ast.unparse(own).removeprefix("self").removeprefix("cls").removeprefix(", ")


def _rows_of_source(node: ast.FunctionDef, key: str) -> list[Row]:
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + list(given.defaults)
    found = [(one.arg, one, _value(value)) for one, value in zip(positional, defaults, strict=True)]
    found += [(f"*{given.vararg.arg}", given.vararg, "")] if given.vararg else []
    found += [(one.arg, one, _value(value)) for one, value in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    found += [(f"**{given.kwarg.arg}", given.kwarg, "")] if given.kwarg else []
    return [
        (name, ast.unparse(one.annotation) if one.annotation else "", default, arguments.line(key, name))
        for name, one, default in found
        if name not in {"self", "cls"}
    ]


def _value(default: ast.expr | None) -> str:
    return ast.unparse(default) if default else "required"


def _title(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n"


def own_signature(
    app: Sphinx,
    what: str,
    name: str,
    thing: Any,
    options: Any,
    given: str,
    returns: str,
) -> tuple[str, str] | None:
    """Return the signature of a constructor, where Sphinx takes that of ``Hinted.__new__`` for it."""
    if what not in {"class", "exception"} or given != "(*given, **named)":
        return None
    if thing.__init__ is object.__init__:
        return "()", returns
    found = inspect.signature(thing)
    if list(found.parameters) == ["given", "named"]:  # a base class whose own __new__ hides an inherited __init__
        found = inspect.signature(thing.__init__.__get__(thing))
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in found.parameters.values()]
    return str(found.replace(parameters=bare, return_annotation=inspect.Signature.empty)), returns


def add_arguments(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Put a table of the arguments, with types, defaults and what each does, after a docstring."""
    if what not in {"class", "exception", "function", "method"}:
        return
    key = key_of(name)
    lines += _table([(*_row(one), arguments.of(thing, key, one.name)) for one in arguments.parameters(thing, key)])


def key_of(full: str) -> str:
    """Return the name that ``arguments.toml`` has for a full one: without its module."""
    return full[len(max((one for one in MODULES if full.startswith(f"{one}.")), key=len)) + 1 :]


def _table(rows: list[Row]) -> list[str]:
    if not rows:
        return []
    lines = ["", ".. list-table::", "   :header-rows: 1", "   :class: arguments", ""]
    for row in [("argument", "type", "default", "what it does"), *rows]:
        plain = row[0] == "argument"
        cells = [f"``{cell}``" if cell and cell != "required" and not plain else cell for cell in row[:3]] + [row[3]]
        lines += [f"   {' ' if number else '*'} - {cell}" for number, cell in enumerate(cells)]
    return [*lines, ""]


def _row(parameter: inspect.Parameter) -> tuple[str, str, str]:
    mark = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    kind, default = parameter.annotation, parameter.default
    shown = "" if kind is parameter.empty else kind.__name__ if inspect.isclass(kind) else _type(str(kind))
    if default is parameter.empty:
        return mark + parameter.name, shown, "" if mark else "required"
    return parameter.name, shown, _default(default)


def _type(text: str) -> str:
    found = re.fullmatch(r"ForwardRef\((['\"])(.*)\1.*\)", text)  # of a named tuple
    return re.sub(r"\b[a-z_]+\.(?=[A-Z]\w*\b)", "", found[2] if found else text)  # arguments.Backend


def _default(value: Any) -> str:
    if inspect.isroutine(value):
        return str(value.__name__)
    text = repr(value)
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS].rpartition(', ')[0]}, …)"


def keep_public_bases(app: Sphinx, name: str, thing: Any, options: Any, bases: list[Any]) -> None:
    """Name only the bases that a reader can use: public ones, and Python's errors."""
    known = [base for base in bases if getattr(base, "__name__", "") in _homes() or base.__module__ == "builtins"]
    bases[:] = known or [object]


@cache
def _homes() -> dict[str, str]:
    return {name: home("headrace", name) for name in public()["headrace"]} | {
        name: f"{module}.{name}" for module, names in _ours().items() for name in names
    }


def resolve(app: Sphinx, env: Any, node: Any, contnode: nodes.Node) -> nodes.Node | None:
    """Link an unqualified name in a docstring to the page of the public name."""
    name = node.get("reftarget", "").strip(".~").rpartition(".")[2]
    if node.get("refdomain") != "py" or name not in _homes():
        return None
    found: nodes.Node | None = env.domains["py"].resolve_xref(
        env, node["refdoc"], app.builder, "obj", _homes()[name], node, contnode
    )
    return found
