"""How long the native extension takes for samples of a dataset that is read in another way: timed on a few of them."""

from __future__ import annotations

from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.datasets import protocol
from headrace.datasets.torchvision_datasets import ConcatPart, FilesPart, HuggingFacePart, SubsetPart

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.datasets.torchvision_datasets import Part

MOST = 32
"""Samples that are read, several times where that takes less than half of `SECONDS`."""
SECONDS = 0.1
"""About how long that may take, if one sample takes less."""


def seconds_each(part: Part, collate: Callable[..., Any]) -> float | None:
    """Return the seconds that the native extension takes for a sample; None where a trial cannot say.

    A user's ``target_transform`` is not called for a trial, so there is none for a dataset that has one.
    """
    few = _few(part)
    if few is None:
        return None
    with suppress(Exception):  # whatever a trial meets, the statistics are given
        dataset = few.built(collate)
        read = protocol.batch_reader(dataset)
        places = np.linspace(0, len(dataset) - 1, min(MOST, len(dataset))).astype(int).tolist()
        if read is None or not places:
            return None
        began = perf_counter()
        read(places[:1], empty=np.empty)
        first = perf_counter() - began
        places = places[1 : 2 + int(SECONDS / first)]
        if not places:
            return first
        # Small images take less than a turn of another program on the CPU: one round says nothing.
        rounds, spent, began = 0, 0.0, perf_counter()
        while spent < SECONDS / 2:
            read(places, empty=np.empty)
            rounds, spent = rounds + 1, perf_counter() - began
        return spent / rounds / len(places)
    return None


def _few(part: Part) -> Part | None:
    """Return a part like a dataset's samples that is built in no time; None where the user's code belongs to it."""
    if isinstance(part, ConcatPart):
        return _few(part.parts[0])
    if isinstance(part, SubsetPart):
        return _few(part.part)
    if isinstance(part, HuggingFacePart):
        return part
    if part.target_transform.thing is not None:
        return None
    return part.some(MOST) if isinstance(part, FilesPart) else part
