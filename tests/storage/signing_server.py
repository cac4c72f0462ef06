"""A real HTTP server that answers signed GET requests only: it checks an HMAC of method, path, query and expiry."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import re
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, urlencode

from tests.storage.object_server import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = b"known to the server alone"
USER = "reader:pass%40word-1"


class SigningServer:
    """Objects by path, or by path and ``?id=…``.

    ``odd``: what the server does otherwise: "whole" (no ranges), "range" (of another place), "size" (of another
    object), "no tags", "gzip", "chunked", "head" (answers HEAD requests without a length), "open" (needs no signature),
    "login" (needs a user and a password), "echo" (refuses, and repeats what it was asked for).
    ``moved``: where requests for a path are sent to.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.odd: set[str] = set()
        self.moved: dict[str, str] = {}
        self.signatures: set[str] = set()
        """Those of all URLs that it has signed."""
        self.requests: list[tuple[str, str, str]] = []
        self.clock: Callable[[], float] = time.time
        self.lock, self.ended = threading.Lock(), threading.Event()
        self.url = ""

    def sign(self, path: str, *, seconds: int = 3600, **query: str) -> str:
        """Return a URL of an object that may be read for so many seconds from now on."""
        asked = {**query, "Expires": str(int(self.clock()) + seconds), "X-Amz-Credential": "someone/2026"}
        return f"{self.url}{quote(path)}?{urlencode(asked | {'Signature': self._signed(path, asked)})}"

    def sign_folder(self, path: str) -> str:
        """Return a URL of a folder, whose query is for everything in it."""
        asked = {"sv": "2026-01-01", "sp": "r", "se": "2999-01-01T00:00:00Z"}
        return f"{self.url}{path}?{urlencode(asked | {'sig': self._signed(path, asked)})}"

    def _signed(self, path: str, asked: dict[str, str]) -> str:
        found = signature_of("GET", path, asked)
        self.signatures.add(found)
        return found

    def datas(self) -> list[str]:
        """Return the ranges that were asked for, those of a single byte left out."""
        return [said for method, _, said in self.requests if method == "GET" and said != "bytes=0-0"]


def signature_of(method: str, path: str, query: dict[str, str]) -> str:
    """Return what the holder of the key signs a request with."""
    told = "\n".join([method, path, *(f"{name}={value}" for name, value in sorted(query.items()))])
    return hmac.new(KEY, told.encode(), hashlib.sha256).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    server_of: SigningServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        server = self.server_of
        with server.lock:
            server.requests.append((self.command, self.path, self.headers.get("Range", "")))
        path, _, asked = self.path.partition("?")
        if path in server.moved:
            self.send(302, b"", Location=server.moved[path])
        elif why := self.refused(path, asked):
            self.send(403, f"<Error><Code>AccessDenied</Code><Said>{why}</Said></Error>".encode())
        else:
            number = dict(parse_qsl(asked)).get("id")
            name = path if path in server.objects else unquote(path)
            data = server.objects.get(name if number is None else f"{name}?id={number}")
            self.send(404, b"") if data is None else self.send_object(data, server.odd)

    def refused(self, path: str, asked: str) -> str:
        """Say why a request may not be answered; nothing where it may."""
        odd = self.server_of.odd
        if "echo" in odd:
            return self.path
        if "login" in odd:
            return "" if self.headers.get("Authorization") == "Basic cmVhZGVyOnBhc3NAd29yZC0x" else "who is it?"
        if "open" in odd:
            return ""
        query = dict(parse_qsl(asked))
        given, folder = query.pop("Signature", ""), query.pop("sig", "")
        decoded = unquote(path)
        if folder:
            above = [decoded[: found.end()] for found in re.finditer(r"[^/]+|^/", decoded)]
            return "" if any(signature_of("GET", each, query) == folder for each in above) else "another folder"
        if not hmac.compare_digest(given, signature_of(self.command, decoded, query)):
            return f"SignatureDoesNotMatch: {self.command} {self.path}"
        return "" if float(query["Expires"]) > self.server_of.clock() else "Request has expired"

    def send_object(self, data: bytes, odd: set[str]) -> None:
        headers = {} if "no tags" in odd else {"ETag": f'"{hashlib.sha256(data).hexdigest()[:16]}"'}
        given = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if given is None or "whole" in odd:
            self.send(200, data, **headers)
            return
        begin, end = int(given[1]), int(given[2]) + 1
        if begin >= len(data):
            self.send(416, b"", Content_Range=f"bytes */{len(data)}")
            return
        body = data[begin:end]
        shift, size = 1 if "range" in odd else 0, len(data) + (7 if "size" in odd else 0)
        headers["Content_Range"] = f"bytes {begin + shift}-{begin + shift + len(body) - 1}/{size}"
        if "gzip" in odd:
            body, headers["Content_Encoding"] = gzip.compress(body), "gzip"
        self.send(206, body, **headers)

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        odd = self.server_of.odd
        chunked = "chunked" in odd and self.command == "GET" and status < 300
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif not ("head" in odd and self.command == "HEAD"):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            self.close_connection = "head" in odd
        elif chunked:
            for at in range(0, len(body), 1000):
                part = body[at : at + 1000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
        else:
            with suppress(OSError):
                self.wfile.write(body)


@contextmanager
def signing_server() -> Iterator[SigningServer]:
    """Run a server for a block."""
    server = SigningServer()
    with serving(type("Handler", (_Handler,), {"server_of": server}), server.ended) as port:
        server.url = f"http://127.0.0.1:{port}"
        yield server
