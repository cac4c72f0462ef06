"""Our transforms beside torchvision v2's, with the same parameters; and the distributions of what both draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

from tests.image_files import photo  # noqa: E402
from torchvision import tv_tensors  # noqa: E402
from torchvision.transforms import AutoAugmentPolicy, v2  # noqa: E402
from torchvision.transforms.v2 import functional as F  # noqa: E402

from headrace import transforms as ours  # noqa: E402
from headrace.image import color  # noqa: E402
from headrace.transforms import policies  # noqa: E402
from headrace.transforms.elastic import Pushed  # noqa: E402

SIZES = [(40, 60), (33, 21), (1, 9)]


def theirs(function: Any, image: Any) -> Any:
    """Apply a function of torchvision's to an image, channels last."""
    return np.asarray(function(torch.from_numpy(image).permute(2, 0, 1))).transpose(1, 2, 0)


def distance(one: Any, other: Any) -> float:
    """Return the largest distance between two distributions, by samples (Kolmogorov and Smirnov)."""
    places = np.sort(np.concatenate([one, other]))
    shares = [np.searchsorted(np.sort(each), places, side="right") / len(each) for each in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sampling", ["nearest", "bilinear"])
def test_elastic_shifts_give_torchvisions_pixels(size: Any, sampling: Any) -> None:
    """Agree within one gray level, but at the edge of what the image covers, as for maps."""
    image = photo(3, 64, 96)[: size[0], : size[1]].copy()
    shifts = ours.ElasticTransform(alpha=80, sigma=3).shifts(*size, np.random.default_rng(0))
    fractions = (shifts * 2 / np.array([size[1], size[0]])[:, None, None]).transpose(1, 2, 0)[None]
    how = v2.InterpolationMode(sampling)
    expected = theirs(lambda x: F.elastic(x, torch.from_numpy(fractions.astype(np.float32)), how, 0), image)
    different = np.abs(Pushed(shifts, sampling, 0).image(image).astype(int) - expected) > 1
    assert different.mean() < 0.05


def test_elastic_shifts_are_as_large_as_torchvisions() -> None:
    def spread(seed: int) -> tuple[Any, Any]:
        torch.manual_seed(seed)
        drawn = v2.ElasticTransform().make_params([torch.zeros(3, 64, 96)])["displacement"][0].numpy()
        own = ours.ElasticTransform().shifts(64, 96, np.random.default_rng(seed))
        return own.std(axis=(1, 2)), drawn.std(axis=(0, 1)) * (48, 32)

    mine, others = np.mean([spread(seed) for seed in range(20)], axis=0)
    np.testing.assert_allclose(mine, others, rtol=0.1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sampling", ["nearest", "bilinear"])
@pytest.mark.parametrize("fill", [0, 128])
@pytest.mark.parametrize("kind", ["rotation", "expanded", "affine", "perspective"])
def test_maps_give_torchvisions_pixels(size: Any, sampling: Any, fill: int, kind: str) -> None:
    """Agree within one gray level, but at the edge of what the image covers, where torchvision mixes the fill twice."""
    image = photo(3, 64, 96)[: size[0], : size[1]]
    angle, shift, scale, shear = 23.5, (3, -2), 1.3, (7.0, -4.0)
    options: dict[str, Any] = {"interpolation": sampling, "fill": fill}
    if kind in ("rotation", "expanded"):
        expand = kind == "expanded"
        own: Any = ours.RandomRotation((angle, angle), expand=expand, **options)
        expected = theirs(lambda x: F.rotate(x, angle, v2.InterpolationMode(sampling), expand, None, fill), image)
    elif kind == "affine":
        share = (abs(shift[0]) / size[1], abs(shift[1]) / size[0])
        own = ours.RandomAffine((angle, angle), translate=tuple(min(one, 1) for one in share), **options)
        own = Fixed(own, {"angle": angle, "translate": shift, "scale": scale, "shear": shear})
        how = v2.InterpolationMode(sampling)
        expected = theirs(lambda x: F.affine(x, angle, list(shift), scale, list(shear), how, fill), image)
    else:
        if min(size) < 2:
            return
        corners = [[2, 3], [size[1] - 4, 1], [size[1] - 1, size[0] - 5], [3, size[0] - 2]]
        own = Fixed(ours.RandomPerspective(1, p=1, **options), {"applied": True, "corners": corners})
        start = [[0, 0], [size[1] - 1, 0], [size[1] - 1, size[0] - 1], [0, size[0] - 1]]
        expected = theirs(lambda x: F.perspective(x, start, corners, v2.InterpolationMode(sampling), fill), image)
    found = own(image)
    assert found.shape == expected.shape
    far = np.abs(found.astype(int) - expected)
    if sampling == "nearest":
        assert (far > 0).mean() < 0.02  # places on the edge of two pixels
    else:
        seen_whole = np.isclose(own(np.full((*size, 3), 55.0))[..., 0], 55.0)
        assert far[seen_whole].max(initial=0) <= 1


class Fixed:
    """A transform of ours with numbers that are not drawn."""

    def __init__(self, transform: Any, drawn: dict[str, Any]) -> None:
        self.transform, self.drawn = transform, drawn

    def __call__(self, image: Any) -> Any:
        from headrace.image.warp import Warps

        warp = self.transform.warp(image.shape[0], image.shape[1], self.drawn)
        return Warps((warp,), self.transform.interpolation).image(image)


def test_boxes_and_keypoints_of_maps_are_torchvisions() -> None:
    """Agree where nothing leaves the image: there boxes are those around the four corners."""
    boxes = np.array([[40.0, 30, 60, 45], [50, 40, 52, 60]], np.float32)
    sample = {"image": np.zeros((90, 120, 3), np.uint8), "boxes": boxes}
    found = ours.RandomRotation((20, 20))(sample)["boxes"]
    given = tv_tensors.BoundingBoxes(torch.from_numpy(boxes), format="XYXY", canvas_size=(90, 120))
    np.testing.assert_allclose(found, np.asarray(F.rotate(given, 20)), atol=1e-3)
    found = ours.RandomHorizontalFlip(1)(sample)["boxes"]
    np.testing.assert_allclose(found, np.asarray(F.horizontal_flip(given)), atol=1e-4)
    if hasattr(tv_tensors, "KeyPoints"):
        points = np.array([[10.0, 20], [3, 4]], np.float32)
        flipped = ours.RandomHorizontalFlip(1)({"image": sample["image"], "keypoints": points})["keypoints"]
        given = tv_tensors.KeyPoints(torch.from_numpy(points), canvas_size=(90, 120))
        np.testing.assert_allclose(flipped, np.asarray(F.horizontal_flip(given)), atol=1e-4)


def test_what_maps_draw_is_distributed_as_torchvisions() -> None:
    """Compare 4,000 draws of each number: angle, shift, factor and shear, and the corners of perspectives."""
    image, rng = np.zeros((90, 120, 3), np.uint8), np.random.default_rng(0)
    torch.manual_seed(0)
    tensor = torch.zeros(3, 90, 120)
    own: Any = ours.RandomAffine((-10, 30), translate=(0.1, 0.3), scale=(0.5, 2), shear=(1, 5, -3, 4))
    other: Any = v2.RandomAffine((-10, 30), translate=(0.1, 0.3), scale=(0.5, 2), shear=[1, 5, -3, 4])
    mine = [own.drawn(image, rng) for _ in range(4000)]
    made = [other.make_params([tensor]) for _ in range(4000)]
    for pick in (
        lambda d: d["angle"],
        lambda d: d["translate"][0],
        lambda d: d["translate"][1],
        lambda d: d["scale"],
        lambda d: d["shear"][0],
        lambda d: d["shear"][1],
    ):
        assert distance([pick(one) for one in mine], [pick(one) for one in made]) < 0.04
    own = ours.RandomPerspective(0.4, p=1)
    corners = np.array([own.drawn(image, rng)["corners"] for _ in range(4000)])
    assert corners[:, 0].min(axis=0).tolist() == [0, 0]
    assert corners[:, 0].max(axis=0).tolist() == [24, 18]
    assert corners[:, 2].min(axis=0).tolist() == [95, 71]
    assert corners[:, 2].max(axis=0).tolist() == [119, 89]
    assert distance(corners[:, 0, 0], rng.integers(0, int(0.4 * 60) + 1, 4000)) < 0.04


def test_what_detection_transforms_draw_is_distributed_as_torchvisions() -> None:
    """Compare 3,000 canvases, parts and factors."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    image = np.zeros((90, 120, 3), np.uint8)
    rows = np.array([[10.0, 10, 60, 50], [70, 5, 110, 60]])
    sample = {"image": image, "boxes": rows}
    boxes = tv_tensors.BoundingBoxes(torch.from_numpy(rows), format="XYXY", canvas_size=(90, 120))
    given = [tv_tensors.Image(torch.zeros(3, 90, 120, dtype=torch.uint8)), boxes]
    zooms = [v2.RandomZoomOut(p=1).make_params(given)["padding"] for _ in range(3000)]
    own: list[Any] = [ours.RandomZoomOut(p=1).drawn(image, rng) for _ in range(3000)]
    assert distance([one[0] for one in zooms], [-one["left"] for one in own]) < 0.05
    assert distance([90 + one[1] + one[3] for one in zooms], [one["height"] for one in own]) < 0.05
    crop, options = v2.RandomIoUCrop(sampler_options=[0.1, 0.3]), (0.1, 0.3)
    crops = [crop.make_params(given) for _ in range(3000)]
    own = [ours.RandomIoUCrop(sampler_options=options).drawn(sample, rng) for _ in range(3000)]
    for name in ("top", "left", "height", "width"):
        assert distance([one[name] for one in crops], [one[name] for one in own]) < 0.05
    sizes = [v2.ScaleJitter((64, 64)).make_params(given)["size"] for _ in range(3000)]
    own = [ours.ScaleJitter((64, 64)).drawn(image, rng) for _ in range(3000)]
    assert distance([one[0] for one in sizes], [one["height"] for one in own]) < 0.05


COLORS: dict[str, tuple[Any, Any, int]] = {
    "brightness": (lambda x: color.brightness(x, 1.3), lambda x: F.adjust_brightness(x, 1.3), 1),
    "contrast": (lambda x: color.contrast(x, 0.6), lambda x: F.adjust_contrast(x, 0.6), 1),
    "saturation": (lambda x: color.saturation(x, 1.5), lambda x: F.adjust_saturation(x, 1.5), 2),
    "hue": (lambda x: color.hue(x, 0.1), lambda x: F.adjust_hue(x, 0.1), 2),
    "grayscale": (color.grayscale, lambda x: F.rgb_to_grayscale(x, 3), 1),
    "invert": (color.invert, F.invert, 0),
    "posterize": (lambda x: color.posterize(x, 4), lambda x: F.posterize(x, 4), 0),
    "solarize": (lambda x: color.solarize(x, 128), lambda x: F.solarize(x, 128), 0),
    "autocontrast": (color.autocontrast, F.autocontrast, 1),
    "equalize": (color.equalize, F.equalize, 0),
    "sharpness": (lambda x: color.sharpness(x, 1.7), lambda x: F.adjust_sharpness(x, 1.7), 1),
    "blur": (lambda x: color.gaussian_blur(x, (9, 5), 1.5), lambda x: F.gaussian_blur(x, [5, 9], [1.5, 1.5]), 1),
}
"""Ours, torchvision's, and how many gray levels they may be apart."""


@pytest.mark.parametrize("name", COLORS)
@pytest.mark.parametrize("size", [(40, 60), (33, 21), (6, 9)])
def test_colors_are_torchvisions(name: str, size: Any) -> None:
    """Agree for bytes within rounding: torchvision cuts fractions off, ours are rounded."""
    mine, other, levels = COLORS[name]
    image = photo(4, 64, 96)[: size[0], : size[1]]
    found, expected = mine(image), theirs(other, image)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= levels
    if name not in ("equalize", "posterize", "solarize"):
        floats = (image / 255).astype(np.float32)
        apart = np.abs(mine(floats) - theirs(other, floats)).max()
        assert apart <= (2e-3 if name in ("contrast", "saturation", "grayscale", "blur") else 1e-4)


def test_what_color_transforms_draw_is_distributed_as_torchvisions() -> None:
    """Compare 3,000 factors, orders and parts."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    image = np.zeros((90, 120, 3), np.uint8)
    given = [tv_tensors.Image(torch.zeros(3, 90, 120, dtype=torch.uint8))]
    made = [v2.ColorJitter(0.4, 0.2, 0.1, 0.05).make_params(given) for _ in range(3000)]
    own: list[Any] = [ours.ColorJitter(0.4, 0.2, 0.1, 0.05).drawn(image, rng) for _ in range(3000)]
    for name in ("brightness", "contrast", "saturation", "hue"):
        assert distance([one[f"{name}_factor"] for one in made], [one[name] for one in own]) < 0.05
    first = [next(iter(one)) for one in own]
    assert all(0.2 < first.count(name) / 3000 < 0.3 for name in ("brightness", "contrast", "saturation", "hue"))
    made = [v2.RandomErasing(p=1).make_params(given) for _ in range(3000)]
    own = [ours.RandomErasing(p=1).drawn(image, rng) for _ in range(3000)]
    for name, place in (("top", "i"), ("left", "j"), ("height", "h"), ("width", "w")):
        assert distance([one[place] for one in made], [one[name] for one in own]) < 0.05
    made = [v2.RandomPhotometricDistort().make_params(given) for _ in range(3000)]
    own = [ours.RandomPhotometricDistort().drawn(image, rng) for _ in range(3000)]
    for name in ("brightness", "contrast", "saturation", "hue"):
        pairs = [[one[f"{name}_factor"] for one in made], [one.get(name) for one in own]]
        pairs = [[one for one in each if one is not None] for each in pairs]
        assert abs(len(pairs[0]) - len(pairs[1])) < 150
        assert distance(*pairs) < 0.07
    made = [v2.GaussianBlur(5).make_params(given)["sigma"][0] for _ in range(3000)]
    assert distance(made, [ours.GaussianBlur(5).drawn(image, rng)["sigma"] for _ in range(3000)]) < 0.05


@pytest.mark.parametrize("kind", ["RandAugment", "TrivialAugmentWide", "AutoAugment"])
def test_policies_do_torchvisions_changes(kind: str) -> None:
    """Do every change that ours draw with torchvision's own, of the same strength."""
    own: Any = getattr(ours, kind)()
    other: Any = getattr(v2, kind)()
    image, checked = photo(5, 60, 90), set()
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    for seed in range(150):
        for name, value in own.ops(60, 90, np.random.default_rng(seed)):
            level = round(value) if name == "Posterize" else value
            made = other._apply_image_or_video_transform(tensor, name, level, other.interpolation, other._fill)
            found = policies.as_move([(name, value)], (60, 90), "nearest", 0).image(image)
            far = np.abs(found.astype(int) - made.permute(1, 2, 0).numpy())
            assert (far > 2).mean() < 0.02, (name, value)
            checked.add(name)
    assert len(checked) > 8


def test_policies_draw_as_torchvision_does() -> None:
    """Have the same changes, spans and pairs."""
    for own, other in ((policies.RAND, v2.RandAugment), (policies.TRIVIAL, v2.TrivialAugmentWide)):
        assert set(own) == set(other._AUGMENTATION_SPACE)
    tables: Any = [
        (policies.RAND, v2.RandAugment._AUGMENTATION_SPACE, 31),
        (policies.TRIVIAL, v2.TrivialAugmentWide._AUGMENTATION_SPACE, 31),
        (policies.AUTO, v2.AutoAugment._AUGMENTATION_SPACE, 10),
        (policies.MIX, v2.AugMix._AUGMENTATION_SPACE, 10),
    ]
    for own, other, bins in tables:
        for name, (magnitudes, signed) in other.items():
            values, span = magnitudes(bins, 60, 90), own[name]
            assert (values is None) == (span is None)
            if span is None:
                continue
            assert span.signed == signed
            mine = [abs(policies.strength(span, (n, bins), (60, 90), np.random.default_rng(0))) for n in range(bins)]
            mine = np.rint(mine) if name == "Posterize" else mine
            np.testing.assert_allclose(mine, np.asarray(values, float), atol=1e-4)
    for name, pairs in policies.POLICIES.items():
        made = v2.AutoAugment(AutoAugmentPolicy(name))._policies
        assert [[(n, p, m or 0) for n, p, m in pair] for pair in made] == [list(pair) for pair in pairs]
