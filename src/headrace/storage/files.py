"""Regular files, up to a limit: nothing waits for a pipe, reads a device or takes memory for a false size."""

from __future__ import annotations

import errno
import io
import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.errors import FileTooLarge, HeadraceError, MissingFile, SampleError, UnreadableFile
from headrace.storage.blocks import read_url
from headrace.storage.object_file import ObjectFile
from headrace.storage.objects import facts as object_facts
from headrace.storage.objects import is_url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

DEFAULT_MAX_BYTES = 1 << 30
"""The most bytes that a file may have unless told otherwise: 1 GiB."""

OBJECT_BUFFER = 1 << 16
"""Bytes that are taken at once of an object that is read line by line."""

CURE = 'Fix or remove the file, or skip it with on_error="skip".'
RAISE = "If you trust the file, raise the limit"


def leads_out(name: str) -> bool:
    """Say whether a name in a file, which may be of anyone, leads out of the folder that it is to be in.

    >>> [leads_out(name) for name in ("train/a.png", "../a.png", "/etc/passwd", "https://host/a.png", "")]
    [False, True, True, True, True]
    """
    return not name or os.path.isabs(name) or is_url(name) or ".." in name.replace("\\", "/").split("/") or "\0" in name  # noqa: PTH117


def read_file(
    path: str,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    cure: str = CURE,
    limit: str = RAISE,
    facts: tuple[int, int] | None = None,
) -> bytes:
    """Read a whole regular file, or an object behind a URL.

    >>> import tempfile, pathlib
    >>> from headrace.storage.files import read_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "a.txt")
    ...     _ = file.write_text("hello")
    ...     read_file(str(file))
    b'hello'

    ``cure`` is the advice of errors, ``limit`` that for a file above ``max_bytes``. ``facts``: the size and the version
    of an object, where they are known; else the server is asked. Raises `MissingFile` and `UnreadableFile`, which carry
    the operating system's ``errno``: ``EFBIG``, in a `FileTooLarge`, for a file above the limit, refused before it is
    read.
    """
    try:
        if is_url(path):
            known = object_facts(path) if facts is None else facts
            _refuse_size(known[0], "", max_bytes, limit)
            return read_url(path, 0, known[0], known)
        file, size = _opened(path, max_bytes, limit)
        try:
            return _whole(file, size)
        finally:
            os.close(file)
    except _OverLimitError as error:
        raise unread(path, error, cure) from error
    except HeadraceError:  # it names the URL
        raise
    except (OSError, ValueError) as error:
        raise unread(path, error, cure) from error


@contextmanager
def opened(
    path: str, *, max_bytes: int = DEFAULT_MAX_BYTES, cure: str = CURE, limit: str = RAISE
) -> Iterator[BinaryIO]:
    r"""Open a regular file for reading, as `read_file` does, and close it at the end of the block.

    >>> import tempfile, pathlib
    >>> from headrace.storage.files import opened
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "a.txt")
    ...     _ = file.write_text("one\ntwo")
    ...     with opened(str(file)) as lines:
    ...         list(lines)
    [b'one\n', b'two']

    A file that grows while it is open is read as far as it goes. Raises what `read_file` raises, when it is opened.
    """
    file: BinaryIO
    try:
        if is_url(path):
            found = ObjectFile(path, in_order=True)
            _refuse_size(found.size, "", max_bytes, limit)
            file = io.BufferedReader(found, OBJECT_BUFFER)
        else:
            file = os.fdopen(_opened(path, max_bytes, limit)[0], "rb")
    except HeadraceError:  # it names the URL
        raise
    except (OSError, ValueError) as error:
        raise unread(path, error, cure) from error
    with file:
        yield file


