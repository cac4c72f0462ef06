"""Names of other libraries, of arguments and of classes, and what to use here."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from importlib import import_module
from inspect import CO_VARKEYWORDS
from opcode import opmap
from typing import TYPE_CHECKING, Any, ClassVar, Self

from headrace.errors import ArgumentTypeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ALL_SAMPLES = "pass shuffle=True, which shuffles all samples without a buffer"
_PARTS = 'pass rank="auto", or rank= and world_size='
_MAPPED = "make the dataset without it, and add the function by .map(function)"
_OF_THE_LOADER = "pass it to DataLoader, which reads the dataset"

LOADER = {
    "transform": "pass the dataset with the function added: DataLoader(dataset.map(function))",
    "shuffle_buffer": _ALL_SAMPLES,
    "shuffle_buffer_size": _ALL_SAMPLES,
    "shuffle_size": _ALL_SAMPLES,
    "buffer_size": _ALL_SAMPLES,
    "batch": "pass batch_size=",
    "bs": "pass batch_size=",
    "workers": "pass num_workers=",
    "worker_count": "pass num_workers=",
    "num_threads": "pass num_workers=",
    "num_proc": "pass num_workers=",
    "num_parallel_calls": "pass num_workers=",
    "use_multiprocessing": 'pass backend="processes"',
    "drop_remainder": "pass drop_last=",
    "prefetch": "pass prefetch_factor=",
    "prefetch_size": "pass prefetch_factor=",
    "collate": "pass collate_fn=",
    "random_state": "pass seed=",
    "shuffle_seed": "pass seed=",
    "distributed": _PARTS,
    "num_replicas": _PARTS,
    "num_shards": _PARTS,
    "shard_id": _PARTS,
    "handler": 'pass on_error="skip" or "replace"',
    "device": "use headrace.torch.on_device, or headrace.jax.DataLoader(device=)",
    "snapshot_every_n_steps": "leave it out: state_dict() is exact after every batch",
}
"""The arguments of other libraries' loaders, and what to do here."""

DATASET = {
    "transform": _MAPPED,
    "transforms": _MAPPED,
    "target_transform": "change the label in a function of the sample: .map(lambda sample: (sample[0], f(sample[1])))",
    "download": "leave it out: headrace downloads nothing; put the files there first",
    "is_valid_file": "pass extensions=, or select samples by .filter",
    "local": "pass the folder as the first argument",
    "input_dir": "pass the folder as the first argument",
    "batch_size": _OF_THE_LOADER,
    "num_workers": _OF_THE_LOADER,
    "seed": _OF_THE_LOADER,
    "shuffle": _OF_THE_LOADER,
    "shuffle_seed": "pass seed= to DataLoader",
}
"""The arguments of other libraries' datasets, and what to do here."""

NAMES = {
    "BucketIterator": "use headrace.samplers.BucketBatchSampler",
    "CocoCaptions": "use headrace.datasets.CocoDetection, for boxes, masks and keypoints",
    "ConvertImageDtype": "use ToFloat()",
    "DatasetFolder": "use ImageFolder, or a Dataset of your own",
    "HorizontalFlip": "use RandomHorizontalFlip",
    "Lambda": "pass the function itself: dataset.map(function)",
    "Loader": "use DataLoader",
    "MapDataset": "use Dataset, and its method map",
    "Mixup": "use headrace.transforms.MixUp, in headrace.collate.TransformedCollate",
    "PILToTensor": "use ToCHW()",
    "RandomFlip": "use RandomHorizontalFlip",
    "RandomSplit": "use random_split",
    "SimpleCopyPaste": "use headrace.datasets.CopyPaste",
    "StatefulDataLoader": "use DataLoader, which has state_dict() and load_state_dict()",
    "StreamingDataset": "use headrace.datasets.MDSDataset (Mosaic) or headrace.datasets.LitDataset (LitData)",
    "ToImage": "leave it out: images are arrays",
    "ToTensor": "use ToFloat() and ToCHW(), and headrace.torch.DataLoader for tensors",
    "VOCDetection": "use headrace.datasets.VOC",
    "VOCSegmentation": 'use headrace.datasets.VOC, with target="segmentation"',
    "WebLoader": "use DataLoader",
    "pad_sequence": "use headrace.collate.PaddedCollate",
}
"""The names of other libraries' classes and functions, and what to use here."""

