"""What an image becomes in each mode, and what is reported where values are lost."""

from __future__ import annotations

import struct
import warnings
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from tests.image_files import encoded, photo

from headrace import DataLoader, ImageFiles, Normalize, RandomHorizontalFlip, Resize, ToFloat
from headrace.errors import ArgumentError, BadImage
from headrace.image.decoder import decode, decode_with_pillow
from headrace.image.modes import MODES

if TYPE_CHECKING:
    from pathlib import Path

DEPTH = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21
CLASSES = (np.arange(48 * 64, dtype=np.uint8) % 21).reshape(48, 64)


def mask() -> Image.Image:
    image = Image.fromarray(CLASSES).convert("P")
    image.putdata(CLASSES.ravel().tolist())
    image.putpalette(np.random.default_rng(0).bytes(768))
    return image


def png_of_16_bits() -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    rows = b"\0" + struct.pack(">6H", 1, 256, 65535, 2, 3, 4)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP"])
def test_a_palette_gives_its_indices(form: str) -> None:
    """Give the classes of a mask, as (H, W) uint8, for "P" and for "unchanged"."""
    data = encoded(mask(), form)
    for mode in ("P", "unchanged"):
        pixels = decode(data, mode=mode)  # type: ignore[arg-type]
        np.testing.assert_array_equal(pixels, CLASSES)
        assert pixels.dtype == np.uint8
        assert pixels.flags.writeable


@pytest.mark.parametrize(
    ("dtype", "form"), [("<u2", "PNG"), ("<u2", "TIFF"), (">u2", "TIFF"), ("<u2", "JPEG2000"), ("<u2", "PPM")]
)
def test_sixteen_bits_are_kept(dtype: str, form: str) -> None:
    """Give every bit of a depth image, as native uint16."""
    data = encoded(DEPTH.astype(dtype), form)
    pixels = decode(data, mode="I;16")
    assert pixels.dtype == np.dtype(np.uint16)
    np.testing.assert_array_equal(pixels, DEPTH)


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_thirty_two_bits_are_kept_unchanged(dtype: str) -> None:
    """Give integers and floats as they are in the file."""
    values = np.array([[-1000, 0, 70000], [-500, 500, 1000]], dtype)
    pixels = decode(encoded(values, "TIFF"), mode="unchanged")
    assert pixels.dtype == dtype
    np.testing.assert_array_equal(pixels, values)


@pytest.mark.parametrize(
    ("kind", "shape", "dtype"),
    [("1", (48, 64), "bool"), ("L", (48, 64), "uint8"), ("LA", (48, 64, 2), "uint8"), ("RGB", (48, 64, 3), "uint8"),
     ("RGBA", (48, 64, 4), "uint8"), ("CMYK", (48, 64, 4), "uint8")],
)  # fmt: skip
def test_unchanged_is_what_the_file_holds(kind: str, shape: tuple[int, ...], dtype: str) -> None:
    """Give the documented dtype and shape of each kind, and its values."""
    image = Image.fromarray(photo()).convert(kind)
    pixels = decode(encoded(image, "TIFF" if kind == "CMYK" else "PNG"), mode="unchanged")
    assert (pixels.shape, pixels.dtype) == (shape, np.dtype(dtype))
    np.testing.assert_array_equal(pixels, np.array(image))


def test_gray_is_pillows_gray_by_both_routes() -> None:
    """Weigh colors as Pillow does, and leave gray as it is."""
    for data in (
        encoded(photo()),
        encoded(photo(), "PNG"),
        encoded(photo()[:, :, 0]),
        encoded(photo()[:, :, 0], "PNG"),
    ):
        expected = np.array(Image.fromarray(decode(data)).convert("L"))
        for read in (decode, decode_with_pillow):
            np.testing.assert_array_equal(read(data, mode="L"), expected)
    np.testing.assert_array_equal(decode(encoded(CLASSES, "PNG"), mode="L"), CLASSES)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_stands_upright(mode: Any) -> None:
    """Apply the EXIF orientation whatever the mode."""
    notes = Image.Exif()
    notes[0x0112] = 6
    data = encoded(CLASSES, "PNG", exif=notes.tobytes())
    pixels = decode(data, mode=mode)
    assert pixels.shape[:2] == (64, 48)
    np.testing.assert_array_equal(pixels if pixels.ndim == 2 else pixels[:, :, 0], np.rot90(CLASSES, -1))
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize(
    ("data", "mode", "said"),
    [
        (
            encoded(photo(), "PNG"),
            "P",
            "an image of Pillow's mode 'RGB'; expected an image with a palette or 8-bit gray for",
        ),
        (
            encoded(DEPTH, "PNG"),
            "P",
            "an image of Pillow's mode 'I;16'; expected an image with a palette or 8-bit gray for",
        ),
        (encoded(mask(), "PNG"), "I;16", "an image of Pillow's mode 'P'; expected a gray image of at most 16 bits for"),
        (encoded(np.full((2, 2), 70000, np.int32), "TIFF"), "I;16", "values from 70000 to 70000; expected 0 to 65535"),
        (png_of_16_bits(), "unchanged", "16 bits a channel, but Pillow reads 8 of them"),
    ],
)
def test_an_image_that_does_not_fit_the_mode_is_refused(data: bytes, mode: Any, said: str) -> None:
    """Name the path, the image's own mode, what was expected, and what to pass."""
    with pytest.raises(BadImage, match=said) as caught:
        decode(data, path="/x.png", mode=mode)
    assert str(caught.value).startswith("/x.png: ")
    assert "mode=" in str(caught.value)


