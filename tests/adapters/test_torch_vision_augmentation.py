"""torchvision's augmentation by the native extension: its pixels for the same draws, and what is not recognized."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

from PIL import Image  # noqa: E402
from tests.image_files import encoded, photo  # noqa: E402
from torchvision import datasets  # noqa: E402
from torchvision import transforms as v1  # noqa: E402
from torchvision.transforms import v2  # noqa: E402
from torchvision.transforms.v2 import functional as F  # noqa: E402

import headrace.torch  # noqa: E402
from headrace import explain, transforms  # noqa: E402
from headrace._native import extension  # noqa: E402
from headrace.context.seeds import Purpose, generator, key_of  # noqa: E402
from headrace.errors import NotNativeWarning  # noqa: E402

pytestmark = [
    pytest.mark.skipif(extension is None, reason="the native extension was not built here"),
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]

SEED, SIDE = 3, 48
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FLOAT = [v1.ToTensor(), v1.Normalize(MEAN, STD)]
TENSOR = [v2.ToImage()]
TO_FLOAT = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    """Photographs, among them a PNG, one of 16 bits, gray and CMYK ones."""
    root: Path = tmp_path_factory.mktemp("images")
    (root / "a").mkdir()
    for number in range(10):
        image = Image.fromarray(photo(number, 56 + 3 * number, 70))
        form, options = ("PNG", {}) if number in (3, 4) else ("JPEG", {"quality": 92})
        if number == 4:
            image = Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)
        image = image.convert({5: "L", 6: "CMYK"}[number]) if number in (5, 6) else image
        (root / "a" / f"{number}.{form.lower()}").write_bytes(encoded(image, form, **options))
    return root


def loader(dataset: Any, **options: Any) -> Any:
    return headrace.torch.DataLoader(dataset, **{"batch_size": 4, "native": True, "seed": SEED, **options})


def images(dataset: Any, **options: Any) -> Any:
    return torch.cat([batch[0] for batch in loader(dataset, **options)])


def far(found: Any, expected: Any) -> float:
    """Return the share of values that are more than a gray level apart."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype == torch.float32
    levels = 255 * (found.double() - expected.double()).abs() * torch.tensor(STD)[:, None, None]
    return float((levels > 1.001).double().mean())


PARTS: dict[str, list[Any]] = {
    "brightness": [v1.ColorJitter((1.3, 1.3))],
    "contrast": [v2.ColorJitter(contrast=(0.7, 0.7))],
    "saturation": [v1.ColorJitter(saturation=(1.7, 1.7)), v1.RandomInvert(1)],
    "gray": [v1.RandomGrayscale(1)],
    "blur": [v1.GaussianBlur((5, 9), 1.5)],
    "blur, v2": [v2.GaussianBlur(7, (0.8, 0.8))],
    "upside down": [v1.RandomVerticalFlip(1)],
    "both flips": [v2.RandomVerticalFlip(1), v2.RandomHorizontalFlip(1)],
    "colors, then a flip": [v1.RandomSolarize(128, 1), v1.GaussianBlur(3, 1.0), v1.RandomHorizontalFlip(1)],
    "elastic": [v1.ElasticTransform(0.0)],
    "values": [v1.RandomInvert(1), v1.RandomPosterize(4, 1), v2.RandomSolarize(100.0, 1), v1.RandomAutocontrast(1)],
    "equalized": [v1.RandomGrayscale(1), v2.RandomEqualize(1), v2.RandomAdjustSharpness(2, 1)],
    "sharpened": [v1.RandomAdjustSharpness(0.3, 1), v1.RandomRotation((7, 7))],
    "applied": [
        v1.RandomApply([v1.RandomInvert(1), v1.ColorJitter((0.8, 0.8))], 1), v2.RandomApply([v2.RandomInvert(1)], 0),
    ],
    "chosen": [
        v1.RandomChoice([v1.RandomInvert(1), v1.RandomGrayscale(1)], p=[1, 0]), v2.RandomChoice([v2.RandomInvert(1)]),
    ],
    "turned": [v1.RandomRotation((20, 20), fill=9)],
    "turned and enlarged": [v2.RandomRotation((90, 90), expand=True)],
    "affine": [v1.RandomAffine((10, 10), scale=(0.8731, 0.8731), shear=(5, 5, 0, 0))],
    "nothing drawn": [v1.ColorJitter(), v2.Identity(), v1.RandomRotation((0, 0))],
}  # fmt: skip
"""What draws no number that matters, behind a crop."""
TENSORS: dict[str, list[Any]] = {
    "brightness": [v2.ColorJitter((1.3, 1.3))],
    "contrast": [v2.ColorJitter(contrast=(1.6, 1.6)), v2.RandomGrayscale(1), v2.RandomInvert(1)],
    "saturation": [v2.ColorJitter(saturation=(0.4, 0.4)), v2.ColorJitter((1.3, 1.3)), v2.RandomSolarize(90, 1)],
    "hue": [v2.ColorJitter(hue=(0.1, 0.1)), v2.ColorJitter(contrast=(1.7, 1.7)), v2.RandomEqualize(1)],
    "first version": [v1.ColorJitter(contrast=(0.6, 0.6)), v1.ColorJitter(hue=(-0.2, -0.2)), v1.RandomGrayscale(1)],
    "gray": [v2.RandomGrayscale(1)],
    "blur": [v2.GaussianBlur(5, (1.2, 1.2))],
    "values": [v2.RandomInvert(1), v2.RandomPosterize(4, 1), v2.RandomSolarize(100.0, 1), v2.RandomAutocontrast(1)],
    "equalized": [v2.RandomEqualize(1), v2.RandomAdjustSharpness(2, 1), v2.RandomVerticalFlip(1)],
    "turned": [v2.RandomRotation((20, 20))],
    "affine": [v2.RandomAffine((10, 10), interpolation=v2.InterpolationMode.BILINEAR, fill=None)],
    "perspective": [v2.RandomPerspective(0, p=1, fill=None)],
}


