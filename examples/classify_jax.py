"""A classifier of CIFAR images, in plain JAX: `python examples/classify_jax.py [FOLDER]`."""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from common import cifar_options, options, report
from tqdm import tqdm

from headrace import Normalize, RandomCrop, RandomHorizontalFlip, ToFloat
from headrace.datasets import CIFAR10
from headrace.jax import DataLoader

WIDTHS = (3, 32, 64, 128)
LAYOUT = ("NHWC", "HWIO", "NHWC")
RATE, KEEP, KEEP_SQUARE = 2e-3, 0.9, 0.999


def parameters(classes: int) -> list[tuple[jax.Array, jax.Array]]:
    """Make the weights and biases of three convolutions and of one last, dense layer."""
    shapes = [(3, 3, inputs, outputs) for inputs, outputs in pairwise(WIDTHS)]
    shapes.append((WIDTHS[-1], classes))
    keys = jax.random.split(jax.random.key(0), len(shapes))
    start = jax.nn.initializers.he_normal()
    return [(start(key, shape), jnp.zeros(shape[-1])) for key, shape in zip(keys, shapes, strict=True)]


@jax.jit
def network(layers: list[tuple[jax.Array, jax.Array]], images: jax.Array) -> jax.Array:
    *convolutions, (weights, bias) = layers
    for kernel, shift in convolutions:
        images = jax.lax.conv_general_dilated(images, kernel, (2, 2), "SAME", dimension_numbers=LAYOUT)
        images = jax.nn.relu(images + shift)
    return images.mean(axis=(1, 2)) @ weights + bias


def cross_entropy(layers: list[tuple[jax.Array, jax.Array]], images: jax.Array, labels: jax.Array) -> jax.Array:
    scores = jax.nn.log_softmax(network(layers, images))
    return -jnp.take_along_axis(scores, labels[:, None], axis=1).mean()


@jax.jit
def step(state: tuple, images: jax.Array, labels: jax.Array) -> tuple[tuple, jax.Array]:
    """Take one step of Adam."""
    layers, means, squares, count = state
    loss, slopes = jax.value_and_grad(cross_entropy)(layers, images, labels)
    means = jax.tree.map(lambda m, g: KEEP * m + (1 - KEEP) * g, means, slopes)
    squares = jax.tree.map(lambda s, g: KEEP_SQUARE * s + (1 - KEEP_SQUARE) * g**2, squares, slopes)
    count += 1
    rate = RATE * jnp.sqrt(1 - KEEP_SQUARE**count) / (1 - KEEP**count)
    layers = jax.tree.map(lambda p, m, s: p - rate * m / (jnp.sqrt(s) + 1e-8), layers, means, squares)
    return (layers, means, squares, count), loss


def main() -> None:
    args = cifar_options(options(__doc__, epochs=12))
    train, test = CIFAR10(args.cifar), CIFAR10(args.cifar, train=False)
    augment = RandomCrop(32, padding=4, mode="reflect"), RandomHorizontalFlip()
    pixels = ToFloat(), Normalize(mean=0.5, std=0.25)
    # Without a short batch at the end, for which all would be compiled once more.
    training = DataLoader(train.map(*augment, *pixels), 64, shuffle=True, seed=0, num_workers=1, drop_last=True)
    held_out = DataLoader(test.map(*pixels), batch_size=256, num_workers=1)

    layers = parameters(len(train.classes))
    zeros = jax.tree.map(jnp.zeros_like, layers)
    state, losses = (layers, zeros, zeros, 0), []
    for epoch in range(args.epochs):
        of_epoch = []
        for images, labels in tqdm(training, desc=f"epoch {epoch + 1}"):
            state, loss = step(state, images, labels)
            of_epoch.append(loss)
        losses.append(float(jnp.mean(jnp.stack(of_epoch))))

    scores = np.concatenate([network(state[0], images) for images, labels in held_out])
    report(losses, scores, test.images, test.labels, train.classes, args.out / "classify-jax.png")


if __name__ == "__main__":
    main()
