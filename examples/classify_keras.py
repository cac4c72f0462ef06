"""A classifier of CIFAR images, in Keras on any backend: `python examples/classify_keras.py [FOLDER]`."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
from common import cifar_options, options, report

from headrace import Normalize, RandomCrop, RandomHorizontalFlip, ToFloat
from headrace.datasets import CIFAR10
from headrace.keras import DataLoader


def network(classes: int) -> keras.Model:
    layers = keras.layers
    return keras.Sequential([
        layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
        layers.Conv2D(64, 3, strides=2, padding="same", activation="relu"),
        layers.Conv2D(128, 3, strides=2, padding="same", activation="relu"),
        layers.GlobalAveragePooling2D(), layers.Dense(classes),
    ])  # fmt: skip


def main() -> None:
    args = cifar_options(options(__doc__, epochs=12))
    train, test = CIFAR10(args.cifar), CIFAR10(args.cifar, train=False)
    augment = RandomCrop(32, padding=4, mode="reflect"), RandomHorizontalFlip()
    pixels = ToFloat(), Normalize(mean=0.5, std=0.25)
    training = DataLoader(train.map(*augment, *pixels), batch_size=64, shuffle=True, seed=0, num_workers=1)
    held_out = DataLoader(test.map(*pixels), batch_size=256, num_workers=1)

    keras.utils.set_random_seed(0)
    model = network(len(train.classes))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss=loss, metrics=["accuracy"])
    history = model.fit(training, epochs=args.epochs, validation_data=held_out).history

    scores = model.predict(held_out, verbose=0)
    report(history["loss"], scores, test.images, test.labels, train.classes, args.out / "classify-keras.png")


if __name__ == "__main__":
    main()
