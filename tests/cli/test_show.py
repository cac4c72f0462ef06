"""`headrace show`: a batch in numbers, and its contact sheet."""

from __future__ import annotations

import io
import shutil
import tarfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import headrace
from headrace.cli import preview
from headrace.cli.image_set import Options, open_path
from headrace.image.sheet import TILE, Pair, contact_sheet, sheet_size, thumbnail
from tests.datasets.token_files import llm_c, megatron

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Call, Run


def colours(path: Path) -> tuple[tuple[int, int], int]:
    """Return the size of a PNG and how many colors it has."""
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        return sheet.size, len(sheet.convert("RGB").getcolors(1 << 24) or ())


def test_a_batch_is_shown_in_numbers_and_as_a_sheet(run: Run, photos: Path, tmp_path: Path) -> None:
    """Print shapes, dtypes, ranges and labels, and save the contact sheet of all twelve."""
    done = run("show", photos)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{photos}: 12 images in 3 classes" in done.stdout
    assert "(12, 3, 224, 224)" in done.stdout
    assert "float32" in done.stdout
    labels = next(line for line in done.stdout.splitlines() if line.startswith("labels: "))
    assert all(f"{name} (4)" in labels for name in ("cat", "dog", "émeu"))
    size, found = colours(tmp_path / "headrace-show.png")
    assert size == sheet_size(12)
    assert found > 1000


def test_the_options_choose_the_batch(run: Run, photos: Path, tmp_path: Path) -> None:
    """Obey size, batch size, output and the middle crop of evaluation."""
    done = run("show", photos, "-b", "2", "-s", "32", "--no-augment", "--no-shuffle", "-o", "sheet.png")
    assert "(2, 3, 32, 32)" in done.stdout
    assert "CenterCrop(32)" in done.stdout
    assert "labels: cat (2)" in done.stdout
    assert colours(tmp_path / "sheet.png")[0] == sheet_size(2)


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("path", ["shards", "shards/0.tar", "shards/{0..0}.tar"])
def test_tar_shards_are_shown_timed_and_checked(
    run: Run, photos: Path, tmp_path: Path, path: str, *, labels: bool
) -> None:
    """Take a folder of shards, one shard or a pattern; say how many images, and name a bad one by shard and key."""
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "0.tar", "w") as archive:
        for number, file in enumerate(sorted(photos.rglob("*.jpg"))):
            archive.add(file, f"{number}.jpg")
            if labels:
                member = tarfile.TarInfo(f"{number}.cls")
                member.size = 1
                archive.addfile(member, io.BytesIO(b"7"))
        member = tarfile.TarInfo("bad.jpg")
        archive.addfile(member, io.BytesIO(b""))
    done = run("show", path, "-b", "4", "-s", "32", "--no-shuffle")
    assert (done.returncode, done.stderr) == (0, "")
    assert "(4, 3, 32, 32)" in done.stdout
    found = run("check", path)
    assert found.returncode == 1
    assert "0.tar: bad: " in found.stdout
    assert found.stdout.count("\n") == 1
    timed = run("bench", path, "-b", "2", "-n", "6", "-s", "32", "-w", "0")
    assert (timed.returncode, "images/s" in timed.stdout) == (0, True)


def test_shards_without_an_image_are_an_error(run: Run, tmp_path: Path) -> None:
    """Name the fields that there are."""
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("0.txt"), io.BytesIO(b""))
    done = run("show", "0.tar")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no field of these samples is an image; they have txt; expected a field such as jpg or png" in done.stderr


def test_shards_without_a_sample_are_no_error(call: Call, tmp_path: Path) -> None:
    """Say that there is nothing in an empty archive."""
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    for command in ("show", "check", "bench"):
        assert call(command, "empty.tar") == (0, "empty.tar: 0 samples in 1 shard\n", "")


def test_images_without_labels_are_shown(run: Run, photos: Path) -> None:
    """Say that there are no labels in a folder of images."""
    done = run("show", photos / "dog")
    assert "4 images\n" in done.stdout
    assert "labels: no label (4)" in done.stdout


def test_bad_images_are_left_out_and_counted(run: Run, photos: Path, tmp_path: Path) -> None:
    """Show what can be shown, and name the command that lists the rest."""
    (tmp_path / "list.txt").write_text(f"gone.jpg 3\n{photos}/cat/0.jpg 7\n")
    done = run("show", "list.txt")
    assert done.returncode == 0
    assert "labels: label 7\n" in done.stdout
    assert "1 bad image was left out: headrace check list.txt" in done.stdout


def test_a_folder_with_bad_images_alone_fails_in_one_line(run: Run, tmp_path: Path) -> None:
    """Exit with 3, and tell what was wrong with one of them."""
    (tmp_path / "list.txt").write_text("gone.jpg 3\nlost.jpg 3\n")
    done = run("show", "list.txt")
    assert done.returncode == 3
    assert done.stderr.startswith("headrace: ")
    assert "gone.jpg" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("output", ["none/sheet.png", "/dev/full"])
