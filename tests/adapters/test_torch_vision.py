"""torchvision's datasets by the native extension: torchvision's pixels for the same draws, labels, order and types."""

from __future__ import annotations

import base64
import json
import re
import struct
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

from PIL import Image  # noqa: E402
from tests.image_files import encoded, photo  # noqa: E402
from torch.utils.data import ConcatDataset, Subset  # noqa: E402
from torchvision import datasets  # noqa: E402
from torchvision import transforms as v1  # noqa: E402
from torchvision.transforms import v2  # noqa: E402
from torchvision.transforms.v2 import functional as F  # noqa: E402

import headrace.torch  # noqa: E402
from headrace import RandomResizedCrop, explain  # noqa: E402
from headrace._native import extension  # noqa: E402
from headrace.context.seeds import Purpose, generator, key_of  # noqa: E402
from headrace.errors import NotNativeWarning  # noqa: E402
from headrace.transforms import RandomCrop  # noqa: E402

pytestmark = [
    pytest.mark.skipif(extension is None, reason="the native extension was not built here"),
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The transform `ToTensor:UserWarning"),
]

SEED, BATCH = 3, 8
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALIZE = v1.Normalize(MEAN, STD)
FLOAT = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]


@pytest.fixture(scope="module", autouse=True)
def the_resource_tracker_is_there_already() -> None:
    """Start the process that multiprocessing keeps for good, which would look like a leak."""
    resource_tracker.ensure_running()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    """Photographs of several sizes in two classes; among them PNG, BMP, gray, CMYK, and an EXIF orientation."""
    root: Path = tmp_path_factory.mktemp("images")
    notes = Image.Exif()
    notes[0x0112] = 6
    for number in range(22):
        height, width = 40 + 7 * (number % 5), 44 + 9 * (number % 4)
        image = Image.fromarray(photo(number, height, width))
        form, options = ({3: "PNG", 4: "BMP"}[number], {}) if number in (3, 4) else ("JPEG", {"quality": 90})
        if number == 5:
            options["exif"] = notes
        image = image.convert({7: "L", 9: "CMYK"}.get(number, "RGB"))
        path = root / ("cats" if number % 2 else "dogs") / f"{number:02}.{form.lower()}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(image, form, **options))
    return root


def loader(dataset: Any, **options: Any) -> Any:
    return headrace.torch.DataLoader(dataset, **{"batch_size": BATCH, "native": True, "seed": SEED, **options})


def images(dataset: Any, **options: Any) -> Any:
    return torch.cat([batch[0] for batch in loader(dataset, **options)])


def by_torchvision(transforms: list[Any], image: Any, position: int) -> Any:
    """Apply torchvision's transforms to an image, with the numbers that the sample at a position draws."""
    rng = generator(key_of(SEED), Purpose.SAMPLE, 0, position)
    for transform in transforms:
        height, width = F.get_size(image)
        if isinstance(transform, v1.RandomResizedCrop | v2.RandomResizedCrop):
            ours = RandomResizedCrop(transform.size, scale=tuple(transform.scale), ratio=tuple(transform.ratio))
            how = {"interpolation": transform.interpolation, "antialias": transform.antialias}
            image = F.resized_crop(image, *ours.box(height, width, rng), list(transform.size), **how)
        elif isinstance(transform, v1.RandomCrop | v2.RandomCrop):
            if transform.padding is not None:
                sides = transform.padding
                if isinstance(transform, v2.RandomCrop):
                    sides = [sides[0], sides[2], sides[1], sides[3]]
                fill = 0 if transform.fill is None else transform.fill
                image = F.pad(image, sides, fill=fill, padding_mode=transform.padding_mode)
            image = F.crop(image, *RandomCrop(transform.size).box(*F.get_size(image), rng))
        elif isinstance(transform, v1.RandomHorizontalFlip | v2.RandomHorizontalFlip):
            image = F.horizontal_flip(image) if rng.random() < transform.p else image
        else:
            image = transform(image)
    return torch.as_tensor(image)


def assert_close(found: Any, expected: Any) -> None:
    """Hold 99.9 % of values to be within one gray level."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    levels = (found.double() - expected.double()).abs()
    if found.dtype != torch.uint8:
        levels = 255 * levels * (torch.tensor(STD)[:, None, None] if found.shape[1] == 3 else 1)
    assert (levels > 1.001).double().mean() <= 0.001


CHAINS: dict[str, list[Any]] = {
    "training, v2": [v2.RandomResizedCrop(32), v2.RandomHorizontalFlip(), *FLOAT],
    "training, v1": [v1.RandomResizedCrop(32), v1.RandomHorizontalFlip(), v1.ToTensor(), NORMALIZE],
    "tensors first": [
        v2.ToImage(), v2.ToDtype(torch.uint8, scale=True), v2.RandomResizedCrop((24, 36)), v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD),
    ],
    "tensors first, bicubic": [v2.PILToTensor(), v2.RandomResizedCrop(32, interpolation=3), *FLOAT[1:]],
    "tensors first, v1": [v1.PILToTensor(), v1.RandomResizedCrop(32), v1.ConvertImageDtype(torch.float32), NORMALIZE],
    "floats first": [v1.ToTensor(), v1.Resize((30, 32)), v1.CenterCrop(28), v1.RandomHorizontalFlip(), NORMALIZE],
    "validation": [v1.Resize(36), v1.CenterCrop(32), v1.ToTensor(), NORMALIZE],
    "validation, both sides": [v2.Resize([30, 50]), v2.CenterCrop([28, 32]), *FLOAT],
    "a margin": [v2.Resize([30, 50]), v2.CenterCrop([36, 60]), *FLOAT],
    "bicubic": [v2.RandomResizedCrop(32, interpolation=v2.InterpolationMode.BICUBIC), *FLOAT],
    "nearest": [v2.RandomResizedCrop(32, interpolation=v2.InterpolationMode.NEAREST), *FLOAT],
    "lanczos": [v1.Resize([32, 32], interpolation=v1.InterpolationMode.LANCZOS), v1.ToTensor(), NORMALIZE],
    "crops": [v1.Resize(40), v1.RandomCrop(32, padding=4), v1.RandomHorizontalFlip(), v1.ToTensor(), NORMALIZE],
    "crops, v2": [v2.Resize(40), v2.RandomCrop((32, 36), padding=(1, 2, 3, 4), fill=(9, 8, 7)), *FLOAT],
    "bytes": [v2.Resize((20, 24)), v2.PILToTensor()],
    "nested": [v1.Compose([v2.Resize((20, 24)), v2.Compose([v2.Identity(), v2.ToImage()])]), FLOAT[1]],
}  # fmt: skip


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", CHAINS)
def test_pixels_are_torchvisions_for_the_same_draws(name: str, workers: int, folder: Path) -> None:
    """Stay within one gray level of torchvision, from JPEG files and from those that only Pillow reads."""
    dataset = datasets.ImageFolder(folder, v2.Compose(CHAINS[name]))
    assert "all fused" in explain(dataset)
    found = list(loader(dataset, num_workers=workers))
    expected = [
        by_torchvision(CHAINS[name], datasets.folder.default_loader(path), position)
        for position, (path, _) in enumerate(dataset.samples)
    ]
    assert_close(torch.cat([batch[0] for batch in found]), torch.stack(expected))
    assert torch.cat([batch[1] for batch in found]).tolist() == dataset.targets
    assert all(type(batch) is list and [type(part) for part in batch] == [torch.Tensor] * 2 for batch in found)


def test_tensors_may_be_scaled_without_antialiasing(folder: Path) -> None:
    """Respect antialias=False, which Pillow images do not have."""
    pytest.importorskip("cv2")
    for chain in (
        [v2.ToImage(), v2.RandomResizedCrop(24, antialias=False), *FLOAT],
        [v1.ToTensor(), v1.Resize((24, 28), antialias=False), NORMALIZE],
    ):
        dataset = datasets.ImageFolder(folder, v2.Compose(chain))
        assert "all fused" in explain(dataset)
        expected = [
            by_torchvision(chain, datasets.folder.default_loader(path), position)
            for position, (path, _) in enumerate(dataset.samples)
        ]
        assert_close(images(dataset), torch.stack(expected))


def shards(root: Path, images: Any, labels: Any) -> None:
    """Write the files of MNIST's format."""
    root.mkdir(parents=True)
    for begin in ("train", "t10k"):
        (root / f"{begin}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, *images.shape) + images.tobytes())
        (root / f"{begin}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, len(labels)) + labels.tobytes())


def cifar(transform: Any, count: int = 20, kind: Any = datasets.CIFAR10, **how: Any) -> Any:
    """Make a dataset as torchvision does, but for the files, whose checksums are those of the real ones."""
    dataset = kind.__new__(kind)
    datasets.VisionDataset.__init__(dataset, "", transform=transform, **how)
    planes = np.stack([photo(number, 32, 32).transpose(2, 0, 1) for number in range(count)])
    dataset.data = planes.transpose(0, 2, 3, 1)
    dataset.targets = [number % 7 for number in range(count)]
    return dataset


def by_torch(dataset: Any, **options: Any) -> list[Any]:
    return list(torch.utils.data.DataLoader(dataset, **{"batch_size": BATCH, **options}))


def assert_same(found: list[Any], expected: list[Any]) -> None:
    """Hold batches to be torch's: the images within a gray level, all else to the last bit."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert type(ours) is type(theirs) is list
        assert_close(ours[0], theirs[0])
        assert ours[1].dtype == theirs[1].dtype
        assert torch.equal(ours[1], theirs[1])


VALIDATION = v2.Compose(CHAINS["validation"])


@pytest.mark.parametrize("kind", [datasets.CIFAR10, datasets.CIFAR100])
def test_cifar_is_read_from_its_arrays(kind: Any) -> None:
    """Give the pixels of the same draws, whichever way its array lies in memory."""
    chain = [v1.RandomCrop(32, padding=4), v1.RandomHorizontalFlip(), v1.ToTensor(), NORMALIZE]
    dataset = cifar(v1.Compose(chain), kind=kind)
    assert explain(dataset).startswith(f"{kind.__name__}: with native=True in DataLoader, all fused")
    expected = [by_torchvision(chain, Image.fromarray(image), number) for number, image in enumerate(dataset.data)]
    assert torch.equal(images(dataset), torch.stack(expected))
    dataset.data = np.ascontiguousarray(dataset.data)
    assert torch.equal(images(dataset), torch.stack(expected))


@pytest.mark.parametrize("kind", [datasets.MNIST, datasets.FashionMNIST, datasets.KMNIST])
def test_mnist_and_its_kin_are_read_from_their_arrays(kind: Any, tmp_path: Path) -> None:
    """Give gray images one channel, and torchvision's values to the last bit."""
    gray = np.stack([photo(number, 28, 28)[:, :, 0] for number in range(20)])
    shards(tmp_path / kind.__name__ / "raw", gray, np.arange(20, dtype=np.uint8) % 10)
    normalize = v1.Normalize((0.1307,), (0.3081,))
    for transform in (v1.Compose([v1.ToTensor(), normalize]), v2.Compose([v2.Resize(32), v2.ToImage()]), v1.ToTensor()):
        dataset = kind(tmp_path, transform=transform)
        assert "all fused" in explain(dataset)
        assert_same(list(loader(dataset)), by_torch(dataset))


def test_qmnist_has_the_class_for_its_label() -> None:
    """Take the first of its eight numbers, and leave them all to torch where they are asked for."""
    dataset = datasets.QMNIST.__new__(datasets.QMNIST)
    datasets.VisionDataset.__init__(dataset, "", transform=v1.ToTensor())
    dataset.data = torch.from_numpy(np.stack([photo(number, 28, 28)[:, :, 0] for number in range(9)]))
    dataset.targets, dataset.compat = torch.arange(72).reshape(9, 8), True
    assert_same(list(loader(dataset)), by_torch(dataset))
    dataset.compat = False
    assert "compat=False" in explain(dataset)


VIEWS: dict[str, Any] = {
    "subset": lambda whole: Subset(whole, [5, 3, 21, 3, 0, -1, 7, 9, 11]),
    "subset of tensors": lambda whole: Subset(whole, torch.arange(4, 20)),
    "subset of subset": lambda whole: Subset(Subset(whole, np.arange(20)), range(15, 1, -1)),
    "split": lambda whole: headrace.torch.random_split(whole, [0.5, 0.5], torch.Generator().manual_seed(0))[1],
    "concat": lambda whole: ConcatDataset([whole, Subset(whole, [1, 2]), cifar(VALIDATION)]),
    "subset of concat": lambda whole: Subset(ConcatDataset([whole, cifar(VALIDATION)]), [30, 2, 25, 1, 40]),
}


@pytest.mark.parametrize("how", [{}, {"num_workers": 2}, {"num_workers": 1, "backend": "processes"}], ids=str)
@pytest.mark.parametrize("name", VIEWS)
def test_views_of_torchs_make_no_difference(name: str, how: dict[str, Any], folder: Path) -> None:
    """Read Subset and ConcatDataset of torch's as torch does, in any order, with labels and with their functions."""
    for targets in (None, lambda label: 10 * label, lambda label: torch.eye(12)[label]):
        view = VIEWS[name](datasets.ImageFolder(folder, VALIDATION, target_transform=targets))
        if targets is not None and "concat" in name:
            continue
        assert "all fused" in explain(view)
        order = torch.randperm(len(view), generator=torch.Generator().manual_seed(1)).tolist()
        assert_same(list(loader(view, sampler=order, **how)), by_torch(view, sampler=order))
        batches = [order[:3], order[3:4]]
        assert_same(
            list(loader(view, batch_size=1, batch_sampler=batches, **how)),
            by_torch(view, batch_size=1, batch_sampler=batches),
        )


def test_targets_of_datasets_end_to_end_go_through_their_own_functions(folder: Path) -> None:
    """Read such a ConcatDataset in samples, whose images the native extension makes all the same."""
    whole = datasets.ImageFolder(folder, VALIDATION, target_transform=lambda label: 10 * label)
    view = ConcatDataset([whole, cifar(VALIDATION, target_transform=lambda label: -label)])
    assert_same(list(loader(view, num_workers=2)), by_torch(view))


def test_a_collate_function_gets_torchvisions_samples(folder: Path) -> None:
    """Give the user's own function tensors and whole numbers, as recipes with MixUp expect them."""
    dataset = datasets.ImageFolder(folder, VALIDATION)
    kinds = set()

    def collate(samples: Any) -> Any:
        kinds.update((type(sample), type(sample[0]), type(sample[1])) for sample in samples)
        return torch.utils.data.default_collate(samples)

    assert_same(list(loader(dataset, collate_fn=collate, num_workers=2, backend="threads")), by_torch(dataset))
    assert kinds == {(tuple, torch.Tensor, int)}


def test_batches_are_a_function_of_the_seed(folder: Path) -> None:
    """Repeat an epoch on any number and kind of workers, resume in its middle, and differ in the next."""
    dataset = datasets.ImageFolder(folder, v2.Compose(CHAINS["training, v2"]))
    first = loader(dataset, shuffle=True)
    epochs = [[torch.cat([batch[0] for batch in first]), torch.cat([batch[1] for batch in first])] for _ in range(2)]
    assert not torch.equal(epochs[0][0], epochs[1][0])
    for how in ({"num_workers": 2}, {"num_workers": 2, "backend": "processes"}):
        assert torch.equal(images(dataset, shuffle=True, **how), images(dataset, shuffle=True))
    begun = loader(dataset, shuffle=True, num_workers=2)
    batches = iter(begun)
    next(batches)
    resumed = loader(dataset, shuffle=True)
    resumed.load_state_dict(begun.state_dict())
    assert all(torch.equal(one[0], two[0]) for one, two in zip(resumed, batches, strict=True))
    assert torch.equal(loader(dataset).replay(epoch=0, step=1)[0], list(loader(dataset))[1][0])


def test_workers_that_stay_are_threads(folder: Path) -> None:
    """Use threads in scripts that ask for persistent workers, and processes where a function is for those."""
    dataset = datasets.ImageFolder(folder, v2.Compose(CHAINS["training, v2"]))
    made = loader(dataset, num_workers=2, persistent_workers=True)
    assert (made._session.settings.kind, made.persistent_workers) == ("threads", True)
    plain = loader(dataset)
    for _ in range(2):
        assert all(torch.equal(one[0], two[0]) for one, two in zip(made, plain, strict=True))
    assert loader(dataset, num_workers=2, worker_init_fn=print)._session.settings.kind == "processes"
    assert loader(dataset, num_workers=2, persistent_workers=True, native=False)._session.settings.kind == "processes"


def test_flips_may_come_before_crops() -> None:
    """Draw each of the 162 results of a flip and a crop with equal chance, in the order that many scripts have."""
    chain = [v1.RandomHorizontalFlip(), v1.RandomCrop(32, padding=4), v1.PILToTensor()]
    dataset = cifar(v1.Compose(chain), 1)
    whole = v2.Pad(4)(torch.from_numpy(dataset.data[0].copy()).permute(2, 0, 1))
    results = {
        image[:, top : top + 32, left : left + 32].numpy().tobytes(): (top, left, side)
        for side, image in enumerate((whole, whole.flip(2)))
        for top in range(9)
        for left in range(9)
    }
    assert len(results) == 162
    found = np.array([results[image.numpy().tobytes()] for image in images(Subset(dataset, [0] * 5000))])
    for column, most in enumerate((9, 9, 2)):
        counts = np.bincount(found[:, column], minlength=most)
        assert abs(counts / 5000 - 1 / most).max() < 5 * (1 / most / 5000) ** 0.5


def test_crops_are_drawn_from_torchvisions_distribution() -> None:
    """Agree with RandomResizedCrop's areas, shapes and places, and with its fallback for very wide images."""
    for height, width, ratio in ((60, 80, (3 / 4, 4 / 3)), (12, 90, (3 / 4, 4 / 3)), (90, 12, (0.9, 1.1))):
        ours, rng = RandomResizedCrop(8, ratio=ratio), np.random.default_rng(0)
        blank = torch.zeros(3, height, width)
        torch.manual_seed(0)
        theirs = [v1.RandomResizedCrop.get_params(blank, [0.08, 1.0], list(ratio)) for _ in range(4000)]
        found, expected = np.array([ours.box(height, width, rng) for _ in range(4000)]), np.array(theirs)
        for one, two in zip(found.T, expected.T, strict=True):
            values = np.union1d(one, two)
            far = np.searchsorted(np.sort(one), values, "right") - np.searchsorted(np.sort(two), values, "right")
            assert abs(far).max() / 4000 < 0.044  # Kolmogorov and Smirnov: one pair in a million is farther apart


class Own(v2.RandomHorizontalFlip):
    """A subclass, which may do anything."""


class OwnFolder(datasets.ImageFolder):
    """A subclass, which may do anything."""


def hooked() -> Any:
    crop = v1.CenterCrop(8)
    crop.register_forward_hook(lambda _module, _given, image: image)
    return crop


def changed() -> Any:
    crop = v1.CenterCrop(8)
    crop.forward = lambda image: image
    return crop


REFUSED: dict[str, tuple[Any, str]] = {
    "FiveCrop has no native counterpart": ([v2.CenterCrop(8), v2.FiveCrop(4), *FLOAT], "FiveCrop"),
    "<lambda> is not a transform of torchvision": ([v1.CenterCrop(8), lambda image: image, *FLOAT], "<lambda>"),
    "Own is a subclass of RandomHorizontalFlip": ([v2.CenterCrop(8), Own(), *FLOAT], "Own"),
    "CenterCrop has hooks": ([hooked(), *FLOAT], "CenterCrop"),
    "CenterCrop has another forward": ([changed(), *FLOAT], "CenterCrop"),
    "Resize has max_size": ([v1.Resize(8, max_size=9), v1.CenterCrop(8), *FLOAT], "Resize"),
    "images still differ in size": ([v1.Resize(8), *FLOAT], "Resize"),
    "CenterCrop follows Normalize": ([*FLOAT, v1.CenterCrop(8)], "CenterCrop"),
    "Normalize gets a tensor of bytes": ([v1.CenterCrop(8), v1.PILToTensor(), NORMALIZE], "Normalize"),
    "has scale=False": ([v1.CenterCrop(8), v2.ToImage(), v2.ToDtype(torch.float32)], "ToDtype"),
    "has dtype=torch.float16": ([v1.CenterCrop(8), v2.ToImage(), v2.ToDtype(torch.float16, scale=True)], "ToDtype"),
    "interpolation='bicubic' for a tensor of floats": ([v1.ToTensor(), v1.Resize((8, 8), 3), *FLOAT], "Resize"),
    "ToTensor or ToImage is missing": ([v1.CenterCrop(8)], ""),
    "mode='reflect' is fused only": ([v1.RandomCrop(32, 4, padding_mode="reflect"), *FLOAT], "RandomCrop"),
    "fill=300, which is no value": ([v1.Resize((8, 8)), v1.Pad(1, fill=300), *FLOAT], "Pad"),
    "version 1 does not take": ([v1.PILToTensor(), v1.RandomCrop(32, 4, fill=(1, 2, 3)), *FLOAT[1:]], "RandomCrop"),
    "may crop nothing": ([v2.RandomResizedCrop(8, ratio=(1e-6, 1)), *FLOAT], "RandomResizedCrop"),
    "a fill for each type": ([v2.RandomCrop(32, 4, fill={Image.Image: 1}), *FLOAT], "RandomCrop"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_not_recognized_is_named(why: str, folder: Path) -> None:
    """Name dataset, transform and reason in explain, and once in a warning; then read as on torch."""
    chain, name = REFUSED[why]
    dataset = datasets.ImageFolder(folder, v2.Compose(chain))
    assert why in explain(dataset)
    with pytest.warns(NotNativeWarning, match=f"ImageFolder: .*{name}") as caught:
        made = loader(dataset, num_workers=0)
    assert [Path(one.filename).name for one in caught] == [Path(__file__).name]
    assert made.dataset is dataset
    assert made.statistics().hint == ""


def test_other_datasets_are_named(folder: Path) -> None:
    """Say of a subclass, another loader or a dataset of one's own why it is read as on torch."""
    loaded = datasets.ImageFolder(folder, VALIDATION, loader=lambda path: Image.open(path).convert("RGB"))
    anything = datasets.ImageFolder(folder, VALIDATION)
    anything.samples = [(f"{path}.tiff", label) for path, label in anything.samples]
    for dataset, why in (
        (OwnFolder(folder, VALIDATION), "a subclass of ImageFolder may change what a sample is"),
        (loaded, "its loader is <lambda>"),
        (anything, "most of its files are not JPEG, PNG or PPM"),
        (datasets.MovingMNIST.__new__(datasets.MovingMNIST), "this dataset is not recognized"),
        (datasets.ImageFolder(folder), "no transform"),
        (ConcatDataset([cifar(VALIDATION), [1, 2]]), "some of its datasets are not torchvision's"),
        (Subset(OwnFolder(folder, VALIDATION), [0]), "a subclass of ImageFolder"),
        (Subset(cifar(VALIDATION), [99]), "not one of its 20 samples"),
    ):
        assert why in explain(dataset)
        with pytest.warns(NotNativeWarning, match="as on torch"):
            loader(dataset)
    with pytest.warns(NotNativeWarning, match="a list is not a dataset of torchvision"):
        assert [batch.tolist() for batch in loader([1, 2, 3])] == [[1, 2, 3]]


def test_files_of_other_classes_are_read_too(folder: Path) -> None:
    """Know DatasetFolder with torchvision's loader, and Imagenette."""
    loaded = datasets.DatasetFolder(folder, datasets.folder.default_loader, (".jpeg",), VALIDATION)
    imagenette = datasets.Imagenette.__new__(datasets.Imagenette)
    datasets.VisionDataset.__init__(imagenette, folder, transform=VALIDATION)
    imagenette._samples, imagenette.loader = loaded.samples, loaded.loader
    for dataset in (loaded, imagenette):
        assert "all fused" in explain(dataset)
        assert_same(list(loader(dataset)), by_torch(dataset))


def test_a_label_that_is_no_number_is_named(folder: Path) -> None:
    """Leave a dataset to torch whose samples somebody has changed to something else."""
    for sample in (("a.jpg", "cat"), ("a.jpg", 1.5), ("a.jpg", 1, 2), (b"a.jpg", 1)):
        dataset = datasets.ImageFolder(folder, VALIDATION)
        dataset.samples[0] = sample
        assert "not all (path, label)" in explain(dataset)
    dataset = datasets.ImageFolder(folder, VALIDATION)
    dataset.samples = dataset.samples * 100
    for label, why in ((1.5, "'float'"), (2**70, "too large")):
        dataset.samples[1] = (dataset.samples[1][0], label)
        with pytest.warns(NotNativeWarning, match=f"ImageFolder: .*{why}"):
            loader(dataset)


def test_a_sample_says_where_it_comes_from_and_what_was_done_to_it(folder: Path) -> None:
    """Trace a sample through the transforms that stand in for torchvision's; give samples one by one as tensors."""
    dataset = datasets.ImageFolder(folder, v2.Compose(CHAINS["training, v2"]))
    made = loader(dataset)
    found = made.lineage(epoch=0, step=1, index=2)
    assert found.where == dataset.samples[BATCH + 2][0]
    assert "RandomResizedCrop" in str(found)
    assert "top" in str(found)
    assert_close(found.sample[0][None], list(made)[1][0][2:3])
    single = next(iter(loader(dataset, batch_size=None)))
    assert_close(single[0][None], next(iter(loader(dataset)))[0][:1])
    assert single[1] == 0


def test_spawned_processes_read_the_same(folder: Path) -> None:
    """Send what reads the dataset to processes that share nothing."""
    dataset = datasets.ImageFolder(folder, v2.Compose(CHAINS["training, v2"]))
    how = {"num_workers": 1, "multiprocessing_context": "spawn"}
    assert torch.equal(images(dataset, **how), images(dataset))


def test_whole_batches_of_others_need_no_warning() -> None:
    """Say nothing where batches are made at once anyway."""
    tensors = torch.utils.data.TensorDataset(torch.arange(6.0), torch.arange(6))
    assert len(list(loader(tensors))) == 1
    assert len(list(loader(headrace.ArrayDataset(np.arange(6))))) == 1


def test_the_dataset_may_change_between_two_loops(folder: Path) -> None:
    """Read the transforms, labels and files that the dataset has as a loop begins, as torch's workers do."""
    dataset = datasets.ImageFolder(folder, VALIDATION)
    made = loader(dataset)
    assert next(iter(made))[0].shape[2:] == (32, 32)
    dataset.transform = v2.Compose([v1.Resize(20), v1.CenterCrop(16), *FLOAT])
    assert next(iter(made))[0].shape[2:] == (16, 16)
    dataset.samples[0] = (dataset.samples[1][0], 77)
    assert_same(list(made), by_torch(dataset))
    small = cifar(VALIDATION)
    made = loader(small)
    list(made)
    small.targets[0] = 5
    assert_same(list(made), by_torch(small))
    small.transform = v2.Compose([v2.RandomChannelPermutation(), *FLOAT])
    with pytest.warns(NotNativeWarning, match="RandomChannelPermutation"):
        assert len(list(made)) == 3


def test_a_damaged_file_raises_what_torchvision_raises(folder: Path, tmp_path: Path) -> None:
    """Let Pillow judge what the native extension cannot read, and name the sample; or skip it."""
    (tmp_path / "a").mkdir()
    for number, path in enumerate(sorted(folder.rglob("*.jpeg"))[:5]):
        data = path.read_bytes()
        (tmp_path / "a" / f"{number}.jpg").write_bytes(data[: len(data) // 2] if number == 2 else data)
    dataset = datasets.ImageFolder(tmp_path, VALIDATION)
    with pytest.raises(OSError, match="truncated") as caught:
        list(loader(dataset, num_workers=2))
    assert "2.jpg" in caught.value.__notes__[0]
    assert sum(len(labels) for _, labels in loader(dataset, on_error="skip")) == 4


def test_without_the_argument_nothing_changes_but_a_hint(folder: Path) -> None:
    """Read through the dataset's own code, and say in the statistics what would be faster."""
    dataset = datasets.ImageFolder(folder, VALIDATION)
    made = loader(dataset, native=False)
    assert all(torch.equal(ours[0], theirs[0]) for ours, theirs in zip(made, by_torch(dataset), strict=True))
    hint = made.statistics().hint
    assert re.fullmatch(
        r"ImageFolder: the native extension can make these batches about \d+\.\d times as fast: pass native=True", hint
    )
    assert made.statistics().hint is hint
    assert loader(dataset).statistics().hint == ""
    assert headrace.torch.DataLoader([1, 2]).statistics().hint == ""
    assert headrace.torch.DataLoader(OwnFolder(folder, VALIDATION)).statistics().hint == ""


def test_the_hint_covers_views_and_calls_no_function_of_the_users(folder: Path) -> None:
    """Time the samples of a Subset and a ConcatDataset; with a target_transform, give no figure."""
    calls: list[int] = []

    def noted(label: int) -> int:
        calls.append(label)
        return label

    dataset = datasets.ImageFolder(folder, VALIDATION)
    for made in (Subset(dataset, range(20)), ConcatDataset([dataset, dataset])):
        begun = loader(made, native=False)
        list(begun)
        assert re.search(r"these batches about \d+\.\d times as fast", begun.statistics().hint)
    begun = loader(datasets.ImageFolder(folder, VALIDATION, target_transform=noted), native=False)
    read = sum(len(labels) for _, labels in begun)
    assert begun.statistics().hint == "ImageFolder: the native extension can make these batches: pass native=True"
    assert len(calls) == read


def test_numpy_batches_come_from_the_same_datasets(folder: Path) -> None:
    """Give arrays from `headrace.DataLoader`."""
    dataset = datasets.ImageFolder(folder, VALIDATION, target_transform=lambda label: label + 1)
    found = list(headrace.DataLoader(dataset, BATCH, native=True, num_workers=2))
    assert all(isinstance(part, np.ndarray) for batch in found for part in batch)
    assert_same([[torch.from_numpy(part) for part in batch] for batch in found], by_torch(dataset))


def test_the_presets_of_weights_are_recognized(folder: Path) -> None:
    """Know what weights.transforms() gives."""
    preset = torchvision.transforms._presets.ImageClassification(crop_size=28, resize_size=32)
    dataset = datasets.ImageFolder(folder, preset)
    assert "all fused" in explain(dataset)
    assert_same(list(loader(dataset)), by_torch(dataset))


def test_the_values_that_are_kept_are_torchvisions(tmp_path: Path) -> None:
    """Compute again what tests/transforms/torchvision.json holds, for where torchvision is not installed."""
    kept = json.loads((Path(__file__).parents[1] / "transforms" / "torchvision.json").read_text(encoding="utf-8"))
    (tmp_path / "a.jpg").write_bytes(base64.b85decode(kept["jpeg"]))
    image = datasets.folder.default_loader(str(tmp_path / "a.jpg"))
    for case in kept["chains"].values():
        made = image
        for name, size, *filters in case["chain"]:
            scale = v2.Resize(size, *[v2.InterpolationMode(one) for one in filters]) if name == "Resize" else None
            made = v2.CenterCrop(size)(made) if scale is None else scale(made)
        expected = np.frombuffer(base64.b85decode(case["pixels"]), np.uint8).reshape(case["shape"])
        assert np.abs(F.pil_to_tensor(made).numpy().astype(int) - expected).max() <= 1
    assert np.allclose(v2.Compose([v2.Resize([2, 3]), *FLOAT])(image), kept["normalized"], atol=0.02)


def test_scripts_under_the_patch_read_natively(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Let `patch(native=True)` reach loaders that a script makes, and explain what it recognizes."""
    dataset = datasets.ImageFolder(folder, VALIDATION)
    with headrace.torch.patch(native=True, explain=True):
        made = torch.utils.data.DataLoader(dataset, batch_size=BATCH)
    assert made.native
    assert_same(list(made), by_torch(dataset))
    assert "ImageFolder: with native=True in DataLoader, all fused" in capsys.readouterr().err
