"""Checks of arguments: each returns the value in its builtin type, or raises an error in three parts.

>>> integer("window", 3, least=1), flag("shuffle", 0), seconds("timeout", 2.5)
(3, False, 2.5)
>>> integer("window", "3", least=1)
Traceback (most recent call last):
    ...
headrace.errors.ArgumentTypeError: window must be an integer from 1 up; got '3'; convert text with int() first

A value of a wrong type raises `ArgumentTypeError`, which is a TypeError and a ValueError; a value out of range raises
`ArgumentError`, a ValueError. Both have the value as ``found``, and ``expected`` and ``cure`` as attributes.
"""

from __future__ import annotations

import math
import operator
import os
import re
import threading
from collections.abc import Iterable
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from headrace.errors import ArgumentError, ArgumentTypeError
from headrace.errors import shown as shown  # noqa: PLC0414  defined there because errors use it

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray


T = TypeVar("T")


def integer(name: str, value: Any, *, least: int, most: int | None = None, cure: str | None = None) -> int:
    """Return an integer within its limits: an int, or any number of another library that is one.

    >>> integer("rank", 2, least=0, most=2)
    2
    >>> integer("rank", 3, least=0, most=2, cure="ranks count from 0")
    Traceback (most recent call last):
        ...
    headrace.errors.ArgumentError: rank must be an integer from 0 to 2; got 3; ranks count from 0

    Raises `ArgumentTypeError` for what is no integer, a bool among them.
    """
    expected = f"an integer from {least} up" if most is None else f"an integer from {least} to {most}"
    number = as_integer(value)
    if number is None:
        raise refused(name, value, expected, cure or _integer_cure(value), ArgumentTypeError)
    if number < least or (most is not None and number > most):
        raise refused(name, value, expected, cure)
    return number


def as_integer(value: Any) -> int | None:
    """Return the integer that a value is; None for anything else, a bool among them.

    >>> as_integer(3), as_integer(True), as_integer(3.0)
    (3, None, None)
    """
    if is_bool(value):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def is_bool(value: Any) -> bool:
    """Say whether a value is a bool, or an array or a tensor of booleans.

    >>> is_bool(True), is_bool(np.zeros(2, bool)), is_bool(1)
    (True, True, False)
    """
    if isinstance(value, bool):
        return True
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        return False
    kind = getattr(dtype, "kind", None)  # torch's dtypes have none
    return str(dtype) == "torch.bool" if kind is None else kind == "b"


def positive(name: str, value: Any) -> int:
    """Return an integer from 1 up, or raise in torch's words, which people search for and test suites match.

    >>> positive("batch_size", 0)
    Traceback (most recent call last):
        ...
    headrace.errors.ArgumentError: batch_size should be a positive integer value, but got batch_size=0; ...
    """
    number = as_integer(value)
    if number is not None and number > 0:
        return number
    expected = "a positive integer value"
    cure = "give 1 or more" if number is not None else _integer_cure(value)
    kind = ArgumentError if number is not None else ArgumentTypeError
    what = f"{name} should be {expected}, but got {name}={shown(value)}"
    raise kind(what, found=value, expected=expected, cure=cure)


def non_negative(name: str, value: Any, cure: str) -> int:
    """Return an integer from 0 up, or raise in torch's words, which people search for and test suites match.

    >>> non_negative("num_workers", -1, "give 0 for no workers")
    Traceback (most recent call last):
        ...
    headrace.errors.ArgumentError: num_workers option should be non-negative; got -1; expected an integer from 0 up; ...
    """
    number = as_integer(value)
    if number is None or number >= 0:
        return integer(name, value, least=0)
    what = f"{name} option should be non-negative; got {number}"
    raise ArgumentError(what, found=number, expected="an integer from 0 up", cure=cure)


