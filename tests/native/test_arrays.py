"""Arrays of images by the native extension are those of the step-by-step route."""

from __future__ import annotations

import ctypes
import mmap
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from headrace._native import extension
from headrace.context.seeds import Here
from headrace.datasets import Arrays
from headrace.errors import ArgumentError
from headrace.image import fused
from tests.image_files import encoded
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


BESIDE: dict[str, Any] = {
    "bools": np.arange(21) % 3 == 0,
    "halves": np.arange(21, dtype=np.float16),
    "columns of a matrix": np.arange(42, dtype=np.int32).reshape(2, 21).T,
    "every other one": np.arange(42)[::2],
    "big-endian": np.arange(21, dtype=">i4"),
    "long doubles": np.arange(21, dtype=np.longdouble),
    "complex": np.arange(21) * 1j,
    "times": np.arange(21).astype("M8[s]"),
    "strings": np.arange(21).astype(str),
    "no numbers": np.zeros((21, 0, 3), np.float32),
    "larger rows than images": np.random.default_rng(0).random((21, 60, 50)),
}


@pytest.mark.parametrize("kind", BESIDE)
def test_what_is_beside_images_is_gathered_whatever_it_is(kind: str) -> None:
    """Give the rows of arrays that the extension copies, and of those that NumPy does."""
    labels, beside, keys = np.arange(21), BESIDE[kind], [20, 0, 7]
    quick = ArrayDataset(images(21, 8, 8, 3), labels, beside).map(ToFloat(), ToCHW())
    found = quick.read_batch(keys)
    assert_equal([found[1:]], [[labels[keys], beside[keys]]])
    assert_equal(batches(quick, num_workers=2), batches(quick))


def test_a_source_that_takes_rows_by_itself_is_asked_for_them() -> None:
    """Copy no rows behind the back of a source with a ``take`` of its own."""

    class Negative(Arrays):
        def take(self, number: int, rows: np.ndarray, out: np.ndarray) -> None:
            super().take(number, rows, out)
            np.negative(out, out=out)

    class Signed(ArrayDataset):
        def native_source(self) -> Arrays:
            return source

    source = Negative(images(9, 8, 8, 3), beside=(np.arange(9),))
    quick = Signed(source.images, *source.beside).map(ToFloat())
    assert quick.read_batch([2, 0, 7])[1].tolist() == [-2, 0, -7]


def test_arrays_beside_images_have_a_row_for_each() -> None:
    """Refuse arrays of other sizes, before anything is copied."""
    source, place = Arrays(images(9, 8, 8, 3)), fused.place_of(Here())
    pipeline = fused.plan([ToFloat()], image_shape=(8, 8, 3)).pipeline
    keys, out, held = np.arange(4), np.zeros((4, 8, 8, 3), np.float32), source.opened_by(extension)
    rows = lambda *beside: pipeline.rows(held, keys, place, out, None, None, *beside)  # noqa: E731
    for beside, filled, what in (
        ([np.arange(9)], [np.full(3, -1)], "another size"),
        ([np.arange(8)], [np.full(4, -1)], "another number of rows"),
        ([np.arange(9)], [], "not as many"),
    ):
        with pytest.raises(ValueError, match=what):
            rows(beside, filled)
        assert all((array == -1).all() for array in filled)


def at_the_end_of_memory(array: np.ndarray) -> tuple[np.ndarray, mmap.mmap]:
    """Return a copy after which no byte can be read, and its memory."""
    page, size = mmap.PAGESIZE, array.nbytes
    room = -(-size // page) * page
    memory = mmap.mmap(-1, room + page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + room), ctypes.c_size_t(page), 0) == 0
    # By its address: an array of the map itself would be read as one of a file is.
    copy = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(start + room - size)).reshape(array.shape)
    copy[:] = array
    return copy, memory


@pytest.mark.parametrize("width", [1, 5, 8, 15, 16, 29, 64, 67])
@pytest.mark.parametrize("flip", [0, 1], ids=["straight", "flipped"])
def test_normalized_planes_are_right_at_any_width_and_nothing_past_the_array_is_read(width: int, flip: float) -> None:
    """Give the steps' bytes for images of any width, where the last byte of the array is the last of its memory."""
    shown, _memory = at_the_end_of_memory(images(9, 3, width, 3))
    quick, slow = both(ArrayDataset(shown), RandomHorizontalFlip(flip), ToFloat(), Normalize(0.4, 0.2), ToCHW())
    assert_equal(batches(quick), batches(slow))


CUT_THEN_PADDED = [
    (CenterCrop(10), CenterCrop(14)),
    (CenterCrop(10), Pad(2)),
    (RandomCrop(10, padding=1), RandomCrop(10, padding=2)),
    (Resize((16, 18)), CenterCrop(10), Pad(2, fill=9)),
    (CenterCrop(10), Resize((10, 10)), Pad(2)),
    (CenterCrop(12), RandomResizedCrop(12, scale=(1, 1), ratio=(1, 1)), CenterCrop((15, 9))),
]


@pytest.mark.parametrize("chain", CUT_THEN_PADDED, ids=str)
def test_what_was_cut_off_does_not_show_in_the_padding(chain: tuple[Any, ...], tmp_path: Path) -> None:
    """Fill the margin of an image that was cropped, from arrays and from JPEG files."""
    shown = images(9, 20, 24, 3) | 1
    assert_equal(*(batches(view) for view in both(ArrayDataset(shown), *chain)))
    for number, image in enumerate(shown[:4]):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(image))
    files = headrace.ImageFiles.under(tmp_path)
    assert_equal(*(batches(view) for view in both(files, *chain)))


MOVES = st.one_of(
    st.builds(CenterCrop, st.tuples(st.integers(5, 26), st.integers(5, 26))),
    st.builds(Pad, st.integers(0, 3), fill=st.sampled_from([0, 200])),
    st.builds(RandomCrop, st.integers(5, 22), padding=st.integers(0, 3), pad_if_needed=st.booleans()),
    st.builds(RandomHorizontalFlip, st.sampled_from([0.5, 1])),
    st.builds(RandomResizedCrop, st.integers(5, 20), scale=st.just((0.1, 1))),
    st.builds(Resize, st.one_of(st.integers(5, 22), st.tuples(st.integers(5, 22), st.integers(5, 22)))),
)


@settings(max_examples=150)
@given(chain=st.lists(MOVES, min_size=2, max_size=4), seed=st.integers(0, 99))
def test_any_moves_one_after_the_other(chain: list[Any], seed: int) -> None:
    """Give the pixels of the steps for every order of crops, scaling, padding and flips, or the same error."""
    quick, slow = both(ArrayDataset(images(5, 18, 22, 3) | 1), *chain)
    try:
        expected = batches(slow, seed=seed)
    except ArgumentError as error:
        with pytest.raises(ArgumentError, match=re.escape(str(error)[:40])):
            batches(quick, seed=seed)
        return
    assert_equal(batches(quick, seed=seed), expected)


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
