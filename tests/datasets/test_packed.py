"""A packed list is a list of strings in every way but its size."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.datasets.packed_list import PackedList
from headrace.errors import ArgumentError

STRINGS = st.lists(st.text(st.characters(codec=None), max_size=20), max_size=30)  # lone surrogates among them


@given(STRINGS)
def test_strings_come_back_as_they_were(strings: list[str]) -> None:
    """Give every string back, by index from both ends and in order."""
    packed = PackedList(iter(strings))
    assert list(packed) == strings
    assert len(packed) == len(strings)
    assert [packed[index] for index in range(-len(strings), len(strings))] == strings * 2


@given(STRINGS, st.slices(30))
def test_a_slice_is_what_a_list_would_slice(strings: list[str], part: slice) -> None:
    """Slice as a list does, steps and ends out of range included, to a packed list."""
    sliced = PackedList(strings)[part]
    assert isinstance(sliced, PackedList)
    assert list(sliced) == strings[part]
    assert sliced == PackedList(strings[part])


@given(st.binary(max_size=30).filter(lambda name: b"\0" not in name))
def test_names_of_files_survive(name: bytes) -> None:
    """Keep any name that the system gives, UTF-8 or not."""
    assert os.fsencode(PackedList([os.fsdecode(name)])[0]) == name


@given(STRINGS, STRINGS)
def test_equal_means_the_same_strings(one: list[str], other: list[str]) -> None:
    """Compare as lists do, with other packed lists only."""
    assert (PackedList(one) == PackedList(other)) == (one == other)
    assert PackedList(one) != one


def test_pieces_that_join_to_the_same_bytes_are_not_equal() -> None:
    """Tell lists apart by where strings begin, not by their bytes alone."""
    assert PackedList(["ab", "c"]) != PackedList(["a", "bc"])


def test_it_pickles_as_two_arrays() -> None:
    """Come back equal from a pickle that is not much larger than the strings."""
    packed = PackedList(f"{number}.jpg" for number in range(1000))
    data = pickle.dumps(packed, protocol=5)
    assert pickle.loads(data) == packed
    assert pickle.loads(data)[1:3] == PackedList(["1.jpg", "2.jpg"])
    assert len(data) < packed.nbytes + 500


def test_a_slice_does_not_hold_the_whole() -> None:
    """Cost as much as its own strings."""
    packed = PackedList(f"{number:06d}.jpg" for number in range(1000))
    assert packed[10:12].nbytes == 2 * 10 + 3 * 4


def test_a_string_costs_its_bytes_and_less_than_eight_more() -> None:
    """Hold 200,000 paths, and build them from a generator, at less than bytes + 8 each."""
    count, width = 200_000, len("train/000/0000000.jpeg")
    tracemalloc.start()
    try:
        packed = PackedList(f"train/{number % 1000:03d}/{number:07d}.jpeg" for number in range(count))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert packed[123_456] == "train/456/0123456.jpeg"
    assert packed.nbytes == count * width + 4 * (count + 1)
    assert held < count * (width + 8)


def test_offsets_grow_when_they_must() -> None:
    """Count in 64 bits above 4 GiB, as a pickle of such a list would hold it."""
    small = PackedList(["a", "bc"])
    restore, (text, ends) = small.__reduce__()
    assert ends.dtype == np.uint32
    wide = restore(text, ends.astype(np.uint64))
    assert wide == small
    assert wide[1] == "bc"
    assert wide[1:] == PackedList(["bc"])


def test_a_packed_list_of_a_packed_list_is_shared() -> None:
    """Take another packed list as it is, without copying."""
    packed = PackedList(["a", "b"])
    again = PackedList(packed)
    assert again == packed
    assert again.__reduce__()[1][0] is packed.__reduce__()[1][0]


def test_many_blocks_join_without_a_seam() -> None:
    """Come through several of the blocks that it is built in."""
    strings = [str(number) * 100 for number in range(10_000)]
    assert list(PackedList(strings)) == strings


def test_it_is_read_only_and_says_what_it_holds() -> None:
    """Refuse assignment, have no hash, and print short."""
    packed = PackedList(f"{number}" for number in range(10))
    with pytest.raises(TypeError):
        packed[0] = "x"  # type: ignore[index]
    with pytest.raises(TypeError):
        hash(packed)
    assert repr(packed) == "PackedList(['0', '1', … '9'], 10 strings)"
    assert repr(PackedList(["a"])) == "PackedList(['a'])"
    assert repr(PackedList()) == "PackedList([])"
    assert "7" in packed
    assert packed.index("7") == 7


def test_an_index_is_an_integer_in_range() -> None:
    """Take NumPy's integers, and refuse floats, strings and what is out of range as lists do."""
    packed = PackedList(["a", "b"])
    assert packed[np.int64(1)] == packed[np.uint8(1)] == "b"
    for index in (2, -3):
        with pytest.raises(IndexError, match=f"index {index} is out of range for a list of 2 strings"):
            packed[index]
    for wrong in (1.0, "1", None):
        with pytest.raises(TypeError):
            packed[wrong]  # type: ignore[call-overload]


@pytest.mark.parametrize("wrong", ["one string", b"bytes", ["a", 1], [b"a"], array("i", [1])])
def test_only_strings_are_taken(wrong: object) -> None:
    """Refuse a single string and items that are none, saying what was given."""
    with pytest.raises(ArgumentError, match=r"PackedList: (strings|item [01]) must be"):
        PackedList(wrong)  # type: ignore[arg-type]
