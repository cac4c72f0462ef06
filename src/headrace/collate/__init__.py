"""Make a batch of samples: by default, padded, packed, or by a function of your own.

>>> import numpy as np
>>> from headrace.collate import default_collate
>>> default_collate([{"x": np.zeros(2), "id": "a"}, {"x": np.ones(2), "id": "b"}])
{'x': array([[0., 0.],
       [1., 1.]]), 'id': ['a', 'b']}
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from headrace.collate.default import collate, default_collate, default_convert
from headrace.collate.packed import Packed, PackedCollate
from headrace.collate.padded import Padded, PaddedCollate
from headrace.collate.register import register_collate
from headrace.context.tokens import count_tokens
from headrace.hints import looked_up as _looked_up

if _TYPE_CHECKING:
    from headrace.collate.object_lists import DetectionCollate
    from headrace.collate.transformed import TransformedCollate

LAZY = {
    "DetectionCollate": "object_lists",
    "TransformedCollate": "transformed",
}
"""Names whose files are imported when they are first asked for, so that `import headrace` stays light."""

__all__ = [
    "DetectionCollate",
    "Packed",
    "PackedCollate",
    "Padded",
    "PaddedCollate",
    "TransformedCollate",
    "collate",
    "count_tokens",
    "default_collate",
    "default_convert",
    "register_collate",
]

if not _TYPE_CHECKING:
    __getattr__ = _looked_up(__name__, LAZY)


def __dir__() -> list[str]:
    return [*globals(), *LAZY]
