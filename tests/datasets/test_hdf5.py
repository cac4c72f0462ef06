"""Rows of arrays in HDF5 and MATLAB files: chunk by chunk, from any process, out of no other file."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import DataLoader
from headrace.datasets import HDF5Dataset, hdf5
from headrace.errors import ArgumentError, MissingFile, UnreadableFile

h5py = pytest.importorskip("h5py")

# Python 3.12 and later warn of a fork while threads run, which pytest's own may.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")

DATA = np.random.default_rng(0).normal(size=(103, 5, 3)).astype(np.float32)
KINDS = np.random.default_rng(1).integers(0, 4, 103)
TAGS = np.eye(4)[KINDS]


@pytest.fixture(scope="module", autouse=True)
def helper_of_multiprocessing() -> None:
    """Start the process that multiprocessing starts once and leaves running, before leaks are counted."""
    resource_tracker.ensure_running()


def write(path: Path, arrays: dict[str, Any], **how: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, **(how if np.ndim(array) else {}))
    return path


def write_matlab(path: Path, arrays: dict[str, Any], **how: Any) -> Path:
    """Write arrays as MATLAB's save('-v7.3') lays them out: a header of its own, axes reversed, an attribute each."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            values = np.atleast_2d(array)
            stored = file.create_dataset(name, data=values.T, **how)
            stored.attrs["MATLAB_class"] = np.bytes_("logical" if values.dtype == bool else str(values.dtype))
        text = file.create_dataset("names", data=file.create_group("#refs#").create_dataset("a", data=[[1]]).ref)
        text.attrs["MATLAB_class"] = np.bytes_("cell")
        line = file.create_dataset("title", data=np.frombuffer("title".encode("utf-16-le"), np.uint16)[:, None])
        line.attrs["MATLAB_class"] = np.bytes_("char")
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\x02IM")
    return path


