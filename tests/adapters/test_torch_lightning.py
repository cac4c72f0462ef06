"""Lightning, which makes loaders again from their attributes to put a sampler of its own in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.adapters.data import Patches

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("lightning.pytorch")
from lightning.pytorch.trainer.states import RunningStage  # noqa: E402
from lightning.pytorch.utilities.data import _update_dataloader  # noqa: E402

from headrace.samplers import BucketBatchSampler, PackingBatchSampler  # noqa: E402
from headrace.torch import DataLoader, DistributedSampler, SequentialSampler, patch  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning warns of small things: few workers, few batches
WORKERS: list[dict[str, Any]] = [{}, {"num_workers": 2}, {"num_workers": 2, "backend": "processes"}]
NAMES = ["inline", "threads", "processes"]


class Model(lightning.LightningModule):  # type: ignore[misc,name-defined]
    """A small network that remembers its losses."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(768, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3))
        self.losses: dict[int, list[float]] = {}

    def forward(self, images: Any) -> Any:
        return self.layers(images.flatten(1) / 128 - 1)

    def training_step(self, batch: Any, index: int) -> Any:
        images, labels = batch
        loss = torch.nn.functional.cross_entropy(self(images), labels)
        self.losses.setdefault(self.current_epoch, []).append(loss.item())
        return loss

    def predict_step(self, batch: Any, index: int) -> Any:
        return batch[1]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(folder: Path, **given: Any) -> Any:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return lightning.Trainer(
        accelerator="cpu", devices=1, enable_model_summary=False, default_root_dir=folder, **quiet, **given
    )


@pytest.mark.parametrize("how", WORKERS, ids=NAMES)
def test_a_model_learns_photographs(how: dict[str, Any], patches: Patches, tmp_path: Path) -> None:
    """Fit to less than half of the first loss; validate and predict with loaders of ours too."""
    torch.manual_seed(0)
    model, fitting = Model(), trainer(tmp_path, max_epochs=8)
    fitting.fit(model, DataLoader(patches, 50, shuffle=True, **how))
    assert type(fitting.train_dataloader) is DataLoader
    assert sorted(model.losses) == list(range(8))
    assert {len(losses) for losses in model.losses.values()} == {12}
    assert np.mean(model.losses[7]) < np.mean(model.losses[0]) / 2


def test_predicting_gives_every_sample_in_order(patches: Patches, tmp_path: Path) -> None:
    """Predict: Lightning makes the loader again, around batches whose indices it follows."""
    predicting = trainer(tmp_path)
    loader = DataLoader(patches, 64, drop_last=True, num_workers=2, prefetch_factor=3)
    labels = torch.cat(predicting.predict(Model(), loader))
    assert labels.tolist() == [index % 3 for index in range(600)]
    (made,) = [predicting.predict_dataloaders]
    assert type(made) is DataLoader
    assert (made.num_workers, made.prefetch_factor) == (2, 3)


def test_overfitting_reads_the_same_batches_again(patches: Patches, tmp_path: Path) -> None:
    """Put a sequential sampler in the place of the shuffle."""
    model, fitting = Model(), trainer(tmp_path, max_epochs=2, overfit_batches=2)
    fitting.fit(model, DataLoader(patches, 50, shuffle=True, seed=3))
    assert type(fitting.train_dataloader) is DataLoader
    assert isinstance(fitting.train_dataloader.sampler, SequentialSampler)
    assert {len(losses) for losses in model.losses.values()} == {2}


@pytest.mark.parametrize("drop_last", [False, True])
def test_ranks_share_an_epoch_by_lightnings_sampler(patches: Patches, drop_last: bool) -> None:
    """Make the loader again as Lightning does for each of several processes: all arguments are kept but the order."""

    def collate(samples: Any) -> Any:
        return [label for _, label in samples], len(samples)

    loader = DataLoader(
        patches, 64, shuffle=True, num_workers=2, collate_fn=collate, drop_last=drop_last, seed=5, on_error="replace"
    )
    counts = []
    for rank in range(2):
        sampler: Any = DistributedSampler(patches, 2, rank, shuffle=False)
        made = _update_dataloader(loader, sampler, RunningStage.TRAINING)
        assert type(made) is DataLoader
        assert made.sampler is sampler
        names = ("batch_size", "num_workers", "collate_fn", "drop_last", "seed", "on_error", "dataset", "backend")
        assert {name: getattr(made, name) for name in names} == {name: getattr(loader, name) for name in names}
        batches = list(made)
        assert [label for labels, _ in batches for label in labels][:3] == [rank, (rank + 2) % 3, (rank + 1) % 3]
        counts.append([count for _, count in batches])
    assert counts[0] == counts[1] == ([64] * 4 if drop_last else [64, 64, 64, 64, 44])


@pytest.mark.parametrize(
    "sampler",
    [BucketBatchSampler(range(1, 41), 4), PackingBatchSampler(range(1, 41), 50, 2)],
    ids=lambda sampler: type(sampler).__name__,
)
def test_a_planned_batch_sampler_made_again_says_what_to_do(sampler: Any) -> None:
    """Name the ranks of the loader as the way out, instead of an error about lengths or arguments."""
    loader = DataLoader(range(40), batch_sampler=sampler)
    with pytest.raises(ValueError, match=r"rank=\"auto\".*use_distributed_sampler=False"):
        _update_dataloader(loader, DistributedSampler(range(40), 2, 0), RunningStage.TRAINING)


class Labelled(torch.utils.data.DataLoader[Any]):
    """A library's loader, with an argument of its own."""

    def __init__(self, dataset: Any, name: str = "", **named: Any) -> None:
        super().__init__(dataset, **named)
        self.name = name


@pytest.mark.parametrize("kind", [torch.utils.data.DataLoader, Labelled])
def test_loaders_made_in_hooks_are_ours_under_the_patch(kind: Any, patches: Patches, tmp_path: Path) -> None:
    """Let Lightning call the hooks, watch the constructor, and make the loader again: ours each time."""

    class Own(Model):
        def train_dataloader(self) -> Any:
            return kind(patches, batch_size=50, shuffle=True, num_workers=1)

        def predict_dataloader(self) -> Any:
            return kind(patches, batch_size=64, num_workers=1)

    model, fitting = Own(), trainer(tmp_path, max_epochs=2)
    with patch():
        fitting.fit(model)
        predicting = trainer(tmp_path)
        labels = torch.cat(predicting.predict(model))
    assert isinstance(fitting.train_dataloader, DataLoader)
    assert {len(losses) for losses in model.losses.values()} == {12}
    assert isinstance(predicting.predict_dataloaders, kind)
    assert isinstance(predicting.predict_dataloaders, DataLoader)
    assert labels.tolist() == [index % 3 for index in range(600)]
