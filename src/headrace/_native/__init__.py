"""The native extension, if it could be built: from encoded images or arrays to the rows of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

extension: ModuleType | None
try:
    from headrace._native import extension
except ImportError:  # installed without a compiler or libjpeg-turbo: everything runs step by step
    extension = None