LAYOUTS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "chunked": {"chunks": True, "compression": "gzip"},
    "of 16 rows": {"chunks": (16, 5, 3), "compression": "gzip", "shuffle": True, "fletcher32": True},
    "of parts of rows": {"chunks": (10, 2, 3), "compression": "lzf"},
    "of one row": {"chunks": (1, 5, 3)},
    "larger than all": {"chunks": (1000, 5, 3), "maxshape": (None, 5, 3)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cache_bytes", [0, 2000, 1 << 20])
def test_rows_are_what_is_in_the_file(layout: str, cache_bytes: int, tmp_path: Path) -> None:
    """Read every row, alone, in a list and in a batch, with repeats and negative indices, however it is stored."""
    path = write(tmp_path / "a.h5", {"data": DATA}, **LAYOUTS[layout])
    dataset = HDF5Dataset(path, cache_bytes=cache_bytes)
    assert (len(dataset), dataset.shape, dataset.dtype) == (103, DATA.shape, DATA.dtype)
    assert np.array_equal(dataset[7], DATA[7])
    assert np.array_equal(dataset[-1], DATA[-1])
    keys = [5, 102, 5, -1, 0, 64, 63, 17, 16]
    assert np.array_equal(dataset.__getitems__(keys), DATA[keys])
    assert np.array_equal(dataset.read_batch(keys), DATA[keys])
    assert dataset.__getitems__([]) == []
    assert np.array_equal(list(dataset), DATA)
    order = np.random.default_rng(2).permutation(103)
    assert np.array_equal(np.concatenate(list(DataLoader(dataset, 10, sampler=order.tolist()))), DATA[order])


def test_each_chunk_of_a_call_is_read_once_and_kept_up_to_a_bound(tmp_path: Path) -> None:
    """Group rows by chunk; keep the chunks read last, and no more than were asked for."""
    path = write(tmp_path / "a.h5", {"data": DATA}, chunks=(10, 5, 3), compression="gzip")
    dataset = HDF5Dataset(path, cache_bytes=3 * 10 * 60)
    dataset.__getitems__([95, 5, 45, 6, 41, 99, 7])
    kept = dataset._reader()._blocks
    assert list(kept) == [0, 4, 9]
    dataset.__getitems__([0, 20])
    assert list(kept) == [9, 0, 2]
    dataset[9]
    assert list(kept) == [9, 2, 0]
    assert sum(block.nbytes for block in kept.values()) <= 3 * 10 * 60
    dataset.close()
    assert np.array_equal(dataset[9], DATA[9])


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<i2", ">u4", "i1", "u1", "f2", "?", "c8"])
def test_dtypes_stay_but_for_the_order_of_bytes(dtype: str, tmp_path: Path) -> None:
    """Give numbers of the file's dtype, in this machine's byte order."""
    values = (np.arange(12).reshape(4, 3) % 5).astype(dtype)
    dataset = HDF5Dataset(write(tmp_path / "a.h5", {"data": values}))
    assert dataset[0].dtype == np.dtype(dtype).newbyteorder("=") == dataset.dtype
    assert dataset[0].dtype.isnative
    assert np.array_equal(dataset.__getitems__([3, 1]), values[[3, 1]])


@pytest.mark.parametrize(
    "labels", [KINDS, KINDS.astype(float), KINDS[:, None], TAGS, TAGS.astype(bool), TAGS.astype("u1")]
)
@pytest.mark.parametrize("writer", [write, write_matlab])
@pytest.mark.parametrize("data", [DATA, DATA[:, :, 0]], ids=["3-D", "2-D"])
def test_labels_are_whole_numbers_or_one_hot(labels: Any, writer: Any, data: Any, tmp_path: Path) -> None:
    """Tell data from labels without names; read them from HDF5 and MATLAB files, MATLAB's as a row or a column."""
    path = writer(tmp_path / "a.mat", {"s": data, "t": labels})
    for dataset in (HDF5Dataset(path), HDF5Dataset(path, "s", "t")):
        assert dataset.labels is not None
        assert dataset.labels.tolist() == KINDS.tolist()
        row, label = dataset[9]
        assert np.array_equal(row, data[9])
        assert label == KINDS[9]
        assert type(label) is int
        rows, found = next(iter(DataLoader(dataset, 103)))
        assert np.array_equal(rows, data)
        assert np.array_equal(found, KINDS)
        one_by_one = next(iter(DataLoader(dataset.map(lambda sample: sample), 103)))
        assert all(map(np.array_equal, one_by_one, (rows, found)))
    assert HDF5Dataset(path, "s").labels is None
    with pytest.raises(ValueError, match="read-only"):
        dataset.labels[0] = 1


def test_matlab_arrays_are_turned_back(tmp_path: Path) -> None:
    """Read row i of A as A(i+1, :, :), whatever the chunks; or as it is stored, where that is asked for."""
    path = write_matlab(tmp_path / "a.mat", {"A": DATA}, chunks=(2, 5, 7), compression="gzip")
    dataset = HDF5Dataset(path)
    assert dataset.shape == DATA.shape
    assert np.array_equal(dataset.__getitems__([100, 3, 50]), DATA[[100, 3, 50]])
    assert dataset[4].flags.c_contiguous
    stored = HDF5Dataset(path, transposed=False)
    assert stored.shape == DATA.T.shape
    assert np.array_equal(stored[1], DATA.T[1])
    plain = write(tmp_path / "b.h5", {"A": DATA.T})
    assert np.array_equal(HDF5Dataset(plain, transposed=True)[1], DATA[1])


def test_names_may_lead_through_groups_and_links_within_the_file(tmp_path: Path) -> None:
    """Find fields of MATLAB's structs, and what soft links within the file point to."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["s/audio"] = DATA
        file["s/inner"] = h5py.SoftLink("audio")
        file["alias"] = h5py.SoftLink("/s/inner")
        file["round"] = h5py.SoftLink("/round")
        file["nowhere"] = h5py.SoftLink("/gone")
    for name in ("s/audio", "/s/audio", "alias", "s//./inner"):
        assert np.array_equal(HDF5Dataset(path, name)[3], DATA[3])
    assert len(HDF5Dataset(path)) == 103
    with pytest.raises(ArgumentError, match="circle"):
        HDF5Dataset(path, "round")
    for name in ("nowhere", "s/audio/deeper", "no", "s/"):
        with pytest.raises(ArgumentError, match=r"'s/audio'"):
            HDF5Dataset(path, name)


def refused(path: Path, words: str, *names: str, error: type[Exception] = ArgumentError, **how: Any) -> None:
    with pytest.raises(error, match=words):
        HDF5Dataset(path, *names, **how)


def test_nothing_leads_out_of_the_file(tmp_path: Path) -> None:
    """Refuse external links, also on the way to an array, external storage and virtual arrays."""
    secret = write(tmp_path / "secret.h5", {"g/data": DATA})
    (tmp_path / "raw").write_bytes(DATA.tobytes())
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["link"] = h5py.ExternalLink(str(secret), "/g/data")
        file["group"] = h5py.ExternalLink(str(secret), "/g")
        file["soft"] = h5py.SoftLink("/group/data")
        file.create_dataset("raw", DATA.shape, DATA.dtype, external=[(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)])
        layout = h5py.VirtualLayout(DATA.shape, DATA.dtype)
        layout[...] = h5py.VirtualSource(str(secret), "g/data", shape=DATA.shape)
        file.create_virtual_dataset("virtual", layout)
    for name in ("link", "group/data", "soft"):
        refused(path, "a link out of the file; expected an array in this file", name)
    for name in ("raw", "virtual"):
        refused(path, "is stored in other files, which are not opened", name)
    refused(path, "which are not opened")


def test_no_filter_is_loaded(tmp_path: Path) -> None:
    """Refuse arrays that need more than what HDF5 has in it."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((10, 3))
        plan.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
        h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((100, 3)), plan)
    refused(path, "needs filter 32015, which HDF5 would have to load", "data")


