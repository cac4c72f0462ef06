"""What the guide says of clusters runs and prints what it says, on the cluster of these tests."""

from __future__ import annotations

import contextlib
import io

import pytest

from tests.test_docs import BLOCK, PARTS


@pytest.mark.parametrize("name", [name for name in PARTS if name.startswith("cluster.md ")])
def test_the_page_on_clusters_prints_what_it_says(name: str) -> None:
    """Run its blocks one after the other."""
    names: dict[str, object] = {"__name__": name}
    for code, expected in BLOCK.findall(PARTS[name]):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, name, "exec"), names)
        if expected:
            assert printed.getvalue() == expected
