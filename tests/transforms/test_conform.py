"""Every transform of images keeps what `headrace.testing.TransformTests` asks of all transforms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace import (
    CenterCrop,
    Compose,
    DataLoader,
    Normalize,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToCHW,
    ToDtype,
    ToFloat,
)
from headrace.testing import TransformTests
from headrace.testing.transforms import Samples
from tests.transforms.test_extension import Blur, Gamma, Scale, Thumbnail

pytest.importorskip("PIL")


class TestResize(TransformTests):
    def make(self) -> Resize:
        return Resize((24, 32))


class TestResizeToTheSameSize(TransformTests):
    def make(self) -> Resize:
        return Resize((40, 60))


class TestCenterCrop(TransformTests):
    def make(self) -> CenterCrop:
        return CenterCrop(32)


class TestRandomCrop(TransformTests):
    def make(self) -> RandomCrop:
        return RandomCrop(32, padding=4)


class TestRandomResizedCrop(TransformTests):
    def make(self) -> RandomResizedCrop:
        return RandomResizedCrop(24)


class TestRandomHorizontalFlip(TransformTests):
    def make(self) -> RandomHorizontalFlip:
        return RandomHorizontalFlip()


class TestPad(TransformTests):
    def make(self) -> Pad:
        return Pad(3, mode="reflect")


class TestToFloat(TransformTests):
    def make(self) -> ToFloat:
        return ToFloat()


class TestNormalize(TransformTests):
    """Of floats, which it could overwrite."""

    def make(self) -> Normalize:
        return Normalize(0.5, 0.25)

    def samples(self) -> list[Any]:
        return [image / np.float32(255) for image in super().samples()]


class TestToCHW(TransformTests):
    def make(self) -> ToCHW:
        return ToCHW()


class TestToDtype(TransformTests):
    def make(self) -> ToDtype:
        return ToDtype("float16")

    def samples(self) -> list[Any]:
        return [image / np.float32(255) for image in super().samples()]


class TestCompose(TransformTests):
    """A chain on samples of several parts; lineage names the last of its transforms."""

    def make(self) -> Any:
        return Compose(RandomResizedCrop(24), RandomHorizontalFlip(), ToFloat(), Normalize(0.5, 0.25), ToCHW())

    def samples(self) -> list[Any]:
        return [{"image": image, "label": number} for number, image in enumerate(super().samples())]

    def test_lineage_names_it(self) -> None:
        """Name each of its transforms instead."""
        loader = DataLoader(Samples(self.samples()).map(self.make()), 4, seed=5, collate_fn=list)
        names = [step.name.partition("(")[0] for step in loader.lineage(epoch=0, step=1, index=2).steps]
        assert names == ["RandomResizedCrop", "RandomHorizontalFlip", "ToFloat", "Normalize", "ToCHW"]


class TestBlur(TransformTests):
    """A third party's, which draws."""

    def make(self) -> Blur:
        return Blur(0.5)


class TestGamma(TransformTests):
    """A third party's, with a table for the native extension."""

    def make(self) -> Gamma:
        return Gamma(2.2)


class TestThumbnail(TransformTests):
    """A third party's, with a native step of ours."""

    def make(self) -> Thumbnail:
        return Thumbnail(16)


class TestScale(TransformTests):
    """A third party's, of numbers."""

    def make(self) -> Scale:
        return Scale(2)

    def samples(self) -> list[Any]:
        return list(range(12))
