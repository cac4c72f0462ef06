"""Every kind of source gives the pixels of the step-by-step path; ranges notice every change of their files."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from PIL import Image

import headrace
from headrace import (
    ArrayDataset,
    CenterCrop,
    DataLoader,
    Dataset,
    ImageFiles,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToCHW,
    ToFloat,
)
from headrace._native import extension
from headrace.context.seeds import Here, key_of
from headrace.datasets import PackedList
from headrace.datasets.image_sources import Bytes, Ranges
from headrace.errors import BadFile, MissingFile, UnreadableFile
from headrace.image import decode, fused
from headrace.storage.spans import read_span
from tests.image_files import encoded, photo
from tests.native.stepwise import MISSING, WHY, assert_equal, batches, both

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.datasets.image_sources import Source

pytestmark = [
    pytest.mark.skipif(MISSING, reason=WHY),
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]

COUNT = 24
CHAINS: dict[str, tuple[Any, ...]] = {
    "train": (RandomResizedCrop(30), RandomHorizontalFlip(), ToFloat(), Normalize(0.4, 0.2), ToCHW()),
    "eval": (Resize(33), CenterCrop(28)),
}


class Encoded(Dataset[Any]):
    """Images whose bytes a source holds: what a user writes for a format of his own."""

    suits_threads = True

    def __init__(self, source: Ranges | Bytes, count: int) -> None:
        self.source = source
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return decode(self.source.read(index)), int(self.source.beside[0][index])

    def native_source(self) -> Source:
        return self.source


def images() -> list[bytes]:
    """Encode images of several kinds and sizes, some of which only the step-by-step path decodes."""
    found = []
    for number in range(COUNT):
        image = Image.fromarray(photo(number, 40 + 7 * number % 60, 35 + 11 * number % 50))
        options: dict[str, Any] = {"form": "BMP"} if number % 6 == 5 else {"progressive": number % 4 == 3}
        if number % 7 == 2:
            image = image.convert("L")
        if number % 6 == 1:
            exif = Image.Exif()
            exif[0x0112] = number % 8 + 1
            options["exif"] = exif
        found.append(encoded(image, **options))
    return found


def write_shards(folder: Path, contents: list[bytes], shards: int = 3) -> Ranges:
    """Write shards of files, with something else between them, and return where the files lie."""
    folder.mkdir(exist_ok=True)
    file, offset, length = (np.zeros(len(contents), np.int64) for _ in range(3))
    paths = [folder / f"{number}.shard" for number in range(shards)]
    parts: list[bytearray] = [bytearray(b"header") for _ in paths]
    for number, data in enumerate(contents):
        part = parts[number % shards]
        file[number], offset[number], length[number] = number % shards, len(part), len(data)
        part += data + b"between"
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(part)
    labels = np.arange(len(contents))
    return Ranges(PackedList(map(str, paths)), file, offset, length, beside=(labels,))


def of_files(folder: Path) -> Any:
    paths = [folder / f"{number}" for number in range(COUNT)]
    for path, data in zip(paths, images(), strict=True):
        path.write_bytes(data)
    return ImageFiles(paths, range(COUNT))


def of_ranges(folder: Path) -> Any:
    return Encoded(write_shards(folder, images()), COUNT)


def of_ranges_with_facts(folder: Path) -> Any:
    ranges = write_shards(folder, images())
    for path in ranges.paths:
        os.utime(path, ns=(10**18, 10**18))  # long ago: whatever is written later has another time
    found = [Path(path).stat() for path in ranges.paths]
    facts = np.array([(one.st_size, one.st_mtime_ns) for one in found], np.int64)
    (folder / "link").symlink_to(folder, target_is_directory=True)
    below = PackedList(Path(path).name for path in ranges.paths)
    whole = (below, ranges.file, ranges.offset, ranges.length)
    return Encoded(Ranges(*whole, folder=str(folder / "link"), facts=facts, beside=ranges.beside), COUNT)


def of_narrow_ranges(folder: Path) -> Any:
    """Give numbers of four bytes, as a saved index has them, and of two, which are widened."""
    ranges = write_shards(folder, images())
    file, offset, length = ranges.file.astype(np.int16), ranges.offset.astype(np.uint32), ranges.length.astype(np.int32)
    return Encoded(Ranges(ranges.paths, file, offset, length, beside=ranges.beside), COUNT)


def of_bytes(folder: Path) -> Any:
    contents = images()
    begins = np.cumsum([0, *map(len, contents)])
    return Encoded(Bytes(np.frombuffer(b"".join(contents), np.uint8), begins, beside=(np.arange(COUNT),)), COUNT)


def of_mapped_bytes(folder: Path) -> Any:
    contents = images()
    (folder / "all").write_bytes(b"".join(contents))
    buffer = np.memmap(folder / "all", np.uint8, "r")
    return Encoded(Bytes(buffer, np.cumsum([0, *map(len, contents)]), beside=(np.arange(COUNT),)), COUNT)


def pixels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (COUNT, 40, 36, 3), np.uint8)


def of_arrays(folder: Path) -> Any:
    return ArrayDataset(pixels(), np.arange(COUNT))


def of_mapped_arrays(folder: Path) -> Any:
    np.save(folder / "pixels.npy", pixels())
    return ArrayDataset(np.load(folder / "pixels.npy", mmap_mode="r"), np.arange(COUNT))


SOURCES = (
    of_files,
    of_ranges,
    of_ranges_with_facts,
    of_narrow_ranges,
    of_bytes,
    of_mapped_bytes,
    of_arrays,
    of_mapped_arrays,
)


@pytest.mark.parametrize("make", SOURCES)
@pytest.mark.parametrize("chain", CHAINS)
def test_every_source_gives_the_pixels_of_the_steps(make: Callable[[Path], Any], chain: str, tmp_path: Path) -> None:
    """Give the same batches to the last bit: inline, on threads and in a process."""
    quick, slow = both(make(tmp_path), *CHAINS[chain])
    assert headrace.explain(quick).startswith("Mapped: all fused")
    expected = batches(slow)
    assert_equal(batches(quick), expected)
    assert_equal(batches(quick, num_workers=3), expected)


@pytest.mark.parametrize("make", SOURCES)
def test_a_process_and_a_users_function_read_every_source(make: Callable[[Path], Any], tmp_path: Path) -> None:
    """Read in a forked process what was read here before, and let a function of the user's follow the fused steps."""
    quick, slow = both(make(tmp_path), Resize((20, 30)), RandomHorizontalFlip(), noisy)
    expected = batches(slow)
    assert_equal(batches(quick), expected)
    how: dict[str, Any] = {"num_workers": 2, "backend": "processes", "multiprocessing_context": "fork"}
    assert_equal(batches(quick, **how), expected)


