"""Pickles of plain data are read; whatever else is in one is refused and never run."""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.datasets import pickled_data as pickles
from headrace.datasets.pickled_data import read_pickle
from headrace.errors import BadFile

PLAIN = {"labels": [1, -2, 2**70, True, None, 0.5], b"\x80": (b"", b"\xff", ""), 3: [[], {}, (1, 2, 3, 4)]}
ARRAYS = [
    np.arange(6).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.eye(2).astype(">f4"),
    np.zeros((0, 3), np.uint8),
    np.array([True, False]),
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_comes_back_as_it_was(protocol: int) -> None:
    """Read numbers, strings, bytes and containers of every protocol."""
    assert read_pickle(pickle.dumps(PLAIN, protocol), "it") == PLAIN


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_of_numbers_come_back_as_they_were(array: np.ndarray[Any, Any], protocol: int) -> None:
    """Read shape, dtype, byte order and layout, and mentions of the same array."""
    first, second = read_pickle(pickle.dumps([array, array], protocol), "it")
    np.testing.assert_array_equal(first, array)
    assert first.dtype == array.dtype
    assert second is first
    assert not first.flags.writeable


def test_the_strings_of_python_2_are_latin_1() -> None:
    """Read a dict as Python 2 wrote it, its array's bytes in a string."""
    written = (
        b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03(K\x03K\x08eU\x04nameq\x04U\x02\xe9tq\x05U\x04dataq\x06"
        b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\x09"
        b"(K\x01K\x01K\x03\x86cnumpy\ndtype\nq\x0aU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x03\x00\x80\xfftbu."
    )
    read = read_pickle(written, "it")
    assert (read["labels"], read["name"]) == ([3, 8], "\u00e9t")
    assert read["data"].tolist() == [[0, 128, 255]]


class Runs:
    """What runs a command when it is unpickled."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    "hostile",
    [
        Runs(os.system, "touch ran"),
        {"data": [Runs(eval, "open('ran', 'w')")]},
        Runs(getattr, 1, "real"),
        Runs(np.load, "ran"),
        Runs(np.dtype, "O"),
        Runs(bytes, 1 << 40),
        Runs(bytearray, 1 << 40),
        np.array([Runs(os.system, "touch ran")], dtype=object),
        np.array(["text"]),
        np.float64(3),
        {1, 2},
        1j,
        print,
        {(1, 2): 3},
        {1.5: 3},
    ],
    ids=lambda thing: str(getattr(thing, "call", type(thing)))[:40],
)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_is_no_plain_data_is_refused_and_not_run(
    hostile: object, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Name the file and what was found in it, and leave no trace of the command."""
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(hostile, protocol)
    with pytest.raises(BadFile, match=r"^a file: a pickle that .* Nothing of it was run"):
        read_pickle(data, "a file")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "data",
    [
        b"Pid\n.",
        b"Nq\x01\x82\x01.",
        b"(ios\nsystem\n.",
        b"(cos\nsystem\nS'touch ran'\no.",
        b"\x80\x02cos\nsystem\n.",
        b"\x8c\x02os\x8c\x06system\x93.",
        b"cnumpy\ndtype\nNb.",
        b"cnumpy\nndarray\n)R.",
        b"]]R.",
        b"}K\x01a.",
        b"]K\x01K\x01s.",
    ],
)
def test_instructions_that_plain_data_does_not_need_are_refused(data: bytes) -> None:
    """Refuse persistent ids, extensions, instances, calls and states of anything else."""
    with pytest.raises(BadFile, match="Nothing of it was run"):
        read_pickle(data, "it")


def test_a_place_in_the_memo_costs_what_is_there() -> None:
    """Take no memory for the two thousand million places that an instruction of five bytes names."""
    data = b"\x80\x02Nr\xff\xff\xff\x7f."
    tracemalloc.start()
    try:
        assert read_pickle(data, "it") is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_tuples_in_tuples_do_not_end_the_interpreter() -> None:
    """Refuse a key whose hash would recurse a million times, which ends `pickle.loads` by a crash."""
    with pytest.raises(BadFile, match="has tuple for the key"):
        read_pickle(b"}N" + b"\x85" * 1_000_000 + b"Ns.", "it")


def test_a_list_that_holds_itself_is_read() -> None:
    """Follow no reference to its end."""
    read = read_pickle(b"]q\x00h\x00a.", "it")
    assert read[0] is read


def test_instructions_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop after so many: each may make an object out of one byte."""
    monkeypatch.setattr(pickles, "MOST_STEPS", 1000)
    with pytest.raises(BadFile, match="more than 1000 instructions"):
        read_pickle(b"(" + b"}" * 1000 + b"l.", "it")


@pytest.mark.parametrize(
    ("shape", "code", "size"),
    [((2, 3), "u1", 5), ((-1, 6), "u1", 6),
     ((1 << 62, 4), "u1", 0), ((2,), "f3", 6), ((2,), "f8", 8), (("2",), "u1", 2)],
)  # fmt: skip
def test_arrays_that_do_not_add_up_are_refused(shape: Any, code: str, size: int) -> None:
    """Compare shape, dtype and bytes before anything is made of them."""
    array = b"cnumpy.core.numeric\n_frombuffer\n(B" + struct.pack("<I", size) + bytes(size)
    kind = b"cnumpy\ndtype\n(X\x02\x00\x00\x00" + code.encode() + b"tR"
    sides = b"(" + b"".join(pickle.dumps(side, 0)[:-1] for side in shape) + b"t"
    with pytest.raises(BadFile):
        read_pickle(array + kind + sides + b"X\x01\x00\x00\x00CtR.", "it")


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_is_cut_short_is_reported(protocol: int) -> None:
    """Refuse every beginning of a pickle, by name."""
    data = pickle.dumps([PLAIN, ARRAYS[0]], protocol)
    for end in range(len(data)):
        with pytest.raises(BadFile, match=r"^it: "):
            read_pickle(data[:end], "it")


@settings(deadline=None)  # how long it takes says nothing on a busy machine
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Raise nothing but BadFile, whatever the bytes."""
    with contextlib.suppress(BadFile):
        read_pickle(data + b".", "it")


@settings(deadline=None)  # how long it takes says nothing on a busy machine
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_any_changed_byte_is_read_or_refused(place: int, value: int) -> None:
    """Raise nothing but BadFile, wherever a pickle was damaged."""
    data = bytearray(pickle.dumps([PLAIN, *ARRAYS], 2))
    data[place % len(data)] = value
    with contextlib.suppress(BadFile):
        read_pickle(bytes(data), "it")
