"""Walk a large JSON file item by item: no more than one item of its arrays is in memory as Python objects."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from headrace.checks import shown
from headrace.errors import BadFile
from headrace.storage.files import opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

BLOCK = 1 << 20
MOST_OF_AN_ITEM = 64 << 20
"""Bytes of one item of an array, or of a value beside the arrays."""
MOST_BYTES = 1 << 36

COMMA = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")
SPACE = re.compile(r"[ \t\r\n]*")
CURE = "Download or export the file again."


class Item(NamedTuple):
    """An item of an array of the file, and where its text lies."""

    key: str
    value: Any
    offset: int
    length: int


def items(path: str, keys: frozenset[str]) -> Iterator[Item]:
    """Yield the items of the arrays under some keys of a JSON object, in the order of the file.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "a.json")
    ...     _ = file.write_text('{"info": {"year": 1}, "images": [{"id": 7}, {"id": 8}]}')
    ...     [tuple(item) for item in items(str(file), frozenset({"images"}))]
    [('images', {'id': 7}, 33, 9), ('images', {'id': 8}, 44, 9)]

    What lies under other keys is passed over. The offset and the length of an item are in bytes. Raises `BadFile` for
    what is no JSON object in UTF-8, naming the byte, and for an item above 64 MiB; and what `opened` raises.
    """
    with opened(path, max_bytes=MOST_BYTES) as file:
        yield from _Reader(path, file).items(keys)


def parsed(text: bytes) -> Any:
    """Return the value of a whole JSON text; raises ValueError for anything else, and for NaN.

    >>> parsed(b'[1, "x"]')
    [1, 'x']
    """
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("brackets are nested too deep") from None


class _Reader:
    """A window on the file, as text with one character for each byte, so that places in it are offsets."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._text, self._at, self._begin = "", 0, 0
        self._decoder = json.JSONDecoder(parse_constant=_no_number)

    def items(self, keys: frozenset[str]) -> Iterator[Item]:
        self._skip("\xef\xbb\xbf")
        self._take("{")
        while self._next() != "}":
            key, _, _ = self._value()
            if not isinstance(key, str):
                self._refuse(f"the key {shown(key)}", "text as a key")
            self._take(":")
            if self._next() != "[":
                self._value()
            else:
                for item in self._array(key):
                    if key in keys:
                        yield item
            if self._next() != "}":
                self._take(",")
                if self._next() == "}":
                    self._refuse("'}' after a comma", "a key")
        self._at += 1
        if self._next():
            self._refuse(f"{self._next()!r} after its end", "one JSON object")

    def _array(self, key: str) -> Iterator[Item]:
        self._take("[")
        while self._next() != "]":
            yield Item(key, *self._value())
            comma = COMMA.match(self._text, self._at)
            if comma is not None and comma.end() < len(self._text):
                self._at = comma.end()
            elif self._next() == "]":
                break
            else:
                self._take(",")
            if self._next() == "]":
                self._refuse("']' after a comma", "an item")
        self._at += 1

    def _value(self) -> tuple[Any, int, int]:
        """Read a value, with the file's offset of its text and the length."""
        self._next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except RecursionError:
                self._refuse("brackets are nested too deep", "plain JSON")
            except ValueError as error:
                if not self._more():
                    self._refuse(f"it cannot be parsed: {getattr(error, 'msg', error)}", "JSON")
                continue
            # Of a number, more may follow in what is not yet read: "1" of 1e+5.
            if not isinstance(value, int | float) or len(self._text) - end > 2 or not self._more():
                break
        text, offset = self._text[self._at : end], self._begin + self._at
        if not text.isascii():
            try:
                value = parsed(text.encode("latin-1"))
            except ValueError as error:
                self._refuse(f"it cannot be parsed: {error}", "JSON in UTF-8")
        self._at = end
        return value, offset, len(text)

    def _next(self) -> str:
        """Return the next character that is no space, without taking it; empty at the end of the file."""
        if self._at < len(self._text) and self._text[self._at] > " ":
            return self._text[self._at]
        while True:
            self._at = SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # it matches nothing too
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _take(self, character: str) -> None:
        if self._next() != character:
            self._refuse(f"{self._next()!r}" if self._next() else "the file ends", repr(character))
        self._at += 1

    def _skip(self, mark: str) -> None:
        self._next()
        if self._text.startswith(mark):
            self._at = len(mark)

    def _more(self) -> bool:
        """Read on: as much again as is waiting, so that a large item is parsed a few times and not at every block."""
        left = len(self._text) - self._at
        if left > MOST_OF_AN_ITEM:
            self._refuse(f"an item of more than {MOST_OF_AN_ITEM >> 20} MiB, or one that does not end", "JSON")
        block = self._file.read(max(BLOCK, left))
        if not block:
            return False
        self._begin += self._at
        self._text, self._at = self._text[self._at :] + block.decode("latin-1"), 0
        return True

    def _refuse(self, what: str, expected: str) -> NoReturn:
        where = f"byte {self._begin + self._at:,}: {what}"
        raise BadFile(where, path=self._path, found=what, expected=expected, cure=CURE) from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
