"""What a loader says of the tokens that it delivered, and of the datasets of a mixture."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import DataLoader
from headrace.collate import PackedCollate, PaddedCollate, count_tokens
from headrace.context.seeds import key_of
from headrace.datasets import GroupedDataset, TokenDataset
from headrace.samplers import MixtureSampler, PackingBatchSampler

LENGTHS = [3, 5, 2, 4, 1, 6, 2, 3]
TEXTS = [np.arange(length) for length in LENGTHS]
EXECUTORS: dict[str, dict[str, Any]] = {
    "inline": {},
    "threads": {"num_workers": 2, "backend": "threads"},
    "processes": {"num_workers": 2, "backend": "processes"},
}


def read(loader: DataLoader[Any], steps: int | None = None) -> Any:
    for _ in islice(loader, steps):
        pass
    return loader.statistics()


def own_collate(texts: list[Any]) -> int:
    count_tokens(sum(map(len, texts)))
    return len(texts)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_padded_and_packed_tokens_are_counted_by_every_executor(executor: str) -> None:
    """Count the tokens of the samples, and the rest of the batches as padding."""
    padded = DataLoader(TEXTS, 4, collate_fn=PaddedCollate(), **EXECUTORS[executor])
    found = read(padded)
    assert (found.tokens, found.padding) == (26, 4 * 5 + 4 * 6 - 26)
    assert found.padding_share == pytest.approx(18 / 44)
    assert found.tokens_per_second == pytest.approx(26 / found.seconds)
    rows = PackingBatchSampler(LENGTHS, row_length=8, batch_size=2, shuffle=False)
    packed = DataLoader(GroupedDataset(TEXTS), batch_sampler=rows, collate_fn=PackedCollate(8), **EXECUTORS[executor])
    found = read(packed)
    assert (found.tokens, found.padding) == (26, 4 * 8 - 26)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_collate_function_of_the_users_own_counts_its_tokens(executor: str) -> None:
    """Take its counts, and start again at 0 in each loop."""
    loader = DataLoader(TEXTS, 4, collate_fn=own_collate, **EXECUTORS[executor])
    assert read(loader).tokens == read(loader).tokens == 26
    assert loader.statistics().padding_share == 0


def test_tokens_are_counted_once_though_a_sample_has_several_rows_of_them() -> None:
    """Take the first padded leaf: the labels of a text are no more text."""
    pairs = [{"tokens": text, "labels": text} for text in TEXTS]
    assert read(DataLoader(pairs, 4, collate_fn=PaddedCollate())).tokens == 26


def test_batches_that_are_filled_up_count_their_tokens() -> None:
    """Count where the loop itself collates, after bad samples were skipped."""

    class Holes:
        def __len__(self) -> int:
            return len(TEXTS)

        def __getitem__(self, index: int) -> Any:
            if index == 1:
                raise ValueError("a bad text")
            return TEXTS[index]

    assert read(DataLoader(Holes(), 3, collate_fn=PaddedCollate(), on_error="skip")).tokens == 26 - LENGTHS[1]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_windows_of_a_token_file_are_counted(executor: str, tmp_path: Path) -> None:
    """Count the inputs; where a collate function counts too, what it counts alone."""
    np.arange(65, dtype=np.uint16).tofile(tmp_path / "train.bin")
    windows = TokenDataset(tmp_path / "train.bin", 8, dtype=np.uint16)
    assert read(DataLoader(windows, 3, **EXECUTORS[executor])).tokens == 64
    assert read(DataLoader(windows, 3, collate_fn=list, **EXECUTORS[executor])).tokens == 64
    padded = read(DataLoader(windows, 3, collate_fn=PaddedCollate(multiple_of=5), **EXECUTORS[executor]))
    assert (padded.tokens, padded.padding) == (64, 16)


def test_other_data_has_no_tokens() -> None:
    """Say 0, as before the first batch."""
    found = read(DataLoader(np.zeros((4, 2)), 2))
    assert (found.tokens, found.padding, found.tokens_per_second, found.padding_share) == (0, 0, 0, 0)


@pytest.mark.parametrize("seed", [None, 3])
def test_a_mixture_says_what_it_has_read_of_each_dataset(seed: int | None) -> None:
    """Count what was delivered since the first epoch began, also after a state was loaded."""
    sampler = MixtureSampler([30, 6], [2, 1], num_samples=24, seed=1)
    loader = DataLoader(range(36), 4, sampler=sampler, seed=seed)
    assert [source.samples for source in loader.statistics().sources] == [0, 0]
    delivered = [int(index) for batch in loader for index in batch]
    delivered += [int(index) for batch in islice(loader, 3) for index in batch]
    second = sum(index >= 30 for index in delivered)
    sources = loader.statistics().sources
    assert [source.samples for source in sources] == [36 - second, second]
    assert [source.share for source in sources] == [(36 - second) / 36, second / 36]
    assert [source.passes for source in sources] == [(36 - second) / 30, second / 6]
    other = DataLoader(range(36), 4, sampler=sampler, seed=seed)
    other.load_state_dict(loader.state_dict())
    later = read(other, 1).sources
    assert sum(source.samples for source in later) == 40


def test_a_packed_mixture_says_what_it_has_read_by_window() -> None:
    """Count the samples of the windows before the place, and of whole epochs before it."""
    sampler = MixtureSampler([30, 6], [2, 1], num_samples=40, seed=1)
    batches = PackingBatchSampler([5] * 36, 10, 2, sampler=sampler, window=8)
    loader: DataLoader[Any] = DataLoader(GroupedDataset(range(36)), batch_sampler=batches, collate_fn=list, seed=0)
    list(loader)
    assert sum(source.samples for source in loader.statistics().sources) == 40
    list(islice(loader, 5))  # 20 samples: two windows, and half of one
    sources = loader.statistics().sources
    first = [*sampler, *sampler.order(key_of(1)).keys(1, 0, 16)]
    assert [source.samples for source in sources] == [sum(i < 30 for i in first), sum(i >= 30 for i in first)]


def test_no_mixture_has_no_sources() -> None:
    """Leave them empty."""
    assert read(DataLoader(range(4), 2)).sources == ()
