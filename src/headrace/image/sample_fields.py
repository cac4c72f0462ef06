"""The fields of one sample by their kinds; and the sample with some of them replaced."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from headrace.checks import kind_of
from headrace.image.kinds import (
    BY_NAME,
    IMAGE,
    LABEL,
    LABELS,
    NONE_DECLARED,
    Boxes,
    Keypoints,
    Kind,
    Kinds,
    Mask,
    rows_of,
)
from headrace.image.targets import PLAIN, spatial_part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Path = tuple[Any, ...]
"""The keys, places or attributes that lead to a field, from the sample inwards."""

DEEPEST = 2
"""How many mappings may lie within each other for names to say what fields are."""

COLUMNS: dict[type, tuple[int, ...]] = {Boxes: (4,), Keypoints: (2, 3)}


SIMPLE = (*PLAIN, np.generic)
"""Types of parts that have no places in an image, and need no look at their names."""


class Field(NamedTuple):
    """A part of a sample whose kind is known."""

    path: Path
    kind: Kind
    value: Any
    by_name: bool = False
    """Whether only its name gives its kind, so that the value may be of another."""


def only_image(sample: Any) -> Any:
    """Return the key of the image in a plain tuple or dict of an image, numbers and text; None for any other sample.

    >>> only_image((np.zeros((4, 4)), 7)), only_image({"image": 3, "label": "a"}), only_image((3, [4]))
    (0, 'image', None)
    """
    kind = type(sample)
    if kind is tuple and sample:
        for part in sample[1:]:
            if not isinstance(part, SIMPLE):
                return None
        return 0
    if kind is dict and "image" in sample:
        for key, part in sample.items():
            if not isinstance(part, SIMPLE) and key != "image":
                return None
        return "image"
    return None


def found(sample: Any, kinds: Kinds = NONE_DECLARED) -> list[Field]:
    """Return the fields of a sample that have a kind, the first image first; empty where no image can be.

    >>> [field.path for field in found((np.zeros((4, 4)), 7))]
    [(0,)]
    >>> [field.path for field in found({"boxes": np.zeros((0, 4)), "image": np.zeros((4, 4)), "id": 3})]
    [('image',), ('boxes',)]
    """
    if isinstance(sample, np.ndarray):
        return [Field((), IMAGE, sample)]
    fields = list(_declared(sample, kinds, ()))
    known = {field.path for field in fields} | {(key,) for key, _ in kinds.fields}
    fields += [field for field in _named(sample, known, kinds.boxes) if field.path not in known]
    first = next((number for number, field in enumerate(fields) if field.kind is IMAGE), None)
    if first is None:
        return []
    return [fields[first], *fields[:first], *fields[first + 1 :]]


def misnamed(sample: Any, kinds: Kinds, fields: Iterable[Field]) -> str:
    """Describe a declaration that has not the form of the sample, or names boxes that are not there; empty if none.

    >>> sample = {"image": np.zeros((4, 4)), "boxes": np.zeros((1, 4))}
    >>> from headrace.image.kinds import declared
    >>> kinds = declared({"boxs": Boxes("xywh")})
    >>> misnamed(sample, kinds, found(sample, kinds)), misnamed(sample, NONE_DECLARED, found(sample))
    ("boxes under 'boxs', and the sample has them under 'boxes'", '')
    """
    keys = [key for key, _ in kinds.fields]
    if keys == list(range(len(keys))) and keys and (isinstance(sample, Mapping) or is_record(sample)):
        return f"{len(keys)} items in order, and the sample is {kind_of(sample)}"
    undeclared = next((one for one in fields if isinstance(one.kind, Boxes) and one.by_name), None)
    absent = next((key for key, kind in kinds.fields if isinstance(kind, Boxes)), None)
    if undeclared is None or absent is None:
        return ""
    return f"boxes under {absent!r}, and the sample has them under {undeclared.path[-1]!r}"


def _declared(sample: Any, kinds: Kinds, path: Path) -> Iterator[Field]:
    parts = dict(items_of(sample)) if kinds.fields else {}
    for key, kind in kinds.fields:
        if key not in parts:
            continue
        if isinstance(kind, Kinds):
            yield from _declared(parts[key], kind, (*path, key))
        else:
            yield Field((*path, key), kind, parts[key])


def _named(sample: Any, known: set[Path], boxes: Boxes) -> Iterator[Field]:
    """Yield the fields whose names are known: of a tuple or a list the first item, whatever its name."""
    if not isinstance(sample, tuple | list):
        yield from _in_mapping(items_of(sample), (), 0, boxes)
        return
    names = getattr(sample, "_fields", None)
    declared = {path[0] for path in known}
    for number, part in enumerate(sample):
        if number in declared or (number and type(part) in PLAIN):
            continue
        if not number and not declared:
            yield Field((0,), IMAGE, part)
        elif isinstance(part, Mapping):
            yield from _in_mapping(part.items(), (number,), 1, boxes)
        elif names and names[number] != "image":
            yield from _in_mapping([(names[number], part)], (), 1, boxes, place=number)


def _in_mapping(
    items: Iterable[tuple[Any, Any]], path: Path, depth: int, boxes: Boxes, *, place: int | None = None
) -> Iterator[Field]:
    for key, value in items:
        kind = BY_NAME.get(key) if isinstance(key, str) else None
        where = (*path, key if place is None else place)
        if kind is IMAGE and depth == 0:
            yield Field(where, IMAGE, value, by_name=True)
        elif kind is LABEL or kind is IMAGE:
            continue
        elif kind is not None and _fits(kind, value):
            yield Field(where, boxes if isinstance(kind, Boxes) else kind, value, by_name=True)
        elif depth < DEEPEST and isinstance(value, Mapping):
            yield from _in_mapping(value.items(), where, depth + 1, boxes)


def _fits(kind: Kind, value: Any) -> bool:
    """Say whether a value may be what its name says: a mask is an array, boxes are rows."""
    if isinstance(kind, Mask):
        return isinstance(value, np.ndarray) and value.ndim > 1
    if kind is LABELS:  # rows of several numbers may be classes with boxes
        if isinstance(value, np.ndarray):
            return value.ndim == 1 or (value.ndim == 2 and value.shape[1] == 1)
        return isinstance(value, list | tuple) and not (_has_rows(value) and len(value[0]) > 1)
    columns = COLUMNS[type(kind)]
    empty = isinstance(value, list | tuple) and not value
    return (isinstance(value, np.ndarray) or empty or _has_rows(value)) and rows_of(value, columns) is not None


def _has_rows(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], list | tuple | np.ndarray)


def items_of(sample: Any) -> Iterable[tuple[Any, Any]]:
    """Return the parts of a sample with their keys, places or attributes.

    >>> dict(items_of(["a", "b"]))
    {0: 'a', 1: 'b'}
    """
    if isinstance(sample, Mapping):
        return sample.items()
    if isinstance(sample, tuple | list):
        return enumerate(sample)
    if is_record(sample):
        return [(one.name, getattr(sample, one.name)) for one in dataclasses.fields(sample) if one.init]
    return ()


def is_record(sample: Any) -> bool:
    """Say whether a sample is an object of a dataclass.

    >>> is_record(3), is_record(Mask())
    (False, True)
    """
    return dataclasses.is_dataclass(sample) and not isinstance(sample, type)


def replaced(sample: Any, values: Mapping[Path, Any]) -> Any:
    """Return a sample of the same form with the values at some paths replaced; the sample itself is not changed.

    >>> replaced((1, {"a": 2}), {(0,): 5, (1, "a"): 6})
    (5, {'a': 6})
    """
    if () in values:
        return values[()]
    if type(sample) is dict and all(len(path) == 1 for path in values):  # most samples, and quicker
        return {**sample, **{path[0]: value for path, value in values.items()}}
    within: dict[Any, dict[Path, Any]] = {}
    for path, value in values.items():
        within.setdefault(path[0], {})[path[1:]] = value
    parts = dict(items_of(sample))
    new = {key: replaced(parts[key], inner) for key, inner in within.items()}
    if isinstance(sample, tuple):
        items = tuple(new.get(number, part) for number, part in enumerate(sample))
        kind: Any = type(sample)
        return items if kind is tuple else getattr(kind, "_make", kind)(items)
    if isinstance(sample, list):
        return type(sample)([new.get(number, part) for number, part in enumerate(sample)])
    if isinstance(sample, MutableMapping):
        changed = copy.copy(sample)
        changed.update(new)
        return changed
    return {**sample, **new} if isinstance(sample, Mapping) else dataclasses.replace(sample, **new)


def all_known(sample: Any, fields: Iterable[Field]) -> bool:
    """Say whether a sample is a plain dict of fields, numbers and text, so that it has no `unknown_part`.

    >>> sample = {"image": np.zeros((4, 6)), "mask": np.zeros((4, 6)), "id": 7}
    >>> all_known(sample, found(sample)), all_known({**sample, "more": [1]}, found(sample))
    (True, False)
    """
    if type(sample) is not dict:
        return False
    paths = {field.path for field in fields}
    return all(type(part) in PLAIN or (key,) in paths for key, part in sample.items())


def unknown_part(sample: Any, fields: Iterable[Field], size: tuple[int, ...]) -> str:
    """Describe a part of the sample that is none of the fields, and seems to have places in its image; empty if none.

    >>> image = np.zeros((4, 6))
    >>> sample = {"image": image, "mask": np.zeros((4, 6)), "corners": np.zeros((2, 2))}
    >>> unknown_part(sample, found(sample), (4, 6))
    "'corners', of shape (2, 2)"
    """
    if is_record(sample):
        sample = dict(items_of(sample))
    rest = sample
    for field in fields:
        rest = _without(rest, field.path) if field.path not in ((0,), ("image",)) else rest
    return spatial_part(rest, size)


def _without(sample: Any, path: Path) -> Any:
    """Return a sample without a part: a plain copy, which need not be of the same type."""
    parts = dict(items_of(sample))
    parts[path[0]] = _without(parts[path[0]], path[1:]) if path[1:] else None
    if isinstance(sample, Mapping):
        return parts
    if getattr(sample, "_fields", None):
        return type(sample)(*parts.values())
    return tuple(parts.values())
