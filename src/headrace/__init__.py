"""headrace: the data loader that training code deserves.

>>> import headrace
>>> loader = headrace.DataLoader(range(6), batch_size=4)
>>> [batch.tolist() for batch in loader]
[[0, 1, 2, 3], [4, 5]]

What most scripts need is here; the rest is in `headrace.datasets`, `headrace.transforms`, `headrace.samplers`,
`headrace.collate`, `headrace.errors`, `headrace.executors` and `headrace.testing`.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from headrace import collate, datasets, errors, samplers, transforms  # noqa: F401  public submodules
from headrace.collate import default_collate
from headrace.context.seeds import rng
from headrace.context.timing import timed
from headrace.context.worker_info import WorkerInfo, get_worker_info
from headrace.datasets import (
    ArrayDataset,
    ConcatDataset,
    Dataset,
    ImageFiles,
    ImageFolder,
    ImageList,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)
from headrace.datasets.explain import explain
from headrace.errors import HeadraceError, SampleError, StateMismatch
from headrace.executors.shared_preparation import share
from headrace.hints import looked_up as _looked_up
from headrace.image.decoder import decode
from headrace.ledger.proof import EpochProof, verify_epoch
from headrace.ledger.store import Ledger
from headrace.loader import DataLoader
from headrace.plan.work import BadSample
from headrace.run.iterators import ThreadSafeIterator, prefetch, threadsafe_generator
from headrace.run.lineage import Lineage
from headrace.run.stats import Statistics
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
    Transform,
)

try:
    from headrace._native._version import __version__  # written by the build
except ImportError:  # the sources themselves, never built
    from importlib.metadata import PackageNotFoundError as _NotInstalled
    from importlib.metadata import version as _version

    try:
        __version__ = _version("headrace")
    except _NotInstalled:
        __version__ = "0.0.0"

if _TYPE_CHECKING:
    from headrace.figure.showing import show
else:
    __getattr__ = _looked_up(__name__, {"show": "figure.showing"})  # or where a name is, or what ours is called

__all__ = [
    "ArrayDataset",
    "BadSample",
    "CenterCrop",
    "Compose",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "EpochProof",
    "HeadraceError",
    "ImageFiles",
    "ImageFolder",
    "ImageList",
    "IterableDataset",
    "Ledger",
    "Lineage",
    "Normalize",
    "Pad",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "Resize",
    "SampleError",
    "StateMismatch",
    "Statistics",
    "Subset",
    "TensorDataset",
    "ThreadSafeIterator",
    "ToCHW",
    "ToDtype",
    "ToFloat",
    "Transform",
    "WorkerInfo",
    "__version__",
    "decode",
    "default_collate",
    "explain",
    "get_worker_info",
    "prefetch",
    "random_split",
    "rng",
    "share",
    "show",
    "threadsafe_generator",
    "timed",
    "verify_epoch",
]
