"""Draw the plot of docs/guide/walks.md: `python benchmarks/plot_walks.py` (it needs matplotlib and pillow)."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("agg")
from matplotlib import pyplot as plt
from PIL import Image

from headrace.datasets import random_walk_array

PLOT = Path(__file__).parent.parent / "docs" / "guide" / "walks.png"
MU, SIGMA2, N = 0.05, 1.0, 501


def main() -> None:
    """Draw 400 walks with what their mean and spread must be, and two that are correlated."""
    t = np.arange(N)
    walks = random_walk_array(MU, 0, SIGMA2, N, rng=np.random.default_rng(0).spawn(400))
    pair = random_walk_array([0, 0], [0, 15], [[1, 0.9], [0.9, 1]], N, rng=2)

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), dpi=100, layout="constrained")
    left.plot(t, walks.T, color="tab:blue", alpha=0.08, linewidth=0.6)
    left.plot(t, walks.mean(axis=0), color="black", linewidth=1.6, label="mean of the 400 walks")
    left.plot(t, MU * t, color="tab:orange", linestyle="--", label="$\\mu t$")
    for sign in (-2, 2):
        bound = MU * t + sign * np.sqrt(SIGMA2 * t)
        left.plot(t, bound, color="tab:red", linewidth=1, label="$\\mu t \\pm 2\\sigma\\sqrt{t}$" if sign > 0 else None)
    left.set(title="400 walks, $\\mu$ = 0.05, $\\sigma^2$ = 1", xlabel="t", ylabel="$X_t$")
    left.legend(loc="upper left", fontsize=8)
    right.plot(t, pair[:, 0], label="$x_0$ = 0")
    right.plot(t, pair[:, 1], label="$x_0$ = 15")
    right.set(title="Two walks, noise correlated by 0.9", xlabel="t")
    right.legend(loc="upper right", fontsize=8)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())
    Image.fromarray(pixels).convert("RGB").quantize(64).save(PLOT, optimize=True)  # a third of the bytes


if __name__ == "__main__":
    main()
