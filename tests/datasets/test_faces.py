"""Images of faces one at a time, and the annotations of FDDB."""

from __future__ import annotations

import os
import pickle
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.image_files import encoded, photo

from headrace import CenterCrop, DataLoader, Resize
from headrace.datasets import FaceDataset, Files, ellipse_boxes
from headrace.errors import ArgumentError, BadImage, ListFileError, MissingFile

FACES = {
    "2002/08/11/big/img_591": [(12.5, 8.5, 1.265839, 26.9, 16.1)],
    "2002/08/26/big/img_265": [(6.7, 4.4, -1.476417, 10.5, 8.7), (4.1, 2.7, 1.47, 48.0, 12.9)],
    "2003/01/02/big/img_7": [(30.0, 20.0, 0.5, 2.0, 40.0)],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images, two of them in folders below, of different widths."""
    for number, name in enumerate(("0.jpg", "1.jpg", "2.jpg", "3.jpg", "a/4.jpg", "a/b/5.jpg")):
        file = tmp_path / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(photo(number, 40, 50 + number)))
    return tmp_path / "images"


def widths(images: Any) -> list[int]:
    return [image.shape[1] for image in images]


def fold(folder: Path, number: int, images: dict[str, list[tuple[float, ...]]] | None = None) -> Path:
    """Write the two lists of a fold as FDDB has them."""
    images = FACES if images is None else images
    folder.mkdir(exist_ok=True)
    (folder / f"FDDB-fold-{number:02}.txt").write_text("\n".join(images) + "\n")
    lines = []
    for name, faces in images.items():
        lines += [name, str(len(faces))]
        lines += [" ".join(f"{value:f}" for value in face) + "  1" for face in faces]
    (folder / f"FDDB-fold-{number:02}-ellipseList.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def fddb(tmp_path: Path) -> tuple[Path, Path]:
    """Three folds of three images each: the folder of the images, and that of the annotations."""
    for number in (1, 2, 3):
        images = {name.replace("img", f"img_{number}"): faces for name, faces in FACES.items()}
        fold(tmp_path / "folds", number, images)
        for seed, name in enumerate(images):
            file = tmp_path / "originalPics" / f"{name}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded(photo(10 * number + seed, 48, 60 + seed)))
    return tmp_path / "originalPics", tmp_path / "folds"


def test_a_folder_or_a_list_is_a_dataset_of_arrays(folder: Path) -> None:
    """Index, count and iterate over the images of a folder and all below it, or of a list of paths, in its order."""
    faces = FaceDataset(folder)
    assert len(faces) == 6
    assert widths(faces) == [50, 51, 52, 53, 54, 55]
    assert (faces[-1].shape, faces[-1].dtype) == ((40, 55, 3), np.uint8)
    listed = FaceDataset([folder / "3.jpg", str(folder / "a" / "4.jpg"), folder / "0.jpg"])
    assert widths(listed) == [53, 54, 50]
    assert listed.path(0) == str(folder / "3.jpg")
    with pytest.raises(IndexError):
        faces[6]


@pytest.mark.parametrize(
    ("start", "limit", "expected"),
    [
        (0, None, [50, 51, 52, 53, 54, 55]),
        (2, 3, [52, 53, 54]),
        (4, 10, [54, 55]),
        (6, 2, []),
        (99, None, []),
        (0, 0, []),
    ],
)
def test_start_and_limit_choose_the_images(folder: Path, start: int, limit: int | None, expected: list[int]) -> None:
    """Agree in length, index and iteration, by iter and by next."""
    faces = FaceDataset(folder, start=start, limit=limit)
    assert len(faces) == len(expected)
    assert widths(faces) == expected
    assert widths(faces[index] for index in range(len(faces))) == expected
    for width in expected:
        assert next(faces).shape[1] == width
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(faces)


def test_iterators_have_places_of_their_own(folder: Path) -> None:
    """Begin again with each loop, nest loops, and leave the place of `next` alone."""
    faces = FaceDataset(folder, limit=2)
    assert next(faces).shape[1] == 50
    assert [(a.shape[1], b.shape[1]) for a in faces for b in faces] == [(50, 50), (50, 51), (51, 50), (51, 51)]
    assert next(faces).shape[1] == 51
    assert widths(faces) == [50, 51]


def test_threads_that_share_next_get_each_image_once(folder: Path) -> None:
    """Give each image to one of them."""
    faces = FaceDataset([folder / f"{n % 4}.jpg" for n in range(200)])
    got: list[int] = []

    def take() -> None:
        while (image := next(faces, None)) is not None:
            got.append(image.shape[1])

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted([50, 51, 52, 53] * 50)


def test_no_image_is_kept(folder: Path) -> None:
    """Hold none once the caller has let go of it."""
    faces = FaceDataset(folder)
    iterator = iter(faces)
    for take in (lambda: next(iterator), lambda: next(faces), lambda: faces[0]):
        image = take()
        alive = weakref.ref(image)
        del image
        assert alive() is None


@pytest.mark.parametrize("way", ["iter", "next"])
def test_a_truncated_image_is_refused_and_the_next_one_follows(folder: Path, way: str) -> None:
    """Raise for the image that is cut short, by index and path, and continue behind it."""
    whole = (folder / "1.jpg").read_bytes()
    (folder / "1.jpg").write_bytes(whole[: len(whole) * 3 // 4])
    faces = FaceDataset(folder, limit=3)
    iterator: Any = iter(faces) if way == "iter" else faces
    assert next(iterator).shape[1] == 50
    with pytest.raises(BadImage, match=rf"^sample 1 \({folder}/1.jpg\): .*cut short"):
        next(iterator)
    assert next(iterator).shape[1] == 52
    with pytest.raises(StopIteration):
        next(iterator)


def test_a_truncated_image_is_read_as_far_as_it_goes(folder: Path) -> None:
    """Keep the part that is there, by choice, and read the whole ones as ever."""
    (folder / "1.jpg").write_bytes(encoded(photo(1, 256, 256)))
    whole = FaceDataset(folder)[1]
    data = (folder / "1.jpg").read_bytes()
    (folder / "1.jpg").write_bytes(data[: len(data) // 2])
    cut = FaceDataset(folder, allow_truncated=True)[1]
    np.testing.assert_array_equal(cut[:64], whole[:64])
    assert (cut[-64:] == 128).all()
    (folder / "1.jpg").write_bytes(data[:50])
    assert len(widths(FaceDataset(folder, start=2, allow_truncated=True))) == 4
    with pytest.raises(BadImage):
        FaceDataset(folder, allow_truncated=True)[1]


def test_a_loader_batches_them(folder: Path) -> None:
    """Batch images of one size."""
    batches = list(DataLoader(FaceDataset(folder).map(Resize((32, 32))), 4, num_workers=2))
    assert [batch.shape for batch in batches] == [(4, 32, 32, 3), (2, 32, 32, 3)]


@pytest.mark.parametrize(
    "wrong", [{"start": -1}, {"start": 1.0}, {"start": None}, {"limit": -1}, {"limit": True}, {"allow_truncated": 1}]
)
def test_arguments_are_read_at_the_door(folder: Path, wrong: dict[str, Any]) -> None:
    """Name the argument."""
    for source in (None, 3, [3], b"x"):
        with pytest.raises(ArgumentError, match=r"paths(\[0\])? must be"):
            FaceDataset(source)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        FaceDataset(folder, **wrong)


def test_fddb_gives_images_with_their_faces(fddb: tuple[Path, Path]) -> None:
    """Read image, ellipses and boxes, fold by fold."""
    faces = FaceDataset.fddb(*fddb, folds=[1, 2, 3])
    assert (len(faces), faces.faces, faces.folds.tolist()) == (9, 12, [1] * 3 + [2] * 3 + [3] * 3)
    image, ellipses, boxes = faces[4]
    assert (image.shape, ellipses.shape, boxes.shape) == ((48, 61, 3), (2, 5), (2, 4))
    np.testing.assert_allclose(ellipses, FACES["2002/08/26/big/img_265"], atol=1e-6)
    np.testing.assert_array_equal(faces.ellipses(-5), ellipses)
    assert repr(faces) == "<FaceDataset of 9 images with 12 faces, no root>"
    assert faces.path(4).endswith("originalPics/2002/08/26/big/img_2_265.jpg")
    ellipses[:] = 0
    assert faces.ellipses(4).any()
    copy = pickle.loads(pickle.dumps(faces))
    np.testing.assert_array_equal(copy[4][2], boxes)


def test_boxes_are_clipped_by_choice(fddb: tuple[Path, Path]) -> None:
    """Keep a box inside its image, or give the whole of it."""
    clipped, whole = (FaceDataset.fddb(*fddb, folds=[1], clip=clip)[2] for clip in (True, False))
    assert whole[2].min() < 0
    assert whole[2][0, 3] > 48
    np.testing.assert_array_equal(clipped[2], whole[2].clip(0, [62, 48, 62, 48]))


def test_start_and_limit_choose_among_annotated_images(fddb: tuple[Path, Path]) -> None:
    """Keep faces and folds with their images."""
    faces = FaceDataset.fddb(*fddb, folds=[2, 1], start=2, limit=3)
    assert faces.folds.tolist() == [2, 1, 1]
    assert [len(ellipses) for _, ellipses, _ in faces] == [1, 1, 2]
    assert faces.faces == 4


def test_cross_validation_goes_fold_by_fold(fddb: tuple[Path, Path]) -> None:
    """Leave each fold out once, and no image in both halves."""
    faces = FaceDataset.fddb(*fddb, folds=[1, 2, 3])
    pairs = list(faces.cross_validation())
    assert [(len(train), len(test)) for train, test in pairs] == [(6, 3)] * 3
    for number, (train, test) in enumerate(pairs, start=1):
        assert {f"img_{number}_" in test.where(index) for index in range(3)} == {True}  # type: ignore[operator]
        assert {f"img_{number}_" in train.where(index) for index in range(6)} == {False}  # type: ignore[operator]
    assert pairs[0][1][0][0].shape == (48, 60, 3)
    with pytest.raises(ArgumentError, match="two folds or more"):
        FaceDataset.fddb(*fddb, folds=[1]).cross_validation()


def test_images_without_annotations_say_so(folder: Path) -> None:
    """Name what reads them."""
    faces = FaceDataset(folder)
    for ask in (lambda: faces.faces, lambda: faces.folds, lambda: faces.ellipses(0), faces.cross_validation):
        with pytest.raises(ArgumentError, match=r"FaceDataset\.fddb"):
            ask()


@pytest.mark.parametrize("folds", [[0], [11], [], [1, 1], ["1"], 3, [1.0]])
def test_folds_are_numbers_from_1_to_10(fddb: tuple[Path, Path], folds: Any) -> None:
    """Refuse others at the door."""
    with pytest.raises(ArgumentError, match=r"folds must be .*numbers from 1 to 10"):
        FaceDataset.fddb(*fddb, folds=folds)


FACE = "12.5 8.5 1.2 26.9 16.1  1"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["a", "1", FACE, "b", "x", FACE], r"line 5: 'x'; expected a number of faces"),
        (["a", "1", FACE, "b", "-1"], r"line 5: '-1'; expected a number of faces"),
        (["a", "1", FACE, "b", "9999999999"], r"line 5: '9999999999'; expected a number of faces"),
        (["a", "1", FACE, "b", "2", FACE], r"ends after line 6, '12.5 .*'; expected face 2 of 2"),
        (["a", "1", FACE, "b"], r"ends after line 4, 'b'; expected a number of faces"),
        (["a", "1", FACE], r"ends after line 3, .*; expected the image b, from line 2 of FDDB-fold-01.txt"),
        ([], r"ends after line 0, ''; expected the image a, from line 1"),
        (["a", "1", FACE, "c", "0"], r"line 4: 'c'; expected the image b"),
        (["a", "2", FACE, "b", "1", FACE], r"line 4: 'b'; expected face 2 of 2"),
        (["a", "1", "12.5 8.5 1.2 26.9  1", "b", "0"], r"line 3: '12.5 8.5 1.2 26.9  1'; expected .*six numbers"),
        (["a", "1", "12.5 0 1.2 26.9 16.1 1", "b", "0"], r"line 3: .* radius above 0"),
        (["a", "1", "12.5 -1 1.2 26.9 16.1 1", "b", "0"], r"line 3: .* radius above 0"),
        (["a", "1", "12.5 nan 1.2 26.9 16.1 1", "b", "0"], r"line 3: .* six numbers"),
        (["a", "1", "inf 8 1.2 26.9 16.1 1", "b", "0"], r"line 3: .* six numbers"),
        (["a", "1", "12,5 8 1.2 26.9 16.1 1", "b", "0"], r"line 3: .* expected face 1 of 1"),
        (["a", "1", FACE, "b", "1", FACE, "", "c"], r"line 8: 'c'; expected no more images than in FDDB-fold-01.txt"),
        (["a", "1", FACE, "b\udcff"], r"line 4: .* expected the image b"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_annotations_that_cannot_be_read_name_file_line_and_text(lines: list[str], words: str, tmp_path: Path) -> None:
    """Say what was expected in its place."""
    (tmp_path / "FDDB-fold-01.txt").write_text("a\nb\n")
    file = tmp_path / "FDDB-fold-01-ellipseList.txt"
    file.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    with pytest.raises(ListFileError, match=words) as caught:
        FaceDataset.fddb(tmp_path, tmp_path, folds=[1])
    assert str(caught.value).startswith(str(file))


def test_line_endings_and_blank_lines_do_not_matter(tmp_path: Path) -> None:
    """Read a fold that passed through Windows, byte order mark and all."""
    (tmp_path / "FDDB-fold-01.txt").write_bytes(b"\xef\xbb\xbfa\r\n\r\nb")
    (tmp_path / "FDDB-fold-01-ellipseList.txt").write_bytes(f"a\r\n1\r\n{FACE}\r\n\r\nb \r\n0\r\n\r\n".encode())
    faces = FaceDataset.fddb("/nowhere", tmp_path, folds=[1])
    assert (len(faces), faces.faces, faces.ellipses(1).shape) == (2, 1, (0, 5))
    with pytest.raises(MissingFile, match=r"/nowhere/a\.jpg"):
        faces[0]


def test_a_fold_that_is_not_there_is_reported(tmp_path: Path) -> None:
    """Name the file."""
    with pytest.raises(MissingFile, match=f"{tmp_path}/FDDB-fold-01"):
        FaceDataset.fddb(tmp_path, tmp_path)


def test_the_published_folds_add_up() -> None:
    """Read 2,845 images and 5,171 faces, where HEADRACE_DATA names a folder that has the annotations."""
    folder = Path(os.environ.get("HEADRACE_DATA", ""), "fddb")
    if not folder.is_dir():
        pytest.skip("HEADRACE_DATA names no folder with fddb")
    faces = FaceDataset.fddb("/nowhere", folder)
    assert (len(faces), faces.faces) == (2845, 5171)
    assert np.unique(faces.folds).tolist() == list(range(1, 11))
    assert [len(test) for _, test in faces.cross_validation()] == [290, 285, 274, 302, 298, 302, 279, 276, 259, 280]


def outline(ellipse: tuple[float, ...]) -> np.ndarray[Any, Any]:
    """Give many points on an ellipse, drawn point by point."""
    major, minor, angle, x, y = ellipse
    turn = np.linspace(0, 2 * np.pi, 100_001)
    along, across = major * np.cos(turn), minor * np.sin(turn)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return rotation @ np.stack([along, across]) + np.array([[x], [y]])


radius = st.floats(0.1, 500)


@settings(deadline=None)  # how long it takes says nothing on a busy machine
@given(st.tuples(radius, radius, st.floats(-7, 7), st.floats(-1000, 1000), st.floats(-1000, 1000)))
def test_boxes_are_the_bounds_of_the_outline(ellipse: tuple[float, ...]) -> None:
    """Compare with the least and greatest of many points."""
    points = outline(ellipse)
    expected = [*points.min(axis=1), *points.max(axis=1)]
    np.testing.assert_allclose(ellipse_boxes([ellipse])[0], expected, atol=1e-4)


def test_boxes_of_no_ellipses_are_none() -> None:
    """Keep the columns; refuse other shapes."""
    assert ellipse_boxes([]).shape == ellipse_boxes(np.empty((0, 5)), size=(3, 4)).shape == (0, 4)
    with pytest.raises(ArgumentError, match=r"shape \(n, 5\); got \(5,\)"):
        ellipse_boxes([1, 2, 3, 4, 5])


def test_the_sheet_has_the_ellipses_where_the_faces_are(tmp_path: Path) -> None:
    """Draw them on the images, scaled and turned as the images are, and nowhere else."""
    folds = fold(tmp_path / "folds", 1, {"a": [(60.0, 20.0, np.pi / 6, 100.0, 80.0)], "b": []})
    for name in "ab":
        Image.new("RGB", (200, 160), (90, 90, 90)).save(tmp_path / f"{name}.jpg")
    faces = FaceDataset.fddb(tmp_path, folds, folds=[1])
    faces.save_sheet(tmp_path / "sheet.png", [0])
    faces.save_sheet(tmp_path / "none.png", [1])
    with Image.open(tmp_path / "sheet.png") as sheet, Image.open(tmp_path / "none.png") as none:
        assert sheet.format == "PNG"
        drawn, plain = np.asarray(sheet.convert("RGB")).astype(int), np.asarray(none.convert("RGB")).astype(int)
    yellow = np.argwhere((drawn[:, :, 0] > 200) & (drawn[:, :, 2] < 80))
    assert not ((plain[:, :, 0] > 200) & (plain[:, :, 2] < 80)).any()
    scale = 480 / 200
    left, top, right, bottom = ellipse_boxes(faces.ellipses(0))[0] * scale
    (low_y, low_x), (high_y, high_x) = yellow.min(axis=0), yellow.max(axis=0)
    assert abs((high_x - low_x) - (right - left)) <= 3
    assert abs((high_y - low_y) - (bottom - top)) <= 3
    # Turned from the x axis towards the y axis, which points down: more of the right half is in the lower half.
    right_half = yellow[yellow[:, 1] > (low_x + high_x) / 2]
    assert (right_half[:, 0] > (low_y + high_y) / 2).mean() > 0.6


def test_a_sheet_of_images_without_annotations_shows_them(folder: Path, tmp_path: Path) -> None:
    """Show what there is, up to twelve; never write over an image."""
    FaceDataset(folder).save_sheet(tmp_path / "sheet.png")
    FaceDataset([]).save_sheet(tmp_path / "empty.png")
    before = (folder / "0.jpg").read_bytes()
    with pytest.raises(ArgumentError, match="is one of the images"):
        FaceDataset(folder).save_sheet(folder / "0.jpg")
    assert (folder / "0.jpg").read_bytes() == before


def test_images_without_annotations_are_read_by_the_native_extension(folder: Path) -> None:
    """Give the batches that reading image by image gives; with annotations there is no native source."""
    faces = FaceDataset(folder)
    resized = faces.map(CenterCrop(8))
    [batch] = DataLoader(resized, len(faces))
    assert isinstance(faces.native_source(), Files)
    assert "all fused" in resized.explain()
    assert np.array_equal(batch, np.stack([resized[index] for index in range(len(faces))]))
