"""Samples joined by label with rows drawn at random: the right ones, drawn by the sample's own generator."""

from __future__ import annotations

import pickle
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace
from headrace import ArrayDataset, ConcatDataset, DataLoader, Dataset, ImageList, Resize, Subset
from headrace.datasets import PairedDataset
from headrace.datasets.protocol import labels as labels_of
from headrace.errors import ArgumentError

# Python 3.12 and later warn of a fork while threads run, which pytest's own may.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")

LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
OTHER = np.repeat([0, 1, 2], 20)
ROWS = np.arange(60.0)[:, None] + np.zeros(4)


@pytest.fixture(scope="module", autouse=True)
def helper_of_multiprocessing() -> None:
    """Start the process that multiprocessing starts once and leaves running, before leaks are counted."""
    resource_tracker.ensure_running()


class Many(ArrayDataset):
    """Rows that are read many at once; counts the calls."""

    read_batch = None  # type: ignore[assignment]

    def __init__(self, *arrays: Any) -> None:
        super().__init__(*arrays)
        self.calls = 0

    def __getitems__(self, indices: list[int]) -> list[Any]:
        self.calls += 1
        return [self[index] for index in indices]


def pair(k: int | None = 3, kind: type[ArrayDataset] = ArrayDataset, **how: Any) -> PairedDataset:
    return PairedDataset(ArrayDataset(np.arange(10.0), LABELS), kind(ROWS, OTHER), k, **how)


def epoch(dataset: Any, size: int = 4, **how: Any) -> list[Any]:
    """Read an epoch as a list of samples, however it was cut into batches."""
    found = []
    for (inputs, rows), labels in DataLoader(dataset, size, **{"seed": 1, **how}):
        found += list(zip(inputs.tolist(), rows.tolist(), labels.tolist(), strict=True))
    return found


def test_a_sample_is_joined_with_rows_of_its_label() -> None:
    """Give ([sample, rows], label), rows of the right label, k of them or one alone."""
    dataset = pair()
    (value, rows), label = dataset[4]
    assert (value, label, rows.shape) == (4.0, 1, (3, 4))
    assert ((rows >= 20) & (rows < 40)).all()
    (value, row), label = pair(k=None)[-1]
    assert (value, label, row.shape) == (9.0, 0, (4,))
    assert len(dataset) == len(list(dataset)) == 10
    with pytest.raises(IndexError):
        dataset[10]


def test_a_batch_keeps_the_shape_of_the_sample() -> None:
    """Collate to ([inputs, rows], labels)."""
    batch = next(iter(DataLoader(pair(), 10, seed=0)))
    assert [type(part) for part in batch] == [list, np.ndarray]
    (inputs, rows), labels = batch
    assert (inputs.shape, rows.shape, labels.tolist()) == ((10,), (10, 3, 4), LABELS.tolist())


