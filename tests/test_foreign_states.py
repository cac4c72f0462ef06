"""What others have set in a process reaches no batch, and makes none depend on who makes it."""

from __future__ import annotations

import decimal
import json
import os
import shutil
import subprocess
import sys
import warnings
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import DataLoader
from tests.foreign_states import HOW, STATES, digest, digests, pipelines, write_files

pytest.importorskip("h5py")
pytest.importorskip("cv2")
pytestmark = pytest.mark.filterwarnings("ignore:.*(use of fork|palette).*")


@pytest.fixture(scope="module", autouse=True)
def helpers_of_multiprocessing() -> None:
    """Start the two processes that multiprocessing starts once and leaves running, before leaks are counted."""
    forkserver.ensure_running()
    resource_tracker.ensure_running()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("foreign")
    write_files(made)
    return made


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, str]:
    return digests(folder)


def test_executors_agree(expected: dict[str, str]) -> None:
    """Compare the executors where nobody has changed anything."""
    names = {key.partition(" on ")[0] for key in expected}
    assert len(set(expected.values())) == len(names)
    assert all(len({expected[f"{name} on {how}"] for how in HOW}) == 1 for name in names)


@pytest.mark.parametrize("state", STATES)
def test_settings_of_others_change_no_byte(state: str, folder: Path, expected: dict[str, str]) -> None:
    """Run every pipeline on every executor under the settings."""
    with STATES[state]():
        found = digests(folder)
    assert found == expected


ENVIRONMENTS: dict[str, dict[str, str]] = {
    "of libraries": {
        "PYTHONHASHSEED": "1",
        "OPENCV_IO_MAX_IMAGE_PIXELS": "10",
        "OPENCV_IO_MAX_IMAGE_WIDTH": "10",
        "OPENCV_OPENCL_RUNTIME": "disabled",
        "OPENCV_FOR_THREADS_NUM": "1",
        "PILLOW_BLOCK_SIZE": "4k",
        "PILLOW_ALIGNMENT": "64",
        "JSIMD_FORCENONE": "1",
        "HDF5_USE_FILE_LOCKING": "FALSE",
        "OMP_NUM_THREADS": "1",
    },
    "of Python": {"PYTHONHASHSEED": "2", "PYTHONOPTIMIZE": "2", "LC_ALL": "C", "TZ": "Asia/Tokyo"},
    "of developers": {"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "ignore"},
}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_variables_of_the_environment_change_no_byte(environment: str, folder: Path, expected: dict[str, str]) -> None:
    """Run every pipeline on every executor in a process of its own."""
    root = Path(__file__).parent.parent
    ended = subprocess.run(
        [sys.executable, "-m", "tests.foreign_states", str(folder)],
        env={**os.environ, **ENVIRONMENTS[environment]},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == expected


class Dividing:
    """What a dataset of a user's makes of NumPy's and decimal's settings."""

    suits_threads = True

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return np.float64(1) / np.float64(index), float(decimal.Decimal(1) / decimal.Decimal(index + 3))


@pytest.mark.parametrize("how", [*HOW, "spawned", "threads of processes"])
def test_a_dataset_finds_the_settings_of_the_loop_on_every_executor(how: str) -> None:
    """Give workers the error handling and the decimal context of the thread that begins the loop."""
    processes: dict[str, Any] = {"num_workers": 2, "backend": "processes"}
    executors: dict[str, dict[str, Any]] = {
        **HOW,
        "spawned": {**processes, "multiprocessing_context": "spawn"},
        "threads of processes": {**processes, "threads_per_worker": 2, "multiprocessing_context": "fork"},
    }
    with decimal.localcontext(prec=3), np.errstate(divide="ignore"):
        with DataLoader(Dividing(), 8, **executors[how]) as loader:
            ((quotients, exact),) = loader
        assert quotients[0] == np.inf
        assert exact.tolist() == [0.333, 0.25, 0.2, 0.167, 0.143, 0.125, 0.111, 0.1]
    with np.errstate(divide="raise"), DataLoader(Dividing(), 8, **executors[how]) as loader:  # noqa: SIM117
        with pytest.raises(FloatingPointError):
            list(loader)


@pytest.mark.parametrize("how", [*HOW, "spawned"])
def test_relative_paths_begin_where_the_dataset_was_made(
    how: str, folder: Path, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read the same files after the working folder has changed, which was removed meanwhile."""
    import hashlib

    executor: dict[str, Any] = {
        **HOW,
        "spawned": {"num_workers": 1, "backend": "processes", "multiprocessing_context": "spawn"},
    }[how]
    here = tmp_path / "here"
    shutil.copytree(folder, here)
    monkeypatch.chdir(here)
    for name, (make, options) in pipelines(Path()).items():
        if how == "spawned" and name not in ("native", "list", "hdf5", "arrays"):
            continue
        monkeypatch.chdir(here)
        dataset = make()
        monkeypatch.chdir("/")
        into = hashlib.sha256()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with DataLoader(dataset, 5, shuffle=True, seed=3, **options, **executor) as loader:
                for batch in loader:
                    digest(batch, into)
        assert into.hexdigest()[:16] == expected[f"{name} on inline"], name
