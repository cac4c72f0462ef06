"""Learned compression of CIFAR images, to files and back, in torch: `python examples/compress.py [FOLDER]`.

A convolutional autoencoder turns an image into latents, which are rounded to integers. An entropy model learns the
probability of each integer, channel by channel. An arithmetic coder writes them with that model. Both are trained
together: bits + lambda * error. (Balle, Laparra, Simoncelli: End-to-end optimized image compression, 2017.)
"""

from __future__ import annotations

from pathlib import Path

import constriction
import numpy as np
import torch
from common import cifar_options, options, save
from matplotlib import pyplot as plt
from torch import nn
from tqdm import tqdm

from headrace import RandomHorizontalFlip, ToCHW, ToFloat
from headrace.datasets import CIFAR10
from headrace.torch import DataLoader

LAMBDAS = (0.003, 0.008, 0.02, 0.05)
"""The price of a mean square error of 1 (pixels from 0 to 255), in bits per pixel; the best quality last."""
FEATURES, LATENTS = 32, 16
GAIN = 8.0
"""A factor for the initial latents; rounding numbers near zero would leave no gradient."""
HEADER = np.dtype("<i4")


def convolution(inputs: int, outputs: int, side: int, stride: int = 1) -> nn.Conv2d:
    """Make a convolution with reflection padding instead of black edges."""
    layer = nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, padding_mode="reflect")
    nn.init.xavier_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Factorized(nn.Module):
    """The probability of each integer, channel by channel, from a mixture of logistics."""

    def __init__(self, channels: int, parts: int = 3) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(channels, parts))
        self.means = nn.Parameter(torch.linspace(-4, 4, parts).repeat(channels, 1))
        self.scales = nn.Parameter(torch.ones(channels, parts))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the probability of each value; channels last."""
        distance = values.unsqueeze(-1) - self.means
        # On the left of its mean, where a logistic's two ends are not both nearly one.
        low, high = -distance.abs() - 0.5, -distance.abs() + 0.5
        slope = torch.exp(-self.scales)
        mass = torch.sigmoid(high * slope) - torch.sigmoid(low * slope)
        return (self.weights.softmax(-1) * mass).sum(-1).clamp_min(1e-9)

    def tables(self, low: int, high: int) -> np.ndarray:
        """Return the probabilities of the numbers from low to high, a row a channel."""
        values = torch.arange(low, high + 1, dtype=torch.float32)[:, None].expand(-1, len(self.means))
        with torch.inference_mode():
            return np.ascontiguousarray(self(values).T.double())


class Codec(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            convolution(3, FEATURES, 5, stride=2), nn.LeakyReLU(0.2),
            convolution(FEATURES, FEATURES * 2, 5, stride=2), nn.LeakyReLU(0.2), convolution(FEATURES * 2, LATENTS, 3),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            convolution(LATENTS, FEATURES * 4, 3), nn.PixelShuffle(2), nn.LeakyReLU(0.2),
            convolution(FEATURES, 3 * 4, 3), nn.PixelShuffle(2),
        )  # fmt: skip
        self.likelihood = Factorized(LATENTS)

    def latents(self, images: torch.Tensor) -> torch.Tensor:
        return self.encoder(images - 0.5) * GAIN

    def images(self, latents: torch.Tensor) -> torch.Tensor:
        return self.decoder(latents / GAIN) + 0.5

    def bits(self, latents: torch.Tensor) -> torch.Tensor:
        return -self.likelihood(latents.movedim(1, -1)).log2().sum()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return bits per pixel and the mean square error, with noise instead of rounding, which has no gradient."""
        latents = self.latents(images)
        noisy = latents + torch.rand_like(latents) - 0.5
        bits = self.bits(noisy) / images[:, 0].numel()
        return bits, torch.mean((self.images(noisy) - images) ** 2) * 255**2


def write(latents: np.ndarray, likelihood: Factorized, file: Path) -> None:
    """Write integers of shape (images, channels, rows, columns) as a bit stream."""
    low, high = int(latents.min()), int(latents.max())
    coder = constriction.stream.queue.RangeEncoder()
    for channel, table in enumerate(likelihood.tables(low, high)):
        coder.encode(latents[:, channel].ravel() - low, constriction.stream.model.Categorical(table, perfect=False))
    header = np.array([*latents.shape, low, high], HEADER)
    file.write_bytes(header.tobytes() + coder.get_compressed().astype("<u4").tobytes())