@pytest.mark.parametrize("kind", [ArrayDataset, Many])
def test_the_draw_is_the_samples_own(kind: type[ArrayDataset]) -> None:
    """Draw the same in any batches, on threads and processes, read one by one or many; again in the next epoch."""
    dataset = pair(kind=kind)
    first = epoch(dataset)
    assert first == epoch(pair(), 10) == epoch(dataset, 3, num_workers=2) == epoch(dataset, 1)
    for context in ("fork", "spawn"):
        assert first == epoch(dataset, 3, num_workers=2, backend="processes", multiprocessing_context=context)
    loader = DataLoader(dataset, 10, seed=1)
    epochs = [next(iter(loader))[0][1].tolist() for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    draws = [row for (_, rows, _) in first for row in rows]
    assert len({row[0] for row in draws}) > 15


def test_rows_are_read_in_one_call_where_they_can_be() -> None:
    """Call __getitems__ of the others once a batch."""
    others = Many(ROWS, OTHER)
    dataset = PairedDataset(ArrayDataset(np.arange(10.0), LABELS), others, 3)
    assert dataset.reads_many
    assert not pair().reads_many
    list(DataLoader(dataset, 5))
    assert others.calls == 2


def jittered(sample: Any, rng: np.random.Generator) -> Any:
    return sample[0] + rng.random(), sample[1]


def test_functions_that_draw_get_what_they_get_one_by_one() -> None:
    """Leave augmentation as it is, where rows are read many at once, and in parts of a ConcatDataset."""
    base = ArrayDataset(np.arange(10.0), LABELS).map(jittered)
    one, many = (PairedDataset(base, kind(ROWS, OTHER), 2) for kind in (ArrayDataset, Many))
    assert epoch(one) == epoch(many, 3)

    # Each part reads many, and gets some of the samples of each batch: those that are its own.
    parts = [
        (ConcatDataset([pair(kind=kind), pair(kind=kind)]), ConcatDataset([pair(kind=kind)]))
        for kind in (ArrayDataset, Many)
    ]
    for one, many in zip(*parts, strict=True):
        assert epoch(one, shuffle=True) == epoch(many, shuffle=True)
        assert epoch(one, shuffle=True) == epoch(many, 7, shuffle=True)
    nested = [ConcatDataset([Subset(whole, [3, 15, 1, 12]), whole]) for whole, _ in parts]
    assert epoch(nested[0], shuffle=True) == epoch(nested[1], shuffle=True)


def test_draws_are_uniform_over_the_rows_of_a_label() -> None:
    """Come to each row as often as to any other: a chi-squared of 19 degrees of freedom."""
    dataset = PairedDataset(ArrayDataset(np.zeros(4000), np.ones(4000, int)), ArrayDataset(np.arange(60), OTHER), 5)
    (_, rows), _ = next(iter(DataLoader(dataset, 4000, seed=0)))
    counts = np.bincount(rows.ravel() - 20, minlength=20)
    assert len(counts) == 20
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # one in a thousand is above
    assert len({tuple(row) for row in rows.tolist()}) > 3900


def test_without_replacement_no_row_comes_twice_for_a_sample() -> None:
    """Draw k different rows, down to all there are; refuse more than there are, naming the labels."""
    (_, rows), _ = pair(k=20, replacement=False)[1]
    assert sorted(rows[:, 0]) == list(range(20, 40))
    with pytest.raises(ArgumentError, match=r"fewer than k=21 rows for 3 labels: 0 \(20 rows\), 1"):
        pair(k=21, replacement=False)
    assert pair(k=21)[0][0][1].shape == (21, 4)


def test_a_label_without_rows_is_reported_at_once() -> None:
    """Name the labels and how many samples have them, before anything is read."""

    class Unreadable(Dataset[Any]):
        labels = np.array([5, 5, 0, 7])

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            raise AssertionError("read")

    with pytest.raises(ArgumentError, match=r"2 labels: 5 \(2 samples\), 7 \(1 samples\); .* rows for 0, 1, 2"):
        PairedDataset(Unreadable(), ArrayDataset(ROWS, OTHER))
    with pytest.raises(ArgumentError, match="no label at all"):
        PairedDataset(Unreadable(), ArrayDataset(ROWS[:0], OTHER[:0]))
    assert len(PairedDataset(Subset(Unreadable(), [2]), ArrayDataset(ROWS, OTHER))) == 1
    assert len(PairedDataset(Subset(Unreadable(), []), ArrayDataset(ROWS[:0], OTHER[:0]))) == 0


def test_labels_are_found_through_what_datasets_are_made_of() -> None:
    """Look through functions, subsets and chains; take torch's name for them; else want them given."""

    class Targets(list[Any]):
        targets = [3, 4]

    arrays = ArrayDataset(np.zeros(10), LABELS)
    assert labels_of(ConcatDataset([arrays.map(str), Subset(arrays, range(2)), Targets([0, 0])])).tolist() == [  # type: ignore[union-attr]
        *LABELS,
        0,
        1,
        3,
        4,
    ]
    for nothing in ([1, 2], ArrayDataset(np.zeros(3)), ConcatDataset([arrays, [1]]), Subset([1], [0])):
        assert labels_of(nothing) is None
    with pytest.raises(ArgumentError, match=r"a list has no labels; .*Pass them as labels="):
        PairedDataset([(1, 0)], arrays)
    (value, row), label = PairedDataset([("a", "cat")], [10, 20], labels=[7], other_labels=[8, 7])[0]
    assert (value, row, label) == ("a", 20, "cat")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"k": 0}, "k must be an integer from 1 up; got 0"),
        ({"k": True}, "got True"),
        ({"k": 1.5}, "got 1.5"),
        ({"labels": [0, 1]}, "labels must be one integer for each of 10 samples; got int64 of shape"),
        ({"labels": np.zeros(10)}, "got float64"),
        ({"other_labels": np.eye(60)}, "other_labels must be one integer for each of 60 samples"),
    ],
)
def test_bad_arguments_are_reported(how: dict[str, Any], words: str) -> None:
    """Name the argument."""
    with pytest.raises(ArgumentError, match=words):
        pair(**how)


