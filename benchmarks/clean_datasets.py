"""What `headrace doctor` finds in public datasets and pipelines that have no fault: nothing.

``python benchmarks/clean_datasets.py --output benchmarks/CLEAN_DATASETS.md``; ``make clean-datasets`` installs the
libraries first. Each dataset is made by the class of its library, from small files that are written here, or from data
that the library brings. No network is needed. A library that is not installed is left out, and said to be.

torchvision's ``FakeData`` is not among them: it seeds torch's global generator for each sample, so threads disturb each
other. The doctor finds that.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import os
import pickle
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from headrace.testing import examine

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 24
"""Samples of each."""
LIBRARIES = (
    "torch", "torchvision", "datasets", "webdataset", "torchdata", "scikit-learn", "albumentations", "kornia", "monai",
    "timm", "medmnist", "lightning", "pyarrow", "polars", "pandas", "h5py", "zarr", "numpy",
)  # fmt: skip


def image(number: int, side: int = 32) -> Any:
    """Return a small image of Pillow's, another one for each number."""
    from PIL import Image

    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8))


def folder(root: Path, ending: str = "jpg") -> Path:
    """Write a folder of images in two classes."""
    for number in range(SIZE):
        place = root / "images" / ("cat", "dog")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        image(number).save(place / f"{number:03}.{ending}")
    return root / "images"


def tensors(_: Path) -> Any:
    """torch.utils.data.TensorDataset."""
    import torch

    return torch.utils.data.TensorDataset(torch.arange(72.0).reshape(SIZE, 3), torch.arange(SIZE))


def torch_subset(root: Path) -> Any:
    """torch.utils.data: random_split and ConcatDataset."""
    import torch

    data = torch.utils.data
    parts = data.random_split(tensors(root), [20, 4], torch.Generator().manual_seed(0))
    return data.ConcatDataset(parts)


def image_folder(root: Path) -> Any:
    """torchvision.datasets.ImageFolder with transforms v2."""
    import torch
    from torchvision import datasets
    from torchvision.transforms import v2

    steps = [v2.ToImage(), v2.Resize((16, 16), antialias=True), v2.ToDtype(torch.float32, scale=True)]
    return datasets.ImageFolder(folder(root), v2.Compose([*steps, v2.Normalize([0.5] * 3, [0.25] * 3)]))


def mnist(root: Path) -> Any:
    """torchvision.datasets.MNIST from its own file format."""
    from torchvision import datasets, transforms

    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        pixels = np.random.default_rng(0).integers(0, 256, (SIZE, 28, 28), np.uint8)
        head = np.array([0x803, SIZE, 28, 28], ">i4").tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        labels = np.arange(SIZE, dtype=np.uint8) % 10
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(np.array([0x801, SIZE], ">i4").tobytes() + labels.tobytes())
    return datasets.MNIST(str(root), train=True, transform=transforms.ToTensor())


def cifar(root: Path) -> Any:
    """torchvision.datasets.CIFAR10 from its own file format."""
    from torchvision import datasets, transforms

    place = root / datasets.CIFAR10.base_folder
    place.mkdir()
    for name, _ in datasets.CIFAR10.train_list:
        rows = np.random.default_rng(0).integers(0, 256, (5, 3072), np.uint8)
        (place / name).write_bytes(pickle.dumps({"data": rows, "labels": [0, 1, 2, 3, 4]}))
    (place / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(number) for number in range(10)]}))
    # Its checksums are of the files that are downloaded.
    with (
        mock.patch.object(datasets.CIFAR10, "_check_integrity", return_value=True),
        mock.patch("torchvision.datasets.cifar.check_integrity", return_value=True),
    ):
        return datasets.CIFAR10(str(root), transform=transforms.ToTensor())


