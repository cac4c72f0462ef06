"""Arrays in `.npz` files, which are zip archives of `.npy` files: where each lies, if it is stored."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from headrace.errors import BadFile
from headrace.formats import zip as zips
from headrace.formats.npy import MOST_HEADER, ArraySpan, header

if TYPE_CHECKING:
    from headrace.formats.reader import ShardReader

MAGIC = b"PK"


def index(reader: ShardReader) -> dict[str, ArraySpan]:
    """Return the arrays of an open file by name.

    Raises `BadFile` for a file that is damaged, for arrays that are compressed or hold Python objects.
    """
    start, end, moved, count = zips.directory(reader)
    found = dict[str, zips.Entry]()
    for entry in zips.entries(reader, start, end, moved, count):
        name = entry.name.removesuffix(".npy")
        if name == entry.name:
            continue
        zips.refuse(reader, entry)
        if entry.method or name in found:
            raise BadFile(
                f"array {name!r} is {'compressed' if entry.method else 'there twice'}",
                path=reader.path,
                expected="arrays that are stored, as they are memory-mapped",
                cure="Write the file again with numpy.savez, not savez_compressed.",
            )
        found[name] = entry
    headers, sizes = (np.array([getattr(e, what) for e in found.values()], np.int64) for what in ("header", "size"))
    begins = zips.begins(reader, headers, sizes, start)
    arrays = dict[str, ArraySpan]()
    for (name, entry), begin in zip(found.items(), begins.tolist(), strict=True):
        try:
            span = header(reader.read(begin, min(entry.size, MOST_HEADER)), entry.size)
        except BadFile:
            raise
        except Exception as error:  # NumPy raises anything on strangers' bytes
            what = f"array {name!r} cannot be read: {str(error)[:200]}"
            raise reader.damaged(what, "a .npy file of numbers") from error
        arrays[name] = replace(span, offset=begin + span.offset)
    return arrays