def nbytes(name: str, value: Any, *, least: int = 1, most: int | None = None) -> int:
    """Return a number of bytes, at least ``least``, which may be given as text with a unit.

    >>> nbytes("size", "256KiB"), nbytes("size", "1.5 GB"), nbytes("size", 4096)
    (262144, 1500000000, 4096)
    """
    text = re.fullmatch(r"\s*([0-9.]{1,40})\s*([kKMGT]i?)?B?\s*", value) if isinstance(value, str) else None
    number_of = as_integer(value)
    if text is not None and text[1].count(".") <= 1 and text[1] != ".":
        unit = text[2] or ""
        number_of = int(float(text[1]) * (1024 if unit[1:] else 1000) ** " KMGT".index(unit[:1].upper() or " "))
    if number_of is None or number_of < least or (most is not None and number_of > most):
        limit = "up" if most is None else f"to {most:,}"
        cure = 'Give an integer, or text with a unit: "256KiB", "64MiB", "1.5GB".'
        raise refused(name, value, f"a number of bytes from {least} {limit}", cure)
    return number_of


def number(
    name: str, value: Any, *, least: float = -math.inf, most: float = math.inf, above: float | None = None
) -> float:
    """Return a finite number within its limits, as a float.

    >>> number("p", 1, least=0, most=1)
    1.0
    >>> number("std", 0, above=0)
    Traceback (most recent call last):
        ...
    headrace.errors.ArgumentError: std must be a finite number above 0; got 0
    """
    limits = [] if above is None else [f"above {above:g}"]
    if math.isfinite(least):
        limits.append(f"from {least:g} to {most:g}" if math.isfinite(most) else f"from {least:g} up")
    expected = " ".join(["a finite number", *limits])
    if not _is_real(value):
        raise refused(name, value, expected, "convert it with float() first", ArgumentTypeError)
    if not math.isfinite(value) or not least <= value <= most or (above is not None and value <= above):
        raise refused(name, value, expected)
    return float(value)


def fraction(name: str, value: Any) -> float:
    """Return a number from 0 to 1, such as a probability, as a float.

    >>> fraction("p", 0.5)
    0.5
    """
    return number(name, value, least=0, most=1)


def seconds(name: str, value: Any) -> float:
    """Return a time in seconds, from 0 up to what the operating system can wait.

    >>> seconds("timeout", 2), seconds("timeout", 0.5)
    (2, 0.5)
    """
    if _is_real(value) and not math.isnan(value):
        if value < 0:
            what = f"{name} option should be non-negative; got {shown(value)}"
            raise ArgumentError(what, found=value, expected="seconds from 0 up", cure="give 0 for no limit")
        if value <= threading.TIMEOUT_MAX:
            return value if isinstance(value, int) else float(value)
        raise refused(name, value, f"seconds from 0 to {threading.TIMEOUT_MAX:.0f}", "give 0 for no limit")
    raise refused(name, value, "seconds from 0 up", "give an int or a float", ArgumentTypeError)


def flag(name: str, value: Any, *, exact: bool = False) -> bool:
    """Return a bool: of True, False, NumPy's own, and unless ``exact``, of 1 or 0.

    >>> flag("drop_last", 0)
    False

    Raises `ArgumentTypeError` for anything else: the text "False", from YAML or a command line, is true to Python.
    """
    if isinstance(value, bool):
        return value
    kind = getattr(getattr(value, "dtype", None), "kind", "i" if isinstance(value, int) else "")
    if kind and kind in ("b" if exact else "biu") and getattr(value, "ndim", 0) == 0 and value in (0, 1):
        return bool(value)
    raise ArgumentTypeError(
        f"{name} should be a boolean value, but got {name}={shown(value)}",
        found=value,
        expected="a boolean value",
        cure="give True or False, and convert text from YAML or a command line first",
    )


def one_of(name: str, value: Any, choices: Collection[T]) -> T:
    """Return one of the choices.

    >>> one_of("side", "top", ("left", "right"))
    Traceback (most recent call last):
        ...
    headrace.errors.ArgumentError: side must be one of 'left', 'right'; got 'top'
    """
    for choice in choices:
        # An array answers == with an array, and True equals 1: neither is a choice.
        if value is choice or (
            isinstance(value, type(choice)) and is_bool(value) == is_bool(choice) and value == choice
        ):
            return choice
    raise refused(name, value, f"one of {', '.join(map(repr, choices))}")


