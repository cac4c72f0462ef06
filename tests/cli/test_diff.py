"""``headrace diff``: where two runs part."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("click")

from headrace import ArrayDataset, ConcatDataset, DataLoader, Ledger, rng
from headrace.samplers import MixtureSampler

if TYPE_CHECKING:
    from tests.cli.conftest import Call

Diff = Callable[[Path, Path], tuple[int, str]]
NUMBERS = np.arange(40, dtype=np.float32)


def jitter(sample: Any) -> Any:
    return sample + np.float32(rng().random())


def run(folder: Path, batches: int | None = None, **changed: Any) -> Path:
    how: dict[str, Any] = {"dataset": ArrayDataset(NUMBERS).map(jitter), "batch_size": 4, "shuffle": True, "seed": 1}
    loader = DataLoader(**{**how, **changed}, ledger=folder)
    for _ in islice(loader, batches):
        pass
    loader.ledger.close()
    return folder


@pytest.fixture
def diff(call: Call) -> Diff:
    """Compare two runs, for the exit status and all that is written."""

    def diff(one: Path, other: Path) -> tuple[int, str]:
        status, out, err = call("diff", one, other)
        return status, out + err

    return diff


def changed_at(place: int) -> ArrayDataset:
    numbers = NUMBERS.copy()
    numbers[place] += 0.5
    return ArrayDataset(numbers)


def mixture(share: float) -> dict[str, Any]:
    sampler = MixtureSampler([20, 20], [1, 1], num_samples=40, seed=0).changed(20, [share, 1])
    return {"dataset": ConcatDataset([NUMBERS[:20], NUMBERS[20:]]), "sampler": sampler, "shuffle": False}


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({"seed": 1}, {"seed": 2}, ["step 0: order", "only in A: ", "seed: 1 in A, 2 in B"]),
        ({"shuffle": False}, {"shuffle": False, "seed": 2}, ["step 0: augmentation", "the seeds differ"]),
        ({"batch_size": 5}, {"batch_size": 4}, ["step 0: batches", "A has positions 0 to 4, B has positions 0 to 3"]),
        (
            {"dataset": ArrayDataset(NUMBERS), "shuffle": False},
            {"dataset": changed_at(14), "shuffle": False},
            ["epoch 0, step 3: sample content", "the 3 batches before it are the same"],
        ),
        (mixture(1), mixture(9), ["step 5: mixture", "sampler.weights: [["]),
        (
            {"sampler": [0, 1, 2, 3, 4, 5, 6, 7], "shuffle": False},
            {"sampler": [0, 1, 2, 3, 5, 4, 6, 7], "shuffle": False},
            ["step 1: order", "the same samples in another order"],
        ),
    ],
    ids=["order", "augmentation", "batches", "content", "mixture", "shuffled within"],
)
def test_the_first_step_that_differs_is_named(
    diff: Diff, tmp_path: Path, one: dict[str, Any], other: dict[str, Any], words: list[str]
) -> None:
    """Say where, and in what."""
    status, text = diff(run(tmp_path / "a", **one), run(tmp_path / "b", **other))
    assert status == 1, text
    for word in words:
        assert word in text


def test_workers_restarts_and_worlds_make_no_difference(diff: Diff, tmp_path: Path) -> None:
    """Find two runs the same that are the same, however they came about."""
    whole = run(tmp_path / "whole")
    dataset = ArrayDataset(NUMBERS).map(jitter)
    loader = DataLoader(dataset, 4, shuffle=True, seed=1, ledger=tmp_path / "parts", num_workers=2)
    loop = iter(loader)
    next(loop), next(loop)
    state = loader.state_dict()
    next(loop), next(loop)
    loader.load_state_dict(state)
    list(loader)
    loader.ledger.close()
    assert diff(whole, tmp_path / "parts") == (0, "no difference in the 10 batches that both runs have\n")


def test_a_run_that_continues_longer_does_not_differ(diff: Diff, tmp_path: Path) -> None:
    """Say how many batches more it has."""
    status, text = diff(run(tmp_path / "a", 3), run(tmp_path / "b"))
    assert (status, text) == (0, "no difference in the 3 batches that both runs have\n  B has 7 batches more\n")


def test_without_fingerprints_keys_are_compared(diff: Diff, tmp_path: Path) -> None:
    """Say that the bytes were not."""
    ledger = Ledger(tmp_path / "a.ledger", fingerprints=False)
    list(DataLoader(ArrayDataset(NUMBERS), 4, shuffle=True, seed=1, ledger=ledger))
    ledger.close()
    status, text = diff(tmp_path / "a.ledger", run(tmp_path / "b"))
    assert status == 0
    assert "and not the batches' bytes" in text


def test_what_is_no_run_is_refused(diff: Diff, tmp_path: Path) -> None:
    """Name the folder or the file."""
    for path in (tmp_path, tmp_path / "none"):
        status, text = diff(path, path)
        assert status == 2
        assert str(path) in text
    (tmp_path / "x.ledger").write_bytes(b"no ledger at all")
    status, text = diff(tmp_path, tmp_path)
    assert status == 3
    assert "not a ledger" in text
