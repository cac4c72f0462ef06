"""headrace for torch: the names of ``torch.utils.data``, and a `DataLoader` whose batches are tensors.

>>> from headrace.torch import DataLoader, TensorDataset  # in place of torch.utils.data
>>> loader = DataLoader(TensorDataset(torch.arange(6.0), torch.arange(6)), batch_size=4, num_workers=2)
>>> [labels for features, labels in loader]
[tensor([0, 1, 2, 3]), tensor([4, 5])]

Datasets and samplers are torch's own, so that what asks ``isinstance`` finds what it looks for; those of `headrace` can
be used beside them. This is the only file that imports torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.utils.data
from torch.utils.data import (
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    Dataset,
    DistributedSampler,
    IterableDataset,
    IterDataPipe,
    RandomSampler,
    Sampler,
    SequentialSampler,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
    graph_settings,
    random_split,
)
from torch.utils.data._utils import collate as torchs

from headrace import loader as numpy_loader
from headrace.checks import article
from headrace.collate import default as arrays
from headrace.collate.containers import like_mapping, like_sequence
from headrace.collate.default import name_of
from headrace.collate.exact import check_unmasked, numbers, of_one_type
from headrace.collate.register import registered
from headrace.context import seeds
from headrace.errors import CollateError, CollateTypeError
from headrace.interop import floats, torch_rows
from headrace.interop.sampler_states import check_count
from headrace.run.adapter import Adapter
from headrace.transforms.base import Compose
from headrace.transforms.image_transform import finishing

if TYPE_CHECKING:
    from headrace.context.memory import Empty

T_co = TypeVar("T_co", covariant=True)

__all__ = [
    "BatchSampler",
    "ChainDataset",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "DistributedSampler",
    "IterableDataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "StackDataset",
    "StatefulDataLoader",
    "StatefulDistributedSampler",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "WeightedRandomSampler",
    "as_tensors",
    "default_collate",
    "default_convert",
    "get_worker_info",
    "on_device",
    "pinned",
    "random_split",
]


def default_collate(
    samples: Sequence[Any], *, empty: Empty = np.empty, collate_fn_map: arrays.Functions | None = None
) -> Any:
    """Put samples together in one batch of tensors, by the rules of ``torch.utils.data.default_collate``.

    >>> default_collate([(np.zeros(3, np.float32), 7, "a"), (np.ones(3, np.float32), 8, "b")])
    [tensor([[0., 0., 0.],
            [1., 1., 1.]]), tensor([7, 8]), ['a', 'b']]

    Arrays and tensors of one shape are written into memory that a loader lends (``empty``) and uses again, and that the
    batch's tensors share. Differences from torch, knowingly made: samples that do not fit together are named in the
    error, and a key that only some of them have is an error, where torch drops it. Raises as
    `headrace.default_collate` does; the errors are RuntimeError and TypeError, as in torch.
    """
    found = _functions(collate_fn_map or arrays.NO_FUNCTIONS, torchs.default_collate_fn_map, registered())
    return arrays.collated(samples, found, empty)


def default_convert(data: Any) -> Any:
    """Make tensors of the arrays and NumPy scalars in one sample, by the rules of ``torch.utils.data.default_convert``.

    >>> default_convert((np.zeros(2, np.float32), 7, "a"))
    [tensor([0., 0.]), 7, 'a']

    torch's own knows no bfloat16 of NumPy's. Raises `CollateTypeError` for an array that cannot be a tensor.
    """
    return _converted(data, ())


def _converted(data: Any, place: tuple[Any, ...]) -> Any:
    if type(data) in _AS_THEY_ARE:
        return data
    if isinstance(data, np.ndarray | np.generic) and floats.is_bfloat16(data.dtype):
        return _tensor(np.asarray(data))
    if isinstance(data, Mapping):
        return like_mapping(data, {key: _converted(data[key], (*place, key)) for key in data})
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        return like_sequence(data, [_converted(item, (*place, number)) for number, item in enumerate(data)])
    check_unmasked(data, 0, arrays.field_of(place))
    if isinstance(data, np.ndarray) and not data.dtype.isnative:
        return _held(data, arrays.field_of(place))
    if isinstance(data, np.ndarray | np.generic):
        with torch.device("cpu"):  # whatever the user's default device is
            return torch.utils.data.default_convert(data)
    return torch.utils.data.default_convert(data)


_AS_THEY_ARE = frozenset({torch.Tensor, int, float, bool, str, bytes})


def as_tensors(batch: Any) -> Any:
    """Turn the arrays in a batch into tensors that share their memory; strings and bytes stay.

    >>> as_tensors({"x": np.zeros(2), "name": ["a", "b"]})
    {'x': tensor([0., 0.], dtype=torch.float64), 'name': ['a', 'b']}

    bfloat16 of ml_dtypes is torch's. An array of a dtype that torch has not (strings, objects, dates) raises TypeError.
    """
    return _as_tensors(batch, ())


def _as_tensors(batch: Any, place: tuple[Any, ...]) -> Any:
    if type(batch) is torch.Tensor:
        return batch
    if type(batch) is list:
        return [_as_tensors(value, (*place, number)) for number, value in enumerate(batch)]
    if isinstance(batch, np.ndarray):
        return _held(batch, arrays.field_of(place))
    if isinstance(batch, Mapping):
        return {key: _as_tensors(value, (*place, key)) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return [_as_tensors(value, (*place, number)) for number, value in enumerate(batch)]
    return batch


def pinned(batch: Any, device: Any = None) -> Any:
    """Copy the tensors in a batch to page-locked memory, from which a GPU takes them while the program goes on.

    Containers keep their kind; anything else that has a method ``pin_memory`` is asked to do it itself, as in torch.
    """
    if isinstance(batch, torch.Tensor):
        return batch.pin_memory(device) if device is not None else batch.pin_memory()
    if hasattr(batch, "pin_memory"):
        return batch.pin_memory()
    if isinstance(batch, str | bytes):
        return batch
    if isinstance(batch, Mapping):
        return like_mapping(batch, {key: pinned(value, device) for key, value in batch.items()})
    if isinstance(batch, Sequence):
        items = [pinned(value, device) for value in batch]
        return tuple(items) if type(batch) is tuple else like_sequence(batch, items)
    return batch


class on_device(torch.nn.Module):  # noqa: N801  as headrace.jax has it, where it is a function
    """Finish batches where they lie: `ToFloat`, `Normalize`, `ToCHW` and `ToDtype`, done on a device.

    >>> from headrace import Normalize, ToCHW, ToFloat
    >>> finish = on_device(ToFloat(), Normalize((0.5, 0.4, 0.3), 0.25), ToCHW())
    >>> batch = torch.full((2, 8, 9, 3), 255, dtype=torch.uint8)  # .to("cuda")
    >>> finish(batch).shape, finish(batch).dtype, finish(batch)[0, :, 0, 0]
    (torch.Size([2, 3, 8, 9]), torch.float32, tensor([2.0000, 2.4000, 2.8000]))

    Left out of the dataset, they let batches be bytes on their way: a quarter of the memory. Batches are ``(N, H, W)``
    or ``(N, H, W, C)``, and ``(N, C, H, W)`` behind `ToCHW`; the values are those of the transforms themselves, but for
    float32's rounding. As a module it can be the first of a model, goes with it to its device, and has nothing to
    learn or to save. Raises `headrace.errors.ArgumentError` for any other transform.
    """

    def __init__(self, *transforms: Any) -> None:
        super().__init__()
        self.transforms = Compose(*transforms).transforms
        self._steps = finishing(self.transforms)
        self._device = _Tensors()
        for number, step in enumerate(self._steps):
            for name, values in step.constants.items():
                self.register_buffer(f"{name}{number}", torch.tensor(values, dtype=torch.float32), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the batch with every transform applied."""
        for number, step in enumerate(self._steps):
            constants = {name: self.get_buffer(f"{name}{number}").to(images.device) for name in step.constants}
            images = step.run(images, self._device, **constants)
        return images