def noisy(sample: Any, rng: np.random.Generator) -> Any:
    return sample[0] ^ rng.integers(0, 256, sample[0].shape, np.uint8), sample[1]


def test_images_in_pieces_of_files_are_a_source_of_the_extension(tmp_path: Path) -> None:
    """Make the rows that the same bytes give whole, and leave those to Python whose file is another now."""
    contents = [data for data in images() if data[:2] == b"\xff\xd8"]
    whole, size = b"".join(contents), 700
    parts = [whole[at : at + size] for at in range(0, len(whole), size)]
    paths = [tmp_path / str(number) for number in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(part + b"more")
    pieces = list[tuple[int, int, int]]()
    first, begin = [0], 0
    for data in contents:
        end = begin + len(data)
        while begin < end:
            number, offset = divmod(begin, size)
            pieces.append((number, offset, min(end - begin, size - offset)))
            begin += pieces[-1][2]
        first.append(len(pieces))
    facts = np.array([(path.stat().st_size, path.stat().st_mtime_ns) for path in paths])
    native: Any = extension
    where = [os.fsencode(path) for path in paths], facts, np.array(first), *np.array(pieces).T.copy()
    source = native.Source.pieces(*where)
    rows, job = made(source, len(contents))
    assert not job.missing
    assert np.array_equal(rows, made(native.Source.bytes(contents), len(contents))[0])
    paths[0].unlink()
    os.utime(paths[-1], ns=(0, 0))
    _, job = made(source, len(contents))
    assert job.missing == [0, len(contents) - 1]
    assert not job.failures
    paths[0].mkdir()
    assert made(source, len(contents))[1].missing == job.missing


@pytest.mark.parametrize(
    "wrong",
    [
        {"first": [1, 1]},
        {"first": [0, 2]},
        {"first": []},
        {"first": [0, 1, 0, 1]},
        {"file": [1]},
        {"file": [-1]},
        {"offset": [-1]},
        {"offset": [0, 0]},
        {"length": [10]},
        {"length": [-1]},
        {"facts": [[9, 0], [9, 0]]},
    ],
)
def test_pieces_outside_of_their_files_are_refused(wrong: dict[str, Any]) -> None:
    parts: dict[str, Any] = {"facts": [[9, 0]], "first": [0, 1], "file": [0], "offset": [0], "length": [9]}
    arrays = {name: np.array(value, np.int64) for name, value in (parts | wrong).items()}
    with pytest.raises(ValueError, match=r"`first`|piece 0|`facts`"):
        cast("Any", extension).Source.pieces(paths=[b"a"], **arrays)


def test_a_list_of_bytes_is_a_source_of_the_extension() -> None:
    """Make the rows that the same bytes give in one buffer."""
    contents = [data for data in images() if data[:2] == b"\xff\xd8"]
    begins = np.cumsum([0, *map(len, contents)])
    native: Any = extension
    buffer = np.frombuffer(b"".join(contents), np.uint8)
    rows = [
        made(each, len(contents))[0] for each in (native.Source.bytes(contents), native.Source.packed(buffer, begins))
    ]
    assert np.array_equal(*rows)
    with pytest.raises(TypeError, match="list of bytes"):
        native.Source.bytes(["text"])


def made(source: Any, count: int) -> tuple[np.ndarray, Any]:
    """Make the first rows of a source of encoded images; return them and the job."""
    plan = fused.plan([Resize((16, 16))])
    out = np.zeros((count, *plan.shape), plan.dtype)
    job = plan.pipeline.rows(source, np.arange(count), fused.place_of(Here(key_of(0), 0, 0)), out)
    job.run()
    return out, job


# ---- ranges: whatever happens to a shard, no other bytes are read ----


def read(dataset: Any, **how: Any) -> Any:
    return batches(dataset.map(Resize((16, 16))), shuffle=False, **how)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 20)


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"HEADER")


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def replace(path: Path) -> None:
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (cut, "has .* bytes"),
        (overwrite, "written to"),
        (append, "written to"),
        (replace, "removed or replaced"),
        (Path.unlink, "removed or replaced"),
    ],
)
@pytest.mark.parametrize("how", [{}, {"num_workers": 2}], ids=str)
def test_a_shard_that_changes_while_it_is_read_is_an_error(
    change: Callable[[Path], None], what: str, how: dict[str, Any], tmp_path: Path
) -> None:
    """Name path and offset of the first sample that it concerns, and read nothing of the new bytes."""
    jpegs = [data for data in images() if data[:2] == b"\xff\xd8"]
    ranges = write_shards(tmp_path, jpegs)
    dataset = Encoded(ranges, len(jpegs))
    read(dataset)
    change(tmp_path / "1.shard")
    with pytest.raises(BadFile, match=what) as caught:
        read(dataset, **how)
    assert caught.value.path == str(tmp_path / "1.shard")
    assert f"bytes {ranges.offset[1]} to {ranges.offset[1] + ranges.length[1]} " in str(caught.value)
    assert any("sample 1" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("change", [cut, overwrite, append])
def test_a_shard_that_changed_after_it_was_indexed_is_an_error(change: Callable[[Path], None], tmp_path: Path) -> None:
    """Compare each file with the facts of the index when it is opened: natively and in Python alike."""
    dataset = of_ranges_with_facts(tmp_path)
    change(tmp_path / "2.shard")
    for each in both(dataset, Resize((16, 16))):
        with pytest.raises(BadFile, match=r"2\.shard: bytes \d+ to \d+ cannot be read"):
            batches(each, shuffle=False)


def test_a_shard_that_is_replaced_between_two_openings_is_an_error(tmp_path: Path) -> None:
    """Remember which file it was, though it was closed meanwhile for want of room."""
    contents = [encoded(photo(number)) for number in range(6)]
    source = opened(write_shards(tmp_path, contents), open_files=1)
    assert not made(source, 6)[1].missing
    replace(tmp_path / "0.shard")
    _, job = made(source, 6)
    assert [(row, failure.kind) for row, failure in job.failures] == [(0, "replaced"), (3, "replaced")]


def opened(ranges: Ranges, **options: Any) -> Any:
    """Open ranges with options that the dataset protocol does not have."""
    where = (ranges.paths._text, ranges.paths._ends, b"", ranges.file, ranges.offset, ranges.length)
    return cast("Any", extension).Source.ranges(*where, **options)


def test_missing_and_unreadable_shards_are_errors_of_their_samples(tmp_path: Path) -> None:
    """Raise what a missing file raises, which `on_error` may skip."""
    ranges = write_shards(tmp_path, images())
    (tmp_path / "0.shard").unlink()
    (tmp_path / "1.shard").unlink()
    (tmp_path / "1.shard").mkdir()
    dataset = Encoded(ranges, COUNT)
    for shard, error in ((0, MissingFile), (1, UnreadableFile)):
        with pytest.raises(error, match=rf"{shard}\.shard: bytes {ranges.offset[shard]} to"):
            read(dataset, sampler=[shard])
    found = np.concatenate([batch[1] for batch in read(dataset, on_error="skip")])
    assert found.tolist() == [*range(2, COUNT, 3)]


def test_a_range_past_the_end_is_an_error(tmp_path: Path) -> None:
    """Never take the bytes that are there for the whole."""
    ranges = write_shards(tmp_path, images(), shards=1)
    ranges.length[-1] += 1000
    for each in both(Encoded(ranges, COUNT), Resize((16, 16))):
        with pytest.raises(BadFile, match=rf"bytes {ranges.offset[-1]} to"):
            batches(each, shuffle=False)


def test_few_files_stay_open_however_many_threads_read(tmp_path: Path) -> None:
    """Hold no more than the bound, share each between threads, and read the same pixels."""
    contents = [encoded(photo(number % 5)) for number in range(90)]
    ranges = write_shards(tmp_path, contents, shards=30)
    expected = made(opened(ranges), 90)[0]
    source = opened(ranges, open_files=2)
    rows: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: rows.append(made(source, 90)[0])) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert source.open_files <= 2
    assert len(rows) == 6
    assert all(np.array_equal(each, expected) for each in rows)


