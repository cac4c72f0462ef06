"""Pickles of plain data, read without running anything that is in them.

A pickle is a program for a small stack machine that may import and call whatever it names. This machine knows the
part of it that builds numbers, strings, lists, tuples, dicts and arrays of numbers, and refuses the rest. It is not
`pickle.Unpickler` with some names forbidden, because that one still grows its memory to any size that a pickle names
and hashes tuples of any depth, which ends the interpreter.
"""

from __future__ import annotations

import math
import operator
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import BadFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOST_STEPS = 4_000_000
"""The most instructions that are carried out: no pickle of a few hundred bytes a step can fill the memory."""

# The value of these is what stands behind them; of the others below, what the machine makes.
_VALUES = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
})  # fmt: skip
_MADE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = frozenset({"PROTO", "FRAME"})

_NUMBER = re.compile(r"[<>|=]?[biuf](1|2|4|8)")
_NAMES = {
    "numpy.core.multiarray _reconstruct": "_reconstruct",
    "numpy._core.multiarray _reconstruct": "_reconstruct",
    "numpy.core.numeric _frombuffer": "_frombuffer",
    "numpy._core.numeric _frombuffer": "_frombuffer",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",
    "__builtin__ bytes": "bytes",
}
"""What arrays and, in old protocols, bytes are pickled as calls of: names for this machine, never looked up."""


class _RefusedError(Exception):
    """Why a pickle is not read."""


class _Name(str):
    """A function of `_NAMES`, on the stack."""

    __slots__ = ()


class _Unbuilt:
    """An array whose contents come with the next BUILD; the memo keeps this, and gives what was built."""

    __slots__ = ("built",)

    def __init__(self) -> None:
        self.built: Any = self


class _Mark:
    pass


_MARK = _Mark()


def read_pickle(data: bytes, place: str) -> Any:
    """Return what a pickle holds: numbers, strings, bytes, lists, tuples, dicts and arrays of numbers, nothing else.

    >>> import pickle
    >>> read_pickle(pickle.dumps({"labels": [3, 8], "data": np.eye(2)}, protocol=2), "a file")["labels"]
    [3, 8]
    >>> read_pickle(pickle.dumps(print), "a file")
    Traceback (most recent call last):
    headrace.errors.BadFile: a file: a pickle that names builtins.print; ...

    Every protocol is read; the strings of Python 2 come out as Latin-1 text. Arrays are read-only. ``place`` is what
    errors call the file. Raises `BadFile`.
    """
    import pickletools

    try:
        return _Machine().run(pickletools.genops(data))
    except _RefusedError as error:
        raise BadFile(
            f"a pickle that {error}",
            path=place,
            expected="numbers, strings, lists, dicts and arrays of numbers",
            cure="Nothing of it was run. Do not use the file unless you know why.",
        ) from None
    except Exception as error:  # genops and the stack raise anything on strangers' bytes
        raise BadFile(
            f"{len(data)} bytes that cannot be unpickled: {str(error) or type(error).__name__}",
            path=place,
            expected="a whole pickle",
            cure="Restore the original file.",
        ) from error