def row(
    name: str, values: Any, expected: str, *, kinds: str, dtype: type[np.generic] | None = None, cure: str | None = None
) -> NDArray[Any]:
    """Return values as an array with one dimension and at least one value.

    >>> row("lengths", [3, 5], "one row of integers", kinds="iu")
    array([3, 5])
    >>> row("lengths", [[3], [5]], "one row of integers", kinds="iu")
    Traceback (most recent call last):
        ...
    headrace.errors.ArgumentError: lengths must be one row of integers; got an array of shape (2, 1) and dtype int64

    ``kinds`` has the letters of the dtypes that are allowed, as in ``numpy.dtype.kind``.
    """
    try:
        found = np.asarray(values, dtype)
    except (TypeError, ValueError, OverflowError) as error:
        what = f"{name} must be {expected}; {kind_of(values)} does not convert to one: {error}"
        raise ArgumentError(what, found=values, expected=expected, cure=cure) from error
    if found.ndim != 1 or found.dtype.kind not in kinds:
        what = f"{name} must be {expected}; got an array of shape {found.shape} and dtype {found.dtype}"
        raise ArgumentError(what, found=values, expected=expected, cure=cure)
    if not len(found):
        raise ArgumentError(f"{name} is empty", found="[]", expected=f"{expected}, at least one of them", cure=cure)
    return found


def check_weights(values: NDArray[np.float64]) -> None:
    """Refuse a row of weights that cannot be used for drawing.

    >>> check_weights(np.array([1.0, -1.0]))
    Traceback (most recent call last):
        ...
    headrace.errors.ArgumentError: weight 1 is -1.0; expected a finite number from 0 up
    """
    good = np.isfinite(values) & (values >= 0)
    if not good.all():
        at = int(np.argmin(good))
        found = float(values[at])
        raise ArgumentError(f"weight {at} is {found}", found=found, expected="a finite number from 0 up")
    if not values.any():
        what = f"no weight is above 0; got {len(values)} weights"
        raise ArgumentError(what, found=shown(values.tolist()), cure="give at least one weight above 0")


def different_names(name: str, value: Any) -> tuple[str, ...]:
    """Return names as a tuple; refuse one text, none at all, and a name that is there twice.

    >>> different_names("classes", ["cat", "dog"])
    ('cat', 'dog')
    """
    given = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else ()
    if not given or not all(isinstance(one, str) for one in given) or len(set(given)) < len(given):
        raise refused(name, value, "different names", f'Pass {name}=["cat", "dog"], for example.')
    return given


def function(name: str, value: T) -> T:
    """Return something that can be called, or None.

    >>> function("collate_fn", len) is len, function("collate_fn", None)
    (True, None)
    """
    if value is not None and not callable(value):
        raise refused(name, value, "callable, or None", "give a function, not its result", ArgumentTypeError)
    return value


def path(name: str, value: str | os.PathLike[str]) -> str:
    """Return a path as text.

    >>> path("root", "photos")
    'photos'
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if isinstance(text, str):
        return text
    raise refused(name, value, "a path, str or os.PathLike", "decode bytes with os.fsdecode()", ArgumentTypeError)


def article(noun: str) -> str:
    """Put ``a`` or ``an`` before the name of a type.

    >>> article("list"), article("int")
    ('a list', 'an int')
    """
    return f"{'an' if noun[:1].lower() in set('aeiou') else 'a'} {noun}"


def kind_of(value: object) -> str:
    """Name the type of a value, with its article.

    >>> kind_of([1]), kind_of(3)
    ('a list', 'an int')
    """
    return article(type(value).__qualname__)


def refused(
    name: str, value: Any, expected: str, cure: str | None = None, kind: type[ArgumentError] = ArgumentError
) -> ArgumentError:
    """Build the error for a value that cannot be used, for a check that is of one place only.

    >>> print(refused("sep", "ab", "one character", "Pass sep=None to find it."))
    sep must be one character; got 'ab'. Pass sep=None to find it.
    """
    return kind(f"{name} must be {expected}; got {shown(value)}", found=value, expected=expected, cure=cure)


def _integer_cure(value: Any) -> str:
    if isinstance(value, str):
        return "convert text with int() first"
    return "give a whole number, and no bool" if is_bool(value) else "give a whole number, such as int(value)"


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not is_bool(value)
