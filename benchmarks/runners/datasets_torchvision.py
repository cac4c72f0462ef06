"""torch's DataLoader over a dataset of Hugging Face's `datasets`, with the transforms of torch-torchvision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common import Job, run
from torch_loader import loader
from torchvision_work import Work

from datasets import Image, load_from_disk

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


class Decoded:
    """What `set_transform` does to a batch of rows."""

    def __init__(self, job: Job) -> None:
        self.work = Work(job)

    def __call__(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {"image": [self.work(image["bytes"]) for image in rows["image"]], "label": rows["label"]}


class Pairs:
    """The batches of a loader as pairs; a dict of tensors is what comes."""

    def __init__(self, batches: DataLoader) -> None:
        self.batches = batches

    def __iter__(self) -> Any:
        for batch in self.batches:
            yield batch["image"], batch["label"]


def make(job: Job) -> Pairs:
    # The bytes, as Pillow would take longer to decode them than torchvision.
    rows = load_from_disk(f"{job.folder}/arrow").cast_column("image", Image(decode=False))
    return Pairs(loader(rows.with_transform(Decoded(job)), job))


if __name__ == "__main__":
    run(make, packages=("torch", "torchvision", "datasets"))
