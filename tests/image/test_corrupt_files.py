"""Two hundred ways to spoil an image file: each gives pixels, or an error of ours that names the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageFile
from tests.image_files import by_pillow, encoded, photo

import headrace
from headrace.datasets.images import ImageFiles
from headrace.errors import BadImage, SampleError
from headrace.image.decoder import decode, decode_with_pillow

if TYPE_CHECKING:
    from collections.abc import Iterator

DEMO = Path(headrace.__file__).parent / "demo"
VARIANTS = 200


def originals() -> list[tuple[str, bytes]]:
    """Give real photographs as they are and in other forms, and images made here."""
    files = sorted(DEMO.glob("*.jpg"))
    kept = [("jpg", file.read_bytes()) for file in files]
    for file in files:
        with Image.open(file) as image:
            small = image.convert("RGB").resize((160, 120))
        kept += [
            ("png", encoded(small, "PNG")),
            ("jpg", encoded(small, progressive=True)),
            ("jpg", encoded(small, subsampling="4:4:4", quality=95)),
        ]
    for seed in range(4):
        made = photo(seed, 90, 120)
        kept += [("jpg", encoded(made)), ("png", encoded(made, "PNG")), ("png", encoded(made[:, :, 0], "PNG"))]
    return kept


def one_bit(data: bytearray, rng: np.random.Generator) -> None:
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)


def bits_all_over(data: bytearray, rng: np.random.Generator) -> None:
    for _ in range(rng.integers(2, 60)):
        one_bit(data, rng)


def bytes_of_the_header(data: bytearray, rng: np.random.Generator) -> None:
    for place in rng.integers(min(600, len(data)), size=rng.integers(1, 6)):
        data[place] = rng.integers(256)


def cut_short(data: bytearray, rng: np.random.Generator) -> None:
    del data[rng.integers(len(data)) :]


def a_hole_of_zeros(data: bytearray, rng: np.random.Generator) -> None:
    place = rng.integers(len(data))
    data[place : place + 2000] = bytes(len(data[place : place + 2000]))


def a_piece_lost(data: bytearray, rng: np.random.Generator) -> None:
    place = rng.integers(len(data))
    del data[place : place + rng.integers(1, 3000)]


def junk_after_the_end(data: bytearray, rng: np.random.Generator) -> None:
    data += rng.bytes(int(rng.integers(1, 4000)))


def the_beginning_again(data: bytearray, rng: np.random.Generator) -> None:
    place = rng.integers(len(data))
    data[place:] = data[: len(data) - place]


def not_an_image(data: bytearray, rng: np.random.Generator) -> None:
    data[:] = (b"", bytes(4000), b"this is text, not an image\n" * 9, rng.bytes(3000))[rng.integers(4)]


def the_name_lies(data: bytearray, rng: np.random.Generator) -> None:
    """Leave the bytes whole: it is the ending that is spoiled, where the file is written."""


WAYS = (
    one_bit,
    bits_all_over,
    bytes_of_the_header,
    cut_short,
    a_hole_of_zeros,
    a_piece_lost,
    junk_after_the_end,
    the_beginning_again,
    not_an_image,
    the_name_lies,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Write the variants, ten ways in turn over images drawn at random."""
    rng = np.random.default_rng(20)
    folder = tmp_path_factory.mktemp("spoiled")
    whole = originals()
    paths = []
    for number in range(VARIANTS):
        ending, whole_file = whole[rng.integers(len(whole))]
        data = bytearray(whole_file)
        spoil = WAYS[number % len(WAYS)]
        spoil(data, rng)
        if spoil is the_name_lies:
            ending = {"jpg": "png", "png": "jpg"}[ending]
        file = folder / f"{number}.{ending}"
        file.write_bytes(data)
        paths.append(str(file))
    return paths


def outcomes(dataset: ImageFiles) -> Iterator[np.ndarray | SampleError]:
    for index in range(len(dataset)):
        try:
            yield dataset[index][0]
        except SampleError as error:
            yield error


def test_each_spoiled_file_gives_pixels_or_an_error_of_ours(files: list[str]) -> None:
    """Give an (H, W, 3) uint8 array or an error that names index and path, and both for a fair part of the files."""
    refused = 0
    for index, outcome in enumerate(outcomes(ImageFiles(files))):
        if isinstance(outcome, SampleError):
            refused += 1
            assert str(outcome).startswith(f"sample {index} ({files[index]}): ")
        else:
            assert outcome.dtype == np.uint8
            assert outcome.ndim == 3
            assert outcome.shape[2] == 3
    assert VARIANTS // 4 < refused < VARIANTS * 3 // 4


