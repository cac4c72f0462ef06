"""headrace: the data loader that training code deserves.

>>> import headrace
>>> loader = headrace.DataLoader(range(6), batch_size=4)
>>> [batch.tolist() for batch in loader]
[[0, 1, 2, 3], [4, 5]]
"""

from headrace.collate.default import default_collate
from headrace.datasets.arrays import ArrayDataset
from headrace.datasets.base import Dataset
from headrace.datasets.images import ImageFiles, ImageFolder
from headrace.datasets.lists import ImageList
from headrace.datasets.packed import PackedList
from headrace.datasets.views import Mapped
from headrace.errors import (
    ArgumentError,
    BadImage,
    CollateError,
    CollateTypeError,
    HeadraceError,
    ImageTooLarge,
    ListFileError,
    LoaderClosed,
    MissingDependency,
    MissingFile,
    SampleError,
    TooManyErrors,
    UnreadableFile,
    WorkerTimeout,
)
from headrace.image.transforms import (
    CenterCrop,
    Compose,
    Normalize,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToCHW,
    ToFloat,
)
from headrace.loader import DataLoader
from headrace.seeds import rng
from headrace.stats import Statistics
from headrace.timing import timed
from headrace.work import BadSample

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "ArrayDataset",
    "BadImage",
    "BadSample",
    "CenterCrop",
    "CollateError",
    "CollateTypeError",
    "Compose",
    "DataLoader",
    "Dataset",
    "HeadraceError",
    "ImageFiles",
    "ImageFolder",
    "ImageList",
    "ImageTooLarge",
    "ListFileError",
    "LoaderClosed",
    "Mapped",
    "MissingDependency",
    "MissingFile",
    "Normalize",
    "PackedList",
    "Pad",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "Resize",
    "SampleError",
    "Statistics",
    "ToCHW",
    "ToFloat",
    "TooManyErrors",
    "UnreadableFile",
    "WorkerTimeout",
    "__version__",
    "default_collate",
    "rng",
    "timed",
]