@pytest.mark.parametrize("name", PARTS)
def test_pixels_of_pillow_images_are_torchvisions(name: str, folder: Path) -> None:
    """Stay within one gray level of torchvision where no draw differs, for JPEG files and those that Pillow reads."""
    chain = v1.Compose([v1.Resize((SIDE, SIDE)), *PARTS[name], *FLOAT])
    dataset = datasets.ImageFolder(folder, chain)
    assert "as on torch" not in explain(dataset)
    expected = torch.stack([dataset[index][0] for index in range(len(dataset))])
    assert far(images(dataset), expected) <= 0.001
    assert torch.equal(images(dataset, num_workers=2), images(dataset))


@pytest.mark.parametrize("name", TENSORS)
def test_pixels_of_tensors_are_torchvisions(name: str, folder: Path) -> None:
    """Do the same where torchvision computes with tensors of bytes."""
    chain = v2.Compose([v2.Resize((SIDE, SIDE)), *TENSOR, *TENSORS[name], *TO_FLOAT])
    dataset = datasets.ImageFolder(folder, chain)
    assert "as on torch" not in explain(dataset)
    expected = torch.stack([dataset[index][0] for index in range(len(dataset))])
    assert far(images(dataset), expected) <= 0.001


@pytest.mark.parametrize("bins", [10, 31, 40])
def test_policies_have_torchvisions_levels(bins: int) -> None:
    """Have the strengths of TrivialAugmentWide and RandAugment for any number of levels."""
    from headrace.transforms import policies

    for own, other in ((policies.RAND, v2.RandAugment), (policies.TRIVIAL, v2.TrivialAugmentWide)):
        for name, (magnitudes, _) in other._AUGMENTATION_SPACE.items():
            levels = magnitudes(bins, 224, 224)
            if levels is not None:
                mine = [policies.magnitude(own[name], (level, bins), (224, 224)) for level in range(bins)]
                mine = np.rint(mine).tolist() if name == "Posterize" else mine
                np.testing.assert_allclose(mine, levels.double().numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [0, (0.1, -2.0, 7.5), [3.0]], ids=str)
