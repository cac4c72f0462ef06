"""A real HTTP server of objects with ranges and ETags, whose faults a test chooses."""

from __future__ import annotations

import hashlib
import socket
import threading
from contextlib import contextmanager, suppress
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class ObjectServer:
    """Objects by name, and the faults that the next requests meet.

    ``fault(method, number)`` is called for each request, counted from 0, and says what goes wrong: "503", "403",
    "reset", "cut" (half of the body), "hang" (until the server ends), "whole" (no ranges), or nothing.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.fault: Callable[[str, int], str] = lambda _method, _number: ""
        self.requests: list[tuple[str, str, str]] = []
        self.at_once = self.most_at_once = 0
        self.gate: threading.Barrier | None = None
        self.lock, self.ended = threading.Lock(), threading.Event()
        self.url = ""

    def gets(self) -> list[str]:
        """Return the ranges that were asked for."""
        return [said for method, _, said in self.requests if method == "GET"]


def _handler(server: ObjectServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            with server.lock:
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
            try:
                if server.gate is not None:
                    server.gate.wait(60)
                self.answer()
            finally:
                with server.lock:
                    server.at_once -= 1

        def answer(self) -> None:
            with server.lock:
                number = len(server.requests)
                server.requests.append((self.command, self.path, self.headers.get("Range", "")))
            fault = server.fault(self.command, number)
            if fault == "hang":
                server.ended.wait()
            if fault in ("reset", "hang"):
                self.close_connection = True
                self.connection.close()
                return
            data = server.objects.get(self.path)
            status = int(fault) if fault.isdecimal() else 404 if data is None else 200
            if status != 200 or data is None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            tag, body = _tag(data), data
            given = self.headers.get("Range")
            if given and fault != "whole":
                begin, end = (int(part) for part in given.removeprefix("bytes=").split("-"))
                body = data[begin : end + 1]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {begin}-{begin + len(body) - 1}/{len(data)}")
            else:
                self.send_response(200)
            self.send_header("ETag", f'"{tag}"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
                if fault == "cut":
                    self.close_connection = True

    return Handler


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
    with serving(_handler(server), server.ended) as port:
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