def read(file: Path, likelihood: Factorized) -> np.ndarray:
    """Read a bit stream that `write` wrote."""
    data = file.read_bytes()
    *shape, low, high = np.frombuffer(data, HEADER, 6).tolist()
    coder = constriction.stream.queue.RangeDecoder(np.frombuffer(data, "<u4", offset=6 * HEADER.itemsize))
    latents = np.empty(shape, np.int32)
    for channel, table in enumerate(likelihood.tables(low, high)):
        model = constriction.stream.model.Categorical(table, perfect=False)
        latents[:, channel] = coder.decode(model, latents[:, channel].size).reshape(latents[:, channel].shape) + low
    return latents


def train(codec: Codec, loader: DataLoader, cost: float, epochs: int) -> list[float]:
    network = [*codec.encoder.parameters(), *codec.decoder.parameters()]
    optimizer = torch.optim.Adam([{"params": network}, {"params": codec.likelihood.parameters()}])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [3e-3, 5e-2], total_steps=epochs * len(loader))
    losses = []
    with tqdm(total=epochs * len(loader), desc=f"lambda {cost}") as bar:
        for _ in range(epochs):
            total = 0.0
            for images, _ in loader:
                bits, error = codec(images)
                loss = bits + cost * error
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(codec.parameters(), 5.0)
                optimizer.step()
                schedule.step()
                total += loss.item()
                bar.update()
                bar.set_postfix(bits=f"{bits.item():.2f}", error=f"{error.item():.0f}")
            losses.append(total / len(loader))
    return losses


def main() -> None:
    parser = options(__doc__, epochs=10)
    parser.add_argument(
        "--lambdas", type=float, nargs="+", default=LAMBDAS, metavar="N", help="prices of an error, the lowest first"
    )
    args = cifar_options(parser)
    pixels = ToFloat(), ToCHW()
    training = CIFAR10(args.cifar).map(RandomHorizontalFlip(), *pixels)
    loader = DataLoader(training, batch_size=32, shuffle=True, seed=0, num_workers=1, drop_last=True)
    held_out = CIFAR10(args.cifar, train=False)
    images = torch.cat([images for images, labels in DataLoader(held_out.map(*pixels), batch_size=256)])

    torch.manual_seed(0)
    codec = Codec()
    points, samples = [], []
    for number, cost in enumerate(args.lambdas):  # each run continues the last one; the first has more to learn
        losses = train(codec, loader, cost, args.epochs * (1 if number else 2))
        with torch.inference_mode():
            latents = codec.latents(images).round().int().numpy()
            estimate = codec.bits(torch.from_numpy(latents)).item()
        stream = args.out / f"lambda-{cost}.bits"
        write(latents, codec.likelihood, stream)
        decoded = read(stream, codec.likelihood)
        assert np.array_equal(decoded, latents), "the decoded stream differs from the input"
        with torch.inference_mode():
            again = codec.images(torch.from_numpy(decoded).float()).clamp(0, 1)
        size, places = stream.stat().st_size * 8, images[:, 0].numel()
        noise = -10 * torch.log10(torch.mean((again - images) ** 2)).item()
        points.append((size / places, noise))
        samples.append((again * 255).round().byte().permute(0, 2, 3, 1).numpy())
        print(
            f"lambda {cost}: loss {losses[0]:.2f} to {losses[-1]:.2f}; {stream.name} decoded: {size / places:.3f} bits "
            f"per pixel, {size / estimate - 1:+.2%} of the model's estimate; {noise:.2f} dB"
        )
    draw(args.lambdas, points, held_out.images, samples, args.out / "compress.png")


def draw(
    costs: list[float], points: list[tuple[float, float]], images: np.ndarray, samples: list[np.ndarray], path: Path
) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 5), dpi=100, layout="constrained", width_ratios=(1, 1.5))
    left.plot(*zip(*points, strict=True), marker="o", color="tab:blue")
    for cost, (bits, noise) in zip(costs, points, strict=True):
        left.annotate(rf"$\lambda$ = {cost}", (bits, noise), (6, -12), textcoords="offset points")
    left.set(title=f"rate and distortion, {len(images)} held-out images", xlabel="bits per pixel, in the file")
    left.set(ylabel="peak signal-to-noise ratio, dB")
    left.margins(y=0.15)
    left.set_xlim(0, 1.3 * max(bits for bits, _ in points))
    left.grid(alpha=0.3)
    chosen = np.linspace(0, len(images) - 1, 9).astype(int)
    rows = [np.concatenate(list(which[chosen]), axis=1) for which in (images, *samples)]
    right.imshow(np.concatenate(rows))
    right.set_yticks([16 + 32 * row for row in range(len(rows))])
    names = [f"$\\lambda$ = {cost}\n{bits:.2f} bits per pixel" for cost, (bits, _) in zip(costs, points, strict=True)]
    right.set_yticklabels(["original\n24 bits per pixel", *names])
    right.set_xticks([])
    right.set_title("images before and after")
    save(figure, path)


if __name__ == "__main__":
    main()
