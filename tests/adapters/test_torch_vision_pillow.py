"""torchvision's colors and policies on Pillow images: its pixels to the bit, for the same draws, and its draws."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

from PIL import Image  # noqa: E402
from tests.image_files import encoded, photo  # noqa: E402
from torchvision import datasets  # noqa: E402
from torchvision import transforms as v1  # noqa: E402
from torchvision.transforms import autoaugment, v2  # noqa: E402
from torchvision.transforms import functional as F  # noqa: E402

import headrace.torch  # noqa: E402
from headrace import explain, transforms  # noqa: E402
from headrace._native import extension  # noqa: E402
from headrace.context.seeds import Purpose, generator, key_of  # noqa: E402
from headrace.transforms.torchvision_pixels import OnPillow  # noqa: E402
from headrace.transforms.torchvision_transforms import translated  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

SEED, SIDE = 3, 48
NEAREST = v1.InterpolationMode.NEAREST
POLICIES = [v1.AutoAugmentPolicy(name) for name in ("imagenet", "cifar10", "svhn")]


def jitter(module: Any = v1) -> Any:
    return module.RandomApply([module.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8)


def done(ours: Any, image: Any, rng: Any) -> Any:
    """Return a Pillow image with what a transform of ours draws done to it by torchvision."""
    if isinstance(ours, transforms.RandomApply):
        if rng.random() < ours.p:
            for one in ours.transforms:  # type: ignore[union-attr]
                image = done(one, image, rng)
        return image
    if isinstance(ours, OnPillow):
        for name, value in ours.ops(image.height, image.width, rng):
            fill = list(ours.fill) if isinstance(ours.fill, tuple) else ours.fill or None
            strength = int(value) if name == "Posterize" else value
            image = autoaugment._apply_op(image, name, strength, NEAREST, fill)
        return image
    drawn = ours.draw(np.asarray(image), rng)
    if isinstance(ours, transforms.ColorJitter):
        for name, value in drawn.items():
            image = getattr(F, f"adjust_{name}")(image, value)
        return image
    if isinstance(ours, transforms.GaussianBlur):
        return F.gaussian_blur(image, list(ours.kernel_size), [drawn["sigma"]] * 2)
    if not drawn["applied"]:
        return image
    does: dict[type, Any] = {
        transforms.RandomGrayscale: lambda: F.rgb_to_grayscale(image, len(image.getbands())),
        transforms.RandomInvert: lambda: F.invert(image),
        transforms.RandomSolarize: lambda: F.solarize(image, ours.threshold),
        transforms.RandomPosterize: lambda: F.posterize(image, ours.bits),
        transforms.RandomAutocontrast: lambda: F.autocontrast(image),
        transforms.RandomEqualize: lambda: F.equalize(image),
        transforms.RandomAdjustSharpness: lambda: F.adjust_sharpness(image, ours.sharpness_factor),
    }
    return does[type(ours)]()


def ours_for(chain: list[Any]) -> list[Any]:
    """Return our transforms in place of torchvision's."""
    found = translated(v1.Compose([*chain, v1.PILToTensor()]))
    assert not found.refusal, found.refusal
    return list(found.transforms[:-1])


