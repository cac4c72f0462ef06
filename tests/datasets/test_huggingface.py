"""Datasets of Hugging Face's library: rows by their indices, columns from several files, and what is refused.

The library itself is not among what the suite needs: `Table` and `Rows` are laid out as its own classes are. Where it
is installed, the last tests compare with what it gives.
"""

from __future__ import annotations

import datetime as dt
import pickle
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.formats.fixtures import HERE
from tests.formats.test_arrow import python

from headrace import DataLoader
from headrace.datasets import ArrowDataset, from_huggingface
from headrace.datasets.huggingface import HuggingFaceDataset
from headrace.errors import ArgumentError, ArgumentTypeError, BadFile, MissingDependency
from headrace.image.decoding import Decoding
from headrace.testing import DatasetTests, FormatTests

pa = pytest.importorskip("pyarrow")

SAVED = HERE / "arrow"
FILES = [SAVED / "data-00000-of-00002.arrow", SAVED / "data-00001-of-00002.arrow"]
NAMES = ["image", "label", "text", "float"]


@dataclass
class Table:
    """A block of a table: in memory, or of a file after a few steps."""

    table: Any
    path: str | None = None
    replays: list[Any] = field(default_factory=list)

    @property
    def column_names(self) -> list[str]:
        return list(self.table.column_names)

    @property
    def num_rows(self) -> int:
        return int(self.table.num_rows)

    def after(self, name: str, *args: Any, **kwargs: Any) -> Table:
        step = getattr(self.table, name)
        return Table(step(*args, **kwargs), self.path, [*self.replays, (name, args, kwargs)])


class Features(dict[str, Any]):
    def to_dict(self) -> dict[str, Any]:
        return dict(self)


class Data:
    def __init__(self, blocks: list[list[Table]]) -> None:
        self.blocks = blocks


class Rows:
    """A dataset: blocks of tables, the indices of its rows, and its format."""

    def __init__(self, blocks: list[list[Table]], indices: list[int] | None = None, form: str | None = None) -> None:
        self.data = Data(blocks)
        self.column_names = [name for block in blocks[0] for name in block.column_names]
        self._indices = None if indices is None else pa.table({"indices": pa.array(indices, pa.uint64())})
        self.size = sum(row[0].num_rows for row in blocks) if indices is None else len(indices)
        self.format = {"type": form, "columns": sorted(self.column_names)}
        self.features = Features(image={"_type": "Image"}, label={"_type": "ClassLabel", "names": ["a", "b", "c"]})

    def __len__(self) -> int:
        return self.size


def opened(path: Path) -> Table:
    with pa.OSFile(str(path)) as file:
        return Table(pa.ipc.open_stream(file).read_all(), str(path)).after("select", NAMES)


def read(rows: Rows, **decoders: Any) -> HuggingFaceDataset:
    return HuggingFaceDataset(rows, None, decoders, Decoding())


def sliced() -> Rows:
    """Rows 1 and 2 of one file, all of another, and again the first row of the first, in another order."""
    first, second = map(opened, FILES)
    return Rows([[first.after("slice", 1)], [second], [first.after("slice", 0, length=1)]], [5, 0, 3, 2, 2, 4, 1])


class TestRows(DatasetTests):
    """Samples through indices, from slices of two files."""

    collates = False

    def make(self) -> Any:
        return read(sliced())


class TestImages(FormatTests):
    """Images with labels, which the native extension reads through the indices."""

    collates = False

    def make(self) -> Any:
        return read(sliced()).tuple("image", "label")


def expected(places: list[int], names: list[str]) -> list[dict[str, Any]]:
    dataset = ArrowDataset(SAVED)
    return [{name: python(dataset[place][name]) for name in names} for place in places]


def same(found: Any, samples: list[dict[str, Any]]) -> None:
    assert len(found) == len(samples)
    for ours, theirs in zip(found, samples, strict=True):
        assert list(ours) == list(theirs)
        for name, value in theirs.items():
            np.testing.assert_array_equal(ours[name], value)


