"""Image datasets from list files: lines of a path and a label, in the common layouts."""

from __future__ import annotations

import csv
import io
import os
import re
from array import array
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import chain, count
from math import isfinite
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from headrace.checks import flag, one_of, refused
from headrace.datasets.images import DEFAULT_EXTENSIONS, ImageDataset, as_folder
from headrace.datasets.object_images import facts_of
from headrace.datasets.packed_list import PackedList
from headrace.errors import ListFileError, MissingFile, UnreadableFile
from headrace.image.decoding import DEFAULT_MAX_PIXELS, Decoding
from headrace.storage import files
from headrace.storage.objects import folder_of, is_url, path_of, place_of
from headrace.storage.signed_urls import plain, plain_text

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from numpy.typing import NDArray

    from headrace.image.modes import Mode

Columns = tuple[int, ...]
LabelKind = Literal["int", "float", "names"]
Record = tuple[int, str, list[str]]
"""The number of a line, its path and its labels."""

INTEGER = re.compile(r"[+-]?[0-9]+")
FRACTION = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][+-]?[0-9]+)?")
INT64 = range(-(2**63), 2**63)
WORD = re.compile(r"[^./\\]+")
MOST_BYTES = 1 << 34
"""Of a list file; 16 GiB are some hundred million lines."""
MOST_DIGITS = 19
"""Of a 64-bit integer; Python refuses to read one of thousands with an error of its own."""
NUMBERS = re.compile(r"[+-]?[0-9.]+([,;| ]\s*[+-]?[0-9.]+)+")
QUOTED = re.compile(r'"[^"]+"(?=\s)')


class ImageList(ImageDataset):
    r"""Image files listed in a text file, a path and a label on each line.

    >>> import pathlib, tempfile
    >>> from headrace import ImageList
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "train.txt")
    ...     _ = file.write_text("pets/my cat.jpg 0\npets/dog.jpg 1\n")
    ...     dataset = ImageList(file)
    ...     _ = file.write_text("id,file,kind\n1,a.jpg,cat\n2,b.jpg,dog\n")
    ...     table = ImageList(file, columns=("file", "kind"))
    >>> list(dataset.paths), dataset.labels.tolist()
    (['pets/my cat.jpg', 'pets/dog.jpg'], [0, 1])
    >>> list(table.paths), table.labels.tolist(), table.classes
    (['a.jpg', 'b.jpg'], [0, 1], ['cat', 'dog'])

    The file is UTF-8, with or without a byte order mark; its lines end as they like, and blank ones are passed over.

    - **Separator**: the first of tab, comma, semicolon, bar and white space at which the first line splits so that a
      field ends like an image file; else a tab, a comma or white space, in this order. Or say it: ``sep="\t"``,
      ``","``, ``" "`` for white space, or any other character. Fields may be quoted as in CSV (RFC 4180). With white
      space, paths may have spaces: where the path comes first, the columns after it are the last words of the line;
      where it comes last, it is the rest of the line.
    - **Columns**: two, path and label. Of more, or in another order, ``columns`` names the one of the path and those of
      the labels, by the names in the header or by numbers from 0. ``header=True`` skips the first line; names imply it.
    - **Labels**: the first line decides what all of them are: integers (int64), fractions (float64) or names of
      classes. A label of another kind is an error that names its line; ``labels="int"``, ``"float"`` or ``"names"``
      decides instead. Names are numbered in sorted order: see `classes`. Of several label columns, numbers all of them,
      a label is a row, and `labels` has the shape ``(N, columns)``. A header left in is an error.
    - **Paths**: absolute, URLs, or from ``root``, which is the folder of the list file unless given; ``..`` is allowed,
      as the list is the user's own. Both may be behind a URL, and ``listing`` is as in `ImageFiles`. Where ``/``
      separates folders, so does a backslash, unless the first path that has one is there as it is written.

    The file is read line by line: no list of its lines is ever held. No image on this machine is touched before it is
    asked for.
    Raises `ListFileError` for a line or a file that it cannot parse, naming both, `MissingFile` and
    `UnreadableFile` for the list file itself, and `ArgumentError`.
    """

    def __init__(
        self,
        list_file: str | os.PathLike[str],
        root: str | os.PathLike[str] | None = None,
        *,
        sep: str | None = None,
        header: bool = False,
        columns: Sequence[str | int] | None = None,
        labels: LabelKind | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        allow_truncated: bool = False,
        scaled_decode: bool = False,
        mode: Mode = "RGB",
        listing: str | os.PathLike[str] | None = None,
    ) -> None:
        file = path_of("list_file", list_file)
        folder = folder_of(file) if root is None else as_folder(root)
        _check(sep, columns, labels)
        lines = _Lines(file, _layout(file, sep, columns, header=flag("header", header)), folder, labels)
        paths, values, classes = lines.read()
        if not len(paths):
            raise _unusable(file, "no lines", "at least one line `path label`", "Check the path.")
        super().__init__(
            folder,
            paths,
            values,
            classes,
            Decoding(mode, max_pixels, allow_truncated, scaled_decode),
            facts_of(folder, paths, listing),
        )


