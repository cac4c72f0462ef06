"""One module asks what is loaded of torch and JAX; it answers without them, and imports neither."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace.interop import torch_state

ROOT = Path(headrace.__file__).parent
OTHERS = {
    "cli/replay_command.py",
    "cli/script_objects.py",
    "executors/processes/warm_server.py",
    "executors/registry.py",
    "interop/machine.py",
    "run/tuning/makers.py",
    "testing/__init__.py",
}
"""Files that look at the user's own script, whether a notebook runs it, or where modules were loaded from."""


def test_no_other_file_asks_for_loaded_modules() -> None:
    """Find `sys.modules` in one file, where the user's script is meant, and where torch is imported anyway."""
    asking = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        if path.parent != ROOT / "torch"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.modules"
    }
    assert asking - OTHERS == {"interop/torch_state.py"}


def test_a_program_without_torch_is_answered_and_imports_nothing() -> None:
    """Answer no, None or nothing to every question."""
    script = """
import sys
from headrace.interop import torch_state as ts
assert not [name for name in ("torch", "jax", "ml_dtypes") if name in sys.modules]
print(ts.loaded(), ts.default_generator(), ts.is_tensor(3), ts.is_generator(3), ts.is_bfloat16(3), ts.process_group(),
      ts.iterable_dataset(), ts.worker_module(), ts.jax_processes(), ts.has_ml_dtypes())
assert not [name for name in ("torch", "jax", "ml_dtypes") if name in sys.modules]
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["None", "None", "False", "False", "False", "None", "None", "None", "None", "False"]


def test_a_torch_that_is_being_imported_is_not_there_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say None until torch is whole: another thread may be importing it."""
    monkeypatch.setitem(sys.modules, "torch", type(sys)("torch"))
    assert torch_state.loaded() is None
    assert torch_state.default_generator() is None
    assert not torch_state.is_tensor(3)


def test_what_torch_has_is_known() -> None:
    """Tell tensors, generators, dtypes and classes of torch from all else."""
    torch: Any = pytest.importorskip("torch")
    data: Any = pytest.importorskip("torch.utils.data")

    assert torch_state.loaded() is torch
    assert torch_state.default_generator() is torch.default_generator
    assert torch_state.is_tensor(torch.zeros(2))
    assert torch_state.is_tensor(torch.nn.Parameter(torch.zeros(2)))
    assert not torch_state.is_tensor([0.0])
    assert torch_state.is_generator(torch.Generator())
    assert not torch_state.is_generator(torch.zeros(2))
    assert torch_state.is_bfloat16(torch.zeros(2, dtype=torch.bfloat16))
    assert not torch_state.is_bfloat16(torch.zeros(2))
    assert torch_state.iterable_dataset() is data.IterableDataset
    assert hasattr(torch_state.worker_module(), "WorkerInfo")
    assert torch_state.process_group() is None


def test_a_process_group_is_known_while_it_is_initialized(tmp_path: Path) -> None:
    """Give torch.distributed from `init_process_group` to `destroy_process_group`."""
    torch: Any = pytest.importorskip("torch")
    group: Any = pytest.importorskip("torch.distributed")
    if not group.is_available():
        pytest.skip("this torch is built without torch.distributed")
    group.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        assert torch_state.process_group() is torch.distributed
    finally:
        group.destroy_process_group()
    assert torch_state.process_group() is None


def test_one_process_of_jax_counts_as_none() -> None:
    """Say None where JAX has no other process."""
    pytest.importorskip("jax")
    assert torch_state.jax_processes() is None
