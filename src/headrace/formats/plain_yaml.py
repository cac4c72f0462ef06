"""Read the settings of a YAML file that are text, lists and mappings of text: no code, no tags, no references."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Value = str | list[str] | dict[str, str]

KEY = re.compile(r"""(?P<key>"[^"]*"|'[^']*'|[^\s\[\]{}#&*!|>'"%@`,:][^:#]*?)\s*:(?:\s+(?P<value>.*))?$""")
COMMENT = re.compile(r"""(?:^|\s)\#.*$""")
QUOTED = re.compile(r""""[^"]*"|'[^']*'""")
PART = re.compile(r"""\s*("[^"]*"|'[^']*'|[^,'"]*)\s*(?:,|$)""")
MOST_NAMES = 1 << 20


def settings(text: str) -> dict[str, Value]:
    r"""Return the keys of the outermost mapping and their values, all as text.

    >>> settings("path: data  # here\nnames:\n  0: cat\n  1: 'big dog'\ntrain: [a, b]\n")
    {'path': 'data', 'names': {'0': 'cat', '1': 'big dog'}, 'train': ['a', 'b']}

    Blocks of text and mappings that are nested deeper are passed over. Raises ValueError, which names the line, for
    anything else: references and tags among it.
    """
    found: dict[str, Value] = {}
    lines = _Lines(text)
    for number, indent, line in lines:
        match = KEY.match(line)
        if indent or match is None:
            raise ValueError(f"line {number}: {line[:60]!r}")
        key, value = _plain(match["key"], number), (match["value"] or "").strip()
        if value[:1] in ("|", ">"):
            lines.block()
        elif value[:1] in ("[", "{"):
            found[key] = _flow(value, lines, number)
        elif value:
            found[key] = _plain(value, number)
        else:
            found[key] = _block(lines)
    return found


class _Lines:
    """The lines that are neither blank nor comments, with number and indentation."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._next = 0

    def __iter__(self) -> Iterator[tuple[int, int, str]]:
        while (line := self.peek()) is not None:
            self._next = line[0]
            yield line

    def peek(self) -> tuple[int, int, str] | None:
        for place in range(self._next, len(self._lines)):
            line = _uncommented(self._lines[place]).rstrip()
            stripped = line.lstrip(" ")
            if stripped and not (line.startswith("---") and line.strip("- ") == ""):
                return place + 1, len(line) - len(stripped), stripped
        return None

    def block(self) -> list[tuple[int, int, str]]:
        """Take the lines that belong to the key before them: those that are indented, or items of a list."""
        taken: list[tuple[int, int, str]] = []
        while (line := self.peek()) is not None and (line[1] or line[2].startswith("- ")):
            self._next = line[0]
            taken.append(line)
        return taken


def _uncommented(line: str) -> str:
    if "#" not in line:
        return line
    hidden = QUOTED.sub(lambda quoted: "x" * len(quoted[0]), line)
    match = COMMENT.search(hidden)
    return line if match is None else line[: match.start()]


def _block(lines: _Lines) -> Value:
    block = lines.block()
    if not block:
        return ""
    if block[0][2].startswith("-"):
        return [_plain(line[1:].strip(), number) for number, _, line in block]
    mapping: dict[str, str] = {}
    for number, indent, line in block:
        if indent > block[0][1]:
            continue
        match = KEY.match(line)
        if match is None:
            raise ValueError(f"line {number}: {line[:60]!r}")
        mapping[_plain(match["key"], number)] = _plain((match["value"] or "").strip(), number)
    return mapping


def _flow(value: str, lines: _Lines, number: int) -> Value:
    """Read a list or a mapping in brackets, which may end on a later line."""
    closing = "]" if value[0] == "[" else "}"
    parts = [value]
    while not parts[-1].endswith(closing):
        line = next(iter(lines), None)
        if line is None:
            raise ValueError(f"line {number}: {value[0]!r} is not closed")
        parts.append(line[2])
    inner = " ".join(parts)[1:-1]
    if any(bracket in QUOTED.sub("", inner) for bracket in "[]{}"):
        raise ValueError(f"line {number}: brackets in brackets")
    items = [item for item in (match[1].strip() for match in PART.finditer(inner)) if item]
    if closing == "]":
        return [_plain(item, number) for item in items]
    pairs = [KEY.match(item) for item in items]
    if not all(pairs):
        raise ValueError(f"line {number}: {inner[:60]!r}")
    return {_plain(pair["key"], number): _plain(pair["value"] or "", number) for pair in pairs if pair}


def _plain(text: str, number: int) -> str:
    text = text.strip()
    if QUOTED.fullmatch(text):
        return text[1:-1]
    if text[:1] in ("&", "*", "!", "%", "@", "`"):
        raise ValueError(f"line {number}: {text[:60]!r} refers to something, or is no plain text")
    return text