@pytest.mark.parametrize("module", [v1, v2], ids=["v1", "v2"])
def test_normalized_values_are_erased(module: Any, value: Any, folder: Path) -> None:
    """Put the value itself into normalized images: 0 is the mean color, as with torchvision."""
    chain = [v1.Resize((SIDE, SIDE)), *FLOAT]
    plain = images(datasets.ImageFolder(folder, v1.Compose(chain)))
    erased = images(datasets.ImageFolder(folder, v1.Compose([*chain, module.RandomErasing(0.7, value=value)])))
    ours, count = transforms.RandomErasing(0.7), 0
    for position in range(len(plain)):
        rng = generator(key_of(SEED), Purpose.SAMPLE, 0, position)
        drawn = ours.draw(np.zeros((SIDE, SIDE, 3), np.float32), rng)
        if "top" in drawn:
            place = [drawn[name] for name in ("top", "left", "height", "width")]
            values = torch.tensor(value if isinstance(value, list | tuple) else [value], dtype=torch.float32)
            plain[position] = F.erase(plain[position], *place, values[:, None, None])
            count += 1
    assert count > 3
    assert torch.equal(erased, plain)


def test_parts_are_erased_between_other_steps(folder: Path) -> None:
    """Erase bytes, or floats that are normalized later, or with normal values: in the place that the chain gives it."""
    erasing = v2.RandomErasing(1, value=(0.25, 0.5, 1.0))
    last = datasets.ImageFolder(folder, v1.Compose([v1.Resize((SIDE, SIDE)), v1.ToTensor(), erasing, FLOAT[1]]))
    expected = (torch.tensor([0.25, 0.5, 1.0]) - torch.tensor(MEAN)) / torch.tensor(STD)
    for image in images(last):
        assert (image == expected[:, None, None]).all(0).float().mean() > 0.015
    noisy = datasets.ImageFolder(
        folder, v1.Compose([v1.Resize((SIDE, SIDE)), *FLOAT, v1.RandomErasing(1, value="random")])
    )
    assert "RandomErasing  step by step" in explain(noisy)
    assert images(noisy).shape == (10, 3, SIDE, SIDE)
    chain = [v1.Resize((SIDE, SIDE)), v1.PILToTensor(), v1.RandomErasing(1, value=200), v1.RandomVerticalFlip(1)]
    for image in images(datasets.ImageFolder(folder, v1.Compose(chain))):
        assert (image == 200).all(0).float().mean() > 0.015


def presets() -> dict[str, Any]:
    """Return what torchvision's references train with: the defaults, and the recipes of newer weights."""
    crop = v1.RandomResizedCrop(32, interpolation=v1.InterpolationMode.BILINEAR, antialias=True)
    tail = [v1.PILToTensor(), v1.ConvertImageDtype(torch.float), FLOAT[1]]
    head = [crop, v1.RandomHorizontalFlip(0.5)]
    second = [v2.RandomResizedCrop(32, antialias=True), v2.RandomHorizontalFlip(0.5)]
    tail2 = [v2.PILToTensor(), v2.ToDtype(torch.float, scale=True), v2.Normalize(MEAN, STD)]
    return {
        "plain": v1.Compose([*head, *tail]),
        "trivial": v1.Compose([*head, v1.TrivialAugmentWide(), *tail, v1.RandomErasing(0.1)]),
        "rand": v1.Compose([*head, v1.RandAugment(), *tail, v1.RandomErasing(0.1)]),
        "auto": v1.Compose([*head, v1.AutoAugment(v1.AutoAugmentPolicy("cifar10")), *tail]),
        "auto, v2": v2.Compose([*second, v2.AutoAugment(), *tail2, v2.ToPureTensor()]),
        "trivial, v2": v2.Compose([*second, v2.TrivialAugmentWide(), *tail2, v2.RandomErasing(0.1), v2.ToPureTensor()]),
        "evaluation": v1.Compose([v1.Resize(40), v1.CenterCrop(32), *tail]),
    }


@pytest.mark.parametrize("name", presets())
def test_the_presets_of_the_references_are_recognized(name: str, folder: Path) -> None:
    """Fuse every step, and give the same batches on threads and processes."""
    dataset = datasets.ImageFolder(folder, presets()[name])
    assert "all fused" in explain(dataset)
    whole = images(dataset)
    assert whole.shape == (10, 3, 32, 32)
    assert torch.equal(images(dataset, num_workers=2), whole)
    assert torch.equal(images(dataset, num_workers=1, backend="processes"), whole)


