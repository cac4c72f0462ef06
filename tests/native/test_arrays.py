"""Arrays of images by the native extension are those of the step-by-step route."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace
from headrace import (
    ArrayDataset,
    CenterCrop,
    Normalize,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    TensorDataset,
    ToCHW,
    ToDtype,
    ToFloat,
)
from tests.native.stepwise import MISSING, WHY, assert_equal, batches, both

pytestmark = pytest.mark.skipif(MISSING, reason=WHY)


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, shape, dtype=np.uint8)


CHAINS: dict[str, tuple[Any, ...]] = {
    "floats": (ToFloat(), Normalize(0.4, 0.2), ToCHW()),
    "float16": (RandomCrop(24, pad_if_needed=True), ToFloat(), Normalize(0.4, 0.2), ToCHW(), ToDtype("float16")),
    "bfloat16": (RandomHorizontalFlip(), ToFloat(), Normalize(0.4, 0.2), ToDtype("bfloat16"), ToCHW()),
    "channels first": (ToCHW(),),
    "cifar": (RandomCrop(32, padding=4), RandomHorizontalFlip(), ToFloat(), Normalize(0.5, 0.3), ToCHW()),
    "reflected": (RandomCrop(32, padding=4, mode="reflect"), RandomHorizontalFlip(), ToFloat()),
    "symmetric": (RandomCrop((36, 20), padding=(3, 5), mode="symmetric"),),
    "edges": (Pad((1, 2, 3, 4), mode="edge"), RandomHorizontalFlip(1)),
    "filled": (Pad(3, fill=7), CenterCrop((31, 35)), ToCHW()),
    "small crop": (RandomCrop(7), RandomHorizontalFlip()),
    "scaled": (RandomResizedCrop(40), RandomHorizontalFlip(), ToFloat(), ToCHW()),
    "shorter side": (Resize(20), CenterCrop(18)),
    "bicubic": (Resize((50, 20), interpolation="bicubic"),),
}


@pytest.mark.parametrize(
    "shape", [(40, 32, 36, 3), (21, 30, 33, 1), (20, 29, 32, 4), (20, 30, 31, 2), (25, 28, 30)], ids=str
)
@pytest.mark.parametrize("chain", CHAINS)
def test_batches_are_those_of_the_steps(shape: tuple[int, ...], chain: str) -> None:
    """Give the same batches to the last bit, for one to four channels or none, inline and on threads."""
    base = ArrayDataset(images(*shape), np.arange(shape[0]), np.random.default_rng(0).random((shape[0], 6)))
    quick, slow = both(base, *CHAINS[chain])
    assert headrace.explain(quick).startswith("Mapped: all fused")
    expected = batches(slow)
    assert_equal(batches(quick), expected)
    assert_equal(batches(quick, num_workers=2), expected)


def test_bare_arrays_stay_bare_and_tensors_tuples() -> None:
    """Give what collating gives: an array for bare rows, a list for tuples of one."""
    array = images(9, 8, 8, 3)
    for kind in (ArrayDataset, TensorDataset):
        quick, slow = both(kind(array), ToFloat())
        assert_equal(batches(quick), batches(slow))
        ours, theirs = (next(iter(headrace.DataLoader(each, 3))) for each in (quick, slow))
        assert type(ours) is type(theirs)
        user = lambda sample, rng: sample  # noqa: E731
        quick, slow = both(kind(array), RandomHorizontalFlip(), user)
        assert_equal(batches(quick), batches(slow))


def test_other_arrays_go_step_by_step() -> None:
    """Leave floats, arrays with gaps, and images that cannot be had, to the steps."""
    for array in (np.zeros((4, 8, 8, 3)), images(4, 8, 8, 6)[..., ::2], images(4, 5), images(4, 8, 8, 5)):
        assert "sample by sample" in headrace.explain(ArrayDataset(array).map(RandomHorizontalFlip()))
    quick, slow = both(ArrayDataset(images(4, 8, 8, 3)), RandomCrop(20))
    for dataset in (quick, slow):
        with pytest.raises(headrace.errors.ArgumentError, match="an image as large as the crop"):
            batches(dataset)


def test_memory_mapped_arrays_stay_on_disk(tmp_path: Path) -> None:
    """Read images from a file that is mapped, read-only."""
    np.save(tmp_path / "images.npy", images(30, 16, 16, 3))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    quick, slow = both(ArrayDataset(mapped, np.arange(30)), *CHAINS["floats"])
    assert headrace.explain(quick).startswith("Mapped: all fused")
    assert_equal(batches(quick), batches(slow))


def test_keys_out_of_range_are_refused() -> None:
    """Raise IndexError, as the array does."""
    quick, _ = both(ArrayDataset(images(4, 8, 8, 3)), ToFloat())
    for key in (4, -5):
        with pytest.raises(IndexError):
            quick.read_batch([0, key])
    assert np.array_equal(quick.read_batch([-1]), quick.read_batch([3]))


@pytest.mark.parametrize("key", [-1, np.int64(3)], ids=repr)
def test_keys_of_other_kinds_mean_what_they_mean_step_by_step(key: Any) -> None:
    """Count from the end, and take NumPy's numbers, alone and among ordinary ones."""
    quick, slow = both(ArrayDataset(images(4, 8, 8, 3)), ToFloat())
    for keys in ([key], [2, key, 0]):
        assert np.array_equal(quick.read_batch(keys), [slow[one] for one in keys])


@pytest.mark.parametrize("key", [2**63, -(2**70), None, "1"], ids=repr)
def test_keys_that_are_none_are_refused(key: Any) -> None:
    """Raise what an array raises for such an index, and never read beside it."""
    quick, _ = both(ArrayDataset(images(4, 8, 8, 3)), ToFloat())
    with pytest.raises((IndexError, OverflowError, TypeError, ValueError)):
        quick.read_batch([1, key])
