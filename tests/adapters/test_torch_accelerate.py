"""Accelerate, which makes a loader of its own from what a loader says of itself."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import textwrap
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.adapters.data import Patches
from tests.free_ports import free_ports

torch = pytest.importorskip("torch")
accelerate = pytest.importorskip("accelerate")
from accelerate.data_loader import DataLoaderShard, prepare_data_loader, skip_first_batches  # noqa: E402
from tests.parity.loads import Numbers, Shared  # noqa: E402

from headrace.errors import ArgumentError  # noqa: E402
from headrace.torch import DataLoader, patch, prepare  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

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


def failing(index: int) -> int:
    if index == 3:
        raise ValueError("bad sample")
    return index


class Sometimes(Numbers):
    """Has a bad sample."""

    def __getitem__(self, index: int) -> int:
        return failing(index)


def test_what_accelerate_would_drop_is_said_once_with_the_cure() -> None:
    """Warn of arguments of ours that the prepared loader has not; of torch's own, say nothing."""
    accelerator = accelerate.Accelerator(cpu=True)
    with pytest.warns(UserWarning, match=r"without seed=, on_error=.*headrace.torch.prepare\(accelerator, loader\)"):
        accelerator.prepare(DataLoader(Numbers(8), 2, seed=0, on_error="replace"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        accelerator.prepare(DataLoader(Numbers(8), 2, num_workers=1, in_order=False, generator=torch.Generator()))


def test_what_skipping_batches_would_drop_is_said() -> None:
    """Warn where Accelerate makes a loader without our arguments, of one that is prepared too; else say nothing."""
    accelerator = accelerate.Accelerator(cpu=True)
    how: dict[str, Any] = {"shuffle": True, "seed": 5, "on_error": "replace"}
    for loader in (DataLoader(Numbers(8), 2, **how), prepare(accelerator, DataLoader(Numbers(8), 2, **how))):
        for skip in (skip_first_batches, accelerator.skip_first_batches):
            with pytest.warns(UserWarning, match=r"without seed=, on_error=.*load_state_dict") as caught:
                skip(loader, 1)
            assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        skipped = skip_first_batches(DataLoader(Numbers(8), 2, num_workers=1, multiprocessing_context="spawn"), 3)
        assert skipped.multiprocessing_context.get_start_method() == "spawn"
        assert DataLoader(Numbers(8), 2, **how).multiprocessing_context is None


@pytest.mark.parametrize("workers", [0, 2])
def test_prepare_keeps_every_argument(workers: int) -> None:
    """Read the order of the seed, and survive a bad sample, on Accelerate's device and by its count of steps."""
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    how: dict[str, Any] = {"shuffle": True, "seed": 5, "on_error": "replace", "num_workers": workers}
    expected = [[batch.tolist() for batch in loader] for loader in [DataLoader(Sometimes(10), 3, **how)] * 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader = DataLoader(Sometimes(10), 3, **how)
        prepared = prepare(accelerator, loader)
    assert type(prepared) is DataLoaderShard
    assert (len(prepared), prepared.total_batch_size) == (4, 3)
    epochs, kept = [], []
    for _ in range(2):
        epochs.append([])
        for batch in prepared:
            epochs[-1].append(batch.tolist())
            kept += accelerator.gather_for_metrics(batch).tolist()
    assert epochs == expected
    assert len(kept) == 20
    assert loader.statistics().replaced == 1


def test_prepare_says_what_it_cannot_prepare() -> None:
    """Refuse loaders of torch's, and an order that is divided between other processes."""
    accelerator = accelerate.Accelerator(cpu=True)
    with pytest.raises(ArgumentError, match=r"got a DataLoader.*expected a headrace.torch.DataLoader"):
        prepare(accelerator, torch.utils.data.DataLoader(Numbers(4)))
    with pytest.raises(ArgumentError, match="Accelerate has 1 processes, but the loader's order is divided between 2"):
        prepare(accelerator, DataLoader(Numbers(4), seed=0, rank=0, world_size=2))


TWO = textwrap.dedent("""
    import json, sys
    import accelerate, torch
    from headrace.torch import DataLoader, prepare
    accelerator = accelerate.Accelerator(cpu=True)
    loader = prepare(accelerator, DataLoader(range(11), 2, shuffle=True, seed=1, rank="auto"))
    assert len(loader) == 3 and loader.total_batch_size == 4
    parts, gathered = [], []
    for batch in loader:
        parts.append(batch.tolist())
        gathered += accelerator.gather_for_metrics(batch).tolist()
    if accelerator.is_main_process:
        assert sorted(gathered) == list(range(11)), gathered
    print(json.dumps(parts), flush=True)
    accelerator.end_training()
""")


def test_two_processes_share_a_prepared_loader(tmp_path: Path) -> None:
    """Read all samples together, in the order of the seed, and count each once for metrics."""
    script = tmp_path / "two.py"
    script.write_text(TWO)
    (port,) = free_ports(1)
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(script)],
            env={**os.environ, **environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=250)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    first, second = (json.loads(text) for text in said)
    expected = [batch.tolist() for batch in DataLoader(range(11), 4, shuffle=True, seed=1)]
    assert [a + b for a, b in zip(first, second, strict=True)][:2] == expected[:2]


def test_arguments_are_kept_under_the_patch() -> None:
    """Keep a loader's own arguments where Accelerate makes others of it, and say which of them it cannot."""
    accelerator = accelerate.Accelerator(cpu=True)
    with patch(backend="inline"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            prepared = accelerator.prepare(DataLoader(Sometimes(8), 2, seed=4, on_error="replace"))
            skipped = skip_first_batches(prepared, 2)
        with pytest.warns(UserWarning, match="without seed="):
            accelerator.prepare(DataLoader(Numbers(8), 2, seed=4, shuffle=True))
    for loader in (prepared, skipped):
        own = getattr(loader, "base_dataloader", loader)
        assert (own.seed, own.on_error, own.backend) == (4, "replace", "inline")
    assert [len(batch) for batch in prepared] == [2] * 4
    assert [batch.tolist() for batch in skipped] == [[4, 5], [6, 7]]


def test_loaders_of_accelerate_measure_their_workers_where_the_first_one_does() -> None:
    """Pass on "auto", not the number that the loader begins with; say that it is lost where no patch keeps it."""
    accelerator = accelerate.Accelerator(cpu=True)
    source = DataLoader(Numbers(8), 2, num_workers="auto", remember_tuning=False)
    with pytest.warns(UserWarning, match='without num_workers="auto": it knows'):
        accelerator.prepare(source)
    own = prepare(accelerator, DataLoader(Numbers(8), 2, num_workers="auto")).base_dataloader
    with patch(), warnings.catch_warnings():
        warnings.simplefilter("error")
        prepared = accelerator.prepare(DataLoader(Numbers(8), 2, num_workers="auto"))
        skipped = skip_first_batches(prepared, 2)
        fixed = accelerator.prepare(DataLoader(Numbers(8), 2, num_workers=1))
    for loader in (own, prepared.base_dataloader, getattr(skipped, "base_dataloader", skipped)):
        assert loader._session.measures
        assert not loader._session.settings.sets_prefetch
    assert not fixed.base_dataloader._session.measures
    assert [batch.tolist() for batch in prepared] == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_prepared_loaders_read_through_ours_under_the_patch() -> None:
    """Let Accelerate make a loader of ours, with the patch's own arguments, and say nothing of a loss."""
    accelerator = accelerate.Accelerator(cpu=True)
    with patch(seed=3), warnings.catch_warnings():
        warnings.simplefilter("error")
        prepared = accelerator.prepare(torch.utils.data.DataLoader(Numbers(8), 2, num_workers=1))
        skipped = skip_first_batches(prepared, 2)
        again = pickle.loads(pickle.dumps(prepared))
    assert type(prepared) is DataLoaderShard
    assert isinstance(prepared, torch.utils.data.DataLoader)
    for loader in (prepared, again):
        assert type(loader.base_dataloader) is DataLoader
        assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert prepared.base_dataloader.seed == 3
    assert [batch.tolist() for batch in skipped] == [[4, 5], [6, 7]]