def test_what_is_not_fused_is_done_by_ours_and_named(folder: Path) -> None:
    """Say which steps run one by one, and give the same batches on any number of workers of every kind."""
    chain = [v1.RandomResizedCrop(32), v1.ElasticTransform(), v1.RandomHorizontalFlip(), *FLOAT]
    dataset = datasets.ImageFolder(folder, v1.Compose(chain))
    text = explain(dataset)
    assert "fused before ElasticTransform, from there headrace's own, step by step" in text
    assert "RandomResizedCrop     fused" in text
    assert "ElasticTransform      step by step: it has no native step" in text
    for how in ({"num_workers": 2}, {"num_workers": 1, "backend": "processes"}):
        assert torch.equal(images(dataset, **how), images(dataset))


class OwnJitter(v2.ColorJitter):
    """A subclass, which may do anything."""


class OwnErasing(v1.RandomErasing):
    """A subclass, which may do anything."""


def with_ratio_changed() -> Any:
    erasing = v2.RandomErasing()
    erasing.ratio = (1.0, 1.0)  # the logarithms stay those of the old one
    return erasing


def with_fill_changed() -> Any:
    rotation = v2.RandomRotation(10)
    rotation.fill = 9  # what is used is another attribute
    return rotation


def with_another_space(policy: Any) -> Any:
    policy._augmentation_space = lambda *_: {"Identity": (torch.tensor(0.0), False)}
    return policy


def with_fewer_changes() -> Any:
    policy = v2.AutoAugment()
    policy._AUGMENTATION_SPACE = {"Invert": policy._AUGMENTATION_SPACE["Invert"]}  # type: ignore[assignment]
    return policy


def with_other_pairs() -> Any:
    policy = v1.AutoAugment()
    policy.policies = policy.policies[:3]
    return policy