def test_running_out_of_descriptors_closes_those_that_are_kept(tmp_path: Path) -> None:
    """Open the next shard though the process may open no more files, as long as one of ours can be closed."""
    contents = [encoded(photo(number)) for number in range(8)]
    source = opened(write_shards(tmp_path, contents, shards=8))
    assert not made(source, 4)[1].missing
    assert source.open_files == 4
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208  no path, and no descriptor more
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        for descriptor in range(highest):  # no gap below is left
            with contextlib.suppress(OSError):
                stack.callback(os.close, os.dup(descriptor))
        job = made(source, 8)[1]
    assert not job.missing


def test_ranges_that_cannot_be_are_refused(tmp_path: Path) -> None:
    """Name the first sample whose range is none."""
    ranges = write_shards(tmp_path, images())
    for name, value in (("file", 3), ("file", -1), ("offset", -1), ("length", -5), ("offset", 2**63 - 1)):
        numbers: np.ndarray = getattr(ranges, name)
        before = numbers[4]
        numbers[4] = value
        with pytest.raises(ValueError, match="sample 4 has no range"):
            opened(ranges)
        numbers[4] = before
    with pytest.raises(ValueError, match="begins"):
        cast("Any", extension).Source.packed(np.zeros(5, np.uint8), np.array([0, 6]))


