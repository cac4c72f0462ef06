"""A notebook runs as a user runs it: figures show, workers start without a warning, and an interrupt ends a cell."""

from __future__ import annotations

from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("PIL")
pytest.importorskip("tqdm")

CELLS = [
    """
import os, signal, time, warnings
import numpy as np
import headrace
from headrace import ArrayDataset, DataLoader, RandomCrop
from tqdm import tqdm

images = ArrayDataset(np.zeros((12, 32, 32, 3), np.uint8), np.arange(12) % 2).map(RandomCrop(16))
loader = DataLoader(images, batch_size=4, shuffle=True, seed=0, num_workers=2)
headrace.show(loader, classes=["cat", "dog"])
""",
    "loader.lineage(epoch=0, step=0, index=0)",
    """
for batch in tqdm(loader):
    pass
loader.statistics()
""",
    """
class Squares:  # defined in a cell: there is no file that a worker could import
    def __len__(self):
        return 8
    def __getitem__(self, index):
        return index * index

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    warnings.filterwarnings("ignore", "no batch came within")  # on a busy machine
    batches = list(DataLoader(Squares(), 4, num_workers=1, backend="processes"))
assert not caught, caught[0].message
[batch.tolist() for batch in batches]
""",
    """
class Endless(Squares):
    def __init__(self, kernel):
        self.kernel = kernel
    def __getitem__(self, index):
        os.kill(self.kernel, signal.SIGINT)  # what the button does, once a worker is in the sample
        time.sleep(600)

began = time.monotonic()
try:
    for batch in DataLoader(Endless(os.getpid()), 4, num_workers=1, backend="processes"):
        pass
except KeyboardInterrupt:
    print("interrupted", "at once" if time.monotonic() - began < 300 else "late")
""",
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """What each cell put out, in one run of the notebook."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    folder = tmp_path_factory.mktemp("notebook")
    client = nbclient.NotebookClient(
        notebook, timeout=280, startup_timeout=280, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return [cell.outputs for cell in notebook.cells]


def _data(found: list[Any], kind: str) -> str:
    return "".join(str(output.data[kind]) for output in found if "data" in output and kind in output.data)


def _text(found: list[Any], stream: str) -> str:
    return "".join(output.text for output in found if output.get("name") == stream)


def test_a_loader_is_shown_as_a_figure_with_its_images(outputs: list[list[Any]]) -> None:
    """Give HTML with the contact sheet, and the table."""
    assert "data:image/png;base64," in _data(outputs[0], "text/html")
    assert "(4, 16, 16, 3)" in _data(outputs[0], "text/plain")


def test_a_lineage_is_shown_as_a_table(outputs: list[list[Any]]) -> None:
    """Give HTML with the place, the transform and what it drew."""
    html = _data(outputs[1], "text/html")
    assert html.count("<table>") == 1
    assert "RandomCrop" in html
    assert "epoch 0, step 0, index 0" in html


def test_tqdm_counts_the_batches_of_a_loader(outputs: list[list[Any]]) -> None:
    """Know the length, and show statistics as a table."""
    assert "3/3" in _text(outputs[2], "stderr")
    assert "<table>" in _data(outputs[2], "text/html")


def test_processes_start_in_a_notebook_without_a_warning(outputs: list[list[Any]]) -> None:
    """Use a dataset of a cell in worker processes, though the notebook's process has threads."""
    assert _data(outputs[3], "text/plain") == "[[0, 1, 4, 9], [16, 25, 36, 49]]"
    assert _text(outputs[3], "stderr") == ""


def test_an_interrupt_ends_a_cell_at_once(outputs: list[list[Any]]) -> None:
    """Raise KeyboardInterrupt in the cell, and end the workers, though a sample takes minutes."""
    assert _text(outputs[4], "stdout") == "interrupted at once\n"