@dataclass(frozen=True, slots=True)
class _Layout:
    """The layout of a line; without columns, a line is a path and a label and nothing else."""

    separator: str
    columns: Columns | None
    header: bool


@dataclass(frozen=True, slots=True)
class _Lines:
    file: str
    layout: _Layout
    folder: str
    kind: LabelKind | None

    def read(self) -> tuple[PackedList, NDArray[Any], list[str]]:
        """Return the paths, the labels, and the names of the classes where labels are names."""
        with closing(self._records()) as records:
            first = next(records, None)
            if first is None:
                return PackedList(()), np.zeros(0, np.int64), []
            self._refuse_header(first, records)
        kind = self.kind or _kind(first[2])
        if kind == "names":
            return self._named(first)
        values: array[Any] = array("q" if kind == "int" else "d")
        convert: Callable[[int, str, Record], float] = self._integer if kind == "int" else self._fraction

        def paths() -> Iterator[str]:
            for number, path, fields in self._records():
                values.extend([convert(number, field, first) for field in fields])
                yield path

        packed = PackedList(paths())
        labels = np.array(values, dtype=np.int64 if kind == "int" else np.float64)
        return packed, labels if len(first[2]) == 1 else labels.reshape(len(packed), -1), []

    def _named(self, first: Record) -> tuple[PackedList, NDArray[np.int64], list[str]]:
        if len(first[2]) > 1:
            raise unclear(
                self.file, first[0], ", ".join(first[2]),
                f"{len(first[2])} label columns with names", "numbers, or one label column",
                "Choose one label column with columns=, or write numbers.",
            )  # fmt: skip
        numbers: dict[str, int] = {}
        labels = array("q")

        def paths() -> Iterator[str]:
            for number, path, (name,) in self._records():
                if self.kind is None and NUMBERS.fullmatch(name):
                    raise unclear(
                        self.file, number, name, "several numbers in one field", "one label",
                        "Separate them like the other fields and name their columns, as in columns=(0, 1, 2).",
                    )  # fmt: skip
                labels.append(numbers.setdefault(name, len(numbers)))
                yield path

        packed = PackedList(paths())
        classes = sorted(numbers)
        places = np.empty(len(classes), np.int64)
        places[[numbers[name] for name in classes]] = np.arange(len(classes))
        return packed, places[np.array(labels, dtype=np.int64)], classes

    def _integer(self, number: int, field: str, first: Record) -> int:
        if not INTEGER.fullmatch(field):
            raise self._other_kind(number, field, "an integer", first)
        if len(field.lstrip("+-0")) > MOST_DIGITS or int(field) not in INT64:
            raise unclear(self.file, number, field, "", "an integer of 64 bits", "Number the classes from 0.")
        return int(field)

    def _fraction(self, number: int, field: str, first: Record) -> float:
        if not (INTEGER.fullmatch(field) or FRACTION.fullmatch(field)) or not isfinite(value := float(field)):
            raise self._other_kind(number, field, "a finite number", first)
        return value

    def _other_kind(self, number: int, field: str, expected: str, first: Record) -> ListFileError:
        why = f"labels={self.kind!r}" if self.kind else f"the label of line {first[0]} is {first[2][0]!r}"
        cure = 'Correct the line, or pass labels="int", "float" or "names".'
        return unclear(self.file, number, field, "", f"{expected}, since {why}", cure)

    def _refuse_header(self, first: Record, others: Iterator[Record]) -> None:
        """Refuse a first line of words above lines of images, or a name above nothing but numbers."""
        if self.layout.header or _kind(first[2]) != "names":
            return
        try:
            second = next(others, None)
        except ListFileError:
            return  # raised when its line is read
        if second is None:
            return
        headed = WORD.fullmatch(first[1]) and _is_image(second[1]) and not _is_image(first[1])
        numbers = self.kind is None and all(_kind(labels) != "names" for _, _, labels in chain([second], others))
        if headed or numbers:
            raise unclear(
                self.file, first[0], "",
                f"the path is {first[1]!r} and the label {first[2][0]!r}: the first line seems to be a header",
                "a line like those below it", "Skip it with header=True.",
            )  # fmt: skip

    def _records(self) -> Generator[Record]:
        literal: bool | None = None  # whether backslashes belong to names; asked once, of the disk
        for number, fields in self._rows():
            path, labels = self._pick(number, fields)
            if "\\" in path and os.sep == "/":
                if literal is None:
                    literal = not is_url(self.folder) and Path(self.folder, path).exists()
                if not literal:
                    path = path.replace("\\", "/")
            yield number, plain(path), labels

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        with opened(self.file) as stream:
            rows = _fields(self.file, stream, self.layout)
            if self.layout.header:
                next(rows, None)
            yield from rows

    def _pick(self, number: int, fields: list[str]) -> tuple[str, list[str]]:
        line = self.layout.separator.join(fields)
        columns = self.layout.columns or (0, 1)
        if self.layout.columns is None and len(fields) != 2:
            raise unclear(
                self.file, number, line, f"{len(fields)} fields",
                f"a path and a label, separated by {_called(self.layout.separator)}",
                "Quote a path that has the separator in it, name another separator with sep=, or choose the columns of "
                "the path and of the labels, as in columns=(0, 1). Use ImageFiles for paths without labels.",
            )  # fmt: skip
        if max(columns) >= len(fields):
            raise unclear(
                self.file, number, line, f"{len(fields)} fields", f"columns {' and '.join(map(str, columns))}",
                "Correct the line, or name other columns with columns=.",
            )  # fmt: skip
        path, *labels = (fields[column].strip() for column in columns)
        if not path or not all(labels):
            expected = "a path and a label, neither of them empty"
            raise unclear(self.file, number, line, "", expected, "Correct or remove the line.")
        odd = next((label for label in labels if _is_image(label)), None)
        if odd is not None:
            raise unclear(
                self.file, number, line, f"{odd!r} looks like a path", "a label",
                "Swap the two with columns=(1, 0), or use ImageFiles for paths without labels.",
            )  # fmt: skip
        if (
            self.layout.columns is None
            and self.layout.separator == " "
            and _is_image(path.split()[0]) > _is_image(path)
        ):
            raise unclear(
                self.file, number, line, f"the path {path!r} has words after the name of an image", "one label",
                "Name the columns of several labels, as in columns=(0, 1, 2), or quote the path.",
            )  # fmt: skip
        return path, labels


