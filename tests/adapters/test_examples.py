"""The examples run as a user runs them, learn something, and save images that show something."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import headrace

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, folder: Path, *arguments: str, needs: tuple[str, ...] = ()) -> str:
    """Run an example in a folder, and return what it printed; skip where what it needs is not installed."""
    for module in ("matplotlib", "tqdm", *needs):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{name} needs {module}")
    # One thread: torch's wait for one another with the processor held, which other work on it makes very slow.
    environment = os.environ | {"KERAS_BACKEND": "jax", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    shows_something(folder / "headrace-examples" / f"{name.replace('_', '-')}.png")
    return done.stdout


def shows_something(file: Path) -> None:
    """Look for shapes in every third of an image, from left to right."""
    image = pytest.importorskip("PIL.Image")
    with image.open(file) as opened:
        pixels = np.asarray(opened.convert("L"), dtype=float)
    assert pixels.shape[0] >= 300
    assert pixels.shape[1] >= 800
    assert all(third.std() > 10 for third in np.array_split(pixels, 3, axis=1))


def losses(printed: str) -> list[tuple[float, float]]:
    """Find the first epoch's loss and the last one's, of each training."""
    found = re.findall(r"loss:? ([\d.]+) (?:in the first epoch,|to) ([\d.]+)", printed)
    return [(float(first), float(last)) for first, last in found]


@pytest.mark.parametrize(
    ("name", "needs"),
    [("classify_torch", ("torch",)), ("classify_keras", ("keras", "jax")), ("classify_jax", ("jax",))],
)
def test_a_classifier_learns_photographs(name: str, needs: tuple[str, ...], tmp_path: Path) -> None:
    """Fall in loss, and name held-out images far better than a guess among six would."""
    printed = run(name, tmp_path, "--epochs", "4", needs=needs)
    ((first, last),) = losses(printed)
    assert last < 0.75 * first
    right, of = map(int, re.findall(r"(\d+) of (\d+) right", printed)[0])
    assert of == 243
    assert right > of / 2


def test_a_classifier_reads_the_cifar_that_it_is_given(tmp_path: Path) -> None:
    """Take the images and the classes of the folder that is named."""
    place = tmp_path / "mine" / "cifar-10-batches-bin"
    place.mkdir(parents=True)
    (place / "batches.meta.txt").write_text("dark\nbright\n")
    records = b"".join(
        bytes([label]) + bytes([200 * label + number] * 3072) for number in range(20) for label in (0, 1)
    )
    for name in ("test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        (place / f"{name}.bin").write_bytes(records)
    printed = run("classify_jax", tmp_path, "mine", "--epochs", "4", needs=("jax",))
    assert "40 of 40 right" in printed


def test_images_go_through_a_bit_stream_and_back(tmp_path: Path) -> None:
    """Decode what was encoded, from as many bits as the model says, to images that are like what they were."""
    printed = run("compress", tmp_path, "--epochs", "1", "--lambdas", "0.005", "0.05", needs=("torch", "constriction"))
    first, last = losses(printed)[0]
    assert last < first / 2
    numbers = r"bits decoded: ([\d.]+) bits per pixel, ([+-][\d.]+)% of the model's estimate; ([\d.]+) dB"
    told = re.findall(rf"lambda-([\d.]+)\.{numbers}", printed)
    assert len(told) == 2
    assert float(told[-1][3]) > 22
    for cost, bits, more, _ in told:
        size = (tmp_path / "headrace-examples" / f"lambda-{cost}.bits").stat().st_size
        assert size * 8 / (243 * 32 * 32) == pytest.approx(float(bits), abs=0.001)
        assert abs(float(more)) < 5


def test_a_model_that_sees_and_hears_learns(tmp_path: Path) -> None:
    """Fall in loss, with images and sounds."""
    printed = run("audiovisual", tmp_path, "--epochs", "2", "--only", "both", needs=("keras", "jax", "h5py"))
    ((first, last),) = losses(printed)
    assert last < first
    assert len(headrace.datasets.HDF5Dataset(tmp_path / "headrace-examples" / "train.h5").labels) == 600


def test_a_forecaster_comes_near_the_best_possible_error(tmp_path: Path) -> None:
    """Come within a tenth of the error that the noise to come leaves to any forecast."""
    printed = run("forecast", tmp_path, "--epochs", "4", needs=("jax",))
    ((first, last),) = losses(printed)
    assert last < first
    ratio = float(re.findall(r"([\d.]+) times that of the best", printed)[0])
    assert 0.99 < ratio < 1.1


def test_a_model_segments_shapes_on_photographs(tmp_path: Path) -> None:
    """Fall in loss, find most pixels of each class in held-out images, and show samples with their masks."""
    printed = run("segment", tmp_path, "--epochs", "4", needs=("torch",))
    ((first, last),) = losses(printed)
    assert last < 0.6 * first
    assert float(re.findall(r"mean IoU of 40 held-out images: ([\d.]+)", printed)[0]) > 0.45
    shows_something(tmp_path / "headrace-examples" / "segment-samples.png")


def test_a_model_detects_shapes_on_photographs(tmp_path: Path) -> None:
    """Fall in loss, find held-out shapes, and show samples and predictions with their boxes."""
    printed = run("detect", tmp_path, "--epochs", "5", needs=("torch",))
    ((first, last),) = losses(printed)
    assert last < 0.7 * first
    assert float(re.findall(r"precision of 60 held-out images: ([\d.]+)", printed)[0]) > 0.25
    for name in ("samples", "predictions"):
        shows_something(tmp_path / "headrace-examples" / f"detect-{name}.png")


def test_a_language_model_is_killed_and_resumes_exactly(tmp_path: Path) -> None:
    """Fall in loss on packed documents, and repeat the steps after the checkpoint bit for bit."""
    printed = run("pretrain", tmp_path, "--steps", "42", needs=("torch", "tokenizers"))
    assert "killed after step 24: exit status -9" in printed
    assert "resumed exactly: 3 of 3 steps" in printed
    ((first, last),) = losses(printed)
    assert last < first
    assert float(re.findall(r"padding: ([\d.]+)%", printed)[0]) < 2


def _imagenet(name: str, folder: Path, *options: str, ranks: int = 1) -> str:
    """Run a training program on small images, by torchrun on several ranks; return what it printed."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    program = [str(EXAMPLES / f"{name}.py"), "--epochs", "2", "--side", "16", "--batch-size", "36", *options]
    environment = os.environ | {"KERAS_BACKEND": "jax", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launch, *program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "needs", "ranks"),
    [("imagenet_torch", ("torch",), 2), ("imagenet_keras", ("keras", "jax"), 1), ("imagenet_jax", ("jax",), 1)],
)
def test_a_program_stops_in_an_epoch_and_resumes_so_that_each_image_comes_once(
    name: str, needs: tuple[str, ...], ranks: int, tmp_path: Path
) -> None:
    """Stop after 5 steps, of which 4 are saved and 3 are an epoch; resume, torch on fewer ranks."""
    for module in needs:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{name} needs {module}")
    assert "stopped after step 5" in _imagenet(name, tmp_path, "--stop-after", "5", "--save-every", "2", ranks=ranks)
    printed = _imagenet(name, tmp_path)
    assert "resumed after step 4" in printed
    assert "each of 108 samples was delivered exactly once" in printed
    assert "epoch 1: each of 108" in printed or name != "imagenet_torch"
