"""An HTTP proxy on loopback, in front of a real server, that adds latency and faults."""

from __future__ import annotations

import http.client
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

from tests.storage.object_server import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class FaultProxy:
    """Passes requests on to ``port``, after ``latency`` seconds.

    ``fault(method, number)`` is called for each request, counted from 0 by method, and says what goes wrong: "503",
    "429", "reset", "cut" (half of the body), "stall" (half of the body, and then nothing), or nothing.

    ``fake_gcs``: whether the server is fake-gcs-server, which asks for its own name, takes PUT requests only with the
    query of a signed URL, and answers them without an ETag.
    """

    def __init__(self, port: int, *, fake_gcs: bool) -> None:
        self.fake_gcs = fake_gcs
        self.target, self.port, self.latency = port, 0, 0.0
        self.fault: Callable[[str, int], str] = lambda _method, _number: ""
        self.counts: dict[str, int] = {}
        self.nbytes = 0
        self.lock, self.ended = threading.Lock(), threading.Event()


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    proxy: FaultProxy
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_DELETE(self) -> None:
        self.answer()

    def answer(self) -> None:
        proxy = self.proxy
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with proxy.lock:
            number = proxy.counts.get(self.command, 0)
            proxy.counts[self.command] = number + 1
        proxy.ended.wait(proxy.latency)
        fault = proxy.fault(self.command, number)
        if fault == "reset":
            self.close_connection = True
            return
        if fault.isdecimal():
            self.send_response(int(fault))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = self.passed_on(sent)
        if self.command == "HEAD":
            return
        broken = fault in ("cut", "stall")
        self.wfile.write(body[: len(body) // 2] if broken else body)
        with proxy.lock:
            proxy.nbytes += len(body)
        if fault == "stall":
            self.wfile.flush()
            proxy.ended.wait()
        self.close_connection = self.close_connection or broken

    def passed_on(self, sent: bytes) -> bytes:
        """Send the request on, and the head of its answer back; return the body."""
        upstream = http.client.HTTPConnection("127.0.0.1", self.proxy.target, timeout=20)
        try:
            headers = {name.lower(): value for name, value in self.headers.items()}
            path = self.path
            if self.proxy.fake_gcs:
                headers["host"] = f"127.0.0.1:{self.proxy.target}"
                path += "?X-Goog-Algorithm=any" if self.command == "PUT" else ""
            upstream.request(self.command, path, body=sent or None, headers=headers)
            answer = upstream.getresponse()
            body = answer.read()
        finally:
            upstream.close()
        self.send_response(answer.status)
        if self.proxy.fake_gcs and self.command == "PUT":
            self.send_header("ETag", '"any"')
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
        if self.command != "HEAD" and answer.status != 204 and answer.getheader("Content-Length") is None:
            self.send_header("Content-Length", str(len(body)))  # it came in chunks
        self.end_headers()
        return body


@contextmanager
def fault_proxy(port: int, *, fake_gcs: bool = False) -> Iterator[FaultProxy]:
    """Run a proxy for a block."""
    proxy = FaultProxy(port, fake_gcs=fake_gcs)
    with serving(type("Handler", (_Handler,), {"proxy": proxy}), proxy.ended) as proxy.port:
        yield proxy
