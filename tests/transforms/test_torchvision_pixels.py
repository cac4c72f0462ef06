"""Our transforms give torchvision's pixels: values that torchvision 0.29 computed, in torchvision.json beside this.

The file holds a JPEG image, and for each chain of torchvision's what became of it: bytes, channels first, in base 85.
Where torchvision is installed, tests/adapters/test_torch_vision.py computes them again.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace import CenterCrop, DataLoader, ImageFiles, Normalize, Resize, ToCHW, ToFloat, explain

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXPECTED: dict[str, Any] = json.loads(Path(__file__).with_name("torchvision.json").read_text(encoding="utf-8"))


def ours(step: list[Any]) -> Any:
    """Make the transform of ours that a name and settings of torchvision's stand for."""
    name, size, *filters = step
    size = tuple(size) if isinstance(size, list) else size
    return CenterCrop(size) if name == "CenterCrop" else Resize(size, interpolation=(filters or ["bilinear"])[0])


def image(tmp_path: Path, transforms: list[Any], how: dict[str, Any]) -> NDArray[Any]:
    """Return the JPEG image as a loader gives it."""
    (tmp_path / "a.jpg").write_bytes(base64.b85decode(EXPECTED["jpeg"]))
    dataset = ImageFiles(["a.jpg"], root=tmp_path).map(*transforms)
    (batch,) = DataLoader(dataset, **how)
    made: NDArray[Any] = batch[0][0]
    return made


@pytest.mark.parametrize("how", [{}, {"num_workers": 1}, {"on_error": "replace"}], ids=str)
@pytest.mark.parametrize("name", EXPECTED["chains"])
def test_pixels_are_torchvisions(name: str, how: dict[str, Any], tmp_path: Path) -> None:
    """Scale, crop and fill a JPEG image to within one gray level."""
    case = EXPECTED["chains"][name]
    found = image(tmp_path, [*map(ours, case["chain"]), ToCHW()], how)
    expected = np.frombuffer(base64.b85decode(case["pixels"]), np.uint8).reshape(case["shape"])
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def test_normalized_values_are_torchvisions(tmp_path: Path) -> None:
    """Divide by 255, subtract and divide as ToDtype(scale=True) and Normalize do."""
    std = np.array((0.229, 0.224, 0.225), np.float32)
    chain = [Resize((2, 3)), ToFloat(), Normalize((0.485, 0.456, 0.406), std.tolist()), ToCHW()]
    far = np.abs(image(tmp_path, chain, {}) - np.array(EXPECTED["normalized"])) * std[:, None, None] * 255
    assert far.max() <= 1.001


def test_a_dataset_that_is_not_torchvisions_is_explained_as_before() -> None:
    """Say nothing of torchvision where it is not loaded."""
    assert "native=True" not in explain([1, 2, 3])
