"""headrace: the data loader that training code deserves.

>>> import headrace
>>> loader = headrace.DataLoader(range(6), batch_size=4)
>>> [batch.tolist() for batch in loader]
[[0, 1, 2, 3], [4, 5]]
"""

from headrace.collate.default import default_collate, default_convert
from headrace.collate.packed import Packed, PackedCollate
from headrace.collate.padded import Padded, PaddedCollate
from headrace.context.seeds import rng
from headrace.context.timing import timed
from headrace.context.worker_info import WorkerInfo, get_worker_info
from headrace.datasets.arrays import ArrayDataset
from headrace.datasets.base import Dataset
from headrace.datasets.cifar import CIFAR10, CIFAR100
from headrace.datasets.combine import ConcatDataset, StackDataset
from headrace.datasets.explain import explain
from headrace.datasets.faces import FaceDataset, ellipse_boxes
from headrace.datasets.grouped import GroupedDataset
from headrace.datasets.hdf5 import HDF5Dataset
from headrace.datasets.images import ImageFiles, ImageFolder
from headrace.datasets.iterable import ChainDataset, IterableDataset
from headrace.datasets.lists import ImageList
from headrace.datasets.packed_list import PackedList
from headrace.datasets.paired import PairedDataset
from headrace.datasets.subset import Subset, random_split
from headrace.datasets.tensors import TensorDataset
from headrace.datasets.views import Mapped
from headrace.datasets.walks import RandomWalkDataset, random_walk, random_walk_array, random_walks
from headrace.errors import (
    ArgumentError,
    BadFile,
    BadImage,
    CollateError,
    CollateTypeError,
    HeadraceError,
    ImageTooLarge,
    IterationError,
    ListFileError,
    LoaderClosed,
    MissingDependency,
    MissingFile,
    RandomnessWarning,
    SampleError,
    StateMismatch,
    TooManyErrors,
    UnreadableFile,
    WorkerDied,
    WorkerTimeout,
)
from headrace.ledger.proof import EpochProof, verify_epoch
from headrace.ledger.store import Ledger
from headrace.loader import DataLoader
from headrace.plan.buckets import BucketBatchSampler, TokenBatchSampler
from headrace.plan.classes import BalancedBatchSampler
from headrace.plan.mixture import MixtureSampler
from headrace.plan.packing import PackingBatchSampler
from headrace.plan.repeated import RepeatedSampler
from headrace.plan.shards import ShardSampler
from headrace.plan.work import BadSample
from headrace.run.iterators import ThreadSafeIterator, prefetch, threadsafe_generator
from headrace.run.lineage import Lineage
from headrace.run.stats import Statistics
from headrace.samplers import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from headrace.transforms import (
    CenterCrop,
    Compose,
    Normalize,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToCHW,
    ToDtype,
    ToFloat,
)

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "ArrayDataset",
    "BadFile",
    "BadImage",
    "BadSample",
    "BalancedBatchSampler",
    "BatchSampler",
    "BucketBatchSampler",
    "CIFAR10",
    "CIFAR100",
    "CenterCrop",
    "ChainDataset",
    "CollateError",
    "CollateTypeError",
    "Compose",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "DistributedSampler",
    "EpochProof",
    "FaceDataset",
    "GroupedDataset",
    "HDF5Dataset",
    "HeadraceError",
    "ImageFiles",
    "ImageFolder",
    "ImageList",
    "ImageTooLarge",
    "IterableDataset",
    "IterationError",
    "Ledger",
    "Lineage",
    "ListFileError",
    "LoaderClosed",
    "Mapped",
    "MissingDependency",
    "MissingFile",
    "MixtureSampler",
    "Normalize",
    "Packed",
    "PackedCollate",
    "PackedList",
    "PackingBatchSampler",
    "Pad",
    "Padded",
    "PaddedCollate",
    "PairedDataset",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomSampler",
    "RandomWalkDataset",
    "RandomnessWarning",
    "RepeatedSampler",
    "Resize",
    "SampleError",
    "Sampler",
    "SequentialSampler",
    "ShardSampler",
    "StackDataset",
    "StateMismatch",
    "Statistics",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "ThreadSafeIterator",
    "ToCHW",
    "ToDtype",
    "ToFloat",
    "TokenBatchSampler",
    "TooManyErrors",
    "UnreadableFile",
    "WeightedRandomSampler",
    "WorkerDied",
    "WorkerInfo",
    "WorkerTimeout",
    "__version__",
    "default_collate",
    "default_convert",
    "ellipse_boxes",
    "explain",
    "get_worker_info",
    "prefetch",
    "random_split",
    "random_walk",
    "random_walk_array",
    "random_walks",
    "rng",
    "threadsafe_generator",
    "timed",
    "verify_epoch",
]
