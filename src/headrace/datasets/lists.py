"""Pictures named by a list file: lines of a path and a label, in the shapes that such files come in."""

from __future__ import annotations

import csv
import os
import re
from array import array
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from headrace.calls import flag
from headrace.datasets.images import DEFAULT_EXTENSIONS, ImageDataset, as_folder
from headrace.datasets.packed import PackedList
from headrace.errors import ArgumentError, ListFileError, MissingFile, UnreadableFile
from headrace.image.decode import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from headrace.image.modes import Mode

Columns = tuple[int, int]

INTEGER = re.compile(r"[+-]?[0-9]+")
FRACTION = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][+-]?[0-9]+)?")
INT64 = range(-(2**63), 2**63)


class ImageList(ImageDataset):
    r"""Pictures named by the lines of a list file, each a path and a label.

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

    - **Separator**: a tab, a comma or white space, as the first line has it, in this order; where a comma is in a path
      and an integer follows after white space, white space. Or say it: ``separator="\t"``, ``","``, ``" "`` for white
      space, or any other character. With white space the label is what stands after the last of it, so that paths may
      have spaces. With any other, fields may be quoted as in CSV (RFC 4180).
    - **Columns**: two, path and label. Of more, or in another order, ``columns`` names two by the names in the header
      or by numbers from 0. ``header=True`` passes over the first line; names imply it.
    - **Labels**: integers, if all of them are. Otherwise all are names of classes, sorted, and a label is the place of
      its name: see `classes`. Fractions are refused, and so is a header left in: one name above nothing but integers.
    - **Paths**: absolute, or from ``root``, which is the folder of the list file unless given; ``..`` is allowed, as
      the list is the user's own. Where ``/`` separates folders, so does a backslash, unless the first path that has
      one is there as it is written.

    The file is read line by line: no list of its lines is ever held. No picture is looked for before it is asked for.
    Raises `ListFileError` for a line or a whole file that cannot be made out, naming both, `MissingFile` and
    `UnreadableFile` for the list file itself, and `ArgumentError`.
    """

    def __init__(
        self,
        list_file: str | os.PathLike[str],
        root: str | os.PathLike[str] | None = None,
        *,
        separator: str | None = None,
        header: bool = False,
        columns: Sequence[str | int] | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        allow_truncated: bool = False,
        scaled_decode: bool = False,
        mode: Mode = "RGB",
    ) -> None:
        file = Path(list_file)
        folder = str(file.parent) if root is None else as_folder(root)
        _check(separator, columns)
        lines = _Lines(file, _layout(file, separator, columns, header=flag("header", header)), folder)
        try:
            paths, labels = lines.numbered()
            classes: list[str] = []
        except _NameFoundError:
            paths, labels, classes = lines.named()
        if not len(paths):
            raise ListFileError(f"{file}: no lines; at least one line `path label` was expected.")
        super().__init__(
            folder,
            paths,
            labels,
            classes,
            max_pixels,
            allow_truncated=allow_truncated,
            scaled_decode=scaled_decode,
            mode=mode,
        )


