"""Servers of object stores, one of each for all tests; a test is skipped where the server's package is not here."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("obstore")

from tests.servers.object_stores import STORES, NotHereError, ObjectStore
from tests.storage.conftest import helpers_that_stay  # noqa: F401  a fixture

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ObjectStore | str]]:
    """Servers by name, or why one is not there."""
    with ExitStack() as open_servers:
        found: dict[str, ObjectStore | str] = {}
        for name, start in STORES.items():
            try:
                found[name] = open_servers.enter_context(start(tmp_path_factory.mktemp(name)))
            except NotHereError as error:
                found[name] = str(error)
        yield found


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, stores: dict[str, ObjectStore | str]) -> ObjectStore:
    """A server, whose clients this process may be."""
    found = stores[request.param]
    if isinstance(found, str):
        pytest.skip(found)
    return found