def voc(root: Path) -> Any:
    """torchvision.datasets.VOCSegmentation: images and masks."""
    from torchvision import datasets, transforms

    base = root / "VOCdevkit" / "VOC2012"
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / part).mkdir(parents=True)
    names = [f"2007_{number:06}" for number in range(SIZE)]
    for number, name in enumerate(names):
        image(number).save(base / "JPEGImages" / f"{name}.jpg")
        image(number).convert("P").save(base / "SegmentationClass" / f"{name}.png")
    (base / "ImageSets" / "Segmentation" / "train.txt").write_text("\n".join(names))
    steps = transforms.Compose([transforms.Resize((16, 16)), transforms.PILToTensor()])
    return datasets.VOCSegmentation(str(root), "2012", "train", transform=steps, target_transform=steps)


def huggingface(_: Path) -> Any:
    """datasets.Dataset from memory."""
    import datasets

    return datasets.Dataset.from_dict({"text": [f"line {n}" for n in range(SIZE)], "label": list(range(SIZE))})


def huggingface_torch(_: Path) -> Any:
    """datasets.Dataset of numbers, with_format("torch")."""
    import datasets

    rows = {"x": [[float(n), 1.0] for n in range(SIZE)], "label": list(range(SIZE))}
    return datasets.Dataset.from_dict(rows).with_format("torch")


def huggingface_map(_: Path) -> Any:
    """datasets.Dataset with map and with_transform, a tokenizer of tokenizers."""
    import tokenizers

    import datasets

    words = {f"word{n}": n for n in range(SIZE)} | {"[UNK]": SIZE}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.enable_padding(length=4)
    table = datasets.Dataset.from_dict({"text": [f"word{n} word{n // 2}" for n in range(SIZE)]})
    return table.map(Encode(tokenizer), remove_columns="text").with_format("numpy")


class Encode:
    """What a text becomes."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, row: Any) -> Any:
        return {"ids": self.tokenizer.encode(row["text"]).ids}


def huggingface_stream(_: Path) -> Any:
    """datasets.IterableDataset."""
    import datasets

    return datasets.Dataset.from_dict({"x": list(range(SIZE))}).to_iterable_dataset(num_shards=2)


def web_dataset(root: Path) -> Any:
    """webdataset.WebDataset over a tar, decoded and mapped."""
    import webdataset

    with tarfile.open(root / "shard-000000.tar", "w") as shard:
        for number in range(SIZE):
            file = io.BytesIO()
            image(number).save(file, "PNG")
            for ending, data in (("png", file.getvalue()), ("cls", str(number % 2).encode())):
                about = tarfile.TarInfo(f"{number:03}.{ending}")
                about.size = len(data)
                shard.addfile(about, io.BytesIO(data))
    stream = webdataset.WebDataset(str(root / "shard-000000.tar"), shardshuffle=False)
    return stream.decode("rgb8").to_tuple("png", "cls")


def torchdata_nodes(_: Path) -> Any:
    """torchdata.nodes: a mapped iterable."""
    from torchdata.nodes import IterableWrapper, Loader, Mapper

    return Nodes(lambda: Loader(Mapper(IterableWrapper(range(SIZE)), float), restart_on_stop_iteration=True))


class Nodes:
    """An iterable that begins again each time."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make

    def __iter__(self) -> Any:
        return iter(self.make())

    def __reduce__(self) -> Any:
        return torchdata_nodes, (Path(),)


class Rows:
    """A dataset over a library's table: a function of an index."""

    def __init__(self, table: Any, row: Callable[[Any, int], Any], size: int = SIZE) -> None:
        self.table, self.row, self.size = table, row, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self.size:
            raise IndexError(index)
        return self.row(self.table, index)


def digits(_: Path) -> Any:
    """sklearn.datasets.load_digits, as bundled."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return [(row.astype(np.float32), int(label)) for row, label in zip(bunch.images[:200], bunch.target, strict=False)]


def iris(_: Path) -> Any:
    """sklearn.datasets.load_iris, scaled by a StandardScaler, in torch's TensorDataset."""
    import torch
    from sklearn.datasets import load_iris
    from sklearn.preprocessing import StandardScaler

    rows, labels = load_iris(return_X_y=True)
    scaled = StandardScaler().fit_transform(rows)
    return torch.utils.data.TensorDataset(torch.from_numpy(scaled), torch.from_numpy(labels))


