"""Train on a folder of images with JAX, and resume within an epoch: `python examples/imagenet_jax.py [FOLDER]`.

The folder is as in ``imagenet_torch.py``. Start it again with the same ``--out`` and it resumes. On several processes,
call ``jax.distributed.initialize()`` first: ``rank="auto"`` then gives each its part.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from photos import make_photos

import headrace
from headrace import CenterCrop, ImageFolder, Normalize, RandomHorizontalFlip, RandomResizedCrop, Resize, ToFloat
from headrace.jax import DataLoader

Layers = list[tuple[jax.Array, jax.Array]]
PIXELS = ToFloat(), Normalize(mean=0.5, std=0.25)
RATE, MOMENTUM = 0.02, 0.9


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="folder with train/ and val/ (default: made)")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--save-every", type=int, default=3, help="steps between checkpoints")
    parser.add_argument("--stop-after", type=int, default=0, help="end after so many steps, as a time limit would")
    parser.add_argument("--out", type=Path, default=Path("headrace-examples/imagenet-jax"))
    return parser.parse_args()


def layers_of(classes: int) -> Layers:
    shapes = [(3, 3, 3, 32), (3, 3, 32, 64), (64, classes)]
    keys, start = jax.random.split(jax.random.key(0), len(shapes)), jax.nn.initializers.he_normal()
    return [(start(key, shape), jnp.zeros(shape[-1])) for key, shape in zip(keys, shapes, strict=True)]


def network(layers: Layers, images: jax.Array) -> jax.Array:
    *convolutions, (weights, bias) = layers
    for filters, shift in convolutions:
        layout = ("NHWC", "HWIO", "NHWC")
        images = jax.lax.conv_general_dilated(images, filters, (2, 2), "SAME", dimension_numbers=layout)
        images = jax.nn.relu(images + shift)
    return images.mean(axis=(1, 2)) @ weights + bias


@jax.jit
def train_step(layers: Layers, speed: Layers, images: jax.Array, labels: jax.Array) -> tuple[Layers, Layers, jax.Array]:
    def loss_of(layers: Layers) -> jax.Array:
        scores = jax.nn.log_softmax(network(layers, images))
        return -jnp.take_along_axis(scores, labels[:, None], axis=1).mean()

    loss, slopes = jax.value_and_grad(loss_of)(layers)
    speed = jax.tree.map(lambda v, g: MOMENTUM * v + g, speed, slopes)
    return jax.tree.map(lambda p, v: p - RATE * v, layers, speed), speed, loss


def save(path: Path, state: tuple[Layers, Layers], training: DataLoader, step: int) -> None:
    """Write arrays and the loader's place in one file, whole or not at all."""
    data = json.dumps({"data": training.state_dict(), "step": step})
    with path.with_suffix(".part").open("wb") as file:
        np.savez(file, *map(np.asarray, jax.tree.leaves(state)), data=data)
    path.with_suffix(".part").replace(path)


def main() -> None:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    folder = args.folder or args.out / "photos"
    if not folder.exists():
        make_photos(args.out)
    photos, others = ImageFolder(folder / "train"), ImageFolder(folder / "val")
    augmented = photos.map(RandomResizedCrop(args.side), RandomHorizontalFlip(), *PIXELS)
    training = DataLoader(augmented, args.batch_size, shuffle=True, seed=0, num_workers=1, ledger=args.out / "ledger")
    held_out = DataLoader(others.map(Resize(args.side), CenterCrop(args.side), *PIXELS), args.batch_size)

    layers = layers_of(len(photos.classes))
    state, step, checkpoint = (layers, jax.tree.map(jnp.zeros_like, layers)), 0, args.out / "checkpoint.npz"
    if checkpoint.exists():
        with np.load(checkpoint) as saved:
            number = len(saved.files) - 1
            state = jax.tree.unflatten(
                jax.tree.structure(state), [jnp.asarray(saved[f"arr_{n}"]) for n in range(number)]
            )
            place = json.loads(str(saved["data"]))
        training.load_state_dict(place["data"])
        step = place["step"]
        print(f"resumed after step {step}")

    for epoch in range(training.state_dict()["epoch"], args.epochs):
        training.set_epoch(epoch)  # a loaded state that is in the middle of this epoch stays there
        for images, labels in training:
            *state, loss = train_step(*state, images, labels)
            state, step = tuple(state), step + 1
            if step % args.save_every == 0:
                save(checkpoint, state, training, step)
            if step == args.stop_after:
                print(f"stopped after step {step}, in epoch {epoch + 1}")
                return
        right = np.concatenate([network(state[0], images).argmax(1) == labels for images, labels in held_out])
        print(f"epoch {epoch + 1}: loss {loss:.3f}, {right.mean():.0%} of the held-out images right")
    save(checkpoint, state, training, step)
    print(headrace.verify_epoch(args.out / "ledger", epoch=0))


if __name__ == "__main__":
    main()
