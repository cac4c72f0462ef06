"""A model of images and sounds, in Keras: `python examples/audiovisual.py`.

Images come from a list file, and sounds from the rows of an HDF5 (or MATLAB v7.3) file with one-hot tags, joined by
label. To use your own data: `--images train.txt test.txt --sounds train.h5 test.mat`. By default both are generated:
patches of photographs, and a noisy chord for each photograph.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import h5py
import keras
import numpy as np
from common import HELD_OUT, SIDE, options, patches, save
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator
from PIL import Image

from headrace import ImageList, RandomHorizontalFlip, Resize, ToFloat
from headrace.datasets import HDF5Dataset, PairedDataset
from headrace.keras import DataLoader

SOUNDS = 3
"""The number of sounds for each image."""
BANDS, SAMPLES, RATE = 48, 1024, 8000
NOISE = 6.0
WAYS = {"image alone": (True, False), "sounds alone": (False, True), "both": (True, True)}
"""The models to compare: whether each sees the image, and whether it hears the sounds."""


def make_data(folder: Path) -> tuple[list[Path], list[Path]]:
    """Write list files of images and files of sounds, for training and for testing."""
    images, labels, names = patches()
    lists, sounds = [folder / "train.txt", folder / "test.txt"], [folder / "train.h5", folder / "test.h5"]
    held_out = np.arange(len(images)) % HELD_OUT == 0
    rng = np.random.default_rng(0)
    (folder / "patches").mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / "patches" / f"{number}.png")
    for which, list_file, sound_file in zip((~held_out, held_out), lists, sounds, strict=True):
        lines = [f"patches/{number}.png {labels[number]}\n" for number in np.flatnonzero(which)]
        list_file.write_text("".join(lines), encoding="utf-8")
        tags = np.arange(600) % len(names)
        with h5py.File(sound_file, "w") as file:
            file.create_dataset("audio", data=chords(tags, rng), chunks=(64, BANDS), compression="gzip")
            file["tags"] = np.eye(len(names), dtype=np.uint8)[tags]
    return lists, sounds


def chords(tags: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make a noisy chord for each tag, and return the power of each band of its spectrum, in bels."""
    seconds = np.arange(SAMPLES) / RATE
    roots = 220 * 2 ** (tags / 6)
    tones = roots[:, None] * np.array([1, 5 / 4, 3 / 2, 2, 5 / 2, 3]) * rng.normal(1, 0.01, (len(tags), 1))
    waves = np.sin(2 * np.pi * (tones[..., None] * seconds + rng.random((*tones.shape, 1)))).sum(axis=1)
    waves += rng.normal(0, NOISE, waves.shape)
    power = np.abs(np.fft.rfft(waves * np.hanning(SAMPLES)))[:, : BANDS * 4] ** 2
    return np.log10(power.reshape(len(tags), BANDS, 4).sum(axis=-1)).astype(np.float32) - 4


def network(classes: int, *, eyes: bool, ears: bool) -> keras.Model:
    layers = keras.layers
    image, sounds = keras.Input((SIDE, SIDE, 3)), keras.Input((SOUNDS, BANDS))
    seen, heard = image, sounds
    for width in (16, 32, 64):
        seen = layers.Conv2D(width, 3, strides=2, padding="same", activation="relu")(seen)
    seen = layers.GlobalAveragePooling2D()(seen)
    for width in (32, 32):
        heard = layers.Dense(width, activation="relu")(heard)
    heard = layers.GlobalAveragePooling1D()(heard)
    known = layers.Concatenate()([seen] * eyes + [heard] * ears)
    return keras.Model([image, sounds], layers.Dense(classes)(known))


def main() -> None:
    parser = options(__doc__, epochs=12)
    parser.add_argument("--images", type=Path, nargs=2, help="list files of `path label`: train, test")
    parser.add_argument("--sounds", type=Path, nargs=2, help="HDF5 or MATLAB files with sounds and tags: train, test")
    parser.add_argument("--only", choices=WAYS, help="train only one of the three models")
    args = parser.parse_args()
    if (args.images is None) != (args.sounds is None):
        parser.error("--images and --sounds must be given together")
    lists, files = (args.images, args.sounds) if args.images else make_data(args.out)
    run(args, lists, files)


def run(args: argparse.Namespace, lists: list[Path], files: list[Path]) -> None:
    sounds = [HDF5Dataset(file) for file in files]
    images = [ImageList(file).map(Resize((SIDE, SIDE)), RandomHorizontalFlip(), ToFloat()) for file in lists]
    train, test = (PairedDataset(*both, k=SOUNDS) for both in zip(images, sounds, strict=True))
    # A thread: a process would start in every epoch, and importing Keras takes longer than reading.
    training = DataLoader(train, batch_size=32, shuffle=True, seed=0, num_workers=1, backend="threads", drop_last=True)
    held_out = DataLoader(test, batch_size=256, shuffle=True, seed=0)  # shuffled only for the plot

    classes = int(sounds[0].labels.max()) + 1
    histories = {}
    for name in [args.only] if args.only else WAYS:
        eyes, ears = WAYS[name]
        print(f"\n{name}")
        keras.utils.set_random_seed(0)
        model = network(classes, eyes=eyes, ears=ears)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=loss, metrics=["accuracy"])
        histories[name] = model.fit(training, epochs=args.epochs, validation_data=held_out).history
    print()
    for name, history in histories.items():
        of_loss, right = history["loss"], history["val_accuracy"][-1]
        print(f"{name}: loss {of_loss[0]:.3f} in the first epoch, {of_loss[-1]:.3f} in the last; {right:.0%} right")
    held_out.set_epoch(0)
    names = [f"class {label}" for label in range(classes)] if args.images else patches()[2]
    draw(histories, next(iter(held_out)), names, args.out / "audiovisual.png")
    for file in sounds:
        file.close()


def draw(histories: dict[str, dict[str, list[float]]], batch: tuple, names: list[str], path: Path) -> None:
    (images, sounds), labels = batch
    figure = plt.figure(figsize=(13, 4.6), dpi=100, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.3))
    axis = left.subplots()
    for (name, history), color in zip(histories.items(), ("tab:blue", "tab:orange", "tab:green"), strict=False):
        epochs = range(1, len(history["val_accuracy"]) + 1)
        axis.plot(epochs, history["val_accuracy"], marker=".", color=color, label=name)
    axis.set(title="accuracy on held-out samples", xlabel="epoch", ylim=(0, 1.02))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    right.suptitle(f"samples: an image and {SOUNDS} sounds of its class (spectra; dark is loud)")
    chosen = [int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)[:6]]
    axes = right.subplots(2, len(chosen), height_ratios=(1, 1.2), squeeze=False)
    for column, index in enumerate(chosen):
        axes[0, column].imshow(images[index])
        axes[0, column].set_title(names[labels[index]], fontsize=9)
        axes[1, column].imshow(sounds[index].T, aspect="auto", origin="lower", cmap="Greys", interpolation="nearest")
        for axis in axes[:, column]:
            axis.set(xticks=[], yticks=[])
    axes[1, 0].set_ylabel("frequency")
    save(figure, path)


if __name__ == "__main__":
    main()
