"""The parts of a batch or a sample: arrays, text and others, each with a name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import shown
from headrace.formatting import count, range_rows
from headrace.image.sample_fields import is_record, items_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

DEEPEST = 6
MOST_PARTS = 40
LABELS = ("label", "labels", "target", "targets", "y", "cls")
"""Names of parts that are labels; without one of them, the first integers that are no identifiers are the labels."""
IDENTIFIERS = ("id", "ids", "index", "idx", "key", "count", "counts", "boxes")
"""Last words of the names of numbers that are no labels, such as "image_id" and "num_boxes"."""
MASKS = ("mask", "masks")
SOUNDS = ("audio", "sound", "sounds", "wave", "waveform", "waveforms")
"""Names of parts that are sounds: a row of numbers alone may be anything."""
SHORTEST = 64
"""The least length of what may be a sound."""
SMALLEST = 4
"""The least height and width of what may be an image, in pixels."""
CHANNELS = (1, 3, 4)


@dataclass(frozen=True, slots=True)
class Part:
    """One array, column of text, or other value of a batch."""

    name: str
    value: Any

    @property
    def array(self) -> NDArray[Any] | None:
        """The value, where it is an array."""
        return self.value if isinstance(self.value, np.ndarray) else None


def parts_of(batch: Any) -> list[Part]:
    """Return the parts of a batch, in its order; another library's arrays become NumPy's.

    >>> [part.name for part in parts_of([np.zeros((2, 3)), {"text": ["a", "b"], "ids": np.ones((2, 4))}])]
    ['[0]', '[1].text', '[1].ids']
    """
    found = []
    for part in _walk("", batch, 0):
        found.append(part)
        if len(found) == MOST_PARTS:
            break
    return _named(found)


def _walk(name: str, value: Any, depth: int) -> Iterator[Part]:
    array = as_array(value)
    if array is not None:
        yield Part(name, array)
    elif (isinstance(value, Mapping) or is_record(value)) and depth < DEEPEST:
        for key, one in items_of(value):
            yield from _walk(f"{name}.{key}" if name else str(key), one, depth + 1)
    elif name and (rows := _ragged(value)):
        yield Part(name, rows)
    elif isinstance(value, list | tuple) and depth < DEEPEST and any(map(_holds_more, value)):
        fields = getattr(value, "_fields", None)  # a named tuple's
        for number, one in enumerate(value):
            inner = f"{name}.{fields[number]}" if fields and name else fields[number] if fields else f"{name}[{number}]"
            yield from _walk(inner, one, depth + 1)
    else:
        yield Part(name, value)


def _ragged(value: Any) -> list[NDArray[Any]] | None:
    """Return the rows of a part with an array of its own for each sample, such as boxes; None for any other."""
    if not isinstance(value, list | tuple) or len(value) < 2:
        return None
    arrays = [array for array in map(as_array, value) if array is not None and array.ndim in (1, 2)]
    alike = {(array.ndim, array.dtype) for array in arrays}
    return arrays if len(arrays) == len(value) and len(alike) == 1 else None


def _holds_more(value: Any) -> bool:
    return isinstance(value, list | tuple | Mapping) or is_record(value) or as_array(value) is not None


def _named(parts: list[Part]) -> list[Part]:
    """Name a lone array, or a pair of images and labels."""
    if len(parts) == 1 and not parts[0].name:
        return [Part("images" if is_images(parts[0]) else "batch", parts[0].value)]
    if [part.name for part in parts] == ["[0]", "[1]"] and is_images(parts[0]):
        labels = parts[1].array
        second = "labels" if labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu" else "[1]"
        return [Part("images", parts[0].value), Part(second, parts[1].value)]
    return parts


def as_array(value: Any) -> NDArray[Any] | None:
    """Return any library's array, or a tensor on any device, as a NumPy array; None for other values."""
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    if not (hasattr(type(value), "shape") and hasattr(type(value), "dtype")):
        return None
    for change in ("detach", "cpu"):
        value = getattr(value, change)() if hasattr(value, change) else value
    try:
        return np.asarray(value)
    except Exception:  # noqa: BLE001  torch's bfloat16, which NumPy does not have
        return np.asarray(value.float()) if hasattr(value, "float") else None


def is_images(part: Part) -> bool:
    """Say whether a part is a batch of images: (N, H, W, C), (N, C, H, W), or (N, H, W) of bytes."""
    array = part.array
    if array is None or array.dtype.kind not in "uf" or is_masks(part):
        return False
    if array.ndim == 3:
        return array.dtype == np.uint8 and min(array.shape[1:]) >= SMALLEST
    if array.ndim != 4:
        return False
    last = array.shape[3] in CHANNELS and min(array.shape[1:3]) >= SMALLEST
    return last or (array.shape[1] in CHANNELS and min(array.shape[2:]) >= SMALLEST)


def is_masks(part: Part) -> bool:
    """Say whether a part is a batch of masks, by its name, dtype and shape (N, H, W)."""
    array = part.array
    named = part.name.rpartition(".")[2] in MASKS
    return named and array is not None and array.ndim == 3 and array.dtype.kind in "biu"


