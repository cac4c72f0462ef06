"""What reads and writes objects behind URLs: obstore and fsspec, with the errors of both in our words."""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import math
import os
import re
import threading
from collections import OrderedDict
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from headrace.errors import MissingFile, UnreadableFile, missing
from headrace.storage import request_loop
from headrace.storage.signed_urls import NOTHING, expired, is_http, path_part, scrubbed, secrets_of, whole
from headrace.storage.whole_files import PARTIAL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from headrace.errors import SampleError

T = TypeVar("T")

Facts = tuple[int, int]
"""The size of an object in bytes, and a number that changes with its version."""

BY_OBSTORE = frozenset({"s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "http", "https"})
"""The schemes that obstore reads; fsspec reads the others."""

ON_THIS_MACHINE = ("memory://", "file://", "local://")
"""What the URLs of files and memory of this machine begin with: nothing of them is cached, or waited for."""

PART = 1 << 18
"""Bytes of an answer that are taken at once."""

WRITTEN_PART, WRITTEN_AT_ONCE = 8 << 20, 4
"""Bytes of a part of an object that is written, and parts that are sent at once."""

WRITES = 2
"""How often a whole object is written again, after its requests were sent again by obstore."""

LISTED = 1000
"""Objects that one request lists."""

BUSY = frozenset({"408", "429", "503"})
"""The status of a server that asks for fewer requests."""

NO_HEAD = frozenset({"405", "501"})
"""The status of a server that answers no HEAD requests."""

NO_SIGNED_HEAD = NO_HEAD | {"400", "403"}
"""The status of an HTTP server that answers none, or sends them on to a URL that is signed for GET requests."""

NO_LENGTH, NO_BYTES = "Content-Length Header", "416"
"""What obstore says of an answer without a length; the status of one to a request for a byte of an empty object."""

LASTING = ("Range", NO_LENGTH, "error following redirect")
"""What obstore says of servers that will answer no better next time."""

LONGEST_URL = 20_000
"""Characters of a URL and its query: the library under obstore panics above 65,535, once they are encoded."""

STORES = 128
"""Clients that are kept, with their connections: one for each bucket or server, and for each URL that is signed."""

_VARIABLES = {("s3", "s3a"): "AWS", ("gs",): "GOOGLE", ("az", "azure", "abfs", "abfss"): "AZURE"}
"""What the names of variables of the environment begin with, by the schemes that they are for."""

_PROXIES = tuple(case(f"{name}_proxy") for name in ("http", "https", "all", "no") for case in (str.lower, str.upper))
"""The variables that say through which proxy all of them send requests."""

_STATUS = re.compile(r"status code: (\d{3})\b|HTTP (?:status|error)[^\d]{0,20}(\d{3})\b|\b([345]\d\d) [A-Z][a-z]+")
_CREDENTIALS = (
    "Check the credentials: AWS_*, GOOGLE_* and AZURE_* variables of the environment are used, as in the platform's "
    "own tools."
)
_SIGNED = (
    "Construct the dataset with a new signed URL, or with a URL that has a user and a password; what is in the cache "
    "is still used. Pickles, indexes and ledgers have no signatures and passwords."
)
_MAY_WRITE = f"{_CREDENTIALS} They must allow to list, read, write and delete objects there."
_CURES = (
    ("must be specified", _CREDENTIALS),  # what obstore says where Azure's account is not set
    ("region", "Set AWS_REGION to the region of the bucket."),
)
_NETWORK = "Check the network and the server, then run again; what was downloaded is kept."
_LISTED = "s3://, gs://, az://, or a file system of fsspec that lists its files"
_NAMED_THEM = (
    "Name the objects: shards with braces (train-{0000..0099}.tar), images with ImageList or ImageFiles, or pass a "
    "saved listing=."
)
_VERSIONS = (
    "ETag",
    "etag",
    "e_tag",
    "version",
    "versionId",
    "blob_id",
    "oid",
    "mtime",
    "LastModified",
    "created",
)


class _CompressedError(Exception):
    """An answer is compressed, so that it is not the range that was asked for."""


class ObstoreClient:
    """Reads and writes by obstore, which keeps connections open; sends failed and slow requests again.

    ``refused`` is called where the server asks for fewer requests.
    """

    def __init__(self, refused: Callable[[], None] = lambda: None) -> None:
        self._module: Any = import_module("obstore")
        self._stores: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._lock = threading.Lock()
        self._loop, self._refused, self.tail = request_loop.RequestLoop(), refused, request_loop.Tail()

    def facts(self, url: str) -> Facts:
        """Return size and version, by a HEAD request; where the server refuses those, by a GET request for a byte.

        A URL is signed for GET requests, so it is not asked by HEAD.
        """
        store, path = self._place(url)
        by_head = secrets_of(url).query is None
        refused = NO_SIGNED_HEAD if is_http(url) else NO_HEAD

        async def send() -> Facts:
            if by_head:
                try:
                    return _of_meta(await self._module.head_async(store, path))
                except Exception as error:
                    if _status(error) not in refused and NO_LENGTH not in str(error):
                        raise
            try:
                answer = await store.get_async(path, options={"range": (0, 1)})
            except Exception as error:
                if _status(error) != NO_BYTES:
                    raise
                answer = await store.get_async(path)
            return _of_meta(answer.meta)

        return self._sent(url, request_loop.persistent(send, self._may_pass), failed)

    def read(self, url: str, begin: int, end: int) -> tuple[bytes, Facts]:
        """Read a range, by one GET request, and others where it fails, is slow, or its body is cut short."""
        store, path = self._place(url)

        async def send() -> tuple[bytes, Facts]:
            parts, answer = list[bytes](), None
            try:
                async with asyncio.timeout(request_loop.QUIET_SECONDS) as quiet:
                    answer = await store.get_async(path, options={"range": (begin, end)})
                    found, encoding = _of_meta(answer.meta), answer.attributes.get("Content-Encoding", "")
                    async for part in answer.stream(min_chunk_size=PART):
                        parts.append(bytes(part))
                        quiet.reschedule(asyncio.get_running_loop().time() + request_loop.QUIET_SECONDS)
            finally:
                answer = None  # it holds the connection, and the traceback of an error would hold it
            data = b"".join(parts)
            if len(data) != end - begin and found[0] >= end:
                if encoding:
                    raise _CompressedError(encoding)
                raise ConnectionError(f"the server sent {len(data):,} of {end - begin:,} bytes")
            return data, found

        def once() -> Awaitable[tuple[bytes, Facts]]:
            return request_loop.hedged(send, end - begin, self.tail)

        said = partial(failed, begin=begin, end=end)
        return self._sent(url, request_loop.persistent(once, self._may_pass), said)

    def write(self, url: str, path: str) -> None:
        """Write a file as an object, a large one in parts; a part that fails is sent again."""
        store, place = self._place(url, writes=True)

        async def send() -> None:
            parts = {"chunk_size": WRITTEN_PART, "max_concurrency": WRITTEN_AT_ONCE}
            await self._module.put_async(store, place, Path(path), **parts)

        self._sent(url, request_loop.persistent(send, self._may_pass, retries=WRITES, seconds=math.inf), unwritten)

    def delete(self, url: str) -> None:
        """Delete an object, if it is there."""
        store, place = self._place(url, writes=True)

        async def send() -> None:
            with suppress(FileNotFoundError):
                await self._module.delete_async(store, place)

        self._sent(url, request_loop.persistent(send, self._may_pass), unwritten)

    def listing(self, url: str) -> list[tuple[str, Facts]]:
        """Return the objects below a URL: their names from there on, and their facts; a thousand for each request."""
        store, prefix = self._place(url)
        if is_http(url):
            raise UnreadableFile(
                "an HTTP server does not list its objects", path=url, expected=_LISTED, cure=_NAMED_THEM
            )
        found, start = list[tuple[str, Facts]](), len(prefix) + 1 if prefix else 0

        async def pages() -> None:
            stream: Any = None
            last: str | None = None

            async def send() -> Any:
                nonlocal stream
                # A stream that has failed is over: another one goes on after the last object.
                stream = stream or self._module.list(store, prefix or None, offset=last, chunk_size=LISTED)
                try:
                    return await anext(stream, None)
                except BaseException:
                    stream = None
                    raise

            while page := await request_loop.persistent(send, self._may_pass):
                found.extend((about["path"][start:], _of_meta(about)) for about in page)
                last = page[-1]["path"]

        self._sent(url, pages(), lambda url, error: (_no_bucket if _is_missing(error) else failed)(url, error))
        return found

    def _sent(self, url: str, work: Coroutine[Any, Any, T], said: Callable[[str, Exception], SampleError]) -> T:
        """Run the requests of a call; ``said`` builds the error for a URL from what obstore raises."""
        try:
            return self._loop.call(work)
        except Exception as error:  # noqa: BLE001  an error of ours tells of it
            cause = error
        try:  # out of the handler, so that what has the secrets of the URL is no part of the error
            raise said(url, cause) from (cause if secrets_of(url) == NOTHING else None)
        finally:
            del cause  # its traceback would hold it for ever

    def _may_pass(self, error: Exception) -> bool:
        """Say whether a request may succeed next time: no refusal of this request, and no server without ranges."""
        if isinstance(error, ConnectionError | TimeoutError):
            return True
        if type(error).__name__ != "GenericError" or any(words in str(error) for words in LASTING):
            return False
        status = _status(error)
        if status in BUSY:
            self._refused()
        return not status or status in BUSY or status.startswith("5")

    def _place(self, url: str, *, writes: bool = False) -> tuple[Any, str]:
        """Return what reads a URL, and the path of its object there."""
        scheme, (user, query) = url.partition("://")[0].lower(), secrets_of(url)
        by_http = is_http(url)
        place, asked = path_part(url.partition("#")[0] if by_http else url)
        host, _, path = place.partition("://")[2].partition("/")
        asked = asked if query is None else f"?{query}"
        if len(url) + len(asked) > LONGEST_URL:
            raise UnreadableFile(
                f"the URL has {len(url) + len(asked):,} characters",
                path=f"{url[:200]}...",
                expected=f"at most {LONGEST_URL:,}",
                cure="Give the URL as the server signed it.",
            )
        if by_http and _is_odd(path):
            root, path = f"{scheme}://{host}/{path}{asked}", ""
        else:
            root, path = f"{scheme}://{host}{asked}", unquote(path.strip("/")) if by_http else path.strip("/")
        variables = variables_of(scheme)
        key = (root, user, writes, variables)
        with self._lock:
            store = self._stores.get(key)
            if store is not None:
                self._stores.move_to_end(key)
        if store is None:
            try:
                store = _store(scheme, root, user, dict(variables), writes=writes)
            except Exception as error:  # noqa: BLE001  an error of ours tells of it
                raise failed(url, error) from (error if (user, query) == NOTHING else None)
            with self._lock:
                store = self._stores.setdefault(key, store)
                while len(self._stores) > STORES:
                    self._stores.popitem(last=False)
        return store, path


def _is_odd(path: str) -> bool:
    """Say whether obstore would ask for another path of an HTTP server, where it is not part of the client's URL."""
    return "%2f" in path.lower() or "//" in path or path.startswith("/") or path.endswith("/")


def _store(scheme: str, root: str, user: str, variables: dict[str, str], *, writes: bool) -> Any:
    """Make what reads, or writes, the objects of a bucket or a server."""
    module = import_module("obstore.store")
    options: dict[str, Any] = {
        "timeout": timedelta(seconds=request_loop.SECONDS),
        "connect_timeout": timedelta(seconds=10),
    }
    if scheme == "http":
        options["allow_http"] = True
    else:
        options |= _connection(scheme, variables)
    if user:
        login = base64.b64encode(unquote(user).encode()).decode()
        options["default_headers"] = {"Authorization": f"Basic {login}"}
    # Reads are sent again here, where slow ones are too; but only obstore can send a part again.
    timeout = timedelta(seconds=request_loop.SECONDS)
    retry = {"max_retries": request_loop.RETRIES if writes else 0, "retry_timeout": timeout}
    make = module.HTTPStore.from_url if scheme in ("http", "https") else module.from_url
    return make(root, client_options=options, retry_config=retry)


def variables_of(scheme: str) -> tuple[tuple[str, str], ...]:
    """Return the variables of the environment that a client for a scheme is made of."""
    return _variables(*_PROXIES, *(f"{name}_" for schemes, name in _VARIABLES.items() if scheme in schemes))


def all_variables() -> tuple[tuple[str, str], ...]:
    """Return the variables of the environment that any client is made of."""
    return _variables(*_PROXIES, *(f"{name}_" for name in _VARIABLES.values()))


def _variables(*starts: str) -> tuple[tuple[str, str], ...]:
    # The names first, for each request asks: to take an item of the environment costs more.
    names = [name for name in os.environ if name.startswith(starts)]
    return tuple((name, os.environ[name]) for name in sorted(names))


def _connection(scheme: str, variables: dict[str, str]) -> dict[str, Any]:
    """Return what the platform's variables say of connections: obstore asks for them only where it is given nothing."""
    prefix = next((name for schemes, name in _VARIABLES.items() if scheme in schemes), "")
    found: dict[str, Any] = {}
    for option in ("allow_http", "allow_invalid_certificates", "proxy_url"):
        given = variables.get(f"{prefix}_{option.upper()}", "") if prefix else ""
        if given:
            found[option] = given if option == "proxy_url" else given.lower() in ("1", "true", "yes", "on")
    return found


class FsspecClient:
    """Reads and writes by fsspec: whatever has a file system there (``hf://``, ``sftp://``, ``memory://``)."""

    def facts(self, url: str) -> Facts:
        """Return size and version, as far as the file system tells them."""
        files, path = _file_system(url)
        try:
            about = _waited(url, lambda: files.info(path))
        except Exception as error:
            raise failed(url, error) from error
        if about.get("type") == "directory" or about.get("size") is None:
            raise UnreadableFile("it is a folder, or has no known size", path=url, expected="a file", cure=_NETWORK)
        return _of_info(about)

    def listing(self, url: str) -> list[tuple[str, Facts]]:
        """Return the objects below a URL: their names from there on, and their facts."""
        files, path = _file_system(url)
        try:
            files.invalidate_cache()
            found: dict[str, Any] = files.find(path, detail=True)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise failed(url, error) from error
        start = len(path.rstrip("/")) + 1
        return sorted((name[start:], _of_info(about)) for name, about in found.items() if about.get("size") is not None)

    def read(self, url: str, begin: int, end: int) -> tuple[bytes, Facts]:
        """Read a range, then ask for the version."""
        files, path = _file_system(url)
        try:
            data = bytes(_waited(url, lambda: files.cat_file(path, start=begin, end=end)))
            files.invalidate_cache()
        except Exception as error:
            raise failed(url, error, begin, end) from error
        return data, self.facts(url)

    def write(self, url: str, path: str) -> None:
        """Write a file under another name, and rename it: many file systems show a file while it is written."""
        files, place = _file_system(url)
        folder, _, name = place.rpartition("/")
        passing = f"{folder}/.{name}{PARTIAL}"
        try:
            files.makedirs(folder, exist_ok=True)
            files.put_file(path, passing)
            files.mv(passing, place)
            files.invalidate_cache()
        except Exception as error:
            raise unwritten(url, error) from error

    def delete(self, url: str) -> None:
        """Delete an object, if it is there."""
        files, place = _file_system(url)
        try:
            with suppress(FileNotFoundError):
                files.rm_file(place)
        except Exception as error:
            raise unwritten(url, error) from error


def _waited(url: str, call: Callable[[], Any]) -> Any:
    """Wait for a file system of fsspec, whose calls nothing can end."""
    return call() if url.startswith(ON_THIS_MACHINE) else request_loop.left_behind(call)


def _file_system(url: str) -> tuple[Any, str]:
    try:
        core: Any = import_module("fsspec.core")
    except ImportError as error:
        raise missing(
            "fsspec", extra="remote", purpose=f"reading and writing {url.partition('://')[0]}:// URLs"
        ) from error
    try:
        found: tuple[Any, str] = core.url_to_fs(whole(url))
    except (ImportError, ValueError) as error:
        raise UnreadableFile(
            f"nothing reads this kind of URL: {_line(error, url)}",
            path=url,
            expected=f"one of {', '.join(sorted(BY_OBSTORE))}, or a file system of fsspec",
            cure="Install the library that fsspec names.",
        ) from error
    return found


def _of_info(about: dict[str, Any]) -> Facts:
    """Return the facts of what fsspec says of an object."""
    version = next((about[name] for name in _VERSIONS if about.get(name) is not None), "")
    if isinstance(version, datetime):  # some file systems list numbers, and answer with this
        version = version.timestamp()
    return int(about["size"]), _number(str(version))


def _of_meta(meta: Any) -> Facts:
    """Return the facts of what obstore says of an object."""
    version = meta.get("e_tag") or meta.get("version") or meta.get("last_modified") or ""
    return int(meta["size"]), _number(str(version))


def _number(version: str) -> int:
    """Return a version as a number of 63 bits, used where a local file has its time of modification."""
    version = version.strip('"')  # Azure's lists have ETags without quotes, its answers with them
    return int.from_bytes(hashlib.sha256(version.encode()).digest()[:8], "big") >> 1


def failed(url: str, error: Exception, begin: int | None = None, end: int | None = None) -> SampleError:
    """Build the error for an object that cannot be read: URL, status and cure.

    >>> print(failed("s3://bucket/a.tar", FileNotFoundError("status code: 404"), 0, 10))
    s3://bucket/a.tar: bytes 0 to 10 cannot be read: there is no such object (status 404); expected an object. Check \
the URL, and that the object is still there.
    """
    place = "" if begin is None else f"bytes {begin} to {end} cannot be read: "
    line = _line(error, url)
    status = _status(error)
    said = f" (status {status})" if status else ""
    found: SampleError
    if _is_missing(error):
        what, cure = f"{place}there is no such object{said}", "Check the URL, and that the object is still there."
        if not is_http(url) and "." not in url.rpartition("/")[2]:
            cure = f"{cure} The URL of a folder of shards ends with a slash."
        found = MissingFile(what, path=url, expected="an object", cure=cure)
        found.errno = errno.ENOENT
        return found
    until = expired(url)
    if _is_refused(error) or (until is not None and status == "400"):
        what, cure = f"the server refused it{said or f': {line}'}", _CREDENTIALS
        if is_http(url):
            cure = _SIGNED
        if until is not None:
            what = f"the signature of its URL expired at {until:%Y-%m-%d %H:%M:%S} UTC{said}"
        elif secrets_of(url).query is not None:
            what = f"the server refused the signature of its URL{said}"
        found = UnreadableFile(f"{place}{what}", path=url, expected="an object that may be read", cure=cure)
        found.errno = errno.EACCES
        return found
    if lacks := _lack(error):
        cure = "Copy the data, or use a server that sends ranges of files as they are."
        return UnreadableFile(f"{place}{lacks}", path=url, expected="an answer of status 206", cure=cure)
    cure = next((cure for words, cure in _CURES if words in line), _NETWORK)
    return UnreadableFile(f"{place}{line}{said}", path=url, expected="an object that can be read", cure=cure)


def _lack(error: Exception) -> str:
    """Say what a server cannot do that reading needs; nothing for other errors."""
    if isinstance(error, _CompressedError):
        return f"the server compresses its answers (Content-Encoding: {error})"
    if type(error).__name__ == "NotSupportedError":
        return "the server sends no ranges of bytes"
    return "the server does not say how long its answers are (Content-Length)" if NO_LENGTH in str(error) else ""


def unwritten(url: str, error: Exception) -> SampleError:
    """Build the error for a place that cannot be written to: URL, status and cure.

    >>> print(unwritten("s3://bucket/a.tar", PermissionError("status code: 403")))
    s3://bucket/a.tar: cannot be written: the server refused it (status 403); expected a place that may be written to. \
Check the credentials: AWS_*, GOOGLE_* and AZURE_* variables of the environment are used, as in the platform's own \
tools. They must allow to list, read, write and delete objects there.
    """
    line = _line(error, url)
    status = _status(error)
    said = f" (status {status})" if status else ""
    if _is_missing(error):
        return _no_bucket(url, error)
    if _is_refused(error):
        what = f"cannot be written: the server refused it{said or f': {line}'}"
        return UnreadableFile(what, path=url, expected="a place that may be written to", cure=_MAY_WRITE)
    cure = "Check the network and the server, then run the same again: it continues."
    return UnreadableFile(f"cannot be written: {line}{said}", path=url, expected="a server that takes it", cure=cure)


def _is_missing(error: Exception) -> bool:
    # obstore has a type of its own for this, but not where it lists; and it takes others, as 405, for this.
    status = _status(error)
    return status == "404" or (isinstance(error, FileNotFoundError) and not status)


def _is_refused(error: Exception) -> bool:
    refused = isinstance(error, PermissionError) or _status(error) in ("401", "403")
    return refused or type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError")


def _no_bucket(url: str, error: Exception) -> MissingFile:
    status = _status(error)
    what = f"there is no such bucket{f' (status {status})' if status else ''}"
    cure = "Check the URL, or create the bucket first."
    return MissingFile(what, path=url, expected="a bucket or container", cure=cure)


def _status(error: Exception) -> str:
    match = _STATUS.search(_first_line(error))
    return next((group for group in match.groups() if group), "") if match else ""


def _line(error: Exception, url: str) -> str:
    """Return the beginning of an error, without what is secret in a URL."""
    return scrubbed(_first_line(error), url)[:300]


def _first_line(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {request_loop.SECONDS:g} s"
    return (str(error).strip() or type(error).__name__).splitlines()[0]
