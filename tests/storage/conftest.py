"""What the tests of storage share: obstore's threads, which stay, are started before leaks are counted."""

from __future__ import annotations

import multiprocessing
from importlib.util import find_spec
from multiprocessing import forkserver, resource_tracker
from typing import TYPE_CHECKING

import pytest
from tests.storage.object_server import ObjectServer, object_server

from headrace.storage import objects, request_loop

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="package", autouse=True)
def helpers_that_stay() -> None:
    """Start what multiprocessing and obstore start once and leave."""
    forkserver.ensure_running()
    resource_tracker.ensure_running()
    multiprocessing.RawValue("i")
    if find_spec("obstore") is not None:
        with object_server() as server:
            server.objects["/a"] = b"a"
            objects.facts(f"{server.url}/a")


@pytest.fixture(autouse=True)
def requests_are_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send no request a second time because the machine is busy: tests count them."""
    monkeypatch.setattr(request_loop, "HEDGED", 0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    """Return an empty server, which answers for ``s3://bucket`` too."""
    with object_server() as found:
        for name, value in found.environment().items():
            monkeypatch.setenv(name, value)
        yield found
