"""Settings of a thread or a process that the code of a dataset may depend on: the same for every worker.

A new thread starts with NumPy's own error handling and a decimal context of its own, and a spawned process with torch's
own default dtype and the locale "C": a dataset would give other values, or other errors, there than in the loop itself.
"""

from __future__ import annotations

import contextlib
import decimal
import locale
from typing import Any, NamedTuple, Self

import numpy as np

from headrace.interop import torch_state


class Ambient(NamedTuple):
    """The settings of the thread that begins a loop, which its workers get.

    >>> with np.errstate(divide="raise"):
    ...     settings = Ambient.here()
    >>> with np.errstate():
    ...     settings.enter_thread()
    ...     np.geterr()["divide"]
    'raise'
    """

    errors: Any
    on_error: Any
    decimals: decimal.Context
    numbers: str
    dtype: str | None

    @classmethod
    def here(cls) -> Self:
        """Return the settings of this thread."""
        torch = torch_state.loaded()
        return cls(
            dict(np.geterr()),
            np.geterrcall(),
            decimal.getcontext().copy(),
            locale.setlocale(locale.LC_ALL),
            None if torch is None else str(torch.get_default_dtype()).removeprefix("torch."),
        )

    def enter_thread(self) -> None:
        """Take the settings over, in a thread that was started for the loop."""
        np.seterr(**self.errors)
        np.seterrcall(self.on_error)
        decimal.setcontext(self.decimals.copy())

    def enter_process(self) -> None:
        """Take them over in a process, and those that all of its threads share."""
        self.enter_thread()
        if locale.setlocale(locale.LC_ALL) != self.numbers:
            with contextlib.suppress(locale.Error):
                locale.setlocale(locale.LC_ALL, self.numbers)
        torch = torch_state.loaded()
        if torch is not None and self.dtype is not None:
            torch.set_default_dtype(getattr(torch, self.dtype))
