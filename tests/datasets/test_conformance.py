"""Every kind of dataset under the suite that `headrace.testing` gives to third parties."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.golden.cases import COUNT, features, images, pixels
from tests.image_files import by_pillow, encoded

import headrace as hr
from headrace.testing import DatasetTests, FormatTests

if TYPE_CHECKING:
    from collections.abc import Iterator

LABELS = np.arange(COUNT) % 3


def doubled(row: Any) -> Any:
    return row * 2


def jittered(row: Any, rng: np.random.Generator) -> Any:
    return row + rng.integers(0, 1000)


def doubled_images(sample: tuple[Any, int]) -> tuple[Any, int]:
    return sample[0] // 2, sample[1]


class Squares(hr.Dataset[Any]):
    """The least that a dataset may be."""

    def __getitem__(self, index: int) -> int:
        if not -9 <= index < 9:
            raise IndexError(index)
        return int(index % 9) ** 2

    def __len__(self) -> int:
        return 9


class TestLeast(DatasetTests):
    def make(self) -> Any:
        return Squares()


class TestArray(DatasetTests):
    def make(self) -> Any:
        return hr.ArrayDataset(features())


class TestLabelledArrays(DatasetTests):
    def make(self) -> Any:
        return hr.ArrayDataset(features(), LABELS)


class TestArrayFile(DatasetTests):
    @pytest.fixture(autouse=True)
    def file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "rows.npy"
        np.save(self.path, features())

    def make(self) -> Any:
        return hr.ArrayDataset(self.path)


class TestArrayOfImages(FormatTests):
    def make(self) -> Any:
        return hr.ArrayDataset(np.stack([pixels(number) for number in range(COUNT)]), LABELS)


class TestTensors(DatasetTests):
    def make(self) -> Any:
        return hr.TensorDataset(features(), LABELS)


class TestMapped(DatasetTests):
    def make(self) -> Any:
        return hr.ArrayDataset(features()).map(doubled)


class TestMappedAtRandom(DatasetTests):
    def make(self) -> Any:
        return hr.ArrayDataset(features()).map(jittered)


class TestMappedNatively(DatasetTests):
    def make(self) -> Any:
        stack = np.stack([pixels(number) for number in range(COUNT)])
        return hr.ArrayDataset(stack, LABELS).map(hr.RandomCrop(28, padding=2), hr.RandomHorizontalFlip(), hr.ToFloat())


class TestSubset(DatasetTests):
    def make(self) -> Any:
        return hr.Subset(hr.ArrayDataset(features(), LABELS), [4, 2, 2, 19, 7, 0])


class TestConcat(DatasetTests):
    def make(self) -> Any:
        return hr.ArrayDataset(features()) + hr.ArrayDataset(features() + 1)


class TestStack(DatasetTests):
    def make(self) -> Any:
        return hr.datasets.StackDataset(hr.ArrayDataset(features()), hr.ArrayDataset(LABELS))


class TestStackAtRandom(DatasetTests):
    def make(self) -> Any:
        return hr.datasets.StackDataset(a=hr.ArrayDataset(features()).map(jittered), b=list(range(COUNT)))


class TestGrouped(DatasetTests):
    def make(self) -> Any:
        return hr.datasets.GroupedDataset(hr.ArrayDataset(features()))


class TestPaired(DatasetTests):
    def make(self) -> Any:
        return hr.datasets.PairedDataset(
            hr.ArrayDataset(features(), LABELS), hr.ArrayDataset(features() * 2, LABELS), k=2
        )


class TestHDF5(DatasetTests):
    @pytest.fixture(autouse=True)
    def file(self, tmp_path: Path) -> Iterator[None]:
        h5py = pytest.importorskip("h5py")
        self.path, self.opened = tmp_path / "rows.h5", list[Any]()
        with h5py.File(self.path, "w") as file:
            file.create_dataset("x", data=features(), chunks=(4, 5))
            file["y"] = LABELS
        yield
        for dataset in self.opened:
            dataset.close()

    def make(self) -> Any:
        self.opened.append(hr.datasets.HDF5Dataset(self.path, "x", "y"))
        return self.opened[-1]


class TestCIFAR(FormatTests):
    @pytest.fixture(autouse=True)
    def files(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        (tmp_path / "batches.meta.txt").write_text("airplane\nautomobile\n")
        rows = [bytes([number % 2]) + pixels(number, 32, 32).tobytes() for number in range(COUNT)]
        (tmp_path / "test_batch.bin").write_bytes(b"".join(rows))

    def make(self) -> Any:
        return hr.datasets.CIFAR10(self.folder, train=False)


class OfImages(FormatTests):
    """Files of images: PNG, and BMP, which the native extension gives back, so that both ways are taken."""

    collates = False

    @pytest.fixture(autouse=True)
    def files(self, tmp_path: Path) -> None:
        pytest.importorskip("PIL")
        self.folder = tmp_path
        self.paths = images(tmp_path)
        for path in map(Path, self.paths[::2]):
            path.write_bytes(encoded(by_pillow(path.read_bytes()), "BMP"))


class TestImageFiles(OfImages):
    def make(self) -> Any:
        return hr.ImageFiles(self.paths, LABELS)


class TestImageFolder(OfImages):
    def make(self) -> Any:
        return hr.ImageFolder(self.folder)


class TestImageList(OfImages):
    def make(self) -> Any:
        lines = [f"{path} {number % 4}\n" for number, path in enumerate(self.paths)]
        (self.folder / "list.txt").write_text("".join(lines))
        return hr.ImageList(self.folder / "list.txt")


class TestImagesOfAnotherMode(DatasetTests):
    collates = False
    files = OfImages.files

    def make(self) -> Any:
        return hr.ImageFiles(self.paths, LABELS, mode="L")


class TestOwnFunctionOnImages(DatasetTests):
    files = OfImages.files

    def make(self) -> Any:
        return hr.ImageFiles(self.paths, LABELS).map(hr.CenterCrop(20), doubled_images)


class TestFaces(DatasetTests):
    collates = False
    files = OfImages.files

    def make(self) -> Any:
        return hr.datasets.FaceDataset(self.folder)


class TestPaths(DatasetTests):
    def make(self) -> Any:
        return hr.datasets.PackedList(f"{number}.jpg" for number in range(COUNT))
