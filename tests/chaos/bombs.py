"""Bombs: small files that claim many pixels, or take long. ``python -m tests.chaos.bombs`` prints what each takes.

Each is decoded in a process of its own, step by step and through the native extension; the columns are the peak memory
of the process above what it had before, the seconds, and what came of it.
"""

from __future__ import annotations

import argparse
import io
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = """
import sys, time
from headrace import DataLoader, ImageFiles, Resize
from headrace.errors import HeadraceError
path, route = sys.argv[1:]
# Not ru_maxrss, which begins with that of the process that started this one.
peak = lambda: int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
whole = ImageFiles([path])
dataset = whole.map(Resize((32, 32)))
import PIL.Image, simplejpeg
PIL.Image.init()
before, start = peak(), time.perf_counter()
try:
    if route == "python":
        whole[0]
    else:
        with DataLoader(dataset, batch_size=1) as loader:
            next(iter(loader))
    said = "read"
except HeadraceError as error:
    said = type(error).__name__
seconds = time.perf_counter() - start
print((peak() - before) // 1024, f"{seconds:.2f}", said)
"""


def png(width: int, height: int, *, color: int = 2, rows: int | None = None) -> bytes:
    """Write a flat PNG without holding its pixels: gray (0) or RGB (2), of fewer ``rows`` than it says."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer, row = zlib.compressobj(9), bytes(1 + width * (3 if color == 2 else 1))
    body = b"".join(packer.compress(row) for _ in range(height if rows is None else rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def webp(side: int) -> bytes:
    """Write a lossless WebP of one color."""
    bits, place = 0, 0
    for value, length in ((side - 1, 14), (side - 1, 14), (0, 4), (0, 3)):
        bits |= value << place
        place += length
    for _ in range(5):  # codes of one symbol, 0
        bits |= 1 << place
        place += 4
    payload = b"\x2f" + bits.to_bytes(9, "little")
    payload += bytes(len(payload) % 2)
    body = b"WEBPVP8L" + struct.pack("<I", len(payload)) + payload
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff(side: int) -> bytes:
    """Write a flat TIFF, deflated."""
    packer, row = zlib.compressobj(9), bytes(side * 3)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    entries = {256: side, 257: side, 258: 8, 259: 8, 262: 2, 273: 8, 277: 3, 278: side, 279: len(body)}
    strip = body + bytes(len(body) % 2)
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items()
    )
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory + bytes(4)


def _jpeg(side: int = 64, **options: bool) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), "white").save(file, "JPEG", **options)
    return file.getvalue()


def scans(side: int, repeats: int) -> bytes:
    """Write a progressive JPEG whose last scan comes again and again."""
    data = _jpeg(side, progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * repeats + data[-2:]


def fill(count: int) -> bytes:
    """Write a JPEG with fill before its first segment."""
    data = _jpeg()
    return data[:2] + b"\xff" * count + data[2:]


def comments(count: int) -> bytes:
    """Write a JPEG with empty comments before its first segment."""
    data = _jpeg()
    return data[:2] + b"\xff\xfe\0\2" * count + data[2:]


def white(side: int, form: str) -> bytes:
    """Write an honest white image."""
    file = io.BytesIO()
    Image.fromarray(np.full((side * 3 // 4, side, 3), 255, np.uint8)).save(file, form, lossless=True)
    return file.getvalue()


BOMBS: dict[str, Callable[[], bytes]] = {
    "WebP of one color, 13,000 x 13,000": lambda: webp(13_000),
    "flat PNG, 13,000 x 13,000 RGB": lambda: png(13_000, 13_000),
    "flat PNG, 13,000 x 13,000 gray": lambda: png(13_000, 13_000, color=0),
    "flat TIFF, 13,000 x 13,000": lambda: tiff(13_000),
    "progressive JPEG, 2,000 x 2,000, 2,000 more scans": lambda: scans(2_000, 2_000),
    "JPEG, 50 MB of 0xFF fill": lambda: fill(50_000_000),
    "JPEG, 12 million comments": lambda: comments(12_000_000),
}
HONEST: dict[str, Callable[[], bytes]] = {
    "white PNG, 4,000 x 3,000": lambda: white(4_000, "PNG"),
    "white WebP, 4,000 x 3,000": lambda: white(4_000, "WEBP"),
    "white JPEG, 4,000 x 3,000": lambda: white(4_000, "JPEG"),
    "white progressive JPEG, 6,000 x 6,000": lambda: _jpeg(6_000, progressive=True),
}


def measured(path: Path, route: str) -> tuple[int, float, str]:
    """Decode a file in a process of its own: peak MiB above what it had before, seconds, and what came of it."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), route], capture_output=True, text=True, check=False, timeout=300
    )
    if run.returncode:
        return 0, 0.0, f"died: {run.stderr[-200:]}"
    peak, seconds, said = run.stdout.split()
    return int(peak), float(seconds), said


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names that contain this")
    only = parser.parse_args().only
    print("| file | bytes | route | peak MiB | seconds | outcome |\n| --- | ---: | --- | ---: | ---: | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name, make in {**BOMBS, **HONEST}.items():
            if only in name:
                file = Path(folder, "file")
                file.write_bytes(make())
                for route in ("python", "native"):
                    peak, seconds, said = measured(file, route)
                    print(
                        f"| {name} | {file.stat().st_size:,} | {route} | {peak:,} | {seconds:.2f} | {said} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
