"""Labels as rows of numbers: a whole number each, or one-hot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import ArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def whole_numbers(path: str, place: str, values: NDArray[Any], start: int) -> NDArray[Any]:
    """Return labels that are a whole number a row; ``start`` is the number of the first row.

    >>> whole_numbers("a.h5", "a.h5:y", np.array([[3.0], [1.0]]), 0)
    array([3., 1.])

    Raises `ArgumentError` for another number.
    """
    column = values[:, 0]
    if column.dtype.kind in "fc":
        fits = (column == np.rint(column)) & (np.abs(column) < 2**63) & (column.imag == 0)
    else:
        fits = column <= 2**63 - 1
    if not fits.all():
        at = int(np.flatnonzero(~fits)[0])
        raise ArgumentError(
            f"{place}: the label of row {start + at} is {column[at]}",
            path=path,
            index=start + at,
            found=column[at],
            expected="integers of 64 bits",
            cure="Name another array as labels=, or convert this one.",
        )
    return column.real


def one_hot(path: str, place: str, values: NDArray[Any], start: int) -> NDArray[Any]:
    """Return labels that are the place of the one in each row; ``start`` is the number of the first row.

    >>> one_hot("a.h5", "a.h5:y", np.array([[0, 0, 1], [1, 0, 0]]), 0)
    array([2, 0])

    Raises `ArgumentError` for a row that has no single 1 among zeros.
    """
    wrong = np.flatnonzero(((values != 0).sum(axis=1) != 1) | ((values == 1).sum(axis=1) != 1))
    if len(wrong):
        at = int(wrong[0])
        raise ArgumentError(
            f"{place}: row {start + at} has {int((values[at] == 1).sum())} ones among "
            f"{int((values[at] != 0).sum())} numbers that are not 0",
            path=path,
            index=start + at,
            expected="one-hot rows: a single 1, and zeros",
            cure="Name another array as labels=, or correct the row.",
        )
    return np.asarray(values.argmax(axis=1))