CROP = v1.CenterCrop(8)
REFUSED: dict[str, list[Any]] = {
    "OwnJitter is a subclass of ColorJitter": [CROP, OwnJitter(0.1), *FLOAT],
    "OwnErasing is a subclass of RandomErasing": [CROP, *FLOAT, OwnErasing()],
    "RandomErasing has a ratio that was changed": [CROP, *FLOAT, with_ratio_changed()],
    "RandomRotation has a fill that was changed": [CROP, with_fill_changed(), *FLOAT],
    "TrivialAugmentWide has another _augmentation_space": [CROP, with_another_space(v1.TrivialAugmentWide()), *FLOAT],
    "AutoAugment has pairs of changes that are not": [CROP, with_other_pairs(), *FLOAT],
    "RandAugment has another _augmentation_space": [CROP, with_another_space(v1.RandAugment()), *FLOAT],
    "AutoAugment has another _AUGMENTATION_SPACE": [CROP, with_fewer_changes(), *FLOAT],
    "AugMix has no native counterpart": [CROP, v2.AugMix(), *FLOAT],
    "RandomPosterize has bits=0": [CROP, v1.RandomPosterize(0), *FLOAT],
    "RandomSolarize follows GaussianBlur, whose values": [CROP, v1.GaussianBlur(3), v1.RandomSolarize(99), *FLOAT],
    "RandomEqualize follows GaussianBlur, whose values": [CROP, v1.GaussianBlur(3), v1.RandomEqualize(), *FLOAT],
    "RandomApply applies RandomPosterize, which follows GaussianBlur": [
        CROP, v1.RandomChoice([v1.RandomInvert(), v1.GaussianBlur(3)]), v1.RandomApply([v1.RandomPosterize(2)]),
        *FLOAT,
    ],
    "RandAugment follows GaussianBlur, whose values": [CROP, v1.GaussianBlur(3), v1.RandAugment(), *FLOAT],
    "TrivialAugmentWide changes colors of a tensor": [CROP, v1.PILToTensor(), v1.TrivialAugmentWide(), *TO_FLOAT],
    "ColorJitter gets a tensor of floats": [CROP, v1.ToTensor(), v1.ColorJitter(0.1), FLOAT[1]],
    "RandomRotation has interpolation='bilinear'": [CROP, v1.RandomRotation(9, v1.InterpolationMode.BILINEAR), *FLOAT],
    "RandomApply applies <lambda>, which is not a transform": [CROP, v1.RandomApply([lambda image: image]), *FLOAT],
    "RandomApply applies OwnJitter, which is a subclass": [CROP, v2.RandomApply([OwnJitter(0.1)]), *FLOAT],
    "RandomChoice decides whether the image becomes a tensor": [CROP, v1.RandomChoice([v1.ToTensor()])],
    "RandomErasing gets a Pillow image": [CROP, v1.RandomErasing(), *FLOAT],
    "CenterCrop follows RandomErasing": [CROP, v1.ToTensor(), v1.RandomErasing(), v1.CenterCrop(4), FLOAT[1]],
    "RandomErasing has value='random'": [CROP, v1.PILToTensor(), v1.RandomErasing(value="random"), *TO_FLOAT],
    "RandomOrder has no native counterpart": [CROP, v1.RandomOrder([v1.RandomInvert()]), *FLOAT],
    "RandomRotation: images still differ in size": [v1.RandomRotation(9), CROP, *FLOAT],
    "ColorJitter: images still differ in size": [v1.ColorJitter(0.1), CROP, *FLOAT],
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_not_recognized_is_read_by_torchvision(why: str, folder: Path) -> None:
    """Name transform and reason in explain and in a warning."""
    dataset = datasets.ImageFolder(folder, v1.Compose(REFUSED[why]))
    assert why in explain(dataset)
    with pytest.warns(NotNativeWarning, match="as on torch"):
        loader(dataset)


def test_a_transform_may_be_changed_after_it_was_made(folder: Path) -> None:
    """Read the settings that a transform has as a loop begins; hooks and methods that are put in make it another."""
    solarize, crop = v1.RandomSolarize(128, 1), v1.Resize((SIDE, SIDE))
    dataset = datasets.ImageFolder(folder, v1.Compose([crop, solarize, *FLOAT]))
    made = loader(dataset, batch_size=10)
    for threshold, size in ((0, 30), (256, SIDE)):
        solarize.threshold, crop.size = threshold, (size, size)
        expected = torch.stack([dataset[index][0] for index in range(10)])
        assert far(next(iter(made))[0], expected) <= 0.001
    solarize.register_forward_hook(lambda _module, _given, image: image.point(lambda _: 0))
    with pytest.warns(NotNativeWarning, match="RandomSolarize has hooks"):
        found = next(iter(made))[0]
    assert torch.equal(found, torch.stack([dataset[index][0] for index in range(10)]))


def test_numbers_are_drawn_with_torchvisions_chances(folder: Path) -> None:
    """Apply what RandomApply and RandomChoice decide about as often as torchvision does."""
    chain = [
        v1.Resize((4, 4)), v1.RandomApply([v1.RandomSolarize(0, 1)], 0.3),
        v2.RandomChoice([v2.Identity(), v2.RandomPosterize(1, 1)], p=[3, 1]), v1.PILToTensor(),
    ]  # fmt: skip
    dataset = datasets.ImageFolder(folder, v1.Compose(chain))
    assert "all fused" in explain(dataset)
    pixels = images(torch.utils.data.Subset(dataset, [0] * 2000), batch_size=200)
    plain = images(datasets.ImageFolder(folder, v1.Compose([chain[0], chain[-1]])))[0]
    solarized = 255 - plain
    kinds = [plain, solarized, plain & 128, solarized & 128]
    counts = [sum(torch.equal(image, one) for image in pixels) for one in kinds]
    assert sum(counts) == 2000
    for count, chance in zip(counts, (0.525, 0.225, 0.175, 0.075), strict=True):
        assert abs(count / 2000 - chance) < 4 * (chance * (1 - chance) / 2000) ** 0.5


def test_images_that_are_tensors_of_torchvisions_stay_in_python(folder: Path) -> None:
    """Leave datasets that give tv_tensors to torch."""
    wrapped = datasets.wrap_dataset_for_transforms_v2(datasets.ImageFolder(folder, transform=v2.Compose(FLOAT)))
    with pytest.warns(NotNativeWarning, match="as on torch"):
        loader(wrapped)
