"""A small pipeline of every kind, as digests of its bytes; and what others may change in the process it runs in.

As a program it prints the digests: for settings that only a new process can have.
"""

from __future__ import annotations

import decimal
import gc
import hashlib
import json
import locale
import os
import random
import socket
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import headrace
from headrace import (
    ArrayDataset,
    DataLoader,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToCHW,
    ToFloat,
)
from headrace.collate import PaddedCollate
from headrace.datasets import HDF5Dataset, ImageFiles, ImageFolder, ImageList
from headrace.transforms import Pad, RandomCrop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOW: dict[str, dict[str, Any]] = {
    "inline": {},
    "threads": {"num_workers": 2, "backend": "threads"},
    "processes": {"num_workers": 2, "backend": "processes", "multiprocessing_context": "fork"},
}


def upside_down(sample: Any, rng: Any) -> Any:
    return np.ascontiguousarray(sample[0][::-1]), sample[1]


class Own:
    """Samples of many kinds."""

    suits_threads = True

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        return {
            "x": np.full((3, 4), index, np.float32) / np.float32(3),
            "number": index,
            "float": index / 7,
            "text": f"ü{index}",
            "drawn": headrace.rng().random(3),
            "tokens": np.arange(index % 3 + 1),
            "id": 2**62 + index,
        }


def write_files(folder: Path) -> None:
    """Write images of many formats, list files and arrays."""
    import h5py
    from PIL import Image

    draws = np.random.default_rng(0)
    for name in ("photos/ä", "photos/z", "odd"):
        (folder / name).mkdir(parents=True)
    lines, names = [], []
    for number in range(12):
        small = Image.fromarray(draws.integers(0, 255, (10, 12, 3), np.uint8))
        image = small.resize((60 + number, 50), Image.Resampling.BICUBIC)
        name = f"photos/{'ä' if number % 2 else 'z'}/{number}.{'jpg' if number % 3 else 'png'}"
        image.save(folder / name)
        lines.append(f"{name} {number / 3:.5f}\n")
        names.append(f"{name},{'äzbÄ'[number % 4]}\n")
    (folder / "list.txt").write_text("".join(lines), encoding="utf-8")
    (folder / "names.csv").write_text("".join(names), encoding="utf-8")
    odd = {"palette.png": "P", "b.bmp": "RGB", "t.tif": "RGB", "g.gif": "P", "c.jpg": "CMYK", "w.webp": "RGB"}
    for name, mode in {**odd, "a.png": "RGBA", "la.png": "LA", "bits.png": "1", "l.jpg": "L"}.items():
        image.convert(mode).save(folder / "odd" / name)
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"], file["y"] = draws.normal(size=(30, 4)).astype("f4"), np.arange(30) % 3
    np.save(folder / "a.npy", draws.normal(size=(30, 7)).astype("f4"))


def pipelines(folder: Path) -> dict[str, tuple[Callable[[], Any], dict[str, Any]]]:
    """Return what makes each dataset, and options of its loader."""
    photos, small = folder / "photos", Resize((9, 9))
    first: Any = RandomResizedCrop(24, antialias=False, interpolation="bicubic")
    odd = sorted(str(path) for path in (folder / "odd").iterdir())
    return {
        "native": (
            lambda: ImageFolder(photos).map(
                RandomResizedCrop(24), RandomHorizontalFlip(), ToFloat(), Normalize(0.5, 0.25), ToCHW()
            ),
            {},
        ),
        "steps": (lambda: ImageFolder(photos).map(upside_down, first, Resize(17, antialias=False), ToFloat()), {}),
        "padded": (lambda: ImageFolder(photos).map(upside_down, Pad(3, mode="reflect"), RandomCrop(20)), {}),
        "gray": (lambda: ImageFolder(photos, mode="L").map(Resize((20, 20))), {}),
        "odd": (lambda: ImageFiles(odd).map(small), {}),
        "list": (lambda: ImageList(folder / "list.txt").map(small), {}),
        "names": (lambda: ImageList(folder / "names.csv").map(small), {}),
        "own": (Own, {"collate_fn": PaddedCollate({"tokens": 0})}),
        "hdf5": (lambda: HDF5Dataset(folder / "a.h5", "x", "y"), {}),
        "arrays": (lambda: ArrayDataset(folder / "a.npy", np.arange(30)), {}),
    }


def digest(batch: Any, into: Any) -> None:
    """Add all that a batch holds, with dtypes and shapes."""
    if isinstance(batch, dict):
        for key, value in batch.items():
            into.update(repr(key).encode())
            digest(value, into)
    elif isinstance(batch, list | tuple):
        for value in batch:
            digest(value, into)
    elif hasattr(batch, "shape"):
        into.update(str((batch.dtype, tuple(batch.shape), str(getattr(batch, "device", "cpu")))).encode())
        into.update(np.ascontiguousarray(batch).tobytes())
    else:
        into.update(repr(batch).encode())