@pytest.mark.parametrize("mode", ["rgb", "RGBA", None, 3, ["RGB"]])
def test_a_mode_that_is_none_is_refused(mode: Any) -> None:
    """List the modes there are, when the dataset is made."""
    with pytest.raises(ArgumentError, match="mode must be one of 'RGB', 'L', 'P', 'I;16', 'unchanged'; got"):
        ImageFiles([], mode=mode)
    with pytest.raises(ArgumentError, match="mode must be one of 'RGB'"):
        decode(b"", mode=mode)


LOSSES = {
    "palette": (encoded(mask(), "PNG"), 'mode="P"'),
    "16 bits": (encoded(DEPTH, "PNG"), 'mode="I;16"'),
    "floats": (encoded(DEPTH.astype(np.float32), "TIFF"), 'mode="unchanged"'),
    "integers": (encoded(DEPTH.astype(np.int32), "TIFF"), 'mode="unchanged"'),
    "16-bit colors": (png_of_16_bits(), "OpenCV"),
}


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(("data", "cure"), LOSSES.values(), ids=LOSSES)
def test_a_dataset_warns_once_where_values_are_lost(data: bytes, cure: str, mode: Any, tmp_path: Path) -> None:
    """Name the first file, what it loses and the mode that keeps it; and say it once a dataset."""
    (tmp_path / "a").write_bytes(data)
    for _ in range(2):
        dataset = ImageFiles([tmp_path / "a"] * 3, mode=mode)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for image, _ in dataset:
                assert image.dtype == np.uint8
        assert len(told) == 1
        assert str(told[0].message).startswith(f"{tmp_path / 'a'}: ")
        assert cure in str(told[0].message)


def test_nothing_is_reported_where_nothing_is_lost(tmp_path: Path) -> None:
    """Stay silent for photographs, GIF, gray, alpha, and for modes that keep what there is."""
    files = {
        "a": encoded(photo()), "b": encoded(photo(), "GIF"), "c": encoded(CLASSES, "PNG"),
        "d": encoded(Image.fromarray(photo()).convert("RGBA"), "PNG"),
    }  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(ImageFiles.under(tmp_path, extensions=[".jpg"]))) == 0
        assert len(list(ImageFiles([tmp_path / name for name in files]))) == 4
        decode(LOSSES["palette"][0], mode="P")
        decode(LOSSES["16 bits"][0], mode="I;16")
        decode(LOSSES["floats"][0], mode="unchanged")


@pytest.mark.parametrize(
    "workers", [{"num_workers": 0}, {"num_workers": 2}, {"num_workers": 2, "backend": "processes"}]
)
def test_every_executor_gives_the_mode(workers: dict[str, Any], tmp_path: Path) -> None:
    """Give the classes of a mask, flipped or not, where the native extension would decode to RGB."""
    (tmp_path / "a.png").write_bytes(encoded(mask(), "PNG"))
    (tmp_path / "b.jpg").write_bytes(encoded(CLASSES))
    dataset = ImageFiles([tmp_path / "a.png", tmp_path / "b.jpg"], mode="P").map(RandomHorizontalFlip(p=1))
    with DataLoader(dataset, batch_size=2, **workers) as loader:
        images, _ = next(iter(loader))
    assert images.shape == (2, 48, 64)
    np.testing.assert_array_equal(images[0], CLASSES[:, ::-1])


def test_relative_paths_begin_where_the_dataset_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the same file after the script went to another folder, with the native extension and without."""
    (tmp_path / "there").mkdir()
    (tmp_path / "a.jpg").write_bytes(encoded(photo(1)))
    monkeypatch.chdir(tmp_path)
    for dataset in (ImageFiles(["a.jpg"]), ImageFiles(["../a.jpg"], root="there"), ImageFiles.under(".")):
        monkeypatch.chdir(tmp_path / "there")
        np.testing.assert_array_equal(dataset[0][0], decode(encoded(photo(1))))
        assert dataset.path(0).startswith("/")
        small = dataset.map(Resize((8, 8)))
        for workers in ({"num_workers": 0}, {"num_workers": 2}):
            with DataLoader(small, batch_size=1, **workers) as loader:  # type: ignore[arg-type]
                assert next(iter(loader))[0].shape == (1, 8, 8, 3)
        monkeypatch.chdir(tmp_path)


def test_strict_arithmetic_of_the_user_breaks_no_transform() -> None:
    """Give the same numbers under np.errstate(all="raise"), for infinities, tiny numbers and ranges too wide."""
    values = np.array([[[np.inf, np.nan, 1e-45], [1e308, -1e308, 0]]] * 4)
    steps = [Normalize((0.5,) * 3, (1e30,) * 3), Resize((2, 2))]
    expected = [step(values) for step in steps] + [ToFloat()(photo())]
    floats = encoded(np.array([[-np.inf, np.nan, 3e38, -3e38]], np.float32), "TIFF")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = decode(floats)
        with np.errstate(all="raise"):
            found = [step(values) for step in steps] + [ToFloat()(photo())]
            np.testing.assert_array_equal(decode(floats), image)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
