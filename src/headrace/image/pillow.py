"""What in Pillow belongs to the whole process (settings, libtiff's messages): ours on a thread that decodes for us."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from PIL.ImageFile import ImageFile

    Setting = tuple[Any, str, Any]
    Opener = tuple[Callable[..., ImageFile], Callable[[bytes], bool | str] | None]

Result = TypeVar("Result")


class _Thread(threading.local):
    ours = False
    heard: list[str] | None = None


_thread = _Thread()

OWN = {
    "JPEG": ("JpegImagePlugin", "jpeg_factory"),
    "PNG": ("PngImagePlugin", "PngImageFile"),
    "WEBP": ("WebPImagePlugin", "WebPImageFile"),
    "GIF": ("GifImagePlugin", "GifImageFile"),
    "TIFF": ("TiffImagePlugin", "TiffImageFile"),
    "BMP": ("BmpImagePlugin", "BmpImageFile"),
    "JPEG2000": ("Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "AVIF": ("AvifImagePlugin", "AvifImageFile"),
    "PPM": ("PpmImagePlugin", "PpmImageFile"),
}
"""Module and name of Pillow's own reader of each common format."""


class _Split:
    """A setting with two values: ours on a thread that decodes for us, its owner's on every other."""

    def __init__(self, theirs: Any, ours: Any) -> None:
        self.theirs, self.ours = theirs, ours

    def __bool__(self) -> bool:
        return bool(self.ours if _thread.ours else self.theirs)

    def __eq__(self, other: object) -> bool:
        return bool((self.ours if _thread.ours else self.theirs) == other)

    def __hash__(self) -> int:
        return hash(self.ours if _thread.ours else self.theirs)


class _Settings:
    """The settings of Pillow that change pixels, and how many threads need ours at the moment."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.known: list[Setting] = []

    def all(self) -> list[Setting]:
        """Return module, name and our value of each; not asked for before Pillow is needed."""
        if not self.known:
            from PIL import GifImagePlugin, ImageFile

            strategy = GifImagePlugin.LoadingStrategy.RGB_AFTER_FIRST
            self.known = [
                (ImageFile, "LOAD_TRUNCATED_IMAGES", False),
                (GifImagePlugin, "LOADING_STRATEGY", strategy),
            ]
        return self.known

    def foreign(self) -> bool:
        """Whether any of them has a value that is not ours, on this thread, now."""
        return any(getattr(module, name) != ours for module, name, ours in self.all())

    def enter(self) -> None:
        with self.lock:
            self.users += 1
            for module, name, ours in self.all():
                theirs = getattr(module, name)
                if not isinstance(theirs, _Split):
                    setattr(module, name, _Split(theirs, ours))

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            if not self.users:
                self.restore()

    def restore(self) -> None:
        for module, name, _ in self.known:
            value = getattr(module, name)
            if isinstance(value, _Split):
                setattr(module, name, value.theirs)

    def forked(self) -> None:
        """Forget, in a forked process, the threads that did not come along."""
        self.lock, self.users = threading.Lock(), 0
        self.restore()


_settings = _Settings()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_settings.forked)


def openers(registered: Mapping[str, Opener]) -> list[tuple[str, Opener]]:
    """Return how images of each format are opened, in the order in which formats are tried.

    Pillow's own readers of common formats come first, also where another library has put its own in their place. What
    needs no signature comes last.
    """
    own = {name: kept for name, (module, reader) in OWN.items() if (kept := _own(module, reader)) is not None}
    rest = [(name, opener) for name, opener in registered.items() if opener != own.get(name)]
    return [*own.items(), *sorted(rest, key=lambda item: item[1][1] is None)]


@cache
def _own(module: str, reader: str) -> Opener | None:
    try:
        plugin = import_module(f"PIL.{module}")
        return getattr(plugin, reader), plugin._accept
    except (ImportError, AttributeError):  # a Pillow without it
        return None


def undisturbed(read: Callable[[], Result]) -> Result:
    """Return what a function reads by Pillow, with Pillow's settings as they are by default.

    >>> from PIL import ImageFile
    >>> ImageFile.LOAD_TRUNCATED_IMAGES = True
    >>> undisturbed(lambda: bool(ImageFile.LOAD_TRUNCATED_IMAGES)), ImageFile.LOAD_TRUNCATED_IMAGES
    (False, True)
    >>> ImageFile.LOAD_TRUNCATED_IMAGES = False

    Other threads see the settings as they were. Where somebody changes one in the meantime, it reads again.
    Raises what the function raises.
    """
    while _settings.foreign():
        _settings.enter()
        _thread.ours = True
        try:
            result = read()
            changed = _settings.foreign()
        finally:
            _thread.ours = False
            _settings.leave()
        if not changed:
            return result
    result = read()
    return undisturbed(read) if _settings.foreign() else result


def heard(read: Callable[[list[str]], Result]) -> Result:
    """Call a function with a list that takes what libtiff says meanwhile on this thread, instead of standard error.

    >>> heard(lambda said: len(said))
    0

    Raises what the function raises.
    """
    _listen()
    said: list[str] = []
    _thread.heard = said
    try:
        return read(said)
    finally:
        _thread.heard = None


@cache
def _listen() -> tuple[Any, ...]:
    """Put a handler before libtiff's own, which takes what is said on our threads and passes on all else.

    Redirecting the descriptor of standard error would take what other threads write too. Elsewhere than on Linux the
    argument list of C cannot be counted on to be a pointer, and libtiff prints as it likes.
    """
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        return ()
    try:
        from PIL import _imaging

        library = ctypes.CDLL(_imaging.__file__)  # symbols of what it was linked with are found by it too
        put, write = library.TIFFSetErrorHandler, ctypes.CDLL(None).vsnprintf
    except (ImportError, OSError, AttributeError):
        return ()
    kind = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
    write.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p]
    before: list[Any] = []

    def handler(module: bytes | None, form: bytes | None, arguments: int | None) -> None:
        said = _thread.heard
        if said is None:
            if before:
                before[0](module, form, arguments)
        elif len(said) < 8:
            text = ctypes.create_string_buffer(512)
            write(text, len(text), form, arguments)
            said.append(text.value.decode("utf-8", "replace").rstrip("."))

    ours = kind(handler)
    put.restype, put.argtypes = ctypes.c_void_p, [kind]
    previous = put(ours)
    if previous:
        before.append(kind(previous))
    return ours, library, before
