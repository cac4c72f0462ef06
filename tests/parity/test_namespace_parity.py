"""The names of torch.utils.data under ours: replace one by the other in a source tree, and every import works."""

from __future__ import annotations

import pickle
import pkgutil
import subprocess
import sys
import textwrap
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")
import torch.utils.data as theirs  # noqa: E402

import headrace.torch as ours  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

NEED_MORE = {"torch.utils.data.datapipes.gen_pyi"}
"""What torch's own build runs, with a library that only the build has."""

MODULES = sorted({module.name for module in pkgutil.walk_packages(theirs.__path__, "torch.utils.data.")} - NEED_MORE)
REPLACED = {"DataLoader", "default_collate", "default_convert"}
WITH_OURS = {"torch.utils.data", "torch.utils.data.dataloader", "torch.utils.data._utils.collate"}


def under_our_name(name: str) -> str:
    return "headrace.torch" + name.removeprefix("torch.utils.data")


@pytest.mark.parametrize("name", ["torch.utils.data", *MODULES])
def test_each_module_has_every_name(name: str) -> None:
    """Have what torch has, private names too: its own, ours in three cases, and modules under our name."""
    module, mirror = import_module(name), import_module(under_our_name(name))
    for attribute in dir(module):
        if attribute.startswith("__"):
            continue
        expected, found = getattr(module, attribute), getattr(mirror, attribute)
        if isinstance(expected, ModuleType) and expected.__name__.startswith("torch.utils.data."):
            assert found is sys.modules[under_our_name(expected.__name__)]
        elif attribute in REPLACED and name in WITH_OURS:
            assert found is getattr(ours, attribute)
        else:
            assert found is expected
    assert set(dir(module)) <= {*dir(mirror), *dir(ModuleType)}
    assert set(getattr(module, "__all__", ())) <= set(getattr(mirror, "__all__", ()))


IMPORTS = """
import torch.utils.data
import torch.utils.data as data
import torch.utils.data.distributed
import torch.utils.data.dataloader as loaders
from torch.utils.data import *
from torch.utils.data import DataLoader, Dataset, get_worker_info, _utils
from torch.utils.data._utils.collate import default_collate, default_collate_fn_map, collate
from torch.utils.data._utils.worker import WorkerInfo, _worker_loop
from torch.utils.data._utils.pin_memory import pin_memory
from torch.utils.data.dataloader import DataLoader as Again, _BaseDataLoaderIter, default_convert
from torch.utils.data.dataloader import *
from torch.utils.data.dataset import ConcatDataset, IterableDataset, random_split
from torch.utils.data.datapipes.iter import IterableWrapper
from torch.utils.data.distributed import DistributedSampler
from torch.utils.data.sampler import BatchSampler, RandomSampler, Sampler

assert Again is DataLoader is torch.utils.data.DataLoader is loaders.DataLoader is data.dataloader.DataLoader
assert issubclass(torch.utils.data.distributed.DistributedSampler, Sampler)
assert torch.utils.data._utils.collate.default_collate([1, 2]).tolist() == [1, 2]
assert collate([1, 2], collate_fn_map=default_collate_fn_map).tolist() == [1, 2]
assert [batch.tolist() for batch in data.DataLoader(IterableWrapper(range(3)), 2)] == [[0, 1], [2]]
print(DataLoader.__module__)
"""


def test_a_source_file_imports_under_either_name(tmp_path: Path) -> None:
    """Run a script with every form of import, as it is and with our name in the place of torch's."""
    said = []
    for number, text in enumerate([IMPORTS, IMPORTS.replace("torch.utils.data", "headrace.torch")]):
        script = tmp_path / f"script{number}.py"
        script.write_text(text)
        run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        said.append(run.stdout.strip())
    assert said == ["torch.utils.data.dataloader", "headrace.torch"]


def test_what_is_set_in_a_mirror_is_set_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Change a setting of torch's through our name."""
    mirror: Any = import_module("headrace.torch._utils")
    monkeypatch.setattr(theirs._utils, "MP_STATUS_CHECK_INTERVAL", theirs._utils.MP_STATUS_CHECK_INTERVAL)
    mirror.MP_STATUS_CHECK_INTERVAL = 7.5
    assert theirs._utils.MP_STATUS_CHECK_INTERVAL == mirror.MP_STATUS_CHECK_INTERVAL == 7.5


def test_what_is_nowhere_is_an_error() -> None:
    """Raise what Python raises for any module."""
    with pytest.raises(AttributeError, match=r"module 'headrace.torch' has no attribute 'Nothing'"):
        _ = ours.Nothing
    with pytest.raises(AttributeError, match=r"module 'headrace.torch.sampler' has no attribute 'Nothing'"):
        _ = ours.sampler.Nothing
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        exec("from headrace.torch import Nothing")
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'headrace.torch.nothing'"):
        import_module("headrace.torch.nothing")


def test_a_torch_without_data_pipes_is_no_hindrance() -> None:
    """Import and load without them; where somebody asks for one, say what is there in its place."""
    script = textwrap.dedent("""
        import sys
        import torch.utils.data as data
        modules = ("torch.utils.data.datapipes", "torch.utils.data.graph")
        pipes = [name for name in sys.modules if name.startswith(modules)]
        for name in [name for name in vars(data) if "Pipe" in name or name.endswith("datapipe")]:
            delattr(data, name)
        for name in ("datapipes", "graph", "graph_settings"):
            delattr(data, name)
        data.__all__ = [name for name in data.__all__ if hasattr(data, name)]
        data.__path__ = []
        for name in pipes:
            del sys.modules[name]
        import headrace.torch
        print([batch.tolist() for batch in headrace.torch.DataLoader(range(3), 2)])
        for line in ("from headrace.torch import IterDataPipe", "import headrace.torch.datapipes.iter"):
            try:
                exec(line)
            except ImportError as error:
                print(error)
    """)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    batches, name, module = run.stdout.strip().splitlines()
    assert batches == "[[0, 1], [2]]"
    assert name.startswith("headrace.torch has no IterDataPipe: torch")
    assert module.startswith("headrace.torch has no datapipes: torch")
    assert all("write a Dataset or an IterableDataset" in line for line in (name, module))


def test_public_names_say_where_users_import_them() -> None:
    """Name the package, not the file, and pickle by that name."""
    for name in ("DataLoader", "StatefulDataLoader", "StatefulDistributedSampler", "default_collate", "on_device"):
        thing = getattr(ours, name)
        assert (thing.__module__, thing.__qualname__) == ("headrace.torch", name)
        assert pickle.loads(pickle.dumps(thing)) is thing
