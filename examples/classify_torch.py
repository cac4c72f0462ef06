"""A classifier of CIFAR images, in torch: `python examples/classify_torch.py [FOLDER]`."""

from __future__ import annotations

import torch
from common import cifar_options, options, report
from torch import nn
from tqdm import tqdm

from headrace import Normalize, RandomCrop, RandomHorizontalFlip, ToCHW, ToFloat
from headrace.datasets import CIFAR10
from headrace.torch import DataLoader


def network(classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(64, 128, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes),
    )  # fmt: skip


def main() -> None:
    args = cifar_options(options(__doc__, epochs=12))
    train, test = CIFAR10(args.cifar), CIFAR10(args.cifar, train=False)
    augment = RandomCrop(32, padding=4, mode="reflect"), RandomHorizontalFlip()
    pixels = ToFloat(), Normalize(mean=0.5, std=0.25), ToCHW()
    training = DataLoader(train.map(*augment, *pixels), batch_size=64, shuffle=True, seed=0, num_workers=1)
    held_out = DataLoader(test.map(*pixels), batch_size=256, num_workers=1)

    torch.manual_seed(0)
    model = network(len(train.classes))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    losses = []
    for epoch in range(args.epochs):
        total = 0.0
        for images, labels in tqdm(training, desc=f"epoch {epoch + 1}"):
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
        losses.append(total / len(train))

    model.eval()
    with torch.inference_mode():
        scores = torch.cat([model(images) for images, labels in held_out]).numpy()
    report(losses, scores, test.images, test.labels, train.classes, args.out / "classify-torch.png")


if __name__ == "__main__":
    main()
