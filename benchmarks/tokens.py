"""Token files beside the ways of Megatron, nanoGPT and Hugging Face: `python benchmarks/tokens.py` (medians).

Every turn is a process of its own, which prints what it measured: seconds from the first call to the first batch of
32 x 1,024 tokens, tokens a second afterwards, and memory. The files are made once, in a cache folder; they are in the
page cache when they are read. Megatron-core and `datasets` are used where the environment has them (`make bench-peers`,
or --python NAME=PATH); without Megatron-core, a stand-in builds its indices by the algorithm that it publishes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import struct
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from registry import HERE, PEERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCH, LENGTH = 32, 1024
WARM = 100
"""Batches before the rate is measured."""
VOCABULARY = 50_257
NOTES = {
    "headrace": "TokenDataset over all files, windows, shuffle=True",
    "headrace, documents": "TokenDataset(documents=True) over all files, shuffle=True: the first 32 documents",
    "megatron": "GPTDataset of Megatron-core, blended over all files, torch's loader",
    "stand-in": "the three indices of each file by Megatron's algorithm, saved and mapped; files in turn, not blended",
    "datasets": "Hugging Face's datasets: rows joined by group_texts in map(batched=True), torch's loader, shuffled",
    "headrace, random": "TokenDataset(stride=1) over one file, ReplacementSampler",
    "headrace.torch, random": "the same, as tensors",
    "headrace, random, all files": "the same, over all files",
    "nanogpt": "get_batch of nanoGPT, on the CPU, over one file",
    "copy": "a plain copy of 2 x 32 x 1,024 int64 that are in the CPU's cache, into memory that is reused",
}


@dataclass(frozen=True, slots=True)
class Data:
    """A folder of files: pairs of Megatron's, one file of all their tokens, and Arrow files of the documents."""

    folder: Path

    @property
    def pairs(self) -> Path:
        return self.folder / "pairs"

    @property
    def whole(self) -> Path:
        return self.folder / "whole" / "train.bin"

    @property
    def arrow(self) -> Path:
        return self.folder / "arrow"

    def make(self, files: int, documents: int, tokens: int) -> None:
        """Write log-normal documents of random tokens, with an end-of-text token each."""
        if (self.folder / "made").exists():
            return
        for path in (self.pairs, self.whole.parent, self.arrow):
            path.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        with self.whole.open("wb") as whole:
            for number in range(files):
                count = documents // files
                lengths = np.maximum(rng.lognormal(0, 1, count), 0.01)
                lengths = np.maximum(lengths / lengths.sum() * tokens / files, 1).astype(np.int32)
                data = rng.integers(0, VOCABULARY - 1, int(lengths.sum()), dtype=np.uint16)
                data[np.cumsum(lengths) - 1] = VOCABULARY - 1
                data.tofile(self.pairs / f"{number:03}.bin")
                data.tofile(whole)
                (self.pairs / f"{number:03}.idx").write_bytes(_index(lengths))
        (self.folder / "made").touch()


def _index(lengths: Any) -> bytes:
    """Return a `.idx` file of uint16, each document one sequence."""
    head = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, len(lengths), len(lengths) + 1)
    size = lengths.astype(np.int64) * 2
    marks = np.arange(len(lengths) + 1, dtype=np.int64)
    return head + lengths.tobytes() + (np.cumsum(size) - size).tobytes() + marks.tobytes()


