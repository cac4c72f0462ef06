"""The protocol of datasets: one file outside the package gets every path of the loader by public names alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import headrace as hr
from headrace._native import extension
from headrace.datasets import Arrays, Columns, Files
from headrace.datasets.protocol import batch_beginner, batch_reader, columns, labels, native_source, offered, resolve
from headrace.testing import DatasetTests

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

native = pytest.mark.skipif(extension is None, reason="needs the native extension")


class Album(hr.Dataset[Any]):
    """Images named by the lines of a text file, labeled by line: a format of somebody else's."""

    suits_threads = True

    def __init__(self, index: Path) -> None:
        names = index.read_text(encoding="utf-8").splitlines()
        self.folder, self.paths, self.labels = str(index.parent), hr.datasets.PackedList(names), np.arange(len(names))
        self._files = Files(self.paths, self.folder, beside=(self.labels,))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        return np.array(Image.open(self.where(index)).convert("RGB")), int(self.labels[index])

    def where(self, index: int) -> str:
        return f"{self.folder}/{self.paths[index]}"

    def native_source(self) -> Files:
        return self._files


@pytest.fixture
def album(tmp_path: Path) -> Album:
    for number in range(9):
        pixels = np.random.default_rng(number).integers(0, 256, (40 + number, 50, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.jpg")
    (tmp_path / "index.txt").write_text("\n".join(f"{number}.jpg" for number in range(9)))
    return Album(tmp_path / "index.txt")


def test_a_format_of_somebody_elses_gets_all_of_the_loader(album: Album) -> None:
    """Give it threads, the native path, resuming, a lineage and the ledger."""
    views = album.map(hr.RandomCrop(32), hr.RandomHorizontalFlip(), hr.ToCHW())
    steps = [album[number] for number in range(9)]
    slow = hr.datasets.Mapped(steps, *views.functions)  # type: ignore[attr-defined]
    expected = [batch for _ in range(2) for batch in hr.DataLoader(slow, 2, shuffle=True, seed=3)][:5]
    if extension is not None:
        assert hr.explain(views).startswith("Mapped: all fused")
    ledgers = hr.Ledger(), hr.Ledger()
    with hr.DataLoader(views, 2, shuffle=True, seed=3, num_workers=2, ledger=ledgers[0]) as loader:
        iterator = iter(loader)
        first = [next(iterator), next(iterator)]
        state = loader.state_dict()
        iterator.close()
    with hr.DataLoader(views, 2, shuffle=True, seed=3, num_workers=2, ledger=ledgers[1]) as resumed:
        resumed.load_state_dict(state)
        for ours, theirs in zip([*first, *resumed], expected, strict=True):
            for left, right in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(left, right)
        lineage = resumed.lineage(epoch=0, step=1, index=0)
        assert lineage.where == album.where(lineage.key)
        assert lineage.dataset == (("Mapped", lineage.key), ("Album", lineage.key))
        np.testing.assert_array_equal(resumed.replay(epoch=0, step=3)[0], expected[3][0])
    assert hr.verify_epoch(*ledgers).exact


@native
@pytest.mark.parametrize("base", [hr.ImageFiles, hr.ArrayDataset, hr.TensorDataset], ids=lambda base: base.__name__)
def test_a_subclass_that_changes_no_sample_keeps_the_native_path(base: Any, album: Album) -> None:
    """Decide by what a subclass overrides, and not by its type."""

    class Renamed(base):  # type: ignore[misc]
        def where(self, index: int) -> str:
            return f"mine/{index}"

    data = [album.where(number) for number in range(3)] if base is hr.ImageFiles else np.zeros((3, 8, 8), np.uint8)
    assert hr.explain(Renamed(data).map(hr.CenterCrop(8))).startswith("Mapped: all fused")


def test_a_subclass_that_changes_samples_loses_what_reads_past_them() -> None:
    """Take back whole batches and the native source, until the subclass defines them again."""

    class Doubled(hr.ArrayDataset):
        def __getitem__(self, index: Any) -> Any:
            return 2 * super().__getitem__(index)

    class Whole(Doubled):
        def read_batch(self, keys: Sequence[int], *, empty: Any = np.empty) -> Any:
            return 2 * hr.ArrayDataset.read_batch(self, keys, empty=empty)

    class Native(Doubled):
        def native_source(self) -> Arrays:
            return Arrays(2 * self.arrays[0], bare=True)

    rows = np.ones((4, 8, 8), np.uint8)
    assert (batch_reader(Doubled(rows)), native_source(Doubled(rows))) == (None, None)
    assert batch_reader(Whole(rows)) is not None
    assert native_source(Whole(rows)) is None
    assert native_source(Native(rows)) is not None
    for dataset in (Doubled(rows), Whole(rows), Native(rows)):
        for view in (dataset, dataset.map(hr.CenterCrop(8)), hr.Subset(dataset, [1, 2]).map(hr.CenterCrop(8))):
            assert all((batch == 2).all() for batch in hr.DataLoader(view, 2))


def test_overriding_whole_batches_takes_back_those_that_are_started() -> None:
    """Begin no batch that a subclass reads in its own way."""

    class Begins(hr.Dataset[int]):
        def begin_batch(self, keys: Sequence[int], *, empty: Any) -> Any:
            raise AssertionError

        def read_batch(self, keys: Sequence[int], *, empty: Any) -> Any:
            return np.asarray(keys)

    class Reads(Begins):
        def read_batch(self, keys: Sequence[int], *, empty: Any) -> Any:
            return -np.asarray(keys)

    assert batch_beginner(Begins()) is not None
    assert batch_beginner(Reads()) is None
    assert offered(Reads(), "read_batch") is not None


class Foreign:
    """A dataset that is not ours, and reads whole batches."""

    def __init__(self, rows: Any, names: tuple[str, ...] = ()) -> None:
        self.rows, self.names, self.read = np.asarray(rows), names, 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        self.read += 1
        return dict.fromkeys(self.names, self.rows[index]) if self.names else self.rows[index]

    def read_batch(self, keys: Sequence[int], *, empty: Any) -> Any:
        column = empty((len(keys), *self.rows.shape[1:]), self.rows.dtype)
        column[:] = self.rows[list(keys)]
        return {name: column.copy() for name in self.names} if self.names else column


@pytest.mark.parametrize("names", [(), ("x", "y")], ids=["arrays", "dicts"])
def test_datasets_that_are_not_ours_are_read_in_whole_batches_end_to_end(names: tuple[str, ...]) -> None:
    """Put rows of their batches together, and read no sample."""
    first, second = Foreign(np.arange(5.0), names), Foreign(np.arange(5.0, 9.0), names)
    joined: Any = hr.ConcatDataset([first, second])
    batches = list(hr.DataLoader(joined, 4, sampler=[8, 0, 4, 5, 1, 2]))
    for key in names or (...,):
        found = [np.asarray(batch if key is ... else batch[key]).tolist() for batch in batches]
        assert found == [[8, 0, 4, 5], [1, 2]]
    assert first.read == second.read == 0


@pytest.mark.parametrize("other", [np.arange(3), np.zeros((3, 2))], ids=["dtype", "shape"])
def test_datasets_whose_batches_differ_are_read_sample_by_sample(other: Any) -> None:
    """Leave what differs in dtype or shape to collating."""
    joined: Any = hr.ConcatDataset([Foreign(np.arange(5.0)), Foreign(other)])
    assert columns(joined) is None
    assert batch_reader(joined) is None


def test_batches_that_belie_their_columns_are_refused() -> None:
    """Name the dataset whose batch has other arrays than it declared."""

    class Liar(Foreign):
        columns = Columns.of(np.zeros(1))

    joined: Any = hr.ConcatDataset([Liar(np.arange(3.0)), Liar(np.arange(3))])
    with pytest.raises(hr.errors.CollateError, match="read_batch of dataset 1 returned"):
        list(hr.DataLoader(joined, 6))


def test_labels_and_classes_may_be_set_in_the_constructor() -> None:
    """Let a dataset assign what the base class has a default for."""

    class Plain(hr.Dataset[int]):
        def __init__(self) -> None:
            self.labels = np.array([3, 4])
            self.classes = ["a", "b"]
            self.suits_threads = True

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> int:
            return index

    assert hr.Dataset().labels is None
    view = Plain().map(str)
    assert (view.labels.tolist(), view.classes, view.suits_threads) == ([3, 4], ["a", "b"], True)  # type: ignore[union-attr]


def test_rows_resolve_through_views_to_their_root() -> None:
    """Translate keys through views of views, and check them at the root."""
    root = hr.ArrayDataset(np.arange(20))
    view: Any = hr.Subset(hr.Subset(root, range(10, 20)), [3, -1, 0])
    found, rows = resolve(view, [0, -2])
    assert found is root
    assert rows.tolist() == [13, 19]
    assert resolve("abc", [-1])[1].tolist() == [2]
    with pytest.raises(IndexError, match="out of range"):
        resolve(root, [20])
    with pytest.raises(TypeError, match="must be integers"):
        resolve(root, [True])


def test_labels_come_through_every_view() -> None:
    """Keep them beside the samples that they belong to."""
    base = hr.ArrayDataset(np.arange(6.0), np.array([0, 1, 2, 0, 1, 2]))
    views: dict[str, tuple[Any, list[int]]] = {
        "map": (base.map(str), [0, 1, 2, 0, 1, 2]),
        "filter": (base.filter(lambda label: label > 0, by="label"), [1, 2, 1, 2]),
        "take": (base.take(2), [0, 1]),
        "skip": (base.skip(4), [1, 2]),
        "repeat": (base.take(2).repeat(2), [0, 1, 0, 1]),
        "shard": (base.shard(1, 2), [1, 0, 2]),
        "zip": (hr.ArrayDataset(np.zeros(6)).zip(base), [0, 1, 2, 0, 1, 2]),
        "concat": (base.take(1).concat(base.skip(5)), [0, 2]),
        "paired": (hr.datasets.PairedDataset(base, base), [0, 1, 2, 0, 1, 2]),
    }
    for name, (view, expected) in views.items():
        found = labels(view)
        assert found is not None, name
        assert found.tolist() == expected, name


class TestAlbum(DatasetTests):
    """The suite that every dataset passes, over the format above."""

    @pytest.fixture(autouse=True)
    def _files(self, album: Album, tmp_path: Path) -> None:
        self.index = tmp_path / "index.txt"

    collates = False

    def make(self) -> Album:
        return Album(self.index)
