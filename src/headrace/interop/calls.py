"""What the signature of a user's function says; and checks of arguments."""

from __future__ import annotations

import inspect
import sys
from functools import partial
from inspect import Parameter
from typing import TYPE_CHECKING, Any

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
