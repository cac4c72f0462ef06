"""Batches finished by torch, where they lie."""

from __future__ import annotations

import numpy as np
import pytest
from tests.adapters.data import FINISHES, HALVES, batches_to_finish, by_the_steps

import headrace
from headrace import Normalize, RandomHorizontalFlip, ToCHW, ToDtype, ToFloat

torch = pytest.importorskip("torch")
lib = pytest.importorskip("headrace.torch")


@pytest.mark.parametrize("name", FINISHES)
def test_values_are_those_of_the_steps(name: str) -> None:
    """Come within float32's rounding, for bytes, two bytes and floats."""
    finish = lib.on_device(*FINISHES[name])
    for batch in batches_to_finish().values():
        found = finish(torch.from_numpy(batch))
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.numpy(), by_the_steps(batch, name), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_device_rounds_to_halves(dtype: str) -> None:
    """End in the dtype asked for, as near to the steps as its neighbours are to one another."""
    steps = [*FINISHES["normalised"], ToDtype(dtype)]
    batch = batches_to_finish()["uint8"]
    found = lib.on_device(*steps)(torch.from_numpy(batch))
    assert found.dtype == getattr(torch, dtype)
    expected = np.stack([headrace.Compose(*steps)(image) for image in batch]).astype(np.float32)
    np.testing.assert_allclose(found.float().numpy(), expected, rtol=HALVES[dtype], atol=1e-6)


def test_images_without_channels() -> None:
    """Finish (N, H, W) too."""
    batch = batches_to_finish()["uint8"][..., 0]
    finish = lib.on_device(ToFloat(), Normalize(0.5, 0.25), ToCHW())
    expected = (batch[:, None] / np.float32(255) - np.float32(0.5)) / np.float32(0.25)
    np.testing.assert_allclose(finish(torch.from_numpy(batch)).numpy(), expected, rtol=1e-6, atol=1e-6)


def test_it_goes_with_a_model_and_leaves_nothing_in_its_state() -> None:
    """Be a module like others, that has nothing to learn."""
    model = torch.nn.Sequential(lib.on_device(ToFloat(), Normalize(0.5, 0.25), ToCHW()), torch.nn.Flatten())
    assert model.state_dict() == {}
    assert not list(model.parameters())
    model.to("meta")
    assert model[0].mean1.is_meta


def test_a_loader_of_bytes_and_a_device_make_what_a_loader_of_floats_makes() -> None:
    """Give the same batches, but for rounding, whoever finishes them."""
    images = headrace.ArrayDataset(batches_to_finish()["uint8"])
    bytes_only = lib.DataLoader(images.map(RandomHorizontalFlip()), 2, seed=0)
    floats = lib.DataLoader(images.map(RandomHorizontalFlip(), *FINISHES["normalised"]), 2, seed=0)
    finish = lib.on_device(*FINISHES["normalised"])
    for small, whole in zip(bytes_only, floats, strict=True):
        assert small.dtype == torch.uint8
        torch.testing.assert_close(finish(small), whole)


def test_other_transforms_are_refused() -> None:
    """Name what a device cannot do."""
    with pytest.raises(headrace.errors.ArgumentError, match="RandomHorizontalFlip"):
        lib.on_device(ToFloat(), RandomHorizontalFlip())
