"""Parts of samples: what the key `Piece` asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headrace.checks import shown
from headrace.datasets.protocol import many, offered
from headrace.errors import ArgumentError, ArgumentTypeError
from headrace.plan.piece import Piece

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def read_piece(dataset: Any, piece: Piece) -> Any:
    """Return a part of a sample: of a dataset with ``read_part``, only that part is read.

    >>> from headrace.plan.piece import Piece
    >>> read_piece([[3, 4], [5, 6, 7]], Piece(1, 1, 3))
    [6, 7]

    Raises `ArgumentError` for a sample that ends before the part does, and `ArgumentTypeError` for one without parts.
    """
    read = offered(dataset, "read_part")
    if callable(read):
        return read(piece.index, piece.start, piece.stop)
    sample = dataset[piece.index]
    length = length_of(sample)
    if length is None:
        raise ArgumentTypeError(
            f"sample {piece.index} is {shown(sample)}, which has no length to cut",
            found=sample,
            expected="an array, a list, or a mapping or tuple of them",
            cure='give lengths and a limit that leave it whole, or pass longer="drop"',
        )
    check_part(piece.index, length, piece.start, piece.stop)
    return cut(sample, piece.start, piece.stop)


def length_of(sample: Any) -> int | None:
    """Return the length of a sample's longest part, along the first axis; None for a sample without one.

    >>> length_of({"tokens": [5, 6, 7], "label": 1}), length_of("text")
    (3, None)
    """
    return max(_lengths(sample), default=None)


def cut(sample: Any, start: int, stop: int) -> Any:
    """Return a sample with its longest parts cut; others, such as a label, stay whole.

    >>> cut({"tokens": [5, 6, 7], "label": 1}, 1, 3)
    {'tokens': [6, 7], 'label': 1}
    """
    return _cut(sample, length_of(sample) or 0, start, stop)


def check_part(index: int, length: int, start: int, stop: int) -> None:
    """Raise `ArgumentError` for a part that ends after its sample."""
    if length < stop:
        raise ArgumentError(
            f"sample {index} has length {length}, but its part from {start} to {stop} was asked for",
            index=index,
            found=length,
            expected=f"a length of {stop} or more",
            cure="give the sampler the lengths that samples have after all transforms",
        )


def many_pieces(dataset: Any, keys: Sequence[Any]) -> list[Any]:
    """Return the samples of keys, in one call of the dataset's where it can; some keys may be parts of samples.

    >>> from headrace.plan.piece import Piece
    >>> many_pieces([[3, 4], [5, 6, 7]], [0, Piece(1, 1, 3)])
    [[3, 4], [6, 7]]
    """
    whole = iter(many(dataset, [key for key in keys if not isinstance(key, Piece)]))
    return [read_piece(dataset, key) if isinstance(key, Piece) else next(whole) for key in keys]


def _lengths(sample: Any) -> Iterator[int]:
    """Yield the length of each leaf that can be cut."""
    if isinstance(sample, Mapping):
        for value in sample.values():
            yield from _lengths(value)
    elif _is_leaf(sample):
        yield len(sample)
    elif isinstance(sample, list | tuple):
        for value in sample:
            yield from _lengths(value)


def _cut(sample: Any, length: int, start: int, stop: int) -> Any:
    """Cut the leaves of this length; others, such as a label or an embedding of another size, stay whole."""
    if isinstance(sample, Mapping):
        return {key: _cut(value, length, start, stop) for key, value in sample.items()}
    if _is_leaf(sample):
        return sample[start:stop] if len(sample) == length else sample
    if isinstance(sample, list | tuple):
        values = [_cut(value, length, start, stop) for value in sample]
        if hasattr(sample, "_fields"):
            return type(sample)(*values)
        return tuple(values) if isinstance(sample, tuple) else values
    return sample


def _is_leaf(value: Any) -> bool:
    """Say whether a value is an array or a tensor with an axis, or a list of numbers, which may be empty."""
    shape = getattr(value, "shape", None)
    if shape is not None:
        return len(shape) > 0
    return isinstance(value, list) and all(isinstance(item, int | float) for item in value)
