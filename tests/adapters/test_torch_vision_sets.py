"""Datasets of torchvision's that native=True recognizes: torch's samples and types, from small roots made here."""

from __future__ import annotations

import bz2
import json
import warnings
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

from PIL import Image  # noqa: E402
from tests.image_files import encoded, photo  # noqa: E402
from torch.utils.data import ConcatDataset, Subset  # noqa: E402
from torchvision import datasets  # noqa: E402
from torchvision.datasets.folder import default_loader, pil_loader  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

import headrace.torch  # noqa: E402
from headrace import explain  # noqa: E402
from headrace._native import extension  # noqa: E402
from headrace.datasets.torchvision_layouts import ARRAYS, FILES, REFUSED  # noqa: E402
from headrace.errors import NotNativeWarning  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.skipif(extension is None, reason="the native extension was not built here"),
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]

FLOAT = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
COLOR = v2.Compose([v2.Resize(26), v2.CenterCrop(24), *FLOAT, v2.Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))])
ANY = v2.Compose([v2.Resize((15, 12)), *FLOAT])
"""For gray images too."""


@pytest.fixture(scope="module", autouse=True)
def the_resource_tracker_is_there_already() -> None:
    """Start the process that multiprocessing keeps for good, which would look like a leak."""
    resource_tracker.ensure_running()


@pytest.fixture(autouse=True)
def checksums_are_taken_for_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files made here pass for the real ones."""
    for module in ("lfw", "omniglot", "places365", "semeion", "stl10"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.check_integrity", lambda *_args, **_more: True)


def image(path: Path, number: int = 0) -> Path:
    """Write a photograph, in the format that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    form = {".png": "PNG", ".ppm": "PPM"}.get(path.suffix, "JPEG")
    path.write_bytes(encoded(photo(number, 30 + 3 * number, 50 - 2 * number), form))
    return path


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def classes(root: Path, names: tuple[str, ...] = ("a", "b", "c"), suffix: str = ".jpg") -> Path:
    """Write a folder of two images for each class."""
    for number in range(2 * len(names)):
        image(root / names[number % len(names)] / f"{number}{suffix}", number)
    return root


def bare(kind: Any, **attributes: Any) -> Callable[..., Any]:
    """Return what makes a dataset by its attributes, where its own files are large, or only scipy reads them."""

    def make(**how: Any) -> Any:
        dataset = kind.__new__(kind)
        datasets.VisionDataset.__init__(dataset, "", **how)
        vars(dataset).update(attributes)
        return dataset

    return make


def clevr(root: Path) -> Any:
    folder = root / "clevr" / "CLEVR_v1.0"
    for number in range(4):
        image(folder / "images" / "train" / f"{number}.png", number)
    scenes = [{"image_filename": f"{number}.png", "objects": [{}] * (number + 2)} for number in range(4)]
    text(folder / "scenes" / "CLEVR_train_scenes.json", json.dumps({"scenes": scenes}))
    return lambda **how: datasets.CLEVRClassification(root, **how)


def dtd(root: Path) -> Any:
    classes(root / "dtd" / "dtd" / "images")
    text(root / "dtd" / "dtd" / "labels" / "train1.txt", "b/1.jpg", "a/0.jpg", "c/5.jpg", "a/3.jpg")
    return lambda **how: datasets.DTD(root, **how)


def aircraft(root: Path) -> Any:
    data = root / "fgvc-aircraft-2013b" / "data"
    for number in range(3):
        image(data / "images" / f"{number}.jpg", number)
    text(data / "families.txt", "A 1", "B")
    text(data / "images_family_trainval.txt", "2 B", "0 A 1", "1 B")
    return lambda **how: datasets.FGVCAircraft(root, annotation_level="family", **how)


def flowers(root: Path) -> Any:
    paths = [image(root / f"{number}.jpg", number) for number in range(4)]
    return bare(datasets.Flowers102, _image_files=paths, _labels=[3, 0, 101, 2], loader=default_loader)


def food(root: Path) -> Any:
    classes(root / "food-101" / "images")
    text(root / "food-101" / "meta" / "train.json", json.dumps({"b": ["b/1", "b/4"], "a": ["a/3"]}))
    return lambda **how: datasets.Food101(root, **how)


def signs(root: Path) -> Any:
    classes(root / "gtsrb" / "GTSRB" / "Training", ("00000", "00001"), ".ppm")
    return lambda **how: datasets.GTSRB(root, **how)


