"""What a loader reads: arrays, images, lists, files of data, streams, and views of other datasets.

>>> from headrace.datasets import ArrayDataset, Subset
>>> [float(sample) for sample in Subset(ArrayDataset([1.5, 2.5, 3.5]), [2, 0])]
[3.5, 1.5]

`Dataset` is the base class for your own; docs/contributing/add-a-dataset.md shows one.
"""

from typing import TYPE_CHECKING

from headrace.datasets import selections as _selections  # noqa: F401  it registers the views of `Dataset`
from headrace.datasets.arrays import ArrayDataset
from headrace.datasets.base import Dataset
from headrace.datasets.columns import Columns
from headrace.datasets.combine import ConcatDataset, StackDataset
from headrace.datasets.explain import explain
from headrace.datasets.image_sources import Arrays, Bytes, Files, Ranges, Source
from headrace.datasets.images import ImageFiles, ImageFolder
from headrace.datasets.iterable import ChainDataset, IterableDataset
from headrace.datasets.lists import ImageList
from headrace.datasets.packed_list import PackedList
from headrace.datasets.subset import Subset, random_split
from headrace.datasets.tensors import TensorDataset
from headrace.datasets.views import Mapped
from headrace.hints import looked_up as _looked_up
from headrace.image.decoding import Decoding

if TYPE_CHECKING:
    from headrace.datasets.array_record_dataset import ArrayRecordDataset
    from headrace.datasets.arrow_dataset import ArrowDataset
    from headrace.datasets.cifar import CIFAR10, CIFAR100
    from headrace.datasets.coco import CocoDetection
    from headrace.datasets.encoded_images import EncodedImages
    from headrace.datasets.faces import FaceDataset, ellipse_boxes
    from headrace.datasets.grouped import GroupedDataset
    from headrace.datasets.hdf5 import HDF5Dataset
    from headrace.datasets.huggingface import from_huggingface
    from headrace.datasets.joined_images import CopyPaste, Mosaic
    from headrace.datasets.lit_dataset import LitDataset
    from headrace.datasets.mapped_columns import MappedColumns
    from headrace.datasets.mds_dataset import MDSDataset
    from headrace.datasets.multi_label import MultiLabel
    from headrace.datasets.packed_dataset import PackedDataset
    from headrace.datasets.packed_stream import PackedStream
    from headrace.datasets.paired import PairedDataset
    from headrace.datasets.parquet_dataset import ParquetDataset
    from headrace.datasets.ray_dataset import from_ray
    from headrace.datasets.segmentation_folder import SegmentationFolder
    from headrace.datasets.shard_kinds import open_shards
    from headrace.datasets.shards import SpanDataset, WebDataset
    from headrace.datasets.tfrecord_dataset import TFRecordDataset
    from headrace.datasets.token_dataset import TokenDataset
    from headrace.datasets.voc import VOC
    from headrace.datasets.walks import RandomWalkDataset, random_walk, random_walk_array, random_walks
    from headrace.datasets.yolo import YOLO
    from headrace.datasets.zip_dataset import ZipDataset

LAZY = {
    "ArrayRecordDataset": "array_record_dataset",
    "ArrowDataset": "arrow_dataset",
    "CIFAR10": "cifar",
    "CIFAR100": "cifar",
    "CocoDetection": "coco",
    "CopyPaste": "joined_images",
    "EncodedImages": "encoded_images",
    "FaceDataset": "faces",
    "GroupedDataset": "grouped",
    "HDF5Dataset": "hdf5",
    "LitDataset": "lit_dataset",
    "MDSDataset": "mds_dataset",
    "MappedColumns": "mapped_columns",
    "Mosaic": "joined_images",
    "MultiLabel": "multi_label",
    "PackedDataset": "packed_dataset",
    "PackedStream": "packed_stream",
    "PairedDataset": "paired",
    "ParquetDataset": "parquet_dataset",
    "RandomWalkDataset": "walks",
    "SegmentationFolder": "segmentation_folder",
    "SpanDataset": "shards",
    "TFRecordDataset": "tfrecord_dataset",
    "TokenDataset": "token_dataset",
    "VOC": "voc",
    "WebDataset": "shards",
    "YOLO": "yolo",
    "ZipDataset": "zip_dataset",
    "ellipse_boxes": "faces",
    "from_huggingface": "huggingface",
    "from_ray": "ray_dataset",
    "open_shards": "shard_kinds",
    "random_walk": "walks",
    "random_walk_array": "walks",
    "random_walks": "walks",
}
"""Names whose files are imported when they are first asked for, so that `import headrace` stays light."""

__all__ = [
    "ArrayDataset",
    "ArrayRecordDataset",
    "Arrays",
    "ArrowDataset",
    "Bytes",
    "CIFAR10",
    "CIFAR100",
    "ChainDataset",
    "CocoDetection",
    "Columns",
    "ConcatDataset",
    "CopyPaste",
    "Dataset",
    "Decoding",
    "EncodedImages",
    "FaceDataset",
    "Files",
    "GroupedDataset",
    "HDF5Dataset",
    "ImageFiles",
    "ImageFolder",
    "ImageList",
    "IterableDataset",
    "LitDataset",
    "MDSDataset",
    "Mapped",
    "MappedColumns",
    "Mosaic",
    "MultiLabel",
    "PackedDataset",
    "PackedList",
    "PackedStream",
    "PairedDataset",
    "ParquetDataset",
    "RandomWalkDataset",
    "Ranges",
    "SegmentationFolder",
    "Source",
    "SpanDataset",
    "StackDataset",
    "Subset",
    "TFRecordDataset",
    "TensorDataset",
    "TokenDataset",
    "VOC",
    "WebDataset",
    "YOLO",
    "ZipDataset",
    "ellipse_boxes",
    "explain",
    "from_huggingface",
    "from_ray",
    "open_shards",
    "random_split",
    "random_walk",
    "random_walk_array",
    "random_walks",
]

if not TYPE_CHECKING:
    __getattr__ = _looked_up(__name__, LAZY)


def __dir__() -> list[str]:
    return [*globals(), *LAZY]
