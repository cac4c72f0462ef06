"""Spoiled files by the native extension: the errors, and the names in them, are those of the step-by-step route."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import DataLoader, ImageFiles, Resize, SampleError
from headrace._native import extension
from headrace.errors import ImageTooLarge, MissingFile
from headrace.image.fused import plan
from tests.image.test_corrupt_files import VARIANTS, files  # noqa: F401  a fixture
from tests.image_files import encoded, photo
from tests.native.stepwise import MISSING, WHY, assert_equal, batches, both, far_off
from tests.native.test_images import TRAIN, by_extension

pytestmark = pytest.mark.skipif(MISSING, reason=WHY)


def outcome(dataset: Any, index: int) -> Any:
    try:
        return next(iter(DataLoader(dataset, 1, sampler=[index])))[0]
    except SampleError as error:
        return error


def test_the_same_files_are_refused_for_the_same_reasons(files: list[str]) -> None:  # noqa: F811
    """Refuse what the steps refuse, by errors of the same classes, and make the same of what they accept."""
    quick, slow = both(ImageFiles(files), Resize((50, 70)))
    refused = 0
    for index in range(VARIANTS):
        ours, theirs = outcome(quick, index), outcome(slow, index)
        if isinstance(theirs, SampleError):
            refused += 1
            assert (type(ours), str(ours)) == (type(theirs), str(theirs))
            assert any(f"sample {index} ({files[index]})" in note for note in ours.__notes__)
        else:
            assert far_off(ours, theirs) <= 0.001
    assert refused > VARIANTS // 4


def test_spoiled_files_are_passed_over_as_the_steps_do(files: list[str]) -> None:  # noqa: F811
    """Skip and replace the same samples, and give the same batches of the others."""
    quick, slow = both(ImageFiles(files, range(len(files))), Resize((20, 20)))
    for policy in ("skip", "replace"):
        assert_equal(batches(quick, on_error=policy), batches(slow, on_error=policy))


def test_crops_of_spoiled_files_never_crash(files: list[str]) -> None:  # noqa: F811
    """Make a row, or give the image up, whatever is in it."""
    outcomes = {by_extension(Path(path).read_bytes(), list(TRAIN), seed) is None for path in files for seed in range(5)}
    assert outcomes == {True, False}


def test_a_cut_file_is_no_image_even_where_the_crop_is_whole() -> None:
    """Refuse a file without its end, though the rows that are wanted are all there."""
    data = encoded(photo(1, 200, 200))
    whole = by_extension(data, [Resize((10, 10))])
    assert whole is not None
    assert all(
        by_extension(data[:end], list(TRAIN), seed) is None
        for end in (len(data) - 1, len(data) // 2, 700)
        for seed in range(20)
    )


def test_a_batch_names_the_file_that_is_missing(tmp_path: Path) -> None:
    """Name index and path, in a batch that the native extension reads."""
    good = tmp_path / "good.jpg"
    good.write_bytes(encoded(photo()))
    quick, _ = both(ImageFiles([good, good, tmp_path / "gone.jpg", good]), *TRAIN)
    with pytest.raises(MissingFile, match=r"sample 2 .*gone\.jpg") as caught:
        batches(quick, 4, shuffle=False)
    assert "batch 0: sample 2" in caught.value.__notes__[0]


def test_limits_hold(tmp_path: Path) -> None:
    """Refuse an image of more pixels than are allowed, and a header that promises what no file holds."""
    large = tmp_path / "large.jpg"
    large.write_bytes(encoded(photo(0, 100, 100)))
    quick, _ = both(ImageFiles([large], max_pixels=9999), *TRAIN)
    with pytest.raises(ImageTooLarge):
        batches(quick)
    data = bytearray(encoded(photo(0, 16, 16)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = b"\xff\xdc\xff\xdc"
    assert by_extension(bytes(data), list(TRAIN)) is None


def test_pipes_and_folders_are_refused_at_once(tmp_path: Path) -> None:
    """Neither wait for a pipe's writer nor read a folder."""
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    for name in ("pipe.jpg", "folder.jpg"):
        quick, _ = both(ImageFiles([tmp_path / name]), *TRAIN)
        with pytest.raises(SampleError):
            batches(quick)


def test_a_jpeg_that_claims_more_rows_is_refused() -> None:
    """Never pass gray off for the part that is missing."""
    data = encoded(photo(3))
    at = data.index(b"\xff\xc0") + 5
    height = int.from_bytes(data[at : at + 2], "big") * 2
    assert by_extension(data[:at] + height.to_bytes(2, "big") + data[at + 2 :], [Resize((9, 9))]) is None
    cut = data[: len(data) // 2] + b"\xff\xd9"
    assert by_extension(cut, [Resize((9, 9))]) is None


def segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(data) + 2).to_bytes(2, "big") + data


def progressive(side: int, scans: int, *, before: bytes = b"") -> bytes:
    """Write a gray JPEG of 64 x 64 pixels, whatever side its header claims, with scans that say nothing new."""
    tables = segment(0xC4, b"\0" + bytes([1] + [0] * 15) + b"\0") + segment(
        0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\x60"
    )
    frame = b"\x08" + side.to_bytes(2, "big") * 2 + b"\x01\x01\x11\0"
    first = segment(0xDA, b"\x01\x01\0\0\0\0") + bytes(8)  # 64 blocks, each a bit: as the one before
    more = segment(0xDA, b"\x01\x01\0\x01\x3f\0") + b"\x01"  # a run of 64 blocks that have nothing but that
    head = b"\xff\xd8" + before + segment(0xDB, b"\0" + bytes([1] * 64))
    return head + segment(0xC2, frame) + tables + first + more * (scans - 1) + b"\xff\xd9"


@pytest.mark.parametrize(
    ("data", "left"),
    [
        (progressive(64, 32), False),
        (progressive(64, 33), True),
        (progressive(64, 5000), True),
        (progressive(64, 2, before=segment(0xFE, b"") * 900), False),
        (progressive(64, 2, before=segment(0xFE, b"") * 2000), True),
        (progressive(64, 2, before=b"\xff" * 100), True),
        (progressive(13000, 2), True),
    ],
    ids=["32 scans", "33 scans", "5000 scans", "900 comments", "2000 comments", "fill", "a large claim"],
)
def test_a_jpeg_out_of_proportion_is_left_to_the_steps(data: bytes, left: bool) -> None:
    """Give up what asks for more time or memory than its bytes are worth, before it takes them."""
    native: Any = extension
    source, place = native.Source.bytes([data]), native.Place(0, 0, 0, 0, 0)
    out = np.empty((1, 8, 8, 3), np.uint8)
    job = plan([Resize((8, 8))]).pipeline.rows(source, np.zeros(1, np.int64), place, out)
    job.run()
    assert bool(job.missing) is left
