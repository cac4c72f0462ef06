"""One-shot iterators and flags that are no booleans: refused aloud, never an empty epoch or a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace
from headrace import DataLoader, IterableDataset
from headrace.datasets import ChainDataset
from headrace.errors import ArgumentError
from headrace.samplers import BatchSampler, Sampler

ONCE = "can be read only once"
EXECUTORS = [{}, {"num_workers": 2, "backend": "threads"}]


class Kept(Sampler[int]):
    """Gives the same iterator each time."""

    def __init__(self, items: Any) -> None:
        self.items = iter(items)

    def __iter__(self) -> Iterator[int]:
        return self.items


class Rewound:
    """An iterator that begins again, as torchdata's are."""

    def __iter__(self) -> Rewound:
        self.numbers = iter(range(6))
        return self

    def __next__(self) -> int:
        return next(self.numbers)


@pytest.mark.parametrize("how", EXECUTORS, ids=["inline", "threads"])
@pytest.mark.parametrize(
    ("named", "make"),
    [
        ("sampler", lambda: (i for i in range(6))),
        ("sampler", lambda: map(int, range(6))),
        ("sampler", lambda: Kept(range(6))),
        ("batch_sampler", lambda: iter([[0, 1], [2, 3]])),
        ("batch_sampler", lambda: BatchSampler((i for i in range(6)), 2, drop_last=False)),
    ],
)
def test_a_sampler_that_can_be_read_once_raises_in_the_second_epoch(
    named: str, make: Callable[[], Any], how: dict[str, Any]
) -> None:
    """Give the first epoch whole, and say in the second why there is none."""
    loader = DataLoader(list(range(6)), **{named: make()}, **how)
    assert sum(len(batch) for batch in loader) in (4, 6)
    for _ in range(2):
        with pytest.raises(TypeError, match=ONCE):
            list(loader)


def test_a_pass_that_was_left_does_not_become_a_short_epoch() -> None:
    """Raise where the rest of an iterator ends, which the epoch before has started."""
    loader = DataLoader(list(range(6)), sampler=iter(range(6)))
    assert next(iter(loader)).tolist() == [0]
    with pytest.raises(ArgumentError, match="the sampler, a range_iterator, is an iterator that can be read only once"):
        list(loader)


def test_endless_iterators_and_those_that_begin_again_are_read_again() -> None:
    """Refuse nothing that gives every epoch what was asked for."""
    endless = DataLoader(list(range(99)), sampler=(n % 7 for n in count()))
    assert [len(list(islice(iter(endless), 5))) for _ in range(3)] == [5, 5, 5]
    again = DataLoader(list(range(6)), sampler=Rewound())  # type: ignore[arg-type]
    assert [len(list(again)) for _ in range(3)] == [6, 6, 6]
    empty = DataLoader(list(range(6)), sampler=[])
    assert [list(empty) for _ in range(2)] == [[], []]


@pytest.mark.parametrize(
    "make",
    [
        lambda: (i for i in range(4)),
        lambda: headrace.datasets.iterable.MappedIterable((i for i in range(4)), abs),
        lambda: ChainDataset([(i for i in range(4))]),  # type: ignore[list-item]
        lambda: ChainDataset(iter([Counting()])),
    ],
)
@pytest.mark.parametrize("how", [*EXECUTORS, {**EXECUTORS[1], "read_once": True}], ids=["inline", "threads", "shared"])
def test_a_stream_that_can_be_read_once_raises_in_the_second_epoch(
    make: Callable[[], Any], how: dict[str, Any]
) -> None:
    """Tell of a dataset as of a sampler."""
    loader = DataLoader(make(), 2, **how)
    assert sum(len(batch) for batch in loader) == 4
    with pytest.raises(TypeError, match=ONCE):
        list(loader)


class Counting(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(4))


def test_a_batch_sampler_by_itself_tells_too() -> None:
    """Raise in whoever's loop it is; read a list as often as one likes."""
    batches = BatchSampler(iter(range(4)), 2, drop_last=False)
    assert len(list(batches)) == 2
    with pytest.raises(TypeError, match=ONCE):
        list(batches)
    listed = BatchSampler(range(4), 2, drop_last=False)
    assert list(listed) == list(listed)


@pytest.mark.parametrize("name", ["shuffle", "drop_last", "pin_memory", "persistent_workers", "in_order"])
@pytest.mark.parametrize("value", ["False", "no", "", 2, 0.0, [], np.array([True])], ids=repr)
def test_a_loaders_flags_are_booleans(name: str, value: Any) -> None:
    """Refuse what Python would take for true or false, with a ValueError as torch does for drop_last."""
    with pytest.raises(ValueError, match=f"{name} should be a boolean value, but got {name}="):
        DataLoader(range(5), 2, num_workers=1, **{name: value})


@pytest.mark.parametrize("value", [True, 1, np.True_, np.int64(1)], ids=repr)
def test_numbers_and_numpys_booleans_are_flags(value: Any) -> None:
    """Take 1, 0 and NumPy's own for what they mean."""
    assert DataLoader(range(5), 2, drop_last=value).drop_last is True
    assert len(DataLoader(range(5), 2, drop_last=value)) == 2
    assert (
        DataLoader(range(5), 2, in_order=value - value if not isinstance(value, np.bool_) else ~value).in_order is False
    )


def test_flags_of_other_constructors_are_booleans(tmp_path: Path) -> None:
    """Hold them all to the same rule."""
    (tmp_path / "class").mkdir()
    (tmp_path / "list.txt").write_text("a.jpg 1\n")
    arrays = headrace.ArrayDataset(np.zeros(2), np.zeros(2, int))
    for make in (
        lambda: headrace.samplers.DistributedSampler(range(4), 2, 0, shuffle="no"),  # type: ignore[arg-type]
        lambda: headrace.samplers.DistributedSampler(range(4), 2, 0, drop_last="False"),  # type: ignore[arg-type]
        lambda: BatchSampler(range(4), 2, "False"),  # type: ignore[arg-type]
        lambda: headrace.samplers.RandomSampler(range(4), "False"),  # type: ignore[arg-type]
        lambda: headrace.datasets.PairedDataset(arrays, arrays, replacement="no"),  # type: ignore[arg-type]
        lambda: headrace.collate.PaddedCollate(lengths="no"),  # type: ignore[arg-type]
        lambda: headrace.collate.PackedCollate(4, shifted="no"),  # type: ignore[arg-type]
        lambda: headrace.ImageList(tmp_path / "list.txt", header="no"),  # type: ignore[arg-type]
        lambda: headrace.ImageFolder(tmp_path, allow_empty="no"),  # type: ignore[arg-type]
        lambda: headrace.ImageFiles([], allow_truncated="no"),  # type: ignore[arg-type]
        lambda: headrace.RandomCrop(4, pad_if_needed="no"),  # type: ignore[arg-type]
        lambda: headrace.Normalize(0.5, 0.5, channels_first="no"),  # type: ignore[arg-type]
        lambda: headrace.Resize(4, antialias="no"),  # type: ignore[arg-type]
        lambda: headrace.Ledger(tmp_path, fingerprints="no"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match=r"boolean value|True or False"):
            make()