def species(root: Path) -> Any:
    names = ("00000_k_p_c_o_f_g_s1", "00001_k_p_c_o_f_h_s2")
    classes(root / "2021_train_mini", names)
    return lambda **how: datasets.INaturalist(
        root, "2021_train_mini", **{"target_type": "full", "loader": default_loader, **how}
    )


def imagenet(root: Path) -> Any:
    classes(root / "val", ("n01", "n02"), ".JPEG")
    torch.save(({"n01": ("one",), "n02": ("two", "zwei")}, []), root / "meta.bin")
    return lambda **how: datasets.ImageNet(root, "val", **how)


def imagenette(root: Path) -> Any:
    classes(root / "imagenette2" / "train", tuple(datasets.Imagenette._WNID_TO_CLASS)[:2], ".jpeg")
    return lambda **how: datasets.Imagenette(root, **how)


def people(root: Path) -> Any:
    names = ("Ann_A", "Bea_B")
    for number, name in enumerate(names):
        image(root / "lfw-py" / "lfw_funneled" / name / f"{name}_0001.jpg", number)
    text(root / "lfw-py" / "lfw-names.txt", *names)
    text(root / "lfw-py" / "peopleDevTrain.txt", "2", "Bea_B\t1", "Ann_A\t1")
    return lambda **how: datasets.LFWPeople(str(root), "train", **how)


def letters(root: Path) -> Any:
    classes(root / "omniglot-py" / "images_background" / "Greek", ("character01", "character02"), ".png")
    return lambda **how: datasets.Omniglot(str(root), **{"loader": pil_loader, **how})


def pets(root: Path) -> Any:
    folder = root / "oxford-iiit-pet"
    for number in range(3):
        image(folder / "images" / f"cat_{number}.jpg", number)
    text(folder / "annotations" / "trainval.txt", "cat_2 7 2 1", "cat_0 1 1 1", "cat_1 37 2 1")
    return lambda **how: datasets.OxfordIIITPet(root, **how)


def places(root: Path) -> Any:
    for number in range(3):
        image(root / "val_256" / f"{number}.jpg", number)
    text(root / "categories_places365.txt", "/a/a 0", "/a/b 1")
    text(root / "places365_val.txt", "2.jpg 1", "0.jpg 0", "1.jpg 1")
    return lambda **how: datasets.Places365(root, "val", small=True, **how)


def scenes(root: Path) -> Any:
    for number, name in enumerate(("abbey", "bar/inner")):
        image(root / "SUN397" / name[0] / name / f"sun_{number}.jpg", number)
    text(root / "SUN397" / "ClassName.txt", "/a/abbey", "/b/bar/inner")
    return lambda **how: datasets.SUN397(root, **how)


def cars(root: Path) -> Any:
    samples = [(str(image(root / f"{number}.jpg", number)), 195 - number) for number in range(3)]
    return bare(datasets.StanfordCars, _samples=samples, loader=default_loader)


def in_folder(kind: Any, *folders: str, suffix: str = ".jpg", names: tuple[str, ...] = ("a", "b"), **more: Any) -> Any:
    def make(root: Path) -> Any:
        classes(root.joinpath(*folders), names, suffix)
        return lambda **how: kind(root, **more, **how)

    return make


def gray(count: int, size: int) -> Any:
    return np.stack([photo(number, size, size)[:, :, 0] for number in range(count)])


def mnist(kind: Any) -> Any:
    def make(_root: Path) -> Any:
        labels = torch.arange(5) if kind is not datasets.QMNIST else torch.arange(40).reshape(5, 8)
        return bare(kind, data=torch.from_numpy(gray(5, 28)), targets=labels, compat=True)

    return make


def cifar(kind: Any) -> Any:
    colors = np.stack([photo(number, 32, 32).transpose(2, 0, 1) for number in range(5)])
    return lambda _root: bare(kind, data=colors.transpose(0, 2, 3, 1), targets=[4, 3, 0, 1, 2])


def digits(_root: Path) -> Any:
    # As scipy gives it: height, width, channel, image, in the order of Fortran.
    given = np.asfortranarray(np.stack([photo(number, 32, 32) for number in range(5)], axis=3))
    return bare(datasets.SVHN, data=given.transpose(3, 2, 0, 1), labels=np.array([1, 9, 0, 0, 5]))


def stl(root: Path) -> Any:
    folder = root / "stl10_binary"
    folder.mkdir()
    for split, count in (("train", 4), ("test", 3), ("unlabeled", 2)):
        planes = np.stack([photo(number, 96, 96).transpose(2, 1, 0) for number in range(count)])
        (folder / f"{split}_X.bin").write_bytes(planes.tobytes())
        (folder / f"{split}_y.bin").write_bytes(np.arange(1, count + 1, dtype=np.uint8).tobytes())
    return lambda split="train", **how: datasets.STL10(root, split, **how)