def _albumented(sample: Any, index: int) -> Any:
    steps, images = sample
    return steps(image=images[index])["image"]


def albumented(_: Path) -> Any:
    """albumentations.Compose without random steps."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations

    steps = albumentations.Compose([albumentations.CenterCrop(16, 16), albumentations.Normalize()])
    return Rows((steps, np.random.default_rng(0).integers(0, 256, (SIZE, 32, 32, 3), np.uint8)), _albumented)


def _kornia(sample: Any, index: int) -> Any:
    import kornia

    return kornia.geometry.resize(sample[index], (8, 8), antialias=True)


def kornia_resize(_: Path) -> Any:
    """kornia.geometry on tensors."""
    import torch

    return Rows(torch.rand((SIZE, 3, 16, 16), generator=torch.Generator().manual_seed(0)), _kornia)


def monai_cache(root: Path) -> Any:
    """monai.data.CacheDataset of .npy files with dictionary transforms."""
    from monai.data import CacheDataset
    from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, ScaleIntensityd

    for number in range(SIZE):
        np.save(root / f"{number}.npy", np.random.default_rng(number).random((8, 8), np.float32))
    files = [{"image": str(root / f"{number}.npy")} for number in range(SIZE)]
    first = EnsureChannelFirstd("image", channel_dim="no_channel")
    steps = Compose([LoadImaged("image", image_only=True), first, ScaleIntensityd("image")])
    return CacheDataset(files, steps, cache_rate=1.0, num_workers=0, progress=False)


def monai_array(_: Path) -> Any:
    """monai.data.ArrayDataset."""
    from monai.data import ArrayDataset
    from monai.transforms import ScaleIntensity

    rows = np.random.default_rng(0).random((SIZE, 1, 8, 8), np.float32)
    return ArrayDataset(list(rows), ScaleIntensity())


def timm_folder(root: Path) -> Any:
    """timm.data.ImageDataset with timm's evaluation transforms."""
    from timm.data import ImageDataset, create_transform

    return ImageDataset(str(folder(root)), transform=create_transform(16, is_training=False))


def medmnist_class(root: Path) -> Any:
    """medmnist.PneumoniaMNIST from a file of its format."""
    import medmnist
    from torchvision import transforms

    parts: dict[str, Any] = {}
    for part in ("train", "val", "test"):
        parts[f"{part}_images"] = np.random.default_rng(0).integers(0, 256, (SIZE, 28, 28), np.uint8)
        parts[f"{part}_labels"] = np.arange(SIZE).reshape(-1, 1) % 2
    np.savez(root / "pneumoniamnist.npz", **parts)
    found = medmnist.PneumoniaMNIST("train", transform=transforms.ToTensor(), root=str(root), download=False)
    found.info = {**found.info, "n_samples": {"train": SIZE}}  # which its len() asserts
    return found


def lightning_module(root: Path) -> Any:
    """lightning: the dataset of a LightningDataModule's training loader."""
    import lightning
    import torch

    class Module(lightning.LightningDataModule):  # type: ignore[misc, unused-ignore]
        def setup(self, stage: str) -> None:  # noqa: ARG002  as lightning calls it
            self.rows = tensors(root)

        def train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(self.rows, 4)

    module = Module()
    module.setup("fit")
    return module.train_dataloader().dataset


def _arrow(table: Any, index: int) -> Any:
    return {name: np.asarray(table.column(name)[index].as_py()) for name in table.column_names}


def arrow_table(root: Path) -> Any:
    """pyarrow: a Parquet file as a table in memory."""
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"x": np.arange(SIZE), "y": np.arange(SIZE) / 2}), root / "a.parquet")
    return Rows(parquet.read_table(root / "a.parquet"), _arrow)


def _polars(table: Any, index: int) -> Any:
    return np.asarray(table.row(index), np.float32)


