"""torch's default device and dtype, and its modes: no batch depends on them, or on who makes it."""

from __future__ import annotations

from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("h5py")
pytest.importorskip("cv2")

from tests.foreign_states import HOW, called, digests, write_files  # noqa: E402

import headrace.torch  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:.*(use of fork|palette|number of threads).*")


@pytest.fixture(scope="module", autouse=True)
def helper_of_multiprocessing() -> None:
    """Start the process that multiprocessing starts once and leaves running, before leaks are counted."""
    resource_tracker.ensure_running()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("foreign")
    write_files(made)
    return made


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, str]:
    return digests(folder, headrace.torch.DataLoader)


class Passing(torch.overrides.TorchFunctionMode):  # type: ignore[misc,name-defined]
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **(kwargs or {}))


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


STATES: dict[str, Callable[[], Any]] = {
    "default device": lambda: default_device("meta"),
    "device of a block": lambda: torch.device("meta"),
    "double": lambda: called(torch.set_default_dtype, torch.float64, torch.float32),
    "half": lambda: called(torch.set_default_dtype, torch.float16, torch.float32),
    "inference": torch.inference_mode,
    "no gradients": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "deterministic": lambda: called(lambda on: torch.use_deterministic_algorithms(bool(on)), 1, 0),
    "no denormals": lambda: called(lambda on: torch.set_flush_denormal(bool(on)), 1, 0),
    "a mode": Passing,
    "one thread": lambda: called(torch.set_num_threads, 1, torch.get_num_threads()),
    "seeded": lambda: called(torch.manual_seed, 1, 2),
}


@pytest.mark.parametrize("state", STATES)
def test_settings_of_torch_change_no_byte(state: str, folder: Path, expected: dict[str, str]) -> None:
    """Run every pipeline on every executor under the settings."""
    with STATES[state]():
        found = digests(folder, headrace.torch.DataLoader)
    assert found == expected


class Tensors:
    """Tensors that a user's dataset makes, of the default device and dtype."""

    suits_threads = True

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return {"made": torch.full((3,), index / 2), "number": torch.tensor(index), "array": np.float32(index)}


@pytest.mark.parametrize("how", [*HOW, "spawned"])
@pytest.mark.parametrize("batch_size", [4, None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_a_dataset_makes_is_the_same_on_every_executor(how: str, batch_size: int | None, dtype: Any) -> None:
    """Make tensors on the CPU, of the default dtype of the program, in workers that were spawned too."""
    if how == "spawned" and batch_size is None:
        pytest.skip("one spawned process is enough")
    executor: dict[str, Any] = {
        **HOW,
        "spawned": {"num_workers": 1, "backend": "processes", "multiprocessing_context": "spawn"},
    }[how]
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"), headrace.torch.DataLoader(Tensors(), batch_size, **executor) as loader:
            batches = list(loader)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {value.device.type for batch in batches for value in batch.values()} == {"cpu"}
    assert {batch["made"].dtype for batch in batches} == {dtype}
    assert np.allclose(np.stack([batch["made"].numpy() for batch in batches]).reshape(4, 3)[:, 0], [0, 0.5, 1, 1.5])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_order_is_drawn_under_any_default_device(workers: int) -> None:
    """Shuffle with torch's generators where the default device has no memory."""
    torch.manual_seed(5)
    expected = torch.cat(list(headrace.torch.DataLoader(range(20), 4, shuffle=True, num_workers=workers)))
    torch.manual_seed(5)
    with torch.device("meta"):
        loader: Any = headrace.torch.DataLoader(range(20), 4, shuffle=True, num_workers=workers)
        found = list(loader)
    assert torch.equal(torch.cat(found), expected)
