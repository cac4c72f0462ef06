"""A seed is a promise: every transform gives the recorded pixels, boxes and keypoints, from commit to commit."""

from __future__ import annotations

import json

import pytest

from headrace import transforms
from tests.golden.transform_cases import COLORS, GEOMETRY, OF_BATCHES, PLAIN, RECORD, digest

pytest.importorskip("PIL")

GOLDEN = json.loads(RECORD.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [*GEOMETRY, *COLORS])
def test_a_seed_gives_the_values_that_were_recorded(name: str) -> None:
    """Compare with the record; an intended change updates the record and the changelog."""
    assert digest(name) == GOLDEN[name]


def test_every_recorded_transform_is_tested() -> None:
    """Keep cases and record together."""
    assert GOLDEN.keys() == {*GEOMETRY, *COLORS}


def test_every_public_transform_has_a_record() -> None:
    """Name each transform that the package exports, but for bases and what has tests of its own."""
    public = {name: getattr(transforms, name) for name in transforms.__all__}
    classes = {name for name, thing in public.items() if isinstance(thing, type)}
    found = {name for name in classes if issubclass(public[name], transforms.Transform)}
    bases = {"GeometricTransform", "ImageTransform", "Transform"}
    assert found - bases - PLAIN - OF_BATCHES <= {name.partition(" ")[0] for name in GOLDEN}
