"""Streaming a whole tree takes no more memory at the end than soon after the start: singly and in batches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.image_files import encoded, photo

CLASSES, FILES, SOURCES = 808, 28_204, 24
MIB = 1 << 20

SINGLY = "enumerate(dataset)"
IN_BATCHES = """(
    (64 * (step + 1) - 1, (image, label))
    for step, (images, labels) in enumerate(headrace.DataLoader(
        dataset.map(headrace.Resize((32, 32))), 64, shuffle=True, seed=0, num_workers={workers}
    ))
    for image, label in zip(images[-1:], labels[-1:])
)"""
STREAM = """
import sys
import headrace

def resident():
    with open("/proc/self/statm") as facts:
        return int(facts.read().split()[1])

dataset = headrace.ImageFolder(sys.argv[1])
read, before = 0, None
for index, (image, label) in {samples}:
    assert image.shape[2] == 3
    read = index + 1
    if before is None and index >= 999:
        before = resident()
print(len(dataset), len(dataset.classes), read, before, resident())
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """28,204 images in 808 class folders: links to two dozen files, so that making them is quick."""
    folder = tmp_path_factory.mktemp("streaming")
    sources = []
    for number in range(SOURCES):
        source = folder / f"{number}.jpg"
        source.write_bytes(encoded(photo(number, 24 + number, 32)))
        sources.append(source)
    root = folder / "tree"
    for number in range(CLASSES):
        (root / f"class{number:03d}").mkdir(parents=True)
    for number in range(FILES):
        os.link(sources[number % SOURCES], root / f"class{number % CLASSES:03d}" / f"{number:05d}.jpg")
    return root


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks /proc how much memory is resident")
@pytest.mark.parametrize(
    "samples",
    [SINGLY, IN_BATCHES.format(workers=0), IN_BATCHES.format(workers=2)],
    ids=["singly", "in batches", "in batches on two threads"],
)
def test_streaming_a_large_tree_takes_no_more_memory(tree: Path, samples: str) -> None:
    """Grow by less than 10 MiB from the thousandth of 28,204 images in 808 folders to the last.

    By the thousandth, more batches were made than are ever in flight at once: what those take is counted before.
    """
    script = STREAM.format(samples=samples)
    said = subprocess.run([sys.executable, "-c", script, str(tree)], capture_output=True, text=True, check=True)
    files, classes, read, before, after = map(int, said.stdout.split())
    assert (files, classes) == (FILES, CLASSES)
    assert read >= FILES - 1
    assert (after - before) * os.sysconf("SC_PAGE_SIZE") < 10 * MIB
