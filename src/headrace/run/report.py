"""Where the time of a run went, as a table and as one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.formatting import percent, table

if TYPE_CHECKING:
    from collections.abc import Mapping

_DOING = {
    "read": "reading",
    "decode": "decoding",
    "transform": "transforming",
    "collate": "collating",
    "other": "everything else",
}
_CURES = {
    "read": "more workers hide a slow disk or network; a faster disk ends it",
    "decode": "more processor cores help, and so do files stored nearer to the size that training needs",
    "transform": "more processor cores help, and so does antialias=False, which looks at fewer pixels",
    "collate": "smaller samples help: uint8 instead of float32, for one",
    "other": "a function of the dataset or of its map holds the workers up",
}


def stage_table(stages: Mapping[str, float], *, images: int, item: str = "image") -> str:
    """Return seconds, share and milliseconds an image (or another item) of each stage, one a line.

    >>> print(stage_table({"decode": 3.0, "read": 1.0}, images=1000))
    stage     seconds  share  ms/image
    reading      1.00   25 %        1.00
    decoding     3.00   75 %        3.00
    """
    return table(stage_rows(stages, images=images, item=item))


def stage_rows(stages: Mapping[str, float], *, images: int, item: str = "image") -> list[tuple[str, ...]]:
    """Return the rows of that table, the heading first."""
    whole = sum(stages.values()) or 1.0
    rows: list[tuple[str, ...]] = [("stage", "seconds", "share", f"ms/{item}")]
    rows += [
        (doing(stage), f"{spent:.2f}", percent(spent / whole), f"{1000 * spent / (images or 1):.2f}")
        for stage, spent in in_order(stages)
    ]
    return rows


def longest_stage(stages: Mapping[str, float]) -> str:
    """Say in one line what takes the most of the workers' time, and what would help.

    >>> print(longest_stage({"decode": 3.0, "read": 1.0}))
    decoding takes 75 % of the workers' time: more processor cores help, ... nearer to the size that training needs
    """
    whole = sum(stages.values())
    if not whole:
        return "the workers did nothing that could be measured"
    most = max(stages, key=lambda stage: stages[stage])
    share = f"{doing(most)} takes {percent(stages[most] / whole)}"
    cure = _CURES.get(most)
    return f"{share} of the workers' time" + (f": {cure}" if cure else "")


def doing(stage: str) -> str:
    """Return what a stage does, as a person would say it.

    >>> doing("decode"), doing("tokenize")
    ('decoding', 'tokenize')
    """
    return _DOING.get(stage, stage)


def in_order(stages: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return the stages and their seconds in the order in which a sample passes them.

    >>> in_order({"collate": 1.0, "read": 2.0})
    [('read', 2.0), ('collate', 1.0)]
    """
    return sorted(stages.items(), key=_place)


def _place(item: tuple[str, float]) -> int:
    order = list(_DOING)
    stage, _ = item
    # A stage that a dataset names itself stands before "everything else".
    return order.index(stage) if stage in order[:-1] else len(order) + (stage == "other")
