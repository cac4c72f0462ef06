"""Objects behind URLs: their size, their version and ranges of their bytes, and who writes them."""

from __future__ import annotations

import errno
import os
import posixpath
import re
import threading
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from headrace.checks import path as text_of
from headrace.errors import ArgumentError, MissingFile, UnreadableFile, missing
from headrace.storage.object_clients import BY_OBSTORE, FsspecClient, ObstoreClient
from headrace.storage.object_relay import relay
from headrace.storage.request_limit import RequestLimit
from headrace.storage.signed_urls import path_part, plain

if TYPE_CHECKING:
    from headrace.storage.object_clients import Facts

ASKED_AT_ONCE = 32
"""Objects that are asked for at once, where little of each is read."""

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


def is_url(path: str) -> bool:
    """Say whether a path is a URL.

    >>> is_url("s3://bucket/a.tar"), is_url("/data/a.tar"), is_url("a://b")
    (True, False, False)
    """
    return "://" in path and _URL.match(path) is not None


class Client(Protocol):
    """What reads and writes objects."""

    def facts(self, url: str) -> Facts:
        """Return the size in bytes of an object, and a number that changes with its version."""
        ...

    def read(self, url: str, begin: int, end: int) -> tuple[bytes, Facts]:
        """Return a range of an object, and the facts of the object that it came from."""
        ...

    def write(self, url: str, path: str) -> None:
        """Write a file as an object, which is there whole or not at all."""
        ...

    def delete(self, url: str) -> None:
        """Delete an object, if it is there."""
        ...

    def listing(self, url: str) -> list[tuple[str, Facts]]:
        """Return the objects below a URL: their names from there on, and their facts."""
        ...


def path_of(name: str, value: str | os.PathLike[str]) -> str:
    """Return the path that an argument gives as text; a URL without its secrets, which are kept for its requests.

    >>> path_of("shards", Path("a.tar")), path_of("shards", "https://host/a.tar?sig=abc")
    ('a.tar', 'https://host/a.tar')
    """
    return plain(text_of(name, value))


def place_of(path: str) -> str:
    """Return a path, or a URL without its query: what ends with the extension of the file.

    >>> place_of("https://host/a.tar?id=5"), place_of("s3://bucket/a?b"), place_of("a?b")
    ('https://host/a.tar', 's3://bucket/a?b', 'a?b')
    """
    return path_part(path)[0]


COPIED = "Copy the files here; or pack them once (headrace pack), and read the packed shards by their URLs."


def local(name: str, path: str | os.PathLike[str], cure: str = COPIED) -> str:
    """Return a path on this machine as text; raise `ArgumentError` for a URL, where it is not read.

    >>> local("root", "/data/VOC2012")
    '/data/VOC2012'
    """
    text = path_of(name, path)
    if is_url(text):
        raise ArgumentError(
            f"{name}={text[:200]!r} is a URL",
            found=text[:200],
            expected="a path on this machine",
            cure=cure,
        )
    return text


def facts(url: str) -> Facts:
    """Return the size in bytes of an object, and a number that changes with its version (its ETag).

    >>> import fsspec
    >>> fsspec.filesystem("memory").pipe("/shards/a", b"one two")
    >>> facts("memory://shards/a")[0]
    7

    Raises `MissingFile`, `UnreadableFile` and `MissingDependency`.
    """
    url = plain(url)
    return client(url).facts(url)


def is_there(path: str) -> bool:
    """Say whether there is such a file, or object; of one that the server refuses to show, that there is none.

    >>> import fsspec
    >>> fsspec.filesystem("memory").pipe("/shards/a", b"one two")
    >>> is_there("memory://shards/a"), is_there("memory://shards/none")
    (True, False)

    Without the right to list a bucket, S3 answers 403 for a missing object. Raises what `facts` raises for other
    failures.
    """
    if not is_url(path):
        return os.path.isfile(path)  # noqa: PTH113  as text, as in the rest of this module
    try:
        facts(path)
    except (MissingFile, UnreadableFile) as error:
        if error.errno not in (errno.ENOENT, errno.EACCES):
            raise
        return False
    return True