class _Tensors:
    """torch's own of what a transform does on a device."""

    def dtype(self, images: torch.Tensor) -> str:
        return str(images.dtype).removeprefix("torch.")

    def cast(self, images: torch.Tensor, dtype: np.dtype[Any]) -> torch.Tensor:
        return images.to(getattr(torch, dtype.name))

    def channels_first(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)


def _tensor(array: Any) -> torch.Tensor:
    """Return a tensor over the memory of an array."""
    tensor = torch.from_numpy(floats.bits(array))
    return tensor.view(torch.bfloat16) if floats.is_bfloat16(array.dtype) else tensor


def _takes_generator(generator: Any) -> bool:
    return generator is None or isinstance(generator, torch.Generator)


def _reader(dataset: Any) -> Callable[..., Any] | None:
    """Return what reads whole batches of torch's datasets over tensors, unless somebody collates these differently."""
    found = _functions(arrays.NO_FUNCTIONS, torchs.default_collate_fn_map, registered())
    ours = found.plain and found.functions[torch.Tensor] is _tensors
    return torch_rows.reader(dataset, default_collate) if ours else None


def _received(dataset: Any, shuffle: bool | None) -> tuple[Any, bool | None]:
    """Return a data pipe, which shuffles itself, as a stream; any other dataset as it is."""
    if isinstance(dataset, IterDataPipe):
        return _Piped(graph_settings.apply_shuffle_settings(dataset, shuffle=shuffle)), None
    return dataset, shuffle


