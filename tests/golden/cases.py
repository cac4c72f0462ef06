"""One loader for each kind of dataset and sampler, over data that come out the same on every machine.

python -m tests.golden.cases --write    records what they give today
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

import headrace as hr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECORD = Path(__file__).with_name("golden.json")
EPOCHS = 2
COUNT = 23

Case = tuple[Any, dict[str, Any]]
CASES: dict[str, Callable[[Path], Case]] = {}


def case(make: Callable[[Path], Case]) -> Callable[[Path], Case]:
    """Register a dataset with the arguments of its loader."""
    CASES[make.__name__] = make
    return make


def pixels(number: int, height: int = 40, width: int = 52) -> np.ndarray[Any, Any]:
    """Make an image of integers alone: no float that another processor might round in another way."""
    values = np.arange(height * width * 3, dtype=np.int64).reshape(height, width, 3)
    return ((values * (number + 3) + values // 97 * 31) % 256).astype(np.uint8)


def images(folder: Path) -> list[str]:
    """Write PNG files, in two folders that are classes; decoding them loses nothing."""
    paths = [folder / ("cat" if number % 3 else "dog") / f"{number:02}.png" for number in range(COUNT)]
    for number, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels(number, 40 + number, 52)).save(path)
    return [str(path) for path in paths]


def features() -> np.ndarray[Any, Any]:
    """Make rows of floats that are exact in binary."""
    return np.arange(COUNT * 5, dtype=np.float32).reshape(COUNT, 5) / 4


def jitter(sample: Any, rng: np.random.Generator) -> Any:
    """Draw from the sample's own generator: integers, which no processor rounds."""
    return sample + rng.integers(0, 1000)