def digests(folder: Path, loader_of: Any = DataLoader) -> dict[str, str]:
    """Return a digest of an epoch of each pipeline, on each executor."""
    found = {}
    for name, (make, options) in pipelines(folder).items():
        for how, executor in HOW.items():
            into = hashlib.sha256()
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*(palette|use of fork).*")
                with loader_of(make(), 5, shuffle=True, seed=3, **options, **executor) as loader:
                    for batch in loader:
                        digest(batch, into)
            found[f"{name} on {how}"] = into.hexdigest()[:16]
    return found


@contextmanager
def replaced(thing: Any, **values: Any) -> Iterator[None]:
    """Set attributes for the length of a block."""
    before = {name: getattr(thing, name) for name in values}
    try:
        for name, value in values.items():
            setattr(thing, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(thing, name, value)


@contextmanager
def called(change: Callable[[Any], Any], value: Any, back: Any) -> Iterator[None]:
    """Call what changes a setting, and call it again at the end."""
    change(value)
    try:
        yield
    finally:
        change(back)


def opencv(name: str, value: int, back: int) -> Any:
    import cv2

    thing: Any = cv2
    for part in name.split("."):
        thing = getattr(thing, part)
    return called(thing, value, back)


@contextmanager
def greedy_plugin() -> Iterator[None]:
    """Register a reader of another library's, which takes every image and gives a black one, before Pillow's own."""
    from PIL import Image, ImageFile

    class Greedy(ImageFile.ImageFile):
        format = "PNG"

        def _open(self) -> None:
            self._size, self._mode, self.tile = (8, 8), "RGB", []

        def load(self) -> Any:
            self.im = Image.new("RGB", (8, 8)).im

    Image.init()
    before = dict(Image.OPEN)
    for name in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "GREEDY"):
        Image.register_open(name, Greedy, lambda head: True)
    try:
        yield
    finally:
        Image.OPEN.clear()
        Image.OPEN.update(before)


def pillow(module: str, **values: Any) -> Any:
    import importlib

    return replaced(importlib.import_module(f"PIL.{module}"), **values)


@contextmanager
def in_locale(name: str) -> Iterator[None]:
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, name)
        yield
    finally:
        locale.setlocale(locale.LC_ALL, before)


@contextmanager
def tracing() -> Iterator[None]:
    before = sys.gettrace()
    sys.settrace(lambda *given: None)
    try:
        yield
    finally:
        sys.settrace(before)


def _raise(*given: Any) -> None:
    raise ArithmeticError(given)


STATES: dict[str, Callable[[], Any]] = {
    "OpenCV has no threads": lambda: opencv("setNumThreads", 0, -1),
    "OpenCV is not optimized": lambda: opencv("setUseOptimized", 0, 1),
    "OpenCV uses no IPP": lambda: opencv("ipp.setUseIPP", 0, 1),
    "OpenCV is quick and inexact": lambda: opencv("ipp.setUseIPP_NotExact", 1, 0),
    "OpenCV uses no OpenCL": lambda: opencv("ocl.setUseOpenCL", 0, 0),
    "Pillow's limit of pixels is low": lambda: pillow("Image", MAX_IMAGE_PIXELS=100),
    "Pillow's blocks are small": lambda: pillow("ImageFile", MAXBLOCK=64, SAFEBLOCK=64),
    "Pillow takes truncated images": lambda: pillow("ImageFile", LOAD_TRUNCATED_IMAGES=True),
    "Pillow gives GIF as RGB": lambda: pillow("GifImagePlugin", LOADING_STRATEGY=1),
    "Pillow takes little text": lambda: pillow("PngImagePlugin", MAX_TEXT_CHUNK=1, MAX_TEXT_MEMORY=1),
    "Pillow knows no formats": lambda: pillow("Image", ID=[]),
    "Pillow has a greedy plugin": greedy_plugin,
    "NumPy raises": lambda: np.errstate(all="raise"),
    "NumPy calls": lambda: np.errstate(all="call", call=_raise),
    "NumPy prints little": lambda: np.printoptions(precision=1, threshold=3, formatter={"all": lambda value: "?"}),
    "NumPy has a small buffer": lambda: called(np.setbufsize, 16, 8192),
    "NumPy is seeded": lambda: called(np.random.seed, 1, 2),
    "random is seeded": lambda: called(random.seed, 1, 2),
    "decimal is inexact": lambda: decimal.localcontext(decimal.Context(prec=2, traps=[decimal.Inexact])),
    "files belong to nobody": lambda: called(os.umask, 0o777, os.umask(os.umask(0o22))),
    "the stack is low": lambda: called(sys.setrecursionlimit, 250, sys.getrecursionlimit()),
    "integers are short": lambda: called(sys.set_int_max_str_digits, 640, sys.get_int_max_str_digits()),
    "threads switch often": lambda: called(sys.setswitchinterval, 1e-6, sys.getswitchinterval()),
    "there is no collector": lambda: called(lambda on: gc.enable() if on else gc.disable(), 0, 1),
    "sockets are impatient": lambda: called(socket.setdefaulttimeout, 0.001, socket.getdefaulttimeout()),
    "functions are traced": tracing,
    "the locale is C": lambda: in_locale("C"),
    "the locale is the machine's": lambda: in_locale(""),
}
"""What others may have done to the process, as blocks that undo it."""

if __name__ == "__main__":
    print(json.dumps(digests(Path(sys.argv[1]))))
