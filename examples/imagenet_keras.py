"""Train on a folder of images with Keras, and resume within an epoch: `python examples/imagenet_keras.py [FOLDER]`.

The folder is as in ``imagenet_torch.py``. Start it again with the same ``--out`` and it resumes. Any backend of Keras
will do: set ``KERAS_BACKEND``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import keras
from photos import make_photos

import headrace
from headrace import CenterCrop, ImageFolder, Normalize, RandomHorizontalFlip, RandomResizedCrop, Resize, ToFloat
from headrace.keras import DataLoader

PIXELS = ToFloat(), Normalize(mean=0.5, std=0.25)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="folder with train/ and val/ (default: made)")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--save-every", type=int, default=3, help="steps between checkpoints")
    parser.add_argument("--stop-after", type=int, default=0, help="end after so many steps, as a time limit would")
    parser.add_argument("--out", type=Path, default=Path("headrace-examples/imagenet-keras"))
    return parser.parse_args()


class Checkpoint(keras.callbacks.Callback):
    """Saves the model with its optimizer, and the loader's place, every few steps."""

    def __init__(self, training: DataLoader[Any], folder: Path, every: int, stop_after: int, step: int) -> None:
        super().__init__()
        self.training, self.folder, self.every, self.stop_after, self.step = training, folder, every, stop_after, step

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        self.step += 1
        if self.step % self.every == 0:
            self.save()
        if self.step == self.stop_after:
            raise KeyboardInterrupt  # as a time limit would, in the middle of an epoch

    def save(self) -> None:
        self.model.save(self.folder / "part.keras")
        state = {"data": self.training.state_dict(), "step": self.step}
        (self.folder / "part.json").write_text(json.dumps(state))
        for name in ("part.keras", "part.json"):
            (self.folder / name).replace(self.folder / name.replace("part", "checkpoint"))


def network(side: int, classes: int) -> keras.Model:
    layers = [keras.layers.Conv2D(width, 3, strides=2, padding="same", activation="relu") for width in (32, 64, 128)]
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(classes, activation="softmax")]
    model = keras.Sequential([keras.Input((side, side, 3)), *layers, *head])
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main() -> None:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    folder = args.folder or args.out / "photos"
    if not folder.exists():
        make_photos(args.out)
    photos, others = ImageFolder(folder / "train"), ImageFolder(folder / "val")
    augmented = photos.map(RandomResizedCrop(args.side), RandomHorizontalFlip(), *PIXELS)
    training: DataLoader[Any] = DataLoader(
        augmented, args.batch_size, shuffle=True, seed=0, num_workers=1, ledger=args.out / "ledger"
    )
    held_out: DataLoader[Any] = DataLoader(
        others.map(Resize(args.side), CenterCrop(args.side), *PIXELS), args.batch_size
    )

    step = 0
    if (args.out / "checkpoint.json").exists():
        model = keras.saving.load_model(args.out / "checkpoint.keras")
        saved = json.loads((args.out / "checkpoint.json").read_text())
        training.load_state_dict(saved["data"])
        step = saved["step"]
        print(f"resumed after step {step}")
    else:
        model = network(args.side, len(photos.classes))
    checkpoint = Checkpoint(training, args.out, args.save_every, args.stop_after, step)
    first = training.state_dict()["epoch"]
    try:
        model.fit(training, epochs=args.epochs, initial_epoch=first, callbacks=[checkpoint], verbose=2)
    except KeyboardInterrupt:
        print(f"stopped after step {checkpoint.step}")
        return
    loss, right = model.evaluate(held_out, verbose=0)
    print(f"loss {loss:.3f}, {right:.0%} of the held-out images right")
    checkpoint.save()
    print(headrace.verify_epoch(args.out / "ledger", epoch=0))


if __name__ == "__main__":
    main()
