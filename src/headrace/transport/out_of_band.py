"""Pickling a batch for another process: large buffers, those of tensors too, stay outside of the pickle."""

from __future__ import annotations

import copyreg
import io
import pickle
from collections import ChainMap
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.interop import floats, torch_state
from headrace.storage.mapped_samples import in_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def dumped(thing: Any, apart: Callable[[pickle.PickleBuffer], Any]) -> bytes:
    """Pickle something (protocol 5); ``apart`` gets each buffer, and returns whether it stays in the pickle.

    >>> buffers = []
    >>> head = dumped({"x": np.arange(1000)}, buffers.append)
    >>> len(head) < 1000, buffers[0].raw().nbytes
    (True, 8000)
    >>> pickle.loads(head, buffers=buffers)["x"][-1]
    np.int64(999)
    """
    file = io.BytesIO()
    pickler = pickle.Pickler(file, protocol=5, buffer_callback=apart)
    if own := reducers():
        pickler.dispatch_table = ChainMap(own, copyreg.dispatch_table)  # type: ignore[arg-type]  # looser stubs
    pickler.dump(thing)
    return file.getvalue()


def reducers() -> dict[type, Callable[[Any], Any]]:
    """Return our own ways of pickling, by type.

    They are for memory maps, read under a guard, and for tensors and bfloat16, whose memory then stays outside.

    torch's own way, and NumPy's for a dtype that exports no buffer, put it into the pickle. A subclass keeps its own
    way. A library that is not loaded has made no tensor and no such array.
    """
    own: dict[type, Callable[[Any], Any]] = {np.memmap: _reduce_memmap}
    torch = torch_state.loaded()
    if torch is not None:
        own[torch.Tensor] = _reduce_tensor
    if torch_state.has_ml_dtypes():
        own[np.ndarray] = _reduce_array
    return own


def _reduce_memmap(array: NDArray[Any]) -> Any:
    return in_memory(array).__reduce_ex__(5)  # its own way reads the file without a guard


def _reduce_array(array: NDArray[Any]) -> Any:
    if not floats.is_bfloat16(array.dtype) or not array.flags.c_contiguous:
        return array.__reduce_ex__(5)
    return _array, (pickle.PickleBuffer(floats.bits(array).data), array.dtype, array.shape)


def _array(buffer: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    return _writable(buffer).view(dtype).reshape(shape)


def _reduce_tensor(tensor: Any) -> Any:
    torch = torch_state.loaded()
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not plain or tensor.is_nested or tensor.grad_fn is not None or vars(tensor):
        return tensor.__reduce_ex__(5)
    memory = tensor.detach().resolve_conj().resolve_neg().contiguous()
    raw = memory.reshape(-1).view(torch.uint8).numpy()
    return _tensor, (pickle.PickleBuffer(raw), memory.dtype, tuple(memory.shape), tensor.requires_grad)


def _tensor(buffer: Any, dtype: Any, shape: tuple[int, ...], requires_grad: bool) -> Any:
    torch = torch_state.loaded()
    tensor = torch.from_numpy(_writable(buffer)).view(dtype).reshape(shape)
    return tensor.requires_grad_() if requires_grad else tensor


def _writable(buffer: Any) -> NDArray[np.uint8]:
    raw = np.frombuffer(buffer, np.uint8)
    return raw if raw.flags.writeable else raw.copy()  # it came inside the pickle