def unread(path: str, error: OSError | ValueError, cure: str = CURE) -> SampleError:
    """Build the error for a file that could not be opened or read.

    >>> print(unread("a.jpg", PermissionError(13, "Permission denied"), "Change its mode."))
    a.jpg: cannot be read: Permission denied; expected a regular file. Change its mode.
    """
    said: SampleError
    if isinstance(error, _OverLimitError):
        said = FileTooLarge(error.found, path=path, expected=error.expected, cure=error.cure)
    elif isinstance(error, OSError) and error.errno == errno.ENOENT:
        link = Path(path)
        what = f"a link to {link.readlink()}, which is not there" if link.is_symlink() else "there is no such file"
        start = "" if link.is_absolute() else " (the path begins at the current folder)"
        said = MissingFile(
            f"{what}{start}",
            path=path,
            expected="a file",
            cure='Bring it back, take it out of the dataset, or skip it with on_error="skip".',
        )
    else:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        said = UnreadableFile(
            f"cannot be read: {reason}",
            path=path,
            expected="a regular file",
            cure=cure,
        )
    said.errno = error.errno if isinstance(error, OSError) else None
    return said


def unopened(path: str, error: OSError, *, expected: str, cure: str, action: str = "opened") -> SampleError:
    """Build the error for a file or a folder that a dataset is made from.

    >>> print(unopened("a.npy", FileNotFoundError(2, "No such file"), expected="a .npy file", cure="Fix the path."))
    a.npy: cannot be opened: No such file; expected a .npy file. Fix the path.
    """
    kind = MissingFile if error.errno == errno.ENOENT else UnreadableFile
    said = kind(f"cannot be {action}: {error.strerror or error}", path=path, expected=expected, cure=cure)
    said.errno = error.errno
    return said


class _OverLimitError(OSError):
    def __init__(self, found: str, expected: str, cure: str) -> None:
        super().__init__(errno.EFBIG, found)
        self.found, self.expected, self.cure = found, expected, cure


def _opened(path: str, max_bytes: int, limit: str) -> tuple[int, int]:
    """Open a regular file within the limit: its descriptor and its size."""
    # O_NONBLOCK: a named pipe opens at once, to be refused, rather than waiting for a writer for ever.
    # O_NOCTTY: a terminal does not become that of the process.
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        facts = os.fstat(file)
        _refuse(facts, max_bytes, limit)
    except BaseException:
        os.close(file)
        raise
    return file, facts.st_size


def _refuse(facts: os.stat_result, max_bytes: int, limit: str) -> None:
    """Raise for what is no regular file, and for one above the limit."""
    if stat.S_ISDIR(facts.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device")
    if facts.st_dev in _of_the_kernel():
        raise OSError(errno.EINVAL, "it is made by the operating system as it is read (a file of /proc or /sys)")
    held = facts.st_blocks * 512
    sparse = f" ({held} bytes of them on disk: it is sparse)" if held < facts.st_size // 2 else ""
    _refuse_size(facts.st_size, sparse, max_bytes, limit)


def _refuse_size(size: int, sparse: str, max_bytes: int, limit: str) -> None:
    if size > max_bytes:
        raise _OverLimitError(
            f"{size} bytes{sparse}", f"at most {max_bytes} bytes", f"{limit}. Otherwise remove the file."
        )


def _whole(file: int, size: int) -> bytes:
    """Read as many bytes as the file had when it was opened."""
    data = os.read(file, size)
    if len(data) == size:
        return data
    parts = [data]  # one read gives at most 2 GiB
    missing = size - len(data)
    while missing and (part := os.read(file, missing)):
        parts.append(part)
        missing -= len(part)
    if missing:
        raise OSError(errno.EIO, f"it was cut short while it was read: {size - missing} of {size} bytes are left")
    return b"".join(parts)


def _of_the_kernel() -> frozenset[int]:
    """Return the devices of /proc and /sys, whose files tell no true size and may never end."""
    if not _kernel_devices:
        found = [-1]
        for folder in ("/proc", "/sys"):
            try:
                device = os.stat(folder).st_dev  # noqa: PTH116  a Path costs more than the question
            except OSError:
                continue
            if device != os.stat("/").st_dev:  # noqa: PTH116
                found.append(device)
        _kernel_devices.append(frozenset(found))
    return _kernel_devices[0]


_kernel_devices: list[frozenset[int]] = []
