"""What users index: arrays, images, listed files, and views of other datasets."""

from headrace.datasets.arrays import ArrayDataset
from headrace.datasets.base import Dataset
from headrace.datasets.cifar import CIFAR10, CIFAR100
from headrace.datasets.columns import Columns
from headrace.datasets.combine import ConcatDataset, StackDataset
from headrace.datasets.explain import explain
from headrace.datasets.faces import FaceDataset
from headrace.datasets.grouped import GroupedDataset
from headrace.datasets.hdf5 import HDF5Dataset
from headrace.datasets.images import ImageFiles, ImageFolder
from headrace.datasets.iterable import ChainDataset, IterableDataset
from headrace.datasets.lists import ImageList
from headrace.datasets.packed_list import PackedList
from headrace.datasets.paired import PairedDataset
from headrace.datasets.source import Arrays, Bytes, Files, Ranges, Source
from headrace.datasets.subset import Subset, random_split
from headrace.datasets.tensors import TensorDataset
from headrace.datasets.views import Mapped
from headrace.datasets.walks import RandomWalkDataset
from headrace.image.decoding import Decoding

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "ArrayDataset",
    "Arrays",
    "Bytes",
    "ChainDataset",
    "Columns",
    "ConcatDataset",
    "Dataset",
    "Decoding",
    "FaceDataset",
    "Files",
    "GroupedDataset",
    "HDF5Dataset",
    "ImageFiles",
    "ImageFolder",
    "ImageList",
    "IterableDataset",
    "Mapped",
    "PackedList",
    "PairedDataset",
    "RandomWalkDataset",
    "Ranges",
    "Source",
    "StackDataset",
    "Subset",
    "TensorDataset",
    "explain",
    "random_split",
]