CHAINS: dict[str, list[Any]] = {
    "jitter": [v1.ColorJitter(0.4, 0.4, 0.4, 0.5)],
    "extreme jitter": [v2.ColorJitter((0, 9), (0, 30), (0, 1e9), (-0.5, 0.5))],
    "SimCLR": [jitter(), v1.RandomGrayscale(0.2)],
    "jitter and values": [jitter(v2), v2.RandomSolarize(128, 0.5), v2.RandomPosterize(3, 0.5), v2.RandomEqualize(0.5)],
    "stretched": [v1.RandomAutocontrast(0.9), jitter(), v1.RandomAdjustSharpness(2.7, 0.9), v1.RandomAutocontrast(0.5)],
    "RandAugment": [v1.RandAugment(2, 9)],
    "RandAugment, v2": [v2.RandAugment(3, 17, fill=9)],
    "strong RandAugment": [v1.RandAugment(4, 30, fill=[1, 2, 3])],
    "RandAugment of 11 levels": [v2.RandAugment(2, 7, 11)],
    "TrivialAugmentWide": [v1.TrivialAugmentWide()],
    "TrivialAugmentWide, v2": [v2.TrivialAugmentWide(40), v2.TrivialAugmentWide()],
    **{f"AutoAugment, {one.value}": [v1.AutoAugment(one)] for one in POLICIES},
    **{f"AutoAugment, v2, {one.value}": [v2.AutoAugment(one, fill=7), v2.RandomInvert(0.2)] for one in POLICIES},
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_images_have_the_same_bytes(name: str) -> None:
    """Change 120 images of each chain, from one pixel up, of noise, of photographs, gray and flat ones."""
    ours, sizes = ours_for(CHAINS[name]), np.random.default_rng(1)
    for seed in range(120):
        height, width = (1, 1) if seed == 0 else sizes.integers(1, 5, 2) if seed % 7 == 0 else sizes.integers(3, 60, 2)
        image = photo(seed, 60, 60)[:height, :width]
        image = sizes.integers(0, 256, image.shape, np.uint8) if seed % 2 else image
        if seed % 5 == 0:
            image = np.repeat(image[..., :1], 3, axis=2)
        image = image[:1, :1].repeat(height, 0).repeat(width, 1) if seed % 11 == 0 else image
        shown = image[..., 0] if seed % 6 == 0 and name != "strong RandAugment" else image
        one, other = np.random.default_rng(seed), np.random.default_rng(seed)
        found, expected = np.ascontiguousarray(shown), Image.fromarray(np.ascontiguousarray(shown))
        for transform in ours:
            found, expected = transform(found, one), done(transform, expected, other)
        np.testing.assert_array_equal(found, np.asarray(expected))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    """Photographs, among them a PNG and a gray one."""
    root: Path = tmp_path_factory.mktemp("images")
    (root / "a").mkdir()
    for number in range(8):
        image = Image.fromarray(photo(number, 56 + 3 * number, 70)).convert("L" if number == 5 else "RGB")
        form, options = ("PNG", {}) if number == 3 else ("JPEG", {"quality": 92})
        (root / "a" / f"{number}.{form.lower()}").write_bytes(encoded(image, form, **options))
    return root


@pytest.mark.skipif(extension is None, reason="the native extension was not built here")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("name", CHAINS)
def test_a_loader_gives_the_same_bytes(name: str, folder: Path) -> None:
    """Read files by the native extension, and draw what a sample's place says."""
    dataset = datasets.ImageFolder(folder, v1.Compose([v1.Resize((SIDE, SIDE)), *CHAINS[name], v1.PILToTensor()]))
    assert "all fused" in explain(dataset)
    many = torch.utils.data.Subset(dataset, list(range(len(dataset))) * 6)
    made = headrace.torch.DataLoader(many, batch_size=16, native=True, seed=SEED, num_workers=1)
    found = torch.cat([batch[0] for batch in made])
    ours = ours_for(CHAINS[name])
    for position, image in enumerate(found):
        rng = generator(key_of(SEED), Purpose.SAMPLE, 0, position)
        expected = datasets.folder.default_loader(dataset.samples[many.indices[position]][0]).resize((SIDE, SIDE), 2)
        for transform in ours:
            expected = done(transform, expected, rng)
        assert torch.equal(image, v1.PILToTensor()(expected))


@pytest.mark.skipif(extension is None, reason="the native extension was not built here")
def test_a_blur_keeps_within_one_level(folder: Path) -> None:
    """Read the whole chains of SimCLR, BYOL and DINO, whose blur torchvision computes in floats."""
    chain = [jitter(), v1.RandomGrayscale(0.2), v1.GaussianBlur(9), v1.RandomSolarize(128, 0.5)]
    dataset = datasets.ImageFolder(folder, v1.Compose([v1.Resize((SIDE, SIDE)), *chain, v1.PILToTensor()]))
    assert "all fused" in explain(dataset)
    many = torch.utils.data.Subset(dataset, list(range(len(dataset))) * 6)
    found = torch.cat([batch[0] for batch in headrace.torch.DataLoader(many, batch_size=16, native=True, seed=SEED)])
    ours, apart = ours_for(chain), []
    for position, image in enumerate(found):
        rng = generator(key_of(SEED), Purpose.SAMPLE, 0, position)
        expected = datasets.folder.default_loader(dataset.samples[many.indices[position]][0]).resize((SIDE, SIDE), 2)
        for transform in ours:
            expected = done(transform, expected, rng)
        apart.append((image.int() - v1.PILToTensor()(expected).int()).abs())
    assert float((torch.stack(apart) > 1).double().mean()) <= 0.001


def drawn_by_theirs(policy: Any, times: int, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what a policy of torchvision's first version does, many times."""
    done: list[Any] = []

    def note(image: Any, name: str, magnitude: float, **_: Any) -> Any:
        done.append((name, magnitude))
        return image

    monkeypatch.setattr(autoaugment, "_apply_op", note)
    torch.manual_seed(5)
    image = Image.new("RGB", (90, 70))
    for _ in range(times):
        policy(image)
    return done


@pytest.mark.parametrize(
    "policy",
    [v1.RandAugment(2, 9), v1.TrivialAugmentWide(5), *map(v1.AutoAugment, POLICIES)],
    ids=lambda one: type(one).__name__,
)
def test_policies_draw_as_torchvisions(policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the same changes of the same strengths and signs, as often: chi-squared, which chance exceeds rarely."""
    times = 3000
    (ours,), rng = ours_for([policy]), np.random.default_rng(7)
    mine = Counter((name, round(value, 4)) for _ in range(times) for name, value in ours.ops(70, 90, rng))
    other = Counter((name, round(value, 4)) for name, value in drawn_by_theirs(policy, times, monkeypatch))
    assert {(name, abs(value)) for name, value in mine} == {(name, abs(value)) for name, value in other}
    common = [key for key in mine.keys() | other.keys() if mine[key] + other[key] > 20]
    distance = sum((mine[key] - other[key]) ** 2 / (mine[key] + other[key]) for key in common)
    assert distance < len(common) + 4 * (2 * len(common)) ** 0.5


def test_a_jitter_has_every_order_as_often() -> None:
    """Draw the 24 orders of four changes equally often, as torch.randperm does."""
    (ours,), rng, times = ours_for([v1.ColorJitter(0.4, 0.4, 0.4, 0.1)]), np.random.default_rng(3), 4800
    image = np.zeros((1, 1, 3), np.uint8)
    orders = Counter(tuple(ours.draw(image, rng)) for _ in range(times))
    assert len(orders) == 24
    assert sum((count - times / 24) ** 2 / (times / 24) for count in orders.values()) < 23 + 4 * 46**0.5


@pytest.mark.parametrize("module", [v1, v2], ids=["v1", "v2"])
def test_tensors_of_bytes_have_nearly_the_same(module: Any) -> None:
    """Change tensors by jitters of all properties: torch's sums may round at another place on another processor."""
    chain = [module.PILToTensor(), module.ColorJitter(0.8, 0.8, 0.8, 0.5), module.RandomGrayscale(0.2)]
    (jitter, gray, _), sizes, apart = translated(v1.Compose(chain)).transforms, np.random.default_rng(1), []
    functions = F if module is v1 else v2.functional
    for seed in range(100):
        height, width = (1, 1) if seed == 0 else sizes.integers(1, 60, 2)
        image = (
            photo(seed, 60, 60)[:height, :width] if seed % 2 else sizes.integers(0, 256, (height, width, 3), np.uint8)
        )
        rng, same = np.random.default_rng(seed), np.random.default_rng(seed)
        found = gray(jitter(np.ascontiguousarray(image), rng), rng)
        expected = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        for name, value in jitter.draw(image, same).items():  # type: ignore[attr-defined]
            expected = getattr(functions, f"adjust_{name}")(expected, value)
        if gray.draw(image, same)["applied"]:  # type: ignore[attr-defined]
            expected = functions.rgb_to_grayscale(expected, 3)
        apart.append(np.abs(found.astype(int) - expected.numpy().transpose(1, 2, 0)).reshape(-1))
    levels = np.concatenate(apart)
    assert (levels > 0).mean() < 0.002
    assert (levels > 1).mean() < 0.0005
