"""torch's DataLoader over rows of Hugging Face's `datasets`, as its documentation has it: with_format("torch")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common import Job, run
from torch_loader import loader

from datasets import load_from_disk

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


class Pairs:
    """The batches of a loader as pairs; a dict of tensors is what comes."""

    def __init__(self, batches: DataLoader) -> None:
        self.batches = batches

    def __iter__(self) -> Any:
        for batch in self.batches:
            yield batch["features"], batch["label"]


def make(job: Job) -> Pairs:
    # torch's loader asks for all rows of a batch at once (__getitems__).
    return Pairs(loader(load_from_disk(f"{job.folder}/arrow").with_format("torch"), job))


if __name__ == "__main__":
    run(make, packages=("torch", "datasets"))