def test_indices_and_slices_lead_to_the_rows_of_the_files() -> None:
    """Read what the blocks hold, in the order of the indices, without keys."""
    dataset = read(sliced())
    same(dataset, expected([0, 1, 4, 3, 3, 5, 2], NAMES))
    assert dataset.shards == [str(path) for path in FILES]
    assert dataset.shard_lengths == [7]
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [0, 1, 1, 0, 0, 2, 2]
    assert dataset.where(2) == f"{FILES[1]}: 1"
    assert dataset.tuple("image", "label").classes == ["a", "b", "c"]
    assert read(Rows([[opened(FILES[0])], [opened(FILES[1])]])).shard_lengths == [3, 3]


def test_renamed_and_dropped_columns_are_found_in_the_files() -> None:
    """Replay renaming, selecting, dropping and casting without moving data."""
    block = opened(FILES[0]).after("rename_columns", ["photo", "label", "words", "float"]).after("drop", ["float"])
    block = block.after("remove_column", 1).after("replace_schema_metadata", {})
    block = block.after("cast", block.table.schema)
    dataset = read(Rows([[block]]))
    assert dataset.fields == ["photo", "words"]
    assert dataset.shards == [str(FILES[0])]
    assert [sample["words"] for sample in dataset] == ["", "é", "éé"]


def test_columns_in_memory_are_written_to_a_temporary_file() -> None:
    """Join columns side by side, of a file and in memory; blocks of a file and in memory follow each other."""
    block = opened(FILES[0])
    added = Table(pa.table({"new": [7, 8, 9]}))
    dataset = read(Rows([[block, added]]))
    same(dataset, [{**one, "new": 7 + row} for row, one in enumerate(expected([0, 1, 2], NAMES))])
    assert dataset.tuple("image", "new").native_source() is not None
    copy = pickle.loads(pickle.dumps(dataset))
    same(copy, list(dataset))
    both = read(Rows([[block], [Table(opened(FILES[1]).table)]]))
    same(both, expected(list(range(6)), NAMES))
    cast = block.after("cast", block.table.schema.set(1, pa.field("label", pa.int8())))
    assert [sample["label"] for sample in read(Rows([[cast]]))] == [0, 1, 2]
    unknown = block.after("add_column", 0, "more", [[1, 2, 3]])
    assert [sample["more"] for sample in read(Rows([[unknown]]))] == [1, 2, 3]


def test_columns_of_two_names_are_joined() -> None:
    """Read a column that is renamed in one of two files."""
    first, second = map(opened, FILES)
    other = Table(second.table, second.path, second.replays)
    other = other.after("rename_columns", ["image", "label", "mine", "float"]).after("select", ["image", "mine"])
    renamed = first.after("select", ["image", "text"]).after("rename_columns", ["image", "mine"])
    dataset = read(Rows([[renamed], [other]]))
    assert [sample["mine"] for sample in dataset] == ["é" * row for row in range(6)]


def test_nothing_to_read_is_an_empty_dataset() -> None:
    """Read no rows, and no columns."""
    assert list(read(Rows([[opened(FILES[0])]], []))) == []
    assert list(read(Rows([[opened(FILES[0]).after("slice", 3)]]))) == []


def test_numpys_format_gives_numpys_numbers() -> None:
    """Give scalars of the stored dtype, lists as int64 and float32, and null as nan, as the library does."""
    table = pa.table({
        "n": pa.array([1, None], pa.int16()), "list": [[1, 2], [3]], "halves": [[0.5, None], []],
        "words": [["a"], ["b", "c"]], "struct": [{"x": 1, "y": "a"}] * 2, "flag": [True, False],
        "same": [[[1, 2], [3, 4]]] * 2, "text": ["a", "b"],
    })  # fmt: skip
    first, second = read(Rows([[Table(table)]], form="numpy"))
    assert first["n"].dtype == np.int16
    assert np.isnan(second["n"])
    assert (first["list"].dtype, first["halves"].dtype, first["same"].shape) == (np.int64, np.float32, (2, 2))
    assert second["words"].tolist() == ["b", "c"]
    assert first["struct"] == {"x": 1, "y": "a"}
    assert (first["flag"].dtype, first["text"]) == (bool, "a")


