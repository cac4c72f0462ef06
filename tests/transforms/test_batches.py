"""Transforms of whole batches by the collate step: shares, boxes, sizes; the same bytes for any worker, and replay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace import ArrayDataset, Compose, DataLoader, RandomHorizontalFlip, ToCHW
from headrace.collate import TransformedCollate
from headrace.errors import ArgumentError
from headrace.testing.transforms import assert_same
from headrace.transforms import CutMix, MixUp, RandomChoice, RandomResolution, batches

CLASSES = 4


def batch(count: int = 6, size: int = 12, dtype: Any = np.float64) -> list[Any]:
    images = np.arange(count, dtype=dtype)[:, None, None, None] * 10 + np.zeros((count, size, size, 3), dtype)
    return [images, np.arange(count) % CLASSES]


def dataset() -> Any:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    return ArrayDataset(images, np.arange(20) % CLASSES).map(RandomHorizontalFlip())


@pytest.mark.parametrize("mode", ["batch", "elem"])
def test_mixup_mixes_images_and_labels_by_the_same_shares(mode: Any) -> None:
    given = batch()
    images, labels = MixUp(num_classes=CLASSES, mode=mode)(given, np.random.default_rng(1))
    one_hot = np.eye(CLASSES)[given[1]]
    for row in range(6):
        kept = (images[row, 0, 0, 0] - given[0][row - 1, 0, 0, 0]) / (given[0][row] - given[0][row - 1])[0, 0, 0]
        assert 0 <= kept <= 1
        np.testing.assert_allclose(images[row], kept * given[0][row] + (1 - kept) * given[0][row - 1])
        np.testing.assert_allclose(labels[row], kept * one_hot[row] + (1 - kept) * one_hot[row - 1], rtol=1e-5)
    assert labels.dtype == np.float32


@pytest.mark.parametrize("mode", ["batch", "elem"])
@pytest.mark.parametrize("minmax", [None, (0.2, 0.8)])
@pytest.mark.parametrize("first", [False, True])
def test_cutmix_labels_are_shares_of_the_area(mode: Any, minmax: Any, first: bool) -> None:
    images, labels = batch()
    given = images.transpose(0, 3, 1, 2).copy() if first else images
    mixed, soft = CutMix(num_classes=CLASSES, mode=mode, minmax=minmax)([given, labels], np.random.default_rng(2))
    mixed = mixed.transpose(0, 2, 3, 1) if first else mixed
    for row in range(6):
        kept = (mixed[row, ..., 0] == images[row, 0, 0, 0]).mean()
        expected = kept * np.eye(CLASSES)[labels[row]] + (1 - kept) * np.eye(CLASSES)[labels[row - 1]]
        np.testing.assert_allclose(soft[row], expected, atol=1e-6)
        assert set(np.unique(mixed[row])) <= {images[row, 0, 0, 0], images[row - 1, 0, 0, 0]}


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("count", [1, 2, 5, 11])
def test_rows_are_mixed_a_few_at_a_time_and_as_all_at_once(dtype, count, monkeypatch) -> None:
    """Give the values of one expression over the whole batch."""
    monkeypatch.setattr(batches, "CACHED", 600)
    rng = np.random.default_rng(count)
    values = (rng.random((count, 3, 4, 5)) * 250 - 9 * (dtype != "uint8")).astype(dtype)
    values.flags.writeable = False
    kept = rng.random(count)
    floats = values.dtype if values.dtype.kind == "f" else np.dtype(np.float32)
    weights = kept.astype(floats).reshape(-1, 1, 1, 1)
    mixed = values * weights + np.roll(values, 1, axis=0) * (1 - weights)
    expected = (mixed if values.dtype.kind == "f" else np.rint(mixed)).astype(dtype)
    found = batches._blended(values, kept.reshape(-1, 1, 1, 1))
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, expected)


def test_shares_follow_the_beta_distribution() -> None:
    drawn = [MixUp(0.4, num_classes=2).drawn(batch(2), np.random.default_rng(seed))["lam"] for seed in range(2000)]
    expected = np.random.default_rng(0).beta(0.4, 0.4, 2000)
    assert (
        np.abs(
            np.quantile(drawn, [0.1, 0.25, 0.5, 0.75, 0.9]) - np.quantile(expected, [0.1, 0.25, 0.5, 0.75, 0.9])
        ).max()
        < 0.06
    )


def test_a_batch_that_is_not_mixed_has_labels_of_the_same_form() -> None:
    given = batch()
    images, labels = MixUp(num_classes=CLASSES, p=0, label_smoothing=0.1)(given, np.random.default_rng(0))
    np.testing.assert_array_equal(images, given[0])
    np.testing.assert_allclose(labels.max(axis=1), 0.9 + 0.1 / CLASSES)
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
    again = CutMix(num_classes=CLASSES)([images, labels], np.random.default_rng(0))[1]
    assert again.shape == (6, CLASSES)


def test_integer_images_are_rounded_and_keep_their_dtype() -> None:
    images, _ = MixUp(num_classes=CLASSES)(batch(dtype=np.uint8), np.random.default_rng(4))
    assert images.dtype == np.uint8
    assert np.abs(images.astype(int).mean(axis=(1, 2, 3)) - images[:, 0, 0, 0]).max() == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([np.zeros((2, 8, 8, 3)), np.array([0, 9])], "a label"),
        ([np.zeros((2, 8, 8, 3)), np.array([0, -1])], "a label"),
        ([np.zeros((2, 8, 8, 3)), np.zeros((2, 3))], "labels of shape"),
        ([np.zeros((2, 8, 8, 3)), ["a", "b"]], "arrays of images and labels"),
        (np.zeros((2, 8, 8, 3)), "arrays of images and labels"),
        ({"image": np.zeros((2, 8, 8, 3)), "label": np.zeros(2, int), "boxes": []}, "no masks, boxes or keypoints"),
        ([np.zeros((2, 8, 8, 5)), np.array([0, 1])], "N, H, W, C"),
    ],
)
def test_batches_that_cannot_be_mixed_are_refused(given: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        CutMix(num_classes=CLASSES)(given, np.random.default_rng(0))


@pytest.mark.parametrize(
    "arguments", [{"alpha": 0}, {"mode": "pair"}, {"p": 2}, {"num_classes": 0}, {"label_smoothing": 2}]
)
def test_arguments_are_checked(arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        MixUp(**({"num_classes": 3} | arguments))


MIX = RandomChoice([MixUp(num_classes=CLASSES, mode="elem"), CutMix(num_classes=CLASSES)])


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(dataset(), 4, shuffle=True, seed=3, collate_fn=TransformedCollate(MIX), **options)


def test_any_worker_mixes_a_batch_alike_and_a_resume_goes_on_alike() -> None:
    inline = list(loader())
    assert_same(list(loader(num_workers=2, backend="threads")), inline)
    part = loader()
    steps = iter(part)
    next(steps)
    next(steps)
    state = part.state_dict()
    resumed = loader()
    resumed.load_state_dict(state)
    assert_same(list(resumed), inline[2:])
    assert_same(loader().replay(epoch=0, step=3), inline[3])


def test_batches_draw_other_numbers_than_their_samples_and_than_each_other() -> None:
    collate = TransformedCollate(lambda batch, rng: rng.random())
    drawn = list(DataLoader(ArrayDataset(np.zeros(12)), 3, seed=1, collate_fn=collate))
    assert len({*drawn}) == 4
    samples = DataLoader(ArrayDataset(np.zeros(12)).map(lambda x, rng: rng.random()), 3, seed=1)
    assert not {*drawn} & {value for batch in samples for value in batch.tolist()}


def test_lineage_names_what_was_drawn_for_the_batch() -> None:
    mixed = loader()
    steps = mixed.lineage(epoch=0, step=1, index=2).batch
    assert steps[0][0] is MIX
    choice = steps[0][1]["choice"]
    assert steps[1][1].keys() == ({"lam"}, {"box"})[choice]  # what the chosen one drew
    assert len(steps) == 2
    only = DataLoader(dataset(), 4, seed=3, collate_fn=TransformedCollate(MixUp(num_classes=CLASSES, mode="elem")))
    lineage = only.lineage(epoch=0, step=1, index=2)
    kept = lineage.batch[0][1]["lam"]
    label = list(only)[1][1][2]
    np.testing.assert_allclose(label.max(), max(kept[2], 1 - kept[2]), atol=1e-3)
    assert "the batch: MixUp" in str(lineage)


def test_a_resolution_is_drawn_for_each_batch_and_moves_boxes() -> None:
    class Boxed:
        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int) -> Any:
            return {"image": np.zeros((10, 20, 3), np.uint8), "boxes": np.array([[0.0, 0, 20, 10]]), "labels": [index]}

    collate = TransformedCollate(RandomResolution([4, 8, 12], ToCHW()))
    batches = list(DataLoader(Boxed(), 2, seed=0, collate_fn=collate))
    sizes = {batch["image"].shape for batch in batches}
    assert sizes <= {(2, 3, side, side) for side in (4, 8, 12)}
    assert len(sizes) > 1
    for one in batches:
        side = one["image"].shape[-1]
        assert one["boxes"].tolist() == [[[0, 0, side, side]]] * 2
    size = DataLoader(Boxed(), 2, seed=0, collate_fn=collate).lineage(epoch=0, step=2, index=1).batch[0][1]
    assert size["height"] == batches[2]["image"].shape[-1]


def test_a_resolution_after_the_batch_is_made_is_refused() -> None:
    with pytest.raises(ArgumentError, match="first"):
        TransformedCollate(MIX, RandomResolution([4]))
    with pytest.raises(ArgumentError, match="at least one size"):
        RandomResolution([])
    assert Compose(MIX).transforms == (MIX,)
