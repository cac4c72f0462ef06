"""Images decoded smaller (`scaled_decode`), and cut ones taken (`allow_truncated`): both routes make the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headrace
from headrace import (
    CenterCrop,
    ImageFiles,
    ImageFolder,
    ImageList,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    Subset,
    ToCHW,
    ToFloat,
)
from headrace.errors import BadImage
from tests.image_files import encoded, photo
from tests.native.stepwise import batches, both, far_off

KINDS: tuple[dict[str, Any], ...] = (
    {"subsampling": "4:4:4"},
    {"subsampling": "4:2:2"},
    {"subsampling": "4:2:0"},
    {"progressive": True},
    {"restart_marker_blocks": 3},
    {"form": "PNG"},
)
CHAINS: dict[str, tuple[Any, ...]] = {
    "train": (RandomResizedCrop(24, scale=(0.3, 1)), RandomHorizontalFlip()),
    "eval": (Resize(28), CenterCrop(24)),
    "bicubic": (Resize((20, 30), interpolation="bicubic"),),
    "first": (RandomResizedCrop(16), ToCHW()),
}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Images several times as large as wanted, of many kinds, some turned."""
    folder = tmp_path_factory.mktemp("large")
    paths = []
    for number in range(24):
        options = dict(KINDS[number % len(KINDS)])
        image = Image.fromarray(photo(number, 180 + 37 * number % 150, 170 + 53 * number % 190))
        if number % 5 == 1:
            image = image.convert("L")
        if number % 7 == 2 and "form" not in options:
            image = image.convert("CMYK")
        if number % 2 and "form" not in options:
            exif = Image.Exif()
            exif[0x0112] = number % 8 + 1
            options["exif"] = exif
        path = folder / f"{number}.{options.get('form', 'jpg').lower()}"
        path.write_bytes(encoded(image, **options))
        paths.append(str(path))
    return paths


@pytest.mark.parametrize("chain", CHAINS)
def test_both_routes_decode_smaller_alike(large: list[str], chain: str) -> None:
    """Come within a gray level of each other for 999 values of a thousand, each image decoded at the same size."""
    quick, slow = both(Subset(ImageFiles(large, scaled_decode=True), range(len(large))), *CHAINS[chain])
    for ours, theirs in zip(batches(quick), batches(slow), strict=True):
        assert far_off(ours[0], theirs[0]) <= 0.001


def test_the_error_is_small_and_random_numbers_are_the_same(large: list[str]) -> None:
    """Cut out the same parts as without, a few gray levels off."""
    chain = (RandomResizedCrop(24), RandomHorizontalFlip())
    exact, scaled = (batches(ImageFiles(large, scaled_decode=one).map(*chain)) for one in (False, True))
    errors = [np.abs(a[0].astype(int) - b[0]) for a, b in zip(exact, scaled, strict=True)]
    assert any(error.any() for error in errors)
    assert max(float(error.mean()) for error in errors) < 4


def test_what_is_not_scaled_first_is_decoded_exactly(large: list[str]) -> None:
    """Give the pixels that there are without the option."""
    for chain in (
        (CenterCrop(100), Resize(20)),
        (RandomResizedCrop(24, interpolation="nearest"),),
        (RandomResizedCrop(300),),
        (lambda sample: (sample[0][:20, :20], sample[1]),),
    ):
        exact, scaled = (batches(ImageFiles(large, scaled_decode=one).map(*chain)) for one in (False, True))
        assert all(np.array_equal(a[0], b[0]) for a, b in zip(exact, scaled, strict=True))


def test_a_cut_image_is_taken_by_choice(tmp_path: Path) -> None:
    """Refuse it, or make its missing part gray; the others of its batch as ever."""
    whole = encoded(photo(1, 120, 160))
    for name, data in (("a/1.jpg", whole), ("a/2.jpg", whole[: len(whole) // 2]), ("b/3.jpg", whole)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with pytest.raises(BadImage):
        batches(ImageFolder(tmp_path).map(Resize((20, 30)), ToFloat()))
    (tmp_path / "list.txt").write_text("a/1.jpg 0\na/2.jpg 0\nb/3.jpg 1\n")
    for scaled in (False, True):
        how: dict[str, Any] = {"allow_truncated": True, "scaled_decode": scaled}
        found = [
            batches(dataset.map(Resize((20, 30))), shuffle=False)[0][0]
            for dataset in (
                ImageFolder(tmp_path, **how),
                ImageFiles.under(tmp_path, **how),
                ImageList(tmp_path / "list.txt", **how),
            )
        ]
        assert all(np.array_equal(found[0], other) for other in found)
        images = found[0]
        assert np.array_equal(images[0], images[2])
        assert np.abs(images[1][:5].astype(int) - images[0][:5]).max() <= 1
        assert images[1][-5:].std() < images[0][-5:].std()


def test_options_are_true_or_false() -> None:
    """Name the option that is neither."""
    for name in ("allow_truncated", "scaled_decode"):
        with pytest.raises(headrace.errors.ArgumentError, match=name):
            ImageFiles(["a.jpg"], **{name: 2})  # type: ignore[arg-type]