def test_a_sheet_that_cannot_be_saved_is_reported(run: Run, photos: Path, output: str) -> None:
    """Name the file, the reason and the cure."""
    done = run("show", photos, "-b", "1", "-o", output)
    assert done.returncode == 3
    assert done.stderr.startswith(f"headrace: {output}: No s")
    assert "--output" in done.stderr


def test_the_preview_is_the_batch_that_training_begins_with(photos: Path) -> None:
    """Give the same pixels as a loader over the mapped dataset with the same seed, on threads."""
    opened = open_path(str(photos), Options())
    transform = preview.training(40)
    shown = preview.preview(opened, transform, 5, shuffle=True, seed=3)
    loader: headrace.DataLoader[list[np.ndarray]] = headrace.DataLoader(
        opened.dataset.map(transform), 5, shuffle=True, seed=3, num_workers=2
    )
    images, labels = next(iter(loader))
    loader.close()
    np.testing.assert_array_equal(shown.images, images)
    np.testing.assert_array_equal(shown.labels, labels)
    for index, size, label in zip(shown.indices, shown.sizes, shown.labels, strict=True):
        image, expected = opened.dataset[index]
        assert image.shape[:2] == tuple(size)
        assert label == expected


def test_normalised_values_are_turned_back_into_colors() -> None:
    """Recover the very pixels that went in."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 9, 3), dtype=np.uint8)
    normalise = headrace.Compose(preview.training(8).transforms[2:])
    batch = np.stack([normalise(image) for image in pixels])
    assert batch.shape == (2, 3, 8, 9)
    np.testing.assert_array_equal(preview.viewable(batch), pixels)


def test_a_sheet_holds_the_images_before_and_after() -> None:
    """Paint both images of a pair where the card says, letterboxed to the same square."""
    before = np.full((50, 100, 3), (255, 0, 0), np.uint8)
    after = np.full((16, 16, 3), (0, 0, 255), np.uint8)
    sheet = contact_sheet([Pair(thumbnail(before), after, "caption", "detail")] * 5, title="title", subtitle="sub")
    found = {colour: number for number, colour in sheet.getcolors(1 << 24) or ()}
    assert sheet.size == sheet_size(5)
    assert found[0, 0, 255] == 5 * TILE * TILE
    assert found[255, 0, 0] == 5 * TILE * TILE // 2


def test_texts_that_are_too_long_stay_on_their_card() -> None:
    """Draw nothing beyond the card, however long the name of a class or a file."""
    white = np.full((TILE, TILE, 3), 255, np.uint8)
    short = np.asarray(contact_sheet([Pair(white, white, "a", "b")], title="", subtitle=""))
    long = np.asarray(contact_sheet([Pair(white, white, "Ω long " * 99, "b" * 999)], title="", subtitle=""))
    changed = np.argwhere((short != long).any(axis=2))
    assert changed[:, 1].max() < sheet_size(1)[0] - 28 - 5


def test_an_image_is_never_overwritten_by_its_contact_sheet(run: Run, tmp_path: Path) -> None:
    """Refuse an output that is one of the images shown, and leave it as it was."""
    image = tmp_path / "one.png"
    Image.new("RGB", (40, 30), "red").save(image)
    before = image.read_bytes()
    done = run("show", str(image), "-o", str(image))
    assert done.returncode == 2
    assert "is one of the images" in done.stderr
    assert image.read_bytes() == before


def binary_cifar(folder: Path, split: str = "test_batch") -> Path:
    """Write CIFAR-10's binary files: three images, of two classes."""
    folder.mkdir()
    (folder / "batches.meta.txt").write_text("airplane\nautomobile\n")
    (folder / f"{split}.bin").write_bytes(b"".join(bytes([n % 2]) + bytes([n * 60]) * 3072 for n in range(3)))
    return folder


def test_cifar_is_shown_as_it_is_in_memory(run: Run, tmp_path: Path) -> None:
    """Tell the shape of the data, in whichever split there is, and of a batch at its own size."""
    binary_cifar(tmp_path / "data")
    done = run("show", "data")
    assert (done.returncode, done.stderr) == (0, "")
    assert "data: 3 images in 2 classes" in done.stdout
    assert "CIFAR10, test images, MD5 not verified: images (3, 32, 32, 3) uint8, labels (3,) int64\n" in done.stdout
    assert "(3, 3, 32, 32)" in done.stdout
    assert "labels: airplane (2), automobile" in done.stdout
    assert colours(tmp_path / "headrace-show.png")[0] == sheet_size(3)
    assert run("check", "data").stderr.endswith("3 images checked, all good\n")
    assert "32" in run("bench", "data", "-n", "3", "-w", "0").stdout