def semeion(root: Path) -> Any:
    rng = np.random.default_rng(0)
    np.savetxt(root / "semeion.data", np.concatenate([rng.integers(0, 2, (5, 256)), np.eye(10)[:5]], axis=1))
    return lambda **how: datasets.SEMEION(root, download=False, **how)


def usps(root: Path) -> Any:
    values = np.random.default_rng(0).uniform(-1, 1, (5, 256)).round(4)
    lines = [
        " ".join([str(n + 1), *(f"{i + 1}:{value}" for i, value in enumerate(row))]) for n, row in enumerate(values)
    ]
    (root / "usps.bz2").write_bytes(bz2.compress("\n".join(lines).encode()))
    return lambda **how: datasets.USPS(root, **how)


MADE: dict[str, Callable[[Path], Callable[..., Any]]] = {
    "CIFAR10": cifar(datasets.CIFAR10),
    "CIFAR100": cifar(datasets.CIFAR100),
    "CLEVRClassification": clevr,
    "Country211": in_folder(datasets.Country211, "country211", "train"),
    "DTD": dtd,
    "DatasetFolder": in_folder(datasets.DatasetFolder, loader=default_loader, extensions=(".jpg",)),
    "EMNIST": mnist(datasets.EMNIST),
    "EuroSAT": in_folder(datasets.EuroSAT, "eurosat", "2750"),
    "FGVCAircraft": aircraft,
    "FashionMNIST": mnist(datasets.FashionMNIST),
    "Flowers102": flowers,
    "Food101": food,
    "GTSRB": signs,
    "INaturalist": species,
    "ImageFolder": in_folder(datasets.ImageFolder, suffix=".png"),
    "ImageNet": imagenet,
    "Imagenette": imagenette,
    "KMNIST": mnist(datasets.KMNIST),
    "LFWPeople": people,
    "MNIST": mnist(datasets.MNIST),
    "Omniglot": letters,
    "OxfordIIITPet": pets,
    "Places365": places,
    "QMNIST": mnist(datasets.QMNIST),
    "RenderedSST2": in_folder(
        datasets.RenderedSST2, "rendered-sst2", "train", suffix=".png", names=("negative", "positive")
    ),
    "SEMEION": semeion,
    "STL10": stl,
    "SUN397": scenes,
    "SVHN": digits,
    "StanfordCars": cars,
    "USPS": usps,
    "FakeData": lambda _root: lambda **how: datasets.FakeData(**{"size": 5, "image_size": (3, 33, 40), **how}),
}


def by_torch(dataset: Any, **options: Any) -> list[Any]:
    return list(torch.utils.data.DataLoader(dataset, **{"batch_size": 3, **options}))


def natively(dataset: Any, **options: Any) -> list[Any]:
    return list(headrace.torch.DataLoader(dataset, **{"batch_size": 3, "native": True, "seed": 1, **options}))


def assert_torchs(dataset: Any, **options: Any) -> None:
    """Hold the batches of a dataset to be torch's: images within a gray level, all else to the last bit."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotNativeWarning)
        found = natively(dataset, **options)
    for ours, theirs in zip(found, by_torch(dataset), strict=True):
        assert type(ours) is type(theirs) is list
        assert (ours[0].shape, ours[0].dtype) == (theirs[0].shape, theirs[0].dtype)
        assert ((ours[0] - theirs[0]).abs() <= 1.001 / 255 / 0.2).double().mean() >= 0.999
        assert torch.equal(ours[1], theirs[1])
        assert ours[1].dtype == theirs[1].dtype


def test_every_class_of_the_tables_is_tested() -> None:
    """Hold the three tables, and this file, to torchvision's own names."""
    assert set(MADE) == {*FILES, *ARRAYS, "FakeData"}
    assert not set(MADE) & set(REFUSED)
    assert all(hasattr(datasets, name) for name in (*MADE, *REFUSED))


@pytest.mark.parametrize("name", MADE)
def test_samples_are_torchs(name: str, tmp_path: Path) -> None:
    """Give torch's images, labels and types: on any worker, with a target_transform, and after a change."""
    make = MADE[name](tmp_path)
    dataset = make(transform=ANY)
    assert f"{name}: with native=True in DataLoader, all fused" in explain(dataset)
    assert_torchs(dataset)
    assert_torchs(dataset, num_workers=2)
    assert_torchs(make(transform=ANY, target_transform=lambda label: label * 3 + 1))
    assert_torchs(ConcatDataset([dataset, Subset(dataset, [1, 0, 1])]))
    if np.asarray(dataset[0][0]).shape[0] == 3:
        assert_torchs(make(transform=COLOR), num_workers=1, backend="processes")
    if not (name in FILES and FILES[name].joint):
        dataset.transform = v2.Compose([v2.Resize((9, 8)), *FLOAT])
        assert_torchs(dataset)


