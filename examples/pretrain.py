"""A tiny language model on packed documents, killed and resumed exactly: `python examples/pretrain.py`."""

from __future__ import annotations

import argparse
import json
import os
import pydoc_data.topics
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import save
from matplotlib import pyplot as plt
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from tqdm import tqdm

from headrace import ConcatDataset
from headrace.collate import PackedCollate
from headrace.datasets import GroupedDataset, TokenDataset
from headrace.samplers import MixtureSampler, PackingBatchSampler
from headrace.torch import DataLoader

VOCABULARY, END = 1024, 0
LENGTH, ROWS = 128, 8
WIDTH, HEADS, LAYERS = 96, 4, 2
SOURCES = {"manual": 0.7, "code": 0.3}
FIELDS = ("values", "segment_ids", "positions", "labels")


def documents() -> dict[str, list[str]]:
    """Return text that every Python has: paragraphs of its manual, and definitions of its standard library."""
    library = Path(sysconfig.get_path("stdlib"))
    modules = sorted(path for path in library.glob("*.py") if path.stat().st_size < 30_000)[:60]
    code = [path.read_text(encoding="utf-8", errors="replace").split("\n\n\n") for path in modules]
    manual = [topic.split("\n\n") for topic in pydoc_data.topics.topics.values()]
    return {
        name: [text.strip() for texts in parts for text in texts if len(text) > 80]
        for name, parts in (("manual", manual), ("code", code))
    }


def write_tokens(folder: Path) -> None:
    """Train a tokenizer, and write each source as a file of uint16 tokens, with an end token after each document."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    sources = documents()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator((text for texts in sources.values() for text in texts), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, texts in sources.items():
        with (folder / f"{name}.bin").open("wb") as file:
            for encoded in tokenizer.encode_batch(texts):
                np.array([*encoded.ids, END], np.uint16).tofile(file)


def loader_of(folder: Path) -> DataLoader[Any]:
    """Return batches of rows that documents of both sources fill, long ones in parts."""
    parts = [TokenDataset(folder / f"{name}.bin", documents=True, dtype=np.uint16, separator=END) for name in SOURCES]
    lengths = np.concatenate([part.lengths for part in parts])
    mixture = MixtureSampler(parts, list(SOURCES.values()))
    rows = PackingBatchSampler(lengths, LENGTH, ROWS, sampler=mixture, longer="split", window=256, drop_last=True)
    return DataLoader(
        GroupedDataset(ConcatDataset(parts)),
        batch_sampler=rows,
        collate_fn=PackedCollate(LENGTH, fields=FIELDS),
        seed=0,
    )


class Block(nn.Module):
    """Attention within each document, and a perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.heads, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.perceptron = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        rows, length, _ = x.shape
        heads = self.heads(self.before(x)).view(rows, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(*heads, attn_mask=mask)
        x = x + self.out(attended.transpose(1, 2).reshape(x.shape))
        return x + self.perceptron(self.between(x))


class Model(nn.Module):
    """A small transformer; a token sees the earlier tokens of its own document."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, tokens: torch.Tensor, segments: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        same = segments[:, None, :, None] == segments[:, None, None, :]
        mask = same & torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).tril()
        x = self.tokens(tokens) + self.places(places)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x) @ self.tokens.weight.T / WIDTH**0.5


def train(folder: Path, steps: int, every: int, kill_at: int | None = None) -> DataLoader[Any]:
    """Train from the last checkpoint on, if there is one, and write each loss down; ``kill_at`` ends the program."""
    torch.manual_seed(0)
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    loader, step, checkpoint = loader_of(folder), 0, folder / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        loader.load_state_dict(json.loads(saved["loader"]))
        step = saved["step"]
        print(f"resumed at step {step}")
    bar = tqdm(total=steps, initial=step, desc="training")
    with (folder / "losses.txt").open("a", encoding="utf-8") as losses:
        while step < steps:
            for batch in loader:
                logits = model(batch["values"].clamp(min=0), batch["segment_ids"], batch["positions"].long())
                loss = cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                bar.update()
                print(step, loss.item().hex(), file=losses, flush=True)
                if step % every == 0:
                    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
                    torch.save({**state, "loader": json.dumps(loader.state_dict())}, folder / "new.pt")
                    (folder / "new.pt").replace(checkpoint)  # whole, or not at all
                if step == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                if step == steps:
                    break
    bar.close()
    return loader


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="steps of training (300)")
    parser.add_argument("--out", type=Path, default=Path("headrace-examples"), help="folder (./%(default)s)")
    parser.add_argument("--kill-at", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    folder, every = args.out / "pretrain", max(args.steps // 6, 1)
    folder.mkdir(parents=True, exist_ok=True)
    if args.kill_at:
        train(folder, args.steps, every, args.kill_at)
        return
    for old in ("checkpoint.pt", "losses.txt"):
        (folder / old).unlink(missing_ok=True)
    write_tokens(folder)
    killed_at = args.steps // 2 + every // 2
    # The same program, which ends itself in the middle of an epoch as a machine that fails would.
    command = [
        sys.executable,
        __file__,
        "--steps",
        str(args.steps),
        "--out",
        str(args.out),
        "--kill-at",
        str(killed_at),
    ]
    status = subprocess.run(command, check=False).returncode
    print(f"killed after step {killed_at}: exit status {status}")
    loader = train(folder, args.steps, every)

    lines = [line.split() for line in (folder / "losses.txt").read_text(encoding="utf-8").splitlines()]
    first, again = lines[:killed_at], lines[killed_at:]
    twice = [int(step) for step, _ in again if int(step) <= killed_at]
    same = sum(first[int(step) - 1][1] == loss for step, loss in again[: len(twice)])
    print(f"resumed exactly: {same} of {len(twice)} steps that were done twice have the same loss, bit for bit")
    losses = np.array([float.fromhex(loss) for _, loss in first[: twice[0] - 1] + again])
    print(f"loss: {losses[:10].mean():.2f} to {losses[-10:].mean():.2f}; {np.log(VOCABULARY):.2f} is a guess")
    found = loader.statistics()
    print(f"padding: {found.padding_share:.2%} of all positions; {found.tokens:,} tokens since the kill")
    for name, source in zip(SOURCES, found.sources, strict=True):
        print(f"{name}: {source.share:.0%} of the documents, read {source.passes:.1f} times")

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), dpi=100, layout="constrained")
    left.plot(np.arange(1, len(losses) + 1), losses, color="tab:blue", linewidth=1)
    left.axhline(np.log(VOCABULARY), linestyle="--", color="tab:gray", label="a guess")
    left.axvline(killed_at, color="tab:red", label="killed")
    left.axvline(twice[0] - 1, color="tab:green", label="the checkpoint it resumed from")
    left.set(title="training loss", xlabel="step", ylabel="nats per token", ylim=(0, None))
    left.grid(alpha=0.3)
    left.legend()
    batch = next(iter(loader))
    right.imshow(np.where(batch["segment_ids"] > 0, batch["segment_ids"] % 9 + 1, 0), aspect="auto", cmap="tab10",
                 interpolation="nearest")  # fmt: skip
    right.set(title="documents packed in the rows of one batch", xlabel="position", ylabel="row")
    save(figure, args.out / "pretrain.png")


if __name__ == "__main__":
    main()
