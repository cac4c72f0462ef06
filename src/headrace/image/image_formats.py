"""Formats by their first bytes: what a file is that Pillow does not read, and what to do about it."""

from __future__ import annotations

import re

CONVERT = 'convert the file, for example to PNG; or skip it with on_error="skip".'
_HEIF = "Install the plugin pillow-heif and call pillow_heif.register_heif_opener(), also in each worker process, or "
_RAW = "Develop it with the rawpy package, or "
_VIDEO = "Extract its frames first, or "

_BRANDS = {
    b"heic": ("HEIC", _HEIF), b"heix": ("HEIC", _HEIF), b"heim": ("HEIC", _HEIF), b"heis": ("HEIC", _HEIF),
    b"hevc": ("HEIC", _HEIF), b"hevx": ("HEIC", _HEIF), b"mif1": ("HEIF", _HEIF), b"msf1": ("HEIF", _HEIF),
    b"avif": ("AVIF", "Install Pillow 11.3 or later, built with AVIF, or the plugin pillow-avif-plugin, or "),
    b"avis": ("AVIF", "Install Pillow 11.3 or later, built with AVIF, or the plugin pillow-avif-plugin, or "),
    b"jxl ": ("JPEG XL", "Install the plugin pillow-jxl-plugin and import pillow_jxl, or "),
    b"crx ": ("Canon CR3 (RAW)", _RAW), b"qt  ": ("QuickTime video", _VIDEO), b"isom": ("MP4 video", _VIDEO),
    b"mp41": ("MP4 video", _VIDEO), b"mp42": ("MP4 video", _VIDEO), b"iso2": ("MP4 video", _VIDEO),
}  # fmt: skip

_JXL = _BRANDS[b"jxl "]
_SIGNATURES: tuple[tuple[bytes, tuple[str, str]], ...] = (
    (rb"\xff\x0a", _JXL),
    (rb"\x00\x00\x00\x0cJXL \r\n\x87\n", _JXL),
    (rb"II\*\x00.{4}CR", ("Canon CR2 (RAW)", _RAW)),
    (rb"II(RO|RS)|MMOR", ("Olympus ORF (RAW)", _RAW)),
    (rb"IIU\x00", ("Panasonic RW2 (RAW)", _RAW)),
    (rb"FUJIFILMCCD-RAW", ("Fujifilm RAF (RAW)", _RAW)),
    (rb"FOVb", ("Sigma X3F (RAW)", _RAW)),
    (rb"II\xbc", ("JPEG XR", "")),
    (rb"v/1\x01", ("OpenEXR", "Read it with the OpenEXR package, or ")),
    (rb"#\?(RADIANCE|RGBE)", ("Radiance HDR", "Read it with OpenCV, or ")),
    (rb".{128}DICM", ("DICOM", "Read it with the pydicom package, or ")),
    (rb"gimp xcf", ("GIMP XCF", "")),
    (rb"BPG\xfb", ("BPG", "")),
    (rb"FLIF", ("FLIF", "")),
    (rb"%PDF", ("PDF", "Render its pages first, or ")),
    (rb"\x93NUMPY", ("a NumPy array (.npy)", "Read it with ArrayDataset, or ")),
    (rb"\x89HDF", ("HDF5", "Read it with HDF5Dataset, or ")),
    (rb"PK\x03\x04", ("a ZIP archive", "Unpack it first, or ")),
    (rb"\x1f\x8b", ("gzip", "Unpack it first, or ")),
    (rb"\x1a\x45\xdf\xa3", ("Matroska or WebM video", _VIDEO)),
    (rb"RIFF.{4}AVI ", ("AVI video", _VIDEO)),
    (rb"RIFF.{4}WEBP", ("WebP", "Install Pillow built with WebP, or ")),
    (rb"(?s:\s*(<\?xml.{0,400})?<svg)", ("SVG", "Render it first, for example with the cairosvg package, or ")),
    (rb"(?i:\s*(<!doctype html|<html))", ("an HTML page", "Download the file again, or ")),
    (rb"version https://git-lfs", ("a Git LFS pointer", "Run `git lfs pull`, or ")),
)
_CODESTREAM = b"\xff\x4f\xff\x51"
"""What the coded samples of JPEG 2000 begin with."""
_SIGNS = [(re.compile(pattern, re.DOTALL), said) for pattern, said in _SIGNATURES]


def foreign(data: bytes) -> tuple[str, str] | None:
    r"""Name the format of bytes that Pillow does not read by itself, and say what to do; None for any other.

    >>> foreign(b"\0\0\0\x18ftypheic")[0], foreign(b"GIF89a")
    ('HEIC', None)
    """
    if data[4:8] == b"ftyp":
        size = min(max(int.from_bytes(data[:4], "big"), 16), 256)
        brands = [data[8:12], *(data[place : place + 4] for place in range(16, size, 4))]
        # "mif1" names the container only: what else is named says what lies in it.
        known = sorted((brand for brand in brands if brand in _BRANDS), key=lambda brand: brand in (b"mif1", b"msf1"))
        if known:
            name, cure = _BRANDS[known[0]]
            return name, cure + CONVERT
    head = data[:512]
    for pattern, (name, cure) in _SIGNS:
        if pattern.match(head):
            return name, _upper(cure + CONVERT)
    return None


def jpeg_2000(data: bytes) -> tuple[str, str] | None:
    r"""Say why OpenJPEG does not read bytes of JPEG 2000, and what to do; None for any other format.

    >>> jpeg_2000(b"\xff\x4f\xff\x51\0\x2f")[0], jpeg_2000(b"GIF89a")
    ('cut short: its end marker is missing', None)
    """
    if not data.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", _CODESTREAM)):
        return None
    start = data.find(_CODESTREAM)
    # Of all that the coded samples can hold, none is this marker: they are stuffed so that it ends the image.
    if start < 0 or data.find(b"\xff\xd9", start) < 0:
        return "cut short: its end marker is missing", 'Get the file again, or skip it with on_error="skip".'
    capabilities = int.from_bytes(data[start + 6 : start + 8], "big")
    variant = "in the variant HTJ2K" if capabilities & 0x4000 else "corrupt, or in a variant such as CMYK"
    return (
        f"{variant} that OpenJPEG does not read",
        'Convert the file with the program that wrote it, for example to PNG; or skip it with on_error="skip".',
    )


def unsupported(error: BaseException) -> bool:
    """Whether a reader's error says that it does not know the variant, rather than that the bytes are broken.

    >>> unsupported(OSError("Unsupported BMP compression (1)")), unsupported(OSError("image file is truncated"))
    (True, False)
    """
    return isinstance(error, NotImplementedError) or bool(
        re.search(r"(?i)unsupported|unimplemented|not (yet )?(supported|implemented)|unknown .*(mode|format)|"
                  r"unrecognized|cannot handle", str(error))
    )  # fmt: skip


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