def test_what_is_no_dataset_is_refused() -> None:
    """Say what is missing, or what to pass."""
    try:
        import datasets  # noqa: F401
    except ImportError:
        with pytest.raises(MissingDependency, match="datasets"):
            from_huggingface([1])
    else:
        with pytest.raises(ArgumentTypeError, match=r"datasets\.Dataset"):
            from_huggingface([1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_librarys_own_datasets_give_what_they_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare every sample with the library's, after each of its methods, and in NumPy's format."""
    hf = pytest.importorskip("datasets")
    hf.disable_progress_bars()
    monkeypatch.setattr("tqdm.std.tqdm.monitor_interval", 0)  # a thread that would outlive the test
    folder = str(shutil.copytree(SAVED, tmp_path / "saved"))  # it writes beside the files that it reads
    saved = hf.load_from_disk(folder).select_columns(["label", "text", "float", "ids", "null", "dict", "words"])
    views = [
        saved, saved.shuffle(seed=1), saved.select([4, 0, 4]), saved.filter(lambda row: row["label"] == 1),
        saved.map(lambda row: {"twice": 2 * row["label"]}), saved.rename_column("text", "words2"),
        saved.add_column("new", list(range(6))), hf.concatenate_datasets([saved, saved.take(2)]), saved.flatten(),
        saved.cast_column("label", hf.Value("int8")), saved.shard(2, 1),
    ]  # fmt: skip
    for view in [*views, *(view.with_format("numpy") for view in views)]:
        ours = from_huggingface(view)
        for row in range(len(view)):
            theirs = view[row]
            assert list(ours[row]) == list(theirs)
            for name, value in theirs.items():
                np.testing.assert_equal(ours[row][name], value)
    for wrong in (saved.with_transform(dict), saved.with_format("pandas"), saved.with_format("numpy", dtype="int8")):
        with pytest.raises(ArgumentError, match="with_format"):
            from_huggingface(wrong)
    with pytest.raises(ArgumentTypeError, match="streaming"):
        from_huggingface(saved.to_iterable_dataset())
    images = from_huggingface(hf.load_from_disk(folder).shuffle(seed=3)).tuple("image", "label")
    assert sorted(label for _, label in DataLoader(images, None)) == [0, 0, 1, 1, 2, 2]


def test_times_are_those_of_python() -> None:
    """Give dates, times and durations as the library does, with their zone; nanoseconds as NumPy's."""
    moment = dt.datetime.fromisoformat("2026-03-04T05:06:07.891234")
    columns = {
        "at": pa.array([moment, None], pa.timestamp("us")),
        "at ms": pa.array([moment, None], pa.timestamp("us")).cast(pa.timestamp("ms"), safe=False),
        "zone": pa.array([moment, None], pa.timestamp("us", "Europe/Berlin")),
        "day": pa.array([moment.date(), None]), "day64": pa.array([moment.date(), None], pa.date64()),
        "time": pa.array([moment.time(), None], pa.time64("us")), "seconds": pa.array([7, None], pa.time32("s")),
        "duration": pa.array([dt.timedelta(seconds=3), None]), "list": pa.array([[moment], []]),
    }  # fmt: skip
    table = pa.table(columns)
    dataset = read(Rows([[Table(table)]]))
    for ours, theirs in zip(dataset, table.to_pylist(), strict=True):
        assert ours == theirs
        assert [type(value) for value in ours.values()] == [type(value) for value in theirs.values()]
    exact = read(Rows([[Table(pa.table({"at": pa.array([1], pa.timestamp("ns"))}))]]))
    assert exact[0]["at"] == np.datetime64(1, "ns")
    wrong = read(Rows([[Table(pa.table({"at": pa.array([1], pa.timestamp("s", "Nowhere/Land"))}))]]))
    with pytest.raises(BadFile, match="time zone 'Nowhere/Land' is not known"):
        wrong[0]
