"""A forecaster of random walks, in JAX, compared with the best possible one: `python examples/forecast.py`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from common import options, save
from matplotlib import pyplot as plt
from tqdm import tqdm

from headrace.datasets import RandomWalkDataset
from headrace.jax import DataLoader

DRIFT, VARIANCE = 0.3, 1.0
WINDOW, HORIZON = 32, 16
HIDDEN = 64
RATE, KEEP = 0.02, 0.9


def network(layers: dict[str, jax.Array], windows: jax.Array) -> jax.Array:
    """Forecast the next values from the steps of a window, relative to its last value."""
    hidden = jax.nn.relu(jnp.diff(windows, axis=1) @ layers["in"] + layers["shift"])
    return windows[:, -1:] + hidden @ layers["out"] + layers["lead"]


def error(layers: dict[str, jax.Array], windows: jax.Array, targets: jax.Array) -> jax.Array:
    return jnp.mean((network(layers, windows) - targets) ** 2)


@jax.jit
def step(
    layers: dict, speeds: dict, windows: jax.Array, targets: jax.Array, rate: float
) -> tuple[dict, dict, jax.Array]:
    """Take one step of gradient descent with momentum."""
    loss, slopes = jax.value_and_grad(error)(layers, windows, targets)
    speeds = jax.tree.map(lambda v, g: KEEP * v - rate * g, speeds, slopes)
    return jax.tree.map(jnp.add, layers, speeds), speeds, loss


def main() -> None:
    args = options(__doc__, epochs=10).parse_args()
    walks = RandomWalkDataset(DRIFT, 0, VARIANCE, 256, walks=200, window=WINDOW, horizon=HORIZON, stride=4)
    training = DataLoader(walks, batch_size=128, seed=0, drop_last=True)
    unseen = RandomWalkDataset(DRIFT, 0, VARIANCE, WINDOW + HORIZON, walks=2000, window=WINDOW, horizon=HORIZON, seed=1)

    key = jax.random.key(0)
    layers = {
        "in": jax.random.normal(key, (WINDOW - 1, HIDDEN)) / np.sqrt(WINDOW - 1), "shift": jnp.zeros(HIDDEN),
        "out": jnp.zeros((HIDDEN, HORIZON)), "lead": jnp.zeros(HORIZON),
    }  # fmt: skip
    speeds = jax.tree.map(jnp.zeros_like, layers)
    losses = []
    for epoch in range(args.epochs):
        of_epoch = []
        for windows, targets in tqdm(training, desc=f"epoch {epoch + 1}"):  # new walks in each epoch
            rate = RATE * (1 - epoch / args.epochs) / HORIZON
            layers, speeds, loss = step(layers, speeds, windows, targets, rate)
            of_epoch.append(loss)
        losses.append(float(jnp.mean(jnp.stack(of_epoch))))

    windows, targets = next(iter(DataLoader(unseen, batch_size=len(unseen))))
    forecasts = np.asarray(network(layers, windows))
    windows, targets = np.asarray(windows), np.asarray(targets)
    model = np.sqrt(np.mean((forecasts - targets) ** 2, axis=0))
    naive = np.sqrt(np.mean((windows[:, -1:] - targets) ** 2, axis=0))
    ahead = np.arange(1, HORIZON + 1)
    best = np.sqrt(VARIANCE * ahead)  # future noise is unknown, and its variances add up
    known = np.mean((windows[:, -1:] + DRIFT * ahead - targets) ** 2)  # the best forecast on these walks
    print(f"loss: {losses[0]:.3f} in the first epoch, {losses[-1]:.3f} in the last; {np.mean(best**2):.3f} is possible")
    print(f"error on held-out walks: {np.sqrt(np.mean(model**2) / known):.3f} times that of the best forecast possible")

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), dpi=100, layout="constrained")
    left.plot(ahead, naive, marker=".", color="tab:gray", label="last value")
    left.plot(ahead, model, marker="o", color="tab:blue", label="network")
    left.plot(ahead, best, "--", color="tab:red", label=r"best possible: $\sigma\sqrt{h}$")
    left.set(title="error on 2,000 held-out walks", xlabel="steps ahead, h", ylabel="root mean square error")
    left.set_ylim(0)
    left.grid(alpha=0.3)
    left.legend()
    past, future = np.arange(-WINDOW + 1, 1), np.concatenate([[0], ahead])
    for number, color in enumerate(("tab:blue", "tab:orange", "tab:green")):
        base = number * 14 - windows[number, -1]  # one above the other
        line = np.concatenate([windows[number, -1:], forecasts[number]]) + base
        truth = np.concatenate([windows[number, -1:], targets[number]]) + base
        spread = 2 * np.concatenate([[0], best])
        right.plot(past, windows[number] + base, color=color)
        right.plot(future, truth, color=color, linestyle=":")
        right.plot(future, line, color="black", linewidth=1.2)
        right.fill_between(future, line - spread, line + spread, color=color, alpha=0.15, linewidth=0)
    right.axvline(0, color="black", linewidth=0.6)
    right.set(
        title=r"three walks, their future (dotted), and the forecast $\pm 2\sigma\sqrt{h}$", xlabel="steps", yticks=[]
    )
    save(figure, args.out / "forecast.png")


if __name__ == "__main__":
    main()
