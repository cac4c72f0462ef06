"""What the items of a list have in common: the native extension says what Python would."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from headrace._native import extension, items

CASES: list[Any] = [
    [],
    [1],
    [1, 2, 3],
    (1, 2.0),
    [True, 1],
    [np.zeros(2), np.zeros(2)],
    [np.zeros(2), np.zeros((2, 1))],
    [np.zeros(2), np.zeros(2, "f4")],
    [np.zeros(2), np.zeros(2, ">f8")],
    list(np.zeros((3, 2))),
    [*np.zeros((2, 2)), *np.zeros((2, 2)), np.zeros(2)],
    {"a": np.zeros(2), "b": np.ones(2)}.values(),
]


@pytest.mark.skipif(extension is None, reason="no native extension")
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_the_extension_says_what_python_would(case: Any) -> None:
    """Compare both, for the types and for attributes that some items lack."""
    assert items.one_type(case) is items._one_type(case)
    for (ours, pythons), name in product(
        [(items.in_common, items._in_common), (items.values, items._values)], ["shape", "dtype", "base", "real"]
    ):
        if name == "base" and ours is items.in_common:
            continue  # arrays compare item by item
        if all(hasattr(item, name) for item in case):
            if name == "real" and any(isinstance(item, np.ndarray) for item in case):
                continue
            expected, found = pythons(case, name), ours(case, name)
            assert expected == found if name != "base" else list(map(id, expected)) == list(map(id, found))
        else:
            with pytest.raises(AttributeError):
                ours(case, name)


def test_an_item_may_change_the_list_that_is_looked_at() -> None:
    """Look at no item that is gone."""
    held: list[Any] = []

    class Clears:
        @property
        def dtype(self) -> str:
            held.clear()
            return "float32"

    held += [Clears() for _ in range(5)]
    assert items.in_common(held, "dtype") == "float32"
    assert held == []


def test_what_an_attribute_or_a_comparison_raises_comes_through() -> None:
    """Raise it as it is; and TypeError for what is no sequence."""

    class Raises:
        @property
        def dtype(self) -> str:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        items.in_common([Raises()], "dtype")
    with pytest.raises(ValueError, match="ambiguous"):
        items.in_common([np.zeros((2, 2))[:1], np.zeros((2, 2))[1:]], "base")
    with pytest.raises(TypeError):
        items.one_type(5)  # type: ignore[arg-type]  # as a user's object might be