def test_what_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    """Look at sizes before anything is read: of rows, of chunks, of labels, however small the file."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("wide", (2, 1 << 40), "f8", chunks=(1, 1 << 10), compression="gzip")
        file.create_dataset("chunk", (1 << 20, 1 << 20), "f4", chunks=(1 << 14, 1 << 15), compression="gzip")
        file.create_dataset("long", (1 << 40,), "i8", chunks=(1 << 10,))
        file.create_dataset("rows", (1 << 40, 2), "f4", chunks=(1 << 10, 2))
    assert path.stat().st_size < 1 << 16
    refused(path, "max_bytes", "wide")
    refused(path, "chunks of 16384 rows of .* bytes; expected at most max_bytes", "chunk")
    refused(path, "labels take .* bytes; expected at most max_bytes", "rows", "long")
    assert HDF5Dataset(path, "rows")[1 << 39].tolist() == [0, 0]
    refused(path, "max_bytes", "rows", max_bytes=100)


def test_what_is_no_array_of_numbers_is_reported(tmp_path: Path) -> None:
    """Name what is there instead, and what would do."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["audio"] = DATA
        file["text"] = ["a", "b"]
        file["fixed"] = np.array([b"ab", b"cd"])
        file["records"] = np.zeros(3, [("real", "f8"), ("imag", "f8")])
        file["one"] = 7
        file["nothing"] = h5py.Empty("f4")
        file["cell"] = file["audio"].ref
        file["times"] = np.zeros(3, "i8").view("M8[s]").astype(h5py.opaque_dtype("M8[s]"))
    for name, words in {
        "text": "holds references, as MATLAB's cells and strings are",
        "fixed": "holds text",
        "records": "holds records of real, imag",
        "one": "holds a single number",
        "nothing": "holds a single number, or nothing",
        "cell": "holds references",
        "times": "holds",
    }.items():
        refused(path, words + ".*'audio'", name)
    assert len(HDF5Dataset(path)) == 103
    matlab = write_matlab(tmp_path / "a.mat", {"audio": DATA})
    refused(matlab, "holds text.*'audio'", "title")
    refused(matlab, "holds references.*'audio'", "names")