def test_a_name_that_lies_changes_nothing(files: list[str]) -> None:
    """Read a PNG file named .jpg, and a JPEG file named .png, by what is in them."""
    dataset = ImageFiles(files[WAYS.index(the_name_lies) :: len(WAYS)])
    assert [image.ndim for image, _ in dataset] == [3] * (VARIANTS // len(WAYS))


def test_pillow_is_the_judge_of_a_spoiled_jpeg(files: list[str]) -> None:
    """Refuse what it refuses, and accept with its pixels what it accepts; but what is cut short is no image to us."""
    judged = cut_short = 0
    for path in files:
        data = Path(path).read_bytes()
        if data[:2] == b"\xff\xd8":
            judged += 1
            try:
                expected = decode_with_pillow(data)
            except SampleError as error:
                with pytest.raises(type(error)):
                    decode(data)
            else:
                try:
                    ours = decode(data)
                except BadImage:
                    cut_short += 1
                else:
                    assert np.array_equal(ours, expected)
    assert judged > VARIANTS // 3
    assert cut_short < judged // 3


@pytest.mark.parametrize("lie", ["cut, with an end put to it", "twice as high as it is"])
def test_a_jpeg_with_less_in_it_than_it_says_is_refused(lie: str) -> None:
    """Never pass gray off for the part that is missing, as libjpeg and Pillow do."""
    data = encoded(photo(3))
    if lie.startswith("cut"):
        data = data[: len(data) // 2] + b"\xff\xd9"
    else:
        at = data.index(b"\xff\xc0") + 5
        height = int.from_bytes(data[at : at + 2], "big") * 2
        data = data[:at] + height.to_bytes(2, "big") + data[at + 2 :]
    with pytest.raises(BadImage, match="cut short"):
        decode(data, path="/photos/x.jpg")


def flagged(data: bytes) -> np.ndarray | None:
    """Read an image as Pillow does with its flag for truncated ones; None where it refuses."""
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        return by_pillow(data)
    except (OSError, SyntaxError, ValueError):
        return None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


@pytest.mark.parametrize(
    ("form", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"subsampling": "4:4:4"}), ("PNG", {}), ("GIF", {}),
     ("BMP", {}), ("PPM", {}), ("TIFF", {})],
    ids=str,
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_what_is_cut_short_is_read_as_pillow_reads_it_with_its_flag(form: str, options: dict[str, Any]) -> None:
    """Give the same pixels wherever it ends, or refuse it, and never more than Pillow; the flag itself stays unset."""
    data = encoded(photo(3, 50, 61), form, **options)
    read = 0
    for end in range(0, len(data), max(1, len(data) // 60)):
        try:
            pixels = decode(data[:end], allow_truncated=True)
        except BadImage:
            continue
        read += 1
        np.testing.assert_array_equal(pixels, flagged(data[:end]))
        np.testing.assert_array_equal(decode_with_pillow(data[:end], allow_truncated=True), pixels)
    assert read > 10
    np.testing.assert_array_equal(decode(data, allow_truncated=True), decode(data))
    with pytest.raises(BadImage, match="cut short"):
        decode(data[: len(data) * 3 // 4])


def test_the_missing_part_of_a_jpeg_is_gray() -> None:
    """Keep what is above the cut, and fill the rest."""
    data = encoded(photo(1, 256, 256))
    whole, cut = decode(data), decode(data[: len(data) // 2], allow_truncated=True)
    np.testing.assert_array_equal(cut[:64], whole[:64])
    assert (cut[-64:] == 128).all()


def test_an_image_of_which_nothing_is_left_is_refused_still() -> None:
    """Refuse nothing, text, and a header alone."""
    for data in (b"", b"text", encoded(photo(), "PNG")[:20], encoded(photo())[:100]):
        with pytest.raises(BadImage, match=rf"{len(data)} bytes"):
            decode(data, allow_truncated=True)


def spoiled_jpeg_2000() -> dict[str, tuple[bytes, str]]:
    """Give files of JPEG 2000 that OpenJPEG does not read, and what their error says."""
    whole = encoded(photo(0, 64, 48), "JPEG2000")
    bare = encoded(photo(0, 64, 48), "JPEG2000", no_jp2=True)
    size = bare.index(b"\xff\x51")  # the marker segment that says how large it is
    deep, throughput = bytearray(bare), bytearray(bare)
    deep[size + 40] = 37
    throughput[size + 4] |= 0x40
    throughput[size + 40] = 37  # or it would be read: it only says that it is of the other variant
    colour = whole.index(b"colr")
    cmyk = bytearray(whole)
    cmyk[colour + 7 : colour + 11] = (12).to_bytes(4, "big")
    convert = "Convert the file"
    return {
        "half": (whole[: len(whole) // 2], "cut short: its end marker is missing"),
        "half without boxes": (bare[: len(bare) // 2], "cut short: its end marker is missing"),
        "header alone": (whole[:90], "cut short"),
        "38 bits": (bytes(deep), convert),
        "CMYK": (bytes(cmyk), convert),
        "HTJ2K": (bytes(throughput), "HTJ2K"),
    }


@pytest.mark.parametrize("kind", spoiled_jpeg_2000())
def test_jpeg_2000_is_named_and_says_what_to_do(kind: str) -> None:
    """Tell a file that is cut from one in a variant that nobody here reads."""
    data, said = spoiled_jpeg_2000()[kind]
    with pytest.raises(BadImage, match=rf"^photo\.jp2: {len(data)} bytes of JPEG 2000, .*{said}") as caught:
        decode(data, path="photo.jp2")
    assert 'on_error="skip"' in str(caught.value)


def test_jpeg_2000_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the build of Pillow, not the file."""
    monkeypatch.delattr(Image.core, "jpeg2k_decoder")
    with pytest.raises(BadImage, match=r"this Pillow was built without.*Install a Pillow with JPEG 2000"):
        decode(encoded(photo(0, 8, 8), "JPEG2000"), path="photo.jp2")
