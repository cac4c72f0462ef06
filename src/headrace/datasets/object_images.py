"""Image files behind URLs: which there are, in the order of a folder's, and the size and version of each."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.datasets.packed_list import PackedList
from headrace.datasets.saved_arrays import SavedArrays, save
from headrace.errors import ArgumentError, BadFile, MissingFile, UnreadableFile
from headrace.storage import objects
from headrace.storage.request_loop import at_once

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

UNKNOWN, ABSENT = (-1, -1), (-2, -2)
"""The facts of an object that the server refused to show or a listing does not name, and of one that was not there when
the dataset was constructed: reading it says so."""

_CURE = "Delete the file to list the objects again, or pass another listing=."


class ObjectTree:
    """The images below a URL: its folders are the parts of their names.

    ``listing``: a file of what is there, read if it exists, and else written; None to ask the server.
    """

    def __init__(self, root: str, endings: tuple[str, ...], listing: str | os.PathLike[str] | None) -> None:
        self.root, self.endings = root.rstrip("/"), endings
        names, self._facts = listed(self.root, listing)
        if not names:
            raise MissingFile("nothing is below it", path=self.root, expected="objects", cure="Check the URL.")
        shown = [not any(part.startswith(".") for part in name.split("/")) for name in names]
        self._tops = {name.partition("/")[0] for name, seen in zip(names, shown, strict=True) if seen and "/" in name}
        self._images = dict[str, list[tuple[str, str, int]]]()
        for row, name in enumerate(names):
            if shown[row] and name.lower().endswith(endings):
                folder, _, base = name.rpartition("/")
                self._images.setdefault(folder.partition("/")[0], []).append((folder, base, row))
        self._order = list[int]()

    def classes(self) -> list[str]:
        """Return the folders directly in the root, sorted; raise `MissingFile` where there is none."""
        if self._tops:
            return sorted(self._tops)
        raise MissingFile(
            "no folder in it",
            path=self.root,
            expected="objects whose names begin with a folder for each class",
            cure="Read images without classes with ImageFiles.under(root).",
        )

    def images(self, top: str) -> Iterator[str]:
        """Yield the images in and below a folder, by folder, then by name; of the root, all of them."""
        found = self._images.get(top, []) if top else [each for group in self._images.values() for each in group]
        for folder, base, row in sorted(found):
            self._order.append(row)
            yield f"{folder}/{base}" if folder else base

    @property
    def facts(self) -> NDArray[np.int64]:
        """The size and the version of the images that were yielded, (n, 2)."""
        return self._facts[self._order]


def listed(root: str, listing: str | os.PathLike[str] | None) -> tuple[PackedList, NDArray[np.int64]]:
    """Return the names of the objects below a URL, sorted, and their facts (n, 2)."""
    place = _place(listing)
    if place is not None and os.path.lexists(place):
        return _read(place, root)
    found = objects.listing(root)
    names, facts = PackedList(name for name, _ in found), _rows(facts for _, facts in found)
    if place is not None:
        _write(place, root, names, facts)
    return names, facts


def facts_of(root: str, paths: PackedList, listing: str | os.PathLike[str] | None) -> NDArray[np.int64] | None:
    """Return the facts (n, 2) of images; None if none is behind a URL.

    Each is asked for by a request, unless ``listing`` names a file that has them. An object that is missing has
    `ABSENT` facts, and one that the server refuses to show `UNKNOWN` ones: it is an error when it is read.
    """
    if not objects.is_url(root) and not has_urls(paths):
        refuse_listing(listing)
        return None
    place = _place(listing)
    if place is not None and os.path.lexists(place):
        names, facts = _read(place, root)
        if names == paths:
            return facts
        row_of = {name: row for row, name in enumerate(names)}
        return np.concatenate([facts, [UNKNOWN]])[[row_of.get(name, -1) for name in paths]]

    def ask(name: str) -> tuple[int, int]:
        url = objects.joined(root, name)
        if not objects.is_url(url):
            return UNKNOWN
        try:
            return objects.facts(url)
        except (MissingFile, UnreadableFile) as error:
            if error.errno is None:
                raise
            return ABSENT if error.errno == errno.ENOENT else UNKNOWN

    found = _rows(at_once(ask, paths, objects.ASKED_AT_ONCE, "headrace-facts"))
    if place is not None:
        _write(place, root, paths, found)
    return found


def has_urls(paths: PackedList) -> bool:
    """Say whether one of these paths is a URL."""
    return b"://" in paths._text.tobytes()  # in all of them at once


def refuse_listing(listing: object) -> None:
    """Raise `ArgumentError` for a listing of files on this machine."""
    if listing is not None:
        raise ArgumentError(
            f"listing={str(listing)!r} is for images behind URLs",
            found=listing,
            expected="a root or paths that are URLs",
            cure="Leave listing= out: folders on this machine are read each time.",
        )


class Urls(Sequence[str]):
    """The URLs or paths of names below a folder, put together when they are asked for."""

    def __init__(self, root: str, names: PackedList) -> None:
        self._root, self._names = root, names

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: Any) -> Any:
        return objects.joined(self._root, self._names[index])


def _place(listing: str | os.PathLike[str] | None) -> str | None:
    cure = "Pass the path of a file on this machine, or one that all machines see."
    return None if listing is None else objects.local("listing", listing, cure)


def _rows(facts: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    return np.array(list(facts), np.int64).reshape(-1, 2)


def _read(place: str, root: str) -> tuple[PackedList, NDArray[np.int64]]:
    why: object = "its arrays do not belong together"
    fits = False
    try:
        with SavedArrays(place) as saved:
            text, ends, facts = (np.concatenate([*saved.blocks(name)] or [saved.array(name)]) for name in _ARRAYS)
            told = saved.about["root"]
        fits = bool(len(ends) and not ends[0] and (ends[1:] >= ends[:-1]).all() and int(ends[-1]) == len(text))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = error
    if not fits or len(facts) != 2 * (len(ends) - 1):
        raise BadFile(
            f"it is no listing, or damaged: {why}", path=place, expected="a file that listing= wrote", cure=_CURE
        )
    names = PackedList.of_arrays(text, ends)
    if told != root:
        raise ArgumentError(
            f"listing={place!r} lists {told!r}, and not {root!r}", found=told, expected=f"that of {root!r}", cure=_CURE
        )
    return names, facts.reshape(-1, 2)


_ARRAYS = ("text", "ends", "facts")


def _write(place: str, root: str, names: PackedList, facts: NDArray[np.int64]) -> None:
    arrays: dict[str, NDArray[Any]] = dict(zip(_ARRAYS, (names._text, names._ends, facts.reshape(-1)), strict=True))
    if not save(Path(place), {"root": root}, arrays):
        raise ArgumentError(
            f"listing={place!r} cannot be written",
            found=place,
            expected="a file in a folder that can be written to",
            cure="Pass another path, or leave listing= out.",
        )