def test_iterable_datasets_are_refused() -> None:
    """Want an index in both."""
    for one, other in ((iter([1]), [1]), ([1], iter([1]))):
        with pytest.raises(ArgumentError, match="PairedDataset does not support IterableDataset"):
            PairedDataset(one, other, labels=[0], other_labels=[0])  # type: ignore[arg-type]


def test_samples_and_rows_that_do_not_fit_are_reported() -> None:
    """Want pairs of anything and a label, and rows of one shape."""
    for sample, words in ((7, "an int"), ((1, 2, 3), "a tuple of 3")):
        with pytest.raises(ArgumentError, match=f"sample 0 is {words}; expected a pair"):
            PairedDataset([sample], [1], labels=[0], other_labels=[0])[0]
    ragged = PairedDataset([(1, 0)], [np.zeros(n) for n in range(20)], 10, labels=[0], other_labels=[0] * 20)
    with pytest.raises(ArgumentError, match="rows drawn for sample 0 differ in shape"):
        ragged[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A list file of images, and sounds in an HDF5 file with one-hot tags."""
    image, h5py = pytest.importorskip("PIL.Image"), pytest.importorskip("h5py")
    lines = []
    for number, label in enumerate(LABELS):
        image.new("RGB", (12 + number, 10), (number, 0, 0)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png {label}")
    (tmp_path / "train.txt").write_text("\n".join(lines))
    with h5py.File(tmp_path / "audio.h5", "w") as file:
        file.create_dataset("audio", data=ROWS.astype(np.float32), chunks=(7, 4), compression="gzip")
        file["tags"] = np.eye(3)[OTHER]
    return tmp_path


@pytest.mark.parametrize("how", [{}, {"num_workers": 2}, {"num_workers": 2, "backend": "processes"}], ids=str)
def test_images_of_a_list_file_with_sounds_of_an_hdf5_file(folder: Path, how: dict[str, Any]) -> None:
    """Give ([images, audio], labels), the same for every kind of worker, and survive a bad image."""
    images = ImageList(folder / "train.txt").map(Resize((8, 8)))
    dataset = PairedDataset(images, headrace.datasets.HDF5Dataset(folder / "audio.h5"), k=2)
    if "workers" in how:
        how = {**how, "multiprocessing_context": "spawn"}
    (batch, audio), labels = next(iter(DataLoader(dataset, 10, shuffle=True, seed=5, **how)))
    assert (batch.shape, batch.dtype, audio.shape, audio.dtype) == ((10, 8, 8, 3), np.uint8, (10, 2, 4), np.float32)
    assert (audio // 20 == labels[:, None, None]).all()
    (other, sounds), _ = next(iter(DataLoader(dataset, 10, shuffle=True, seed=5)))
    assert np.array_equal(batch, other)
    assert np.array_equal(audio, sounds)
    assert pickle.loads(pickle.dumps(dataset)).where(3) == str(folder / "3.png")

    (folder / "3.png").write_bytes(b"no image")
    loader = DataLoader(dataset, 4, seed=5, on_error="skip", **how)
    assert [len(labels) for _, labels in loader] == [4, 4, 1]
    assert loader.statistics().bad[0].where == str(folder / "3.png")
    with pytest.raises(headrace.errors.BadImage) as info:
        list(DataLoader(dataset, 4, seed=5, **how))
    assert "batch 0: sample 3 (" in info.value.__notes__[0]
    dataset.others.close()  # type: ignore[attr-defined]