def is_sounds(part: Part) -> bool:
    """Say whether a part is a batch of sounds, by its name and shape: (N, T) or (N, channels, T)."""
    array = part.array
    if array is None or part.name.rpartition(".")[2] not in SOUNDS:
        return False
    return array.ndim in (2, 3) and array.dtype.kind in "if" and array.shape[-1] >= SHORTEST


def labels_of(parts: list[Part], count_of: int) -> NDArray[Any] | None:
    """Return the labels of ``count_of`` samples: by the name of a part, else the first integers, else soft labels.

    >>> labels_of([Part("images", np.zeros((1, 8, 8, 3), np.uint8)), Part("[1]", np.array([[0.7, 0.3]]))], 1)
    array([[0.7, 0.3]])
    """
    # "labels[0]" are those of the boxes of the first image.
    whole_batch = [part for part in parts if part.name.startswith("[") or not part.name.endswith("]")]
    parts = [part for part in whole_batch if not is_identifier(part)]
    arrays = [(part.name.rpartition(".")[2], part.array) for part in parts if part.array is not None]
    whole = [(name, one) for name, one in arrays if one.shape == (count_of,) and one.dtype.kind in "iu"]
    soft = [(name, one) for name, one in arrays if one.ndim == 2 and len(one) == count_of and all(map(is_soft, one))]
    named = [array for name, array in (*whole, *soft) if name in LABELS]
    second = [array for name, array in soft if name == "[1]"]
    return next(iter([*named, *(array for _, array in whole), *second]), None)


def is_identifier(part: Part) -> bool:
    """Say whether the name of a part says that it is the number of something, such as "image_id", and no label.

    >>> is_identifier(Part("meta.image_id", 3)), is_identifier(Part("idea", 3)), is_identifier(Part("[1]", 3))
    (True, False, False)
    """
    return re.split(r"[._]", part.name)[-1].lower() in IDENTIFIERS


def is_soft(value: Any) -> bool:
    """Say whether a vector may be a soft label: the shares of classes, or 0 and 1 of several classes.

    >>> is_soft(np.array([0.7, 0.3])), is_soft(np.array([0, 1, 1])), is_soft(np.array([2.0, 1.0])), is_soft(3)
    (True, True, False, False)
    """
    array = as_array(value)
    if array is None or array.ndim != 1 or len(array) < 2 or array.dtype.kind not in "biuf":
        return False
    shares = array.astype(np.float64)
    inside = bool(((shares >= 0) & (shares <= 1)).all())
    return inside and (abs(float(shares.sum()) - 1) < 0.01 or bool(np.isin(shares, (0, 1)).all()))


def part_rows(parts: list[Part]) -> list[tuple[str, ...]]:
    """Return a table of the parts: shape, dtype and range of values; the heading first."""
    rows = range_rows([])
    for part in parts:
        if part.array is not None:
            rows += range_rows([(part.name, part.array)])[1:]
        elif (arrays := _ragged(part.value)) is not None:
            ((name, _, *rest),) = range_rows([(part.name, np.concatenate([array.ravel() for array in arrays]))])[1:]
            sizes = ", ".join(_span(size) for size in zip(*(array.shape for array in arrays), strict=True))
            rows.append((name, f"{len(arrays)} of ({sizes}{',' if arrays[0].ndim == 1 else ''})", *rest))
        elif is_text(part):
            lengths = [len(text) for text in part.value]
            shortest, longest = (count(length, "letter") for length in (min(lengths), max(lengths)))
            rows.append((part.name, count(len(lengths), "text"), type(part.value[0]).__name__, shortest, longest))
        else:
            size = count(len(part.value), "item") if isinstance(part.value, list | tuple) else ""
            rows.append((part.name, size, type(part.value).__name__, "", ""))
    return rows


def _span(sizes: tuple[int, ...]) -> str:
    least, most = min(sizes), max(sizes)
    return str(most) if least == most else f"{least} to {most}"


def is_text(part: Part) -> bool:
    """Say whether a part is a column of text."""
    return (
        isinstance(part.value, list | tuple)
        and bool(part.value)
        and all(isinstance(one, str | bytes) for one in part.value)
    )


def values_of(part: Part, most: int = 6) -> list[str]:
    """Return the first values of a part in words: texts, rows of numbers, or others."""
    array = part.array
    if array is not None:
        if array.ndim not in (1, 2) or array.dtype.kind not in "biufOUS":
            return []
        rows = array[:most] if array.ndim == 2 else array[None, :most]
        return [_numbers(row) for row in rows]
    arrays = _ragged(part.value)
    if arrays is not None:
        return [_numbers(array.ravel()) for array in arrays[:most]]
    values = part.value if isinstance(part.value, list | tuple) else [part.value]
    return [shown(value) for value in values[:most]]


def _numbers(row: NDArray[Any], most: int = 12) -> str:
    text = " ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row[:most].tolist())
    return f"{text} …" if len(row) > most else text
