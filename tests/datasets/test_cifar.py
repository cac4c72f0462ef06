"""CIFAR from local files: every layout gives the same images, archives are verified, nothing foreign is trusted."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.image_files import photo

from headrace import DataLoader
from headrace.datasets import CIFAR10, CIFAR100, cifar
from headrace.errors import ArgumentError, BadFile, MissingFile

ROWS = 4
TEN = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FINE, COARSE = [f"fine_{n}" for n in range(100)], [f"coarse_{n}" for n in range(20)]
Files = dict[str, bytes]


def made(seed: int) -> tuple[np.ndarray[Any, Any], list[int], list[int]]:
    """Make (n, 32, 32, 3) images, with labels below 10, which also do for fine ones, and coarse ones."""
    images = np.stack([photo(100 * seed + n, 32, 32) for n in range(ROWS)])
    return images, [(seed + 3 * n) % 10 for n in range(ROWS)], [(seed + n) % 20 for n in range(ROWS)]


def planes(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


def as_pickle(**content: Any) -> bytes:
    return pickle.dumps(content, protocol=2)


def records(images: np.ndarray[Any, Any], *labels: list[int]) -> bytes:
    return np.hstack([np.array(labels, np.uint8).T, planes(images)]).tobytes()


def ten_python() -> Files:
    names = [*cifar.CIFAR10_LAYOUTS[0].train, "test_batch"]
    files = {"batches.meta": as_pickle(num_cases_per_batch=ROWS, label_names=TEN, num_vis=3072)}
    for seed, name in enumerate(names):
        images, labels, _ = made(seed)
        files[name] = as_pickle(batch_label=name, labels=labels, data=planes(images), filenames=["a.png"] * ROWS)
    return files


def ten_binary() -> Files:
    names = [*cifar.CIFAR10_LAYOUTS[1].train, "test_batch.bin"]
    return {"batches.meta.txt": ("\n".join(TEN) + "\n\n").encode()} | {
        name: records(images, labels) for name, (images, labels, _) in zip(names, map(made, range(6)), strict=True)
    }


def hundred_python() -> Files:
    files = {"meta": as_pickle(fine_label_names=FINE, coarse_label_names=COARSE)}
    for seed, name in enumerate(("train", "test")):
        images, fine, coarse = made(seed)
        files[name] = as_pickle(data=planes(images), fine_labels=fine, coarse_labels=coarse, filenames=["a"] * ROWS)
    return files


def hundred_binary() -> Files:
    files = {"fine_label_names.txt": "\n".join(FINE).encode(), "coarse_label_names.txt": "\n".join(COARSE).encode()}
    for seed, name in enumerate(("train.bin", "test.bin")):
        images, fine, coarse = made(seed)
        files[name] = records(images, coarse, fine)
    return files


LAYOUTS = {
    "ten python": (CIFAR10, cifar.CIFAR10_LAYOUTS[0], ten_python),
    "ten binary": (CIFAR10, cifar.CIFAR10_LAYOUTS[1], ten_binary),
    "hundred python": (CIFAR100, cifar.CIFAR100_LAYOUTS[0], hundred_python),
    "hundred binary": (CIFAR100, cifar.CIFAR100_LAYOUTS[1], hundred_binary),
}
each_layout = pytest.mark.parametrize(("kind", "layout", "make"), LAYOUTS.values(), ids=LAYOUTS)


def extracted(folder: Path, files: Files) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def archived(path: Path, folder: str, files: Files, *others: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for other in others:
            tar.addfile(other)
        for name, data in reversed(files.items()):
            member = tarfile.TarInfo(f"{folder}/{name}" if folder else name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def expected(kind: type, *, train: bool) -> tuple[np.ndarray[Any, Any], list[int], list[int]]:
    seeds = ([*range(5)] if train else [5]) if kind is CIFAR10 else ([0] if train else [1])
    parts = [made(seed) for seed in seeds]
    fine, coarse = ([label for part in parts for label in part[column]] for column in (1, 2))
    return np.concatenate([part[0] for part in parts]), fine, coarse


@each_layout
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    "form", ["extracted", "the folder itself", "archive in a folder", "the archive itself", "flat"]
)
def test_every_layout_gives_the_same_images(
    kind: Any, layout: cifar.Layout, make: Any, *, train: bool, form: str, tmp_path: Path
) -> None:
    """Read pickles and records, extracted or not, into one uint8 array (N, 32, 32, 3) and int64 labels."""
    if form in ("extracted", "the folder itself"):
        folder = extracted(tmp_path / layout.folder, make())
        root = folder if form == "the folder itself" else tmp_path
    else:
        archive = archived(tmp_path / layout.archive, "" if form == "flat" else layout.folder, make())
        root = tmp_path if form == "archive in a folder" else archive
    dataset = kind(root, train=train, verify=False)
    images, fine, coarse = expected(kind, train=train)
    np.testing.assert_array_equal(dataset.images, images)
    assert (dataset.images.dtype, dataset.labels.dtype) == (np.uint8, np.int64)
    assert dataset.images.flags.c_contiguous
    assert dataset.labels.tolist() == fine
    assert dataset.classes == (TEN if kind is CIFAR10 else FINE)
    assert dataset.class_to_idx[dataset.classes[7]] == 7
    assert not dataset.verified
    assert kind.is_at(root)
    if kind is CIFAR100:
        by_kind = kind(root, train, coarse=True, verify=False)
        assert (by_kind.labels.tolist(), by_kind.classes) == (coarse, COARSE)


def test_a_loader_gathers_whole_batches(tmp_path: Path) -> None:
    """Answer what shape the data has, and never ask for a single sample."""
    dataset = CIFAR10(extracted(tmp_path / "x", ten_python()))
    images, labels = next(iter(DataLoader(dataset, 8)))
    assert (images.shape, images.dtype, labels.shape, labels.dtype) == ((8, 32, 32, 3), np.uint8, (8,), np.int64)
    assert dataset.read_batch([1, 0])[1].tolist() == dataset.labels[[1, 0]].tolist()
    image, label = dataset[-1]
    assert (image.shape, label) == ((32, 32, 3), dataset.labels[-1])
    assert repr(dataset) == f"<CIFAR10 train: 20 images, {tmp_path}/x (not verified)>"
    assert dataset.where(3) == f"{tmp_path}/x, train row 3"
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy.images, dataset.images)


def test_extracted_files_come_before_the_archive(tmp_path: Path) -> None:
    """Read what is quicker to read, where both are there."""
    extracted(tmp_path / "cifar-10-batches-bin", ten_binary())
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"not read")
    assert CIFAR10(tmp_path).source.endswith("cifar-10-batches-bin")


@each_layout
def test_an_archive_is_verified_before_it_is_read(
    kind: Any, layout: cifar.Layout, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refuse another MD5 than the published one, and accept it where the user does."""
    archive = archived(tmp_path / layout.archive, layout.folder, make())
    with pytest.raises(BadFile, match=rf"its MD5 is [0-9a-f]{{32}}: .*; expected .*{layout.md5}.*verify=False"):
        kind(tmp_path)
    assert len(kind(tmp_path, verify=False)) > 0
    published = replace(layout, md5=hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(kind, "_layouts", (published,))
    assert kind(tmp_path).verified
    assert "(MD5 as published)" in repr(kind(archive))


def test_the_other_datasets_archive_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell one who opens CIFAR-100 as CIFAR-10 what the file is."""
    archive = archived(tmp_path / "it.tar.gz", "cifar-100-python", hundred_python())
    real = replace(cifar.CIFAR100_LAYOUTS[0], md5=hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(cifar, "CIFAR100_LAYOUTS", (real,))
    with pytest.raises(BadFile, match=r"its MD5 is \w+ \(cifar-100-python.tar.gz\): it is"):
        CIFAR10(archive)


def test_what_is_not_there_is_reported_with_what_was_looked_for(tmp_path: Path) -> None:
    """Name the places, the download page, or the split that is there."""
    with pytest.raises(
        MissingFile, match=r"no CIFAR10 here; expected one of cifar-10-batches-py/data_batch_1, .*cs.toronto"
    ):
        CIFAR10(tmp_path)
    assert not CIFAR10.is_at(tmp_path)
    files = ten_python()
    extracted(tmp_path / "a", {name: files[name] for name in ("test_batch", "batches.meta")})
    with pytest.raises(MissingFile, match="Pass train=False, whose files are there"):
        CIFAR10(tmp_path / "a")
    assert CIFAR10.is_at(tmp_path / "a")
    del files["data_batch_3"]
    for root in (extracted(tmp_path / "b", files), archived(tmp_path / "c.tar.gz", "cifar-10-batches-py", files)):
        with pytest.raises(MissingFile, match="of the train split, data_batch_3 not found"):
            CIFAR10(root, verify=False)
        assert len(CIFAR10(root, train=False, verify=False)) == ROWS


def test_a_folder_with_a_file_called_train_is_no_cifar_100(tmp_path: Path) -> None:
    """Ask for the names of the classes beside it before calling it so."""
    (tmp_path / "train").write_bytes(b"")
    assert not CIFAR100.is_at(tmp_path)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("test_batch", pickle.dumps(print, 2), "a pickle that names __builtin__.print"),
        ("test_batch", as_pickle(labels=[1])[:-1], "expected a whole pickle"),
        ("test_batch", pickle.dumps([1], 2), "a pickle of a list; expected a dict"),
        ("test_batch", as_pickle(labels=[1]), "'data' is a NoneType; expected a uint8 array"),
        ("test_batch", as_pickle(data=np.zeros((1, 3072)), labels=[1]), "'data' is an array of float64"),
        ("test_batch", as_pickle(data=np.zeros((1, 3071), np.uint8), labels=[1]), r"of shape \(1, 3071\); expected"),
        ("test_batch", as_pickle(data=np.zeros((1, 3072), np.uint8), labels=[1, 2]), "1 images and 2 labels"),
        (
            "test_batch",
            as_pickle(data=np.zeros((1, 3072), np.uint8), labels=[[1]]),
            r"the label \[1\]; expected",
        ),
        (
            "test_batch",
            as_pickle(data=np.zeros((1, 3072), np.uint8), labels=[2**70]),
            "expected labels from 0 to 255",
        ),
        ("test_batch", as_pickle(data=np.zeros((1, 3072), np.uint8), labels=[10]), "a label is 10; .* 10 classes"),
        ("batches.meta", as_pickle(label_names="cat"), "'label_names' is a str; expected a list of class names"),
        ("test_batch", b"", "expected a whole pickle"),
    ],
    ids=str,
)
def test_pickles_that_are_something_else_are_refused(name: str, data: bytes, words: str, tmp_path: Path) -> None:
    """Name the file and what is the matter with it."""
    folder = extracted(tmp_path / "x", ten_python() | {name: data})
    with pytest.raises(BadFile, match=words) as caught:
        CIFAR10(folder, train=False)
    assert str(caught.value).startswith(str(folder))


def test_records_that_are_cut_short_are_refused(tmp_path: Path) -> None:
    """Count in whole records."""
    files = ten_binary()
    files["test_batch.bin"] = files["test_batch.bin"][:-1]
    with pytest.raises(BadFile, match=r"test_batch.bin: 12291 bytes; expected a whole number of records of 3073"):
        CIFAR10(extracted(tmp_path / "x", files), train=False)


def test_bytes_for_keys_are_keys(tmp_path: Path) -> None:
    """Read what Python 3 wrote again after reading it with encoding="bytes"."""
    images, labels, _ = made(0)
    content = {b"data": planes(images), b"labels": labels}
    meta = pickle.dumps({b"label_names": [name.encode() for name in TEN]}, 4)
    folder = extracted(tmp_path / "x", {"test_batch": pickle.dumps(content, 4), "batches.meta": meta})
    dataset = CIFAR10(folder, train=False)
    np.testing.assert_array_equal(dataset.images, images)
    assert dataset.classes == TEN


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_members_that_are_no_files_are_passed_over(kind: bytes, tmp_path: Path) -> None:
    """Follow no link, neither out of the archive nor in it."""
    trap = tarfile.TarInfo("cifar-10-batches-py/test_batch")
    trap.type, trap.linkname = kind, "/etc/passwd"
    archive = archived(tmp_path / "a.tar.gz", "cifar-10-batches-py", ten_python(), trap)
    assert len(CIFAR10(archive, train=False, verify=False)) == ROWS


@pytest.mark.parametrize("folder", ["..", "/tmp", "../cifar-10-batches-py", "x/cifar-10-batches-py"])
def test_members_elsewhere_are_passed_over(folder: str, tmp_path: Path) -> None:
    """Take files by their own place in the archive and no other, and write none."""
    archive = archived(tmp_path / "a.tar.gz", folder, ten_python())
    with pytest.raises(MissingFile, match="not found"):
        CIFAR10(archive, verify=False)
    assert list(tmp_path.iterdir()) == [archive]


def test_a_member_that_comes_twice_is_refused(tmp_path: Path) -> None:
    """Choose neither."""
    files = ten_python()
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, data in [*files.items(), ("test_batch", files["test_batch"])]:
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with pytest.raises(BadFile, match="test_batch: it is in the archive twice"):
        CIFAR10(path, train=False, verify=False)


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop at the limit, whether the bulk is in a file that is wanted, in another, or in a header."""
    monkeypatch.setattr(cifar, "MOST_OF_AN_ARCHIVE", 200_000)
    bulk = bytes(1 << 20)
    for name in ("test_batch", "bulk"):
        with pytest.raises(BadFile, match="more than 0 MiB"):
            CIFAR10(archived(tmp_path / name, "", ten_python() | {name: bulk}), train=False, verify=False)
    header = tarfile.TarInfo("x" * (1 << 20))
    path = tmp_path / "header"
    path.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT)))
    with pytest.raises(BadFile, match="more than 0 MiB"):
        CIFAR10(path, train=False, verify=False)


