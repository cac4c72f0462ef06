"""What the signature of a user's function says; and checks of arguments."""

from __future__ import annotations

import inspect
import sys
from functools import partial
from inspect import Parameter
from typing import TYPE_CHECKING, Any

from headrace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

if sys.version_info >= (3, 14):
    from annotationlib import Format

    # Annotations are evaluated when asked for: a name known to type checkers only must not fail here.
    signature = partial(inspect.signature, annotation_format=Format.FORWARDREF)
else:
    signature = inspect.signature


def takes_empty(function: Callable[..., Any]) -> bool:
    """Say whether a collate function takes lent memory: a parameter named ``empty``, to be given by name.

    >>> takes_empty(lambda samples, empty: samples), takes_empty(lambda samples: samples)
    (True, False)
    """
    try:
        parameters = signature(function).parameters
    except (TypeError, ValueError):
        return False
    return "empty" in parameters and parameters["empty"].kind is not Parameter.POSITIONAL_ONLY


def article(noun: str) -> str:
    """Put ``a`` or ``an`` before the name of a type.

    >>> article("list"), article("int")
    ('a list', 'an int')
    """
    return f"{'an' if noun[:1].lower() in set('aeiou') else 'a'} {noun}"


def flag(name: str, value: Any) -> bool:
    """Return a bool, of what is one: True, False, NumPy's, 1 or 0.

    >>> flag("drop_last", 0)
    False

    Raises `ArgumentError` for anything else: the text "False", from YAML or a command line, is true to Python.
    """
    if isinstance(value, bool):
        return value
    kind = getattr(getattr(value, "dtype", None), "kind", "i" if isinstance(value, int) else "")
    if kind in ("b", "i", "u") and getattr(value, "ndim", 0) == 0 and value in (0, 1):
        return bool(value)
    raise ArgumentError(
        f"{name} should be a boolean value, but got {name}={value!r}; give True or False, and convert text from YAML "
        "or a command line first"
    )