def test_a_forked_child_reads_while_its_parent_does(tmp_path: Path) -> None:
    """Open files of its own, though a thread of the parent's may hold the lock at the moment of the fork."""
    contents = [encoded(photo(number)) for number in range(30)]
    source = opened(write_shards(tmp_path, contents, shards=10), open_files=2)
    expected = made(source, 30)[0]
    stop = threading.Event()

    def read_on() -> None:
        while not stop.is_set():
            made(source, 30)

    thread = threading.Thread(target=read_on)
    thread.start()
    codes = []
    for _ in range(5):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if np.array_equal(made(source, 30)[0], expected) else 1)
        codes.append(os.waitpid(pid, 0)[1])
    stop.set()
    thread.join()
    assert codes == [0] * 5


def test_a_span_is_read_in_python_as_the_extension_reads_it(tmp_path: Path) -> None:
    """Raise the same errors for the same files, without the extension."""
    file = tmp_path / "shard"
    file.write_bytes(b"0123456789")
    assert read_span(str(file), 3, 4) == b"3456"
    assert read_span(str(file), 3, 0) == b""
    with pytest.raises(BadFile, match="bytes 8 to 12 cannot be read: the file has 10 bytes"):
        read_span(str(file), 8, 4)
    with pytest.raises(MissingFile, match="bytes 0 to 1 cannot be read") as caught:
        read_span(str(tmp_path / "gone"), 0, 1)
    assert caught.value.errno
    with pytest.raises(UnreadableFile):
        read_span(str(tmp_path), 0, 1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnreadableFile):
        read_span(str(tmp_path / "pipe"), 0, 1)


def test_an_epoch_over_shards_leaves_no_descriptor(tmp_path: Path) -> None:
    """Close all files with the dataset: the suite's leak check sees to it."""
    for labels in DataLoader(of_ranges(tmp_path).map(Resize((9, 9))), 8, num_workers=2):
        assert len(labels[1]) == 8