_HOMES = ("headrace", *(f"headrace.{name}" for name in ("datasets", "transforms", "samplers", "collate", "errors")))


class Hinted:
    """A class whose constructor refuses unknown arguments and names the right ones.

    >>> from headrace import DataLoader
    >>> DataLoader([1, 2], batchsize=2)
    Traceback (most recent call last):
        ...
    headrace.errors.ArgumentTypeError: DataLoader got an unexpected keyword argument 'batchsize'; pass batch_size=
    """

    __slots__ = ()
    _argument_hints: ClassVar[Mapping[str, str]] = {}
    """The arguments of other libraries, and what to do here."""

    # In a base class, as a __new__ beside the constructor would hide its signature from inspect and editors.
    def __new__(cls, *given: Any, **named: Any) -> Self:
        """Check the names of the arguments that the constructor will be given."""
        if named:
            _check_named(cls, named, cls._argument_hints)
        new: Any = super().__new__
        made: Self = new(cls) if new is object.__new__ else new(cls, *given, **named)
        return made


def argument_names(kind: type) -> list[str] | None:
    """Return the names that the constructor of a class takes; None if it may take others too.

    >>> from headrace.datasets import Subset
    >>> argument_names(Subset)
    ['dataset', 'indices']
    """
    names: list[str] = []
    for one in kind.__mro__:
        code = getattr(vars(one).get("__init__"), "__code__", None)
        if code is not None:
            names += code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
            if not code.co_flags & CO_VARKEYWORDS:
                return names
            if not one.__module__.startswith("headrace."):
                return None  # it may take names of its own
    return None


def _check_named(kind: type, given: Mapping[str, Any], hints: Mapping[str, str]) -> None:
    names = argument_names(kind)
    for name in given if names is not None else ():
        if names is not None and name not in names:
            close = get_close_matches(name.lower(), names, n=1, cutoff=0.7)
            cure = hints.get(name) or (f"pass {close[0]}=" if close else f"choose one of {', '.join(names)}")
            raise ArgumentTypeError(
                f"{kind.__name__} got an unexpected keyword argument {name!r}", found=name, cure=cure
            )


def looked_up(module: str, lazy: Mapping[str, str] | None = None) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a module: it says where a name is, or which of our names to use.

    ``lazy`` has names that are not imported until they are asked for, and the submodule of each.

    >>> import headrace
    >>> headrace.WebDataset
    Traceback (most recent call last):
        ...
    AttributeError: module 'headrace' has no attribute 'WebDataset'; it is headrace.datasets.WebDataset
    >>> from headrace.transforms import ToTensor
    Traceback (most recent call last):
        ...
    ImportError: module 'headrace.transforms' has no attribute 'ToTensor'; use ToFloat() and ToCHW(), ...
    """

    def found(name: str) -> Any:
        if lazy and name in lazy:
            value = getattr(import_module(f"{module}.{lazy[name]}"), name)
            setattr(import_module(module), name, value)
            return value
        text = f"module {module!r} has no attribute {name!r}"
        if not name.startswith("_"):
            text += _advice(module, name)
            frame = sys._getframe(1)
            if frame.f_code.co_name == "__getattr__" and frame.f_back is not None:
                frame = frame.f_back
            # Python replaces the AttributeError of an import by an ImportError that does not have these words.
            if frame.f_lasti >= 0 and frame.f_code.co_code[frame.f_lasti] == opmap["IMPORT_FROM"]:
                raise ImportError(text, name=module)
        raise AttributeError(text, name=name)

    return found


def _advice(module: str, name: str) -> str:
    public = {home: getattr(import_module(home), "__all__", ()) for home in _HOMES}
    home = next((home for home, names in public.items() if name in names), None)
    if home is not None:
        return f"; it is {home}.{name}"
    if name in NAMES:
        return f"; {NAMES[name]}"
    close = get_close_matches(name, public[module], n=1, cutoff=0.75)
    return f"; did you mean {close[0]}?" if close else ""
