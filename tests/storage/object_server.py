"""A real HTTP server of objects with ranges and ETags, written to as S3 and GCS are, whose faults a test chooses."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from contextlib import contextmanager, suppress
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class ObjectServer:
    """Objects by name, and the faults that the next requests meet.

    A bucket is the first part of the names: ``s3://bucket/a`` and ``gs://bucket/a`` are ``/bucket/a``. ``uploads`` are
    unfinished ones: S3, and GCS by its XML API, take large objects in parts, by the same requests. What completes an
    upload must name its parts in order, by number and ETag, and all but the last have ``least_part`` bytes.

    ``fault(method, number)`` is called for each request, counted from 0, and says what goes wrong: "503", "403",
    "reset", "cut" (half of the body), "long" (a byte more), "stall" (half of the body, then nothing until the client
    hangs up), "hang" (until the server ends), "whole" (no ranges), or nothing.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.buckets: set[str] = {"bucket"}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.least_part = 0
        self.moved: dict[str, str] = {}
        """Where objects are that clients are sent to another URL for."""
        self.fault: Callable[[str, int], str] = lambda _method, _number: ""
        self.requests: list[tuple[str, str, str]] = []
        self.at_once = self.most_at_once = 0
        self.gate: threading.Barrier | None = None
        self.lock, self.ended = threading.Lock(), threading.Event()
        self.left = threading.Event()
        """Set when a client has hung up during a stall."""
        self.url = ""

    def gets(self) -> list[str]:
        """Return the ranges that were asked for."""
        return [said for method, _, said in self.requests if method == "GET"]

    def environment(self) -> dict[str, str]:
        """Return the variables of those who take it for S3 or for GCS."""
        s3 = {"AWS_ENDPOINT": self.url, "AWS_ALLOW_HTTP": "true", "AWS_SKIP_SIGNATURE": "true", "AWS_REGION": "any"}
        key = {"gcs_base_url": self.url, "disable_oauth": True, "client_email": "", "private_key": ""}
        gcs = json.dumps(key | {"private_key_id": ""})
        return s3 | {"GOOGLE_SERVICE_ACCOUNT_KEY": gcs, "GOOGLE_ALLOW_HTTP": "true"}


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    store: ObjectServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass

    def parse_request(self) -> bool:
        """Read a request; write the name of its object as clients of S3 do: those of GCS encode slashes and dots."""
        read = super().parse_request()
        if read and ("%2F" in self.path or "%2E" in self.path):
            path, mark, asked = self.path.partition("?")
            self.path = f"{quote(unquote(path))}{mark}{asked}"
        return read

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        with self.store.lock:
            self.store.at_once += 1
            self.store.most_at_once = max(self.store.most_at_once, self.store.at_once)
        try:
            if self.store.gate is not None:
                self.store.gate.wait(60)
            self.answer()
        finally:
            with self.store.lock:
                self.store.at_once -= 1

    def answer(self) -> None:
        with self.store.lock:
            number = len(self.store.requests)
            self.store.requests.append((self.command, self.path, self.headers.get("Range", "")))
        fault = self.store.fault(self.command, number)
        if fault == "hang":
            self.store.ended.wait()
        if fault in ("reset", "hang"):
            self.close_connection = True
            self.connection.close()
            return
        if self.lists(fault):
            return
        if self.path in self.store.moved:
            self.send(302, b"", Location=self.store.moved[self.path])
            return
        data = self.store.objects.get(self.path)
        status = int(fault) if fault.isdecimal() else 404 if data is None else 200
        if status != 200 or data is None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        try:
            self.send_object(data, fault)
        finally:
            if fault == "stall":  # also where the client had gone before it was answered
                self.store.left.set()

    def send_object(self, data: bytes, fault: str) -> None:
        tag, body = _tag(data), data
        given = self.headers.get("Range")
        if given and fault != "whole":
            begin, end = (int(part) for part in given.removeprefix("bytes=").split("-"))
            body = data[begin : end + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{begin + len(body) - 1}/{len(data)}")
            body += b"x" if fault == "long" else b""
        else:
            self.send_response(200)
        self.send_header("ETag", f'"{tag}"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET" and fault not in ("cut", "stall"):
            self.wfile.write(body)
        elif self.command == "GET":
            self.send_half(body, fault)

    def send_half(self, body: bytes, fault: str) -> None:
        self.wfile.write(body[: len(body) // 2])
        self.close_connection = True
        if fault == "stall":
            with suppress(OSError):
                self.connection.recv(1)

    def do_PUT(self) -> None:
        self.change()

    def do_POST(self) -> None:
        self.change()

    def do_DELETE(self) -> None:
        self.change()

    def change(self) -> None:
        """Answer a request that writes."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.store.lock:
            number = len(self.store.requests)
            self.store.requests.append((self.command, self.path, ""))
        fault = self.store.fault(self.command, number)
        if fault in ("reset", "hang"):
            if fault == "hang":
                self.store.ended.wait()
            self.close_connection = True
            self.connection.close()
            return
        path, _, asked = self.path.partition("?")
        query = dict(parse_qsl(asked, keep_blank_values=True))
        if fault.isdecimal():
            self.send(int(fault), b"")
        elif path.split("/")[1] not in self.store.buckets:
            self.send(404, b"<Error><Code>NoSuchBucket</Code></Error>")
        else:
            with self.store.lock:
                status, answer = _changed(self.store, self.command, path, query, body)
            self.send(status, answer, ETag=f'"{_tag(body)}"')

    def lists(self, fault: str) -> bool:
        """Answer a request for a list; return False for any other."""
        bucket = self.path.partition("?")[0].strip("/")
        asked = "list-type=2" in self.path and bucket in self.store.buckets and not fault
        if asked:
            self.send(200, _listed(self.store, self.path))
        return asked

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _changed(server: ObjectServer, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, bytes]:
    """Do what a request asks for; return status and body of the answer."""
    upload = query.get("uploadId", "")
    if upload and upload not in server.uploads:
        return 404, b""
    if method == "DELETE":
        server.uploads.pop(upload, None) if upload else server.objects.pop(path, None)
        return 204, b""
    if method == "POST" and "delete" in query:
        keys = re.findall(r"<Key>(.*?)</Key>", body.decode())
        for key in keys:
            server.objects.pop(f"{path}/{key}", None)
        told = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        return 200, f"<DeleteResult>{told}</DeleteResult>".encode()
    if method == "POST" and "uploads" in query:
        upload = f"upload-{len(server.requests)}"
        server.uploads[upload] = {}
        return 200, f"<R><UploadId>{upload}</UploadId></R>".encode()
    if method == "POST":
        if wrong := _wrong(server.uploads[upload], body.decode(), server.least_part):
            return 400, f"<Error><Code>{wrong}</Code></Error>".encode()
        parts = server.uploads.pop(upload)
        server.objects[path] = b"".join(parts[number] for number in sorted(parts))
        return 200, b"<R><ETag>tag</ETag></R>"
    if upload:
        server.uploads[upload][int(query["partNumber"])] = body
    else:
        server.objects[path] = body
    return 200, b""


def _wrong(parts: dict[int, bytes], asked: str, least: int) -> str:
    """Say what is wrong with the parts that a request names to complete an upload; nothing where they are right."""
    named = re.findall(r"<Part>(.*?)</Part>", asked, re.DOTALL)
    tags = [re.findall(r"<ETag>(.*?)</ETag>", part)[0].strip('"').replace("&quot;", "") for part in named]
    numbers = [int(re.findall(r"<PartNumber>(\d+)</PartNumber>", part)[0]) for part in named]
    if numbers != list(range(1, len(parts) + 1)) or tags != [_tag(parts[number]) for number in numbers]:
        return "InvalidPart"
    return "EntityTooSmall" if any(len(parts[number]) < least for number in numbers[:-1]) else ""


def _listed(server: ObjectServer, path: str) -> bytes:
    """Return the list of objects below a prefix, in any depth."""
    bucket, _, asked = path.partition("?")
    prefix = f"{bucket}/{dict(parse_qsl(asked)).get('prefix', '')}"
    with server.lock:
        told = "".join(
            f"<Contents><Key>{escape(name[len(bucket) + 1 :])}</Key><Size>{len(data)}</Size>"
            f"<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>{_tag(data)}</ETag></Contents>"
            for name, data in sorted(server.objects.items())
            if name.startswith(prefix)
        )
    return f"<ListBucketResult>{told}</ListBucketResult>".encode()


@lru_cache(64)
def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


class _QuietServer(ThreadingHTTPServer):
    """A server that ends all of its threads and connections with it."""

    daemon_threads = False  # closing waits for them
    request_queue_size = 64

    def __init__(self, *arguments: Any) -> None:
        self._connections: list[socket.socket] = []
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.append(request)
        super().process_request(request, client_address)

    def hang_up(self) -> None:
        """End the connections that clients keep open."""
        for each in self._connections:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:  # a client that has gone
        pass


@contextmanager
def object_server() -> Iterator[ObjectServer]:
    """Run a server for a block."""
    server = ObjectServer()
    with serving(type("Handler", (_Handler,), {"store": server}), server.ended) as port:
        server.url = f"http://127.0.0.1:{port}"
        yield server


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], ended: threading.Event) -> Iterator[int]:
    """Serve on a port of loopback for a block; ``ended`` is set before the connections are closed."""
    with _QuietServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield running.server_address[1]
        finally:
            ended.set()
            running.shutdown()
            thread.join()
            running.hang_up()
