"""Files as a disk, a network or an attacker leaves them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from headrace.errors import HeadraceError


def damaged(data: st.DataObject, whole: bytes) -> bytes:
    """Cut bytes short, flip some, and write large numbers over others."""
    found = bytearray(whole)
    how = data.draw(st.sampled_from(["cut", "flip", "count"]))
    if how == "cut":
        del found[data.draw(st.integers(0, len(found))) :]
    for _ in range(data.draw(st.integers(1, 3)) if found else 0):
        place = data.draw(st.integers(0, len(found) - 1))
        if how == "count":
            number = data.draw(st.sampled_from([10**9, 2**32 - 1, 2**31, 2**63 - 1, 2**64 - 1]))
            found[place : place + 8] = number.to_bytes(8, "little")[: len(found) - place]
        else:
            found[place] = data.draw(st.integers(0, 255))
    return bytes(found)


def read_all(make: Callable[[], Any]) -> int:
    """Construct a dataset and read each field of each sample: what is raised is an error of ours."""
    read = 0
    with contextlib.suppress(HeadraceError):
        dataset = make()
        for row in range(len(dataset)):
            for name in dataset.fields:
                with contextlib.suppress(HeadraceError):
                    dataset.tuple(name)[row]
                    read += 1
    return read