def labelled(sample: tuple[Any, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Make a dict of a pair, with a number of its own."""
    return {"x": sample[0], "y": sample[1], "drawn": int(rng.integers(0, 1 << 40))}


class Stream(hr.IterableDataset[int]):
    """A stream that draws."""

    def __iter__(self) -> Iterator[int]:
        for number in range(COUNT):
            yield number * 1000 + int(hr.rng().integers(0, 1000))


@case
def array(folder: Path) -> Case:
    return hr.ArrayDataset(features()), {"shuffle": True}


@case
def arrays_mapped(folder: Path) -> Case:
    return hr.ArrayDataset(features(), np.arange(COUNT)).map(labelled), {"shuffle": True}


@case
def array_file(folder: Path) -> Case:
    np.save(folder / "rows.npy", features())
    return hr.ArrayDataset(folder / "rows.npy"), {"shuffle": True, "drop_last": True}


@case
def image_arrays(folder: Path) -> Case:
    stack = np.stack([pixels(number, 36, 36) for number in range(COUNT)])
    crops = hr.RandomCrop(28, padding=2), hr.RandomHorizontalFlip()
    return hr.ArrayDataset(stack).map(*crops), {"shuffle": True}


@case
def tensors(folder: Path) -> Case:
    return hr.TensorDataset(features(), np.arange(COUNT)), {"shuffle": True}


@case
def plain_list(folder: Path) -> Case:
    return [{"id": number, "name": f"n{number}", "x": features()[number]} for number in range(COUNT)], {"shuffle": True}


@case
def image_files(folder: Path) -> Case:
    return hr.ImageFiles(images(folder)).map(hr.CenterCrop(32)), {"shuffle": True}


@case
def image_folder(folder: Path) -> Case:
    images(folder)
    return hr.ImageFolder(folder).map(hr.RandomCrop(32), hr.RandomHorizontalFlip(), hr.ToCHW()), {"shuffle": True}


@case
def image_folder_own_function(folder: Path) -> Case:
    images(folder)
    return hr.ImageFolder(folder).map(hr.RandomCrop(16), lambda image, rng: image[:: rng.integers(1, 2)]), {}


@case
def image_list(folder: Path) -> Case:
    lines = [f"{path} {number % 4}\n" for number, path in enumerate(images(folder))]
    (folder / "list.txt").write_text("".join(lines))
    return hr.ImageList(folder / "list.txt").map(hr.CenterCrop(20)), {"shuffle": True}


@case
def packed_list(folder: Path) -> Case:
    return hr.datasets.PackedList(f"{number}.jpg" for number in range(COUNT)), {"shuffle": True}


@case
def subset(folder: Path) -> Case:
    return hr.Subset(hr.ArrayDataset(features()), [4, 2, 2, 19, 7]).map(jitter), {"shuffle": True}


@case
def random_split(folder: Path) -> Case:
    return hr.random_split(hr.ArrayDataset(features()), [0.5, 0.5], generator=5)[1], {"shuffle": True}


@case
def concat(folder: Path) -> Case:
    return hr.ConcatDataset([hr.ArrayDataset(features()), hr.ArrayDataset(features() + 1)]), {"shuffle": True}


@case
def stack(folder: Path) -> Case:
    return hr.datasets.StackDataset(a=hr.ArrayDataset(features()).map(jitter), b=list(range(COUNT))), {"shuffle": True}


@case
def paired(folder: Path) -> Case:
    classes = np.arange(COUNT) % 2
    return hr.datasets.PairedDataset(
        hr.ArrayDataset(features(), classes), hr.ArrayDataset(features() * 2, classes), k=2
    ), {}


@case
def hdf5(folder: Path) -> Case:
    import h5py

    with h5py.File(folder / "rows.h5", "w") as file:
        file.create_dataset("x", data=features(), chunks=(4, 5))
        file["y"] = np.arange(COUNT) % 3
    return hr.datasets.HDF5Dataset(folder / "rows.h5", "x", "y"), {"shuffle": True}


@case
def cifar(folder: Path) -> Case:
    (folder / "batches.meta.txt").write_text("airplane\nautomobile\n")
    rows = [bytes([number % 2]) + pixels(number, 32, 32).tobytes() for number in range(COUNT)]
    (folder / "test_batch.bin").write_bytes(b"".join(rows))
    return hr.datasets.CIFAR10(folder, train=False), {"shuffle": True}


@case
def iterable(folder: Path) -> Case:
    return Stream(), {"read_once": True}


@case
def iterable_mapped(folder: Path) -> Case:
    return Stream().map(jitter), {"read_once": True}


@case
def single_samples(folder: Path) -> Case:
    return hr.ArrayDataset(features()).map(jitter), {"batch_size": None, "shuffle": True}


@case
def skipped(folder: Path) -> Case:
    def fussy(row: Any) -> Any:
        if row[0] % 5 == 0:
            raise hr.SampleError("no")
        return row

    return hr.ArrayDataset(features()).map(fussy), {"on_error": "skip", "shuffle": True}


@case
def replaced(folder: Path) -> Case:
    dataset, arguments = skipped(folder)
    return dataset, {**arguments, "on_error": "replace"}


@case
def ranks(folder: Path) -> Case:
    return hr.ArrayDataset(features()).map(jitter), {"shuffle": True, "rank": 1, "world_size": 3}


def by_sampler(sampler: Any, **arguments: Any) -> Case:
    """Load numbers in a sampler's order."""
    return hr.ArrayDataset(np.arange(COUNT)).map(jitter), {"sampler": sampler, **arguments}


def by_batches(sampler: Any) -> Case:
    """Load numbers in a batch sampler's batches."""
    return hr.ArrayDataset(np.arange(COUNT)).map(jitter), {"batch_sampler": sampler, "batch_size": 1}


LENGTHS = [1 + number * 7 % 13 for number in range(COUNT)]


@case
def shard_sampler(folder: Path) -> Case:
    return by_sampler(hr.samplers.ShardSampler([5, 9, 9], window=2))


@case
def mixture_sampler(folder: Path) -> Case:
    return by_sampler(hr.samplers.MixtureSampler([10, 13], [0.25, 0.75], num_samples=40))


@case
def repeated_sampler(folder: Path) -> Case:
    return by_sampler(hr.samplers.RepeatedSampler(COUNT, 2))


@case
def weighted_sampler(folder: Path) -> Case:
    return by_sampler(hr.samplers.WeightedRandomSampler(np.arange(COUNT), 30, generator=3))


@case
def distributed_sampler(folder: Path) -> Case:
    return by_sampler(hr.samplers.DistributedSampler(range(COUNT), 2, 1, seed=3))


@case
def bucket_sampler(folder: Path) -> Case:
    return by_batches(hr.samplers.BucketBatchSampler(LENGTHS, 4, bucket_size=8))


@case
def token_sampler(folder: Path) -> Case:
    return by_batches(hr.samplers.TokenBatchSampler(LENGTHS, 40, window=16))


@case
def balanced_sampler(folder: Path) -> Case:
    return by_batches(hr.samplers.BalancedBatchSampler([number % 3 for number in range(COUNT)], samples_per_class=2))


@case
def packing_sampler(folder: Path) -> Case:
    words = hr.datasets.GroupedDataset([np.full(length, length) for length in LENGTHS])
    rows = hr.samplers.PackingBatchSampler(LENGTHS, row_length=16, batch_size=2)
    return words, {"batch_sampler": rows, "batch_size": 1, "collate_fn": hr.collate.PackedCollate(16)}


@case
def packed_mixture(folder: Path) -> Case:
    texts = hr.ConcatDataset([[np.full(length, length) for length in LENGTHS]] * 2)
    mixture = hr.samplers.MixtureSampler([COUNT, COUNT], [1, 3], num_samples=50)
    how: dict[str, Any] = {"sampler": mixture, "longer": "split", "window": 9}
    rows = hr.samplers.PackingBatchSampler([*LENGTHS, *LENGTHS], 10, 2, **how)
    collate = hr.collate.PackedCollate(10, fields=["values", "positions", "labels", "cu_seqlens"])
    return hr.datasets.GroupedDataset(texts), {"batch_sampler": rows, "batch_size": 1, "collate_fn": collate}


@case
def padded(folder: Path) -> Case:
    return [np.arange(length) for length in LENGTHS], {"collate_fn": hr.collate.PaddedCollate(-1), "shuffle": True}


@case
def filtered(folder: Path) -> Case:
    images(folder)
    return hr.ImageFolder(folder).filter(bool, by="label").map(hr.RandomCrop(32)), {"shuffle": True}


@case
def filtered_by_sample(folder: Path) -> Case:
    noisy = hr.ArrayDataset(features()).map(jitter)
    return noisy.filter(lambda row: row[0] % 2 < 1), {"shuffle": True}


@case
def taken_and_skipped(folder: Path) -> Case:
    return hr.ArrayDataset(features(), np.arange(COUNT)).skip(3).take(17), {"shuffle": True}


@case
def repeated(folder: Path) -> Case:
    return hr.ArrayDataset(features()).repeat(2).map(jitter), {"shuffle": True}


@case
def sharded(folder: Path) -> Case:
    return hr.ArrayDataset(features()).shard(1, 3).map(jitter), {"shuffle": True}


@case
def zipped(folder: Path) -> Case:
    return hr.ArrayDataset(features()).zip(hr.ArrayDataset(np.arange(COUNT))), {"shuffle": True}


@case
def concat_of_images(folder: Path) -> Case:
    images(folder)
    dataset = hr.ImageFolder(folder).map(hr.RandomCrop(32), hr.RandomHorizontalFlip())
    return dataset.concat(dataset.take(5)), {"shuffle": True}


@case
def stream_views(folder: Path) -> Case:
    evens = Stream().filter(lambda number: number % 2 == 0)
    return evens.repeat(2).skip(2).take(15).zip(range(99)), {"read_once": True}


def digest(name: str, **workers: Any) -> str:
    """Hash all batches of two epochs: their structure, dtypes, shapes and bytes."""
    hashed = hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder:
        dataset, arguments = CASES[name](Path(folder))
        with hr.DataLoader(dataset, **{"batch_size": 4, "seed": 7, **arguments, **workers}) as loader:
            for _ in range(EPOCHS):
                for batch in loader:
                    _add(hashed, batch)
                hashed.update(b"end")
        if hasattr(dataset, "close"):
            dataset.close()
    return hashed.hexdigest()


def _add(hashed: Any, value: Any) -> None:
    if isinstance(value, dict):
        for key in value:
            hashed.update(repr(key).encode())
            _add(hashed, value[key])
    elif isinstance(value, list | tuple):
        hashed.update(f"{len(value)} parts".encode())
        for part in value:
            _add(hashed, part)
    elif isinstance(value, np.ndarray | np.generic):
        hashed.update(f"{value.dtype.str}{value.shape}".encode())
        hashed.update(np.ascontiguousarray(value).tobytes())
    else:
        hashed.update(repr(value).encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="record what comes out today")
    found = {}
    write = parser.parse_args().write
    for name in CASES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found[name] = digest(name)
        print(name, found[name][:16])
    if write:
        RECORD.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