@pytest.mark.parametrize("name", REFUSED)
def test_a_class_that_does_something_else_is_named(name: str) -> None:
    """Say what it does, in explain() and in the warning."""
    dataset = bare(getattr(datasets, name))(transform=ANY)
    assert f"{name}: with native=True in DataLoader, sample by sample as on torch: it {REFUSED[name]}" in explain(
        dataset
    )


def changed(dataset: Any, **attributes: Any) -> Any:
    vars(dataset).update(attributes)
    return dataset


def without(dataset: Any, name: str) -> Any:
    delattr(dataset, name)
    return dataset


def jointly(image: Any, target: Any) -> Any:
    return ANY(image), target


class OwnImageNet(datasets.ImageNet):
    """A subclass, which may do anything."""


class NoTargets(dict[int, int]):
    """A function that bool() says is False: some classes of torchvision's do not call it."""

    def __call__(self, label: int) -> int:
        return label


REFUSALS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "opened as it is": (
        lambda root: species(root)(loader=None),
        "opens images without converting them to RGB; give it",
    ),
    "made gray": (lambda root: letters(root)(loader=None), "converts images to gray; give it loader="),
    "loaded by a function": (lambda root: food(root)(loader=print), "its loader is print"),
    "of another version": (lambda root: without(food(root)(), "_labels"), "it has no list of samples"),
    "two targets": (lambda root: species(root)(target_type=["full", "order"]), "its targets are full, order"),
    "a mask": (lambda root: pets(root)(target_types="segmentation"), "its targets are segmentation"),
    "no targets": (lambda root: pets(root)(target_types=[]), "its targets are none"),
    "both at once": (
        lambda root: changed(pets(root)(), transforms=jointly),
        "its transforms is jointly, which gets image",
    ),
    "without labels": (lambda root: changed(clevr(root)(), _labels=[None] * 4), "not all (path, label)"),
    "fewer labels": (lambda root: changed(dtd(root)(), _labels=[1]), "its lists do not give paths and labels"),
    "labels in an array": (lambda root: changed(dtd(root)(), _labels=np.arange(4)), "it has no list of samples"),
    "labels of NumPy": (lambda root: changed(dtd(root)(), _labels=list(np.arange(4))), "not all (path, label)"),
    "labels that are truths": (lambda root: changed(dtd(root)(), _labels=[True] * 4), "not all (path, label)"),
    "other files": (lambda root: changed(cars(root)(), _samples=[("a.bmp", 1)]), "not JPEG, PNG or PPM, such as a.bmp"),
    "no images": (lambda root: changed(food(root)(), _image_files=[], _labels=[]), "it has no list of samples"),
    "unlabeled arrays": (lambda root: changed(stl(root)(), labels=None), "it has no labels"),
    "one label": (lambda root: changed(digits(root)(), labels=np.int64(3)), "its data are no arrays"),
    "fractions": (lambda root: changed(usps(root)(), targets=[0.5] * 5), "its labels are float64"),
    "gray in color": (lambda root: changed(digits(root)(), data=gray(5, 32)), "its images are uint8 of shape (32, 32)"),
    "a subclass": (
        lambda root: (imagenet(root), OwnImageNet(root, "val"))[1],
        "a subclass of ImageNet may change what a sample is",
    ),
    "no function": (
        lambda root: food(root)(target_transform=NoTargets()),
        "bool() of its target_transform, NoTargets, is False",
    ),
    "two channels": (lambda _root: datasets.FakeData(4, (2, 8, 8)), "4 images of shape (2, 8, 8)"),
    "no classes": (lambda _root: datasets.FakeData(4, (3, 8, 8), 0), "in 0 classes"),
    "half an image": (lambda _root: datasets.FakeData(4, (3, 8, 8.5)), "its numbers are not whole"),
    "from the end": (lambda _root: Subset(datasets.FakeData(4, (3, 8, 8), transform=ANY), [-1]), "negative indices"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_not_recognized_is_named(name: str, tmp_path: Path) -> None:
    """Leave it to torch, and say why in explain() and in a warning."""
    make, why = REFUSALS[name]
    dataset = make(tmp_path)
    if not isinstance(dataset, Subset):
        dataset.transform = ANY
        if dataset.transforms is None:
            dataset.transforms = datasets.vision.StandardTransform(ANY)
    assert why in explain(dataset)
    with pytest.warns(NotNativeWarning, match="as on torch"):
        headrace.torch.DataLoader(dataset, 2, native=True)


def test_a_replaced_method_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a class to torch whose __getitem__ somebody has replaced."""
    dataset = dtd(tmp_path)(transform=ANY)
    monkeypatch.setattr(datasets.DTD, "__getitem__", lambda _self, index: (torch.zeros(3), index))
    assert "its __getitem__ was replaced" in explain(dataset)


def test_one_kind_of_targets_is_read(tmp_path: Path) -> None:
    """Know the levels of species, and both classes of pets."""
    for level in ("full", "kingdom", "genus"):
        assert_torchs(species(tmp_path / level)(transform=ANY, target_type=level))
    for kind in ("category", "binary-category"):
        assert_torchs(pets(tmp_path / kind)(transform=ANY, target_types=kind))


def test_what_a_dataset_was_constructed_with_counts_where_it_does_on_torch(tmp_path: Path) -> None:
    """Ignore a new transform where the class applies its transforms, and not that attribute."""
    dataset = places(tmp_path)(transform=ANY, target_transform=lambda label: label + 10)
    dataset.transform = dataset.target_transform = None
    assert_torchs(dataset)
    dataset.transforms = datasets.vision.StandardTransform(COLOR)
    assert_torchs(dataset)


def test_unlabeled_images_have_the_label_of_torchvision(tmp_path: Path) -> None:
    """Give -1 where STL10 does, in labels of any dtype."""
    make = stl(tmp_path)
    for split in ("test", "unlabeled", "train+unlabeled"):
        assert_torchs(make(split, transform=ANY))


def test_fake_images_are_the_same_to_the_last_bit() -> None:
    """Draw what FakeData draws, for any threads at once, and leave torch's generator alone."""
    for how in ({}, {"image_size": (1, 17, 20)}, {"random_offset": 70}, {"num_classes": 1}, {"size": 1}):
        dataset = datasets.FakeData(**{"size": 40, "image_size": (3, 17, 20), "transform": v2.PILToTensor(), **how})
        torch.manual_seed(5)
        state = torch.get_rng_state()
        expected = by_torch(dataset)
        torch.set_rng_state(state)
        for workers in (0, 3):
            for ours, theirs in zip(natively(dataset, num_workers=workers), expected, strict=True):
                assert torch.equal(ours[0], theirs[0])
                assert torch.equal(ours[1], theirs[1])
    loader = headrace.torch.DataLoader(dataset, 3, native=True, generator=torch.Generator())
    state = torch.get_rng_state()
    list(loader)
    assert torch.equal(torch.get_rng_state(), state)


def test_fake_labels_go_through_a_function_as_tensors() -> None:
    """Call target_transform with a tensor, and take the number of its result."""
    kinds = set()

    def noted(label: Any) -> Any:
        kinds.add((type(label), label.shape, label.dtype))
        return label / 4

    assert_torchs(datasets.FakeData(5, (3, 8, 8), 3, ANY, noted))
    assert kinds == {(torch.Tensor, (), torch.int64)}


def test_an_index_from_the_end_of_fake_images_is_an_error() -> None:
    """Refuse what FakeData has other images for."""
    dataset = datasets.FakeData(5, (3, 8, 8), transform=ANY)
    for how in ({}, {"num_workers": 2}, {"collate_fn": list}):
        with pytest.raises(ValueError, match="index -2: FakeData does not count negative indices from its end"):
            natively(dataset, sampler=[0, -2], **how)


def test_a_folder_of_any_png_files_is_torchs(tmp_path: Path) -> None:
    """Read the kinds that the native extension decodes, and let Pillow read all others, in one batch."""
    (tmp_path / "a").mkdir()
    for number, mode in enumerate(("RGB", "L", "RGBA", "LA", "P", "1", "I;16", "RGB")):
        made = Image.fromarray(photo(number, 40, 44))
        made = (
            Image.fromarray(np.arange(1760, dtype=np.uint16).reshape(40, 44)) if mode == "I;16" else made.convert(mode)
        )
        made.save(tmp_path / "a" / f"{number}.png", icc_profile=b"1" if number == 7 else None)
    assert_torchs(datasets.ImageFolder(tmp_path, COLOR))
    assert_torchs(datasets.ImageFolder(tmp_path, COLOR), num_workers=2)
