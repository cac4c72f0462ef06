"""native=True as scripts use it: with functions of their own, while files and settings change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

from tests.image_files import encoded, photo  # noqa: E402
from torchvision import datasets  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

import headrace.torch  # noqa: E402
from headrace._native import extension  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(extension is None, reason="the native extension was not built here"),
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]

FLOAT = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))]
TRAINING = v2.Compose([v2.RandomResizedCrop(32), v2.RandomHorizontalFlip(), *FLOAT])
VALIDATION = v2.Compose([v2.Resize(36), v2.CenterCrop(32), *FLOAT])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    """22 photographs of several sizes in two classes, the first 11 in one."""
    root: Path = tmp_path_factory.mktemp("photos")
    for number in range(22):
        path = root / ("cats" if number < 11 else "dogs") / f"{number:02}.jpeg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(photo(number, 40 + number % 5, 44 + number % 4)))
    return root


def loader(dataset: Any, **options: Any) -> Any:
    return headrace.torch.DataLoader(dataset, **{"batch_size": 8, "native": True, "seed": 3, **options})


@pytest.mark.filterwarnings("error::headrace.errors.RandomnessWarning")
def test_a_collate_function_that_mixes_draws_the_same_on_any_workers(folder: Path) -> None:
    """Run MixUp and CutMix in processes: threads would share torch's global generator with the training."""
    mix = v2.RandomChoice([v2.MixUp(num_classes=2), v2.CutMix(num_classes=2)])

    def collate(samples: Any) -> Any:
        return mix(*torch.utils.data.default_collate(samples))

    dataset = datasets.ImageFolder(folder, TRAINING)
    found = []
    for how in ({}, {"num_workers": 2}, {"num_workers": 1, "persistent_workers": True}):
        torch.manual_seed(len(found))
        made = loader(dataset, collate_fn=collate, shuffle=True, **how)
        found.append([part for batch in made for part in batch])
        assert made._session.settings.kind == ("processes" if how else "inline")
    assert all(torch.equal(*parts) for other in found[1:] for parts in zip(found[0], other, strict=True))
    plain = loader(dataset, collate_fn=torch.utils.data.default_collate, num_workers=2)
    assert plain._session.settings.kind == "threads"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_a_target_transform_names_the_sample(workers: int, folder: Path) -> None:
    """Say which sample it is, though the images of the batch are made at once; with "skip", leave that one out."""
    dataset = datasets.ImageFolder(folder, VALIDATION, target_transform=lambda label: {0: 5}[label])
    with pytest.raises(KeyError) as caught:
        list(loader(dataset, num_workers=workers))
    assert f"batch 1: sample 11 ({dataset.samples[11][0]})" in caught.value.__notes__[0]
    skipping = loader(dataset, num_workers=workers, on_error="skip", max_errors=None)
    assert torch.cat([labels for _, labels in skipping]).tolist() == [5] * dataset.targets.count(0)