def _pinning(loader: Any) -> Callable[[Any], Any] | None:
    """Return what copies a batch to page-locked memory, if it was asked for and there is an accelerator."""
    if not loader.pin_memory:
        return None
    if not torch.accelerator.is_available():
        warnings.warn(
            "'pin_memory' argument is set as true but no accelerator is found, then device pinned memory won't be "
            "used.",
            UserWarning,
            stacklevel=3,
        )
        return None
    return partial(pinned, device=loader.pin_memory_device or None)


class DataLoader(numpy_loader.DataLoader[T_co], torch.utils.data.DataLoader[T_co]):
    """`headrace.DataLoader` with batches of tensors: the arguments, and what they mean, are the same.

    >>> loader = DataLoader(range(10), batch_size=4, shuffle=True, seed=0)
    >>> [batch.dtype for batch in loader]
    [torch.int64, torch.int64, torch.int64]

    Tensors share the memory that the workers wrote, which is used again once they are dropped. With ``pin_memory`` a
    thread copies batches to page-locked memory ahead of the loop, where there is an accelerator. It is a
    ``torch.utils.data.DataLoader`` to whoever asks; only ours is run.
    """

    _adapter = Adapter(
        collate=default_collate,
        convert=default_convert,
        finish=as_tensors,
        reader=_reader,
        random_sampler=RandomSampler,
        sequential_sampler=SequentialSampler,
        batch_sampler=BatchSampler,
        # What torch has there, so that `_auto_collation` and others' code find it.
        stream_sampler=torch.utils.data.dataloader._InfiniteConstantSampler,
        takes_generator=_takes_generator,
        receive=_received,
        place=_pinning,
    )

    multiprocessing_context: Any = None
    """torch has a property here, which would hide the loader's own attribute."""
    _iterator = None
    """torch's name for the iterator that persistent workers share; Lightning asks for it. Ours share none."""

    @property
    def _dataset_kind(self) -> int:
        # torch's name too: libraries tell by it how the dataset is read.
        kinds = torch.utils.data.dataloader._DatasetKind
        return int(kinds.Iterable if self._session.settings.streams else kinds.Map)


class StatefulDataLoader(DataLoader[T_co]):
    """`DataLoader` under the name that torchdata gives to the one that has a state, with the argument that its has.

    >>> loader = StatefulDataLoader(range(6), batch_size=2, snapshot_every_n_steps=10)
    >>> batches = iter(loader)
    >>> _ = next(batches)
    >>> resumed = StatefulDataLoader(range(6), batch_size=2)
    >>> resumed.load_state_dict(loader.state_dict())
    >>> list(resumed)
    [tensor([2, 3]), tensor([4, 5])]

    ``snapshot_every_n_steps`` says nothing here: the state is exact at every step, and costs a few numbers.
    """

    def __init__(self, *given: Any, snapshot_every_n_steps: int = 1, **named: Any) -> None:
        super().__init__(*given, **named)
        self.snapshot_every_n_steps = snapshot_every_n_steps


class StatefulDistributedSampler(DistributedSampler[Any]):
    """torch's ``DistributedSampler`` with a state, under torchdata's name and with its attributes.

    >>> sampler = StatefulDistributedSampler(range(10), num_replicas=2, rank=0, shuffle=False)
    >>> indices = iter(sampler)
    >>> next(indices), next(indices), sampler.state_dict()
    (0, 2, {'yielded': 2})
    >>> other = StatefulDistributedSampler(range(10), num_replicas=2, rank=0, shuffle=False)
    >>> other.load_state_dict(sampler.state_dict())
    >>> list(other), list(other)
    ([4, 6, 8], [0, 2, 4, 6, 8])

    After the end of a pass the state is that of the next one's beginning, where torchdata's gives an empty pass first.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.yielded = 0
        self.next_yielded: int | None = None

    def __iter__(self) -> Iterator[Any]:
        """Begin a pass, or continue the one of a loaded state."""
        self.yielded, self.next_yielded = self.next_yielded or 0, None
        for index in islice(super().__iter__(), self.yielded, None):
            self.yielded += 1
            yield index
        self.yielded = 0

    def state_dict(self) -> dict[str, int]:
        """Return how many indices the newest pass has given."""
        return {"yielded": self.yielded if self.next_yielded is None else self.next_yielded}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next pass continue where a state was saved; raises `StateMismatch` for what is no such state."""
        check_count("yielded", state)
        self.next_yielded = int(state["yielded"])


