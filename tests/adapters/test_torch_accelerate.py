"""Accelerate, which makes a loader of its own from what a loader says of itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.adapters.data import Patches

torch = pytest.importorskip("torch")
accelerate = pytest.importorskip("accelerate")
from accelerate.data_loader import DataLoaderShard, prepare_data_loader, skip_first_batches  # noqa: E402
from tests.parity.loads import Numbers, Shared  # noqa: E402

from headrace.torch import DataLoader  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of a machine without a GPU


def ours(prepared: Any, **how: Any) -> Any:
    """Let a prepared loader read through ours, as docs/guide/torch.md says."""
    prepared.base_dataloader = DataLoader(
        prepared.dataset, batch_sampler=prepared.batch_sampler, collate_fn=prepared.collate_fn, **how
    )
    return prepared


@pytest.mark.parametrize("how", [None, {}, {"num_workers": 2}], ids=["as it is", "ours inline", "ours on threads"])
def test_a_model_learns_photographs(how: dict[str, Any] | None, patches: Patches) -> None:
    """Train to less than half of the first loss, with the loader that prepare() gives, and with ours under it."""
    torch.manual_seed(0)
    accelerator = accelerate.Accelerator(cpu=True)
    model = torch.nn.Sequential(torch.nn.Linear(768, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(patches, 50, shuffle=True))
    assert type(loader) is DataLoaderShard
    if how is not None:
        loader = ours(loader, **how)
    losses = []
    for _ in range(8):
        values = []
        for images, labels in loader:
            loss = torch.nn.functional.cross_entropy(model(images.flatten(1) / 128 - 1), labels)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            values.append(loss.item())
        assert len(values) == len(loader) == 12
        losses.append(np.mean(values))
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("under", [False, True], ids=["as it is", "ours"])
def test_ranks_share_the_batches(under: bool) -> None:
    """Prepare for each of two processes: together they read all batches, by turns."""
    accelerate.PartialState(cpu=True)
    seen = []
    for rank in range(2):
        loader = DataLoader(Numbers(10), 2)
        prepared = prepare_data_loader(loader, num_processes=2, process_index=rank, put_on_device=False)
        seen.append([batch.tolist() for batch in (ours(prepared) if under else prepared)])
    assert seen == [[[0, 1], [4, 5], [8, 9]], [[2, 3], [6, 7], [0, 1]]]


def test_a_stream_is_shared_too() -> None:
    """Wrap an iterable dataset, whose batches come from ours where it is given."""
    accelerate.PartialState(cpu=True)
    seen = []
    for rank in range(2):
        loader = DataLoader(Shared(8), 2)
        prepared = prepare_data_loader(loader, num_processes=2, process_index=rank, put_on_device=False)
        seen.append([batch.tolist() for batch in prepared])
    assert seen == [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]


def test_the_first_batches_are_skipped() -> None:
    """Continue in the middle of an epoch."""
    accelerate.PartialState(cpu=True)
    assert [batch.tolist() for batch in skip_first_batches(DataLoader(Numbers(8), 2), 2)] == [[4, 5], [6, 7]]


def test_batches_need_not_be_prepared_at_all() -> None:
    """Keep ours, let it take its rank's part, and move the batches."""
    accelerator = accelerate.Accelerator(cpu=True)
    loader = DataLoader(Numbers(8), 2, seed=0, rank="auto")
    assert [batch.to(accelerator.device).tolist() for batch in loader] == [[0, 1], [2, 3], [4, 5], [6, 7]]
