"""Memory that is lent and reused, and never while somebody looks at it."""

from __future__ import annotations

import gc
import pickle
import threading
import weakref

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace import ArrayDataset, DataLoader
from headrace.context.memory import SMALLEST, Leftover, Recycler, empty, recycling

SHAPE = (4, SMALLEST)


@given(
    shape=st.lists(st.integers(0, 40), max_size=4).map(tuple),
    dtype=st.sampled_from(["u1", "f4", "f8", "c16", "?", "M8[s]", "U3"]),
)
def test_any_shape_and_dtype_can_be_lent(shape: tuple[int, ...], dtype: str) -> None:
    """Lend writable, contiguous arrays just like np.empty's."""
    array = Recycler(keep=2).empty(shape, np.dtype(dtype))
    assert array.shape == shape
    assert array.dtype == np.dtype(dtype)
    assert array.flags.writeable
    assert array.flags.c_contiguous


@given(rows=st.integers(1, 9), columns=st.integers(SMALLEST, SMALLEST + 999))
def test_large_arrays_begin_at_a_cache_line(rows: int, columns: int) -> None:
    """Lend memory whose address is a multiple of 64."""
    recycler = Recycler(keep=1)
    for _ in range(2):
        assert recycler.empty((rows, columns), np.dtype("u1")).ctypes.data % 64 == 0


def test_memory_is_reused_once_nobody_holds_it() -> None:
    """Lend the same piece after the last view is dropped, and not before."""
    recycler = Recycler(keep=2)
    array = recycler.empty(SHAPE, np.dtype("u1"))
    place, view = array.ctypes.data, array[1:2, ::2].T
    del array
    assert recycler.empty(SHAPE, np.dtype("u1")).ctypes.data != place
    del view
    pieces = [recycler.empty(SHAPE, np.dtype("u1")) for _ in range(2)]
    assert place in {piece.ctypes.data for piece in pieces}


def test_what_is_kept_is_never_overwritten() -> None:
    """Keep every batch of many threads: each still holds what was written into it."""
    recycler = Recycler(keep=4)
    kept: list[tuple[int, np.ndarray]] = []

    def work(first: int) -> None:
        for number in range(first, first + 40):
            array = recycler.empty(SHAPE, np.dtype("i4"))
            array.fill(number)
            if number % 2:
                kept.append((number, array[2]))

    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept) == 80
    assert all((array == number).all() for number, array in kept)


def test_no_more_lies_idle_than_asked_for() -> None:
    """Let go of memory beyond `keep`, and of all of it on closing."""
    recycler = Recycler(keep=2)
    arrays = [recycler.empty(SHAPE, np.dtype("u1")) for _ in range(5)]
    del arrays
    assert len([*recycler._idle]) == 2
    recycler.close()
    assert not [*recycler._idle]


def left_by(keep: int, arrays: int, leftover: Leftover) -> set[int]:
    """Return the places of arrays that a loop used, which has ended."""
    recycler = Recycler(keep, leftover)
    lent = [recycler.empty(SHAPE, np.dtype("u1")) for _ in range(arrays)]
    recycler.close()
    return {array.ctypes.data for array in lent}


def lent_by(recycler: Recycler, arrays: int) -> set[int]:
    return {array.ctypes.data for array in [recycler.empty(SHAPE, np.dtype("u1")) for _ in range(arrays)]}


def test_the_next_loop_takes_the_memory_that_the_last_one_left() -> None:
    """Take it over from whichever loader, once."""
    mine, other = Leftover(), Leftover()
    places = left_by(3, 3, mine)
    second = Recycler(3, other)
    assert lent_by(second, 3) == places
    assert mine.take() is None
    assert lent_by(second, 3) == places


def test_memory_that_is_left_for_a_loop_of_another_size_is_freed() -> None:
    leftover = Leftover()
    recycler = Recycler(3, leftover)
    recycler.empty(SHAPE, np.dtype("u1"))
    piece = weakref.ref(next(iter(recycler._idle)))
    recycler.close()
    del recycler
    assert piece() is not None
    _ = Recycler(2, leftover)
    assert piece() is None


