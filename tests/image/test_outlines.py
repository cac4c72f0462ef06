"""Masks of polygons and run lengths: the same as COCO's own tools make, and errors for what fills no mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.image.outlines import polygons_mask, run_lengths, run_lengths_mask

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
coco_masks = pytest.importorskip("pycocotools.mask")

SIDES = st.integers(1, 40)


@st.composite
def outlines(draw: Any) -> tuple[list[float], int, int]:
    height, width, seed = draw(SIDES), draw(SIDES), draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    points = rng.uniform(-0.2, 1.2, (draw(st.integers(3, 9)), 2)) * (width, height)
    far = max(height, width)
    points = points.clip(-far, 2 * far).round(draw(st.integers(0, 3)))
    return points.ravel().tolist(), height, width


@given(outlines())
@settings(max_examples=60, deadline=None)
def test_a_polygon_fills_the_pixels_that_coco_fills(case: tuple[list[float], int, int]) -> None:
    outline, height, width = case
    theirs = coco_masks.decode(coco_masks.frPyObjects([outline], height, width))[..., 0]
    np.testing.assert_array_equal(polygons_mask([outline], height, width), theirs)


@given(SIDES, SIDES, st.integers(0, 10_000), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_run_lengths_are_those_of_coco_in_both_forms(height: int, width: int, seed: int, share: float) -> None:
    mask = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    packed = coco_masks.encode(np.asfortranarray(mask))["counts"]
    np.testing.assert_array_equal(run_lengths_mask(packed, height, width), mask)
    np.testing.assert_array_equal(run_lengths_mask(packed.decode(), height, width), mask)
    np.testing.assert_array_equal(run_lengths_mask(run_lengths(mask), height, width), mask)


def test_long_runs_take_several_characters() -> None:
    mask = np.zeros((300, 500), np.uint8)
    mask[10:200, 30:411] = 1
    packed = coco_masks.encode(np.asfortranarray(mask))["counts"]
    np.testing.assert_array_equal(run_lengths_mask(packed, 300, 500), mask)


def test_several_polygons_of_an_object_are_joined() -> None:
    one, other = [0, 0, 2, 0, 2, 2, 0, 2], [4, 4, 6, 4, 6, 6, 4, 6]
    mask = polygons_mask([one, other], 8, 8)
    np.testing.assert_array_equal(mask, polygons_mask([one], 8, 8) | polygons_mask([other], 8, 8))
    assert mask.sum() == 8


def test_an_outline_of_more_points_than_are_worked_on_at_once_is_one_outline(monkeypatch: pytest.MonkeyPatch) -> None:
    angles = np.linspace(0, 2 * np.pi, 50)
    outline = np.stack([20 + 15 * np.cos(angles), 18 + 12 * np.sin(angles)], axis=1).ravel().tolist()
    whole = polygons_mask([outline], 40, 40)
    monkeypatch.setattr("headrace.image.outlines.AT_ONCE", 16)
    np.testing.assert_array_equal(polygons_mask([outline], 40, 40), whole)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([5], "runs of 5 pixels"),
        ([10**12], "a run of 1000000000000 pixels"),
        ([-1, 7], "a run of -1 pixels"),
        ([True, 5], "a run of True"),
        ([1.5, 4.5], "a run of 1.5"),
        ({"a": 1}, "a dict"),
        ("", "runs of 0 pixels"),
        ("Q", "no meaning"),
        ("ooooooooooooooooooo0", "60 bits"),
        ("oooooo0", "more pixels"),
        ("\x01", "no meaning"),
    ],
)
def test_run_lengths_that_fill_no_mask_are_refused_before_memory_is_taken(counts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_lengths_mask(counts, 2, 3)


@pytest.mark.parametrize(
    "outline",
    [[], [1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7], ["a"] * 6, [0, 0, 1, 0, 1, float("nan")], [0, 0, 1e9, 0, 1, 1], 7],
)
def test_polygons_that_are_none_are_refused(outline: Any) -> None:
    with pytest.raises(ValueError, match="polygon"):
        polygons_mask([outline], 4, 4)