def test_a_cifar_archive_is_verified_unless_told_otherwise(run: Run, tmp_path: Path) -> None:
    """Refuse another MD5 than the published, name the option that accepts it, and obey it."""
    folder = binary_cifar(tmp_path / "cifar-10-batches-bin")
    with tarfile.open(tmp_path / "mine.tar.gz", "w:gz") as tar:
        tar.add(folder, folder.name)
    refused = run("show", "mine.tar.gz")
    assert refused.returncode == 2
    assert "its MD5 is" in refused.stderr
    assert "--no-verify" in refused.stderr
    assert "(3, 32, 32, 3) uint8" in run("show", "mine.tar.gz", "--no-verify").stdout
    empty = tmp_path / "empty.tar.gz"
    with tarfile.open(empty, "w:gz"):
        pass
    assert "not found" in run("show", empty, "--no-verify").stderr


def test_cifars_files_are_never_overwritten_by_their_contact_sheet(run: Run, tmp_path: Path) -> None:
    """Refuse an output that is one of them."""
    folder = binary_cifar(tmp_path / "data")
    before = (folder / "test_batch.bin").read_bytes()
    done = run("show", "data", "-o", "data/test_batch.bin")
    assert done.returncode == 2
    assert (folder / "test_batch.bin").read_bytes() == before


def test_a_file_of_rows_says_what_shape_it_has(run: Run, tmp_path: Path) -> None:
    """Show a .npy file in numbers: all of it, and a batch."""
    np.save(tmp_path / "features.npy", np.arange(21.0).reshape(7, 3))
    done = run("show", "features.npy", "-b", "4", "--no-shuffle")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "features.npy: 7 rows, each (3,) float64; all of them (7, 3)",
        "",
        "      shape   dtype    smallest  largest",
        "rows  (4, 3)  float64     0.000   11.000",
    ]
    assert not (tmp_path / "headrace-show.png").exists()


@pytest.mark.parametrize("ending", [".h5", ".mat"])
def test_an_hdf5_file_says_what_shape_it_has(run: Run, tmp_path: Path, ending: str) -> None:
    """Show rows and labels of an HDF5 file, found by themselves, and labels counted."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / f"audio{ending}", "w") as file:
        file["audio"] = np.zeros((6, 5), np.float32)
        file["tags"] = np.eye(2)[[0, 1, 1, 0, 1, 1]]
    done = run("show", f"audio{ending}")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"audio{ending}: 6 rows, each (5,) float32; all of them (6, 5)\n" in done.stdout
    assert "labels: label 1 (4), label 0 (2)\n" in done.stdout


def test_a_file_of_tokens_says_how_many_it_has(run: Run, tmp_path: Path) -> None:
    """Show documents of Megatron's, by either file, and windows of llm.c's."""
    megatron(tmp_path / "m", [[[5, 6, 7]], [[8]], [[9, 10]]])
    for name in ("m.bin", "m.idx"):
        done = run("show", name, "-b", "2", "--no-shuffle")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            f"{name}: 6 tokens, 3 documents",
            "lengths: 1 to 3, 2.0 on average",
            "",
            "        shape  dtype  smallest  largest",
            "tokens  (4,)   int64         5        8",
        ]
    llm_c(tmp_path / "t.bin", np.arange(3000))
    done = run("show", "t.bin", "--no-shuffle")
    assert done.stdout.startswith("t.bin: 3,000 tokens, 2 windows of 1,024\n")
    llm_c(tmp_path / "t.bin", [1], count=5)
    done = run("show", "t.bin")
    assert done.returncode == 3
    assert "its header claims 5 tokens" in done.stderr


def test_files_of_no_rows_or_of_objects_are_reported_in_one_line(run: Run, tmp_path: Path) -> None:
    """Show an array without rows; refuse what is no array, and one that could run code."""
    np.save(tmp_path / "none.npy", np.zeros((0, 3)))
    assert run("show", "none.npy").stdout == "none.npy: 0 rows, each (3,) float64; all of them (0, 3)\n"
    np.save(tmp_path / "objects.npy", np.array([{}, []], object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "text.h5").write_text("no array")
    for name in ("objects.npy", "text.npy", "text.h5"):
        done = run("show", name)
        assert done.returncode == 3
        assert done.stderr.startswith("headrace: ")
        assert done.stderr.count("\n") == 1


def test_images_beside_class_folders_are_counted(run: Run, photos: Path, tmp_path: Path) -> None:
    """Say how many images belong to no class, wherever the number of images is said."""
    folder = tmp_path / "mixed"
    shutil.copytree(photos, folder)
    shutil.copy(photos / "cat" / "0.jpg", folder / "loose.jpg")
    summary = "12 images in 3 classes (1 image beside the class folders left out)"
    assert summary in run("show", folder).stdout
    assert summary in run("bench", folder, "--size", "32").stdout
    assert "13 images checked" in run("check", folder).stderr


def test_labels_that_are_fractions_are_shown_as_they_are(run: Run, photos: Path, tmp_path: Path) -> None:
    """Round no label of a list file."""
    (tmp_path / "list.txt").write_text(f"{photos}/cat/0.jpg 0.25\n{photos}/dog/0.jpg 3\n")
    done = run("show", "list.txt", "--no-shuffle")
    assert (done.returncode, done.stderr) == (0, "")
    assert "labels: label 0.25, label 3.0" in done.stdout