class _Machine:
    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, steps: Iterator[tuple[Any, Any, Any]]) -> Any:
        stack = self._stack
        for count, (opcode, argument, _) in enumerate(steps):
            if count >= MOST_STEPS:
                raise _RefusedError(f"has more than {MOST_STEPS} instructions")
            name = opcode.name
            if name in _VALUES:
                stack.append(argument)
            elif name in ("BINPUT", "PUT", "LONG_BINPUT"):
                self._memo[argument] = stack[-1]
            elif name in _MADE:
                stack.append(_MADE[name]())
            elif name in _TUPLES:
                self._push_tuple(_TUPLES[name])
            elif name == "STOP":
                return stack.pop()
            elif name not in _IGNORED:
                handler = getattr(self, f"_{name.lower()}", None)
                if handler is None:
                    raise _RefusedError(f"has the instruction {name}")
                handler(argument)
        raise ValueError("it has no end")

    def _push_tuple(self, size: int) -> None:
        items = tuple(self._stack[-size:])
        if len(items) < size:
            raise ValueError("too little on the stack")
        del self._stack[-size:]
        self._stack.append(items)

    def _marked(self) -> list[Any]:
        """Take everything above the last mark, and the mark."""
        place = len(self._stack) - 1
        while self._stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ValueError("a mark is missing")
        items = self._stack[place + 1 :]
        del self._stack[place:]
        return items

    def _mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def _pop(self, _: Any) -> None:
        self._stack.pop()

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._marked()))

    def _list(self, _: Any) -> None:
        self._stack.append(self._marked())

    def _dict(self, _: Any) -> None:
        items = self._marked()
        self._stack.append({})
        self._fill(items)

    def _append(self, _: Any) -> None:
        self._extend([self._stack.pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._marked())

    def _extend(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise _RefusedError("appends to what is no list")
        self._stack[-1].extend(items)

    def _setitem(self, _: Any) -> None:
        items = self._stack[-2:]
        del self._stack[-2:]
        self._fill(items)

    def _setitems(self, _: Any) -> None:
        self._fill(self._marked())

    def _fill(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not dict:
            raise _RefusedError("sets items of what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, bytes, int):
                raise _RefusedError(f"has {type(key).__name__} for the key of a dict")
            self._stack[-1][key] = value

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _get(self, argument: int) -> None:
        value = self._memo[argument]
        self._stack.append(value.built if type(value) is _Unbuilt else value)

    _binget = _long_binget = _get

    def _global(self, argument: str) -> None:
        if argument not in _NAMES:
            raise _RefusedError(f"names {argument.replace(' ', '.', 1)[:80]}")
        self._stack.append(_Name(_NAMES[argument]))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._global(f"{module} {name}" if isinstance(name, str) and isinstance(module, str) else "what is no name")

    def _reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if type(function) is not _Name or type(arguments) is not tuple:
            raise _RefusedError("calls what is no function")
        if function == "_reconstruct":
            self._stack.append(_Unbuilt())
        elif function == "_frombuffer":
            raw, dtype, shape, order = arguments
            self._stack.append(_array(raw, dtype, shape, fortran=order == "F"))
        elif function == "dtype":
            self._stack.append(_dtype(arguments[0]))
        elif function == "encode" and isinstance(arguments[0], str):
            self._stack.append(arguments[0].encode("latin-1"))
        elif function == "bytes" and not arguments:
            self._stack.append(b"")
        else:
            raise _RefusedError(f"calls {function}")

    def _build(self, _: Any) -> None:
        state, unbuilt = self._stack.pop(), self._stack[-1]
        if isinstance(unbuilt, np.dtype):
            self._stack[-1] = unbuilt.newbyteorder(">") if state[1] == ">" else unbuilt
        elif type(unbuilt) is _Unbuilt:
            _, shape, dtype, fortran, raw = state
            self._stack[-1] = unbuilt.built = _array(raw, dtype, shape, fortran=bool(fortran))
        else:
            raise _RefusedError(f"builds {type(unbuilt).__name__}")


def _dtype(code: Any) -> np.dtype[Any]:
    if not isinstance(code, str) or not _NUMBER.fullmatch(code):
        raise _RefusedError("has an array of something else than numbers")
    return np.dtype(code)


def _array(raw: Any, dtype: Any, shape: Any, *, fortran: bool) -> np.ndarray[Any, Any]:
    if not isinstance(dtype, np.dtype):
        raise _RefusedError("has an array of something else than numbers")
    if isinstance(raw, str):  # of Python 2, whose strings are bytes
        raw = raw.encode("latin-1")
    if not isinstance(raw, (bytes, bytearray)):
        raise _RefusedError(f"has an array made of {type(raw).__name__}")
    sides = [operator.index(side) for side in shape]
    if min(sides, default=0) < 0 or math.prod(sides) * dtype.itemsize != len(raw):
        raise ValueError(f"an array of shape {shape} and dtype {dtype} has {len(raw)} bytes")
    array = np.frombuffer(raw, dtype).reshape(sides, order="F" if fortran else "C")
    array.flags.writeable = False
    return array