class _Piped(IterableDataset[Any]):
    """A data pipe (``torch.utils.data.datapipes``): each worker's copy gets its part, and all get the same seed."""

    def __init__(self, pipe: IterDataPipe[Any]) -> None:
        self.pipe = pipe

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        rank, ranks = 0, 1
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        graph_settings.apply_random_seed(self.pipe, torch.Generator().manual_seed(seeds.epoch_seed()))
        graph_settings.apply_sharding(self.pipe, workers * ranks, worker * ranks + rank)
        return iter(self.pipe)

    def __len__(self) -> int:
        return len(self.pipe)


def _tensors(batch: Sequence[Any], *, collate_fn_map: arrays.Functions | None = None) -> torch.Tensor:
    first = batch[0]
    empty = collate_fn_map.empty if isinstance(collate_fn_map, arrays.Registry) else np.empty
    if set(map(type, batch)) == {torch.Tensor} and first.is_cpu and len({tensor.dtype for tensor in batch}) == 1:
        try:
            return _stacked(batch, empty)
        except (RuntimeError, TypeError):
            pass  # why they cannot be stacked in lent memory is found out below
    field = _field(collate_fn_map)
    for row, tensor in enumerate(batch):
        if not isinstance(tensor, torch.Tensor):
            raise CollateTypeError(
                f"sample 0 of the batch is a tensor, but sample {row} is {article(name_of(tensor))}",
                rows=(0, row),
                field=field,
                found=name_of(tensor),
                expected="a tensor",
                cure="give all samples one type, or pass a collate_fn",
            )
        if tensor.is_nested or tensor.layout is not torch.strided:
            kind = "nested" if tensor.is_nested else "sparse"
            raise CollateError(
                f"Batches of {kind} tensors are not currently supported by the default collate_fn; sample {row} is one",
                rows=(row,),
                field=field,
                found=f"a {kind} tensor",
                expected="a dense tensor",
                cure="please provide a custom collate_fn to handle them appropriately",
            )
    shapes = [tuple(tensor.shape) for tensor in batch]
    odd = next((row for row, shape in enumerate(shapes) if shape != shapes[0]), None)
    if odd is not None:
        raise CollateError(
            f"samples 0 and {odd} of the batch differ in shape: stack expects each tensor to be equal size, but "
            f"got {list(shapes[0])} and {list(shapes[odd])}",
            rows=(0, odd),
            field=field,
            found=str(list(shapes[odd])),
            expected=str(list(shapes[0])),
            cure="give them one shape (Resize, a crop, padding), or pass a collate_fn",
        )
    plain = all(type(tensor) is torch.Tensor and not tensor.requires_grad for tensor in batch) and first.is_cpu
    if plain and any(tensor.dtype != first.dtype for tensor in batch):
        dtype = _promoted(batch, field)
        return _stacked([tensor.to(dtype) for tensor in batch], empty)
    try:
        return torch.stack(tuple(batch))
    except (RuntimeError, TypeError) as error:
        raise CollateError(
            f"tensors cannot be stacked: {error}",
            field=field,
            expected="tensors that torch.stack accepts",
            cure="give all samples tensors of one kind on one device, or pass a collate_fn",
        ) from error


def _stacked(batch: Sequence[torch.Tensor], empty: Empty) -> torch.Tensor:
    """Stack tensors of one dtype in lent memory; raises RuntimeError for those that must not share it."""
    first = batch[0]
    if len(batch) * first.nbytes < torch_rows.SMALLEST:
        made = torch.stack(batch)
        if made.is_nested or made.layout is not torch.strided:
            raise RuntimeError("nested and sparse tensors have a layout of their own")
        return made
    return torch.stack(batch, out=torch_rows.lent((len(batch), *first.shape), first.dtype, empty))