def polars_frame(root: Path) -> Any:
    """polars: a CSV file as a frame."""
    import polars as pl

    pl.DataFrame({"x": np.arange(SIZE), "y": np.arange(SIZE) / 2}).write_csv(root / "a.csv")
    return Rows(pl.read_csv(root / "a.csv"), _polars)


def _pandas(table: Any, index: int) -> Any:
    return table.iloc[index].to_numpy(np.float32)


def pandas_frame(root: Path) -> Any:
    """pandas: a CSV file as a frame."""
    import pandas as pd

    pd.DataFrame({"x": np.arange(SIZE), "y": np.arange(SIZE) / 2}).to_csv(root / "a.csv", index=False)
    return Rows(pd.read_csv(root / "a.csv"), _pandas)


def _hdf5(path: Any, index: int) -> Any:
    import h5py

    with h5py.File(path) as file:
        return file["x"][index]


def hdf5(root: Path) -> Any:
    """h5py: opened for each read, as its documentation advises for processes."""
    import h5py

    with h5py.File(root / "a.h5", "w") as file:
        file["x"] = np.arange(72.0).reshape(SIZE, 3)
    return Rows(str(root / "a.h5"), _hdf5)


def _first(table: Any, index: int) -> Any:
    return table[index]


def zarr_array(root: Path) -> Any:
    """zarr: an array in a folder."""
    import zarr

    array = zarr.create_array(str(root / "a.zarr"), shape=(SIZE, 3), chunks=(4, 3), dtype="f4")
    array[:] = np.arange(72.0).reshape(SIZE, 3)
    return Rows(zarr.open_array(str(root / "a.zarr"), mode="r"), _first)


def memory_map(root: Path) -> Any:
    """numpy: a memory map."""
    np.save(root / "a.npy", np.arange(72.0).reshape(SIZE, 3))
    return np.load(root / "a.npy", mmap_mode="r")


CLEAN: list[Callable[[Path], Any]] = [
    tensors, torch_subset, image_folder, mnist, cifar, voc, huggingface, huggingface_torch, huggingface_map,
    huggingface_stream, web_dataset, torchdata_nodes, digits, iris, albumented, kornia_resize, monai_cache, monai_array,
    timm_folder, medmnist_class, lightning_module, arrow_table, polars_frame, pandas_frame, hdf5, zarr_array,
    memory_map,
]  # fmt: skip


def main() -> int:
    """Examine all, write the table, and return how many findings there were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each dataset, at most")
    parser.add_argument("--only", default="")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    rows, found_in, missing = [], 0, []
    for make in CLEAN:
        if given.only not in make.__name__:
            continue
        title = (make.__doc__ or "").rstrip(".")
        with tempfile.TemporaryDirectory() as root:
            try:
                dataset = make(Path(root))
            except ImportError as error:
                missing.append(f"{title} ({error})")
                continue
            found = examine(dataset, seconds=given.seconds)
            del dataset
        found_in += bool(found.findings)
        said = "; ".join(f"{one.check}: {one.what}" for one in found.findings) or "nothing"
        unchecked = ", ".join(sorted(found.unchecked)) or "none"
        rows.append(f"| {title} | {said} | {len(found.checked)} | {unchecked} |")
        print(rows[-1], flush=True)
        for one in found.findings:
            print("   ", one.evidence, "|", one.place, flush=True)
    summary = f"{len(rows)} datasets and pipelines; findings in {found_in}."
    print(summary, *missing, sep="\n")
    if given.output:
        versions = ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)
        command = f"python benchmarks/{Path(sys.argv[0]).name} --seconds {given.seconds:g}"
        head = (
            f"# Nothing is found where nothing is wrong\n\n`{command}`: what `headrace doctor` finds in\n"
            f"datasets of other libraries. {versions}.\n\n"
            "| dataset | found | checks made | not made |\n| --- | --- | ---: | --- |"
        )
        left = [f"\nLeft out: {', '.join(missing)}."] if missing else []
        given.output.write_text("\n".join([head, *rows, "", summary, *left, ""]), encoding="utf-8")
    return found_in


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