def test_arrays_that_cannot_be_told_apart_need_names(tmp_path: Path) -> None:
    """Say which there are, and why it is not clear."""
    three = write(tmp_path / "3.h5", {"a": DATA, "b": DATA, "c": KINDS})
    refused(three, r"found 'a', 'b', 'c' in the file; expected one array of numbers, or two")
    refused(write(tmp_path / "0.h5", {"x": 1}), "found no arrays of numbers")
    refused(write(tmp_path / "2.h5", {"a": KINDS, "b": KINDS}), "both could be the labels of the other")
    refused(write(tmp_path / "n.h5", {"a": DATA, "b": DATA}), "neither could be the labels of the other")
    refused(write(tmp_path / "l.h5", {"a": DATA, "b": KINDS[:50]}), "neither")
    refused(three, "got labels=.* without data", labels="c")
    refused(three, "names of arrays", 7)  # type: ignore[arg-type]
    many = write(tmp_path / "m.h5", {f"{n:02}": KINDS for n in range(40)})
    refused(many, "'19', …")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (
            np.where(np.arange(103) == 40, 2, TAGS.T).T,
            "row 40 has 0 ones among 4 .*; expected one-hot rows",
        ),
        (np.zeros((103, 4)), "row 0 has 0 ones"),
        (KINDS + 0.5, "the label of row 0 is .*; expected integers of 64 bits"),
        (np.where(np.arange(103) == 7, np.nan, KINDS), "row 7 is nan"),
        (np.full(103, 2**63, np.uint64), "row 0 is 9223372036854775808"),
        (KINDS[:-1], "cannot be the labels of 103 rows: it has 102 rows"),
        (TAGS.T, "it has 4 rows of shape"),
        (DATA, "expected one number or one one-hot row for each row"),
    ],
)
def test_labels_that_are_none_are_reported_with_their_row(labels: Any, words: str, tmp_path: Path) -> None:
    """Find the first bad one before training starts."""
    refused(write(tmp_path / "a.h5", {"data": DATA, "tags": labels}), words, "data", "tags")


def test_files_that_cannot_be_read_are_reported(tmp_path: Path) -> None:
    """Tell a missing file from one that is something else, an older MATLAB's, or a damaged one."""
    refused(tmp_path / "gone.h5", "cannot be opened: No such file", error=MissingFile)
    refused(tmp_path / "gone.h5", "cannot be opened: No such file", error=FileNotFoundError)
    refused(tmp_path, "it is a folder, a pipe or a device", error=UnreadableFile)
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "it is a folder, a pipe or a device", error=UnreadableFile)
    for name, data, words in [
        ("empty", b"", "not an HDF5 file"),
        ("text", b"hello" * 1000, "not an HDF5 file"),
        ("old.mat", b"MATLAB 5.0 MAT-file, Platform".ljust(2000), "older than version 7.3.*loadmat"),
    ]:
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name, words, error=UnreadableFile)
    whole = write(tmp_path / "whole.h5", {"data": DATA}, chunks=(10, 5, 3), compression="gzip").read_bytes()
    (tmp_path / "torn.h5").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "torn.h5", "damaged", error=UnreadableFile)


def test_damaged_bytes_never_crash(tmp_path: Path) -> None:
    """Raise an error of ours, or read something, whatever stands in the file; never end the interpreter."""
    path = write(tmp_path / "a.h5", {"data": DATA, "tags": TAGS}, chunks=True, compression="gzip", fletcher32=True)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    read = 0
    for number in range(150):
        damaged = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(0, len(damaged), rng.integers(1, 60))
        damaged[places] = rng.integers(0, 256, len(places))
        path = tmp_path / f"{number}.h5"  # a file of its own: HDF5 knows again what it has open
        path.write_bytes(damaged.tobytes())
        try:
            dataset = HDF5Dataset(path)
            dataset.read_batch(range(0, len(dataset), 7))
            read += 1
        except (UnreadableFile, ArgumentError):
            pass
    assert read < 150


def test_a_bad_chunk_is_a_bad_sample(tmp_path: Path) -> None:
    """Name the rows that cannot be read, and let a loader pass over them."""
    path = write(tmp_path / "a.h5", {"data": DATA}, chunks=(10, 5, 3), compression="gzip", fletcher32=True)
    with h5py.File(path) as file:
        place = file["data"].id.get_chunk_info_by_coord((20, 0, 0)).byte_offset
    with path.open("r+b") as raw:
        raw.seek(place + 20)
        raw.write(b"\xff" * 8)
    dataset = HDF5Dataset(path)
    with pytest.raises(UnreadableFile, match=r"a\.h5:data\[20:30\]: cannot be read"):
        dataset[25]
    loader = DataLoader(dataset, 10, on_error="skip")
    assert sum(map(len, loader)) == 93
    assert loader.statistics().bad[0].where == f"{path}:data[20]"