def test_only_the_loop_that_ended_last_leaves_memory() -> None:
    first, second = Leftover(), Leftover()
    left_by(3, 3, first)
    left_by(3, 3, second)
    left_by(3, 3, first)
    assert second.drop() is None
    assert len([*(first.drop() or ())]) == 3


def test_a_copy_of_a_loader_has_none_of_its_memory() -> None:
    leftover = Leftover()
    left_by(2, 2, leftover)
    assert pickle.loads(pickle.dumps(leftover)).drop() is None
    assert leftover.drop() is not None


def test_memory_is_kept_between_epochs_and_freed_with_the_loader() -> None:
    """Begin the second epoch in the memory of the first; the loader's end, or its `close`, frees it."""
    dataset = ArrayDataset(np.zeros((40, 1 << 16), np.uint8))
    for workers in (0, 2):
        for end in ("close", "drop"):
            loader = DataLoader(dataset, 4, num_workers=workers)
            for _ in loader:
                pass
            del _
            first = [weakref.ref(piece) for piece in loader._session._leftover._pieces or ()]
            for _ in loader:
                pass
            del _
            assert any(piece() is not None for piece in first)
            if end == "close":
                loader.close()
            else:
                del loader
            gc.collect()
            assert all(piece() is None for piece in first)


def test_a_batch_that_is_kept_past_its_epoch_is_not_overwritten() -> None:
    rows = np.arange(64, dtype=np.int32)[:, None] * np.ones((1, 1 << 15), np.int32)
    for workers in (0, 2):
        loader = DataLoader(ArrayDataset(rows), 4, num_workers=workers)
        kept = [batch for _ in range(3) for batch in loader]
        np.testing.assert_array_equal(np.concatenate(kept), np.concatenate([rows] * 3))
        for batch in loader:
            last = batch
        for batch in loader:
            batch[...] = -1
        np.testing.assert_array_equal(last, rows[60:])


def test_pieces_of_other_sizes_keep_their_place() -> None:
    """Reuse the images of batches and their masks, though each batch has both."""
    recycler = Recycler(keep=2)
    shapes = [SHAPE, (SHAPE[0], SHAPE[1] * 16)]
    lent = [recycler.empty(shape, np.dtype("u1")) for _ in range(2) for shape in shapes]
    places = {array.ctypes.data for array in lent}
    del lent
    again = [recycler.empty(shape, np.dtype("u1")) for _ in range(2) for shape in shapes]
    assert {array.ctypes.data for array in again} == places


def test_arrays_of_objects_are_never_lent() -> None:
    """Leave Python references to NumPy: stale ones in used memory would crash."""
    array = Recycler(keep=1).empty((SMALLEST,), np.dtype(object))
    assert array[0] is None


def test_an_array_may_be_put_in_a_piece_up_to_twice_its_size() -> None:
    """Share pieces among images of nearly one size, and take none that is far too large."""
    recycler = Recycler(keep=4)
    place = recycler.empty((SMALLEST * 8,), np.dtype("u1")).ctypes.data
    assert recycler.empty((SMALLEST * 5,), np.dtype("u1")).ctypes.data == place
    assert recycler.empty((SMALLEST * 3,), np.dtype("u1")).ctypes.data != place


def test_scratch_memory_is_recycled_only_where_a_loader_is_at_work() -> None:
    """Lend fresh memory outside, and a thread's own pieces inside."""
    recycler = Recycler(keep=1)
    with recycling(recycler):
        place = empty(SHAPE, np.dtype("u1")).ctypes.data
        assert len([*recycler._idle]) == 1
        assert empty(SHAPE, np.uint8).ctypes.data == place
    assert empty(SHAPE, np.dtype("u1")).base is None
    assert len([*recycler._idle]) == 1
