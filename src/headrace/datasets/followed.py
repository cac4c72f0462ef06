"""Follow a function that applies a transform to the images of a batch, as `datasets` takes it in ``with_transform``.

The function is called with stand-ins for images, columns and transforms, and what it returns says what it does. That is
certain only where it depends on nothing else. So functions that use other names are refused, and those that decide by
what is in a batch, catch exceptions or keep something from call to call.
"""

from __future__ import annotations

import builtins
import dis
import functools
from dataclasses import dataclass, fields, is_dataclass, replace
from operator import index
from types import CellType, CodeType, FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

BUILTINS = frozenset({"dict", "list", "map", "tuple", "zip"})
"""Functions that give the same each time."""
CONSTANTS = (str, int, float, bool, bytes, type(None))
MANY = 1000
"""How many rows a batch has that shows whether their number makes a difference."""
CATCHING = frozenset({"PUSH_EXC_INFO"})
"""What Python's code has where an exception is caught: it may hide that a stand-in was refused."""
KEEPING = frozenset({"DELETE_GLOBAL", "STORE_GLOBAL"})
"""What it has where something outlives the call."""


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


class _StandIn:
    """Takes the place of what is not known before a batch is read: nothing may be decided or computed by it."""

    def _decide(self, _: object = None, /) -> Any:
        raise _Unfollowed("it decides or computes by what is in a batch")

    __bool__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = _decide
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __truediv__ = __mod__ = _decide


class _Mode(_StandIn):
    """Takes the place of an image's mode: it may be asked whether it is RGB, and `follow` tries both answers."""

    def __init__(self, *, rgb: bool) -> None:
        self._rgb = rgb

    def __eq__(self, other: object = None, /) -> bool:
        if other != "RGB":
            self._decide()
        return self._rgb

    def __ne__(self, other: object = None, /) -> bool:
        return not self == other

    __hash__ = _StandIn._decide


class _Image(_StandIn):
    """Takes the place of an image of a column, in a row."""

    def __init__(self, column: str, row: int, known: str | None) -> None:
        self.column, self.row, self.known = column, row, known

    @property
    def mode(self) -> _Mode:
        """What Pillow has here."""
        return _Mode(rgb=self.known == "RGB")

    def convert(self, mode: str) -> _Image:
        """Return the image in another mode."""
        if self.known not in (None, mode):
            raise _Unfollowed(f"it converts an image to {self.known} and then to {mode}")
        return _Image(self.column, self.row, mode)

    def __getattr__(self, name: str) -> NoReturn:
        raise _Unfollowed(f"it uses {name} of an image")


class _Value(_StandIn):
    """Takes the place of the value of a column in a row."""

    known = None

    def __init__(self, column: str, row: int) -> None:
        self.column, self.row = column, row


class _Number(_StandIn):
    """Takes the place of the number of a row, or of rows: good for indexing alone."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __index__(self) -> int:
        return self._number


def _len(rows: Any) -> _Number:
    return _Number(len(rows))


def _range(*limits: Any) -> list[_Number]:
    return [_Number(number) for number in range(*map(index, limits))]


def _enumerate(rows: Any, start: Any = 0) -> list[tuple[_Number, Any]]:
    return [(_Number(number), row) for number, row in enumerate(rows, index(start))]


COUNTING = {"enumerate": _enumerate, "len": _len, "range": _range}


class _Made(_StandIn):
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
    'double: it decides or computes by what is in a batch'
    """
    name = getattr(function, "__qualname__", type(function).__qualname__).rpartition(".")[2]
    try:
        found, *others = [
            _read(_stood_in(function)(_batch(columns, images, rows, known)), rows)
            for rows, known in ((2, None), (MANY, None), (2, "RGB"))
        ]
        alike = all(replace(one, mode=found.mode) == found for one in others)
        return found if alike else f"{name}: it depends on the number of rows, or on the mode of images"
    except _Unfollowed as error:
        return f"{name}: {error}"
    except Exception as error:  # noqa: BLE001  of what it does with a stand-in
        return f"{name}: {type(error).__name__}: {error}"


def _batch(columns: Collection[str], images: Collection[str], rows: int, known: str | None) -> dict[str, list[Any]]:
    """Return columns of stand-ins, with images of a known mode, or of any."""
    return {
        column: [_Image(column, row, known) if column in images else _Value(column, row) for row in range(rows)]
        for column in columns
    }


def _read(found: Any, count: int) -> Followed:
    if not isinstance(found, dict):
        raise _Unfollowed("it returns no dict of columns")
    names: list[tuple[str, str | None]] = []
    made: list[tuple[str, _Made]] = []
    for key, column in found.items():
        rows = list(column) if isinstance(column, list | tuple) else []
        kinds = set(map(type, rows))
        parts = [value.image if isinstance(value, _Made) else value for value in rows]
        aligned = [getattr(part, "row", None) for part in parts] == list(range(count))
        said = {(getattr(part, "column", None), getattr(part, "known", None)) for part in parts}
        alike = len(said) == len({id(value.transform) if isinstance(value, _Made) else 0 for value in rows}) == 1
        if kinds not in ({_Made}, {_Value}) or not aligned or not alike:
            why = "stays an image beside the result" if kinds == {_Image} else "is no column, and no transformed one"
            raise _Unfollowed(f"{key!r} {why}")
        if kinds == {_Made}:
            made.append((key, rows[0]))
        names.append((key, None if kinds == {_Made} else rows[0].column))
    if len(made) != 1:
        raise _Unfollowed(f"it makes {len(made)} columns of images")
    key, first = made[0]
    return Followed(first.image.column, first.transform, first.image.known, key, tuple(names))


def _stood_in(function: Any) -> Any:
    """Return the function with stand-ins in the place of the transforms that it uses."""
    if isinstance(function, functools.partial):
        keywords = {name: _stand_in(name, value) for name, value in function.keywords.items()}
        return functools.partial(_stood_in(function.func), *(_stand_in("", one) for one in function.args), **keywords)
    if not isinstance(function, FunctionType):
        raise _Unfollowed("it is no function of Python's")
    code = function.__code__
    for one in (one for part in _codes(code) for one in dis.get_instructions(part)):
        if one.opname in CATCHING:
            raise _Unfollowed("it catches exceptions")
        if one.opname in KEEPING or (one.opname == "STORE_DEREF" and one.argval in code.co_freevars):
            raise _Unfollowed(f"it changes {one.argval}, which outlives the call")
    used = {name for part in _codes(code) for name in part.co_names}
    scope: Mapping[str, Any] = function.__globals__
    names = {name: _stand_in(name, scope[name]) for name in used & scope.keys()}
    names = COUNTING | names
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
    if isinstance(value, CONSTANTS):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return SimpleNamespace(
            **{one.name: _stand_in(f"{name}.{one.name}", getattr(value, one.name)) for one in fields(value)}
        )
    raise _Unfollowed(f"it uses {name or type(value).__name__}, which is no transform of torchvision's")
