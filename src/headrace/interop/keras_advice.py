"""The error that Keras shows for a loader that it cannot read."""

from __future__ import annotations

import sys

CURE = "Keras reads headrace.keras.DataLoader, which takes the same arguments: from headrace.keras import DataLoader"


class AdvisesKeras:
    """Adds a cure to the error that Keras raises for data it does not know.

    Keras puts such data into its message, "Unrecognized data type: x={x}", and asks nothing else of them that an
    object without ``__array__`` could answer. To every other caller the object formats as usual.

    >>> f"{AdvisesKeras()}".startswith("<headrace.interop.keras_advice.AdvisesKeras")
    True
    """

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        caller = sys._getframe(1)
        asked = caller.f_globals.get("__name__", "").startswith("keras.") and caller.f_code.co_name == ASKS
        return f"{self!s}. {CURE}" if asked else format(str(self), spec)


ASKS = "get_data_adapter"
"""Keras's function that tells kinds of data apart."""