def read_range(url: str, begin: int, end: int) -> tuple[bytes, Facts]:
    """Return the bytes of an object from ``begin`` to ``end``, and the facts of the object that they came from.

    >>> import fsspec
    >>> fsspec.filesystem("memory").pipe("/shards/a", b"one two")
    >>> read_range("memory://shards/a", 4, 7)[0]
    b'two'

    A request that fails for a reason that may pass is sent again. Raises what `facts` raises.
    """
    url = plain(url)
    return client(url).read(url, begin, end)


def listing(url: str) -> list[tuple[str, Facts]]:
    """Return the objects below a URL, in any depth: their names from there on, and their facts.

    >>> import fsspec
    >>> fsspec.filesystem("memory").pipe("/photos/cat/1.jpg", b"one")
    >>> [(name, size) for name, (size, _) in listing("memory://photos")]
    [('cat/1.jpg', 3)]

    They are sorted by name, and nothing where nothing is there. Raises what `facts` raises, and `UnreadableFile` for an
    HTTP server, which does not list.
    """
    url = plain(url).rstrip("/")
    return sorted(client(url).listing(url))


def folder_of(path: str) -> str:
    """Return the folder of a file or an object.

    >>> folder_of("s3://bucket/lists/a.txt"), folder_of("a.txt"), folder_of("https://host/lists/a.txt?b=c/d")
    ('s3://bucket/lists', '.', 'https://host/lists')
    """
    return place_of(path).rpartition("/")[0] if is_url(path) else str(Path(path).parent)


def absolute(path: str) -> str:
    """Return the absolute path of a file; a URL as it is, but for its secrets.

    >>> absolute("s3://bucket/a.tar")
    's3://bucket/a.tar'
    """
    return plain(path) if is_url(path) else os.path.abspath(path)  # noqa: PTH100  as text, a pattern may give a million


def joined(folder: str, name: str) -> str:
    """Return the path or URL of a name below a folder, which may be a URL; there ``..`` leads to the folder above.

    >>> joined("s3://bucket/lists", "../images/a.jpg"), joined("s3://bucket", "s3://other/a.jpg")
    ('s3://bucket/images/a.jpg', 's3://other/a.jpg')
    >>> joined("/data", "a.jpg"), joined("s3://bucket", "/data/a.jpg")
    ('/data/a.jpg', '/data/a.jpg')
    >>> joined("https://host/images?raw=true", "a.jpg")
    'https://host/images/a.jpg?raw=true'
    """
    if is_url(name):
        return plain(name)
    if not is_url(folder) or name.startswith("/"):
        return os.path.join(folder, name)  # noqa: PTH118
    above, query = path_part(folder)
    whole = f"{above.rstrip('/')}/{name}{query}"
    if "/../" not in whole and "/./" not in whole:
        return whole
    scheme, _, rest = whole.partition("://")
    place, _, path = rest.partition("/")
    return f"{scheme}://{place}{posixpath.normpath(f'/{path}')}"


def client(url: str) -> Client:
    """Return what reads a URL in this process; one client for all URLs of a kind.

    obstore runs threads that do not exist in a forked child: there, a helper process reads for it.
    """
    scheme = url.partition("://")[0].lower()
    if scheme not in BY_OBSTORE:
        return _fsspec(os.getpid())
    if find_spec("obstore") is None:
        raise missing("obstore", extra="remote", purpose=f"reading {scheme}:// URLs")
    with _lock:
        if not _used_in:
            _used_in.append(os.getpid())
    if _used_in[0] == os.getpid():
        return _obstore()
    return relay()


def limit() -> RequestLimit:
    """Return how many requests this process sends at once; a forked child has its own."""
    return _limit(os.getpid())


@cache
def _limit(process: int) -> RequestLimit:  # noqa: ARG001  it is the key
    return RequestLimit()


_used_in: list[int] = []
_lock = threading.Lock()
if hasattr(os, "register_at_fork"):
    # Another thread may hold it when a process forks.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


@cache
def _obstore() -> Client:
    return ObstoreClient(limit().refused)


@cache
def _fsspec(process: int) -> Client:  # noqa: ARG001  a forked child makes its own
    return FsspecClient()