def write_arrow(data: Data) -> None:
    """Write the documents of each pair as a file of `datasets`, once."""
    if (data.arrow / "made").exists():
        return
    import pyarrow as pa

    from_idx = sorted(data.pairs.glob("*.idx"))
    for path in from_idx:
        raw, tokens = path.read_bytes(), np.fromfile(path.with_suffix(".bin"), np.uint16)
        count = struct.unpack_from("<Q", raw, 18)[0]
        lengths = np.frombuffer(raw, np.int32, count, 34)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        column = pa.ListArray.from_arrays(pa.array(offsets), pa.array(tokens.astype(np.int32)))
        table = pa.table({"input_ids": column})
        target = str(data.arrow / f"{path.stem}.arrow")
        with pa.OSFile(target, "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=1000)
    (data.arrow / "made").touch()


def headrace_windows(data: Data) -> Iterator[Any]:
    from headrace import DataLoader
    from headrace.datasets import TokenDataset

    dataset = TokenDataset(data.pairs, LENGTH)
    while True:
        yield from DataLoader(dataset, BATCH, shuffle=True, seed=0)


def headrace_documents(data: Data) -> Iterator[Any]:
    from headrace import DataLoader
    from headrace.datasets import TokenDataset

    dataset = TokenDataset(data.pairs, documents=True)
    for batch in DataLoader(dataset, BATCH, shuffle=True, seed=0, collate_fn=list):
        yield [np.concatenate(batch)]


def headrace_random(data: Data) -> Iterator[Any]:
    from headrace import DataLoader

    return _random(DataLoader, data.whole)


def headrace_torch(data: Data) -> Iterator[Any]:
    from headrace.torch import DataLoader

    return _random(DataLoader, data.whole)


def headrace_all(data: Data) -> Iterator[Any]:
    from headrace import DataLoader

    return _random(DataLoader, data.pairs)


def _random(loader: Any, path: Path) -> Iterator[Any]:
    from headrace.datasets import TokenDataset
    from headrace.samplers import ReplacementSampler

    dataset = TokenDataset(path, LENGTH, stride=1, dtype=np.uint16)
    return iter(loader(dataset, BATCH, sampler=ReplacementSampler(dataset, 10**12), seed=0))


def nanogpt(data: Data) -> Iterator[Any]:
    """Give what nanoGPT's get_batch gives, which maps the file anew for each batch."""
    import torch

    while True:
        tokens = np.memmap(data.whole, dtype=np.uint16, mode="r")
        starts = torch.randint(len(tokens) - LENGTH, (BATCH,))
        inputs = torch.stack([torch.from_numpy(tokens[i : i + LENGTH].astype(np.int64)) for i in starts])
        targets = torch.stack([torch.from_numpy(tokens[i + 1 : i + 1 + LENGTH].astype(np.int64)) for i in starts])
        yield inputs, targets


def copy(_data: Data) -> Iterator[Any]:
    """Give copies of arrays in memory."""
    source = [np.zeros((BATCH, LENGTH), np.int64) for _ in range(2)]
    target = [np.empty((BATCH, LENGTH), np.int64) for _ in range(2)]
    while True:
        for one, other in zip(source, target, strict=True):
            np.copyto(other, one)
        yield target


def stand_in(data: Data) -> Iterator[Any]:
    """Build Megatron's three indices of each file, save them and map them, and read samples by them."""
    cache, built = Path(tempfile.mkdtemp()), []
    for path in sorted(data.pairs.glob("*.idx")):
        raw = np.memmap(path, np.uint8, "r")
        count = struct.unpack("<Q", raw[18:26].tobytes())[0]
        lengths = np.frombuffer(raw, np.int32, count, 34)
        rng = np.random.RandomState(1234)
        documents = np.arange(count, dtype=np.int32)
        rng.shuffle(documents)
        ends = np.cumsum(lengths[documents], dtype=np.int64)
        starts = np.arange((int(ends[-1]) - 1) // LENGTH + 1, dtype=np.int64) * LENGTH
        which = np.searchsorted(ends, starts, "right")
        samples = np.stack([which, starts - np.concatenate([[0], ends])[which]], axis=1).astype(np.int32)
        shuffled = np.arange(len(samples) - 1, dtype=np.uint32)
        rng.shuffle(shuffled)
        mapped = []
        for name, array in (("document", documents), ("sample", samples), ("shuffle", shuffled)):
            np.save(cache / f"{path.stem}-{name}.npy", array)
            mapped.append(np.load(cache / f"{path.stem}-{name}.npy", mmap_mode="r"))
        pointers = np.frombuffer(raw, np.int64, count, 34 + 4 * count)
        built.append((np.memmap(path.with_suffix(".bin"), np.uint16, "r"), lengths, pointers, *mapped))
    place = 0
    while True:
        batch = [
            _megatron_sample(*built[(place + row) % len(built)], (place + row) // len(built)) for row in range(BATCH)
        ]
        place += BATCH
        yield np.stack([row[:-1] for row in batch]), np.stack([row[1:] for row in batch])


def _megatron_sample(
    tokens: Any, lengths: Any, pointers: Any, documents: Any, samples: Any, shuffled: Any, number: int
) -> Any:
    number = int(shuffled[number % len(shuffled)])
    (first, offset), (last, end) = samples[number].tolist(), samples[number + 1].tolist()
    parts = []
    for place in range(first, last + 1):
        document = int(documents[place])
        begin = int(pointers[document]) // 2
        start = offset if place == first else 0
        stop = end + 1 if place == last else int(lengths[document])
        parts.append(tokens[begin + start : begin + stop])
    return np.concatenate(parts).astype(np.int64)


def megatron(data: Data) -> Iterator[Any]:
    """Read a blend of all pairs by Megatron-core's own datasets, whose cache is empty."""
    import torch
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

    class Tokenizer:
        eod, pad, vocab_size, unique_identifiers = VOCABULARY - 1, -1, VOCABULARY, {"class": "none"}

    meeting = f"file://{tempfile.mkdtemp()}/meeting"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=0, world_size=1)
    config = GPTDatasetConfig(
        random_seed=1234,
        sequence_length=LENGTH,
        blend=([str(path.with_suffix("")) for path in sorted(data.pairs.glob("*.idx"))], None),
        split="100,0,0",
        path_to_cache=tempfile.mkdtemp(),
        tokenizer=Tokenizer(),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
    built = BlendedMegatronDatasetBuilder(GPTDataset, [None, None, None], lambda: True, config).build()
    loader = torch.utils.data.DataLoader(built[0], BATCH)
    while True:
        for batch in loader:
            yield batch["tokens"], batch["labels"]


def huggingface(data: Data) -> Iterator[Any]:
    """Join rows to windows as the examples of `transformers` do, with an empty cache, and read them by torch."""
    import torch

    import datasets

    datasets.disable_progress_bars()
    parts = [datasets.Dataset.from_file(str(path)) for path in sorted(data.arrow.glob("*.arrow"))]
    rows = datasets.concatenate_datasets(parts)

    def group_texts(batch: Any) -> Any:
        joined = [token for row in batch["input_ids"] for token in row]
        whole = len(joined) // LENGTH * LENGTH
        return {"input_ids": [joined[start : start + LENGTH] for start in range(0, whole, LENGTH)]}

    cache = str(Path(tempfile.mkdtemp()) / "grouped.arrow")
    windows = rows.map(group_texts, batched=True, cache_file_name=cache).with_format("torch")
    loader = torch.utils.data.DataLoader(windows, BATCH, shuffle=True)
    while True:
        for batch in loader:
            yield batch["input_ids"], batch["input_ids"].clone()


COLD: dict[str, Callable[[Data], Iterator[Any]]] = {
    "headrace": headrace_windows,
    "headrace, documents": headrace_documents,
    "megatron": megatron,
    "stand-in": stand_in,
    "datasets": huggingface,
}
RATES: dict[str, Callable[[Data], Iterator[Any]]] = {
    "headrace, random": headrace_random,
    "headrace.torch, random": headrace_torch,
    "headrace, random, all files": headrace_all,
    "nanogpt": nanogpt,
    "copy": copy,
}
OURS = ("headrace.loader", "headrace.samplers", "headrace.datasets.token_dataset")
THEIRS = ("torch", "torch.utils.data")
NEEDS = {
    "megatron": (
        *THEIRS,
        "megatron.core.datasets.gpt_dataset",
        "megatron.core.datasets.blended_megatron_dataset_builder",
    ),
    "datasets": (*THEIRS, "datasets"),
    "nanogpt": THEIRS,
    "headrace.torch, random": (*THEIRS, "headrace.torch", *OURS),
    "stand-in": (),
    "copy": (),
}
"""What each imports, before the clock starts; the others import `OURS`."""
HOMES = {"megatron": "tokens", "datasets": "datasets", "nanogpt": "torch", "headrace.torch, random": "torch"}


def memory() -> dict[str, float]:
    """Return the MiB of this process, shared pages in proportion: all, and without pages of files."""
    fields = dict(line.split()[:2] for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return {"pss": int(fields["Pss:"]) / 1024, "own": (int(fields["Pss_Anon:"]) + int(fields["Pss_Shmem:"])) / 1024}


def turn(name: str, data: Data, seconds: float) -> dict[str, float]:
    """Measure one contender in this process."""
    warnings.simplefilter("ignore")
    for module in NEEDS.get(name, OURS):
        import_module(module)
    if name == "datasets":
        write_arrow(data)
    began = perf_counter()
    batches = (COLD | RATES)[name](data)
    size = int(np.prod(next(batches)[0].shape))
    found = {"cold": perf_counter() - began}
    if name != "headrace, documents":
        for _ in range(WARM):
            next(batches)
        found |= memory()
        count, began = 0, perf_counter()
        while (spent := perf_counter() - began) < seconds:
            next(batches)
            count += 1
        found["rate"] = count * size / spent
    return found


def steps(data: Data) -> dict[str, float]:
    """Return the seconds from a loader's construction to its first batch, by the step that it resumes at."""
    from headrace import DataLoader
    from headrace.datasets import TokenDataset
    from headrace.samplers import ReplacementSampler

    found = {}
    for step in (1, 10**6):
        for _ in range(2):  # the first imports what is imported late
            began = perf_counter()
            dataset = TokenDataset(data.pairs, LENGTH, stride=1)
            loader = DataLoader(dataset, BATCH, sampler=ReplacementSampler(dataset, 10**12), seed=0)
            loader.load_state_dict(loader.state_dict() | {"step": step})
            next(iter(loader))
            found[str(step)] = perf_counter() - began
            loader.close()
    return found


def run(name: str, given: argparse.Namespace, folder: Path) -> dict[str, float] | None:
    """Measure a contender in a process of its own; None where it cannot be imported."""
    homes = dict(each.split("=", 1) for each in given.python)
    home = HOMES.get(name, "")
    python = homes.get(name) or homes.get(home) or str(PEERS / home / "bin" / "python")
    if not home or not Path(python).exists():
        python = sys.executable
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(HERE.parent / "src"), str(HERE), os.environ.get("PYTHONPATH")])
    )
    command = [python, __file__, "--turn", name, "--data", str(folder), "--seconds", str(given.seconds)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name}: left out: {done.stderr.strip().splitlines()[-1][:200]}", file=sys.stderr)
        return None
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {found}", file=sys.stderr, flush=True)
    return found


def medians(turns: list[dict[str, float]]) -> dict[str, float]:
    return {key: median(each[key] for each in turns) for key in turns[0]}


def document(found: dict[str, dict[str, float]], larger: dict[str, dict[str, float]], given: argparse.Namespace) -> str:
    """Return the tables."""
    machine = (
        f"{len(os.sched_getaffinity(0))} cores, Linux {platform.release()}, Python {platform.python_version()}, "
        f"NumPy {np.__version__}; load average after: {os.getloadavg()[0]:.1f}"
    )
    lines = [
        "# Token files",
        "",
        f"Made on {datetime.now(UTC):%Y-%m-%d} by `python benchmarks/tokens.py` ({given.rounds} rounds, medians).",
        "",
        f"- {machine}",
        f"- {given.documents:,} documents in {given.files} files, {given.tokens:,} tokens of uint16",
        f"- batches of {BATCH} x {LENGTH:,}: inputs and targets as int64, without workers",
        "",
        "## The first batch",
        "Seconds from the first call to the first batch, imports left out; indices and caches do not exist before.",
        "",
        "| | seconds | times headrace |",
        "| --- | ---: | ---: |",
    ]
    own = found["headrace"]["cold"]
    lines += [f"| {NOTES[n]} | {found[n]['cold']:.3f} | {found[n]['cold'] / own:.1f} |" for n in COLD if n in found]
    one, late = found["steps"]["1"], found["steps"]["1000000"]
    lines += ["", f"headrace's first batch at step 1: {one:.3f} s; at step 1,000,000: {late:.3f} s."]
    lines += ["", "## Tokens a second", "| | million tokens/s | of the copy |", "| --- | ---: | ---: |"]
    top = found["copy"]["rate"]
    rates = [n for n in (*COLD, *RATES) if "rate" in found.get(n, {})]
    lines += [f"| {NOTES[n]} | {found[n]['rate'] / 1e6:,.0f} | {found[n]['rate'] / top:.2f} |" for n in rates]
    lines += [
        "",
        "## Memory",
        f"MiB after {WARM} batches, shared pages in proportion (PSS), with as many tokens and with ten times as many.",
        "Pages of mapped files count in PSS; the operating system takes them back when it needs memory.",
        "",
        "| | PSS | PSS, 10 x tokens | without files | without files, 10 x tokens |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, each in larger.items():
        cells = [found[name]["pss"], each["pss"], found[name]["own"], each["own"]]
        lines.append(f"| {NOTES[name]} | {' | '.join(f'{cell:.0f}' for cell in cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement of a rate (3)")
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--tokens", type=int, default=50_000_000)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "headrace-tokens")
    parser.add_argument("--python", nargs="*", default=[], metavar="NAME=PATH", help="the interpreter of a contender")
    parser.add_argument("--output", type=Path, help="write the tables to this file too")
    parser.add_argument("--turn", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.turn:
        data = Data(given.data)
        print(json.dumps(steps(data) if given.turn == "steps" else turn(given.turn, data, given.seconds)))
        return 0
    folders = {}
    for times in (1, 10):
        name = f"{given.files}-{given.documents * times}-{given.tokens * times}"
        folders[times] = given.cache / name
        Data(folders[times]).make(given.files, given.documents, given.tokens * times)
    names = [*COLD, *RATES, "steps"]
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(given.rounds):
        for name in names:
            if (number == 0 or turns[name]) and (result := run(name, given, folders[1])) is not None:
                turns[name].append(result)
    found = {name: medians(each) for name, each in turns.items() if each}
    larger = {name: run(name, given, folders[10]) for name in ("headrace", "headrace, random, all files")}
    text = document(found, {name: each for name, each in larger.items() if each is not None}, given)
    print(text)
    if given.output:
        given.output.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
