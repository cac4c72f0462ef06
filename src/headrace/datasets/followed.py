"""Follow a function that applies a transform to the images of a batch, as `datasets` takes it in ``with_transform``.

The function is called with stand-ins for images, columns and transforms, and what it returns says what it does. That is
certain only where it depends on nothing else, so functions that use other names are refused.
"""

from __future__ import annotations

import builtins
import functools
from dataclasses import dataclass, is_dataclass
from types import CellType, CodeType, FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

BUILTINS = frozenset({"dict", "enumerate", "len", "list", "map", "range", "tuple", "zip"})
"""Functions that give the same each time."""
CONSTANTS = (str, int, float, bool, bytes, type(None))
ROWS = 2


class _Unfollowed(Exception):
    """Why a function cannot be followed."""


@dataclass(frozen=True, slots=True)
class Followed:
    """What a function makes of a batch of columns."""

    image: str
    """The column of the images."""
    transform: Any
    """What is applied to each of them."""
    mode: str | None
    """What they are converted to before that."""
    made: str
    """The name of the result."""
    names: tuple[tuple[str, str | None], ...]
    """The names that a batch has, in order, and the column that each is; None for the result."""


class _Image:
    """Takes the place of an image of a column, in a row."""

    def __init__(self, column: str, row: int, mode: str | None = None) -> None:
        self.column, self.row, self.mode = column, row, mode

    def convert(self, mode: str) -> _Image:
        """Return the image in another mode."""
        return _Image(self.column, self.row, mode)


class _Value:
    """Takes the place of the value of a column in a row."""

    def __init__(self, column: str, row: int) -> None:
        self.column, self.row = column, row


class _Made:
    """Takes the place of what a transform makes of an image."""

    def __init__(self, transform: Any, image: _Image) -> None:
        self.transform, self.image = transform, image


class _Transform:
    """Takes the place of a transform."""

    def __init__(self, transform: Any) -> None:
        self._transform = transform

    def __call__(self, image: Any) -> _Made:
        if not isinstance(image, _Image):
            raise _Unfollowed("it gives a transform something other than one image")
        return _Made(self._transform, image)


def follow(function: Any, columns: Collection[str], images: Collection[str]) -> Followed | str:
    """Return what a function makes of a batch of these columns, or why that cannot be said.

    >>> def double(batch):
    ...     return {"x": [2 * value for value in batch["x"]]}
    >>> follow(double, ["image", "x"], ["image"])
    "double: TypeError: unsupported operand type(s) for *: 'int' and '_Value'"
    """
    name = getattr(function, "__qualname__", type(function).__qualname__).rpartition(".")[2]
    given: dict[str, list[Any]] = {
        column: [(_Image if column in images else _Value)(column, row) for row in range(ROWS)] for column in columns
    }
    try:
        return _read(_stood_in(function)(given))
    except _Unfollowed as error:
        return f"{name}: {error}"
    except Exception as error:  # noqa: BLE001  of what it does with a stand-in
        return f"{name}: {type(error).__name__}: {error}"


def _read(found: Any) -> Followed:
    if not isinstance(found, dict):
        raise _Unfollowed("it returns no dict of columns")
    names: list[tuple[str, str | None]] = []
    made: list[tuple[str, _Made]] = []
    for key, column in found.items():
        rows = list(column) if isinstance(column, list | tuple) else []
        kinds = set(map(type, rows))
        parts = [value.image if isinstance(value, _Made) else value for value in rows]
        aligned = [getattr(part, "row", None) for part in parts] == list(range(ROWS))
        alike = len({(getattr(part, "column", None), getattr(part, "mode", None)) for part in parts}) == 1
        if kinds not in ({_Made}, {_Value}) or not aligned or not alike:
            why = "stays an image beside the result" if kinds == {_Image} else "is no column, and no transformed one"
            raise _Unfollowed(f"{key!r} {why}")
        if kinds == {_Made}:
            made.append((key, rows[0]))
        names.append((key, None if kinds == {_Made} else rows[0].column))
    if len(made) != 1:
        raise _Unfollowed(f"it makes {len(made)} columns of images")
    key, first = made[0]
    return Followed(first.image.column, first.transform, first.image.mode, key, tuple(names))


def _stood_in(function: Any) -> Any:
    """Return the function with stand-ins in the place of the transforms that it uses."""
    if isinstance(function, functools.partial):
        keywords = {name: _stand_in(name, value) for name, value in function.keywords.items()}
        return functools.partial(_stood_in(function.func), *(_stand_in("", one) for one in function.args), **keywords)
    if not isinstance(function, FunctionType):
        raise _Unfollowed("it is no function of Python's")
    code = function.__code__
    used = {name for part in _codes(code) for name in part.co_names}
    scope: Mapping[str, Any] = function.__globals__
    names = {name: _stand_in(name, scope[name]) for name in used & scope.keys()}
    for name in sorted(used - names.keys() - BUILTINS):
        if hasattr(builtins, name):
            raise _Unfollowed(f"it uses {name}")
    cells = tuple(
        CellType(_stand_in(name, cell.cell_contents))
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True)
    )
    defaults = tuple(_stand_in("", value) for value in function.__defaults__ or ())
    copied = FunctionType(code, names, function.__name__, defaults, cells)
    copied.__kwdefaults__ = {name: _stand_in(name, value) for name, value in (function.__kwdefaults__ or {}).items()}
    return copied


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield a function's code, and that of the functions and comprehensions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _stand_in(name: str, value: Any) -> Any:
    if str(type(value).__module__).startswith("torchvision.transforms"):
        return _Transform(value)
    if isinstance(value, CONSTANTS) or (is_dataclass(value) and not isinstance(value, type)):
        return value
    raise _Unfollowed(f"it uses {name or type(value).__name__}, which is no transform of torchvision's")
