"""Images with several labels each, listed in a CSV file."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from headrace.checks import different_names, refused
from headrace.datasets.images import ImageDataset, as_folder
from headrace.datasets.lists import opened
from headrace.datasets.object_images import facts_of
from headrace.datasets.packed_list import PackedList
from headrace.errors import ListFileError
from headrace.image.decoding import DEFAULT_MAX_PIXELS, Decoding
from headrace.storage.objects import folder_of, path_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

VALUES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "": 0, "-1": 0, "False": 0, "True": 1, "false": 0, "true": 1}
"""What a column of a class may hold; -1 is CelebA's for no."""


class MultiLabel(ImageDataset):
    r"""Images with any number of classes each, from a CSV file of paths and labels.

    >>> import pathlib, tempfile
    >>> from headrace.datasets import MultiLabel
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "train.csv")
    ...     _ = file.write_text("image,tags\na.jpg,cat dog\nb.jpg,\nc.jpg,dog\n")
    ...     listed = MultiLabel(file, labels="tags")
    ...     _ = file.write_text("image,cat,dog\na.jpg,1,1\nb.jpg,0,0\n")
    ...     table = MultiLabel(file)
    >>> listed.classes, listed.labels.tolist()
    (['cat', 'dog'], [[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    >>> table.classes, table.labels.tolist()
    (['cat', 'dog'], [[1.0, 1.0], [0.0, 0.0]])

    A sample is ``(pixels, label)``, the label a vector of 0 and 1, (C,) float32. The native extension reads whole
    batches, as of `ImageFiles`. The first line of the file names the columns. ``path`` is the column of the paths,
    below ``root`` (the folder of the file unless given): the first one, or a name. ``labels`` is the name of the one
    column with a list of classes, separated by ``split`` (white space unless given); or the names of the columns that
    are classes themselves and hold 0 or 1 (-1 counts as 0); all others without it. ``classes`` fixes the classes of a
    list and their order; without it they are those found, sorted. ``sep`` separates the columns. The file and the
    images may be behind URLs, with ``listing`` as in `ImageFiles`.

    Raises `ListFileError`, which names the line, for what cannot be read, a class among it that is not in ``classes``;
    `MissingFile` and `ArgumentError`.
    """

    def __init__(
        self,
        csv_file: str | os.PathLike[str],
        root: str | os.PathLike[str] | None = None,
        *,
        path: str | None = None,
        labels: str | Sequence[str] | None = None,
        split: str | None = None,
        classes: Iterable[str] | None = None,
        sep: str = ",",
        max_pixels: int = DEFAULT_MAX_PIXELS,
        allow_truncated: bool = False,
        scaled_decode: bool = False,
        listing: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(sep, str) or len(sep) != 1 or sep in '"\r\n':
            raise refused("sep", sep, "one character", 'Pass sep="\\t" for tabs.')
        if split is not None and (not isinstance(split, str) or not split):
            raise refused("split", split, "text between two classes", "Leave it out for white space.")
        known = None if classes is None else different_names("classes", classes)
        file = path_of("csv_file", csv_file)
        table = _Table(file, sep)
        place = 0 if path is None else table.place(path)
        if isinstance(labels, str):
            rows, names = table.listed(place, table.place(labels), split, known)
        elif classes is not None:
            raise refused("classes", classes, "no classes, where columns name them", "Leave it out, or pass labels=.")
        else:
            rows, names = table.columns(place, None if labels is None else different_names("labels", labels))
        folder = folder_of(file) if root is None else as_folder(root)
        decoding = Decoding("RGB", max_pixels, allow_truncated, scaled_decode)
        paths = PackedList(table.paths)
        super().__init__(folder, paths, rows, names, decoding, facts_of(folder, paths, listing))


class _Table:
    """A CSV file with a header; `paths` are filled as it is read."""

    def __init__(self, file: str, sep: str) -> None:
        self._file, self._sep = file, sep
        self._line, self.paths = 0, list[str]()
        self._names = next(self._rows(0), [])
        if len(self._names) < 2:
            self._refuse(f"the columns {self._names}", "a header, with a path and labels", "Name another sep=.")

    def place(self, name: str) -> int:
        if name not in self._names:
            self._refuse(
                f"no column {name!r}", f"one of {', '.join(map(repr, self._names))}", "Check path= and labels=."
            )
        self._check_once(name)
        return self._names.index(name)

    def _check_once(self, name: str) -> None:
        if self._names.count(name) > 1:
            self._refuse(f"several columns {name!r}", "one column of this name", "Rename a column, or pass labels=.")

    def columns(self, path: int, names: Sequence[str] | None) -> tuple[NDArray[np.float32], list[str]]:
        """Return the labels of columns that hold 0 or 1, and their names."""
        if names is None:
            places = [place for place in range(len(self._names)) if place != path]
            for place in places:
                self._check_once(self._names[place])
        else:
            places = [self.place(name) for name in names]
        found = bytearray()
        for fields in self._records(path):
            for place in places:
                if fields[place] not in VALUES:
                    name = self._names[place]
                    cure = "Pass labels= with the columns that are classes, or the one with a list."
                    self._refuse(f"{fields[place]!r} in the column {name!r}", "0 or 1", cure)
                found.append(VALUES[fields[place]])
        rows = np.frombuffer(found, np.uint8).reshape(len(self.paths), len(places))
        return rows.astype(np.float32), [self._names[place] for place in places]

    def listed(
        self, path: int, column: int, split: str | None, classes: Iterable[str] | None
    ) -> tuple[NDArray[np.float32], list[str]]:
        """Return the labels of a column of lists, and the names of the classes."""
        known = None if classes is None else {name: number for number, name in enumerate(classes)}
        numbers: dict[str, int] = {} if known is None else known
        pairs: list[tuple[int, int]] = []
        for row, fields in enumerate(self._records(path)):
            for name in filter(None, (part.strip() for part in fields[column].split(split))):
                if name not in numbers and known is not None:
                    self._refuse(f"the class {name!r}", f"one of the {len(known)} classes", "Add it to classes=.")
                pairs.append((row, numbers.setdefault(name, len(numbers))))
        names = list(numbers) if known is not None else sorted(numbers)
        order = np.zeros(len(names), np.int64)
        order[[numbers[name] for name in names]] = np.arange(len(names))
        rows = np.zeros((len(self.paths), len(names)), np.float32)
        found = np.array(pairs, np.int64).reshape(-1, 2)
        rows[found[:, 0], order[found[:, 1]]] = 1
        return rows, names

    def _records(self, path: int) -> Iterator[list[str]]:
        for fields in self._rows(1):
            if len(fields) != len(self._names):
                self._refuse(f"{len(fields)} fields", f"{len(self._names)}, as in the header", "Fix the line.")
            if not fields[path]:
                self._refuse("an empty path", "the path of an image", "Fix or remove the line.")
            self.paths.append(fields[path])
            yield fields

    def _rows(self, skipped: int) -> Iterator[list[str]]:
        with opened(self._file) as stream:
            reader = csv.reader(stream, delimiter=self._sep, strict=True)
            try:
                for number, fields in enumerate(fields for fields in reader if fields):
                    self._line = reader.line_num
                    if number >= skipped:
                        yield [field.strip() for field in fields]
            except csv.Error as error:
                self._line = reader.line_num
                self._refuse(f"it cannot be parsed as CSV: {error}", "fields as in RFC 4180", "Close the quotes.")

    def _refuse(self, what: str, expected: str, cure: str) -> NoReturn:
        raise ListFileError(what, line=self._line or 1, path=str(self._file), expected=expected, cure=cure) from None