def test_an_archive_of_too_many_files_is_refused(tmp_path: Path) -> None:
    """Stop counting early: each costs time and memory, and only a few bytes of the archive."""
    path = tmp_path / "many.tar.gz"
    path.write_bytes(gzip.compress(tarfile.TarInfo("x").tobuf() * 2000))
    with pytest.raises(BadFile, match="more than 1000 files"):
        CIFAR10(path, verify=False)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    """Ask for the size first."""
    folder = extracted(tmp_path / "x", ten_python())
    os.truncate(folder / "test_batch", (256 << 20) + 1)
    with pytest.raises(BadFile, match="more than 256 MiB"):
        CIFAR10(folder, train=False)


def test_an_archive_that_is_cut_short_or_none_is_refused(tmp_path: Path) -> None:
    """Name it, wherever it ends."""
    whole = archived(tmp_path / "a.tar.gz", "cifar-10-batches-py", ten_python()).read_bytes()
    path = tmp_path / "cut.tar.gz"
    for data in (b"", b"no gzip", whole[:5], whole[:3000], whole[:-9], gzip.compress(b"no tar" * 200)):
        path.write_bytes(data)
        with pytest.raises((BadFile, MissingFile), match=r"cut.tar.gz"):
            CIFAR10(path, verify=False)


@pytest.mark.parametrize("wrong", [None, 3, b"x", ""])
def test_arguments_are_read_at_the_door(wrong: Any, tmp_path: Path) -> None:
    """Refuse what is no folder and what is neither True nor False."""
    with pytest.raises(ArgumentError, match="root must be the path"):
        CIFAR10(wrong)
    with pytest.raises(ArgumentError, match="train should be a boolean value"):
        CIFAR10(tmp_path, wrong)
    with pytest.raises(ArgumentError, match="verify should be a boolean value"):
        CIFAR100(tmp_path, verify=wrong)


def test_the_real_test_batch_is_read() -> None:
    """Read ten thousand real images, where HEADRACE_DATA names a folder that has them."""
    archive = Path(os.environ.get("HEADRACE_DATA", ""), "cifar-10-test-batch.tar.gz")
    if not archive.is_file():
        pytest.skip("HEADRACE_DATA names no folder with cifar-10-test-batch.tar.gz")
    dataset = CIFAR10(archive, train=False, verify=False)
    assert dataset.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(dataset.labels).tolist() == [1000] * 10
    assert dataset.classes == TEN
