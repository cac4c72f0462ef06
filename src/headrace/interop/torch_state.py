"""What this program has loaded of torch, JAX, Ray Train and ml_dtypes: the only place that asks `sys.modules` for them.

None of them is ever imported here. A tensor, a generator or a process group exists only where its library is loaded,
so that asking `sys.modules` is enough, and a program without torch pays nothing for it.

>>> is_tensor([1, 2]), is_generator(3), process_group()
(False, False, None)
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from headrace.storage.mapped_samples import copy_guarded

if TYPE_CHECKING:
    from collections.abc import Callable


def loaded() -> Any:
    """Return torch if this program has loaded it; None also while it is still being imported."""
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "default_generator") else None


def default_generator() -> Any:
    """Return torch's global generator; None without torch."""
    torch = loaded()
    return None if torch is None else torch.default_generator


def is_tensor(thing: object) -> bool:
    """Say whether a thing is a torch tensor."""
    torch = loaded()
    return torch is not None and isinstance(thing, torch.Tensor)


def is_generator(thing: object) -> bool:
    """Say whether a thing is a torch generator."""
    torch = loaded()
    return torch is not None and isinstance(thing, torch.Generator)


def is_bfloat16(thing: object) -> bool:
    """Say whether a thing is a tensor of bfloat16, which torch cannot convert to NumPy."""
    return is_tensor(thing) and str(getattr(thing, "dtype", "")) == "torch.bfloat16"


def on_cpu() -> AbstractContextManager[Any]:
    """Let tensors be made on the CPU in a block, whatever the default device of this thread is.

    Other threads have a default device of their own, so that a batch would depend on who makes it.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return _NOTHING
    # How many modes are in force that may change functions of torch, as a default device does.
    modes = getattr(getattr(torch, "_C", None), "_len_torch_function_stack", None)
    if (modes is not None and not modes()) or loaded() is None:
        return _NOTHING
    device: AbstractContextManager[Any] = torch.device("cpu")
    return device


def modes() -> Callable[[], int]:
    """Return what says whether `on_cpu` has anything to do, in less time than entering it takes."""
    torch = loaded()
    count: Callable[[], int] | None = getattr(getattr(torch, "_C", None), "_len_torch_function_stack", None)
    return _may_have_modes if count is None else count


def _may_have_modes() -> int:
    return "torch" in sys.modules


def in_memory(thing: Any) -> Any:
    """Return a tensor that may lie in a memory-mapped file copied; anything else as it is.

    A tensor over the memory of an array does not name it, but its storage cannot be resized. Raises `BadFile` if the
    memory cannot be read.
    """
    torch = loaded()
    if torch is None or type(thing) is not torch.Tensor or thing.layout is not torch.strided or thing.requires_grad:
        return thing
    if thing.device.type != "cpu" or thing.untyped_storage().resizable() or thing.is_conj() or thing.is_neg():
        return thing
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(thing.element_size())
    if bits is None:
        return thing
    copy = torch.empty(thing.shape, dtype=thing.dtype, device="cpu")
    copy_guarded(copy.view(bits).numpy(), thing.view(bits).numpy())
    return copy


def iterable_dataset() -> type | None:
    """Return torch's ``IterableDataset``; None where ``torch.utils.data`` is not loaded."""
    return getattr(data_module(), "IterableDataset", None)


def data_module() -> Any:
    """Return ``torch.utils.data``; None where it is not loaded."""
    return sys.modules.get("torch.utils.data")


def torchvision_module(name: str = "") -> Any:
    """Return torchvision, or a module of its by the name there ("datasets.folder"); None where it is not loaded."""
    return sys.modules.get(f"torchvision.{name}" if name else "torchvision")


def worker_module() -> Any:
    """Return the module in which torch's workers keep their ``WorkerInfo``; None where it is not loaded."""
    module = sys.modules.get("torch.utils.data._utils.worker")
    return module if hasattr(module, "WorkerInfo") else None


def process_group() -> Any:
    """Return ``torch.distributed`` if its process group is initialized, else None."""
    group: Any = sys.modules.get("torch.distributed")
    # A torch that is built without it has the module, but not the question whether it is initialized.
    return group if group is not None and group.is_available() and group.is_initialized() else None


def jax_processes() -> tuple[int, int] | None:
    """Return the index of this process and their number where JAX has several, else None."""
    jax: Any = sys.modules.get("jax")
    if jax is None or not hasattr(jax, "process_count") or jax.process_count() <= 1:
        return None
    return jax.process_index(), jax.process_count()


def ray_train_worker() -> tuple[int, int] | None:
    """Return rank and world size of a worker of Ray Train; None elsewhere."""
    train: Any = sys.modules.get("ray.train")
    if not hasattr(train, "get_context"):
        return None
    try:
        context = train.get_context()
        place = context.get_world_rank(), context.get_world_size()
    except Exception:  # noqa: BLE001  its errors outside of a worker are not public, and differ by version
        return None
    return place if all(isinstance(each, int) for each in place) else None


def has_ml_dtypes() -> bool:
    """Say whether ml_dtypes is loaded: without it no array of bfloat16 exists."""
    return "ml_dtypes" in sys.modules


_NOTHING: AbstractContextManager[Any] = nullcontext()
