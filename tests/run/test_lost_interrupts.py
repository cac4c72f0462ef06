"""Nothing that ends with a loop runs Python code when it is dropped: Ctrl-C in such code is lost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.image_files import encoded, photo

from headrace import DataLoader, ImageFiles, Resize

if TYPE_CHECKING:
    from types import FrameType

WORKERS: dict[str, dict[str, Any]] = {
    "inline": {},
    "threads": {"num_workers": 2, "backend": "threads"},
    "processes": {"num_workers": 2, "backend": "processes", "multiprocessing_context": "fork"},
    "kept": {
        "num_workers": 2,
        "backend": "processes",
        "multiprocessing_context": "fork",
        "persistent_workers": True,
    },
}


SHORT = {"memory.py: _Lease.__del__", "slots.py: _Lease.__del__"}
"""One line each, after nothing slow."""


def negative(sample: Any) -> Any:
    image, label = sample
    return np.subtract(255, image), label


@pytest.mark.filterwarnings("ignore:.*use of fork")
@pytest.mark.parametrize("own", [False, True], ids=["native", "own transform"])
@pytest.mark.parametrize("how", WORKERS)
def test_what_a_loop_drops_runs_no_code(how: str, tmp_path: Path, *, own: bool) -> None:
    """Record the calls in the loop's thread: none is a destructor's, or a weak reference's."""
    for number in range(9):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(photo(number, 260, 300)))
    images: Any = ImageFiles(sorted(tmp_path.iterdir())).map(Resize((256, 256)))
    loader: DataLoader[Any] = DataLoader(images.map(negative) if own else images, 2, **WORKERS[how])
    calls = list[str]()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name in ("__del__", "_remove", "remove"):
            calls.append(f"{Path(frame.f_code.co_filename).name}: {frame.f_code.co_qualname}")

    for batch in loader:  # what is done once: imports, the first memory
        del batch
    iterator = iter(loader)
    sys.setprofile(note)
    try:
        for batch in iterator:
            del batch
        again = list(loader)
        del again, iterator
    finally:
        sys.setprofile(None)
    assert set(calls) <= SHORT