def _promoted(batch: Sequence[torch.Tensor], field: str) -> torch.dtype:
    """Return the dtype that torch promotes several to, if each tensor keeps all its digits in it."""
    dtype = batch[0].dtype
    try:
        for tensor in batch:
            dtype = torch.promote_types(dtype, tensor.dtype)
    except RuntimeError as error:
        raise CollateTypeError(
            f"tensors of {batch[0].dtype} and others have no dtype in common: {error}",
            field=field,
            found=str(dtype),
            expected="dtypes that torch promotes to one",
            cure="give all samples one dtype",
        ) from error
    for row, tensor in enumerate(batch):
        if tensor.dtype.is_floating_point or tensor.dtype.is_complex or dtype == tensor.dtype:
            continue
        if not dtype.is_floating_point and not dtype.is_complex:
            continue
        if any(complex(value) != number for value, number in _inexact(tensor, dtype)):
            raise CollateError(
                f"samples of several dtypes would lose digits in a batch of {dtype}: sample {row} of the batch is "
                f"{tensor.dtype}, with values that {dtype} cannot hold",
                rows=(0, row),
                field=field,
                found=str(tensor.dtype),
                expected="dtypes that fit together without loss",
                cure="give all samples one dtype",
            )
    return dtype


def _inexact(tensor: torch.Tensor, dtype: torch.dtype) -> Iterator[tuple[Any, int]]:
    """Return the integers too large for any float to hold all of, each as it is in a dtype and as it was."""
    digits = {torch.bfloat16: 8, torch.float16: 11, torch.float32: 24, torch.complex64: 24}.get(dtype, 53)
    flat = tensor.reshape(-1)
    if flat.dtype == torch.bool or torch.iinfo(flat.dtype).bits <= digits:
        return iter(())
    if flat.dtype != torch.uint64:  # of which torch compares none
        flat = flat[(flat > 2**digits) | (flat < -(2**digits))] if torch.iinfo(flat.dtype).bits > digits else flat
    return zip(flat.to(dtype).tolist(), flat.tolist(), strict=True)


def _arrays(batch: Sequence[Any], *, collate_fn_map: arrays.Functions | None = None) -> torch.Tensor:
    dtype = batch[0].dtype
    field = _field(collate_fn_map)
    if floats.kind(dtype) in "biufc" and any(getattr(array, "dtype", None) != dtype for array in batch):
        # By torch's rules of promotion, which are not NumPy's: int32 beside float32 gives float32.
        for row, array in enumerate(batch):
            check_unmasked(array, row, field)
        tensors = [_held(array, field) if isinstance(array, np.ndarray) else _as_tensor(array) for array in batch]
        return _tensors(tensors, collate_fn_map=collate_fn_map)
    return _held(arrays.collate_arrays(batch, collate_fn_map=collate_fn_map), field)


def _as_tensor(array: Any) -> torch.Tensor:
    return array if isinstance(array, torch.Tensor) else torch.as_tensor(array, device="cpu")


def _numbers(batch: Sequence[Any], *, collate_fn_map: arrays.Functions | None = None) -> torch.Tensor:
    try:
        return torch.from_numpy(of_one_type(batch))
    except TypeError:  # None, or a dtype that torch has not
        return _held(numbers(batch, _field(collate_fn_map)), _field(collate_fn_map))


def _field(registry: arrays.Functions | None) -> str:
    return registry.field if isinstance(registry, arrays.Registry) else ""


def _held(array: Any, field: str) -> torch.Tensor:
    """Return a tensor over the memory of an array; say where in the sample it is, if torch has no such dtype."""
    try:
        return _tensor(array)
    except (TypeError, ValueError) as error:  # a dtype that torch has not; an order of bytes
        native = array.dtype.newbyteorder("=")
        cure = "give numbers of a dtype that torch has, or pass a collate_fn"
        if native != array.dtype:
            cure = f"give them in this machine's byte order: array.astype({native.str!r})"
        raise CollateTypeError(
            f"arrays of {array.dtype.str} cannot become a tensor: {error}",
            field=field,
            found=array.dtype.str,
            expected="a dtype that torch has, in this machine's byte order",
            cure=cure,
        ) from error


# What others have put into torch's registry is used as it is; its own functions are replaced by ours.
_functions = arrays.Merged(
    {
        torch.Tensor: _tensors,
        np.ndarray: _arrays,
        np.str_: arrays.default_collate_fn_map[str],
        np.bytes_: arrays.default_collate_fn_map[bytes],
        np.generic: _numbers,
        complex: _numbers,
        float: _numbers,
        int: _numbers,
        str: arrays.default_collate_fn_map[str],
        bytes: arrays.default_collate_fn_map[bytes],
    },
    without=lambda function: function.__module__ == torchs.__name__,
)