def _check(sep: str | None, columns: Sequence[str | int] | None, labels: str | None) -> None:
    if sep is not None and (not isinstance(sep, str) or len(sep) != 1 or sep in '"\r\n'):
        raise refused("sep", sep, "one character, or None to find it", "Leave sep= out.")
    one_of("labels", labels, ("int", "float", "names", None))
    if columns is None:
        return
    several = isinstance(columns, (tuple, list)) and len(columns) >= 2
    if not several or not all(
        isinstance(one, str) or (isinstance(one, int) and not isinstance(one, bool) and one >= 0) for one in columns
    ):
        raise refused(
            "columns",
            columns,
            "two or more, by name or by number from 0",
            "Name the column of the path, then those of the labels: columns=(0, 1).",
        )


def _kind(labels: Sequence[str]) -> LabelKind:
    """Say what the labels of a line are; several are fractions where one is."""
    if all(INTEGER.fullmatch(label) for label in labels):
        return "int"
    return "float" if all(INTEGER.fullmatch(label) or FRACTION.fullmatch(label) for label in labels) else "names"


def _is_image(name: str) -> bool:
    place = name if " " in name else place_of(name)  # a space ends the query of a URL
    return place.lower().endswith(DEFAULT_EXTENSIONS)


def _layout(file: str, sep: str | None, columns: Sequence[str | int] | None, *, header: bool) -> _Layout:
    """Find the layout, from the arguments and the first line that is not blank."""
    with opened(file) as stream:
        first = next((line for line in stream if line.strip()), "")
        if first.startswith(("\udcff\udcfe", "\udcfe\udcff")):
            raise _unusable(file, "text in UTF-16", "UTF-8", "Save it as UTF-8.")
        separator = sep or _separator(first, whole=columns is None)
        if columns is None:
            return _Layout(separator, None, header)
        stream.seek(0)
        header_line = _Layout(separator, None, header=False)
        names = [name.strip() for name in next(_split(file, stream, header_line), (1, []))[1]]
    places = []
    for column in columns:
        if isinstance(column, str) and column not in names:
            raise ListFileError(
                f"no column {column!r} in its header",
                path=file,
                found=tuple(names),
                expected=f"one of {', '.join(map(repr, names)) or 'nothing'}, separated by {_called(separator)}",
                cure="Name columns that are there, or another separator with sep=.",
            )
        places.append(names.index(column) if isinstance(column, str) else column)
    named = any(isinstance(column, str) for column in columns)
    return _Layout(separator, tuple(places), header or named)


