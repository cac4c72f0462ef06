"""Profile the native extension, and the error of `scaled_decode`: `python benchmarks/native_profile.py PHOTOS`.

Times are the minimum of several repeats per file, in one thread, summed over the files. The stages of decoding are
those of libjpeg-turbo alone, on whole files (`stages.cpp`, compiled here). The extension reports its time after
decoding. Python's time is the CPU time of the thread that reads the loop, while the extension's threads make
thumbnails: only that thread ever holds the GIL.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import thread_time
from typing import Any

import numpy as np
from data import WORKLOADS, prepare

from headrace import (
    DataLoader,
    ImageFiles,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToCHW,
    ToFloat,
)
from headrace._native import extension
from headrace.context import seeds
from headrace.image import fused
from run import default_cache

REPEATS = 7
FILES = 40
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, nargs="?", help="folder or tar of JPEG files (default: bundled ones)")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where made data is kept")
    args = parser.parse_args()
    photos, large, thumbnails = (
        _files(prepare(WORKLOADS[name], args.cache, args.photos).folder) for name in ("photos", "large", "thumbnails")
    )
    lines = [*profile(photos[:FILES]), "", *lock(thumbnails), *error(large)]
    sys.stdout.write("\n".join(lines) + "\n")


def profile(files: list[str]) -> list[str]:
    """Return the shares of each stage, as lines of a Markdown table."""
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/stages"
        source = str(Path(__file__).with_name("stages.cpp"))
        subprocess.run(["c++", "-O2", "-o", program, source, "-ljpeg"], check=True)
        answer = subprocess.run([program, str(REPEATS), *files], check=True, capture_output=True, text=True)
    huffman, transform, color = map(float, answer.stdout.split())
    resized = [least(file, [Resize((224, 224))]) for file in files]
    finished = [least(file, [Resize((224, 224)), ToFloat(), Normalize(MEAN, STD), ToCHW()]) for file in files]
    reading = sum(times[0] for times in resized)
    resizing = sum(times[2] for times in resized)
    writing = max(0.0, sum(times[2] for times in finished) - resizing)
    stages = {
        "reading the file": reading, "Huffman decoding": huffman, "inverse DCT": transform,
        "upsampling and color": color, "resizing": resizing, "float32, normalized, NCHW": writing,
    }  # fmt: skip
    whole = sum(stages.values())
    lines = ["| stage | share | µs per image |", "| --- | ---: | ---: |"]
    lines += [f"| {name} | {x / whole:.0%} | {x / len(files) * 1e6:,.0f} |" for name, x in stages.items()]
    return lines


def least(file: str, chain: list[Any]) -> tuple[float, float, float]:
    """Return the seconds of reading, decoding and the rest for an image: the minimum of several repeats."""
    plan = fused.plan(chain)
    pipeline = fused.pipeline_of(plan.recipe)  # type: ignore[arg-type]
    source = ImageFiles([file]).native_source().opened_by(extension)
    one = np.zeros(1, np.int64)
    out = np.zeros((1, *plan.shape), plan.dtype)
    found = []
    for _ in range(REPEATS):
        job = pipeline.rows(source, one, fused.place_of(seeds.Here()), out)
        job.run()
        found.append(job.seconds)
    return tuple(min(times) for times in zip(*found, strict=True))  # type: ignore[return-value]


def lock(files: list[str]) -> list[str]:
    """Return an upper bound on how long the GIL is held per thumbnail: the median of several epochs."""
    chain = (RandomResizedCrop(32), RandomHorizontalFlip(), ToFloat(), Normalize(MEAN, STD), ToCHW())
    loader = DataLoader(ImageFiles(files).map(*chain), 64, shuffle=True, seed=0, num_workers=2)
    held = []
    for _ in range(REPEATS):
        began = thread_time()
        for _ in loader:
            pass
        held.append((thread_time() - began) / len(files) * 1e6)
    return [
        f"- *thumbnails*, batches of 64: Python runs for {median(held):.1f} µs per image; other threads make the images"
    ]


def error(files: list[str]) -> list[str]:
    """Return the difference between images decoded smaller and decoded in full, scaled to 224x224."""
    exact, scaled = (ImageFiles(files, scaled_decode=one).map(Resize((224, 224))) for one in (False, True))
    difference = np.stack([
        np.abs(exact[number][0].astype(int) - scaled[number][0]) for number in range(len(files))
    ])  # fmt: skip
    decibels = 10 * np.log10(255**2 / np.mean(difference.astype(float) ** 2))
    return [
        (
            f"- *large*: scaled_decode on {len(files)} photographs of 4000x3000 to 224x224: "
            f"{difference.mean():.2f} gray levels off on average, {np.percentile(difference, 99):.0f} at the 99th "
            f"percentile, {difference.max()} at most (PSNR {decibels:.0f} dB)"
        )
    ]


def _files(folder: Path) -> list[str]:
    lines = (folder / "list.tsv").read_text().splitlines()
    return list(dict.fromkeys(line.rsplit("\t", 1)[0] for line in lines))


if __name__ == "__main__":
    main()
