"""What reads objects behind URLs: obstore and fsspec, with the errors of both in our words."""

from __future__ import annotations

import hashlib
import random
import re
import time
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from headrace.errors import MissingFile, UnreadableFile, missing

if TYPE_CHECKING:
    from headrace.errors import SampleError

Facts = tuple[int, int]
"""The size of an object in bytes, and a number that changes with its version."""

BY_OBSTORE = frozenset({"s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "http", "https"})
"""The schemes that obstore reads; fsspec reads the others."""

RETRIES, SECONDS = 8, 60.0
"""How often a request is sent again, and for how long; each waits longer than the one before, by a random share."""

_STATUS = re.compile(r"status code: (\d{3})|HTTP (?:status|error)[^\d]{0,20}(\d{3})|\b([345]\d\d) [A-Z][a-z]+")
_CREDENTIALS = (
    "Check the credentials: AWS_*, GOOGLE_* and AZURE_* variables of the environment are used, as in the platform's "
    "own tools."
)
_NETWORK = "Check the network and the server, then run again; what was downloaded is kept."
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


class ObstoreClient:
    """Reads by obstore, which keeps connections open and sends failed requests again."""

    def __init__(self) -> None:
        self._module: Any = import_module("obstore")
        self._stores: dict[str, Any] = {}

    def facts(self, url: str) -> Facts:
        """Return size and version, by a HEAD request."""
        store, path = self._place(url)
        try:
            return _of_meta(self._module.head(store, path))
        except Exception as error:
            raise failed(url, error) from error

    def read(self, url: str, begin: int, end: int) -> tuple[bytes, Facts]:
        """Read a range, by one GET request, and others where its body is cut short."""
        store, path = self._place(url)
        until = time.monotonic() + SECONDS
        for attempt in range(RETRIES + 1):
            try:
                answer = store.get(path, options={"range": (begin, end)})
                found = _of_meta(answer.meta)
                data = bytes(answer.bytes())
                if len(data) == end - begin or found[0] < end:
                    return data, found
                error: Exception = OSError(f"the server sent {len(data):,} of {end - begin:,} bytes")
            except Exception as raised:  # obstore's errors have no base but Exception
                if not _may_pass(raised):
                    raise failed(url, raised, begin, end) from raised
                error = raised
            pause = random.uniform(0.5, 1) * min(0.1 * 2**attempt, 5)  # noqa: S311  spreads requests, secures nothing
            if attempt == RETRIES or time.monotonic() + pause > until:
                raise failed(url, error, begin, end) from error
            time.sleep(pause)
        raise AssertionError

    def _place(self, url: str) -> tuple[Any, str]:
        scheme, place, path, query, fragment = urlsplit(url)
        is_http = scheme in ("http", "https")
        if is_http and (query or fragment):
            raise UnreadableFile(
                "the URL has a query (? or #)",
                path=url.partition("?")[0],
                expected="a URL without a query",
                cure="Use s3://, gs:// or az:// with credentials in place of signed URLs.",
            )
        root = f"{scheme}://{place}"
        store = self._stores.get(root)
        if store is None:
            options: dict[str, Any] = {"timeout": timedelta(seconds=SECONDS), "connect_timeout": timedelta(seconds=10)}
            if scheme == "http":
                options["allow_http"] = True
            backoff = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2}
            retry = {"max_retries": RETRIES, "backoff": backoff, "retry_timeout": timedelta(seconds=SECONDS)}
            try:
                make = import_module("obstore.store").from_url
                store = make(root, client_options=options, retry_config=retry)
            except Exception as error:
                raise failed(url, error) from error
            store = self._stores.setdefault(root, store)
        path = path.lstrip("/")
        return store, unquote(path) if is_http else path


class FsspecClient:
    """Reads by fsspec: whatever has a file system there (``hf://``, ``sftp://``, ``memory://``)."""

    def facts(self, url: str) -> Facts:
        """Return size and version, as far as the file system tells them."""
        files, path = _file_system(url)
        try:
            about = files.info(path)
        except Exception as error:
            raise failed(url, error) from error
        if about.get("type") == "directory" or about.get("size") is None:
            raise UnreadableFile("it is a folder, or has no known size", path=url, expected="a file", cure=_NETWORK)
        version = next((about[name] for name in _VERSIONS if about.get(name) is not None), "")
        return int(about["size"]), _number(str(version))

    def read(self, url: str, begin: int, end: int) -> tuple[bytes, Facts]:
        """Read a range, then ask for the version."""
        files, path = _file_system(url)
        try:
            data = bytes(files.cat_file(path, start=begin, end=end))
            files.invalidate_cache()
        except Exception as error:
            raise failed(url, error, begin, end) from error
        return data, self.facts(url)


def _file_system(url: str) -> tuple[Any, str]:
    try:
        core: Any = import_module("fsspec.core")
    except ImportError as error:
        raise missing("fsspec", extra="remote", purpose=f"reading {url.partition('://')[0]}:// URLs") from error
    try:
        found: tuple[Any, str] = core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UnreadableFile(
            f"nothing reads this kind of URL: {_line(error)}",
            path=url,
            expected=f"one of {', '.join(sorted(BY_OBSTORE))}, or a file system of fsspec",
            cure="Install the library that fsspec names.",
        ) from error
    return found


def _of_meta(meta: Any) -> Facts:
    """Return the facts of what obstore says of an object."""
    version = meta.get("e_tag") or meta.get("version") or meta.get("last_modified") or ""
    return int(meta["size"]), _number(str(version))


def _number(version: str) -> int:
    """Return a version as a number of 63 bits, used where a local file has its time of modification."""
    return int.from_bytes(hashlib.sha256(version.encode()).digest()[:8], "big") >> 1


def _may_pass(error: Exception) -> bool:
    """Say whether a body that broke off may come whole next time; obstore has sent failed requests again itself."""
    return type(error).__name__ == "GenericError" and not _STATUS.search(str(error)) and "Range" not in str(error)


def failed(url: str, error: Exception, begin: int | None = None, end: int | None = None) -> SampleError:
    """Build the error for an object that cannot be read: URL, status and cure.

    >>> print(failed("s3://bucket/a.tar", FileNotFoundError("status code: 404"), 0, 10))
    s3://bucket/a.tar: bytes 0 to 10 cannot be read: there is no such object (status 404); expected an object. Check \
the URL, and that the object is still there.
    """
    place = "" if begin is None else f"bytes {begin} to {end} cannot be read: "
    line, name = _line(error), type(error).__name__
    match = _STATUS.search(line)
    status = next((group for group in match.groups() if group), "") if match else ""
    said = f" (status {status})" if status else ""
    if isinstance(error, FileNotFoundError):
        what, cure = f"{place}there is no such object{said}", "Check the URL, and that the object is still there."
        return MissingFile(what, path=url, expected="an object", cure=cure)
    if isinstance(error, PermissionError) or name in ("PermissionDeniedError", "UnauthenticatedError"):
        what = f"{place}the server refused it{said or f': {line}'}"
        return UnreadableFile(what, path=url, expected="an object that may be read", cure=_CREDENTIALS)
    if name == "NotSupportedError":
        what, cure = f"{place}the server sends no ranges of bytes", "Copy the shards, or use a server with ranges."
        return UnreadableFile(what, path=url, expected="an answer of status 206", cure=cure)
    return UnreadableFile(f"{place}{line}{said}", path=url, expected="an object that can be read", cure=_NETWORK)


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
