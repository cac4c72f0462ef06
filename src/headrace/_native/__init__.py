"""The native kernel, where it could be built: from files to rows of a batch, one call for a chunk of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

kernel: ModuleType | None
try:
    from headrace._native import kernel
except ImportError:  # installed without a compiler, or without libjpeg-turbo: everything goes step by step
    kernel = None