@pytest.mark.parametrize("index", [103, -104, 1.5, True, "1", None])
def test_an_index_is_an_integer_in_range(index: Any, tmp_path: Path) -> None:
    """Raise what a list raises."""
    dataset = HDF5Dataset(write(tmp_path / "a.h5", {"data": DATA}))
    with pytest.raises(IndexError if isinstance(index, int) and index is not True else TypeError):
        dataset[index]


def test_bad_bounds_are_reported(tmp_path: Path) -> None:
    """Want numbers of bytes."""
    path = write(tmp_path / "a.h5", {"data": DATA})
    refused(path, "cache_bytes must be an integer from 0 up; got -1", cache_bytes=-1)
    refused(path, "max_bytes must be", max_bytes=1.5)


def test_the_file_is_opened_when_it_is_read_and_never_pickled(tmp_path: Path) -> None:
    """Hold no descriptor before the first row, after close, or in a pickle; notice a file that was replaced."""
    path = write(tmp_path / "a.h5", {"data": DATA})
    dataset = HDF5Dataset(path)

    def held() -> int:
        return sum(os.path.realpath(entry) == str(path) for entry in Path("/proc/self/fd").iterdir())

    assert held() == 0
    dataset[0]
    assert held() == 1
    other = pickle.loads(pickle.dumps(dataset))
    assert held() == 1
    assert len(pickle.dumps(dataset)) < 1000
    dataset.close()
    dataset.close()
    assert held() == 0
    write(path, {"data": DATA[:50]})
    with pytest.raises(UnreadableFile, match="has changed since the dataset was constructed"):
        other[0]
    assert held() == 0


def batches(dataset: Any, **how: Any) -> list[bytes]:
    return [batch.tobytes() for batch in DataLoader(dataset, 8, shuffle=True, seed=3, **how)]


@pytest.mark.parametrize("opened_before", [False, True])
def test_threads_and_processes_read_the_same(opened_before: bool, tmp_path: Path) -> None:
    """Give the same bytes inline, on threads, and in processes forked (with the file open or not) and spawned."""
    dataset = HDF5Dataset(write(tmp_path / "a.h5", {"data": DATA}, chunks=(10, 5, 3), compression="gzip"))
    if opened_before:
        dataset[0]
    process: dict[str, Any] = {"num_workers": 2, "backend": "processes"}
    inline = batches(dataset) if opened_before else batches(pickle.loads(pickle.dumps(dataset)))
    assert batches(dataset, **process, multiprocessing_context="fork") == inline
    assert batches(dataset, **process, multiprocessing_context="spawn") == inline
    assert batches(dataset, num_workers=3) == inline
    assert dataset[0].tobytes() == DATA[0].tobytes()


def test_many_threads_share_one_dataset(tmp_path: Path) -> None:
    """Read the right rows from all of them at once, with a cache too small for all."""
    dataset = HDF5Dataset(write(tmp_path / "a.h5", {"data": DATA}, chunks=(7, 5, 3)), cache_bytes=2000)

    def work(seed: int) -> bool:
        order = np.random.default_rng(seed).integers(0, 103, 500).tolist()
        return all(np.array_equal(dataset[key], DATA[key]) for key in order)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_a_child_reads_on_while_its_parent_does(tmp_path: Path) -> None:
    """Fork with the file open, and a thread reading; both continue, with files of their own."""
    dataset = HDF5Dataset(write(tmp_path / "a.h5", {"data": DATA}, chunks=(7, 5, 3)), cache_bytes=0)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lambda: all(np.array_equal(dataset[n % 103], DATA[n % 103]) for n in range(2000)))
        for _ in range(5):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    status = int(not all(np.array_equal(dataset[n], DATA[n]) for n in range(103)))
                    status += int(len(hdf5._inherited) != 1)
                finally:
                    os._exit(status)
            assert os.waitpid(child, 0)[1] == 0
        assert reading.result()


def test_a_file_that_grows_is_read_on(tmp_path: Path) -> None:
    """Let a file be appended to."""
    path = tmp_path / "t.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.ones((100, 1000), "f4")
    dataset = HDF5Dataset(path, "x", cache_bytes=0)
    assert dataset[0].all()
    with path.open("ab") as grown:
        grown.write(bytes(4096))
    assert dataset[99].all()
    dataset.close()
