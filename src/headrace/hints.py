"""Names of other libraries, of arguments, methods and classes, and what to use here."""

from __future__ import annotations

import re
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
    "shardshuffle": "pass shuffle=True to DataLoader, which shuffles all samples; or use ShardSampler.of(dataset)",
    "nodesplitter": 'pass rank="auto" to DataLoader',
    "workersplitter": "leave it out: workers share the samples",
    "resampled": "use headrace.samplers.ReplacementSampler",
}
"""The arguments of other libraries' datasets, and what to do here."""

TRANSFORM = {
    "height": "pass size=(height, width)",
    "width": "pass size=(height, width)",
    "prob": "pass p=",
    "probability": "pass p=",
    "always_apply": "pass p=1, where there is p=; else leave it out",
    "limit": "pass degrees=",
    "blur_limit": "pass kernel_size=",
    "brightness_limit": "pass brightness=",
    "contrast_limit": "pass contrast=",
    "max_pixel_value": "leave it out, and put ToFloat() before Normalize",
    "inplace": "leave it out: a transform returns an array of its own",
}
"""The arguments of other libraries' transforms, and what to do here."""

_OF_A_LOADER = "pass the dataset to DataLoader(dataset, {})"
METHODS = {
    "as_numpy_iterator": "iterate over DataLoader(dataset, batch_size=None)",
    "batch": _OF_A_LOADER.format("batch_size=..."),
    "cache": "leave it out: the operating system keeps files in its page cache",
    "decode": "leave it out: image datasets decode, and others take decoders=",
    "mp_prefetch": _OF_A_LOADER.format("num_workers=..."),
    "padded_batch": _OF_A_LOADER.format("collate_fn=PaddedCollate()"),
    "prefetch": _OF_A_LOADER.format("num_workers=..., prefetch_factor=..."),
    "random_map": "use map: a function of two arguments gets the sample and its random generator",
    "select": "use Subset(dataset, indices)",
    "set_transform": "use map, which returns a dataset",
    "shuffle": _OF_A_LOADER.format("shuffle=True, seed=0"),
    "to_iter_dataset": _OF_A_LOADER.format("..."),
    "train_test_split": "use random_split(dataset, [0.8, 0.2], seed=0, stratify=True)",
    "with_transform": "use map",
}
"""The methods of other libraries' datasets, and what to do here."""

LOADER_METHODS = {
    "batch": "pass batch_size= to DataLoader",
    "filter": "filter the dataset: DataLoader(dataset.filter(function))",
    "map": "map the dataset: DataLoader(dataset.map(function))",
    "prefetch": "pass num_workers= and prefetch_factor= to DataLoader",
    "repeat": "use the method batches: batches(endless=True)",
    "shuffle": "pass shuffle=True and seed= to DataLoader",
    "take": "use the method batches, or take samples of the dataset: DataLoader(dataset.take(n))",
}
"""The methods of other libraries' loaders, and what to do here."""

