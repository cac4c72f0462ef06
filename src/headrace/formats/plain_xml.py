"""Read small XML files as plain trees: no document types, so no entities, and limits for depth and size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NoReturn

MOST_BYTES = 16 << 20
DEEPEST = 32


@dataclass(slots=True)
class Element:
    """An element with its text and the elements in it."""

    name: str
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self, name: str) -> list[Element]:
        """Return the elements of a name that are directly in it."""
        return [child for child in self.children if child.name == name]

    def value(self, *names: str) -> str | None:
        """Return the text of the first element down a line of names; None where there is none.

        >>> tree(b"<a><b><c> 3 </c></b></a>").value("b", "c")
        '3'
        """
        found: Element | None = self
        for name in names:
            found = next(iter(found.all(name)), None) if found is not None else None
        return None if found is None else found.text.strip()


def tree(data: bytes) -> Element:
    """Return the root element of an XML document.

    >>> tree(b"<a>x<b/></a>")
    Element(name='a', text='x', children=[Element(name='b', text='', children=[])])

    Raises ValueError for what cannot be parsed, for a document type (which may hold entities that grow without bound),
    and for elements nested too deep.
    """
    from xml.parsers import expat

    reader = _Reader()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = reader.refuse
    parser.StartElementHandler = reader.begin
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.characters
    try:
        parser.Parse(data, True)  # noqa: FBT003  it takes no keyword
    except (expat.ExpatError, LookupError, UnicodeError) as error:
        raise ValueError(f"it cannot be parsed as XML: {error}") from error
    return reader.top.children[0]


class _Reader:
    def __init__(self) -> None:
        self.top = Element("")
        self._open = [self.top]

    def begin(self, name: str, attributes: dict[str, str]) -> None:  # noqa: ARG002
        if len(self._open) > DEEPEST:
            raise ValueError(f"its elements are nested deeper than {DEEPEST}")
        element = Element(name)
        self._open[-1].children.append(element)
        self._open.append(element)

    def end(self, name: str) -> None:  # noqa: ARG002
        self._open.pop()

    def characters(self, text: str) -> None:
        self._open[-1].text += text

    def refuse(self, *parts: Any) -> NoReturn:  # noqa: ARG002
        raise ValueError("it has a document type, whose entities may grow without bound")