def _separator(line: str, *, whole: bool) -> str:
    line = line.strip()
    if not line:
        return " "
    for separator in "\t,;|":
        if any(_is_image(field.strip().strip('"')) for field in line.split(separator)) and separator in line:
            return separator
    if not whole and (named := next((separator for separator in "\t,;|" if separator in line), None)):
        return named
    if _is_image(line.rsplit(maxsplit=1)[0].strip('"')) or "," not in line:
        return "\t" if "\t" in line else " "
    # `a,b 3`: the comma is the path's if what follows the last space is a number and what follows the comma is not.
    after_space, after_comma = line.rsplit(maxsplit=1)[-1], line.rsplit(",", 1)[1].strip()
    if "\t" not in line and INTEGER.fullmatch(after_space) and not INTEGER.fullmatch(after_comma):
        return " "
    return "\t" if "\t" in line else ","


def _fields(file: str, stream: IO[str], layout: _Layout) -> Iterator[tuple[int, list[str]]]:
    """Split the lines that are not blank, with their numbers."""
    columns = layout.columns or (0, 1)
    if layout.separator != " ":
        yield from _split(file, stream, layout)
        return
    last = max(columns)
    for number, line in zip(count(1), stream):
        if columns[0] == 0:
            fields = _after_the_path(line.strip(), last, exact=layout.columns is None)
        else:
            fields = line.split(None, columns[0]) if columns[0] == last else line.split()
        if fields:
            fields[columns[0] : columns[0] + 1] = [_unquoted(field.strip()) for field in fields[columns[0] :][:1]]
            yield number, fields


def _after_the_path(line: str, last: int, *, exact: bool) -> list[str]:
    """Split a line of words that begins with a path, which may have spaces, and has ``last`` columns after it at least.

    The path ends with the first word that ends like an image file; else so that the columns are the last words.
    """
    quoted = QUOTED.match(line)
    if quoted:
        return [quoted[0], *line[quoted.end() :].split()]
    words = line.split()
    if not exact:
        end = next((place for place, word in enumerate(words) if _is_image(word)), None)
        if end is not None and len(words) - end - 1 >= last:
            return [line.rsplit(None, len(words) - end - 1)[0], *words[end + 1 :]]
    return line.rsplit(None, last)


def _split(file: str, stream: IO[str], layout: _Layout) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(stream, delimiter=layout.separator, skipinitialspace=layout.separator == " ", strict=True)
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            what, cure = f"cannot be parsed as CSV: {error}", "Close the quotes, or name another separator with sep=."
            raise unclear(file, reader.line_num, "", what, "fields as in RFC 4180", cure) from error
        if any(field.strip() for field in fields):
            yield reader.line_num, fields


def _unquoted(path: str) -> str:
    return path[1:-1] if len(path) > 2 and path[0] == path[-1] == '"' else path


@contextmanager
def opened(file: str) -> Iterator[IO[str]]:
    """Open a list file for reading; bytes that are not UTF-8 come through as they do in the names of files."""
    with ExitStack() as stack:
        try:
            raw: Any = stack.enter_context(files.opened(file, max_bytes=MOST_BYTES))
        except (MissingFile, UnreadableFile) as error:
            if is_url(file):
                raise
            reason = getattr(error.__cause__, "strerror", None) or error.__cause__
            what = f"cannot be opened: {reason}"
            failed = type(error)(what, path=file, expected="a list file", cure="Check the path.")
            failed.errno = error.errno
            raise failed from error
        start = raw.peek(4)
        if b"\0" in start and not start.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise _unusable(file, "it contains zero bytes", "lines of text in UTF-8", "Check the path.")
        yield io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _called(separator: str) -> str:
    return {"\t": "tabs", ",": "commas", " ": "white space"}.get(separator, repr(separator))


def unclear(file: str, number: int, line: str, what: str, expected: str, cure: str) -> ListFileError:
    """Build the error for a line, or a part of it, that cannot be read."""
    line, what = plain_text(line), plain_text(what)
    begin = line if len(line) <= 80 else f"{line[:80]}…"
    said = ": ".join(filter(None, [repr(begin) if line else "", what]))
    return ListFileError(said, line=number, path=file, found=line or None, expected=expected, cure=cure)


def _unusable(file: str, what: str, expected: str, cure: str) -> ListFileError:
    """Build the error for a whole list file."""
    return ListFileError(what, path=file, expected=expected, cure=cure)