class _NameFoundError(Exception):
    """A label that is no integer, after which all of them are read as names."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """What stands where in a line; without columns, a line is a path and a label and nothing else."""

    separator: str
    columns: Columns | None
    header: bool


@dataclass(frozen=True, slots=True)
class _Lines:
    file: Path
    layout: _Layout
    folder: str

    def numbered(self) -> tuple[PackedList, NDArray[np.int64]]:
        """Read labels that are integers, as long as they are."""
        labels = array("q")

        def paths() -> Iterator[str]:
            for number, path, label in self._pairs():
                if not INTEGER.fullmatch(label):
                    raise _NameFoundError
                if int(label) not in INT64:
                    raise unclear(self.file, number, label, "a label of at most 64 bits was expected")
                labels.append(int(label))
                yield path

        return PackedList(paths()), np.array(labels, dtype=np.int64)

    def named(self) -> tuple[PackedList, NDArray[np.int64], list[str]]:
        """Read labels that are names."""
        numbers: dict[str, int] = {}
        labels = array("q")
        named_lines: list[int] = []

        def paths() -> Iterator[str]:
            for _, path, label in self._pairs():
                if len(named_lines) < 2 and not INTEGER.fullmatch(label):
                    named_lines.append(len(labels))
                labels.append(numbers.setdefault(label, len(numbers)))
                yield path

        packed = PackedList(paths())
        if named_lines == [0] and len(labels) > 1:
            raise ListFileError(
                f"{self.file}: the first label is {next(iter(numbers))!r} and all others are integers: the first line "
                "seems to be a header. Pass over it with header=True."
            )
        classes = sorted(numbers)
        places = np.empty(len(classes), np.int64)
        places[[numbers[name] for name in classes]] = np.arange(len(classes))
        return packed, places[np.array(labels, dtype=np.int64)], classes

    def _pairs(self) -> Iterator[tuple[int, str, str]]:
        literal: bool | None = None  # whether backslashes belong to names; asked once, of the disk
        for number, fields in self._rows():
            path, label = self._pick(number, fields)
            if "\\" in path and os.sep == "/":
                if literal is None:
                    literal = Path(self.folder, path).exists()
                if not literal:
                    path = path.replace("\\", "/")
            yield number, path, label

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        with opened(self.file) as stream:
            rows = _fields(self.file, stream, self.layout)
            if self.layout.header:
                next(rows, None)
            yield from rows

    def _pick(self, number: int, fields: list[str]) -> tuple[str, str]:
        line = self.layout.separator.join(fields)
        if self.layout.columns is None:
            if len(fields) != 2:
                raise unclear(
                    self.file, number, line,
                    f"{len(fields)} fields, where a path and a label were expected, separated by "
                    f"{_called(self.layout.separator)}. Quote a path that has the separator in it, name another "
                    "separator, or choose two of the columns: columns=(0, 1). Paths without labels are for ImageFiles",
                )  # fmt: skip
            first, second = 0, 1
        else:
            first, second = self.layout.columns
            if max(first, second) >= len(fields):
                raise unclear(
                    self.file, number, line, f"{len(fields)} fields, where columns {first} and {second} were expected"
                )
        path, label = fields[first].strip(), fields[second].strip()
        if not path or not label:
            raise unclear(self.file, number, line, "a path and a label were expected, and one is empty")
        if label.lower().endswith(DEFAULT_EXTENSIONS):
            raise unclear(
                self.file, number, line,
                f"{label!r} stands where a label was expected, and looks like a path. Swap the two with "
                "columns=(1, 0); paths without labels are for ImageFiles",
            )  # fmt: skip
        if FRACTION.fullmatch(label):
            raise unclear(self.file, number, line, f"label {label!r} is neither an integer nor a name; write integers")
        return path, label


def _check(separator: str | None, columns: Sequence[str | int] | None) -> None:
    if separator is not None and (not isinstance(separator, str) or len(separator) != 1 or separator in '"\r\n'):
        raise ArgumentError(f"separator must be one character, or None to find it; got {separator!r}")
    if columns is None:
        return
    two = isinstance(columns, (tuple, list)) and len(columns) == 2
    if not two or not all(
        isinstance(one, str) or (isinstance(one, int) and not isinstance(one, bool) and one >= 0) for one in columns
    ):
        raise ArgumentError(
            f"columns must be two, of the path and of the label, by name or by number from 0; got {columns!r}"
        )


def _layout(file: Path, separator: str | None, columns: Sequence[str | int] | None, *, header: bool) -> _Layout:
    """Make out what stands where, from what the user said and the first line that is not blank."""
    with opened(file) as stream:
        first = next((line for line in stream if line.strip()), "")
        if first.startswith(("\udcff\udcfe", "\udcfe\udcff")):
            raise ListFileError(f"{file}: UTF-16, where UTF-8 was expected. Save it as UTF-8.")
        separator = separator or _separator(first, whole=columns is None)
        if columns is None:
            return _Layout(separator, None, header)
        stream.seek(0)
        numbered = _Layout(separator, (0, 1), header=False)
        names = [name.strip() for name in next(_fields(file, stream, numbered), (1, []))[1]]
    places = []
    for column in columns:
        if isinstance(column, str) and column not in names:
            raise ListFileError(
                f"{file}: no column {column!r} in its header; found {', '.join(map(repr, names)) or 'nothing'}, "
                f"separated by {_called(separator)}. Name two of them, or another separator."
            )
        places.append(names.index(column) if isinstance(column, str) else column)
    named = any(isinstance(column, str) for column in columns)
    return _Layout(separator, (places[0], places[1]), header or named)


def _separator(line: str, *, whole: bool) -> str:
    if "\t" in line.strip():
        return "\t"
    if "," not in line:
        return " "
    # `a,b.jpg 3`: the comma is the path's if what follows the last space is a number and what follows the comma is not.
    after_space, after_comma = line.rsplit(maxsplit=1)[-1], line.rsplit(",", 1)[1].strip()
    if whole and INTEGER.fullmatch(after_space) and not INTEGER.fullmatch(after_comma):
        return " "
    return ","


def _fields(file: Path, stream: IO[str], layout: _Layout) -> Iterator[tuple[int, list[str]]]:
    """Split the lines that are not blank, with their numbers."""
    if layout.separator == " " and layout.columns is None:
        for number, line in zip(count(1), stream):
            fields = line.strip().rsplit(None, 1)
            if fields:
                yield number, [_unquoted(fields[0]), *fields[1:]]
        return
    reader = csv.reader(stream, delimiter=layout.separator, skipinitialspace=layout.separator == " ", strict=True)
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise unclear(file, reader.line_num, "", f"not well-formed CSV: {error}") from error
        if any(field.strip() for field in fields):
            yield reader.line_num, fields


def _unquoted(path: str) -> str:
    return path[1:-1] if len(path) > 2 and path[0] == path[-1] == '"' else path


@contextmanager
def opened(file: Path) -> Iterator[IO[str]]:
    """Open a list file for reading; bytes that are not UTF-8 come through as they do in the names of files."""
    try:
        stream: Any = file.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
    except OSError as error:
        kind = MissingFile if isinstance(error, FileNotFoundError) else UnreadableFile
        failed = kind(f"{file}: cannot be opened: {error.strerror}; a list file was expected. Mend the path.")
        failed.errno = error.errno
        raise failed from error
    with stream:
        yield stream


def _called(separator: str) -> str:
    return {"\t": "tabs", ",": "commas", " ": "white space"}.get(separator, repr(separator))


def unclear(file: Path, number: int, line: str, reason: str) -> ListFileError:
    """Build the error for a line that cannot be read."""
    shown = f" {line[:80] + ('…' if len(line) > 80 else '')!r}:" if line else ""
    return ListFileError(f"{file}, line {number}:{shown} {reason}.")