NAMES = {
    "Affine": "use RandomAffine",
    "AutoContrast": "use RandomAutocontrast",
    "Batcher": "pass batch_size= to DataLoader",
    "BboxParams": 'use Compose(..., kinds={"boxes": Boxes("xywh")}), with headrace.transforms.Boxes',
    "BoundingBoxes": "leave it out: boxes are the field named boxes, or what Compose(..., kinds=) says",
    "BucketIterator": "use headrace.samplers.BucketBatchSampler",
    "ChannelShuffle": "use RandomChannelPermutation",
    "CoarseDropout": "use RandomErasing, or Cutout",
    "CocoCaptions": "use headrace.datasets.CocoDetection, for boxes, masks and keypoints",
    "ConvertImageDtype": "use ToFloat()",
    "Cycler": "use DataLoader(...).batches(endless=True)",
    "DALIGenericIterator": "use headrace.torch.DataLoader",
    "DatasetFolder": "use ImageFolder, or a Dataset of your own",
    "DatasetWriter": "leave it out: headrace reads image files, and shards that headrace pack writes",
    "Equalize": "use RandomEqualize",
    "Erasing": "use RandomErasing",
    "FakeData": "use ArrayDataset, with arrays from a NumPy generator",
    "Filter": "use the method filter of the dataset: dataset.filter(function)",
    "FirstFitPackIterDataset": "use headrace.samplers.PackingBatchSampler and headrace.collate.PackedCollate",
    "GaussNoise": "use GaussianNoise",
    "Header": "use the method take of the dataset: dataset.take(n)",
    "HorizontalFlip": "use RandomHorizontalFlip",
    "HueSaturationValue": "use ColorJitter",
    "Image": "leave it out: images are arrays",
    "IndexSampler": "pass shuffle=, seed=, rank= and world_size= to DataLoader",
    "InvertImg": "use RandomInvert",
    "IterDataPipe": "use IterableDataset",
    "IterableWrapper": "pass the iterable itself to DataLoader",
    "KeyPoints": "leave it out: points are the field named keypoints, or what Compose(..., kinds=) says",
    "KeypointParams": 'use Compose(..., kinds={"keypoints": Keypoints()}), with headrace.transforms.Keypoints',
    "Lambda": "pass the function itself: dataset.map(function)",
    "Loader": "use DataLoader",
    "LongestMaxSize": "use LetterBox",
    "MapDataPipe": "use Dataset",
    "MapDataset": "use Dataset, and its method map",
    "MapStyleWrapper": "pass the dataset itself to DataLoader, and sampler=",
    "Mapper": "use the method map of the dataset: dataset.map(function)",
    "Mixup": "use headrace.transforms.MixUp, in headrace.collate.TransformedCollate",
    "MultiNodeWeightedSampler": "use headrace.samplers.MixtureSampler",
    "NormalizeImage": "use ToFloat() and Normalize(mean, std)",
    "OrderOption": "pass shuffle= to DataLoader, or use ShardSampler.of(dataset, window=...)",
    "PILToTensor": "use ToCHW()",
    "PadIfNeeded": "use LetterBox, or RandomCrop(size, pad_if_needed=True)",
    "ParallelMapper": "use dataset.map(function), and num_workers= of DataLoader",
    "Perspective": "use RandomPerspective",
    "PinMemory": "use headrace.torch.DataLoader(..., pin_memory=True)",
    "Posterize": "use RandomPosterize",
    "Prefetcher": "pass prefetch_factor= to DataLoader",
    "RandomBrightnessContrast": "use ColorJitter",
    "RandomFlip": "use RandomHorizontalFlip",
    "RandomResizedCropRGBImageDecoder": "use ImageFolder and RandomResizedCrop, which decodes only the crop",
    "RandomSplit": "use random_split",
    "ReplayCompose": "use DataLoader.lineage, which shows what each transform drew",
    "Rotate": "use RandomRotation",
    "SamplerWrapper": "pass the sampler to DataLoader as sampler=",
    "Sequential": "use Compose",
    "Sharpen": "use RandomAdjustSharpness",
    "ShiftScaleRotate": "use RandomAffine",
    "SimpleCopyPaste": "use headrace.datasets.CopyPaste",
    "SmallestMaxSize": "use Resize(n), which scales the shorter side to n",
    "Solarize": "use RandomSolarize",
    "SomeOf": "use RandomChoice",
    "StatefulDataLoader": "use DataLoader, which has state_dict() and load_state_dict()",
    "StreamingDataset": "use headrace.datasets.MDSDataset (Mosaic) or headrace.datasets.LitDataset (LitData)",
    "ToGray": "use RandomGrayscale",
    "ToImage": "leave it out: images are arrays",
    "ToPILImage": "leave it out: images are arrays",
    "ToTensor": "use ToFloat() and ToCHW(), and headrace.torch.DataLoader for tensors",
    "ToTensorV2": "use ToCHW(), and headrace.torch.DataLoader for tensors",
    "ToTorchImage": "use ToCHW(), and headrace.torch.DataLoader for tensors",
    "Unbatcher": "pass batch_size=None to DataLoader",
    "VOCDetection": "use headrace.datasets.VOC",
    "VOCSegmentation": 'use headrace.datasets.VOC, with target="segmentation"',
    "VerticalFlip": "use RandomVerticalFlip",
    "WebLoader": "use DataLoader",
    "load_dataset": "load it with datasets.load_dataset, then use headrace.datasets.from_huggingface",
    "pad_sequence": "use headrace.collate.PaddedCollate",
    "train_test_split": "use random_split(dataset, [0.8, 0.2], seed=0, stratify=True)",
}
"""The names of other libraries' classes and functions, and what to use here."""

_ONE_OF_OURS = re.compile(r"pass (\w+)=(?:\(.*\))?")

_HOMES = ("headrace", *(f"headrace.{name}" for name in ("datasets", "transforms", "samplers", "collate", "errors")))


class Hinted:
    """A class whose constructor refuses unknown arguments and names the right ones; so do its methods.

    >>> from headrace import DataLoader
    >>> DataLoader([1, 2], batchsize=2)
    Traceback (most recent call last):
        ...
    headrace.errors.ArgumentTypeError: DataLoader got an unexpected keyword argument 'batchsize'; pass batch_size=
    """

    __slots__ = ()
    _argument_hints: ClassVar[Mapping[str, str]] = {}
    """The arguments of other libraries, and what to do here."""
    _method_hints: ClassVar[Mapping[str, str]] = {}
    """The methods of other libraries, and what to do here."""

    if not TYPE_CHECKING:  # a checker would take any name to be an attribute

        def __getattr__(self, name: str) -> Any:
            """Name our method in the error for another library's."""
            advice = self._method_hints.get(name)
            if advice is None or hasattr(type(self), name):  # a property that raised AttributeError: its own words
                return object.__getattribute__(self, name)
            text = f"{type(self).__name__!r} object has no attribute {name!r}; {advice}"
            raise AttributeError(text, name=name, obj=self)

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
            others = f"choose one of {', '.join(names)}" if names else "leave it out"
            hint = hints.get(name, "")
            wanted = _ONE_OF_OURS.fullmatch(hint)
            if wanted is not None and wanted[1] not in names:
                hint = ""  # another class takes it
            cure = hint or (f"pass {close[0]}=" if close else others)
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
